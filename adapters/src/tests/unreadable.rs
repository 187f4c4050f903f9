//! What cannot be read is never taken for not there: it is said, and waits until it can be.

use bytes::Bytes;
use tramite_proto::{
    pb::{
        backoffice::v1 as pb,
        journal::v1::{Accepted, Recorded},
    },
    reason::Reason,
};
use tramite_store::{Change, Done, disk::SimulatedDisk, map::MemoryMaps};

use super::{
    network::{Institution, Network, PATIENCE, reason, referral, until},
    stand_in::{self, Answer, StandIn},
};
use crate::{
    core::{BACKOFFICE, GATEWAY, REFUSED},
    office::id_of,
};

/// Nobody listens there.
const NOWHERE: u16 = 1;
/// Of 100 kB, in more than a segment.
const SEGMENT_RECORDS: u8 = 22;
/// Rows of cases, of what may be handed out, and of how far the clock has come, without which no fact is written.
const CASES: u8 = b'c';
const READY: u8 = b'w';
const CLOCK: u8 = b'y';

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
    put(adapter, REFUSED).await;
}

/// Puts something into a queue. Gives its sequence.
async fn put(adapter: &Institution, queue: &str) -> u64 {
    let (id, digest) = (vec![b'r'; 33].into(), vec![7; 32].into());
    let fact = Accepted { queue: queue.to_owned(), id, digest, ..Accepted::default() };
    let change = Change::Accept { fact: Box::new(fact), content: Bytes::new(), sign: Vec::new(), mover: None };
    let done = adapter.core().store.commit_one(change).await.expect("written");
    let Done::Accepted { sequence, .. } = done else { panic!("not new: {done:?}") };
    sequence
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
async fn refusals_that_cannot_be_ended_at_a_start_end_later() {
    let (network, media) = (Network::new(), Media::default());
    let caritas = media.start(&network, NOWHERE).await;
    refuse_half(&caritas).await;
    caritas.stop().await;
    media.maps.spoil(CLOCK);
    let caritas = media.start(&network, NOWHERE).await;
    until(async || (caritas.retries(Reason::StoreFailed) > 0).then_some(())).await;
    assert_eq!(refusals(&caritas), 1);
    media.maps.mend();
    until(async || (refusals(&caritas) == 0).then_some(())).await;
    caritas.stop().await;
}

#[tokio::test]
async fn items_that_cannot_be_acknowledged_at_a_start_keep_no_other_from_its_name() {
    let (network, media) = (Network::new(), Media::default());
    let start = || network.start_on("comune", NOWHERE, &media.disk, &media.maps);
    let comune = start().await;
    let sequence = put(&comune, BACKOFFICE).await;
    let item_id = id_of(sequence, &comune.core().store.fact(sequence).expect("readable"));
    comune.stop().await;
    let spool = network.path("comune/spool");
    // In whatever order the folder shows them.
    for n in 0..8 {
        for (what, id) in [("waits", item_id.clone()), ("done", "acknowledged long ago".to_owned())] {
            let item = format!("{{\"item_id\": \"{id}\"}}");
            std::fs::write(spool.join(format!(".partial/{what}-{n}.item.json")), item).expect("written");
        }
    }
    let arrived = async |what: &str| {
        let all = || (0..8).all(|n| spool.join(format!("incoming/{what}-{n}.json")).exists());
        until(async || all().then_some(())).await;
    };
    media.maps.spoil(CLOCK);
    let comune = start().await;
    arrived("done").await;
    assert!((0..8).all(|n| spool.join(format!(".partial/waits-{n}.item.json")).exists()), "for the next start");
    comune.stop().await;
    media.maps.mend();
    let comune = start().await;
    arrived("waits").await;
    comune.stop().await;
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

#[tokio::test]
async fn a_receipt_that_is_damaged_keeps_no_adapter_from_starting() {
    let (network, media) = (Network::new(), Media::default());
    let mut gateway = StandIn::start(&network).await;
    let inps = network.start_on("inps", gateway.port(), &media.disk, &media.maps).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    let mut caritas = network.start("caritas", gateway.port()).await;
    caritas.knows("inps").await;
    let deliver = async |gateway: &mut StandIn, caritas: &mut Institution, n: usize| {
        caritas.office.send_referral(referral(&format!("r-{n}"), "inps")).await.expect("sent");
        let message = gateway.message(n).await;
        let acceptance = gateway.state.acceptance(&message);
        gateway.send("inps", stand_in::delivery(7 + n as u64, &message, Some(&acceptance))).await;
        gateway.settlement("inps").await.0.expect("a receipt")
    };
    let given = deliver(&mut gateway, &mut caritas, 0).await;
    // A start looks through the last segment itself; the receipt is to stand in one before.
    for n in 0..SEGMENT_RECORDS {
        let fact =
            Recorded { name: format!("filler/{n}"), value: Some(vec![n; 100_000].into()), ..Recorded::default() };
        inps.core().store.commit_one(Change::Record { fact: Box::new(fact), begins: false }).await.expect("written");
    }
    inps.stop().await;
    damage(&media.disk, &given.json);
    let inps = network.start_on("inps", gateway.port(), &media.disk, &media.maps).await;
    assert_ne!(deliver(&mut gateway, &mut caritas, 1).await, given);
    caritas.stop().await;
    inps.stop().await;
}

/// Flips a bit of what stands in some file.
fn damage(disk: &SimulatedDisk, what: &[u8]) {
    let place = |bytes: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let found = disk.paths().into_iter().find_map(|path| {
        let bytes = disk.bytes(&path)?;
        place(&bytes).map(|at| (path, bytes, at))
    });
    let (path, mut bytes, at) = found.expect("it stands somewhere");
    bytes[at] ^= 1;
    disk.overwrite(&path, bytes);
}
