//! The sums over a part's bytes: its digest, once, and a checksum, each time.
//!
//! Knows: how they go on from piece to piece, and how a file is read for them. Never knows: what they must be.

use std::{io, path::Path};

use aws_lc_rs::digest::{Context, SHA256};
use tramite_proto::ids::Digest;

use crate::disk::{Access, Disk, DiskFile};

/// Read at once where a part is summed up again.
const PIECE_BYTES: usize = 256 * 1024;

/// What the bytes of a part are: the digest by which it was announced, and the checksum by which it is checked again each time it is
/// given out, at a fraction of the digest's cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checked {
    pub(super) digest: Digest,
    pub(super) crc: u32,
}

/// Both of the bytes so far.
pub(super) struct Sum {
    hash: Context,
    crc: u32,
}

impl Sum {
    pub(super) fn new() -> Self {
        Self { hash: Context::new(&SHA256), crc: 0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }

    pub(super) fn finish(self) -> Checked {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.hash.finish().as_ref());
        Checked { digest: Digest(digest), crc: self.crc }
    }
}

/// The digest of a part's file.
pub(crate) fn digest(disk: &dyn Disk, path: &Path, length: u64) -> io::Result<Digest> {
    Ok(of(disk, path, length)?.digest)
}

/// What the bytes of a part's file are.
pub(super) fn of(disk: &dyn Disk, path: &Path, length: u64) -> io::Result<Checked> {
    let mut sum = Sum::new();
    read(disk.open(path, Access::Read)?.as_ref(), length, |bytes| sum.update(bytes))?;
    Ok(sum.finish())
}

/// Gives the first so many bytes of a file to `each`, in pieces.
pub(super) fn read(file: &dyn DiskFile, length: u64, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut at = 0;
    while at < length {
        let piece = usize::try_from(length - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut bytes = vec![0; piece];
        file.read_at(&mut bytes, at)?;
        each(&bytes);
        at += piece as u64;
    }
    Ok(())
}
