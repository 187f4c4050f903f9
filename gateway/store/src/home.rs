//! The store's directory: its lock, what it is, whether it was left clean.
//!
//! Knows: `LOCK`, `store.toml`, the `clean` marker. Never knows: the journal's bytes or rows. Invariants: one process has a
//! directory; one that is foreign, newer or of another role is refused before anything is changed; the marker is there only
//! between a clean stop and the next opening.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use tramite_proto::ids::MessageId;

use crate::{
    disk::{Disk, Lock, read_small, write_small},
    error::{OpenError, ReadError},
    journal::{JournalWriter, io_error, io_failed},
    overlay::Rows,
    parts::Owner,
    project::row,
    rows::{self, IdRow},
    shared::Shared,
};

/// The format that this program writes.
const FORMAT: u32 = 1;
/// How often parts that nobody named are looked for.
pub(crate) const SWEEP_EVERY_MS: i64 = 60 * 60 * 1000;
const MARKER_BYTES: usize = 12;

/// A directory that this process has.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) directory: PathBuf,
    pub(crate) lock: Box<dyn Lock>,
    pub(crate) store_id: [u8; 16],
    pub(crate) role: String,
}

impl Home {
    pub(crate) fn journal(&self) -> PathBuf {
        self.directory.join("journal")
    }

    pub(crate) fn outbox(&self) -> PathBuf {
        outbox(&self.directory)
    }

    pub(crate) fn parts(&self) -> PathBuf {
        self.directory.join("parts")
    }
}

fn outbox(directory: &Path) -> PathBuf {
    directory.join("outbox")
}

pub(crate) fn marker(directory: &Path) -> PathBuf {
    outbox(directory).join("clean")
}

/// Takes a directory. With a role, a directory that is not a store yet becomes one; without, it is refused.
pub(crate) fn take(disk: &dyn Disk, directory: &Path, role: Option<&str>, new_id: [u8; 16]) -> Result<Home, OpenError> {
    if role.is_some() {
        disk.create_dir(directory).map_err(io_failed("make", directory))?;
    }
    let identity = directory.join("store.toml");
    let foreign = |what: String| OpenError::Foreign { directory: directory.to_owned(), what };
    if role.is_none() && disk.info(&identity).map_err(io_failed("read", &identity))?.is_none() {
        return Err(foreign("it has no store.toml".into()));
    }
    let path = directory.join("LOCK");
    let lock = disk.lock(&path).map_err(io_failed("lock", &path))?;
    let lock = lock.ok_or_else(|| OpenError::InUse(directory.to_owned()))?;
    let known = read_small(disk, &identity).map_err(io_failed("read", &identity))?;
    let (store_id, found) = match (known, role) {
        (Some(bytes), _) => read_identity(&bytes, directory)?,
        (None, None) => return Err(foreign("it has no store.toml".into())),
        (None, Some(role)) => {
            let journal = directory.join("journal");
            if !disk.list(&journal).map_err(io_failed("list", &journal))?.is_empty() {
                return Err(foreign("it has a journal, but no store.toml".into()));
            }
            sync_above(disk, directory)?;
            let text = format!("format = {FORMAT}\nstore_id = \"{}\"\nrole = \"{role}\"\n", hex::encode(new_id));
            write_small(disk, &identity, text.as_bytes()).map_err(io_failed("write", &identity))?;
            (new_id, role.to_owned())
        }
    };
    if let Some(wanted) = role.filter(|role| *role != found) {
        return Err(OpenError::OtherRole { directory: directory.to_owned(), found, wanted: wanted.to_owned() });
    }
    Ok(Home { directory: directory.to_owned(), lock, store_id, role: found })
}

/// Makes the directory's own name durable, and those above it, as whoever calls may have made them just now. Where this process
/// may not look or nothing can be written, it made nothing.
fn sync_above(disk: &dyn Disk, directory: &Path) -> Result<(), OpenError> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem};
    for above in directory.ancestors().skip(1) {
        match disk.sync_dir(above) {
            // Invalid is what Linux says of file systems that cannot sync a folder.
            Err(e) if matches!(e.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem) => {}
            other => other.map_err(io_failed("sync", above))?,
        }
    }
    Ok(())
}

