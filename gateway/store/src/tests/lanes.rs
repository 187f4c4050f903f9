//! Leases and wake-ups: by hand, and in many orders of those who publish, look, lease, give back and settle at the same time. For the
//! latter the very source of `lanes` is taken in once more, over locks at which shuttle chooses who goes on.

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use shuttle::{
    future::block_on,
    rand::Rng as _,
    scheduler::{PctScheduler, RandomScheduler},
    sync::Mutex,
    thread,
};

use crate::{lanes::Lanes, project::Effects};

/// The locks that `tried` finds.
mod sync {
    pub(crate) use std::sync::{Arc, PoisonError};

    pub(crate) use shuttle::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    };
}

#[path = "../lanes.rs"]
#[expect(dead_code, reason = "the scenario needs a part of it")]
#[expect(clippy::duplicate_mod, reason = "the same source, over other locks")]
mod tried;

fn ready(lanes: &Lanes, sequence: u64) {
    Lanes::wake(&lanes.publish(&Effects { ready: vec![("q".into(), 0, sequence)], ..Effects::default() }));
}

#[test]
fn what_becomes_ready_behind_a_look_is_found_by_the_next() {
    let lanes = Lanes::new(100);
    let lane = lanes.lane("q");
    let start = lane.start();
    // The look has passed 50 already when its order lets it go ahead.
    ready(&lanes, 50);
    lane.all_leased(start, 101);
    assert!(lane.start().fresh_from <= 50);
}

#[test]
fn a_look_is_left_out_only_while_nothing_became_ready() {
    let lanes = Lanes::new(100);
    let lane = lanes.lane("q");
    assert!(!lane.start().is_nothing(), "what waited before the store was opened is not known");
    lane.all_leased(lane.start(), 101);
    assert!(lane.start().is_nothing());
    ready(&lanes, 101);
    assert!(!lane.start().is_nothing());
    assert!(lane.lease(101, 0));
    lane.all_leased(lane.start(), 102);
    assert!(lane.start().is_nothing());
    lane.release(&[101]);
    assert!(!lane.start().is_nothing(), "given back");
}

#[test]
fn what_is_put_off_behind_a_look_that_found_nothing_is_looked_for_again() {
    let lanes = Lanes::new(0);
    let lane = lanes.lane("q");
    let then = lane.put_off().expect("what was put off before the store was opened is not known");
    Lanes::wake(&lanes.publish(&Effects { ready: vec![("q".into(), 5_000, 7)], ..Effects::default() }));
    lane.none_put_off(then);
    let again = lane.put_off().expect("it came behind the look");
    lane.none_put_off(again);
    assert_eq!(lane.put_off(), None);
}

#[test]
fn what_was_only_tried_behind_a_look_is_found_by_the_next() {
    let lanes = Lanes::new(0);
    let lane = lanes.lane("q");
    assert!(lane.lease(5, 0));
    let start = lane.start();
    assert!(lane.is_taken(5));
    lane.release_quietly(5);
    lane.all_leased(start, 6);
    assert!(lane.start().fresh_from <= 5);
}

#[test]
fn what_is_given_back_behind_a_look_is_found_by_the_next() {
    let lanes = Lanes::new(0);
    let lane = lanes.lane("q");
    assert!(lane.lease(5, 0));
    // The look has seen that 5 is handed out when it is given back.
    let start = lane.start();
    lane.release(&[5]);
    lane.all_leased(start, 6);
    assert!(lane.start().fresh_from <= 5);
}

#[test]
fn what_is_let_go_behind_a_look_is_found_by_the_next_and_what_ended_is_not_held_back() {
    let lanes = Lanes::new(0);
    let lane = lanes.lane("q");
    assert!(lane.lease(5, 0));
    lane.hold_back(5, 10);
    lane.hold_back(6, 10);
    assert!(!lane.is_leased(5) && lane.is_taken(5) && !lane.lease(5, 0));
    // The look has seen that 5 is held back when it is let go.
    let start = lane.start();
    lane.let_go(|until_ms| until_ms <= 9);
    assert!(lane.is_taken(5));
    drop(lanes.publish(&Effects { gone: vec![("q".into(), 6)], ..Effects::default() }));
    assert!(!lane.is_taken(6));
    lane.let_go(|until_ms| until_ms <= 10);
    lane.all_leased(start, 6);
    assert!(lane.start().fresh_from <= 5);
    assert!(lane.lease(5, 0));
}

#[test]
fn what_comes_in_order_makes_nobody_look_again_at_what_is_handed_out() {
    let lanes = Lanes::new(0);
    let lane = lanes.lane("q");
    for sequence in 1..=10 {
        ready(&lanes, sequence);
        let start = lane.start();
        assert!(lane.lease(sequence, 0));
        ready(&lanes, sequence + 10);
        lane.all_leased(start, sequence + 1);
        assert_eq!(lane.start().fresh_from, sequence + 1);
    }
    lane.release(&[4]);
    assert_eq!(lane.start().fresh_from, 4);
}

/// Orders tried, of each kind.
const ORDERS: usize = 2_000;
/// Turns of the others while one stands still.
const STANDSTILL: usize = 30;
/// What becomes ready, in any order: one may have been held back by another of its conversation.
const READY: [u64; 5] = [1, 2, 3, 4, 5];

/// What the scenario does wrong, to show that it would be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Wakes who waits before the row is there.
    WakesFirst,
    /// Looks before it listens.
    LooksFirst,
    /// Takes what a look has found, leased or not.
    TakesAnyway,
}

