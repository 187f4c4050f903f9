//! Looks for bytes where they must never be: in a directory, in a log, in the memory of a process.
//!
//! Knows nothing of what the bytes mean. A search that could not look is an error, never an "absent".

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Memory is read in pieces of this size, each overlapping the last by the needle's length.
const PIECE_BYTES: usize = 4 * 1024 * 1024;

/// True when `needle` stands in `hay`.
#[must_use]
pub fn holds(hay: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && memchr::memmem::find(hay, needle).is_some()
}

/// The files under a directory that hold any of the needles, with the needle's name.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn in_directory(directory: &Path, needles: &[(&str, Vec<u8>)]) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let bytes = match fs::read(&path) {
                    // Removed meanwhile: it holds nothing.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    read => read.with_context(|| path.display().to_string())?,
                };
                for (name, needle) in needles {
                    if holds(&bytes, needle) {
                        found.push((path.clone(), (*name).to_owned()));
                    }
                }
            }
        }
    }
    Ok(found)
}

/// The needles that stand in a process's writable memory, and how many bytes were looked at.
///
/// # Errors
/// When the memory map cannot be read at all.
pub fn in_memory(process_id: u32, needles: &[(&str, Vec<u8>)]) -> Result<(Vec<String>, usize)> {
    let maps = fs::read_to_string(format!("/proc/{process_id}/maps")).context("no memory map")?;
    let memory = fs::File::open(format!("/proc/{process_id}/mem")).context("memory cannot be opened")?;
    let overlap = needles.iter().map(|(_, needle)| needle.len()).max().unwrap_or(0);
    let (mut found, mut looked_at) = (Vec::new(), 0);
    for (start, end) in maps.lines().filter_map(writable_range) {
        let mut at = start;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let mut piece = vec![0; length];
            // A page that went away between the map and the read is no place to hide.
            let read = memory.read_at(&mut piece, at).unwrap_or(0);
            looked_at += read;
            let piece = piece.get(..read).unwrap_or_default();
            for (name, needle) in needles {
                if holds(piece, needle) && !found.iter().any(|known| known == name) {
                    found.push((*name).to_owned());
                }
            }
            if at + u64::try_from(length)? >= end {
                break;
            }
            at += u64::try_from(length.saturating_sub(overlap).max(1))?;
        }
    }
    Ok((found, looked_at))
}

/// A line of `maps` that is readable and writable: `start-end rw..`.
fn writable_range(line: &str) -> Option<(u64, u64)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let range = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    rest.starts_with("rw").then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_is_found_wherever_it_stands() {
        assert!(holds(b"aab", b"ab") && holds(b"ab", b"ab") && holds(b"xxab", b"ab"));
        assert!(!holds(b"a", b"ab") && !holds(b"", b"ab") && !holds(b"abc", b""));
    }

    #[test]
    fn a_needle_in_our_own_memory_is_found() {
        let needle: Vec<u8> = (0..48u8).map(|n| n.wrapping_mul(37) ^ 0x5a).collect();
        let (found, looked_at) = in_memory(std::process::id(), &[("needle", needle.clone())]).unwrap();
        assert!(looked_at > 0 && found == ["needle"]);
        assert!(!needle.is_empty());
    }
}
