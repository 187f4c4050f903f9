//! What an operator sees of certificates: plain data, with the days that are left.
//!
//! Knows ledger and files. Never knows keys. Invariant: every time is both unix seconds and text in UTC (RFC 3339).
use std::path::Path;

use rustls_pki_types::CertificateDer;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tramite_proto::ids::Digest;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, GeneralName};

use super::{Authority, AuthorityError, IssuedEntry, Kind, RevocationReason};
use crate::{
    files::{self, FileError},
    identity::{self, IdentityError, Role, TrustDomain},
};

/// Where a certificate stands today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Counts.
    Valid,
    /// Before its beginning.
    NotYetValid,
    /// Past its end.
    Expired,
    /// Revoked.
    Revoked,
}

impl State {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// When and why it was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevocationShown {
    /// UTC.
    pub at: String,
    /// Why; absent when the list does not say.
    pub reason: Option<RevocationReason>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateShown {
    /// Absent for a root, or when the usage is neither.
    pub kind: Option<Kind>,
    /// Absent for a root.
    pub role: Option<Role>,
    /// Name in the network; a root's common name.
    pub name: String,
    /// As in RFC 4514.
    pub subject: String,
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate in DER, hexadecimal.
    pub sha256: String,
    /// DNS names and addresses.
    pub dialled_as: Vec<String>,
    /// UTC.
    pub not_before: String,
    /// UTC.
    pub not_after: String,
    /// Unix seconds.
    pub not_after_s: i64,
    /// Whole days to its end; negative when it is past.
    pub days_left: i64,
    /// Where it stands.
    pub state: State,
    /// When it is revoked.
    pub revoked: Option<RevocationShown>,
}

/// A revocation list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CrlShown {
    /// Its number.
    pub number: String,
    /// UTC.
    pub this_update: String,
    /// UTC: after this nobody gets in on its word.
    pub next_update: String,
    /// Whole days to its end.
    pub days_left: i64,
    /// How many certificates are on it.
    pub revoked: usize,
}

/// A network as its authority knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Trust domain.
    pub trust_domain: TrustDomain,
    /// The root.
    pub root: CertificateShown,
    /// The newest revocation list.
    pub crl: Option<CrlShown>,
    /// Every certificate, newest first.
    pub certificates: Vec<CertificateShown>,
}

/// What a PEM file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// Certificates, in the file's order.
    Certificates(Vec<CertificateShown>),
    /// A revocation list.
    Crl(CrlShown),
}

pub(super) fn network(authority: &Authority) -> Result<Network, AuthorityError> {
    let now_s = authority.now_s();
    let root = files::certificates(&authority.directory.join("root.pem"))?;
    let root = root.first().ok_or(IdentityError::Malformed)?;
    let certificates = authority.ledger().certificates().rev().map(|entry| of_entry(authority, entry, now_s));
    let crl = match show_file(&authority.crl_path(), now_s) {
        Ok(Shown::Crl(crl)) => Some(crl),
        _ => None,
    };
    Ok(Network {
        trust_domain: authority.trust_domain().clone(),
        root: of_der(root, now_s)?,
        crl,
        certificates: certificates.collect(),
    })
}

/// Shows the certificates or the revocation list in a PEM file.
pub fn show_file(path: &Path, now_s: i64) -> Result<Shown, AuthorityError> {
    match files::certificates(path) {
        Ok(chain) => Ok(Shown::Certificates(chain.iter().map(|der| of_der(der, now_s)).collect::<Result<_, _>>()?)),
        Err(FileError::Empty { .. }) => {
            let crls = files::crls(path)?;
            let malformed = || FileError::Malformed { path: path.to_owned(), what: "revocation list" };
            let der = crls.first().ok_or_else(malformed)?;
            let (_, crl) = CertificateRevocationList::from_der(der).map_err(|_| malformed())?;
            Ok(Shown::Crl(of_crl(&crl, now_s)))
        }
        Err(error) => Err(error.into()),
    }
}

