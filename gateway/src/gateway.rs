//! The gateway put together: files read, store opened, keyring refilled, listener bound, background work begun. [`Gateway::start`]
//! returns when it serves; [`Running::wait`] when it has ended, and says why. It knows the order of the
//! start and of the end; never a message.
//!
//! A store that fails to write ends the gateway: what is on the disk is for recovery to find out, at the next start.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tramite_certs::{
    anchors::AnchorError,
    identity::Role,
    keyring::Keyring,
    listen::Listener,
    network::{Network, Tcp},
    secrets::{self, SecretError},
    tls::{ServerTls, TlsError},
    trust::{Trust, TrustFiles},
};
use tramite_proto::{clock::Clock, ids::IdError};
use tramite_store::{
    OpenError, Options, ReadError, Recovery, Seams, Store, Work, Working, Writer,
    disk::{Disk, RealDisk},
    map::Maps,
};

use crate::{
    config::{Config, Institution},
    directory, expire,
    holds::{self, Holds},
    hub::Hub,
    limits,
    metrics::Metrics,
    origins::Origins,
    page,
    parts::Parts,
    policy::Policy,
    presence::Presence,
    prove::{Prover, Randomness},
    server::{self, Counting, ReflectionError},
};

/// Starts gateways.
#[derive(Debug)]
pub struct Gateway;

/// What a gateway is given from outside, so that the whole can run in a simulation.
#[derive(Clone)]
pub struct Surroundings {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// For ids and jitter.
    pub random: Randomness,
    /// Where the journal and the parts are.
    pub disk: Arc<dyn Disk>,
    /// What the outbox is kept in; none: the store's own choice.
    pub maps: Option<Arc<dyn Maps>>,
    /// Where connections come from.
    pub network: Arc<dyn Network>,
    /// What the store's writer runs on.
    pub work: Work,
}

