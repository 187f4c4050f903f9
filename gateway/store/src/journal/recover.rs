//! Opening a journal: reads what is there, cuts a torn tail, refuses damage.
//!
//! Knows: the rules of FORMATS.md §6. Never knows: rows; whoever rebuilds them is handed each group in order.
//! Invariants: a group up to the mark is never cut; what is cut was never acknowledged, because one group is written at a time and
//! acknowledged only after its sync, so that nothing valid can stand behind it; what is served was synced.
//!
//! What a crash leaves, by the step at which it came:
//! | step | left behind | repaired by |
//! |---|---|---|
//! | making a segment | `.tmp` file, or a spare with a header | removed; a spare is made anew |
//! | writing a group | part of it, in any order of sectors | cut: zeros again |
//! | before its sync (process killed) | all of it | kept, synced now; a repeat gets the original answer |
//! | before the mark | a mark that lags | kept |

use std::{io, path::Path, sync::Arc};

use super::{
    Found, Group, Journal, JournalWriter, Placed, Segment,
    append::{create_mark, create_segment},
    erase::noted,
    find::{MARK_NAME, find, find_segments, remove_replaced},
    format::{ALIGNMENT, Covered, GROUP_HEADER_BYTES, GroupHeader, Mark, SEGMENT_HEADER_BYTES, SegmentHeader},
    read_content,
    reserve::{Reserve, SPARE_ENDING},
    zeros::{SEARCH_BYTES, first_byte_of, is_zero, last_byte},
};
use crate::{
    disk::{Access, Disk, DiskFile},
    error::{Damage, OpenError, ReadError},
    options::Cut,
};

/// Segments are configured in these.
const SPARE_UNIT: u64 = 1024 * 1024;

/// Takes each group in order. All before it were synced, as one group is written at a time; it may be the one that was not.
pub(crate) type Visitor<'a> = dyn FnMut(&Journal, &Group) -> Result<(), OpenError> + 'a;

/// A content beyond the mark that does not check. Damage, unless its message turns out to be final: then it was erased.
#[derive(Debug)]
pub(crate) struct Suspect {
    pub(crate) sequence: u64,
    pub(crate) damage: Damage,
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) journal: Arc<Journal>,
    pub(crate) writer: JournalWriter,
    pub(crate) created: bool,
    pub(crate) cut: Option<Cut>,
    pub(crate) suspects: Vec<Suspect>,
}

/// Where the walk through the segments stands.
struct Walk<'a> {
    journal: &'a Journal,
    mark: Mark,
    next_sequence: u64,
    next_group: u64,
    suspects: Vec<Suspect>,
}

/// Where a segment's groups end.
struct End {
    offset: u64,
    torn: Option<&'static str>,
}

pub(crate) fn io_failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { action, path: path.to_owned(), source }
}

pub(crate) fn read_failed(e: ReadError) -> OpenError {
    match e {
        ReadError::Damaged(damage) => OpenError::Damaged(damage),
        ReadError::Io { file, what } => OpenError::Io { action: "read", path: file, source: io::Error::other(what) },
        other => OpenError::Outbox(crate::error::MapError(other.to_string())),
    }
}

/// What [`inspect`] found.
#[derive(Debug, Default)]
pub(crate) struct Inspected {
    /// What was never acknowledged and would be cut.
    pub(crate) torn: Option<Cut>,
    /// Each segment, and where its groups end.
    pub(crate) ends: Vec<(Arc<Segment>, u64)>,
    /// The sequence after the last one.
    pub(crate) next_sequence: u64,
}

