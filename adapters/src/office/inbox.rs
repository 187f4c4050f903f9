//! The inbox: what arrived and is not yet acknowledged, opened when it is shown.
//!
//! Knows leases, so that an item is with one reader at a time, and what was shown in this run. Content stands sealed in the store and is
//! opened only here. Invariants: what was acknowledged is never shown again and its content is erased; an item keeps its id for ever, and
//! no other item ever has it: not even one that takes its sequence after an older copy of the store was put back.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Notify, futures::OwnedNotified};
use tramite_proto::{
    ids::Digest,
    pb::{
        backoffice::v1::{self as pb, inbox_item::Kind},
        journal::v1::{Accepted, Fact, Outcome, Settled, fact},
    },
    reason::{Reason, Refused},
    statement::{Origin, Priority},
};
use tramite_store::{Change, Done, Leased, ReadError, Rejected, accepted};

use crate::{
    backoff,
    core::{BACKOFFICE, Core, origin, rejected, sealed_bytes, unreadable},
    inbound::{open, shown},
};

/// Content of a lot, sealed.
const LOT_BYTES: usize = 4 * 1024 * 1024;
/// Items of one acknowledgement, as the contract says.
const ACKNOWLEDGE_MAX: usize = 1_000;
/// Changes of one commit; the store takes 512.
const COMMIT_CHANGES: usize = 256;
/// Hexadecimal digits of an item's mark: two items of one sequence have the same one in four thousand million.
const MARK_DIGITS: usize = 8;
/// What cannot be opened (its key's file was taken away) is looked at again after so long, and then after twice as long each time.
const UNREADABLE_FIRST_MS: u64 = 600_000;
/// The longest: each look is a fact in the journal, and who put the key back has the item within half a working day.
const UNREADABLE_LONGEST_MS: u64 = 4 * 3_600_000;

/// An item on its way to a reader.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) sequence: u64,
    pub(crate) item: pb::InboxItem,
}

/// The inbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    core: Arc<Core>,
    /// Shown in this run and not acknowledged.
    shown: Mutex<HashSet<u64>>,
    changed: Arc<Notify>,
}

