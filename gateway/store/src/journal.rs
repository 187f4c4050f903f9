//! The journal: append-only segments of facts, with contents behind them that can be erased. The truth of the store.
//!
//! Knows: which segments there are, where in them a sequence is, and how to read and check it. Never knows: rows, queues, leases.
//! Invariants: nothing beyond `durable` is ever read out; a fact that is given out checked; damage names file and offset. The
//! index is sparse and in memory, because rows and proofs name sequences, never offsets.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

mod append;
mod batches;
mod format;
mod recover;
mod reserve;

pub(crate) use append::{AppendError, JournalWriter};
pub(crate) use format::{GroupHeader, Place};
pub(crate) use recover::{
    Inspected, Opened, Reading, check_rest, check_spares, inspect, io_failed, last_size, open, read_failed,
};
pub(crate) use reserve::SPARE_ENDING;

use crate::{
    disk::{Access, Disk, DiskFile},
    error::{Damage, Poisoned, ReadError},
};
use format::{GROUP_HEADER_BYTES, PlacedFact, SEGMENT_HEADER_BYTES, decode_facts, seed_of};

/// One index entry for so many bytes of a segment: 1,024 entries for 64 MiB.
const INDEX_EVERY_BYTES: u64 = 64 * 1024;
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
    /// Segments with holes that no sync has covered yet.
    punched: Mutex<BTreeSet<u64>>,
}

/// One segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    first: u64,
    path: PathBuf,
    size: u64,
    /// Where the checksums of its groups begin.
    seed: u32,
    index: Mutex<Index>,
}

/// Where some of a segment's groups begin: (first sequence, offset), rising.
#[derive(Debug, Default)]
struct Index {
    entries: Vec<(u64, u64)>,
    complete: bool,
}

/// A group, read and checked.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) header: GroupHeader,
    pub(crate) offset: u64,
    pub(crate) facts: Vec<PlacedFact>,
}

/// What stands at an offset.
pub(crate) enum Found {
    Group(Group),
    /// 40 zeros, or too little room for a group.
    Nothing,
    Bad(&'static str),
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:016x}.seg"))
}

impl Segment {
    pub(crate) fn new(folder: &Path, store_id: &[u8; 16], first: u64, size: u64) -> Self {
        Self { first, path: segment_path(folder, first), size, seed: seed_of(store_id), index: Mutex::default() }
    }

    /// From here on the index has every group, as each is noted.
    fn set_indexed(&self) {
        locked(&self.index).complete = true;
    }

