//! Delivery: nothing is lost, nothing is given to two, nobody holds up another.

use std::{collections::BTreeSet, sync::Arc};

use tramite_proto::{
    ids::{ConversationId, Digest, MessageId},
    pb::{
        exchange::v1::{NoticeAcknowledged, ReceiveRequest, settlement::Outcome},
        operations::v1::{GetMessageRequest, HoldRequest, ListQueuesRequest, ReleaseRequest},
    },
    reason::Reason,
    statement::Event,
};

use super::{
    adapter::{Adapter, Draft, random, two},
    gate::GatedDisk,
    world::World,
};

#[tokio::test]
async fn what_was_on_its_way_when_the_connection_broke_comes_again() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let draft = caritas.refer(&inps).await;
    let mut first = inps.receive(8).await;
    assert_eq!(first.delivery().await.attempt, 1);
    drop(first);
    let mut second = inps.receive(8).await;
    let again = second.delivery().await;
    assert_eq!((again.origin.jti, again.attempt), (draft.id, 2));
    second.opened(&inps, &again).await;
    let request = GetMessageRequest { message_id: draft.id.to_string() };
    let message = world.operations().get_message(request).await.unwrap().into_inner();
    assert_eq!(message.state, "DELIVERED");
    let reasons: Vec<_> = message.attempts.iter().map(|attempt| attempt.reason.as_str()).collect();
    assert_eq!(reasons, ["RECIPIENT_UNREACHABLE"]);
}

#[tokio::test]
async fn however_many_were_on_their_way_when_the_connection_broke_each_has_its_attempt() {
    // More than one commit of the store takes.
    const MESSAGES: u32 = 520;
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    for _ in 0..MESSAGES {
        caritas.refer(&inps).await;
    }
    for attempt in 1..=2 {
        let mut recipient = inps.receive(MESSAGES).await;
        for _ in 0..MESSAGES {
            assert_eq!(recipient.delivery().await.attempt, attempt);
        }
    }
}

#[tokio::test]
async fn a_newer_stream_takes_over_and_the_older_one_is_told() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    caritas.refer(&inps).await;
    let mut older = inps.receive(8).await;
    let held = older.delivery().await;
    let mut newer = inps.receive(8).await;
    assert_eq!(older.end().await.reason, Reason::Superseded);
    assert_eq!(world.metric("receive_takeovers_total", "inps").await, 1.0);
    let delivery = newer.delivery().await;
    assert_eq!((delivery.id, delivery.attempt), (held.id, 2));
    newer.opened(&inps, &delivery).await;
}

#[tokio::test]
async fn a_receipt_counts_whenever_it_comes_and_not_by_a_lease() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let mut sender = caritas.receive(8).await;
    caritas.refer(&inps).await;
    let mut older = inps.receive(1).await;
    let held = older.delivery().await;
    let mut newer = inps.receive(1).await;
    assert_eq!(older.end().await.reason, Reason::Superseded);
    let again = newer.delivery().await;
    newer.sign_for(&inps, held.id, &inps.receipt(&held, true)).await.unwrap();
    assert_eq!(sender.notice().await.evidence.unwrap().evt, Event::ContentHandover);
    // The same word again stands and changes nothing.
    newer.sign_for(&inps, again.id, &inps.receipt(&again, true)).await.unwrap();
    assert!(sender.is_quiet().await && newer.is_quiet().await);
}

#[tokio::test]
async fn what_a_recipient_says_is_heard_while_what_it_said_before_waits_for_the_disk() {
    let disk = GatedDisk::default();
    let world = World::on(Arc::new(disk.clone())).await;
    let (caritas, inps) = two(&world).await;
    caritas.refer(&inps).await;
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    disk.shut();
    let (jws, opened) = inps.signed(&inps.receipt(&delivery, true));
    recipient.say(jws, delivery.id, opened).await;
    disk.someone_waits().await;
    let nobodys = delivery.id + 1_000;
    recipient.say(Vec::new(), nobodys, Outcome::Notice(NoticeAcknowledged {})).await;
    world.until("refused_total", "DELIVERY_UNKNOWN", 1.0).await;
    disk.open();
    // In the order in which it was said.
    recipient.answer(delivery.id, false).await.unwrap();
    assert_eq!(recipient.answer(nobodys, false).await.unwrap_err().reason, Reason::DeliveryUnknown);
}

