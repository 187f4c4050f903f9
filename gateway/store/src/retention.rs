//! What may go: cases that have ended, with all their facts, once their retention is over.
//!
//! A case goes as a whole, when it has ended, every message of it is final, every notice of it was taken, none of its ids must be
//! remembered, and its last fact is older than the retention. So long, and no longer, its facts explain each other.
//!
//! Time is told by marks: once a day a fact says how far the clock was believed, so what stands before the mark of a day was written by
//! then, whatever any clock said. A clock that jumps is not believed until an operator confirms it, and until then nothing goes.
//!
//! ```text
//! find      in the oldest segments, whose cases are over           rows and facts are asked, and must agree
//! retire    a fact says which, judged again by the writer          from here on they are gone for everybody
//! sweep     the segments are written anew without them, oldest     a crash: the next pass goes on; `a` rows say what is not gone yet
//!           first, so that nothing is left that speaks of what follows it
//! ```
//! What cannot be read stays: a case with such a fact, and all that the sweep would reach from its segment on, as what is swept out of
//! its order might be spoken of by what is left. The others are retired all the same.
//!
//! Knows: marks, cases, who speaks of whom. Never knows: bytes. Invariants: a fact goes only if a durable retirement names what it
//! belongs to, or what it speaks of is gone, or a later record has its name; never because a row is missing.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use tramite_proto::{
    pb::journal::v1::{Accepted, Fact, Outcome, Retired, Settled, fact::Kind},
    states::{self, CaseKind},
};

use crate::{
    change::{Change, Done, Dossier, Rejected, Retirement},
    clock::{self, MINUTE_MS},
    error::ReadError,
    growth::{Ask, goes_on},
    journal::{Segment, Stopped},
    overlay::Rows as _,
    project::{Facts as _, row},
    rows::{self, CaseValue, IdRow},
    shared::Shared,
};

/// Cases in one retirement: their rows are removed by the writer, which must not be held up.
const CASES_AT_ONCE: usize = 16;
/// Messages of no case in one: they have few rows.
const MESSAGES_AT_ONCE: usize = 256;
/// A mark for each so many minutes.
const MARK_EVERY: i64 = 24 * 60;

/// How far a store has come since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Everything before this sequence was looked at, and what is over was retired.
    found_before: u64,
    /// The last record of each name before it.
    records: HashMap<String, u64>,
    /// Everything before this sequence was swept, or cannot be.
    swept_before: u64,
    /// What each retirement up to this one named is gone.
    done: u64,
}

/// What goes.
#[derive(Debug, Default)]
struct Gone {
    cases: HashSet<Bytes>,
    messages: HashSet<u64>,
    /// The last record of each name.
    records: HashMap<String, u64>,
    /// The last mark.
    mark: Retired,
    /// The last of those retirements of which everything is gone once the sealed segments are swept.
    last: u64,
}

