//! The disk, as far as the store needs one: the seam between the journal and the system.
//!
//! Knows: files by path, positioned reads and writes, the two barriers (`sync_data` for a file, `sync_dir` for names), holes, one
//! lock. Never knows: what the bytes mean. Invariants: a name is durable only after `sync_dir` of its folder, bytes only after
//! `sync_data`; whoever implements it may lose everything else in a power cut, and [`SimulatedDisk`] does.

use std::{fmt::Debug, io, path::Path, sync::Arc};

mod real;
mod simulated;

pub use real::RealDisk;
pub use simulated::{Faults, SimulatedDisk};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is there, and only read.
    Read,
    /// It is there, and written too.
    Write,
    /// It is made anew, for its owner's eyes only; one of that name is emptied.
    Create,
}

/// What a folder says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Bytes, holes counted.
    pub length: u64,
    /// Last written, unix milliseconds on the disk's own clock.
    pub modified_ms: i64,
}

/// Held until dropped: keeps other processes out of a directory.
pub trait Lock: Send + Sync + Debug {}

/// Files by path.
pub trait Disk: Send + Sync + Debug {
    /// Makes a folder and those above it, and their names durable.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names of the files (not the folders) in a folder, sorted; of one that is not there: none.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// What there is to know about a file, if it is there.
    fn info(&self, path: &Path) -> io::Result<Option<FileInfo>>;
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name; one of that name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes that may still be written into a folder.
    fn room(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    /// Takes the lock file at `path`; `None` when another process has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;
}

/// An open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Fills `buffer` from `offset`; past the end of the file it is filled with zeros.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves `length` bytes from the start, which read as zeros.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Writes zeros where nothing but reserved zeros stands, so that a later write there changes no record of the file's own: with
    /// those to sync, a sync of a few blocks takes about twice as long. May do nothing.
    fn prepare(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }
    /// Gives the bytes of a range back to the disk; they read as zeros. Where holes are not supported, zeros are written.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Where, from `offset` on, a byte may stand that is not zero; none: zeros stand up to the end. So that what is reserved and was
    /// never written need not be read. It may say too little.
    fn written_from(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
    /// Bytes, holes counted.
    fn length(&self) -> io::Result<u64>;
}

/// Reads the whole of a small file; `None` when it is not there.
pub(crate) fn read_small(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    /// Marks and markers are a few dozen bytes.
    const SMALL_BYTES_MAX: u64 = 64 * 1024;
    if disk.info(path)?.is_none() {
        return Ok(None);
    }
    let file = disk.open(path, Access::Read)?;
    let length = file.length()?;
    if length > SMALL_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than it can be"));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Replaces a small file durably: written beside it, synced, renamed, folder synced.
pub(crate) fn write_small(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let file = disk.open(&beside, Access::Create)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&beside, path)?;
    path.parent().map_or(Ok(()), |folder| disk.sync_dir(folder))
}
