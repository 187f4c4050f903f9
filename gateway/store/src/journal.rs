//! The journal: append-only segments of facts, with contents behind them that can be erased. The truth of the store.
//!
//! Knows: which segments there are, where in them a sequence is, and how to read and check it. Never knows: rows, queues, leases.
//! Invariants: nothing beyond `durable` is ever read out; a fact that is given out checked; damage names file and offset. The
//! index is sparse and in memory, because rows and proofs name sequences, never offsets.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

mod append;
mod batches;
mod compact;
mod erase;
mod find;
mod format;
mod packed;
mod recover;
mod reserve;
mod segment;
mod zeros;

pub(crate) use append::{AppendError, JournalWriter};
pub(crate) use compact::{PACKED_ENDING, Stopped};
pub(crate) use find::check_mark;
pub(crate) use format::{Place, content_of};
pub(crate) use recover::{
    Inspected, Opened, Reading, check_rest, check_spares, inspect, inspect_unmarked, io_failed, last_size, open,
    read_failed,
};
pub(crate) use reserve::SPARE_ENDING;
pub(crate) use segment::{Group, Placed, Segment, segment_path};

use crate::{
    disk::{Access, Disk, DiskFile},
    error::ReadError,
};
use erase::Erasing;
use format::PlacedFact;
use segment::{Found, group_in, place_in, read_content};

/// Groups kept decoded for readers that go through them fact by fact.
const CACHED_GROUPS_MAX: usize = 8;

/// The reading side, shared by all.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    store_id: [u8; 16],
    segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    cache: Mutex<VecDeque<Arc<Group>>>,
    durable: AtomicU64,
    erasing: Mutex<Erasing>,
    /// Held while what was erased is made durable.
    syncing: Mutex<()>,
    /// Held while contents are erased or a packed segment takes the place of others: either sees the other's work whole.
    reshaping: Mutex<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: PathBuf, store_id: [u8; 16]) -> Self {
        Self {
            disk,
            folder,
            store_id,
            segments: RwLock::default(),
            cache: Mutex::default(),
            durable: AtomicU64::new(0),
            erasing: Mutex::default(),
            syncing: Mutex::default(),
            reshaping: Mutex::default(),
        }
    }

    /// The last durable sequence; 0: none.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    fn set_durable(&self, sequence: u64) {
        self.durable.store(sequence, Ordering::Release);
    }

    fn add_segment(&self, segment: Arc<Segment>) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(segment.first, segment);
    }

    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn segment_of(&self, sequence: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.range(..=sequence).next_back().map(|(_, segment)| Arc::clone(segment))
    }

    pub(crate) fn open_segment(&self, segment: &Segment, access: Access) -> Result<Arc<dyn DiskFile>, ReadError> {
        self.disk.open(&segment.path, access).map_err(|e| io_error(&segment.path, &e))
    }

    /// The group that covers a durable sequence, whether it still has it or not.
    pub(crate) fn group(&self, sequence: u64) -> Result<Arc<Group>, ReadError> {
        if sequence == 0 || sequence > self.durable() {
            return Err(ReadError::NoFact(sequence));
        }
        if let Some(group) = locked(&self.cache).iter().find(|group| group.holds(sequence)) {
            return Ok(Arc::clone(group));
        }
        self.group_on_disk(sequence)
    }

    fn group_on_disk(&self, sequence: u64) -> Result<Arc<Group>, ReadError> {
        self.in_segment(sequence, Access::Read, |segment, file| {
            let group = Arc::new(group_in(segment, file, sequence)?);
            let mut cache = locked(&self.cache);
            // One that was replaced meanwhile must not be remembered.
            if self.is_current(segment) {
                cache.truncate(CACHED_GROUPS_MAX - 1);
                cache.push_front(Arc::clone(&group));
            }
            Ok(group)
        })
    }

    /// Does something with the segment that covers a sequence, once more if that was packed meanwhile.
    fn in_segment<T>(
        &self,
        sequence: u64,
        access: Access,
        work: impl Fn(&Segment, &dyn DiskFile) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        loop {
            let segment = self.segment_of(sequence).ok_or(ReadError::NoFact(sequence))?;
            let done = self.open_segment(&segment, access).and_then(|file| work(&segment, file.as_ref()));
            if done.is_ok() || self.is_current(&segment) {
                return done;
            }
        }
    }

    fn is_current(&self, segment: &Segment) -> bool {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.get(&segment.first).is_some_and(|now| std::ptr::eq(Arc::as_ptr(now), segment))
    }

    /// A durable fact and the place of its content. One that retention took is no fact any more.
    pub(crate) fn fact(&self, sequence: u64) -> Result<PlacedFact, ReadError> {
        let group = self.group(sequence)?;
        let placed = group.fact(sequence).ok_or(ReadError::NoFact(sequence))?;
        Ok((Arc::clone(&placed.fact), placed.place))
    }

    /// The content at a place, checked.
    pub(crate) fn content(&self, sequence: u64, place: Place) -> Result<Bytes, ReadError> {
        self.in_segment(sequence, Access::Read, |segment, file| {
            let place = if segment.has(place) { Some(place) } else { place_in(segment, file, sequence)? };
            read_content(segment, file, sequence, place.ok_or(ReadError::Erased(sequence))?)
        })
    }

    /// Checks the bytes between the end of a group and the next one, which nothing reads: they are zeros.
    pub(crate) fn check_padding(&self, group: &Group) -> Result<(), ReadError> {
        let (sequence, from) = (group.span.first, group.span.contents_end);
        let segment = self.segment_of(sequence).ok_or(ReadError::NoFact(sequence))?;
        let mut bytes = [0; format::ALIGNMENT];
        let length = usize::try_from(group.span.length.saturating_sub(from)).unwrap_or(0);
        let (padding, _) = bytes.split_at_mut(length.min(format::ALIGNMENT));
        let file = self.open_segment(&segment, Access::Read)?;
        let at = group.offset.saturating_add(from);
        file.read_at(padding, at).map_err(|e| io_error(&segment.path, &e))?;
        match padding.iter().position(|byte| *byte != 0) {
            Some(i) => Err(segment.damage(at.saturating_add(i as u64), "bytes stand between two groups").into()),
            None => Ok(()),
        }
    }

    /// Bytes that may still be written into a folder. What cannot be asked is no want of room.
    pub(crate) fn room(&self, folder: &Path) -> u64 {
        self.disk.room(folder).unwrap_or(u64::MAX)
    }

    /// Bytes of the files in a folder.
    pub(crate) fn size_of(&self, folder: &Path) -> u64 {
        let names = self.disk.list(folder).unwrap_or_default();
        let lengths = names.iter().filter_map(|name| self.disk.info(&folder.join(name)).ok().flatten());
        lengths.map(|info| info.length).sum()
    }

    /// The file in which a sequence stands, or would.
    pub(crate) fn path_of(&self, sequence: u64) -> PathBuf {
        self.segment_of(sequence).map_or_else(|| self.folder.clone(), |segment| segment.path.clone())
    }

    /// The size that a segment's header says.
    pub(crate) fn size_at(&self, path: &Path) -> Option<u64> {
        self.segments().iter().find(|segment| segment.is_at(path)).map(|segment| segment.size)
    }

    /// Bytes in all segments, holes counted.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.size).sum()
    }
}

pub(crate) fn io_error(file: &Path, e: &std::io::Error) -> ReadError {
    ReadError::Io { file: file.to_owned(), what: e.to_string() }
}

#[cfg(test)]
mod tests;
