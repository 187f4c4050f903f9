//! Plays seeds, each in a process of its own: libraries keep things for as long as their process lives (tokio a counter from which it
//! draws its chance), so only in a fresh one does a seed do the same every time.

use std::{
    env, fs,
    ops::RangeInclusive,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use tramite_tests::component;

use super::{
    guard::Without,
    stage::Stage,
    world::{self, Outcome},
};

/// The seed that this process plays.
const SEED: &str = "TRAMITE_SEED";
/// What its process plays without, as JSON.
const WITHOUT: &str = "TRAMITE_WITHOUT";
/// The folder of the certificates, if they are made.
const STAGE: &str = "TRAMITE_STAGE";
/// The file for what came of it.
const OUTCOME: &str = "TRAMITE_OUTCOME";
/// The test that plays one seed when it is told to.
const PLAYS: &str = "whatever_fails_nothing_is_lost_nothing_comes_twice_and_every_case_ends";
/// Seeds after which a long play says how far it is.
const TELL_EVERY: usize = 250;

/// The seed that this process is told to play.
pub(crate) fn told() -> Result<Option<Outcome>> {
    let Some(seed) = number(SEED)? else { return Ok(None) };
    let without =
        env::var(WITHOUT).map_or(Ok(Without::Nothing), |text| serde_json::from_str(&text)).context(WITHOUT)?;
    let Some(file) = env::var_os(OUTCOME) else {
        // By a person: it does what it did among others.
        return alone(&Stage::new()?, seed, without).map(Some);
    };
    let stage = env::var_os(STAGE).map_or_else(Stage::new, |folder| Stage::at(PathBuf::from(folder)))?;
    let outcome = world::run(&Arc::new(stage), seed, without);
    fs::write(file, serde_json::to_vec(&outcome)?)?;
    Ok(Some(outcome))
}

/// A number that the environment names.
pub(crate) fn number(name: &str) -> Result<Option<u64>> {
    env::var(name).ok().map(|text| text.parse().context(format!("{name}={text}"))).transpose()
}

/// Plays the seeds, as many at once as there are processors, and gives each outcome as it comes.
pub(crate) fn play(seeds: RangeInclusive<u64>, without: Without, each: impl FnMut(Outcome) + Send) -> Result<()> {
    play_on(&Stage::new()?, seeds, without, each);
    Ok(())
}

/// The same on a given stage: what is played twice needs the same certificates, as signatures differ in their length.
pub(crate) fn play_on(stage: &Stage, seeds: RangeInclusive<u64>, without: Without, each: impl FnMut(Outcome) + Send) {
    let (next, each) = (AtomicU64::new(*seeds.start()), Mutex::new((0_usize, each)));
    let one_after_another = || {
        while let seed = next.fetch_add(1, Ordering::SeqCst)
            && seed <= *seeds.end()
        {
            let outcome =
                alone(stage, seed, without).unwrap_or_else(|error| Outcome::failed(seed, format!("{error:#}")));
            let (count, each) = &mut *each.lock().unwrap_or_else(PoisonError::into_inner);
            each(outcome);
            *count += 1;
            if count.is_multiple_of(TELL_EVERY) {
                component::say(&format!("{count} seeds played"));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(one_after_another);
        }
    });
}

fn alone(stage: &Stage, seed: u64, without: Without) -> Result<Outcome> {
    let told = tempfile::NamedTempFile::new_in(stage.folder())?;
    let mut process = Command::new(env::current_exe()?);
    process.args(["--exact", "--nocapture", PLAYS]).env(SEED, seed.to_string()).env(STAGE, stage.folder());
    let ended = process.env(WITHOUT, serde_json::to_string(&without)?).env(OUTCOME, told.path()).output()?;
    serde_json::from_slice(&fs::read(told.path())?)
        .with_context(|| format!("its process: {}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr)))
}
