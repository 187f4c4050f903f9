//! Opening a store: take the directory, recover the journal, trust, complete or rebuild the outbox.
//!
//! | what is found | what is read |
//! |---|---|
//! | the marker of a clean stop, and the files that it names as they were left | the journal's last segment |
//! | no marker, and rows that add up | the journal from their position on |
//! | anything else | the whole journal |
//!
//! Knows: the order. Never knows: the bytes of either. Invariants: nothing is served from an outbox that does not stand exactly where
//! the journal ends; what a crash kept from being erased is erased now, and only facts that are surely durable cause it; what the disk
//! does not erase is noted, and keeps no store from opening.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
};

use tokio::sync::mpsc;

use crate::{
    error::{Damage, MapError, OpenError},
    home::{self, Home},
    journal::{self, Group, Journal, Opened, Place, Reading, io_failed, read_failed},
    lanes::Lanes,
    map::{Maps, OrderedMap},
    options::{Cut, Options, Recovery, Seams},
    outbox::Outbox,
    parts::Parts,
    project::queues_of,
    recent::RecentFacts,
    replay::{Replay, rebuild},
    rows::{self, QueueRow},
    seal::{self, Marker, Seal},
    shared::{Failure, Shared},
    store::Store,
    writer::{COMMANDS_MAX, Writer},
};

impl Options {
    /// Opens the store, recovers it, and takes its directory for this process.
    ///
    /// # Errors
    /// See [`OpenError`]: in use, not ours, damaged where it was acknowledged, or the disk.
    pub fn open(self, seams: Seams) -> Result<(Store, Writer, Recovery), OpenError> {
        self.check()?;
        let home = home::take(seams.disk.as_ref(), &self.directory, Some(&self.role), seams.store_id)?;
        open(self, seams, home)
    }
}

/// Opens a directory that this process has.
pub(crate) fn open(options: Options, seams: Seams, home: Home) -> Result<(Store, Writer, Recovery), OpenError> {
    let disk = Arc::clone(&seams.disk);
    for folder in [home.outbox(), home.parts()] {
        disk.create_dir(&folder).map_err(io_failed("make", &folder))?;
    }
    let (opened, base, rebuilt) = match seal::read(disk.as_ref(), &home.outbox())? {
        Marker::Clean(seal) => open_clean(&options, &seams, &home, &seal)?,
        Marker::None => open_unclean(&options, &seams, &home)?,
        Marker::Damaged => {
            let (opened, base) = open_anew(&options, &seams, &home)?;
            (opened, base, Some("the marker of its clean stop is damaged".to_owned()))
        }
    };
    seal::remove(disk.as_ref(), &home.outbox())?;
    let mut opened = opened;
    opened.writer.begin(open_in(base.as_ref())?).map_err(io_failed("make the reserve in", &home.journal()))?;
    let (journal, end) = (Arc::clone(&opened.journal), opened.writer.next_sequence());
    let recovery =
        Recovery { created: opened.created, cut: opened.cut, rebuilt, sequence: end - 1, last_ms: last_ms(&journal)? };
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let (patient_sender, patient) = mpsc::channel(COMMANDS_MAX);
    let failure = Failure::none();
    let parts = Arc::new(Parts::new(Arc::clone(&disk), home.parts(), failure.clone()));
    // A part that a killed process put in place is called there from now on, by whoever asks.
    parts.sync_names().map_err(io_failed("sync", &home.parts()))?;
    let shared = Arc::new(Shared {
        disk,
        clock: seams.clock,
        outbox: Outbox::new(seams.maps, home.outbox(), Arc::clone(&journal), base, end),
        journal,
        recent: RecentFacts::new(options.recent_bytes),
        lanes: Lanes::new(end - 1),
        parts,
        finals: Mutex::default(),
        failure,
        closing: AtomicBool::new(false),
        tight: AtomicBool::new(false),
        groups: AtomicU64::new(0),
        facts: AtomicU64::new(0),
        erased_bytes: AtomicU64::new(0),
        retention: Mutex::default(),
        asks: sender.downgrade(),
        lock: home.lock,
        options,
    });
    shared.erase_again();
    home::sweep_parts(&shared, true);
    report(&shared, &recovery);
    let writer = Writer {
        shared: Arc::clone(&shared),
        notary: seams.notary,
        journal: opened.writer,
        commands,
        patient,
        held: None,
    };
    Ok((Store::new(shared, sender, patient_sender), writer, recovery))
}

/// What waits in all queues, dead letters included.
fn open_in(base: &dyn OrderedMap) -> Result<u64, MapError> {
    let prefix = rows::queue("");
    let queues = base.scan(&prefix, &rows::after(&prefix), usize::MAX)?;
    let counts = queues.into_iter().map(|(_, value)| rows::decode::<QueueRow>(value));
    counts.map(|row| row.map(|row| row.waiting.saturating_add(row.dead))).sum()
}

