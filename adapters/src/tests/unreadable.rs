//! What cannot be read is never taken for not there: it is said, and waits until it can be.

use bytes::Bytes;
use tramite_proto::{
    pb::{backoffice::v1 as pb, journal::v1::Accepted},
    reason::Reason,
};
use tramite_store::{Change, disk::SimulatedDisk, map::MemoryMaps};

use super::{
    network::{Institution, Network, PATIENCE, reason, referral, until},
    stand_in::{Answer, StandIn},
};
use crate::core::{GATEWAY, REFUSED};

/// Nobody listens there.
const NOWHERE: u16 = 1;
/// Rows of cases, and of what may be handed out.
const CASES: u8 = b'c';
const READY: u8 = b'w';

/// Where caritas keeps what it has.
#[derive(Default)]
struct Media {
    disk: SimulatedDisk,
    maps: MemoryMaps,
}

impl Media {
    async fn start(&self, network: &Network, port: u16) -> Institution {
        network.start_on("caritas", port, &self.disk, &self.maps).await
    }

    /// A referral that lives a minute and is in no memory any more. Returns its case.
    async fn referral(&self, network: &Network, gateway: &StandIn) -> String {
        let inps = network.start("inps", gateway.port()).await;
        until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
        let mut caritas = self.start(network, gateway.port()).await;
        caritas.knows("inps").await;
        caritas.stop().await;
        inps.stop().await;
        let mut caritas = self.start(network, NOWHERE).await;
        let mut request = referral("r-1", "inps");
        request.sending.as_mut().expect("sending").expires_in_s = 60;
        let sent = caritas.office.send_referral(request).await.expect("kept").into_inner();
        caritas.stop().await;
        sent.case_id
    }
}

/// The next notice of the inbox: its kind, and where the case stands then.
async fn told(caritas: &mut Institution, case_id: String) -> (String, String) {
    let watch = pb::WatchInboxRequest { follow: true, window: 1 };
    let mut inbox = caritas.office.watch_inbox(watch).await.expect("an inbox").into_inner();
    let item = tokio::time::timeout(PATIENCE, inbox.message()).await.expect("in time").expect("a stream");
    let Some(pb::inbox_item::Kind::Notice(notice)) = item.expect("an item").kind else { panic!("not a notice") };
    let case = caritas.office.get_case(pb::GetCaseRequest { case_id }).await.expect("a case").into_inner();
    (notice.kind, case.status)
}

#[tokio::test]
async fn a_message_whose_case_cannot_be_read_expires_later_and_then_takes_its_case_back() {
    let (network, media) = (Network::new(), Media::default());
    let gateway = StandIn::start(&network).await;
    let case_id = media.referral(&network, &gateway).await;
    drop(gateway);
    let mut caritas = media.start(&network, NOWHERE).await;
    media.maps.spoil(CASES);
    network.clock.advance(61_000);
    until(async || (caritas.retries(Reason::StoreFailed) > 0).then_some(())).await;
    media.maps.mend();
    assert_eq!(told(&mut caritas, case_id).await, ("EXPIRED".into(), "entered_in_error".into()));
    caritas.stop().await;
}

/// Leaves a refusal as a crash does between its receipt and its end.
async fn refuse_half(adapter: &Institution) {
    let fact = Accepted {
        queue: REFUSED.to_owned(),
        id: vec![b'r'; 33].into(),
        digest: vec![7; 32].into(),
        ..Accepted::default()
    };
    let change = Change::Accept { fact: Box::new(fact), content: Bytes::new(), sign: Vec::new(), mover: None };
    adapter.core().store.commit_one(change).await.expect("written");
}

fn refusals(adapter: &Institution) -> u64 {
    adapter.core().store.queue(REFUSED).expect("readable").waiting
}

#[tokio::test]
async fn a_refusal_whose_end_a_crash_prevented_is_ended_at_the_next_start() {
    let (network, media) = (Network::new(), Media::default());
    let caritas = media.start(&network, NOWHERE).await;
    refuse_half(&caritas).await;
    assert_eq!(refusals(&caritas), 1);
    caritas.stop().await;
    let caritas = media.start(&network, NOWHERE).await;
    until(async || (refusals(&caritas) == 0).then_some(())).await;
    caritas.stop().await;
}

#[tokio::test]
async fn refusals_that_cannot_be_read_keep_nothing_from_expiring_and_end_later() {
    let (network, media) = (Network::new(), Media::default());
    let gateway = StandIn::start(&network).await;
    media.referral(&network, &gateway).await;
    let caritas = media.start(&network, NOWHERE).await;
    refuse_half(&caritas).await;
    caritas.stop().await;
    media.maps.spoil(READY);
    let caritas = media.start(&network, NOWHERE).await;
    network.clock.advance(61_000);
    until(async || (caritas.core().store.queue(GATEWAY).expect("readable").waiting == 0).then_some(())).await;
    assert_eq!(refusals(&caritas), 1);
    media.maps.mend();
    until(async || (refusals(&caritas) == 0).then_some(())).await;
    caritas.stop().await;
}

#[tokio::test]
async fn a_refusal_for_good_whose_case_cannot_be_read_stands_later_and_then_takes_the_case_back() {
    let (network, media) = (Network::new(), Media::default());
    let gateway = StandIn::start(&network).await;
    let case_id = media.referral(&network, &gateway).await;
    *gateway.state.answer.lock().expect("lock") = Answer::Refuse(Reason::PolicyDenied);
    media.maps.spoil(CASES);
    let mut caritas = media.start(&network, gateway.port()).await;
    until(async || (caritas.retries(Reason::StoreFailed) > 0).then_some(())).await;
    media.maps.mend();
    // It is put off by a clock that stands still.
    network.clock.advance(5_000);
    assert_eq!(told(&mut caritas, case_id).await, ("REFUSED".into(), "entered_in_error".into()));
    caritas.stop().await;
}

#[tokio::test]
async fn cases_whose_first_message_cannot_be_read_are_not_listed_as_if_nobody_waited() {
    let (network, media) = (Network::new(), Media::default());
    let gateway = StandIn::start(&network).await;
    media.referral(&network, &gateway).await;
    // More than the store keeps of what it reads.
    let mut caritas = media.start(&network, NOWHERE).await;
    for number in 2..20 {
        caritas.office.send_referral(referral(&format!("r-{number}"), "inps")).await.expect("kept");
    }
    caritas.stop().await;
    let mut caritas = media.start(&network, NOWHERE).await;
    let journal = network.path("caritas").join("data/store/journal");
    media.disk.spoil(&journal.join("0000000000000001.seg"));
    let refused = caritas.office.list_cases(pb::ListCasesRequest::default()).await.expect_err("unreadable");
    assert_eq!(reason(&refused), "STORE_FAILED");
    media.disk.mend();
    let list = caritas.office.list_cases(pb::ListCasesRequest::default()).await.expect("cases").into_inner();
    assert_eq!(list.cases.len(), 19);
    caritas.stop().await;
}
