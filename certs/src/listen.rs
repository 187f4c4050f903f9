//! The accept loop: connection, handshake, identity, limits; then a stream that tonic serves.
//!
//! Knows sockets, certificates and counts. Never knows calls. Invariants: a stream comes out only after a mutual TLS 1.3 handshake that
//! ended well, with HTTP/2 agreed on and one identity read; whatever else happens is one [`Refusal`] with a log line and a callback;
//! one silent or hostile peer delays nobody else; a failing `accept` never spins.
//!
//! tonic's own TLS can neither refuse TLS 1.2 nor read a revocation list nor reload, and hyper waits for ever for a first byte.
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    identity::{Peer, Usage},
    limits::{Limits, SWEEP_EVERY},
    network::{Network, Port, Socket, Tcp},
    refusal::Refusal,
    registry::Registry,
    reload,
    stream::{Keep, PeerStream},
    tls::{ALPN_H2, ServerTls},
};

/// Streams that are ready and not yet taken: tonic takes each at once.
const READY_MAX: usize = 32;
/// The pause after an `accept` that failed for want of something (descriptors, memory), doubled up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LONGEST: Duration = Duration::from_secs(1);
/// What a peer wrote is shown in a log no longer than this.
const DETAIL_MAX: usize = 300;

/// What a listener tells: for counters.
pub trait Hooks: Send + Sync {
    /// A connection was refused.
    fn on_refused(&self, _refusal: Refusal, _remote: SocketAddr, _detail: &str) {}
    /// A peer connected.
    fn on_open(&self, _peer: &Peer) {}
    /// A peer's connection ended, whoever ended it.
    fn on_close(&self, _peer: &Peer) {}
    /// A peer's open connection is cut because its certificate no longer counts.
    fn on_cut(&self, _refusal: Refusal, _peer: &Peer) {}
}

/// Tells nobody.
impl Hooks for () {}

/// A bound socket.
pub struct Listener {
    port: Box<dyn Port>,
    tls: ServerTls,
    limits: Limits,
    hooks: Arc<dyn Hooks>,
    sweep_every: Duration,
}

impl Listener {
    /// Binds `address` (port 0 lets the system choose).
    pub async fn bind(address: SocketAddr, tls: ServerTls, limits: Limits, hooks: Arc<dyn Hooks>) -> io::Result<Self> {
        Self::bind_on(&*Tcp::shared(), address, tls, limits, hooks).await
    }

    /// The same on another network than the system's TCP.
    pub async fn bind_on(
        network: &dyn Network,
        address: SocketAddr,
        tls: ServerTls,
        limits: Limits,
        hooks: Arc<dyn Hooks>,
    ) -> io::Result<Self> {
        Ok(Self { port: network.bind(address).await?, tls, limits, hooks, sweep_every: SWEEP_EVERY })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.port.local_addr()
    }

    /// Accepts until `stop`, or until the stream is dropped. Give it to `serve_with_incoming`.
    #[must_use]
    pub fn incoming(self, stop: &CancellationToken) -> Incoming {
        let stop = stop.child_token();
        let (ready, taken) = mpsc::channel(READY_MAX);
        let registry = Registry::new(self.limits, Arc::clone(&self.hooks));
        let changes = self.tls.changes();
        tokio::spawn(sweep(self.tls.clone(), changes, Arc::clone(&registry), self.sweep_every, stop.clone()));
        let loop_ = Loop { tls: self.tls, limits: self.limits, hooks: self.hooks, registry, ready, stop: stop.clone() };
        tokio::spawn(Arc::new(loop_).run(self.port));
        Incoming { taken, _stop: stop.drop_guard() }
    }
}

/// The stream of peers' streams. Dropping it ends the accept loop; connections that were given out live on, until they are dropped.
pub struct Incoming {
    taken: mpsc::Receiver<PeerStream>,
    _stop: DropGuard,
}

impl Stream for Incoming {
    type Item = io::Result<PeerStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<PeerStream>>> {
        self.taken.poll_recv(cx).map(|stream| stream.map(Ok))
    }
}

struct Loop {
    tls: ServerTls,
    limits: Limits,
    hooks: Arc<dyn Hooks>,
    registry: Arc<Registry>,
    ready: mpsc::Sender<PeerStream>,
    stop: CancellationToken,
}