/// Checks the spare segments, which nobody reads until one becomes a segment.
pub(crate) fn check_spares(journal: &Journal) -> Result<Vec<Damage>, OpenError> {
    let folder = &journal.folder;
    let mut found = Vec::new();
    for name in journal.disk.list(folder).map_err(io_failed("list", folder))? {
        let path = folder.join(&name);
        if path.extension().is_none_or(|ending| ending != SPARE_ENDING) {
            continue;
        }
        let file = journal.disk.open(&path, Access::Read).map_err(io_failed("open", &path))?;
        let length = file.length().map_err(io_failed("measure", &path))?;
        // The size may have been changed since; any is whole mebibytes.
        if length == 0 || !length.is_multiple_of(SPARE_UNIT) {
            let what = format!("a spare segment has {length} bytes; the next start makes it anew");
            found.push(Damage { file: path, offset: length, what });
            continue;
        }
        let begun = is_begun(journal, file.as_ref(), length).map_err(io_failed("read", &path))?;
        let from = if begun { SEGMENT_HEADER_BYTES as u64 } else { 0 };
        if let Some(offset) = first_byte_of(file.as_ref(), from, length).map_err(io_failed("read", &path))? {
            found.push(Damage {
                file: path,
                offset,
                what: "bytes stand in a spare segment; the next start makes it anew".into(),
            });
        }
    }
    Ok(found)
}

/// Whether a spare has its header already, and not its name yet: a kill leaves one so.
fn is_begun(journal: &Journal, file: &dyn DiskFile, length: u64) -> io::Result<bool> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut bytes, 0)?;
    Ok(SegmentHeader::decode(&bytes).is_ok_and(|header| {
        header.store_id == journal.store_id && u64::from(header.size) == length && header.packed.is_none()
    }))
}

/// The size of the last segment, which the next ones will have; none: the journal has not begun.
pub(crate) fn last_size(journal: &Journal) -> Result<Option<u32>, OpenError> {
    find(journal)?;
    // Of the last: packed ones have other sizes.
    Ok(journal.segments().last().and_then(|segment| u32::try_from(segment.size).ok()))
}

/// What a walk through the segments found. Nothing was changed yet.
struct Walked {
    ends: Vec<(Arc<Segment>, u64)>,
    last: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    end: End,
    next_sequence: u64,
    next_group: u64,
    suspects: Vec<Suspect>,
}

/// What of a journal is read and checked when it is opened: its last segment, which is enough after a clean stop, or all groups
/// from the segment with a sequence on.
pub(crate) enum Reading<'a> {
    Last,
    From(u64, &'a mut Visitor<'a>),
}

/// Opens the journal in `folder`.
pub(crate) fn open(
    disk: &Arc<dyn Disk>,
    folder: &Path,
    store_id: [u8; 16],
    segment_bytes: u32,
    reading: Reading<'_>,
) -> Result<Opened, OpenError> {
    let journal = Arc::new(Journal::new(Arc::clone(disk), folder.to_owned(), store_id));
    disk.create_dir(folder).map_err(io_failed("make", folder))?;
    for name in disk.list(folder).map_err(io_failed("list", folder))? {
        if name.ends_with(".tmp") {
            let path = folder.join(&name);
            disk.remove(&path).map_err(io_failed("remove", &path))?;
        }
        if let Some(sequence) = noted(&name) {
            journal.recall(sequence);
        }
    }
    let mark_path = folder.join(MARK_NAME);
    let (found, replaced) = find(&journal)?;
    remove_replaced(&journal, &replaced)?;
    let created = found.is_none();
    let mark = match found {
        Some(mark) => mark,
        None => {
            create_mark(disk.as_ref(), &mark_path).map_err(io_failed("write", &mark_path))?;
            create_segment(&journal, 1, segment_bytes, None).map_err(io_failed("begin a segment in", folder))?;
            Mark { segment: 1, ..Mark::default() }
        }
    };
    let walked = walk(&journal, mark, reading)?;
    let path = &walked.last.path;
    let file = disk.open(path, Access::Write).map_err(io_failed("write to", path))?;
    let cut = settle(&walked.last, file.as_ref(), &walked.end)?;
    let offset = walked.end.offset;
    let mark_file = disk.open(&mark_path, Access::Write).map_err(io_failed("open", &mark_path))?;
    let mark = Mark { group: walked.next_group - 1, end: offset, segment: walked.last.first };
    let written = mark_file.write_at(&mark.encode(), 0).and_then(|()| mark_file.sync_data());
    written.map_err(io_failed("write", &mark_path))?;
    journal.set_durable(walked.next_sequence - 1);
    let writer = JournalWriter {
        journal: Arc::clone(&journal),
        segment: walked.last,
        file,
        mark: mark_file,
        offset,
        ready_to: offset,
        next_sequence: walked.next_sequence,
        next_group: walked.next_group,
        segment_bytes,
        buffer: Vec::new(),
        reserve: Reserve::open(disk, folder, segment_bytes).map_err(io_failed("look at the reserve in", folder))?,
    };
    Ok(Opened { journal, writer, created, cut, suspects: walked.suspects })
}

