//! The one writer: drains what is asked, judges it, signs, appends one group, syncs once, publishes, answers.
//!
//! Knows: the order of these steps, and which of them may fail how. Never knows: the rules (`judge`), the bytes (`journal`), the rows
//! (`project`). Invariants: nothing is answered before the sync of its group; after a failed write or sync nothing is written and
//! everyone is answered `Failed`; all changes of one call stand in one group.
//!
//! It owns its channel and has one step, so that it runs on a thread of its own ([`Writer::run`]; a second one applies and erases, a third
//! keeps the outbox's map in order, a fourth packs), as a task of a simulation, or step by step by hand.

mod sign;

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tramite_proto::pb::journal::v1::{Fact, fact::Kind};

use crate::{
    change::{Change, Done, Notary, Rejected},
    error::{MapError, Poisoned, ReadError},
    growth, home,
    journal::{AppendError, JournalWriter},
    judge::{Answer, Group, NewFact, Verdict},
    lanes::{Lane, Lanes},
    overlay::Overlay,
    project::{Draft, Effects, Facts as _},
    recent::Recent,
    shared::Shared,
};

/// A call is at most this large, and a group takes further calls up to it: beyond it, latency grows and speed does not.
pub(crate) const GROUP_CHANGES_MAX: usize = 512;
/// A group takes no further call when it has so many bytes.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// What a change takes beyond what it weighs: the group's frame, a proof, its share of a batch.
const CHANGE_BYTES: usize = 512;
/// Calls that wait for the writer, and as many that are patient; more wait at their sender.
pub(crate) const COMMANDS_MAX: usize = 1024;

/// One call's answer.
pub(crate) type Answers = Vec<Result<Done, Rejected>>;

/// What the writer is asked.
#[derive(Debug)]
pub(crate) enum Command {
    Commit {
        changes: Vec<Change>,
        bytes: usize,
        reply: oneshot::Sender<Answers>,
    },
    /// What is patient has waited long enough.
    Wake,
    Close,
}

/// One call on its way through a group.
struct Call {
    verdicts: Vec<Verdict>,
    reply: oneshot::Sender<Answers>,
}

/// A group that is on the disk.
struct Durable {
    /// Its first sequence.
    first: u64,
    written: Vec<Arc<Fact>>,
    /// Where something became ready.
    ready: Vec<Arc<Lane>>,
}

/// The thread of a writer.
pub type WriterThread = thread::JoinHandle<Result<(), Poisoned>>;

/// As a task, rows are applied so long after their group: a crash may come between.
const APPLY_AFTER: Duration = Duration::from_millis(20);

/// What a writer runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Threads of its own, because the disk blocks.
    Threads,
    /// A task of the current runtime, for a simulation, whose disk never blocks.
    Task,
}

/// A writer at work; [`Store::end`](crate::Store::end) waits for it.
#[derive(Debug)]
pub enum Working {
    /// On [`Work::Threads`].
    Thread(WriterThread),
    /// On a [`Work::Task`].
    Task(tokio::task::JoinHandle<Result<(), Poisoned>>),
}

impl Working {
    /// Waits, on a thread that may block, until it has ended; `None`: it panicked.
    pub(crate) async fn ended(self) -> Option<Result<(), Poisoned>> {
        match self {
            Self::Thread(thread) => tokio::task::spawn_blocking(move || thread.join()).await.ok()?.ok(),
            Self::Task(task) => task.await.ok(),
        }
    }
}

/// The one writer of a store. Dropped without [`run`](Self::run) it leaves the directory as a crash does.
#[derive(Debug)]
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) notary: Arc<dyn Notary>,
    pub(crate) journal: JournalWriter,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// What rides with whatever comes next.
    pub(crate) patient: mpsc::Receiver<Command>,
    /// A call that had no room in the group before; or a word that some patient one had none.
    pub(crate) held: Option<Command>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing was asked.
    Idle,
    /// Something was answered.
    Worked,
    /// Nothing was asked, and nothing will be.
    Over,
}

