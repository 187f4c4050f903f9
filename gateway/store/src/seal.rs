//! What a clean stop leaves beside the outbox: how far it stands, and what its files were, piece by piece.
//!
//! sled opens a damaged or shortened file and says nothing, with rows missing. So it is asked only after its files were found to be
//! those that were left; anything else is rebuilt from the journal.
//!
//! Knows: the marker's bytes (FORMATS.md §7). Never knows: what the files hold. Invariant: the marker is written when nothing writes
//! the files any more, and is gone before anything does again.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    disk::{Access, Disk, read_small, write_small},
    error::{Damage, OpenError},
    journal::io_failed,
};

/// Files are read and checked in pieces of this size.
const PIECE_BYTES: usize = 1024 * 1024;
const MAGIC: &[u8; 8] = b"TRMCLEA2";
const NAME: &str = "clean";

/// What the marker of a clean stop says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Marker {
    /// The stop was not clean.
    None,
    /// One is there, and is not what was written.
    Damaged,
    /// It was.
    Clean(Seal),
}

/// How an outbox was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seal {
    /// The sequence after the last one.
    pub(crate) position: u64,
    /// Its files, by name.
    files: Vec<Sealed>,
}

/// One file, as it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sealed {
    name: String,
    length: u64,
    /// Of each piece.
    crcs: Vec<u32>,
}

/// Where the marker stands.
pub(crate) fn marker(outbox: &Path) -> PathBuf {
    outbox.join(NAME)
}

/// Reads the marker.
pub(crate) fn read(disk: &dyn Disk, outbox: &Path) -> Result<Marker, OpenError> {
    let path = marker(outbox);
    match read_small(disk, &path) {
        Ok(None) => Ok(Marker::None),
        Ok(Some(bytes)) => Ok(Seal::decode(&bytes).map_or(Marker::Damaged, Marker::Clean)),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(Marker::Damaged),
        Err(e) => Err(io_failed("read", &path)(e)),
    }
}

/// Removes the marker durably: from here on a stop is unclean until it is said otherwise.
pub(crate) fn remove(disk: &dyn Disk, outbox: &Path) -> Result<(), OpenError> {
    let path = marker(outbox);
    let there = disk.info(&path).map_err(io_failed("read", &path))?.is_some();
    if there {
        disk.remove(&path).map_err(io_failed("remove", &path))?;
        disk.sync_dir(outbox).map_err(io_failed("sync", outbox))?;
    }
    Ok(())
}

/// Writes the marker over the files as they are now, once they are durable: sled's are not all.
pub(crate) fn write(disk: &dyn Disk, outbox: &Path, position: u64) -> io::Result<()> {
    let files = files(disk, outbox)?;
    for file in &files {
        disk.open(&outbox.join(&file.name), Access::Write)?.sync_data()?;
    }
    disk.sync_dir(outbox)?;
    write_small(disk, &marker(outbox), &Seal { position, files }.encode())
}

/// Whether the files are those that were left; the first place at which they are not.
pub(crate) fn check(disk: &dyn Disk, outbox: &Path, seal: &Seal) -> io::Result<Option<Damage>> {
    let now = files(disk, outbox)?;
    for left in &seal.files {
        let file = outbox.join(&left.name);
        let damage = |offset, what: &str| Ok(Some(Damage { file: file.clone(), offset, what: what.into() }));
        let Some(found) = now.iter().find(|found| found.name == left.name) else {
            return damage(0, "it is missing, and was there when the store was stopped");
        };
        if left.length != found.length {
            return damage(left.length.min(found.length), "it has another length than when the store was stopped");
        }
        if let Some(piece) = left.crcs.iter().zip(&found.crcs).position(|(left, found)| left != found) {
            let offset = piece.saturating_mul(PIECE_BYTES) as u64;
            return damage(offset, "from here on, within a mebibyte, it is not what it was when the store was stopped");
        }
    }
    let new = now.iter().find(|found| !seal.files.iter().any(|left| left.name == found.name));
    Ok(new.map(|found| Damage {
        file: outbox.join(&found.name),
        offset: 0,
        what: "it was not there when the store was stopped".into(),
    }))
}