/// Reads and checks a whole journal and changes nothing. Contents are the visitor's to check.
pub(crate) fn inspect<'a>(journal: &Journal, visitor: &'a mut Visitor<'a>) -> Result<Inspected, OpenError> {
    let (mark, _) = find(journal)?;
    inspect_up_to(journal, mark, visitor)
}

/// The same where the mark [cannot be told](check_mark): all that checks counts as acknowledged, and what does not as torn.
pub(crate) fn inspect_unmarked<'a>(journal: &Journal, visitor: &'a mut Visitor<'a>) -> Result<Inspected, OpenError> {
    find_segments(journal)?;
    inspect_up_to(journal, Some(Mark { group: u64::MAX, ..Mark::default() }), visitor)
}

fn inspect_up_to<'a>(
    journal: &Journal,
    mark: Option<Mark>,
    visitor: &'a mut Visitor<'a>,
) -> Result<Inspected, OpenError> {
    let Some(mark) = mark else { return Ok(Inspected { next_sequence: 1, ..Inspected::default() }) };
    let Walked { ends, last, file, end, next_sequence, .. } = walk(journal, mark, Reading::From(1, visitor))?;
    let torn = torn(&last, file.as_ref(), &end)?;
    Ok(Inspected { torn, ends, next_sequence })
}

/// Checks what no group speaks of: the room behind the last group of a segment, and the length of its file.
pub(crate) fn check_rest(journal: &Journal, segment: &Segment, end: u64) -> Result<(), OpenError> {
    let file = journal.open_segment(segment, Access::Read).map_err(read_failed)?;
    let length = file.length().map_err(io_failed("measure", &segment.path))?;
    if length != segment.size {
        let what = format!("the file has {length} bytes, and its header says {}", segment.size);
        return Err(segment.damage(length.min(segment.size), &what).into());
    }
    match first_byte_of(file.as_ref(), end, segment.size).map_err(io_failed("read", &segment.path))? {
        Some(at) => Err(segment.damage(at, "bytes stand behind the last group, where nothing was written").into()),
        None => Ok(()),
    }
}

fn walk(journal: &Journal, mark: Mark, reading: Reading<'_>) -> Result<Walked, OpenError> {
    let segments = journal.segments();
    let (from, mut visitor) = match reading {
        Reading::Last => (segments.len().saturating_sub(1), None),
        // One with a group before the sequence, whose number says how it goes on: a power cut leaves a mark that lags.
        Reading::From(at, visitor) => (segments.partition_point(|one| one.first < at).saturating_sub(1), Some(visitor)),
    };
    let first = segments.get(from).map_or(1, |segment| segment.first);
    // After a clean stop the mark, which it leaves exact, says which group comes next in an empty last segment.
    let next_group = if from == 0 { 1 } else { mark.group + 1 };
    let mut walk = Walk { journal, mark, next_sequence: first, next_group, suspects: Vec::new() };
    let (mut last, mut ends) = (None, Vec::new());
    for (i, segment) in segments.iter().enumerate().skip(from) {
        let following = segments.get(i + 1);
        let file = journal.open_segment(segment, Access::Read).map_err(read_failed)?;
        let end = walk.segment(segment, file.as_ref(), following.is_none(), from > 0, &mut visitor)?;
        if let Some(following) = following.filter(|following| following.first != walk.next_sequence) {
            let (next, first) = (walk.next_sequence, following.first);
            let what = format!("the segment breaks off before sequence {next}, and the next one begins with {first}");
            return Err(segment.damage(end.offset, &what).into());
        }
        ends.push((Arc::clone(segment), end.offset));
        last = Some((Arc::clone(segment), file, end));
    }
    let Walk { next_sequence, next_group, suspects, .. } = walk;
    let missing = || Damage { file: journal.folder.clone(), offset: 0, what: "there is no segment".into() };
    let (last, file, end) = last.ok_or_else(missing)?;
    if mark.covers(last.first, end.offset) {
        let what = format!("acknowledged up to group {}, but the journal ends before its end", mark.group);
        return Err(last.damage(end.offset, &what).into());
    }
    Ok(Walked { ends, last, file, end, next_sequence, next_group, suspects })
}

