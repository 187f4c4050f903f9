//! Which segments a journal has: by their names and headers, before anything in them is read.
//!
//! Knows: that a packed segment stands for those that it covers. Never knows: groups. Invariant: of files that cover the same sequences
//! one counts, and between segments nothing is missing, as far as headers say.

use std::{cmp::Reverse, path::PathBuf, sync::Arc};

use super::{
    Journal, Segment,
    compact::{PACKED_ENDING, parse_packed},
    format::{Covered, Mark, SEGMENT_HEADER_BYTES, SegmentHeader},
    recover::io_failed,
};
use crate::{
    disk::{Access, read_small},
    error::{Damage, OpenError},
};

/// The name of the mark.
pub(super) const MARK_NAME: &str = "synced";

/// Segments that are there, by their first sequence, and files that a packed one has replaced.
#[derive(Debug, Default)]
struct Listed {
    segments: Vec<Segment>,
    replaced: Vec<PathBuf>,
}

/// Lists the segments. Of those that cover the same sequences, the one that was packed last counts.
fn list(journal: &Journal) -> Result<Listed, OpenError> {
    let folder = journal.folder.as_path();
    let mut names: Vec<(u64, Reverse<u32>, PathBuf)> = Vec::new();
    for name in journal.disk.list(folder).map_err(io_failed("list", folder))? {
        let path = folder.join(&name);
        let bad = || Damage { file: path.clone(), offset: 0, what: "not the name of a segment".into() };
        if let Some(first) = name.strip_suffix(".seg") {
            names.push((u64::from_str_radix(first, 16).map_err(|_| bad())?, Reverse(0), path));
        } else if path.extension().is_some_and(|ending| ending == PACKED_ENDING) {
            let (first, generation) = parse_packed(&name).ok_or_else(bad)?;
            names.push((first, Reverse(generation), path));
        }
    }
    names.sort();
    let mut listed = Listed::default();
    let mut covered = 0;
    for (first, Reverse(generation), path) in names {
        if first < covered {
            listed.replaced.push(path);
            continue;
        }
        let segment = check_header(journal, first, generation, path)?;
        covered = segment.packed.map_or(first + 1, |packed| packed.end);
        listed.segments.push(segment);
    }
    Ok(listed)
}

/// Removes what a crash kept from being removed.
pub(super) fn remove_replaced(journal: &Journal, replaced: &[PathBuf]) -> Result<(), OpenError> {
    for path in replaced {
        journal.disk.remove(path).map_err(io_failed("remove", path))?;
    }
    let folder = &journal.folder;
    if replaced.is_empty() { Ok(()) } else { journal.disk.sync_dir(folder).map_err(io_failed("sync", folder)) }
}

/// Finds the segments, the mark, and files that are to be removed; no mark: the journal has not begun.
pub(super) fn find(journal: &Journal) -> Result<(Option<Mark>, Vec<PathBuf>), OpenError> {
    let Listed { segments, replaced } = list(journal)?;
    let mark = mark(journal, !segments.is_empty())?;
    if segments.is_empty() && mark.is_none_or(|mark| mark.group == 0) {
        return Ok((None, replaced));
    }
    take_in(journal, segments)?;
    Ok((mark, replaced))
}

/// Finds the segments, whatever the mark says.
pub(super) fn find_segments(journal: &Journal) -> Result<(), OpenError> {
    take_in(journal, list(journal)?.segments)
}

/// Whether the mark is there and checks, before anything else is looked at.
pub(crate) fn check_mark(journal: &Journal) -> Result<(), OpenError> {
    let names = journal.disk.list(&journal.folder).map_err(io_failed("list", &journal.folder))?;
    mark(journal, names.iter().any(|name| name.ends_with(".seg") || parse_packed(name).is_some())).map(drop)
}

fn mark(journal: &Journal, begun: bool) -> Result<Option<Mark>, OpenError> {
    let path = journal.folder.join(MARK_NAME);
    let bytes = read_small(journal.disk.as_ref(), &path).map_err(io_failed("read", &path))?;
    let bad = |what: &str| OpenError::Damaged(Damage { file: path.clone(), offset: 0, what: what.to_owned() });
    match bytes {
        Some(bytes) => Mark::decode(&bytes).map(Some).map_err(bad),
        None if begun => Err(bad("the mark is missing")),
        None => Ok(None),
    }
}

fn take_in(journal: &Journal, segments: Vec<Segment>) -> Result<(), OpenError> {
    if segments.first().map(|segment| segment.first) != Some(1) {
        let path = super::segment_path(&journal.folder, 1);
        return Err(Damage { file: path, offset: 0, what: "the first segment is missing".into() }.into());
    }
    for segment in segments {
        journal.add_segment(Arc::new(segment));
    }
    check_ends(journal)
}

/// Where a packed segment ends, the next one begins.
fn check_ends(journal: &Journal) -> Result<(), OpenError> {
    let segments = journal.segments();
    for (i, segment) in segments.iter().enumerate() {
        let Some(Covered { end, .. }) = segment.packed else { continue };
        match segments.get(i + 1) {
            Some(next) if next.first == end => {}
            Some(next) => {
                let what = format!("the segment goes to sequence {end}, and the next one begins with {}", next.first);
                return Err(segment.damage(segment.size, &what).into());
            }
            None => {
                let what = format!("the segment that begins with sequence {end} is missing");
                return Err(segment.damage(segment.size, &what).into());
            }
        }
    }
    Ok(())
}

fn check_header(journal: &Journal, first: u64, generation: u32, path: PathBuf) -> Result<Segment, OpenError> {
    let file = journal.disk.open(&path, Access::Read).map_err(io_failed("open", &path))?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut bytes, 0).map_err(io_failed("read", &path))?;
    let damage = |what: &str| Damage { file: path.clone(), offset: 0, what: what.to_owned() };
    let header = SegmentHeader::decode(&bytes).map_err(damage)?;
    if header.store_id != journal.store_id {
        return Err(damage("the segment belongs to another store").into());
    }
    if header.first_sequence != first {
        return Err(damage("the segment's name is not its first sequence").into());
    }
    if header.packed.is_some() != (generation > 0) || header.packed.is_some_and(|covered| covered.end <= first) {
        return Err(damage("the segment's name is not what it is").into());
    }
    let segment = Segment::new(&journal.folder, &journal.store_id, first, u64::from(header.size));
    Ok(Segment { path, generation, packed: header.packed, ..segment })
}
