//! A disk that is full soon: a tmpfs of a given size.
//!
//! Knows: how to mount one (Linux, root) and how to fill what is left of it. Never knows: what is stored on it. Invariant: it is
//! gone when the test ends.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::component;

/// Written at once while the disk is filled.
const PIECE: [u8; 4096] = [0x5a; 4096];

/// A mounted tmpfs.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still hold a file on it.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

impl SmallDisk {
    /// Mounts one, or says in words why none can be had here; fails where nothing may be skipped.
    ///
    /// # Errors
    /// With `TRAMITE_REQUIRE_ALL=1`, when it cannot be had.
    pub fn mount(mebibytes: u64) -> Result<Option<Self>> {
        match Self::try_mount(mebibytes) {
            Ok(disk) => Ok(Some(disk)),
            Err(why) => {
                component::missing("a full disk, which needs root and a tmpfs", &format!("{why:#}")).map(|()| None)
            }
        }
    }

    fn try_mount(mebibytes: u64) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "this user is not root");
        let folder = TempDir::with_prefix("tramite-disk")?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=700"), "tmpfs"]).arg(folder.path());
        let said = mount.output().context("there is no mount")?;
        ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr).trim());
        Ok(Self { folder })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Lets nobody write on it any more.
    ///
    /// # Errors
    /// When the system does not.
    pub fn only_read(&self) -> Result<()> {
        let said = Command::new("mount").args(["-o", "remount,ro"]).arg(self.path()).output()?;
        ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr).trim());
        Ok(())
    }

    /// Bytes that may still be written.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn room(&self) -> Result<u64> {
        let system = rustix::fs::statvfs(self.path())?;
        Ok(system.f_bavail * system.f_frsize)
    }

    /// Writes a file of somebody else's, until `left` bytes are left or there is no room at all. Says where it is.
    ///
    /// # Errors
    /// When writing fails for another reason.
    pub fn fill(&self, name: &str, left: u64) -> Result<PathBuf> {
        let path = self.path().join(name);
        let mut file = File::create(&path)?;
        while self.room()? > left {
            match file.write_all(&PIECE) {
                Err(e) if e.kind() == io::ErrorKind::StorageFull => break,
                other => other?,
            }
        }
        Ok(path)
    }

    /// Removes such a file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn free(&self, path: &Path) -> Result<()> {
        Ok(fs::remove_file(path)?)
    }
}