fn of_entry(authority: &Authority, entry: &IssuedEntry, now_s: i64) -> CertificateShown {
    let revoked = authority.ledger().revocation(&entry.serial);
    let addresses = entry.addresses.iter().map(ToString::to_string);
    CertificateShown {
        kind: Some(entry.kind),
        role: Some(entry.role),
        name: entry.name.to_string(),
        subject: subject(entry),
        serial: entry.serial.clone(),
        sha256: entry.sha256.clone(),
        dialled_as: entry.dns.iter().cloned().chain(addresses).collect(),
        not_before: time(entry.not_before),
        not_after: time(entry.not_after),
        not_after_s: entry.not_after,
        days_left: days_left(entry.not_after, now_s),
        state: if revoked.is_some() { State::Revoked } else { state(entry.not_before, entry.not_after, now_s) },
        revoked: revoked.map(|revoked| RevocationShown { at: time(revoked.at), reason: Some(revoked.reason) }),
    }
}

fn subject(entry: &IssuedEntry) -> String {
    let display = entry.subject.display_name.iter().map(|name| format!("O={name}"));
    let identifier = entry.subject.organization_identifier.iter().map(|name| format!("organizationIdentifier={name}"));
    display.chain(identifier).chain([format!("CN={}", entry.name)]).collect::<Vec<_>>().join(", ")
}

fn of_der(der: &CertificateDer<'_>, now_s: i64) -> Result<CertificateShown, AuthorityError> {
    let certificate = identity::parse(der)?;
    let (from, to) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
    let names: Vec<_> = names.iter().flat_map(|names| &names.value.general_names).collect();
    let holder = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => holder(uri),
        _ => None,
    });
    let common = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let usages =
        certificate.extended_key_usage().map_err(|_| IdentityError::Malformed)?.map(|extension| extension.value);
    let kind = usages.and_then(|eku| match (eku.client_auth || eku.server_auth, eku.other.is_empty()) {
        (true, _) => Some(Kind::Tls),
        (false, false) => Some(Kind::Signing),
        (false, true) => None,
    });
    Ok(CertificateShown {
        kind,
        role: holder.as_ref().map(|(role, _)| *role),
        name: holder.map(|(_, name)| name).or(common.map(str::to_owned)).unwrap_or_default(),
        subject: certificate.subject().to_string(),
        serial: hex::encode(certificate.raw_serial()),
        sha256: Digest::of(der).to_hex(),
        dialled_as: names.iter().filter_map(|name| dialled(name)).collect(),
        not_before: time(from),
        not_after: time(to),
        not_after_s: to,
        days_left: days_left(to, now_s),
        state: state(from, to, now_s),
        revoked: None,
    })
}

fn holder(uri: &str) -> Option<(Role, String)> {
    let mut path = uri.strip_prefix("spiffe://")?.splitn(3, '/').skip(1);
    Some((path.next()?.parse().ok()?, path.next()?.to_owned()))
}

fn dialled(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

fn of_crl(crl: &CertificateRevocationList<'_>, now_s: i64) -> CrlShown {
    let ends_s = crl.next_update().map_or(0, |time| time.timestamp());
    CrlShown {
        number: crl.crl_number().map(ToString::to_string).unwrap_or_default(),
        this_update: time(crl.last_update().timestamp()),
        next_update: time(ends_s),
        days_left: days_left(ends_s, now_s),
        revoked: crl.iter_revoked_certificates().count(),
    }
}

fn state(from: i64, to: i64, now_s: i64) -> State {
    match now_s {
        now if now < from => State::NotYetValid,
        now if now > to => State::Expired,
        _ => State::Valid,
    }
}

fn days_left(to: i64, now_s: i64) -> i64 {
    (to - now_s).div_euclid(86_400)
}

/// UTC, RFC 3339.
pub(super) fn time(unix_s: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(unix_s).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| unix_s.to_string())
}
