//! A collector is a guest: without one nobody is dialled, and one that is away, deaf or late holds up no message.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::time::{interval, timeout};
use tramite_tests::{
    clerk::{Clerk, Seen},
    collector::{Collector, Deaf, settings},
    desk::insist,
    network::{Network, PATIENCE},
    ports::Port,
};

use crate::{sockets::dialled, traces::SPANS_MAX};

/// Some hundred spans.
const REFERRALS: usize = 40;
/// How often sockets are looked at: a connection that is refused lives for a moment only.
const LOOK: Duration = Duration::from_millis(2);
/// Spans leave every five seconds; whoever dials for them has dialled by then.
const EXPORT_MAX: Duration = Duration::from_secs(6);
/// A log line follows its cause at once; this is for a busy machine.
const LINE_MAX: Duration = Duration::from_secs(10);
const PROCESSES: [&str; 3] = ["caritas", "inps", "gateway"];
/// Said once, when the first spans are lost.
const LOST: &str = "the collector does not take traces";

/// Sends referrals one after the other, and waits for all receipts.
async fn send_all(network: &Network, round: &str) -> Result<()> {
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    let (news, work) = (Clerk::reads(&caritas), Clerk::reads(&inps));
    for number in 0..REFERRALS {
        let request_id = format!("{round}-{number}");
        insist(PATIENCE, || caritas.refer("inps", &request_id, "sleeps at the station")).await?;
    }
    // Acknowledged, too: what is not is shown again to whoever reads next.
    let opened = |seen: &Seen| seen.notices_of("OPENED") == REFERRALS && seen.acknowledged() == REFERRALS;
    news.until("all receipts", PATIENCE, opened).await.with_context(|| network.logs())?;
    // A receipt says that a message is safe, not that its clerk has read it.
    let read = |seen: &Seen| seen.situations().len() == REFERRALS && seen.acknowledged() == REFERRALS;
    work.until("all read", PATIENCE, read).await?;
    Ok(())
}

async fn network(settings: &str) -> Result<Network> {
    Network::builder().institutions(&["caritas", "inps"]).gateway(settings)?.adapters(settings)?.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_endpoint_nobody_is_dialled_but_the_gateway() -> Result<()> {
    // Where an exporter looks that was told nothing: without a listener, a refused connection is gone before anybody could see it.
    // When the port is taken, somebody listens there already.
    let _default = std::net::TcpListener::bind("127.0.0.1:4317");
    // Left out at the gateway, empty at the adapters, as templates leave it.
    let builder = Network::builder().institutions(&["caritas", "inps"]);
    let network = builder.adapters("telemetry.otlp = \"\"")?.start().await?;
    let port: u16 = network.address().rsplit_once(':').context("a port")?.1.parse()?;
    let mut seen: Vec<(&str, u32, BTreeSet<u16>)> = Vec::new();
    for name in ["gateway", "caritas", "inps"] {
        let id = network.node(name)?.process.id().await.with_context(|| format!("{name} runs"))?;
        seen.push((name, id, BTreeSet::new()));
    }
    let send = async {
        send_all(&network, "r").await?;
        tokio::time::sleep(EXPORT_MAX).await;
        anyhow::Ok(())
    };
    tokio::pin!(send);
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            sent = &mut send => break sent?,
            _ = looks.tick() => {
                for (_, id, dials) in &mut seen {
                    dials.extend(dialled(*id)?);
                }
            }
        }
    }
    for (name, _, dials) in seen {
        let expected: BTreeSet<u16> = if name == "gateway" { BTreeSet::new() } else { [port].into() };
        ensure!(dials == expected, "{name} dials {dials:?} and not just {expected:?}");
    }
    Ok(())
}

