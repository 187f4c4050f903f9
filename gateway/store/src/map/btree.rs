//! Maps in memory, for simulation and tests: kept by folder as long as the [`MemoryMaps`] lives, so that a reopened store finds
//! its rows again, all of them or, after [`MemoryMaps::lose_last`], those of the batch before; and that fail where they are told to.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
};

use bytes::Bytes;

use super::{Key, Maps, OrderedMap, Pair, RowChange};
use crate::error::MapError;

/// Maps in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryMaps {
    maps: Arc<Mutex<BTreeMap<PathBuf, Arc<MemoryMap>>>>,
    faults: Faults,
}

#[derive(Debug, Clone, Default)]
struct Faults {
    /// The letter of the rows that cannot be read; 0: all can.
    spoiled: Arc<AtomicU8>,
    /// The letter of the rows that are not found; 0: all are.
    hidden: Arc<AtomicU8>,
}

impl Faults {
    fn check(&self, key: &[u8]) -> Result<(), MapError> {
        match self.spoiled.load(Ordering::SeqCst) {
            0 => Ok(()),
            letter if key.first().is_some_and(|first| *first != letter) => Ok(()),
            _ => Err(MapError("simulated read error".into())),
        }
    }

    fn shows(&self, key: &[u8]) -> bool {
        let hidden = self.hidden.load(Ordering::SeqCst);
        hidden == 0 || key.first().is_none_or(|first| *first != hidden)
    }
}

type Rows = (BTreeMap<Key, Bytes>, Undo);
/// What undoes the last batch.
type Undo = Vec<RowChange>;

/// One map in memory.
#[derive(Debug)]
pub(crate) struct MemoryMap {
    rows: RwLock<Rows>,
    /// It takes no further rows beyond so many.
    rows_max: usize,
    faults: Faults,
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::bounded(usize::MAX)
    }
}

impl MemoryMap {
    /// An empty map for up to so many rows.
    pub(crate) fn bounded(rows_max: usize) -> Self {
        Self { rows: RwLock::default(), rows_max, faults: Faults::default() }
    }
}

impl MemoryMaps {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a kill may do to an engine that writes out a moment later: the last batch of each map is undone.
    pub fn lose_last(&self) {
        for map in self.locked().values() {
            let mut locked = map.rows.write().unwrap_or_else(PoisonError::into_inner);
            let (rows, undo) = &mut *locked;
            for (key, value) in undo.drain(..) {
                set(rows, key, value);
            }
        }
    }

    /// From here on reading rows of that kind (its letter: see the store's `rows`) fails, and so does making the map anew.
    pub fn spoil(&self, letter: u8) {
        self.faults.spoiled.store(letter, Ordering::SeqCst);
    }

    /// From here on rows of that kind are not found by whoever looks for them, as if they were not there.
    pub fn hide(&self, letter: u8) {
        self.faults.hidden.store(letter, Ordering::SeqCst);
    }

    /// Every row can be read again.
    pub fn mend(&self) {
        self.faults.spoiled.store(0, Ordering::SeqCst);
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<MemoryMap>>> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets or removes a row. Returns what was there.
fn set(rows: &mut BTreeMap<Key, Bytes>, key: Key, value: Option<Bytes>) -> Option<Bytes> {
    match value {
        Some(value) => rows.insert(key, value),
        None => rows.remove(&key),
    }
}

impl Maps for MemoryMaps {
    fn open(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, MapError> {
        let make = || Arc::new(MemoryMap { faults: self.faults.clone(), ..MemoryMap::default() });
        Ok(Arc::<MemoryMap>::clone(self.locked().entry(folder.to_owned()).or_insert_with(make)))
    }

    fn wipe(&self, folder: &Path) -> Result<(), MapError> {
        self.faults.check(&[])?;
        self.locked().remove(folder);
        Ok(())
    }
}

impl OrderedMap for MemoryMap {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        self.faults.check(key)?;
        Ok(self
            .rows
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .get(key)
            .filter(|_| self.faults.shows(key))
            .cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.faults.check(from)?;
        let locked = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let range = locked.0.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)));
        let shown = range.filter(|(key, _)| self.faults.shows(key));
        Ok(shown.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = RowChange>) -> Result<(), MapError> {
        let mut locked = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let (rows, undo) = &mut *locked;
        if rows.len() > self.rows_max {
            return Err(MapError(format!("more than {} rows, for which there is no memory", self.rows_max)));
        }
        undo.clear();
        for (key, value) in changes {
            let before = set(rows, key.clone(), value);
            undo.push((key, before));
        }
        Ok(())
    }

    fn is_whole(&self) -> Result<bool, MapError> {
        Ok(true)
    }

    fn flush(&self) -> Result<(), MapError> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner).1.clear();
        Ok(())
    }
}
