//! One file of rows: written once, in order; read by blocks.
//!
//! ```text
//! block      rows: u16 bytes shared with the key before | u16 further bytes | u32 length of the value, all ones: removed
//!                  | the further bytes | the value                                    then u32 CRC-32C of the block
//! footer     u32 blocks; for each u32 bytes up to its end | u16 length of its first key | that key
//!            u16 kinds; for each u16 length of its first key | that key | u16 length of its last key | that key
//!            u32 filters; for each u32 the block with which it begins | u32 words | the words
//! trailer    u64 offset of the footer | u32 CRC-32C of the footer | "TRMRUN02"
//! ```
//! Blocks stand one behind the other; a filter speaks of those up to the next filter's. So a file of millions of rows is written
//! with no more in memory than what a reader of it keeps.
//!
//! Knows: these bytes; integers are little-endian. Never knows: what a row means, which other files there are. Invariant: keys rise;
//! a block or footer that does not check is an error.

use std::{
    cell::RefCell,
    cmp::Ordering,
    fs::{File, OpenOptions},
    io::Write as _,
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    failed,
    index::{Index, IndexWriter, Place},
};
use crate::error::MapError;

/// A block is ended when it has so many bytes: one page, about seventy rows to look through.
const BLOCK_BYTES: usize = 4096;
/// Written at once.
const BUFFER_BYTES: usize = 256 * 1024;
const TRAILER_BYTES: usize = 20;
const MAGIC: &[u8; 8] = b"TRMRUN02";
/// In the place of a length.
const REMOVED: u32 = u32::MAX;
/// No footer is larger (a thousand million rows): beyond it, it is damage and no reason to allocate.
const FOOTER_BYTES_MAX: u64 = 4 << 30;

/// A file that can be read.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    /// Higher is newer.
    pub(super) order: u64,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    file: File,
    index: Index,
}

/// A file being written; it goes when it is not finished.
pub(super) struct RunWriter {
    pub(super) number: u64,
    path: Unfinished,
    file: File,
    buffer: Vec<u8>,
    /// Bytes before the buffer.
    written: u64,
    /// Where the present block begins in the buffer.
    block_at: usize,
    last: Vec<u8>,
    index: IndexWriter,
}

/// The path of a file that is removed unless it was finished: on a full disk a half of it must not stay.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty()
            && let Err(error) = std::fs::remove_file(&self.0)
        {
            tracing::warn!(%error, file = %self.0.display(), "a file of rows that was not finished stays");
        }
    }
}

impl Unfinished {
    fn finished(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

pub(super) fn too_long(_: std::num::TryFromIntError) -> MapError {
    MapError("a row is longer than any may be".into())
}

/// Bytes with which both begin.
fn shared(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0).take_while(|(a, b)| a == b).count() * 8;
    let rest = a.iter().zip(b).skip(words).take_while(|(a, b)| a == b).count();
    words + rest
}

impl RunWriter {
    pub(super) fn create(path: PathBuf, number: u64, probe: fn(&[u8]) -> Option<&[u8]>) -> Result<Self, MapError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(failed("make", &path))?;
        Ok(Self {
            number,
            path: Unfinished(path),
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES + 2 * BLOCK_BYTES),
            written: 0,
            block_at: 0,
            last: Vec::new(),
            index: IndexWriter::new(probe),
        })
    }

    /// Adds a row behind all that are there.
    pub(super) fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), MapError> {
        if key <= self.last.as_slice() {
            return Err(MapError("rows must come in the order of their keys".into()));
        }
        let begins = self.buffer.len() == self.block_at;
        if begins {
            self.index.begin_block(key, self.written + self.block_at as u64)?;
        }
        self.index.note(key, &self.last);
        let shared = if begins { 0 } else { shared(&self.last, key) };
        let rest = key.get(shared..).unwrap_or_default();
        let length = value.map_or(Ok(REMOVED), |value| u32::try_from(value.len()).map_err(too_long))?;
        self.buffer.extend_from_slice(&u16::try_from(shared).map_err(too_long)?.to_le_bytes());
        self.buffer.extend_from_slice(&u16::try_from(rest.len()).map_err(too_long)?.to_le_bytes());
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(rest);
        self.buffer.extend_from_slice(value.unwrap_or_default());
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        if self.buffer.len() - self.block_at >= BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), MapError> {
        let Some(block) = self.buffer.get(self.block_at..).filter(|block| !block.is_empty()) else { return Ok(()) };
        let crc = crc32c::crc32c(block);
        let length = u32::try_from(block.len()).map_err(too_long)?;
        self.index.index.end_block(length);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.block_at = self.buffer.len();
        if self.buffer.len() >= BUFFER_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), MapError> {
        self.file.write_all(&self.buffer).map_err(failed("write", &self.path.0))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        self.block_at = 0;
        Ok(())
    }

    /// Ends the file; none when there was no row.
    pub(super) fn finish(mut self, order: u64) -> Result<Option<Run>, MapError> {
        self.end_block()?;
        let index = self.index.end(&self.last)?;
        if index.is_empty() {
            return Ok(None);
        }
        let footer_at = self.written + self.buffer.len() as u64;
        let mut crc = 0;
        index.encode(&mut |bytes| {
            crc = crc32c::crc32c_append(crc, bytes);
            self.buffer.extend_from_slice(bytes);
            if self.buffer.len() >= BUFFER_BYTES { self.write() } else { Ok(()) }
        })?;
        self.buffer.extend_from_slice(&footer_at.to_le_bytes());
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(MAGIC);
        self.write()?;
        let Self { number, path, file, written, .. } = self;
        Ok(Some(Run { number, order, path: path.finished(), bytes: written, file, index }))
    }
}

