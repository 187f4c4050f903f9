//! Files of certificates and revocation lists: reading PEM with a bound, writing so that a reader sees the old file or the new one.
//!
//! Knows paths, sizes, modes and PEM. Never knows what a certificate says. Invariants: a file is replaced by rename after it was
//! synced; a private file has mode 0600 from its first byte; errors name the path and never repeat contents.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};

/// Bytes of a file here: a revocation list of ten thousand entries has about 400 KiB, everything else a few KiB.
pub const FILE_MAX: u64 = 1024 * 1024;
/// Certificates in one file: a chain or a handful of roots during a change of authority.
pub const CERTIFICATES_MAX: usize = 16;
/// Revocation lists in one file: one for each authority.
pub const CRLS_MAX: usize = 16;

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its owner alone: 0600.
    Private,
    /// Everybody: 0644.
    Public,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read: see the cause.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written: see the cause.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is longer than anything that belongs there.
    #[error("{} is longer than {FILE_MAX} bytes: it is not what was expected there", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// It holds none of what is needed.
    #[error("{} holds no {what} in PEM", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// It holds more than there can be.
    #[error("{} holds more than {max} {what}s", path.display())]
    TooMany {
        /// Which.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// The most.
        max: usize,
    },
    /// A section of it cannot be read.
    #[error("{} holds a {what} that cannot be read", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What.
        what: &'static str,
    },
}

/// Reads a file of at most [`FILE_MAX`] bytes.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    read_open(File::open(path).map_err(failed)?, path)
}

/// Reads a file that is open already.
pub(crate) fn read_open(file: File, path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let read = file.take(FILE_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(FileError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Reads a chain or a set of roots: at least one certificate.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    sections(path, "certificate", CERTIFICATES_MAX)
}

/// Reads revocation lists: at least one.
pub fn crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, FileError> {
    sections(path, "revocation list", CRLS_MAX)
}

fn sections<T: PemObject>(path: &Path, what: &'static str, max: usize) -> Result<Vec<T>, FileError> {
    let bytes = read(path)?;
    let found = T::pem_slice_iter(&bytes).take(max + 1).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|_| FileError::Malformed { path: path.to_owned(), what })?;
    match found.len() {
        0 => Err(FileError::Empty { path: path.to_owned(), what }),
        n if n > max => Err(FileError::TooMany { path: path.to_owned(), what, max }),
        _ => Ok(found),
    }
}

/// Replaces (or makes) a file: written beside it, synced, renamed, and the directory synced.
pub fn replace(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    let write = || -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}.tmp", std::process::id()));
        let beside = path.with_file_name(beside);
        // A remainder of a run that was killed would keep its old mode.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mode = if access == Access::Private { 0o600 } else { 0o644 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()
    };
    write().map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// One PEM section (RFC 7468).
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = zeroize::Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    // The whole length at once: a text that grows leaves copies of a key behind.
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_replaced_private_file_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, b"new", Access::Private).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_without_certificates_or_too_long_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pem");
        fs::write(&path, "no pem").unwrap();
        assert!(matches!(certificates(&path), Err(FileError::Empty { .. })));
        fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(matches!(certificates(&path), Err(FileError::TooLong { .. })));
        assert!(matches!(certificates(&directory.path().join("none")), Err(FileError::Read { .. })));
    }

    #[test]
    fn pem_has_lines_of_64() {
        let text = pem("X", &[0; 60]);
        assert_eq!(text.lines().map(str::len).collect::<Vec<_>>(), [17, 64, 16, 15]);
    }
}
