//! What the store promises, against a disk that loses what was not synced; and the bench on which the promises are tried.
//!
//! The writer is stepped by hand, so every test says itself when a group is written and when rows are applied. Tests of threads,
//! locks and sled use the system's disk.

use std::{
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tramite_proto::{
    clock::ManualClock,
    ids::Digest,
    pb::{
        journal::v1::{Accepted, CaseMove, Fact, Outcome, Settled, fact::Kind},
        statement::v1::Statement,
    },
};

use crate::{
    Change, Done, Notary, OpenError, Options, Recovery, Rejected, Seams, Slot, Step, Store, Writer,
    disk::{Disk, SimulatedDisk},
    map::{MemoryMaps, Pair},
    overlay::Rows as _,
    rows,
};

mod cases;
mod clock;
mod durability;
mod erasure;
mod faults;
mod growth;
mod idempotency;
mod interleavings;
mod lanes;
mod model;
mod outbox;
mod parts;
mod process;
mod queues;
mod recovery;
mod regions;
mod retention;
mod sled_files;
mod sweep;

/// When every test begins.
pub(crate) const T0: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Signs by putting the number of the call and the place into the JWS.
#[derive(Debug, Default)]
pub(crate) struct TestNotary {
    pub(crate) calls: AtomicU64,
    pub(crate) fails: AtomicBool,
}

impl Notary for TestNotary {
    fn sign(&self, _: i64, jsons: &[Bytes]) -> Result<Vec<Statement>, String> {
        if self.fails.load(Ordering::SeqCst) {
            return Err("the pen is broken".into());
        }
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let statement = |(index, json): (usize, &Bytes)| Statement {
            json: json.clone(),
            jws: format!("call {call}"),
            index: index.try_into().unwrap(),
            path: Vec::new(),
        };
        Ok(jsons.iter().enumerate().map(statement).collect())
    }
}

/// A disk, a map, a clock and a signer that outlive the stores opened on them.
#[derive(Debug, Clone)]
pub(crate) struct Lab {
    pub(crate) disk: SimulatedDisk,
    pub(crate) maps: MemoryMaps,
    pub(crate) clock: ManualClock,
    pub(crate) notary: Arc<TestNotary>,
    pub(crate) options: Options,
}

/// A store whose writer is stepped by hand. Dropped, it is a process that was killed.
pub(crate) struct Running {
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    pub(crate) recovery: Recovery,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let disk = SimulatedDisk::new();
        disk.faults().now_ms.store(T0, Ordering::SeqCst);
        let options = Options { segment_bytes: crate::options::SEGMENT_BYTES_MIN, ..Options::new("store", "test") };
        let (maps, clock, notary) = (MemoryMaps::new(), ManualClock::new(T0), Arc::default());
        Self { disk, maps, clock, notary, options }
    }

    pub(crate) fn seams(&self) -> Seams {
        Seams {
            disk: Arc::new(self.disk.clone()),
            maps: Arc::new(self.maps.clone()),
            clock: Arc::new(self.clock.clone()),
            notary: Arc::<TestNotary>::clone(&self.notary),
            store_id: [7; 16],
        }
    }

    pub(crate) fn try_open(&self) -> Result<Running, OpenError> {
        let (store, writer, recovery) = self.options.clone().open(self.seams())?;
        Ok(Running { store, writer, recovery })
    }

    pub(crate) fn open(&self) -> Running {
        self.try_open().unwrap()
    }

    /// The same bytes on a disk of their own, and no rows.
    pub(crate) fn fork(&self) -> Self {
        Self { disk: self.disk.fork(), maps: MemoryMaps::new(), ..self.clone() }
    }

    pub(crate) fn segment(&self) -> PathBuf {
        self.path("journal/0000000000000001.seg")
    }

    pub(crate) fn mark(&self) -> PathBuf {
        self.path("journal/synced")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new("store").join(name)
    }

    /// Changes a file from outside.
    pub(crate) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.disk.bytes(path).unwrap();
        edit(&mut bytes);
        self.disk.overwrite(path, bytes);
    }
}

