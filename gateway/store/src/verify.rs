//! Looking at a store that nobody runs: is every byte what was written, and does the outbox say what the journal says?
//!
//! Knows: how to check all of it and change nothing ([`verify`]), and how to make the outbox anew ([`rebuild`]). Invariants: the
//! directory is locked meanwhile, so a running store is never judged by a half-written group; what is wrong is named by file and
//! offset, the first of it with what was sound before; what a crash may leave and the next start repairs is no damage.

mod needed;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tramite_proto::{
    clock::SystemClock,
    ids::MessageId,
    pb::{journal::v1::Part, statement::v1::Statement},
};

use self::needed::Needed;
use crate::{
    change::Notary,
    disk::{Disk, RealDisk},
    error::{Damage, MapError, OpenError, ReadError},
    home::{self, Home},
    journal::{self, Group, Inspected, Journal, read_failed},
    map::{Key, Maps, OrderedMap},
    open,
    options::{Cut, Options, Recovery, SEGMENT_BYTES_MIN, Seams, real_maps},
    overlay::successor,
    parts,
    replay::Replay,
    rows,
    scratch::Scratch,
    seal::{self, Marker, Seal},
};

/// Rows compared in one go.
const COMPARE_AT_ONCE: usize = 1024;
/// More findings say nothing more.
const FINDINGS_MAX: usize = 100;
/// Called after each group.
pub type Watch<'a> = dyn FnMut(&Verification) + 'a;

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Whose store it is, as store.toml says.
    pub role: String,
    /// Bytes of the journal that were read.
    pub read_bytes: u64,
    /// Bytes of the journal.
    pub all_bytes: u64,
    /// Groups that check.
    pub groups: u64,
    /// Facts that check.
    pub facts: u64,
    /// Facts that went at the end of their retention, as far as what is left says so.
    pub retired: u64,
    /// Contents that are there and check.
    pub contents: u64,
    /// Contents of final messages that were erased.
    pub erased: u64,
    /// Contents of final messages that are still there, as a crash leaves them: the next start erases them.
    pub leftover: u64,
    /// Parts that are needed, there, and check.
    pub parts: u64,
    /// Rows of the outbox that were compared; 0: it was not left clean, and is rebuilt at the next start anyway.
    pub rows: u64,
    /// The store was stopped in order.
    pub clean: bool,
    /// A tail that was never acknowledged: the next start cuts it.
    pub torn: Option<Cut>,
    /// Everything that is wrong, in the order in which it is read. Empty: all is well.
    pub problems: Vec<Finding>,
}

/// Something that is wrong, and how much was sound before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, or the folder where only that is known.
    pub file: PathBuf,
    /// Where in it.
    pub offset: Option<u64>,
    /// What is wrong there.
    pub what: String,
    /// Groups that were sound before it.
    pub groups: u64,
    /// Facts that were sound before it.
    pub facts: u64,
    /// Contents that were sound before it.
    pub contents: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, what) = (self.file.display(), &self.what);
        match self.offset {
            Some(offset) => write!(f, "{file} is damaged at offset {offset}: {what}"),
            None => write!(f, "{file}: {what}"),
        }
    }
}

impl Verification {
    /// Notes what is wrong, with what is sound by now.
    fn note(&mut self, file: &Path, offset: Option<u64>, what: impl Into<String>) {
        let finding = self.finding(file, offset, what);
        self.keep(finding);
    }

    fn keep(&mut self, finding: Finding) {
        if self.problems.len() < FINDINGS_MAX {
            self.problems.push(finding);
        }
    }

    fn finding(&self, file: &Path, offset: Option<u64>, what: impl Into<String>) -> Finding {
        let (groups, facts, contents) = (self.groups, self.facts, self.contents);
        Finding { file: file.to_owned(), offset, what: what.into(), groups, facts, contents }
    }

    /// Puts what was found into the order of the journal, and the rest behind it; what was found `before` the journal stays before it.
    fn sort(&mut self, before: usize) {
        let found = self.problems.get_mut(before..).unwrap_or_default();
        found.sort_by(|one, next| (one.groups, &one.file, one.offset).cmp(&(next.groups, &next.file, next.offset)));
    }

    fn damaged(&mut self, damage: &Damage) {
        self.note(&damage.file, Some(damage.offset), &damage.what);
    }

    /// What could not be read is a finding too; a store that cannot be judged at all is an error, and so is what this process may not read:
    /// that says nothing of it.
    fn failed(&mut self, error: OpenError) -> Result<(), OpenError> {
        match error {
            OpenError::Damaged(damage) => self.damaged(&damage),
            OpenError::Io { ref source, .. } if source.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            OpenError::Io { action, path, source } => self.note(&path, None, format!("cannot {action} it: {source}")),
            other => return Err(other),
        }
        Ok(())
    }
}

