//! The folder of a bench: keys, configuration, data and logs of everybody. Given, or temporary and then removed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::failure::{Exit, Failure};

/// The folder.
#[derive(Debug)]
pub(super) enum Folder {
    Given(PathBuf),
    Ours(TempDir),
}

impl Folder {
    /// Makes it; one that was given must be empty.
    pub(super) fn make(given: Option<&Path>) -> Result<Self, Failure> {
        let cannot = |error: &std::io::Error| {
            let advice = "Give a folder that you may write to with --dir.";
            Failure::new(Exit::CannotCreate, "the folder of the bench cannot be made", advice).because(error)
        };
        let Some(path) = given else {
            let made = tempfile::Builder::new().prefix("tramite-bench-").tempdir();
            return made.map(Self::Ours).map_err(|error| cannot(&error));
        };
        let path = std::path::absolute(path).map_err(|error| cannot(&error))?;
        if fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
            let advice = "Give a folder that is empty or does not exist: a bench makes everything new.";
            return Err(Failure::usage(format!("{} is not empty", path.display()), advice));
        }
        fs::create_dir_all(&path).map_err(|error| cannot(&error))?;
        Ok(Self::Given(path))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Ours(folder) => folder.path(),
        }
    }

    /// Where it stays, if it was given or shall be kept; else it is removed.
    pub(super) fn end(self, keep: bool) -> Option<PathBuf> {
        match self {
            Self::Given(path) => Some(path),
            Self::Ours(folder) if keep => Some(folder.keep()),
            Self::Ours(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stays_when_it_was_given_or_shall_be_kept_and_else_goes() {
        let kept = Folder::make(None).unwrap().end(true).unwrap();
        assert!(kept.is_dir());
        assert_eq!(Folder::make(Some(&kept)).unwrap().end(false).as_deref(), Some(kept.as_path()));
        fs::write(kept.join("something"), "").unwrap();
        Folder::make(Some(&kept)).unwrap_err();
        fs::remove_dir_all(kept).unwrap();
        let ours = Folder::make(None).unwrap();
        let path = ours.path().to_owned();
        assert!(path.is_dir() && ours.end(false).is_none() && !path.exists());
    }
}
