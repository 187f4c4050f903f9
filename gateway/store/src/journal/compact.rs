//! Writing sealed segments anew, packed: facts compressed, contents that are gone left out, and what retention lets go.
//!
//! Knows: when a segment takes more than it must, what a packed one says, how one takes the place of others. Never knows: which facts
//! may go (it asks), what waits. Invariants: only sealed segments are packed; a content stays exactly if it still checks and the disk
//! has not refused to erase it, whatever any row says; sequences never change, and what is gone is covered by what is left.
//!
//! | a crash | leaves | opening |
//! |---|---|---|
//! | while it is written | a `.tmp` file | removes it |
//! | after its new name is durable | the packed one, and those that it replaces | serves the packed one, removes the others |
//! | after they are removed | the packed one; a power cut may bring the others back | removes them |

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tramite_proto::pb::journal::v1::Fact;

mod packer;

use packer::Packer;

use super::{
    Found, Group, Journal, Placed, Segment,
    format::{Covered, SEGMENT_HEADER_BYTES, SegmentHeader},
    io_error, locked, read_content,
};
use crate::{
    disk::{Access, DiskFile},
    error::{Poisoned, ReadError},
};

/// The ending of a packed segment's file: `<first sequence>.<generation>.pack`.
pub(crate) const PACKED_ENDING: &str = "pack";
/// Packed neighbours that are smaller than this share of a segment become one.
const SMALL_SHARE: u64 = 16;
/// When so many of them stand together.
const SMALL_MIN: usize = 8;
/// They become no larger than a segment that is written, and never larger than this: what is packed is written anew as a whole each time
/// a share of it was erased, in room that must be there besides, and offsets have 32 bits.
const MERGED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A packed segment is packed again when this share of it was erased.
const ERASED_SHARE: u64 = 4;
/// Room that must be left on the disk beyond what is written: new messages come first.
const LEFT_BYTES: u64 = 4 * 1024 * 1024;

/// Asked of each fact: does it stay?
pub(super) type Keeps<'a> = dyn FnMut(u64, &Fact) -> Result<bool, ReadError> + 'a;

/// Shown each fact.
pub(crate) type EachFact<'a> = dyn FnMut(u64, &Arc<Fact>) -> Result<(), ReadError> + 'a;

/// Why packing did not go on.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// Something could not be read or written: another time.
    Failed(ReadError),
    /// Which files the next opening finds is unknown.
    Poisoned(Poisoned),
}

impl<E: Into<ReadError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// What is in a segment.
#[derive(Debug, Default)]
pub(super) struct Weight {
    facts: AtomicU64,
    contents: AtomicU64,
    erased: AtomicU64,
    /// Otherwise it was written before the store was opened, and has to be read once.
    known: AtomicBool,
    /// It could not be read: it stays as it is.
    unfit: AtomicBool,
    /// A content in it could not be erased: it goes with the file.
    refused: AtomicBool,
}

impl Weight {
    /// Notes what was erased.
    pub(super) fn erased(&self, bytes: u64) {
        self.erased.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that something could not be erased.
    pub(super) fn refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }
}

impl Segment {
    /// Notes a group that was written.
    pub(super) fn weigh(&self, facts: u32, contents: u32) {
        self.weight.facts.fetch_add(u64::from(facts), Ordering::Relaxed);
        self.weight.contents.fetch_add(u64::from(contents), Ordering::Relaxed);
    }

    /// Every group of it was noted, or will be.
    pub(super) fn set_weighed(&self) {
        self.weight.known.store(true, Ordering::Relaxed);
    }

    /// Whether it would be much smaller packed, or has what it must not have. As it was written it may take twice what waits in it and half of its facts: packed,
    /// these take less.
    fn is_bulky(&self) -> bool {
        let [facts, contents, erased] =
            [&self.weight.facts, &self.weight.contents, &self.weight.erased].map(|it| it.load(Ordering::Relaxed));
        let refused = self.weight.refused.load(Ordering::Relaxed);
        let bulky = match self.packed {
            Some(_) => erased > 0 && erased.saturating_mul(ERASED_SHARE) >= self.size,
            None => self.size > contents.saturating_sub(erased).saturating_mul(2).saturating_add(facts / 2),
        };
        bulky || refused
    }

