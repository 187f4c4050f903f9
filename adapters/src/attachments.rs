//! Files that a back office has put here for a message to come: sealed as they come in, kept 24 hours.
//!
//! ```text
//! attachments/staging.key    32 random bytes, mode 0600; the keys of all files below are derived from it
//! attachments/<id>.data      the file, sealed chunk by chunk (FORMATS.md §4), part 0 of `id`
//! attachments/<id>.about     name, type, length and digest, sealed as part 1; written last: without it there is no attachment
//! ```
//! When a message is sent, its files are sealed again under the message's own key: message id and place, which are part of every
//! chunk, are not known before. Knows files and limits. Never knows messages. Invariants: no file is ever whole in memory; what a
//! crash leaves without `.about`, and whatever is older than 24 hours, is removed by the next sweep at which the clock is believed; what was put
//! while it was not has no age, and stays a day longer.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tramite_certs::secrets;
use tramite_proto::{
    clock::Clock,
    ids::{Digest, MessageId},
    parts::{PLAIN_MAX, PartOpener, PartSealer, RunningDigest},
    pb::backoffice::v1 as pb,
    reason::{Reason, Refused},
    statement::SealedPart,
    validate,
};
use zeroize::Zeroizing;

use crate::{
    entropy::Entropy,
    files::{create_private_dir, create_private_file, in_place, sync_dir, write_synced},
};

/// As the contract says; a caller that takes longer puts the file again.
const KEEP_MS: u64 = 24 * 3_600_000;
/// Attachments of forty full messages; a caller that puts files and never sends would otherwise fill the disk.
const STAGED_BYTES_MAX: u64 = 1 << 30;
/// Bytes read from a file at a time.
const READ_BYTES: usize = 128 * 1024;
/// Label of the derivation of a file's key.
const LABEL: &[u8] = b"tramite-staging-v1\0";

/// What is known of a staged file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) media_type: String,
    pub(crate) document: String,
    /// Plaintext length.
    pub(crate) length: u64,
    /// SHA-256 of the plaintext.
    pub(crate) sha256: Digest,
    sealed_length: u64,
    sealed_sha256: Digest,
    /// It was put while the clock was not believed: the hour in its id says nothing of its age.
    #[serde(default)]
    undated: bool,
}

/// The staging folder.
#[derive(Clone)]
pub(crate) struct Attachments {
    directory: PathBuf,
    key: Arc<Zeroizing<[u8; 32]>>,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
    /// When this run first looked at those that have no hour that counts.
    undated: Arc<Mutex<HashMap<MessageId, i64>>>,
}

