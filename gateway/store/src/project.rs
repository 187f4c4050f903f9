//! From facts to rows: what each fact does to the outbox. The one place that writes rows.
//!
//! Knows: order, dead letters that hold it, due times, cases, memory of ids. Never knows: whether a fact was permitted (the judge
//! asked that before), leases, the clock (a fact's own time is all it has).
//! Invariants: the same facts give the same rows, live or replayed; a message has a `w` row exactly when nothing of its order comes
//! before it and it is no dead letter; a fact forgets a bounded number of ids, and the next ones the rest.

use std::sync::Arc;

use bytes::Bytes;
use tramite_proto::{
    pb::journal::v1::{Accepted, AttemptFailed, CaseMove, Fact, Outcome, Recorded, Redriven, Settled, fact::Kind},
    states::{self, CaseKind},
};

use crate::{
    clock::{self, CLOCK_CONFIRMED, MINUTE_MS, Word},
    error::{MapError, ReadError},
    map::{Key, Pair},
    overlay::{Over, Overlay, Rows, successor},
    rows::{self, CaseValue, ChargeRow, ClockRow, IdRow, ItemRow, QueueRow, RequestRow},
};

mod retired;

/// Ids that one fact has forgotten: a group of 512 facts some 130,000, which holds its callers up for a fraction of a second.
pub(crate) const FORGET_AT_ONCE: usize = 256;

/// Where older facts come from.
pub(crate) trait Facts {
    fn fact(&self, sequence: u64) -> Result<Arc<Fact>, ReadError>;
}

/// Row changes of facts that are being judged or replayed, over the rows that hold.
pub(crate) struct Draft<'a> {
    pub(crate) upper: Overlay,
    below: &'a dyn Rows,
    facts: &'a dyn Facts,
    /// How far the clock has come, once it was looked up.
    clock: Option<ClockRow>,
    pub(crate) effects: Effects,
}

/// What else a group brings about once it is durable.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// May be handed out from now on, or at its due time: queue, due time, sequence.
    pub(crate) ready: Vec<(String, i64, u64)>,
    /// No longer waits in this queue: leases of it end.
    pub(crate) gone: Vec<(String, u64)>,
    /// Messages that are final: their content goes.
    pub(crate) finals: Vec<u64>,
}

impl Rows for Draft<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        Over { upper: &self.upper, below: self.below }.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        Over { upper: &self.upper, below: self.below }.scan(from, to, limit)
    }
}

/// Reads a row of any kind.
pub(crate) fn row<T: prost::Message + Default>(rows: &(impl Rows + ?Sized), key: &[u8]) -> Result<Option<T>, MapError> {
    rows.get(key)?.map(rows::decode).transpose()
}

/// The queues in which a fact waits or waited.
pub(crate) fn queues_of(fact: &Fact) -> &[String] {
    match &fact.kind {
        Some(Kind::Accepted(accepted)) => std::slice::from_ref(&accepted.queue),
        Some(Kind::Settled(settled)) => &settled.notify,
        Some(Kind::CaseExpired(expired)) => &expired.notify,
        _ => &[],
    }
}

impl<'a> Draft<'a> {
    pub(crate) fn new(below: &'a dyn Rows, facts: &'a dyn Facts) -> Self {
        Self { upper: Overlay::default(), below, facts, clock: None, effects: Effects::default() }
    }

    pub(crate) fn older(&self, sequence: u64) -> Result<Arc<Fact>, ReadError> {
        self.facts.fact(sequence)
    }

    /// Applies one fact.
    pub(crate) fn apply(&mut self, sequence: u64, fact: &Fact) -> Result<(), ReadError> {
        if let Some(Kind::Retired(retired)) = &fact.kind {
            self.carry_clock(retired.minute, retired.dated)?;
        }
        self.tick(sequence, fact)?;
        match &fact.kind {
            Some(Kind::Accepted(accepted)) => self.accepted(sequence, fact.at_ms, accepted)?,
            Some(Kind::AttemptFailed(failed)) => self.attempt_failed(sequence, failed)?,
            Some(Kind::Settled(settled)) => self.settled(sequence, fact.at_ms, settled)?,
            Some(Kind::Redriven(redriven)) => self.redriven(sequence, redriven)?,
            Some(Kind::CaseExpired(expired)) => {
                self.notify(sequence, fact.at_ms, &expired.notify)?;
                if let Some(case_move) = &expired.case_move {
                    self.upper.put_new(rows::timeline(&case_move.case_id, sequence), Bytes::new());
                    self.case_moved(sequence, fact.at_ms, case_move)?;
                }
            }
            Some(Kind::Recorded(recorded)) => self.recorded(sequence, recorded),
            Some(Kind::Retired(retired)) => self.retired(sequence, retired)?,
            // A kind of a later version: this one has no rows for it.
            None => {}
        }
        Ok(())
    }