    pub(crate) fn damage(&self, offset: u64, what: &str) -> Damage {
        Damage { file: self.path.clone(), offset, what: what.to_owned() }
    }

    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.path == path
    }

    /// Notes where a group begins; groups come in order.
    fn note(&self, first_sequence: u64, offset: u64) {
        let mut index = locked(&self.index);
        let last = index.entries.last().map(|(_, offset)| *offset);
        if last.is_none_or(|last| offset >= last.saturating_add(INDEX_EVERY_BYTES)) {
            index.entries.push((first_sequence, offset));
        }
    }

    /// Reads and checks what stands at `offset`.
    pub(crate) fn read(&self, file: &dyn DiskFile, offset: u64) -> std::io::Result<Found> {
        let header = match self.header(file, offset)? {
            Err(found) => return Ok(found),
            Ok(header) => header,
        };
        let mut facts = vec![0; header.facts_length as usize];
        file.read_at(&mut facts, offset + GROUP_HEADER_BYTES as u64)?;
        if crc32c::crc32c_append(self.seed, &facts) != header.facts_crc {
            return Ok(Found::Bad("the checksum of the facts is wrong"));
        }
        Ok(match decode_facts(&header, Bytes::from(facts), self.first, offset) {
            Ok(facts) => Found::Group(Group { header, offset, facts }),
            Err(what) => Found::Bad(what),
        })
    }

    fn header(&self, file: &dyn DiskFile, offset: u64) -> std::io::Result<Result<GroupHeader, Found>> {
        if offset.saturating_add(GROUP_HEADER_BYTES as u64) > self.size {
            return Ok(Err(Found::Nothing));
        }
        let mut bytes = [0; GROUP_HEADER_BYTES];
        file.read_at(&mut bytes, offset)?;
        if bytes == [0; GROUP_HEADER_BYTES] {
            return Ok(Err(Found::Nothing));
        }
        Ok(match GroupHeader::decode(&bytes, self.seed) {
            Ok(header) if offset.saturating_add(header.length()) > self.size => {
                Err(Found::Bad("the group is longer than its segment"))
            }
            Ok(header) => Ok(header),
            Err(what) => Err(Found::Bad(what)),
        })
    }
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
            punched: Mutex::default(),
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

    /// The group that holds a durable sequence.
    pub(crate) fn group(&self, sequence: u64) -> Result<Arc<Group>, ReadError> {
        if sequence == 0 || sequence > self.durable() {
            return Err(ReadError::NoFact(sequence));
        }
        let holds = |group: &Group| (group.header.first_sequence..group.header.next_sequence()).contains(&sequence);
        if let Some(group) = locked(&self.cache).iter().find(|group| holds(group)) {
            return Ok(Arc::clone(group));
        }
        let segment = self.segment_of(sequence).ok_or(ReadError::NoFact(sequence))?;
        let file = self.open_segment(&segment, Access::Read)?;
        let offset = locate(&segment, file.as_ref(), sequence)?;
        let group = match segment.read(file.as_ref(), offset).map_err(|e| io_error(&segment.path, &e))? {
            Found::Group(group) if holds(&group) => Arc::new(group),
            Found::Group(_) | Found::Nothing => {
                return Err(segment.damage(offset, "the group that must stand here does not").into());
            }
            Found::Bad(what) => return Err(segment.damage(offset, what).into()),
        };
        let mut cache = locked(&self.cache);
        cache.truncate(CACHED_GROUPS_MAX - 1);
        cache.push_front(Arc::clone(&group));
        Ok(group)
    }

    /// A durable fact and the place of its content.
    pub(crate) fn fact(&self, sequence: u64) -> Result<PlacedFact, ReadError> {
        let group = self.group(sequence)?;
        let at = usize::try_from(sequence - group.header.first_sequence).unwrap_or(usize::MAX);
        group.facts.get(at).cloned().ok_or(ReadError::NoFact(sequence))
    }

    /// The content at a place, checked.
    pub(crate) fn content(&self, sequence: u64, place: Place) -> Result<Bytes, ReadError> {
        let segment = self.segment_of(place.segment).ok_or(ReadError::NoFact(sequence))?;
        let file = self.open_segment(&segment, Access::Read)?;
        read_content(&segment, file.as_ref(), sequence, place)
    }

    /// Checks the bytes between the end of a group and the next one, which nothing reads: they are zeros.
    pub(crate) fn check_padding(&self, group: &Group) -> Result<(), ReadError> {
        let sequence = group.header.first_sequence;
        let segment = self.segment_of(sequence).ok_or(ReadError::NoFact(sequence))?;
        let from = group.header.contents_at().saturating_add(u64::from(group.header.contents_length));
        let mut bytes = [0; format::ALIGNMENT];
        let length = usize::try_from(group.header.length().saturating_sub(from)).unwrap_or(0);
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

    /// Gives contents back to the disk: neighbours in one hole. Returns how many bytes.
    pub(crate) fn erase(&self, mut places: Vec<Place>) -> Result<u64, ReadError> {
        places.sort_unstable_by_key(|place| (place.segment, place.offset));
        let mut holes: Vec<(u64, u64, u64)> = Vec::new();
        for place in places.iter().filter(|place| place.length > 0) {
            let end = place.offset.saturating_add(u64::from(place.length));
            match holes.last_mut() {
                Some((segment, _, last)) if *segment == place.segment && *last >= place.offset => {
                    *last = end.max(*last)
                }
                _ => holes.push((place.segment, place.offset, end)),
            }
        }
        let mut open: Option<(Arc<Segment>, Arc<dyn DiskFile>)> = None;
        let mut bytes = 0;
        for (first, offset, end) in holes {
            if open.as_ref().is_none_or(|(segment, _)| segment.first != first) {
                let segment = self.segment_of(first).ok_or(ReadError::NoFact(first))?;
                let file = self.open_segment(&segment, Access::Write)?;
                locked(&self.punched).insert(first);
                open = Some((segment, file));
            }
            if let Some((segment, file)) = &open {
                file.punch(offset, end - offset).map_err(|e| io_error(&segment.path, &e))?;
                bytes += end - offset;
            }
        }
        Ok(bytes)
    }

    /// Makes the holes durable: from then on nobody looks for what they took.
    pub(crate) fn sync_erased(&self) -> Result<(), Poisoned> {
        for first in std::mem::take(&mut *locked(&self.punched)) {
            let Some(segment) = self.segment_of(first) else { continue };
            let synced = self.disk.open(&segment.path, Access::Write).and_then(|file| file.sync_data());
            synced.map_err(|e| Poisoned { what: format!("sync {}", segment.path.display()), source: Arc::new(e) })?;
        }
        Ok(())
    }
}

