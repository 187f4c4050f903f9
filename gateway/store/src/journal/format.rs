//! The bytes of the journal (FORMATS.md §6): segment header, group, mark. Pure: no I/O.
//!
//! Knows: every field and checksum. Never knows: where bytes come from or whether a bad group is a torn tail or damage.
//! Invariant: what decodes was encoded here, or is damage that collides with two CRC-32C. All integers little-endian.
//! A group's checksums go on from the store id's, so that bytes from outside, which a content may hold, are no group here.

use std::{num::TryFromIntError, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use tramite_proto::pb::journal::v1::{Fact, fact::Kind};

use super::batches::{self, Table};

const SEGMENT_MAGIC: &[u8; 8] = b"TRMJSEG1";
const GROUP_MAGIC: &[u8; 4] = b"TRMG";
const VERSION: u32 = 1;
const VERSION_PACKED: u32 = 2;
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
pub(crate) const GROUP_HEADER_BYTES: usize = 40;
pub(crate) const MARK_BYTES: usize = 28;
/// Groups begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// No group is larger (`COMMIT_BYTES_MAX` and its facts' frames fit): a length beyond it is damage, not a reason to allocate.
pub(crate) const GROUP_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The first 64 bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) size: u32,
    pub(crate) store_id: [u8; 16],
    pub(crate) first_sequence: u64,
    /// Of one that was packed: what it covers.
    pub(crate) packed: Option<Covered>,
}

/// How far a packed segment goes, whatever of it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Covered {
    /// The sequence after its last one.
    pub(crate) end: u64,
    /// The number of its first group.
    pub(crate) first_group: u64,
    pub(crate) groups: u32,
}

impl Covered {
    /// The number of the group after its last one.
    pub(crate) fn next_group(&self) -> u64 {
        self.first_group.saturating_add(u64::from(self.groups))
    }
}

/// The first 40 bytes of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) facts_length: u32,
    pub(crate) contents_length: u32,
    pub(crate) count: u32,
    pub(crate) first_sequence: u64,
    pub(crate) number: u64,
    pub(crate) facts_crc: u32,
}

/// How far the journal was synced when this was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) group: u64,
    pub(crate) end: u64,
    pub(crate) segment: u64,
}

/// Where a content stands in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// First sequence of the segment.
    pub(crate) segment: u64,
    /// Of the segment: packed since, the content stands elsewhere.
    pub(crate) generation: u32,
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) crc: u32,
}

/// A fact, and where its content stands if it has one.
pub(crate) type PlacedFact = (Arc<Fact>, Option<Place>);

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..at.saturating_add(4)).and_then(|b| b.try_into().ok());
    u32::from_le_bytes(field.unwrap_or_default())
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..at.saturating_add(8)).and_then(|b| b.try_into().ok());
    u64::from_le_bytes(field.unwrap_or_default())
}

/// Where a group's checksums begin: at the end of the store id, which nobody outside knows.
pub(crate) fn seed_of(store_id: &[u8; 16]) -> u32 {
    crc32c::crc32c(store_id)
}

fn crc_of(bytes: &[u8], length: usize) -> u32 {
    crc32c::crc32c(bytes.get(..length).unwrap_or_default())
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        let version = if self.packed.is_some() { VERSION_PACKED } else { VERSION };
        bytes.extend_from_slice(SEGMENT_MAGIC);
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.extend_from_slice(&self.store_id);
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        if let Some(Covered { end, first_group, groups }) = self.packed {
            bytes.extend_from_slice(&end.to_le_bytes());
            bytes.extend_from_slice(&first_group.to_le_bytes());
            bytes.extend_from_slice(&groups.to_le_bytes());
        }
        bytes.resize(60, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.try_into().unwrap_or([0; SEGMENT_HEADER_BYTES])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if !bytes.starts_with(SEGMENT_MAGIC) {
            return Err("no segment header");
        }
        if u32_at(bytes, 60) != crc_of(bytes, 60) {
            return Err("the segment header's checksum is wrong");
        }
        let packed = match u32_at(bytes, 8) {
            VERSION => None,
            VERSION_PACKED => {
                Some(Covered { end: u64_at(bytes, 40), first_group: u64_at(bytes, 48), groups: u32_at(bytes, 56) })
            }
            _ => return Err("the segment is of another version"),
        };
        let store_id = bytes.get(16..32).and_then(|b| b.try_into().ok()).unwrap_or_default();
        Ok(Self { size: u32_at(bytes, 12), store_id, first_sequence: u64_at(bytes, 32), packed })
    }
}