#[tokio::test]
async fn what_a_recipient_said_before_another_stream_took_over_counts() {
    let disk = GatedDisk::default();
    let world = World::on(Arc::new(disk.clone())).await;
    let (caritas, inps) = two(&world).await;
    caritas.refer(&inps).await;
    let mut older = inps.receive(8).await;
    let delivery = older.delivery().await;
    disk.shut();
    let (jws, opened) = inps.signed(&inps.receipt(&delivery, true));
    older.say(jws, delivery.id, opened).await;
    disk.someone_waits().await;
    let newer = tokio::spawn({
        let inps = Arc::clone(&inps);
        async move { inps.receive(8).await }
    });
    world.until("receive_takeovers_total", "inps", 1.0).await;
    disk.open();
    world.until("receipts_total", "opened", 1.0).await;
    assert!(newer.await.unwrap().is_quiet().await);
}

#[tokio::test]
async fn not_now_is_offered_again_and_its_reason_kept() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let draft = caritas.refer(&inps).await;
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    recipient.later(&delivery, 0).await;
    let again = recipient.delivery().await;
    assert_eq!((again.id, again.attempt), (delivery.id, 2));
    recipient.opened(&inps, &again).await;
    let request = GetMessageRequest { message_id: draft.id.to_string() };
    let message = world.operations().get_message(request).await.unwrap().into_inner();
    assert_eq!((message.attempts[0].number, message.attempts[0].reason.as_str()), (1, "DIRECTORY_UNAVAILABLE"));
    assert_eq!(world.metric("retries_total", "DIRECTORY_UNAVAILABLE").await, 1.0);
}

#[tokio::test]
async fn a_refusal_for_good_is_final_and_the_sender_has_it_in_the_recipients_own_words() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let mut sender = caritas.receive(8).await;
    caritas.refer(&inps).await;
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    recipient.sign_for(&inps, delivery.id, &inps.receipt(&delivery, false)).await.unwrap();
    let notice = sender.notice().await;
    let evidence = notice.evidence.unwrap();
    assert_eq!((evidence.evt, evidence.rsn.as_deref()), (Event::ContentHandoverFailure, Some("DECRYPTION_FAILED")));
    assert_eq!(notice.receipt.unwrap().rsn.as_deref(), Some("DECRYPTION_FAILED"));
    assert!(recipient.is_quiet().await);
}

#[tokio::test]
async fn a_forged_or_mismatching_receipt_is_refused_and_settles_nothing() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let comune = Adapter::join(&world, "comune").await;
    caritas.refer(&inps).await;
    let (mut recipient, mut stranger) = (inps.receive(8).await, comune.receive(8).await);
    let delivery = recipient.delivery().await;
    let good = inps.receipt(&delivery, true);
    let refused = |outcome: Result<(), tramite_proto::reason::Refused>| outcome.unwrap_err().reason;
    // In inps' name, by another's key.
    assert_eq!(refused(recipient.sign_for(&comune, delivery.id, &good).await), Reason::IssuerMismatch);
    for other in [
        tramite_proto::statement::Receipt { org_s256: Digest::of(b"another"), ..good.clone() },
        tramite_proto::statement::Receipt { ct_s256: Digest::of(b"another"), ..good.clone() },
        tramite_proto::statement::Receipt { ptc: Digest::of(b"another"), ..good.clone() },
        tramite_proto::statement::Receipt { mid: MessageId::new(0, random()), ..good.clone() },
    ] {
        assert_eq!(refused(recipient.sign_for(&inps, delivery.id, &other).await), Reason::ReceiptMismatch);
    }
    // Another's delivery does not exist for anybody else.
    let theirs = comune.receipt(&delivery, true);
    assert_eq!(refused(stranger.sign_for(&comune, delivery.id, &theirs).await), Reason::DeliveryUnknown);
    let notice = stranger.settle(Vec::new(), delivery.id, Outcome::Notice(NoticeAcknowledged {})).await;
    assert_eq!(refused(notice), Reason::DeliveryUnknown);
    assert_eq!(world.metric("refused_total", "RECEIPT_MISMATCH").await, 4.0);
    assert_eq!(world.metric("receipts_total", "").await, 0.0);
    recipient.sign_for(&inps, delivery.id, &good).await.unwrap();
}

