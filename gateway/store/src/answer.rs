//! What readers of the store get: leases, messages, cases, queues, records, what is due.
//!
//! Knows: the shape of every answer. Never knows: rows or files. Times are unix milliseconds; 0 stands for never.

use std::sync::Arc;

use bytes::Bytes;
use tramite_proto::{
    ids::{CaseId, Digest},
    pb::journal::v1::{Accepted, Fact, Outcome, fact::Kind},
};

use crate::error::ReadError;

/// Something handed out for delivery. The lease lives in memory and ends with settlement, a failed attempt or release.
#[derive(Debug, Clone)]
pub struct Leased {
    /// What to name when settling or failing it.
    pub sequence: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// An `Accepted`; or a `Settled` or `CaseExpired` when it waits as a notice.
    pub fact: Arc<Fact>,
    /// The content behind it; empty when there is none.
    pub content: Bytes,
}

/// Where something accepted is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageState {
    /// Waits, since acceptance or until its next attempt.
    Waiting,
    /// Handed out just now.
    Leased,
    /// Given up; waits for redrive or discard.
    DeadLettered,
    /// Final, by this outcome.
    Final(Outcome),
}

/// What the outbox knows of something accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    /// Its sequence.
    pub sequence: u64,
    /// Its id.
    pub id: Bytes,
    /// What the id stands for.
    pub digest: Digest,
    /// Whom it waits or waited for.
    pub queue: String,
    /// Its order key; empty: none.
    pub order: Bytes,
    /// The case to whose timeline it belongs.
    pub case_id: Option<CaseId>,
    /// Where it is.
    pub state: MessageState,
    /// Attempts that failed since acceptance or the last redrive.
    pub attempts: u32,
    /// When the next attempt is due; 0: at once.
    pub due_ms: i64,
    /// When it expires; 0: never.
    pub expires_ms: i64,
    /// When it was accepted.
    pub accepted_ms: i64,
    /// The fact that made it final; 0: none.
    pub final_sequence: u64,
}

/// One event in a message's history of attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The sequence of the fact.
    pub sequence: u64,
    /// When.
    pub at_ms: i64,
    /// Which attempt failed, from 1; 0 for a redrive.
    pub attempt: u32,
    /// Stable reason, or the operator's words for a redrive.
    pub reason: String,
    /// In words; for a redrive the operator.
    pub detail: String,
    /// When the next one is due; 0: at once.
    pub due_ms: i64,
}

/// A queue at a glance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Its name.
    pub queue: String,
    /// Not final and not dead-lettered, leased ones and notices included.
    pub waiting: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Handed out just now.
    pub leased: u64,
    /// When the oldest that is not final was accepted; 0: none waits.
    pub oldest_ms: i64,
    /// Accepted since the journal began, notices included.
    pub accepted: u64,
    /// Final since the journal began, notices included.
    pub settled: u64,
}

/// Where a case stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseRow {
    /// Its id.
    pub case_id: CaseId,
    /// `REFERRAL` or `DOCUMENT_REQUEST`.
    pub kind: String,
    /// Who opened it.
    pub opener: String,
    /// Who answers.
    pub responder: String,
    /// Its status.
    pub status: String,
    /// The reason that came with the status; empty: none.
    pub reason: String,
    /// The conversation in which it was opened; empty: unknown.
    pub conversation: Bytes,
    /// When it expires if it is still in a status that can; 0: never.
    pub deadline_ms: i64,
    /// The fact that opened it.
    pub opened_sequence: u64,
    /// The fact that moved it last.
    pub moved_sequence: u64,
    /// When it was opened.
    pub opened_ms: i64,
    /// When it moved last.
    pub moved_ms: i64,
}

/// A named record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRow {
    /// Its name.
    pub name: String,
    /// What it says.
    pub value: Bytes,
    /// The fact that recorded it.
    pub sequence: u64,
    /// When.
    pub at_ms: i64,
    /// Who, for what an operator did.
    pub by: String,
    /// Why, for what an operator did.
    pub reason: String,
}

/// What has passed its time. Leased messages and dead letters are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// Messages past `expires_ms`, oldest expiry first.
    pub messages: Vec<MessageRow>,
    /// Cases past their deadline, oldest deadline first.
    pub cases: Vec<CaseRow>,
    /// Messages past `expires_ms` that cannot be read now: they hold up no other.
    pub unreadable: u64,
    /// Why the first of them cannot.
    pub why: Option<ReadError>,
}

/// The accepting part of a fact.
#[must_use]
pub fn accepted(fact: &Fact) -> Option<&Accepted> {
    match &fact.kind {
        Some(Kind::Accepted(accepted)) => Some(accepted),
        _ => None,
    }
}
