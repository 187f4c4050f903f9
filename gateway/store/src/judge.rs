//! Judges each change of a group against the rows that hold and those of the changes before it in the same group.
//!
//! Knows: uniqueness of ids and request ids, the rules of cases, what may be settled, retried, put back. Never knows: how a group is
//! written or signed. Invariants: a change that is refused leaves nothing behind; what is permitted is in the draft at once, so the
//! next change of the group is judged by it.

use bytes::Bytes;
use tramite_proto::{
    pb::journal::v1::{
        Accepted, AttemptFailed, CaseExpired, Content, Fact, Outcome, Recorded, Redriven, Settled, fact::Kind,
    },
    states::Party,
};

use crate::{
    change::{Change, Mover, Rejected, Slot},
    clock::{self, PUT_OFF_MAX_MS},
    error::{MapError, ReadError},
    lanes::Lanes,
    options::Options,
    project::{Draft, queues_of, row},
    rows::{self, ChargeRow, IdRow, ItemRow, QueueRow, RequestRow},
};

mod case;
mod retire;
mod shape;

/// What was put off without a fact is not tried again sooner, as its waits do not grow.
const FULL_WAIT_MS: i64 = 30_000;

/// A fact of the group being formed.
#[derive(Debug)]
pub(crate) struct NewFact {
    pub(crate) fact: Fact,
    pub(crate) content: Bytes,
    pub(crate) crc: u32,
    pub(crate) sign: Vec<(Slot, Bytes)>,
}

/// What a change is to be answered.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// With the new fact at this place of the group.
    New(usize, Answer),
    /// As a repeat of the new fact at this place of the group.
    RepeatsNew(usize),
    /// As a repeat of an older fact.
    Repeats(u64),
    Already(u64),
    /// Put off in memory, with that attempt.
    PutOff(u64, u32),
    No(Rejected),
}

/// Which answer a new fact gives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Accepted,
    Settled,
    AttemptFailed(u32),
    Recorded,
}

/// Why judging stopped.
pub(crate) enum Stop {
    /// This change is refused, the others go on.
    No(Rejected),
    /// It need not be made.
    Verdict(Verdict),
    /// The rows cannot be read: nobody can be judged.
    Unreadable(ReadError),
}

impl From<Rejected> for Stop {
    fn from(rejected: Rejected) -> Self {
        Self::No(rejected)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Unreadable(error)
    }
}

impl From<MapError> for Stop {
    fn from(error: MapError) -> Self {
        Self::Unreadable(error.into())
    }
}

/// A group being formed.
pub(crate) struct Group<'a> {
    pub(crate) draft: Draft<'a>,
    pub(crate) facts: Vec<NewFact>,
    first_sequence: u64,
    now_ms: i64,
    lanes: &'a Lanes,
    options: &'a Options,
    /// There is room for ends only, as the reserve counts them: nothing new, and nothing that could be told any number of times before its
    /// message ends.
    pub(crate) tight: bool,
}

impl<'a> Group<'a> {
    pub(crate) fn new(
        draft: Draft<'a>,
        first_sequence: u64,
        now_ms: i64,
        lanes: &'a Lanes,
        options: &'a Options,
    ) -> Self {
        Self { draft, facts: Vec::new(), first_sequence, now_ms, lanes, options, tight: false }
    }

    /// Judges one change, and takes it in when it is permitted.
    pub(crate) fn judge(&mut self, change: Change) -> Result<Verdict, ReadError> {
        let judged = match change {
            Change::Accept { fact, content, sign, mover } => self.accept(*fact, content, sign, mover.as_ref()),
            Change::FailAttempt { sequence, queue, reason, detail, due_ms } => {
                let fact = AttemptFailed { sequence, attempt: 0, reason, detail, due_ms, queue };
                self.fail_attempt(fact)
            }
            Change::Settle { fact, sign, mover } => self.settle(*fact, sign, mover.as_ref()),
            Change::Redrive { sequence, by, reason } => self.redrive(Redriven { sequence, by, reason }),
            Change::ExpireCase { fact, sign } => self.expire_case(*fact, sign),
            Change::Record { fact, begins } => self.record(*fact, begins),
            Change::Retire(retirement) => self.retire(retirement),
        };
        match judged {
            Ok(verdict) | Err(Stop::Verdict(verdict)) => Ok(verdict),
            Err(Stop::No(rejected)) => Ok(Verdict::No(rejected)),
            Err(Stop::Unreadable(error)) => Err(error),
        }
    }

