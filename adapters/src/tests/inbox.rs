//! The inbox by itself: ids, leases, what cannot be opened. Nobody listens where the gateway should be.

use bytes::Bytes;
use prost::Message as _;
use tramite_proto::pb::{backoffice::v1 as pb, journal::v1::Accepted};
use tramite_store::{Change, Done, disk::SimulatedDisk, map::MemoryMaps};

use super::{
    delivery::waiting,
    network::{Institution, Network},
};
use crate::core::BACKOFFICE;

/// Nobody listens there.
const NOWHERE: u16 = 1;

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
    let without = || {
        let mut config = network.config("comune", NOWHERE);
        config.spool = None;
        config
    };
    let comune = network.start_config_on(without(), &disk, &maps).await;
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
