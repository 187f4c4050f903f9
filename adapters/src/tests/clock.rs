//! A clock that steps by 400 days, while the adapter runs or while it is stopped: nothing is lost, nothing expires, nothing is removed, until
//! somebody says that the clock is right.

use tonic::Code;
use tramite_proto::{
    pb::{
        backoffice::v1::{self as pb, inbox_item::Kind, put_attachment_request::Frame},
        exchange::v1::settlement::Outcome,
    },
    reason::Refused,
    statement::Receipt,
};

use super::{
    delivery::{next_item, pair},
    network::{Institution, Network, Office, reason, referral, until},
    stand_in::{self, StandIn},
};

const DAY_MS: i64 = 86_400_000;
/// Nobody listens there.
const NOWHERE: u16 = 1;

async fn status(office: &mut Office) -> pb::Status {
    office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner()
}

async fn put(office: &mut Office) -> String {
    let header = pb::AttachmentHeader {
        name: "delega.pdf".into(),
        media_type: "application/pdf".into(),
        document: String::new(),
    };
    let frames = [Frame::Header(header), Frame::Data(vec![7; 1000].into())];
    let frames = frames.map(|frame| pb::PutAttachmentRequest { frame: Some(frame) });
    let put = office.put_attachment(tokio_stream::iter(frames)).await.expect("kept");
    put.into_inner().attachment_id
}

/// Caritas, which knows INPS and has no gateway any more.
async fn cut_off(network: &Network) -> Institution {
    let (gateway, mut caritas, inps) = pair(network).await;
    caritas.knows("inps").await;
    caritas.stop().await;
    inps.stop().await;
    drop(gateway);
    network.start("caritas", NOWHERE).await
}

async fn step(network: &Network, adapter: Institution, by_ms: i64, stopped: bool) -> Institution {
    if !stopped {
        network.clock.advance(by_ms);
        return adapter;
    }
    adapter.stop().await;
    network.clock.advance(by_ms);
    // Without one that counts then it would not even start.
    network.renew("caritas");
    network.start("caritas", NOWHERE).await
}

#[tokio::test]
async fn a_step_of_400_days_expires_and_removes_nothing_until_somebody_confirms_the_clock() {
    for (days, stopped) in [(400, false), (400, true), (-400, false), (-400, true)] {
        let network = Network::new();
        let mut caritas = cut_off(&network).await;
        let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("kept").into_inner();
        let attachment_id = put(&mut caritas.office).await;

        let mut caritas = step(&network, caritas, days * DAY_MS, stopped).await;
        until(async || (!status(&mut caritas.office).await.clock_held.is_empty()).then_some(())).await;
        until(async || (caritas.core().metrics.clock_held.get() == 1).then_some(())).await;
        // A look or two of what must happen by itself.
        tokio::time::sleep(std::time::Duration::from_millis(2_200)).await;
        assert_eq!(status(&mut caritas.office).await.outbox, 1, "{days} {stopped}");
        let again = caritas.office.send_referral(referral("r-1", "inps")).await.expect("the same").into_inner();
        assert_eq!((&again.message_id, again.repeated), (&sent.message_id, true), "{days} {stopped}");
        let refused = caritas.office.send_referral(referral("r-2", "inps")).await.expect_err("cannot be dated");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "CLOCK_HELD"), "{days} {stopped}");
        assert!(Refused::from_status(&refused).expect("a reason").retryable());

        // Back where it was, and a little further: the message and the file are still there, and nothing is believed yet.
        let mut caritas = step(&network, caritas, -days * DAY_MS + 6 * DAY_MS, stopped).await;
        assert_eq!(status(&mut caritas.office).await.outbox, 1, "{days} {stopped}");
        let mut request = referral("r-2", "inps");
        request.sending.as_mut().expect("sending").attachments = vec![attachment_id];
        caritas.office.send_referral(request).await.expect("the file is there, and the date is one");
        assert_eq!(status(&mut caritas.office).await.outbox, 2, "{days} {stopped}");

        let no_reason = pb::ConfirmClockRequest { reason: " ".into() };
        let refused = caritas.office.confirm_clock(no_reason).await.expect_err("no reason");
        assert_eq!(reason(&refused), "FIELD_INVALID");
        let confirm = pb::ConfirmClockRequest { reason: "looked at the wall".into() };
        caritas.office.confirm_clock(confirm).await.expect("confirmed");
        let item = next_item(&mut caritas.office).await;
        let Some(Kind::Notice(notice)) = item.kind else { panic!("not a notice: {item:?}") };
        assert_eq!((notice.kind.as_str(), &notice.message_id), ("EXPIRED", &sent.message_id), "{days} {stopped}");
        let now = status(&mut caritas.office).await;
        assert_eq!((now.outbox, now.clock_held.as_str()), (1, ""), "{days} {stopped}");
        assert_eq!(caritas.core().metrics.clock_held.get(), 0, "{days} {stopped}");
        caritas.stop().await;
    }
}

#[tokio::test]
async fn what_arrives_while_the_clock_is_wrong_is_put_off_and_gets_its_receipt_when_it_is_right() {
    for days in [400, -400] {
        let network = Network::new();
        let (mut gateway, mut caritas, inps) = pair(&network).await;
        caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent");
        let message = gateway.message(0).await;
        let acceptance = gateway.state.acceptance(&message);
        network.clock.advance(days * DAY_MS);
        gateway.send("inps", stand_in::delivery(7, &message, Some(&acceptance))).await;
        let Outcome::Retry(later) = gateway.settlement("inps").await.1 else { panic!("not put off") };
        assert_eq!(later.reason, "CLOCK_HELD", "{days}");
        network.clock.advance(-days * DAY_MS);
        gateway.send("inps", stand_in::delivery(7, &message, Some(&acceptance))).await;
        let receipt = gateway.settlement("inps").await.0.expect("a receipt");
        assert!(Receipt::parse(&receipt.json).expect("a receipt").opened, "{days}");
        caritas.stop().await;
        inps.stop().await;
    }
}

#[tokio::test]
async fn a_key_record_of_another_year_is_made_anew_when_the_clock_is_right() {
    let network = Network::new();
    let gateway = StandIn::start(&network).await;
    // It begins with a clock a month ahead: nothing tells it yet.
    network.clock.advance(30 * DAY_MS);
    let mut caritas = network.start("caritas", NOWHERE).await;
    // The record is made before it is known that nobody takes it.
    until(async || (status(&mut caritas.office).await.problem != "not connected yet").then_some(())).await;
    caritas.stop().await;
    network.clock.advance(-30 * DAY_MS);
    let now_s = network.clock.advance(0) / 1_000;
    let mut caritas = network.start("caritas", gateway.port()).await;
    assert!(!status(&mut caritas.office).await.clock_held.is_empty(), "its facts are of next month");
    let confirm = pb::ConfirmClockRequest { reason: "the clock was set".into() };
    caritas.office.confirm_clock(confirm).await.expect("confirmed");
    let published = until(async || gateway.state.keys.lock().expect("lock").get("caritas").cloned()).await;
    let record = tramite_proto::statement::KeyRecord::parse(&published[0].json).expect("a record");
    assert!((record.iat - now_s).abs() <= 1, "{} {now_s}", record.iat);
    caritas.stop().await;
}