    /// It takes no more when it is packed.
    fn most(&self) -> u64 {
        let [facts, contents, erased] =
            [&self.weight.facts, &self.weight.contents, &self.weight.erased].map(|it| it.load(Ordering::Relaxed));
        let known = self.weight.known.load(Ordering::Relaxed);
        if known { contents.saturating_sub(erased).saturating_add(facts).min(self.size) } else { self.size }
    }

    /// Nothing in it was found that cannot be read.
    pub(crate) fn is_fit(&self) -> bool {
        !self.weight.unfit.load(Ordering::Relaxed)
    }
}

/// The path of a packed segment.
pub(super) fn packed_path(folder: &Path, first: u64, generation: u32) -> PathBuf {
    folder.join(format!("{first:016x}.{generation:08x}.{PACKED_ENDING}"))
}

/// First sequence and generation in the name of a packed segment.
pub(super) fn parse_packed(name: &str) -> Option<(u64, u32)> {
    let (first, generation) = name.strip_suffix(PACKED_ENDING)?.strip_suffix('.')?.split_once('.')?;
    Some((u64::from_str_radix(first, 16).ok()?, u32::from_str_radix(generation, 16).ok()?))
}

impl Journal {
    /// Every segment but the last, which is written.
    pub(crate) fn sealed(&self) -> Vec<Arc<Segment>> {
        let mut segments = self.segments();
        segments.pop();
        segments
    }

    /// Packs the first segments that would be much smaller; all facts stay, `keeps` may only end it. False: there are none.
    pub(crate) fn compact(&self, keeps: &mut Keeps<'_>) -> Result<bool, Stopped> {
        let sealed = self.sealed();
        for segment in sealed.iter().filter(|segment| segment.is_fit()) {
            if !segment.weight.known.load(Ordering::Relaxed) {
                self.look(segment)?;
            }
            if segment.is_fit() && segment.is_bulky() && self.pack(std::slice::from_ref(segment), keeps)? {
                return Ok(true);
            }
        }
        // Of those as they were written: what is packed is no measure.
        let segments = self.segments();
        let usual = segments.iter().filter(|segment| segment.packed.is_none()).map(|segment| segment.size).max();
        let most = usual.unwrap_or(0).min(MERGED_BYTES_MAX);
        let is_small =
            |segment: &Arc<Segment>| segment.packed.is_some() && segment.is_fit() && segment.size <= most / SMALL_SHARE;
        for run in sealed.chunk_by(|one, next| is_small(one) && is_small(next)).filter(|run| run.len() >= SMALL_MIN) {
            if self.pack(up_to(run, most), keeps)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Weighs a segment that was there when the store was opened.
    fn look(&self, segment: &Segment) -> Result<(), ReadError> {
        let looked = self.each_group(segment, &mut |file, group| {
            let (mut there, mut contents) = (0, 0);
            for Placed { sequence, place, .. } in &group.facts {
                let Some(place) = place else { continue };
                contents += u64::from(place.length);
                if read_content(segment, file, *sequence, *place).is_ok() {
                    there += u64::from(place.length);
                }
            }
            let facts = group.span.contents_end.saturating_sub(contents);
            segment.weigh(u32::try_from(facts).unwrap_or(u32::MAX), u32::try_from(contents).unwrap_or(u32::MAX));
            segment.weight.erased(contents - there);
            Ok(())
        });
        segment.set_weighed();
        self.or_unfit(&[segment], looked)
    }

    /// One that cannot be read stays as it is until the next start, and is said once: the others must not wait for it. An error of
    /// anything else is handed on.
    fn or_unfit(&self, inputs: &[&Segment], done: Result<(), ReadError>) -> Result<(), ReadError> {
        let Err(error) = done else { return Ok(()) };
        let file = match &error {
            ReadError::Damaged(damage) => Some(&damage.file),
            ReadError::Io { file, .. } => Some(file),
            _ => None,
        };
        let unread = inputs.iter().find(|segment| file.is_some_and(|file| segment.is_at(file)));
        let Some(segment) = unread else { return Err(error) };
        if !segment.weight.unfit.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "a segment is neither packed nor swept");
        }
        Ok(())
    }

