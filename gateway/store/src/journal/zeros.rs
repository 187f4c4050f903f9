//! Where something stands that is not zero: the end of a journal, the room behind it, spare segments.
//!
//! Knows: how to look at much of a file quickly. Never knows: what it looks at. Invariant: what is reserved and was never written is
//! not read, where the disk can tell.

use std::io;

use super::{Segment, recover::io_failed};
use crate::{disk::DiskFile, error::OpenError};

/// What is read at once.
pub(super) const SEARCH_BYTES: usize = 64 * 1024;
/// Compared with, which is faster than looking at each byte.
static ZEROS: [u8; SEARCH_BYTES] = [0; SEARCH_BYTES];

/// Where the last byte that is not zero stands behind `offset`.
pub(super) fn last_byte(segment: &Segment, file: &dyn DiskFile, offset: u64) -> Result<Option<u64>, OpenError> {
    let mut piece = vec![0; SEARCH_BYTES];
    let mut last = None;
    let mut at = offset;
    let end = file.length().map_err(io_failed("measure", &segment.path))?;
    while let Some(here) = next_piece(file, at, end, &mut piece).map_err(io_failed("read", &segment.path))? {
        if piece != ZEROS {
            let i = piece.iter().rposition(|byte| *byte != 0);
            last = i.map(|i| here.saturating_add(i as u64));
        }
        at = here.saturating_add(SEARCH_BYTES as u64);
    }
    Ok(last)
}

pub(super) fn is_zero(segment: &Segment, file: &dyn DiskFile, offset: u64) -> Result<bool, OpenError> {
    Ok(last_byte(segment, file, offset)?.is_none())
}

/// Where the first byte that is not zero stands from `offset` to `end`.
pub(super) fn first_byte_of(file: &dyn DiskFile, offset: u64, end: u64) -> io::Result<Option<u64>> {
    let mut piece = vec![0; SEARCH_BYTES];
    let mut at = offset;
    while let Some(here) = next_piece(file, at, end, &mut piece)? {
        if piece != ZEROS {
            return Ok(piece.iter().position(|byte| *byte != 0).map(|i| here.saturating_add(i as u64)));
        }
        at = here.saturating_add(SEARCH_BYTES as u64);
    }
    Ok(None)
}

/// Reads the next piece before `end` that may be more than reserved zeros, and says where it begins: a million that wait have some
/// gigabytes of spare segments, which an opening must not go through.
fn next_piece(file: &dyn DiskFile, at: u64, end: u64, piece: &mut [u8]) -> io::Result<Option<u64>> {
    let here = file.written_from(at)?.filter(|here| *here < end);
    here.map(|here| file.read_at(piece, here).map(|()| here)).transpose()
}
