//! What becomes of an attempt that failed: another one later, or a dead letter of which the sender is told. It knows the policy of
//! `[delivery]`; never why the recipient failed, beyond a stable reason.

use tramite_proto::{
    pb::journal::v1::{Outcome, Settled},
    reason::Reason,
};
use tramite_store::{Change, Done, ReadError, Slot, accepted};

use crate::{
    config::Delivery,
    hub::{Consigned, Hub},
    limits,
    prove::About,
};

/// The reason of an attempt whose stream was lost. No recipient can say it of its own.
pub const LOST: Reason = Reason::RecipientUnreachable;
/// The reason of an attempt that the recipient put off because it does not believe its clock.
pub const CLOCK: Reason = Reason::ClockHeld;

/// One attempt that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What was leased.
    pub sequence: u64,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// Stable reason.
    pub reason: String,
    /// In words; no content.
    pub detail: String,
    /// When it may be offered again.
    pub again: Again,
}

/// When the next attempt may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// The stream was lost, or the recipient's clock is wrong: at once, because the recipient has to come back first, which is wait enough;
    /// from the second time in a row after a wait. It says nothing of the message, so nothing is given up for it.
    Lost,
    /// When what must come before it is settled: after as long again as that has taken so far.
    Behind,
    /// By the policy, and no sooner than after so many milliseconds.
    Later {
        /// Milliseconds.
        at_least_ms: u64,
    },
}

/// The wait after attempt number `attempt` (from 1): doubled each time up to the longest, and then 25 % less to nothing less by
/// chance, so that what failed together does not come back together. `permille` is that chance, 0..=1000.
#[must_use]
pub fn backoff_ms(policy: &Delivery, attempt: u32, permille: u64) -> u64 {
    doubled_ms(policy.retry_initial_ms, policy.retry_max_ms, attempt.saturating_sub(1), permille)
}

fn doubled_ms(first_ms: u64, longest_ms: u64, doublings: u32, permille: u64) -> u64 {
    let full = first_ms.saturating_mul(1_u64 << doublings.min(32)).min(longest_ms);
    full - full / 4 * permille.min(1_000) / 1_000
}

/// What became of the attempts before this one, since the last redrive.
#[derive(Debug, Default, PartialEq, Eq)]
struct Past {
    /// Those that count: put off by the recipient, or not settled in time.
    counted: u32,
    /// Streams that were lost and clocks that were wrong, one after the other, just before this.
    lost_in_a_row: u32,
}

impl Past {
    fn of<'a>(attempts: impl IntoIterator<Item = (u32, &'a str)>) -> Self {
        let mut past = Self::default();
        for (number, reason) in attempts {
            if number == 0 {
                // A redrive: everything begins anew.
                past = Self::default();
            } else if reason == LOST.as_str() || reason == CLOCK.as_str() {
                past.lost_in_a_row = past.lost_in_a_row.saturating_add(1);
            } else {
                past.lost_in_a_row = 0;
                past.counted = past.counted.saturating_add(1);
            }
        }
        past
    }

    fn read(hub: &Hub, failure: &Failure) -> Self {
        if failure.attempt <= 1 {
            return Self::default();
        }
        match hub.store.history(failure.sequence) {
            Ok(history) => Self::of(history.iter().map(|attempt| (attempt.attempt, attempt.reason.as_str()))),
            Err(error) => {
                tracing::error!(sequence = failure.sequence, %error, "the history of a message could not be read");
                Self { counted: failure.attempt.saturating_sub(1), lost_in_a_row: 1 }
            }
        }
    }
}

/// The wait before the next attempt. Whatever fails for ever waits longer and longer: each attempt is a fact, which stays.
fn wait_ms(policy: &Delivery, past: &Past, again: Again, permille: u64) -> u64 {
    match again {
        Again::Behind => doubled_ms(policy.retry_initial_ms, limits::NOTICE_WAIT_MAX_MS, past.counted, permille),
        Again::Lost if past.lost_in_a_row == 0 => 0,
        Again::Lost => doubled_ms(policy.retry_initial_ms, limits::LOST_WAIT_MAX_MS, past.lost_in_a_row - 1, permille),
        Again::Later { at_least_ms } => {
            let attempt = past.counted.saturating_add(1);
            let own = backoff_ms(policy, attempt, permille).max(at_least_ms.min(policy.retry_max_ms));
            match attempt.checked_sub(policy.attempts_max) {
                None => own,
                // A message was given up by now; this is a notice.
                Some(further) => {
                    own.max(doubled_ms(limits::NOTICE_WAIT_MIN_MS, limits::NOTICE_WAIT_MAX_MS, further, permille))
                }
            }
        }
    }
}

/// The change that a failed attempt to hand over from `queue` asks for.
#[must_use]
pub fn change(hub: &Hub, queue: &str, failure: Failure) -> Change {
    let policy = &hub.config.delivery;
    let past = Past::read(hub, &failure);
    let attempt = past.counted.saturating_add(1);
    let now_ms = hub.clock.now_ms();
    // What fails while the clock is not believed may fail for it, here or at the recipient: it is offered for as long as that takes.
    if matches!(failure.again, Again::Later { .. })
        && attempt >= policy.attempts_max
        && hub.store.believes(now_ms)
        && let Some(change) = give_up(hub, &failure, attempt)
    {
        return change;
    }
    let wait_ms = wait_ms(policy, &past, failure.again, hub.prover.permille());
    let detail = failure.detail.chars().take(limits::DETAIL_CHARS_MAX).collect();
    let due_ms = if wait_ms == 0 { 0 } else { now_ms.saturating_add_unsigned(wait_ms) };
    Change::FailAttempt { sequence: failure.sequence, queue: queue.to_owned(), reason: failure.reason, detail, due_ms }
}

