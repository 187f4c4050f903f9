//! A machine whose clock somebody sets: a process under a small library that adds to the hour what a file says.
//!
//! Knows: how the library is made and preloaded. Never knows: what the process does with the hour. Invariants: the file has a whole number
//! at every moment; the library is used only where it was seen to work.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, bail};

use crate::component;

/// The library, in C.
const SOURCE: &str = "tests/foreign/clock.c";
/// What it reads the name of the file from.
const SETTING: &str = "TRAMITE_TEST_CLOCK";
const DAY_S: i64 = 86_400;

/// The library, compiled. Clones share it.
#[derive(Debug, Clone)]
pub struct Clockmaker {
    library: Arc<PathBuf>,
    folder: PathBuf,
}

/// The clock of one machine.
#[derive(Debug, Clone)]
pub struct OtherClock {
    library: Arc<PathBuf>,
    file: PathBuf,
}

impl Clockmaker {
    /// In a folder of the test; none where no clock can be set apart, which is said in words.
    ///
    /// # Errors
    /// With `TRAMITE_REQUIRE_ALL=1`, when it cannot be had.
    pub fn in_folder(folder: &Path) -> Result<Option<Self>> {
        match Self::make(folder) {
            Ok(made) => Ok(Some(made)),
            Err(why) => {
                let what = "a clock of its own for a process, which needs a C compiler and LD_PRELOAD";
                component::missing(what, &format!("{why:#}")).map(|()| None)
            }
        }
    }

    fn make(folder: &Path) -> Result<Self> {
        let library = folder.join("clock.so");
        let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(crate::source::workspace().join(SOURCE));
        let made = command.arg("-ldl").output().context("there is no C compiler")?;
        if !made.status.success() {
            bail!("it does not compile: {}", String::from_utf8_lossy(&made.stderr));
        }
        let maker = Self { library: Arc::new(library), folder: folder.to_owned() };
        let clock = maker.clock("tried")?;
        let year = |above: &[OsString]| -> Result<i32> {
            let mut words = above.iter().cloned().chain(["date".into(), "+%Y".into()]);
            let mut command = Command::new(words.next().context("a command")?);
            let told = command.args(words).stdin(Stdio::null()).output()?;
            Ok(String::from_utf8(told.stdout)?.trim().parse()?)
        };
        clock.set(3 * 366)?;
        if year(&clock.above())? < year(&[OsString::from("env")])? + 3 {
            bail!("a library is not preloaded here");
        }
        Ok(maker)
    }

    /// A clock that is right for now.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn clock(&self, name: &str) -> Result<OtherClock> {
        let clock = OtherClock { library: Arc::clone(&self.library), file: self.folder.join(format!("{name}.clock")) };
        clock.set(0)?;
        Ok(clock)
    }
}

impl OtherClock {
    /// What a process is started under to have this clock.
    #[must_use]
    pub fn above(&self) -> Vec<OsString> {
        let setting = |name: &str, path: &Path| {
            let mut setting = OsString::from(format!("{name}="));
            setting.push(path);
            setting
        };
        vec!["env".into(), setting("LD_PRELOAD", &self.library), setting(SETTING, &self.file)]
    }

    /// Sets it so many days ahead, or back, of the machine's own.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set(&self, days: i64) -> Result<()> {
        let partial = self.file.with_extension("partial");
        fs::write(&partial, (days * DAY_S).to_string())?;
        fs::rename(&partial, &self.file).with_context(|| self.file.display().to_string())
    }
}
