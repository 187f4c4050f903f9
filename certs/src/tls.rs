//! TLS as Tramite speaks it: 1.3 only, mutual, hybrid post-quantum key exchange preferred, revocation lists enforced, no resumption.
//!
//! Knows files, rustls' configurations, and when they change. Never knows addresses or connections. Invariants: own certificate and
//! key belong together, tell an identity of this trust domain and chain to the roots before they are used; a revocation list past its
//! end lets nobody in; a bad new certificate does not hold up a new revocation list, nor the other way round.
//! Resumption is off: a resumed session would go past the revocation list, and few long-lived connections gain nothing by it.
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CipherSuite, ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, kx_group},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tramite_proto::clock::Clock;

use crate::{
    anchors::{AnchorError, Anchors, unix_time},
    files::{self, FileError},
    identity::{IdentityError, Peer, TrustDomain, Usage},
    reload::{Loaded, Reloadable},
    secrets::{self, SecretError},
};

/// HTTP/2, as every gRPC client offers it.
pub(crate) const ALPN_H2: &[u8] = b"h2";
/// An adapter's or gateway's log warns when certificate or list end sooner than that.
const WARN_BEFORE_S: i64 = 86_400;

/// Where certificate, key, roots and revocation list are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain in PEM, leaf first.
    pub cert: PathBuf,
    /// Its key in PEM, mode 0600.
    pub key: PathBuf,
    /// The authority's roots in PEM, got out of band.
    pub roots: PathBuf,
    /// The authority's revocation lists in PEM. Without them nobody is ever revoked.
    #[serde(default)]
    pub crl: Option<PathBuf>,
}

impl TlsFiles {
    /// As an issued bundle has them: `tls.pem`, `tls.key`, `root.pem`, `crl.pem`.
    #[must_use]
    pub fn in_bundle(directory: &Path) -> Self {
        let at = |name: &str| directory.join(name);
        Self { cert: at("tls.pem"), key: at("tls.key"), roots: at("root.pem"), crl: Some(at("crl.pem")) }
    }

    /// With relative paths taken from `base`, the directory of the configuration file.
    #[must_use]
    pub fn relative_to(&self, base: &Path) -> Self {
        let at = |path: &PathBuf| base.join(path);
        Self { cert: at(&self.cert), key: at(&self.key), roots: at(&self.roots), crl: self.crl.as_ref().map(at) }
    }

    fn all(&self) -> Vec<PathBuf> {
        [&self.cert, &self.key, &self.roots].into_iter().chain(&self.crl).cloned().collect()
    }
}

/// Why TLS cannot be set up, or not be reloaded.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Roots or lists.
    #[error(transparent)]
    Anchors(#[from] AnchorError),
    /// The certificate's file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key's file.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The own certificate tells no identity of this network.
    #[error("{} does not serve here", path.display())]
    Identity {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// Certificate and key do not belong together, or the key's kind is not supported.
    #[error("{} and its key do not belong together", path.display())]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The own certificate is not one that peers would accept.
    #[error("{} would be refused by every peer", path.display())]
    Own {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: webpki::Error,
    },
    /// rustls does not take the configuration.
    #[error("TLS cannot be set up from these files")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What an operator wants to know of a TLS side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlsStatus {
    /// The own certificate's last second, unix.
    pub certificate_ends_s: i64,
    /// The end of the revocation list that ends first, unix seconds.
    pub crl_ends_s: Option<i64>,
    /// Rises with each successful reload.
    pub generation: u64,
    /// What the last reload said, when it failed.
    pub last_error: Option<String>,
}

/// Own chain and key.
#[derive(Debug)]
struct Own {
    key: Arc<CertifiedKey>,
    peer: Peer,
}

/// What both sides are made of.
#[derive(Debug)]
struct Parts {
    own: Arc<Own>,
    anchors: Arc<Anchors>,
}

#[derive(Debug)]
pub(crate) struct ServerSide {
    parts: Parts,
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
}

#[derive(Debug)]
pub(crate) struct ClientSide {
    parts: Parts,
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) verifier: Arc<dyn ServerCertVerifier>,
}

