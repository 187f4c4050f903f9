//! Randomness, in one place and passed in, so that a simulation repeats: ids, keys, salts, jitter. The system's is a cryptographic
//! generator, seeded by the operating system.

use std::{fmt, sync::Arc};

/// Fills bytes.
type Fill = dyn Fn(&mut [u8]) + Send + Sync;

/// A source of random bytes.
#[derive(Clone)]
pub struct Entropy(Arc<Fill>);

impl Entropy {
    /// The system's.
    #[must_use]
    pub fn of_the_system() -> Self {
        Self::new(|bytes| rand::fill(bytes))
    }

    /// Another source. Whoever foresees its bytes can read what is sealed.
    pub fn new(fill: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(fill))
    }

    /// `N` random bytes.
    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.0)(&mut bytes);
        bytes
    }

    /// Somewhere from 0 to below 1.
    pub(crate) fn fraction(&self) -> f64 {
        f64::from(u32::from_le_bytes(self.random())) / (f64::from(u32::MAX) + 1.0)
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").finish_non_exhaustive()
    }
}