/// A dead letter; none for a notice, which is offered for as long as it takes, and for what cannot be read now.
fn give_up(hub: &Hub, failure: &Failure, attempts: u32) -> Option<Change> {
    let unread = |error: &ReadError| {
        tracing::error!(sequence = failure.sequence, %error, "a message cannot be read, so it is not given up yet: look at the disk");
    };
    let fact = hub.store.fact(failure.sequence).inspect_err(unread).ok()?;
    let consigned = Consigned::of(&fact)?;
    let evidence = hub.prover.given_up(About::new(&consigned.origin, consigned.json()), Reason::AttemptsExhausted);
    let settled = Settled {
        sequence: failure.sequence,
        outcome: Outcome::DeadLettered.into(),
        reason: Reason::AttemptsExhausted.as_str().to_owned(),
        detail: format!("the last of {attempts} attempts failed: {}", failure.reason),
        notify: accepted(&fact).map(|accepted| accepted.return_to.clone()).into_iter().collect(),
        ..Settled::default()
    };
    Some(Change::Settle { fact: Box::new(settled), sign: vec![(Slot::Evidence, evidence)], mover: None })
}

/// Records failed attempts and counts them. What could not be recorded may be leased again all the same: nobody has it any more.
pub async fn record(hub: &Hub, queue: &str, failures: Vec<Failure>) {
    for some in failures.chunks(limits::CHANGES_AT_ONCE_MAX) {
        let changes = some.iter().cloned().map(|failure| change(hub, queue, failure)).collect();
        for (Failure { sequence, reason, .. }, done) in some.iter().zip(hub.store.commit(changes).await) {
            match done {
                Ok(done) => count(hub, queue, *sequence, reason, &done),
                Err(rejected) => {
                    tracing::warn!(recipient = queue, sequence, %rejected, "a failed attempt was not recorded");
                    hub.store.release(queue, &[*sequence]);
                }
            }
        }
    }
}

/// Counts and logs what a failed attempt became.
pub fn count(hub: &Hub, queue: &str, sequence: u64, reason: &str, done: &Done) {
    match done {
        Done::AttemptFailed { attempt, .. } | Done::PutOff { attempt, .. } => {
            hub.metrics.retry(reason);
            tracing::info!(recipient = queue, sequence, attempt, reason, "an attempt failed; it will be offered again");
        }
        Done::Settled { .. } => {
            hub.metrics.retry(reason);
            hub.metrics.dead_letters.inc();
            tracing::warn!(recipient = queue, sequence, reason, "given up: a dead letter waits for an operator");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_stream_does_not_count_and_a_redrive_begins_anew() {
        let lost = LOST.as_str();
        assert_eq!(Past::of([(1, lost), (2, lost)]), Past { counted: 0, lost_in_a_row: 2 });
        assert_eq!(Past::of([(1, lost), (2, "LEASE_TIMEOUT")]), Past { counted: 1, lost_in_a_row: 0 });
        assert_eq!(Past::of([(1, CLOCK.as_str()), (2, CLOCK.as_str())]), Past { counted: 0, lost_in_a_row: 2 });
        assert_eq!(
            Past::of([(1, "NACK_TRANSIENT"), (0, "well again"), (1, lost)]),
            Past { counted: 0, lost_in_a_row: 1 }
        );
    }

    /// Facts that a year costs, when every attempt fails like this at once.
    fn facts_of_a_year(policy: &Delivery, again: Again) -> u32 {
        let (mut past, mut facts, mut passed_ms) = (Past::default(), 0, 0);
        while passed_ms < 365 * 86_400_000_u64 {
            passed_ms += wait_ms(policy, &past, again, 1_000);
            facts += 1;
            match again {
                Again::Lost => past.lost_in_a_row += 1,
                Again::Behind | Again::Later { .. } => past.counted += 1,
            }
        }
        facts
    }

    #[test]
    fn a_notice_that_is_refused_for_ever_costs_a_few_hundred_facts_a_year() {
        let later = Again::Later { at_least_ms: 0 };
        for again in [later, Again::Behind] {
            let facts = facts_of_a_year(&Delivery::default(), again);
            assert!((365..600).contains(&facts), "{again:?}: {facts}");
        }
        let hasty = Delivery { retry_initial_ms: 1, retry_max_ms: 1, attempts_max: 3, ..Delivery::default() };
        let facts = facts_of_a_year(&hasty, later);
        assert!((365..600).contains(&facts), "{facts}");
    }

    #[test]
    fn streams_that_are_lost_over_and_over_make_a_fact_each_quarter_of_an_hour_at_most() {
        let hasty = Delivery { retry_initial_ms: 1, retry_max_ms: 1, ..Delivery::default() };
        for policy in [Delivery::default(), hasty] {
            let facts = facts_of_a_year(&policy, Again::Lost);
            // Waits are shortened by a quarter at most.
            assert!(facts < 365 * 96 * 4 / 3 + 40, "{facts}");
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_chance_only_shortens_them_by_a_quarter() {
        let policy = Delivery { retry_initial_ms: 100, retry_max_ms: 1_000, ..Delivery::default() };
        let waits: Vec<_> = (1..=6).map(|attempt| backoff_ms(&policy, attempt, 0)).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff_ms(&policy, 5, 1_000), 750);
        assert_eq!(backoff_ms(&policy, u32::MAX, 500), 875);
    }
}
