//! Guards taken out, one at a time, to show that the simulation sees what they prevent: a disk that says a sync was done and does
//! nothing, or only of attachments, and a recipient that does not remember what it has taken.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tramite_store::{
    MapError,
    disk::{Access, Disk, DiskFile, FileInfo, Lock, SimulatedDisk},
    map::{Maps, OrderedMap, Pair, RowChange},
};

/// Which guard is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Without {
    /// None: the product as it is.
    Nothing,
    /// `fdatasync`, everywhere.
    Sync,
    /// The syncs of attachments' parts and of their folder.
    Parts,
    /// The adapters' memory of the ids that they took.
    Dedupe,
}

/// A disk that lies.
#[derive(Debug)]
pub(crate) struct Lying(pub(crate) SimulatedDisk, pub(crate) Without);

/// Its first sync, which makes a new file's header durable, is an honest one, and the journal's mark of how far it was synced never comes
/// to the disk again: a store that finds less than its mark says would refuse to open, and could lose nothing any more.
#[derive(Debug)]
struct LyingFile {
    file: Arc<dyn DiskFile>,
    new: AtomicBool,
    mark: bool,
    honest: bool,
}

impl Lying {
    /// Whether what this folder holds is synced as it should be.
    fn is_honest_in(&self, folder: Option<&Path>) -> bool {
        self.1 == Without::Parts && !folder.is_some_and(|folder| folder.ends_with("parts"))
    }
}

impl Disk for Lying {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.list(path)
    }

    fn info(&self, path: &Path) -> io::Result<Option<FileInfo>> {
        self.0.info(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let (file, honest) = (self.0.open(path, access)?, self.is_honest_in(path.parent()));
        let new = AtomicBool::new(access == Access::Create && self.1 == Without::Sync);
        let mark = !honest && path.file_name().is_some_and(|name| name == "synced");
        Ok(Arc::new(LyingFile { file, new, mark, honest }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.1 == Without::Sync || self.is_honest_in(Some(path)) { self.0.sync_dir(path) } else { Ok(()) }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.0.lock(path)
    }
}

impl DiskFile for LyingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.mark { Ok(()) } else { self.file.write_at(bytes, offset) }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.honest || self.new.swap(false, Ordering::SeqCst) { self.file.sync_data() } else { Ok(()) }
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.allocate(length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.file.punch(offset, length)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

/// Maps that find no message again that came from another institution. The letter is that of the outbox's rows of ids.
#[derive(Debug)]
pub(crate) struct Forgetful(pub(crate) Arc<dyn Maps>);

/// What of such a row tells the own messages: they were asked for under a request id.
#[derive(Clone, PartialEq, prost::Message)]
struct IdRow {
    #[prost(string, tag = "8")]
    request_id: String,
}

#[derive(Debug)]
struct ForgetfulMap(Arc<dyn OrderedMap>);

impl Maps for Forgetful {
    fn open(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, MapError> {
        Ok(Arc::new(ForgetfulMap(self.0.open(folder)?)))
    }

    fn wipe(&self, folder: &Path) -> Result<(), MapError> {
        self.0.wipe(folder)
    }
}

impl OrderedMap for ForgetfulMap {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        let value = self.0.get(key)?;
        let own = |row: &Bytes| IdRow::decode(row.clone()).is_ok_and(|row| !row.request_id.is_empty());
        Ok(value.filter(|row| !key.starts_with(b"i") || own(row)))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        self.0.scan(from, to, limit)
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = RowChange>) -> Result<(), MapError> {
        self.0.apply(changes)
    }

    fn flush(&self) -> Result<(), MapError> {
        self.0.flush()
    }
}
