//! The limit of the disk: the same bytes a group, written and synced one after the other on a file that is there already.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use super::{histogram::Histogram, time::now_ns};
use crate::failure::Failure;

/// Bytes of the file, as a segment of the journal.
const FILE: u64 = 64 << 20;
/// Bytes of zeros written at a time when it is made.
const PIECE: usize = 1 << 20;

/// Appends groups of so many bytes for so long, and syncs each; how long each took.
pub(super) fn append(folder: &Path, group_bytes: u64, for_ns: u64) -> Result<Histogram, Failure> {
    let failed = |error: std::io::Error| Failure::internal("the disk cannot be measured").because(&error);
    let path = folder.join("append.bin");
    let file = File::options().create_new(true).read(true).write(true).open(&path).map_err(failed)?;
    // Really written, not only reserved: the first write into a reserved block changes the file's own records too.
    let zeros = vec![0; PIECE];
    for piece in 0..FILE / PIECE as u64 {
        file.write_all_at(&zeros, piece * PIECE as u64).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    let length = group_bytes.clamp(512, FILE / 2);
    let group: Vec<u8> = (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap_or(0)).collect();
    let mut took = Histogram::default();
    let (begun, mut offset) = (now_ns(), 0);
    while now_ns() < begun + for_ns {
        if offset + length > FILE {
            offset = 0;
        }
        let at = now_ns();
        file.write_all_at(&group, offset).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        took.record(now_ns() - at);
        offset += length;
    }
    drop(std::fs::remove_file(&path));
    Ok(took)
}