/// Checks every byte of a store on the system's disk, and changes nothing. Its rows are made anew in a folder for temporary files, which
/// takes as much room as the outbox.
///
/// # Errors
/// It is not a store, or in use. What is wrong with its bytes is no error but a finding.
pub fn verify(directory: &Path) -> Result<Verification, OpenError> {
    verify_watched(directory, &mut |_| {})
}

/// [`verify`], telling how far it is.
///
/// # Errors
/// As [`verify`].
pub fn verify_watched(directory: &Path, watch: &mut Watch<'_>) -> Result<Verification, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut found = Verification::default();
    check(&disk, &real_maps(), directory, &mut found, watch)?;
    Ok(found)
}

/// [`verify`], on any disk.
///
/// # Errors
/// As [`verify`].
pub fn verify_with(disk: &Arc<dyn Disk>, maps: &dyn Maps, directory: &Path) -> Result<Verification, OpenError> {
    let mut found = Verification::default();
    check(disk, maps, directory, &mut found, &mut |_| {})?;
    Ok(found)
}

fn check(
    disk: &Arc<dyn Disk>,
    maps: &dyn Maps,
    directory: &Path,
    found: &mut Verification,
    watch: &mut Watch<'_>,
) -> Result<(), OpenError> {
    let home = match home::take(disk.as_ref(), directory, None, [0; 16]) {
        Ok(home) => home,
        Err(error) => return found.failed(error),
    };
    found.role.clone_from(&home.role);
    let expected = Scratch::new(maps)?;
    let journal = Journal::new(Arc::clone(disk), home.journal(), home.store_id);
    let mut needed = Needed::default();
    let marker = seal::read(disk.as_ref(), &home.outbox())?;
    found.clean = matches!(marker, Marker::Clean(_));
    // The groups are there whether it says how far they go or not.
    journal::check_mark(&journal).or_else(|error| found.failed(error))?;
    let before = found.problems.len();
    let inspected = match read_groups(&journal, &*expected, &mut needed, found, watch) {
        Ok(inspected) => inspected,
        Err(error) => {
            let failed = found.failed(cut_short(disk.as_ref(), &journal, error));
            found.sort(before);
            return failed;
        }
    };
    for (segment, end) in &inspected.ends {
        // Behind a torn tail something stands by its nature.
        let torn = inspected.torn.as_ref().is_some_and(|torn| torn.offset == *end && segment.is_at(&torn.file));
        let rest = if torn { Ok(()) } else { journal::check_rest(&journal, segment, *end) };
        rest.or_else(|error| found.failed(error))?;
    }
    for damage in journal::check_spares(&journal)? {
        found.damaged(&damage);
    }
    found.retired = (inspected.next_sequence - 1).saturating_sub(found.facts);
    found.torn = inspected.torn;
    found.read_bytes = found.all_bytes;
    for (message, part) in std::mem::take(&mut needed.parts).into_values().flatten() {
        check_part(disk.as_ref(), &home, &message, &part, found)?;
    }
    let (end, position) = (inspected.next_sequence, open::position(&marker, maps, &home.outbox())?);
    match marker {
        _ if position > end => found.note(&home.journal(), None, open::went_on(end, position)),
        Marker::None => {}
        Marker::Damaged => found.note(&seal::marker(&home.outbox()), Some(0), "the marker's checksum is wrong"),
        Marker::Clean(seal) => {
            let kept = Kept { home: &home, seal, end, leftovers: needed.leftovers };
            check_outbox(disk.as_ref(), maps, &kept, &*expected, found)?;
        }
    }
    found.sort(before);
    Ok(())
}

/// Where a segment's file ends early, that is where the damage begins.
fn cut_short(disk: &dyn Disk, journal: &Journal, error: OpenError) -> OpenError {
    let OpenError::Damaged(damage) = error else { return error };
    let size = journal.size_at(&damage.file);
    match (size, disk.info(&damage.file)) {
        (Some(size), Ok(Some(info))) if info.length < size => {
            let what = format!("the file ends here, and its header says {size} bytes: {}", damage.what);
            OpenError::Damaged(Damage { offset: info.length, what, ..damage })
        }
        _ => OpenError::Damaged(damage),
    }
}

fn read_groups(
    journal: &Journal,
    expected: &dyn OrderedMap,
    needed: &mut Needed,
    found: &mut Verification,
    watch: &mut Watch<'_>,
) -> Result<Inspected, OpenError> {
    let mut replay = Replay::new(expected, 1);
    // The mark's is the only problem that is found before.
    let marked = found.problems.is_empty();
    let mut visit = |journal: &Journal, group: &Group| {
        let effects = replay.group(journal, group).map_err(read_failed)?;
        found.all_bytes = journal.bytes();
        found.read_bytes = found.read_bytes.saturating_add(group.span.length);
        found.groups += group.span.next_number - group.span.number;
        found.facts += group.facts.len() as u64;
        needed.group(journal, group, found);
        for sequence in effects.finals {
            needed.over(journal, sequence, found);
        }
        if let Err(ReadError::Damaged(damage)) = journal.check_padding(group) {
            found.damaged(&damage);
        }
        watch(found);
        Ok(())
    };
    let inspected =
        if marked { journal::inspect(journal, &mut visit) } else { journal::inspect_unmarked(journal, &mut visit) };
    needed.report(inspected.is_ok(), found);
    let inspected = inspected?;
    replay.finish()?;
    Ok(inspected)
}

