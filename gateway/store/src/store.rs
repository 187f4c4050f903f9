//! The handle: what gateway and adapters ask of a store.
//!
//! Knows: how a question becomes a command for the writer or a look at the rows. Never knows: what a message means. Invariant: what
//! is handed out was checked against its journal record; a row that says otherwise is set aside, counted, and never handed out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tramite_proto::{
    ids::{Digest, MessageId},
    pb::journal::v1::{Accepted, Part},
};

use crate::{
    answer::accepted,
    change::{Change, Done, Rejected},
    error::{Poisoned, ReadError},
    overlay::Rows as _,
    parts::{PartError, PartInfo, PartReader, PartWriter},
    project::{Facts as _, row},
    rows::{self, IdRow},
    shared::Shared,
    writer::{Answers, Command, GROUP_CHANGES_MAX, Working},
};

mod lease;
mod read;

/// A frame of 8 MiB, its evidence and its facts' frames.
const COMMIT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What nobody waits for waits so long at most: at one message at a time, until the next one comes.
const PATIENCE: Duration = Duration::from_millis(20);

/// A store. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    patient: mpsc::Sender<Command>,
}

/// What operators should hear of. Counted since opening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// Waiting things that were set aside because their record is damaged or cannot be read.
    pub set_aside: u64,
    /// How often the outbox was rebuilt.
    pub rebuilds: u64,
    /// Groups written.
    pub groups: u64,
    /// Facts written.
    pub facts: u64,
    /// Row changes that wait to be applied to the outbox.
    pub unapplied: u64,
    /// Bytes of content erased.
    pub erased_bytes: u64,
    /// Contents of final messages that the disk has not erased so far.
    pub not_erased: u64,
    /// There is no room: nothing new is accepted, and what waits is delivered and settled from the reserve.
    pub full: bool,
    /// Nothing can be written any more.
    pub failed: bool,
}

impl Health {
    /// What somebody must look after, a sentence each; empty when all is well.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let full = "the disk is full: nothing new is accepted, what waits is delivered and settled from a reserve; make room, and it goes on by itself";
        let aside = format!(
            "{} that waited are damaged on the disk and were set aside: look at the disk, stop this node and ask tramite store verify",
            self.set_aside
        );
        let kept = format!(
            "{} contents of what has ended could not be erased: they are still on the disk and are tried again; look at the disk",
            self.not_erased
        );
        let all = [(self.full, full.to_owned()), (self.set_aside > 0, aside), (self.not_erased > 0, kept)];
        all.into_iter().filter_map(|(is_so, trouble)| is_so.then_some(trouble)).collect()
    }
}

/// What a change adds to its group, roughly.
fn weight(change: &Change) -> usize {
    let signed = |sign: &[(crate::change::Slot, Bytes)]| sign.iter().map(|(_, json)| json.len() * 2).sum::<usize>();
    match change {
        Change::Accept { fact, content, sign, .. } => {
            use prost::Message as _;
            content.len() + fact.encoded_len() + signed(sign)
        }
        Change::Settle { sign, .. } | Change::ExpireCase { sign, .. } => 1024 + signed(sign),
        Change::Record { fact, .. } => 256 + fact.value.as_ref().map_or(0, Bytes::len),
        Change::FailAttempt { .. } | Change::Redrive { .. } => 256,
        Change::Retire(retirement) => 4096 + 64 * (retirement.cases.len() + retirement.messages.len()),
    }
}

impl Store {
    pub(crate) fn new(shared: Arc<Shared>, commands: mpsc::Sender<Command>, patient: mpsc::Sender<Command>) -> Self {
        Self { shared, commands, patient }
    }

