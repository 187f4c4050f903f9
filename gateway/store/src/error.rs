//! What can go wrong, one enum for each caller: opening, reading, running.
//!
//! Knows: the words in which an operator reads it. Invariant: damage names its file and offset.

use std::{io, path::PathBuf, sync::Arc};

/// Bytes on the disk that are not what was written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at offset {offset}: {what}", file.display())]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process: stop that one first, or use another directory", .0.display())]
    InUse(PathBuf),
    /// Something that is not a store of ours.
    #[error("{} is not a store of this program: {what}", directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// Why.
        what: String,
    },
    /// Written by a newer program.
    #[error("{} has format version {found}, this program reads up to {known}: use the newer program", directory.display())]
    Newer {
        /// The directory.
        directory: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The store of another kind of node.
    #[error("{} is the store of `{found}`, not of `{wanted}`", directory.display())]
    OtherRole {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        wanted: String,
    },
    /// An option out of its bounds.
    #[error("option {option}: {what}")]
    Option {
        /// Which.
        option: &'static str,
        /// Its bounds.
        what: String,
    },
    /// The journal is damaged where it was acknowledged. Nothing is served; nothing was changed.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The disk.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The outbox cannot even be rebuilt.
    #[error(transparent)]
    Outbox(#[from] MapError),
}

/// Why something could not be read while the store runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Set aside and counted; never handed out altered.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The disk.
    #[error("cannot read {}: {what}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        what: String,
    },
    /// The outbox, after it was rebuilt once.
    #[error(transparent)]
    Outbox(#[from] MapError),
    /// No fact has this sequence.
    #[error("no fact has sequence {0}")]
    NoFact(u64),
    /// The content was erased when its message became final.
    #[error("the content of {0} was erased")]
    Erased(u64),
    /// The store is poisoned by a failed write.
    #[error("the store has failed")]
    Failed,
}

/// The ordered map behind the outbox failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the outbox's map failed: {0}")]
pub struct MapError(pub String);

/// A write or a sync failed: what is on the disk is unknown, so nothing more is written (a sync is never tried twice).
#[derive(Debug, Clone, thiserror::Error)]
#[error("the journal could not be written: {what}")]
pub struct Poisoned {
    /// What was tried, on which file.
    pub what: String,
    /// What the system said.
    #[source]
    pub source: Arc<io::Error>,
}