    fn accepted(&mut self, sequence: u64, at_ms: i64, fact: &Accepted) -> Result<(), MapError> {
        let id = IdRow {
            sequence,
            digest: fact.digest.clone(),
            remember_ms: fact.remember_ms,
            request_id: fact.request_id.clone(),
            ..IdRow::default()
        };
        self.upper.put(rows::id(&fact.id), rows::encode(&id));
        if fact.remember_ms > 0 {
            self.upper.put(rows::forget(fact.remember_ms / MINUTE_MS, &fact.id), Bytes::new());
        }
        if !fact.request_id.is_empty() {
            let request = RequestRow { sequence, digest: fact.request_digest.clone() };
            self.upper.put(rows::request(&fact.request_id), rows::encode(&request));
        }
        let mut item = ItemRow {
            id: fact.id.clone(),
            digest: fact.digest.clone(),
            order: fact.order.clone(),
            case_id: fact.case_id.clone(),
            expires_ms: fact.expires_ms,
            accepted_ms: at_ms,
            bytes: fact.content.as_ref().map_or(0, |content| content.length),
            issuer: fact.return_to.clone(),
            ..ItemRow::default()
        };
        self.charge(&item, u64::saturating_add)?;
        let first = fact.order.is_empty() || self.first_in_order(&fact.queue, &fact.order)?.is_none();
        if !fact.order.is_empty() {
            self.upper.put_new(rows::order(&fact.queue, &fact.order, sequence), Bytes::new());
        }
        if fact.expires_ms > 0 {
            self.upper.put_new(rows::expiry(fact.expires_ms, sequence), rows::encode(&fact.queue));
        }
        if first {
            self.make_ready(&fact.queue, sequence, &mut item);
        }
        self.upper.put_new(rows::item(&fact.queue, sequence), rows::encode(&item));
        self.count(&fact.queue, |row| (row.waiting, row.accepted) = (row.waiting + 1, row.accepted + 1))?;
        if !fact.case_id.is_empty() {
            self.upper.put_new(rows::timeline(&fact.case_id, sequence), Bytes::new());
        }
        fact.case_move.as_ref().map_or(Ok(()), |case_move| self.case_moved(sequence, at_ms, case_move))
    }

    /// The first of an order that is not final.
    fn first_in_order(&self, queue: &str, order: &[u8]) -> Result<Option<u64>, MapError> {
        let from = rows::order(queue, order, 0);
        let to = rows::order(queue, order, u64::MAX);
        Ok(self.scan(&from, &to, 1)?.first().map(|(key, _)| rows::number_at_end(key)))
    }

    fn make_ready(&mut self, queue: &str, sequence: u64, item: &mut ItemRow) {
        item.ready = true;
        self.upper.put_new(rows::ready(queue, item.due_ms, sequence), Bytes::new());
        self.effects.ready.push((queue.to_owned(), item.due_ms, sequence));
    }

    fn make_unready(&mut self, queue: &str, sequence: u64, item: &mut ItemRow) {
        if item.ready {
            item.ready = false;
            self.upper.remove(rows::ready(queue, item.due_ms, sequence));
        }
    }

    fn count(&mut self, queue: &str, change: impl FnOnce(&mut QueueRow)) -> Result<(), MapError> {
        let key = rows::queue(queue);
        let mut counts: QueueRow = row(self, &key)?.unwrap_or_default();
        change(&mut counts);
        self.upper.put(key, rows::encode(&counts));
        Ok(())
    }

    /// Adds what a message weighs to what its issuer has waiting, or takes it away.
    fn charge(&mut self, item: &ItemRow, change: fn(u64, u64) -> u64) -> Result<(), MapError> {
        if item.bytes == 0 || item.issuer.is_empty() {
            return Ok(());
        }
        let key = rows::charge(&item.issuer);
        let held: ChargeRow = row(self, &key)?.unwrap_or_default();
        self.upper.put(key, rows::encode(&ChargeRow { bytes: change(held.bytes, item.bytes.into()) }));
        Ok(())
    }

