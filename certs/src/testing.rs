//! The stage of the tests: an authority in a directory of its own, a clock that stands still, and certificates that no authority of
//! ours would write.
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use time::OffsetDateTime;
use tramite_proto::{clock::ManualClock, ids::InstitutionName};

use crate::{
    authority::{Authority, BundleOptions, issue_bundle},
    files,
    identity::{Role, TrustDomain},
    secrets,
    tls::{ClientTls, ServerTls, TlsFiles, provider},
    trust::{Trust, TrustFiles},
};

pub(crate) const NOW_S: i64 = 1_800_000_000;
pub(crate) const DAY_S: i64 = 86_400;

pub(crate) fn domain() -> TrustDomain {
    "tramite.test".parse().unwrap()
}

pub(crate) fn name(text: &str) -> InstitutionName {
    text.parse().unwrap()
}

/// An authority and what it issued.
pub(crate) struct Stage {
    pub(crate) directory: TempDir,
    pub(crate) authority: Authority,
    pub(crate) clock: ManualClock,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(NOW_S * 1000);
        let authority = Authority::init(directory.path(), domain(), Arc::new(clock.clone())).unwrap();
        Self { directory, authority, clock }
    }

    /// Issues a bundle; a gateway's is dialled as 127.0.0.1.
    pub(crate) fn bundle(&mut self, role: Role, text: &str) -> PathBuf {
        let addresses = if role == Role::Gateway { vec!["127.0.0.1".parse().unwrap()] } else { vec![] };
        self.bundle_with(role, text, &BundleOptions { addresses, ..BundleOptions::default() })
    }

    pub(crate) fn bundle_with(&mut self, role: Role, text: &str, options: &BundleOptions) -> PathBuf {
        let out = self.directory.path().join(format!("{role}-{text}"));
        issue_bundle(&mut self.authority, role, &name(text), &out, options).unwrap();
        out
    }

    pub(crate) fn server(&self, bundle: &Path) -> ServerTls {
        ServerTls::load(TlsFiles::in_bundle(bundle), domain(), Arc::new(self.clock.clone())).unwrap()
    }

    pub(crate) fn client(&self, bundle: &Path) -> ClientTls {
        ClientTls::load(TlsFiles::in_bundle(bundle), domain(), Arc::new(self.clock.clone())).unwrap()
    }

    pub(crate) fn trust(&self) -> Trust {
        let roots = self.directory.path().join("authority/root.pem");
        let files = TrustFiles { roots, crl: Some(self.authority.crl_path()) };
        Trust::load(files, domain(), Arc::new(self.clock.clone())).unwrap()
    }

    /// The authority's own issuer, in a forger's hands.
    pub(crate) fn issuer(&self) -> Issuer<'static, KeyPair> {
        let at = |file: &str| fs::read_to_string(self.directory.path().join("authority").join(file)).unwrap();
        Issuer::from_ca_cert_pem(&at("root.pem"), KeyPair::from_pem(&at("root.key")).unwrap()).unwrap()
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        files::certificates(&self.directory.path().join("authority/root.pem")).unwrap().remove(0)
    }

    /// A raw client: no certificate unless given, HTTP/2 offered.
    pub(crate) fn raw_client(&self, badge: Option<Badge>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root()).unwrap();
        let hour = Arc::new(Still(self.clock.clone()));
        let builder = ClientConfig::builder_with_details(provider(), hour)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match badge {
            Some(badge) => builder.with_client_auth_cert(badge.chain, badge.key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

#[derive(Debug)]
struct Still(ManualClock);

impl rustls::time_provider::TimeProvider for Still {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        use tramite_proto::clock::Clock as _;
        Some(crate::anchors::unix_time(self.0.now_s()))
    }
}

/// A chain and its key.
pub(crate) struct Badge {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Clone for Badge {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Badge {
    pub(crate) fn of(bundle: &Path) -> Self {
        let chain = files::certificates(&bundle.join("tls.pem")).unwrap();
        Self { chain, key: secrets::load_tls_key(&bundle.join("tls.key")).unwrap() }
    }
}

/// The fields of a certificate, right until they are changed.
#[derive(Clone)]
pub(crate) struct Fields {
    pub(crate) uris: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) from_s: i64,
    pub(crate) to_s: i64,
}

impl Fields {
    pub(crate) fn client(uri: &str) -> Self {
        Self {
            uris: vec![uri.to_owned()],
            dns: vec![],
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            from_s: NOW_S - DAY_S,
            to_s: NOW_S + DAY_S,
        }
    }

    pub(crate) fn signing(uri: &str) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::Other(crate::identity::DOCUMENT_SIGNING.to_vec())];
        Self { usages, ..Self::client(uri) }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::new(self.dns.clone()).unwrap();
        params.subject_alt_names.extend(self.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "spiffe://tramite.test/institution/inps");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = self.usages.clone();
        params.use_authority_key_identifier_extension = true;
        params.not_before = OffsetDateTime::from_unix_timestamp(self.from_s).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(self.to_s).unwrap();
        params
    }

    pub(crate) fn signed_by(&self, issuer: &Issuer<'_, KeyPair>) -> Badge {
        let (chain, key) = self.signed_with_key(issuer);
        Badge { chain: vec![chain], key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
    }

    pub(crate) fn signed_with_key(&self, issuer: &Issuer<'_, KeyPair>) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (self.params().signed_by(&key, issuer).unwrap().der().clone(), key)
    }
}

/// An authority under the same name with another key.
pub(crate) fn stranger(stage: &Stage) -> Issuer<'static, KeyPair> {
    let root = stage.root();
    Issuer::from_ca_cert_der(&root, KeyPair::generate().unwrap()).unwrap()
}
