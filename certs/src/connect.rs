//! Dialling: a connection, TLS 1.3, and who must answer; a tower service that tonic connects with.
//!
//! Knows one address and who is expected there. Never knows calls. Invariants: no byte goes up before the server's certificate was
//! verified against the pinned roots, fits the address dialled, and tells the expected role and name; a server whose certificate no
//! longer counts is cut off as on the listening side.
use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::sync::watch;
use tokio_rustls::{TlsConnector, TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tower::Service;
use tramite_proto::ids::InstitutionName;

use crate::{
    farewell::Farewells,
    identity::{Peer, Role, Usage},
    limits::SWEEP_EVERY,
    network::{Network, Tcp},
    refusal::Refusal,
    reload,
    stream::{Keep, PeerStream},
    tls::{ALPN_H2, ClientTls},
};

/// TCP and handshake together: a handshake takes a millisecond and two round trips.
pub const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A dead line is noticed within the sum of both, also when nothing is said.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
/// How long the answer to a keep-alive may take.
pub const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(10);
/// Flow control of one stream: larger windows gain nothing measurable, 64 KiB (HTTP/2's default) lose half.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// Of the connection: also what h2 allows in small frames before it kills the connection, half of it.
pub const CONNECTION_WINDOW: u32 = 2 << 20;

/// Who must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// In this role.
    pub role: Role,
    /// Under this name.
    pub name: InstitutionName,
}

impl Expected {
    /// The hub of this name.
    #[must_use]
    pub fn gateway(name: InstitutionName) -> Self {
        Self { role: Role::Gateway, name }
    }
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not `host:port`: correct the configuration.
    #[error("`{0}` is not an address of the form host:port")]
    Address(String),
    /// Nobody answers there: try again later.
    #[error("cannot reach {address}")]
    Unreachable {
        /// What was dialled.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long: try again later.
    #[error("{address} did not answer within {} s", CONNECT_MAX.as_secs())]
    TooSlow {
        /// What was dialled.
        address: String,
    },
    /// The handshake failed, or somebody else answered.
    #[error("{address} refused: {refusal}: {detail}")]
    Refused {
        /// What was dialled.
        address: String,
        /// The stable word.
        refusal: Refusal,
        /// What happened.
        detail: String,
    },
}

/// Dials one address.
#[derive(Clone)]
pub struct Connector {
    address: Arc<str>,
    server_name: ServerName<'static>,
    tls: ClientTls,
    expected: Arc<Expected>,
    farewells: Farewells,
    network: Arc<dyn Network>,
}

impl Connector {
    /// For `address` (`host:port`; the host must be among the server certificate's DNS names or addresses).
    pub fn new(address: &str, tls: ClientTls, expected: Expected) -> Result<Self, ConnectError> {
        let wrong = || ConnectError::Address(address.to_owned());
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        port.parse::<u16>().map_err(|_| wrong())?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let server_name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
        let (address, expected) = (address.into(), Arc::new(expected));
        Ok(Self { address, server_name, tls, expected, farewells: Farewells::default(), network: Tcp::shared() })
    }

    /// How the server ended connections before it said anything on them.
    #[must_use]
    pub fn farewells(&self) -> Farewells {
        self.farewells.clone()
    }

    /// The same over another network than the system's TCP.
    #[must_use]
    pub fn over(self, network: Arc<dyn Network>) -> Self {
        Self { network, ..self }
    }

    /// Dials once.
    pub async fn connect(&self) -> Result<PeerStream, ConnectError> {
        let dialled = tokio::time::timeout(CONNECT_MAX, self.dial()).await;
        let dialled = dialled.unwrap_or_else(|_| Err(ConnectError::TooSlow { address: self.address.to_string() }));
        if dialled.is_err() {
            // What it said at an earlier call is not what is wrong now.
            self.farewells.note(None);
        }
        dialled
    }