#[tokio::test]
async fn no_more_is_sent_than_the_credit_allows() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    for _ in 0..5 {
        caritas.refer(&inps).await;
    }
    let mut recipient = inps.receive(2).await;
    let (one, _two) = (recipient.delivery().await, recipient.delivery().await);
    assert!(recipient.is_quiet().await);
    // A settlement brings one credit with it here.
    recipient.opened(&inps, &one).await;
    recipient.delivery().await;
    assert!(recipient.is_quiet().await);
}

#[tokio::test]
async fn a_stream_that_brings_no_credit_is_refused() {
    let world = World::new().await;
    let inps = Adapter::join(&world, "inps").await;
    assert_eq!(inps.receive(0).await.end().await.reason, Reason::CreditExceeded);
    let mut recipient = inps.receive(1).await;
    let request = ReceiveRequest { credit: 1, jws: vec![String::new(); 65], settlements: Vec::new() };
    recipient.requests.send(request).await.unwrap();
    assert_eq!(recipient.end().await.reason, Reason::FrameInvalid);
}

#[tokio::test]
async fn a_conversation_keeps_its_order() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let conversation = Some(ConversationId::new(0, random()));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let draft = Draft { conversation, ..caritas.draft("inps") };
        caritas.submit(&caritas.message(&draft, &inps)).await.unwrap();
        ids.push(draft.id);
    }
    let mut recipient = inps.receive(64).await;
    for id in ids {
        let delivery = recipient.delivery().await;
        assert_eq!(delivery.origin.jti, id);
        assert!(recipient.is_quiet().await, "the next waits until this one is settled");
        recipient.opened(&inps, &delivery).await;
    }
}

#[tokio::test]
async fn nothing_is_delivered_to_an_institution_that_is_held_until_it_is_released() {
    let mut world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let hold = HoldRequest { institution: "inps".to_owned(), reason: "maintenance".to_owned() };
    world.operations().hold(hold).await.unwrap();
    let draft = caritas.refer(&inps).await;
    assert!(inps.receive(8).await.is_quiet().await);
    // A hold survives a restart.
    world.stop().await;
    world.start().await;
    let inps = Adapter::of(&world, "inps");
    let mut recipient = inps.receive(8).await;
    assert!(recipient.is_quiet().await);
    let mut operations = world.operations();
    let request = GetMessageRequest { message_id: draft.id.to_string() };
    assert_eq!(operations.get_message(request).await.unwrap().into_inner().state, "HELD");
    assert_eq!(held_because(&world).await, ["inps: maintenance"]);
    let release = ReleaseRequest { institution: "inps".to_owned(), reason: "done".to_owned() };
    operations.release(release).await.unwrap();
    assert_eq!(recipient.delivery().await.origin.jti, draft.id);
    assert!(held_because(&world).await.is_empty());
}