/// Retires and sweeps what is over by now.
pub(crate) fn pass(shared: &Shared, ask: &mut Ask<'_>) -> Result<(), Stopped> {
    let Some(retention_ms) = shared.options.retention_ms else { return Ok(()) };
    if !clock::is_believed(&shared.outbox, shared.clock.now_ms())? {
        return Ok(());
    }
    let minute = clock::clock_row(&shared.outbox)?.minute;
    let retirements = shared.outbox.scan(&rows::retirement(0), &rows::retirement(u64::MAX), usize::MAX)?;
    let retirements = retirements.iter().map(|(key, minute)| (rows::number_at_end(key), rows::number_at_end(minute)));
    let (marks, open): (Vec<_>, Vec<_>) = retirements.partition(|(_, minute)| *minute > 0);
    let over = minute.saturating_sub(retention_ms / MINUTE_MS);
    let is_over = |(_, of): &&(u64, u64)| i64::try_from(*of).is_ok_and(|of| of <= over);
    let before = marks.iter().rfind(is_over).map_or(0, |(sequence, _)| *sequence);
    let last = marks.last().and_then(|(_, of)| i64::try_from(*of).ok());
    let progress = || shared.retention.lock().unwrap_or_else(PoisonError::into_inner);
    if minute > 0 && last.is_none_or(|last| minute.saturating_sub(last).saturating_abs() >= MARK_EVERY) {
        let done = progress().done;
        committed(ask(Change::Retire(Retirement { mark: true, before, done, ..Retirement::default() })))?;
    }
    if before == 0 || progress().swept_before == before {
        return Ok(());
    }
    if progress().found_before != before {
        let records = find(shared, before, ask)?;
        let mut progress = progress();
        (progress.found_before, progress.records) = (before, records);
        return Ok(());
    }
    // A map that fails is replayed up to where it was, and one that was killed from there: what goes must have gone from it.
    let reached = shared.outbox.hand_over()?;
    if reached < before || open.iter().any(|(sequence, _)| *sequence >= reached) {
        return Ok(());
    }
    let mut gone = Gone { records: progress().records.clone(), mark: last_mark(shared, &marks)?, ..Gone::default() };
    let written = shared.journal.segments().last().map_or(0, |segment| segment.first());
    for (sequence, _) in open {
        gone.names(shared, sequence, written)?;
    }
    let swept = sweep(shared, before, &gone)?;
    let mut progress = progress();
    match swept {
        Swept::All => (progress.swept_before, progress.done) = (before, progress.done.max(gone.last)),
        Swept::Left => progress.swept_before = before,
        Swept::Later => {}
    }
    Ok(())
}

/// How far a sweep came.
enum Swept {
    All,
    /// Up to a segment that cannot be read: the next mark is time enough to look again.
    Left,
    /// As far as there was room.
    Later,
}

fn last_mark(shared: &Shared, marks: &[(u64, u64)]) -> Result<Retired, ReadError> {
    let Some((sequence, _)) = marks.last() else { return Ok(Retired::default()) };
    match &shared.fact(*sequence)?.kind {
        Some(Kind::Retired(mark)) => Ok(mark.clone()),
        _ => Err(shared.outbox.distrust("a retirement's row names another fact").into()),
    }
}

/// What could not be retired now is found again another day; what cannot be read or written ends the pass.
fn committed(answer: Result<Done, Rejected>) -> Result<(), ReadError> {
    match answer {
        Ok(_) | Err(Rejected::Full | Rejected::ClockHeld) => Ok(()),
        Err(Rejected::Unreadable(error)) if is_unread(&error) => Ok(()),
        Err(Rejected::Unreadable(error)) => Err(error),
        Err(_) => Err(ReadError::Failed),
    }
}

/// Whether it is a fact that cannot be read, and not rows.
fn is_unread(error: &ReadError) -> bool {
    matches!(error, ReadError::Damaged(_) | ReadError::Io { .. })
}

/// The sealed segments in which something is older. The last of them may hold what is younger, too: small ones were packed together,
/// and would never be old as a whole.
fn old_segments(shared: &Shared, before: u64) -> Vec<Arc<Segment>> {
    let mut segments = shared.journal.sealed();
    segments.retain(|segment| segment.first() < before);
    segments
}

