//! A packed segment in the making: blocks of facts, compressed, with the contents that stay.
//!
//! Knows: when a block is ended, when it is synced. Never knows: which segments become one. Invariant: a content that is left out was
//! erased, or the disk refused to erase it.

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use super::{
    super::{
        Group, Placed, Segment,
        format::{ALIGNMENT, SEGMENT_HEADER_BYTES},
        io_error,
        packed::{self, BLOCK_HEADER_BYTES, BlockHeader, CONTENTS_BYTES, PLAIN_BYTES},
        read_content,
    },
    Keeps, Weight,
};
use crate::{disk::DiskFile, error::ReadError};

/// Synced when so much was written: whoever waits for the disk meanwhile waits for no more.
const SYNC_BYTES: u64 = 1024 * 1024;

/// A packed segment in the making.
pub(super) struct Packer<'a> {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    seed: u32,
    pub(super) offset: u64,
    synced: u64,
    /// Sequence and group from which the present block covers.
    from: (u64, u64),
    /// And up to which.
    pub(super) to: (u64, u64),
    plain: Vec<u8>,
    contents: Vec<u8>,
    /// Contents that are left out, as they could not be erased.
    refused: &'a BTreeSet<u64>,
    pub(super) weight: Weight,
}

impl<'a> Packer<'a> {
    pub(super) fn new(
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        inputs: &[Arc<Segment>],
        refused: &'a BTreeSet<u64>,
    ) -> Self {
        let (first, seed) = inputs.first().map_or((0, 0), |segment| (segment.first, segment.seed));
        let (weight, offset, at) = (Weight::default(), SEGMENT_HEADER_BYTES as u64, (first, 0));
        let (plain, contents) = (Vec::new(), Vec::new());
        Self { file, path, seed, offset, synced: 0, from: at, to: at, plain, contents, refused, weight }
    }

    /// Says which group comes first; groups are numbered from 1.
    pub(super) fn begin(&mut self, number: u64) {
        if self.from.1 == 0 {
            self.from.1 = number;
        }
    }

    /// Takes in what stays of a group.
    pub(super) fn group(
        &mut self,
        segment: &Segment,
        file: &dyn DiskFile,
        group: &Group,
        keeps: &mut Keeps<'_>,
    ) -> Result<(), ReadError> {
        let span = group.span;
        let raws = segment.raw(file, group.offset).map_err(|e| io_error(&segment.path, &e))?;
        for mut raw in raws.map_err(|what| segment.damage(group.offset, what))? {
            let count = raw.facts.len();
            let mut kept = Vec::with_capacity(count);
            for mut fact in std::mem::take(&mut raw.facts) {
                let Some(placed) = group.fact(fact.sequence) else { continue };
                if !keeps(placed.sequence, &placed.fact)? {
                    continue;
                }
                fact.has_content = self.content(segment, file, placed)?;
                kept.push(Arc::clone(&placed.fact));
                raw.facts.push(fact);
            }
            if raw.facts.len() < count {
                raw.drop_batches(&kept);
            }
            if !raw.facts.is_empty() {
                raw.encode(&mut self.plain).map_err(|e| io_error(&self.path, &io::Error::other(e)))?;
            }
        }
        self.to = (span.end, span.next_number);
        let full = self.plain.len() >= PLAIN_BYTES || self.contents.len() >= CONTENTS_BYTES;
        if full { self.end_block() } else { Ok(()) }
    }

    /// Takes in a content, if it is still there and not to be erased.
    fn content(&mut self, segment: &Segment, file: &dyn DiskFile, placed: &Placed) -> Result<bool, ReadError> {
        let place = placed.place.filter(|_| !self.refused.contains(&placed.sequence));
        let Some(place) = place else { return Ok(false) };
        match read_content(segment, file, placed.sequence, place) {
            Ok(content) => {
                self.contents.extend_from_slice(&content);
                Ok(true)
            }
            Err(ReadError::Erased(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn end_block(&mut self) -> Result<(), ReadError> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let failed = |e: io::Error| io_error(&self.path, &e);
        let too_long = |e: std::num::TryFromIntError| io_error(&self.path, &io::Error::other(e));
        let stored = packed::compress(&self.plain).map_err(failed)?;
        let header = BlockHeader {
            stored: u32::try_from(stored.len()).map_err(too_long)?,
            plain: u32::try_from(self.plain.len()).map_err(too_long)?,
            contents: u32::try_from(self.contents.len()).map_err(too_long)?,
            first: self.from.0,
            end: self.to.0,
            first_group: self.from.1,
            groups: u32::try_from(self.to.1.saturating_sub(self.from.1)).map_err(too_long)?,
            crc: crc32c::crc32c_append(self.seed, &stored),
        };
        let mut block = Vec::with_capacity(BLOCK_HEADER_BYTES + stored.len() + self.contents.len() + ALIGNMENT);
        block.extend_from_slice(&header.encode(self.seed));
        block.extend_from_slice(&stored);
        block.extend_from_slice(&self.contents);
        block.resize(block.len().next_multiple_of(ALIGNMENT), 0);
        self.file.write_at(&block, self.offset).map_err(failed)?;
        self.offset = self.offset.saturating_add(block.len() as u64);
        if self.offset >= self.synced.saturating_add(SYNC_BYTES) {
            self.file.sync_data().map_err(failed)?;
            self.synced = self.offset;
        }
        self.weight.facts.fetch_add(stored.len() as u64, Ordering::Relaxed);
        self.weight.contents.fetch_add(self.contents.len() as u64, Ordering::Relaxed);
        self.from = self.to;
        self.plain.clear();
        self.contents.clear();
        Ok(())
    }
}
