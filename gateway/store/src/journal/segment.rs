//! One segment: what stands in it, and where (FORMATS.md §6). Reads and checks; never writes.
//!
//! Knows: both kinds, as it was written and packed, and a sparse index of either. Never knows: other segments, what a fact means.
//! Invariant: what is read out checked, and damage names file and offset.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use rustix::io::Errno;
use tramite_proto::pb::journal::v1::Fact;

use super::{
    compact::Weight,
    format::{Covered, GROUP_HEADER_BYTES, GroupHeader, Place, SEGMENT_HEADER_BYTES, decode_facts, seed_of},
    io_error, locked,
    packed::{self, BLOCK_HEADER_BYTES, BlockHeader, RawGroup},
};
use crate::{
    disk::DiskFile,
    error::{Damage, ReadError},
};

/// One index entry for so many bytes of a segment: 1,024 entries for 64 MiB.
const INDEX_EVERY_BYTES: u64 = 64 * 1024;

/// A fact, its sequence, and where its content stands: nowhere, if it has none or a packed segment has it no more.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) sequence: u64,
    pub(crate) fact: Arc<Fact>,
    pub(crate) place: Option<Place>,
}

/// One segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) first: u64,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Where the checksums of its groups begin.
    pub(super) seed: u32,
    /// How often it was packed; 0: it is as it was written.
    pub(super) generation: u32,
    pub(super) packed: Option<Covered>,
    pub(super) weight: Weight,
    pub(super) index: Mutex<Index>,
}

/// Where some of a segment's groups begin: (first sequence, offset), rising.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<(u64, u64)>,
    complete: bool,
}

/// A group, or a block of packed ones, read and checked.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) span: Span,
    pub(crate) offset: u64,
    /// In order; of a block, some sequences may be gone.
    pub(crate) facts: Vec<Placed>,
}

/// What a group or a block covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    /// The sequence after the last.
    pub(crate) end: u64,
    /// The number of the (first) group.
    pub(crate) number: u64,
    pub(crate) next_number: u64,
    /// Bytes to what stands behind it.
    pub(crate) length: u64,
    /// Bytes to the end of its contents.
    pub(crate) contents_end: u64,
}

/// A header, checked.
pub(super) enum Header {
    Group(GroupHeader),
    Block(BlockHeader),
}

impl Header {
    pub(super) fn span(&self) -> Span {
        match self {
            Self::Group(header) => Span {
                first: header.first_sequence,
                end: header.next_sequence(),
                number: header.number,
                next_number: header.number.saturating_add(1),
                length: header.length(),
                contents_end: header.contents_at().saturating_add(u64::from(header.contents_length)),
            },
            Self::Block(header) => Span {
                first: header.first,
                end: header.end,
                number: header.first_group,
                next_number: header.first_group.saturating_add(u64::from(header.groups)),
                length: header.length(),
                contents_end: header.contents_at().saturating_add(u64::from(header.contents)),
            },
        }
    }
}

impl Group {
    pub(super) fn holds(&self, sequence: u64) -> bool {
        (self.span.first..self.span.end).contains(&sequence)
    }

    /// A fact; none: retention took it.
    pub(super) fn fact(&self, sequence: u64) -> Option<&Placed> {
        let at = self.facts.binary_search_by_key(&sequence, |placed| placed.sequence).ok()?;
        self.facts.get(at)
    }
}

/// What stands at an offset.
pub(crate) enum Found {
    Group(Group),
    /// 40 zeros, or too little room for a group; of a packed segment, which has no room to spare, only its end.
    Nothing,
    Bad(&'static str),
}

pub(crate) fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:016x}.seg"))
}

impl Segment {
    pub(crate) fn new(folder: &Path, store_id: &[u8; 16], first: u64, size: u64) -> Self {
        let (path, seed) = (segment_path(folder, first), seed_of(store_id));
        let (weight, index) = (Weight::default(), Mutex::default());
        Self { first, path, size, seed, generation: 0, packed: None, weight, index }
    }

    /// From here on the index has every group, as each is noted.
    pub(super) fn set_indexed(&self) {
        locked(&self.index).complete = true;
    }