impl Loop {
    async fn run(self: Arc<Self>, port: Box<dyn Port>) {
        let handshakes = Arc::new(Semaphore::new(self.limits.handshakes()));
        let mut pause = PAUSE_FIRST;
        let stop = self.stop.clone();
        let next = async || {
            // The place first: what finds none waits in the kernel's queue instead of in our memory.
            let place = Arc::clone(&handshakes).acquire_owned().await.map_err(io::Error::other)?;
            port.accept().await.map(|accepted| (accepted, place))
        };
        while let Some(accepted) = stop.run_until_cancelled(next()).await {
            match accepted {
                Ok(((socket, remote), place)) => {
                    pause = PAUSE_FIRST;
                    tokio::spawn(Arc::clone(&self).welcome(socket, remote, place));
                }
                // The peer was gone before we took it: nothing is wrong with us.
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    tracing::error!(%error, pause_ms = pause.as_millis(), "no connection can be accepted");
                    let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    pause = (pause * 2).min(PAUSE_LONGEST);
                }
            }
        }
    }

    async fn welcome(self: Arc<Self>, socket: Socket, remote: SocketAddr, _place: OwnedSemaphorePermit) {
        let stop = self.stop.clone();
        match stop.run_until_cancelled(self.handshake(socket, remote)).await {
            Some(Ok(stream)) => {
                tracing::debug!(peer = %stream.peer(), %remote, agreed = stream.agreed(), "connected");
                // Nobody takes it any more: the listener is going down.
                let _ = self.ready.send(stream).await;
            }
            Some(Err((refusal, detail))) => {
                let detail: String = detail.escape_debug().take(DETAIL_MAX).collect();
                tracing::warn!(reason = refusal.as_str(), %remote, detail, "connection refused");
                self.hooks.on_refused(refusal, remote, &detail);
            }
            None => {}
        }
    }

    async fn handshake(&self, socket: Socket, remote: SocketAddr) -> Result<PeerStream, (Refusal, String)> {
        let mut slot = self.registry.enter(remote).map_err(|refusal| (refusal, String::new()))?;
        let reloads = self.tls.changes();
        let config = Arc::clone(&self.tls.current().config);
        let shaken = tokio::time::timeout(self.limits.handshake(), TlsAcceptor::from(config).accept(socket)).await;
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err((Refusal::of_io(&error), reload::chain(&error))),
            Err(_) => return Err((Refusal::HandshakeTimeout, format!("{} ms", self.limits.handshake_ms))),
        };
        let (_, tls) = stream.get_ref();
        if tls.alpn_protocol() != Some(ALPN_H2) {
            return Err((Refusal::NoAlpnH2, "the client offered no ALPN".into()));
        }
        let chain = tls.peer_certificates().unwrap_or_default();
        let chain: Arc<[_]> = chain.iter().map(|der| der.clone().into_owned()).collect();
        let leaf = chain.first().ok_or((Refusal::NoCertificate, String::new()))?;
        let peer = Peer::from_certificate(leaf, self.tls.trust_domain(), Usage::Client);
        let peer = Arc::new(peer.map_err(|error| (Refusal::from(&error), error.to_string()))?);
        let cut = slot.admit(Arc::clone(&peer), Arc::clone(&chain)).map_err(|refusal| (refusal, peer.to_string()))?;
        // A reload during the handshake swept before this one was listed.
        if reloads.has_changed().unwrap_or(false) {
            judge(&chain, &*self.tls.current().verifier, self.tls.now())?;
        }
        let first_bytes = Some(self.limits.first_bytes());
        Ok(PeerStream::new(TlsStream::from(stream), peer, cut, first_bytes, Keep::Slot(slot)))
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Judges the certificates of open connections again, at each reload and `every` so often.
async fn sweep(
    tls: ServerTls,
    mut changes: watch::Receiver<u64>,
    registry: Arc<Registry>,
    every: Duration,
    stop: CancellationToken,
) {
    let mut look = tokio::time::interval(every);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            _ = look.tick() => {}
        }
        let side = tls.current();
        registry.sweep(|open| judge(&open.chain, &*side.verifier, tls.now())).await;
    }
}

fn judge(
    chain: &[CertificateDer<'static>],
    verifier: &dyn ClientCertVerifier,
    now: UnixTime,
) -> Result<(), (Refusal, String)> {
    let Some((leaf, others)) = chain.split_first() else { return Ok(()) };
    match verifier.verify_client_cert(leaf, others, now) {
        Ok(_) => Ok(()),
        Err(error) => Err((Refusal::of_tls(&error), error.to_string())),
    }
}

#[cfg(test)]
mod tests;
