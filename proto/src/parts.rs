//! Sealed parts: attachments in chunks under a content key (FORMATS.md §4).
//!
//! Knows chunks, nonces and digests. Never knows files, streams or who reads. Invariants: nobody needs more than a chunk of a part in
//! memory; a chunk opens only under its own message, part and position, and only the last one says that it is the last, so a part
//! cannot be cut short, reordered or mixed; a nonce is used once, because part and position are its bytes and a sealer only goes on.
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::{
    ids::{Digest, MessageId},
    reason::{Reason, Refused},
    statement::SealedPart,
};

/// Bytes of plaintext in a chunk: few tags, and little memory.
pub const CHUNK: usize = 65_536;
/// Bytes of plaintext in a chunk, as lengths of parts are counted.
const CHUNK_LEN: u64 = 65_536;
/// Bytes that a chunk is longer when sealed.
pub const TAG: usize = 16;
const TAG_LEN: u64 = 16;
/// Parts on a message: what a desk attaches by hand, and no folder of scans.
pub const PARTS_MAX: usize = 16;
/// Bytes of plaintext of all parts of a message: 25 MiB, as the agreement of the institutions has it.
pub const PLAIN_MAX: u64 = 25 * 1024 * 1024;
/// Bytes of a part or an attachment in one frame of a stream, as the contracts have it: few frames, and little memory for each that waits.
pub const FRAME_MAX: usize = 256 * 1024;

const LABEL: &[u8] = b"tramite-part-v1";

/// What the caller of a sealer did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// Only the last chunk may be shorter than 65,536 bytes, and only the sole chunk of an empty file may be empty.
    #[error("a chunk of {0} bytes cannot stand there")]
    ChunkLength(usize),
    /// Nothing follows the last chunk.
    #[error("the part is complete already")]
    Complete,
    /// A message has parts 0 to 15.
    #[error("there is no part {0}")]
    Number(u32),
    /// 25 MiB in all.
    #[error("a part holds at most 25 MiB")]
    TooLong,
    /// AES-GCM did not answer.
    #[error("sealing failed")]
    Failed,
}

/// Bytes of the sealed part of a file of `plain` bytes.
pub fn sealed_len(plain: u64) -> u64 {
    plain.saturating_add(chunks(plain).saturating_mul(TAG_LEN))
}

/// Bytes of the file in a sealed part of `sealed` bytes; `None` when no file has such a part.
pub fn plain_len(sealed: u64) -> Option<u64> {
    let chunks = sealed.div_ceil(CHUNK_LEN + TAG_LEN);
    let plain = sealed.checked_sub(chunks.checked_mul(TAG_LEN)?)?;
    (sealed_len(plain) == sealed).then_some(plain)
}

/// How many chunks a file of `plain` bytes has: an empty one has one.
fn chunks(plain: u64) -> u64 {
    plain.div_ceil(CHUNK_LEN).max(1)
}

/// The key with the place in the part: what sealer and opener share.
struct Place {
    key: LessSafeKey,
    jti: MessageId,
    part: u32,
    position: u64,
}

impl Place {
    fn new(key: &[u8; 32], jti: &MessageId, part: u32) -> Result<Self, PartError> {
        if usize::try_from(part).map_or(true, |part| part >= PARTS_MAX) {
            return Err(PartError::Number(part));
        }
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| PartError::Failed)?;
        Ok(Self { key: LessSafeKey::new(key), jti: *jti, part, position: 0 })
    }

    /// `u32(part) || u64(position)`.
    fn nonce(&self) -> Nonce {
        let mut nonce = [0; 12];
        let bytes = self.part.to_be_bytes().into_iter().chain(self.position.to_be_bytes());
        nonce.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = byte);
        Nonce::assume_unique_for_key(nonce)
    }

    /// `lp("tramite-part-v1") || lp(jti) || u32(part) || u64(position) || u8(last)`.
    fn aad(&self, last: bool) -> Vec<u8> {
        let mut aad = Vec::with_capacity(48);
        aad.extend_from_slice(&[0, 15]);
        aad.extend_from_slice(LABEL);
        aad.extend_from_slice(&[0, 16]);
        aad.extend_from_slice(self.jti.as_bytes());
        aad.extend_from_slice(&self.part.to_be_bytes());
        aad.extend_from_slice(&self.position.to_be_bytes());
        aad.push(u8::from(last));
        aad
    }
}