    /// Goes through the groups of a sealed segment. One whose file ends early, or that does not reach to the next one, is damaged: what
    /// is not there must not be taken for what retention took. Behind a group that does not check it goes on if its header does, and
    /// says so in the end.
    fn each_group(
        &self,
        segment: &Segment,
        each: &mut dyn FnMut(&dyn DiskFile, &Group) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let failed = |e: io::Error| io_error(&segment.path, &e);
        let file = self.open_segment(segment, Access::Read)?;
        let length = file.length().map_err(failed)?;
        if length < segment.size {
            let what = format!("the file ends here, and its header says {} bytes", segment.size);
            return Err(segment.damage(length, &what).into());
        }
        let (mut offset, mut reached, mut bad) = (SEGMENT_HEADER_BYTES as u64, segment.first, None);
        loop {
            let span = match segment.read(file.as_ref(), offset).map_err(failed)? {
                Found::Group(group) => {
                    each(file.as_ref(), &group)?;
                    group.span
                }
                Found::Nothing => break,
                Found::Bad(what) => {
                    let damage = segment.damage(offset, what);
                    let Ok(header) = segment.header(file.as_ref(), offset).map_err(failed)? else {
                        return Err(damage.into());
                    };
                    bad.get_or_insert(damage);
                    header.span()
                }
            };
            (offset, reached) = (offset.saturating_add(span.length), span.end);
        }
        if let Some(damage) = bad {
            return Err(damage.into());
        }
        // What a packed one covers behind its last block is gone.
        let reached = segment.packed.map_or(reached, |covered| covered.end);
        match self.after(segment).filter(|end| *end != reached) {
            Some(end) => {
                let what =
                    format!("the segment breaks off before sequence {reached}, and the next one begins with {end}");
                Err(segment.damage(offset, &what).into())
            }
            None => Ok(()),
        }
    }

    /// Goes through the facts of a sealed segment. False: it cannot be read to its end.
    pub(crate) fn each_fact(&self, segment: &Segment, each: &mut EachFact<'_>) -> Result<bool, ReadError> {
        let read = self.each_group(segment, &mut |_, group| {
            group.facts.iter().try_for_each(|placed| each(placed.sequence, &placed.fact))
        });
        let whole = read.is_ok();
        self.or_unfit(&[segment], read).map(|()| whole)
    }

    /// Writes sealed neighbours anew as one packed segment, without the facts that do not stay. False: not now, as there is no room or
    /// a content was erased meanwhile.
    pub(crate) fn pack(&self, inputs: &[Arc<Segment>], keeps: &mut Keeps<'_>) -> Result<bool, Stopped> {
        let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else { return Ok(false) };
        let most = inputs.iter().map(|segment| segment.most()).sum::<u64>();
        if self.room(&self.folder) < most.saturating_add(LEFT_BYTES) {
            return Ok(false);
        }
        let Some(end) = self.after(last) else { return Ok(false) };
        let (erased, refused) = (erased_of(inputs), self.refused(first.first..end));
        let generation = inputs.iter().map(|segment| segment.generation).max().unwrap_or(0) + 1;
        let beside = packed_path(&self.folder, first.first, generation).with_extension("tmp");
        match self.write(inputs, (end, &refused), generation, &beside, keeps) {
            Ok(packed) => {
                let replaced = self.replace(inputs, packed, &beside, erased)?;
                if replaced {
                    self.gone(refused.into_iter());
                }
                Ok(replaced)
            }
            Err(error) => {
                self.discard(&beside)?;
                let borrowed: Vec<&Segment> = inputs.iter().map(AsRef::as_ref).collect();
                Ok(self.or_unfit(&borrowed, Err(error)).map(|()| false)?)
            }
        }
    }

    fn discard(&self, path: &Path) -> Result<(), ReadError> {
        let there = self.disk.info(path).map_err(|e| io_error(path, &e))?.is_some();
        if there { self.disk.remove(path).map_err(|e| io_error(path, &e)) } else { Ok(()) }
    }

