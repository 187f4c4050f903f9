//! Group commit under a scheduler that tries many orders: callers, the writer, the applier and a power cut, each a task that may be
//! stopped before every write and every sync. A failing order is printed by its seed and can be replayed (shuttle's `replay`).

use std::{
    io,
    sync::{Mutex, atomic::AtomicU32},
};

use shuttle::{
    future::block_on,
    rand::{Rng as _, thread_rng},
    scheduler::RandomScheduler,
    thread::{self, yield_now},
};

use super::*;
use crate::{
    MessageState,
    disk::{Access, DiskFile, FileInfo, Lock},
};

/// Orders tried for each promise: a second or two.
const ORDERS: usize = 100;
const CALLERS: u64 = 3;
/// Turns of others before the power goes, at most: a run takes some sixty.
const TURNS_MAX: u32 = 80;

/// A disk at each of whose barriers somebody else may take a turn, and that is gone once the power is.
#[derive(Debug, Clone)]
struct Turns {
    disk: SimulatedDisk,
    gone: Arc<AtomicBool>,
}

#[derive(Debug)]
struct TurnsFile {
    file: Arc<dyn DiskFile>,
    disk: Turns,
}

impl Turns {
    fn turn(&self) -> io::Result<()> {
        yield_now();
        if self.gone.load(Ordering::SeqCst) { Err(io::Error::other("no power")) } else { Ok(()) }
    }
}