impl Running {
    /// Commits in a group of its own.
    pub(crate) fn commit(&mut self, changes: Vec<Change>) -> Vec<Result<Done, Rejected>> {
        let store = self.store.clone();
        let mut asked = pin!(store.commit(changes));
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(answers) = asked.as_mut().poll(&mut context) {
            return answers;
        }
        self.writer.step();
        match asked.as_mut().poll(&mut context) {
            Poll::Ready(answers) => answers,
            Poll::Pending => panic!("the writer did not answer"),
        }
    }

    pub(crate) fn one(&mut self, change: Change) -> Result<Done, Rejected> {
        self.commit(vec![change]).remove(0)
    }

    /// The sequence of a change that must be made.
    pub(crate) fn done(&mut self, change: Change) -> u64 {
        sequence(&self.one(change).unwrap())
    }

    /// Stops in order.
    pub(crate) fn stop(mut self) {
        self.store_closed();
        self.writer.finish().unwrap();
    }

    fn store_closed(&mut self) {
        while self.writer.step() == Step::Worked {}
    }

    pub(crate) fn leasable(&self, queue: &str) -> Vec<u64> {
        let leased: Vec<u64> = self.store.lease(queue, 100, usize::MAX).unwrap().iter().map(|l| l.sequence).collect();
        self.store.release(queue, &leased);
        leased
    }

    /// Every row but the position, which is where the map stands and not what it says.
    pub(crate) fn rows(&self) -> Vec<Pair> {
        let all = self.writer.shared.outbox.scan(&[], rows::END, usize::MAX).unwrap();
        all.into_iter().filter(|(key, _)| key.as_slice() != rows::POSITION).collect()
    }

    /// What each issuer has waiting, in bytes of contents.
    pub(crate) fn charges(&self) -> Vec<(String, u64)> {
        let prefix = rows::charge("");
        let found = self.writer.shared.outbox.scan(&prefix, &rows::after(&prefix), usize::MAX).unwrap();
        let charge = |(key, value): Pair| {
            let name = String::from_utf8_lossy(rows::rest(&key)).into_owned();
            (name, rows::decode::<rows::ChargeRow>(value).unwrap().bytes)
        };
        found.into_iter().map(charge).collect()
    }
}

pub(crate) fn sequence(done: &Done) -> u64 {
    match done {
        Done::Accepted { sequence, .. }
        | Done::Repeated { sequence, .. }
        | Done::Settled { sequence, .. }
        | Done::Already { sequence }
        | Done::AttemptFailed { sequence, .. }
        | Done::PutOff { sequence, .. }
        | Done::Recorded { sequence, .. } => *sequence,
    }
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// 16 bytes that begin like a number.
pub(crate) fn id(number: u64) -> Bytes {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    // Version 7 and the RFC's variant, so that it is a message id too.
    id[6] = 0x70;
    id[7] = u8::try_from(number % 251).unwrap();
    id[8] = 0x80;
    id[9..13].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    Bytes::copy_from_slice(&id)
}

/// A message for `queue`.
pub(crate) struct Message {
    pub(crate) fact: Accepted,
    pub(crate) content: Bytes,
    pub(crate) sign: Vec<(Slot, Bytes)>,
    pub(crate) mover: Option<crate::Mover>,
}

pub(crate) fn message(number: u64, queue: &str) -> Message {
    let content = bytes(&format!("content of {number} "));
    let fact = Accepted {
        queue: queue.into(),
        id: id(number),
        digest: Bytes::copy_from_slice(Digest::of(&content).as_bytes()),
        remember_ms: T0 + 90 * DAY_MS,
        return_to: "caritas".into(),
        ..Accepted::default()
    };
    Message { fact, content, sign: Vec::new(), mover: None }
}

impl Message {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Accepted)) -> Self {
        change(&mut self.fact);
        self
    }

    pub(crate) fn order(self, order: &str) -> Self {
        self.with(|fact| fact.order = bytes(order))
    }

    pub(crate) fn content(mut self, content: Bytes) -> Self {
        self.content = content;
        self
    }

    pub(crate) fn change(self) -> Change {
        Change::Accept { fact: Box::new(self.fact), content: self.content, sign: self.sign, mover: self.mover }
    }
}

