//! Leases and wake-ups of each queue, in memory.
//!
//! Knows: what is handed out since when, what was set aside as damaged or is held back, from where to look for more. Never knows:
//! rows; it is told what became ready and what is gone. Invariants: nothing is leased twice at once; everything before
//! `fresh_from` that never failed is leased, held back or gone, so that looking for work never walks over what is handed out.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio::sync::Notify;

use super::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use crate::{error::ReadError, project::Effects};

/// All queues.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Mutex<HashMap<String, Arc<Lane>>>,
    /// The last sequence when the store was opened.
    opened_at: u64,
    set_aside: AtomicU64,
}

/// One queue.
#[derive(Debug)]
pub(crate) struct Lane {
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Sequence, and since when.
    leased: HashMap<u64, i64>,
    aside: HashSet<u64>,
    held_back: HeldBack,
    fresh_from: u64,
    /// The highest sequence that became ready.
    ready_max: u64,
    /// Rises whenever something before what is known becomes ready again.
    lowered: u64,
    /// Rises whenever something is put off, from 1, as what was put off before the store was opened is not known.
    put_off: u64,
    /// At which of these a look found that nothing was put off any more.
    none_put_off_at: u64,
}

/// What is put off without a fact.
#[derive(Debug, Default)]
struct HeldBack {
    /// Sequence, and until when.
    until: HashMap<u64, i64>,
    /// The same by their time.
    in_turn: BTreeSet<(i64, u64)>,
}

impl HeldBack {
    fn insert(&mut self, sequence: u64, until_ms: i64) {
        self.remove(sequence);
        self.until.insert(sequence, until_ms);
        self.in_turn.insert((until_ms, sequence));
    }

    fn remove(&mut self, sequence: u64) {
        if let Some(until_ms) = self.until.remove(&sequence) {
            self.in_turn.remove(&(until_ms, sequence));
        }
    }

    /// Takes one that is due: the soonest, or the latest, which another clock may have put off.
    fn take_due(&mut self, is_due: impl Fn(i64) -> bool) -> Option<u64> {
        let ends = [self.in_turn.first(), self.in_turn.last()];
        let (_, sequence) = *ends.into_iter().flatten().find(|(until_ms, _)| is_due(*until_ms))?;
        self.remove(sequence);
        Some(sequence)
    }
}

