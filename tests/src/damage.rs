//! Damage to the journal of a node that does not run.
//!
//! Knows how a group begins (`TRMG`) and that groups stand at multiples of 8. Never knows what is in one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// How a group begins.
const MAGIC: &[u8] = b"TRMG";
/// The beginning of a group that never got its end: a right magic, a header that could be one, and noise.
const TORN: &[u8; 24] = b"TRMG\x40\0\0\0\x10\0\0\0\x01\0\0\0torn!!!!";
const ALIGNMENT: usize = 8;

/// A tail that no group ends.
#[derive(Debug)]
pub struct Tail {
    /// The segment.
    pub file: PathBuf,
    /// Where it begins.
    pub offset: usize,
    /// How long it is.
    pub bytes: usize,
}

/// The first segment in a store's folder.
///
/// # Errors
/// When there is none.
pub fn segment(store: &Path) -> Result<PathBuf> {
    let journal = store.join("journal");
    let mut segments: Vec<PathBuf> = fs::read_dir(&journal)?.flatten().map(|entry| entry.path()).collect();
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
    segments.sort();
    segments.into_iter().next().context("a segment")
}

/// Where the groups of a segment begin.
#[must_use]
pub fn groups(segment: &[u8]) -> Vec<usize> {
    memchr::memmem::find_iter(segment, MAGIC).collect()
}

/// What a power cut in the middle of a write leaves behind the last group.
///
/// # Errors
/// When the segment cannot be read or written, or has no room.
pub fn tear(segment: PathBuf) -> Result<Tail> {
    let mut bytes = fs::read(&segment)?;
    let last = bytes.iter().rposition(|byte| *byte != 0).context("an empty segment")?;
    let offset = (last / ALIGNMENT + 1) * ALIGNMENT;
    bytes.get_mut(offset..offset + TORN.len()).context("a full segment")?.copy_from_slice(TORN);
    fs::write(&segment, bytes)?;
    Ok(Tail { file: segment, offset, bytes: TORN.len() })
}
