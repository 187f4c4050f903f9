//! The bytes of a packed segment's blocks (FORMATS.md §6). Pure: no I/O.
//!
//! A block holds the facts of several groups, as they were written and compressed together, and behind them the contents that are
//! still needed. It says which sequences and groups it covers, so that what was let go is told from what was lost: blocks stand
//! without a gap in what they cover, whatever they hold.
//!
//! Knows: every field and checksum. Never knows: which facts stay. Invariant: a fact's bytes are those that were first written.

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
};

use bytes::Bytes;
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use prost::Message as _;
use tramite_proto::pb::journal::v1::Fact;

use super::{
    Placed, batches,
    format::{ALIGNMENT, GROUP_BYTES_MAX, GroupHeader, Place, content_of, split, u32_at, u64_at},
};

const MAGIC: &[u8; 4] = b"TRMP";
pub(crate) const BLOCK_HEADER_BYTES: usize = 56;
/// A block is ended when its facts have so many bytes: what one look-up unpacks.
pub(super) const PLAIN_BYTES: usize = 64 * 1024;
/// Or its contents so many: what is held in memory.
pub(super) const CONTENTS_BYTES: usize = 1024 * 1024;
/// No block is larger: it holds whole groups.
const BLOCK_BYTES_MAX: u64 = 2 * GROUP_BYTES_MAX;
/// Higher levels give some percent and take twice as long.
const LEVEL: u32 = 3;

/// The first 56 bytes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) stored: u32,
    pub(super) plain: u32,
    pub(super) contents: u32,
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) first_group: u64,
    pub(super) groups: u32,
    pub(super) crc: u32,
}

/// A group's facts as bytes: those that are there.
#[derive(Debug)]
pub(super) struct RawGroup {
    pub(super) first: u64,
    pub(super) batches: Vec<Bytes>,
    pub(super) facts: Vec<RawFact>,
}

/// A fact as bytes.
#[derive(Debug)]
pub(super) struct RawFact {
    pub(super) sequence: u64,
    /// Its content stands behind the block.
    pub(super) has_content: bool,
    pub(super) bytes: Bytes,
}

impl BlockHeader {
    pub(super) fn encode(&self, seed: u32) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(BLOCK_HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        for field in [self.stored, self.plain, self.contents] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        for field in [self.first, self.end, self.first_group] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&self.groups.to_le_bytes());
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&crc32c::crc32c_append(seed, &bytes).to_le_bytes());
        bytes.try_into().unwrap_or([0; BLOCK_HEADER_BYTES])
    }

    pub(super) fn decode(bytes: &[u8], seed: u32) -> Result<Self, &'static str> {
        if !bytes.starts_with(MAGIC) {
            return Err("no block header where one must stand");
        }
        if u32_at(bytes, 52) != crc32c::crc32c_append(seed, bytes.get(..52).unwrap_or_default()) {
            return Err("the block header's checksum is wrong");
        }
        let header = Self {
            stored: u32_at(bytes, 4),
            plain: u32_at(bytes, 8),
            contents: u32_at(bytes, 12),
            first: u64_at(bytes, 16),
            end: u64_at(bytes, 24),
            first_group: u64_at(bytes, 32),
            groups: u32_at(bytes, 40),
            crc: u32_at(bytes, 44),
        };
        if header.length() > BLOCK_BYTES_MAX || u64::from(header.plain) > BLOCK_BYTES_MAX || header.end <= header.first
        {
            return Err("the block header's lengths cannot be");
        }
        Ok(header)
    }

    /// Bytes from the block's start to the next one's.
    pub(super) fn length(&self) -> u64 {
        self.contents_at().saturating_add(u64::from(self.contents)).next_multiple_of(ALIGNMENT as u64)
    }

    /// From the block's start to its contents.
    pub(super) fn contents_at(&self) -> u64 {
        BLOCK_HEADER_BYTES as u64 + u64::from(self.stored)
    }
}

