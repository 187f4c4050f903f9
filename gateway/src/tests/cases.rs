//! Cases: the gateway enforces casework as far as origin shows it.

use tramite_proto::{
    ids::CaseId,
    pb::{
        exchange::v1::{RetryLater, settlement::Outcome},
        operations::v1::{GetMessageRequest, ReleaseRequest},
    },
    reason::Reason,
    statement::Event,
};

use super::{
    adapter::{Adapter, Draft, two},
    world::World,
};

fn update(from: &Adapter, to: &Adapter, opening: &Draft, status: &'static str, reason: Option<&'static str>) -> Draft {
    Draft {
        case: Some(CaseId::from(opening.id)),
        conversation: opening.conversation,
        message_type: "tramite.body.v1.ReferralUpdate",
        status,
        reason,
        ..from.draft(&to.name)
    }
}

async fn opened(caritas: &Adapter, inps: &Adapter, deadline_s: Option<i64>) -> Draft {
    let conversation = Some(tramite_proto::ids::ConversationId::new(0, super::adapter::random()));
    let draft = Draft { conversation, deadline_s, ..caritas.draft(&inps.name) };
    caritas.submit(&caritas.message(&draft, inps)).await.unwrap();
    draft
}

#[tokio::test]
async fn only_the_two_of_a_case_move_it_and_only_as_the_table_says() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let comune = Adapter::join(&world, "comune").await;
    let case = opened(&caritas, &inps, None).await;
    let submit = async |from: &Adapter, to: &Adapter, draft: Draft| {
        from.submit(&from.message(&draft, to)).await.map(|_| ()).map_err(|refused| refused.reason)
    };
    // The opener cannot accept its own referral.
    let own = update(&caritas, &inps, &case, "accepted", None);
    assert_eq!(submit(&caritas, &inps, own).await, Err(Reason::CaseTransitionInvalid));
    // Nor can the responder tell it to somebody else.
    let aside = update(&inps, &comune, &case, "accepted", None);
    assert_eq!(submit(&inps, &comune, aside).await, Err(Reason::CaseNotParty));
    // Another conversation, another kind of case.
    let elsewhere = Draft { conversation: None, ..update(&inps, &caritas, &case, "accepted", None) };
    assert_eq!(submit(&inps, &caritas, elsewhere).await, Err(Reason::CaseMismatch));
    let document = "tramite.body.v1.DocumentResponse";
    let other_kind = Draft { message_type: document, ..update(&inps, &caritas, &case, "provided", None) };
    assert_eq!(submit(&inps, &caritas, other_kind).await, Err(Reason::CaseMismatch));
    // A rejection needs a reason of its list.
    let bare = update(&inps, &caritas, &case, "rejected", None);
    assert_eq!(submit(&inps, &caritas, bare).await, Err(Reason::CaseReasonInvalid));
    assert_eq!(submit(&inps, &caritas, update(&inps, &caritas, &case, "accepted", None)).await, Ok(()));
    assert_eq!(
        submit(&inps, &caritas, update(&inps, &caritas, &case, "accepted", None)).await,
        Err(Reason::CaseTransitionInvalid)
    );
}

#[tokio::test]
async fn a_case_that_nobody_takes_up_ends_at_its_deadline_and_both_are_told() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let (mut sender, mut recipient) = (caritas.receive(8).await, inps.receive(8).await);
    let case = opened(&caritas, &inps, Some(3_600)).await;
    let delivery = recipient.delivery().await;
    recipient.opened(&inps, &delivery).await;
    assert_eq!(sender.notice().await.evidence.unwrap().evt, Event::ContentHandover);

    world.clock.advance_s(3_601);
    for inbox in [&mut sender, &mut recipient] {
        let notice = inbox.notice().await;
        let evidence = notice.evidence.clone().unwrap();
        assert_eq!((evidence.evt, evidence.mid), (Event::AcceptanceRejectionExpiry, case.id));
        assert_eq!(notice.message_id, case.id.to_string());
        inbox.acknowledge(&notice).await;
    }
    let late = update(&inps, &caritas, &case, "accepted", None);
    let refused = inps.submit(&inps.message(&late, &caritas)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::CaseTransitionInvalid);
    assert_eq!(world.metric("cases_expired_total", "").await, 1.0);
}