impl Writer {
    /// Blocks until the store is closed or every handle is gone, then leaves the directory clean.
    ///
    /// # Errors
    /// A write or sync failed: the process should end, so that recovery decides what is on the disk.
    pub fn run(mut self) -> Result<(), Poisoned> {
        let shared = Arc::clone(&self.shared);
        thread::scope(|scope| {
            let thread = |name: &str| thread::Builder::new().name(name.into());
            let started = [
                thread("tramite-outbox").spawn_scoped(scope, || apply_all(&shared)),
                thread("tramite-tidy").spawn_scoped(scope, || tidy_all(&shared)),
                thread("tramite-growth").spawn_scoped(scope, || growth::run(&shared)),
            ];
            if let Some(e) = started.into_iter().find_map(Result::err) {
                let poisoned = Poisoned { what: "start the outbox's threads".into(), source: Arc::new(e) };
                shared.fail(poisoned);
            }
            let _end = End { shared: &shared, thread: "writer" };
            while let Some(first) = self.held.take().or_else(|| self.commands.blocking_recv()) {
                shared.outbox.wait_until_applied();
                self.serve(first);
            }
        });
        self.finish()
    }

    /// [`run`](Self::run) on a thread of its own.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(self) -> io::Result<WriterThread> {
        thread::Builder::new().name("tramite-store".into()).spawn(move || self.run())
    }

    /// Begins its work.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(self, work: Work) -> io::Result<Working> {
        match work {
            Work::Threads => self.spawn().map(Working::Thread),
            Work::Task => Ok(Working::Task(tokio::spawn(self.run_as_task()))),
        }
    }

    async fn run_as_task(mut self) -> Result<(), Poisoned> {
        let mut compact_at = i64::MIN;
        loop {
            let asked = tokio::time::timeout(APPLY_AFTER, self.asked());
            match asked.await {
                Err(_) => self.rest(&mut compact_at),
                Ok(()) if self.step() == Step::Worked => {}
                Ok(()) => return self.finish(),
            }
        }
    }

    /// Resolves when the next [`step`](Self::step) has something to do, or nothing will be asked any more.
    async fn asked(&mut self) {
        if self.held.is_none() {
            self.held = self.commands.recv().await;
        }
    }

    /// Writes one group of what is asked by now, without waiting.
    pub fn step(&mut self) -> Step {
        match self.held.take().map_or_else(|| self.commands.try_recv(), Ok) {
            Ok(first) => {
                if self.shared.outbox.is_behind() {
                    self.apply();
                }
                self.serve(first);
                Step::Worked
            }
            Err(mpsc::error::TryRecvError::Empty) => Step::Idle,
            Err(mpsc::error::TryRecvError::Disconnected) => Step::Over,
        }
    }

    /// Erases what is final and applies what is durable to the outbox, as [`run`](Self::run)'s second thread does by itself.
    pub fn apply(&mut self) {
        apply(&self.shared);
    }

    /// Leaves the directory clean: everything applied, erased, synced, and said so.
    ///
    /// # Errors
    /// The store had failed before.
    pub fn finish(mut self) -> Result<(), Poisoned> {
        self.commands.close();
        self.patient.close();
        self.held.get_or_insert(Command::Wake);
        while let Some(command) = self.held.take().or_else(|| self.commands.try_recv().ok()) {
            self.serve(command);
        }
        if let Some(poisoned) = self.shared.failure.0.borrow().clone() {
            return Err(poisoned);
        }
        if let Err(error) = home::leave_clean(&self.shared, &self.journal) {
            tracing::warn!(%error, "the store is not left clean: its outbox is rebuilt at the next start");
        }
        Ok(())
    }

    /// Drains what is asked by now behind `first`, up to a group's limits, and serves it.
    fn serve(&mut self, first: Command) {
        let mut commands = Vec::new();
        let bytes_max = self.journal.group_bytes(GROUP_BYTES);
        let (mut changes, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Wake => {}
                Command::Close => {
                    self.shared.closing.store(true, Ordering::Release);
                    self.commands.close();
                }
                Command::Commit { changes: asked, bytes: weight, reply } => {
                    if !commands.is_empty() && (changes + asked.len() > GROUP_CHANGES_MAX || bytes + weight > bytes_max)
                    {
                        self.held = Some(Command::Commit { changes: asked, bytes: weight, reply });
                        break;
                    }
                    changes += asked.len();
                    bytes += weight;
                    commands.push((asked, reply));
                }
            }
            next = self.commands.try_recv().ok();
        }
        // They are small, and few beside a group: one too many makes no large one.
        while changes < GROUP_CHANGES_MAX && bytes < bytes_max {
            let Ok(Command::Commit { changes: asked, bytes: weight, reply }) = self.patient.try_recv() else { break };
            changes += asked.len();
            bytes += weight;
            commands.push((asked, reply));
        }
        // Who woke the writer may be among them, and will not do so again.
        if self.held.is_none() && !self.patient.is_empty() {
            self.held = Some(Command::Wake);
        }
        if !commands.is_empty() {
            self.write(commands, bytes.saturating_add(changes.saturating_mul(CHANGE_BYTES)));
        }
    }

    pub(crate) fn write(&mut self, commands: Vec<(Vec<Change>, oneshot::Sender<Answers>)>, bytes: usize) {
        let shared = Arc::clone(&self.shared);
        let all = |commands: Vec<(Vec<Change>, _)>, rejected| {
            refuse_all(commands.into_iter().map(|(changes, reply)| (changes.len(), reply)), rejected);
        };
        if shared.has_failed() {
            return all(commands, &Rejected::Failed);
        }
        let acceptances = commands.iter().flat_map(|(changes, _)| changes);
        let acceptances = acceptances.filter(|change| matches!(change, Change::Accept { .. })).count() as u64;
        let tight = match self.journal.has_room(bytes as u64, acceptances) {
            Ok(room) => !room || shared.outbox.is_stuck(),
            Err(poisoned) => {
                shared.fail(poisoned);
                return all(commands, &Rejected::Failed);
            }
        };
        shared.tight.store(tight, Ordering::Relaxed);
        let now_ms = shared.clock.now_ms();
        let draft = Draft::new(&shared.outbox, shared.as_ref());
        let next = self.journal.next_sequence();
        let mut group = Group::new(draft, next, now_ms, &shared.lanes, &shared.options);
        group.tight = tight;
        let mut calls = Vec::with_capacity(commands.len());
        let mut unreadable = None;
        for (changes, reply) in commands {
            let mut verdicts = Vec::with_capacity(changes.len());
            for change in changes {
                let verdict = match &unreadable {
                    None => group.judge(change),
                    Some(error) => Err(ReadError::clone(error)),
                };
                verdicts.push(verdict.unwrap_or_else(|error| {
                    unreadable = Some(error.clone());
                    Verdict::No(Rejected::Unreadable(error))
                }));
            }
            calls.push(Call { verdicts, reply });
        }
        if let Some(error) = unreadable {
            return refuse_calls(calls, &Rejected::Unreadable(error));
        }
        let Group { draft, facts, .. } = group;
        let Draft { upper, effects, .. } = draft;
        match self.make_durable(now_ms, facts, upper, &effects) {
            Ok(Durable { first, written, ready }) => {
                for call in calls {
                    let answer = |verdict| answer(&shared, first, &written, verdict);
                    // A caller that is gone asks again.
                    drop(call.reply.send(call.verdicts.into_iter().map(answer).collect()));
                }
                // After the answers: who sent a message waits for less than who receives it.
                Lanes::wake(&ready);
            }
            Err(rejected) => refuse_calls(calls, &rejected),
        }
    }

    /// Signs, appends, syncs, and publishes a group.
    fn make_durable(
        &mut self,
        now_ms: i64,
        mut facts: Vec<NewFact>,
        rows: Overlay,
        effects: &Effects,
    ) -> Result<Durable, Rejected> {
        let shared = Arc::clone(&self.shared);
        let first = self.journal.next_sequence();
        if facts.is_empty() {
            return Ok(Durable { first, written: Vec::new(), ready: Vec::new() });
        }
        sign::sign(self.notary.as_ref(), now_ms, &mut facts).map_err(Rejected::NotSigned)?;
        let crcs: Vec<u32> = facts.iter().map(|new| new.crc).collect();
        let (mut facts, contents): (Vec<Fact>, Vec<Bytes>) =
            facts.into_iter().map(|new| (new.fact, new.content)).unzip();
        let appended = self.journal.append(&mut facts, &contents, &crcs);
        let places = appended.map_err(|e| match e {
            AppendError::Full => Rejected::Full,
            AppendError::TooLarge => Rejected::TooLarge { what: "group" },
            AppendError::Poisoned(poisoned) => {
                shared.fail(poisoned);
                Rejected::Failed
            }
        })?;
        let mut written = Vec::with_capacity(facts.len());
        let mut recents = Vec::new();
        for (((fact, content), place), sequence) in facts.into_iter().zip(contents).zip(places).zip(first..) {
            let fact = Arc::new(fact);
            if !matches!(fact.kind, Some(Kind::Recorded(_) | Kind::AttemptFailed(_))) {
                recents.push((sequence, Recent { fact: Arc::clone(&fact), content, place }));
            }
            written.push(fact);
        }
        shared.groups.fetch_add(1, Ordering::Relaxed);
        shared.facts.fetch_add(written.len() as u64, Ordering::Relaxed);
        shared.recent.keep(recents.into_iter());
        // Before the rows: whoever applies these erases those first.
        shared.finals.lock().unwrap_or_else(PoisonError::into_inner).extend(&effects.finals);
        shared.outbox.publish(rows, self.journal.next_sequence());
        let ready = shared.lanes.publish(effects);
        Ok(Durable { first, written, ready })
    }
}