/// Reads store.toml. The version is asked first, as a newer one may have names that this program does not know.
fn read_identity(bytes: &[u8], directory: &Path) -> Result<([u8; 16], String), OpenError> {
    let foreign =
        |what: &str| OpenError::Foreign { directory: directory.to_owned(), what: format!("store.toml: {what}") };
    let text = std::str::from_utf8(bytes).map_err(|_| foreign("not UTF-8"))?;
    let table: toml::Table = text.parse().map_err(|_| foreign("not TOML"))?;
    let format = table.get("format").and_then(toml::Value::as_integer).ok_or_else(|| foreign("no format"))?;
    let found = u32::try_from(format).map_err(|_| foreign("no such format"))?;
    if found > FORMAT {
        return Err(OpenError::Newer { directory: directory.to_owned(), found, known: FORMAT });
    }
    if let Some(name) = table.keys().find(|name| !["format", "store_id", "role"].contains(&name.as_str())) {
        return Err(foreign(&format!("unknown name {name}")));
    }
    let text = |name: &'static str| table.get(name).and_then(toml::Value::as_str).ok_or_else(|| foreign(name));
    let mut store_id = [0; 16];
    hex::decode_to_slice(text("store_id")?, &mut store_id).map_err(|_| foreign("store_id"))?;
    Ok((store_id, text("role")?.to_owned()))
}

/// What the marker of a clean stop says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    /// The stop was not clean.
    None,
    /// One is there, and is not what was written.
    Damaged,
    /// The sequence after the last one.
    Clean(u64),
}

/// Reads the marker.
pub(crate) fn read_marker(disk: &dyn Disk, directory: &Path) -> Result<Marker, OpenError> {
    let path = marker(directory);
    let Some(bytes) = read_small(disk, &path).map_err(io_failed("read", &path))? else { return Ok(Marker::None) };
    let sound = bytes.split_at_checked(MARKER_BYTES - 4).and_then(|(position, crc)| {
        let sound = crc32c::crc32c(position).to_le_bytes() == crc;
        sound.then(|| u64::from_le_bytes(position.try_into().unwrap_or_default()))
    });
    Ok(sound.map_or(Marker::Damaged, Marker::Clean))
}

/// The sequence after the last one, as a clean stop left it.
pub(crate) fn clean_position(disk: &dyn Disk, directory: &Path) -> Result<Option<u64>, OpenError> {
    Ok(match read_marker(disk, directory)? {
        Marker::Clean(position) => Some(position),
        Marker::None | Marker::Damaged => None,
    })
}

/// Removes the marker durably: from here on a stop is unclean until it is said otherwise.
pub(crate) fn remove_marker(disk: &dyn Disk, directory: &Path) -> Result<(), OpenError> {
    let path = marker(directory);
    let there = disk.info(&path).map_err(io_failed("read", &path))?.is_some();
    if there {
        disk.remove(&path).map_err(io_failed("remove", &path))?;
        let folder = outbox(directory);
        disk.sync_dir(&folder).map_err(io_failed("sync", &folder))?;
    }
    Ok(())
}

/// Applies, erases and syncs everything, and says so.
pub(crate) fn leave_clean(shared: &Shared, journal: &JournalWriter) -> Result<(), ReadError> {
    let position = shared.outbox.flush()?;
    shared.erase_finals();
    let directory = &shared.options.directory;
    let path = marker(directory);
    if !shared.finals.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
        return Err(io_error(&path, &io::Error::other("contents of final messages are still there")));
    }
    shared.journal.sync_erased()?;
    journal.sync_mark().map_err(|e| io_error(&path, &e))?;
    let mut bytes = position.to_le_bytes().to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let disk: &Arc<dyn Disk> = &shared.disk;
    write_small(disk.as_ref(), &path, &bytes).map_err(|e| io_error(&path, &e))
}

/// What has become of a message, for its parts.
fn owner(rows: &dyn Rows, id: &MessageId) -> Result<Owner, ReadError> {
    Ok(match row::<IdRow>(rows, &rows::id(id.as_bytes()))? {
        None => Owner::Unknown,
        Some(id) if id.final_sequence == 0 => Owner::Waits,
        Some(_) => Owner::Final,
    })
}

/// Removes parts that nobody needs. A part that cannot be removed is tried again later.
pub(crate) fn sweep_parts(shared: &Shared, opening: bool) -> u64 {
    let swept = shared.parts.sweep(opening, |id| owner(&shared.outbox, id));
    swept.unwrap_or_else(|error| {
        tracing::warn!(%error, "parts that nobody needs were not removed");
        0
    })
}
