//! What was said before and is said again counts as it did, whatever has become of the certificate meanwhile; nothing new passes with it.

use tramite_certs::authority::RevocationReason;
use tramite_proto::{
    pb::{exchange::v1::settlement::Outcome, statement::v1::SealedMessage},
    reason::Reason,
    statement::{Event, Receipt},
};

use super::{
    adapter::{Adapter, Draft, Inbox},
    world::World,
};

const HOUR_S: i64 = 3_600;
const LIVES_S: i64 = 72 * HOUR_S;

/// Caritas and INPS, with signing certificates for a day.
async fn for_a_day() -> (World, Adapter, Adapter) {
    let world = World::new().await;
    ["caritas", "inps"].iter().for_each(|who| world.sign_for_a_day(who));
    let (caritas, inps) = (Adapter::join(&world, "caritas").await, Adapter::join(&world, "inps").await);
    (world, caritas, inps)
}

/// A day and an hour later, by a clock that is believed: both have new certificates, and the old ones have ended.
async fn next_day(world: &World) -> (Adapter, Adapter) {
    world.clock.advance_s(23 * HOUR_S);
    let renew = async |who| {
        world.sign_anew(who);
        let adapter = Adapter::of(world, who);
        assert!(adapter.publish(2).await.unwrap());
        adapter
    };
    let renewed = (renew("caritas").await, renew("inps").await);
    world.clock.advance_s(2 * HOUR_S);
    renewed
}

async fn refused(sender: &Adapter, message: &SealedMessage) -> Reason {
    sender.submit(message).await.unwrap_err().reason
}

fn message(from: &Adapter, to: &Adapter) -> SealedMessage {
    from.message(&Draft { lives_s: LIVES_S, ..from.draft(&to.name) }, to)
}

#[tokio::test]
async fn a_repeat_gets_its_original_acceptance_when_its_certificate_has_ended() {
    let (world, caritas, inps) = for_a_day().await;
    let message_before = message(&caritas, &inps);
    let acceptance = caritas.submit(&message_before).await.unwrap();
    let (caritas_now, inps_now) = next_day(&world).await;
    assert_eq!(refused(&caritas, &message(&caritas, &inps_now)).await, Reason::CertificateInvalid, "what is new");
    for sender in [&caritas, &caritas_now] {
        assert_eq!(sender.submit(&message_before).await.unwrap(), acceptance);
    }
    // Nobody else learns of it.
    assert_eq!(refused(&inps_now, &message_before).await, Reason::CertificateInvalid);
}

#[tokio::test]
async fn a_repeat_gets_its_original_acceptance_when_its_certificate_is_revoked() {
    for reason in [RevocationReason::Superseded, RevocationReason::KeyCompromise] {
        let (world, caritas, inps) = for_a_day().await;
        let message_before = message(&caritas, &inps);
        let acceptance = caritas.submit(&message_before).await.unwrap();
        world.revoke("caritas", reason);
        // The list is taken up soon.
        while caritas.submit(&message(&caritas, &inps)).await.is_ok() {}
        assert_eq!(refused(&caritas, &message(&caritas, &inps)).await, Reason::CertificateInvalid);
        assert_eq!(caritas.submit(&message_before).await.unwrap(), acceptance, "{reason:?}");
    }
}

/// INPS gets a message of caritas and signs for it, but nobody hears it. Gives the receipt and its settlement.
async fn signed(caritas: &Adapter, inps: &Adapter) -> (Receipt, (Vec<String>, Outcome)) {
    caritas.submit(&message(caritas, inps)).await.unwrap();
    let receipt = inps.receipt(&inps.receive(8).await.delivery().await, true);
    let said = inps.signed(&receipt);
    (receipt, said)
}

async fn settle(recipient: &mut Inbox, (jws, outcome): (Vec<String>, Outcome)) -> Result<(), Reason> {
    let delivery = recipient.delivery().await;
    recipient.settle(jws, delivery.id, outcome).await.map_err(|refused| refused.reason)
}

#[tokio::test]
async fn a_receipt_that_is_given_again_counts_when_its_certificate_has_ended() {
    let (world, caritas, inps) = for_a_day().await;
    let (receipt, said) = signed(&caritas, &inps).await;
    let (caritas, inps) = next_day(&world).await;
    assert_eq!(settle(&mut inps.receive(8).await, said).await, Ok(()));
    let notice = caritas.receive(8).await.notice().await;
    assert_eq!((notice.evidence.unwrap().evt, notice.receipt), (Event::ContentHandover, Some(receipt)));
}

#[tokio::test]
async fn a_receipt_of_an_ended_certificate_is_of_no_hour_after_its_end_nor_before_the_message() {
    let (world, caritas, inps) = for_a_day().await;
    world.clock.advance_s(HOUR_S);
    let (receipt, _) = signed(&caritas, &inps).await;
    let (_, inps_now) = next_day(&world).await;
    for (later_s, when) in [(HOUR_S * 24, "after the certificate's end"), (-HOUR_S, "before the message was there")] {
        let said = inps.signed(&Receipt { at: receipt.at + later_s, ..receipt.clone() });
        assert_eq!(settle(&mut inps_now.receive(8).await, said).await, Err(Reason::CertificateInvalid), "{when}");
    }
}

#[tokio::test]
async fn a_receipt_that_is_given_again_counts_when_its_certificate_is_revoked_unless_its_key_was_known() {
    for (reason, counts) in [(RevocationReason::Superseded, true), (RevocationReason::KeyCompromise, false)] {
        let (world, caritas, inps) = for_a_day().await;
        let (_, said) = signed(&caritas, &inps).await;
        world.clock.advance_s(HOUR_S);
        world.revoke("inps", reason);
        while inps.submit(&message(&inps, &caritas)).await.is_ok() {}
        let expected = if counts { Ok(()) } else { Err(Reason::CertificateInvalid) };
        assert_eq!(settle(&mut inps.receive(8).await, said).await, expected, "{reason:?}");
    }
}
