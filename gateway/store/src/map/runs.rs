//! Rows in sorted files that never change, with sled as their root.
//!
//! ```text
//! outbox/   sled: the position, which files hold (`m` rows), the few rows that are written again and again, and their sum (`m` alone)
//!           <number>.run: rows in order, removals among them; newer files lie over older ones
//! ```
//!
//! sled costs 12 to 18 µs of CPU for a row, however small (measured in batches of 8,192); a row of a file that is written once, in
//! order, costs a fraction of one. So what is few stays in sled, and the many travel in files, which are merged in the background
//! until some ten are left.
//!
//! sled opens a damaged or shortened file of its own and says nothing, with rows missing. So each batch of the root's rows carries
//! the sum of all their hashes: rows of one batch that are all there add up, and no others do.
//!
//! Knows: which kinds of rows are few, which part of a key is asked for. Never knows: what a row says. Invariants: a file counts
//! from the batch of sled's that names it, so rows and position change together; a file is durable before it is named, and goes
//! only when the batch that no longer names it is; no file is written over; whatever does not check is an error, and the whole is
//! rebuilt from the journal.
//!
//! | a kill or power cut | leaves | opening |
//! |---|---|---|
//! | while a file is written | a file that no `m` row names | removes it |
//! | after sled's batch, before sled wrote it out | the same, and an older position | removes it; the journal says the rest |
//! | in a power cut, while sled wrote it out | that, or rows that do not add up | that, or says so: the journal says all |
//! | after a merge, before its inputs are removed | files that no `m` row names | removes them |

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{Key, Maps, OrderedMap, Pair, RowChange};
use crate::{
    error::{MapError, OpenError},
    journal::io_failed,
};

mod bloom;
mod cursor;
mod file;
mod index;

use cursor::{Cursor, Merge};
use file::{Run, RunWriter};

/// Of the next file, for all maps of the process: a map that was replaced may still be merging in a folder that was made anew, and
/// must meet no file of its successor's by a name of its own.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Begins the rows that name files.
const MANIFEST: u8 = b'm';
/// The sum of the root's other rows.
const SUM: &[u8] = &[MANIFEST];
/// What the files' names end in.
pub(super) const EXTENSION: &str = "run";
/// So many files become one, at least.
const FAN: usize = 8;
/// A row has about so many bytes in a file.
const ROW_BYTES: u64 = 50;
/// So many removed rows may be passed over before it counts: some 50 ms of work.
const PASSED_MIN: u64 = 128 * 1024;

/// What the rows' owner says about its keys.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// First bytes of the keys of which there are few.
    pub few: &'static [u8],
    /// The part of a key under which it, or the like of it, is asked for; none when nobody asks for it by name.
    pub probe: fn(&[u8]) -> Option<&[u8]>,
}

/// Maps of rows in files.
#[derive(Debug, Clone)]
pub struct RunMaps {
    /// Of the roots.
    pub root: Arc<dyn Maps>,
    /// Of the rows.
    pub shape: Shape,
}

/// Files, oldest first.
type Runs = Arc<Vec<Arc<Run>>>;

#[derive(Debug)]
struct RunMap {
    root: Arc<dyn OrderedMap>,
    folder: PathBuf,
    shape: Shape,
    runs: RwLock<Runs>,
    /// Of the root's rows; held while they change.
    sum: Mutex<u64>,
    /// One merge at a time.
    merging: Mutex<()>,
    /// Removed rows that were passed over by scans since all files became one.
    passed: AtomicU64,
}

fn failed(action: &str, path: &Path) -> impl FnOnce(io::Error) -> MapError {
    let what = format!("cannot {action} {}", path.display());
    move |error| MapError(format!("{what}: {error}"))
}

fn run_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016x}.{EXTENSION}"))
}

fn manifest_key(order: u64) -> Key {
    let mut key = Key::from_slice(SUM);
    key.extend_from_slice(&order.to_be_bytes());
    key
}