pub(crate) fn io_error(file: &Path, e: &std::io::Error) -> ReadError {
    ReadError::Io { file: file.to_owned(), what: e.to_string() }
}

/// Reads a content and checks it; zeros where a content stood are an erased one.
pub(crate) fn read_content(
    segment: &Segment,
    file: &dyn DiskFile,
    sequence: u64,
    place: Place,
) -> Result<Bytes, ReadError> {
    let mut bytes = vec![0; place.length as usize];
    file.read_at(&mut bytes, place.offset).map_err(|e| io_error(&segment.path, &e))?;
    if crc32c::crc32c(&bytes) == place.crc {
        return Ok(Bytes::from(bytes));
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(ReadError::Erased(sequence));
    }
    Err(segment.damage(place.offset, "the checksum of a content is wrong").into())
}

/// The offset of the group that holds `sequence`: from the nearest index entry, header by header.
fn locate(segment: &Segment, file: &dyn DiskFile, sequence: u64) -> Result<u64, ReadError> {
    if !locked(&segment.index).complete {
        index(segment, file)?;
    }
    let mut offset = {
        let index = locked(&segment.index);
        let after = index.entries.partition_point(|(first, _)| *first <= sequence);
        after.checked_sub(1).and_then(|i| index.entries.get(i)).map_or(SEGMENT_HEADER_BYTES as u64, |entry| entry.1)
    };
    loop {
        let header = segment.header(file, offset).map_err(|e| io_error(&segment.path, &e))?;
        match header {
            Ok(header) if header.next_sequence() <= sequence => offset = offset.saturating_add(header.length()),
            Ok(_) => return Ok(offset),
            Err(Found::Bad(what)) => return Err(segment.damage(offset, what).into()),
            Err(_) => {
                return Err(segment.damage(offset, "the journal ends before a sequence that it must hold").into());
            }
        }
    }
}

/// Indexes a sealed segment by its group headers.
fn index(segment: &Segment, file: &dyn DiskFile) -> Result<(), ReadError> {
    let mut entries: Vec<(u64, u64)> = Vec::new();
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    while let Ok(header) = segment.header(file, offset).map_err(|e| io_error(&segment.path, &e))? {
        if entries.last().is_none_or(|(_, last)| offset >= last.saturating_add(INDEX_EVERY_BYTES)) {
            entries.push((header.first_sequence, offset));
        }
        offset = offset.saturating_add(header.length());
    }
    *locked(&segment.index) = Index { entries, complete: true };
    Ok(())
}

#[cfg(test)]
mod tests;
