//! The real binary, built once for each test process, with its kill points compiled in.
//!
//! Knows where Cargo builds. Several test processes may ask at once: a lock file lets one of them build, and each gets a copy
//! that nobody overwrites, so that a build beside the tests never swaps the program under a running network.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::network::PATIENCE;

/// A binary that somebody built elsewhere, with kill points: used instead of building one.
const ELSEWHERE: &str = "TRAMITE_BINARY";

/// The binary with kill points, built when it is first asked for.
///
/// # Errors
/// When it does not build.
pub fn path() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(error) => bail!("the binary does not build: {error}"),
    }
}

/// Runs a command of it that must succeed; gives what it printed.
///
/// # Errors
/// What it printed, when it fails or does not end.
pub async fn said(arguments: &[&str]) -> Result<String> {
    let binary = tokio::task::spawn_blocking(path).await??;
    let mut command = tokio::process::Command::new(binary);
    command.args(arguments).env_remove("TRAMITE_ADAPTER").env_remove("TRAMITE_CERTS").kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.context("it does not end")??;
    let printed = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{arguments:?}: {printed} {}", String::from_utf8_lossy(&output.stderr));
    Ok(printed)
}

/// The target directory that this very test was built into.
fn target() -> Result<PathBuf> {
    let this = env::current_exe()?;
    let deps = this.parent().context("a test has a folder")?;
    Ok(deps.parent().and_then(Path::parent).context("a test stands in <target>/<profile>/deps")?.to_path_buf())
}

fn build() -> Result<PathBuf> {
    if let Some(path) = env::var_os(ELSEWHERE) {
        return Ok(path.into());
    }
    let target = target()?;
    let own = target.join("tramite-tests");
    fs::create_dir_all(&own)?;
    let lock = fs::File::create(own.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--package", "tramite", "--features", "killpoints", "--message-format", "json"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(crate::source::workspace())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let built = executable(&String::from_utf8_lossy(&output.stdout))?;
    publish(&built, &own)
}

/// The path in Cargo's message about the binary.
fn executable(messages: &str) -> Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .next_back()
        .context("cargo named no executable")
}

/// A copy under the name of its own age and length, held for as long as this process lives; older ones that nobody holds go.
fn publish(built: &Path, own: &Path) -> Result<PathBuf> {
    let about = fs::metadata(built)?;
    let age = about.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let copy = own.join(format!("tramite-{age}-{}", about.len()));
    if !copy.exists() {
        let partial = own.join("partial");
        fs::copy(built, &partial)?;
        fs::rename(&partial, &copy)?;
    }
    let held = fs::File::open(&copy)?;
    flock(&held, FlockOperation::LockShared)?;
    // Held until the process ends, which also gives it back.
    std::mem::forget(held);
    for old in fs::read_dir(own)?.flatten() {
        let is_copy = old.file_name().to_string_lossy().starts_with("tramite-");
        if is_copy && flock(fs::File::open(old.path())?, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_file(old.path())?;
        }
    }
    Ok(copy)
}
