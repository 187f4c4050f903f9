//! Rows made anew from the journal to be compared with or counted: in a folder for temporary files (`TMPDIR`) that goes again. They may
//! be more than memory has room for, and the store that is looked at stays as it is, which may be a copy that can only be read.

use std::{env, fs::Permissions, io, ops::Deref, os::unix::fs::PermissionsExt as _, sync::Arc};

use tempfile::TempDir;

use crate::{
    error::OpenError,
    map::{Maps, OrderedMap},
};

/// An empty map, and then its rows.
pub(crate) struct Scratch {
    map: Arc<dyn OrderedMap>,
    _folder: TempDir,
}

impl Scratch {
    pub(crate) fn new(maps: &dyn Maps) -> Result<Self, OpenError> {
        let folder = folder()?;
        let map = maps.open(folder.path())?;
        Ok(Self { map, _folder: folder })
    }
}

/// A folder for temporary files, for nobody else's eyes.
pub(crate) fn folder() -> Result<TempDir, OpenError> {
    let mut folder = tempfile::Builder::new();
    folder.prefix("tramite-rows-").permissions(Permissions::from_mode(0o700)).tempdir().map_err(failed)
}

/// Nothing can be written there.
pub(crate) fn failed(source: io::Error) -> OpenError {
    OpenError::Io { action: "write temporary files (TMPDIR) in", path: env::temp_dir(), source }
}

impl Deref for Scratch {
    type Target = dyn OrderedMap;

    fn deref(&self) -> &Self::Target {
        self.map.as_ref()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It writes no more before its folder goes; what that says, nobody needs.
        drop(self.map.close());
    }
}
