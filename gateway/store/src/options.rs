//! How a store is opened: its options, its seams, and what opening found.
//!
//! Knows: the limits that are a choice, with their bounds. Never knows: how recovery works.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use tramite_proto::clock::Clock;

use crate::{
    change::Notary,
    disk::{Disk, RealDisk},
    error::OpenError,
    map::{Maps, RunMaps, SledMaps},
    rows,
};

/// Below this a segment would hold less than one frame.
pub(crate) const SEGMENT_BYTES_MIN: u32 = 1024 * 1024;
/// Offsets in a segment are 32 bits, and a group may still follow.
pub(crate) const SEGMENT_BYTES_MAX: u32 = 1024 * 1024 * 1024;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// sled's page cache: it has the root only, some thousand rows.
const OUTBOX_CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// The outbox on the system's disk.
pub(crate) fn real_maps() -> RunMaps {
    RunMaps { root: Arc::new(SledMaps { cache_bytes: OUTBOX_CACHE_BYTES }), shape: rows::SHAPE }
}

/// What can be chosen.
#[derive(Debug, Clone)]
pub struct Options {
    /// The store's own directory; made when missing.
    pub directory: PathBuf,
    /// Which kind of node it belongs to: `gateway`, `adapter:inps`. A directory of another role is refused.
    pub role: String,
    /// Size of a journal segment, 1 MiB to 1 GiB.
    pub segment_bytes: u32,
    /// How many may wait in one queue; more are refused as `Full`.
    pub queue_max: u64,
    /// Bytes of contents that some issuers (`Accepted.return_to`) may have waiting, dead letters included; more are refused as `OverQuota`.
    /// Others have no bound.
    pub quotas: HashMap<String, u64>,
    /// Memory for facts and contents that were accepted lately, so that most deliveries read no disk.
    pub recent_bytes: usize,
    /// A case that has ended, and all its facts, go so long after the last of them; none: they stay. Whole days.
    pub retention_ms: Option<i64>,
}

impl Options {
    /// Defaults: segments of 64 MiB, 10 million in a queue, 64 MiB of recent messages, facts stay.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, role: impl Into<String>) -> Self {
        Self {
            directory: directory.into(),
            role: role.into(),
            segment_bytes: 64 * 1024 * 1024,
            queue_max: 10_000_000,
            quotas: HashMap::new(),
            recent_bytes: 64 * 1024 * 1024,
            retention_ms: None,
        }
    }

    /// So many days after its last fact a case that has ended goes; 0: never.
    pub fn retention(&mut self, days: u32) {
        self.retention_ms = (days > 0).then(|| i64::from(days) * DAY_MS);
    }

    /// # Errors
    /// Names the option that is out of its bounds.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            let what = format!("{} bytes, must be {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}", self.segment_bytes);
            return Err(OpenError::Option { option: "segment_bytes", what });
        }
        if self.role.is_empty() || self.role.len() > 100 || self.role.contains(|c: char| c.is_control() || c == '"') {
            return Err(OpenError::Option { option: "role", what: "1 to 100 plain characters".into() });
        }
        Ok(())
    }
}

/// What the store is given: disk, ordered map, time, signer, and the id of a new store.
#[derive(Debug, Clone)]
pub struct Seams {
    /// Where the journal and the parts are.
    pub disk: Arc<dyn Disk>,
    /// What the outbox is kept in.
    pub maps: Arc<dyn Maps>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who signs.
    pub notary: Arc<dyn Notary>,
    /// Random; the id of the store when the directory is new.
    pub store_id: [u8; 16],
}

impl Seams {
    /// The system's disk and sled.
    #[must_use]
    pub fn real(clock: Arc<dyn Clock>, notary: Arc<dyn Notary>) -> Self {
        let mut store_id = [0; 16];
        // An id of zeros only weakens the check that a segment was not copied from another store.
        if aws_lc_rs::rand::fill(&mut store_id).is_err() {
            tracing::warn!("no randomness for the store's id");
        }
        Self { disk: Arc::new(RealDisk), maps: Arc::new(real_maps()), clock, notary, store_id }
    }
}

/// A tail that was never acknowledged, and is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub file: PathBuf,
    /// From where.
    pub offset: u64,
    /// Up to the last byte that was not zero.
    pub bytes: u64,
}

/// What opening found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The store was made just now.
    pub created: bool,
    /// The torn tail that was cut.
    pub cut: Option<Cut>,
    /// Why the outbox was rebuilt from the journal.
    pub rebuilt: Option<String>,
    /// The last durable sequence.
    pub sequence: u64,
    /// `at_ms` of the last fact, for people. 0: no fact yet.
    pub last_ms: i64,
}