    /// Makes changes, all in one group: at most 512 and 16 MiB. Answers, in their order, only after the group's `fdatasync`.
    ///
    /// Dropped before it answers, the changes may be made or not: the same ids asked again tell.
    pub async fn commit(&self, changes: Vec<Change>) -> Vec<Result<Done, Rejected>> {
        let count = changes.len();
        let bytes = changes.iter().map(weight).sum();
        if count > GROUP_CHANGES_MAX || bytes > COMMIT_BYTES_MAX {
            return vec![Err(Rejected::TooLarge { what: "512 changes and 16 MiB in a commit" }); count];
        }
        let mut refused: Vec<(usize, Rejected)> = Vec::new();
        let mut permitted = Vec::with_capacity(count);
        for (i, change) in changes.into_iter().enumerate() {
            match self.check_parts(&change).await {
                Ok(()) => permitted.push(change),
                Err(rejected) => refused.push((i, rejected)),
            }
        }
        let mut answers = if permitted.is_empty() { Vec::new() } else { self.ask(permitted, bytes).await };
        for (i, rejected) in refused {
            answers.insert(i.min(answers.len()), Err(rejected));
        }
        answers
    }

    /// The same for a single change.
    ///
    /// # Errors
    /// Why it was not made.
    pub async fn commit_one(&self, change: Change) -> Result<Done, Rejected> {
        // One change, one answer; a store that answers nothing is one that has failed.
        self.commit(vec![change]).await.pop().unwrap_or(Err(Rejected::Failed))
    }

    /// Makes small changes that nobody waits for, as [`commit`](Self::commit) does, but in the group of whatever comes next, so that they
    /// cost no `fdatasync` and hold up none; in one of their own after 20 ms.
    pub async fn commit_with_next(&self, changes: Vec<Change>) -> Vec<Result<Done, Rejected>> {
        let (count, bytes) = (changes.len(), changes.iter().map(weight).sum());
        let (reply, mut answers) = oneshot::channel();
        let sent = self.patient.send(Command::Commit { changes, bytes, reply }).await.is_ok();
        let answered = match tokio::time::timeout(PATIENCE, &mut answers).await {
            Ok(answered) => answered,
            Err(_) => {
                // Without a writer there is no answer either.
                drop(self.commands.send(Command::Wake).await);
                answers.await
            }
        };
        self.answered(answered.ok().filter(|_| sent), count)
    }

    async fn ask(&self, changes: Vec<Change>, bytes: usize) -> Answers {
        let count = changes.len();
        let (reply, answers) = oneshot::channel();
        let sent = self.commands.send(Command::Commit { changes, bytes, reply }).await.is_ok();
        self.answered(answers.await.ok().filter(|_| sent), count)
    }

    fn answered(&self, answers: Option<Answers>, count: usize) -> Answers {
        match answers {
            Some(answers) => answers,
            // The writer is gone, in order or not.
            None if self.shared.closing.load(Ordering::Acquire) => vec![Err(Rejected::Closing); count],
            None => vec![Err(Rejected::Failed); count],
        }
    }

    /// Parts are checked here, not by the writer, as a part may have to be hashed again after a restart.
    async fn check_parts(&self, change: &Change) -> Result<(), Rejected> {
        let Change::Accept { fact, .. } = change else { return Ok(()) };
        if fact.parts.is_empty() || self.is_known(fact)? {
            return Ok(());
        }
        match self.shared.parts.missing(fact, self.shared.clock.now_ms()).await {
            Ok(None) => Ok(()),
            Ok(Some(part)) => Err(Rejected::PartMissing { part }),
            Err(error) => Err(Rejected::Unreadable(ReadError::Io { file: "parts".into(), what: error.to_string() })),
        }
    }

    /// A repeat needs no parts: they may be gone with the final message.
    fn is_known(&self, fact: &Accepted) -> Result<bool, Rejected> {
        let known = |key: &[u8]| self.shared.outbox.get(key).map_err(|e| Rejected::Unreadable(e.into()));
        Ok(known(&rows::id(&fact.id))?.is_some()
            || (!fact.request_id.is_empty() && known(&rows::request(&fact.request_id))?.is_some()))
    }

