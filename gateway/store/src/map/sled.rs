//! sled 0.34.7 as the outbox's map: pinned, one tree, every call behind `catch_unwind`.
//!
//! Knows: that sled reports some damage by panicking, on its own threads too, and that its `flush` is no barrier against a power
//! cut; neither matters, because the journal is the truth. A panic becomes a [`MapError`], and the store rebuilds.

use std::{
    fmt,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use super::{Key, Maps, OrderedMap, Pair, RowChange};
use crate::{
    error::{MapError, OpenError},
    scratch,
};

/// Also when nothing waits to be flushed: sled collects its garbage in no other place.
const FLUSH_EVERY_MS: u64 = 500;
/// sled's threads have so long to let go of its file; otherwise the stop is not clean.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Maps kept by sled.
#[derive(Debug, Clone, Copy)]
pub struct SledMaps {
    /// sled's page cache. Its own default is a gigabyte.
    pub cache_bytes: u64,
}

struct SledMap {
    /// None: closed.
    db: RwLock<Option<sled::Db>>,
    folder: PathBuf,
    /// What a copy stands in: it goes with this map.
    _copy: Option<TempDir>,
}

impl fmt::Debug for SledMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SledMap")
    }
}

/// Runs a call into sled; an error or a panic becomes a `MapError`.
fn guarded<T>(what: &str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, MapError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(MapError(format!("{what}: {e}"))),
        Err(_) => Err(MapError(format!("{what}: sled panicked"))),
    }
}

impl SledMaps {
    fn open_in(&self, folder: &Path, copy: Option<TempDir>) -> Result<Arc<dyn OrderedMap>, MapError> {
        let config =
            sled::Config::new().path(folder).cache_capacity(self.cache_bytes).flush_every_ms(Some(FLUSH_EVERY_MS));
        let db = guarded("open", || config.open())?;
        Ok(Arc::new(SledMap { db: RwLock::new(Some(db)), folder: folder.to_owned(), _copy: copy }))
    }
}

/// Waits until no thread of sled has the file any more: one that ended its work may hold it, and its lock, a moment longer.
fn wait_until_free(file: &Path) -> io::Result<()> {
    let file = File::open(file)?;
    let (done, ended) = mpsc::channel();
    let wait = move || {
        let locked = flock(&file, FlockOperation::LockExclusive).map_err(io::Error::from);
        // With it goes this lock, before anybody is told.
        drop(file);
        drop(done.send(locked));
    };
    thread::Builder::new().name("tramite-outbox-close".into()).spawn(wait)?;
    match ended.recv_timeout(CLOSE_MAX) {
        Ok(locked) => locked,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

/// Removes a folder, if it is there.
fn remove_all(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Copies what is sled's: not the files of rows beside it.
fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let (path, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if path.extension().is_some_and(|extension| extension == super::runs::EXTENSION) {
            continue;
        }
        if path.is_dir() { copy_all(&path, &target)? } else { fs::copy(&path, &target).map(drop)? }
    }
    Ok(())
}

impl SledMap {
    fn sync(&self) -> Result<(), MapError> {
        let synced =
            [self.folder.join("db"), self.folder.clone()].iter().try_for_each(|path| File::open(path)?.sync_all());
        synced.map_err(|e| MapError(format!("sync: {e}")))
    }

    /// A call on the map, unless it is closed.
    fn asked<T>(&self, what: &str, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, MapError> {
        match self.db.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(db) => guarded(what, || call(db)),
            None => Err(MapError(format!("{what}: it is closed"))),
        }
    }
}

impl Maps for SledMaps {
    fn open(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, MapError> {
        self.open_in(folder, None)
    }

    /// sled writes when it only opens, so a copy is opened.
    fn open_copy(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, OpenError> {
        let temporary = scratch::folder()?;
        let copy = temporary.path().join("outbox");
        copy_all(folder, &copy).map_err(|e| match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => scratch::failed(e),
            // What cannot be read of it says as little as what does not add up.
            _ => MapError(format!("copy: {e}")).into(),
        })?;
        Ok(self.open_in(&copy, Some(temporary))?)
    }

    fn wipe(&self, folder: &Path) -> Result<(), MapError> {
        // Renamed first: after a panic sled may still hold its lock on the old files.
        let aside = folder.with_extension("broken");
        let renamed = remove_all(&aside).and_then(|()| match fs::rename(folder, &aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        });
        renamed.and_then(|()| remove_all(&aside)).map_err(|e| MapError(format!("wipe: {e}")))
    }
}

impl OrderedMap for SledMap {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        self.asked("get", |db| Ok(db.get(key)?.map(|value| Bytes::copy_from_slice(&value))))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.asked("scan", |db| {
            let pairs = db.range::<&[u8], _>(from..to).take(limit);
            pairs.map(|pair| pair.map(|(key, value)| (Key::from_slice(&key), Bytes::copy_from_slice(&value)))).collect()
        })
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = RowChange>) -> Result<(), MapError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_ref()),
                None => batch.remove(key.as_slice()),
            }
        }
        self.asked("apply", |db| db.apply_batch(batch))
    }

    /// sled goes on tidying up its file as long as it is open.
    fn close(&self) -> Result<(), MapError> {
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        guarded("close", || {
            drop(db);
            Ok(())
        })?;
        let file = self.folder.join("db");
        wait_until_free(&file).map_err(|e| MapError(format!("close {}: {e}", file.display())))?;
        self.sync()
    }

    fn flush(&self) -> Result<(), MapError> {
        self.asked("flush", |db| db.flush().map(drop))?;
        // sled's own flush is no barrier: without this a power cut after a clean stop would take the rows and leave the marker.
        self.sync()
    }
}
