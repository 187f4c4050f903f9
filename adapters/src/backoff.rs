//! How long to wait before trying again: exponential, capped, with jitter, so that a hundred adapters do not come back at once. Full jitter
//! for connections; with a floor of half the bound for one thing that is tried again, which must not be asked for at once.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tramite_proto::reason::{Reason, Refused};

use crate::entropy::Entropy;

/// The first wait is somewhere below this.
const FIRST: Duration = Duration::from_millis(200);
/// No wait is longer: a hundred adapters then make forty attempts a second, and no office stays cut off once the gateway is back.
const LONGEST: Duration = Duration::from_secs(5);

/// The first wait after another adapter of this institution took over is at most this, and half of it at least: two that fight at once deliver
/// nothing and make no noise that anybody hears.
const SUPERSEDED_FIRST: Duration = Duration::from_secs(10);
/// The longest: an office whose other adapter was stopped at last receives again within this.
const SUPERSEDED_LONGEST: Duration = Duration::from_secs(300);

/// A session that lasted so long was a good one: the next attempt waits short again.
const GOOD: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    failures: u32,
    entropy: Entropy,
}

impl Backoff {
    pub(crate) fn new(entropy: &Entropy) -> Self {
        Self { failures: 0, entropy: entropy.clone() }
    }

    /// It went well: the next wait is short again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Runs one session after the other until stopped, with a wait between them. `ended` hears how each ended, and whether that is news:
    /// trouble is told of when it begins, not each time that it is still there.
    pub(crate) async fn run<S: Future<Output = Result<(), Refused>>>(
        entropy: &Entropy,
        stop: &CancellationToken,
        session: impl Fn() -> S,
        ended: impl Fn(bool, Result<(), Refused>),
    ) {
        let (mut backoff, mut takeovers) = (Self::new(entropy), Takeovers::new(entropy));
        loop {
            let begun = Instant::now();
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = session() => result,
            };
            if begun.elapsed() > GOOD {
                backoff.reset();
            }
            let superseded = result.as_ref().is_err_and(|refused| refused.reason == Reason::Superseded);
            ended(backoff.is_fresh(), result);
            let pause = takeovers.pause(superseded, begun.elapsed()).unwrap_or_else(|| backoff.next());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// True until something failed: trouble is told of when it begins, not each time that it is still there.
    pub(crate) fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// The next wait: anything from zero up to the bound, which doubles with each failure.
    pub(crate) fn next(&mut self) -> Duration {
        let bound = bound(FIRST, LONGEST, self.failures);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(self.entropy.fraction())
    }

    /// Waits.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

/// Counts takeovers in a row. A session between two of them may last as long as the other adapter waits, and is no good one for that.
#[derive(Debug)]
struct Takeovers {
    count: u32,
    entropy: Entropy,
}

impl Takeovers {
    fn new(entropy: &Entropy) -> Self {
        Self { count: 0, entropy: entropy.clone() }
    }

    /// The wait after a session that lasted so long, if another adapter took over.
    fn pause(&mut self, superseded: bool, lasted: Duration) -> Option<Duration> {
        if lasted > SUPERSEDED_LONGEST * 2 {
            self.count = 0;
        }
        if !superseded {
            return None;
        }
        let bound = bound(SUPERSEDED_FIRST, SUPERSEDED_LONGEST, self.count);
        self.count = self.count.saturating_add(1);
        Some(bound.mul_f64(0.5 + self.entropy.fraction() / 2.0))
    }
}

/// The wait before the attempt after `failures` failed ones, for what has its own bounds: full jitter above a floor of half the bound.
pub(crate) fn delay_ms(entropy: &Entropy, first_ms: u64, longest_ms: u64, failures: u32) -> u64 {
    let bound = bound(Duration::from_millis(first_ms), Duration::from_millis(longest_ms), failures);
    let jittered = bound.mul_f64(0.5 + entropy.fraction() / 2.0);
    u64::try_from(jittered.as_millis()).unwrap_or(longest_ms)
}

fn bound(first: Duration, longest: Duration, failures: u32) -> Duration {
    // Two to the sixteenth of anything here is beyond every cap.
    first.saturating_mul(1 << failures.min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_adapters_that_supersede_each_other_do_so_less_and_less_often() {
        let mut takeovers = Takeovers::new(&Entropy::of_the_system());
        for count in 0..10 {
            // The other one waited as long before it came back.
            let lasted = bound(SUPERSEDED_FIRST, SUPERSEDED_LONGEST, count);
            let pause = takeovers.pause(true, lasted).expect("a wait");
            assert!(pause >= lasted / 2 && pause <= SUPERSEDED_LONGEST, "{count}: {pause:?}");
            assert_eq!(takeovers.pause(false, lasted), None, "what else ends a session has its own wait");
        }
        assert!(takeovers.pause(true, SUPERSEDED_LONGEST * 3).is_some_and(|pause| pause <= SUPERSEDED_FIRST));
    }

    #[test]
    fn waits_grow_to_a_cap_and_never_beyond() {
        let entropy = Entropy::of_the_system();
        let mut backoff = Backoff::new(&entropy);
        for failures in 0..40 {
            assert!(backoff.next() <= bound(FIRST, LONGEST, failures));
        }
        assert_eq!(bound(FIRST, LONGEST, 39), LONGEST);
        assert!((500..=1_000).contains(&delay_ms(&entropy, 1_000, 60_000, 0)));
        assert!((30_000..=60_000).contains(&delay_ms(&entropy, 1_000, 60_000, 30)));
    }
}
