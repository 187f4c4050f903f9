//! `tramite bench`: how fast a gateway is on this machine, and how fast the machine is.
//!
//! A gateway on a fresh store, a process that sends and one that receives for every recipient, each a process of its own over mutual
//! TLS. This process only gives orders, reads what the system says of the others, and checks the accounts: what was submitted was
//! acknowledged, delivered once, settled and noticed, or the bench fails. In the same run it measures the limits: the same bytes
//! appended and synced, and the same frames over a bare stream.
//!
//! In flight means submitted and not acknowledged, as a broker's unconfirmed publishes; what is acknowledged and not yet receipted is
//! bounded apart. The time of a message begins before its origin is written and ends, for the acknowledgement, when its acceptance is
//! verified; for the delivery, when the recipient has checked its origin, its acceptance and the digests of all its contents; for the
//! handover, when the recipient has the word that its receipt stands.
//!
//! A content of more than 64 KiB travels as a part beside a small body: put before its message is submitted, got and digested before
//! its receipt is written; the limits then are the same part written and synced, and put over a bare stream.

mod asked;
mod bare;
mod batches;
mod child;
mod client;
mod disk;
mod figures;
#[cfg(test)]
mod fixture;
mod folder;
mod gauge;
mod histogram;
mod idle;
mod letter;
mod live;
mod machine;
mod memory;
mod network;
mod part;
mod recipients;
mod report;
mod sender;
mod time;
mod wire;

use std::{path::Path, time::Duration};

use tokio_util::sync::CancellationToken;
use tramite_proto::parts::sealed_len;

pub(crate) use self::client::run as client;
use self::{
    asked::{check, loads, part_of},
    child::Client,
    figures::{Limits, Processes, Restart, Run, Whole},
    folder::Folder,
    gauge::Page,
    live::Live,
    machine::Ground,
    network::{Network, Size},
    part::BODY,
    time::{Epoch, now_ns},
    wire::{Load, Order, Role, Said, Sent, Setup, Window},
};
use crate::{
    cli,
    failure::{Exit, Failure},
    output::Output,
    signals,
};

/// From an order until the run begins: every process has read it by then.
const AHEAD_NS: u64 = 50_000_000;
/// How long each limit is measured, at most.
const LIMIT_NS: u64 = 3_000_000_000;
/// Before the bare stream counts.
const LIMIT_WARM_NS: u64 = 300_000_000;
/// What is filled in goes in frames of 64, so many at once.
const FILL: Load = Load { in_flight: 512, unsettled: u64::MAX, frame: 64 };
/// Receipts gather so long, unless it is said otherwise.
const GATHER_MS: u64 = 2;

/// Measures.
pub(crate) async fn run(asked: cli::Bench, output: &Output) -> Result<Exit, Failure> {
    check(&asked)?;
    machine::allow_connections(u64::from(asked.recipients) + 1 + u64::from(asked.idle))?;
    let stop = CancellationToken::new();
    signals::stop_on_signals(stop.clone())?;
    let live = Live::new(*output);
    let folder = Folder::make(asked.dir.as_deref())?;
    // Named after the folder, so that the gateway ends before it goes.
    let mut network = None;
    let mut measured = tokio::select! {
        measured = measure(&asked, folder.path(), &mut network, &live) => measured,
        () = stop.cancelled() => {
            Err(Failure::new(Exit::Failed, "it was interrupted", "Run it again; a smaller --duration ends sooner."))
        }
    };
    live.end();
    if let Some(mut network) = network {
        // When the gateway has ended by itself, that is why everything else failed.
        if measured.is_err() {
            measured = network.gateway.check_ending().await.and(measured);
        }
        network.end().await;
    }
    let kept = folder.end(asked.keep || (measured.is_err() && !stop.is_cancelled()));
    let whole = measured.map_err(|failure| with_folder(failure, kept.as_deref()))?;
    output.answer(&report::value(&asked, &whole, kept.as_deref()), || report::text(*output, &whole, kept.as_deref()));
    Ok(Exit::Ok)
}

/// A failure that says where everything is kept.
fn with_folder(failure: Failure, kept: Option<&Path>) -> Failure {
    let Some(kept) = kept else { return failure };
    let kept = format!("Everything is kept in {}, the gateway's log as gateway.log.", kept.display());
    let advice = if failure.advice.is_empty() { kept } else { format!("{}\n  {kept}", failure.advice) };
    Failure { advice, ..failure }
}

