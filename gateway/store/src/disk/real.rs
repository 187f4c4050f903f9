//! The system's own disk: pread, pwrite, fdatasync, fallocate, flock.
//!
//! Knows: which calls are barriers on Linux, and which file systems have no holes. Never retries a sync: after a failed one the
//! kernel has dropped the pages and a second would report success.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
    time::UNIX_EPOCH,
};

use rustix::{
    fs::{FallocateFlags, FlockOperation, SeekFrom, fallocate, fdatasync, flock, seek},
    io::Errno,
};

use super::{Access, Disk, DiskFile, FileInfo, Lock};

/// Zeros are written in pieces of this size where a file system has no holes.
const ZEROS: [u8; 4096] = [0; 4096];

/// The system's disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

#[derive(Debug)]
struct RealLock(#[expect(dead_code, reason = "held for its lock, which ends when the file is closed")] File);

impl Lock for RealLock {}

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let above = path.parent().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
        // One by one, as each name must be durable in the folder above it.
        above.map_or(Ok(()), |above| self.create_dir(above))?;
        // 0700: parts and contents are nobody else's business.
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        above.map_or(Ok(()), |above| self.sync_dir(above))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn info(&self, path: &Path) -> io::Result<Option<FileInfo>> {
        let metadata = match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Some(FileInfo { length: metadata.len(), modified_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX) }))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match access {
            Access::Read => {}
            Access::Write => {
                options.write(true);
            }
            Access::Create => {
                options.write(true).create(true).truncate(true).mode(0o600);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Above a relative name with one part is the empty path.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(path)?.sync_all()
    }

    fn room(&self, path: &Path) -> io::Result<u64> {
        let system = rustix::fs::statvfs(path)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let mut options = OpenOptions::new();
        let file = match options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path) {
            // A copy that is only looked at: Linux locks it all the same, or the folder if it was copied without its lock.
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => match File::open(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => File::open(path.parent().unwrap_or(Path::new("."))),
                other => other,
            }?,
            other => other?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(RealLock(file)))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut rest = buffer;
        let mut at = offset;
        while !rest.is_empty() {
            match self.0.read_at(rest, at) {
                Ok(0) => {
                    rest.fill(0);
                    return Ok(());
                }
                Ok(n) => {
                    at = at.saturating_add(n as u64);
                    rest = rest.get_mut(n..).unwrap_or_default();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Test builds only: what a power cut takes without it must be noticed.
        fail::fail_point!("disk.sync", |_| Ok(()));
        Ok(fdatasync(&self.0)?)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            // Without reservation the first write to a full disk fails instead of the roll to a new segment.
            Err(Errno::OPNOTSUPP) if self.length()? < length => self.0.set_len(length),
            Err(Errno::OPNOTSUPP) => Ok(()),
            other => Ok(other?),
        }
    }

    fn prepare(&self, offset: u64, length: u64) -> io::Result<()> {
        // In one call: it is a mebibyte at most.
        self.write_at(&vec![0; usize::try_from(length).map_err(io::Error::other)?], offset)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => zero(self, offset, length),
            other => Ok(other?),
        }
    }

    fn written_from(&self, offset: u64) -> io::Result<Option<u64>> {
        // The file's own position, which this moves, is used by nobody.
        match seek(&self.0, SeekFrom::Data(offset)) {
            Ok(at) => Ok(Some(at)),
            // Nothing but holes and what is only reserved.
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(e) => Err(e.into()),
        }
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Writes zeros over a range.
fn zero(file: &RealFile, offset: u64, length: u64) -> io::Result<()> {
    let mut at = offset;
    let end = offset.saturating_add(length);
    while at < end {
        let piece = ZEROS.len().min(usize::try_from(end - at).unwrap_or(ZEROS.len()));
        file.write_at(ZEROS.get(..piece).unwrap_or_default(), at)?;
        at += piece as u64;
    }
    Ok(())
}