#[tokio::test]
async fn a_case_that_was_taken_up_has_no_deadline_any_more() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let case = opened(&caritas, &inps, Some(3_600)).await;
    let accepted = update(&inps, &caritas, &case, "accepted", None);
    inps.submit(&inps.message(&accepted, &caritas)).await.unwrap();
    world.clock.advance_s(3_601);
    let next = opened(&caritas, &inps, Some(1)).await;
    world.clock.advance_s(2);
    // When the later one has expired, the earlier one has had its chance to.
    let mut sender = caritas.receive(8).await;
    loop {
        let notice = sender.notice().await;
        if notice.evidence.is_some_and(|evidence| evidence.evt == Event::AcceptanceRejectionExpiry) {
            assert_eq!(notice.message_id, next.id.to_string());
            break;
        }
    }
}

#[tokio::test]
async fn a_move_that_the_other_side_could_not_open_is_taken_back_and_may_be_sent_again() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let mut recipient = caritas.receive(8).await;
    let case = opened(&caritas, &inps, None).await;
    let submit =
        async |status| inps.submit(&inps.message(&update(&inps, &caritas, &case, status, None), &caritas)).await;
    for status in ["accepted", "in_progress"] {
        submit(status).await.unwrap();
        let delivery = recipient.delivery().await;
        recipient.opened(&caritas, &delivery).await;
    }
    submit("completed").await.unwrap();
    let delivery = recipient.delivery().await;
    assert_eq!(submit("completed").await.unwrap_err().reason, Reason::CaseTransitionInvalid);
    recipient.sign_for(&caritas, delivery.id, &caritas.receipt(&delivery, false)).await.unwrap();
    submit("completed").await.unwrap();
    // What was opened stands.
    let delivery = recipient.delivery().await;
    recipient.opened(&caritas, &delivery).await;
    assert_eq!(submit("completed").await.unwrap_err().reason, Reason::CaseTransitionInvalid);
}

/// Until so many have expired.
async fn expire(world: &World, sender: &mut super::adapter::Inbox, count: usize) {
    world.clock.advance_s(3_601);
    for _ in 0..count {
        let notice = sender.notice().await;
        assert_eq!(notice.evidence.as_ref().unwrap().evt, Event::ContentConsignmentFailure);
        sender.acknowledge(&notice).await;
    }
}

#[tokio::test]
async fn moves_that_expire_together_take_the_case_back_before_all_of_them() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let case = opened(&caritas, &inps, None).await;
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    recipient.opened(&inps, &delivery).await;
    let submit = async |status| {
        let draft = Draft { lives_s: 3_600, ..update(&inps, &caritas, &case, status, None) };
        inps.submit(&inps.message(&draft, &caritas)).await.map(drop).map_err(|refused| refused.reason)
    };
    for status in ["received", "accepted"] {
        assert_eq!(submit(status).await, Ok(()));
    }
    expire(&world, &mut recipient, 2).await;
    assert_eq!(submit("in_progress").await, Err(Reason::CaseTransitionInvalid));
    assert_eq!(submit("received").await, Ok(()));
}

#[tokio::test]
async fn a_referral_that_was_withdrawn_before_anybody_had_it_does_not_rise_again() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let conversation = Some(tramite_proto::ids::ConversationId::new(0, super::adapter::random()));
    let case = Draft { conversation, lives_s: 3_600, ..caritas.draft("inps") };
    caritas.submit(&caritas.message(&case, &inps)).await.unwrap();
    let submit = async || {
        let cancelled = update(&caritas, &inps, &case, "cancelled", Some("PERSON_DECLINED"));
        let cancelled = Draft { lives_s: 3_600, ..cancelled };
        caritas.submit(&caritas.message(&cancelled, &inps)).await.map(drop).map_err(|refused| refused.reason)
    };
    assert_eq!(submit().await, Ok(()));
    expire(&world, &mut caritas.receive(8).await, 2).await;
    assert_eq!(submit().await, Err(Reason::CaseTransitionInvalid));
}

#[tokio::test]
async fn of_a_case_that_passed_its_deadline_nobody_is_told_before_the_message_that_opened_it() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let case = opened(&caritas, &inps, Some(3_600)).await;
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    recipient.later(&delivery, 0).await;
    let delivery = recipient.delivery().await;
    world.clock.advance_s(3_601);
    let mut sender = caritas.receive(8).await;
    assert_eq!(sender.notice().await.evidence.unwrap().evt, Event::AcceptanceRejectionExpiry);
    assert!(recipient.is_quiet().await, "it has not heard of the case");
    recipient.opened(&inps, &delivery).await;
    world.clock.advance_s(3_600);
    // What arrives wakes the stream, which then takes everything that is due.
    caritas.refer(&inps).await;
    let notice = recipient.notice().await;
    assert_eq!(
        (notice.evidence.unwrap().evt, notice.message_id),
        (Event::AcceptanceRejectionExpiry, case.id.to_string())
    );
}

