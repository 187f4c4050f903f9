//! The demo's folder: keys, configurations, data and logs, readable by its owner only. Removed at the end only when nobody could
//! want to look at it.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use tramite_adapters::config::SOCKET_PATH_MAX;

use crate::failure::{Exit, Failure};

/// The path of a Unix socket is short; the longest below the folder is `citta-metropolitana/backoffice.sock`.
const PATH_MAX: usize = SOCKET_PATH_MAX - 36;

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    own: Ownership,
}

/// Whose it is to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ownership {
    /// Made here, temporary.
    Ours,
    /// Given by the user.
    Theirs,
}

impl Folder {
    /// Makes the folder given, or a new temporary one.
    pub(super) fn make(given: Option<&Path>) -> Result<Self, Failure> {
        let (path, own) = match given {
            Some(path) => (absolute(path)?, Ownership::Theirs),
            None => {
                (std::env::temp_dir().join(format!("tramite-demo-{}", uuid::Uuid::new_v4().simple())), Ownership::Ours)
            }
        };
        if path.as_os_str().len() > PATH_MAX {
            let sentence = format!(
                "{} is too long: sockets in it would have paths of more than {SOCKET_PATH_MAX} bytes",
                path.display()
            );
            return Err(Failure::usage(sentence, "Give a shorter one with --dir, for example --dir /tmp/demo."));
        }
        if fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
            let sentence = format!("{} is not empty", path.display());
            return Err(Failure::usage(
                sentence,
                "Give a folder that is empty or does not exist: a demo makes everything new.",
            ));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| cannot_make(&path, &error))?;
        Ok(Self { path, own })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A folder below it.
    pub(super) fn below(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| cannot_make(&path, &error))?;
        Ok(path)
    }

    /// Writes a file below it.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        fs::write(&path, text).map_err(|error| cannot_make(&path, &error))?;
        Ok(path)
    }

    /// Removes it when it is temporary. True when it is gone.
    pub(super) fn remove(&self) -> bool {
        self.own == Ownership::Ours && fs::remove_dir_all(&self.path).is_ok()
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| cannot_make(path, &error))
}

fn cannot_make(path: &Path, error: &std::io::Error) -> Failure {
    let sentence = format!("{} cannot be written", path.display());
    Failure::new(Exit::CannotCreate, sentence, "Give a folder that you may write to with --dir.").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_given_is_never_removed() {
        let outer = tempfile::tempdir().unwrap();
        let given = outer.path().join("demo");
        let folder = Folder::make(Some(&given)).unwrap();
        assert!(!folder.remove());
        assert!(given.is_dir());
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("mine.txt"), "mine").unwrap();
        let failure = Folder::make(Some(outer.path())).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.sentence.contains("not empty"), "{failure}");
    }
}
