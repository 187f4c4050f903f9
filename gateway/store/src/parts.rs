//! Sealed parts: one file each, `<message id>.<part>`, with `.tmp` while it is taken in.
//!
//! Knows: lengths, digests, ages. Never knows: what is sealed in a part, or who may have it. Invariants: under its name a part is
//! whole, synced and of the digest that was announced; it is never replaced by another; it goes when its message is final, and
//! after 24 hours in which no message named it.

mod reader;
mod sum;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};
use tramite_proto::{
    ids::{Digest, MessageId},
    parts::{PARTS_MAX, PLAIN_MAX},
    pb::journal::v1::{Accepted, Part},
};

pub use self::reader::PartReader;
pub(crate) use self::sum::digest;
use self::{
    reader::Check,
    sum::{Checked, Sum},
};
use crate::{
    disk::{Access, Disk, DiskFile},
    error::{Poisoned, ReadError},
    journal::io_error,
    shared::Failure,
};

/// The plaintext of a message's parts, and room for 16 bytes with each 64 KiB of it.
const PART_BYTES_MAX: u64 = PLAIN_MAX + (1 << 20);
/// A part that no message names is of a sender that gave up.
const ORPHAN_MS: u64 = 24 * 60 * 60 * 1000;

/// Why a part was not taken or given.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// No such part.
    #[error("there is no part {part} of this message")]
    Missing {
        /// Its number.
        part: u32,
    },
    /// The bytes are not what was announced, or other bytes stand under that number already.
    #[error("the part is not what was announced: {what}")]
    Mismatch {
        /// Length or digest.
        what: &'static str,
    },
    /// Over a limit.
    #[error("too large: {what}")]
    TooLarge {
        /// Which limit.
        what: &'static str,
    },
    /// The disk is full.
    #[error("no room")]
    Full,
    /// The disk.
    #[error("the disk failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for PartError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    /// Of which message.
    pub message: MessageId,
    /// Its number.
    pub part: u32,
    /// Its length.
    pub length: u64,
}

/// What has become of the message to which a part belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Unknown,
    Waits,
    Final,
}

/// The folder of parts.
#[derive(Debug)]
pub(crate) struct Parts {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Parts that were hashed since opening.
    checked: Mutex<HashMap<(MessageId, u32), Checked>>,
    /// When messages were last asked for that name parts, as far as that is not long ago. What nobody needs is removed under this lock, so
    /// that a message does not lose its parts while it is being accepted.
    named: Mutex<HashMap<MessageId, i64>>,
    temporary: AtomicU64,
    failure: Failure,
}

/// Does blocking work where it holds up nobody. On a run time of one thread (a simulation's) it is done at once: when another thread
/// answers would be chance.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PartError> + Send + 'static,
) -> Result<T, PartError> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(PartError::Io(io::Error::other(e)))),
    }
}

