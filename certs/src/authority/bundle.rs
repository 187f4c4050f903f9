//! Bundles: the directory that a member gets, with all that its role needs.
//!
//! Knows which files belong to a role. Never knows where they go next. Invariants: nothing is overwritten by a first issue; a renewal
//! makes new keys and replaces certificate and key one after the other, which a running node takes up without a restart.
//!
//! | file | institution | operator, auditor | gateway |
//! |---|---|---|---|
//! | `tls.pem` `tls.key` | yes | yes | yes |
//! | `sign.pem` `sign.key` | yes | | yes |
//! | `enc-<key id>.key` | yes | | |
//! | `log.key` | | | yes |
//! | `root.pem` `crl.pem` | yes | yes | yes |
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use tramite_proto::{ids::InstitutionName, seal::Suite};

use super::{
    Authority, AuthorityError, Issued, IssuedEntry, Kind, SIGNING_DAYS, SigningRequest, Subject, TLS_DAYS, TlsRequest,
    make_directory,
};
use crate::{
    files::{self, Access},
    identity::{self, Role},
    secrets,
};

/// What a bundle is made with.
#[derive(Debug, Clone)]
pub struct BundleOptions {
    /// Subject of both certificates.
    pub subject: Subject,
    /// DNS names under which it is dialled.
    pub dns: Vec<String>,
    /// Addresses under which it is dialled.
    pub addresses: Vec<IpAddr>,
    /// Validity of the TLS certificate.
    pub tls_days: u32,
    /// Validity of the signing certificate.
    pub signing_days: u32,
    /// Suite of the encryption key.
    pub suite: Suite,
}

impl Default for BundleOptions {
    fn default() -> Self {
        Self {
            subject: Subject::default(),
            dns: Vec::new(),
            addresses: Vec::new(),
            tls_days: TLS_DAYS,
            signing_days: SIGNING_DAYS,
            suite: Suite::X25519,
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Where.
    pub directory: PathBuf,
    /// Every file.
    pub files: Vec<PathBuf>,
}

/// What is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The TLS certificate.
    Tls,
    /// The signing certificate; its institution then publishes a new key record.
    Signing,
    /// Both.
    All,
}

/// Issues all that `role`/`name` needs into `out`.
pub fn issue_bundle(
    authority: &mut Authority,
    role: Role,
    name: &InstitutionName,
    out: &Path,
    options: &BundleOptions,
) -> Result<Bundle, AuthorityError> {
    make_directory(out)?;
    if let Some(path) =
        ["tls.key", "sign.key", "log.key"].map(|file| out.join(file)).into_iter().find(|path| path.exists())
    {
        return Err(AuthorityError::Request(format!("{} exists: renew it, or give another directory", path.display())));
    }
    let mut bundle = Bundle { directory: out.to_owned(), files: Vec::new() };
    let tls = authority.issue_tls(&TlsRequest {
        role,
        name: name.clone(),
        subject: options.subject.clone(),
        dns: options.dns.clone(),
        addresses: options.addresses.clone(),
        days: options.tls_days,
    })?;
    write_pair(&mut bundle, "tls", &tls)?;
    if matches!(role, Role::Institution | Role::Gateway) {
        let (subject, days) = (options.subject.clone(), options.signing_days);
        let signing = authority.issue_signing(&SigningRequest { role, name: name.clone(), subject, days })?;
        write_pair(&mut bundle, "sign", &signing)?;
    }
    match role {
        Role::Institution => {
            let (kid, key) = secrets::generate_encryption_key(options.suite)?;
            bundle.files.push(secrets::save_encryption_key(out, &kid, &key)?);
        }
        Role::Gateway => {
            let path = out.join("log.key");
            secrets::generate_log_key(&path)?;
            bundle.files.push(path);
        }
        Role::Operator | Role::Auditor => {}
    }
    write_trust(authority, &mut bundle)?;
    Ok(bundle)
}

/// Renews certificates of a bundle with new keys, and its revocation list. With `within_days`, only those that end within so many.
pub fn renew(
    authority: &mut Authority,
    directory: &Path,
    what: Renewal,
    within_days: Option<u32>,
) -> Result<Bundle, AuthorityError> {
    let mut bundle = Bundle { directory: directory.to_owned(), files: Vec::new() };
    for (stem, wanted) in [("tls", what != Renewal::Signing), ("sign", what != Renewal::Tls)] {
        let path = directory.join(format!("{stem}.pem"));
        if !wanted || (stem == "sign" && !path.exists()) {
            continue;
        }
        let entry = entry_of(authority, &path)?;
        let left_s = entry.not_after - authority.now_s();
        if within_days.is_some_and(|days| left_s > i64::from(days) * 86_400) {
            continue;
        }
        let issued = reissue(authority, &entry)?;
        write_pair(&mut bundle, stem, &issued)?;
    }
    write_trust(authority, &mut bundle)?;
    Ok(bundle)
}

fn entry_of(authority: &Authority, path: &Path) -> Result<IssuedEntry, AuthorityError> {
    let chain = files::certificates(path)?;
    let leaf = chain.first().map(|der| der.as_ref()).unwrap_or_default();
    let serial = hex::encode(identity::parse(leaf)?.raw_serial());
    if let Some(revoked) = authority.ledger().revocation(&serial) {
        let reason = revoked.reason.as_str();
        return Err(AuthorityError::Request(format!(
            "{} is revoked ({reason}): what is revoked is not renewed; issue anew into another directory",
            path.display()
        )));
    }
    authority.ledger().find(&serial).cloned().ok_or(AuthorityError::UnknownSerial(serial))
}

/// The same again, for as long as it was issued for, under a new key and serial.
fn reissue(authority: &mut Authority, entry: &IssuedEntry) -> Result<Issued, AuthorityError> {
    let days = u32::try_from((entry.not_after - entry.not_before).div_euclid(86_400)).unwrap_or(1).max(1);
    let (role, name, subject) = (entry.role, entry.name.clone(), entry.subject.clone());
    match entry.kind {
        Kind::Tls => {
            let (dns, addresses) = (entry.dns.clone(), entry.addresses.clone());
            authority.issue_tls(&TlsRequest { role, name, subject, dns, addresses, days })
        }
        Kind::Signing => authority.issue_signing(&SigningRequest { role, name, subject, days }),
    }
}

fn write_pair(bundle: &mut Bundle, stem: &str, issued: &Issued) -> Result<(), AuthorityError> {
    let key = bundle.directory.join(format!("{stem}.key"));
    let certificate = bundle.directory.join(format!("{stem}.pem"));
    files::replace(&key, issued.key_pem.as_bytes(), Access::Private)?;
    files::replace(&certificate, issued.certificate_pem.as_bytes(), Access::Public)?;
    bundle.files.extend([certificate, key]);
    Ok(())
}

fn write_trust(authority: &Authority, bundle: &mut Bundle) -> Result<(), AuthorityError> {
    let (root, crl) = (bundle.directory.join("root.pem"), bundle.directory.join("crl.pem"));
    // What a member pinned is its own: a renewal does not exchange it.
    if !root.exists() {
        files::replace(&root, authority.root_pem().as_bytes(), Access::Public)?;
        bundle.files.push(root);
    }
    files::replace(&crl, &authority.crl_pem()?, Access::Public)?;
    bundle.files.push(crl);
    Ok(())
}