    async fn dial(&self) -> Result<PeerStream, ConnectError> {
        let unreachable = |source| ConnectError::Unreachable { address: self.address.to_string(), source };
        let socket = self.network.connect(&self.address).await.map_err(unreachable)?;
        // Before the configuration is taken: a reload during the handshake shall be seen after it.
        let changes = self.tls.changes();
        let config = Arc::clone(&self.tls.current().config);
        let shaken = TlsConnector::from(config).connect(self.server_name.clone(), socket).await;
        let stream =
            shaken.map_err(|error| match error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                true => self.refused(Refusal::of_io(&error), reload::chain(&error)),
                false => unreachable(error),
            })?;
        let (_, tls) = stream.get_ref();
        if tls.alpn_protocol() != Some(ALPN_H2) {
            return Err(self.refused(Refusal::NoAlpnH2, "the server did not agree on HTTP/2".into()));
        }
        let chain = tls.peer_certificates().unwrap_or_default();
        let chain: Vec<_> = chain.iter().map(|der| der.clone().into_owned()).collect();
        let peer = Arc::new(self.recognise(&chain)?);
        let cut = CancellationToken::new();
        let closed = CancellationToken::new();
        tokio::spawn(self.clone().watch(chain, changes, cut.clone(), closed.clone()));
        let keep = Keep::Watch(closed.drop_guard());
        Ok(PeerStream::new(TlsStream::from(stream), peer, cut, None, keep).telling(self.farewells()))
    }

    fn recognise(&self, chain: &[CertificateDer<'static>]) -> Result<Peer, ConnectError> {
        let leaf = chain.first().map(|der| der.as_ref()).unwrap_or_default();
        let peer = Peer::from_certificate(leaf, self.tls.trust_domain(), Usage::Server);
        let peer = peer.map_err(|error| self.refused(Refusal::from(&error), error.to_string()))?;
        if peer.role() != self.expected.role || *peer.name() != self.expected.name {
            let detail = format!("it is {peer}, not {}/{}", self.expected.role, self.expected.name);
            return Err(self.refused(Refusal::OtherPeer, detail));
        }
        Ok(peer)
    }

    fn refused(&self, refusal: Refusal, detail: String) -> ConnectError {
        tracing::warn!(
            reason = refusal.as_str(),
            address = &*self.address,
            detail,
            "connection refused by us or by the server"
        );
        ConnectError::Refused { address: self.address.to_string(), refusal, detail }
    }

    /// Judges the server's certificate again, at each reload and each [`SWEEP_EVERY`], until the stream is closed.
    async fn watch(
        self,
        chain: Vec<CertificateDer<'static>>,
        mut changes: watch::Receiver<u64>,
        cut: CancellationToken,
        closed: CancellationToken,
    ) {
        let Some((leaf, others)) = chain.split_first() else { return };
        loop {
            tokio::select! {
                () = closed.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            let side = self.tls.current();
            if let Err(error) = side.verifier.verify_server_cert(leaf, others, &self.server_name, &[], self.tls.now()) {
                let reason = Refusal::of_tls(&error).as_str();
                tracing::warn!(reason, address = &*self.address, %error, "connection cut: the server's certificate no longer counts");
                cut.cancel();
                return;
            }
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("address", &self.address)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<PeerStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    /// The URI that tonic gives is the endpoint's own; the address was fixed before.
    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.connect().await.map(TokioIo::new) })
    }
}

/// tonic's settings for one address: keep-alive, windows.
pub fn endpoint(address: &str) -> Result<Endpoint, ConnectError> {
    let wrong = |_| ConnectError::Address(address.to_owned());
    // tonic takes no https here unless its own TLS is compiled in; what servers see is the origin.
    let origin = Uri::try_from(format!("https://{address}")).map_err(|_| ConnectError::Address(address.to_owned()))?;
    Ok(Endpoint::from_shared(format!("http://{address}"))
        .map_err(wrong)?
        .origin(origin)
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_WITHIN)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// A channel that dials at its first call, and again whenever the connection was lost.
pub fn channel(address: &str, tls: ClientTls, expected: Expected) -> Result<Channel, ConnectError> {
    channel_over(Tcp::shared(), address, tls, expected)
}

/// The same over another network than the system's TCP.
pub fn channel_over(
    network: Arc<dyn Network>,
    address: &str,
    tls: ClientTls,
    expected: Expected,
) -> Result<Channel, ConnectError> {
    told_channel_over(network, address, tls, expected).map(|(channel, _)| channel)
}

/// The same, and what the server says when it does not keep a connection.
pub fn told_channel_over(
    network: Arc<dyn Network>,
    address: &str,
    tls: ClientTls,
    expected: Expected,
) -> Result<(Channel, Farewells), ConnectError> {
    let connector = Connector::new(address, tls, expected)?.over(network);
    let farewells = connector.farewells();
    Ok((endpoint(address)?.connect_with_connector_lazy(connector), farewells))
}

#[cfg(test)]
mod tests;