/// Who is held, and why.
async fn held_because(world: &World) -> Vec<String> {
    let queues = world.operations().list_queues(ListQueuesRequest {}).await.unwrap().into_inner().queues;
    let held = queues.into_iter().filter(|queue| queue.held || !queue.held_because.is_empty());
    held.map(|queue| format!("{}: {}", queue.institution, queue.held_because)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_was_accepted_is_opened_once_whatever_breaks_in_between() {
    const SENDERS: usize = 4;
    const EACH: usize = 40;
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let sending = (0..SENDERS).map(|_| {
        let (caritas, inps) = (Arc::clone(&caritas), Arc::clone(&inps));
        tokio::spawn(async move {
            let mut ids = BTreeSet::new();
            for _ in 0..EACH {
                ids.insert(caritas.refer(&inps).await.id);
            }
            ids
        })
    });
    let sending: Vec<_> = sending.collect();
    let (mut opened, mut streams) = (BTreeSet::new(), 0);
    while opened.len() < SENDERS * EACH {
        // Each stream is left behind with something on its way.
        let mut recipient = inps.receive(8).await;
        streams += 1;
        for _ in 0..20 {
            let delivery = recipient.delivery().await;
            assert!(opened.insert(delivery.origin.jti), "{} came again after its receipt stood", delivery.origin.jti);
            recipient.opened(&inps, &delivery).await;
            if opened.len() == SENDERS * EACH {
                break;
            }
        }
    }
    let mut sent = BTreeSet::new();
    for task in sending {
        sent.extend(task.await.unwrap());
    }
    assert_eq!(opened, sent);
    assert!(streams >= SENDERS * EACH / 20);
    let mut sender = caritas.receive(64).await;
    let mut told = BTreeSet::new();
    while told.len() < sent.len() {
        let notice = sender.notice().await;
        sender.acknowledge(&notice).await;
        assert!(told.insert(notice.message_id));
    }
    assert!(sender.is_quiet().await);
}

#[tokio::test]
async fn a_frame_of_the_largest_bodies_is_taken_by_a_client_that_was_told_nothing_of_sizes() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    for _ in 0..64 {
        let draft = Draft { body: vec![7; 65_500].into(), ..caritas.draft("inps") };
        caritas.submit(&caritas.message(&draft, &inps)).await.unwrap();
    }
    let mut recipient = inps.receive(64).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 64 {
        let delivery = recipient.delivery().await;
        assert_eq!(delivery.ciphertext.len(), 65_552);
        assert!(seen.insert(delivery.origin.jti), "none comes twice");
    }
}

#[tokio::test]
async fn streams_that_are_lost_make_no_dead_letter_however_many() {
    let world = World::with(|config| config.delivery.retry_max_ms = 20).await;
    let (caritas, inps) = two(&world).await;
    let draft = caritas.refer(&inps).await;
    for _ in 0..25 {
        let mut recipient = inps.receive(8).await;
        assert_eq!(recipient.delivery().await.origin.jti, draft.id);
        drop(recipient);
        // The loss is on the disk before the clock moves on by the longest wait.
        while world.metric("receive_streams", "").await > 0.0 {
            tokio::task::yield_now().await;
        }
        world.clock.advance_s(900);
    }
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    assert_eq!(world.metric("dead_letters_total", "").await, 0.0);
    recipient.opened(&inps, &delivery).await;
}

#[tokio::test]
async fn a_dead_letter_of_one_issuer_holds_up_nobody_else_in_the_same_conversation() {
    let world = World::with(|config| {
        let rule = config.rules[0].clone();
        config.rules.push(crate::config::Allow { from: vec!["comune".to_owned()], ..rule });
    })
    .await;
    let (caritas, inps) = two(&world).await;
    let comune = Adapter::join(&world, "comune").await;
    let conversation = Some(ConversationId::new(0, random()));
    let mut recipient = inps.receive(8).await;
    let mut ids = Vec::new();
    for from in [&*caritas, &comune] {
        let draft = Draft { conversation, ..from.draft("inps") };
        from.submit(&from.message(&draft, &inps)).await.unwrap();
        ids.push(draft.id);
    }
    // Neither is settled, and both are here.
    let mut seen = [recipient.delivery().await.origin.jti, recipient.delivery().await.origin.jti];
    seen.sort();
    ids.sort();
    assert_eq!(seen.as_slice(), ids);
}
