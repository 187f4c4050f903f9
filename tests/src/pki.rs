//! Who is who in a test network: the authority that the product makes, and badges that it would never issue.
//!
//! Bundles come from `tramite_certs`, as an operator would make them. A [`Forger`] writes certificates field by field instead:
//! signed by the network's own authority (a mistake of its operator), or by another one of the same name (a thief).

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SigningKey,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use time::OffsetDateTime;
use tramite_certs::{
    authority::{Authority, BundleOptions, Renewal, RevocationReason, issue_bundle, renew},
    identity::Role,
};
use tramite_proto::clock::{ManualClock, SystemClock};

use crate::{
    config::GATEWAY,
    forge::{Pen, now_s},
};

/// The trust domain of every test network.
pub const TRUST_DOMAIN: &str = "tramite.test";
/// The operator of every test network.
pub const OPERATOR: &str = "operator";
/// RFC 9336: document signing.
const DOCUMENT_SIGNING: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 36];
const DAY: Duration = Duration::from_secs(86_400);

/// A TLS certificate and its key: what a client shows.
#[derive(Debug, Clone)]
pub struct Badge {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8 DER.
    pub key: Vec<u8>,
}

impl Badge {
    /// The badge of a bundle.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn read(bundle: &Path) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(bundle.join("tls.pem"))?
            .map(|certificate| Ok(certificate?.to_vec()))
            .collect::<Result<Vec<_>>>()?;
        let key = PrivatePkcs8KeyDer::from_pem_file(bundle.join("tls.key"))?;
        Ok(Self { chain, key: key.secret_pkcs8_der().to_vec() })
    }
}

/// What stands in a certificate.
#[derive(Debug, Clone)]
pub struct Fields {
    /// URI names.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Extended key usages.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// Valid from.
    pub from: OffsetDateTime,
    /// Valid until.
    pub until: OffsetDateTime,
}

impl Fields {
    /// A client certificate as it should be.
    #[must_use]
    pub fn client(role: &str, name: &str) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            uris: vec![spiffe(role, name)],
            dns: Vec::new(),
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            from: now - DAY,
            until: now + DAY,
        }
    }

    /// A signing certificate as it should be.
    #[must_use]
    pub fn signing(role: &str, name: &str) -> Self {
        Self { usages: vec![ExtendedKeyUsagePurpose::Other(DOCUMENT_SIGNING.to_vec())], ..Self::client(role, name) }
    }
}

/// A name as it stands in a certificate.
#[must_use]
pub fn spiffe(role: &str, name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{role}/{name}")
}

/// An authority that signs anything.
#[derive(Debug)]
pub struct Forger {
    issuer: Issuer<'static, KeyPair>,
}

impl Forger {
    /// The network's own authority, with the key that its operator keeps.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn of(authority: &Path) -> Result<Self> {
        let pem = fs::read_to_string(authority.join("root.pem"))?;
        let key = KeyPair::from_pem(&fs::read_to_string(authority.join("root.key"))?)?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, key)? })
    }

    /// Another authority under the very name of the network's own: only its key differs.
    ///
    /// # Errors
    /// When a certificate cannot be made.
    pub fn stranger(authority: &Path) -> Result<Self> {
        let pem = fs::read_to_string(authority.join("root.pem"))?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, KeyPair::generate()?)? })
    }

    /// A badge with the given fields.
    ///
    /// # Errors
    /// When a certificate cannot be made of them.
    pub fn badge(&self, fields: &Fields) -> Result<Badge> {
        let key = KeyPair::generate()?;
        Ok(Badge { chain: vec![self.certificate(fields, &key)?], key: key.serialize_der() })
    }

    /// A pen with the given fields, its chain without the root.
    ///
    /// # Errors
    /// When a certificate cannot be made of them.
    pub fn pen(&self, issuer: &str, fields: &Fields) -> Result<Pen> {
        let key = KeyPair::generate()?;
        Pen::new(issuer, vec![self.certificate(fields, &key)?], &key.serialize_der())
    }

    /// A certificate with the given fields and its key, both in PEM.
    ///
    /// # Errors
    /// When a certificate cannot be made of them.
    pub fn pem(&self, fields: &Fields) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        Ok((self.params(fields)?.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    fn certificate(&self, fields: &Fields, key: &impl SigningKey) -> Result<Vec<u8>> {
        Ok(self.params(fields)?.signed_by(key, &self.issuer)?.der().to_vec())
    }

    fn params(&self, fields: &Fields) -> Result<CertificateParams> {
        // Addresses among the names become addresses.
        let mut params = CertificateParams::new(fields.dns.clone())?;
        for uri in &fields.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "forged");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = fields.usages.clone();
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (fields.from, fields.until);
        Ok(params)
    }
}

/// The network's authority and the bundles that it issued.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// Makes an authority, and bundles for a gateway on loopback, the institutions, and an operator.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn make(folder: &Path, institutions: &[&str]) -> Result<Self> {
        let mut authority = Authority::init(folder, TRUST_DOMAIN.parse()?, Arc::new(SystemClock))?;
        let loopback = BundleOptions {
            dns: vec!["localhost".into()],
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            ..BundleOptions::default()
        };
        issue_bundle(&mut authority, Role::Gateway, &GATEWAY.parse()?, &folder.join(GATEWAY), &loopback)?;
        let others = institutions.iter().map(|name| (Role::Institution, *name)).chain([(Role::Operator, OPERATOR)]);
        for (role, name) in others {
            issue_bundle(&mut authority, role, &name.parse()?, &folder.join(name), &BundleOptions::default())?;
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// Revokes the TLS certificate of a bundle; the new list is the authority's `crl.pem`.
    ///
    /// # Errors
    /// When it was not issued here.
    pub fn revoke(&self, name: &str) -> Result<()> {
        let mut authority = Authority::open(&self.folder, Arc::new(SystemClock))?;
        authority.revoke_file(&self.bundle(name).join("tls.pem"), RevocationReason::KeyCompromise)?;
        Ok(())
    }

    /// Writes a revocation list that ends soon, as an authority leaves it that was forgotten for a day.
    ///
    /// # Errors
    /// When the list cannot be made.
    pub fn list_that_ends_in(&self, soon: Duration) -> Result<()> {
        let made_s = now_s() - i64::try_from(DAY.as_secs())? + i64::try_from(soon.as_secs())?;
        Authority::open(&self.folder, Arc::new(ManualClock::new(made_s * 1000)))?.crl(1)?;
        Ok(())
    }

    /// Renews the TLS certificate of a bundle, with a new key.
    ///
    /// # Errors
    /// When it was not issued here.
    pub fn renew(&self, name: &str) -> Result<()> {
        let mut authority = Authority::open(&self.folder, Arc::new(SystemClock))?;
        renew(&mut authority, &self.bundle(name), Renewal::Tls, None)?;
        Ok(())
    }

    /// The folder with the authority's own files.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.join("authority")
    }

    /// The network's own authority as a forger.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn forger(&self) -> Result<Forger> {
        Forger::of(&self.authority())
    }

    /// The folder of a bundle.
    #[must_use]
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The badge of a participant.
    ///
    /// # Errors
    /// When it has none.
    pub fn badge(&self, name: &str) -> Result<Badge> {
        Badge::read(&self.bundle(name)).with_context(|| format!("the badge of {name}"))
    }

    /// The pen of a participant.
    ///
    /// # Errors
    /// When it has none.
    pub fn pen(&self, name: &str) -> Result<Pen> {
        let bundle = self.bundle(name);
        Pen::read(name, &bundle.join("sign.pem"), &bundle.join("sign.key"))
    }
}
