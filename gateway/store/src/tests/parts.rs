//! Parts: whole and durable before the message that names them, gone with it.

use tramite_proto::{ids::MessageId, pb::journal::v1::Part};

use super::*;
use crate::{PartError, disk::Access};

fn message_id(number: u64) -> MessageId {
    MessageId::from_bytes(&id(number)).unwrap()
}

pub(super) async fn put(store: &Store, number: u64, part: u32, bytes: &[u8]) -> Result<(), PartError> {
    let mut writer = store.put_part(&message_id(number), part, bytes.len() as u64, Digest::of(bytes)).await?;
    for piece in bytes.chunks(1000) {
        writer.write(Bytes::copy_from_slice(piece)).await?;
    }
    writer.finish().await
}

pub(super) fn named(part: u32, bytes: &[u8]) -> Part {
    Part { part, length: bytes.len() as u64, sha256: Bytes::copy_from_slice(Digest::of(bytes).as_bytes()) }
}

/// Asks while the writer steps: checking parts needs a thread of the runtime.
pub(super) async fn ask(running: &mut Running, change: Change) -> Result<Done, Rejected> {
    let store = running.store.clone();
    let asked = tokio::spawn(async move { store.commit(vec![change]).await.remove(0) });
    while !asked.is_finished() {
        running.writer.step();
        tokio::task::yield_now().await;
    }
    asked.await.unwrap()
}

#[tokio::test]
async fn a_message_needs_its_parts_whole_and_the_same() {
    let lab = Lab::new();
    let mut running = lab.open();
    let sealed = vec![5; 3_500];
    let with = |part: Part| message(1, "inps").with(|fact| fact.parts = vec![part]).change();
    assert_eq!(ask(&mut running, with(named(0, &sealed))).await.unwrap_err(), Rejected::PartMissing { part: 0 });
    put(&running.store, 1, 0, &sealed).await.unwrap();
    let other = Part { sha256: Bytes::from_static(&[1; 32]), ..named(0, &sealed) };
    assert_eq!(ask(&mut running, with(other.clone())).await.unwrap_err(), Rejected::PartMissing { part: 0 });
    drop(running);
    lab.disk.cut_power(1);
    let mut running = lab.open();
    assert_eq!(ask(&mut running, with(other)).await.unwrap_err(), Rejected::PartMissing { part: 0 }, "hashed again");
    assert_eq!(sequence(&ask(&mut running, with(named(0, &sealed))).await.unwrap()), 1);
    let mut reader = running.store.part_reader(&message_id(1), 0, 3_000).await.unwrap();
    assert_eq!((reader.length(), reader.next(400).await.unwrap().len()), (3_500, 400));
    assert_eq!((reader.next(400).await.unwrap().len(), reader.next(400).await.unwrap().len()), (100, 0));
}

#[tokio::test]
async fn parts_go_when_their_message_is_final_and_a_repeat_needs_none() {
    let lab = Lab::new();
    let mut running = lab.open();
    put(&running.store, 1, 0, b"secret part").await.unwrap();
    put(&running.store, 1, 1, b"another").await.unwrap();
    let change =
        || message(1, "inps").with(|f| f.parts = vec![named(0, b"secret part"), named(1, b"another")]).change();
    let sequence = sequence(&ask(&mut running, change()).await.unwrap());
    running.done(settle(sequence, Outcome::HandedOver));
    running.writer.apply();
    assert_eq!(running.store.parts().unwrap(), []);
    assert!(!is_on_disk(&lab.disk, b"secret part"));
    assert!(matches!(ask(&mut running, change()).await, Ok(Done::Repeated { .. })));
    put(&running.store, 1, 0, b"secret part").await.unwrap();
    drop(running);
    assert_eq!(lab.open().store.parts().unwrap(), [], "what came after the end goes at the next opening");
}

#[tokio::test]
async fn an_unfinished_or_wrong_part_leaves_nothing() {
    let lab = Lab::new();
    let running = lab.open();
    let store = &running.store;
    let first = message_id(1);
    let begin = |length| store.put_part(&first, 0, length, Digest::of(b"right"));
    let mut writer = begin(5).await.unwrap();
    writer.write(bytes("rig")).await.unwrap();
    drop(writer);
    let mut writer = begin(5).await.unwrap();
    assert!(matches!(writer.write(bytes("too long")).await, Err(PartError::Mismatch { .. })));
    drop(writer);
    let mut writer = begin(5).await.unwrap();
    writer.write(bytes("wrong")).await.unwrap();
    assert!(matches!(writer.finish().await, Err(PartError::Mismatch { .. })));
    let mut writer = begin(5).await.unwrap();
    writer.write(bytes("rig")).await.unwrap();
    assert!(matches!(writer.finish().await, Err(PartError::Mismatch { .. })));
    assert!(matches!(begin(27 * 1024 * 1024).await, Err(PartError::TooLarge { .. })));
    assert!(lab.disk.list(&lab.path("parts")).unwrap().is_empty());
    assert_eq!(store.part_len(&message_id(1), 0).unwrap(), None);
    assert!(matches!(store.part_reader(&message_id(1), 0, 0).await, Err(PartError::Missing { part: 0 })));
}