/// Length and SHA-256 of the bytes that pass through it.
#[derive(Clone)]
pub struct RunningDigest {
    context: aws_lc_rs::digest::Context,
    length: u64,
}

impl RunningDigest {
    /// Over nothing yet.
    pub fn new() -> Self {
        Self { context: aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256), length: 0 }
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.length = self.length.saturating_add(bytes.len() as u64);
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// SHA-256 of all that passed through.
    pub fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.context.finish().as_ref());
        Digest(digest)
    }
}

impl Default for RunningDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for RunningDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningDigest").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Seals one part. Either whole chunks with [`seal_chunk`](Self::seal_chunk), or bytes as they come with [`push`](Self::push) and
/// [`finish`](Self::finish); not both.
pub struct PartSealer {
    place: Place,
    /// Bytes pushed that may still be the last chunk: at most one chunk.
    held: Vec<u8>,
    sealed: RunningDigest,
    complete: bool,
}

impl PartSealer {
    /// Begins part number `part` (from 0) of message `jti`, under the message's content key.
    pub fn new(key: &[u8; 32], jti: &MessageId, part: u32) -> Result<Self, PartError> {
        Ok(Self { place: Place::new(key, jti, part)?, held: Vec::new(), sealed: RunningDigest::new(), complete: false })
    }

    /// Seals the next chunk: 65,536 bytes, the last one 1 to 65,536; 0 only when the file is empty.
    pub fn seal_chunk(&mut self, chunk: &[u8], last: bool) -> Result<Vec<u8>, PartError> {
        if self.complete {
            return Err(PartError::Complete);
        }
        let empty_file = last && self.place.position == 0;
        let fits = if last { chunk.len() <= CHUNK && (!chunk.is_empty() || empty_file) } else { chunk.len() == CHUNK };
        if !fits {
            return Err(PartError::ChunkLength(chunk.len()));
        }
        if self.place.position.saturating_mul(CHUNK_LEN).saturating_add(chunk.len() as u64) > PLAIN_MAX {
            return Err(PartError::TooLong);
        }
        let mut sealed = Vec::with_capacity(chunk.len() + TAG);
        sealed.extend_from_slice(chunk);
        let (nonce, aad) = (self.place.nonce(), Aad::from(self.place.aad(last)));
        self.place.key.seal_in_place_append_tag(nonce, aad, &mut sealed).map_err(|_| PartError::Failed)?;
        self.place.position += 1;
        self.complete = last;
        self.sealed.update(&sealed);
        Ok(sealed)
    }

    /// Takes the file's next bytes, in pieces of any length; gives what is sealed by now.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, PartError> {
        let mut sealed = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.held.len() == CHUNK {
                let chunk = std::mem::take(&mut self.held);
                sealed.extend_from_slice(&self.seal_chunk(&chunk, false)?);
            }
            let (now, later) = rest.split_at(rest.len().min(CHUNK - self.held.len()));
            self.held.extend_from_slice(now);
            rest = later;
        }
        Ok(sealed)
    }

    /// Says that the file has ended; gives the last sealed bytes, and what origin says of the part.
    pub fn finish(mut self) -> Result<(Vec<u8>, SealedPart), PartError> {
        let mut last = Vec::new();
        if !self.complete {
            let chunk = std::mem::take(&mut self.held);
            last = self.seal_chunk(&chunk, true)?;
        }
        let len = self.sealed.length();
        Ok((last, SealedPart { len, s256: self.sealed.finish() }))
    }
}

