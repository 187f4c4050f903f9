//! A disk in memory that loses what was not synced, and fails where it is told to.
//!
//! Knows: for each file what was written and what of it is durable; which names are durable; how often each barrier was called.
//! Never knows: who uses it. Invariant: after [`SimulatedDisk::cut_power`] everything is there that a barrier covered, and of the rest
//! whichever sectors and changes of names the seed lets through, as on a file system and a device that write back in their own order.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use rustix::io::Errno;

use super::{Access, Disk, DiskFile, FileInfo, Lock};

/// What the device writes at once: a torn write tears at its multiples.
const SECTOR_BYTES: usize = 512;

/// What goes wrong, and how often each call was made. Counters count calls on files; a fault at 0 never comes.
#[derive(Debug, Default)]
pub struct Faults {
    /// `sync_data` calls so far.
    pub syncs: AtomicU64,
    /// `write_at` calls so far.
    pub writes: AtomicU64,
    /// `punch` calls so far.
    pub punches: AtomicU64,
    /// From this `sync_data` call on (counted from 1), each fails.
    pub sync_fails_from: AtomicU64,
    /// `sync_data` says that it did what it did not, while this is not 0.
    pub sync_lies: AtomicU64,
    /// From this `write_at` call on (counted from 1), each writes half and fails. Half of its sectors: what stands in one is written
    /// wholly or not at all.
    pub write_fails_from: AtomicU64,
    /// Syncing a folder fails.
    pub folders_fail: AtomicBool,
    /// A `punch` that takes the byte at this offset, of any file, fails, as where a sector is bad.
    pub punch_fails_at: AtomicU64,
    /// Whatever makes a file longer fails, as on a full disk, while this is not 0.
    pub full: AtomicU64,
    /// Reading what stands at this place of any file fails as where a sector is bad, while this is not 0.
    pub bad_at: AtomicU64,
    /// What files are dated by.
    pub now_ms: AtomicI64,
    /// Changes of files and names that still succeed; then each fails, as after a kill. 0: all do.
    left: AtomicU64,
    stopped: AtomicBool,
}

impl Faults {
    /// After so many further changes of files and names, each fails, as if the process were not there any more; 0: none does.
    pub fn stop_after(&self, changes: u64) {
        self.left.store(changes, Ordering::SeqCst);
        self.stopped.store(false, Ordering::SeqCst);
    }

    /// Whether a change failed since.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn changes(&self) -> io::Result<()> {
        // 1 stands for none left.
        match self.left.load(Ordering::SeqCst) {
            0 => Ok(()),
            1 => {
                self.stopped.store(true, Ordering::SeqCst);
                Err(io::Error::other("simulated end of the process"))
            }
            left => {
                self.left.store(left - 1, Ordering::SeqCst);
                Ok(())
            }
        }
    }

    fn is_full(&self) -> bool {
        self.full.load(Ordering::SeqCst) != 0
    }

    fn reads(&self, offset: u64, length: usize) -> io::Result<()> {
        let bad = self.bad_at.load(Ordering::SeqCst);
        let hit = bad != 0 && (offset..offset.saturating_add(length as u64)).contains(&bad);
        if hit { Err(Errno::IO.into()) } else { Ok(()) }
    }

    fn strikes(count: &AtomicU64, from: &AtomicU64) -> bool {
        let call = count.fetch_add(1, Ordering::SeqCst) + 1;
        let from = from.load(Ordering::SeqCst);
        from != 0 && call >= from
    }
}

#[derive(Debug, Default)]
struct Contents {
    written: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that differ from what is durable.
    dirty: BTreeSet<usize>,
    modified_ms: i64,
}

type Files = BTreeMap<PathBuf, Arc<SimulatedFile>>;

/// A change to the names of a folder; wholly durable or not at all.
#[derive(Debug, Clone)]
enum NameChange {
    Put(PathBuf, Arc<SimulatedFile>),
    Moved(PathBuf, PathBuf, Arc<SimulatedFile>),
    Gone(PathBuf),
}

impl NameChange {
    fn is_in(&self, folder: &Path) -> bool {
        let (Self::Put(path, _) | Self::Moved(_, path, _) | Self::Gone(path)) = self;
        path.parent() == Some(folder)
    }

    fn apply(self, names: &mut Files) {
        match self {
            Self::Put(path, file) => drop(names.insert(path, file)),
            Self::Moved(from, to, file) => {
                names.remove(&from);
                names.insert(to, file);
            }
            Self::Gone(path) => drop(names.remove(&path)),
        }
    }
}

