//! Files that are whole or not there: written beside their place, synced, renamed, and the folder synced after it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Component, Path},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};
use tramite_proto::{ids::Digest, parts::RunningDigest};

/// What the folder holds is about people: nobody but the adapter's own user reads it, unless an administrator decides so.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Bytes read at a time.
const READ_BYTES: usize = 128 * 1024;

/// Does blocking work; no other task waits for it. On a run time of one thread (a simulation's) they would wait for any thread, and when
/// another one answers would be chance.
pub(crate) fn in_place<R>(work: impl FnOnce() -> R) -> R {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}

/// Makes a folder and those above it; one that is there keeps the mode that it has.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
}

/// A new file that is empty, in place of any that is there.
pub(crate) fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)
}

/// Opens a regular file below a folder that others write to: no symbolic link on the way leads out of it, and nothing that would block
/// is waited for. [`io::ErrorKind::InvalidInput`] says that it never will be a file that can be read.
pub(crate) fn open_below(folder: &Path, path: &Path) -> io::Result<File> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let mut at = File::open(folder)?;
    let mut names = path.components().peekable();
    while let Some(name) = names.next() {
        let Component::Normal(name) = name else { return Err(wrong("its path leads out of the folder")) };
        let kind = if names.peek().is_some() { OFlags::DIRECTORY } else { OFlags::empty() };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | kind;
        let opened = openat(&at, name, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => wrong("it is a symbolic link, or its folder is none"),
            Errno::NXIO => wrong("it is not a regular file"),
            errno => errno.into(),
        });
        at = File::from(opened?);
    }
    if at.metadata()?.is_file() { Ok(at) } else { Err(wrong("it is not a regular file")) }
}

/// SHA-256 of what a file holds, of at most so many bytes of it.
pub(crate) fn digest(file: &File, bytes_max: u64) -> io::Result<Digest> {
    let (mut source, mut digest) = (file.take(bytes_max), RunningDigest::new());
    let mut buffer = vec![0_u8; READ_BYTES];
    in_place(|| {
        loop {
            let count = source.read(&mut buffer)?;
            match buffer.get(..count) {
                Some(bytes) if !bytes.is_empty() => digest.update(bytes),
                _ => return Ok(()),
            }
        }
    })
    .map(|()| digest.finish())
}

/// Makes names in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a synced file that has no final name yet.
pub(crate) fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = create_private_file(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Writes a whole file under its final name, by way of `partial` on the same file system.
pub(crate) fn write_whole(partial: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    write_synced(partial, content)?;
    rename(partial, path)
}

/// Renames, and makes both folders durable. What stands at the target is replaced, a whole folder too.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if to.is_dir() {
        fs::remove_dir_all(to)?;
    }
    fs::rename(from, to)?;
    let (from, to) = (from.parent(), to.parent());
    if let Some(to) = to {
        sync_dir(to)?;
    }
    match from {
        Some(folder) if from != to => sync_dir(folder),
        _ => Ok(()),
    }
}

/// Renames when there is something to rename.
pub(crate) fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    if from.exists() { rename(from, to) } else { Ok(()) }
}

/// Removes a file when there is one, and makes that durable.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| path.parent().map_or(Ok(()), sync_dir)),
    }
}
