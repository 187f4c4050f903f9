//! Ends that are no delivery: given up, discarded, expired; and what somebody is told of each.

use tramite_proto::{
    ids::ConversationId,
    pb::exchange::v1::{RetryLater, settlement::Outcome},
    pb::operations::v1::{
        DiscardRequest, GetMessageRequest, GetOverviewRequest, HoldRequest, ListDeadLettersRequest, RedriveRequest,
        ReleaseRequest, WatchRequest,
    },
    reason::{Reason, Refused},
    statement::Event,
    states::delivery::{self, Actor, State},
};

use super::{
    adapter::{Adapter, Draft, Inbox, random, two},
    world::World,
};

/// Puts the next message off until it is given up.
async fn wear_out(recipient: &mut Inbox) {
    for attempt in 1..=3 {
        let delivery = recipient.delivery().await;
        assert_eq!(delivery.attempt, attempt);
        recipient.later(&delivery, 0).await;
    }
}

async fn state(world: &World, draft: &Draft) -> String {
    let request = GetMessageRequest { message_id: draft.id.to_string() };
    world.operations().get_message(request).await.unwrap().into_inner().state
}

/// The states in which a message was seen, each of which must follow from the one before by a line of the table.
struct Story<'a> {
    world: &'a World,
    draft: &'a Draft,
    at: Option<State>,
}

impl Story<'_> {
    async fn goes_on(&mut self, to: State, by: Actor) {
        assert_eq!(state(self.world, self.draft).await, to.as_str());
        assert!(delivery::may(self.at, to, by), "{:?} -> {to} by {by} is not in the table", self.at);
        self.at = Some(to);
    }
}

#[tokio::test]
async fn every_change_of_state_that_an_operator_sees_is_in_the_table() {
    use Actor::{Clock, Gateway, Operator, Recipient};
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let mut operations = world.operations();
    let drafts = [caritas.refer(&inps).await, caritas.refer(&inps).await];
    let mut story = Story { world: &world, draft: &drafts[0], at: None };
    story.goes_on(State::Queued, Gateway).await;
    let hold = HoldRequest { institution: "inps".to_owned(), reason: "maintenance".to_owned() };
    operations.hold(hold).await.unwrap();
    story.goes_on(State::Held, Operator).await;
    let release = ReleaseRequest { institution: "inps".to_owned(), reason: "done".to_owned() };
    operations.release(release).await.unwrap();
    story.goes_on(State::Queued, Operator).await;

    let mut recipient = inps.receive(1).await;
    let delivery = recipient.delivery().await;
    assert_eq!(delivery.origin.jti, drafts[0].id);
    story.goes_on(State::Leased, Gateway).await;
    recipient.later(&delivery, 600_000).await;
    story.goes_on(State::RetryWait, Recipient).await;
    // The other one takes the credit, so that this one is not leased as soon as it may be.
    assert_eq!(recipient.delivery().await.origin.jti, drafts[1].id);
    world.clock.advance_s(601);
    story.goes_on(State::Queued, Clock).await;
    recipient.sign_for(&inps, delivery.id, &inps.receipt(&delivery, true)).await.unwrap();
    story.goes_on(State::Delivered, Recipient).await;
}

#[tokio::test]
async fn after_its_attempts_a_message_is_a_dead_letter_its_sender_is_told_and_a_redrive_delivers_it() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let (mut sender, mut recipient) = (caritas.receive(8).await, inps.receive(8).await);
    let draft = caritas.refer(&inps).await;
    wear_out(&mut recipient).await;
    let notice = sender.notice().await;
    let evidence = notice.evidence.clone().unwrap();
    assert_eq!((evidence.evt, evidence.rsn.as_deref()), (Event::ContentHandoverFailure, Some("ATTEMPTS_EXHAUSTED")));
    sender.acknowledge(&notice).await;
    assert!(recipient.is_quiet().await);
    let mut story = Story { world: &world, draft: &draft, at: Some(State::Leased) };
    story.goes_on(State::DeadLettered, Actor::Gateway).await;

    let mut operations = world.operations();
    let listed = operations.list_dead_letters(ListDeadLettersRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.messages.len(), 1);
    assert_eq!(
        (listed.messages[0].message_id.as_str(), listed.messages[0].state.as_str()),
        (draft.id.to_string().as_str(), "DEAD_LETTERED")
    );
    let request = RedriveRequest { message_id: draft.id.to_string(), reason: String::new() };
    let refused = Refused::from_status(&operations.redrive(request.clone()).await.unwrap_err()).unwrap();
    assert_eq!(refused.field.as_deref(), Some("reason"));
    operations
        .redrive(RedriveRequest { reason: "the recipient is well again".to_owned(), ..request.clone() })
        .await
        .unwrap();

    let delivery = recipient.delivery().await;
    assert_eq!((delivery.origin.jti, delivery.attempt), (draft.id, 1));
    recipient.opened(&inps, &delivery).await;
    assert_eq!(sender.notice().await.evidence.unwrap().evt, Event::ContentHandover);
    let again = RedriveRequest { reason: "once more".to_owned(), ..request };
    let refused = Refused::from_status(&operations.redrive(again).await.unwrap_err()).unwrap();
    assert_eq!(refused.reason, Reason::NotDeadLettered);
    assert_eq!(world.metric("dead_letters_total", "").await, 1.0);
}

