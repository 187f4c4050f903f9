//! The outbox: rows as they hold now, in layers, healed from the journal when the map below fails.
//!
//! ```text
//! draft      rows of the group being judged            (writer only)
//! tail       durable, not applied                       merged after each sync
//! flushing   being applied to the map, in one batch     until the batch is in
//! base       the ordered map                            up to the position that its `p` row names
//! ```
//! Knows: the layers, which fact each has reached, how to replay the journal. Never knows: what rows mean.
//! Invariants: every layer but the draft speaks only of durable facts; a row and the position that it belongs to are applied in one
//! batch, after the erasures that they bring about, so that an opening need not look for them before the position; a map that errs,
//! panics or holds a damaged row is wiped and replayed to exactly the position that it had: into memory, up to a bound, while the
//! disk has no room for another; one that is not whole is never read.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    error::{MapError, ReadError},
    journal::Journal,
    map::{Key, Maps, MemoryMap, NoMap, OrderedMap, Pair},
    overlay::{Over, Overlay, Rows},
    project::Facts,
    replay::rebuild,
    rows,
};

/// Applied at the latest when so many rows wait: some ten megabytes, and one file of the map's.
pub(crate) const APPLY_ROWS: usize = 64 * 1024;
/// Applied at the latest after this; until then a message may come and go without touching the map.
const APPLY_EVERY: Duration = Duration::from_secs(1);
/// Whoever waits for rows to be applied looks again after this, should a word have been missed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The writer waits when so many rows wait, so that memory is bounded when the map is slower than the journal.
const UNAPPLIED_ROWS_MAX: usize = 512 * 1024;
/// A map that fails when there is less room than this failed for want of it: what is applied at once is some ten megabytes.
const ROOM_LEAST_BYTES: u64 = 16 * 1024 * 1024;
/// Beyond what the rows themselves take, before they go back to the disk: sled writes in pieces of half a mebibyte.
const ROOM_BESIDE_BYTES: u64 = 2 * 1024 * 1024;
/// Rows that are kept in memory while the disk is full: some 400 MB.
const ROWS_IN_MEMORY_MAX: usize = 2 * 1024 * 1024;
/// A map that is let go has so long to give its room back.
const RELEASE_MAX: Duration = Duration::from_secs(5);

fn cannot_rebuild(error: ReadError) -> MapError {
    MapError(format!("cannot rebuild: {error}"))
}

/// What becomes of a map that is replaced.
#[derive(Debug, Clone, Copy)]
enum Old {
    Forget,
    Release,
}

/// Lets go of a map, so that the room of its files, which may have no name any more, comes back. One that never answers is left.
fn release(map: Arc<dyn OrderedMap>) {
    let (done, ended) = mpsc::channel::<()>();
    let letting_go = move || {
        let _done = done;
        drop(map);
    };
    if thread::Builder::new().name("tramite-outbox-old".into()).spawn(letting_go).is_ok() {
        // Ends when the sender is dropped.
        let _ended = ended.recv_timeout(RELEASE_MAX);
    }
}

/// Rows on their way into the map.
#[derive(Clone)]
struct Flushing {
    rows: Arc<Overlay>,
    /// The first sequence that they have not.
    end: u64,
}

struct Layers {
    tail: Overlay,
    /// The first sequence that the tail has not.
    tail_end: u64,
    flushing: Option<Flushing>,
    base: Arc<dyn OrderedMap>,
    base_end: u64,
    /// Rises each time the base is replayed.
    generation: u64,
}

/// The rows, for all.
pub(crate) struct Outbox {
    maps: Arc<dyn Maps>,
    folder: PathBuf,
    journal: Arc<Journal>,
    layers: RwLock<Layers>,
    rebuilds: AtomicU64,
    /// The base is in memory, as the disk is full.
    stuck: AtomicBool,
    /// The store was left clean.
    closed: AtomicBool,
    /// Room that there must be before the base goes back to the disk.
    wanted: AtomicU64,
    /// Rows that a base in memory may have.
    rows_in_memory_max: usize,
    signal: Mutex<Signal>,
    /// Something is to be applied, or the applier is to stop.
    work: Condvar,
    /// Something was applied.
    applied: Condvar,
}

