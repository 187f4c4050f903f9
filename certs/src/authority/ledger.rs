//! The ledger: one line of JSON for each certificate issued or revoked and each revocation list, in order.
//!
//! Knows what was done. Never knows a private key. Invariants: lines are only added, and synced before the caller goes on; the file is
//! locked while it is open. A last line that a crash left half written was never answered for: it is cut.
use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tramite_proto::ids::InstitutionName;

use super::{AuthorityError, Kind, RevocationReason, Subject};
use crate::{
    files::FileError,
    identity::{Role, TrustDomain},
};

/// Bytes of a ledger: 400 for each entry, so half a million certificates.
const LEDGER_MAX: u64 = 256 * 1024 * 1024;

/// A certificate that was issued. Times are unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedEntry {
    /// Hexadecimal.
    pub serial: String,
    /// For what.
    pub kind: Kind,
    /// Role.
    pub role: Role,
    /// Name.
    pub name: InstitutionName,
    /// Subject.
    #[serde(flatten)]
    pub subject: Subject,
    /// DNS names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Valid from.
    pub not_before: i64,
    /// Valid to.
    pub not_after: i64,
    /// SHA-256 of the certificate in DER, hexadecimal.
    pub sha256: String,
    /// When it was issued.
    pub at: i64,
}

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedEntry {
    /// Of which certificate.
    pub serial: String,
    /// Why.
    pub reason: RevocationReason,
    /// When, unix seconds.
    pub at: i64,
}

/// A revocation list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrlEntry {
    /// Rises by one.
    pub number: u64,
    /// From, unix seconds.
    pub this_update: i64,
    /// To: after this nobody gets in on its word.
    pub next_update: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    Authority { trust_domain: TrustDomain, at: i64 },
    Issued(IssuedEntry),
    Revoked(RevokedEntry),
    Crl(CrlEntry),
}

/// The ledger, open and locked.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    trust_domain: TrustDomain,
    issued: Vec<IssuedEntry>,
    revoked: Vec<RevokedEntry>,
    revoked_at: HashMap<String, usize>,
    last_crl: Option<CrlEntry>,
}

impl Ledger {
    pub(super) fn create(path: &Path, trust_domain: &TrustDomain, now_s: i64) -> Result<Self, AuthorityError> {
        let file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path);
        let file = lock(file.map_err(|source| FileError::Write { path: path.to_owned(), source })?, path)?;
        // An `init` that was killed before it wrote the root begins again.
        file.set_len(0).map_err(|source| FileError::Write { path: path.to_owned(), source })?;
        let mut ledger = Self::empty(path, file, trust_domain.clone());
        ledger.append(&Line::Authority { trust_domain: trust_domain.clone(), at: now_s })?;
        Ok(ledger)
    }

    pub(super) fn open(path: &Path) -> Result<Self, AuthorityError> {
        let failed = |source| FileError::Read { path: path.to_owned(), source };
        let mut file = lock(OpenOptions::new().read(true).append(true).open(path).map_err(failed)?, path)?;
        let mut text = String::new();
        (&mut file).take(LEDGER_MAX).read_to_string(&mut text).map_err(failed)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            tracing::warn!(path = %path.display(), "the ledger's last line was half written; it is cut");
            file.set_len(whole as u64).map_err(failed)?;
            file.seek(io::SeekFrom::End(0)).map_err(failed)?;
        }
        let mut lines = text.get(..whole).unwrap_or_default().lines().zip(1..);
        let damaged = |line| AuthorityError::Ledger { path: path.to_owned(), line };
        let parse = |(text, line): (&str, usize)| serde_json::from_str::<Line>(text).map_err(|_| damaged(line));
        let Some(Line::Authority { trust_domain, .. }) = lines.next().map(parse).transpose()? else {
            return Err(damaged(1));
        };
        let mut ledger = Self::empty(path, file, trust_domain);
        for line in lines {
            ledger.take(parse(line)?);
        }
        Ok(ledger)
    }

    fn empty(path: &Path, file: File, trust_domain: TrustDomain) -> Self {
        Self {
            path: path.to_owned(),
            file,
            trust_domain,
            issued: Vec::new(),
            revoked: Vec::new(),
            revoked_at: HashMap::new(),
            last_crl: None,
        }
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Authority { .. } => {}
            Line::Issued(entry) => self.issued.push(entry),
            Line::Revoked(entry) => {
                self.revoked_at.insert(entry.serial.clone(), self.revoked.len());
                self.revoked.push(entry);
            }
            Line::Crl(entry) => self.last_crl = Some(entry),
        }
    }

    fn append(&mut self, line: &Line) -> Result<(), AuthorityError> {
        let mut text = serde_json::to_vec(line).expect("a line of texts and integers can be written as JSON");
        text.push(b'\n');
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        Ok(written.map_err(|source| FileError::Write { path: self.path.clone(), source })?)
    }

    pub(super) fn issued(&mut self, entry: IssuedEntry) -> Result<(), AuthorityError> {
        let line = Line::Issued(entry);
        self.append(&line)?;
        self.take(line);
        Ok(())
    }

    pub(super) fn revoked(&mut self, entry: RevokedEntry) -> Result<(), AuthorityError> {
        let line = Line::Revoked(entry);
        self.append(&line)?;
        self.take(line);
        Ok(())
    }

    pub(super) fn crl(&mut self, entry: CrlEntry) -> Result<(), AuthorityError> {
        let line = Line::Crl(entry);
        self.append(&line)?;
        self.take(line);
        Ok(())
    }

    /// The network.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Every certificate, in the order of issue.
    pub fn certificates(&self) -> impl DoubleEndedIterator<Item = &IssuedEntry> {
        self.issued.iter()
    }

    /// Every revocation, in order.
    pub fn revocations(&self) -> impl Iterator<Item = &RevokedEntry> {
        self.revoked.iter()
    }

    /// The certificate of this serial.
    #[must_use]
    pub fn find(&self, serial: &str) -> Option<&IssuedEntry> {
        self.issued.iter().find(|entry| entry.serial == serial)
    }

    /// The revocation of this serial.
    #[must_use]
    pub fn revocation(&self, serial: &str) -> Option<&RevokedEntry> {
        self.revoked_at.get(serial).and_then(|place| self.revoked.get(*place))
    }

    /// The newest revocation list.
    #[must_use]
    pub fn last_crl(&self) -> Option<&CrlEntry> {
        self.last_crl.as_ref()
    }
}

/// Locks the file until it is closed.
fn lock(file: File, path: &Path) -> Result<File, AuthorityError> {
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(AuthorityError::InUse { path: path.to_owned() }),
        Err(error) => Err(FileError::Read { path: path.to_owned(), source: error.into() }.into()),
    }
}
