//! An honest client beside an attack, and a look at the memory of what is attacked: the attack goes on until both have seen enough.
//!
//! Knows a process and two pieces of work. Never knows what they do. Invariant: a harm is an error with numbers: an honest call that
//! fails or hangs, memory above the bound, a panic, a process that is another one afterwards.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::network::Node;

/// Honest calls before the attack: after them the process has what it keeps anyway (pools, caches, a segment).
const CALLS_BEFORE: usize = 30;
/// Honest calls that must succeed while the attack goes on.
const CALLS_DURING: usize = 25;
/// And after it.
const CALLS_AFTER: usize = 5;
/// Between two honest calls: an institution's pace, not a load of its own. What it leaves behind counts as grown, too.
const PACE: Duration = Duration::from_millis(100);
/// An honest call takes milliseconds; this is for a busy machine, and far below what a caller would take for a failure.
const CALL_MAX: Duration = Duration::from_secs(10);
/// The whole of it.
const ATTACK_MAX: Duration = Duration::from_secs(120);

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Rounds of the attack.
    pub rounds: usize,
    /// Honest calls that were answered while it went on.
    pub served: usize,
    /// Anonymous memory before, KiB.
    pub before_kib: u64,
    /// The most that was seen, KiB.
    pub most_kib: u64,
}

/// Attacks for so many rounds at least (what one leaves behind adds up) while an honest client works; ensures that it is served and that
/// memory grows by no more than `bound_kib`.
///
/// # Errors
/// A harm, with its numbers.
pub async fn unharmed(
    node: &Node,
    bound_kib: u64,
    rounds_min: usize,
    mut honest: impl AsyncFnMut() -> Result<()>,
    mut attack: impl AsyncFnMut() -> Result<()>,
) -> Result<Report> {
    let id = node.process.id().await.context("it runs")?;
    let mut call = async |when: &str| {
        let answer = timeout(CALL_MAX, honest()).await.with_context(|| format!("an honest call hangs {when}"))?;
        answer.with_context(|| format!("an honest call fails {when}"))
    };
    for _ in 0..CALLS_BEFORE {
        call("before the attack").await?;
    }
    let before_kib = anonymous_kib(id)?;
    let (served, rounds, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let enough = || served.load(Ordering::Relaxed) >= CALLS_DURING && rounds.load(Ordering::Relaxed) >= rounds_min;
    let attacking = async {
        while !enough() {
            let round = rounds.fetch_add(1, Ordering::Relaxed);
            attack().await.with_context(|| format!("round {round} of the attack"))?;
        }
        over.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let mut most_kib = before_kib;
    let serving = async {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !over.load(Ordering::Relaxed) {
            pace.tick().await;
            call("during the attack").await?;
            served.fetch_add(1, Ordering::Relaxed);
            most_kib = most_kib.max(anonymous_kib(id)?);
        }
        anyhow::Ok(())
    };
    let both = async { tokio::try_join!(attacking, serving) };
    timeout(ATTACK_MAX, both).await.context("the attack does not come to its end")??;
    for _ in 0..CALLS_AFTER {
        call("after the attack").await?;
    }
    most_kib = most_kib.max(anonymous_kib(id)?);
    let report = Report { rounds: rounds.into_inner(), served: served.into_inner(), before_kib, most_kib };
    ensure!(most_kib - before_kib <= bound_kib, "memory grew by more than {bound_kib} KiB: {report:?}");
    ensure!(node.process.id().await == Some(id), "another process answers");
    let log = node.process.log();
    ensure!(!log.lines().iter().any(|line| line.contains("panicked")), "{}", log.tail(20));
    Ok(report)
}

/// Anonymous memory of a process, which is what an attacker can make it hold: not its files, not its code.
fn anonymous_kib(id: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    line.trim().trim_end_matches(" kB").trim().parse().with_context(|| line.to_owned())
}
