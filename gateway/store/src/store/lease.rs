//! Handing out: what may be leased, in which order, and waiting for it.
//!
//! Knows: `w` rows, leases, due times. Never knows: who receives. Invariants: nothing is leased twice at once; nothing that expired,
//! is a dead letter, or stands behind another of its order; a retry that is due takes at most half of a lease, so that neither
//! fresh messages nor retries starve; a clock that was set back by more than a day puts nothing off.

use std::{cell::Cell, sync::Arc, time::Duration};

use tramite_proto::pb::journal::v1::{Fact, fact::Kind};

use super::Store;
use crate::{
    answer::Leased,
    clock::PUT_OFF_MAX_MS,
    error::ReadError,
    lanes::Lane,
    map::Key,
    overlay::{Rows as _, successor},
    project::{queues_of, row},
    rows::{self, ItemRow},
};

/// Rows looked at in one go.
const LOOK_AT_ONCE: usize = 64;
/// A lease hands out at most so many.
const LEASE_MAX: usize = 1024;
/// Whoever waits looks at the clock this often, as it may be set.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// So much further away a due time is of another clock than this one; less is a correction.
const CORRECTION_MAX_MS: i64 = 600_000;

/// What is handed out so far.
struct Taking<'a> {
    queue: &'a str,
    lane: Arc<Lane>,
    now_ms: i64,
    bytes_left: usize,
    leased: Vec<Leased>,
    full: bool,
}

impl Store {
    /// Up to `limit` that may be handed out now, with at most `bytes_max` of content together (one always fits).
    ///
    /// Reads the disk only for what was accepted long ago.
    ///
    /// # Errors
    /// The outbox or the disk cannot be read, or the store has failed. A damaged record is no error: it is set aside and counted.
    pub fn lease(&self, queue: &str, limit: usize, bytes_max: usize) -> Result<Vec<Leased>, ReadError> {
        if self.shared.has_failed() {
            return Err(ReadError::Failed);
        }
        let (now_ms, limit) = (self.shared.clock.now_ms(), limit.min(LEASE_MAX));
        let lane = self.shared.lanes.lane(queue);
        lane.let_go(|until_ms| is_due(until_ms, now_ms));
        let mut taking = Taking { queue, lane, now_ms, bytes_left: bytes_max, leased: Vec::new(), full: false };
        self.take_retries(&mut taking, limit.div_ceil(2))?;
        self.take_fresh(&mut taking, limit)?;
        self.take_retries(&mut taking, limit)?;
        Ok(taking.leased)
    }

    /// Takes what failed before and is due.
    fn take_retries(&self, taking: &mut Taking<'_>, limit: usize) -> Result<(), ReadError> {
        if taking.lane.put_off().is_none() {
            return Ok(());
        }
        let from = rows::ready(taking.queue, 1, 0);
        let to = rows::ready(taking.queue, taking.now_ms.saturating_add(1), 0);
        self.walk(from, &to, |sequence| self.take(taking, sequence, limit))?;
        let (from, to) = of_another_clock(taking.queue, taking.now_ms);
        self.walk(from, &to, |sequence| self.take(taking, sequence, limit))
    }

    /// Takes what never failed, from where the last look ended.
    fn take_fresh(&self, taking: &mut Taking<'_>, limit: usize) -> Result<(), ReadError> {
        let start = taking.lane.start();
        if start.is_nothing() {
            return Ok(());
        }
        let from = rows::ready(taking.queue, 0, start.fresh_from);
        let to = rows::ready(taking.queue, 1, 0);
        let mut handed_out_to = None;
        let mut unbroken = true;
        self.walk(from, &to, |sequence| {
            let goes_on = self.take(taking, sequence, limit)?;
            unbroken &= goes_on && taking.lane.is_taken(sequence);
            if unbroken {
                handed_out_to = Some(sequence + 1);
            }
            Ok(goes_on)
        })?;
        if let Some(to) = handed_out_to {
            taking.lane.all_leased(start, to);
        }
        Ok(())
    }

    /// Goes through `w` rows until told to stop.
    fn walk(
        &self,
        mut from: Key,
        to: &[u8],
        mut each: impl FnMut(u64) -> Result<bool, ReadError>,
    ) -> Result<(), ReadError> {
        loop {
            let found = self.shared.outbox.scan(&from, to, LOOK_AT_ONCE)?;
            for (key, _) in &found {
                if !each(rows::number_at_end(key))? {
                    return Ok(());
                }
            }
            match found.last() {
                Some((key, _)) if found.len() == LOOK_AT_ONCE => from = successor(key),
                _ => return Ok(()),
            }
        }
    }

    /// Leases one, if it may be. False: there is no room for more.
    fn take(&self, taking: &mut Taking<'_>, sequence: u64, limit: usize) -> Result<bool, ReadError> {
        if taking.full || taking.leased.len() >= limit {
            return Ok(false);
        }
        if !taking.lane.lease(sequence, taking.now_ms) {
            return Ok(true);
        }
        // Read after it was leased: what was settled meanwhile is gone by now.
        let item = row::<ItemRow>(&self.shared.outbox, &rows::item(taking.queue, sequence))
            .inspect_err(|_| taking.lane.release_quietly(sequence))?;
        let Some(item) = item.filter(|item| is_eligible(item, taking.now_ms)) else {
            taking.lane.release_quietly(sequence);
            return Ok(true);
        };
        match self.checked(taking.queue, sequence, &item) {
            Ok((fact, content)) => {
                if content.len() > taking.bytes_left && !taking.leased.is_empty() {
                    taking.lane.release_quietly(sequence);
                    taking.full = true;
                    return Ok(false);
                }
                taking.bytes_left = taking.bytes_left.saturating_sub(content.len());
                let attempt = item.attempts.saturating_add(1);
                taking.leased.push(Leased { sequence, attempt, fact, content });
            }
            // It says nothing of the record, as a bad sector would: a file that is gone, too many that are open. Nothing behind it may
            // overtake it.
            Err(error @ ReadError::Io { .. }) => {
                taking.lane.release_quietly(sequence);
                taking.full = true;
                return if taking.leased.is_empty() { Err(error) } else { Ok(false) };
            }
            Err(error) => {
                self.shared.lanes.set_aside(taking.queue, sequence, &error);
            }
        }
        Ok(true)
    }

