//! What the sender holds, it gives back: to the gateway's answer, to the store, or to nobody in particular.

use tramite_proto::{pb::backoffice::v1 as pb, reason::Reason};
use tramite_store::{Change, disk::SimulatedDisk, map::MemoryMaps};

use super::{
    delivery::{next_item, pair},
    network::{Institution, Network, referral, until},
    stand_in::{Calls, StandIn},
};
use crate::{core::GATEWAY, outbound::still_live};

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
    use pb::put_attachment_request::Frame;
    let header = pb::AttachmentHeader {
        name: "delega.pdf".into(),
        media_type: "application/pdf".into(),
        document: String::new(),
    };
    let frames = [Frame::Header(header), Frame::Data(vec![7; 100_000].into())];
    let frames = frames.map(|frame| pb::PutAttachmentRequest { frame: Some(frame) });
    let stored = adapter.office.put_attachment(tokio_stream::iter(frames)).await.expect("stored").into_inner();
    let mut request = short_lived(request_id);
    request.sending.as_mut().expect("sending").attachments = vec![stored.attachment_id];
    request
}

#[tokio::test]
async fn what_expires_between_lease_and_frame_is_told_of() {
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
    let leased = still_live(&core, leased);
    assert_eq!(leased.len(), 1, "its time has not come");
    network.clock.advance(61_000);
    assert_eq!(still_live(&core, leased).len(), 0);
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
