//! A clock that steps by 400 days, while the gateway runs or while it is stopped: nothing expires, nothing is deleted, refused or given up
//! for good, until an operator says that the clock is right; then all of it is.

use tonic::transport::Channel;
use tramite_proto::{
    ids::{ConversationId, Digest},
    pb::exchange::v1::{RetryLater, settlement::Outcome},
    pb::operations::v1::{GetMessageRequest, GetOverviewRequest, ReleaseRequest, operations_client::OperationsClient},
    reason::Reason,
    statement::{Event, SealedPart},
};

use super::{
    adapter::{Adapter, Draft, Inbox, random, two},
    log::Log,
    parts::{header, put, sealed},
    world::{SOON, TestClock, World},
};

const DAY_S: i64 = 86_400;
const STEPS_S: [i64; 2] = [400 * DAY_S, -400 * DAY_S];

/// Resolves when the metric says that the clock is held.
async fn held(world: &World) {
    let seen = async {
        while world.metric("clock_held", "").await != 1.0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, seen).await.expect("the clock is held soon");
}

/// Looks of the clock that come and go.
async fn some_looks() {
    tokio::time::sleep(crate::limits::EXPIRY_INTERVAL * 2 + std::time::Duration::from_millis(200)).await;
}

async fn state(operations: &mut OperationsClient<Channel>, draft: &Draft) -> String {
    let request = GetMessageRequest { message_id: draft.id.to_string() };
    operations.get_message(request).await.unwrap().into_inner().state
}

async fn release(operations: &mut OperationsClient<Channel>) {
    let release = ReleaseRequest { institution: "clock".to_owned(), reason: "looked at the wall".to_owned() };
    operations.release(release).await.unwrap();
}

/// Those two, with clocks that are right.
async fn honest(world: &World) -> (Adapter, Adapter) {
    let join = async |who| Adapter { clock: TestClock::default(), ..Adapter::join(world, who).await };
    (join("caritas").await, join("inps").await)
}

/// Puts the next delivery off as often as it takes for a dead letter.
async fn wear_out(recipient: &mut Inbox) {
    for _ in 0..3 {
        let delivery = recipient.delivery().await;
        recipient.later(&delivery, 0).await;
    }
}

#[tokio::test]
async fn a_step_of_400_days_under_a_running_gateway_refuses_and_gives_up_nothing() {
    for step_s in STEPS_S {
        let world = World::new().await;
        let (caritas, inps) = honest(&world).await;
        let (mut sender, mut recipient) = (caritas.receive(8).await, inps.receive(8).await);
        let mut operations = world.operations();
        let draft = Draft { lives_s: 3_600, deadline_s: Some(1_800), ..caritas.draft("inps") };
        let message = caritas.message(&draft, &inps);
        let accepted = caritas.submit(&message).await.unwrap();
        let delivery = recipient.delivery().await;
        assert_eq!(state(&mut operations, &draft).await, "LEASED");

        let log = Log::listen();
        world.clock.advance_s(step_s);
        held(&world).await;
        let overview = operations.get_overview(GetOverviewRequest {}).await.unwrap().into_inner();
        assert!(overview.clock_held.contains("the clock says"), "{}", overview.clock_held);
        log.line(&format!("why={:?}", overview.clock_held)).await;
        // What is new is put off, what was accepted gets its original answer.
        let next = Draft { conversation: Some(ConversationId::new(0, random())), ..caritas.draft("inps") };
        let refused = caritas.submit(&caritas.message(&next, &inps)).await.unwrap_err();
        assert_eq!(refused.reason, Reason::ClockHeld, "{step_s}");
        assert!(refused.retryable());
        assert_eq!(caritas.submit(&message).await.unwrap(), accepted, "{step_s}");
        // A receipt is not taken, and not for good.
        let receipt = inps.receipt(&delivery, true);
        let refused = recipient.sign_for(&inps, delivery.id, &receipt).await.unwrap_err();
        assert!(refused.retryable(), "{step_s}: {refused:?}");
        some_looks().await;
        assert!(sender.is_quiet().await, "nobody is told of any end");

        world.clock.advance_s(-step_s);
        assert_eq!(world.metric("clock_held", "").await, 1.0, "it holds until an operator has spoken");
        recipient.sign_for(&inps, delivery.id, &receipt).await.unwrap();
        assert_eq!(sender.notice().await.evidence.unwrap().evt, Event::ContentHandover);
        caritas.submit(&caritas.message(&next, &inps)).await.unwrap();
        wear_out(&mut recipient).await;
        assert_eq!(state(&mut operations, &next).await, "RETRY_WAIT", "no dead letter while the clock is held");
        world.clock.advance_s(DAY_S + 1);
        some_looks().await;
        assert!(sender.is_quiet().await, "nor does anything expire");
        release(&mut operations).await;
        assert_eq!(sender.notice().await.evidence.unwrap().evt, Event::ContentConsignmentFailure);
        assert_eq!(state(&mut operations, &next).await, "EXPIRED");
        assert_eq!(world.metric("clock_held", "").await, 0.0);
    }
}

