//! One process of the real binary: started, killed, started again; its log lines as events to wait for.
//!
//! Knows its own child only: nothing else is ever signalled, and dropping it ends the child. The log outlives restarts.

use std::{
    ffi::OsString,
    fmt,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex as Blocking, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{Mutex, watch},
    time::timeout,
};

/// Switches of test builds (`deploy/src/main.rs`).
const KILL_AT: &str = "TRAMITE_KILL_AT";
const WITHOUT_SYNC: &str = "TRAMITE_WITHOUT_SYNC";

/// What a process wrote, line by line, from all its lives.
#[derive(Debug, Clone)]
pub struct Log {
    lines: Arc<Blocking<Vec<String>>>,
    grown: watch::Sender<usize>,
}

impl Default for Log {
    fn default() -> Self {
        Self { lines: Arc::default(), grown: watch::channel(0).0 }
    }
}

impl Log {
    /// Every line so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last lines, for a failure's message.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let lines = self.lines();
        lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
    }

    /// Waits for a line that holds all the words, from the beginning of the log or after `from` lines.
    ///
    /// # Errors
    /// When it did not come in time.
    pub async fn wait_for(&self, from: usize, words: &[&str], within: Duration) -> Result<String> {
        let mut grown = self.grown.subscribe();
        let found = timeout(within, async {
            loop {
                let fits = |line: &&String| words.iter().all(|word| line.contains(word));
                if let Some(line) = self.lines().iter().skip(from).find(fits) {
                    return line.clone();
                }
                // The sender lives in `self`, so the channel cannot close.
                let _ = grown.changed().await;
            }
        });
        found.await.with_context(|| format!("no log line with {words:?} in {within:?}; the last:\n{}", self.tail(30)))
    }

    fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(line);
        self.grown.send_replace(lines.len());
    }

    fn follow(&self, source: impl AsyncRead + Unpin + Send + 'static) {
        let log = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(source).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                log.push(line);
            }
        });
    }
}

/// A process that can be started again and again from the same command.
pub struct Process {
    name: String,
    entrance: Vec<OsString>,
    arguments: Vec<OsString>,
    log: Log,
    child: Mutex<Option<Living>>,
}

/// A child, and the end of its standard input that we hold: when we are gone, however that came, it ends, too.
struct Living {
    child: Child,
    _input: Option<ChildStdin>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Process {
    /// Not yet started.
    #[must_use]
    pub fn new(name: &str, arguments: Vec<OsString>) -> Self {
        Self { name: name.to_owned(), entrance: Vec::new(), arguments, log: Log::default(), child: Mutex::new(None) }
    }

    /// The same, through a command that becomes what stands behind it.
    #[must_use]
    pub fn through(self, entrance: Vec<OsString>) -> Self {
        Self { entrance, ..self }
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the binary does not build or start.
    pub async fn start(&self) -> Result<()> {
        self.start_with(&[], &[]).await
    }

    /// Starts it so that it ends itself at a kill point, `name:n`: at the n-th pass of that step.
    ///
    /// # Errors
    /// When the binary does not build or start, or the process runs already.
    pub async fn start_to_be_killed_at(&self, point: Option<&str>) -> Result<()> {
        let setting = point.map(|point| (KILL_AT, point));
        self.start_with(&[], setting.as_slice()).await
    }

    /// Starts it under a command that runs what stands behind it, as a tracer does.
    ///
    /// # Errors
    /// When the binary does not build or start, or the process runs already.
    pub async fn start_under(&self, above: &[OsString]) -> Result<()> {
        self.start_with(above, &[]).await
    }

    /// Starts it with a switch that only test builds have: it answers for what it never synced.
    ///
    /// # Errors
    /// When the binary does not build or start, or the process runs already.
    pub async fn start_without_sync(&self) -> Result<()> {
        self.start_with(&[], &[(WITHOUT_SYNC, "1")]).await
    }

    async fn start_with(&self, above: &[OsString], settings: &[(&str, &str)]) -> Result<()> {
        let mut slot = self.child.lock().await;
        if slot.is_some() {
            bail!("{} runs already", self.name);
        }
        let binary = tokio::task::spawn_blocking(crate::binary::path).await??;
        let mut words = self.entrance.iter().chain(above).cloned().chain([binary.into()]);
        let mut command = Command::new(words.next().context("a command")?);
        command.args(words).args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove(KILL_AT).env_remove(WITHOUT_SYNC).env_remove("RUST_LOG").kill_on_drop(true);
        command.envs(settings.iter().copied());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        if let Some(output) = child.stdout.take() {
            self.log.follow(output);
        }
        if let Some(output) = child.stderr.take() {
            self.log.follow(output);
        }
        // Apart from the child: waiting for a child closes the input that is with it.
        let input = child.stdin.take();
        *slot = Some(Living { child, _input: input });
        Ok(())
    }

    /// Its process id while it runs.
    pub async fn id(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(|living| living.child.id())
    }

    /// Ends it at once, as a power cut of the process would, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn kill(&self) -> Result<()> {
        if let Some(mut living) = self.child.lock().await.take() {
            living.child.kill().await?;
        }
        Ok(())
    }

    /// Sends a signal to this very process.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.id().await.with_context(|| format!("{} does not run", self.name))?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("a process id is not 0")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not end in time, or does not run.
    pub async fn exited(&self, within: Duration) -> Result<ExitStatus> {
        let mut slot = self.child.lock().await;
        let living = slot.as_mut().with_context(|| format!("{} does not run", self.name))?;
        let status = timeout(within, living.child.wait()).await;
        let status =
            status.with_context(|| format!("{} still runs after {within:?}:\n{}", self.name, self.log.tail(30)))??;
        *slot = None;
        Ok(status)
    }

    /// Asks it to end in order (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM).await?;
        self.exited(within).await
    }
}