impl std::fmt::Debug for Attachments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachments").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Attachments {
    /// Opens the folder, makes it and its key when they are missing.
    pub(crate) fn open(directory: &Path, clock: Arc<dyn Clock>, entropy: Entropy) -> io::Result<Self> {
        create_private_dir(directory)?;
        let path = directory.join("staging.key");
        let key = match read_key(&path)? {
            Some(key) => key,
            None => make_key(directory, &path, &entropy)?,
        };
        Ok(Self { directory: directory.to_owned(), key: Arc::new(key), clock, entropy, undated: Arc::default() })
    }

    /// Begins a file, by a clock that is believed or not.
    pub(crate) fn begin(&self, header: pb::AttachmentHeader, believed: bool) -> Result<Writing, Refused> {
        // By the rules of the message to come: what a send would refuse is not even taken in.
        validate::attachment_header(&header).map_err(Refused::fields)?;
        if self.staged_bytes().map_err(failed)? > STAGED_BYTES_MAX {
            let detail = "too many attachments wait to be sent; send their messages, or come back tomorrow";
            return Err(Refused::new(Reason::QuotaExceeded, detail));
        }
        let id = MessageId::new(self.clock.now_ms(), self.entropy.random());
        let sealer = PartSealer::new(&self.key_of(&id), &id, 0).map_err(sealing)?;
        let file = create_private_file(&self.path(&id, "data")).map_err(failed)?;
        let (folder, plain) = (self.clone(), RunningDigest::new());
        Ok(Writing { folder, id, header, undated: !believed, sealer, file, plain, kept: false })
    }

    /// What is known of a file that was put here.
    pub(crate) fn about(&self, id: &str) -> Result<(MessageId, About), Refused> {
        let unknown = || {
            let detail =
                format!("attachment `{id}` is unknown: it was never put, was sent already, or is older than 24 hours");
            Refused::new(Reason::AttachmentUnknown, detail).field("sending.attachments")
        };
        let id: MessageId = id.parse().map_err(|_| unknown())?;
        let sealed = fs::read(self.path(&id, "about")).map_err(|error| absent_or_failed(error, unknown()))?;
        let expected = SealedPart { len: sealed.len() as u64, s256: Digest::of(&sealed) };
        let mut opener = PartOpener::new(&self.key_of(&id), &id, 1, expected)?;
        let about = opener.push(&sealed)?;
        Ok((id, serde_json::from_slice(&about).map_err(|_| unknown())?))
    }

    /// Reads a file that was put here.
    pub(crate) fn read(&self, id: &MessageId, about: &About) -> Result<Reading, Refused> {
        let expected = SealedPart { len: about.sealed_length, s256: about.sealed_sha256 };
        let opener = PartOpener::new(&self.key_of(id), id, 0, expected)?;
        let file = in_place(|| fs::File::open(self.path(id, "data"))).map_err(|error| {
            let gone = Refused::new(Reason::AttachmentUnknown, format!("attachment `{id}` was sent already"));
            absent_or_failed(error, gone.field("sending.attachments"))
        })?;
        Ok(Reading { file, opener: Some(opener) })
    }

    /// Its message is on the disk: the file goes. What is known of it stays its 24 hours, so that a repeat can be told.
    pub(crate) fn sent(&self, id: &MessageId) {
        self.remove(id, "data");
    }

    /// What is gone already is no trouble.
    fn remove(&self, id: &MessageId, ending: &str) {
        if let Err(error) = fs::remove_file(self.path(id, ending))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, attachment = %id, "an attachment could not be removed; it goes tomorrow");
        }
    }

    /// Removes what is older than 24 hours at that hour, and what a crash left half written. What a clock far ahead has written is as old
    /// as it is from now.
    pub(crate) fn sweep(&self, now_ms: i64) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<MessageId>().ok());
            // The id was made when the file was begun, and says when that was.
            let Some(made_ms) = id.and_then(|id| id.made_ms()) else { continue };
            if now_ms.abs_diff(made_ms) > KEEP_MS && !id.is_some_and(|id| self.is_undated_and_new(id, now_ms)) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// One that has no hour that counts is kept for a day from when this run first looks at it.
    fn is_undated_and_new(&self, id: MessageId, now_ms: i64) -> bool {
        let undated = self.about(&id.to_string()).is_ok_and(|(_, about)| about.undated);
        let mut since = self.undated.lock().unwrap_or_else(PoisonError::into_inner);
        if !undated {
            since.remove(&id);
            return false;
        }
        now_ms.abs_diff(*since.entry(id).or_insert(now_ms)) <= KEEP_MS
    }

    fn staged_bytes(&self) -> io::Result<u64> {
        let mut bytes = 0_u64;
        for entry in fs::read_dir(&self.directory)? {
            bytes = bytes.saturating_add(entry?.metadata().map_or(0, |data| data.len()));
        }
        Ok(bytes)
    }

    fn path(&self, id: &MessageId, ending: &str) -> PathBuf {
        self.directory.join(format!("{id}.{ending}"))
    }

    /// `SHA-256(label || staging key || id)`: a key for each file, so that no nonce is ever used twice.
    fn key_of(&self, id: &MessageId) -> Zeroizing<[u8; 32]> {
        let all = Zeroizing::new([LABEL, self.key.as_slice(), id.as_bytes()].concat());
        Zeroizing::new(*Digest::of(&all).as_bytes())
    }
}

/// A file on its way in.
pub(crate) struct Writing {
    folder: Attachments,
    id: MessageId,
    header: pb::AttachmentHeader,
    undated: bool,
    sealer: PartSealer,
    file: fs::File,
    plain: RunningDigest,
    kept: bool,
}

