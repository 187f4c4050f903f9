//! Time, passed in: one [`Clock`] is made where the program is composed and handed to all that needs the hour.
//!
//! Knows: the wall clock of the machine, and a clock that a test moves by hand. Never knows: what the time is used for.
//! Invariant: times are unix milliseconds (or seconds, where a statement's JSON has seconds). Sequence numbers order facts;
//! the clock does not.
use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// What time it is.
pub trait Clock: Send + Sync + Debug {
    /// Unix milliseconds.
    fn now_ms(&self) -> i64;

    /// Unix seconds, rounded down.
    fn now_s(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now_ms(&self) -> i64 {
        (**self).now_ms()
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        // A machine set to before 1970 has a wrong clock, not a reason to stop: the times come out negative.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or_else(|early| -since(early.duration()), since)
    }
}

/// A clock that stands still until it is moved. Clones share the hands.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Stands at `now_ms` unix milliseconds.
    #[must_use]
    pub fn new(now_ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(now_ms)))
    }

    /// Moves to `now_ms`, backwards too.
    pub fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }

    /// Moves on by `ms` milliseconds and returns the new time.
    pub fn advance(&self, ms: i64) -> i64 {
        self.0.fetch_add(ms, Ordering::SeqCst).saturating_add(ms)
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A minute in UTC for people (`2026-11-26 11:21Z`), from unix milliseconds (H. Hinnant, `civil_from_days`).
#[must_use]
pub fn minute_text(ms: i64) -> String {
    let minutes = ms.div_euclid(60_000);
    // Years begin in March here, so that a leap day is the last; an era has 400 of them.
    let days = minutes.div_euclid(1_440).saturating_add(719_468);
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let minute = minutes.rem_euclid(1_440);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}Z", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_said_as_a_date() {
        for (ms, text) in [
            (0, "1970-01-01 00:00Z"),
            (-1, "1969-12-31 23:59Z"),
            (951_782_399_999, "2000-02-28 23:59Z"),
            (951_782_400_000, "2000-02-29 00:00Z"),
            (951_868_800_000, "2000-03-01 00:00Z"),
            (1_795_692_060_000, "2026-11-26 11:21Z"),
            (4_107_542_400_000, "2100-03-01 00:00Z"),
        ] {
            assert_eq!(minute_text(ms), text);
        }
    }

    #[test]
    fn clones_of_a_manual_clock_share_the_hands() {
        let clock = ManualClock::new(1_500);
        let other = clock.clone();
        assert_eq!(clock.advance(1_000), 2_500);
        assert_eq!((other.now_ms(), other.now_s()), (2_500, 2));
        other.set(-1);
        assert_eq!((clock.now_ms(), clock.now_s()), (-1, -1));
    }

    #[test]
    fn the_system_clock_tells_a_time_of_this_century() {
        assert!(SystemClock.now_s() > 946_684_800);
    }
}
