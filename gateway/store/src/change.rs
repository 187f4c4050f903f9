//! What may be asked of the writer, and what it answers.
//!
//! Knows: the changes, their answers, their refusals, and the signer's seam. Never knows: how they are judged or written.
//! Invariant: an answer other than a refusal is given only after the `fdatasync` of the group that holds the fact it names.

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;
use tramite_proto::{
    pb::{
        journal::v1::{Accepted, CaseExpired, Fact, Recorded, Settled},
        statement::v1::Statement,
    },
    reason::Refused,
    states::Party,
};

use crate::error::ReadError;

/// Signs the statements of a group. Called on the writer's thread, once for up to 64 statements.
pub trait Notary: Send + Sync + Debug {
    /// One statement for each JSON, in order, under one signature.
    ///
    /// # Errors
    /// In words for the log; nothing of the group is written then.
    fn sign(&self, now_ms: i64, jsons: &[Bytes]) -> Result<Vec<Statement>, String>;
}

/// The statement of a fact that a signed JSON becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// `Accepted.statement`.
    Statement,
    /// `Accepted.evidence`, `Settled.evidence`, `CaseExpired.evidence`.
    Evidence,
    /// `Accepted.receipt`, `Settled.receipt`.
    Receipt,
}

/// Who moves a case, when the store is to judge the move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mover {
    /// The caller knows the part that the mover plays.
    Party(Party),
    /// The writer finds the part: the issuer must be one of the case's two institutions and the audience the other.
    Institution {
        /// Who says it.
        issuer: String,
        /// To whom.
        audience: String,
    },
    /// Nobody: the caller has counted the case again, with this news, from its timeline up to that sequence, and `case_move`, if there is
    /// one, sets it to where it stands then. When the timeline has more by now, that is over: [`Rejected::CaseChanged`].
    Counted {
        /// The last fact that was counted.
        up_to: u64,
    },
}

impl From<Party> for Mover {
    fn from(party: Party) -> Self {
        Self::Party(party)
    }
}

/// One change. All changes of one `commit` stand in one group.
#[derive(Debug, Clone)]
pub enum Change {
    /// Something new waits in `fact.queue`. The store fills `content`, and of `case_move` `from` and, unless it opens the case, the
    /// parties, kind and conversation.
    Accept {
        /// What is accepted.
        fact: Box<Accepted>,
        /// What stands behind the facts and is erased when the message is final; empty: none.
        content: Bytes,
        /// Statements to sign in the group.
        sign: Vec<(Slot, Bytes)>,
        /// Who moves the case; `None`: the move is recorded and not judged.
        mover: Option<Mover>,
    },
    /// Handing over did not succeed; it is offered again at `due_ms`. Ends the lease. On a full disk nothing is written: it is put off in
    /// memory.
    FailAttempt {
        /// What was leased.
        sequence: u64,
        /// From which queue: other queues in which the same fact waits are not put off.
        queue: String,
        /// Stable reason.
        reason: String,
        /// In words.
        detail: String,
        /// Unix milliseconds.
        due_ms: i64,
    },
    /// It is final, dead-lettered, or a receipt came after the end. Ends the lease. On a full disk what would be a dead letter is put off in
    /// memory.
    Settle {
        /// What happened; `queue` is filled by the store when empty.
        fact: Box<Settled>,
        /// Statements to sign in the group.
        sign: Vec<(Slot, Bytes)>,
        /// Who moves the case, when `fact.case_move` is there.
        mover: Option<Mover>,
    },
    /// Puts a dead letter back.
    Redrive {
        /// The dead letter.
        sequence: u64,
        /// Operator.
        by: String,
        /// In words.
        reason: String,
    },
    /// A case passed its deadline. Of `case_move` only `case_id` and `to` are read; the store fills the rest.
    ExpireCase {
        /// What happened.
        fact: Box<CaseExpired>,
        /// Statements to sign in the group.
        sign: Vec<(Slot, Bytes)>,
    },
    /// A named record.
    Record {
        /// The record; without a value it is deleted.
        fact: Box<Recorded>,
        /// It is of something new, which a full disk does not take.
        begins: bool,
    },
    /// The retention of some facts is over. Only the store itself finds out which.
    Retire(Retirement),
}

