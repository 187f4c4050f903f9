//! A part on its way out.
//!
//! Knows: the bytes so far, and what all of them must come to. Never knows: who gets them. Invariant: the last bytes of a part that a message
//! named come only when all of it is what was accepted.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;

use super::{PartError, blocking, damaged, interrupted};
use crate::disk::DiskFile;

/// Gives a part out. Its last bytes come only when all of them are what was accepted.
pub struct PartReader {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) offset: u64,
    pub(super) length: u64,
    /// None: no message named it, or it is away while bytes are read.
    pub(super) check: Option<Check>,
    pub(super) failed: bool,
}

/// What a part is held against while it is given out.
pub(super) struct Check {
    /// Of the bytes so far.
    pub(super) crc: u32,
    /// Of all, as they were when their digest was the one that was accepted.
    pub(super) whole: u32,
    pub(super) path: PathBuf,
}

impl std::fmt::Debug for PartReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartReader").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl PartReader {
    /// The whole part's length.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next up to `max` bytes; empty at the end.
    ///
    /// # Errors
    /// The disk, or the part is damaged.
    pub async fn next(&mut self, max: usize) -> Result<Bytes, PartError> {
        if self.failed {
            return Err(interrupted());
        }
        let left = usize::try_from(self.length.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(max)];
        if bytes.is_empty() {
            return Ok(Bytes::new());
        }
        let (file, at, end) = (Arc::clone(&self.file), self.offset, self.length);
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        let (check, is_last) = (self.check.take(), self.offset == end);
        // Also when this call is dropped halfway.
        self.failed = true;
        let (bytes, check) = blocking(move || {
            file.read_at(&mut bytes, at)?;
            let Some(mut check) = check else { return Ok((bytes, None)) };
            check.crc = crc32c::crc32c_append(check.crc, &bytes);
            if is_last && check.crc != check.whole {
                return Err(damaged(&check.path));
            }
            Ok((bytes, Some(check)))
        })
        .await?;
        (self.check, self.failed) = (check, false);
        Ok(Bytes::from(bytes))
    }
}
