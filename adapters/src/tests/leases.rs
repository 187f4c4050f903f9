//! What the sender holds, it gives back: to the gateway's answer, to the store, or to nobody in particular.

use std::{sync::atomic::Ordering, time::Duration};

use tramite_proto::{pb::backoffice::v1 as pb, reason::Reason};
use tramite_store::{Change, disk::SimulatedDisk, map::MemoryMaps};

use super::{
    delivery::{next_item, origin_of, pair, put},
    network::{Institution, Network, referral, until},
    stand_in::{Answer, Calls, StandIn},
};
use crate::{Surroundings, core::GATEWAY, outbound::still_live};

/// Nobody listens there.
const NOWHERE: u16 = 1;
/// Rows of what waits.
const ITEMS: u8 = b'q';

/// The kind of the next notice.
async fn told(adapter: &mut Institution) -> String {
    let item = next_item(&mut adapter.office).await;
    let Some(pb::inbox_item::Kind::Notice(notice)) = item.kind else { panic!("not a notice: {item:?}") };
    notice.kind
}

/// A referral that lives a minute.
fn short_lived(request_id: &str) -> pb::SendReferralRequest {
    let mut request = referral(request_id, "inps");
    request.sending.as_mut().expect("sending").expires_in_s = 60;
    request
}

/// The same with an attachment.
async fn with_attachment(adapter: &mut Institution, request_id: &str) -> pb::SendReferralRequest {
    let stored = put(&mut adapter.office, &[7; 100_000]).await;
    let mut request = short_lived(request_id);
    request.sending.as_mut().expect("sending").attachments = vec![stored.attachment_id];
    request
}

#[tokio::test]
async fn what_expires_between_lease_and_frame_ends_at_once_and_is_told_of() {
    let network = Network::new();
    let (gateway, mut caritas, inps) = pair(&network).await;
    caritas.knows("inps").await;
    caritas.stop().await;
    inps.stop().await;
    drop(gateway);
    let mut caritas = network.start("caritas", NOWHERE).await;
    caritas.office.send_referral(short_lived("r-1")).await.expect("kept");
    let core = caritas.core();
    let leased = core.store.lease(GATEWAY, 64, usize::MAX).expect("readable");
    assert_eq!(leased.len(), 1);
    let leased = still_live(&core, leased).await.expect("a store");
    assert_eq!(leased.len(), 1, "its time has not come");
    network.clock.advance(61_000);
    assert_eq!(still_live(&core, leased).await.expect("a store").len(), 0);
    assert_eq!(core.store.queue(GATEWAY).expect("readable").waiting, 0, "it has ended");
    drop(core);
    assert_eq!(told(&mut caritas).await, "EXPIRED");
    caritas.stop().await;
}