impl State {
    fn has(&self, sequence: u64) -> bool {
        self.leased.contains_key(&sequence)
            || self.aside.contains(&sequence)
            || self.held_back.until.contains_key(&sequence)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lanes {
    /// For a journal that ends with this sequence.
    pub(crate) fn new(opened_at: u64) -> Self {
        Self { lanes: Mutex::default(), opened_at, set_aside: AtomicU64::new(0) }
    }

    pub(crate) fn lane(&self, queue: &str) -> Arc<Lane> {
        let mut lanes = locked(&self.lanes);
        if let Some(lane) = lanes.get(queue) {
            return Arc::clone(lane);
        }
        let state = State { ready_max: self.opened_at, put_off: 1, ..State::default() };
        let lane = Arc::new(Lane { state: Mutex::new(state), notify: Notify::new() });
        lanes.insert(queue.to_owned(), Arc::clone(&lane));
        lane
    }

    /// Takes note of what a durable group brought about. Whoever waits for it is woken when [`wake`](Self::wake) is called with what it returns.
    #[must_use]
    pub(crate) fn publish(&self, effects: &Effects) -> Vec<Arc<Lane>> {
        for (queue, sequence) in &effects.gone {
            let lane = self.lane(queue);
            let mut state = locked(&lane.state);
            state.leased.remove(sequence);
            state.aside.remove(sequence);
            state.held_back.remove(*sequence);
        }
        let mut woken: Vec<(&str, Arc<Lane>)> = Vec::new();
        for (queue, due_ms, sequence) in &effects.ready {
            let lane = match woken.iter().find(|(name, _)| name == queue) {
                Some((_, lane)) => Arc::clone(lane),
                None => {
                    let lane = self.lane(queue);
                    woken.push((queue, Arc::clone(&lane)));
                    lane
                }
            };
            // Times before 1970 sort with those that are due at once.
            if *due_ms <= 0 {
                lane.look_from(*sequence);
            } else {
                locked(&lane.state).put_off += 1;
            }
        }
        woken.into_iter().map(|(_, lane)| lane).collect()
    }

    /// Wakes who waits for something in these queues.
    pub(crate) fn wake(lanes: &[Arc<Lane>]) {
        lanes.iter().for_each(|lane| lane.notify.notify_waiters());
    }

    /// Everyone who waits for anything looks again.
    pub(crate) fn wake_all(&self) {
        for lane in locked(&self.lanes).values() {
            lane.notify.notify_waiters();
        }
    }

    /// How many were set aside as damaged since opening.
    pub(crate) fn set_aside_count(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }

    /// Sets one aside whose record cannot be read, and says so, so that the others go on.
    pub(crate) fn set_aside(&self, queue: &str, sequence: u64, error: &ReadError) {
        tracing::error!(%error, queue, sequence, "set aside: its record cannot be read");
        self.lane(queue).set_aside(sequence);
        self.set_aside.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the leases taken before `before_ms`.
    pub(crate) fn release_stale(&self, before_ms: i64) -> Vec<(String, u64)> {
        let lanes: Vec<(String, Arc<Lane>)> =
            locked(&self.lanes).iter().map(|(queue, lane)| (queue.clone(), Arc::clone(lane))).collect();
        let mut released = Vec::new();
        for (queue, lane) in lanes {
            let stale: Vec<u64> = {
                let state = locked(&lane.state);
                state.leased.iter().filter(|(_, since)| **since < before_ms).map(|(sequence, _)| *sequence).collect()
            };
            lane.release(&stale);
            released.extend(stale.into_iter().map(|sequence| (queue.clone(), sequence)));
        }
        released
    }
}

/// From where to look for what never failed, and whether that was lowered since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) fresh_from: u64,
    lowered: u64,
    ready_max: u64,
}

impl Start {
    /// Everything that became ready is handed out or gone: nobody need look.
    pub(crate) fn is_nothing(&self) -> bool {
        self.fresh_from > self.ready_max
    }
}

impl Lane {
    /// What to tell [`none_put_off`](Self::none_put_off) if nothing is found; none when that is known.
    pub(crate) fn put_off(&self) -> Option<u64> {
        let state = locked(&self.state);
        (state.put_off != state.none_put_off_at).then_some(state.put_off)
    }

    /// Notes that a look which began then found that nothing is put off.
    pub(crate) fn none_put_off(&self, then: u64) {
        let mut state = locked(&self.state);
        state.none_put_off_at = state.none_put_off_at.max(then);
    }

    pub(crate) fn notify(&self) -> &Notify {
        &self.notify
    }

    pub(crate) fn leased(&self) -> u64 {
        locked(&self.state).leased.len() as u64
    }

    pub(crate) fn is_leased(&self, sequence: u64) -> bool {
        locked(&self.state).leased.contains_key(&sequence)
    }

    /// Whether it may not be handed out: it is already, was set aside, or is held back.
    pub(crate) fn is_taken(&self, sequence: u64) -> bool {
        locked(&self.state).has(sequence)
    }

    pub(crate) fn is_set_aside(&self, sequence: u64) -> bool {
        locked(&self.state).aside.contains(&sequence)
    }

    pub(crate) fn start(&self) -> Start {
        let state = locked(&self.state);
        Start { fresh_from: state.fresh_from, lowered: state.lowered, ready_max: state.ready_max }
    }

    /// Notes that everything from `start` up to before `to` is handed out.
    pub(crate) fn all_leased(&self, start: Start, to: u64) {
        let mut state = locked(&self.state);
        if state.lowered == start.lowered {
            state.fresh_from = state.fresh_from.max(to);
        }
    }

    fn look_from(&self, sequence: u64) {
        let mut state = locked(&self.state);
        // Out of order, it may stand where a look for work that is under way has already been.
        if sequence < state.fresh_from || sequence <= state.ready_max {
            state.fresh_from = state.fresh_from.min(sequence);
            state.lowered += 1;
        }
        state.ready_max = state.ready_max.max(sequence);
    }

    /// Leases; false: somebody has it, it was set aside, or is held back.
    pub(crate) fn lease(&self, sequence: u64, now_ms: i64) -> bool {
        let mut state = locked(&self.state);
        if state.has(sequence) {
            return false;
        }
        state.leased.insert(sequence, now_ms);
        true
    }

    fn set_aside(&self, sequence: u64) {
        let mut state = locked(&self.state);
        state.leased.remove(&sequence);
        state.aside.insert(sequence);
    }

    /// Ends a lease, and hands it out no more until then. In memory only.
    pub(crate) fn hold_back(&self, sequence: u64, until_ms: i64) {
        let mut state = locked(&self.state);
        state.leased.remove(&sequence);
        state.held_back.insert(sequence, until_ms);
    }

    /// Lets go what was held back until a time that has come.
    pub(crate) fn let_go(&self, is_due: impl Fn(i64) -> bool) {
        let mut state = locked(&self.state);
        while let Some(sequence) = state.held_back.take_due(&is_due) {
            state.fresh_from = state.fresh_from.min(sequence);
            state.lowered += 1;
        }
    }

    /// Ends leases.
    pub(crate) fn release(&self, sequences: &[u64]) {
        let released = {
            let mut state = locked(&self.state);
            let mut lowest: Option<u64> = None;
            for sequence in sequences {
                if state.leased.remove(sequence).is_some() {
                    lowest = Some(lowest.map_or(*sequence, |lowest| lowest.min(*sequence)));
                }
            }
            if let Some(lowest) = lowest {
                state.fresh_from = state.fresh_from.min(lowest);
                // Ahead of `fresh_from` too: a look that is under way has seen it handed out, and would go on behind it for ever.
                state.lowered += 1;
            }
            lowest.is_some()
        };
        if released {
            self.notify.notify_waiters();
        }
    }

    /// Ends a lease that was only tried. Nobody is woken: nothing has changed.
    pub(crate) fn release_quietly(&self, sequence: u64) {
        let mut state = locked(&self.state);
        state.leased.remove(&sequence);
        state.fresh_from = state.fresh_from.min(sequence);
        // Somebody else may have looked while it was held.
        state.lowered += 1;
    }

    /// Ends all leases.
    pub(crate) fn release_all(&self) {
        let all: Vec<u64> = locked(&self.state).leased.keys().copied().collect();
        self.release(&all);
    }
}