#[tokio::test]
async fn a_dead_letter_holds_what_follows_it_until_it_is_discarded() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let (mut sender, mut recipient) = (caritas.receive(8).await, inps.receive(8).await);
    let conversation = Some(ConversationId::new(0, random()));
    let drafts = [(); 2].map(|()| Draft { conversation, ..caritas.draft("inps") });
    for draft in &drafts {
        caritas.submit(&caritas.message(draft, &inps)).await.unwrap();
    }
    wear_out(&mut recipient).await;
    sender.notice().await;
    assert!(recipient.is_quiet().await);
    // Another conversation goes on.
    let other = caritas.refer(&inps).await;
    let delivery = recipient.delivery().await;
    assert_eq!(delivery.origin.jti, other.id);
    recipient.opened(&inps, &delivery).await;

    let request = DiscardRequest { message_id: drafts[0].id.to_string(), reason: "sent by mistake".to_owned() };
    world.operations().discard(request).await.unwrap();
    assert_eq!(recipient.delivery().await.origin.jti, drafts[1].id);
    Story { world: &world, draft: &drafts[0], at: Some(State::DeadLettered) }
        .goes_on(State::Discarded, Actor::Operator)
        .await;
    loop {
        let notice = sender.notice().await;
        if notice.message_id == drafts[0].id.to_string() {
            assert_eq!(notice.evidence.unwrap().rsn.as_deref(), Some("DISCARDED"));
            break;
        }
    }
}

#[tokio::test]
async fn what_nobody_took_before_its_expiry_ends_with_its_case_and_the_sender_is_told() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let mut sender = caritas.receive(8).await;
    let draft = Draft { lives_s: 3_600, conversation: Some(ConversationId::new(0, random())), ..caritas.draft("inps") };
    caritas.submit(&caritas.message(&draft, &inps)).await.unwrap();
    world.clock.advance_s(3_601);
    let notice = sender.notice().await;
    let evidence = notice.evidence.clone().unwrap();
    assert_eq!((evidence.evt, evidence.rsn.as_deref()), (Event::ContentConsignmentFailure, Some("TTL_EXPIRED")));
    assert_eq!(evidence.mid, draft.id);
    sender.acknowledge(&notice).await;
    assert_eq!(state(&world, &draft).await, "EXPIRED");
    assert!(inps.receive(8).await.is_quiet().await);
    // The case went with it.
    let update = Draft {
        case: Some(tramite_proto::ids::CaseId::from(draft.id)),
        conversation: draft.conversation,
        message_type: "tramite.body.v1.ReferralUpdate",
        status: "accepted",
        ..inps.draft("caritas")
    };
    let refused = inps.submit(&inps.message(&update, &caritas)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::CaseTransitionInvalid);
    // For good: nothing that follows goes to a recipient who never heard of it.
    let closes = Draft { status: "closed", id: caritas.draft("inps").id, ..caritas.draft("inps") };
    let closes =
        Draft { case: update.case, conversation: draft.conversation, message_type: update.message_type, ..closes };
    let refused = caritas.submit(&caritas.message(&closes, &inps)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::CaseTransitionInvalid);
}

#[tokio::test]
async fn what_is_on_its_way_does_not_expire() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let (mut sender, mut recipient) = (caritas.receive(8).await, inps.receive(1).await);
    let drafts = [(); 2].map(|()| Draft { lives_s: 3_600, ..caritas.draft("inps") });
    for draft in &drafts {
        caritas.submit(&caritas.message(draft, &inps)).await.unwrap();
    }
    let delivery = recipient.delivery().await;
    assert_eq!(delivery.origin.jti, drafts[0].id);
    world.clock.advance_s(3_601);
    // The other one, for which the recipient had no room, has expired: the pass of the clock has come and gone.
    let notice = sender.notice().await;
    assert_eq!(notice.evidence.as_ref().unwrap().mid, drafts[1].id);
    sender.acknowledge(&notice).await;
    assert_eq!(state(&world, &drafts[0]).await, "LEASED");
    recipient.opened(&inps, &delivery).await;
    assert_eq!(sender.notice().await.evidence.unwrap().evt, Event::ContentHandover);
}