/// Looks for what is over, and retires it. Returns the last record of each name.
fn find(shared: &Shared, before: u64, ask: &mut Ask<'_>) -> Result<HashMap<String, u64>, ReadError> {
    let mut records = HashMap::new();
    let mut seen: HashSet<Bytes> = HashSet::new();
    let mut loose: HashMap<u64, (Bytes, String)> = HashMap::new();
    for segment in old_segments(shared, before) {
        let mut met = Vec::new();
        let mut ended = Vec::new();
        shared.journal.each_fact(&segment, &mut |sequence, fact| {
            if sequence >= before {
                return Ok(());
            }
            match &fact.kind {
                Some(Kind::Accepted(it)) if it.case_id.is_empty() => {
                    loose.insert(sequence, (own(&it.id), it.queue.clone()));
                }
                Some(Kind::Accepted(it)) if !seen.contains(&it.case_id) => {
                    let case = own(&it.case_id);
                    seen.insert(case.clone());
                    met.push(case);
                }
                Some(Kind::Settled(it)) if is_end(it) && loose.contains_key(&it.sequence) => {
                    ended.push((it.sequence, sequence, it.notify.clone()));
                }
                Some(Kind::Recorded(it)) => {
                    records.insert(it.name.clone(), sequence);
                }
                _ => {}
            }
            Ok(())
        })?;
        let mut cases = Vec::new();
        for case in met {
            match dossier(shared, case, before) {
                Err(error) if is_unread(&error) => tracing::warn!(%error, "a case that may be over stays"),
                other => cases.extend(other?),
            }
        }
        for some in cases.chunks(CASES_AT_ONCE) {
            let retirement = Retirement { cases: some.to_vec(), before, ..Retirement::default() };
            committed(ask(Change::Retire(retirement)))?;
        }
        let mut messages = Vec::new();
        for (message, end, notify) in ended {
            let Some((id, queue)) = loose.remove(&message) else { continue };
            if !waits(shared, message, &[queue])? && !waits(shared, end, &notify)? {
                messages.extend(remembered(shared, message, &id)?.map(|ids| ([message, end], ids)));
            }
        }
        for some in messages.chunks(MESSAGES_AT_ONCE) {
            let (messages, ids): (Vec<[u64; 2]>, Vec<Vec<Bytes>>) = some.iter().cloned().unzip();
            let retirement =
                Retirement { messages: messages.concat(), ids: ids.concat(), before, ..Retirement::default() };
            committed(ask(Change::Retire(retirement)))?;
        }
    }
    Ok(records)
}

/// A copy. What was read shares the memory of all that was read with it, a block of some hundred facts, for as long as any of it is kept.
fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn is_end(settled: &Settled) -> bool {
    !matches!(settled.outcome(), Outcome::DeadLettered | Outcome::ReceiptAfterEnd)
}