    fn take(&mut self, kind: Kind, content: Bytes, sign: Vec<(Slot, Bytes)>, answer: Answer) -> Result<Verdict, Stop> {
        if !sign.is_empty() && !clock::can_date(&self.draft.clock()?, self.now_ms) {
            return Err(Rejected::ClockHeld.into());
        }
        let mut fact = Fact { at_ms: self.now_ms, kind: Some(kind) };
        let mut crc = 0;
        if let (Some(Kind::Accepted(accepted)), false) = (&mut fact.kind, content.is_empty()) {
            crc = crc32c::crc32c(&content);
            let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
            accepted.content = Some(Content { length, crc32c: crc });
        }
        let index = self.facts.len();
        let sequence = self.first_sequence.saturating_add(index as u64);
        self.draft.apply(sequence, &fact)?;
        self.facts.push(NewFact { fact, content, crc, sign });
        Ok(Verdict::New(index, answer))
    }

    /// Answers a repeat from where the first one is.
    fn repeat(&self, sequence: u64) -> Stop {
        let index = sequence.checked_sub(self.first_sequence).and_then(|index| usize::try_from(index).ok());
        Stop::Verdict(index.map_or(Verdict::Repeats(sequence), Verdict::RepeatsNew))
    }

    fn accept(
        &mut self,
        mut fact: Accepted,
        content: Bytes,
        sign: Vec<(Slot, Bytes)>,
        mover: Option<&Mover>,
    ) -> Result<Verdict, Stop> {
        shape::accepted(&fact, &content)?;
        fact.content = None;
        if let Some(id) = row::<IdRow>(&self.draft, &rows::id(&fact.id))? {
            return Err(if self.is_over(id.remember_ms)? {
                Rejected::IdExpired.into()
            } else if id.digest == fact.digest {
                self.repeat(id.sequence)
            } else {
                Rejected::IdReused { sequence: id.sequence }.into()
            });
        }
        if self.is_over(fact.remember_ms)? {
            return Err(Rejected::IdExpired.into());
        }
        if !fact.request_id.is_empty()
            && let Some(request) = row::<RequestRow>(&self.draft, &rows::request(&fact.request_id))?
        {
            return Err(if request.digest == fact.request_digest {
                self.repeat(request.sequence)
            } else {
                Rejected::RequestReused { sequence: request.sequence }.into()
            });
        }
        let counts: QueueRow = row(&self.draft, &rows::queue(&fact.queue))?.unwrap_or_default();
        self.has_room()?;
        if counts.waiting.saturating_add(counts.dead) >= self.options.queue_max {
            return Err(Rejected::Full.into());
        }
        self.within_quota(&fact.return_to, content.len())?;
        case::unchanged(&self.draft, &fact.case_id, mover)?;
        if let Some(case_move) = &mut fact.case_move {
            let opens = case_move.case_id == fact.id;
            case::judge(&self.draft, case_move, opens, mover)?;
        }
        self.take(Kind::Accepted(fact), content, sign, Answer::Accepted)
    }

    fn within_quota(&self, issuer: &str, bytes: usize) -> Result<(), Stop> {
        let Some(quota) = self.options.quotas.get(issuer) else { return Ok(()) };
        let held: ChargeRow = row(&self.draft, &rows::charge(issuer))?.unwrap_or_default();
        let with = held.bytes.saturating_add(bytes as u64);
        if with > *quota { Err(Rejected::OverQuota.into()) } else { Ok(()) }
    }

