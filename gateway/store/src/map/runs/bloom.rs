//! Which keys a file surely has not: a blocked Bloom filter, twelve bits for a key, one cache line for a question.
//!
//! Knows: hashes. Never knows: keys. Invariant: it never denies what was put in. The hash is XXH3, whose values are stable, as
//! filters are kept in files.

use xxhash_rust::xxh3::xxh3_64;

/// Words of one block: a cache line.
const BLOCK_WORDS: usize = 8;
/// About one wrong "perhaps" in two hundred.
const BITS_PER_KEY: usize = 12;
/// Bits set for a key.
const PROBES: u64 = 6;

/// A filter.
#[derive(Debug, Default)]
pub(super) struct Bloom {
    pub(super) words: Vec<u64>,
}

/// The hash of what is asked for.
pub(super) fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

impl Bloom {
    /// Of those hashes.
    pub(super) fn of(hashes: &[u64]) -> Self {
        let blocks = (hashes.len() * BITS_PER_KEY).div_ceil(64 * BLOCK_WORDS);
        let mut bloom = Self { words: vec![0; blocks * BLOCK_WORDS] };
        for hash in hashes {
            let first = bloom.block(*hash);
            for (word, bit) in bits(*hash) {
                if let Some(word) = bloom.words.get_mut(first + word) {
                    *word |= bit;
                }
            }
        }
        bloom
    }

    fn block(&self, hash: u64) -> usize {
        let blocks = (self.words.len() / BLOCK_WORDS) as u64;
        // The high half names the block, the low half the bits.
        let block = ((hash >> 32) * blocks) >> 32;
        usize::try_from(block).unwrap_or(0) * BLOCK_WORDS
    }

    /// False: surely not.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let first = self.block(hash);
        bits(hash).all(|(word, bit)| self.words.get(first + word).is_some_and(|word| word & bit != 0))
    }
}

/// The bits of a hash: words of its block and masks in them.
fn bits(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    // Double hashing over the 512 bits of a block; the step is odd, so no two bits are the same.
    let (start, step) = (hash & 511, ((hash >> 16) & 511) | 1);
    (0..PROBES).map(move |i| {
        let bit = (start + i * step) % 512;
        (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_never_denied_and_little_else_is_admitted() {
        let hashes: Vec<u64> = (0..10_000_u64).map(|n| hash(&n.to_be_bytes())).collect();
        let bloom = Bloom::of(&hashes);
        assert!(hashes.iter().all(|hash| bloom.may_have(*hash)));
        let wrong = (10_000..110_000_u64).filter(|n| bloom.may_have(hash(&n.to_be_bytes()))).count();
        assert!(wrong < 2_000, "{wrong} of 100,000");
        assert!(!Bloom::default().may_have(1));
    }
}