/// No thread outlives the others, and a panic of any is a failure of the store, not a silence.
pub(crate) struct End<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) thread: &'static str,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let source = Arc::new(io::Error::other("it panicked; the log says where"));
            self.shared.fail(Poisoned { what: format!("the {}'s thread ended", self.thread), source });
        }
        self.shared.outbox.stop_work();
    }
}

/// The second thread: applies and erases until the writer ends.
fn apply_all(shared: &Shared) {
    let _end = End { shared, thread: "outbox" };
    let mut swept_ms = shared.clock.now_ms();
    while shared.outbox.wait_for_work() {
        apply(shared);
        // A clock that was set back must not make this wait for it.
        if shared.clock.now_ms().abs_diff(swept_ms) >= home::SWEEP_EVERY_MS {
            swept_ms = shared.clock.now_ms();
            home::sweep_parts(shared, false);
        }
    }
}

/// The third thread: keeps the outbox's map in order until the writer ends.
fn tidy_all(shared: &Shared) {
    let _end = End { shared, thread: "outbox's second" };
    while shared.outbox.wait_for_rows() {
        if let Err(error) = shared.outbox.tidy() {
            return cannot_rebuild(shared, error);
        }
    }
}

fn cannot_rebuild(shared: &Shared, error: MapError) {
    let what = format!("the outbox cannot be rebuilt: {error}");
    shared.fail(Poisoned { what, source: Arc::new(io::Error::other(error)) });
    shared.outbox.stop_work();
}

