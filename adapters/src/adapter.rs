//! The adapter put together: files read, store opened, keyring refilled, listeners bound, tasks begun. [`Adapter::start`] returns when it
//! serves its back office, whether or not the gateway can be reached; [`Running::wait`] when it has ended, and says why. It knows the
//! order of the start and of the end; never a message.
//!
//! A store that fails to write ends the adapter: what is on the disk is for recovery to find out, at the next start.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    sync::{Arc, Weak, atomic::AtomicU64},
    time::Duration,
};

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tramite_certs::{
    anchors::AnchorError,
    connect::{self, ConnectError, Expected},
    keyring::Keyring,
    network::{Network, Tcp},
    tls::{ClientTls, ServerTls, TlsError},
    trust::{Trust, TrustFiles},
};
use tramite_proto::{clock::Clock, ids::IdError, reason::Refused};
use tramite_store::{
    OpenError, Options, Recovery, Seams, Store, Work, Working, Writer,
    disk::{Disk, RealDisk},
    map::Maps,
};

use crate::{
    attachments::Attachments,
    backoffice::{self, Listening, Service},
    config::Config,
    core::Core,
    entropy::Entropy,
    inbound::{Receiver, Unanswered},
    janitor,
    link::Link,
    metrics::Metrics,
    office::Office,
    outbound::Sender,
    own::{Own, OwnError},
    page,
    spool::Spool,
};

/// A gateway that answers nothing for so long, or takes nothing of an attachment, is taken as gone.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Starts adapters.
#[derive(Debug)]
pub struct Adapter;

/// What an adapter is given from outside, so that the whole can run in a simulation.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// For ids, keys, salts and jitter.
    pub entropy: Entropy,
    /// Where the journal and the parts are.
    pub disk: Arc<dyn Disk>,
    /// What the outbox is kept in; none: the store's own choice.
    pub maps: Option<Arc<dyn Maps>>,
    /// Where the gateway is, and where the back office comes from when it comes over TLS.
    pub network: Arc<dyn Network>,
    /// What the store's writer runs on.
    pub work: Work,
    /// How long the gateway may leave something without an answer.
    pub answer_max: Duration,
}

impl Surroundings {
    /// The system's randomness, disk and network.
    #[must_use]
    pub fn real(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            entropy: Entropy::of_the_system(),
            disk: Arc::new(RealDisk),
            maps: None,
            network: Tcp::shared(),
            work: Work::Threads,
            answer_max: ANSWER_MAX,
        }
    }
}

/// An adapter that serves.
#[derive(Debug)]
pub struct Running {
    /// Where the back office is served over TLS, if it is.
    pub address: Option<SocketAddr>,
    /// The socket on which the back office is served, if it is.
    pub socket: Option<PathBuf>,
    /// Where the Prometheus page is, if there is one.
    pub metrics_address: Option<SocketAddr>,
    tls: ClientTls,
    trust: Trust,
    pub(crate) core: Weak<Core>,
    ended: JoinHandle<Result<(), Ended>>,
}