    /// The first sequence after a segment that is not the last.
    fn after(&self, segment: &Segment) -> Option<u64> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.range(segment.first + 1..).next().map(|(first, _)| *first)
    }

    fn write(
        &self,
        inputs: &[Arc<Segment>],
        (end, refused): (u64, &BTreeSet<u64>),
        generation: u32,
        beside: &Path,
        keeps: &mut Keeps<'_>,
    ) -> Result<Segment, ReadError> {
        let failed = |e: io::Error| io_error(beside, &e);
        let first = inputs.first().map_or(end, |segment| segment.first);
        let file = self.disk.open(beside, Access::Create).map_err(failed)?;
        let mut packer = Packer::new(Arc::clone(&file), beside.to_owned(), inputs, refused);
        let mut first_group = None;
        for segment in inputs {
            if let Some(covered) = segment.packed {
                packer.begin(covered.first_group);
                first_group.get_or_insert(covered.first_group);
            }
            self.each_group(segment, &mut |file, group| {
                packer.begin(group.span.number);
                first_group.get_or_insert(group.span.number);
                packer.group(segment, file, group, keeps)
            })?;
            if let Some(covered) = segment.packed {
                // What it covers behind its last block.
                packer.to = (covered.end, covered.next_group());
            }
        }
        let (_, next_group) = packer.to;
        packer.end_block()?;
        let size = u32::try_from(packer.offset).map_err(|e| failed(io::Error::other(e)))?;
        let first_group = first_group.unwrap_or(next_group);
        let groups = u32::try_from(next_group.saturating_sub(first_group)).map_err(|e| failed(io::Error::other(e)))?;
        let packed = Some(Covered { end, first_group, groups });
        let header = SegmentHeader { size, store_id: self.store_id, first_sequence: first, packed };
        file.write_at(&header.encode(), 0).and_then(|()| file.sync_data()).map_err(failed)?;
        packer.weight.known.store(true, Ordering::Relaxed);
        let path = packed_path(&self.folder, first, generation);
        let segment = Segment::new(&self.folder, &self.store_id, first, u64::from(size));
        Ok(Segment { path, generation, packed, weight: packer.weight, ..segment })
    }

    /// Lets a packed segment take the place of those that it was made of, unless a content was erased in them since.
    fn replace(&self, inputs: &[Arc<Segment>], packed: Segment, beside: &Path, erased: u64) -> Result<bool, Stopped> {
        let failed = |e: io::Error| io_error(&packed.path, &e);
        {
            let _one = locked(&self.reshaping);
            if erased_of(inputs) != erased {
                self.discard(beside)?;
                return Ok(false);
            }
            self.disk.rename(beside, &packed.path).map_err(failed)?;
            // Before anything is erased in it: what it replaces, and what was erased only here, must not come back. Nor may the next
            // opening find it, and this process go on without.
            self.disk.sync_dir(&self.folder).map_err(|e| {
                Stopped::Poisoned(Poisoned { what: format!("sync {}", self.folder.display()), source: Arc::new(e) })
            })?;
            self.put_in_place(inputs, packed.into());
        }
        for segment in inputs {
            // Without a sync of its own, which the next group would wait for: one that a power cut brings back is removed by the opening.
            self.disk.remove(&segment.path).map_err(|e| io_error(&segment.path, &e))?;
        }
        Ok(true)
    }

    fn put_in_place(&self, inputs: &[Arc<Segment>], packed: Arc<Segment>) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        for segment in inputs {
            segments.remove(&segment.first);
        }
        segments.insert(packed.first, packed);
        drop(segments);
        // What is read from here on is the new one.
        locked(&self.cache).clear();
    }
}

/// The first of a run that have no more bytes together.
fn up_to(run: &[Arc<Segment>], bytes_max: u64) -> &[Arc<Segment>] {
    let together = run.iter().scan(0_u64, |sum, segment| {
        *sum = sum.saturating_add(segment.size);
        Some(*sum)
    });
    run.get(..together.take_while(|sum| *sum <= bytes_max).count()).unwrap_or_default()
}

fn erased_of(inputs: &[Arc<Segment>]) -> u64 {
    inputs.iter().map(|segment| segment.weight.erased.load(Ordering::Relaxed)).sum()
}
