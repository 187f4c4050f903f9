//! Identity: what a certificate says about who holds it.
//!
//! Knows the one form of name, `spiffe://<trust domain>/<role>/<name>`, and the extended key usages. Never knows whether the chain is
//! good: rustls or [`crate::trust`] has judged that before. Invariants: exactly one URI among the alternative names; a usage that is
//! not stated is not granted (rustls itself lets a certificate without any pass for every use).
use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tramite_proto::ids::{Digest, InstitutionName};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// SPIFFE allows 255 bytes for a trust domain (SPIFFE-ID §2.1).
const TRUST_DOMAIN_MAX: usize = 255;
/// documentSigning, RFC 9336: what signing certificates carry, and nothing else.
pub const DOCUMENT_SIGNING: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 36];

/// The network whose authority issued a certificate, e.g. `tramite.example`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URI of one of its members.
    #[must_use]
    pub fn uri(&self, role: Role, name: &InstitutionName) -> String {
        format!("spiffe://{}/{}/{}", self.0, role.as_str(), name.as_str())
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_');
        if (1..=TRUST_DOMAIN_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(IdentityError::TrustDomain)
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What its holder is in the network. What a role may do, others decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sends and receives messages through its adapter.
    Institution,
    /// Sees and mends queues.
    Operator,
    /// Reads and proves the log.
    Auditor,
    /// The hub.
    Gateway,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Institution, Self::Operator, Self::Auditor, Self::Gateway];

    /// As in the URI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Institution => "institution",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(IdentityError::Role)
    }
}

/// What a certificate is presented for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// A TLS client's.
    Client,
    /// A TLS server's.
    Server,
    /// Signatures on statements; a certificate that is also good for TLS is not good for this.
    Signing,
}

/// Why a certificate tells no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not an X.509 certificate that can be read.
    #[error("the certificate cannot be read")]
    Malformed,
    /// No URI among its alternative names.
    #[error("the certificate has no SAN URI")]
    NoSan,
    /// More than one URI.
    #[error("the certificate has more than one SAN URI")]
    AmbiguousSan,
    /// A URI that is not of this trust domain, or not of the form.
    #[error("the certificate's SAN URI is not spiffe://{trust_domain}/<role>/<name>")]
    ForeignSan {
        /// The trust domain that was expected.
        trust_domain: TrustDomain,
    },
    /// The extended key usage that is needed is not there.
    #[error("the certificate's extended key usage does not say {0}")]
    Purpose(&'static str),
    /// A trust domain is 1 to 255 of `[a-z0-9._-]`.
    #[error("a trust domain has 1 to 255 lower-case letters, digits, points, hyphens and underscores")]
    TrustDomain,
    /// Not a role.
    #[error("a role is one of institution, operator, auditor, gateway")]
    Role,
}

/// Who holds a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    role: Role,
    name: InstitutionName,
    trust_domain: TrustDomain,
    fingerprint: Digest,
    not_after_s: i64,
}

impl Peer {
    /// Reads the holder out of a certificate whose chain was verified.
    pub fn from_certificate(der: &[u8], trust_domain: &TrustDomain, usage: Usage) -> Result<Self, IdentityError> {
        let certificate = parse(der)?;
        let (role, name) = holder(&certificate, trust_domain)?;
        check_usage(&certificate, usage)?;
        let not_after_s = certificate.validity().not_after.timestamp();
        Ok(Self { role, name, trust_domain: trust_domain.clone(), fingerprint: Digest::of(der), not_after_s })
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its name; for an institution, the one in statements and policy.
    #[must_use]
    pub fn name(&self) -> &InstitutionName {
        &self.name
    }

    /// The network that it belongs to.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// SHA-256 of the certificate in DER.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The certificate's last second, unix.
    #[must_use]
    pub fn not_after_s(&self) -> i64 {
        self.not_after_s
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

/// What a certificate says of itself, whatever its network: for its own holder, who needs nobody's word for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The network.
    pub trust_domain: TrustDomain,
    /// The role in it.
    pub role: Role,
    /// The name in it.
    pub name: InstitutionName,
}

/// Reads the holder out of one's own certificate. Never for a peer's: it believes any trust domain.
pub fn holder_of(der: &[u8]) -> Result<Holder, IdentityError> {
    let certificate = parse(der)?;
    let domain = only_uri(&certificate)?.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
    let trust_domain: TrustDomain = domain.unwrap_or_default().parse()?;
    let (role, name) = holder(&certificate, &trust_domain)?;
    Ok(Holder { trust_domain, role, name })
}

/// Reads a certificate, all of it and nothing more.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(IdentityError::Malformed),
    }
}

fn holder(certificate: &X509Certificate<'_>, domain: &TrustDomain) -> Result<(Role, InstitutionName), IdentityError> {
    split(only_uri(certificate)?, domain).ok_or_else(|| IdentityError::ForeignSan { trust_domain: domain.clone() })
}

fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, IdentityError> {
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().ok_or(IdentityError::NoSan)?;
    if uris.next().is_some() {
        return Err(IdentityError::AmbiguousSan);
    }
    Ok(uri)
}

fn split(uri: &str, domain: &TrustDomain) -> Option<(Role, InstitutionName)> {
    let path = uri.strip_prefix("spiffe://")?.strip_prefix(domain.as_str())?.strip_prefix('/')?;
    let (role, name) = path.split_once('/')?;
    Some((role.parse().ok()?, name.parse().ok()?))
}

fn check_usage(certificate: &X509Certificate<'_>, usage: Usage) -> Result<(), IdentityError> {
    let stated = certificate.extended_key_usage().map_err(|_| IdentityError::Malformed)?;
    let stated = stated.map(|extension| extension.value);
    let says = |which: fn(&x509_parser::extensions::ExtendedKeyUsage<'_>) -> bool| stated.is_some_and(which);
    match usage {
        Usage::Client if !says(|eku| eku.client_auth) => Err(IdentityError::Purpose("clientAuth")),
        Usage::Server if !says(|eku| eku.server_auth) => Err(IdentityError::Purpose("serverAuth")),
        Usage::Signing if !says(signs_documents) || says(|eku| eku.client_auth || eku.server_auth || eku.any) => {
            Err(IdentityError::Purpose("documentSigning and no TLS usage"))
        }
        _ => Ok(()),
    }
}

fn signs_documents(eku: &x509_parser::extensions::ExtendedKeyUsage<'_>) -> bool {
    eku.other.iter().any(|oid| oid.iter().is_some_and(|mut arcs| arcs.by_ref().eq(DOCUMENT_SIGNING)))
}

#[cfg(test)]
mod tests;
