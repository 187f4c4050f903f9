//! What is kept in memory of a file: where its blocks stand, which kinds of keys it has, and filters of what is asked for.
//!
//! Knows: first keys, hashes, the footer's bytes. Never knows: rows, where the file is. Invariants: keys rise; a filter speaks of
//! its own blocks alone, so that a file of any size is written with the hashes of one filter in memory.

use super::{
    bloom::{self, Bloom},
    file::{Reader, too_long},
};
use crate::error::MapError;

/// A filter ends with the block in which it has so many keys: half a mebibyte of hashes while it is made.
const FILTER_KEYS: usize = 64 * 1024;

/// A block: where it stands in the file, and its first key in all keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) length: u32,
    key_at: u32,
    key_length: u16,
}

/// The first and the last key that begin with the same byte.
#[derive(Debug)]
struct Kind {
    first: Vec<u8>,
    last: Vec<u8>,
}

/// Of what is asked for in the blocks from this one to the next filter's.
#[derive(Debug)]
struct Filter {
    block: u32,
    bloom: Bloom,
}

/// What is kept in memory.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// First keys of all blocks, one behind the other: one allocation, where a file may have 100,000 blocks.
    keys: Vec<u8>,
    blocks: Vec<Place>,
    kinds: Vec<Kind>,
    filters: Vec<Filter>,
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(super) fn place(&self, block: usize) -> Option<Place> {
        self.blocks.get(block).copied()
    }

    fn first_key(&self, block: &Place) -> &[u8] {
        self.keys.get(block.key_at as usize..).and_then(|keys| keys.get(..block.key_length.into())).unwrap_or_default()
    }

    /// The block in which a key is, if it is here.
    pub(super) fn block_of(&self, key: &[u8]) -> Option<usize> {
        self.blocks.partition_point(|block| self.first_key(block) <= key).checked_sub(1)
    }

    /// Whether a key of `from..=to` may be here; `probed` is the hash of what all of them share.
    pub(super) fn may_have(&self, from: &[u8], to: &[u8], probed: Option<u64>) -> bool {
        let kind = self.kinds.get(self.kinds.partition_point(|kind| kind.last.as_slice() < from));
        kind.is_some_and(|kind| kind.first.as_slice() <= to) && probed.is_none_or(|hash| self.admits(from, to, hash))
    }

    /// Whether a filter of those keys does not deny a hash: mostly there is one.
    fn admits(&self, from: &[u8], to: &[u8], hash: u64) -> bool {
        let begins_by = |filter: &Filter, key: &[u8]| {
            self.blocks.get(filter.block as usize).is_some_and(|block| self.first_key(block) <= key)
        };
        let at = self.filters.partition_point(|filter| begins_by(filter, from)).saturating_sub(1);
        let mut some = self.filters.iter().skip(at).take_while(|filter| begins_by(filter, to));
        some.any(|filter| filter.bloom.may_have(hash))
    }

    /// Adds a block behind the others; its length is told by [`end_block`](Self::end_block).
    fn begin_block(&mut self, key: &[u8], offset: u64) -> Result<(), MapError> {
        let key_at = u32::try_from(self.keys.len()).map_err(too_long)?;
        let key_length = u16::try_from(key.len()).map_err(too_long)?;
        self.keys.extend_from_slice(key);
        self.blocks.push(Place { offset, length: 0, key_at, key_length });
        Ok(())
    }

    pub(super) fn end_block(&mut self, length: u32) {
        if let Some(block) = self.blocks.last_mut() {
            block.length = length;
        }
    }

    /// The footer's bytes, piece by piece.
    pub(super) fn encode(&self, put: &mut impl FnMut(&[u8]) -> Result<(), MapError>) -> Result<(), MapError> {
        put(&u32::try_from(self.blocks.len()).map_err(too_long)?.to_le_bytes())?;
        for block in &self.blocks {
            put(&block.offset.to_le_bytes())?;
            put(&block.length.to_le_bytes())?;
            put_key(put, self.first_key(block))?;
        }
        put(&u16::try_from(self.kinds.len()).map_err(too_long)?.to_le_bytes())?;
        for kind in &self.kinds {
            put_key(put, &kind.first)?;
            put_key(put, &kind.last)?;
        }
        put(&u32::try_from(self.filters.len()).map_err(too_long)?.to_le_bytes())?;
        for Filter { block, bloom } in &self.filters {
            put(&block.to_le_bytes())?;
            put(&u32::try_from(bloom.words.len()).map_err(too_long)?.to_le_bytes())?;
            bloom.words.iter().try_for_each(|word| put(&word.to_le_bytes()))?;
        }
        Ok(())
    }

    /// Reads a footer; none: it does not add up.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut reader, mut index) = (Reader(bytes), Self::default());
        for _ in 0..reader.u32()? {
            let (offset, length) = (reader.u64()?, reader.u32()?);
            index.begin_block(reader.key()?, offset).ok()?;
            index.end_block(length);
        }
        for _ in 0..reader.u16()? {
            index.kinds.push(Kind { first: reader.key()?.to_vec(), last: reader.key()?.to_vec() });
        }
        for _ in 0..reader.u32()? {
            let (block, words) = (reader.u32()?, reader.u32()?);
            let words = reader.take((words as usize).checked_mul(8)?)?.as_chunks().0;
            let bloom = Bloom { words: words.iter().map(|word| u64::from_le_bytes(*word)).collect() };
            index.filters.push(Filter { block, bloom });
        }
        Some(index)
    }
}