#[derive(Debug, Default)]
struct Signal {
    stop: bool,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Facts for Journal {
    fn fact(&self, sequence: u64) -> Result<Arc<tramite_proto::pb::journal::v1::Fact>, ReadError> {
        Self::fact(self, sequence).map(|(fact, _)| fact)
    }
}

impl Layers {
    /// What is to be applied next: what could not be the last time, or the tail.
    fn flush(&mut self) -> Option<Flushing> {
        if self.flushing.is_none() && self.tail_end != self.base_end {
            self.flushing = Some(Flushing { rows: Arc::new(std::mem::take(&mut self.tail)), end: self.tail_end });
        }
        self.flushing.clone()
    }
}

impl Rows for Layers {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        let base = self.base.as_ref();
        match &self.flushing {
            None => Over { upper: &self.tail, below: &base }.get(key),
            Some(flushing) => Over { upper: &self.tail, below: &Over { upper: &flushing.rows, below: &base } }.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        let base = self.base.as_ref();
        match &self.flushing {
            None => Over { upper: &self.tail, below: &base }.scan(from, to, limit),
            Some(flushing) => {
                Over { upper: &self.tail, below: &Over { upper: &flushing.rows, below: &base } }.scan(from, to, limit)
            }
        }
    }
}

impl Rows for Outbox {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        self.healing(|layers| layers.get(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        self.healing(|layers| layers.scan(from, to, limit))
    }
}

impl Outbox {
    /// Over a map that holds the rows of all facts before `end`.
    pub(crate) fn new(
        maps: Arc<dyn Maps>,
        folder: PathBuf,
        journal: Arc<Journal>,
        base: Arc<dyn OrderedMap>,
        end: u64,
    ) -> Self {
        let (tail, tail_end, flushing, base_end) = (Overlay::default(), end, None, end);
        Self {
            maps,
            folder,
            journal,
            layers: RwLock::new(Layers { tail, tail_end, flushing, base, base_end, generation: 0 }),
            rebuilds: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wanted: AtomicU64::new(0),
            rows_in_memory_max: ROWS_IN_MEMORY_MAX,
            signal: Mutex::default(),
            work: Condvar::new(),
            applied: Condvar::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn with_rows_in_memory(self, rows_in_memory_max: usize) -> Self {
        Self { rows_in_memory_max, ..self }
    }

    fn read(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the map was replayed since opening.
    pub(crate) fn rebuilds(&self) -> u64 {
        self.rebuilds.load(Ordering::Relaxed)
    }

    /// Rows that wait to be applied.
    pub(crate) fn unapplied(&self) -> usize {
        let layers = self.read();
        layers.tail.len() + layers.flushing.as_ref().map_or(0, |flushing| flushing.rows.len())
    }

    /// Reads; when the map fails, heals it and reads once more.
    fn healing<T>(&self, read: impl Fn(&Layers) -> Result<T, MapError>) -> Result<T, MapError> {
        let (error, generation) = {
            let layers = self.read();
            match read(&layers) {
                Ok(value) => return Ok(value),
                Err(error) => (error, layers.generation),
            }
        };
        self.heal(&error, generation)?;
        read(&self.read())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets go of the map for good. What is asked later fails.
    pub(crate) fn close(&self) -> Result<(), MapError> {
        self.closed.store(true, Ordering::Relaxed);
        self.read().base.close()
    }

    /// Wipes the map and replays the journal into a new one, unless somebody did since `generation`.
    fn heal(&self, error: &MapError, generation: u64) -> Result<(), MapError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(MapError("the store is closed".into()));
        }
        let mut layers = self.write();
        if layers.generation != generation {
            return Ok(());
        }
        if self.lacks_room() {
            return self.heal_without_room(error, &mut layers);
        }
        tracing::error!(%error, "the outbox is rebuilt from the journal");
        match self.anew(layers.base_end) {
            Err(error) if self.lacks_room() => self.heal_without_room(&error, &mut layers),
            Err(error) => Err(error),
            Ok(base) => {
                self.replace(&mut layers, base, Old::Forget);
                Ok(())
            }
        }
    }

    /// A new map on the disk, with the rows of all facts before `end`.
    fn anew(&self, end: u64) -> Result<Arc<dyn OrderedMap>, MapError> {
        self.maps.wipe(&self.folder)?;
        let base = self.maps.open(&self.folder)?;
        rebuild(&self.journal, base.as_ref(), end).map_err(cannot_rebuild)?;
        Ok(base)
    }

    fn replace(&self, layers: &mut Layers, base: Arc<dyn OrderedMap>, old: Old) {
        let before = std::mem::replace(&mut layers.base, base);
        match old {
            // What panicked is not asked to stop in order: it might never answer.
            Old::Forget => std::mem::forget(before),
            Old::Release => release(before),
        }
        layers.generation += 1;
        self.rebuilds.fetch_add(1, Ordering::Relaxed);
    }

    /// The base is in memory, as the disk is full.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Whether a map that failed did so for want of room. Asked of the folder above, as a map that is being replaced has none.
    fn lacks_room(&self) -> bool {
        self.journal.room(self.folder.parent().unwrap_or(&self.folder)) < ROOM_LEAST_BYTES
    }

    /// sled stays failed once its disk was full, for reading too. Its rows go into memory, and its room back to the disk. If they are
    /// too many for that, they are made anew in the room that it had; until they are, nothing is read.
    fn heal_without_room(&self, error: &MapError, layers: &mut Layers) -> Result<(), MapError> {
        tracing::error!(%error, "the disk is full: the outbox's rows are kept in memory until there is room");
        let size = self.journal.size_of(&self.folder);
        self.wanted.fetch_max((size / 2 * 3).saturating_add(ROOM_BESIDE_BYTES), Ordering::Relaxed);
        let memory = Arc::new(MemoryMap::bounded(self.rows_in_memory_max));
        match rebuild(&self.journal, memory.as_ref(), layers.base_end) {
            Ok(()) => {
                self.replace(layers, memory, Old::Release);
                self.stuck.store(true, Ordering::Relaxed);
                self.maps.wipe(&self.folder)
            }
            Err(ReadError::Outbox(_)) => {
                drop(memory);
                self.replace(layers, Arc::new(NoMap), Old::Release);
                let base = self.anew(layers.base_end)?;
                self.replace(layers, base, Old::Release);
                self.stuck.store(false, Ordering::Relaxed);
                Ok(())
            }
            // It cannot be read into another map either.
            Err(error) => Err(cannot_rebuild(error)),
        }
    }

    /// Takes the base back to the disk once there is room for it.
    fn unstick(&self) -> Result<(), MapError> {
        let room = self.journal.room(self.folder.parent().unwrap_or(&self.folder));
        if room < self.wanted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut layers = self.write();
        match self.anew(layers.base_end) {
            Err(_) if self.lacks_room() => Ok(()),
            Err(error) => Err(error),
            Ok(base) => {
                self.replace(&mut layers, base, Old::Release);
                self.stuck.store(false, Ordering::Relaxed);
                tracing::info!("the disk has room again: the outbox is on it");
                Ok(())
            }
        }
    }

    /// A row was found to say what its fact does not: the map is replayed.
    pub(crate) fn distrust(&self, what: &str) -> MapError {
        let error = MapError(what.to_owned());
        let generation = self.read().generation;
        self.heal(&error, generation).err().unwrap_or(error)
    }

    /// Takes in the rows of a group that is durable.
    pub(crate) fn publish(&self, rows: Overlay, end: u64) {
        let mut layers = self.write();
        layers.tail.merge(rows);
        layers.tail_end = end;
        let many = layers.tail.len() >= APPLY_ROWS;
        drop(layers);
        if many {
            self.work.notify_all();
        }
    }

    /// Applies what waits to the map, in one batch with its position, unless `erase` says that what is final by now is not erased.
    /// False: nothing waited, or it waits on.
    pub(crate) fn apply(&self, erase: impl FnOnce() -> bool) -> Result<bool, MapError> {
        if self.is_stuck() {
            self.unstick()?;
        }
        let Some(Flushing { rows, end }) = self.write().flush() else { return Ok(false) };
        if !erase() {
            return Ok(false);
        }
        fail::fail_point!("outbox.before_apply");
        loop {
            let (base, generation) = {
                let layers = self.read();
                (Arc::clone(&layers.base), layers.generation)
            };
            let position = (Key::from_slice(rows::POSITION), Some(rows::number(end)));
            let applied = base.apply(&mut rows.changes().chain(std::iter::once(position)));
            if let Err(error) = applied {
                self.heal(&error, generation)?;
                continue;
            }
            let mut layers = self.write();
            // A map that was replayed meanwhile has not got this batch.
            if layers.generation == generation {
                layers.flushing = None;
                layers.base_end = end;
                break;
            }
        }
        fail::fail_point!("outbox.after_apply");
        self.applied.notify_all();
        Ok(true)
    }

    /// Lets the map keep itself in order, until there is nothing to do.
    pub(crate) fn tidy(&self) -> Result<(), MapError> {
        loop {
            let (base, generation) = {
                let layers = self.read();
                (Arc::clone(&layers.base), layers.generation)
            };
            match base.tidy() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return self.heal(&error, generation),
            }
        }
    }

    /// Waits until something was applied, or for a while; false: stop.
    pub(crate) fn wait_for_rows(&self) -> bool {
        let signal = self.signal.lock().unwrap_or_else(PoisonError::into_inner);
        if signal.stop {
            return false;
        }
        let waited = self.applied.wait_timeout(signal, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner);
        !waited.0.stop
    }

    /// Waits until there is something to apply, or it is time; false: stop.
    pub(crate) fn wait_for_work(&self) -> bool {
        let signal = self.signal.lock().unwrap_or_else(PoisonError::into_inner);
        if signal.stop {
            return false;
        }
        let waited = self.work.wait_timeout(signal, APPLY_EVERY).unwrap_or_else(PoisonError::into_inner);
        !waited.0.stop
    }

    /// The threads are to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner).stop
    }