fn apply(shared: &Shared) {
    if let Err(error) = shared.outbox.apply(|| shared.erase_finals()) {
        cannot_rebuild(shared, error);
    }
}

fn refuse_all(calls: impl Iterator<Item = (usize, oneshot::Sender<Answers>)>, rejected: &Rejected) {
    for (count, reply) in calls {
        drop(reply.send(vec![Err(rejected.clone()); count]));
    }
}

/// Nothing of the group was written: what rested on it is refused, what did not keeps its own answer.
fn refuse_calls(calls: Vec<Call>, rejected: &Rejected) {
    for call in calls {
        let answers = call.verdicts.into_iter().map(|verdict| match verdict {
            Verdict::No(own) => Err(own),
            Verdict::Already(sequence) => Ok(Done::Already { sequence }),
            Verdict::PutOff(sequence, attempt) => Ok(Done::PutOff { sequence, attempt }),
            Verdict::New(..) | Verdict::RepeatsNew(_) | Verdict::Repeats(_) => Err(rejected.clone()),
        });
        drop(call.reply.send(answers.collect()));
    }
}

/// The answer to one change of a group that is durable.
fn answer(shared: &Shared, first: u64, written: &[Arc<Fact>], verdict: Verdict) -> Result<Done, Rejected> {
    let new = |index: usize| {
        let sequence = first.saturating_add(index as u64);
        written.get(index).map(|fact| (sequence, Arc::clone(fact))).ok_or(Rejected::Failed)
    };
    match verdict {
        Verdict::No(rejected) => Err(rejected),
        Verdict::Already(sequence) => Ok(Done::Already { sequence }),
        Verdict::PutOff(sequence, attempt) => Ok(Done::PutOff { sequence, attempt }),
        Verdict::RepeatsNew(index) => new(index).map(|(sequence, fact)| Done::Repeated { sequence, fact }),
        Verdict::Repeats(sequence) => match shared.fact(sequence) {
            Ok(fact) if matches!(fact.kind, Some(Kind::Accepted(_))) => Ok(Done::Repeated { sequence, fact }),
            Ok(_) => Err(Rejected::Unreadable(shared.outbox.distrust("an id's row names another fact").into())),
            Err(error) => Err(Rejected::Unreadable(error)),
        },
        Verdict::New(index, answer) => new(index).map(|(sequence, fact)| match answer {
            Answer::Accepted => Done::Accepted { sequence, fact },
            Answer::Settled => Done::Settled { sequence, fact },
            Answer::AttemptFailed(attempt) => Done::AttemptFailed { sequence, attempt },
            Answer::Recorded => Done::Recorded { sequence, fact },
        }),
    }
}
