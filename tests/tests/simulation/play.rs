//! Plays seeds, each in a process of its own: libraries keep things for as long as their process lives (tokio a counter from which it
//! draws its chance), so only in a fresh one does a seed do the same every time.
//!
//! Attachments are worked at by threads of the runtime's pool beside the one of the simulation. So that these take turns in the
//! same order every time, seeds with attachments are played on one processor, in real time (`SCHED_FIFO`: a thread runs until it waits).

use std::{
    env, fs,
    ops::RangeInclusive,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
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
        return alone(&Stage::new()?, seed, without, 0).map(Some);
    };
    let stage = env::var_os(STAGE).map_or_else(Stage::new, |folder| Stage::at(PathBuf::from(folder)))?;
    let outcome = world::run(&Arc::new(stage), seed, without);
    fs::write(file, serde_json::to_vec(&outcome)?)?;
    Ok(Some(outcome))
}

/// Whether a seed has attachments: every other one, so that there are as many that need nothing of the machine to be repeated.
pub(crate) fn attaches(seed: u64) -> bool {
    seed.is_multiple_of(2)
}

/// Those of the seeds that do the same each time they are played on this machine. Says so when that is not all.
pub(crate) fn repeatable(seeds: RangeInclusive<u64>) -> Result<Vec<u64>> {
    if !takes_turns() {
        let why = "chrt and taskset (util-linux) are not installed, or this user may not run anything in real time";
        component::missing("the same again from seeds with attachments", why)?;
    }
    Ok(seeds.filter(|seed| !attaches(*seed) || takes_turns()).collect())
}

/// Whether threads can be made to take turns here.
fn takes_turns() -> bool {
    static TRIED: OnceLock<bool> = OnceLock::new();
    *TRIED.get_or_init(|| {
        let mut tried = taking_turns(0);
        let tried = tried.arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    })
}

/// What a process is started under for its threads to take turns.
fn taking_turns(number: usize) -> Command {
    let mut command = Command::new("chrt");
    command.args(["--fifo", "1", "taskset", "--cpu-list", &processor(number)]);
    command
}

/// One of the processors that this process may use.
fn processor(number: usize) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0").trim();
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse().unwrap_or(0)..=last.parse().unwrap_or(0_usize)
    };
    let processors: Vec<usize> = allowed.split(',').flat_map(range).collect();
    processors.get(number % processors.len().max(1)).copied().unwrap_or(0).to_string()
}

/// A number that the environment names.
pub(crate) fn number(name: &str) -> Result<Option<u64>> {
    env::var(name).ok().map(|text| text.parse().context(format!("{name}={text}"))).transpose()
}

/// Plays the seeds, as many at once as there are processors, and gives each outcome as it comes.
pub(crate) fn play(seeds: RangeInclusive<u64>, without: Without, each: impl FnMut(Outcome) + Send) -> Result<()> {
    let stage = Stage::new()?;
    let (next, each) = (AtomicU64::new(*seeds.start()), Mutex::new((0_usize, each)));
    let one_after_another = |number: usize| {
        while let seed = next.fetch_add(1, Ordering::SeqCst)
            && seed <= *seeds.end()
        {
            let outcome = alone(&stage, seed, without, number)
                .unwrap_or_else(|error| Outcome::failed(seed, format!("{error:#}")));
            let (count, each) = &mut *each.lock().unwrap_or_else(PoisonError::into_inner);
            each(outcome);
            *count += 1;
            if count.is_multiple_of(TELL_EVERY) {
                component::say(&format!("{count} seeds played"));
            }
        }
    };
    thread::scope(|scope| {
        for number in 0..thread::available_parallelism().map_or(1, usize::from) {
            let one_after_another = &one_after_another;
            scope.spawn(move || one_after_another(number));
        }
    });
    Ok(())
}

/// On the processor of that number, if it is to be one.
fn alone(stage: &Stage, seed: u64, without: Without, number: usize) -> Result<Outcome> {
    let told = tempfile::NamedTempFile::new_in(stage.folder())?;
    let this = env::current_exe()?;
    let mut process = if attaches(seed) && takes_turns() {
        let mut process = taking_turns(number);
        process.arg(this);
        process
    } else {
        Command::new(this)
    };
    process.args(["--exact", "--nocapture", PLAYS]).env(SEED, seed.to_string()).env(STAGE, stage.folder());
    let ended = process.env(WITHOUT, serde_json::to_string(&without)?).env(OUTCOME, told.path()).output()?;
    serde_json::from_slice(&fs::read(told.path())?)
        .with_context(|| format!("its process: {}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr)))
}
