//! Submission: what is accepted, once, with one answer for ever.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tramite_proto::{
    batch::{self, Framer},
    ids::Digest,
    pb::{
        exchange::v1::{FramedMessage, SubmitFrame, submit_result::Result as Outcome},
        statement::v1::SealedMessage,
    },
    reason::{Reason, Refused},
    statement::{Event, Evidence},
};

use super::{
    adapter::{Adapter, Draft, two},
    gate::GatedDisk,
    world::World,
};
use crate::limits;

#[tokio::test]
async fn a_referral_is_accepted_delivered_receipted_and_its_sender_told() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let (mut sender, mut recipient) = (caritas.receive(8).await, inps.receive(8).await);
    let draft = caritas.draft("inps");
    let message = caritas.message(&draft, &inps);
    let acceptance = caritas.submit(&message).await.unwrap();
    assert_eq!(acceptance.evt, Event::SubmissionAcceptance);
    assert_eq!(acceptance.org_s256, Digest::of(&message.origin.as_ref().unwrap().json));

    let delivery = recipient.delivery().await;
    assert_eq!((delivery.origin.jti, delivery.attempt), (draft.id, 1));
    assert_eq!(delivery.json, message.origin.unwrap().json);
    assert_eq!(delivery.ciphertext, message.ciphertext);
    assert_eq!(delivery.acceptance, acceptance);
    let receipt = inps.receipt(&delivery, true);
    recipient.sign_for(&inps, delivery.id, &receipt).await.unwrap();

    let notice = sender.notice().await;
    assert_eq!(notice.message_id, draft.id.to_string());
    assert_eq!(notice.receipt.as_ref(), Some(&receipt));
    let evidence = notice.evidence.clone().unwrap();
    assert_eq!((evidence.evt, evidence.mid), (Event::ContentHandover, draft.id));
    assert_eq!(evidence.rcp_s256, Some(Digest::of(&receipt.to_json())));
    sender.acknowledge(&notice).await;
    assert!(sender.is_quiet().await && recipient.is_quiet().await);
}

#[tokio::test]
async fn a_repeat_gets_the_original_acceptance_even_when_the_message_is_final_and_expired() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let message = caritas.message(&caritas.draft("inps"), &inps);
    let first = caritas.submit(&message).await.unwrap();
    assert_eq!(caritas.submit(&message).await.unwrap(), first);
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    recipient.opened(&inps, &delivery).await;
    world.clock.advance_s(2 * 86_400);
    assert_eq!(caritas.submit(&message).await.unwrap(), first);
    assert!(recipient.is_quiet().await);
    assert_eq!(world.metric("repeated_total", "").await, 2.0);
}

#[tokio::test]
async fn the_same_id_with_other_content_is_refused() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let draft = caritas.refer(&inps).await;
    // Sealed anew: another encapsulated key, so another origin under the same id.
    let refused = caritas.submit(&caritas.message(&draft, &inps)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::IdReused);
}

#[tokio::test]
async fn a_refusal_does_not_take_the_id() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let draft = caritas.draft("inps");
    let mut broken = caritas.message(&draft, &inps);
    broken.ciphertext = vec![0; broken.ciphertext.len()].into();
    assert_eq!(caritas.submit(&broken).await.unwrap_err().reason, Reason::CiphertextMismatch);
    caritas.submit(&caritas.message(&draft, &inps)).await.unwrap();
}

