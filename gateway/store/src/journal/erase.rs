//! Giving contents back to the disk, and remembering those that it refuses.
//!
//! A place that the disk does not erase keeps nothing else from being erased, no row from being applied and no store from opening. Such
//! a content is noted by an empty file beside the segments, `<sequence>.unerased`. It is tried again now and then and at each opening,
//! and its segment is packed as soon as it may be: what is packed leaves it out, and the file in which it stands goes. The note goes when
//! the content is gone. A file of its own, because rows are a function of the journal, and what no fact says must not stand in them.
//!
//! Knows: holes, which of them no sync has covered, what was refused. Never knows: which messages are final. Invariant: before a position
//! is written from which a message is final, its content is erased or noted, and either is durable: an opening looks for contents to
//! erase behind the position and in the notes, and nowhere else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use super::{Journal, Place, Segment, io_error, locked, reserve::is_full, segment::place_in};
use crate::{
    disk::{Access, DiskFile},
    error::{Poisoned, ReadError},
};

/// The ending of a note.
const NOTE_ENDING: &str = "unerased";
/// When more are refused it is not a place that fails but the disk: the store does.
const REFUSED_MAX: usize = 16 * 1024;

/// What was done, and what of it is not known on the disk yet.
#[derive(Debug, Default)]
pub(super) struct Erasing {
    /// Segments with holes that no sync has covered.
    punched: BTreeSet<u64>,
    /// Contents that were refused, by the sequence of their message.
    refused: BTreeMap<u64, Refused>,
}

#[derive(Debug, Default)]
struct Refused {
    noted: bool,
    /// Erased or left out since: the note goes with the next sync.
    gone: bool,
}

/// The sequence in the name of a note.
pub(super) fn noted(name: &str) -> Option<u64> {
    let sequence = name.strip_suffix(NOTE_ENDING)?.strip_suffix('.')?;
    u64::from_str_radix(sequence, 16).ok()
}

fn end(place: &Place) -> u64 {
    place.offset.saturating_add(u64::from(place.length))
}

impl Journal {
    fn note_path(&self, sequence: u64) -> PathBuf {
        self.folder.join(format!("{sequence:016x}.{NOTE_ENDING}"))
    }

    /// Takes in a note that an earlier process left.
    pub(super) fn recall(&self, sequence: u64) {
        locked(&self.erasing).refused.insert(sequence, Refused { noted: true, gone: false });
    }

    /// Contents that are to be erased, and were refused so far.
    pub(crate) fn refused(&self, sequences: Range<u64>) -> BTreeSet<u64> {
        let erasing = locked(&self.erasing);
        let refused = erasing.refused.range(sequences).filter(|(_, refused)| !refused.gone);
        refused.map(|(sequence, _)| *sequence).collect()
    }

    /// A content cannot be erased for now. It is noted with the next sync, and said once.
    pub(crate) fn refuse(&self, sequence: u64, error: &ReadError) {
        let offset = if let ReadError::Damaged(damage) = error { damage.offset } else { 0 };
        self.refuse_at(sequence, offset, error);
    }

    fn refuse_at(&self, sequence: u64, offset: u64, error: &dyn Display) {
        let segment = self.segment_of(sequence);
        if let Some(segment) = &segment {
            segment.weight.refused();
        }
        let mut erasing = locked(&self.erasing);
        let known = erasing.refused.contains_key(&sequence);
        erasing.refused.entry(sequence).or_default().gone = false;
        drop(erasing);
        if !known {
            let file = self.path_of(sequence);
            let file = file.display();
            tracing::error!(sequence, %file, offset, %error, "the content of a final message cannot be erased: it is tried again");
        }
    }

    /// Contents are not there any more.
    pub(super) fn gone(&self, sequences: impl Iterator<Item = u64>) {
        let mut erasing = locked(&self.erasing);
        for sequence in sequences {
            if let Some(refused) = erasing.refused.get_mut(&sequence) {
                refused.gone = true;
            }
        }
    }

    /// Gives contents back to the disk, neighbours in one hole; none: it is gone already. Returns how many bytes. What cannot be erased
    /// is [refused](Self::refuse).
    pub(crate) fn erase(&self, contents: Vec<(u64, Option<Place>)>) -> u64 {
        let _one = locked(&self.reshaping);
        let mut places = Vec::with_capacity(contents.len());
        for (sequence, place) in contents {
            match self.place_now(sequence, place) {
                Ok(Some(place)) if place.length > 0 => places.push((sequence, place)),
                Ok(_) => self.gone(std::iter::once(sequence)),
                Err(error) => self.refuse(sequence, &error),
            }
        }
        places.sort_unstable_by_key(|(_, place)| (place.segment, place.offset));
        places.chunk_by(|(_, one), (_, next)| one.segment == next.segment).map(|places| self.erase_in(places)).sum()
    }

