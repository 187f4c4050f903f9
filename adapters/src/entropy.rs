//! Randomness, in one place: ids, keys, salts, jitter. A cryptographic generator, seeded by the operating system.

/// `N` random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes);
    bytes
}

/// Somewhere from 0 to below 1.
pub(crate) fn fraction() -> f64 {
    rand::random()
}
