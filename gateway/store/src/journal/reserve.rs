//! Room kept for the day on which the disk is full: segments made in advance, which only what ends something may use.
//!
//! What was accepted must be handed over and settled also when nothing new fits, because only settlement gives contents back to the
//! disk. So a settlement's room is kept from the moment at which something is accepted: one segment always, for what people and
//! certificates need (holds, redrives, key records), and more as more waits.
//!
//! Knows: how many segments are ready, how many must be, what waits. Never knows: which group is written. Invariants: a spare is of
//! the size of a segment, wholly reserved, and zeros; what is accepted leaves the reserve complete.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tramite_proto::pb::journal::v1::{Fact, Outcome, fact::Kind};

use super::zeros::first_byte_of;
use crate::disk::{Access, Disk};

/// The ending of a file that is kept for a segment to come.
pub(crate) const SPARE_ENDING: &str = "spare";
/// Kept for each thing that waits: its settlement with receipt and evidence, and the notice of it. Attempts that fail have no such bound,
/// so none is recorded from here (`judge`).
pub(crate) const EACH_BYTES: u64 = 2 * 1024;
/// Left on the disk for what else grows on it: the outbox in pieces of half a mebibyte, parts, logs.
const LEFT_BYTES: u64 = 2 * 1024 * 1024;
/// So many spares more than are needed are kept; those beyond go back to the disk.
const SURPLUS_MAX: usize = 1;

/// Segments made in advance.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    segment_bytes: u32,
    /// Numbers of the spares that are there, rising.
    spares: Vec<u64>,
    /// What waits in all queues, dead letters included.
    open: u64,
    /// The last look found too little room for anything new.
    tight: bool,
}

