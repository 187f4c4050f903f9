//! Chance that can be had again: numbers from a seed that is printed and can be set.
//!
//! Knows: `TRAMITE_SEED`. Invariant: the same seed gives the same numbers; one without a wish is new at every run.

use std::{env, ops::Range, time::Duration};

use anyhow::{Context, Result};

use crate::forge::random;

/// Sets the seed of a run: the one that a failure printed.
pub const SEED: &str = "TRAMITE_SEED";

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of this run: the one that is wished for, or a new one.
    ///
    /// # Errors
    /// When the wish is no number.
    pub fn seed() -> Result<u64> {
        match env::var(SEED) {
            Ok(wish) => wish.parse().with_context(|| format!("{SEED}={wish} is no number")),
            // Short enough to be copied by hand.
            Err(_) => Ok(u64::from(u32::from_le_bytes(random()))),
        }
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of a range; its beginning when it is empty.
    pub fn of(&mut self, range: Range<u64>) -> u64 {
        range.start + self.roll() % range.end.saturating_sub(range.start).max(1)
    }

    /// A moment within a span, to the microsecond.
    pub fn within(&mut self, span: Duration) -> Duration {
        Duration::from_micros(self.of(0..u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of SplitMix64 from seed 0, as published with it.
    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let mut dice = Dice::new(0);
        assert_eq!([dice.roll(), dice.roll()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        assert!((0..1000).all(|_| (3..7).contains(&dice.of(3..7))));
    }
}