/// Whether a fact still waits in one of these queues.
fn waits(shared: &Shared, sequence: u64, queues: &[String]) -> Result<bool, ReadError> {
    for queue in queues {
        if shared.outbox.get(&rows::item(queue, sequence))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The ids that go with a message that is final: its own, if it is remembered for as long as the message stays. None: it must be
/// remembered.
fn remembered(shared: &Shared, sequence: u64, id: &Bytes) -> Result<Option<Vec<Bytes>>, ReadError> {
    let row = row::<IdRow>(&shared.outbox, &rows::id(id))?.filter(|row| row.sequence == sequence);
    Ok(match row {
        None => Some(Vec::new()),
        Some(row) if row.remember_ms == 0 && row.final_sequence != 0 => Some(vec![own(id)]),
        Some(_) => None,
    })
}

/// A case, if it may go.
fn dossier(shared: &Shared, case: Bytes, before: u64) -> Result<Option<Dossier>, ReadError> {
    let rows = shared.outbox.scan(&rows::timeline(&case, 0), &rows::timeline(&case, u64::MAX), usize::MAX)?;
    let timeline: Vec<u64> = rows.iter().map(|(key, _)| rows::number_at_end(key)).collect();
    if timeline.last().is_none_or(|last| *last >= before) {
        return Ok(None);
    }
    let value = row::<CaseValue>(&shared.outbox, &rows::case(&case))?;
    let ended = |value: &CaseValue| {
        value.moved_sequence < before
            && value.kind.parse::<CaseKind>().is_ok_and(|kind| states::is_final(kind, &value.status))
    };
    if value.as_ref().is_some_and(|value| !ended(value)) {
        return Ok(None);
    }
    let (mut open, mut ids, mut moves) = (HashSet::new(), Vec::new(), false);
    for sequence in &timeline {
        let fact = shared.fact(*sequence)?;
        match &fact.kind {
            Some(Kind::Accepted(accepted)) => {
                let Some(own) = remembered(shared, *sequence, &accepted.id)? else { return Ok(None) };
                open.insert(*sequence);
                ids.extend(own);
            }
            Some(Kind::Settled(settled)) if is_end(settled) => {
                open.remove(&settled.sequence);
            }
            _ => {}
        }
        moves |= moves_case(&fact);
        if waits(shared, *sequence, crate::project::queues_of(&fact))? {
            return Ok(None);
        }
    }
    // A message is over by its own fact. A case that was moved has a row that says so; a row that is missing is no end.
    let is_over = open.is_empty() && (value.is_some() || !moves);
    Ok(is_over.then_some(Dossier { case, timeline, ids }))
}

fn moves_case(fact: &Fact) -> bool {
    match &fact.kind {
        Some(Kind::Accepted(Accepted { case_move, .. }) | Kind::Settled(Settled { case_move, .. })) => {
            case_move.is_some()
        }
        Some(Kind::CaseExpired(_)) => true,
        _ => false,
    }
}

impl Gone {
    /// Takes in what a durable retirement names. Some of it may stand in the segment that is `written`, and cannot be swept yet: then
    /// the retirement is needed for another day.
    fn names(&mut self, shared: &Shared, sequence: u64, written: u64) -> Result<(), ReadError> {
        let fact = shared.journal.fact(sequence).map(|(fact, _)| fact)?;
        let Some(Kind::Retired(retired)) = &fact.kind else {
            return Err(shared.outbox.distrust("a retirement's row names another fact").into());
        };
        self.cases.extend(retired.cases.iter().map(|case| own(case)));
        self.messages.extend(&retired.messages);
        if retired.before <= written {
            self.last = self.last.max(sequence);
        }
        Ok(())
    }

    /// Whether a fact goes. `before` are those of its segment that go.
    fn has(&self, shared: &Shared, dropped: &HashSet<u64>, sequence: u64, fact: &Fact) -> Result<bool, ReadError> {
        match &fact.kind {
            Some(Kind::Accepted(it)) => Ok(self.cases.contains(&it.case_id) || self.messages.contains(&sequence)),
            Some(Kind::CaseExpired(it)) => {
                Ok(it.case_move.as_ref().is_some_and(|moved| self.cases.contains(&moved.case_id)))
            }
            Some(Kind::Settled(it)) => is_gone(shared, dropped, it.sequence),
            Some(Kind::AttemptFailed(it)) => is_gone(shared, dropped, it.sequence),
            Some(Kind::Redriven(it)) => is_gone(shared, dropped, it.sequence),
            Some(Kind::Recorded(it)) => Ok(self.records.get(&it.name).is_some_and(|last| *last > sequence)),
            Some(Kind::Retired(it)) => {
                let Retired { before, done, .. } = &self.mark;
                Ok(sequence < *before && (it.mark || sequence <= *done))
            }
            // A kind of a later version: this one does not know what it is about.
            None => Ok(false),
        }
    }
}

/// Whether a fact is not there any more, or goes just now.
fn is_gone(shared: &Shared, dropped: &HashSet<u64>, sequence: u64) -> Result<bool, ReadError> {
    if dropped.contains(&sequence) {
        return Ok(true);
    }
    match shared.journal.fact(sequence) {
        Ok(_) => Ok(false),
        Err(ReadError::NoFact(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Writes the old segments anew without what goes, oldest first.
fn sweep(shared: &Shared, before: u64, gone: &Gone) -> Result<Swept, Stopped> {
    for segment in old_segments(shared, before) {
        goes_on(shared)?;
        let mut dropped = HashSet::new();
        let read = shared.journal.each_fact(&segment, &mut |sequence, fact| {
            if sequence < before && gone.has(shared, &dropped, sequence, fact)? {
                dropped.insert(sequence);
            }
            Ok(())
        })?;
        if read && dropped.is_empty() {
            continue;
        }
        let mut stays = |sequence, _: &Fact| goes_on(shared).map(|()| !dropped.contains(&sequence));
        if !read || !shared.journal.pack(&[Arc::clone(&segment)], &mut stays)? {
            return Ok(if segment.is_fit() { Swept::Later } else { Swept::Left });
        }
        tracing::info!(facts = dropped.len(), "facts went at the end of their retention");
    }
    Ok(Swept::All)
}