fn report(shared: &Shared, recovery: &Recovery) {
    let directory = shared.options.directory.display();
    if let Some(cut) = &recovery.cut {
        let (file, offset, bytes) = (cut.file.display(), cut.offset, cut.bytes);
        tracing::warn!(%file, offset, bytes, "a torn tail that was never acknowledged was cut");
    }
    if let Some(why) = &recovery.rebuilt {
        tracing::warn!(why, "the outbox was rebuilt from the journal");
    }
    tracing::info!(%directory, sequence = recovery.sequence, "the store is open");
}

fn last_ms(journal: &Journal) -> Result<i64, OpenError> {
    match journal.durable() {
        0 => Ok(0),
        last => journal.fact(last).map(|(fact, _)| fact.at_ms).map_err(read_failed),
    }
}

type Base = Arc<dyn OrderedMap>;

/// After a clean stop the last segment and the outbox's position say it all; if they do not, the outbox is rebuilt.
fn open_clean(
    options: &Options,
    seams: &Seams,
    home: &Home,
    seal: &Seal,
) -> Result<(Opened, Base, Option<String>), OpenError> {
    let opened = read_journal(options, seams, home, Reading::Last)?;
    let end = opened.writer.next_sequence();
    if seal.position > end {
        return Err(shortened(&opened, seal.position).into());
    }
    let why = match trusted(seams, &home.outbox(), seal, end) {
        Ok(base) => return Ok((opened, base, None)),
        Err(MapError(why)) => why,
    };
    seal::remove(seams.disk.as_ref(), &home.outbox())?;
    let base = wiped(seams, &home.outbox())?;
    rebuild(&opened.journal, base.as_ref(), end).map_err(read_failed)?;
    Ok((opened, base, Some(why)))
}

/// The outbox stands at a later place than the journal has: an older journal, or one that lost its end.
fn shortened(opened: &Opened, position: u64) -> Damage {
    opened.writer.damage(&went_on(opened.writer.next_sequence(), position))
}

/// What is wrong with a journal that ends before its outbox does.
pub(crate) fn went_on(end: u64, position: u64) -> String {
    format!(
        "the journal ends before sequence {end}, and went on to {position} when the outbox was written; \
         bring the later one back, or remove the outbox to go on without"
    )
}

/// The position of an outbox, as far as it can be told: the first sequence that it has not.
///
/// # Errors
/// It may not be read, or there is no room for the copy that is looked at.
pub(crate) fn position(marker: &Marker, maps: &dyn Maps, outbox: &Path) -> Result<u64, OpenError> {
    if let Marker::Clean(seal) = marker {
        return Ok(seal.position);
    }
    let told = match maps.open_copy(outbox) {
        Ok(base) => base.is_whole().and_then(|whole| if whole { base.get(rows::POSITION) } else { Ok(None) }),
        Err(OpenError::Outbox(error)) => Err(error),
        Err(error) => return Err(error),
    };
    // What does not add up says nothing.
    Ok(told.ok().flatten().map_or(1, |position| rows::number_at_end(&position)))
}

/// Reads a journal on to its end. Returns the tail that was cut from it.
///
/// # Errors
/// As for opening it; damaged when it ends before that position.
pub(crate) fn reaches(options: &Options, seams: &Seams, home: &Home, position: u64) -> Result<Option<Cut>, OpenError> {
    let opened = read_journal(options, seams, home, Reading::From(position, &mut |_, _| Ok(())))?;
    if opened.writer.next_sequence() < position {
        return Err(shortened(&opened, position).into());
    }
    Ok(opened.cut)
}

/// The outbox, if it stands where the marker and the journal say.
fn trusted(seams: &Seams, folder: &Path, seal: &Seal, end: u64) -> Result<Base, MapError> {
    let marker = seal.position;
    // Asked of the files before the engine, which opens a damaged one and says nothing.
    let changed = seal::check(seams.disk.as_ref(), folder, seal).map_err(|e| MapError(format!("its files: {e}")))?;
    if let Some(damage) = changed {
        return Err(MapError(damage.to_string()));
    }
    let base = seams.maps.open(folder)?;
    let reached = base.get(rows::POSITION)?.map_or(1, |position| rows::number_at_end(&position));
    if marker == end && reached == end {
        Ok(base)
    } else {
        Err(MapError(format!(
            "the outbox stands before {reached}, its marker before {marker}, the journal before {end}"
        )))
    }
}