    /// Its first sequence.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn damage(&self, offset: u64, what: &str) -> Damage {
        Damage { file: self.path.clone(), offset, what: what.to_owned() }
    }

    /// Why nothing was read there. That the disk cannot read it says something of what stands there, as damage does; what else the
    /// system may say does not.
    fn unread(&self, offset: u64, e: &io::Error) -> ReadError {
        match Errno::from_io_error(e) {
            Some(Errno::IO) => self.damage(offset, "the disk cannot read it").into(),
            _ => io_error(&self.path, e),
        }
    }

    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.path == path
    }

    /// Whether a place is one of this very file.
    pub(super) fn has(&self, place: Place) -> bool {
        (place.segment, place.generation) == (self.first, self.generation)
    }

    /// What a packed segment covers from a sequence behind its last block on: nothing is left of it.
    fn rest(&self, sequence: u64) -> Result<Group, Damage> {
        let covered = self.packed.filter(|covered| sequence < covered.end);
        let missing = || self.damage(self.size, "the journal ends before a sequence that it must hold");
        let (end, number) = covered.map(|covered| (covered.end, covered.next_group())).ok_or_else(missing)?;
        let span = Span { first: sequence, end, number, next_number: number, length: 0, contents_end: 0 };
        Ok(Group { span, offset: self.size, facts: Vec::new() })
    }

    /// Notes where a group begins; groups come in order.
    pub(super) fn note(&self, first_sequence: u64, offset: u64) {
        let mut index = locked(&self.index);
        let last = index.entries.last().map(|(_, offset)| *offset);
        if last.is_none_or(|last| offset >= last.saturating_add(INDEX_EVERY_BYTES)) {
            index.entries.push((first_sequence, offset));
        }
    }

    /// Reads and checks what stands at `offset`.
    pub(crate) fn read(&self, file: &dyn DiskFile, offset: u64) -> io::Result<Found> {
        let header = match self.header(file, offset)? {
            Err(found) => return Ok(found),
            Ok(header) => header,
        };
        let Some(bytes) = self.facts_of(&header, file, offset)? else {
            return Ok(Found::Bad("the checksum of the facts is wrong"));
        };
        let facts = match &header {
            Header::Group(header) => decode_facts(header, bytes, self.first, offset).map(|facts| {
                let placed = |((fact, place), sequence)| Placed { sequence, fact, place };
                facts.into_iter().zip(header.first_sequence..).map(placed).collect()
            }),
            Header::Block(header) => packed::unpack(header, &bytes)
                .and_then(|groups| packed::decode(header, groups, (self.first, self.generation), offset)),
        };
        Ok(match facts {
            Ok(facts) => Found::Group(Group { span: header.span(), offset, facts }),
            Err(what) => Found::Bad(what),
        })
    }

    /// The bytes of the facts behind a header; none: they do not check.
    fn facts_of(&self, header: &Header, file: &dyn DiskFile, offset: u64) -> io::Result<Option<Bytes>> {
        let (at, length, crc) = match header {
            Header::Group(header) => (GROUP_HEADER_BYTES, header.facts_length, header.facts_crc),
            Header::Block(header) => (BLOCK_HEADER_BYTES, header.stored, header.crc),
        };
        let mut facts = vec![0; length as usize];
        file.read_at(&mut facts, offset.saturating_add(at as u64))?;
        let sound = crc32c::crc32c_append(self.seed, &facts) == crc;
        Ok(sound.then(|| Bytes::from(facts)))
    }

    /// The same as bytes, group by group. Only of what was read and checked before.
    pub(super) fn raw(&self, file: &dyn DiskFile, offset: u64) -> io::Result<Result<Vec<RawGroup>, &'static str>> {
        let Ok(header) = self.header(file, offset)? else { return Ok(Err("it changed while it was read")) };
        let Some(bytes) = self.facts_of(&header, file, offset)? else { return Ok(Err("it changed while it was read")) };
        Ok(match &header {
            Header::Group(header) => RawGroup::of_section(header, bytes).map(|group| vec![group]),
            Header::Block(header) => packed::unpack(header, &bytes),
        })
    }

    pub(super) fn header(&self, file: &dyn DiskFile, offset: u64) -> io::Result<Result<Header, Found>> {
        let (length, nothing) = match self.packed {
            Some(_) if offset < self.size => (BLOCK_HEADER_BYTES, Found::Bad("a block that must stand here does not")),
            Some(_) => (BLOCK_HEADER_BYTES, Found::Nothing),
            None => (GROUP_HEADER_BYTES, Found::Nothing),
        };
        if offset.saturating_add(length as u64) > self.size {
            return Ok(Err(nothing));
        }
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        let (bytes, _) = bytes.split_at_mut(length.min(BLOCK_HEADER_BYTES));
        file.read_at(bytes, offset)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Err(nothing));
        }
        let header = match self.packed {
            None => GroupHeader::decode(bytes, self.seed).map(Header::Group),
            Some(_) => BlockHeader::decode(bytes, self.seed).map(Header::Block),
        };
        Ok(match header {
            Ok(header) if offset.saturating_add(header.span().length) > self.size => {
                Err(Found::Bad("the group is longer than its segment"))
            }
            Ok(header) => Ok(header),
            Err(what) => Err(Found::Bad(what)),
        })
    }
}

