//! Looking at a store that nobody runs: is every byte what was written, and does the outbox say what the journal says?
//!
//! Knows: how to check all of it and change nothing ([`verify`]), and how to make the outbox anew ([`rebuild`]). Invariant: the
//! directory is locked meanwhile, so a running store is never judged by a half-written group.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use bytes::Bytes;
use tramite_proto::{clock::SystemClock, pb::statement::v1::Statement};

use crate::{
    change::Notary,
    disk::{Disk, RealDisk},
    error::{MapError, OpenError, ReadError},
    home,
    journal::{self, Journal, read_failed},
    map::{Maps, MemoryMaps, OrderedMap, SledMaps},
    open,
    options::{Options, Recovery, Seams},
    outbox::Replay,
    overlay::successor,
    rows,
};

/// Rows compared in one go.
const COMPARE_AT_ONCE: usize = 1024;
/// More differences say nothing more.
const PROBLEMS_MAX: usize = 100;

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Groups that check.
    pub groups: u64,
    /// Facts that check.
    pub facts: u64,
    /// Contents that are there and check.
    pub contents: u64,
    /// Contents of final messages that were erased.
    pub erased: u64,
    /// Rows of the outbox that were compared; 0: it was not left clean, and is rebuilt at the next start anyway.
    pub rows: u64,
    /// Everything that is wrong, in words. Empty: all is well.
    pub problems: Vec<String>,
}

/// Checks every byte of a store on the system's disk, and changes nothing.
///
/// # Errors
/// It is not a store, or in use. What is wrong with its bytes is no error but a finding.
pub fn verify(directory: &Path) -> Result<Verification, OpenError> {
    let maps = SledMaps { cache_bytes: 64 * 1024 * 1024 };
    verify_with(&(Arc::new(RealDisk) as Arc<dyn Disk>), &maps, directory)
}

/// [`verify`], on any disk.
///
/// # Errors
/// As [`verify`].
pub fn verify_with(disk: &Arc<dyn Disk>, maps: &dyn Maps, directory: &Path) -> Result<Verification, OpenError> {
    let home = home::take(disk.as_ref(), directory, None, [0; 16])?;
    let expected = MemoryMaps::new().open(Path::new("expected"))?;
    let journal = Journal::new(Arc::clone(disk), home.journal(), home.store_id);
    let mut found = Verification::default();
    if let Err(damage) = read_all(&journal, expected.as_ref(), &mut found) {
        found.problems.push(damage.to_string());
        return Ok(found);
    }
    if home::clean_position(disk.as_ref(), directory)?.is_some() {
        match compare(expected.as_ref(), maps, &home.outbox(), &mut found) {
            Ok(()) => {}
            Err(MapError(what)) => found.problems.push(format!("the outbox cannot be read: {what}")),
        }
    }
    Ok(found)
}

fn read_all(journal: &Journal, expected: &dyn OrderedMap, found: &mut Verification) -> Result<(), OpenError> {
    let mut replay = Replay::new(expected);
    // Contents that are zeros: right if their message is final in the end.
    let mut zeros: BTreeSet<u64> = BTreeSet::new();
    let mut finals: BTreeSet<u64> = BTreeSet::new();
    let mut damaged = Vec::new();
    let mut visit = |journal: &Journal, group: &journal::Group, _: bool| {
        let effects = replay.group(journal, group).map_err(read_failed)?;
        finals.extend(effects.finals);
        found.groups += 1;
        found.facts += u64::from(group.header.count);
        for ((_, place), sequence) in group.facts.iter().zip(group.header.first_sequence..) {
            let Some(place) = place else { continue };
            match journal.content(sequence, *place) {
                Ok(_) => found.contents += 1,
                Err(ReadError::Erased(_)) => {
                    zeros.insert(sequence);
                }
                Err(error) => damaged.push((sequence, error)),
            }
        }
        Ok(())
    };
    journal::inspect(journal, &mut visit)?;
    replay.finish()?;
    found.erased = zeros.intersection(&finals).count() as u64;
    for sequence in zeros.difference(&finals).take(PROBLEMS_MAX) {
        found.problems.push(format!("the content of {sequence} is gone, and its message is not final"));
    }
    for (sequence, error) in damaged.into_iter().take(PROBLEMS_MAX) {
        found.problems.push(format!("the content of {sequence}: {error}"));
    }
    Ok(())
}

/// Compares the outbox with what the journal says it must be, row by row.
fn compare(
    expected: &dyn OrderedMap,
    maps: &dyn Maps,
    folder: &Path,
    found: &mut Verification,
) -> Result<(), MapError> {
    let actual = maps.open(folder)?;
    let mut from = Vec::new();
    loop {
        let ours = expected.scan(&from, rows::END, COMPARE_AT_ONCE)?;
        let to = match ours.last() {
            Some((key, _)) if ours.len() == COMPARE_AT_ONCE => successor(key),
            _ => rows::END.to_vec(),
        };
        let theirs = actual.scan(&from, &to, usize::MAX)?;
        if ours != theirs {
            let wrong =
                ours.iter().filter(|row| !theirs.contains(row)).chain(theirs.iter().filter(|row| !ours.contains(row)));
            let room = PROBLEMS_MAX.saturating_sub(found.problems.len());
            let wrong = wrong.take(room).map(|(key, _)| format!("the outbox's row {} differs", key.escape_ascii()));
            found.problems.extend(wrong);
        }
        found.rows += theirs.len() as u64;
        if to == rows::END {
            return Ok(());
        }
        from = to;
    }
}

/// Signs nothing: a rebuild accepts nothing.
#[derive(Debug)]
struct NoNotary;

impl Notary for NoNotary {
    fn sign(&self, _: i64, _: &[Bytes]) -> Result<Vec<Statement>, String> {
        Err("a store that is being rebuilt accepts nothing".into())
    }
}

/// Makes the outbox of a store on the system's disk anew from its journal, and leaves it clean.
///
/// # Errors
/// As for opening it.
pub fn rebuild(directory: &Path) -> Result<Recovery, OpenError> {
    let seams = Seams::real(Arc::new(SystemClock), Arc::new(NoNotary));
    let home = home::take(seams.disk.as_ref(), directory, None, [0; 16])?;
    home::remove_marker(seams.disk.as_ref(), directory)?;
    let options = Options::new(directory, home.role.clone());
    let (store, writer, recovery) = open::open(options, seams, home)?;
    drop(store);
    writer.finish().map_err(|poisoned| OpenError::Outbox(MapError(poisoned.to_string())))?;
    Ok(recovery)
}
