//! The two implementations against each other: proto/vectors/make.py (Python, other libraries, no shared code) and this one.
//!
//! Knows the files in proto/vectors and how to run the script. Only tests stand here.
mod frames;
mod ours;
mod theirs;

/// A file of `length` bytes that both implementations can make.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| i % 65_536).map(|i| u8::try_from((i * 7 + (i >> 8) * 13) % 251).unwrap()).collect()
}