    /// Whether a time, if there is one, has passed by a clock that is believed.
    fn is_over(&self, time_ms: i64) -> Result<bool, Stop> {
        Ok(time_ms > 0 && time_ms <= self.now_ms && clock::is_believed(&self.draft, self.now_ms)?)
    }

    /// Puts off without a fact: on a full disk there is no room for what could be told any number of times. A restart forgets it.
    fn put_off(&self, queue: &str, sequence: u64, attempt: u32, due_ms: i64) -> Stop {
        let until_ms = due_ms.max(self.now_ms.saturating_add(FULL_WAIT_MS));
        self.lanes.lane(queue).hold_back(sequence, until_ms);
        Stop::Verdict(Verdict::PutOff(sequence, attempt))
    }

    /// What is no end may not use the room that is kept for ends.
    fn has_room(&self) -> Result<(), Stop> {
        if self.tight { Err(Rejected::Full.into()) } else { Ok(()) }
    }

    /// The queues in which something waits or waited.
    fn queues(&self, sequence: u64) -> Result<(Option<Bytes>, Vec<String>), Stop> {
        let unknown = || Stop::No(Rejected::UnknownSequence { sequence });
        let fact = match self.draft.older(sequence) {
            Ok(fact) => fact,
            Err(ReadError::NoFact(_)) => return Err(unknown()),
            Err(ReadError::Outbox(error)) => return Err(error.into()),
            Err(other) => return Err(Rejected::Unreadable(other).into()),
        };
        let id = match &fact.kind {
            Some(Kind::Accepted(accepted)) => Some(accepted.id.clone()),
            _ => None,
        };
        let queues = queues_of(&fact);
        if queues.is_empty() { Err(unknown()) } else { Ok((id, queues.to_vec())) }
    }

    fn item(&self, queue: &str, sequence: u64) -> Result<Option<ItemRow>, Stop> {
        Ok(row(&self.draft, &rows::item(queue, sequence))?)
    }

    fn fail_attempt(&mut self, mut fact: AttemptFailed) -> Result<Verdict, Stop> {
        shape::texts(&[&fact.reason, &fact.detail])?;
        let sequence = fact.sequence;
        let (_, queues) = self.queues(sequence)?;
        if !queues.contains(&fact.queue) {
            return Err(Rejected::UnknownSequence { sequence }.into());
        }
        let waiting = self.item(&fact.queue, sequence)?.filter(|item| !item.dead);
        let attempts = waiting.map(|item| item.attempts).ok_or(Stop::Verdict(Verdict::Already(sequence)))?;
        let attempt = attempts.saturating_add(1);
        fact.attempt = attempt;
        // What waits longer was put off by another clock, and is offered at once (`store::lease`).
        fact.due_ms = fact.due_ms.min(self.now_ms.saturating_add(PUT_OFF_MAX_MS));
        if self.tight {
            return Err(self.put_off(&fact.queue, sequence, attempt, fact.due_ms));
        }
        self.take(Kind::AttemptFailed(fact), Bytes::new(), Vec::new(), Answer::AttemptFailed(attempt))
    }

