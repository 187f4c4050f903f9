//! The authority of a network: root key, certificates, revocation list, and the ledger of all that was issued.
//!
//! Knows its own directory. Never knows a gateway's or an institution's running state; it needs no network and belongs on a machine of
//! its own. Invariants: nothing is given out before the ledger has it on disk; a certificate ends no later than the root; every leaf is
//! P-256, has one SAN URI and only the usages of its kind; one process at a time.
//!
//! ```text
//! <dir>/authority/           0700
//!     root.pem  root.key     the root (ten years); the key leaves this directory never
//!     crl.pem                the newest revocation list (seven days)
//!     issued.jsonl           the ledger; also the lock
//! ```
mod bundle;
mod ledger;
mod profile;
mod show;

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{Issuer, KeyPair};
use serde::{Deserialize, Serialize};
use tramite_proto::{
    clock::Clock,
    ids::{Digest, InstitutionName},
};
use zeroize::Zeroizing;

pub use self::{
    bundle::{Bundle, BundleOptions, Renewal, issue_bundle, renew},
    ledger::{CrlEntry, IssuedEntry, Ledger, RevokedEntry},
    show::{CertificateShown, CrlShown, Network, RevocationShown, Shown, State, show_file},
};
use crate::{
    files::{self, Access, FileError},
    identity::{self, IdentityError, Role, TrustDomain},
    secrets::{self, SecretError},
};

/// A TLS certificate: short, because renewing is one command and a stolen key ends by itself.
pub const TLS_DAYS: u32 = 90;
/// The longest that a TLS certificate may be.
pub const TLS_DAYS_MAX: u32 = 398;
/// A signing certificate, at most: a key record is no longer either (FORMATS.md §2.4).
pub const SIGNING_DAYS: u32 = 400;
/// The root.
pub const ROOT_DAYS: u32 = 3_652;
/// A revocation list: so long the network goes on while the authority is silent.
pub const CRL_DAYS: u32 = 7;
/// The longest that a list may be.
pub const CRL_DAYS_MAX: u32 = 35;
/// RFC 5280 appendix A.1 bounds the names of a subject.
const SUBJECT_CHARS_MAX: usize = 64;
/// DNS names and addresses in one certificate.
const ALTERNATIVES_MAX: usize = 16;

/// What went wrong at the authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is one already: open it instead.
    #[error("{} exists already: an authority is made once", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// There is none: make one with `tramite certs init`.
    #[error("{} holds no authority: make one with `tramite certs init`", path.display())]
    None {
        /// Where.
        path: PathBuf,
    },
    /// Another process has it: wait for that one.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The ledger.
        path: PathBuf,
    },
    /// The ledger is damaged: restore it from a copy.
    #[error("{} line {line} cannot be read: restore it from a copy", path.display())]
    Ledger {
        /// The ledger.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A certificate that cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What was asked for is out of bounds: correct it.
    #[error("{0}")]
    Request(String),
    /// Nothing of that serial was issued here.
    #[error("no certificate with serial {0} was issued here")]
    UnknownSerial(String),
    /// It is revoked already.
    #[error("{serial} is revoked already, since {at}")]
    AlreadyRevoked {
        /// The certificate.
        serial: String,
        /// When.
        at: String,
    },
    /// The certificate maker failed.
    #[error("the certificate could not be made")]
    Making(#[from] rcgen::Error),
}

/// What a subject is called beside its name in the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// For people, up to 64 characters: subject O.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// eIDAS organizationIdentifier (2.5.4.97, ETSI EN 319 412-1 §5.1.4), e.g. `VATIT-01234567890`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization_identifier: Option<String>,
}

/// What a TLS certificate is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRequest {
    /// Role.
    pub role: Role,
    /// Name.
    pub name: InstitutionName,
    /// Subject.
    pub subject: Subject,
    /// DNS names under which it is dialled. With one of these or an address, the certificate also serves a listener.
    pub dns: Vec<String>,
    /// Addresses under which it is dialled.
    pub addresses: Vec<IpAddr>,
    /// Validity in days, 1 to [`TLS_DAYS_MAX`].
    pub days: u32,
}

/// What a signing certificate is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    /// Role.
    pub role: Role,
    /// Name.
    pub name: InstitutionName,
    /// Subject.
    pub subject: Subject,
    /// Validity in days, 1 to [`SIGNING_DAYS`].
    pub days: u32,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Connections.
    Tls,
    /// Statements.
    Signing,
}

/// A certificate that was made, with its key.
#[derive(Debug)]
pub struct Issued {
    /// Chain in PEM, leaf first.
    pub certificate_pem: String,
    /// PKCS#8 in PEM.
    pub key_pem: Zeroizing<String>,
    /// As the ledger has it.
    pub entry: IssuedEntry,
}