    fn notify(&mut self, sequence: u64, at_ms: i64, queues: &[String]) -> Result<(), MapError> {
        for queue in queues {
            let mut item = ItemRow { accepted_ms: at_ms, ..ItemRow::default() };
            self.make_ready(queue, sequence, &mut item);
            self.upper.put_new(rows::item(queue, sequence), rows::encode(&item));
            self.count(queue, |row| (row.waiting, row.accepted) = (row.waiting + 1, row.accepted + 1))?;
        }
        Ok(())
    }

    fn attempt_failed(&mut self, sequence: u64, failed: &AttemptFailed) -> Result<(), MapError> {
        let queue = &failed.queue;
        let key = rows::item(queue, failed.sequence);
        if let Some(mut item) = row::<ItemRow>(self, &key)? {
            let ready = item.ready;
            self.make_unready(queue, failed.sequence, &mut item);
            item.attempts = failed.attempt;
            item.due_ms = failed.due_ms;
            if ready {
                self.make_ready(queue, failed.sequence, &mut item);
            }
            self.upper.put(key, rows::encode(&item));
            self.effects.gone.push((queue.clone(), failed.sequence));
            self.upper.put_new(rows::history(failed.sequence, sequence), Bytes::new());
        }
        Ok(())
    }

    fn redriven(&mut self, sequence: u64, redriven: &Redriven) -> Result<(), ReadError> {
        let Some(older) = self.unless_retired(redriven.sequence)? else { return Ok(()) };
        for queue in queues_of(&older) {
            let key = rows::item(queue, redriven.sequence);
            let Some(mut item) = row::<ItemRow>(self, &key)? else { continue };
            if !item.dead {
                continue;
            }
            (item.dead, item.attempts, item.due_ms) = (false, 0, 0);
            self.upper.remove(rows::dead(queue, redriven.sequence));
            if item.expires_ms > 0 {
                self.upper.put(rows::expiry(item.expires_ms, redriven.sequence), rows::encode(queue));
            }
            if item.order.is_empty() || self.first_in_order(queue, &item.order)? == Some(redriven.sequence) {
                self.make_ready(queue, redriven.sequence, &mut item);
            }
            self.upper.put(key, rows::encode(&item));
            self.count(queue, |row| (row.waiting, row.dead) = (row.waiting + 1, row.dead.saturating_sub(1)))?;
        }
        self.upper.put_new(rows::history(redriven.sequence, sequence), Bytes::new());
        Ok(())
    }

    fn settled(&mut self, sequence: u64, at_ms: i64, fact: &Settled) -> Result<(), ReadError> {
        let key = rows::item(&fact.queue, fact.sequence);
        let (item, late) = (row::<ItemRow>(self, &key)?, fact.outcome() == Outcome::ReceiptAfterEnd);
        let older = if late { self.unless_retired(fact.sequence)? } else { None };
        // It was judged by what it speaks of. If that is gone, so is what it did.
        if item.is_none() && older.is_none() {
            return Ok(());
        }
        self.notify(sequence, at_ms, &fact.notify)?;
        if let Some(case_move) = &fact.case_move {
            self.case_moved(sequence, at_ms, case_move)?;
        }
        if let Some(older) = older {
            if let Some(Kind::Accepted(accepted)) = &older.kind {
                self.on_timeline(&accepted.case_id, sequence);
                let key = rows::id(&accepted.id);
                if let Some(id) = row::<IdRow>(self, &key)?.filter(|id| id.sequence == fact.sequence) {
                    self.upper.put(key, rows::encode(&IdRow { late: true, ..id }));
                }
            }
            return Ok(());
        }
        let Some(item) = item else { return Ok(()) };
        self.on_timeline(&item.case_id, sequence);
        self.effects.gone.push((fact.queue.clone(), fact.sequence));
        if fact.outcome() == Outcome::DeadLettered {
            self.upper.put_new(rows::history(fact.sequence, sequence), Bytes::new());
            self.dead_lettered(key, item, fact)?;
        } else {
            self.ended(sequence, key, item, fact)?;
        }
        Ok(())
    }