#[tokio::test]
async fn what_follows_an_opening_that_expired_ends_when_its_recipient_does_not_know_the_case() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let conversation = Some(tramite_proto::ids::ConversationId::new(0, super::adapter::random()));
    let case = Draft { conversation, lives_s: 3_600, ..caritas.draft("inps") };
    let cancelled = update(&caritas, &inps, &case, "cancelled", Some("PERSON_DECLINED"));
    for draft in [&case, &cancelled] {
        caritas.submit(&caritas.message(draft, &inps)).await.unwrap();
    }
    let mut sender = caritas.receive(8).await;
    expire(&world, &mut sender, 1).await;
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    assert_eq!(delivery.origin.jti, cancelled.id);
    let later = |reason: Reason| {
        let (reason, detail) = (reason.as_str().to_owned(), String::new());
        Outcome::Retry(RetryLater { delay_ms: 0, reason, detail })
    };
    recipient.settle(Vec::new(), delivery.id, later(Reason::CaseUnknown)).await.unwrap();
    // It may be on its way once more before it is ended.
    let evidence = loop {
        tokio::select! {
            notice = sender.notice() => break notice.evidence.unwrap(),
            again = recipient.delivery() => {
                recipient.settle(Vec::new(), again.id, later(Reason::CaseUnknown)).await.unwrap();
            }
        }
    };
    assert_eq!((evidence.evt, evidence.mid), (Event::ContentConsignmentFailure, cancelled.id));
    assert_eq!(evidence.rsn.as_deref(), Some("CASE_UNKNOWN"));

    // Whoever only says so of a case that may still come to be is offered it again.
    let case = opened(&caritas, &inps, None).await;
    let delivery = loop {
        let delivery = recipient.delivery().await;
        if delivery.origin.jti == case.id {
            break delivery;
        }
    };
    recipient.settle(Vec::new(), delivery.id, later(Reason::CaseUnknown)).await.unwrap();
    let again = recipient.delivery().await;
    assert_eq!((again.origin.jti, again.attempt), (case.id, 2));
}

#[tokio::test]
async fn a_move_that_ended_unopened_counts_for_nothing_when_its_id_is_forgotten_either() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let case = opened(&caritas, &inps, None).await;
    let (mut responder, mut opener) = (inps.receive(8).await, caritas.receive(8).await);
    let delivery = responder.delivery().await;
    responder.opened(&inps, &delivery).await;
    // What is on its way to somebody does not expire: from here on inps takes nothing, and later caritas neither.
    let _nothing = inps.receive(0).await;
    let submit = async |from: &Adapter, to: &Adapter, status, reason| {
        let draft = Draft { lives_s: 3_600, ..update(from, to, &case, status, reason) };
        from.submit(&from.message(&draft, to)).await.map(|_| draft.id).map_err(|refused| refused.reason)
    };
    submit(&inps, &caritas, "accepted", None).await.unwrap();
    let delivery = opener.delivery().await;
    opener.opened(&caritas, &delivery).await;
    let withdrawn = submit(&caritas, &inps, "cancelled", Some("PERSON_DECLINED")).await.unwrap();
    world.clock.advance_s(3_601);
    while opener.notice().await.evidence.unwrap().evt != Event::ContentConsignmentFailure {}

    let _nothing = caritas.receive(0).await;
    world.clock.advance_s(40 * 86_400);
    let mut operations = world.operations();
    let release = ReleaseRequest { institution: "clock".to_owned(), reason: "the clock is right".to_owned() };
    operations.release(release).await.unwrap();
    let (caritas, inps) = (Adapter::of(&world, "caritas"), Adapter::of(&world, "inps"));
    for adapter in [&caritas, &inps] {
        adapter.publish(2).await.unwrap();
    }
    let known = GetMessageRequest { message_id: withdrawn.to_string() };
    while operations.get_message(known.clone()).await.is_ok() {
        // With each fact some are forgotten.
        opened(&caritas, &inps, None).await;
    }
    submit(&inps, &caritas, "in_progress", None).await.unwrap();
    let mut told = inps.receive(8).await;
    world.clock.advance_s(3_601);
    while told.notice().await.evidence.unwrap().evt != Event::ContentConsignmentFailure {}
    assert_eq!(submit(&inps, &caritas, "in_progress", None).await.map(drop), Ok(()), "it stands where it stood");
}