fn wiped(seams: &Seams, folder: &Path) -> Result<Base, OpenError> {
    seams.maps.wipe(folder)?;
    seams.disk.create_dir(folder).map_err(io_failed("make", folder))?;
    Ok(seams.maps.open(folder)?)
}

fn read_journal(options: &Options, seams: &Seams, home: &Home, reading: Reading<'_>) -> Result<Opened, OpenError> {
    journal::open(&seams.disk, &home.journal(), home.store_id, options.segment_bytes, reading)
}

/// After a kill or a power cut an outbox whose rows add up lacks only what came after its position; any other is made anew.
fn open_unclean(options: &Options, seams: &Seams, home: &Home) -> Result<(Opened, Base, Option<String>), OpenError> {
    let why = match whole(seams, &home.outbox()) {
        Err(MapError(why)) => why,
        Ok(None) => "the process did not stop cleanly, and its rows do not add up".to_owned(),
        Ok(Some((base, position))) => match complete(options, seams, home, base.as_ref(), position) {
            Ok(opened) => return Ok((opened, base, None)),
            Err(OpenError::Outbox(MapError(why))) => why,
            Err(error) => return Err(error),
        },
    };
    let (opened, base) = open_anew(options, seams, home)?;
    let why = (!opened.created).then_some(why);
    Ok((opened, base, why))
}

/// The outbox and its position, if it is one whose rows add up.
fn whole(seams: &Seams, folder: &Path) -> Result<Option<(Base, u64)>, MapError> {
    let base = seams.maps.open(folder)?;
    if !base.is_whole()? {
        return Ok(None);
    }
    let position = base.get(rows::POSITION)?.map(|position| rows::number_at_end(&position));
    Ok(position.map(|position| (base, position)))
}

/// Reads the whole journal and makes the outbox anew from it.
fn open_anew(options: &Options, seams: &Seams, home: &Home) -> Result<(Opened, Base), OpenError> {
    let base = wiped(seams, &home.outbox())?;
    let opened = complete(options, seams, home, base.as_ref(), 1)?;
    Ok((opened, base))
}

/// Reads the journal from a position on, adds the rows of what stands there, and erases what a crash kept from being erased.
fn complete(
    options: &Options,
    seams: &Seams,
    home: &Home,
    base: &dyn OrderedMap,
    position: u64,
) -> Result<Opened, OpenError> {
    let mut replay = Replay::new(base, position);
    let mut contents = Contents { folder: home.journal(), position, ..Contents::default() };
    let mut visit = |journal: &Journal, group: &Group| {
        if group.span.end <= position {
            return Ok(());
        }
        // Of the groups before this one, which are durable.
        if replay.is_full() {
            contents.erase(journal)?;
            replay.write()?;
        }
        let effects = replay.group(journal, group).map_err(read_failed)?;
        contents.group(journal, group, &effects.finals);
        Ok(())
    };
    let opened = read_journal(options, seams, home, Reading::From(position, &mut visit))?;
    if opened.writer.next_sequence() < position {
        return Err(shortened(&opened, position).into());
    }
    for suspect in &opened.suspects {
        let (fact, _) = opened.journal.fact(suspect.sequence).map_err(read_failed)?;
        for queue in queues_of(&fact) {
            if replay.waits(queue, suspect.sequence)? {
                return Err(suspect.damage.clone().into());
            }
        }
    }
    contents.erase(&opened.journal)?;
    replay.finish()?;
    Ok(opened)
}

/// Contents met while the journal is read: those of messages that are not final, and those to erase.
#[derive(Debug, Default)]
struct Contents {
    /// Of the journal.
    folder: PathBuf,
    /// Those of earlier facts are looked up.
    position: u64,
    waiting: HashMap<u64, Place>,
    over: Vec<(u64, Option<Place>)>,
}

impl Contents {
    fn group(&mut self, journal: &Journal, group: &Group, finals: &[u64]) {
        let placed = group.facts.iter().filter_map(|placed| Some((placed.sequence, placed.place?)));
        self.waiting.extend(placed);
        for sequence in finals {
            match self.waiting.remove(sequence) {
                Some(place) => self.over.push((*sequence, Some(place))),
                None if *sequence < self.position => match journal.fact(*sequence) {
                    Ok((_, place)) => self.over.push((*sequence, place)),
                    Err(error) => journal.refuse(*sequence, &error),
                },
                None => {}
            }
        }
    }

    /// Durably, as the position that is written next says that it was done, or noted.
    fn erase(&mut self, journal: &Journal) -> Result<(), OpenError> {
        journal.erase(std::mem::take(&mut self.over));
        let failed = io_failed("erase contents in", &self.folder);
        match journal.sync_erased() {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed(io::ErrorKind::StorageFull.into())),
            Err(poisoned) => Err(failed(io::Error::other(poisoned))),
        }
    }
}