/// The files of an outbox, but the marker.
fn files(disk: &dyn Disk, outbox: &Path) -> io::Result<Vec<Sealed>> {
    let mut files = Vec::new();
    for name in disk.list(outbox)?.into_iter().filter(|name| !name.starts_with(NAME)) {
        let file = disk.open(&outbox.join(&name), Access::Read)?;
        let length = file.length()?;
        let mut crcs = Vec::new();
        let mut at = 0;
        while at < length {
            let piece = usize::try_from(length - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let mut bytes = vec![0; piece];
            file.read_at(&mut bytes, at)?;
            crcs.push(crc32c::crc32c(&bytes));
            at += piece as u64;
        }
        files.push(Sealed { name, length, crcs });
    }
    Ok(files)
}

impl Seal {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.position.to_le_bytes());
        for file in &self.files {
            // File names have at most 255 bytes.
            bytes.push(u8::try_from(file.name.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(file.name.as_bytes());
            bytes.extend_from_slice(&file.length.to_le_bytes());
            file.crcs.iter().for_each(|crc| bytes.extend_from_slice(&crc.to_le_bytes()));
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc32c::crc32c(body).to_le_bytes() != crc {
            return None;
        }
        let mut rest = body.strip_prefix(MAGIC)?;
        let position = u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
        let mut files = Vec::new();
        while !rest.is_empty() {
            let length = usize::from(*take(&mut rest, 1)?.first()?);
            let name = String::from_utf8(take(&mut rest, length)?.to_vec()).ok()?;
            let length = u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
            let pieces = usize::try_from(length.div_ceil(PIECE_BYTES as u64)).ok()?;
            let crcs =
                take(&mut rest, pieces.checked_mul(4)?)?.as_chunks().0.iter().map(|crc| u32::from_le_bytes(*crc));
            files.push(Sealed { name, length, crcs: crcs.collect() });
        }
        Some(Self { position, files })
    }
}

/// Takes so many bytes off the head.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    fn sealed() -> (SimulatedDisk, Seal) {
        let disk = SimulatedDisk::new();
        for (name, length) in [("conf", 9), ("db", PIECE_BYTES * 2 + 77), ("empty", 0), ("snap.1", PIECE_BYTES)] {
            disk.overwrite(&Path::new("outbox").join(name), vec![7; length]);
        }
        write(&disk, Path::new("outbox"), 42).unwrap();
        let Marker::Clean(seal) = read(&disk, Path::new("outbox")).unwrap() else { panic!("not read") };
        (disk, seal)
    }

    #[test]
    fn files_that_are_as_they_were_left_are_trusted_and_a_byte_anywhere_is_named_by_its_piece() {
        let (disk, seal) = sealed();
        let check = |disk: &SimulatedDisk| check(disk, Path::new("outbox"), &seal).unwrap();
        assert_eq!((seal.position, check(&disk)), (42, None));
        let edit = |name: &str, edit: &dyn Fn(&mut Vec<u8>)| {
            let (path, disk) = (Path::new("outbox").join(name), disk.fork());
            let mut bytes = disk.bytes(&path).unwrap_or_default();
            edit(&mut bytes);
            disk.overwrite(&path, bytes);
            check(&disk).map(|damage| (damage.file, damage.offset))
        };
        let mib = PIECE_BYTES as u64;
        let at = |name: &str, offset| Some((Path::new("outbox").join(name), offset));
        assert_eq!(edit("db", &|bytes| bytes[0] ^= 1), at("db", 0));
        assert_eq!(edit("db", &|bytes| bytes[PIECE_BYTES + 5] ^= 1), at("db", mib));
        assert_eq!(edit("db", &|bytes| bytes[PIECE_BYTES * 2 + 76] ^= 1), at("db", 2 * mib));
        assert_eq!(edit("db", &|bytes| bytes.truncate(PIECE_BYTES)), at("db", mib));
        assert_eq!(edit("db", &|bytes| bytes.push(0)), at("db", 2 * mib + 77));
        assert_eq!(edit("empty", &|bytes| bytes.push(0)), at("empty", 0));
        assert_eq!(edit("snap.1", &|bytes| bytes.push(0)), at("snap.1", mib));
        assert_eq!(edit("snap.2", &|bytes| bytes.push(0)), at("snap.2", 0));
        disk.remove(Path::new("outbox/conf")).unwrap();
        assert_eq!(check(&disk).map(|damage| damage.file), Some("outbox/conf".into()));
    }

    #[test]
    fn a_marker_with_any_bit_changed_is_none() {
        let (disk, _) = sealed();
        let path = marker(Path::new("outbox"));
        let whole = disk.bytes(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            disk.overwrite(&path, bytes);
            assert_eq!(read(&disk, Path::new("outbox")).unwrap(), Marker::Damaged, "bit {bit}");
        }
        for length in 0..whole.len() {
            disk.overwrite(&path, whole[..length].to_vec());
            assert_eq!(read(&disk, Path::new("outbox")).unwrap(), Marker::Damaged, "cut to {length}");
        }
    }
}
