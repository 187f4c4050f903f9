//! How often each institution may ask for something that costs more than a look: some at once, then one in each interval. It knows names
//! and times; never what is asked.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tramite_proto::reason::{Reason, Refused};

/// A pace for each name.
#[derive(Debug)]
pub struct Paces {
    burst_ms: i64,
    interval_ms: i64,
    /// Until when what was asked for so far is paid for. There are no more names than configured institutions.
    paid_ms: Mutex<HashMap<String, i64>>,
}

impl Paces {
    /// `burst` at once, then one in each `interval`.
    #[must_use]
    pub fn new(burst: u32, interval: Duration) -> Self {
        let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
        Self { burst_ms: interval_ms.saturating_mul(burst.into()), interval_ms, paid_ms: Mutex::default() }
    }

    /// Takes one.
    ///
    /// # Errors
    /// RATE_LIMITED when it comes too soon.
    pub fn take(&self, name: &str, now_ms: i64) -> Result<(), Refused> {
        let mut all = self.paid_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let paid_ms = all.entry(name.to_owned()).or_insert(now_ms);
        let full_ms = now_ms.saturating_add(self.burst_ms);
        // A clock that was set back does not make anybody wait for it.
        *paid_ms = (*paid_ms).clamp(now_ms, full_ms);
        let next_ms = paid_ms.saturating_add(self.interval_ms);
        if next_ms > full_ms {
            return Err(Refused::new(Reason::RateLimited, "That was asked too often; try again in a moment."));
        }
        *paid_ms = next_ms;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_at_once_then_one_in_each_interval_and_each_name_for_itself() {
        let paces = Paces::new(2, Duration::from_secs(1));
        paces.take("inps", 0).unwrap();
        paces.take("inps", 0).unwrap();
        assert_eq!(paces.take("inps", 999).unwrap_err().reason, Reason::RateLimited);
        paces.take("caritas", 999).unwrap();
        paces.take("inps", 1_000).unwrap();
        assert_eq!(paces.take("inps", 1_001).unwrap_err().reason, Reason::RateLimited);
        // The clock was set back.
        paces.take("inps", -100_000 + 1).unwrap_err();
        paces.take("inps", -98_000).unwrap();
    }
}