fn manifest_value(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn number_of(bytes: &[u8]) -> Result<u64, MapError> {
    let number = bytes.try_into().map_err(|_| MapError("a row that names a file is damaged".into()))?;
    Ok(u64::from_be_bytes(number))
}

/// Of a row of the root.
fn hash_of(key: &[u8], value: &[u8]) -> u64 {
    let mut row = Vec::with_capacity(key.len() + value.len() + 8);
    row.extend_from_slice(&(key.len() as u64).to_le_bytes());
    row.extend_from_slice(key);
    row.extend_from_slice(value);
    bloom::hash(&row)
}

impl RunMaps {
    /// Over a root, with the files that it names.
    fn over(&self, root: Arc<dyn OrderedMap>, folder: &Path) -> Result<RunMap, MapError> {
        let mut runs = Vec::new();
        let (mut sum, rows) = (0_u64, root.scan(&[], &[u8::MAX], usize::MAX)?);
        for (key, value) in rows {
            if key.as_slice() == SUM {
                continue;
            }
            sum = sum.wrapping_add(hash_of(&key, &value));
            if key.first() != Some(&MANIFEST) {
                continue;
            }
            let (order, number) = (number_of(key.get(1..).unwrap_or_default())?, number_of(&value)?);
            runs.push(Arc::new(Run::open(&run_path(folder, number), number, order)?));
        }
        let number = runs.iter().map(|run| run.number.max(run.order)).max().map_or(0, |last| last + 1);
        NUMBER.fetch_max(number, Ordering::Relaxed);
        let (runs, sum) = (RwLock::new(Arc::new(runs)), Mutex::new(sum));
        let (folder, shape) = (folder.to_owned(), self.shape);
        Ok(RunMap { root, folder, shape, runs, sum, merging: Mutex::default(), passed: AtomicU64::new(0) })
    }
}

impl Maps for RunMaps {
    fn open(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, MapError> {
        let map = self.over(self.root.open(folder)?, folder)?;
        remove_others(folder, &map.runs())?;
        Ok(Arc::new(map))
    }

    /// The files never change, so the root alone is copied.
    fn open_copy(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, OpenError> {
        // What may not be read says nothing of what it is.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match fs::File::open(entry.path()) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(io_failed("read", &entry.path())(e));
                }
                _ => {}
            }
        }
        Ok(Arc::new(self.over(self.root.open_copy(folder)?, folder)?))
    }

    fn wipe(&self, folder: &Path) -> Result<(), MapError> {
        self.root.wipe(folder)
    }
}

