//! The writing side of the journal: one group, one write, one `fdatasync`.
//!
//! Knows: where the journal ends, when to begin a segment, the mark, the reserve. Never knows: what the facts mean, or who waits.
//! Invariants: a segment is there under its name only with a durable header; the mark is written after the sync that it speaks
//! of; after a failed write or sync nothing is written any more (the caller sees to it).

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tramite_proto::pb::journal::v1::Fact;

use super::{
    Journal, Segment,
    format::{GROUP_BYTES_MAX, Mark, Place, SEGMENT_HEADER_BYTES, SegmentHeader, encode_group},
    reserve::{Reserve, is_full},
};
use crate::{
    disk::{Access, Disk, DiskFile},
    error::{Damage, Poisoned},
};

/// What small groups will be written into is made ready so far ahead: some hundred of them.
const READY_BYTES: u64 = 1024 * 1024;
/// Beside a larger group the file's own records weigh little, and to write its blocks twice costs more than they do.
const READY_GROUP_MAX: u64 = 16 * 1024;

/// Appends groups. One in a process.
#[derive(Debug)]
pub(crate) struct JournalWriter {
    pub(super) journal: Arc<Journal>,
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) mark: Arc<dyn DiskFile>,
    pub(super) offset: u64,
    /// Up to here the segment's blocks were written before.
    pub(super) ready_to: u64,
    pub(super) next_sequence: u64,
    pub(super) next_group: u64,
    pub(super) segment_bytes: u32,
    pub(super) buffer: Vec<u8>,
    pub(super) reserve: Reserve,
}

/// Why a group was not written.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// There is no room for another segment. Nothing was written; a later try may succeed.
    Full,
    /// The group is larger than any may be. Nothing was written.
    TooLarge,
    /// What is on the disk is unknown.
    Poisoned(Poisoned),
}

fn poisoned(what: impl Into<String>, source: io::Error) -> AppendError {
    AppendError::Poisoned(Poisoned { what: what.into(), source: Arc::new(source) })
}

impl JournalWriter {
    /// The sequence that the next fact gets.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Says what waits when the store is opened, and makes the reserve for it, as far as there is room.
    pub(crate) fn begin(&mut self, open: u64) -> io::Result<()> {
        self.reserve.begin(open);
        self.reserve.provide(0, false).map(drop)
    }

    /// Whether a group of about so many bytes, with so many acceptances in it, leaves the reserve complete. When it does not, it may
    /// only hold what ends something, or what people and certificates need: that is written into the reserve.
    pub(crate) fn has_room(&mut self, bytes: u64, acceptances: u64) -> Result<bool, Poisoned> {
        let fits = self.offset.saturating_add(bytes) <= self.segment.size;
        let provided = self.reserve.provide(acceptances, !fits);
        provided.map_err(|e| Poisoned { what: "make a spare segment".into(), source: Arc::new(e) })
    }

    /// The most that a group should have: in the reserve it must fit a segment.
    pub(crate) fn group_bytes(&self, usual: usize) -> usize {
        let half = usize::try_from(self.segment_bytes / 2).unwrap_or(usize::MAX);
        if self.reserve.is_tight() { usual.min(half) } else { usual }
    }

    /// Names the place where the journal ends.
    pub(crate) fn damage(&self, what: &str) -> Damage {
        self.segment.damage(self.offset, what)
    }

