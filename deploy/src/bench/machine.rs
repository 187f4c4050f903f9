//! The machine: how many files it lets a process have open, and what is measured on.

use std::path::Path;

use rustix::{
    fs::statfs,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::failure::Failure;

/// Files that a process has open besides the connections of institutions: the store's, logs, listeners.
const FILES_BESIDE: u64 = 512;

/// Lets this process, and those that it starts, have as many files open as the system allows; fails when so many connections need more.
pub(super) fn allow_connections(connections: u64) -> Result<(), Failure> {
    let limit = raised(getrlimit(Resource::Nofile), connections + FILES_BESIDE)?;
    setrlimit(Resource::Nofile, limit)
        .map_err(|error| Failure::internal("the limit of open files cannot be raised").because(&error))
}

/// The limit as high as it may be, when that is enough.
fn raised(limit: Rlimit, needed: u64) -> Result<Rlimit, Failure> {
    match limit.maximum {
        Some(most) if most < needed => {
            let sentence = format!("a process needs {needed} open files for that, and may have {most}");
            let advice = "Ask for fewer --idle and --recipients, or raise the hard limit (ulimit -Hn).";
            Err(Failure::usage(sentence, advice))
        }
        most => Ok(Rlimit { current: most, maximum: most }),
    }
}

/// What was measured, and on what.
#[derive(Debug, Clone, Default)]
pub(super) struct Ground {
    /// Of the folder: its name, or its number in hexadecimal.
    pub(super) file_system: String,
    pub(super) debug: bool,
}

impl Ground {
    /// Of the folder that is measured in.
    pub(super) fn of(folder: &Path) -> Result<Self, Failure> {
        let failed =
            |error: std::io::Error| Failure::internal("the folder's file system cannot be told").because(&error);
        let found = statfs(folder).map_err(|error| failed(error.into()))?;
        // A kernel of 32 bits has the same numbers, signed.
        let magic = u32::try_from(found.f_type & 0xFFFF_FFFF).unwrap_or_default();
        Ok(Self { file_system: file_system(magic), debug: cfg!(debug_assertions) })
    }

    /// Why the figures mean less than they say.
    pub(super) fn warnings(&self) -> impl Iterator<Item = &'static str> {
        let tmpfs = (self.file_system == "tmpfs")
            .then_some("The folder is on tmpfs, where a sync costs nothing: give one on a disk with --dir.");
        let debug = self.debug.then_some("This is a debug build, several times slower: build it with --release.");
        tmpfs.into_iter().chain(debug)
    }
}

/// The numbers of statfs(2).
fn file_system(magic: u32) -> String {
    let known = match magic {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x2FC1_2FC1 => "zfs",
        0xF2F5_2010 => "f2fs",
        0x0102_1994 => "tmpfs",
        0x794C_7630 => "overlay",
        0x6969 => "nfs",
        _ => return format!("{magic:#x}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_as_far_as_it_goes_and_too_low_a_one_is_said() {
        let limit = Rlimit { current: Some(1_024), maximum: Some(4_096) };
        assert_eq!(raised(limit, 2_000).unwrap().current, Some(4_096));
        let failure = raised(limit, 5_512).unwrap_err();
        assert!(failure.sentence.contains("5512") && failure.sentence.contains("4096"), "{failure}");
    }

    #[test]
    fn what_makes_figures_worthless_is_said() {
        let ground = |magic, debug| Ground { file_system: file_system(magic), debug };
        assert_eq!(ground(0xEF53, false).warnings().count(), 0);
        assert!(ground(0x0102_1994, false).warnings().all(|warning| warning.contains("a sync costs nothing")));
        assert_eq!(ground(0x0102_1994, true).warnings().count(), 2);
        assert_eq!(file_system(0xAB), "0xab");
        assert!(!Ground::of(Path::new("/")).unwrap().file_system.is_empty());
    }
}