/// Whether a disk said that it is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Reserve {
    /// Takes in the spares that are there; those of another size, not wholly reserved, or not zeros are removed.
    pub(crate) fn open(disk: &Arc<dyn Disk>, folder: &Path, segment_bytes: u32) -> io::Result<Self> {
        let (disk, folder) = (Arc::clone(disk), folder.to_owned());
        let mut reserve = Self { disk, folder, segment_bytes, spares: Vec::new(), open: 0, tight: false };
        for name in reserve.disk.list(&reserve.folder)? {
            let Some(number) = number_of(&name) else { continue };
            let path = reserve.path(number);
            if reserve.is_sound(&path)? {
                reserve.spares.push(number);
            } else {
                tracing::warn!(file = %path.display(), "a spare segment is not as it was made: it is made anew");
                reserve.disk.remove(&path)?;
            }
        }
        Ok(reserve)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:016x}.{SPARE_ENDING}"))
    }

    fn is_sound(&self, path: &Path) -> io::Result<bool> {
        let file = self.disk.open(path, Access::Write)?;
        let size = u64::from(self.segment_bytes);
        if file.length()? != size || first_byte_of(file.as_ref(), 0, size)?.is_some() {
            return Ok(false);
        }
        match file.allocate(size) {
            Err(e) if is_full(&e) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Says what waits, as the outbox counts it when the store is opened.
    pub(crate) fn begin(&mut self, open: u64) {
        self.open = open;
    }

    /// Follows what a group did to what waits.
    pub(crate) fn follow(&mut self, facts: &[Fact]) {
        for fact in facts {
            let (more, less) = match &fact.kind {
                Some(Kind::Accepted(_)) => (1, 0),
                Some(Kind::Settled(settled)) => {
                    let ends = !matches!(settled.outcome(), Outcome::DeadLettered | Outcome::ReceiptAfterEnd);
                    (settled.notify.len() as u64, u64::from(ends))
                }
                Some(Kind::CaseExpired(expired)) => (expired.notify.len() as u64, 0),
                Some(Kind::AttemptFailed(_) | Kind::Redriven(_) | Kind::Recorded(_) | Kind::Retired(_)) | None => {
                    (0, 0)
                }
            };
            self.open = self.open.saturating_add(more).saturating_sub(less);
        }
    }

    /// Spares that there must be when `more` wait.
    fn needed(&self, more: u64) -> usize {
        let bytes = self.open.saturating_add(more).saturating_mul(EACH_BYTES);
        let spares = (bytes / u64::from(self.segment_bytes)).saturating_add(1);
        usize::try_from(spares).unwrap_or(usize::MAX)
    }

    /// Makes the reserve complete for `more` that wait, and one segment beyond it if the present one may not do. False: there is no
    /// room, and nothing new may be accepted.
    pub(crate) fn provide(&mut self, more: u64, next_too: bool) -> io::Result<bool> {
        let needed = self.needed(more).saturating_add(usize::from(next_too));
        while self.spares.len() < needed {
            match self.make() {
                Err(e) if is_full(&e) => {
                    self.now(true);
                    return Ok(false);
                }
                other => other?,
            }
        }
        if self.disk.room(&self.folder)? < LEFT_BYTES {
            self.now(true);
            return Ok(false);
        }
        while self.spares.len() > needed.saturating_add(SURPLUS_MAX) {
            if let Some(number) = self.spares.pop() {
                self.disk.remove(&self.path(number))?;
            }
        }
        self.now(false);
        Ok(true)
    }

    /// Says it once when room ends, and once when there is room again.
    fn now(&mut self, tight: bool) {
        let (was, folder) = (std::mem::replace(&mut self.tight, tight), self.folder.display());
        if tight && !was {
            tracing::error!(%folder, "the disk is full: nothing new is accepted until there is room; what waits is delivered and settled from the reserve");
        } else if was && !tight {
            tracing::info!(%folder, "the disk has room again: new messages are accepted");
        }
    }

    /// Whether the last look found too little room for anything new.
    pub(crate) fn is_tight(&self) -> bool {
        self.tight
    }

    fn make(&mut self) -> io::Result<()> {
        let number = self.spares.last().map_or(1, |last| last + 1);
        let path = self.path(number);
        // Without a sync: it is made durable when it becomes a segment, and made anew if a power cut takes it before.
        let made = self.disk.open(&path, Access::Create).and_then(|file| file.allocate(u64::from(self.segment_bytes)));
        if made.is_err() && self.disk.info(&path)?.is_some() {
            // On a full disk the reservation that failed must not keep what it got.
            self.disk.remove(&path)?;
        }
        made?;
        self.spares.push(number);
        Ok(())
    }

    /// Gives a spare away: from here on the file is the caller's.
    pub(crate) fn take(&mut self) -> Option<PathBuf> {
        let number = self.spares.pop()?;
        Some(self.path(number))
    }
}

/// The number in a spare's name.
fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SPARE_ENDING)?.strip_suffix('.')?;
    u64::from_str_radix(number, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskFile, RealDisk};

    const SIZE: u64 = 64 * 1024 * 1024;

    /// A file that is told apart from zeros without being read, up to some place.
    #[derive(Debug)]
    struct Unread(Arc<dyn DiskFile>, u64);

    impl DiskFile for Unread {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            assert!(offset >= self.1, "what was never written was read at {offset}");
            self.0.read_at(buffer, offset)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.0.write_at(bytes, offset)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }

        fn allocate(&self, length: u64) -> io::Result<()> {
            self.0.allocate(length)
        }

        fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
            self.0.punch(offset, length)
        }

        fn written_from(&self, offset: u64) -> io::Result<Option<u64>> {
            self.0.written_from(offset)
        }

        fn length(&self) -> io::Result<u64> {
            self.0.length()
        }
    }

    #[test]
    fn a_spare_that_was_never_written_is_not_read_and_one_that_was_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&folder.path().join("a.spare"), Access::Create).unwrap();
        file.allocate(SIZE).unwrap();
        if file.written_from(0).unwrap() == Some(0) {
            let what = "this file system does not tell what was written: every start reads the spare segments";
            assert!(std::env::var("TRAMITE_REQUIRE_ALL").as_deref() != Ok("1"), "{what}");
            return eprintln!("not checked: {what}");
        }
        let unread = |to| Unread(Arc::clone(&file), to);
        assert_eq!(first_byte_of(&unread(SIZE), 0, SIZE).unwrap(), None);
        file.write_at(&[1], SIZE / 2 + 5).unwrap();
        let near = SIZE / 2 - 1024 * 1024;
        assert_eq!(first_byte_of(&unread(near), 0, SIZE).unwrap(), Some(SIZE / 2 + 5));
        assert_eq!(first_byte_of(&unread(SIZE), 0, near).unwrap(), None, "it stands behind what is asked for");
        file.write_at(&[0], SIZE / 2 + 5).unwrap();
        assert_eq!(first_byte_of(&unread(near), 0, SIZE).unwrap(), None, "zeros that were written");
    }
}