impl Walk<'_> {
    /// Goes through one segment. `joins` says that the group number before it is not known from a walk.
    fn segment(
        &mut self,
        segment: &Segment,
        file: &dyn DiskFile,
        is_last: bool,
        joins: bool,
        visitor: &mut Option<&mut Visitor<'_>>,
    ) -> Result<End, OpenError> {
        if let Some(covered) = segment.packed {
            return self.packed(segment, file, (covered, joins), visitor);
        }
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        let mut first = joins;
        let torn = loop {
            match segment.read(file, offset).map_err(io_failed("read", &segment.path))? {
                Found::Group(group) => {
                    if first {
                        self.next_group = group.span.number;
                        first = false;
                    }
                    if let Some(what) = self.group(segment, file, &group, is_last)? {
                        break Some(what);
                    }
                    // A later fact of the walk may ask for this one.
                    self.journal.set_durable(self.next_sequence - 1);
                    if let Some(visit) = visitor {
                        visit(self.journal, &group)?;
                    }
                    offset = offset.saturating_add(group.span.length);
                }
                Found::Nothing if !is_last || is_zero(segment, file, offset)? => break None,
                Found::Nothing => break Some("bytes stand where the journal ends"),
                Found::Bad(what) => break Some(what),
            }
        };
        if let Some(what) = torn {
            self.judge_tail(segment, file, is_last, offset, what)?;
        }
        segment.set_indexed();
        Ok(End { offset, torn })
    }

    /// Goes through a packed segment: it was synced before it had its name, so nothing in it is torn, and it has no room to spare.
    fn packed(
        &mut self,
        segment: &Segment,
        file: &dyn DiskFile,
        (covered, joins): (Covered, bool),
        visitor: &mut Option<&mut Visitor<'_>>,
    ) -> Result<End, OpenError> {
        if joins {
            self.next_group = covered.first_group;
        }
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        while offset < segment.size {
            let group = match segment.read(file, offset).map_err(io_failed("read", &segment.path))? {
                Found::Group(group) => group,
                Found::Nothing => break,
                Found::Bad(what) => return Err(segment.damage(offset, what).into()),
            };
            self.check_order(segment, &group)?;
            segment.note(group.span.first, offset);
            (self.next_sequence, self.next_group) = (group.span.end, group.span.next_number);
            self.journal.set_durable(self.next_sequence - 1);
            if let Some(visit) = visitor {
                visit(self.journal, &group)?;
            }
            offset = offset.saturating_add(group.span.length);
        }
        if self.next_sequence > covered.end || self.next_group > covered.next_group() {
            return Err(segment.damage(0, "the segment holds more than its header says").into());
        }
        (self.next_sequence, self.next_group) = (covered.end, covered.next_group());
        segment.set_indexed();
        Ok(End { offset, torn: None })
    }

    /// Judges a group that checks: its place in the order, and beyond the mark its contents too. Says what is torn.
    fn group(
        &mut self,
        segment: &Segment,
        file: &dyn DiskFile,
        group: &Group,
        is_last: bool,
    ) -> Result<Option<&'static str>, OpenError> {
        let span = group.span;
        self.check_order(segment, group)?;
        if span.number > self.mark.group && segment.packed.is_none() {
            let suspects = suspects(segment, file, group)?;
            let end = group.offset.saturating_add(span.length);
            // Whatever follows, it was begun only after this group was synced.
            let followed = !matches!(segment.header(file, end), Ok(Err(Found::Nothing)));
            if !suspects.is_empty() && is_last && !followed {
                return Ok(Some("the checksum of a content is wrong"));
            }
            self.suspects.extend(suspects);
        }
        segment.note(span.first, group.offset);
        self.next_sequence = span.end;
        self.next_group = span.next_number;
        Ok(None)
    }

    fn check_order(&self, segment: &Segment, group: &Group) -> Result<(), OpenError> {
        let span = group.span;
        if span.first == self.next_sequence && span.number == self.next_group {
            return Ok(());
        }
        let what = format!(
            "group {} with sequence {} stands where group {} with sequence {} must",
            span.number, span.first, self.next_group, self.next_sequence
        );
        Err(segment.damage(group.offset, &what).into())
    }

    /// Decides whether what does not check is a torn tail; anything else is damage.
    fn judge_tail(
        &self,
        segment: &Segment,
        file: &dyn DiskFile,
        is_last: bool,
        offset: u64,
        what: &str,
    ) -> Result<(), OpenError> {
        // The end of the walk would refuse it too, but only here it is known what is wrong.
        if self.mark.covers(segment.first, offset) || !is_last {
            return Err(segment.damage(offset, what).into());
        }
        match later_group(segment, file, offset)? {
            Some(later) => Err(segment.damage(offset, &format!("{what}, and a group follows at {later}")).into()),
            None => Ok(()),
        }
    }
}