    /// The last durable sequence; 0: none yet.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.shared.journal.durable()
    }

    /// Resolves when the store is poisoned: the process should end, so that recovery decides what is on the disk.
    pub async fn failed(&self) -> Poisoned {
        let mut failure = self.shared.failure.0.subscribe();
        let found = failure.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone());
        match found {
            Some(poisoned) => poisoned,
            // The sender lives in `shared`, which this handle holds.
            None => std::future::pending().await,
        }
    }

    /// Asks the writer to finish what was asked of it so far, and end. Later commits are refused as [`Rejected::Closing`].
    pub async fn close(&self) {
        // A writer that is gone has closed already.
        drop(self.commands.send(Command::Close).await);
    }

    /// Closes the store, waits for its writer, and says in the log how it ended.
    pub async fn end(&self, writer: Working) {
        self.close().await;
        match writer.ended().await {
            Some(Ok(())) => tracing::info!("the store is closed"),
            Some(Err(poisoned)) => tracing::error!(error = %poisoned, "the store ended with a failure"),
            None => {
                tracing::error!("the store's writer panicked; recovery at the next start decides what is on the disk")
            }
        }
    }

    /// Takes in a part: `length` bytes of SHA-256 `sha256`, durable when [`PartWriter::finish`] returns.
    ///
    /// # Errors
    /// A limit or the disk.
    pub async fn put_part(
        &self,
        id: &MessageId,
        part: u32,
        length: u64,
        sha256: Digest,
    ) -> Result<PartWriter, PartError> {
        self.shared.parts.put(*id, part, length, sha256).await
    }

    /// Takes back a part of which nothing is known yet.
    ///
    /// # Errors
    /// The disk.
    pub async fn remove_part(&self, id: &MessageId, part: u32) -> Result<(), PartError> {
        self.shared.parts.remove(*id, part).await
    }

    /// Reads a part from `offset`. One that a message names is held against what was accepted: its last bytes come only when all
    /// agree.
    ///
    /// # Errors
    /// It is not there, damaged, or the disk.
    pub async fn part_reader(&self, id: &MessageId, part: u32, offset: u64) -> Result<PartReader, PartError> {
        let accepted = self.accepted_part(id, part).map_err(|e| PartError::Io(std::io::Error::other(e)))?;
        self.shared.parts.reader(*id, part, offset, accepted).await
    }

    /// What a message that was accepted says of a part.
    fn accepted_part(&self, id: &MessageId, part: u32) -> Result<Option<Part>, ReadError> {
        let Some(row) = row::<IdRow>(&self.shared.outbox, &rows::id(id.as_bytes()))? else { return Ok(None) };
        let fact = self.shared.fact(row.sequence)?;
        Ok(accepted(&fact).and_then(|accepted| accepted.parts.iter().find(|named| named.part == part)).cloned())
    }

    /// The length of a part that is there.
    ///
    /// # Errors
    /// The disk.
    pub fn part_len(&self, id: &MessageId, part: u32) -> Result<Option<u64>, PartError> {
        Ok(self.shared.parts.length(id, part)?)
    }

    /// Every part that is there.
    ///
    /// # Errors
    /// The disk.
    pub fn parts(&self) -> Result<Vec<PartInfo>, PartError> {
        Ok(self.shared.parts.list()?)
    }

    /// What operators should hear of.
    #[must_use]
    pub fn health(&self) -> Health {
        let shared = &self.shared;
        Health {
            set_aside: shared.lanes.set_aside_count(),
            rebuilds: shared.outbox.rebuilds(),
            groups: shared.groups.load(Ordering::Relaxed),
            facts: shared.facts.load(Ordering::Relaxed),
            unapplied: shared.outbox.unapplied() as u64,
            erased_bytes: shared.erased_bytes.load(Ordering::Relaxed),
            not_erased: shared.journal.refused(0..u64::MAX).len() as u64,
            full: shared.tight.load(Ordering::Relaxed),
            failed: shared.has_failed(),
        }
    }
}