/// Why an adapter did not start. Each says which file or setting to look at.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A configured name is none.
    #[error("a configured name is not a name")]
    Name(#[from] IdError),
    /// Certificate, key or roots of a connection.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The roots that signatures are judged by.
    #[error("the authority's roots cannot be used")]
    Trust(#[from] AnchorError),
    /// What the institution signs and opens with.
    #[error("the institution's own keys cannot be used")]
    Own(#[from] OwnError),
    /// The gateway's address.
    #[error("the gateway cannot be dialled")]
    Gateway(#[from] ConnectError),
    /// The store.
    #[error("the store cannot be opened")]
    Store(#[from] OpenError),
    /// What the store remembers cannot be read.
    #[error("what the store remembers cannot be used")]
    Restore(#[from] Refused),
    /// A directory, a socket, an address or a thread that the system did not give.
    #[error("cannot {what}")]
    System {
        /// What was tried, with its path or address.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Why an adapter ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The journal could not be written. Nothing that was acknowledged is lost; start again once the disk is well.
    #[error(
        "the store failed, so the adapter stopped: {0}; nothing acknowledged is lost, start again once the disk is well"
    )]
    Store(String),
    /// A task that must not end, ended: a fault of this program.
    #[error("background work ended; the log says which")]
    Work,
}

impl Adapter {
    /// Starts an adapter; it ends when `stop` is cancelled.
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
        let tls = ClientTls::load(config.tls.clone(), config.trust_domain.clone(), Arc::clone(&clock))?;
        let trust = Trust::load(TrustFiles::from(&config.tls), config.trust_domain.clone(), Arc::clone(&clock))?;
        let (name, gateway) = (config.institution.parse()?, config.gateway.name.parse()?);
        let own = Own::load(name, config.trust_domain.clone(), config.signing.clone(), config.encryption.clone())
            .map(Arc::new)?;
        let network = Arc::clone(&around.network);
        let expected = Expected::gateway(gateway);
        let (channel, farewells) = connect::told_channel_over(network, &config.gateway.address, tls.clone(), expected)?;
        let (store, writer, recovery) = open(&config, &around, &own)?;
        let writer =
            writer.start(around.work).map_err(system(format!("start the writer of {}", config.data.display())))?;
        let core = Arc::new(Core {
            name: config.institution.parse()?,
            gateway: config.gateway.name.parse()?,
            defaults: config.defaults.clone(),
            clock,
            entropy: around.entropy.clone(),
            store,
            inbox_bytes: AtomicU64::new(0),
            inbox_bytes_max: u64::from(config.store.inbox_mib) << 20,
            unanswered: Unanswered::default(),
            keyring: Arc::new(Keyring::new(trust.clone())),
            own,
            answer_max: around.answer_max,
            metrics: Arc::new(Metrics::new()),
            link: Link::new(channel, farewells),
        });
        let mut tasks = JoinSet::new();
        let begun = match begin(&config, &core, &around, &stop, &mut tasks).await {
            Ok(begun) => begun,
            Err(error) => {
                stop.cancel();
                end(&core, writer, tasks).await;
                return Err(error);
            }
        };
        tokio::spawn(tls.clone().run(stop.clone()));
        tokio::spawn(trust.clone().run(stop.clone()));
        undo.disarm();
        tracing::info!(
            institution = %core.name,
            gateway = config.gateway.address,
            sequence = recovery.sequence,
            "the adapter serves"
        );
        let held = Arc::downgrade(&core);
        let ended = tokio::spawn(run(core, writer, tasks, stop));
        let socket = config.backoffice.and_then(|office| office.socket);
        Ok(Running {
            address: begun.address,
            socket,
            metrics_address: begun.metrics_address,
            tls,
            trust,
            core: held,
            ended,
        })
    }
}

/// Where it is served.
struct Begun {
    address: Option<SocketAddr>,
    metrics_address: Option<SocketAddr>,
}

/// Everything that stands on the store.
async fn begin(
    config: &Config,
    core: &Arc<Core>,
    around: &Surroundings,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<Begun, StartError> {
    core.restore_keys()?;
    core.count_inbox()?;
    core.unanswered.restore(&core.store)?;
    janitor::look_at_clock(core).await;
    let folder = config.data.join("attachments");
    let attachments = Attachments::open(&folder, Arc::clone(&around.clock), around.entropy.clone());
    let attachments = attachments.map_err(system(format!("use {}", folder.display())))?;
    let office = Arc::new(Office::new(Arc::clone(core), attachments.clone()));
    let address = serve(config, core, around, &office, stop, tasks).await?;
    let metrics_address = match config.metrics.listen {
        Some(listen) => {
            let served = page::serve(Arc::clone(core), listen, stop.clone()).await;
            Some(served.map_err(system(format!("listen on {listen}")))?)
        }
        None => None,
    };
    tasks.spawn(Arc::clone(core).run_directory(stop.clone()));
    tasks.spawn(Sender::new(Arc::clone(core)).run(stop.clone()));
    tasks.spawn(Receiver::new(Arc::clone(core)).run(stop.clone()));
    tasks.spawn(janitor::run(Arc::clone(core), attachments, stop.clone()));
    Ok(Begun { address, metrics_address })
}

impl Running {
    /// What reads certificates, roots, revocation lists and the institution's own keys again, now. What cannot be read leaves the old
    /// in use and says so in the log.
    pub fn reloader(&self) -> impl Fn() + Send + 'static {
        let (tls, trust, core) = (self.tls.clone(), self.trust.clone(), Weak::clone(&self.core));
        move || {
            // All are tried; each logs its own failure.
            let _ = (tls.reload(), trust.reload());
            if let Some(core) = core.upgrade() {
                core.look_for_new_keys();
            }
        }
    }

    /// Resolves when the adapter has ended and its store is closed.
    ///
    /// # Errors
    /// [`Ended`], when nobody asked it to end.
    pub async fn wait(self) -> Result<(), Ended> {
        self.ended.await.unwrap_or(Err(Ended::Work))
    }
}

fn system(what: String) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

fn open(config: &Config, around: &Surroundings, own: &Arc<Own>) -> Result<(Store, Writer, Recovery), StartError> {
    // Sealed as it is, nobody else has any business there.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data);
    made.map_err(system(format!("make {}", config.data.display())))?;
    let mut options = Options::new(config.data.join("store"), format!("adapter:{}", config.institution));
    options.segment_bytes = config.store.segment_mib.saturating_mul(1 << 20);
    options.retention(config.store.retention_days);
    let notary: Arc<dyn tramite_store::Notary> = Arc::<Own>::clone(own);
    let seams = Seams::real(Arc::clone(&around.clock), notary);
    let maps = around.maps.clone().unwrap_or(seams.maps);
    Ok(options.open(Seams { disk: Arc::clone(&around.disk), maps, ..seams })?)
}

/// The ways in: socket, address, spool.
async fn serve(
    config: &Config,
    core: &Arc<Core>,
    around: &Surroundings,
    office: &Arc<Office>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<Option<SocketAddr>, StartError> {
    let mut address = None;
    if let Some(wanted) = &config.backoffice {
        let tls = wanted.listen.map(|listen| {
            let files = wanted.tls.clone().unwrap_or_else(|| config.tls.clone());
            Ok::<_, TlsError>((listen, ServerTls::load(files, config.trust_domain.clone(), Arc::clone(&core.clock))?))
        });
        let listening = Listening {
            socket: wanted.socket.clone(),
            address: tls.transpose()?,
            reflection: wanted.reflection,
            name: core.name.clone(),
            metrics: Arc::clone(&core.metrics),
            network: Arc::clone(&around.network),
        };
        let service = Service::new(Arc::clone(office), stop.clone());
        let serving = backoffice::serve(listening, service, stop).await;
        let serving = serving.map_err(system("serve the back office ([backoffice])".to_owned()))?;
        address = serving.address;
        for task in serving.tasks {
            // A server that panics ends the adapter like any other task.
            tasks.spawn(async move { drop(task.await) });
        }
    }
    if let Some(wanted) = &config.spool {
        let what = format!("use the spool {}", wanted.directory.display());
        let spool = Spool::open(wanted, Arc::clone(office)).map_err(system(what))?;
        tasks.spawn(spool.run(stop.clone()));
    }
    Ok(address)
}

/// Runs until `stop`, or until something that must not end has ended.
async fn run(core: Arc<Core>, writer: Working, mut tasks: JoinSet<()>, stop: CancellationToken) -> Result<(), Ended> {
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        failed = core.store.failed() => {
            tracing::error!(error = %failed, "the store failed; the adapter stops");
            Err(Ended::Store(failed.to_string()))
        }
        task = tasks.join_next() => {
            tracing::error!(
                panicked = task.is_some_and(|task| task.is_err()),
                "a task that must not end has ended; the adapter stops"
            );
            Err(Ended::Work)
        }
    };
    stop.cancel();
    end(&core, writer, tasks).await;
    ended
}

/// Lets go in order: tasks, then the store.
async fn end(core: &Core, writer: Working, mut tasks: JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
    core.store.end(writer).await;
}