/// Why a certificate is revoked (RFC 5280 §5.3.1; `certificateHold` is not offered: revoked is for good).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationReason {
    /// The key may be known to others: nothing signed with it counts any more, whenever it was signed.
    KeyCompromise,
    /// The holder's name or belonging changed.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// The holder left the network.
    CessationOfOperation,
    /// The holder may no longer.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// As on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyCompromise => "key-compromise",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::PrivilegeWithdrawn => "privilege-withdrawn",
        }
    }
}

impl std::str::FromStr for RevocationReason {
    type Err = AuthorityError;
    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            AuthorityError::Request(format!("a revocation needs a reason, one of: {all}"))
        })
    }
}

/// An authority that is open.
pub struct Authority {
    directory: PathBuf,
    ledger: Ledger,
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    root_ends_s: i64,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes an authority in `<dir>/authority`: root, ledger, first (empty) revocation list.
    pub fn init(dir: &Path, trust_domain: TrustDomain, clock: Arc<dyn Clock>) -> Result<Self, AuthorityError> {
        let directory = dir.join("authority");
        let root_path = directory.join("root.pem");
        if directory.join("root.key").exists() || root_path.exists() {
            return Err(AuthorityError::Exists { path: directory });
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|source| FileError::Write { path: directory.clone(), source })?;
        let ledger = Ledger::create(&directory.join("issued.jsonl"), &trust_domain, clock.now_s())?;
        let (root, key) = profile::root(&trust_domain, clock.now_s())?;
        let pem = Zeroizing::new(key.serialize_pem());
        files::replace(&directory.join("root.key"), pem.as_bytes(), Access::Private)?;
        files::replace(&root_path, root.pem().as_bytes(), Access::Public)?;
        let mut authority = Self::assemble(directory, ledger, root.pem(), root.der(), key, clock)?;
        authority.crl(CRL_DAYS)?;
        Ok(authority)
    }