impl Surroundings {
    /// The system's randomness, disk and network.
    #[must_use]
    pub fn real(clock: Arc<dyn Clock>) -> Self {
        let random = || {
            // The version and variant bits of a random UUID stand in bytes 6 and 8.
            let [a, b, c, d, e, f, _, _, _, g, h, i, j, ..] = uuid::Uuid::new_v4().into_bytes();
            [a, b, c, d, e, f, g, h, i, j]
        };
        Self {
            clock,
            random: Arc::new(random),
            disk: Arc::new(RealDisk),
            maps: None,
            network: Tcp::shared(),
            work: Work::Threads,
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("clock", &self.clock).field("disk", &self.disk).finish_non_exhaustive()
    }
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where the Prometheus page is, if there is one.
    pub metrics_address: Option<SocketAddr>,
    tls: ServerTls,
    trust: Trust,
    ended: JoinHandle<Result<(), Ended>>,
}

/// Why a gateway did not start. Each says which file or setting to look at.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configured name is none.
    #[error("the configured name is not a name")]
    Name(#[from] IdError),
    /// Certificate, key or roots of the listener.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The roots that signatures are judged by.
    #[error("the authority's roots cannot be used")]
    Trust(#[from] AnchorError),
    /// Certificate or key of the evidence.
    #[error("the signing key cannot be used")]
    Signing(#[from] SecretError),
    /// The store.
    #[error("the store cannot be opened")]
    Store(#[from] OpenError),
    /// What it holds: who is held, keys, parts, what waits. None of it may be taken for not there.
    #[error(
        "what the store holds cannot be read; once the disk is well start again, and if it is, ask `tramite store verify`"
    )]
    Unreadable(#[from] ReadError),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A directory or a thread that the system did not give.
    #[error("cannot {what} {}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// For which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a gateway ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The journal could not be written. Nothing that was acknowledged is lost; start again once the disk is well.
    #[error(
        "the store failed, so the gateway stopped: {0}; nothing acknowledged is lost, start again once the disk is well"
    )]
    Store(String),
    /// The server.
    #[error("the server ended")]
    Server(#[from] tonic::transport::Error),
    /// Reflection.
    #[error("the server could not be built")]
    Reflection(#[from] ReflectionError),
    /// A task that must not end, ended: a fault of this program.
    #[error("background work ended: {0}")]
    Work(&'static str),
}

impl Gateway {
    /// Starts a gateway; it ends when `stop` is cancelled.
    ///
    /// # Errors
    /// [`StartError`], in words for whoever runs it.
    pub async fn start(config: Config, clock: Arc<dyn Clock>, stop: CancellationToken) -> Result<Running, StartError> {
        Self::start_in(config, Surroundings::real(clock), stop).await
    }

    /// The same in other surroundings.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_in(
        config: Config,
        around: Surroundings,
        stop: CancellationToken,
    ) -> Result<Running, StartError> {
        let clock = Arc::clone(&around.clock);
        let stop = stop.child_token();
        // Whatever fails half-way takes down what was begun before it.
        let undo = stop.clone().drop_guard();
        let tls = ServerTls::load(config.tls.clone(), config.trust_domain.clone(), Arc::clone(&clock))?;
        let trust = Trust::load(TrustFiles::from(&config.tls), config.trust_domain.clone(), Arc::clone(&clock))?;
        let prover = prover(&config, &clock, Arc::clone(&around.random))?;
        let metrics = Arc::new(Metrics::new());
        metrics.begin(config.institutions.iter().map(|institution| institution.name.as_str()));
        let listen = config.listen;
        let failed = |source| StartError::Listen { address: listen, source };
        let counting = Arc::new(Counting(Arc::clone(&metrics)));
        let listener = Listener::bind_on(&*around.network, listen, tls.clone(), config.limits, counting).await;
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        // Every address is taken before the store is opened: what fails from here on would leave it open.
        let page = match config.metrics.listen {
            Some(address) => Some(page::bind(address).await.map_err(|source| StartError::Listen { address, source })?),
            None => None,
        };
        let metrics_address = page.as_ref().map(|(_, address)| *address);
        let (store, writer, recovery) = open(&config, &around, &prover)?;
        // Before the writer starts: a store that cannot be read is let go as it is.
        let keyring = Arc::new(Keyring::new(trust.clone()));
        directory::refill(&store, &keyring)?;
        let (holds, parts) = (Holds::new(held(&store)?), Parts::load(&store)?);
        let writer = writer.start(around.work).map_err(|source| StartError::System {
            what: "start the writer of",
            path: config.data.clone(),
            source,
        })?;
        let hub = Arc::new(Hub {
            policy: Policy::new(&config.rules),
            keyring,
            holds,
            parts,
            origins: Origins::default(),
            presence: Arc::new(Presence::default()),
            started_ms: clock.now_ms(),
            config,
            store,
            prover,
            metrics,
            clock,
            stop: stop.clone(),
        });
        expire::look_at_clock(&hub).await;
        if let Some((listener, _)) = page {
            page::serve(Arc::clone(&hub), listener, stop.clone());
        }
        tokio::spawn(tls.clone().run(stop.clone()));
        tokio::spawn(trust.clone().run(stop.clone()));
        let incoming = listener.incoming(&stop);
        let served = server::serve(Arc::clone(&hub), incoming, stop);
        undo.disarm();
        tracing::info!(%address, name = hub.config.name, sequence = recovery.sequence, "the gateway serves");
        let ended = tokio::spawn(run(hub, writer, async move { Ok(served.await??) }));
        Ok(Running { address, metrics_address, tls, trust, ended })
    }
}

impl Running {
    /// What reads certificates, roots and revocation lists again, now. What cannot be read leaves the old in use and says so in the log.
    pub fn reloader(&self) -> impl Fn() + Send + 'static {
        let (tls, trust) = (self.tls.clone(), self.trust.clone());
        move || {
            // Both are tried; each logs its own failure.
            let _ = (tls.reload(), trust.reload());
        }
    }

    /// Resolves when the gateway has ended and its store is closed.
    ///
    /// # Errors
    /// [`Ended`], when nobody asked it to end.
    pub async fn wait(self) -> Result<(), Ended> {
        self.ended.await.unwrap_or(Err(Ended::Work("the gateway's own task")))
    }
}

fn prover(config: &Config, clock: &Arc<dyn Clock>, random: Randomness) -> Result<Prover, StartError> {
    let signing = &config.signing;
    let loaded = secrets::load_signing(&signing.cert, &signing.key, &config.trust_domain, Role::Gateway, &config.name)?;
    let chain = loaded.chain.into_iter().map(Into::into).collect();
    Ok(Prover::new(config.name.parse()?, Arc::new(loaded.signer), chain, Arc::clone(clock), random))
}

fn open(config: &Config, around: &Surroundings, prover: &Prover) -> Result<(Store, Writer, Recovery), StartError> {
    let made = |source| StartError::System { what: "make the directory", path: config.data.clone(), source };
    std::fs::create_dir_all(&config.data).map_err(made)?;
    let mut options = Options::new(&config.data, "gateway");
    options.segment_bytes = config.store.segment_mib.saturating_mul(1 << 20);
    options.retention(config.store.retention_days);
    let quota = |one: &Institution| (one.name.clone(), one.quota_content_mib.saturating_mul(1 << 20));
    options.quotas = config.institutions.iter().map(quota).collect();
    let seams = Seams::real(Arc::clone(&around.clock), Arc::new(prover.clone()));
    let maps = around.maps.clone().unwrap_or(seams.maps);
    Ok(options.open(Seams { disk: Arc::clone(&around.disk), maps, ..seams })?)
}

pub(crate) fn held(store: &Store) -> Result<Vec<String>, ReadError> {
    let rows = store.records(holds::RECORD_PREFIX)?;
    let names = rows.iter().filter_map(|row| row.name.strip_prefix(holds::RECORD_PREFIX));
    // That of the clock is the store's own.
    Ok(names.filter(|name| *name != holds::CLOCK).map(str::to_owned).collect())
}

/// Runs until `stop`, or until something that must not end has ended; then lets go in order: calls, then the store.
async fn run(
    hub: Arc<Hub>,
    writer: Working,
    served: impl Future<Output = Result<(), Ended>> + Send + 'static,
) -> Result<(), Ended> {
    let first = Arc::new(Mutex::new(None));
    let mut work = JoinSet::new();
    let watch = |name: &'static str| {
        let (hub, first) = (Arc::clone(&hub), Arc::clone(&first));
        move |why: Option<Ended>| {
            if !hub.stop.is_cancelled() {
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(why.unwrap_or(Ended::Work(name)));
                hub.stop.cancel();
            }
        }
    };
    let (done, poisoned) = (watch("the store"), Arc::clone(&hub));
    work.spawn(async move {
        tokio::select! {
            failed = poisoned.store.failed() => {
                tracing::error!(error = %failed, "the store failed; the gateway stops");
                done(Some(Ended::Store(failed.to_string())));
            }
            () = poisoned.stop.cancelled() => {}
        }
    });
    let (done, expiring) = (watch("expiry"), tokio::spawn(expire::run(Arc::clone(&hub))));
    work.spawn(async move {
        // A panic in it ends up here too.
        let _ = expiring.await;
        done(None);
    });
    work.spawn(sweep(Arc::clone(&hub)));
    let done = watch("the server");
    let mut serving = tokio::spawn(async move { done(served.await.err()) });
    hub.stop.cancelled().await;
    if tokio::time::timeout(limits::DRAIN_MAX, &mut serving).await.is_err() {
        tracing::warn!("some calls did not end in time and are cut");
        serving.abort();
    }
    while work.join_next().await.is_some() {}
    hub.store.end(writer).await;
    let ended = first.lock().unwrap_or_else(PoisonError::into_inner).take();
    ended.map_or(Ok(()), Err)
}

/// The records of parts follow the parts.
async fn sweep(hub: Arc<Hub>) {
    loop {
        hub.parts.sweep(&hub).await;
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = tokio::time::sleep(limits::PART_SWEEP_INTERVAL) => {}
        }
    }
}