#[tokio::test]
async fn a_part_that_is_there_is_not_replaced_by_another() {
    let lab = Lab::new();
    let running = lab.open();
    put(&running.store, 1, 0, b"right").await.unwrap();
    put(&running.store, 1, 0, b"right").await.unwrap();
    assert!(matches!(put(&running.store, 1, 0, b"wrong").await, Err(PartError::Mismatch { .. })));
    drop(running);
    let running = lab.open();
    assert!(matches!(put(&running.store, 1, 0, b"wrong").await, Err(PartError::Mismatch { .. })));
    assert_eq!(running.store.parts().unwrap()[0].length, 5);
}

#[tokio::test]
async fn a_part_that_nobody_names_goes_after_a_day() {
    let lab = Lab::new();
    let mut running = lab.open();
    put(&running.store, 1, 0, b"orphan").await.unwrap();
    put(&running.store, 2, 0, b"named").await.unwrap();
    ask(&mut running, message(2, "inps").with(|fact| fact.parts = vec![named(0, b"named")]).change()).await.unwrap();
    lab.clock.advance(DAY_MS - 1);
    drop(running);
    let running = lab.open();
    assert_eq!(running.store.parts().unwrap().len(), 2);
    lab.clock.advance(1);
    drop(running);
    let left = lab.open().store.parts().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].message, message_id(2));
}

#[tokio::test]
async fn an_old_part_stays_while_the_message_that_names_it_is_being_accepted() {
    let lab = Lab::new();
    let mut running = lab.open();
    put(&running.store, 1, 0, b"just named").await.unwrap();
    put(&running.store, 2, 0, b"orphan").await.unwrap();
    lab.clock.advance(DAY_MS);
    let store = running.store.clone();
    let change = message(1, "inps").with(|fact| fact.parts = vec![named(0, b"just named")]).change();
    let asked = tokio::spawn(async move { store.commit(vec![change]).await.remove(0) });
    while running.writer.commands.is_empty() {
        tokio::task::yield_now().await;
    }
    let sweep = |running: &Running| crate::home::sweep_parts(&running.writer.shared, false);
    assert_eq!(sweep(&running), 1);
    running.writer.step();
    asked.await.unwrap().unwrap();
    assert_eq!(sweep(&running), 0);
    assert_eq!(running.store.parts().unwrap()[0].message, message_id(1));
}

/// A whole part under its name, which is not durable: its process was killed before it synced the folder.
fn half_put(lab: &Lab, number: u64, bytes: &[u8]) {
    let path = lab.path("parts").join(format!("{}.0", message_id(number)));
    let file = lab.disk.open(&path, Access::Create).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
}

#[tokio::test]
async fn a_part_that_is_there_already_is_durable_before_it_is_acknowledged() {
    let lab = Lab::new();
    let running = lab.open();
    half_put(&lab, 1, b"sealed");
    put(&running.store, 1, 0, b"sealed").await.unwrap();
    lab.disk.cut_power(1);
    drop(running);
    assert_eq!(lab.open().store.part_len(&message_id(1), 0).unwrap(), Some(6));
}

#[tokio::test]
async fn a_part_whose_name_could_not_be_synced_fails_the_store_and_is_not_answered_for() {
    let lab = Lab::new();
    let running = lab.open();
    lab.disk.faults().folders_fail.store(true, Ordering::SeqCst);
    assert!(matches!(put(&running.store, 1, 0, b"sealed").await, Err(PartError::Io(_))));
    assert!(running.store.health().failed);
    // A sync that works again proves nothing.
    lab.disk.faults().folders_fail.store(false, Ordering::SeqCst);
    assert!(matches!(put(&running.store, 1, 0, b"sealed").await, Err(PartError::Io(_))));
}

#[test]
fn parts_found_at_opening_are_durable_before_anyone_is_told_of_them() {
    let lab = Lab::new();
    drop(lab.open());
    half_put(&lab, 1, b"sealed");
    let running = lab.open();
    assert_eq!(running.store.part_len(&message_id(1), 0).unwrap(), Some(6));
    lab.disk.cut_power(1);
    drop(running);
    assert_eq!(lab.open().store.part_len(&message_id(1), 0).unwrap(), Some(6));
}

#[tokio::test]
async fn a_part_damaged_since_it_was_put_is_never_given_out_whole() {
    let lab = Lab::new();
    let mut running = lab.open();
    let sealed = vec![5; 3_500];
    put(&running.store, 1, 0, &sealed).await.unwrap();
    ask(&mut running, message(1, "inps").with(|fact| fact.parts = vec![named(0, &sealed)]).change()).await.unwrap();
    let path = lab.path("parts").join(format!("{}.0", message_id(1)));
    lab.disk.open(&path, Access::Write).unwrap().write_at(&[4], 700).unwrap();
    // From behind the damage, too: what came before belongs to it.
    for offset in [0, 1_000] {
        let mut reader = running.store.part_reader(&message_id(1), 0, offset).await.unwrap();
        let mut given = offset;
        let error = loop {
            match reader.next(500).await {
                Ok(bytes) => given += bytes.len() as u64,
                Err(error) => break error,
            }
        };
        assert!(given < 3_500, "all of it was given out");
        assert!(matches!(error, PartError::Mismatch { .. }), "{error}");
    }
    drop(running);
    let running = lab.open();
    assert!(matches!(running.store.part_reader(&message_id(1), 0, 0).await, Err(PartError::Mismatch { .. })));
}