/// Reads a content and checks it; zeros where a content stood are an erased one.
pub(crate) fn read_content(
    segment: &Segment,
    file: &dyn DiskFile,
    sequence: u64,
    place: Place,
) -> Result<Bytes, ReadError> {
    let mut bytes = vec![0; place.length as usize];
    file.read_at(&mut bytes, place.offset).map_err(|e| segment.unread(place.offset, &e))?;
    if crc32c::crc32c(&bytes) == place.crc {
        return Ok(Bytes::from(bytes));
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(ReadError::Erased(sequence));
    }
    Err(segment.damage(place.offset, "the checksum of a content is wrong").into())
}

/// The group of a segment that covers a sequence, read and checked.
pub(super) fn group_in(segment: &Segment, file: &dyn DiskFile, sequence: u64) -> Result<Group, ReadError> {
    let Some(offset) = locate(segment, file, sequence)? else { return Ok(segment.rest(sequence)?) };
    match segment.read(file, offset).map_err(|e| segment.unread(offset, &e))? {
        Found::Group(group) if group.holds(sequence) => Ok(group),
        Found::Group(_) | Found::Nothing => {
            Err(segment.damage(offset, "the group that must stand here does not").into())
        }
        Found::Bad(what) => Err(segment.damage(offset, what).into()),
    }
}

/// Where a content stands now.
pub(super) fn place_in(segment: &Segment, file: &dyn DiskFile, sequence: u64) -> Result<Option<Place>, ReadError> {
    Ok(group_in(segment, file, sequence)?.fact(sequence).and_then(|placed| placed.place))
}

/// The offset of the group that covers `sequence`: from the nearest index entry, header by header. None: of a packed segment, behind
/// the last block.
fn locate(segment: &Segment, file: &dyn DiskFile, sequence: u64) -> Result<Option<u64>, ReadError> {
    if !locked(&segment.index).complete {
        index(segment, file)?;
    }
    let mut offset = {
        let index = locked(&segment.index);
        let after = index.entries.partition_point(|(first, _)| *first <= sequence);
        after.checked_sub(1).and_then(|i| index.entries.get(i)).map_or(SEGMENT_HEADER_BYTES as u64, |entry| entry.1)
    };
    loop {
        if segment.packed.is_some() && offset >= segment.size {
            return Ok(None);
        }
        let header = segment.header(file, offset).map_err(|e| segment.unread(offset, &e))?;
        match header.map(|header| header.span()) {
            Ok(span) if span.end <= sequence => offset = offset.saturating_add(span.length),
            Ok(_) => return Ok(Some(offset)),
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
    loop {
        let span = match segment.header(file, offset).map_err(|e| segment.unread(offset, &e)) {
            Ok(Ok(header)) => header.span(),
            // Whoever looks for what stands there is told.
            Ok(Err(_)) | Err(ReadError::Damaged(_)) => break,
            Err(error) => return Err(error),
        };
        if entries.last().is_none_or(|(_, last)| offset >= last.saturating_add(INDEX_EVERY_BYTES)) {
            entries.push((span.first, offset));
        }
        offset = offset.saturating_add(span.length);
    }
    *locked(&segment.index) = Index { entries, complete: true };
    Ok(())
}