/// Declares a side's handle: load, reload, run, status.
macro_rules! side {
    ($(#[$meta:meta])* $Handle:ident, $Side:ident, $what:literal, $usage:expr, $build:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        pub struct $Handle {
            inner: Arc<Reloadable<$Side, TlsError>>,
            trust_domain: TrustDomain,
            clock: Arc<dyn Clock>,
        }

        impl $Handle {
            /// Reads and checks the files. Any error is final here.
            pub fn load(files: TlsFiles, trust_domain: TrustDomain, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
                let (domain, hour, paths) = (trust_domain.clone(), Arc::clone(&clock), files.all());
                let load = move |before: Option<&$Side>| {
                    let (parts, error) = load_parts(&files, &domain, $usage, before.map(|side| &side.parts), &*hour);
                    match parts.map(|parts| $build(parts, Arc::clone(&hour))) {
                        Some(Ok(side)) => Loaded { value: Some(side), error },
                        Some(Err(setup)) => Loaded { value: None, error: error.or(Some(setup)) },
                        None => Loaded { value: None, error },
                    }
                };
                let inner = Reloadable::start($what, paths, load)?;
                Ok(Self { inner, trust_domain, clock })
            }

            /// Reads the files again, now; open connections stay open, unless their peer's certificate no longer counts.
            pub fn reload(&self) -> Result<(), TlsError> {
                self.inner.reload()
            }

            /// Reloads whenever the files change, until `stop`.
            pub async fn run(self, stop: CancellationToken) {
                Arc::clone(&self.inner).run(stop).await;
            }

            /// For metrics and overviews.
            #[must_use]
            pub fn status(&self) -> TlsStatus {
                let side = self.inner.current();
                TlsStatus {
                    certificate_ends_s: side.parts.own.peer.not_after_s(),
                    crl_ends_s: side.parts.anchors.crl_ends_s(),
                    generation: self.inner.generation(),
                    last_error: self.inner.last_error(),
                }
            }

            /// Who we are by our own certificate.
            #[must_use]
            pub fn own(&self) -> Peer {
                self.inner.current().parts.own.peer.clone()
            }

            /// The network.
            #[must_use]
            pub fn trust_domain(&self) -> &TrustDomain {
                &self.trust_domain
            }

            /// Tells of each reload.
            #[must_use]
            pub fn changes(&self) -> watch::Receiver<u64> {
                self.inner.changes()
            }

            pub(crate) fn current(&self) -> Arc<$Side> {
                self.inner.current()
            }

            pub(crate) fn now(&self) -> UnixTime {
                unix_time(self.clock.now_s())
            }
        }
    };
}

side! {
    /// The listening side. Clones share one state.
    ServerTls, ServerSide, "server TLS", Usage::Server, build_server
}
side! {
    /// The dialling side. Clones share one state.
    ClientTls, ClientSide, "client TLS", Usage::Client, build_client
}

/// Loads own key and anchors, each for itself: what fails stays as it was before.
fn load_parts(
    files: &TlsFiles,
    domain: &TrustDomain,
    usage: Usage,
    before: Option<&Parts>,
    clock: &dyn Clock,
) -> (Option<Parts>, Option<TlsError>) {
    let anchors = Anchors::load(&files.roots, files.crl.as_deref(), before.map(|parts| &*parts.anchors), clock);
    let (anchors, anchors_error) = match anchors {
        Ok(anchors) => (Some(Arc::new(anchors)), None),
        Err(error) => (before.map(|parts| Arc::clone(&parts.anchors)), Some(TlsError::from(error))),
    };
    let Some(anchors) = anchors else { return (None, anchors_error) };
    let (own, own_error) = match load_own(files, domain, usage, &anchors, clock) {
        Ok(own) => (Some(Arc::new(own)), None),
        Err(error) => (before.map(|parts| Arc::clone(&parts.own)), Some(error)),
    };
    let error = anchors_error.or(own_error);
    let Some(own) = own else { return (None, error) };
    warn_of_ends(&own.peer, &anchors, clock);
    (Some(Parts { own, anchors }), error)
}