/// Checks a part that a message which is not final names.
fn check_part(
    disk: &dyn Disk,
    home: &Home,
    message: &MessageId,
    part: &Part,
    found: &mut Verification,
) -> Result<(), OpenError> {
    let path = parts::path(&home.parts(), message, part.part);
    let digest = match disk.info(&path) {
        Ok(None) => {
            found.note(&path, Some(0), "the part is missing, and still needed");
            return Ok(());
        }
        Ok(Some(info)) if info.length != part.length => {
            let what = format!("the part has {} bytes, and {} were accepted", info.length, part.length);
            found.note(&path, Some(info.length.min(part.length)), what);
            return Ok(());
        }
        info => info.and_then(|_| parts::digest(disk, &path, part.length)),
    };
    match digest {
        Ok(digest) if part.sha256 == digest.as_bytes().as_slice() => found.parts += 1,
        Ok(_) => found.note(&path, Some(0), "the part's digest is not the one that was accepted"),
        Err(source) => found.failed(OpenError::Io { action: "read", path, source })?,
    }
    Ok(())
}

/// An outbox that was left clean, and where the journal ends.
struct Kept<'a> {
    home: &'a Home,
    seal: Seal,
    end: u64,
    leftovers: Vec<Finding>,
}

/// Checks an outbox that was left clean.
fn check_outbox(
    disk: &dyn Disk,
    maps: &dyn Maps,
    kept: &Kept<'_>,
    expected: &dyn OrderedMap,
    found: &mut Verification,
) -> Result<(), OpenError> {
    let Kept { home, seal, end, leftovers } = kept;
    if seal.position < *end {
        // Of an older day: the next start rebuilds it.
        found.clean = false;
        return Ok(());
    }
    leftovers.iter().for_each(|finding| found.keep(finding.clone()));
    // Where a file is not as it was left, its rows need not be asked.
    match seal::check(disk, &home.outbox(), seal) {
        Ok(None) => {}
        Ok(Some(damage)) => {
            found.damaged(&damage);
            return Ok(());
        }
        Err(source) => return found.failed(OpenError::Io { action: "read all of", path: home.outbox(), source }),
    }
    match compare(expected, maps, &home.outbox(), found) {
        Err(OpenError::Outbox(MapError(what))) => {
            found.note(&home.outbox(), None, format!("the outbox cannot be read: {what}"));
            Ok(())
        }
        other => other,
    }
}

/// Compares the outbox with what the journal says it must be, row by row.
fn compare(
    expected: &dyn OrderedMap,
    maps: &dyn Maps,
    folder: &Path,
    found: &mut Verification,
) -> Result<(), OpenError> {
    let actual = maps.open_copy(folder)?;
    let mut from = Key::new();
    loop {
        let ours = expected.scan(&from, rows::END, COMPARE_AT_ONCE)?;
        let to = match ours.last() {
            Some((key, _)) if ours.len() == COMPARE_AT_ONCE => successor(key),
            _ => Key::from_slice(rows::END),
        };
        let theirs = actual.scan(&from, &to, usize::MAX)?;
        if ours != theirs {
            let wrong =
                ours.iter().filter(|row| !theirs.contains(row)).chain(theirs.iter().filter(|row| !ours.contains(row)));
            for (key, _) in wrong.take(FINDINGS_MAX) {
                found.note(folder, None, format!("the row {} is not what the journal says", key.escape_ascii()));
            }
        }
        found.rows += theirs.len() as u64;
        if to.as_slice() == rows::END {
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
    let mut options = Options::new(directory, home.role.clone());
    let journal = Journal::new(Arc::clone(&seams.disk), home.journal(), home.store_id);
    // A segment of a group that is larger than any has its own size.
    let usual = |size: &u32| (SEGMENT_BYTES_MIN..=options.segment_bytes).contains(size);
    options.segment_bytes = journal::last_size(&journal)?.filter(usual).unwrap_or(options.segment_bytes);
    // An outbox that knows of more than the journal has is the last trace of it.
    let position = open::position(&seal::read(seams.disk.as_ref(), &home.outbox())?, &*seams.maps, &home.outbox())?;
    let cut = open::reaches(&options, &seams, &home, position)?;
    seal::remove(seams.disk.as_ref(), &home.outbox())?;
    seams.maps.wipe(&home.outbox())?;
    let (store, writer, mut recovery) = open::open(options, seams, home)?;
    recovery.cut = recovery.cut.or(cut);
    drop(store);
    writer.finish().map_err(|poisoned| {
        let path = directory.to_owned();
        OpenError::Io { action: "rebuild the outbox of", path, source: io::Error::other(poisoned) }
    })?;
    Ok(recovery)
}