/// What goes at the end of its retention, as it was found; it is judged again where nothing changes any more.
#[derive(Debug, Clone, Default)]
pub struct Retirement {
    pub(crate) cases: Vec<Dossier>,
    /// Of no case, and what ended them.
    pub(crate) messages: Vec<u64>,
    /// Of those messages, remembered for as long as they stay.
    pub(crate) ids: Vec<Bytes>,
    /// Nothing from this sequence on may go.
    pub(crate) before: u64,
    pub(crate) mark: bool,
    /// What each retirement up to this one named is gone.
    pub(crate) done: u64,
}

/// A case with all its facts.
#[derive(Debug, Clone)]
pub(crate) struct Dossier {
    pub(crate) case: Bytes,
    pub(crate) timeline: Vec<u64>,
    /// Remembered for as long as the case stays.
    pub(crate) ids: Vec<Bytes>,
}

/// What became of a change. Durable.
#[derive(Debug, Clone)]
pub enum Done {
    /// New, and waiting.
    Accepted {
        /// Its sequence number.
        sequence: u64,
        /// The fact as written (an `Accepted`).
        fact: Arc<Fact>,
    },
    /// The same id with the same digest, or the same request id with the same request digest, was accepted before: that fact.
    Repeated {
        /// Of the first one.
        sequence: u64,
        /// The first one.
        fact: Arc<Fact>,
    },
    /// Settled by this change.
    Settled {
        /// Of the `Settled` fact.
        sequence: u64,
        /// The fact as written.
        fact: Arc<Fact>,
    },
    /// It was so already; nothing was written.
    Already {
        /// What the change named.
        sequence: u64,
    },
    /// The attempt is recorded.
    AttemptFailed {
        /// Of the `AttemptFailed` fact.
        sequence: u64,
        /// Which attempt it was, from 1.
        attempt: u32,
    },
    /// The disk is full, so nothing was written: it is put off in memory, which a restart forgets.
    PutOff {
        /// What the change named.
        sequence: u64,
        /// Which attempt it was, from 1; the next one has the same number.
        attempt: u32,
    },
    /// A redrive, an expired case or a record is written.
    Recorded {
        /// Of the fact.
        sequence: u64,
        /// The fact as written.
        fact: Arc<Fact>,
    },
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The id stands for something else.
    #[error("the id was accepted with other content as {sequence}")]
    IdReused {
        /// Of the first one.
        sequence: u64,
    },
    /// The id is no longer remembered, so a repeat cannot be told from something new.
    #[error("the id is past the time for which it is remembered")]
    IdExpired,
    /// The request id stands for another request.
    #[error("the request id was used for another request, accepted as {sequence}")]
    RequestReused {
        /// Of the first one.
        sequence: u64,
    },
    /// The case does not exist, exists already, is another's, or does not move that way.
    #[error("the case does not move so")]
    Case(#[source] Box<Refused>),
    /// Something has been added to the timeline of a case since it was counted: it is to be counted again.
    #[error("the case has changed since it was counted")]
    CaseChanged,
    /// Nothing that waits or waited has this sequence.
    #[error("nothing waits or waited under sequence {sequence}")]
    UnknownSequence {
        /// What the change named.
        sequence: u64,
    },
    /// A leased message does not expire.
    #[error("{sequence} is leased")]
    Leased {
        /// What the change named.
        sequence: u64,
    },
    /// The clock by which it would end is not believed.
    #[error("the clock is held")]
    ClockHeld,
    /// The disk or the queue is full; what is there can still be handed over.
    #[error("no room")]
    Full,
    /// As much of this issuer waits as may.
    #[error("over the issuer's quota")]
    OverQuota,
    /// The store is poisoned by a failed write: nothing is accepted until the process starts anew.
    #[error("the store has failed")]
    Failed,
    /// The store is being closed.
    #[error("the store is closing")]
    Closing,
    /// Over a limit of the store; the limit in words.
    #[error("too large: {what}")]
    TooLarge {
        /// Which limit.
        what: &'static str,
    },
    /// Not what a fact may hold; the field in words.
    #[error("not well formed: {what}")]
    Malformed {
        /// Which field.
        what: &'static str,
    },
    /// A part that the fact names is not there, or is not what the fact says.
    #[error("part {part} is missing or another")]
    PartMissing {
        /// Its number.
        part: u32,
    },
    /// The notary could not sign; nothing of the group was written.
    #[error("not signed: {0}")]
    NotSigned(String),
    /// The original could not be read for a repeat's answer.
    #[error("the original cannot be read")]
    Unreadable(#[source] ReadError),
}

impl Rejected {
    /// A refusal by the case's rules.
    pub(crate) fn case(refused: Refused) -> Self {
        Self::Case(Box::new(refused))
    }
}
