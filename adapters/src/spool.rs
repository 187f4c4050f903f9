//! The spool: a folder in place of a program, for an office without developers. `SPOOL.md` is its users' documentation.
//!
//! ```text
//! outgoing/NAME.json (+ outgoing/NAME/…)  →  sent/NAME.json, sent/NAME.result.json (+ sent/NAME/…)
//!                                         or  rejected/NAME.json, rejected/NAME.reason.txt
//! incoming/<message id>.json, incoming/<message id>/<attachment name>, incoming/<message id>.<item id>.<notice>.json
//! ```
//! Knows files and the office's own calls, which are those of any back office. Never knows keys or the network. What a crash leaves
//! behind, step by step, stands at `outgoing` and `incoming`; the invariant of both: a message is sent once and shown once.

mod incoming;
mod name;
mod outgoing;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{incoming::Incoming, outgoing::Outgoing};
use crate::{config, files, office::Office};

/// The four folders.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    outgoing: PathBuf,
    sent: PathBuf,
    rejected: PathBuf,
    incoming: PathBuf,
    /// What is still being written, on the same file system as `incoming`.
    partial: PathBuf,
}

impl Folders {
    fn of(spool: &config::Spool) -> Self {
        let folder = |name: &str| spool.directory.join(name);
        Self {
            outgoing: folder("outgoing"),
            sent: folder("sent"),
            rejected: folder("rejected"),
            incoming: folder("incoming"),
            partial: folder(".partial"),
        }
    }

    fn create(&self) -> std::io::Result<()> {
        for folder in [&self.outgoing, &self.sent, &self.rejected, &self.incoming, &self.partial] {
            files::create_private_dir(folder)?;
        }
        Ok(())
    }
}

/// The connector of one folder.
#[derive(Debug)]
pub(crate) struct Spool {
    outgoing: Outgoing,
    incoming: Incoming,
}

impl Spool {
    /// Makes the folders that are missing.
    pub(crate) fn open(config: &config::Spool, office: Arc<Office>) -> std::io::Result<Self> {
        let folders = Folders::of(config);
        folders.create()?;
        let poll = Duration::from_millis(config.poll_ms);
        Ok(Self {
            outgoing: Outgoing::new(folders.clone(), Arc::clone(&office), poll),
            incoming: Incoming::new(folders, office),
        })
    }

    /// Works until it is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self { outgoing, incoming } = self;
        let mut tasks = JoinSet::new();
        tasks.spawn(outgoing.run(stop.clone()));
        tasks.spawn(incoming.run(stop));
        while tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests;