#[derive(Debug, Default)]
struct Names {
    now: Files,
    durable: Files,
    /// What was done to names and no sync of its folder has covered, in order.
    changes: Vec<NameChange>,
    locks: BTreeMap<PathBuf, Weak<SimulatedLock>>,
    /// Folders whose own names are not durable.
    loose: BTreeSet<PathBuf>,
    /// Files that cannot be read.
    spoiled: BTreeSet<PathBuf>,
}

/// A disk in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDisk {
    names: Arc<Mutex<Names>>,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct SimulatedFile {
    contents: Mutex<Contents>,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct SimulatedLock;

#[derive(Debug)]
struct HeldLock(#[expect(dead_code, reason = "held for its count of owners")] Arc<SimulatedLock>);

impl Lock for HeldLock {}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

impl SimulatedDisk {
    /// An empty disk on which nothing fails.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The faults and counters.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Takes the power away: each unsynced change of names and each unsynced sector is kept or lost as `seed` decides. Open files of
    /// before must no longer be used. Locks are free again.
    pub fn cut_power(&self, seed: u64) {
        let mut names = locked(&self.names);
        let mut state = seed;
        for change in std::mem::take(&mut names.changes) {
            state = splitmix(state);
            if state & 1 == 1 {
                change.apply(&mut names.durable);
            }
        }
        let loose = std::mem::take(&mut names.loose);
        names.durable.retain(|file, _| !file.ancestors().any(|above| loose.contains(above)));
        for file in names.durable.values() {
            let mut contents = locked(&file.contents);
            let dirty: Vec<usize> = std::mem::take(&mut contents.dirty).into_iter().collect();
            for sector in dirty {
                state = splitmix(state);
                if state & 1 == 1 {
                    contents.persist(sector);
                }
            }
            contents.written = contents.durable.clone();
        }
        names.now = names.durable.clone();
        names.locks.clear();
    }

    /// Makes a folder whose name is not durable before the folder above it is synced. Every other folder's name is durable.
    pub fn make_loose_dir(&self, path: &Path) {
        locked(&self.names).loose.insert(path.to_owned());
    }

    /// From here on the disk fails when it is asked about that file or for it, as where a sector is bad.
    pub fn spoil(&self, path: &Path) {
        locked(&self.names).spoiled.insert(path.to_owned());
    }

    /// Every file can be read again.
    pub fn mend(&self) {
        locked(&self.names).spoiled.clear();
    }

    /// The bytes of a file as they would be read now.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        locked(&self.names).now.get(path).map(|file| locked(&file.contents).written.clone())
    }

    /// Puts bytes into a file from outside, durably: rot, or a restore.
    pub fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let file = Arc::new(SimulatedFile {
            contents: Mutex::new(Contents { durable: bytes.clone(), written: bytes, ..Contents::default() }),
            faults: Arc::clone(&self.faults),
        });
        let mut names = locked(&self.names);
        names.now.insert(path.to_owned(), Arc::clone(&file));
        names.durable.insert(path.to_owned(), file);
    }

    /// Every path there is.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        locked(&self.names).now.keys().cloned().collect()
    }

    /// A disk of its own with the same files, all durable.
    #[must_use]
    pub fn fork(&self) -> Self {
        let copy = Self::new();
        copy.faults.now_ms.store(self.faults.now_ms.load(Ordering::SeqCst), Ordering::SeqCst);
        for path in self.paths() {
            if let Some(bytes) = self.bytes(&path) {
                copy.overwrite(&path, bytes);
            }
        }
        copy
    }
}

/// The next number of a small generator (Steele, Lea, Flood: `SplitMix64`).
fn splitmix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Names {
    fn is_well(&self, path: &Path) -> io::Result<()> {
        if self.spoiled.contains(path) { Err(io::Error::other("simulated read error")) } else { Ok(()) }
    }
}

impl Contents {
    fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at.saturating_add(bytes.len());
        if self.written.len() < end {
            self.written.resize(end, 0);
        }
        if let Some(place) = self.written.get_mut(at..end) {
            place.copy_from_slice(bytes);
        }
        self.dirty.extend(at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
    }

