//! One process of the demo's network: the same binary, started with its own configuration, its log in a file.
//!
//! Invariant: it never outlives the demo. It ends when its standard input ends (however the demo ended), it is killed when this
//! value goes, and it has a process group of its own, so that a Ctrl-C in the terminal reaches the demo alone, which then ends it
//! in order.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::failure::{Exit, Failure};

/// So many lines of a log are shown when a process does not start.
const LOG_LINES: usize = 5;
/// One that is killed is gone within so long, also on a busy machine.
const ENDING: Duration = Duration::from_millis(500);

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    arguments: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `tramite <role> --config <config>`; the log goes on where it ended.
    pub(crate) fn start(name: &str, role: &str, config: &Path, log: PathBuf) -> Result<Self, Failure> {
        let arguments = vec![
            role.to_owned(),
            "--config".to_owned(),
            config.to_string_lossy().into_owned(),
            "--exit-with-parent".to_owned(),
        ];
        let child = spawn(name, &arguments, &log)?;
        Ok(Self { name: name.to_owned(), arguments, log, child })
    }

    /// Whose process it is.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it as a power cut would: SIGKILL, no warning.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        self.child
            .kill()
            .await
            .map_err(|error| Failure::internal(format!("{} cannot be killed", self.name)).because(&error))
    }

    /// Starts it again, as it was.
    pub(crate) fn restart(&mut self) -> Result<(), Failure> {
        self.child = spawn(&self.name, &self.arguments, &self.log)?;
        Ok(())
    }

    /// Fails when it has ended by itself, with the end of its log.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(error) => Err(Failure::internal(format!("{} cannot be watched", self.name)).because(&error)),
        }
    }

    /// The same, of one that may just be ending: its connections are gone before it is.
    pub(crate) async fn check_ending(&mut self) -> Result<(), Failure> {
        match timeout(ENDING, self.child.wait()).await {
            Ok(Ok(status)) => Err(self.ended(status)),
            Ok(Err(_)) | Err(_) => self.check(),
        }
    }

    /// Asks it to end, waits, and kills it when it does not.
    pub(crate) async fn end(&mut self, patience: Duration) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended between the two calls; then there is nobody to ask.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(patience, self.child.wait()).await.is_err() {
            tracing::warn!(process = self.name, "did not end in time and is killed");
            drop(self.child.kill().await);
        }
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
        let last = lines.into_iter().rev().collect::<Vec<_>>().join("\n  ");
        let sentence = format!("{} ended by itself ({status})", self.name);
        Failure::new(Exit::Failed, sentence, format!("The end of its log {}:\n  {last}", self.log.display()))
    }
}

fn spawn(name: &str, arguments: &[String], log: &Path) -> Result<Child, Failure> {
    let failed = |error: std::io::Error| Failure::internal(format!("{name} cannot be started")).because(&error);
    let program = std::env::current_exe().map_err(failed)?;
    let log = OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
    Command::new(program)
        .args(arguments)
        // Held open until this process ends, however it ends: the end of its input tells the child.
        .stdin(Stdio::piped())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        // Settings of whoever started the demo are not the children's.
        .env_remove("TRAMITE_ADAPTER")
        .env_remove("TRAMITE_GATEWAY")
        .env_remove("TRAMITE_CERTS")
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)
}
