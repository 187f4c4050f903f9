//! Clocks that are set to another year under the real processes: what waits is there when they are right again, nobody is told of an end, and
//! what a person confirms goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{sleep, timeout};
use tonic::Code;
use tramite_proto::pb::backoffice::v1::inbox_item::Kind;
use tramite_tests::{
    binary::said,
    config::GATEWAY,
    desk::Desk,
    network::{Network, Node, PATIENCE, START_MAX},
    other_clock::{Clockmaker, OtherClock},
    pki::OPERATOR,
};

/// Looks at the clock that come and go.
const LOOKS: Duration = Duration::from_millis(2_500);
const PAUSE: Duration = Duration::from_millis(50);

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let asked = async {
        while !is_so().await? {
            sleep(PAUSE).await;
        }
        Ok(())
    };
    timeout(PATIENCE, asked).await.with_context(|| format!("not in time: {what}"))?
}

async fn says_held(node: &Node, held: bool) -> Result<()> {
    let wanted = if held { 1.0 } else { 0.0 };
    let name = format!("tramite_{}_clock_held", if node.name == GATEWAY { "gateway" } else { "adapter" });
    // It answers as soon as it has started.
    let says = async || Ok(node.metrics().await.is_ok_and(|metrics| metrics.sum(&name, &[]) == wanted));
    until(&format!("{} {name} {wanted}", node.name), says).await
}

/// The kinds of notices that a desk has, of those messages, and whether there is one of each.
async fn told(desk: &Desk, ids: [&str; 2]) -> Result<bool> {
    let mut of = Vec::new();
    for item in desk.waiting().await? {
        if let Some(Kind::Notice(notice)) = item.kind {
            ensure!(notice.kind == "OPENED", "told of another end: {notice:?}");
            of.push(notice.message_id);
        }
    }
    Ok(ids.iter().all(|id| of.iter().any(|of| of == id)))
}

/// Two messages wait, one at the gateway and one at an adapter, with the clocks of both to be set.
struct Play {
    network: Network,
    clocks: [OtherClock; 2],
    /// Of the messages.
    ids: [String; 2],
}

impl Play {
    /// None where no clock can be set apart.
    async fn begin() -> Result<Option<Self>> {
        let network = Network::builder().institutions(&["caritas", "inps"]).prepare()?;
        let Some(maker) = Clockmaker::in_folder(network.folder())? else { return Ok(None) };
        let clocks = [maker.clock("gateway")?, maker.clock("caritas")?];
        let play = Self { network, clocks, ids: Default::default() };
        for (node, clock) in play.stepped()? {
            node.process.start_under(&clock.above()).await?;
        }
        let inps = play.network.adapter("inps")?;
        inps.process.start().await?;
        play.network.ready().await?;
        let desk = play.network.desk("caritas")?;
        inps.process.terminate(START_MAX).await?;
        let first = desk.refer("inps", "r-1", "waits at the gateway").await?;
        until("the gateway has it", async || Ok(desk.status().await?.outbox == 0)).await?;
        play.network.gateway.process.terminate(START_MAX).await?;
        let second = desk.refer("inps", "r-2", "waits at the adapter").await?;
        Ok(Some(Self { ids: [first.message_id, second.message_id], ..play }))
    }

    fn stepped(&self) -> Result<[(&Node, &OtherClock); 2]> {
        let [gateway, caritas] = &self.clocks;
        Ok([(&self.network.gateway, gateway), (self.network.adapter("caritas")?, caritas)])
    }

    /// With the clocks right, both messages arrive and nobody is told of another end.
    async fn arrives(&self) -> Result<()> {
        self.network.adapter("inps")?.process.start().await?;
        self.network.ready().await?;
        let (arrived, desk) = (self.network.desk("inps")?, self.network.desk("caritas")?);
        until("both have arrived", async || Ok(arrived.waiting().await?.len() == 2)).await?;
        let [first, second] = &self.ids;
        until("both were told", async || told(&desk, [first, second]).await).await
    }