/// Bytes that were read, taken from the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u16(&mut self) -> Option<usize> {
        self.array().map(u16::from_le_bytes).map(usize::from)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn key(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length)
    }
}

impl Run {
    pub(super) fn open(path: &Path, number: u64, order: u64) -> Result<Self, MapError> {
        let file = File::open(path).map_err(failed("open", path))?;
        let bytes = file.metadata().map_err(failed("measure", path))?.len();
        let damaged = |what: &str| MapError(format!("{} is damaged: {what}", path.display()));
        let mut trailer = [0; TRAILER_BYTES];
        let trailer_at = bytes.checked_sub(TRAILER_BYTES as u64).ok_or_else(|| damaged("too short"))?;
        file.read_exact_at(&mut trailer, trailer_at).map_err(failed("read", path))?;
        let mut reader = Reader(&trailer);
        let (footer_at, crc) = reader.u64().zip(reader.u32()).ok_or_else(|| damaged("no trailer"))?;
        let length = trailer_at.checked_sub(footer_at).filter(|length| *length <= FOOTER_BYTES_MAX);
        let length = length.filter(|_| reader.0 == MAGIC).ok_or_else(|| damaged("no trailer"))?;
        let mut footer = vec![0; usize::try_from(length).map_err(too_long)?];
        file.read_exact_at(&mut footer, footer_at).map_err(failed("read", path))?;
        if crc32c::crc32c(&footer) != crc {
            return Err(damaged("its footer"));
        }
        let index = Index::decode(&footer).ok_or_else(|| damaged("its footer"))?;
        Ok(Self { number, order, path: path.to_owned(), bytes, file, index })
    }

    /// Whether a key of `from..to` may be here; `probed` is the hash of what all of them share.
    pub(super) fn may_have(&self, from: &[u8], to: &[u8], probed: Option<u64>) -> bool {
        self.index.may_have(from, to, probed)
    }

    /// What is said of a key here: its value, that it was removed, or nothing.
    pub(super) fn get(&self, key: &[u8], probed: Option<u64>) -> Result<Option<Option<Bytes>>, MapError> {
        if !self.index.may_have(key, key, probed) {
            return Ok(None);
        }
        let Some(place) = self.block_of(key).and_then(|block| self.index.place(block)) else { return Ok(None) };
        SCRATCH.with_borrow_mut(|Scratch { bytes, key: met }| {
            self.read(&place, bytes)?;
            let mut at = 0;
            while at < bytes.len() {
                let value = read_row(bytes, &mut at, met).ok_or_else(not_adding_up)?;
                match met.as_slice().cmp(key) {
                    Ordering::Less => {}
                    Ordering::Equal => {
                        let copied = |value| bytes.get(value).map_or_else(Bytes::new, Bytes::copy_from_slice);
                        return Ok(Some(value.map(copied)));
                    }
                    Ordering::Greater => break,
                }
            }
            Ok(None)
        })
    }

    /// The block in which a key is, if it is here.
    pub(super) fn block_of(&self, key: &[u8]) -> Option<usize> {
        self.index.block_of(key)
    }

    /// The rows of a block, which is checked; none of them behind the last block.
    pub(super) fn rows(&self, at: usize) -> Result<Block, MapError> {
        let Some(place) = self.index.place(at) else { return Ok(Block::default()) };
        let mut bytes = Vec::new();
        self.read(&place, &mut bytes)?;
        Ok(Block { bytes: Bytes::from(bytes), at: 0, key: Vec::new() })
    }

    /// Reads a block into `bytes` and checks it.
    fn read(&self, place: &Place, bytes: &mut Vec<u8>) -> Result<(), MapError> {
        bytes.resize(place.length as usize + 4, 0);
        self.file.read_exact_at(bytes, place.offset).map_err(failed("read", &self.path))?;
        match bytes.split_last_chunk() {
            Some((block, crc)) if crc32c::crc32c(block).to_le_bytes() == *crc => bytes.truncate(place.length as usize),
            _ => return Err(MapError(format!("{} is damaged in the block at {}", self.path.display(), place.offset))),
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), MapError> {
        self.file.sync_data().map_err(failed("sync", &self.path))
    }
}

/// The rows of a block, one after the other.
#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Bytes,
    /// Where the next row begins.
    at: usize,
    key: Vec<u8>,
}

impl Block {
    /// The key of the row that came last.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The next row: what it says of its key, a value or that it was removed.
    pub(super) fn next(&mut self) -> Result<Option<Option<Bytes>>, MapError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let value = read_row(&self.bytes, &mut self.at, &mut self.key).ok_or_else(not_adding_up)?;
        Ok(Some(value.map(|value| self.bytes.slice(value))))
    }
}

fn not_adding_up() -> MapError {
    MapError("a block's rows do not add up".into())
}

/// What a lookup works with: a fresh block of memory for each would cost more than reading the file.
#[derive(Debug, Default)]
struct Scratch {
    bytes: Vec<u8>,
    key: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Reads the row of a block at `at`: its key into `key`, and where its value stands, none when it was removed. `at` goes to the next row.
fn read_row(bytes: &[u8], at: &mut usize, key: &mut Vec<u8>) -> Option<Option<Range<usize>>> {
    let mut reader = Reader(bytes.get(*at..)?);
    let (shared, rest, length) = (reader.u16()?, reader.u16()?, reader.u32()?);
    // The first row shares nothing.
    key.truncate(shared);
    key.extend_from_slice(reader.take(rest)?);
    let value_at = bytes.len() - reader.0.len();
    let length = if length == REMOVED { None } else { Some(length as usize) };
    *at = value_at.checked_add(length.unwrap_or(0)).filter(|end| *end <= bytes.len())?;
    Some(length.map(|_| value_at..*at))
}
