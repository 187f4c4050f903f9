//! What a power cut came upon: a test that is named after a moment shows that its cut came in it.
//!
//! Knows what `tramite store verify` and the names of segments say of a store that nobody runs. Never knows what was answered:
//! `accounts.rs` does.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::{dice::Dice, loop_disk::LoopDisk, network::START_MAX, process::Process, verify::verify};

/// What a store says when it is open.
pub const OPEN: &str = "the store is open";
/// Cuts of one directory while it is made.
pub const EARLY: usize = 4;
/// Between two looks whether a directory is there.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A first cut comes within so long after its directory is there, each further one within half of it.
const SPAN: Duration = Duration::from_millis(50);

/// What a cut came upon, as the disk shows when the power is back and nobody runs yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Upon {
    /// Segments that were begun since the last look.
    pub segments: usize,
    /// Contents of final messages that were erased.
    pub erased: u64,
    /// And that were not yet.
    pub left: u64,
}

impl Upon {
    /// Verifies a store and compares its segments with those of before.
    ///
    /// # Errors
    /// When anything is damaged.
    pub async fn found(store: &Path, before: &BTreeSet<String>) -> Result<Self> {
        let found = verify(store).await?;
        let problems = found.get("problems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        ensure!(problems.is_empty(), "a cut has damaged it: {problems:?}");
        let count = |name: &str| found.get(name).and_then(Value::as_u64).with_context(|| format!("{name}: {found}"));
        let segments = segments(store)?.difference(before).count();
        Ok(Self { segments, erased: count("erased")?, left: count("not_yet_erased")? })
    }

    /// A segment was begun.
    #[must_use]
    pub fn changed_segments(&self) -> bool {
        self.segments > 0
    }

    /// Some contents were erased by then, and some were not.
    #[must_use]
    pub fn was_erasing(&self) -> bool {
        self.erased > 0 && self.left > 0
    }

    /// Whatever it was.
    #[must_use]
    pub fn anything(&self) -> bool {
        true
    }
}

/// The names of a journal's segments.
///
/// # Errors
/// When its folder cannot be read.
pub fn segments(store: &Path) -> Result<BTreeSet<String>> {
    let names = fs::read_dir(store.join("journal"))?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: BTreeSet<String> = names.collect::<Result<_>>()?;
    Ok(names.into_iter().filter(|name| name.ends_with(".seg")).collect())
}

/// Cuts between the moment at which a directory is there and the line that its store is open, until it is open too soon. Says how many.
///
/// # Errors
/// When no directory is made.
pub async fn cut_while_it_is_made(disk: &LoopDisk, process: &Process, store: &Path, dice: &mut Dice) -> Result<usize> {
    let mut span = SPAN;
    let mut early = 0;
    for _ in 0..EARLY {
        let lines = process.log().lines().len();
        process.start().await?;
        let until = Instant::now() + START_MAX;
        while !store.exists() {
            ensure!(Instant::now() < until, "no directory is made: {}", process.log().tail(20));
            sleep(LOOK_EVERY).await;
        }
        let opened = timeout(dice.within(span), process.log().wait_for(lines, &[OPEN], START_MAX)).await;
        disk.cut()?;
        process.kill().await?;
        disk.mount_again()?;
        if opened.is_ok() || process.log().lines().iter().skip(lines).any(|line| line.contains(OPEN)) {
            // Another directory cannot be had here; a shorter span would have been needed.
            break;
        }
        early += 1;
        span /= 2;
    }
    Ok(early)
}
