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
    sync::Arc,
};

use bytes::Bytes;

use super::{Maps, OrderedMap, Pair, RowChange};
use crate::error::MapError;

/// Also when nothing waits to be flushed: sled collects its garbage in no other place.
const FLUSH_EVERY_MS: u64 = 500;

/// Maps kept by sled.
#[derive(Debug, Clone, Copy)]
pub struct SledMaps {
    /// sled's page cache. Its own default is a gigabyte.
    pub cache_bytes: u64,
}

struct SledMap {
    db: sled::Db,
    folder: PathBuf,
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

impl Maps for SledMaps {
    fn open(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, MapError> {
        let config =
            sled::Config::new().path(folder).cache_capacity(self.cache_bytes).flush_every_ms(Some(FLUSH_EVERY_MS));
        let db = guarded("open", || config.open())?;
        Ok(Arc::new(SledMap { db, folder: folder.to_owned() }))
    }

    fn wipe(&self, folder: &Path) -> Result<(), MapError> {
        // Renamed first: after a panic sled may still hold its lock on the old files.
        let aside = folder.with_extension("broken");
        for step in [fs::remove_dir_all(&aside), fs::rename(folder, &aside), fs::remove_dir_all(&aside)] {
            match step {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(MapError(format!("wipe: {e}"))),
                _ => {}
            }
        }
        Ok(())
    }
}

impl OrderedMap for SledMap {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        guarded("get", || Ok(self.db.get(key)?.map(|value| Bytes::copy_from_slice(&value))))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        if from >= to {
            return Ok(Vec::new());
        }
        guarded("scan", || {
            let pairs = self.db.range::<&[u8], _>(from..to).take(limit);
            pairs.map(|pair| pair.map(|(key, value)| (key.to_vec(), Bytes::copy_from_slice(&value)))).collect()
        })
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = RowChange>) -> Result<(), MapError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value.as_ref()),
                None => batch.remove(key),
            }
        }
        guarded("apply", || self.db.apply_batch(batch))
    }

    fn flush(&self) -> Result<(), MapError> {
        guarded("flush", || self.db.flush().map(drop))?;
        // sled's own flush is no barrier: without this a power cut after a clean stop would take the rows and leave the marker.
        let synced =
            [self.folder.join("db"), self.folder.clone()].iter().try_for_each(|path| File::open(path)?.sync_all());
        synced.map_err(|e| MapError(format!("sync: {e}")))
    }
}