    fn on_timeline(&mut self, case_id: &[u8], sequence: u64) {
        if !case_id.is_empty() {
            self.upper.put(rows::timeline(case_id, sequence), Bytes::new());
        }
    }

    fn dead_lettered(&mut self, key: Key, mut item: ItemRow, fact: &Settled) -> Result<(), MapError> {
        self.make_unready(&fact.queue, fact.sequence, &mut item);
        if item.expires_ms > 0 {
            self.upper.remove(rows::expiry(item.expires_ms, fact.sequence));
        }
        if !item.dead {
            self.count(&fact.queue, |row| (row.waiting, row.dead) = (row.waiting.saturating_sub(1), row.dead + 1))?;
        }
        item.dead = true;
        self.upper.put(rows::dead(&fact.queue, fact.sequence), Bytes::new());
        self.upper.put(key, rows::encode(&item));
        Ok(())
    }

    /// It is final: its rows go, and what waited behind it in its order may follow.
    fn ended(&mut self, sequence: u64, key: Key, mut item: ItemRow, fact: &Settled) -> Result<(), MapError> {
        let queue = &fact.queue;
        self.make_unready(queue, fact.sequence, &mut item);
        self.upper.remove(key);
        if item.dead {
            self.upper.remove(rows::dead(queue, fact.sequence));
        } else if item.expires_ms > 0 {
            self.upper.remove(rows::expiry(item.expires_ms, fact.sequence));
        }
        let dead = item.dead;
        self.count(queue, |row| {
            row.settled += 1;
            if dead {
                row.dead = row.dead.saturating_sub(1);
            } else {
                row.waiting = row.waiting.saturating_sub(1);
            }
        })?;
        if !item.order.is_empty() {
            self.upper.remove(rows::order(queue, &item.order, fact.sequence));
            self.follow(queue, &item.order)?;
        }
        if item.id.is_empty() {
            return Ok(());
        }
        self.charge(&item, u64::saturating_sub)?;
        self.effects.finals.push(fact.sequence);
        let id_key = rows::id(&item.id);
        let Some(id) = row::<IdRow>(self, &id_key)?.filter(|id| id.sequence == fact.sequence) else { return Ok(()) };
        let id = IdRow { final_sequence: sequence, outcome: fact.outcome, attempts: item.attempts, ..id };
        if id.remember_ms > 0 && id.remember_ms / MINUTE_MS < self.clock()?.minute {
            self.forget(&item.id, &id);
        } else {
            self.upper.put(id_key, rows::encode(&id));
        }
        Ok(())
    }

    /// Lets the first of an order go ahead, unless it is a dead letter, which holds what follows.
    fn follow(&mut self, queue: &str, order: &[u8]) -> Result<(), MapError> {
        let Some(next) = self.first_in_order(queue, order)? else { return Ok(()) };
        let key = rows::item(queue, next);
        let Some(mut item) = row::<ItemRow>(self, &key)? else { return Ok(()) };
        if !item.dead && !item.ready {
            self.make_ready(queue, next, &mut item);
            self.upper.put(key, rows::encode(&item));
        }
        Ok(())
    }

    fn case_moved(&mut self, sequence: u64, at_ms: i64, case_move: &CaseMove) -> Result<(), MapError> {
        let key = rows::case(&case_move.case_id);
        let before: Option<CaseValue> = row(self, &key)?;
        if let Some(before) = before.as_ref().filter(|before| before.expires) {
            self.upper.remove(rows::deadline(before.deadline_ms, &case_move.case_id));
        }
        let mut case = before.unwrap_or_else(|| CaseValue {
            kind: case_move.kind.clone(),
            opener: case_move.opener.clone(),
            responder: case_move.responder.clone(),
            conversation: case_move.conversation.clone(),
            opened_sequence: sequence,
            opened_ms: at_ms,
            ..CaseValue::default()
        });
        case.status.clone_from(&case_move.to);
        case.reason.clone_from(&case_move.reason);
        (case.moved_sequence, case.moved_ms) = (sequence, at_ms);
        if case_move.deadline_ms > 0 {
            case.deadline_ms = case_move.deadline_ms;
        }
        let kind = case.kind.parse::<CaseKind>().ok();
        case.expires = case.deadline_ms > 0 && kind.is_some_and(|kind| states::can_expire(kind, &case.status));
        if case.expires {
            self.upper.put(rows::deadline(case.deadline_ms, &case_move.case_id), Bytes::new());
        }
        self.upper.put(key, rows::encode(&case));
        Ok(())
    }

