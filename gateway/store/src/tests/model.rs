//! The store against a plain model: any mix of changes, days, restarts, kills and power cuts, with retention and packing in between.
//!
//! The model is a list of messages and nothing else; what the store answers and hands out, content and all, must be what the list says.
//! What is final and past its time may be forgotten, and past its retention be gone; nothing else may. A store with a guard taken out
//! must be found to do otherwise.

use std::sync::LazyLock;

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use super::*;
use crate::MessageState;

const QUEUES: [&str; 2] = ["inps", "comune"];
const REMEMBERED_MS: i64 = 2 * DAY_MS;
const RETENTION_MS: i64 = 3 * DAY_MS;
/// Of messages.
const NUMBERS: u64 = 40;
/// Of which some seven fill a segment.
const LARGE: usize = 150_000;

#[derive(Debug, Clone)]
enum Action {
    Accept {
        number: u64,
        queue: usize,
        order: u8,
        other: bool,
    },
    Settle {
        which: usize,
        outcome: Outcome,
    },
    Fail {
        which: usize,
        delay_ms: i64,
    },
    Redrive {
        which: usize,
    },
    Pass {
        ms: i64,
    },
    Apply,
    /// So many half days, each with a fact, as a running node has them.
    Days {
        halves: u8,
    },
    /// Retires, sweeps and packs; killed after so many changes of the disk, 1 to 60, or not.
    Compact {
        killed_after: Option<u64>,
        cut: bool,
    },
    Restart,
    Kill {
        behind: bool,
    },
    CutPower {
        seed: u64,
        behind: bool,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let outcome = prop_oneof![
        4 => Just(Outcome::HandedOver),
        1 => Just(Outcome::Refused),
        3 => Just(Outcome::DeadLettered),
        1 => Just(Outcome::Discarded),
        1 => Just(Outcome::Expired),
    ];
    prop_oneof![
        10 => (1..NUMBERS, 0..2_usize, 0..4_u8, prop::bool::weighted(0.1))
            .prop_map(|(number, queue, order, other)| Action::Accept { number, queue, order, other }),
        8 => (0..40_usize, outcome).prop_map(|(which, outcome)| Action::Settle { which, outcome }),
        4 => (0..40_usize, 0..100_i64).prop_map(|(which, delay_ms)| Action::Fail { which, delay_ms }),
        2 => (0..40_usize).prop_map(|which| Action::Redrive { which }),
        2 => (1..100_i64).prop_map(|ms| Action::Pass { ms }),
        3 => Just(Action::Apply),
        2 => (1..12_u8).prop_map(|halves| Action::Days { halves }),
        3 => (prop::option::weighted(0.4, 2..60_u64), any::<bool>())
            .prop_map(|(killed_after, cut)| Action::Compact { killed_after, cut }),
        1 => Just(Action::Restart),
        1 => any::<bool>().prop_map(|behind| Action::Kill { behind }),
        1 => any::<(u64, bool)>().prop_map(|(seed, behind)| Action::CutPower { seed, behind }),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Plain {
    sequence: u64,
    number: u64,
    queue: usize,
    order: u8,
    state: MessageState,
    attempts: u32,
    due_ms: i64,
    accepted_ms: i64,
}

#[derive(Debug, Default)]
struct Model {
    messages: Vec<Plain>,
    /// Final, and forgotten.
    past: Vec<Plain>,
}

impl Model {
    fn is_final(message: &Plain) -> bool {
        matches!(message.state, MessageState::Final(_))
    }

    /// Sequence, attempt, content.
    fn leasable(&self, queue: usize, now_ms: i64) -> Vec<(u64, u32, Bytes)> {
        let is_first = |message: &Plain| {
            message.order == 0
                || !self.messages.iter().any(|other| {
                    (other.queue, other.order) == (message.queue, message.order)
                        && other.sequence < message.sequence
                        && !Self::is_final(other)
                })
        };
        let waits =
            |m: &&Plain| m.queue == queue && m.state == MessageState::Waiting && m.due_ms <= now_ms && is_first(m);
        let handed_out = |message: &Plain| (message.sequence, message.attempts + 1, content_of(message.number));
        let mut leasable: Vec<_> = self.messages.iter().filter(waits).map(handed_out).collect();
        leasable.sort_unstable();
        leasable
    }

    fn pick(&mut self, which: usize) -> Option<&mut Plain> {
        let count = self.messages.len();
        self.messages.get_mut(which.checked_rem(count)?)
    }
}

/// Of each number, made once.
fn content_of(number: u64) -> Bytes {
    static CONTENTS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
        let content = |number: u64| match number % 3 {
            0 => growth::noise(number, LARGE),
            _ => message(number, "").content,
        };
        (0..NUMBERS).map(content).collect()
    });
    CONTENTS[usize::try_from(number).unwrap()].clone()
}

fn accept(number: u64, queue: usize, order: u8, other: bool, now_ms: i64) -> Change {
    let mut message = message(number, QUEUES[queue]);
    message.fact.remember_ms = now_ms + REMEMBERED_MS;
    if number.is_multiple_of(3) {
        message = message.content(content_of(number));
        message.fact.digest = Bytes::copy_from_slice(Digest::of(&message.content).as_bytes());
    }
    // A case of its own, which is over at once; the others have none.
    if number % 2 == 1 {
        message.fact.case_id = id(number);
        message.fact.case_move = Some(CaseMove { kind: "REFERRAL".into(), ..case_move(number, "closed") });
    }
    if order > 0 {
        message = message.order(&order.to_string());
    }
    if other {
        message.fact.digest = Bytes::from_static(&[9; 32]);
    }
    message.change()
}

/// What is forgotten had to be over; what is gone had to be past its retention.
fn check_past(running: &Running, model: &mut Model, now_ms: i64) -> Result<(), TestCaseError> {
    let known = |message: &Plain| {
        running.store.message(&id(message.number)).unwrap().is_some_and(|row| row.sequence == message.sequence)
    };
    let (there, forgotten): (Vec<_>, Vec<_>) = std::mem::take(&mut model.messages).into_iter().partition(known);
    model.messages = there;
    for message in forgotten {
        prop_assert!(Model::is_final(&message), "forgotten before its end: {:?}", message);
        prop_assert!(now_ms >= message.accepted_ms + REMEMBERED_MS, "forgotten before its time: {:?}", message);
        model.past.push(message);
    }
    for message in &model.messages {
        prop_assert!(running.store.fact(message.sequence).is_ok(), "gone: {:?}", message);
    }
    for message in &model.past {
        let there = running.store.fact(message.sequence).is_ok();
        prop_assert!(there || now_ms >= message.accepted_ms + RETENTION_MS, "gone before its time: {:?}", message);
    }
    Ok(())
}

fn check(running: &Running, model: &mut Model, now_ms: i64) -> Result<(), TestCaseError> {
    check_past(running, model, now_ms)?;
    for (i, queue) in QUEUES.iter().enumerate() {
        let leased = running.store.lease(queue, 100, usize::MAX).unwrap();
        let mut leasable: Vec<_> = leased.into_iter().map(|it| (it.sequence, it.attempt, it.content)).collect();
        running.store.release_all(queue);
        leasable.sort_unstable();
        let (expected, short) = (model.leasable(i, now_ms), |handed_out: &[(u64, u32, Bytes)]| {
            handed_out
                .iter()
                .map(|(sequence, attempt, content)| (*sequence, *attempt, content.len()))
                .collect::<Vec<_>>()
        });
        prop_assert!(leasable == expected, "{:?} are handed out, not {:?}", short(&leasable), short(&expected));
        let stats = running.store.queue(queue).unwrap();
        let mine = || model.messages.iter().filter(|m| m.queue == i);
        prop_assert_eq!(stats.waiting, mine().filter(|m| m.state == MessageState::Waiting).count() as u64);
        prop_assert_eq!(stats.dead_letters, mine().filter(|m| m.state == MessageState::DeadLettered).count() as u64);
    }
    for message in &model.messages {
        let row = running.store.message(&id(message.number)).unwrap().unwrap();
        prop_assert_eq!((row.sequence, row.state, row.attempts), (message.sequence, message.state, message.attempts));
    }
    Ok(())
}

fn play(running: &mut Running, model: &mut Model, action: &Action, now_ms: i64) -> Result<(), TestCaseError> {
    match *action {
        Action::Accept { number, queue, order, other } => {
            let answer = running.one(accept(number, queue, order, other, now_ms));
            match (model.messages.iter().find(|message| message.number == number), answer) {
                (Some(known), Err(Rejected::IdExpired)) => {
                    prop_assert!(now_ms >= known.accepted_ms + REMEMBERED_MS);
                }
                // Its id is forgotten, and its case is not.
                (None, Err(Rejected::Case(_))) => {
                    prop_assert!(model.past.iter().any(|past| past.number == number));
                }
                (Some(known), Ok(Done::Repeated { sequence, .. })) => {
                    prop_assert_eq!((sequence, other), (known.sequence, false))
                }
                (Some(known), Err(Rejected::IdReused { sequence })) => {
                    prop_assert_eq!((sequence, other), (known.sequence, true))
                }
                (None, Ok(Done::Accepted { sequence, .. })) => {
                    let state = MessageState::Waiting;
                    let (attempts, due_ms, accepted_ms) = (0, 0, now_ms);
                    model.messages.push(Plain { sequence, number, queue, order, state, attempts, due_ms, accepted_ms });
                }
                (known, answer) => prop_assert!(false, "{known:?} was answered {answer:?}"),
            }
        }
        Action::Settle { which, outcome } => {
            let Some(message) = model.pick(which) else { return Ok(()) };
            let dead = message.state == MessageState::DeadLettered;
            let already =
                Model::is_final(message) || (dead && matches!(outcome, Outcome::DeadLettered | Outcome::Expired));
            let answer = running.one(settle(message.sequence, outcome)).unwrap();
            prop_assert_eq!(matches!(answer, Done::Already { .. }), already);
            if !already {
                let dies = outcome == Outcome::DeadLettered;
                message.state = if dies { MessageState::DeadLettered } else { MessageState::Final(outcome) };
            }
        }
        Action::Fail { which, delay_ms } => {
            let Some(message) = model.pick(which) else { return Ok(()) };
            let answer =
                running.one(fail_attempt_in(QUEUES[message.queue], message.sequence, now_ms + delay_ms)).unwrap();
            if message.state == MessageState::Waiting {
                message.attempts += 1;
                message.due_ms = now_ms + delay_ms;
                let same = matches!(answer, Done::AttemptFailed { attempt, .. } if attempt == message.attempts);
                prop_assert!(same);
            } else {
                let already = matches!(answer, Done::Already { .. });
                prop_assert!(already);
            }
        }
        Action::Redrive { which } => {
            let Some(message) = model.pick(which) else { return Ok(()) };
            let answer = running.one(redrive(message.sequence)).unwrap();
            let dead = message.state == MessageState::DeadLettered;
            prop_assert_eq!(matches!(answer, Done::Recorded { .. }), dead);
            if dead {
                (message.state, message.attempts, message.due_ms) = (MessageState::Waiting, 0, 0);
            }
        }
        _ => {}
    }
    Ok(())
}

type Fault = fn(&Lab);

/// One without a guard may not even open; what is looked for is what it loses without a word.
fn opened(lab: &Lab, fault: Option<Fault>) -> Result<Running, TestCaseError> {
    lab.try_open().map_err(|error| match fault {
        Some(_) => TestCaseError::reject(error.to_string()),
        None => TestCaseError::fail(error.to_string()),
    })
}

/// A life of a store, with a fault or without: then its rows are compared, too, wherever it is opened.
fn live(actions: &[Action], fault: Option<Fault>) -> Result<(), TestCaseError> {
    let mut lab = Lab::new();
    lab.options.retention_ms = Some(RETENTION_MS);
    lab.options.recent_bytes = 100_000;
    let (mut running, mut model) = (Some(lab.open()), Model::default());
    if let Some(fault) = fault {
        fault(&lab);
    }
    let same_rows = |running: &Option<Running>, rows: &[Pair], what| {
        let whole = running.as_ref().filter(|_| fault.is_none());
        whole.iter().for_each(|running| retention::same_rows(running, rows, what));
    };
    let mut now_ms = T0;
    for action in actions {
        match *action {
            Action::Pass { ms } => now_ms = lab.clock.advance(ms),
            Action::Days { halves } => {
                for _ in 0..halves {
                    now_ms = lab.clock.advance(DAY_MS / 2);
                    running.as_mut().unwrap().done(seen(now_ms));
                }
            }
            Action::Apply => running.as_mut().unwrap().writer.apply(),
            Action::Compact { killed_after: None, .. } => running.as_mut().unwrap().writer.compact(),
            Action::Compact { killed_after: Some(changes), cut } => {
                let writer = &mut running.as_mut().unwrap().writer;
                writer.compact();
                writer.apply();
                lab.disk.faults().stop_after(changes);
                writer.compact();
                lab.disk.faults().stop_after(0);
                let before = running.take().unwrap();
                let (rows, failed) = (before.rows(), before.store.health().failed);
                drop(before);
                if cut {
                    lab.disk.cut_power(changes);
                }
                running = Some(opened(&lab, fault)?);
                if !failed {
                    same_rows(&running, &rows, "after a kill");
                }
            }
            Action::Restart => {
                running.take().unwrap().stop();
                running = Some(opened(&lab, fault)?);
                prop_assert_eq!(&running.as_ref().unwrap().recovery.rebuilt, &None);
            }
            Action::Kill { behind } | Action::CutPower { behind, .. } => {
                let rows = running.as_ref().unwrap().rows();
                if let Action::CutPower { seed, .. } = *action {
                    lab.disk.cut_power(seed);
                }
                drop(running.take());
                if behind {
                    lab.maps.lose_last();
                }
                running = Some(opened(&lab, fault)?);
                same_rows(&running, &rows, "completed");
                drop(running.take());
                retention::lose_rows(&lab);
                running = Some(opened(&lab, fault)?);
                same_rows(&running, &rows, "rebuilt");
            }
            Action::Accept { number, other: true, .. } if !model.messages.iter().any(|m| m.number == number) => {}
            _ => play(running.as_mut().unwrap(), &mut model, action, now_ms)?,
        }
        check(running.as_ref().unwrap(), &mut model, now_ms)?;
    }
    running.take().unwrap().stop();
    prop_assert_eq!(verified(&lab).problems, Vec::new());
    Ok(())
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    proptest::collection::vec(action(), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_a_plain_list_does(actions in actions()) {
        live(&actions, None)?;
    }
}

/// What is found in lives of a store with a fault; the same lives each time.
fn found(fault: Fault) -> String {
    let config =
        ProptestConfig { cases: 96, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    match runner.run(&actions(), |actions| live(&actions, Some(fault))) {
        Ok(()) => "nothing".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_store_with_a_guard_taken_out_is_found_to_do_otherwise() {
    let faults: [(Fault, &str); 4] = [
        (|lab| lab.disk.faults().sync_lies.store(1, Ordering::SeqCst), "a disk that does not sync"),
        (|lab| lab.maps.hide(b'i'), "ids"),
        (|lab| lab.maps.hide(b'o'), "orders"),
        (|lab| lab.maps.hide(b'w'), "what is ready"),
    ];
    for (fault, what) in faults {
        let found = found(fault);
        // By the list, and not because something fails.
        let said = ["forgotten before its end", "are handed out, not", "was answered"];
        assert!(said.iter().any(|said| found.contains(said)), "{what}: {found}");
    }
}

/// What a running node writes from time to time.
fn seen(now_ms: i64) -> Change {
    let value = Some(bytes(&now_ms.to_string()));
    let fact = tramite_proto::pb::journal::v1::Recorded { name: "clock/seen".into(), value, ..Default::default() };
    Change::Record { fact: Box::new(fact), begins: false }
}