/// Everything, in its order.
async fn measure(
    asked: &cli::Bench,
    folder: &Path,
    network: &mut Option<Network>,
    live: &Live,
) -> Result<Whole, Failure> {
    let ground = Ground::of(folder)?;
    live.say("Making an authority, certificates and a gateway on a fresh store");
    let size = Size { recipients: asked.recipients, idle: asked.idle, backlog: asked.backlog > 0 };
    let network = network.insert(Network::start(folder, size).await?);
    network.open().await?;
    live.say("Sealing bodies and connecting everybody");
    let setup = setup(asked, network);
    let mut bench = Bench::start(&setup).await?;
    let loads = bench.before(asked, network, live).await?;
    let mut idle = None;
    if asked.idle > 0 {
        live.say(&format!("Connecting {} that stay idle", asked.idle));
        let (process, _) = Client::connected("the process of the idle", Role::Idle, &setup).await?;
        bench.idle = process.id();
        idle = Some(process);
    }
    let mut whole = tokio::select! {
        whole = bench.all(asked, network, &loads, live) => whole?,
        failure = ended(idle.as_mut()) => return Err(failure),
    };
    whole.ground = ground;
    drop((bench, idle));
    if asked.kill {
        let waiting = Page::read(network.metrics).await?.waiting()?;
        live.say("Killing the gateway with SIGKILL");
        let seconds = network.kill().await?.as_secs_f64();
        let restart = Restart { seconds, waiting: Page::read(network.metrics).await?.waiting()? };
        restart.even(asked.backlog, waiting)?;
        whole.restart = Some(restart);
    }
    whole.memory_peak_kib = network.memory.peak_kib(..);
    Ok(whole)
}

/// Who every process is, but for its role.
fn setup(asked: &cli::Bench, network: &Network) -> Setup {
    let part = part_of(asked.content);
    Setup {
        role: Role::Sender,
        folder: network.path().to_owned(),
        address: network.address.to_string(),
        epoch_ns: Epoch::of_now().0,
        recipients: network.recipients.clone(),
        absent: network.absent.clone(),
        idle: network.idle.clone(),
        content: usize::try_from(part.map_or(asked.content, |_| BODY)).unwrap_or(usize::MAX),
        part: part.and_then(|part| usize::try_from(part).ok()),
        gather_ms: asked.gather.unwrap_or(GATHER_MS),
    }
}

/// When a process that has nothing to say fails: why. Never, when there is none.
async fn ended(process: Option<&mut Client>) -> Failure {
    let Some(process) = process else { return std::future::pending().await };
    loop {
        if let Err(failure) = process.hear().await {
            return failure;
        }
    }
}

/// The sender's accounts, when it has come to an end; until then its progress is shown.
async fn accounts(sender: &mut Client, live: &Live) -> Result<Sent, Failure> {
    loop {
        match sender.hear().await? {
            Said::Progress { count } => live.progress(count),
            Said::Sent(accounts) => return Ok(*accounts),
            _ => {}
        }
    }
}

/// The processes that count.
struct Bench {
    sender: Client,
    recipients: Client,
    bare: Client,
    bare_address: String,
    /// The process of the idle.
    idle: Option<u32>,
}

impl Bench {
    /// Starts everybody who counts.
    async fn start(setup: &Setup) -> Result<Self, Failure> {
        let (bare, bare_address) = Client::connected("the bare stream", Role::Bare, setup).await?;
        let (sender, _) = Client::connected("the sender", Role::Sender, setup).await?;
        let (recipients, _) = Client::connected("the recipients", Role::Recipients, setup).await?;
        Ok(Self { sender, recipients, bare, bare_address, idle: None })
    }

    /// The loads; where something shall wait or somebody be idle, each with its rate before that.
    async fn before(
        &mut self,
        asked: &cli::Bench,
        network: &Network,
        live: &Live,
    ) -> Result<Vec<(Load, Option<f64>)>, Failure> {
        let mut with_rates = Vec::new();
        let something_changes = asked.backlog > 0 || asked.idle > 0;
        if something_changes {
            live.say("First before anything waits and anybody is idle:");
        }
        for load in loads(asked) {
            let mut rate = None;
            if something_changes {
                rate = Some(self.run(asked, network, load, live).await?.rate());
            }
            with_rates.push((load, rate));
        }
        Ok(with_rates)
    }