    fn settle(&mut self, mut fact: Settled, sign: Vec<(Slot, Bytes)>, mover: Option<&Mover>) -> Result<Verdict, Stop> {
        shape::settled(&fact)?;
        let sequence = fact.sequence;
        let already = || Stop::Verdict(Verdict::Already(sequence));
        let (id, queues) = self.queues(sequence)?;
        let queue = self.waiting_queue(&fact, &queues)?;
        let item = self.item(&queue, sequence)?;
        fact.queue = queue;
        match (fact.outcome(), &item) {
            (Outcome::ReceiptAfterEnd, Some(_)) => {
                return Err(Rejected::Malformed { what: "a receipt after the end of what has not ended" }.into());
            }
            (Outcome::ReceiptAfterEnd, None) => {
                let key = rows::id(&id.ok_or_else(already)?);
                let remembered = row::<IdRow>(&self.draft, &key)?.filter(|id| id.sequence == sequence && !id.late);
                // One that a receipt has ended gets no other.
                let by_receipt = [Outcome::HandedOver.into(), Outcome::Refused.into()];
                remembered.filter(|id| !by_receipt.contains(&id.outcome)).ok_or_else(already)?;
            }
            (_, None) => return Err(already()),
            (Outcome::DeadLettered | Outcome::Expired, Some(item)) if item.dead => return Err(already()),
            (Outcome::Expired, Some(_)) if !clock::is_believed(&self.draft, self.now_ms)? => {
                return Err(Rejected::ClockHeld.into());
            }
            (Outcome::Expired, Some(_)) if self.lanes.lane(&fact.queue).is_leased(sequence) => {
                return Err(Rejected::Leased { sequence }.into());
            }
            (_, Some(_)) => {}
        }
        match (fact.outcome(), &item) {
            (Outcome::DeadLettered, Some(item)) if self.tight => {
                let attempt = item.attempts.saturating_add(1);
                return Err(self.put_off(&fact.queue, sequence, attempt, self.now_ms));
            }
            (Outcome::ReceiptAfterEnd, _) => self.has_room()?,
            _ => {}
        }
        if let Some(item) = &item {
            case::unchanged(&self.draft, &item.case_id, mover)?;
        }
        if let Some(case_move) = &mut fact.case_move {
            case::judge(&self.draft, case_move, false, mover)?;
        }
        self.take(Kind::Settled(fact), Bytes::new(), sign, Answer::Settled)
    }

    /// The queue that a settlement means: the one that it names, else the first in which it still waits.
    fn waiting_queue(&self, fact: &Settled, queues: &[String]) -> Result<String, Stop> {
        let unknown = || Stop::No(Rejected::UnknownSequence { sequence: fact.sequence });
        if !fact.queue.is_empty() {
            return if queues.contains(&fact.queue) { Ok(fact.queue.clone()) } else { Err(unknown()) };
        }
        for queue in queues {
            if self.item(queue, fact.sequence)?.is_some() {
                return Ok(queue.clone());
            }
        }
        queues.first().cloned().ok_or_else(unknown)
    }

    fn redrive(&mut self, fact: Redriven) -> Result<Verdict, Stop> {
        shape::texts(&[&fact.by, &fact.reason])?;
        let (_, queues) = self.queues(fact.sequence)?;
        for queue in &queues {
            if self.item(queue, fact.sequence)?.is_some_and(|item| item.dead) {
                return self.take(Kind::Redriven(fact), Bytes::new(), Vec::new(), Answer::Recorded);
            }
        }
        Err(Stop::Verdict(Verdict::Already(fact.sequence)))
    }

    fn expire_case(&mut self, mut fact: CaseExpired, sign: Vec<(Slot, Bytes)>) -> Result<Verdict, Stop> {
        shape::queues(&fact.notify)?;
        let Some(case_move) = &mut fact.case_move else {
            return Err(Rejected::Malformed { what: "case_move" }.into());
        };
        if case_move.to.is_empty() {
            "expired".clone_into(&mut case_move.to);
        }
        // Moved on since it was found due: then there is nothing to expire.
        if let Some(moved) = case::not_due(&self.draft, &case_move.case_id, self.now_ms)? {
            return Err(Stop::Verdict(Verdict::Already(moved)));
        }
        self.has_room()?;
        if !clock::is_believed(&self.draft, self.now_ms)? {
            return Err(Rejected::ClockHeld.into());
        }
        case::judge(&self.draft, case_move, false, Some(&Mover::Party(Party::Gateway)))?;
        self.take(Kind::CaseExpired(fact), Bytes::new(), sign, Answer::Recorded)
    }

    fn record(&mut self, fact: Recorded, begins: bool) -> Result<Verdict, Stop> {
        shape::recorded(&fact)?;
        if begins {
            self.has_room()?;
        }
        self.take(Kind::Recorded(fact), Bytes::new(), Vec::new(), Answer::Recorded)
    }
}
