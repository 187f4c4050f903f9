//! A disk that fails: system calls on one file answer with an error, injected by strace.
//!
//! Knows: how strace is asked, and how its log reads. Never knows: what the file holds. An error is injected once: whoever tries
//! again would succeed, as after a failed sync on Linux, which has dropped the pages by then.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};

use crate::component;

/// An error that a system call on one of some files will answer once.
#[derive(Debug, Clone)]
pub struct Fault {
    files: Vec<PathBuf>,
    call: &'static str,
    /// Which call of a thread, from 1.
    when: u32,
    log: PathBuf,
}

/// True where strace can trace. Where not, says so in words; fails where nothing may be skipped.
///
/// # Errors
/// With `TRAMITE_REQUIRE_ALL=1`, when it cannot.
pub fn can_be_had() -> Result<bool> {
    let mut tried = Command::new("strace");
    tried.args(["-f", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=1", "true"]);
    let tried = tried.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if tried.is_ok_and(|status| status.success()) {
        return Ok(true);
    }
    component::missing("a disk that fails", "strace is not installed or may not trace")?;
    Ok(false)
}

impl Fault {
    /// The `when`-th call of a thread on a file fails with EIO.
    #[must_use]
    pub fn eio(file: &Path, call: &'static str, when: u32, log: &Path) -> Self {
        Self::eio_among(vec![file.to_owned()], call, when, log)
    }

    /// The same on whichever of some files comes first; they need not be there yet.
    #[must_use]
    pub fn eio_among(files: Vec<PathBuf>, call: &'static str, when: u32, log: &Path) -> Self {
        Self { files, call, when, log: log.to_owned() }
    }

    /// What runs a command with this fault. What it runs stays the child of whoever starts it.
    #[must_use]
    pub fn tracer(&self) -> Vec<OsString> {
        let inject = format!("inject={}:error=EIO:when={}", self.call, self.when);
        let trace = format!("trace={},fdatasync,fsync", self.call);
        let words: [OsString; 9] = [
            "strace".into(),
            "-D".into(),
            "-f".into(),
            "-y".into(),
            "-qq".into(),
            "-o".into(),
            self.log.clone().into(),
            "-e".into(),
            trace.into(),
        ];
        let files = self.files.iter().flat_map(|file| ["-P".into(), file.clone().into()]);
        words.into_iter().chain(files).chain(["-e".into(), inject.into()]).collect()
    }

    /// Asserts that the error was answered, and that nothing was tried with that file afterwards.
    ///
    /// # Errors
    /// When it was not, or something was.
    pub fn was_the_last_call(&self) -> Result<()> {
        let log = fs::read_to_string(&self.log)?;
        let mut lines = log.lines().skip_while(|line| !line.contains("EIO"));
        ensure!(lines.next().is_some_and(|line| line.contains(self.call)), "no {} has failed:\n{log}", self.call);
        // Where strace let go of a thread that was in no call on the file, it names none.
        let after: Vec<&str> = lines.filter(|line| line.contains('(') && !line.contains("???( <detached")).collect();
        ensure!(after.is_empty(), "the file was used after its {} had failed: {after:?}", self.call);
        Ok(())
    }
}