    fn persist(&mut self, sector: usize) {
        let end = (sector + 1).saturating_mul(SECTOR_BYTES).min(self.written.len());
        let start = sector.saturating_mul(SECTOR_BYTES).min(end);
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        if let (Some(to), Some(from)) = (self.durable.get_mut(start..end), self.written.get(start..end)) {
            to.copy_from_slice(from);
        }
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = locked(&self.names);
        let inside = names.now.keys().filter(|file| file.parent() == Some(path));
        Ok(inside.filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn info(&self, path: &Path) -> io::Result<Option<FileInfo>> {
        let names = locked(&self.names);
        names.is_well(path)?;
        Ok(names.now.get(path).map(|file| {
            let contents = locked(&file.contents);
            FileInfo { length: contents.written.len() as u64, modified_ms: contents.modified_ms }
        }))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut names = locked(&self.names);
        if access == Access::Create {
            self.faults.changes()?;
            let contents = Contents { modified_ms: self.faults.now_ms.load(Ordering::SeqCst), ..Contents::default() };
            let file = Arc::new(SimulatedFile { contents: Mutex::new(contents), faults: Arc::clone(&self.faults) });
            names.now.insert(path.to_owned(), Arc::clone(&file));
            names.changes.push(NameChange::Put(path.to_owned(), Arc::clone(&file)));
            return Ok(file);
        }
        names.is_well(path)?;
        let file = names.now.get(path).ok_or_else(|| missing(path))?;
        Ok(Arc::<SimulatedFile>::clone(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.changes()?;
        let mut names = locked(&self.names);
        let file = names.now.get(from).map(Arc::clone).ok_or_else(|| missing(from))?;
        let change = NameChange::Moved(from.to_owned(), to.to_owned(), file);
        change.clone().apply(&mut names.now);
        names.changes.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.changes()?;
        let mut names = locked(&self.names);
        names.now.remove(path).ok_or_else(|| missing(path))?;
        names.changes.push(NameChange::Gone(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.faults.changes()?;
        if self.faults.folders_fail.load(Ordering::SeqCst) {
            return Err(Errno::IO.into());
        }
        let mut names = locked(&self.names);
        let inside = |file: &PathBuf| file.parent() == Some(path);
        names.loose.retain(|folder| !inside(folder));
        names.changes.retain(|change| !change.is_in(path));
        let now: Vec<_> =
            names.now.iter().filter(|(file, _)| inside(file)).map(|(k, v)| (k.clone(), Arc::clone(v))).collect();
        names.durable.retain(|file, _| !inside(file));
        names.durable.extend(now);
        Ok(())
    }

    fn room(&self, _: &Path) -> io::Result<u64> {
        Ok(if self.faults.is_full() { 0 } else { u64::MAX })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let mut names = locked(&self.names);
        if names.locks.get(path).is_some_and(|held| held.strong_count() > 0) {
            return Ok(None);
        }
        let lock = Arc::new(SimulatedLock);
        names.locks.insert(path.to_owned(), Arc::downgrade(&lock));
        Ok(Some(Box::new(HeldLock(lock))))
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.faults.reads(offset, buffer.len())?;
        let contents = locked(&self.contents);
        let at = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.written.len());
        let there = contents.written.get(at..).unwrap_or_default();
        let n = there.len().min(buffer.len());
        let (filled, rest) = buffer.split_at_mut(n);
        filled.copy_from_slice(there.get(..n).unwrap_or_default());
        rest.fill(0);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.faults.changes()?;
        let fails = Faults::strikes(&self.faults.writes, &self.faults.write_fails_from);
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut contents = locked(&self.contents);
        contents.modified_ms = self.faults.now_ms.load(Ordering::SeqCst);
        if self.faults.is_full() && at.saturating_add(bytes.len()) > contents.written.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if fails {
            let half = (at + bytes.len() / 2) / SECTOR_BYTES * SECTOR_BYTES;
            contents.write(bytes.get(..half.saturating_sub(at)).unwrap_or_default(), at);
            return Err(io::Error::other("simulated write error"));
        }
        contents.write(bytes, at);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.changes()?;
        if Faults::strikes(&self.faults.syncs, &self.faults.sync_fails_from) {
            return Err(io::Error::other("simulated sync error"));
        }
        if self.faults.sync_lies.load(Ordering::SeqCst) != 0 {
            return Ok(());
        }
        let mut contents = locked(&self.contents);
        for sector in std::mem::take(&mut contents.dirty) {
            contents.persist(sector);
        }
        let length = contents.written.len();
        contents.durable.resize(length, 0);
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut contents = locked(&self.contents);
        if self.faults.is_full() && contents.written.len() < length {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if contents.written.len() < length {
            contents.written.resize(length, 0);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.faults.changes()?;
        self.faults.punches.fetch_add(1, Ordering::SeqCst);
        let bad = self.faults.punch_fails_at.load(Ordering::SeqCst);
        if bad != 0 && (offset..offset.saturating_add(length)).contains(&bad) {
            return Err(io::Error::other("simulated punch error"));
        }
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut contents = locked(&self.contents);
        let length = length.min(contents.written.len().saturating_sub(at));
        contents.write(&vec![0; length], at);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(locked(&self.contents).written.len() as u64)
    }
}