/// A queue: its rows, its lane, and who holds what.
struct Queue {
    lanes: tried::Lanes,
    rows: Mutex<BTreeSet<u64>>,
    held: Mutex<BTreeSet<u64>>,
    settled: Mutex<BTreeSet<u64>>,
    fault: Fault,
}

impl Queue {
    fn publish(&self, sequence: u64) {
        let effects = Effects { ready: vec![("q".into(), 0, sequence)], ..Effects::default() };
        if self.fault == Fault::WakesFirst {
            tried::Lanes::wake(&self.lanes.publish(&effects));
            // Long enough for everybody to look, and to wait again.
            (0..STANDSTILL).for_each(|_| thread::yield_now());
        }
        self.rows.lock().unwrap().insert(sequence);
        if self.fault != Fault::WakesFirst {
            tried::Lanes::wake(&self.lanes.publish(&effects));
        }
    }

    fn from(&self, from: u64) -> Vec<u64> {
        self.rows.lock().unwrap().range(from..).copied().collect()
    }

    /// As `Store::take_fresh` does, for one.
    fn take(&self) -> Option<u64> {
        let lane = self.lanes.lane("q");
        lane.let_go(|_| true);
        let (start, mut taken, mut to, mut unbroken) = (lane.start(), None, None, true);
        for sequence in self.from(start.fresh_from) {
            let goes_on = taken.is_none();
            if goes_on && (lane.lease(sequence, 0) || self.fault == Fault::TakesAnyway) {
                if self.rows.lock().unwrap().contains(&sequence) {
                    taken = Some(sequence);
                } else {
                    lane.release_quietly(sequence);
                }
            }
            unbroken &= goes_on && lane.is_taken(sequence);
            if unbroken {
                to = Some(sequence + 1);
            }
        }
        if let Some(to) = to {
            lane.all_leased(start, to);
        }
        taken
    }

    /// As `Store::arrival` does, without its look at the clock, which would hide that a wake-up was missed.
    async fn arrival(&self) {
        let lane = self.lanes.lane("q");
        lane.let_go(|_| true);
        let waits = || self.from(lane.start().fresh_from).iter().any(|sequence| !lane.is_taken(*sequence));
        loop {
            let seen = self.fault == Fault::LooksFirst && (waits() || self.is_over());
            // The scheduler knows only of locks; a thread may be stopped here as well.
            thread::yield_now();
            let mut woken = pin!(lane.notify().notified());
            woken.as_mut().enable();
            if seen || (self.fault != Fault::LooksFirst && (waits() || self.is_over())) {
                return;
            }
            woken.await;
        }
    }

    fn is_over(&self) -> bool {
        self.settled.lock().unwrap().len() == READY.len()
    }

    fn consume(&self) {
        while !self.is_over() {
            block_on(self.arrival());
            let Some(sequence) = self.take() else { continue };
            assert!(self.held.lock().unwrap().insert(sequence), "{sequence} was leased twice");
            thread::yield_now();
            self.held.lock().unwrap().remove(&sequence);
            let lane = self.lanes.lane("q");
            match shuttle::rand::thread_rng().gen_range(0..4) {
                0 => {
                    lane.release(&[sequence]);
                    continue;
                }
                1 => {
                    lane.hold_back(sequence, 0);
                    // In place of the look at the clock.
                    self.lanes.wake_all();
                    continue;
                }
                _ => {}
            }
            self.rows.lock().unwrap().remove(&sequence);
            tried::Lanes::wake(
                &self.lanes.publish(&Effects { gone: vec![("q".into(), sequence)], ..Effects::default() }),
            );
            assert!(self.settled.lock().unwrap().insert(sequence), "{sequence} was settled twice");
        }
        self.lanes.wake_all();
    }
}

/// One publishes, two consume; what is missed leaves everybody waiting, which the scheduler reports.
fn try_orders(fault: Fault) {
    let scenario = move || {
        let queue = Arc::new(Queue {
            lanes: tried::Lanes::new(0),
            rows: Mutex::default(),
            held: Mutex::default(),
            settled: Mutex::default(),
            fault,
        });
        let consumers: Vec<_> = (0..2)
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || queue.consume())
            })
            .collect();
        let mut ready = READY;
        for last in (1..ready.len()).rev() {
            ready.swap(last, shuttle::rand::thread_rng().gen_range(0..=last));
        }
        for sequence in ready {
            queue.publish(sequence);
        }
        for consumer in consumers {
            consumer.join().unwrap();
        }
    };
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 18;
    shuttle::Runner::new(RandomScheduler::new(ORDERS), config.clone()).run(scenario);
    // Lets one go on for long while another stands still, which chance at every step hardly ever does.
    shuttle::Runner::new(PctScheduler::new(3, ORDERS), config).run(scenario);
}

fn is_found(fault: Fault) -> bool {
    std::panic::catch_unwind(|| try_orders(fault)).is_err()
}

#[test]
fn in_every_order_each_is_leased_by_one_at_a_time_and_no_arrival_is_missed() {
    try_orders(Fault::None);
}

#[test]
fn some_order_shows_each_fault_that_would_break_leases_or_wake_ups() {
    assert!(is_found(Fault::WakesFirst), "waking before the row is there was not seen");
    assert!(is_found(Fault::LooksFirst), "looking before listening was not seen");
    assert!(is_found(Fault::TakesAnyway), "taking without a lease was not seen");
}