fn load_own(
    files: &TlsFiles,
    domain: &TrustDomain,
    usage: Usage,
    anchors: &Anchors,
    clock: &dyn Clock,
) -> Result<Own, TlsError> {
    let path = || files.cert.clone();
    let chain = files::certificates(&files.cert)?;
    let key = secrets::load_tls_key(&files.key)?;
    let (leaf, others) = chain.split_first().expect("a file without certificates was refused");
    let peer = Peer::from_certificate(leaf, domain, usage);
    let peer = peer.map_err(|source| TlsError::Identity { path: path(), source })?;
    // Whether we are revoked ourselves is for our peers to judge: it must not keep us from taking a new list.
    let end_entity = webpki::EndEntityCert::try_from(leaf).map_err(|source| TlsError::Own { path: path(), source })?;
    let eku = if usage == Usage::Server { webpki::KeyUsage::server_auth() } else { webpki::KeyUsage::client_auth() };
    let now = unix_time(clock.now_s());
    let good =
        end_entity.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors.anchors, others, now, eku, None, None);
    good.map_err(|source| TlsError::Own { path: path(), source })?;
    if anchors.revoked(leaf).is_some() {
        tracing::error!(certificate = %files.cert.display(), "our own certificate is revoked: peers refuse it");
    }
    let key = CertifiedKey::from_der(chain, key, &provider());
    let key = key.map_err(|source| TlsError::Pair { path: path(), source })?;
    Ok(Own { key: Arc::new(key), peer })
}

fn warn_of_ends(own: &Peer, anchors: &Anchors, clock: &dyn Clock) {
    let soon = clock.now_s() + WARN_BEFORE_S;
    if own.not_after_s() < soon {
        tracing::warn!(peer = %own, ends_s = own.not_after_s(), "our certificate ends within a day: renew it");
    }
    if let Some(ends_s) = anchors.crl_ends_s().filter(|ends| *ends < soon) {
        tracing::warn!(ends_s, "the revocation list ends within a day, and then nobody gets in: fetch a new one");
    }
}

fn build_server(parts: Parts, clock: Arc<dyn Clock>) -> Result<ServerSide, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&parts.anchors)?, provider())
        .with_crls(parts.anchors.crls.iter().map(|crl| crl.der.clone()))
        .enforce_revocation_expiration()
        .build()
        .map_err(setup)?;
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(Hour(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?
        .with_client_cert_verifier(Arc::clone(&verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&parts.own.key))));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(ServerSide { parts, config: Arc::new(config), verifier })
}

fn build_client(parts: Parts, clock: Arc<dyn Clock>) -> Result<ClientSide, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(&parts.anchors)?, provider())
        .with_crls(parts.anchors.crls.iter().map(|crl| crl.der.clone()))
        .enforce_revocation_expiration()
        .build()
        .map_err(setup)?;
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(Hour(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?
        .with_webpki_verifier(Arc::clone(&verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&parts.own.key))));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(ClientSide { parts, config: Arc::new(config), verifier })
}

fn roots(anchors: &Anchors) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in &anchors.roots {
        store.add(root.clone()).map_err(setup)?;
    }
    Ok(Arc::new(store))
}

fn setup(error: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Setup(Box::new(error))
}

/// aws-lc-rs with what TLS 1.3 needs, the hybrid post-quantum key exchange first.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    provider.cipher_suites.retain(|suite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        )
    });
    Arc::new(provider)
}

/// Our clock as rustls wants it.
#[derive(Debug)]
struct Hour(Arc<dyn Clock>);

impl TimeProvider for Hour {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now_s()))
    }
}

#[cfg(test)]
mod tests;