fn put_key(put: &mut impl FnMut(&[u8]) -> Result<(), MapError>, key: &[u8]) -> Result<(), MapError> {
    put(&u16::try_from(key.len()).map_err(too_long)?.to_le_bytes())?;
    put(key)
}

/// An index being made, as rows come.
pub(super) struct IndexWriter {
    pub(super) index: Index,
    probe: fn(&[u8]) -> Option<&[u8]>,
    /// Of the filter being made.
    hashes: Vec<u64>,
    /// With which it begins.
    block: usize,
}

impl IndexWriter {
    pub(super) fn new(probe: fn(&[u8]) -> Option<&[u8]>) -> Self {
        Self { index: Index::default(), probe, hashes: Vec::new(), block: 0 }
    }

    /// Begins a block with a key that is noted next.
    pub(super) fn begin_block(&mut self, key: &[u8], offset: u64) -> Result<(), MapError> {
        if self.hashes.len() >= FILTER_KEYS {
            self.end_filter()?;
        }
        self.index.begin_block(key, offset)
    }

    /// Notes a key behind the `last` one.
    pub(super) fn note(&mut self, key: &[u8], last: &[u8]) {
        let probed = (self.probe)(key);
        // Keys that share what is asked for are neighbours.
        if probed.is_some() && (self.hashes.is_empty() || probed != (self.probe)(last)) {
            self.hashes.extend(probed.map(bloom::hash));
        }
        if self.index.kinds.last().is_none_or(|kind| kind.first.first() != key.first()) {
            self.end_kind(last);
            self.index.kinds.push(Kind { first: key.to_vec(), last: Vec::new() });
        }
    }

    fn end_kind(&mut self, last: &[u8]) {
        if let Some(kind) = self.index.kinds.last_mut() {
            last.clone_into(&mut kind.last);
        }
    }

    fn end_filter(&mut self) -> Result<(), MapError> {
        let block = u32::try_from(self.block).map_err(too_long)?;
        self.index.filters.push(Filter { block, bloom: Bloom::of(&self.hashes) });
        self.hashes.clear();
        self.block = self.index.blocks.len();
        Ok(())
    }

    /// Ends it with the last key.
    pub(super) fn end(&mut self, last: &[u8]) -> Result<Index, MapError> {
        self.end_kind(last);
        self.end_filter()?;
        Ok(std::mem::take(&mut self.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that are asked for together.
    const GROUP: u32 = 3;
    const ROWS: u32 = 400_000;

    /// What all keys of a group begin with; there are even groups only.
    fn group(number: u32) -> Vec<u8> {
        [b"b".as_slice(), &number.to_be_bytes()].concat()
    }

    fn key(n: u32) -> Vec<u8> {
        [group(n / GROUP * 2).as_slice(), &n.to_be_bytes()].concat()
    }

    fn probe(key: &[u8]) -> Option<&[u8]> {
        key.get(..5)
    }

    fn hash(key: &[u8]) -> Option<u64> {
        probe(key).map(bloom::hash)
    }

    /// In blocks of forty.
    fn index() -> Index {
        let mut writer = IndexWriter::new(probe);
        let mut last = Vec::new();
        for n in 0..ROWS {
            let key = key(n);
            if n % 40 == 0 {
                writer.begin_block(&key, u64::from(n)).unwrap();
            }
            writer.note(&key, &last);
            last = key;
        }
        writer.end(&last).unwrap()
    }

    #[test]
    fn no_filter_denies_a_key_and_few_that_are_not_there_are_admitted() {
        let index = index();
        let begins: Vec<u32> = index.filters.iter().map(|filter| filter.block * 40).collect();
        assert!(begins.len() >= 3 && begins.iter().any(|n| n % GROUP != 0), "a group lies in two filters: {begins:?}");
        let largest = index.filters.iter().map(|filter| filter.bloom.words.len()).max().unwrap();
        assert!(largest < 20_000, "a filter is made in bounded memory: {largest} words");
        for n in 0..ROWS {
            let key = key(n);
            assert!(index.may_have(&key, &key, hash(&key)), "{n}");
        }
        let may_have = |number: u32| index.may_have(&group(number), &group(number + 1), hash(&group(number)));
        let groups = ROWS / GROUP * 2;
        assert!((0..groups).step_by(2).all(may_have), "all of a group are asked for at once");
        let wrong = (1..groups).step_by(2).filter(|number| may_have(*number)).count();
        assert!(wrong < 3_000, "{wrong} of 133,333");
    }

    #[test]
    fn what_is_read_back_says_the_same() {
        let (index, mut bytes) = (index(), Vec::new());
        let put = &mut |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        index.encode(put).unwrap();
        assert_eq!(format!("{:?}", Index::decode(&bytes).unwrap()), format!("{index:?}"));
    }
}