pub(crate) fn settle(sequence: u64, outcome: Outcome) -> Change {
    let fact = Settled { sequence, outcome: outcome.into(), ..Settled::default() };
    Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None }
}

pub(crate) fn fail_attempt(sequence: u64, due_ms: i64) -> Change {
    fail_attempt_in("inps", sequence, due_ms)
}

pub(crate) fn fail_attempt_in(queue: &str, sequence: u64, due_ms: i64) -> Change {
    let (queue, reason, detail) = (queue.into(), "NACK_TRANSIENT".into(), "later".into());
    Change::FailAttempt { sequence, queue, reason, detail, due_ms }
}

pub(crate) fn redrive(sequence: u64) -> Change {
    Change::Redrive { sequence, by: "operator".into(), reason: "repaired".into() }
}

pub(crate) fn case_move(case: u64, to: &str) -> CaseMove {
    CaseMove { case_id: id(case), to: to.into(), ..CaseMove::default() }
}

pub(crate) fn accepted_of(fact: &Fact) -> &Accepted {
    match &fact.kind {
        Some(Kind::Accepted(accepted)) => accepted,
        other => panic!("not an acceptance: {other:?}"),
    }
}

/// Whether `needle` stands anywhere in the files of a disk.
pub(crate) fn is_on_disk(disk: &SimulatedDisk, needle: &[u8]) -> bool {
    let holds = |path: &PathBuf| disk.bytes(path).unwrap().windows(needle.len()).any(|window| window == needle);
    disk.paths().iter().any(holds)
}

/// What verify says of a store that nobody runs.
pub(crate) fn verified(lab: &Lab) -> crate::Verification {
    crate::verify_with(&(Arc::new(lab.disk.clone()) as _), &lab.maps, Path::new("store")).unwrap()
}

/// How often the disk synced while `work` ran.
pub(crate) fn syncs(disk: &SimulatedDisk, work: impl FnOnce()) -> u64 {
    let before = disk.faults().syncs.load(Ordering::SeqCst);
    work();
    disk.faults().syncs.load(Ordering::SeqCst) - before
}

#[test]
fn a_disk_without_power_keeps_what_was_synced_and_no_more() {
    let (dir, path) = (Path::new("d"), Path::new("d/f"));
    let there: std::collections::BTreeSet<bool> = (0..16)
        .map(|seed| {
            let disk = SimulatedDisk::new();
            disk.open(path, crate::disk::Access::Create).unwrap();
            disk.cut_power(seed);
            disk.bytes(path).is_some()
        })
        .collect();
    assert_eq!(there.len(), 2, "a name that was not synced is there or not");
    let disk = SimulatedDisk::new();
    let file = disk.open(path, crate::disk::Access::Create).unwrap();
    file.write_at(&[1; 512], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(dir).unwrap();
    file.write_at(&[2; 2048], 0).unwrap();
    let after: std::collections::BTreeSet<Vec<u8>> = (0..32)
        .map(|seed| {
            let disk = disk.clone();
            disk.cut_power(seed);
            let bytes = disk.bytes(path).unwrap();
            disk.overwrite(path, vec![1; 512]);
            let file = disk.open(path, crate::disk::Access::Write).unwrap();
            file.write_at(&[2; 2048], 0).unwrap();
            bytes
        })
        .collect();
    assert!(after.len() > 4, "sectors are torn in different ways: {}", after.len());
}