    /// What the command line says, and what it is told.
    async fn confirms(&self) -> Result<()> {
        let socket = format!("unix:{}", self.network.adapter("caritas")?.folder.join("socket").display());
        let shown = said(&["status", "--adapter", &socket]).await?;
        ensure!(shown.contains("the clock is held") && shown.contains("tramite confirm-clock --reason"), "{shown}");
        said(&["confirm-clock", "--adapter", &socket, "--reason", "set by hand"]).await?;
        ensure!(!said(&["status", "--adapter", &socket]).await?.contains("clock"));
        let (address, certs) = (self.network.address(), self.network.pki.bundle(OPERATOR));
        let ops = |words: &[&str]| {
            let at = ["--gateway", &address, "--certs", certs.to_str().unwrap_or_default()];
            let words: Vec<String> = [&["ops"], &at[..], words].concat().into_iter().map(str::to_owned).collect();
            async move { said(&words.iter().map(String::as_str).collect::<Vec<_>>()).await }
        };
        let shown = ops(&["overview"]).await?;
        ensure!(shown.contains("the clock is held") && shown.contains("tramite ops release clock"), "{shown}");
        ops(&["release", "clock", "--reason", "set by hand"]).await?;
        Ok(())
    }
}

async fn under_running_processes(days: i64) -> Result<()> {
    let Some(play) = Play::begin().await? else { return Ok(()) };
    let desk = play.network.desk("caritas")?;
    // The adapter first: with a gateway that it can reach, its message would be gone before its clock is another.
    let [(gateway, gateways), (caritas, caritas_own)] = play.stepped()?;
    for (node, clock) in [(caritas, caritas_own), (gateway, gateways)] {
        if node.name == gateway.name {
            gateway.process.start_under(&gateways.above()).await?;
        }
        says_held(node, false).await?;
        clock.set(days)?;
        says_held(node, true).await?;
    }
    sleep(LOOKS).await;
    let status = desk.status().await?;
    ensure!(status.outbox == 1 && status.inbox == 0 && !status.clock_held.is_empty(), "{status:?}");
    let again = desk.refer("inps", "r-2", "waits at the adapter").await?;
    ensure!(again.message_id == play.ids[1] && again.repeated, "{again:?}");
    let refused = desk.refer("inps", "r-3", "cannot be dated").await.err().context("it was signed")?;
    ensure!(refused.code() == Code::Unavailable && refused.message().contains("clock"), "{refused:?}");

    for (_, clock) in play.stepped()? {
        clock.set(0)?;
    }
    play.arrives().await?;
    play.confirms().await?;
    for (node, _) in play.stepped()? {
        says_held(node, false).await?;
    }
    desk.refer("inps", "r-3", "can be dated").await?;
    let arrived = play.network.desk("inps")?;
    until("the third has arrived", async || Ok(arrived.waiting().await?.len() == 3)).await
}

/// Nobody has certificates that count so far away: what is started then says so and touches nothing.
async fn while_they_are_stopped(days: i64) -> Result<()> {
    let Some(play) = Play::begin().await? else { return Ok(()) };
    play.network.adapter("caritas")?.process.terminate(START_MAX).await?;
    for (node, clock) in play.stepped()? {
        clock.set(days)?;
        node.process.start_under(&clock.above()).await?;
        let status = node.process.exited(START_MAX).await?;
        ensure!(!status.success(), "{} ended with {status}", node.name);
        clock.set(0)?;
        node.process.start_under(&clock.above()).await?;
    }
    play.arrives().await?;
    for (node, _) in play.stepped()? {
        says_held(node, false).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_set_400_days_ahead_under_running_processes_loses_and_ends_nothing() -> Result<()> {
    under_running_processes(400).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_set_400_days_back_under_running_processes_loses_and_ends_nothing() -> Result<()> {
    under_running_processes(-400).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_set_400_days_ahead_while_processes_are_stopped_loses_and_ends_nothing() -> Result<()> {
    while_they_are_stopped(400).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_set_400_days_back_while_processes_are_stopped_loses_and_ends_nothing() -> Result<()> {
    while_they_are_stopped(-400).await
}