#[tokio::test]
async fn a_receipt_after_the_end_is_recorded_once_and_told_to_both() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let (mut sender, mut recipient) = (caritas.receive(8).await, inps.receive(8).await);
    let draft = Draft { lives_s: 3_600, ..caritas.draft("inps") };
    caritas.submit(&caritas.message(&draft, &inps)).await.unwrap();
    let delivery = recipient.delivery().await;
    recipient.later(&delivery, 600_000).await;
    world.clock.advance_s(3_601);
    assert_eq!(sender.notice().await.evidence.unwrap().evt, Event::ContentConsignmentFailure);
    let receipt = inps.receipt(&delivery, true);
    recipient.sign_for(&inps, delivery.id, &receipt).await.unwrap();
    for inbox in [&mut sender, &mut recipient] {
        let notice = inbox.notice().await;
        assert_eq!(notice.receipt.as_ref(), Some(&receipt));
        assert_eq!(notice.evidence.as_ref().unwrap().evt, Event::ContentHandover);
        inbox.acknowledge(&notice).await;
    }
    assert_eq!(state(&world, &draft).await, "EXPIRED");
    recipient.sign_for(&inps, delivery.id, &receipt).await.unwrap();
    assert!(sender.is_quiet().await && recipient.is_quiet().await);
}

#[tokio::test]
async fn a_lease_that_is_not_settled_in_time_is_taken_back() {
    let world = World::with(|config| config.delivery.lease_s = 1).await;
    let (caritas, inps) = two(&world).await;
    let draft = caritas.refer(&inps).await;
    let mut recipient = inps.receive(8).await;
    assert_eq!(recipient.delivery().await.attempt, 1);
    assert_eq!(recipient.delivery().await.attempt, 2);
    let request = GetMessageRequest { message_id: draft.id.to_string() };
    let message = world.operations().get_message(request).await.unwrap().into_inner();
    assert_eq!(message.attempts[0].reason, "LEASE_TIMEOUT");
}

#[tokio::test]
async fn a_clock_far_from_the_last_record_lets_nothing_expire_until_an_operator_says_so() {
    let mut world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let draft = Draft { lives_s: 3_600, ..caritas.draft("inps") };
    caritas.submit(&caritas.message(&draft, &inps)).await.unwrap();
    world.stop().await;
    world.clock.advance_s(3 * 86_400);
    world.start().await;
    assert_eq!(world.metric("clock_held", "").await, 1.0);
    let caritas = Adapter::of(&world, "caritas");
    let mut sender = caritas.receive(8).await;
    // One interval of the expiry task and some; the state says that it is still there.
    tokio::time::sleep(crate::limits::EXPIRY_INTERVAL + std::time::Duration::from_millis(300)).await;
    assert_eq!(state(&world, &draft).await, "QUEUED");
    let mut operations = world.operations();
    let release = ReleaseRequest { institution: "clock".to_owned(), reason: "the clock is right".to_owned() };
    operations.release(release).await.unwrap();
    assert_eq!(sender.notice().await.evidence.unwrap().evt, Event::ContentConsignmentFailure);
    let overview = operations.get_overview(GetOverviewRequest {}).await.unwrap().into_inner();
    assert_eq!(overview.gateway, "gateway");
}

#[tokio::test]
async fn a_gateway_to_which_nothing_happens_for_days_has_no_gap() {
    let mut world = World::new().await;
    let mut overviews = world.operations().watch(WatchRequest {}).await.unwrap().into_inner();
    let mut reached = overviews.message().await.unwrap().unwrap().sequence;
    for _ in 0..3 {
        world.clock.advance_s(20 * 3_600);
        loop {
            let sequence = overviews.message().await.unwrap().unwrap().sequence;
            if sequence > reached {
                reached = sequence;
                break;
            }
        }
    }
    drop(overviews);
    world.stop().await;
    world.clock.advance_s(20 * 3_600);
    world.start().await;
    assert_eq!(world.metric("clock_held", "").await, 0.0);
}

#[tokio::test]
async fn a_notice_that_is_put_off_again_and_again_comes_ever_more_seldom_and_is_never_given_up() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let (mut sender, mut recipient) = (caritas.receive(8).await, inps.receive(8).await);
    caritas.refer(&inps).await;
    let delivery = recipient.delivery().await;
    recipient.opened(&inps, &delivery).await;
    for _ in 0..3 {
        let notice = sender.notice().await;
        let later = RetryLater { delay_ms: 0, reason: "SHUTTING_DOWN".to_owned(), detail: String::new() };
        sender.settle(Vec::new(), notice.id, Outcome::Retry(later)).await.unwrap();
    }
    assert!(sender.is_quiet().await, "it waits, although nothing asked for it");
    world.clock.advance_s(61);
    let notice = sender.notice().await;
    let later = RetryLater { delay_ms: 0, reason: "SHUTTING_DOWN".to_owned(), detail: String::new() };
    sender.settle(Vec::new(), notice.id, Outcome::Retry(later)).await.unwrap();
    world.clock.advance_s(61);
    // What arrives wakes the stream, which then takes everything that is due.
    inps.refer(&caritas).await;
    sender.delivery().await;
    assert!(sender.is_quiet().await, "it waits longer than the last time");
    world.clock.advance_s(60);
    let notice = sender.notice().await;
    sender.acknowledge(&notice).await;
    assert_eq!(world.metric("dead_letters_total", "").await, 0.0);
}
