//! On the system's disk, with sled and the writer's own threads.

use std::fs;

use super::*;
use crate::{rebuild, verify};

fn options(directory: &Path) -> Options {
    Options { segment_bytes: crate::options::SEGMENT_BYTES_MIN, ..Options::new(directory.join("store"), "gateway") }
}

fn seams() -> Seams {
    Seams::real(Arc::new(ManualClock::new(T0)), Arc::new(TestNotary::default()))
}

fn refused(options: Options) -> OpenError {
    options.open(seams()).map(drop).unwrap_err()
}

#[test]
fn one_process_has_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let first = options(folder.path()).open(seams()).unwrap();
    let error = refused(options(folder.path()));
    assert!(matches!(&error, OpenError::InUse(_)), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    assert!(matches!(verify(&folder.path().join("store")), Err(OpenError::InUse(_))));
    drop(first);
    assert!(options(folder.path()).open(seams()).is_ok());
}

#[test]
fn a_directory_of_another_role_a_newer_format_or_another_owner_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(options(folder.path()).open(seams()).unwrap());
    let other = Options { role: "adapter:inps".into(), ..options(folder.path()) };
    assert!(matches!(refused(other), OpenError::OtherRole { found, .. } if found == "gateway"));
    let path = folder.path().join("store/store.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("format = 1", "format = 2") + "more = 1\n").unwrap();
    assert!(matches!(refused(options(folder.path())), OpenError::Newer { found: 2, known: 1, .. }));
    fs::write(&path, text.clone() + "more = 1\n").unwrap();
    assert!(matches!(refused(options(folder.path())), OpenError::Damaged(damage) if damage.file == path));
    fs::remove_file(&path).unwrap();
    assert!(matches!(refused(options(folder.path())), OpenError::Foreign { .. }));
    fs::write(&path, format!("format = 1\nstore_id = \"{}\"\nrole = \"gateway\"\n", "ab".repeat(16))).unwrap();
    assert!(
        matches!(refused(options(folder.path())), OpenError::Damaged(damage) if damage.what.contains("another store"))
    );
    assert!(matches!(verify(folder.path()), Err(OpenError::Foreign { .. })));
    let small = Options { segment_bytes: 1000, ..options(folder.path()) };
    assert!(matches!(refused(small), OpenError::Option { option: "segment_bytes", .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_groups_on_the_writers_thread_and_everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (store, writer, _) = options(folder.path()).open(seams()).unwrap();
    let writing = writer.spawn().unwrap();
    let callers: Vec<_> = (0..20_u64)
        .map(|caller| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..10 {
                    let number = caller * 10 + i + 1;
                    let Ok(done) = store.commit(vec![message(number, "inps").change()]).await.remove(0) else {
                        panic!()
                    };
                    if number.is_multiple_of(2) {
                        assert!(store.commit(vec![settle(sequence(&done), Outcome::HandedOver)]).await[0].is_ok());
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let health = store.health();
    assert_eq!(health.facts, 300);
    assert!(health.groups < 300, "{} groups", health.groups);
    assert_eq!(store.queue("inps").unwrap().waiting, 100);
    store.close().await;
    tokio::task::spawn_blocking(|| writing.join().unwrap().unwrap()).await.unwrap();
    assert_eq!(store.commit(vec![message(999, "inps").change()]).await[0].as_ref().unwrap_err(), &Rejected::Closing);
    assert!(store.queue("inps").is_err(), "the outbox was left as it is, and nobody opens it again to read");
    drop(store);
    let found = verify(&folder.path().join("store")).unwrap();
    assert_eq!((found.facts, found.contents, found.erased, found.problems), (300, 100, 100, Vec::new()));
    assert!(found.rows >= 200);
    let (store, writer, recovery) = options(folder.path()).open(seams()).unwrap();
    assert_eq!((recovery.rebuilt, recovery.sequence), (None, 300));
    assert_eq!(store.lease("inps", 1000, usize::MAX).unwrap().len(), 100);
    drop((store, writer));
}

/// Signs like somebody who has forgotten how.
#[derive(Debug)]
struct Panics;

impl Notary for Panics {
    fn sign(&self, _: i64, _: &[Bytes]) -> Result<Vec<Statement>, String> {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn a_panic_of_the_writer_is_a_failure_of_the_store_and_not_a_silence() {
    let folder = tempfile::tempdir().unwrap();
    let (store, writer, _) = options(folder.path()).open(Seams { notary: Arc::new(Panics), ..seams() }).unwrap();
    let writing = writer.spawn().unwrap();
    let signed = Message { sign: vec![(Slot::Evidence, bytes("e"))], ..message(1, "inps") }.change();
    assert_eq!(store.commit(vec![signed]).await[0].as_ref().unwrap_err(), &Rejected::Failed);
    assert!(store.failed().await.what.contains("writer"));
    assert!(writing.join().is_err());
    assert_eq!(store.commit(vec![message(2, "inps").change()]).await[0].as_ref().unwrap_err(), &Rejected::Failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_consumers_of_one_queue_get_everything_once_and_in_order() {
    const MESSAGES: u64 = 600;
    let folder = tempfile::tempdir().unwrap();
    let (store, writer, _) = options(folder.path()).open(seams()).unwrap();
    let writing = writer.spawn().unwrap();
    let got: Arc<std::sync::Mutex<Vec<u64>>> = Arc::default();
    let consume = |store: Store, got: Arc<std::sync::Mutex<Vec<u64>>>| async move {
        loop {
            store.arrival("inps").await;
            let leased = store.lease("inps", 7, 60).unwrap();
            got.lock().unwrap().extend(leased.iter().map(|leased| leased.sequence));
            let changes: Vec<Change> =
                leased.iter().map(|leased| settle(leased.sequence, Outcome::HandedOver)).collect();
            assert!(store.commit(changes).await.iter().all(|answer| matches!(answer, Ok(Done::Settled { .. }))));
        }
    };
    let consumers: Vec<_> = (0..4).map(|_| tokio::spawn(consume(store.clone(), Arc::clone(&got)))).collect();
    for chunk in (1..=MESSAGES).collect::<Vec<_>>().chunks(5) {
        let order = |number: u64| message(number, "inps").order(["a", "b", "c"][usize::try_from(number % 3).unwrap()]);
        let unordered = |number: u64| if number.is_multiple_of(2) { order(number) } else { message(number, "inps") };
        store.commit(chunk.iter().map(|number| unordered(*number).change()).collect()).await;
    }
    while store.queue("inps").unwrap().settled < MESSAGES {
        assert!(consumers.iter().all(|consumer| !consumer.is_finished()), "a consumer has failed");
        tokio::task::yield_now().await;
    }
    consumers.iter().for_each(tokio::task::JoinHandle::abort);
    let got = got.lock().unwrap().clone();
    let mut once = got.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!((got.len() as u64, once.len() as u64), (MESSAGES, MESSAGES));
    let number = |sequence: u64| accepted_of(&store.fact(sequence).unwrap()).id.clone();
    for order in 0..3 {
        let is_in = |sequence: &&u64| {
            let fact = store.fact(**sequence).unwrap();
            accepted_of(&fact).order.first() == Some(&(b'a' + order))
        };
        let mine: Vec<Bytes> = got.iter().filter(is_in).map(|sequence| number(*sequence)).collect();
        assert!(mine.len() > 90 && mine.is_sorted_by_key(|id| (id[9], id[10], id[11], id[12])), "order {order}");
    }
    drop(store);
    tokio::task::spawn_blocking(|| writing.join().unwrap().unwrap()).await.unwrap();
}

#[test]
fn a_writer_whose_handles_are_gone_leaves_the_directory_clean() {
    let folder = tempfile::tempdir().unwrap();
    let (store, writer, recovery) = options(folder.path()).open(seams()).unwrap();
    assert!(recovery.created);
    drop(store);
    writer.run().unwrap();
    let (_, _, recovery) = options(folder.path()).open(seams()).unwrap();
    assert_eq!((recovery.created, recovery.rebuilt), (false, None));
}

#[test]
fn a_damaged_or_missing_outbox_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("store");
    let fill = || {
        let (store, writer, recovery) = options(folder.path()).open(seams()).unwrap();
        let mut running = Running { store, writer, recovery };
        let from = running.store.sequence() + 1;
        running.commit((from..from + 50).map(|number| message(number, "inps").change()).collect());
        let rows = running.rows();
        let rebuilt = running.recovery.rebuilt.clone();
        running.stop();
        (rows, rebuilt)
    };
    fill();
    fs::remove_dir_all(directory.join("outbox")).unwrap();
    assert!(fill().1.is_some(), "missing");
    // sled's own files are cut: whatever it says of that, or does not say, the rows are right.
    for cut in [0, 100, 4096] {
        let db = directory.join("outbox/db");
        let length = fs::metadata(&db).unwrap().len();
        fs::OpenOptions::new().write(true).open(&db).unwrap().set_len(length.min(cut)).unwrap();
        fill();
        assert_eq!(verify(&directory).unwrap().problems, Vec::new());
    }
    let (rows, _) = fill();
    fs::write(directory.join("outbox/snap.0000000000000001"), b"rubbish").unwrap();
    assert!(rebuild(&directory).unwrap().rebuilt.is_some());
    let (store, writer, recovery) = options(folder.path()).open(seams()).unwrap();
    let running = Running { store, writer, recovery };
    assert_eq!((running.rows(), running.recovery.rebuilt.clone()), (rows, None));
}

#[test]
fn erased_content_is_found_in_no_raw_file() {
    let folder = tempfile::tempdir().unwrap();
    let canary = "canary that must not stay".repeat(100);
    let (store, writer, recovery) = options(folder.path()).open(seams()).unwrap();
    let mut running = Running { store, writer, recovery };
    running.commit((1..=5).map(|number| message(number, "inps").content(bytes(&canary)).change()).collect());
    running.commit((1..=5).map(|sequence| settle(sequence, Outcome::HandedOver)).collect());
    running.writer.apply();
    assert!(!is_in(folder.path(), b"canary that"));
    running.stop();
    assert!(!is_in(folder.path(), b"canary that"));
    let found = verify(&folder.path().join("store")).unwrap();
    assert_eq!((found.erased, found.problems), (5, Vec::new()));
}

/// Name and niceness of a thread.
fn niceness(thread: &Path) -> Option<(String, i32)> {
    let stat = fs::read_to_string(thread.join("stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    // Field 19 of proc(5), of which the third comes first here.
    Some((name.to_owned(), rest.split_whitespace().nth(16)?.parse().ok()?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_room_has_its_share_of_a_busy_processor() {
    const LARGE: usize = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(T0);
    let seams = Seams { clock: Arc::new(clock.clone()), ..seams() };
    let (store, writer, _) = options(folder.path()).open(seams).unwrap();
    let writing = writer.start(crate::Work::Threads).unwrap();
    let large = |number| message(number, "inps").content(vec![7; LARGE].into()).change();
    assert!(store.commit((1..=8).map(large).collect()).await.iter().all(Result::is_ok));
    let settled = (1..=8).map(|sequence| settle(sequence, Outcome::HandedOver)).collect();
    assert!(store.commit(settled).await.iter().all(Result::is_ok));
    let journal = folder.path().join("store/journal");
    let is_packed =
        || fs::read_dir(&journal).unwrap().flatten().any(|entry| entry.path().extension() == Some("pack".as_ref()));
    for number in 9..1_000_000 {
        if is_packed() {
            break;
        }
        clock.advance(10_000);
        assert!(store.commit_one(message(number, "inps").change()).await.is_ok());
    }
    assert!(is_packed());
    let threads: Vec<_> =
        fs::read_dir("/proc/self/task").unwrap().flatten().filter_map(|task| niceness(&task.path())).collect();
    let of = |name: &str| -> Vec<i32> { threads.iter().filter(|(of, _)| of == name).map(|(_, nice)| *nice).collect() };
    let (growth, writers) = (of("tramite-growth"), of("tramite-store"));
    assert!(!growth.is_empty() && growth.iter().all(|nice| writers.contains(nice)), "{threads:?}");
    store.end(writing).await;
}

fn is_in(folder: &Path, needle: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_in(&path, needle);
        }
        fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle)
    })
}

#[tokio::test]
async fn what_is_patient_rides_with_the_next_group_or_makes_its_own_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (store, writer, _) = options(folder.path()).open(seams()).unwrap();
    let writing = writer.start(crate::Work::Threads).unwrap();
    assert!(store.commit((1..=3).map(|number| message(number, "inps").change()).collect()).await[2].is_ok());
    let groups = || store.health().groups;
    assert_eq!(groups(), 1);
    let (with_next, next) = tokio::join!(
        store.commit_with_next(vec![settle(1, Outcome::HandedOver), settle(9, Outcome::HandedOver)]),
        store.commit_one(message(4, "inps").change()),
    );
    assert!(next.is_ok());
    assert!(matches!(with_next[..], [Ok(Done::Settled { .. }), Err(Rejected::UnknownSequence { sequence: 9 })]));
    assert_eq!(groups(), 2, "one group for both");
    assert!(store.commit_with_next(vec![settle(2, Outcome::HandedOver)]).await[0].is_ok(), "nobody else came");
    assert_eq!(groups(), 3);
    let last = tokio::spawn({
        let store = store.clone();
        async move { store.commit_with_next(vec![settle(3, Outcome::HandedOver)]).await }
    });
    tokio::task::yield_now().await;
    store.end(writing).await;
    assert!(last.await.unwrap()[0].is_ok(), "a store that is closed leaves nobody without an answer");
    let after = store.commit_with_next(vec![settle(4, Outcome::HandedOver)]).await;
    assert!(matches!(after[..], [Err(Rejected::Closing)]));
}