    /// Where a content stands by now: seldom, its segment was packed since the place was noted.
    fn place_now(&self, sequence: u64, place: Option<Place>) -> Result<Option<Place>, ReadError> {
        match place {
            Some(place) if self.segment_of(sequence).is_none_or(|segment| !segment.has(place)) => {
                self.in_segment(sequence, Access::Read, |segment, file| place_in(segment, file, sequence))
            }
            place => Ok(place),
        }
    }

    /// Erases contents of one segment.
    fn erase_in(&self, places: &[(u64, Place)]) -> u64 {
        let Some((sequence, _)) = places.first() else { return 0 };
        let segment = self.segment_of(*sequence).ok_or(ReadError::NoFact(*sequence));
        let opened = segment.and_then(|segment| Ok((self.open_segment(&segment, Access::Write)?, segment)));
        match opened {
            Ok((file, segment)) => {
                let neighbours = |(_, one): &(u64, Place), (_, next): &(u64, Place)| end(one) >= next.offset;
                places.chunk_by(neighbours).map(|hole| self.punch(&segment, file.as_ref(), hole)).sum()
            }
            Err(error) => {
                places.iter().for_each(|(sequence, place)| self.refuse_at(*sequence, place.offset, &error));
                0
            }
        }
    }

    fn punch(&self, segment: &Segment, file: &dyn DiskFile, hole: &[(u64, Place)]) -> u64 {
        let (Some((sequence, first)), Some((_, last))) = (hole.first(), hole.last()) else { return 0 };
        let length = end(last).saturating_sub(first.offset);
        match file.punch(first.offset, length) {
            Ok(()) => {
                segment.weight.erased(length);
                // Only now: a sync meanwhile did not cover it.
                locked(&self.erasing).punched.insert(segment.first);
                self.gone(hole.iter().map(|(sequence, _)| *sequence));
                length
            }
            // One that is refused must not keep its neighbours.
            Err(_) if hole.len() > 1 => hole.chunks(1).map(|one| self.punch(segment, file, one)).sum(),
            Err(error) => {
                self.refuse_at(*sequence, first.offset, &error);
                0
            }
        }
    }

    /// Makes the holes durable, and the notes of what was refused: from then on nobody looks for the rest. False: there is no room for a
    /// note, and it is to be tried again.
    pub(crate) fn sync_erased(&self) -> Result<bool, Poisoned> {
        // What another took from the list must be durable for both.
        let _one = locked(&self.syncing);
        let (punched, gone) = {
            let mut erasing = locked(&self.erasing);
            let gone = erasing.refused.iter().filter(|(_, refused)| refused.gone);
            let gone: Vec<u64> = gone.map(|(sequence, _)| *sequence).collect();
            (std::mem::take(&mut erasing.punched), gone)
        };
        for first in punched {
            // Packed meanwhile, it would be another file.
            let _one = locked(&self.reshaping);
            let Some(segment) = self.segment_of(first) else { continue };
            let synced = self.disk.open(&segment.path, Access::Write).and_then(|file| file.sync_data());
            synced.map_err(|e| Poisoned { what: format!("sync {}", segment.path.display()), source: Arc::new(e) })?;
        }
        let noted = self.note();
        self.forget(gone);
        match noted {
            Err(e) if is_full(&e) => Ok(false),
            Err(e) => Err(Poisoned { what: "note what cannot be erased".into(), source: Arc::new(e) }),
            Ok(()) => Ok(true),
        }
    }

    /// Notes what was refused, durably.
    fn note(&self) -> std::io::Result<()> {
        let owed: Vec<u64> = {
            let erasing = locked(&self.erasing);
            if erasing.refused.len() > REFUSED_MAX {
                return Err(std::io::Error::other(format!("{} contents", erasing.refused.len())));
            }
            let owed = erasing.refused.iter().filter(|(_, refused)| !refused.noted && !refused.gone);
            owed.map(|(sequence, _)| *sequence).collect()
        };
        if owed.is_empty() {
            return Ok(());
        }
        for sequence in &owed {
            self.disk.open(&self.note_path(*sequence), Access::Create)?;
        }
        self.disk.sync_dir(&self.folder)?;
        let mut erasing = locked(&self.erasing);
        for sequence in owed {
            if let Some(refused) = erasing.refused.get_mut(&sequence) {
                refused.noted = true;
            }
        }
        Ok(())
    }

    /// Forgets what is gone for good. A note that comes back with a power cut is read, found to be of nothing, and removed again.
    fn forget(&self, gone: Vec<u64>) {
        for sequence in gone {
            let refused = locked(&self.erasing).refused.remove(&sequence);
            let path = self.note_path(sequence);
            if refused.is_some_and(|refused| refused.noted)
                && let Err(e) = self.disk.remove(&path)
            {
                tracing::warn!(error = %io_error(&path, &e), "a note of what is erased stays until the next start");
            }
        }
    }
}