impl Inbox {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, shown: Mutex::default(), changed: Arc::default() }
    }

    /// Up to `limit` items, oldest first; with the caller until acknowledged or released.
    ///
    /// # Errors
    /// The store cannot be read; or nothing can be shown, and the store does not take that it is put off.
    pub(crate) async fn lease(&self, limit: usize) -> Result<Vec<Shown>, Refused> {
        let leased = self.core.store.lease(BACKOFFICE, limit, LOT_BYTES).map_err(unreadable)?;
        let mut lot = Lot { core: &self.core, held: leased.iter().map(|leased| leased.sequence).collect() };
        let mut items = Vec::with_capacity(leased.len());
        let mut refused = None;
        for leased in leased {
            match self.item(&leased) {
                Ok(item) => items.push(Shown { sequence: leased.sequence, item }),
                Err(why) => match self.set_aside(&leased, &why).await {
                    Ok(_) => lot.leaves(leased.sequence),
                    Err(rejection) => refused = Some(rejected(rejection)),
                },
            }
        }
        if let Some(refused) = refused.filter(|_| items.is_empty()) {
            return Err(refused);
        }
        for shown in &items {
            lot.leaves(shown.sequence);
        }
        Ok(items)
    }

    /// One damaged or unreadable item holds up no other.
    async fn set_aside(&self, leased: &Leased, refused: &Refused) -> Result<Done, Rejected> {
        tracing::error!(
            item = leased.sequence,
            reason = %refused.reason,
            detail = refused.detail,
            "an item of the inbox cannot be opened; it is looked at again later"
        );
        let failures = leased.attempt.saturating_sub(1);
        let wait_ms = backoff::delay_ms(&self.core.entropy, UNREADABLE_FIRST_MS, UNREADABLE_LONGEST_MS, failures);
        let due_ms = self.core.clock.now_ms().saturating_add_unsigned(wait_ms);
        let (reason, detail) = (refused.reason.as_str().to_owned(), refused.detail.clone());
        let (sequence, queue) = (leased.sequence, BACKOFFICE.to_owned());
        self.core.store.commit_one(Change::FailAttempt { sequence, queue, reason, detail, due_ms }).await
    }

    /// Gives back what was leased and not acknowledged.
    pub(crate) fn release(&self, sequences: &[u64]) {
        self.core.store.release(BACKOFFICE, sequences);
    }

    /// Resolves when something may wait.
    pub(crate) async fn arrival(&self) {
        self.core.store.arrival(BACKOFFICE).await;
    }

    /// Resolves at the next acknowledgement after this call.
    pub(crate) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    /// Takes what was acknowledged out of `held`.
    pub(crate) fn forget_acknowledged(&self, held: &mut HashSet<u64>) {
        let shown = self.lock();
        held.retain(|sequence| shown.contains(sequence));
    }

    /// The items are safe with the caller; durable when it returns. Says how many were new.
    pub(crate) async fn acknowledge(&self, item_ids: &[String]) -> Result<u32, Refused> {
        if item_ids.is_empty() || item_ids.len() > ACKNOWLEDGE_MAX {
            return Err(Refused::new(Reason::FieldInvalid, "acknowledge 1 to 1000 items").field("item_ids"));
        }
        // What is no id of an item, or was acknowledged long ago, is no error.
        let known = item_ids.iter().filter_map(|id| self.known(id).transpose());
        let items: Vec<(u64, u64)> = known.collect::<Result<_, _>>().map_err(unreadable)?;
        let mut new = 0;
        for chunk in items.chunks(COMMIT_CHANGES) {
            let changes = chunk.iter().map(|(sequence, _)| settle(*sequence)).collect();
            for (done, (_, bytes)) in self.core.store.commit(changes).await.into_iter().zip(chunk) {
                match done {
                    Ok(Done::Settled { .. }) => {
                        new += 1;
                        self.core.leaves_inbox(*bytes);
                    }
                    Ok(_) | Err(Rejected::UnknownSequence { .. }) => {}
                    Err(error) => return Err(rejected(error)),
                }
            }
        }
        {
            let mut shown = self.lock();
            for (sequence, _) in &items {
                shown.remove(sequence);
            }
        }
        self.changed.notify_waiters();
        self.core.metrics.acknowledged.inc_by(u64::from(new));
        Ok(new)
    }

    /// The sequence of something that waits or waited for the back office, with what it takes there; `None` for anything else, and for an
    /// item of the same sequence that a restore took away. What cannot be read is an error and never nothing: it would be answered for,
    /// and shown again.
    fn known(&self, item_id: &str) -> Result<Option<(u64, u64)>, ReadError> {
        let sequence = item_id.split_once('-').and_then(|(sequence, _)| sequence.parse().ok());
        let Some(sequence) = sequence else { return Ok(None) };
        let fact = match self.core.store.fact(sequence) {
            Err(ReadError::NoFact(_)) => return Ok(None),
            fact => fact?,
        };
        if id_of(sequence, &fact) != item_id {
            return Ok(None);
        }
        Ok(match &fact.kind {
            Some(fact::Kind::Accepted(accepted)) if accepted.queue == BACKOFFICE => {
                Some((sequence, sealed_bytes(accepted)))
            }
            Some(fact::Kind::Settled(settled)) if settled.notify.iter().any(|queue| queue == BACKOFFICE) => {
                Some((sequence, 0))
            }
            _ => None,
        })
    }

    fn item(&self, leased: &Leased) -> Result<pb::InboxItem, Refused> {
        let (kind, traceparent) = match &leased.fact.kind {
            Some(fact::Kind::Accepted(accepted)) => {
                (self.accepted_item(accepted, leased)?, accepted.traceparent.clone())
            }
            Some(fact::Kind::Settled(settled)) => (self.settled_item(settled, &leased.fact)?, String::new()),
            _ => return Err(Refused::new(Reason::Internal, "something that is no item waits in the inbox")),
        };
        let repeated = !self.lock().insert(leased.sequence);
        Ok(pb::InboxItem {
            item_id: id_of(leased.sequence, &leased.fact),
            received_ms: leased.fact.at_ms,
            repeated,
            traceparent,
            kind: Some(kind),
        })
    }

    fn accepted_item(&self, accepted: &Accepted, leased: &Leased) -> Result<Kind, Refused> {
        if let Some(notice) = shown(accepted) {
            return Ok(Kind::Notice(notice));
        }
        let (origin, _) = origin(accepted)?;
        let mut body = open(&self.core, &origin, &accepted.enc, &leased.content)?;
        // The key of the parts stays here: attachments are read through the adapter.
        body.content_key.clear();
        Ok(Kind::Message(pb::ReceivedMessage { body: Some(body), ..routing(&origin) }))
    }

    /// News that this adapter made itself: the gateway refused a message of ours for good, or it expired here.
    fn settled_item(&self, settled: &Settled, fact: &Fact) -> Result<Kind, Refused> {
        let first = self.core.store.fact(settled.sequence).map_err(unreadable)?;
        let first = accepted(&first).ok_or_else(|| Refused::because(Reason::Internal))?;
        let (origin, _) = origin(first)?;
        let kind = if settled.outcome() == Outcome::Expired { "EXPIRED" } else { "REFUSED" };
        Ok(Kind::Notice(pb::Notice {
            kind: kind.to_owned(),
            message_id: origin.jti.to_string(),
            case_id: origin.case.to_string(),
            to: origin.aud.to_string(),
            reason: settled.reason.clone(),
            detail: settled.detail.clone(),
            at: fact.at_ms.div_euclid(1_000),
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a lot still holds. Dropped with its reader in the middle, or with what could not be put off, it gives that back.
struct Lot<'a> {
    core: &'a Core,
    held: Vec<u64>,
}

impl Lot<'_> {
    /// Somebody else answers for it now: the reader, or the store.
    fn leaves(&mut self, sequence: u64) {
        self.held.retain(|held| *held != sequence);
    }
}

impl Drop for Lot<'_> {
    fn drop(&mut self) {
        self.core.store.release(BACKOFFICE, &self.held);
    }
}

/// The id of an item: its sequence, which finds it, and a mark of what it is. After a restore the sequence is given again, to something that
/// nobody has seen; an acknowledgement of what had it before must not end that.
pub(crate) fn id_of(sequence: u64, fact: &Fact) -> String {
    let what = match &fact.kind {
        Some(fact::Kind::Accepted(accepted)) => [accepted.id.as_ref(), accepted.digest.as_ref()].concat(),
        // News that this adapter made itself has no id: it is known by its message and its hour.
        Some(fact::Kind::Settled(settled)) => [settled.sequence.to_be_bytes(), fact.at_ms.to_be_bytes()].concat(),
        _ => Vec::new(),
    };
    let mark = Digest::of(&what).to_hex();
    format!("{sequence}-{}", mark.get(..MARK_DIGITS).unwrap_or(&mark))
}

/// What origin says, for people.
fn routing(origin: &Origin) -> pb::ReceivedMessage {
    let priority = match origin.pri {
        Priority::Routine => pb::Priority::Routine,
        Priority::Urgent => pb::Priority::Urgent,
    };
    pb::ReceivedMessage {
        message_id: origin.jti.to_string(),
        case_id: origin.case.to_string(),
        conversation_id: origin.cid.to_string(),
        in_reply_to: origin.in_reply_to.map(|id| id.to_string()).unwrap_or_default(),
        from: origin.iss.to_string(),
        r#type: origin.mt.clone(),
        purpose: origin.pur.clone(),
        legal_basis: origin.lb.clone(),
        agreement: origin.agr.to_string(),
        operator: origin.op.to_string(),
        issued: origin.iat,
        reply_by: origin.dl.unwrap_or(0),
        priority: priority.into(),
        body: None,
    }
}

fn settle(sequence: u64) -> Change {
    let fact =
        Settled { sequence, outcome: Outcome::HandedOver.into(), queue: BACKOFFICE.to_owned(), ..Settled::default() };
    Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None }
}