impl GroupHeader {
    fn encode(&self, seed: u32) -> [u8; GROUP_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(GROUP_HEADER_BYTES);
        bytes.extend_from_slice(GROUP_MAGIC);
        bytes.extend_from_slice(&self.facts_length.to_le_bytes());
        bytes.extend_from_slice(&self.contents_length.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.facts_crc.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c_append(seed, &bytes).to_le_bytes());
        bytes.try_into().unwrap_or([0; GROUP_HEADER_BYTES])
    }

    pub(crate) fn decode(bytes: &[u8], seed: u32) -> Result<Self, &'static str> {
        if !bytes.starts_with(GROUP_MAGIC) {
            return Err("no group header where one must stand");
        }
        if u32_at(bytes, 36) != crc32c::crc32c_append(seed, bytes.get(..36).unwrap_or_default()) {
            return Err("the group header's checksum is wrong");
        }
        let header = Self {
            facts_length: u32_at(bytes, 4),
            contents_length: u32_at(bytes, 8),
            count: u32_at(bytes, 12),
            first_sequence: u64_at(bytes, 16),
            number: u64_at(bytes, 24),
            facts_crc: u32_at(bytes, 32),
        };
        if header.length() > GROUP_BYTES_MAX || header.count == 0 {
            return Err("the group header's lengths cannot be");
        }
        Ok(header)
    }

    /// Bytes from the group's start to the next group's.
    pub(crate) fn length(&self) -> u64 {
        let bytes = GROUP_HEADER_BYTES as u64 + u64::from(self.facts_length) + u64::from(self.contents_length);
        bytes.next_multiple_of(ALIGNMENT as u64)
    }

    /// From the group's start to its contents.
    pub(crate) fn contents_at(&self) -> u64 {
        GROUP_HEADER_BYTES as u64 + u64::from(self.facts_length)
    }

    /// The sequence after its last fact.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.first_sequence.saturating_add(u64::from(self.count))
    }
}

impl Mark {
    /// Whether what stands at an offset of a segment was synced, and so acknowledged.
    pub(crate) fn covers(&self, segment: u64, offset: u64) -> bool {
        (segment, offset) < (self.segment, self.end)
    }