impl Disk for Turns {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn info(&self, path: &Path) -> io::Result<Option<FileInfo>> {
        self.disk.info(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.turn()?;
        Ok(Arc::new(TurnsFile { file: self.disk.open(path, access)?, disk: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.turn()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.turn()?;
        self.disk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.turn()?;
        self.disk.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.disk.lock(path)
    }
}

impl DiskFile for TurnsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        yield_now();
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.turn()?;
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.turn()?;
        self.file.sync_data()
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.disk.turn()?;
        self.file.allocate(length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.turn()?;
        self.file.punch(offset, length)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

/// What callers were answered: number and sequence.
type Answered = Arc<Mutex<Vec<(u64, u64)>>>;

fn try_orders(scenario: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    // Opening a store in an unoptimised build takes more than the 32 KiB of a task.
    config.stack_size = 1 << 20;
    shuttle::Runner::new(RandomScheduler::new(ORDERS), config).run(scenario);
}

/// Each caller commits a message of its own and one that all share.
fn callers(store: &Store, answered: &Answered) -> Vec<thread::JoinHandle<()>> {
    let caller = |number: u64| {
        let (store, answered) = (store.clone(), Arc::clone(answered));
        thread::spawn(move || {
            let changes = [message(1, "inps").change(), message(10 + number, "inps").change()];
            for (id, change) in [1, 10 + number].into_iter().zip(changes) {
                let answer = block_on(store.commit_one(change));
                if let Ok(done) = answer {
                    answered.lock().unwrap().push((id, sequence(&done)));
                }
            }
        })
    };
    (0..CALLERS).map(caller).collect()
}

/// Writes until every handle is gone, and applies now and then.
fn write(mut writer: Writer) {
    loop {
        match writer.step() {
            Step::Over => return,
            Step::Worked => {}
            Step::Idle => yield_now(),
        }
        if thread_rng().gen_range(0..3) == 0 {
            writer.apply();
        }
    }
}

/// Callers at work until the power goes, if it does; then what they were answered is looked for.
fn cut_while_callers_work(lies: bool) {
    let lab = Lab::new();
    // On the disk before anybody comes: a new store's first steps are another promise.
    lab.open().stop();
    lab.disk.faults().sync_lies.store(lies.into(), Ordering::SeqCst);
    let disk = Turns { disk: lab.disk.clone(), gone: Arc::default() };
    let seams = Seams { disk: Arc::new(disk.clone()), ..lab.seams() };
    let (store, writer, _) = lab.options.clone().open(seams).unwrap();
    let answered = Answered::default();
    let calling = callers(&store, &answered);
    drop(store);
    let writing = thread::spawn(move || write(writer));
    let known = Arc::clone(&answered);
    let cutting = thread::spawn(move || {
        for _ in 0..thread_rng().gen_range(0..TURNS_MAX) {
            yield_now();
        }
        // Nobody takes a turn between these.
        disk.gone.store(true, Ordering::SeqCst);
        disk.disk.cut_power(thread_rng().r#gen());
        known.lock().unwrap().clone()
    });
    for caller in calling {
        caller.join().unwrap();
    }
    let answered = cutting.join().unwrap();
    writing.join().unwrap();
    let running = lab.open();
    for (number, sequence) in answered {
        let row = running.store.message(&id(number)).unwrap();
        assert_eq!(row.map(|row| row.sequence), Some(sequence), "{number} was acknowledged and is lost");
    }
}

#[test]
fn in_every_order_what_was_answered_before_the_power_went_is_there() {
    try_orders(|| cut_while_callers_work(false));
}

#[test]
fn with_the_sync_taken_out_some_order_loses_what_was_answered() {
    let tried = std::panic::catch_unwind(|| try_orders(|| cut_while_callers_work(true)));
    assert!(tried.is_err(), "no order of {ORDERS} lost anything on a disk that does not sync");
}

/// What callers were answered, those of one kind together.
type Told = Arc<Mutex<Vec<Vec<Result<Done, Rejected>>>>>;

/// Each caller asks for the same message, for one of the same id with a content of its own, and for one of its own with the same
/// request id.
fn the_same(caller: u64) -> [Change; 3] {
    let own = bytes(&format!("content of {caller}"));
    let digest = Bytes::copy_from_slice(Digest::of(&own).as_bytes());
    let request = |fact: &mut Accepted| {
        (fact.request_id, fact.request_digest) = ("pratica-17.json".into(), Bytes::from_static(&[7; 32]));
    };
    [
        message(1, "inps").change(),
        message(2, "inps").with(|fact| fact.digest = digest).content(own).change(),
        message(10 + caller, "inps").with(request).change(),
    ]
}

/// Callers who ask for the same, while rows of a kind are not found in the map (0: all are). Returns whether some shared a group.
fn ask_for_the_same(hidden: u8) -> bool {
    let lab = Lab::new();
    lab.maps.hide(hidden);
    let disk = Turns { disk: lab.disk.clone(), gone: Arc::default() };
    let seams = Seams { disk: Arc::new(disk), ..lab.seams() };
    let (store, writer, _) = lab.options.clone().open(seams).unwrap();
    let told: Told = Arc::new(Mutex::new(vec![Vec::new(); 3]));
    let caller = |number: u64| {
        let (store, told) = (store.clone(), Arc::clone(&told));
        thread::spawn(move || {
            // Each begins with another, so that a group may have several.
            let mut asked: Vec<_> = the_same(number).into_iter().enumerate().collect();
            asked.rotate_left(usize::try_from(number).unwrap());
            for (kind, change) in asked {
                let answer = block_on(store.commit_one(change));
                told.lock().unwrap()[kind].push(answer);
            }
        })
    };
    let calling: Vec<_> = (0..CALLERS).map(caller).collect();
    let writing = thread::spawn(move || write(writer));
    for caller in calling {
        caller.join().unwrap();
    }
    for (kind, answers) in told.lock().unwrap().iter().enumerate() {
        assert_eq!(answers.len() as u64, CALLERS, "everybody was answered");
        let new = |answer: &&Result<Done, Rejected>| matches!(answer, Ok(Done::Accepted { .. }));
        let first: Vec<u64> = answers.iter().filter(new).map(|answer| sequence(answer.as_ref().unwrap())).collect();
        assert_eq!(first.len(), 1, "one was the first: {answers:?}");
        for answer in answers.iter().filter(|answer| !new(answer)) {
            match answer {
                Ok(Done::Repeated { sequence, .. }) => assert_eq!((kind != 1, *sequence), (true, first[0])),
                Err(Rejected::IdReused { sequence }) => assert_eq!((kind, *sequence), (1, first[0])),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(store.sequence(), 3, "one fact for each");
    let shared = store.health().groups < 3;
    drop(store);
    writing.join().unwrap();
    shared
}

#[test]
fn in_every_order_callers_who_ask_for_the_same_make_one_fact_and_get_the_same_answer() {
    static SHARED: AtomicU32 = AtomicU32::new(0);
    try_orders(|| {
        SHARED.fetch_add(ask_for_the_same(0).into(), Ordering::Relaxed);
    });
    assert!(SHARED.load(Ordering::Relaxed) > 0, "in some order callers shared a group");
}

#[test]
fn with_the_rows_of_ids_or_requests_not_found_some_order_makes_two() {
    for hidden in [b'i', b'r'] {
        let tried = std::panic::catch_unwind(|| {
            try_orders(move || {
                ask_for_the_same(hidden);
            })
        });
        let said = tried.expect_err("no order made two");
        let said = said.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(said.contains("one was the first"), "{said}");
    }
}

#[test]
fn in_every_order_a_message_that_ends_is_seen_to_wait_or_to_have_ended_as_it_did() {
    try_orders(|| {
        let mut lab = Lab::new();
        // So that its fact is read from the disk, between its rows.
        lab.options.recent_bytes = 0;
        let disk = Turns { disk: lab.disk.clone(), gone: Arc::default() };
        let seams = Seams { disk: Arc::new(disk), ..lab.seams() };
        let (store, writer, _) = lab.options.clone().open(seams).unwrap();
        let writing = thread::spawn(move || write(writer));
        block_on(store.commit_one(message(1, "inps").change())).unwrap();
        let ending = {
            let store = store.clone();
            thread::spawn(move || drop(block_on(store.commit_one(settle(1, Outcome::HandedOver))).unwrap()))
        };
        loop {
            let state = store.message(&id(1)).unwrap().unwrap().state;
            match state {
                MessageState::Waiting => yield_now(),
                state => break assert_eq!(state, MessageState::Final(Outcome::HandedOver)),
            }
        }
        ending.join().unwrap();
        drop(store);
        writing.join().unwrap();
    });
}