impl RawGroup {
    /// The facts of a group as it was written, whose checksum was found right.
    pub(super) fn of_section(header: &GroupHeader, mut section: Bytes) -> Result<Self, &'static str> {
        let first = header.first_sequence;
        let batches = batch_bytes(&mut section)?;
        let facts = (0..u64::from(header.count))
            .map(|i| split(&mut section).map(|bytes| RawFact { sequence: first + i, has_content: false, bytes }));
        Ok(Self { first, batches, facts: facts.collect::<Result<_, _>>()? })
    }

    /// Takes away the batches that no fact refers to any more. The others keep their places.
    pub(super) fn drop_batches(&mut self, kept: &[Arc<Fact>]) {
        for batch in &mut self.batches {
            let is_named = |fact: &Arc<Fact>| batches::names(fact, batch);
            if !kept.iter().any(is_named) {
                *batch = Bytes::new();
            }
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), std::num::TryFromIntError> {
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.facts.len())?.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.batches.len())?.to_le_bytes());
        for batch in &self.batches {
            out.extend_from_slice(&u32::try_from(batch.len())?.to_le_bytes());
            out.extend_from_slice(batch);
        }
        for fact in &self.facts {
            let place = u32::try_from(fact.sequence.saturating_sub(self.first))?;
            out.extend_from_slice(&(place << 1 | u32::from(fact.has_content)).to_le_bytes());
            out.extend_from_slice(&u32::try_from(fact.bytes.len())?.to_le_bytes());
            out.extend_from_slice(&fact.bytes);
        }
        Ok(())
    }
}

fn batch_bytes(section: &mut Bytes) -> Result<Vec<Bytes>, &'static str> {
    if section.len() < 4 {
        return Err("the facts are shorter than the number of their batches");
    }
    let count = u32_at(&section.split_to(4), 0);
    (0..count).map(|_| split(section)).collect()
}

pub(super) fn compress(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(plain.len() / 2), Compression::new(LEVEL));
    encoder.write_all(plain)?;
    encoder.finish()
}

/// The groups of a block, from its stored bytes, whose checksum was found right.
pub(super) fn unpack(header: &BlockHeader, stored: &[u8]) -> Result<Vec<RawGroup>, &'static str> {
    let mut plain = Vec::with_capacity(header.plain as usize);
    let read = ZlibDecoder::new(stored).take(u64::from(header.plain) + 1).read_to_end(&mut plain);
    if read.is_err() || plain.len() != header.plain as usize {
        return Err("a block does not unpack to what it says");
    }
    let mut plain = Bytes::from(plain);
    let mut groups = Vec::new();
    while !plain.is_empty() {
        if plain.len() < 16 {
            return Err("a block's groups do not add up");
        }
        let head = plain.split_to(12);
        let (first, count) = (u64_at(&head, 0), u32_at(&head, 8));
        let batches = batch_bytes(&mut plain)?;
        let mut facts = Vec::new();
        for _ in 0..count {
            if plain.len() < 4 {
                return Err("a block's groups do not add up");
            }
            let place = u32_at(&plain.split_to(4), 0);
            let sequence = first.saturating_add(u64::from(place >> 1));
            facts.push(RawFact { sequence, has_content: place & 1 == 1, bytes: split(&mut plain)? });
        }
        groups.push(RawGroup { first, batches, facts });
    }
    Ok(groups)
}

/// The facts of a block, and where their contents stand in the segment.
pub(super) fn decode(
    header: &BlockHeader,
    groups: Vec<RawGroup>,
    (segment, generation): (u64, u32),
    offset: u64,
) -> Result<Vec<Placed>, &'static str> {
    let mut decoded: Vec<Placed> = Vec::new();
    let mut content_at = offset.saturating_add(header.contents_at());
    for group in groups {
        let mut table = Vec::new();
        for batch in group.batches {
            table.push(String::from_utf8(batch.into()).map_err(|_| "a batch is not text")?);
        }
        for RawFact { sequence, has_content, bytes } in group.facts {
            let mut fact = Fact::decode(bytes).map_err(|_| "a fact cannot be decoded")?;
            batches::restore(&mut fact, &table)?;
            let place = content_of(&fact).filter(|_| has_content);
            let place = place.map(|(length, crc)| Place { segment, generation, offset: content_at, length, crc });
            content_at = content_at.saturating_add(place.map_or(0, |place| u64::from(place.length)));
            let before = decoded.last().map_or(header.first, |placed| placed.sequence + 1);
            if sequence < before || sequence >= header.end {
                return Err("a fact stands out of its order");
            }
            decoded.push(Placed { sequence, fact: Arc::new(fact), place });
        }
    }
    let contents_end = offset.saturating_add(header.contents_at()).saturating_add(u64::from(header.contents));
    if content_at != contents_end {
        return Err("the contents do not add up to their block");
    }
    Ok(decoded)
}
