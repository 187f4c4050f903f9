//! How large a store is, and what stands in it: looked at while nobody runs it, by reading its whole journal.
//!
//! Knows: files, facts by kind, contents, queues. Never knows: what a message says. Invariant: changes nothing; damage is an error, as
//! sizes of a damaged store would be guesses.

use std::{collections::BTreeMap, fs, io, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use tramite_proto::pb::journal::v1::{Fact, Outcome, fact::Kind};

use crate::{
    disk::{Disk, RealDisk},
    error::{MapError, OpenError},
    home,
    journal::{self, Group, Journal, Placed, io_failed, read_failed},
    map::OrderedMap,
    options::real_maps,
    replay::Replay,
    rows::{self, ItemRow, QueueRow},
    scratch::Scratch,
    seal::{self, Marker},
};

/// Queues that are listed.
const QUEUES_MAX: usize = 10_000;
/// A unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Files of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// How many.
    pub files: u64,
    /// Their lengths, holes counted.
    pub length: u64,
    /// What they take on the disk.
    pub allocated: u64,
}

/// Contents or parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What waits in one queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueSize {
    /// Its name.
    pub queue: String,
    /// Not final and no dead letter, notices included.
    pub waiting: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// When the oldest that is not final was accepted, unix milliseconds; 0: none waits.
    pub oldest_ms: i64,
}

/// What [`stat`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stat {
    /// Whose store it is.
    pub role: String,
    /// It was stopped in order.
    pub clean: bool,
    /// Journal segments as they were written.
    pub segments: Size,
    /// Packed ones.
    pub packed: Size,
    /// Room that is kept for the day on which the disk is full.
    pub reserve: Size,
    /// The outbox.
    pub outbox: Size,
    /// Sealed parts.
    pub parts: Size,
    /// Groups in the journal.
    pub groups: u64,
    /// Facts by kind: accepted, attempt failed, settled (and of them dead-lettered), redriven, case expired, recorded, retired.
    pub facts: BTreeMap<&'static str, u64>,
    /// Contents of messages that are not final.
    pub waiting: Amount,
    /// Contents of final messages: erased, or to be erased at the next start.
    pub erased: Amount,
    /// What waits for whom; queues in which nothing ever was are left out.
    pub queues: Vec<QueueSize>,
    /// The last sequence; 0: none.
    pub last_sequence: u64,
    /// When the last fact was written, unix milliseconds; 0: none.
    pub last_ms: i64,
}

/// Reads a store on the system's disk, and changes nothing. As [`verify`](crate::verify) it makes the rows anew.
///
/// # Errors
/// It is not a store, in use, damaged, or cannot be read.
pub fn stat(directory: &Path) -> Result<Stat, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let home = home::take(disk.as_ref(), directory, None, [0; 16])?;
    let size = |folder: &Path, ending: Option<&str>| measure(folder, ending).map_err(io_failed("measure", folder));
    let mut found = Stat {
        role: home.role.clone(),
        clean: matches!(seal::read(disk.as_ref(), &home.outbox())?, Marker::Clean(_)),
        segments: size(&home.journal(), Some("seg"))?,
        packed: size(&home.journal(), Some(journal::PACKED_ENDING))?,
        reserve: size(&home.journal(), Some(journal::SPARE_ENDING))?,
        outbox: size(&home.outbox(), None)?,
        parts: size(&home.parts(), None)?,
        ..Stat::default()
    };
    let map = Scratch::new(&real_maps())?;
    let journal = Journal::new(Arc::clone(&disk), home.journal(), home.store_id);
    let mut replay = Replay::new(&*map, 1);
    let mut waiting: BTreeMap<u64, u32> = BTreeMap::new();
    let mut visit = |journal: &Journal, group: &Group| {
        let effects = replay.group(journal, group).map_err(read_failed)?;
        found.groups += group.span.next_number - group.span.number;
        for Placed { sequence, fact, .. } in &group.facts {
            *found.facts.entry(kind(fact)).or_default() += 1;
            waiting.extend(journal::content_of(fact).map(|(length, _)| (*sequence, length)));
            (found.last_sequence, found.last_ms) = (*sequence, fact.at_ms);
        }
        for length in effects.finals.iter().filter_map(|sequence| waiting.remove(sequence)) {
            found.erased.count += 1;
            found.erased.bytes += u64::from(length);
        }
        Ok(())
    };
    journal::inspect(&journal, &mut visit)?;
    replay.finish()?;
    let bytes = waiting.values().map(|length| u64::from(*length)).sum();
    found.waiting = Amount { count: waiting.len() as u64, bytes };
    found.queues = queues(&*map)?;
    Ok(found)
}

fn kind(fact: &Fact) -> &'static str {
    match &fact.kind {
        Some(Kind::Accepted(_)) => "accepted",
        Some(Kind::AttemptFailed(_)) => "attempt_failed",
        Some(Kind::Settled(settled)) if settled.outcome() == Outcome::DeadLettered => "dead_lettered",
        Some(Kind::Settled(_)) => "settled",
        Some(Kind::Redriven(_)) => "redriven",
        Some(Kind::CaseExpired(_)) => "case_expired",
        Some(Kind::Recorded(_)) => "recorded",
        Some(Kind::Retired(_)) => "retired",
        None => "of_a_later_version",
    }
}

fn queues(map: &dyn OrderedMap) -> Result<Vec<QueueSize>, MapError> {
    let prefix = rows::queue("");
    let mut queues = Vec::new();
    for (key, value) in map.scan(&prefix, &rows::after(&prefix), QUEUES_MAX)? {
        let queue = String::from_utf8_lossy(rows::rest(&key)).into_owned();
        let counts: QueueRow = rows::decode(value)?;
        let oldest = map.scan(&rows::item(&queue, 0), &rows::item(&queue, u64::MAX), 1)?.pop();
        let oldest_ms = oldest.map_or(Ok(0), |(_, item)| rows::decode(item).map(|item: ItemRow| item.accepted_ms))?;
        queues.push(QueueSize { queue, waiting: counts.waiting, dead_letters: counts.dead, oldest_ms });
    }
    Ok(queues)
}

/// The files in a folder and below it, of one ending or all.
fn measure(folder: &Path, ending: Option<&str>) -> io::Result<Size> {
    let mut size = Size::default();
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(size),
        other => other?,
    };
    for entry in entries {
        let (path, metadata) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        let below = if metadata.is_dir() {
            measure(&path, ending)?
        } else if ending.is_none_or(|ending| path.extension().is_some_and(|its| its == ending)) {
            Size { files: 1, length: metadata.len(), allocated: metadata.blocks().saturating_mul(BLOCK_BYTES) }
        } else {
            continue;
        };
        size.files += below.files;
        size.length += below.length;
        size.allocated += below.allocated;
    }
    Ok(size)
}
