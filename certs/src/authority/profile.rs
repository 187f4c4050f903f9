//! Profiles: what stands in each certificate and list.
//!
//! Knows X.509 through rcgen. Never knows files. Invariants: keys are ECDSA P-256 (Ed25519 server certificates are refused by grpcio,
//! and OpenSSL 3.0 cannot read rcgen's Ed25519 keys); a leaf has exactly one URI; a signing leaf has no TLS usage.
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::{AuthorityError, CrlEntry, IssuedEntry, Kind, ROOT_DAYS, RevocationReason, RevokedEntry};
use crate::{
    identity::{DOCUMENT_SIGNING, Role, TrustDomain},
    secrets::SecretError,
};

/// Certificates begin five minutes early: clocks differ.
pub(super) const BACKDATED_S: i64 = 300;
/// organizationIdentifier, X.520.
const ORGANIZATION_IDENTIFIER: [u64; 4] = [2, 5, 4, 97];
/// Bounds of commonName, RFC 5280 appendix A.1.
const COMMON_NAME_MAX: usize = 64;
/// A public serial: 127 random bits, positive and without leading zeros, so that it has one spelling.
const SERIAL_LEN: usize = 16;

pub(super) fn serial() -> Result<String, AuthorityError> {
    let mut bytes = [0; SERIAL_LEN];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SecretError::NoRandomness)?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(hex::encode(bytes))
}

fn serial_number(serial: &str) -> Result<SerialNumber, AuthorityError> {
    let bytes = hex::decode(serial).map_err(|_| AuthorityError::UnknownSerial(serial.to_owned()))?;
    Ok(SerialNumber::from(bytes))
}

fn at(unix_s: i64) -> Result<OffsetDateTime, AuthorityError> {
    OffsetDateTime::from_unix_timestamp(unix_s).map_err(|_| AuthorityError::Request(format!("{unix_s} is no time")))
}

/// The root and its key.
pub(super) fn root(trust_domain: &TrustDomain, now_s: i64) -> Result<(Certificate, KeyPair), AuthorityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Tramite");
    subject.push(DnType::CommonName, trust_domain.as_str().chars().take(COMMON_NAME_MAX).collect::<String>());
    params.distinguished_name = subject;
    params.serial_number = Some(serial_number(&serial()?)?);
    params.not_before = at(now_s - BACKDATED_S)?;
    params.not_after = at(now_s + i64::from(ROOT_DAYS) * 86_400)?;
    // Room for one intermediate, should a network want to keep the root offline.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params.self_signed(&key)?, key))
}

/// A leaf of either kind.
pub(super) fn leaf(entry: &IssuedEntry, trust_domain: &TrustDomain) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(entry);
    params.serial_number = Some(serial_number(&entry.serial)?);
    params.not_before = at(entry.not_before)?;
    params.not_after = at(entry.not_after)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![SanType::URI(trust_domain.uri(entry.role, &entry.name).try_into()?)];
    for name in &entry.dns {
        // Written as given, and therefore checked: rustls would refuse the certificate only when it is dialled.
        rustls_pki_types::DnsName::try_from(name.as_str())
            .map_err(|_| AuthorityError::Request(format!("`{name}` is not a DNS name")))?;
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.subject_alt_names.extend(entry.addresses.iter().map(|address| SanType::IpAddress(*address)));
    params.extended_key_usages = usages(entry);
    Ok(params)
}

fn usages(entry: &IssuedEntry) -> Vec<ExtendedKeyUsagePurpose> {
    let dialled = !entry.dns.is_empty() || !entry.addresses.is_empty();
    match (entry.kind, entry.role) {
        (Kind::Signing, _) => vec![ExtendedKeyUsagePurpose::Other(DOCUMENT_SIGNING.to_vec())],
        (Kind::Tls, Role::Gateway) => vec![ExtendedKeyUsagePurpose::ServerAuth],
        // An adapter that listens for its own back office; callers expect its role and name, so it is no gateway by that.
        (Kind::Tls, _) if dialled => vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
        (Kind::Tls, _) => vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
}

fn subject(entry: &IssuedEntry) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(name) = &entry.subject.display_name {
        subject.push(DnType::OrganizationName, name.as_str());
    }
    if let Some(identifier) = &entry.subject.organization_identifier {
        subject.push(DnType::from_oid(&ORGANIZATION_IDENTIFIER), identifier.as_str());
    }
    subject.push(DnType::CommonName, entry.name.as_str());
    subject
}

/// A revocation list.
pub(super) fn crl<'a>(
    entry: &CrlEntry,
    revoked: impl Iterator<Item = &'a RevokedEntry>,
) -> Result<CertificateRevocationListParams, AuthorityError> {
    let revoked_certs = revoked
        .map(|revoked| {
            Ok(RevokedCertParams {
                serial_number: serial_number(&revoked.serial)?,
                revocation_time: at(revoked.at)?,
                reason_code: Some(reason(revoked.reason)),
                invalidity_date: None,
            })
        })
        .collect::<Result<_, AuthorityError>>()?;
    Ok(CertificateRevocationListParams {
        this_update: at(entry.this_update)?,
        next_update: at(entry.next_update)?,
        crl_number: SerialNumber::from(entry.number),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    })
}

fn reason(reason: RevocationReason) -> rcgen::RevocationReason {
    match reason {
        RevocationReason::KeyCompromise => rcgen::RevocationReason::KeyCompromise,
        RevocationReason::AffiliationChanged => rcgen::RevocationReason::AffiliationChanged,
        RevocationReason::Superseded => rcgen::RevocationReason::Superseded,
        RevocationReason::CessationOfOperation => rcgen::RevocationReason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn => rcgen::RevocationReason::PrivilegeWithdrawn,
    }
}