    /// The fact and content of a row, if the journal says the same as the row.
    fn checked(&self, queue: &str, sequence: u64, item: &ItemRow) -> Result<(Arc<Fact>, bytes::Bytes), ReadError> {
        let (fact, content) = self.shared.fact_and_content(sequence)?;
        let same = match &fact.kind {
            Some(Kind::Accepted(accepted)) => accepted.id == item.id && accepted.digest == item.digest,
            _ => item.id.is_empty(),
        };
        if same && queues_of(&fact).iter().any(|other| other == queue) {
            return Ok((fact, content));
        }
        Err(self.shared.outbox.distrust("a waiting row says what its fact does not").into())
    }

    /// Ends leases; what they held may be leased again at once.
    pub fn release(&self, queue: &str, sequences: &[u64]) {
        self.shared.lanes.lane(queue).release(sequences);
    }

    /// Ends all leases of a queue.
    pub fn release_all(&self, queue: &str) {
        self.shared.lanes.lane(queue).release_all();
    }

    /// Ends the leases taken before `before_ms`; says which, as (queue, sequence).
    #[must_use]
    pub fn release_stale(&self, before_ms: i64) -> Vec<(String, u64)> {
        self.shared.lanes.release_stale(before_ms)
    }

    /// Resolves when something in the queue may be leased: at once if something is there. Also when the store fails or its rows
    /// cannot be read, so that the caller's next lease tells.
    pub async fn arrival(&self, queue: &str) {
        let lane = self.shared.lanes.lane(queue);
        loop {
            let mut woken = std::pin::pin!(lane.notify().notified());
            // Before looking, so that what comes after the look is heard.
            woken.as_mut().enable();
            let wait = match self.next_look(queue, &lane) {
                Ok(Some(wait)) if !self.shared.has_failed() => wait,
                _ => return,
            };
            // Either is a reason to look again.
            drop(tokio::time::timeout(wait, woken).await);
        }
    }

    /// How long to wait before looking again; none: something may be leased now.
    fn next_look(&self, queue: &str, lane: &Lane) -> Result<Option<Duration>, ReadError> {
        let now_ms = self.shared.clock.now_ms();
        lane.let_go(|until_ms| is_due(until_ms, now_ms));
        let start = lane.start();
        let found = Cell::new(false);
        let mut look = |sequence: u64| {
            if !lane.is_taken(sequence) {
                let item = row::<ItemRow>(&self.shared.outbox, &rows::item(queue, sequence))?;
                found.set(item.is_some_and(|item| is_eligible(&item, now_ms)));
            }
            Ok(!found.get())
        };
        if !start.is_nothing() {
            self.walk(rows::ready(queue, 0, start.fresh_from), &rows::ready(queue, 1, 0), &mut look)?;
        }
        let Some(then) = lane.put_off().filter(|_| !found.get()) else {
            return Ok((!found.get()).then_some(LOOK_EVERY));
        };
        let later = rows::ready(queue, now_ms.saturating_add(1), 0);
        self.walk(rows::ready(queue, 1, 0), &later, &mut look)?;
        let (from, to) = of_another_clock(queue, now_ms);
        self.walk(from, &to, &mut look)?;
        if found.get() {
            return Ok(None);
        }
        let end = rows::ready(queue, i64::MAX, u64::MAX);
        if self.shared.outbox.scan(&rows::ready(queue, 1, 0), &end, 1)?.is_empty() {
            lane.none_put_off(then);
            return Ok(Some(LOOK_EVERY));
        }
        let next = self.shared.outbox.scan(&later, &end, 1)?;
        let until = next.first().map(|(key, _)| rows::due_of(key).saturating_sub(now_ms));
        let until = until.and_then(|ms| u64::try_from(ms).ok()).map_or(LOOK_EVERY, Duration::from_millis);
        Ok(Some(until.min(LOOK_EVERY)))
    }
}

/// `ready` is asked although only what is ready has a `w` row: between the look at those rows and at the item it may have become a
/// dead letter.
fn is_eligible(item: &ItemRow, now_ms: i64) -> bool {
    item.ready && is_due(item.due_ms, now_ms) && (item.expires_ms == 0 || item.expires_ms > now_ms)
}

fn is_due(due_ms: i64, now_ms: i64) -> bool {
    due_ms <= now_ms || due_ms > far_ms(now_ms)
}

/// What is due after this was put off by a clock that stood elsewhere: it is due now, not when this one comes there.
fn far_ms(now_ms: i64) -> i64 {
    now_ms.saturating_add(PUT_OFF_MAX_MS + CORRECTION_MAX_MS)
}

/// From where to where its rows stand.
fn of_another_clock(queue: &str, now_ms: i64) -> (Key, Key) {
    (rows::ready(queue, far_ms(now_ms).saturating_add(1), 0), rows::ready(queue, i64::MAX, u64::MAX))
}