#[tokio::test]
async fn a_message_whose_failed_attempt_the_store_does_not_take_is_tried_again() {
    let network = Network::new();
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let gateway = StandIn::start(&network).await;
    let inps = network.start("inps", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    let mut caritas = network.start_on("caritas", gateway.port(), &disk, &maps).await;
    gateway.state.put_part.send_replace(Calls::Refused);
    let request = with_attachment(&mut caritas, "r-1").await;
    caritas.office.send_referral(request).await.expect("sent");
    let retries = async |caritas: &Institution, at_least| {
        until(async || (caritas.retries(Reason::GatewayUnavailable) >= at_least).then_some(())).await;
    };
    retries(&caritas, 1).await;
    caritas.stop().await;
    // Its rows are in no memory any more, and it is put off by a clock that stands still.
    let caritas = network.start_on("caritas", gateway.port(), &disk, &maps).await;
    gateway.state.put_part.send_replace(Calls::Unheard);
    network.clock.advance(5_000);
    until(async || (caritas.core().store.queue(GATEWAY).expect("readable").leased == 1).then_some(())).await;
    maps.spoil(ITEMS);
    gateway.state.put_part.send_replace(Calls::Refused);
    retries(&caritas, 1).await;
    // The store answers one after the other.
    let (reason, detail) = (String::new(), String::new());
    let unknown = Change::FailAttempt { sequence: 9_999, queue: GATEWAY.to_owned(), reason, detail, due_ms: 0 };
    caritas.core().store.commit_one(unknown).await.expect_err("there is no such thing");
    maps.mend();
    gateway.state.put_part.send_replace(Calls::Served);
    gateway.message(0).await;
    caritas.stop().await;
    inps.stop().await;
}

/// The stand-in, and caritas, which knows inps and gives the gateway half a second to answer.
async fn impatient(network: &Network) -> (StandIn, Institution) {
    let gateway = StandIn::start(network).await;
    let inps = network.start("inps", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    let around = Surroundings {
        answer_max: Duration::from_millis(500),
        ..Surroundings::real(std::sync::Arc::new(network.clock.clone()))
    };
    let mut caritas = network.start_in(network.config("caritas", gateway.port()), around).await;
    caritas.knows("inps").await;
    inps.stop().await;
    (gateway, caritas)
}

/// Waits until the status, connected, says so.
async fn complains(caritas: &mut Institution, words: &str) {
    until(async || {
        let status = caritas.office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner();
        (status.connected && status.problem.contains(words)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_that_never_answers_a_submission_is_told_of_and_the_message_expires() {
    let network = Network::new();
    let (gateway, mut caritas) = impatient(&network).await;
    gateway.state.submit.send_replace(Calls::Unheard);
    caritas.office.send_referral(short_lived("r-1")).await.expect("kept");
    complains(&mut caritas, "does not answer").await;
    network.clock.advance(61_000);
    assert_eq!(told(&mut caritas).await, "EXPIRED");
    let status = caritas.office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner();
    assert_eq!((status.outbox, status.problem.as_str()), (0, ""), "nothing waits for it any more");
    // It comes back: what is sent then arrives.
    gateway.state.submit.send_replace(Calls::Served);
    let sent = caritas.office.send_referral(short_lived("r-2")).await.expect("sent").into_inner();
    let arrived = async || {
        let submitted = gateway.state.submitted.lock().expect("lock").clone();
        submitted.iter().any(|message| origin_of(message).0.jti.to_string() == sent.message_id).then_some(())
    };
    until(arrived).await;
    caritas.stop().await;
}

#[tokio::test]
async fn a_gateway_that_takes_no_part_is_told_of_and_holds_up_no_message_without_one() {
    let network = Network::new();
    let (gateway, mut caritas) = impatient(&network).await;
    gateway.state.put_part.send_replace(Calls::Unheard);
    for number in 0..3 {
        let request = with_attachment(&mut caritas, &format!("heavy-{number}")).await;
        caritas.office.send_referral(request).await.expect("kept");
    }
    complains(&mut caritas, "does not take attachments").await;
    caritas.office.send_referral(short_lived("light")).await.expect("sent");
    gateway.message(0).await;
    network.clock.advance(61_000);
    until(async || (caritas.core().store.queue(GATEWAY).expect("readable").waiting == 0).then_some(())).await;
    assert_eq!(told(&mut caritas).await, "EXPIRED");
    caritas.stop().await;
}

#[tokio::test]
async fn a_frame_that_is_never_answered_is_sent_again_although_others_are() {
    let network = Network::new();
    let (gateway, mut caritas) = impatient(&network).await;
    gateway.state.loses_frame.store(true, Ordering::Relaxed);
    let sent = caritas.office.send_referral(short_lived("r-0")).await.expect("sent").into_inner();
    let begun = std::time::Instant::now();
    for number in 1.. {
        assert!(begun.elapsed() < super::network::PATIENCE, "never sent again");
        caritas.office.send_referral(short_lived(&format!("r-{number}"))).await.expect("sent");
        gateway.message(number - 1).await;
        let submitted = gateway.state.submitted.lock().expect("lock").clone();
        if submitted.iter().any(|message| origin_of(message).0.jti.to_string() == sent.message_id) {
            break;
        }
    }
    caritas.stop().await;
}

#[tokio::test]
async fn a_gateway_of_many_words_is_asked_again_later_and_its_refusal_is_told_of() {
    let network = Network::new();
    let (gateway, mut caritas) = impatient(&network).await;
    gateway.answer(Answer::Babble(Reason::RateLimited));
    caritas.office.send_referral(short_lived("r-1")).await.expect("kept");
    until(async || (caritas.retries(Reason::RateLimited) > 0).then_some(())).await;
    gateway.answer(Answer::Babble(Reason::PolicyDenied));
    until(async || {
        network.clock.advance(1_000);
        let status = caritas.office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner();
        (status.outbox == 0).then_some(())
    })
    .await;
    assert_eq!(told(&mut caritas).await, "REFUSED");
    caritas.stop().await;
}