    fn recorded(&mut self, sequence: u64, recorded: &Recorded) {
        let key = rows::record(&recorded.name);
        match &recorded.value {
            Some(_) => self.upper.put(key, rows::number(sequence)),
            None => self.upper.remove(key),
        }
    }

    /// A fact, unless retention took it: what is replayed may speak of what is gone.
    fn unless_retired(&self, sequence: u64) -> Result<Option<Arc<Fact>>, ReadError> {
        match self.older(sequence) {
            Ok(fact) => Ok(Some(fact)),
            Err(ReadError::NoFact(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How far the clock has come with the facts.
    pub(crate) fn clock(&mut self) -> Result<ClockRow, MapError> {
        if let Some(clock) = &self.clock {
            return Ok(clock.clone());
        }
        let clock = clock::clock_row(self)?;
        self.clock = Some(clock.clone());
        Ok(clock)
    }

    fn set_clock(&mut self, clock: ClockRow) -> Result<(), MapError> {
        if self.clock()? != clock {
            self.upper.put(Key::from_slice(rows::CLOCK), rows::encode(&clock));
            self.clock = Some(clock);
        }
        Ok(())
    }

    /// Forgets ids whose time is over by this fact's clock, unless the clock is not believed.
    fn tick(&mut self, sequence: u64, fact: &Fact) -> Result<(), MapError> {
        let (minute, before) = (fact.at_ms.div_euclid(MINUTE_MS), self.clock()?);
        let (reached, behind) = (before.minute, !before.forgetting.is_empty());
        let confirmed = matches!(&fact.kind, Some(Kind::Recorded(recorded)) if recorded.name == CLOCK_CONFIRMED);
        if !confirmed && !behind && minute <= reached {
            return Ok(());
        }
        // The first fact of all is believed, for want of another; not the first of those that are left.
        let nothing_before = reached == 0 && sequence > 1;
        let word = match confirmed {
            true => Word::Confirmed,
            false if nothing_before || clock::is_held(self)? => Word::Held,
            false => Word::None,
        };
        let goes_on = behind && word != Word::Held && clock::goes_on(reached, minute);
        if confirmed || minute > reached {
            self.set_clock(clock::after(before, minute, word))?;
        }
        if goes_on || self.clock()?.minute != reached { self.forget_some() } else { Ok(()) }
    }

    /// How far the clock had come, whatever of the facts is left. Nothing was to be forgotten any more.
    fn carry_clock(&mut self, minute: i64, dated: i64) -> Result<(), MapError> {
        let before = self.clock()?;
        if (before.minute, before.dated) != (minute, dated) {
            self.set_clock(ClockRow { minute, dated, ..before })?;
            self.forget_some()?;
        }
        while !self.clock()?.forgetting.is_empty() {
            self.forget_some()?;
        }
        Ok(())
    }

    /// Forgets ids whose time is over, from where the last fact came to.
    fn forget_some(&mut self) -> Result<(), MapError> {
        let clock = self.clock()?;
        let from = if clock.forgetting.is_empty() { rows::forget(0, &[]) } else { successor(&clock.forgetting) };
        let over = self.scan(&from, &rows::forget(clock.minute, &[]), FORGET_AT_ONCE)?;
        for (key, _) in &over {
            self.upper.remove(key.clone());
            let id = rows::forgotten(key).to_vec();
            let is_over = |row: &IdRow| row.final_sequence != 0 && row.remember_ms / MINUTE_MS < clock.minute;
            // What is not final is remembered until it is; what was forgotten may have been accepted anew.
            if let Some(row) = row::<IdRow>(self, &rows::id(&id))?.filter(is_over) {
                self.forget(&id, &row);
            }
        }
        let last = over.last().filter(|_| over.len() == FORGET_AT_ONCE);
        let forgetting = last.map(|(key, _)| Bytes::copy_from_slice(key)).unwrap_or_default();
        self.set_clock(ClockRow { forgetting, ..clock })
    }

    fn forget(&mut self, id: &[u8], row: &IdRow) {
        self.upper.remove(rows::id(id));
        if !row.request_id.is_empty() {
            self.upper.remove(rows::request(&row.request_id));
        }
    }
}