impl Writing {
    /// Takes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        if self.plain.length().saturating_add(bytes.len() as u64) > PLAIN_MAX {
            return Err(Refused::new(Reason::PayloadTooLarge, "an attachment has at most 25 MiB").field("data"));
        }
        self.plain.update(bytes);
        let sealed = self.sealer.push(bytes).map_err(sealing)?;
        in_place(|| self.file.write_all(&sealed)).map_err(failed)
    }

    /// The file has ended; it is durable when this returns.
    pub(crate) fn finish(mut self) -> Result<pb::PutAttachmentResponse, Refused> {
        let sealer = std::mem::replace(&mut self.sealer, PartSealer::new(&[0; 32], &self.id, 0).map_err(sealing)?);
        let (last, sealed) = sealer.finish().map_err(sealing)?;
        in_place(|| self.file.write_all(&last).and_then(|()| self.file.sync_all())).map_err(failed)?;
        let length = self.plain.length();
        let sha256 = std::mem::take(&mut self.plain).finish();
        let about = About {
            name: self.header.name.clone(),
            media_type: self.header.media_type.clone(),
            document: self.header.document.clone(),
            length,
            sha256,
            sealed_length: sealed.len,
            sealed_sha256: sealed.s256,
            undated: self.undated,
        };
        in_place(|| self.keep(&about)).map_err(failed)?;
        self.kept = true;
        let sha256 = Bytes::copy_from_slice(sha256.as_bytes());
        Ok(pb::PutAttachmentResponse { attachment_id: self.id.to_string(), length, sha256 })
    }

    /// The same for a file whose place is not here: it goes with the one call that it was put for, whatever comes of that.
    pub(crate) fn finish_for_one_call(self) -> Result<Passing, Refused> {
        let (folder, id) = (self.folder.clone(), self.id);
        let stored = self.finish()?;
        Ok(Passing { folder, id, stored })
    }

    fn keep(&self, about: &About) -> io::Result<()> {
        let mut sealer = PartSealer::new(&self.folder.key_of(&self.id), &self.id, 1).map_err(io::Error::other)?;
        let mut sealed = sealer.push(&serde_json::to_vec(about)?).map_err(io::Error::other)?;
        sealed.extend(sealer.finish().map_err(io::Error::other)?.0);
        write_synced(&self.folder.path(&self.id, "about"), &sealed)?;
        sync_dir(&self.folder.directory)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.kept {
            // Best effort: the sweep of tomorrow finds what is left.
            self.folder.remove(&self.id, "about");
            self.folder.remove(&self.id, "data");
        }
    }
}

/// A file that stands here for one call.
pub(crate) struct Passing {
    folder: Attachments,
    id: MessageId,
    /// What the call names it by.
    pub(crate) stored: pb::PutAttachmentResponse,
}

impl Drop for Passing {
    fn drop(&mut self) {
        // In this order: without `.about` there is no attachment.
        self.folder.remove(&self.id, "about");
        self.folder.remove(&self.id, "data");
    }
}

/// A sealed file on its way out, opened chunk by chunk.
pub(crate) struct Reading {
    file: fs::File,
    opener: Option<PartOpener>,
}

impl Reading {
    /// The next bytes; `None` when the file has ended and checked.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, Refused> {
        let mut buffer = vec![0_u8; READ_BYTES];
        while let Some(opener) = &mut self.opener {
            let count = in_place(|| self.file.read(&mut buffer)).map_err(failed)?;
            let sealed = buffer.get(..count).unwrap_or_default();
            if sealed.is_empty() {
                if let Some(opener) = self.opener.take() {
                    opener.finish()?;
                }
                return Ok(None);
            }
            let plain = opener.push(sealed)?;
            if !plain.is_empty() {
                return Ok(Some(plain));
            }
        }
        Ok(None)
    }
}

/// The key of an earlier run; `None` when there is none, or less of it than was to be written: nothing was ever sealed with that.
fn read_key(path: &Path) -> io::Result<Option<Zeroizing<[u8; 32]>>> {
    if !path.try_exists()? {
        return Ok(None);
    }
    let bytes = secrets::read_private(path).map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error))?;
    match <[u8; 32]>::try_from(bytes.as_slice()) {
        Ok(key) => Ok(Some(Zeroizing::new(key))),
        Err(_) if bytes.len() < 32 => {
            tracing::warn!("the key of staged attachments was half written; a new one is made");
            Ok(None)
        }
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a key", path.display()))),
    }
}

/// Whole under its name or not there, whatever happens meanwhile.
fn make_key(directory: &Path, path: &Path, entropy: &Entropy) -> io::Result<Zeroizing<[u8; 32]>> {
    let key = Zeroizing::new(entropy.random::<32>());
    let partial = directory.join("staging.key.new");
    write_synced(&partial, key.as_slice())?;
    fs::rename(&partial, path)?;
    fs::File::open(directory)?.sync_all()?;
    Ok(key)
}

fn sealing(error: tramite_proto::parts::PartError) -> Refused {
    Refused::new(Reason::PayloadTooLarge, error.to_string())
}

/// Only what is not there is refused for good: on a disk that fails everything is still there, and the caller asks again.
fn absent_or_failed(error: io::Error, absent: Refused) -> Refused {
    if error.kind() == io::ErrorKind::NotFound { absent } else { failed(error) }
}

fn failed(error: io::Error) -> Refused {
    tracing::error!(%error, "the attachments' folder failed");
    match error.kind() {
        // Says what to do.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refused::because(Reason::StoreFull),
        _ => Refused::new(Reason::StoreFailed, "the adapter's disk did not take or give the attachment"),
    }
}

#[cfg(test)]
mod tests;
