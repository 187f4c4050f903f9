//! Chance from a seed: the same seed throws the same numbers, on every machine.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Dice. Clones share the sequence; [`Dice::split`] begins another.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Arc<AtomicU64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// Dice that throw the same for the same text.
    pub(crate) fn of(text: &str) -> Self {
        Self::new(text.bytes().fold(0, |seed: u64, byte| seed.rotate_left(7) ^ u64::from(byte)))
    }

    /// Dice of their own for one use, so that how often they are thrown changes nothing elsewhere.
    pub(crate) fn split(&self) -> Self {
        Self::new(self.throw())
    }

    /// `SplitMix64` (Steele, Lea, Flood).
    pub(crate) fn throw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn within(&self, range: Range<u64>) -> u64 {
        range.start + self.throw() % (range.end - range.start)
    }

    /// True in `percent` of a hundred throws.
    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.within(0..100) < percent
    }

    pub(crate) fn pick<T: Copy>(&self, of: &[T]) -> T {
        let at = usize::try_from(self.within(0..of.len() as u64)).expect("an index");
        *of.get(at).expect("something to pick from")
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            for (to, from) in piece.iter_mut().zip(self.throw().to_le_bytes()) {
                *to = from;
            }
        }
    }
}