impl Parts {
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: PathBuf, failure: Failure) -> Self {
        let (checked, named) = (Mutex::default(), Mutex::default());
        Self { disk, folder, checked, named, temporary: AtomicU64::new(0), failure }
    }

    fn checked(&self) -> MutexGuard<'_, HashMap<(MessageId, u32), Checked>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn named(&self) -> MutexGuard<'_, HashMap<MessageId, i64>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: &MessageId, part: u32) -> PathBuf {
        path(&self.folder, id, part)
    }

    /// Makes the names of all parts durable.
    pub(crate) fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.folder)
    }

    /// The same for a part that is to be answered for. A sync that failed is never tried again: the store has failed then.
    fn sync_name(&self) -> Result<(), PartError> {
        if self.failure.is_there() {
            return Err(PartError::Io(io::Error::other("the store has failed")));
        }
        self.sync_names().map_err(|e| {
            let what = format!("sync {}", self.folder.display());
            self.failure.note(Poisoned { what, source: Arc::new(io::Error::new(e.kind(), e.to_string())) });
            PartError::Io(e)
        })
    }

    pub(crate) fn length(&self, id: &MessageId, part: u32) -> io::Result<Option<u64>> {
        Ok(self.disk.info(&self.path(id, part))?.map(|info| info.length))
    }

    /// Every part that is there.
    pub(crate) fn list(&self) -> io::Result<Vec<PartInfo>> {
        let mut parts = Vec::new();
        for name in self.disk.list(&self.folder)? {
            if let Some((message, part)) = parse(&name)
                && let Some(length) = self.length(&message, part)?
            {
                parts.push(PartInfo { message, part, length });
            }
        }
        Ok(parts)
    }

    /// Begins to take in a part.
    pub(crate) async fn put(
        self: &Arc<Self>,
        id: MessageId,
        part: u32,
        length: u64,
        sha256: Digest,
    ) -> Result<PartWriter, PartError> {
        if usize::try_from(part).map_or(true, |part| part >= PARTS_MAX) {
            return Err(PartError::TooLarge { what: "16 parts on a message" });
        }
        if length > PART_BYTES_MAX {
            return Err(PartError::TooLarge { what: "26 MiB of sealed part" });
        }
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(format!("{id}.{part}.{number}.tmp"));
        let parts = Arc::clone(self);
        blocking(move || {
            let file = parts.disk.open(&temporary, Access::Create)?;
            let sum = Some(Sum::new());
            Ok(PartWriter { parts, file, temporary: Some(temporary), id, part, length, sha256, written: 0, sum })
        })
        .await
    }

    /// Begins to give a part out.
    pub(crate) async fn reader(
        self: &Arc<Self>,
        id: MessageId,
        part: u32,
        offset: u64,
        accepted: Option<Part>,
    ) -> Result<PartReader, PartError> {
        let parts = Arc::clone(self);
        blocking(move || {
            let path = parts.path(&id, part);
            let length = parts.length(&id, part)?.ok_or(PartError::Missing { part })?;
            if accepted.as_ref().is_some_and(|accepted| accepted.length != length) {
                return Err(damaged(&path));
            }
            if offset > length {
                return Err(PartError::Mismatch { what: "the offset is beyond its end" });
            }
            let file = parts.disk.open(&path, Access::Read)?;
            let check = match accepted {
                None => None,
                Some(accepted) => {
                    let whole = parts.check(id, part)?.ok_or(PartError::Missing { part })?;
                    if accepted.sha256 != whole.digest.as_bytes().as_slice() {
                        return Err(damaged(&path));
                    }
                    let mut crc = 0;
                    sum::read(file.as_ref(), offset, |bytes| crc = crc32c::crc32c_append(crc, bytes))?;
                    Some(Check { crc, whole: whole.crc, path })
                }
            };
            Ok(PartReader { file, offset, length, check, failed: false })
        })
        .await
    }

    /// What a part is that is there; hashed again after a restart.
    fn check(&self, id: MessageId, part: u32) -> Result<Option<Checked>, PartError> {
        if let Some(checked) = self.checked().get(&(id, part)) {
            return Ok(Some(*checked));
        }
        let Some(length) = self.length(&id, part)? else { return Ok(None) };
        let checked = sum::of(self.disk.as_ref(), &self.path(&id, part), length)?;
        self.checked().insert((id, part), checked);
        Ok(Some(checked))
    }

    /// The first part that a fact names and that is not there, or is another. What is there stays for a day from now.
    pub(crate) async fn missing(self: &Arc<Self>, fact: &Accepted, now_ms: i64) -> Result<Option<u32>, PartError> {
        let Ok(id) = MessageId::from_bytes(&fact.id) else {
            return Ok(fact.parts.first().map(|part| part.part));
        };
        let (parts, named) = (Arc::clone(self), fact.parts.clone());
        // Before the look.
        self.named().insert(id, now_ms);
        blocking(move || {
            for part in named {
                let same = parts.length(&id, part.part)? == Some(part.length)
                    && parts.check(id, part.part)?.is_some_and(|is| part.sha256 == is.digest.as_bytes().as_slice());
                if !same {
                    return Ok(Some(part.part));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Removes the parts of a final message.
    pub(crate) fn remove_of(&self, fact: &Accepted) -> Result<(), ReadError> {
        let Ok(id) = MessageId::from_bytes(&fact.id) else { return Ok(()) };
        fact.parts
            .iter()
            .try_for_each(|part| self.remove_one(&id, part.part).map_err(|e| io_error(&self.path(&id, part.part), &e)))
    }

    /// Removes a part, if it is there.
    pub(crate) async fn remove(self: &Arc<Self>, id: MessageId, part: u32) -> Result<(), PartError> {
        let parts = Arc::clone(self);
        blocking(move || Ok(parts.remove_one(&id, part)?)).await
    }

    fn remove_one(&self, id: &MessageId, part: u32) -> io::Result<()> {
        self.checked().remove(&(*id, part));
        match self.disk.remove(&self.path(id, part)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Removes what belongs to a final message, what no message named within a day, and what was never finished. Without an hour
    /// nothing is old, and what a clock far ahead has written is as old as it is from now.
    pub(crate) fn sweep(
        &self,
        now_ms: Option<i64>,
        opening: bool,
        owner: impl Fn(&MessageId) -> Result<Owner, ReadError>,
    ) -> Result<u64, ReadError> {
        let failed = |path: &PathBuf, e: io::Error| io_error(path, &e);
        if let Some(now_ms) = now_ms {
            self.named().retain(|_, named_ms| now_ms.abs_diff(*named_ms) < ORPHAN_MS);
        }
        let mut removed = 0;
        for name in self.disk.list(&self.folder).map_err(|e| failed(&self.folder, e))? {
            let path = self.folder.join(&name);
            let Some(info) = self.disk.info(&path).map_err(|e| failed(&path, e))? else { continue };
            let old = now_ms.is_some_and(|now_ms| now_ms.abs_diff(info.modified_ms) >= ORPHAN_MS);
            let named = self.named();
            let goes = match parse(&name) {
                None => name.ends_with(".tmp") && (opening || old),
                Some((message, _)) => match owner(&message)? {
                    Owner::Final => true,
                    Owner::Waits => false,
                    Owner::Unknown => old && !named.contains_key(&message),
                },
            };
            if goes {
                if let Some(key) = parse(&name) {
                    self.checked().remove(&key);
                }
                self.disk.remove(&path).map_err(|e| failed(&path, e))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Where a part stands in the folder of parts.
pub(crate) fn path(folder: &Path, id: &MessageId, part: u32) -> PathBuf {
    folder.join(format!("{id}.{part}"))
}

/// A part whose bytes are not those that were accepted is never given out whole.
fn damaged(path: &Path) -> PartError {
    tracing::error!(file = %path.display(), "a part is damaged: it is not given out");
    PartError::Mismatch { what: "its bytes on the disk are not those that were accepted" }
}

/// Message and number in a part's name.
fn parse(name: &str) -> Option<(MessageId, u32)> {
    let (message, part) = name.split_once('.')?;
    Some((message.parse().ok()?, part.parse().ok()?))
}

/// Takes in a part. Dropped before [`finish`](Self::finish) it leaves nothing.
pub struct PartWriter {
    parts: Arc<Parts>,
    file: Arc<dyn DiskFile>,
    /// Taken when it got its name.
    temporary: Option<PathBuf>,
    id: MessageId,
    part: u32,
    length: u64,
    sha256: Digest,
    written: u64,
    /// Away only while bytes are being added.
    sum: Option<Sum>,
}

impl std::fmt::Debug for PartWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartWriter").field("id", &self.id).field("part", &self.part).finish_non_exhaustive()
    }
}

/// A call before this one was dropped halfway: what was hashed is unknown.
fn interrupted() -> PartError {
    PartError::Mismatch { what: "it was interrupted" }
}

impl PartWriter {
    /// Adds bytes.
    ///
    /// # Errors
    /// More than announced, or the disk.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), PartError> {
        let end = self.written.saturating_add(bytes.len() as u64);
        if end > self.length {
            return Err(PartError::Mismatch { what: "longer than announced" });
        }
        let mut sum = self.sum.take().ok_or_else(interrupted)?;
        let (file, at) = (Arc::clone(&self.file), self.written);
        let sum = blocking(move || {
            sum.update(&bytes);
            file.write_at(&bytes, at)?;
            Ok(sum)
        })
        .await?;
        self.sum = Some(sum);
        self.written = end;
        Ok(())
    }

    /// Checks length and digest and makes the part durable under its name.
    ///
    /// # Errors
    /// Not what was announced, or the disk. Nothing is there then.
    pub async fn finish(mut self) -> Result<(), PartError> {
        let sum = self.sum.take().ok_or_else(interrupted)?;
        if self.written != self.length {
            return Err(PartError::Mismatch { what: "shorter than announced" });
        }
        let checked = sum.finish();
        if checked.digest != self.sha256 {
            return Err(PartError::Mismatch { what: "its digest is another" });
        }
        blocking(move || self.put_in_place(checked)).await
    }

    fn put_in_place(&mut self, checked: Checked) -> Result<(), PartError> {
        match self.parts.check(self.id, self.part)? {
            // Whoever put it there may have been stopped before its name was durable.
            Some(there) if there.digest == self.sha256 => return self.parts.sync_name(),
            Some(_) => return Err(PartError::Mismatch { what: "another part of that number is there" }),
            None => {}
        }
        let Some(temporary) = &self.temporary else { return Ok(()) };
        self.file.sync_data()?;
        let path = self.parts.path(&self.id, self.part);
        self.parts.disk.rename(temporary, &path)?;
        self.temporary = None;
        self.parts.sync_name()?;
        self.parts.checked().insert((self.id, self.part), checked);
        Ok(())
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take()
            && let Err(error) = self.parts.disk.remove(&temporary)
        {
            tracing::warn!(%error, "an unfinished part stays until the next opening");
        }
    }
}