    /// Ends the applier's waiting.
    pub(crate) fn stop_work(&self) {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.work.notify_all();
        self.applied.notify_all();
    }

    /// Whether the writer must let the applier go ahead.
    pub(crate) fn is_behind(&self) -> bool {
        self.unapplied() >= UNAPPLIED_ROWS_MAX
    }

    /// Waits until the applier has caught up, or is stopped.
    pub(crate) fn wait_until_applied(&self) {
        while self.is_behind() {
            let signal = self.signal.lock().unwrap_or_else(PoisonError::into_inner);
            if signal.stop {
                return;
            }
            self.work.notify_all();
            drop(self.applied.wait_timeout(signal, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Hands everything to the system. Returns the position that the map has reached.
    pub(crate) fn flush(&self, erase: impl Fn() -> bool) -> Result<u64, MapError> {
        while self.apply(&erase)? {}
        if self.is_stuck() {
            return Err(MapError("the disk is full".into()));
        }
        self.hand_over()
    }

    /// Hands what was applied to the system: no kill and no power cut takes it from then on. Returns the position that the map had
    /// reached before.
    pub(crate) fn hand_over(&self) -> Result<u64, MapError> {
        let (base, end) = {
            let layers = self.read();
            (Arc::clone(&layers.base), layers.base_end)
        };
        base.flush()?;
        Ok(end)
    }
}