/// Removes the files that no row names.
fn remove_others(folder: &Path, runs: &[Arc<Run>]) -> Result<(), MapError> {
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = entry.map_err(failed("list", folder))?.path();
        let is_run = path.extension().is_some_and(|extension| extension == EXTENSION);
        if is_run && !runs.iter().any(|run| run.path == path) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

impl RunMap {
    fn runs(&self) -> Runs {
        Arc::clone(&self.runs.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_few(&self, key: &[u8]) -> bool {
        key.first().is_none_or(|kind| self.shape.few.contains(kind))
    }

    fn writer(&self) -> Result<RunWriter, MapError> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        RunWriter::create(run_path(&self.folder, number), number, self.shape.probe)
    }

    /// Ends a file and makes it and its name durable, so that it may be named; none when it has no row.
    fn finished(&self, writer: RunWriter, order: u64) -> Result<Option<Arc<Run>>, MapError> {
        let Some(run) = writer.finish(order)? else { return Ok(None) };
        run.sync()?;
        fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", &self.folder))?;
        Ok(Some(Arc::new(run)))
    }

    /// Changes rows of the root, and their sum with them.
    fn change_root(&self, mut changes: Vec<RowChange>) -> Result<(), MapError> {
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        let mut after = *sum;
        for (key, value) in &changes {
            let before = self.root.get(key)?.map_or(0, |value| hash_of(key, &value));
            let now = value.as_ref().map_or(0, |value| hash_of(key, value));
            after = after.wrapping_sub(before).wrapping_add(now);
        }
        changes.push((Key::from_slice(SUM), Some(Bytes::copy_from_slice(&after.to_le_bytes()))));
        self.root.apply(&mut changes.into_iter())?;
        *sum = after;
        Ok(())
    }

    /// Puts a new list in place of the present one.
    fn replace(&self, change: impl FnOnce(&[Arc<Run>]) -> Vec<Arc<Run>>) {
        let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
        *runs = Arc::new(change(&runs));
    }

    /// The files that should become one: the newest, as few as make it worth their while. The largest is written anew only with as
    /// much that is newer, so a row is written some five times, and a million that wait are left alone by what comes and goes above
    /// them; yet each file that stays is larger than all newer ones together, so there are some ten.
    ///
    /// All of them, once scans have passed over as many removed rows as a merge of all would go through: a million that were delivered
    /// lie before what waits next, and each look at what is due would go over them.
    fn crowd(&self) -> Vec<Arc<Run>> {
        let runs = self.runs();
        let (mut all, mut largest) = (0, 0);
        for (count, run) in (1..).zip(runs.iter().rev()) {
            (all, largest) = (all + run.bytes, largest.max(run.bytes));
            if count >= FAN && all >= 2 * largest {
                return runs.get(runs.len() - count..).unwrap_or_default().to_vec();
            }
        }
        let passed = self.passed.load(Ordering::Relaxed);
        if runs.len() > 1 && passed >= PASSED_MIN.max(all / ROW_BYTES) { runs.to_vec() } else { Vec::new() }
    }

    /// Writes the rows of `inputs` (neighbours, oldest first) into one file and lets it take their place.
    fn merge(&self, inputs: &[Arc<Run>]) -> Result<(), MapError> {
        let (Some(oldest), Some(newest)) = (inputs.first(), inputs.last()) else { return Ok(()) };
        let nothing_below = self.runs().first().is_some_and(|first| first.order == oldest.order);
        if nothing_below {
            self.passed.store(0, Ordering::Relaxed);
        }
        let mut writer = self.writer()?;
        let mut rows = Merge::new(inputs.iter().rev().map(Cursor::all).collect::<Result<_, _>>()?);
        while let Some((key, value)) = rows.next()? {
            // A removal hides nothing when nothing lies below.
            if value.is_some() || !nothing_below {
                writer.push(&key, value.as_deref())?;
            }
        }
        let merged = self.finished(writer, newest.order)?;
        let named = merged.as_ref().map(|run| (manifest_key(run.order), Some(manifest_value(run.number))));
        let unnamed = inputs.iter().filter(|run| merged.as_ref().is_none_or(|merged| merged.order != run.order));
        let unnamed = unnamed.map(|run| (manifest_key(run.order), None));
        self.change_root(named.into_iter().chain(unnamed).collect())?;
        self.replace(|runs| {
            let is_input = |run: &&Arc<Run>| (oldest.order..=newest.order).contains(&run.order);
            let before = runs.iter().take_while(|run| run.order < oldest.order);
            let after = runs.iter().skip_while(|run| run.order < oldest.order).skip_while(is_input);
            before.chain(&merged).chain(after).cloned().collect()
        });
        // Until sled's names are durable, a power cut would bring back the old ones.
        self.root.flush()?;
        inputs.iter().try_for_each(|run| fs::remove_file(&run.path).map_err(failed("remove", &run.path)))
    }
}

/// Bytes that can be written where the files are.
fn room(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |about| about.f_bavail.saturating_mul(about.f_frsize))
}

impl OrderedMap for RunMap {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        if self.is_few(key) {
            return self.root.get(key);
        }
        let probe = (self.shape.probe)(key).map(bloom::hash);
        for run in self.runs().iter().rev() {
            if let Some(value) = run.get(key, probe)? {
                return Ok(value);
            }
        }
        Ok(None)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let (first, last) = (from.first().copied().unwrap_or(0), to.first().copied().unwrap_or(u8::MAX));
        let mut found = Vec::new();
        if self.shape.few.iter().any(|kind| (first..=last).contains(kind)) {
            let all = self.root.scan(from, to, usize::MAX)?;
            found.extend(all.into_iter().filter(|(key, _)| key.first() != Some(&MANIFEST)));
        }
        let probe = |key| (self.shape.probe)(key);
        let probed = probe(from).filter(|part| probe(to) == Some(part)).map(bloom::hash);
        let runs = self.runs();
        let asked = runs.iter().rev().filter(|run| run.may_have(from, to, probed));
        let mut rows = Merge::new(asked.map(|run| Cursor::at(run, from)).collect::<Result<_, _>>()?);
        let (mut count, mut passed) = (0, 0);
        while count < limit {
            match rows.next()? {
                Some((key, Some(value))) if key.as_slice() < to => {
                    found.push((key, value));
                    count += 1;
                }
                Some((key, None)) if key.as_slice() < to => passed += 1,
                _ => break,
            }
        }
        if passed > 0 {
            self.passed.fetch_add(passed, Ordering::Relaxed);
        }
        found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        found.truncate(limit);
        Ok(found)
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = RowChange>) -> Result<(), MapError> {
        let mut few = Vec::new();
        let mut writer: Option<RunWriter> = None;
        for (key, value) in changes {
            if self.is_few(&key) {
                few.push((key, value));
                continue;
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                None => writer.insert(self.writer()?),
            };
            writer.push(&key, value.as_deref())?;
        }
        let order = writer.as_ref().map_or(0, |writer| writer.number);
        let run = writer.map_or(Ok(None), |writer| self.finished(writer, order))?;
        let named = run.as_ref().map(|run| (manifest_key(run.order), Some(manifest_value(run.number))));
        few.extend(named);
        self.change_root(few)?;
        self.replace(|runs| runs.iter().chain(&run).cloned().collect());
        Ok(())
    }

    fn tidy(&self) -> Result<bool, MapError> {
        let _one = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let crowd = self.crowd();
        let bytes = crowd.iter().map(|run| run.bytes).sum::<u64>();
        // A merge needs its room twice for a moment; without it, more files are read for the time being.
        if crowd.is_empty() || room(&self.folder) < bytes.saturating_mul(2) {
            return Ok(false);
        }
        self.merge(&crowd)?;
        Ok(true)
    }

    fn is_whole(&self) -> Result<bool, MapError> {
        let sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.root.get(SUM)?.is_some_and(|said| *said == sum.to_le_bytes()))
    }

    /// The files are durable since they are named.
    fn flush(&self) -> Result<(), MapError> {
        self.root.flush()
    }

    fn close(&self) -> Result<(), MapError> {
        self.root.close()
    }
}

#[cfg(test)]
mod tests;