    /// The backlog, then every load.
    async fn all(
        &mut self,
        asked: &cli::Bench,
        network: &Network,
        loads: &[(Load, Option<f64>)],
        live: &Live,
    ) -> Result<Whole, Failure> {
        let mut whole = Whole::default();
        if asked.backlog > 0 {
            whole.backlog = Some(self.fill(asked.backlog, live).await?);
        }
        for (load, rate_before) in loads {
            let run = self.run(asked, network, *load, live).await?;
            let limits = self.limits(asked, network, &run, live).await?;
            whole.runs.push((Run { rate_before: *rate_before, ..run }, limits));
        }
        Ok(whole)
    }

    /// One run.
    async fn run(&mut self, asked: &cli::Bench, network: &Network, load: Load, live: &Live) -> Result<Run, Failure> {
        let begin_ns = now_ns() + AHEAD_NS;
        let count_ns = begin_ns + asked.warm_up * 1_000_000_000;
        let window = Window { begin_ns, count_ns, end_ns: count_ns + asked.duration * 1_000_000_000 };
        let order = Order::Run { window, load };
        self.recipients.tell(&order).await?;
        self.sender.tell(&order).await?;
        live.begin(&format!("{} in flight, frames of {}", load.in_flight, load.frame), window);
        let pids = Processes {
            gateway: network.gateway.id(),
            sender: self.sender.id(),
            recipients: self.recipients.id(),
            idle: self.idle,
        };
        let (sampled, sent) = (figures::sample(pids, network, window), accounts(&mut self.sender, live));
        let (samples, sent) = tokio::select! {
            both = async { tokio::try_join!(sampled, sent) } => both?,
            failure = ended(Some(&mut self.recipients)) => return Err(failure),
        };
        self.recipients.tell(&Order::Tell { settled: sent.submitted - sent.absent }).await?;
        let received = loop {
            if let Said::Received(accounts) = self.recipients.hear().await? {
                break *accounts;
            }
        };
        live.end();
        let part = part_of(asked.content).map(sealed_len);
        figures::even(&sent, &received, part)?;
        figures::finished(&sent, &received, asked.duration)?;
        let idle = if self.idle.is_some() { asked.idle } else { 0 };
        figures::connected(&samples, u64::from(asked.recipients + 1 + idle))?;
        Ok(Run { load, seconds: asked.duration, part, sent, received, samples, rate_before: None })
    }

    /// The machine's limits, with the same bytes and the same load.
    async fn limits(
        &mut self,
        asked: &cli::Bench,
        network: &Network,
        run: &Run,
        live: &Live,
    ) -> Result<Limits, Failure> {
        let for_ns = LIMIT_NS.min(asked.duration * 1_000_000_000);
        let load = run.load;
        let group_bytes = run.group_bytes(asked.content);
        live.say(&format!("The limits: {group_bytes} bytes appended and synced; the same frames over a bare stream"));
        let folder = network.path().to_owned();
        let disk = tokio::task::spawn_blocking(move || disk::append(&folder, group_bytes, for_ns)).await;
        let disk = disk.map_err(|error| Failure::internal("the disk cannot be measured").because(&error))??;
        let begin_ns = now_ns() + AHEAD_NS;
        let window = Window { begin_ns, count_ns: begin_ns + LIMIT_WARM_NS, end_ns: begin_ns + LIMIT_WARM_NS + for_ns };
        self.sender.tell(&Order::Stream { address: self.bare_address.clone(), window, load }).await?;
        let cpu_us =
            |bench: &Self| Ok::<_, Failure>(gauge::cpu_us(bench.bare.id())? + gauge::cpu_us(bench.sender.id())?);
        let before_us = cpu_us(self)?;
        let stream = accounts(&mut self.sender, live).await?;
        Ok(Limits { group_bytes, disk, stream, stream_cpu_us: cpu_us(self)? - before_us, for_ns })
    }

    /// Messages that wait for the absent.
    async fn fill(&mut self, count: u64, live: &Live) -> Result<f64, Failure> {
        live.say(&format!("{count} messages for absent recipients"));
        live.count(count);
        let begun = now_ns();
        self.sender.tell(&Order::Fill { count, load: FILL }).await?;
        let sent = accounts(&mut self.sender, live).await?;
        live.end();
        if sent.acknowledged != sent.submitted {
            return Err(Failure::new(Exit::Failed, "not every message of the backlog was acknowledged", ""));
        }
        Ok(Duration::from_nanos(now_ns() - begun).as_secs_f64())
    }
}
