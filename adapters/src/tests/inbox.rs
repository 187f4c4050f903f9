//! The inbox by itself: ids, leases, what cannot be opened. Nobody listens where the gateway should be.

use bytes::Bytes;
use prost::Message as _;
use tramite_proto::pb::{backoffice::v1 as pb, journal::v1::Accepted};
use tramite_store::{Change, Done, Work, disk::SimulatedDisk, map::MemoryMaps};

use super::{
    delivery::waiting,
    network::{Institution, Network, reason},
};
use crate::{Surroundings, core::BACKOFFICE, office::Inbox};

/// Nobody listens there.
const NOWHERE: u16 = 1;
/// Rows without which no fact is written.
const CLOCK: u8 = b'y';

/// Puts news into the inbox, about a message of that name. Gives its sequence.
async fn news(adapter: &Institution, about: &str) -> u64 {
    let notice = pb::Notice { kind: "OPENED".to_owned(), message_id: about.to_owned(), ..pb::Notice::default() };
    put(adapter, about, notice.encode_to_vec()).await
}

async fn put(adapter: &Institution, id: &str, extra: Vec<u8>) -> u64 {
    let (id, digest) = (Bytes::copy_from_slice(id.as_bytes()), vec![7; 32].into());
    let fact = Accepted { queue: BACKOFFICE.to_owned(), id, digest, extra: extra.into(), ..Accepted::default() };
    let change = Change::Accept { fact: Box::new(fact), content: Bytes::new(), sign: Vec::new(), mover: None };
    let done = adapter.core().store.commit_one(change).await.expect("written");
    let Done::Accepted { sequence, .. } = done else { panic!("not new: {done:?}") };
    sequence
}

fn about(item: &pb::InboxItem) -> &str {
    let Some(pb::inbox_item::Kind::Notice(notice)) = &item.kind else { panic!("not news: {item:?}") };
    &notice.message_id
}

async fn acknowledge(adapter: &mut Institution, item_id: &str) -> u32 {
    let request = pb::AcknowledgeRequest { item_ids: vec![item_id.to_owned()] };
    adapter.office.acknowledge(request).await.expect("no error").into_inner().acknowledged
}

#[tokio::test]
async fn an_acknowledgement_of_what_a_restore_took_away_ends_nothing_that_nobody_saw() {
    let network = Network::new();
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    network.start_on("inps", NOWHERE, &disk, &maps).await.stop().await;
    let copy = disk.fork();
    let mut inps = network.start_on("inps", NOWHERE, &disk, &maps).await;
    let sequence = news(&inps, "the first").await;
    let shown = waiting(&mut inps.office).await;
    assert_eq!(about(&shown[0]), "the first");
    inps.stop().await;

    let mut inps = network.start_on("inps", NOWHERE, &copy, &MemoryMaps::new()).await;
    assert_eq!(news(&inps, "the second").await, sequence, "the copy gives it again");
    for id in [&shown[0].item_id, &sequence.to_string(), &format!("{sequence}-")] {
        assert_eq!(acknowledge(&mut inps, id).await, 0, "{id}");
    }
    let left = waiting(&mut inps.office).await;
    assert_eq!(left.iter().map(about).collect::<Vec<_>>(), ["the second"]);
    assert_eq!(acknowledge(&mut inps, &left[0].item_id).await, 1);
    assert!(waiting(&mut inps.office).await.is_empty());
    inps.stop().await;
}

#[tokio::test]
async fn an_item_under_an_id_of_an_earlier_version_is_written_to_the_spool_again() {
    let network = Network::new();
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let without_spool = || {
        let mut config = network.config("comune", NOWHERE);
        config.spool = None;
        config
    };
    let comune = network.start_in(without_spool(), network.around(&disk, &maps)).await;
    let sequence = news(&comune, "something").await;
    comune.stop().await;
    // A crash of that version when the files were whole and nothing was acknowledged.
    let spool = network.path("comune/spool");
    std::fs::create_dir_all(spool.join(".partial")).expect("made");
    let stem = format!("something.{sequence}.opened");
    let item = format!("{{\"item_id\": \"{sequence}\"}}");
    std::fs::write(spool.join(format!(".partial/{stem}.item.json")), item).expect("written");

    let comune = network.start_on("comune", NOWHERE, &disk, &maps).await;
    let names = async || -> Option<Vec<String>> {
        let listing = std::fs::read_dir(spool.join("incoming")).ok()?;
        let names = listing.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        let names: Vec<String> = names.collect();
        (names.len() == 2).then_some(names)
    };
    let names = super::network::until(names).await;
    assert!(names.contains(&format!("{stem}.json")), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with(&format!("something.{sequence}-"))), "{names:?}");
    let acknowledged = async || (comune.core().store.queue(BACKOFFICE).expect("readable").waiting == 0).then_some(());
    super::network::until(acknowledged).await;
    comune.stop().await;
}

#[tokio::test]
async fn items_of_a_lot_whose_reader_goes_away_meanwhile_are_shown_to_the_next() {
    let network = Network::new();
    // Its writer waits for this very task, so that nothing is answered before the reader is gone.
    let around = Surroundings { work: Work::Task, ..network.around(&SimulatedDisk::new(), &MemoryMaps::new()) };
    let mut inps = network.start_in(network.config("inps", NOWHERE), around).await;
    put(&inps, "what cannot be opened", Vec::new()).await;
    news(&inps, "what can").await;
    let inbox = Inbox::new(inps.core());
    tokio::select! {
        biased;
        leased = inbox.lease(2) => panic!("put off already: {leased:?}"),
        () = std::future::ready(()) => {}
    }
    drop(inbox);
    assert_eq!(waiting(&mut inps.office).await.iter().map(about).collect::<Vec<_>>(), ["what can"]);
    inps.stop().await;
}

#[tokio::test]
async fn an_item_that_cannot_be_put_off_is_nobodys_and_holds_up_no_other() {
    let network = Network::new();
    let (disk, maps) = (SimulatedDisk::new(), MemoryMaps::new());
    let inps = network.start_on("inps", NOWHERE, &disk, &maps).await;
    let unreadable = put(&inps, "what cannot be opened", Vec::new()).await;
    news(&inps, "what can").await;
    inps.stop().await;
    maps.spoil(CLOCK);
    let mut inps = network.start_on("inps", NOWHERE, &disk, &maps).await;
    let watch = pb::WatchInboxRequest { follow: false, window: 0 };
    let mut inbox = inps.office.watch_inbox(watch).await.expect("an inbox").into_inner();
    assert_eq!(about(&inbox.message().await.expect("a stream").expect("an item")), "what can");
    let refused = inbox.message().await.expect_err("what is left can be neither shown nor put off");
    assert_eq!(reason(&refused), "STORE_FAILED");
    maps.mend();
    assert_eq!(waiting(&mut inps.office).await.iter().map(about).collect::<Vec<_>>(), ["what can"]);
    assert_eq!(inps.core().store.history(unreadable).expect("readable").len(), 1, "now it is put off");
    inps.stop().await;
}