    pub(crate) fn encode(&self) -> [u8; MARK_BYTES] {
        let mut bytes = Vec::with_capacity(MARK_BYTES);
        bytes.extend_from_slice(&self.group.to_le_bytes());
        bytes.extend_from_slice(&self.end.to_le_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.try_into().unwrap_or([0; MARK_BYTES])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() != MARK_BYTES {
            return Err("not the length of a mark");
        }
        if u32_at(bytes, 24) != crc_of(bytes, 24) {
            return Err("the mark's checksum is wrong");
        }
        Ok(Self { group: u64_at(bytes, 0), end: u64_at(bytes, 8), segment: u64_at(bytes, 16) })
    }
}

/// Encodes a group into `out` (emptied first). Each fact's content is the one at its place in `contents`. The facts are changed
/// meanwhile, and left as they were.
pub(crate) fn encode_group(
    seed: u32,
    first_sequence: u64,
    number: u64,
    facts: &mut [Fact],
    contents: &[Bytes],
    out: &mut Vec<u8>,
) -> Result<GroupHeader, TryFromIntError> {
    let table = Table::take(facts);
    let encoded = encode(seed, first_sequence, number, &table, facts, contents, out);
    table.put_back(facts);
    encoded
}

fn encode(
    seed: u32,
    first_sequence: u64,
    number: u64,
    table: &Table,
    facts: &[Fact],
    contents: &[Bytes],
    out: &mut Vec<u8>,
) -> Result<GroupHeader, TryFromIntError> {
    out.clear();
    out.resize(GROUP_HEADER_BYTES, 0);
    out.extend_from_slice(&u32::try_from(table.batches().len())?.to_le_bytes());
    for jws in table.batches() {
        out.extend_from_slice(&u32::try_from(jws.len())?.to_le_bytes());
        out.extend_from_slice(jws.as_bytes());
    }
    for fact in facts {
        // The length is written after the fact, so that it is not measured twice.
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        fact.encode_raw(out);
        let length = u32::try_from(out.len() - at - 4)?;
        if let Some(field) = out.get_mut(at..at + 4) {
            field.copy_from_slice(&length.to_le_bytes());
        }
    }
    let facts_end = out.len();
    for content in contents {
        out.extend_from_slice(content);
    }
    let header = GroupHeader {
        facts_length: u32::try_from(facts_end - GROUP_HEADER_BYTES)?,
        contents_length: u32::try_from(out.len() - facts_end)?,
        count: u32::try_from(facts.len())?,
        first_sequence,
        number,
        facts_crc: crc32c::crc32c_append(seed, out.get(GROUP_HEADER_BYTES..facts_end).unwrap_or_default()),
    };
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    if let Some(place) = out.get_mut(..GROUP_HEADER_BYTES) {
        place.copy_from_slice(&header.encode(seed));
    }
    Ok(header)
}

/// The facts of a group whose checksum was found right, each with the place of its content, if it has one.
pub(crate) fn decode_facts(
    header: &GroupHeader,
    mut facts: Bytes,
    segment: u64,
    offset: u64,
) -> Result<Vec<PlacedFact>, &'static str> {
    let mut decoded = Vec::with_capacity(facts.len().min(header.count as usize));
    let mut content_at = offset.saturating_add(header.contents_at());
    let jws = decode_batches(&mut facts)?;
    for _ in 0..header.count {
        let mut fact = Fact::decode(split(&mut facts)?).map_err(|_| "a fact cannot be decoded")?;
        batches::restore(&mut fact, &jws)?;
        let place =
            content_of(&fact).map(|(length, crc)| Place { segment, generation: 0, offset: content_at, length, crc });
        content_at = content_at.saturating_add(place.map_or(0, |place| u64::from(place.length)));
        decoded.push((Arc::new(fact), place));
    }
    let contents_end = offset.saturating_add(header.contents_at()).saturating_add(u64::from(header.contents_length));
    if !facts.is_empty() || content_at != contents_end {
        return Err("the facts do not add up to their group");
    }
    Ok(decoded)
}

/// The batches at the head of a group's facts.
fn decode_batches(facts: &mut Bytes) -> Result<Vec<String>, &'static str> {
    if facts.len() < 4 {
        return Err("the facts are shorter than the number of their batches");
    }
    let count = u32_at(&facts.split_to(4), 0);
    (0..count).map(|_| String::from_utf8(split(facts)?.into()).map_err(|_| "a batch is not text")).collect()
}

/// Takes what stands behind a length off the head.
pub(super) fn split(facts: &mut Bytes) -> Result<Bytes, &'static str> {
    let length = u32_at(facts, 0) as usize;
    if facts.len() < length.saturating_add(4) {
        return Err("a fact is longer than its group");
    }
    Ok(facts.split_to(length + 4).slice(4..))
}

/// Length and checksum of the content that stands behind a fact.
pub(crate) fn content_of(fact: &Fact) -> Option<(u32, u32)> {
    match &fact.kind {
        Some(Kind::Accepted(accepted)) => accepted.content.as_ref().map(|content| (content.length, content.crc32c)),
        _ => None,
    }
}
