//! What the writer, the applier and every handle share.
//!
//! Knows: how a fact or content is found (in memory, else in the journal), what has failed. Never knows: how it is written.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tramite_proto::{
    clock::Clock,
    pb::journal::v1::{Fact, fact::Kind},
};

use crate::{
    disk::{Disk, Lock},
    error::{Poisoned, ReadError},
    journal::{Journal, Place},
    lanes::Lanes,
    options::Options,
    outbox::Outbox,
    parts::Parts,
    project::Facts,
    recent::{Recent, RecentFacts},
    retention::Progress,
    writer::Command,
};

/// Shared by all that have the store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) outbox: Outbox,
    pub(crate) recent: RecentFacts,
    pub(crate) lanes: Lanes,
    pub(crate) parts: Arc<Parts>,
    /// Final messages whose content is still on the disk.
    pub(crate) finals: Mutex<Vec<u64>>,
    pub(crate) failure: Failure,
    pub(crate) closing: AtomicBool,
    /// There is no room for anything new.
    pub(crate) tight: AtomicBool,
    pub(crate) groups: AtomicU64,
    pub(crate) facts: AtomicU64,
    pub(crate) erased_bytes: AtomicU64,
    /// How far retention has come.
    pub(crate) retention: Mutex<Progress>,
    /// By which the store asks its own writer; the channel ends without it.
    pub(crate) asks: mpsc::WeakSender<Command>,
    /// Keeps other processes out as long as anyone has the store.
    #[expect(dead_code, reason = "held for its lock")]
    pub(crate) lock: Box<dyn Lock>,
}

impl Facts for Shared {
    fn fact(&self, sequence: u64) -> Result<Arc<Fact>, ReadError> {
        match self.recent.get(sequence) {
            Some(recent) => Ok(recent.fact),
            None => self.journal.fact(sequence).map(|(fact, _)| fact),
        }
    }
}

/// What failed first, if anything did. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Failure(pub(crate) watch::Sender<Option<Poisoned>>);

impl Failure {
    pub(crate) fn none() -> Self {
        Self(watch::Sender::new(None))
    }

    /// The store has failed: whoever waits for that is told.
    pub(crate) fn note(&self, poisoned: Poisoned) {
        tracing::error!(error = %poisoned, source = %poisoned.source, "the store has failed: restart the process");
        self.0.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(poisoned);
            }
            first
        });
    }

    pub(crate) fn is_there(&self) -> bool {
        self.0.borrow().is_some()
    }
}

/// Whether a content stands, or stood, behind a fact.
pub(crate) fn has_content(fact: &Fact) -> bool {
    matches!(&fact.kind, Some(Kind::Accepted(accepted)) if accepted.content.is_some())
}

impl Shared {
    /// A fact and its content.
    pub(crate) fn fact_and_content(&self, sequence: u64) -> Result<(Arc<Fact>, Bytes), ReadError> {
        match self.recent.get(sequence) {
            Some(Recent { fact, content, .. }) if !content.is_empty() || !has_content(&fact) => Ok((fact, content)),
            Some(_) => Err(ReadError::Erased(sequence)),
            None => match self.journal.fact(sequence)? {
                (fact, Some(place)) => Ok((fact, self.journal.content(sequence, place)?)),
                // A packed segment has it no more.
                (fact, None) if has_content(&fact) => Err(ReadError::Erased(sequence)),
                (fact, None) => Ok((fact, Bytes::new())),
            },
        }
    }

    /// Nothing is written any more; whoever waits is told.
    pub(crate) fn fail(&self, poisoned: Poisoned) {
        self.failure.note(poisoned);
        self.lanes.wake_all();
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_there()
    }

    /// Erases, durably, the contents and parts of the messages that became final; what cannot be erased is noted and tried again. False:
    /// that cannot be said of all of them, and it is to be asked again.
    pub(crate) fn erase_finals(&self) -> bool {
        let finals = std::mem::take(&mut *self.finals.lock().unwrap_or_else(PoisonError::into_inner));
        if !finals.is_empty() {
            fail::fail_point!("content.before_erase");
            self.erase(&finals);
        }
        let durable = self.sync_erased();
        if !durable {
            self.finals.lock().unwrap_or_else(PoisonError::into_inner).extend(finals);
        }
        durable
    }

    /// Tries once more to erase what could not be erased so far.
    pub(crate) fn erase_again(&self) {
        let refused: Vec<u64> = self.journal.refused(0..u64::MAX).into_iter().collect();
        self.erase(&refused);
        self.sync_erased();
    }

    fn sync_erased(&self) -> bool {
        match self.journal.sync_erased() {
            Ok(durable) => durable,
            Err(poisoned) => {
                self.fail(poisoned);
                false
            }
        }
    }

    fn erase(&self, finals: &[u64]) {
        let mut contents = Vec::with_capacity(finals.len());
        for sequence in finals {
            match self.without_parts(*sequence) {
                Ok(place) => contents.push((*sequence, place)),
                Err(error) => self.journal.refuse(*sequence, &error),
            }
        }
        let bytes = self.journal.erase(contents);
        self.erased_bytes.fetch_add(bytes, Ordering::Relaxed);
        for sequence in finals {
            self.recent.drop_content(*sequence);
        }
    }

    /// Removes the parts of a final message, and says where its content stands.
    fn without_parts(&self, sequence: u64) -> Result<Option<Place>, ReadError> {
        let known = self.recent.get(sequence).filter(|recent| recent.place.is_some() || !has_content(&recent.fact));
        let (fact, place) = match known {
            Some(recent) => (recent.fact, recent.place),
            None => match self.journal.fact(sequence) {
                Err(ReadError::NoFact(_)) => return Ok(None),
                other => other?,
            },
        };
        if let Some(Kind::Accepted(accepted)) = &fact.kind
            && let Err(error) = self.parts.remove_of(accepted)
        {
            // Parts of final messages are swept every hour.
            tracing::warn!(%error, "parts of a final message are not removed yet");
        }
        Ok(place)
    }
}