    /// Appends one group and syncs it. Returns where the contents stand, for each fact.
    pub(crate) fn append(
        &mut self,
        facts: &mut [Fact],
        contents: &[Bytes],
        content_crcs: &[u32],
    ) -> Result<Vec<Option<Place>>, AppendError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let encoded =
            encode_group(self.segment.seed, self.next_sequence, self.next_group, facts, contents, &mut buffer);
        let header = encoded.map_err(|_| AppendError::TooLarge)?;
        if header.length() > GROUP_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        if self.offset.saturating_add(header.length()) > self.segment.size {
            self.roll(header.length())?;
        }
        self.make_ready(header.length())?;
        let path = self.segment.path.display();
        fail::fail_point!("journal.before_write");
        self.file.write_at(&buffer, self.offset).map_err(|e| poisoned(format!("write {path}"), e))?;
        fail::fail_point!("journal.after_write");
        self.file.sync_data().map_err(|e| poisoned(format!("sync {path}"), e))?;
        fail::fail_point!("journal.after_sync");
        self.segment.note(header.first_sequence, self.offset);
        self.segment.weigh(header.facts_length, header.contents_length);
        let places = self.places(header.contents_at(), contents, content_crcs);
        self.offset = self.offset.saturating_add(header.length());
        self.next_sequence = header.next_sequence();
        self.next_group += 1;
        let mark = Mark { group: header.number, end: self.offset, segment: self.segment.first };
        self.mark.write_at(&mark.encode(), 0).map_err(|e| poisoned("write the mark", e))?;
        self.journal.set_durable(self.next_sequence - 1);
        self.reserve.follow(facts);
        self.buffer = buffer;
        Ok(places)
    }

    /// Prepares the blocks behind a group that goes beyond those which are ready, to be synced with it.
    fn make_ready(&mut self, group: u64) -> Result<(), AppendError> {
        let end = self.offset.saturating_add(group);
        if group <= READY_GROUP_MAX && end > self.ready_to {
            let to = end.saturating_add(READY_BYTES).min(self.segment.size);
            let prepared = self.file.prepare(end, to.saturating_sub(end));
            prepared.map_err(|e| poisoned(format!("write {}", self.segment.path.display()), e))?;
            self.ready_to = to;
        }
        Ok(())
    }

    fn places(&self, contents_at: u64, contents: &[Bytes], crcs: &[u32]) -> Vec<Option<Place>> {
        let mut offset = self.offset.saturating_add(contents_at);
        let place = |(content, crc): (&Bytes, &u32)| {
            let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
            let place = Place { segment: self.segment.first, generation: 0, offset, length, crc: *crc };
            offset = offset.saturating_add(u64::from(length));
            (length > 0).then_some(place)
        };
        contents.iter().zip(crcs).map(place).collect()
    }

    /// Begins a segment that has room for `group` bytes, also when that is more than a segment usually holds.
    fn roll(&mut self, group: u64) -> Result<(), AppendError> {
        let least = u32::try_from(SEGMENT_HEADER_BYTES as u64 + group).map_err(|_| AppendError::TooLarge)?;
        let size = self.segment_bytes.max(least);
        let spare = if size == self.segment_bytes { self.reserve.take() } else { None };
        let made = create_segment(&self.journal, self.next_sequence, size, spare);
        let (segment, file) =
            made.map_err(|e| if is_full(&e) { AppendError::Full } else { poisoned("begin a segment", e) })?;
        self.segment = segment;
        self.file = file;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        self.ready_to = self.offset;
        Ok(())
    }

    /// Makes the mark durable, for a clean stop.
    pub(crate) fn sync_mark(&self) -> io::Result<()> {
        self.mark.sync_data()
    }
}

/// Makes a segment, of a spare if there is one: reserved, header durable, and only then under its name.
pub(super) fn create_segment(
    journal: &Journal,
    first: u64,
    size: u32,
    spare: Option<PathBuf>,
) -> io::Result<(Arc<Segment>, Arc<dyn DiskFile>)> {
    let segment = Arc::new(Segment::new(&journal.folder, &journal.store_id, first, u64::from(size)));
    segment.set_indexed();
    segment.set_weighed();
    let access = if spare.is_some() { Access::Write } else { Access::Create };
    let beside: PathBuf = spare.unwrap_or_else(|| segment.path.with_extension("tmp"));
    let made = fill(journal, &beside, access, first, size);
    if made.is_err() && journal.disk.info(&beside)?.is_some() {
        // On a full disk the reservation that failed must not keep what it got.
        journal.disk.remove(&beside)?;
    }
    let file = made?;
    journal.disk.rename(&beside, &segment.path)?;
    journal.disk.sync_dir(&journal.folder)?;
    journal.add_segment(Arc::clone(&segment));
    Ok((segment, file))
}

fn fill(journal: &Journal, path: &Path, access: Access, first: u64, size: u32) -> io::Result<Arc<dyn DiskFile>> {
    let file = journal.disk.open(path, access)?;
    if access == Access::Create {
        file.allocate(u64::from(size))?;
    }
    let header = SegmentHeader { size, store_id: journal.store_id, first_sequence: first, packed: None };
    file.write_at(&header.encode(), 0)?;
    file.sync_data()?;
    Ok(file)
}

/// Writes the first mark durably, before the first segment.
pub(super) fn create_mark(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    crate::disk::write_small(disk, path, &Mark { group: 0, end: 0, segment: 1 }.encode())
}