#[tokio::test]
async fn a_frame_of_64_under_one_signature_gets_one_answer_in_order_and_refusals_stand_among_acceptances() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let drafts: Vec<_> = (0..64).map(|_| caritas.draft("inps")).collect();
    let sealed: Vec<_> = drafts.iter().map(|draft| caritas.seal(draft, &inps)).collect();
    let jsons: Vec<_> = sealed.iter().map(|(origin, ..)| origin.to_json()).collect();
    let statements = batch::sign(&caritas.signer, 0, &jsons).unwrap();
    let mut framer = Framer::new();
    let mut messages: Vec<_> = statements
        .iter()
        .zip(sealed)
        .map(|(statement, (_, enc, ciphertext))| {
            let origin = Some(framer.frame(statement));
            FramedMessage { origin, enc, ciphertext, traceparent: "not a traceparent".to_owned() }
        })
        .collect();
    messages[7].enc = vec![1; 32].into();
    let jws = framer.into_jws();
    assert_eq!(jws.len(), 1);

    let (frames, stream) = mpsc::channel(4);
    frames.send(SubmitFrame { frame_id: 42, jws: jws.clone(), messages: messages.clone() }).await.unwrap();
    // While the first waits for the disk: all repeats, and the refused one again.
    frames.send(SubmitFrame { frame_id: 43, jws, messages }).await.unwrap();
    let mut answers = caritas.exchange().submit(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let mut given = Vec::new();
    for frame_id in [42, 43] {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.frame_id, answer.results.len()), (frame_id, 64));
        for (place, (result, draft)) in answer.results.into_iter().zip(&drafts).enumerate() {
            let evidence = match result.result.unwrap() {
                Outcome::Accepted(framed) if place != 7 => framed,
                Outcome::Refused(refusal) if place == 7 => {
                    assert_eq!(Refused::from_refusal(&refusal).reason, Reason::EncMismatch);
                    refusal.evidence.unwrap()
                }
                other => panic!("{place}: {other:?}"),
            };
            let evidence = Evidence::parse(&batch::unframe(&answer.jws, evidence).unwrap().json).unwrap();
            assert_eq!(evidence.mid, draft.id);
            if place == 7 {
                assert_eq!((evidence.evt, evidence.rsn.as_deref()), (Event::SubmissionRejection, Some("ENC_MISMATCH")));
            } else {
                given.push(evidence);
            }
        }
    }
    let (first, second) = given.split_at(63);
    assert_eq!(first, second, "a repeat gets the original, byte for byte");
    drop(frames);
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn small_frames_are_checked_while_the_disk_is_busy_as_many_as_a_group_takes() {
    let disk = GatedDisk::default();
    let world = World::on(Arc::new(disk.clone())).await;
    let (caritas, inps) = two(&world).await;
    let most = limits::SUBMIT_MESSAGES_IN_FLIGHT_MAX;
    let (frames, stream) = mpsc::channel(most + 8);
    let mut answers = caritas.exchange().submit(ReceiverStream::new(stream)).await.unwrap().into_inner();
    disk.shut();
    for frame_id in 0..most as u64 + 8 {
        let SealedMessage { origin, enc, ciphertext } = caritas.message(&caritas.draft("inps"), &inps);
        let mut framer = Framer::new();
        let origin = Some(framer.frame(&origin.unwrap()));
        let messages = vec![FramedMessage { origin, enc, ciphertext, traceparent: String::new() }];
        frames.send(SubmitFrame { frame_id, jws: framer.into_jws(), messages }).await.unwrap();
    }
    world.until("submitted_total", "caritas", most as f64).await;
    disk.open();
    for frame_id in 0..most as u64 + 8 {
        let answer = answers.message().await.unwrap().unwrap();
        assert!(matches!(answer.results[0].result, Some(Outcome::Accepted(_))));
        assert_eq!(answer.frame_id, frame_id, "in the order in which they came");
    }
}

#[tokio::test]
async fn an_empty_frame_ends_the_stream_with_its_reason() {
    let world = World::new().await;
    let (caritas, _) = two(&world).await;
    let frame = tokio_stream::once(SubmitFrame::default());
    let mut answers = caritas.exchange().submit(frame).await.unwrap().into_inner();
    let refused = Refused::from_status(&answers.message().await.unwrap_err()).unwrap();
    assert_eq!(refused.reason, Reason::FrameInvalid);
}

#[tokio::test]
async fn what_was_accepted_is_delivered_by_the_next_process_with_keys_from_the_journal() {
    let mut world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let draft = caritas.refer(&inps).await;
    world.stop().await;
    world.start().await;
    let inps = Adapter::of(&world, "inps");
    let caritas = Adapter::of(&world, "caritas");
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    assert_eq!(delivery.origin.jti, draft.id);
    recipient.opened(&inps, &delivery).await;
    let mut sender = caritas.receive(8).await;
    assert_eq!(sender.notice().await.message_id, draft.id.to_string());
    // No key was published anew: the keyring was refilled from the records.
    caritas.refer(&inps).await;
}

#[tokio::test]
async fn contents_of_one_issuer_wait_within_its_quota_and_are_given_back_when_they_are_final() {
    let mut world = World::with(|config| {
        for institution in &mut config.institutions {
            institution.quota_content_mib = 1;
        }
    })
    .await;
    let (caritas, inps) = two(&world).await;
    let large = |from: &Adapter| Draft { body: vec![7; 65_500].into(), ..from.draft("inps") };
    // Fifteen of the largest are below 1 MiB, sixteen are above: their tags count too.
    for _ in 0..15 {
        caritas.submit(&caritas.message(&large(&caritas), &inps)).await.unwrap();
    }
    let over = large(&caritas);
    let refused = caritas.submit(&caritas.message(&over, &inps)).await.unwrap_err();
    assert_eq!((refused.reason, refused.retryable()), (Reason::QuotaExceeded, true));
    // A start counts again what waits.
    world.stop().await;
    world.start().await;
    let (caritas, inps) = (Adapter::of(&world, "caritas"), Adapter::of(&world, "inps"));
    let refused = caritas.submit(&caritas.message(&over, &inps)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::QuotaExceeded);
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    recipient.opened(&inps, &delivery).await;
    caritas.submit(&caritas.message(&over, &inps)).await.unwrap();
}
