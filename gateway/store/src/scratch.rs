//! Rows made anew from the journal to be compared with or counted: in a folder for temporary files (`TMPDIR`) that goes again. They may
//! be more than memory has room for, and the store that is looked at stays as it is, which may be a copy that can only be read.

use std::{env, fs::Permissions, io, ops::Deref, os::unix::fs::PermissionsExt as _, sync::Arc};

use tempfile::TempDir;

use crate::{
    error::OpenError,
    journal::io_failed,
    map::{Maps, OrderedMap},
};

/// An empty map, and then its rows.
pub(crate) struct Scratch {
    map: Arc<dyn OrderedMap>,
    _folder: TempDir,
}

impl Scratch {
    pub(crate) fn new(maps: &dyn Maps) -> Result<Self, OpenError> {
        let folder = folder().map_err(io_failed("make a temporary folder (TMPDIR) in", &env::temp_dir()))?;
        let map = maps.open(folder.path())?;
        Ok(Self { map, _folder: folder })
    }
}

/// A folder for temporary files, for nobody else's eyes.
pub(crate) fn folder() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("tramite-rows-").permissions(Permissions::from_mode(0o700)).tempdir()
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