/// Sends and receives as if nothing were, and ends in order.
async fn unimpressed(network: &Network) -> Result<()> {
    // Whoever waited for a collector, which answers nobody, would wait some seconds for each of some hundred spans: many minutes.
    timeout(PATIENCE, send_all(network, "measured")).await.context("messages wait for the collector")??;
    for name in PROCESSES {
        let ended = network.node(name)?.process.terminate(PATIENCE).await?;
        ensure!(ended.success(), "{name} ended with {ended}");
        let lines = network.node(name)?.process.log().lines();
        ensure!(!lines.iter().any(|line| line.contains("ExportError")), "{name}:\n{}", lines.join("\n"));
        // Said once, in our words, however often it was tried; of a deaf one it may not be known yet.
        let said = lines.iter().filter(|line| line.contains(LOST)).count();
        ensure!(said <= 1, "{name} says {said} times that spans are lost:\n{}", lines.join("\n"));
        // And nothing else is lost: nobody failed at anything but, at the end, the last spans, of which their library speaks.
        let failed = |line: &&String| line.contains(r#""level":"ERROR""#) && !line.contains("opentelemetry_sdk");
        let errors: Vec<_> = lines.iter().filter(failed).collect();
        ensure!(errors.is_empty(), "{name}: {errors:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_holds_up_no_message_and_loses_only_traces() -> Result<()> {
    let nobody = Port::reserve()?;
    let network = network(&settings(&nobody.address())).await?;
    timeout(PATIENCE, send_all(&network, "before")).await.context("messages wait for the collector")??;
    // From here on every process knows that nobody is there.
    for name in PROCESSES {
        network.node(name)?.process.log().wait_for(0, &[LOST], SPANS_MAX).await?;
    }
    unimpressed(&network).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_never_answers_holds_up_no_message_and_loses_only_traces() -> Result<()> {
    // One for each process: all three have an export under way that nobody will answer.
    let mut deaf = [Deaf::start().await?, Deaf::start().await?, Deaf::start().await?];
    let [caritas, inps, gateway] = deaf.each_ref().map(Deaf::settings);
    let builder = Network::builder().institutions(&["caritas", "inps"]).gateway(&gateway)?;
    let network = builder.adapter("caritas", &caritas)?.adapter("inps", &inps)?.start().await?;
    timeout(PATIENCE, send_all(&network, "before")).await.context("messages wait for the collector")??;
    for one in &mut deaf {
        one.told_something(SPANS_MAX).await?;
    }
    unimpressed(&network).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_comes_late_gets_what_follows() -> Result<()> {
    let port = Port::reserve()?;
    let network = network(&settings(&port.address())).await?;
    send_all(&network, "r").await?;
    network.gateway.process.log().wait_for(0, &[LOST], SPANS_MAX).await?;
    let collector = Collector::start_at(&port.address()).await?;
    let caritas = network.desk("caritas")?;
    let reads = Clerk::reads(&network.desk("inps")?);
    insist(PATIENCE, || caritas.refer("inps", "late", "comes back")).await?;
    reads.until("the late one", PATIENCE, |seen| seen.situations().contains(&"comes back".to_owned())).await?;
    let services = ["tramite-adapter/caritas", "tramite-gateway/gateway", "tramite-adapter/inps"];
    let all = |spans: &[tramite_tests::collector::Span]| {
        services.iter().all(|service| spans.iter().any(|span| span.service == *service))
    };
    collector.until("spans of all three", SPANS_MAX, all).await?;
    network.gateway.process.log().wait_for(0, &["the collector takes traces again", "lost"], LINE_MAX).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_endpoint_stops_the_start_with_one_sentence() -> Result<()> {
    for wrong in ["not an address", "127.0.0.1:4317", "https://127.0.0.1:4317"] {
        let settings = format!("telemetry.otlp = \"{wrong}\"");
        let network = Network::builder().institutions(&["caritas"]).gateway(&settings)?.prepare()?;
        network.gateway.process.start().await?;
        let ended = network.gateway.process.exited(PATIENCE).await?;
        let line = network.gateway.process.log().wait_for(0, &["[telemetry] otlp", "http://127.0.0.1:4317"], LINE_MAX);
        line.await.with_context(|| format!("{wrong} ended with {ended}"))?;
        ensure!(!ended.success(), "{wrong} is taken for an endpoint");
    }
    Ok(())
}
