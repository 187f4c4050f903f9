//! The store's directory: its lock, what it is, whether it was left clean.
//!
//! Knows: `LOCK`, `store.toml`, the order of a clean stop. Never knows: the journal's bytes or rows. Invariants: one process has a
//! directory; one that is foreign, newer or of another role is refused before anything is changed; the marker is there only
//! between a clean stop and the next opening.

use std::{
    io,
    path::{Path, PathBuf},
    sync::PoisonError,
};

use tramite_proto::ids::MessageId;

use crate::{
    clock,
    disk::{Disk, Lock, read_small, write_small},
    error::{Damage, OpenError, ReadError},
    journal::{JournalWriter, io_error, io_failed},
    overlay::Rows,
    parts::Owner,
    project::row,
    rows::{self, IdRow},
    seal,
    shared::Shared,
};

/// The format that this program writes.
const FORMAT: u32 = 1;
/// How often parts that nobody named are looked for.
pub(crate) const SWEEP_EVERY_MS: u64 = 60 * 60 * 1000;

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
        self.directory.join("outbox")
    }

    pub(crate) fn parts(&self) -> PathBuf {
        self.directory.join("parts")
    }
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
            let text = identity_text(&new_id, role);
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

/// What store.toml says: `sum` is the CRC-32C of the lines before it.
fn identity_text(store_id: &[u8; 16], role: &str) -> String {
    let text = format!("format = {FORMAT}\nstore_id = \"{}\"\nrole = \"{role}\"\n", hex::encode(store_id));
    let sum = crc32c::crc32c(text.as_bytes());
    format!("{text}sum = \"{sum:08x}\"\n")
}

/// Reads store.toml. The version is asked first, as a newer one may have names that this program does not know. What this version
/// wrote is known to the letter; a file without `sum` is of the time before it.
fn read_identity(bytes: &[u8], directory: &Path) -> Result<([u8; 16], String), OpenError> {
    let path = directory.join("store.toml");
    let damaged = |offset: usize, what: &str| Damage { file: path.clone(), offset: offset as u64, what: what.into() };
    let text = std::str::from_utf8(bytes).map_err(|e| damaged(e.valid_up_to(), "not UTF-8"))?;
    let table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| damaged(e.span().map_or(0, |span| span.start), "not TOML"))?;
    let format = table.get("format").and_then(toml::Value::as_integer).ok_or_else(|| damaged(0, "no format"))?;
    let found = u32::try_from(format).ok().filter(|found| *found > 0).ok_or_else(|| damaged(0, "no such format"))?;
    if found > FORMAT {
        return Err(OpenError::Newer { directory: directory.to_owned(), found, known: FORMAT });
    }
    let value = |name: &'static str| table.get(name).and_then(toml::Value::as_str).ok_or_else(|| damaged(0, name));
    let mut store_id = [0; 16];
    hex::decode_to_slice(value("store_id")?, &mut store_id).map_err(|_| damaged(0, "store_id"))?;
    let role = value("role")?;
    let whole = identity_text(&store_id, role);
    let before = whole.split_inclusive('\n').take(3).map(str::len).sum();
    if text != whole && whole.get(..before) != Some(text) {
        let offset = text.bytes().zip(whole.bytes()).take_while(|(found, wanted)| found == wanted).count();
        return Err(damaged(offset, "it is not what was written there").into());
    }
    Ok((store_id, role.to_owned()))
}

/// Applies, erases and syncs everything, and says so.
pub(crate) fn leave_clean(shared: &Shared, journal: &JournalWriter) -> Result<(), ReadError> {
    let position = shared.outbox.flush(|| shared.erase_finals())?;
    let folder = shared.outbox.folder();
    let failed = |e: &io::Error| io_error(&seal::marker(folder), e);
    if !shared.finals.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
        return Err(failed(&io::Error::other("contents of final messages are still there")));
    }
    journal.sync_mark().map_err(|e| failed(&e))?;
    shared.outbox.close()?;
    seal::write(shared.disk.as_ref(), folder, position).map_err(|e| failed(&e))
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
    let now_ms = shared.clock.now_ms();
    let believed = clock::is_believed(&shared.outbox, now_ms).map_err(ReadError::from);
    let swept = believed
        .and_then(|believed| shared.parts.sweep(believed.then_some(now_ms), opening, |id| owner(&shared.outbox, id)));
    swept.unwrap_or_else(|error| {
        tracing::warn!(%error, "parts that nobody needs were not removed");
        0
    })
}