/// The contents of a group that do not check.
fn suspects(segment: &Segment, file: &dyn DiskFile, group: &Group) -> Result<Vec<Suspect>, OpenError> {
    let mut found = Vec::new();
    for Placed { sequence, place, .. } in &group.facts {
        let (sequence, Some(place)) = (*sequence, place) else { continue };
        match read_content(segment, file, sequence, *place) {
            Ok(_) => {}
            Err(ReadError::Damaged(damage)) => found.push(Suspect { sequence, damage }),
            Err(ReadError::Erased(_)) => {
                let damage = segment.damage(place.offset, "a content that is still needed is zeros");
                found.push(Suspect { sequence, damage });
            }
            Err(other) => return Err(read_failed(other)),
        }
    }
    Ok(found)
}

/// Where a whole group stands behind the bad bytes at `offset`, if one does.
///
/// Behind a sound header only what follows its group counts. With the header torn, contents are searched too: one made outside to
/// look like a group does not check, as checksums begin with the store id.
fn later_group(segment: &Segment, file: &dyn DiskFile, offset: u64) -> Result<Option<u64>, OpenError> {
    let failed = |e| io_failed("read", &segment.path)(e);
    let mut at = match segment.header(file, offset).map_err(failed)? {
        Ok(header) => offset.saturating_add(header.span().length),
        Err(_) => offset.saturating_add(ALIGNMENT as u64),
    };
    let mut piece = vec![0; SEARCH_BYTES + GROUP_HEADER_BYTES];
    let end = file.length().map_err(io_failed("measure", &segment.path))?.min(segment.size);
    while at < end {
        file.read_at(&mut piece, at).map_err(io_failed("read", &segment.path))?;
        for (i, header) in piece.windows(GROUP_HEADER_BYTES).enumerate().step_by(ALIGNMENT) {
            let here = at.saturating_add(i as u64);
            if GroupHeader::decode(header, segment.seed).is_ok()
                && matches!(segment.read(file, here).map_err(io_failed("read", &segment.path))?, Found::Group(_))
            {
                return Ok(Some(here));
            }
        }
        at = at.saturating_add(SEARCH_BYTES as u64);
    }
    Ok(None)
}

/// What would be cut: from where the groups end to the last byte that is not zero.
fn torn(segment: &Segment, file: &dyn DiskFile, end: &End) -> Result<Option<Cut>, OpenError> {
    if end.torn.is_none() {
        return Ok(None);
    }
    let last = last_byte(segment, file, end.offset)?.unwrap_or(end.offset);
    let bytes = last.saturating_add(1).saturating_sub(end.offset);
    Ok(Some(Cut { file: segment.path.clone(), offset: end.offset, bytes }))
}

/// Zeros a torn tail and makes durable what a killed process had written but not synced.
fn settle(segment: &Segment, file: &dyn DiskFile, end: &End) -> Result<Option<Cut>, OpenError> {
    let cut = torn(segment, file, end)?;
    if let Some(cut) = &cut {
        file.punch(cut.offset, cut.bytes).map_err(io_failed("cut", &segment.path))?;
    }
    if file.length().map_err(io_failed("measure", &segment.path))? < segment.size {
        file.allocate(segment.size).map_err(io_failed("reserve", &segment.path))?;
    }
    file.sync_data().map_err(io_failed("sync", &segment.path))?;
    Ok(cut)
}