    /// Opens `<dir>/authority`.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, AuthorityError> {
        let directory = dir.join("authority");
        let root_path = directory.join("root.pem");
        if !root_path.exists() {
            return Err(AuthorityError::None { path: directory });
        }
        let ledger = Ledger::open(&directory.join("issued.jsonl"))?;
        let key_path = directory.join("root.key");
        let pem = secrets::read_private(&key_path)?;
        let malformed = |_| SecretError::Malformed { path: key_path.clone(), what: "the root's key in PEM" };
        let pem = std::str::from_utf8(&pem).map_err(|_| rcgen::Error::CouldNotParseKeyPair).map_err(malformed)?;
        let key = KeyPair::from_pem(pem).map_err(malformed)?;
        let root_pem = String::from_utf8_lossy(&files::read(&root_path)?).into_owned();
        let root = files::certificates(&root_path)?.swap_remove(0);
        Self::assemble(directory, ledger, root_pem, &root, key, clock)
    }

    fn assemble(
        directory: PathBuf,
        ledger: Ledger,
        root_pem: String,
        root: &rustls_pki_types::CertificateDer<'_>,
        key: KeyPair,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuthorityError> {
        let root_ends_s = identity::parse(root)?.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(root, key)?;
        Ok(Self { directory, ledger, issuer, root_pem, root_ends_s, clock })
    }

    /// The network.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.ledger.trust_domain()
    }

    /// What was issued and revoked.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The root in PEM: what members pin, handed over out of band.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The newest revocation list in PEM.
    pub fn crl_pem(&self) -> Result<Vec<u8>, AuthorityError> {
        Ok(files::read(&self.crl_path())?)
    }

    /// Where the newest revocation list stands.
    #[must_use]
    pub fn crl_path(&self) -> PathBuf {
        self.directory.join("crl.pem")
    }

    pub(crate) fn now_s(&self) -> i64 {
        self.clock.now_s()
    }

    /// Makes a TLS certificate and its key.
    pub fn issue_tls(&mut self, request: &TlsRequest) -> Result<Issued, AuthorityError> {
        days_within(request.days, TLS_DAYS_MAX)?;
        if request.role == Role::Gateway && request.dns.is_empty() && request.addresses.is_empty() {
            return Err(AuthorityError::Request(
                "a gateway's certificate needs a DNS name or an address to be dialled by".into(),
            ));
        }
        if request.dns.len() + request.addresses.len() > ALTERNATIVES_MAX {
            return Err(AuthorityError::Request(format!("at most {ALTERNATIVES_MAX} DNS names and addresses")));
        }
        let entry = self.entry(Kind::Tls, request.role, &request.name, &request.subject, request.days)?;
        self.issue(IssuedEntry { dns: request.dns.clone(), addresses: request.addresses.clone(), ..entry })
    }

    /// Makes a signing certificate and its key.
    pub fn issue_signing(&mut self, request: &SigningRequest) -> Result<Issued, AuthorityError> {
        days_within(request.days, SIGNING_DAYS)?;
        if !matches!(request.role, Role::Institution | Role::Gateway) {
            return Err(AuthorityError::Request(format!(
                "{} signs nothing: only institutions and gateways do",
                request.role
            )));
        }
        let entry = self.entry(Kind::Signing, request.role, &request.name, &request.subject, request.days)?;
        self.issue(entry)
    }

    fn entry(
        &self,
        kind: Kind,
        role: Role,
        name: &InstitutionName,
        subject: &Subject,
        days: u32,
    ) -> Result<IssuedEntry, AuthorityError> {
        for text in subject.display_name.iter().chain(&subject.organization_identifier) {
            if !(1..=SUBJECT_CHARS_MAX).contains(&text.chars().count()) || text.chars().any(char::is_control) {
                return Err(AuthorityError::Request(format!(
                    "`{text}` has not 1 to {SUBJECT_CHARS_MAX} printable characters"
                )));
            }
        }
        let now_s = self.now_s();
        let not_before = now_s - profile::BACKDATED_S;
        let not_after = (not_before + i64::from(days) * 86_400).min(self.root_ends_s);
        if not_after <= now_s {
            return Err(AuthorityError::Request(
                "the root is past its end: make a new authority and hand out its root".into(),
            ));
        }
        Ok(IssuedEntry {
            serial: profile::serial()?,
            kind,
            role,
            name: name.clone(),
            subject: subject.clone(),
            dns: Vec::new(),
            addresses: Vec::new(),
            not_before,
            not_after,
            sha256: String::new(),
            at: now_s,
        })
    }

    fn issue(&mut self, mut entry: IssuedEntry) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = profile::leaf(&entry, self.trust_domain())?.signed_by(&key, &self.issuer)?;
        entry.sha256 = Digest::of(certificate.der()).to_hex();
        self.ledger.issued(entry.clone())?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: Zeroizing::new(key.serialize_pem()), entry })
    }

    /// Revokes by serial (hexadecimal) and writes a new revocation list.
    pub fn revoke(&mut self, serial: &str, reason: RevocationReason) -> Result<RevokedEntry, AuthorityError> {
        let serial: String = serial.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
        if self.ledger.find(&serial).is_none() {
            return Err(AuthorityError::UnknownSerial(serial));
        }
        if let Some(revoked) = self.ledger.revocation(&serial) {
            return Err(AuthorityError::AlreadyRevoked { serial, at: show::time(revoked.at) });
        }
        let entry = RevokedEntry { serial, reason, at: self.now_s() };
        self.ledger.revoked(entry.clone())?;
        self.crl(CRL_DAYS)?;
        Ok(entry)
    }

    /// Revokes the certificate in a file.
    pub fn revoke_file(&mut self, path: &Path, reason: RevocationReason) -> Result<RevokedEntry, AuthorityError> {
        let chain = files::certificates(path)?;
        let leaf = chain.first().map(|der| der.as_ref()).unwrap_or_default();
        let serial = hex::encode(identity::parse(leaf)?.raw_serial());
        self.revoke(&serial, reason)
    }

    /// Writes a new revocation list, valid for `days` (1 to [`CRL_DAYS_MAX`]).
    pub fn crl(&mut self, days: u32) -> Result<CrlEntry, AuthorityError> {
        days_within(days, CRL_DAYS_MAX)?;
        let now_s = self.now_s();
        let number = self.ledger.last_crl().map_or(1, |crl| crl.number + 1);
        let entry = CrlEntry { number, this_update: now_s, next_update: now_s + i64::from(days) * 86_400 };
        let crl = profile::crl(&entry, self.ledger.revocations())?.signed_by(&self.issuer)?;
        // The number first: a list that is written twice under one number would be two lists.
        self.ledger.crl(entry.clone())?;
        files::replace(&self.crl_path(), crl.pem()?.as_bytes(), Access::Public)?;
        Ok(entry)
    }

    /// Puts the newest revocation list into these directories as `crl.pem`; running nodes take it up by themselves.
    pub fn publish_crl(&self, directories: &[PathBuf]) -> Result<(), AuthorityError> {
        let pem = self.crl_pem()?;
        for directory in directories {
            files::replace(&directory.join("crl.pem"), &pem, Access::Public)?;
        }
        Ok(())
    }

    /// Everything issued, with days left and revocations.
    pub fn show(&self) -> Result<Network, AuthorityError> {
        show::network(self)
    }
}

fn days_within(days: u32, max: u32) -> Result<(), AuthorityError> {
    if (1..=max).contains(&days) {
        Ok(())
    } else {
        Err(AuthorityError::Request(format!("{days} days are not 1 to {max}")))
    }
}

pub(crate) fn make_directory(path: &Path) -> Result<(), AuthorityError> {
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileError::Write { path: path.to_owned(), source: error }.into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