impl std::fmt::Debug for PartSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartSealer")
            .field("part", &self.place.part)
            .field("position", &self.place.position)
            .finish_non_exhaustive()
    }
}

/// Opens one part, of which origin said length and digest. Every failure is PART_MISMATCH, and nothing follows it.
pub struct PartOpener {
    place: Place,
    expected: SealedPart,
    chunks: u64,
    /// Sealed bytes pushed that are no whole chunk yet.
    held: Vec<u8>,
    sealed: RunningDigest,
    failed: bool,
}

impl PartOpener {
    /// Begins part number `part` (from 0) of message `jti`, under the message's content key.
    pub fn new(key: &[u8; 32], jti: &MessageId, part: u32, expected: SealedPart) -> Result<Self, Refused> {
        let place =
            Place::new(key, jti, part).map_err(|error| mismatch(&format!("The part cannot be opened: {error}.")))?;
        let plain = plain_len(expected.len).filter(|plain| *plain <= PLAIN_MAX);
        let plain = plain.ok_or_else(|| mismatch("No sealed part has the length that the origin names."))?;
        Ok(Self {
            place,
            expected,
            chunks: chunks(plain),
            held: Vec::new(),
            sealed: RunningDigest::new(),
            failed: false,
        })
    }

    /// Opens the next sealed chunk, whole.
    pub fn open_chunk(&mut self, sealed: &[u8]) -> Result<Vec<u8>, Refused> {
        let opened = self.open(sealed);
        self.failed |= opened.is_err();
        opened
    }

    fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, Refused> {
        if self.failed || self.place.position >= self.chunks {
            return Err(mismatch("The part has more chunks than its length allows."));
        }
        if sealed.len() != self.next_len() {
            return Err(mismatch("A chunk of the part has another length than its place asks for."));
        }
        let last = self.place.position + 1 == self.chunks;
        let mut plain = sealed.to_vec();
        let aad = Aad::from(self.place.aad(last));
        let length = match self.place.key.open_in_place(self.place.nonce(), aad, &mut plain) {
            Ok(opened) => opened.len(),
            Err(_) => return Err(mismatch("A chunk of the part does not open under its message, part and position.")),
        };
        plain.truncate(length);
        self.sealed.update(sealed);
        self.place.position += 1;
        Ok(plain)
    }

    /// Bytes of the next sealed chunk; 0 when there is none.
    pub fn next_len(&self) -> usize {
        let rest = self.expected.len.saturating_sub(self.sealed.length());
        usize::try_from(rest.min(CHUNK_LEN + TAG_LEN)).unwrap_or(CHUNK + TAG)
    }

    /// Takes the next sealed bytes, in pieces of any length; gives what is open by now.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut plain = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let wanted = self.next_len();
            let (now, later) = rest.split_at(rest.len().min(wanted.saturating_sub(self.held.len())));
            if now.is_empty() {
                self.failed = true;
                return Err(mismatch("The part is longer than the origin says."));
            }
            self.held.extend_from_slice(now);
            rest = later;
            if self.held.len() == wanted {
                let chunk = std::mem::take(&mut self.held);
                plain.extend_from_slice(&self.open_chunk(&chunk)?);
            }
        }
        Ok(plain)
    }

    /// Says that the sealed part has ended: it must be whole, and its digest the one that origin names.
    pub fn finish(self) -> Result<(), Refused> {
        if self.failed || self.place.position != self.chunks {
            return Err(mismatch("The part is shorter than the origin says, or did not open."));
        }
        if self.sealed.finish() != self.expected.s256 {
            return Err(mismatch("The part's digest is not the one that the origin names."));
        }
        Ok(())
    }
}

impl std::fmt::Debug for PartOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartOpener")
            .field("part", &self.place.part)
            .field("position", &self.place.position)
            .finish_non_exhaustive()
    }
}

fn mismatch(detail: &str) -> Refused {
    Refused::new(Reason::PartMismatch, detail)
}

#[cfg(test)]
mod tests;
