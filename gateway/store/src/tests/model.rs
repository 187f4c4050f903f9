//! The store against a plain model: any mix of changes, restarts, kills and power cuts.
//!
//! The model is a list of messages and nothing else; what the store answers and hands out must be what the list says.

use proptest::prelude::*;

use super::*;
use crate::MessageState;

const QUEUES: [&str; 2] = ["inps", "comune"];

#[derive(Debug, Clone)]
enum Action {
    Accept { number: u64, queue: usize, order: u8, other: bool },
    Settle { which: usize, outcome: Outcome },
    Fail { which: usize, delay_ms: i64 },
    Redrive { which: usize },
    Pass { ms: i64 },
    Apply,
    Restart,
    Kill { behind: bool },
    CutPower { seed: u64, behind: bool },
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
        10 => (1..40_u64, 0..2_usize, 0..4_u8, prop::bool::weighted(0.1))
            .prop_map(|(number, queue, order, other)| Action::Accept { number, queue, order, other }),
        8 => (0..40_usize, outcome).prop_map(|(which, outcome)| Action::Settle { which, outcome }),
        4 => (0..40_usize, 0..100_i64).prop_map(|(which, delay_ms)| Action::Fail { which, delay_ms }),
        2 => (0..40_usize).prop_map(|which| Action::Redrive { which }),
        2 => (1..100_i64).prop_map(|ms| Action::Pass { ms }),
        3 => Just(Action::Apply),
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
}

#[derive(Debug, Default)]
struct Model {
    messages: Vec<Plain>,
}

impl Model {
    fn is_final(message: &Plain) -> bool {
        matches!(message.state, MessageState::Final(_))
    }

    fn leasable(&self, queue: usize, now_ms: i64) -> Vec<u64> {
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
        let mut leasable: Vec<u64> = self.messages.iter().filter(waits).map(|message| message.sequence).collect();
        leasable.sort_unstable();
        leasable
    }

    fn pick(&mut self, which: usize) -> Option<&mut Plain> {
        let count = self.messages.len();
        self.messages.get_mut(which.checked_rem(count)?)
    }
}

fn accept(number: u64, queue: usize, order: u8, other: bool) -> Change {
    let mut message = message(number, QUEUES[queue]);
    if order > 0 {
        message = message.order(&order.to_string());
    }
    if other {
        message.fact.digest = Bytes::from_static(&[9; 32]);
    }
    message.change()
}

fn check(running: &Running, model: &Model, now_ms: i64) -> Result<(), TestCaseError> {
    for (i, queue) in QUEUES.iter().enumerate() {
        let mut leasable = running.leasable(queue);
        leasable.sort_unstable();
        prop_assert_eq!(leasable, model.leasable(i, now_ms));
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
            let answer = running.one(accept(number, queue, order, other));
            match (model.messages.iter().find(|message| message.number == number), answer) {
                (Some(known), Ok(Done::Repeated { sequence, .. })) => {
                    prop_assert_eq!((sequence, other), (known.sequence, false))
                }
                (Some(known), Err(Rejected::IdReused { sequence })) => {
                    prop_assert_eq!((sequence, other), (known.sequence, true))
                }
                (None, Ok(Done::Accepted { sequence, .. })) => {
                    let state = MessageState::Waiting;
                    model.messages.push(Plain { sequence, number, queue, order, state, attempts: 0, due_ms: 0 });
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_a_plain_list_does(actions in proptest::collection::vec(action(), 1..120)) {
        let lab = Lab::new();
        let (mut running, mut model) = (Some(lab.open()), Model::default());
        let mut now_ms = T0;
        for action in &actions {
            match *action {
                Action::Pass { ms } => now_ms = lab.clock.advance(ms),
                Action::Apply => running.as_mut().unwrap().writer.apply(),
                Action::Restart => {
                    running.take().unwrap().stop();
                    running = Some(lab.open());
                    prop_assert_eq!(&running.as_ref().unwrap().recovery.rebuilt, &None);
                }
                Action::Kill { behind } | Action::CutPower { behind, .. } => {
                    if let Action::CutPower { seed, .. } = *action {
                        lab.disk.cut_power(seed);
                    }
                    drop(running.take());
                    if behind {
                        lab.maps.lose_last();
                    }
                    running = Some(lab.open());
                }
                Action::Accept { number, other: true, .. } if !model.messages.iter().any(|m| m.number == number) => {}
                _ => play(running.as_mut().unwrap(), &mut model, action, now_ms)?,
            }
            check(running.as_ref().unwrap(), &model, now_ms)?;
        }
        running.take().unwrap().stop();
        let found = crate::verify_with(&(Arc::new(lab.disk.clone()) as _), &lab.maps, Path::new("store")).unwrap();
        prop_assert_eq!(found.problems, Vec::new());
    }
}