#[tokio::test]
async fn a_step_of_400_days_of_a_stopped_gateway_ends_and_deletes_nothing() {
    for step_s in STEPS_S {
        let mut world = World::new().await;
        let (caritas, inps) = two(&world).await;
        let mut recipient = inps.receive(8).await;
        // One dead letter, one that waits with a case that has a deadline, one whose part is there and which is still to come.
        let dead = caritas.refer(&inps).await;
        wear_out(&mut recipient).await;
        drop(recipient);
        let waiting = Draft { lives_s: 2 * DAY_S, deadline_s: Some(DAY_S), ..caritas.draft("inps") };
        let message = caritas.message(&waiting, &inps);
        let accepted = caritas.submit(&message).await.unwrap();
        let bytes = sealed();
        let part = SealedPart { len: bytes.len() as u64, s256: Digest::of(&bytes) };
        let coming = Draft { parts: vec![part], ..caritas.draft("inps") };
        let with_part = caritas.message(&coming, &inps);
        assert!(put(&caritas, header(&coming, 0, &bytes), &bytes).await.unwrap());

        // Without a certificate that counts then it would not even start.
        world.stop().await;
        world.clock.advance_s(step_s);
        world.renew();
        world.start().await;
        assert_eq!(world.metric("clock_held", "").await, 1.0, "{step_s}");
        some_looks().await;
        world.stop().await;
        world.clock.advance_s(-step_s);
        world.renew();
        world.start().await;

        assert_eq!(world.metric("clock_held", "").await, 1.0, "{step_s}: it holds until an operator has spoken");
        let mut operations = world.operations();
        let (caritas, inps) = (Adapter::of(&world, "caritas"), Adapter::of(&world, "inps"));
        assert_eq!(state(&mut operations, &waiting).await, "QUEUED");
        assert_eq!(state(&mut operations, &dead).await, "DEAD_LETTERED");
        assert_eq!(caritas.submit(&message).await.unwrap(), accepted, "{step_s}");
        caritas.submit(&with_part).await.expect("its part is still there");
        let mut sender = caritas.receive(8).await;
        let given_up = sender.notice().await;
        sender.acknowledge(&given_up).await;
        assert!(sender.is_quiet().await, "{step_s}: nobody is told of any end");
        // Three days later by the same clock, and an operator's word: the case, the message and whatever else is past its time.
        world.clock.advance_s(3 * DAY_S);
        some_looks().await;
        assert!(sender.is_quiet().await, "{step_s}");
        release(&mut operations).await;
        let mut ended = Vec::new();
        while ended.len() < 2 {
            let notice = sender.notice().await;
            sender.acknowledge(&notice).await;
            ended.push(notice.evidence.unwrap().mid);
        }
        assert!(ended.contains(&waiting.id) && ended.contains(&coming.id), "{step_s}: {ended:?}");
        assert_eq!(state(&mut operations, &dead).await, "DEAD_LETTERED", "a dead letter is an operator's alone");
        drop(inps);
    }
}

#[tokio::test]
async fn a_configuration_that_answers_in_advance_is_an_operators_word() {
    let mut world = World::with(|config| config.clock.accept_gap = true).await;
    let (caritas, inps) = two(&world).await;
    let draft = Draft { lives_s: 3_600, ..caritas.draft("inps") };
    caritas.submit(&caritas.message(&draft, &inps)).await.unwrap();
    world.stop().await;
    world.clock.advance_s(3 * DAY_S);
    world.start().await;
    assert_eq!(world.metric("clock_held", "").await, 0.0);
    let mut sender = Adapter::of(&world, "caritas").receive(8).await;
    assert_eq!(sender.notice().await.evidence.unwrap().evt, Event::ContentConsignmentFailure);
}

#[tokio::test]
async fn nothing_is_given_up_for_a_recipient_whose_clock_is_wrong() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let mut recipient = inps.receive(8).await;
    caritas.refer(&inps).await;
    // Three attempts are granted.
    for attempt in 1..=5 {
        let delivery = recipient.delivery().await;
        assert_eq!(delivery.attempt, attempt);
        let later = RetryLater { delay_ms: 60_000, reason: "CLOCK_HELD".to_owned(), detail: String::new() };
        recipient.settle(Vec::new(), delivery.id, Outcome::Retry(later)).await.unwrap();
    }
    let delivery = recipient.delivery().await;
    recipient.opened(&inps, &delivery).await;
    assert_eq!(world.metric("dead_letters_total", "").await, 0.0);
}
