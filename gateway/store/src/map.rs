//! The ordered map behind the outbox: the seam between rows and the engine that keeps them.
//!
//! Knows: point reads, ordered scans, batches that are applied wholly or not at all. Never knows: what a key means. Durability is
//! not asked of it, only that it can say whether something is missing: what it loses or damages is rebuilt from the journal.

use std::{fmt::Debug, path::Path, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

mod btree;
mod none;
mod runs;
mod sled;

pub(crate) use self::{btree::MemoryMap, none::NoMap};
pub use self::{
    btree::MemoryMaps,
    runs::{RunMaps, Shape},
    sled::SledMaps,
};
use crate::error::{MapError, OpenError};

/// A key: those of up to so many bytes, which are nearly all, stand in place.
pub type Key = SmallVec<[u8; 48]>;

/// A key and its value.
pub type Pair = (Key, Bytes);

/// One change to a row: its new value, or none when it is removed.
pub type RowChange = (Key, Option<Bytes>);

/// An ordered map of rows.
pub trait OrderedMap: Send + Sync + Debug {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError>;
    /// Up to `limit` pairs with `from <= key < to`, in order.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError>;
    /// Applies all changes or none.
    fn apply(&self, changes: &mut dyn Iterator<Item = RowChange>) -> Result<(), MapError>;
    /// Whether all rows of the last batch that it shows are there, and of no later one, also after a kill or power cut. One that
    /// cannot tell says no.
    fn is_whole(&self) -> Result<bool, MapError> {
        Ok(false)
    }
    /// Does some of the work that keeps reading cheap, beside reading and applying; true: there may be more of it.
    fn tidy(&self) -> Result<bool, MapError> {
        Ok(false)
    }
    /// Hands what was applied to the system, durably; needed for a clean stop, and before facts are swept.
    fn flush(&self) -> Result<(), MapError>;
    /// Lets go of its files: nothing writes them from here on, and what is asked later may fail.
    fn close(&self) -> Result<(), MapError> {
        Ok(())
    }
}

/// Opens and removes maps.
pub trait Maps: Send + Sync + Debug {
    /// Opens the map in `folder`, or makes an empty one.
    fn open(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, MapError>;
    /// Opens the map in `folder` to read it and leave it as it is.
    fn open_copy(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, OpenError> {
        Ok(self.open(folder)?)
    }
    /// Removes the map in `folder`, if there is one. It may still be open somewhere, as after a panic.
    fn wipe(&self, folder: &Path) -> Result<(), MapError>;
}
