//! The memory of the gateway's own (RssAnon), looked at by a task from its start to its end, a restart included.
//!
//! Invariant: what could not be read is absent, never 0. What was seen is kept: ten figures a second, of a bench of hours at most.

use std::{
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{gauge, time::now_ns};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// When, and KiB.
type Seen = (u64, u64);

/// What was seen, of one process after the other.
#[derive(Debug)]
pub(super) struct Memory {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortOnDropHandle<()>,
}

impl Memory {
    /// Looks at a process from now on.
    pub(super) fn of(pid: Option<u32>) -> Self {
        let seen = Arc::default();
        Self { task: watch(pid, Arc::clone(&seen)), seen }
    }

    /// Looks at another one instead, which took its place.
    pub(super) fn goes_on_in(&mut self, pid: Option<u32>) {
        self.task = watch(pid, Arc::clone(&self.seen));
    }

    /// The most that was seen in a time.
    pub(super) fn peak_kib(&self, within: impl RangeBounds<u64>) -> Option<u64> {
        locked(&self.seen).iter().filter(|(at_ns, _)| within.contains(at_ns)).map(|(_, kib)| *kib).max()
    }

    /// What was seen last at that moment.
    pub(super) fn at_kib(&self, moment_ns: u64) -> Option<u64> {
        locked(&self.seen).iter().rev().find(|(at_ns, _)| *at_ns <= moment_ns).map(|(_, kib)| *kib)
    }
}

fn watch(pid: Option<u32>, seen: Arc<Mutex<Vec<Seen>>>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            if let Some(kib) = pid.and_then(gauge::anonymous_kib) {
                locked(&seen).push((now_ns(), kib));
            }
            sleep(LOOK).await;
        }
    }))
}

/// A list of figures is whole at any time.
fn locked(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peak_between_windows_and_of_a_restart_is_seen_and_what_was_not_read_is_absent() {
        let mut memory = Memory::of(None);
        assert_eq!((memory.peak_kib(..), memory.at_kib(u64::MAX)), (None, None));
        locked(&memory.seen).extend([(10, 5), (20, 90), (30, 7)]);
        assert_eq!(memory.peak_kib(10..20), Some(5));
        assert_eq!(memory.peak_kib(..), Some(90));
        assert_eq!((memory.at_kib(9), memory.at_kib(25), memory.at_kib(30)), (None, Some(90), Some(7)));
        let before = now_ns();
        memory.goes_on_in(Some(std::process::id()));
        while memory.peak_kib(before..).is_none() {
            sleep(LOOK).await;
        }
        assert_eq!(memory.at_kib(30), Some(7));
    }
}
