//! The Prometheus pages of gateway and adapters: what they are made of, that they move with what happens, and that no label grows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::{Instant, sleep},
};
use tramite_certs::refusal::Refusal;
use tramite_proto::{pb::backoffice::v1::SendReferralRequest, reason::Reason};
use tramite_tests::{
    clerk::Clerk,
    component,
    desk::{Desk, insist},
    network::{Network, Node, PATIENCE},
    raw, sample,
};

use crate::exposition::{Family, as_older_text, parse};

/// What OpenMetrics 1.0.0 asks for.
const CONTENT_TYPE: &str = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
/// "The first dozen metrics."
const FAMILIES_MIN: usize = 12;
/// A count follows its cause at once; this is for a busy machine.
const COUNT_MAX: Duration = Duration::from_secs(10);
/// Enough to tell what grows from what was only late.
const ROUNDS: usize = 6;
const PAUSE: Duration = Duration::from_millis(50);
/// Words that stand in labels beside reasons and names of institutions: outcomes, verbs, kinds of notice.
const WORDS: [&str; 12] = [
    "opened",
    "refused",
    "permit",
    "accept",
    "settle",
    "OPENED",
    "REFUSED",
    "EXPIRED",
    "DEAD_LETTERED",
    "DISCARDED",
    "CASE_EXPIRED",
    "RECEIPT_AFTER_EXPIRY",
];

type Families = BTreeMap<String, Family>;

/// The page's text, after its head was looked at.
async fn text(node: &Node) -> Result<String> {
    let answer = node.metrics().await?.text;
    let (head, page) = answer.split_once("\r\n\r\n").context("no head")?;
    ensure!(head.to_ascii_lowercase().lines().any(|line| line == CONTENT_TYPE), "{}: {head}", node.name);
    Ok(page.to_owned())
}

async fn page(node: &Node) -> Result<Families> {
    parse(&text(node).await?).with_context(|| node.name.clone())
}

/// The value of one series; nothing counted yet is zero.
fn value(page: &Families, family: &str, labels: &[(&str, &str)]) -> f64 {
    let Some(family) = page.get(family) else { return 0.0 };
    let fits = |of: &BTreeMap<String, String>| {
        of.len() == labels.len() && labels.iter().all(|(name, value)| of.get(*name).is_some_and(|of| of == value))
    };
    family.samples.iter().find(|(_, of, _)| fits(of)).map_or(0.0, |(_, _, value)| *value)
}

/// Waits until a count has moved by so much since a page was read.
async fn moved(node: &Node, before: &Families, family: &str, labels: &[(&str, &str)], by: f64) -> Result<()> {
    let from = value(before, family, labels);
    let until = Instant::now() + COUNT_MAX;
    loop {
        let now = value(&page(node).await?, family, labels);
        if (now - from - by).abs() < 0.5 {
            return Ok(());
        }
        ensure!(
            now < from + by && Instant::now() < until,
            "{family} {labels:?} went from {from} to {now}, not by {by}"
        );
        sleep(PAUSE).await;
    }
}

async fn send(desk: &Desk, request_id: &str, purpose: &str) -> Result<()> {
    let mut sending = sample::sending(request_id, &[]);
    sending.purpose = purpose.into();
    let request = SendReferralRequest {
        sending: Some(sending),
        to: "inps".into(),
        referral: Some(sample::referral("sleeps at the station")),
        conversation_id: String::new(),
    };
    insist(PATIENCE, || {
        let (mut client, request) = (desk.client(), request.clone());
        async move { client.send_referral(request).await }
    })
    .await?;
    Ok(())
}

/// One message that arrives, one that the gateway's policy refuses, one call that the adapter refuses, one handshake without a certificate.
async fn round(network: &Network, number: usize) -> Result<()> {
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    let (news, work) = (Clerk::reads(&caritas), Clerk::reads(&inps));
    send(&caritas, &format!("good-{number}"), "RIGHTS_SCREENING").await?;
    send(&caritas, &format!("bad-{number}"), "DOCUMENT_ACQUISITION").await?;
    ensure!(caritas.refer("nobody", &format!("lost-{number}"), "x").await.is_err(), "nobody is no institution");
    if let Ok(mut stranger) = raw::connect(&network.address(), raw::client_config(None)?).await {
        // With TLS 1.3 a client is done before the server looks at its certificate; the end of the line tells.
        ensure!(!matches!(stranger.read(&mut [0; 512]).await, Ok(1..)), "a stranger was answered");
    }
    work.until("the message", PATIENCE, |seen| seen.acknowledged() == 1).await.with_context(|| network.logs())?;
    let told = |seen: &tramite_tests::clerk::Seen| {
        seen.notices_of("OPENED") == 1 && seen.notices_of("REFUSED") == 1 && seen.acknowledged() == 2
    };
    news.until("both ends", PATIENCE, told).await.with_context(|| network.logs())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_are_open_metrics_and_move_with_a_message_and_a_refusal() -> Result<()> {
    // Nothing is delivered again only because a busy machine was slow.
    let network = Network::builder().institutions(&["caritas", "inps"]).gateway("delivery = { lease_s = 120 }")?;
    let network = network.start().await?;
    let (gateway, caritas, inps) = (&network.gateway, network.adapter("caritas")?, network.adapter("inps")?);
    let before = (page(gateway).await?, page(caritas).await?, page(inps).await?);
    ensure!(before.0.len() >= FAMILIES_MIN, "only {} families at the gateway", before.0.len());
    for (prefix, families) in [("tramite_gateway_", &before.0), ("tramite_adapter_", &before.1)] {
        ensure!(
            families.keys().all(|name| name.starts_with(prefix)),
            "not all of {:?} begin with {prefix}",
            families.keys()
        );
    }
    round(&network, 1).await?;
    let (from, to) = ([("institution", "caritas")], [("institution", "inps")]);
    let policy = [("reason", "PURPOSE_NOT_ALLOWED")];
    for (family, labels, by) in [
        ("tramite_gateway_submitted", from.as_slice(), 2.0),
        ("tramite_gateway_accepted", &from, 1.0),
        ("tramite_gateway_refused", &policy, 1.0),
        ("tramite_gateway_delivered", &to, 1.0),
        ("tramite_gateway_receipts", &[("outcome", "opened")], 1.0),
        ("tramite_gateway_handshakes_refused", &[("reason", Refusal::NoCertificate.as_str())], 1.0),
    ] {
        moved(gateway, &before.0, family, labels, by).await?;
    }
    for (family, labels, by) in [
        ("tramite_adapter_sent", [].as_slice(), 2.0),
        ("tramite_adapter_accepted", &[], 1.0),
        ("tramite_adapter_refused", &policy, 1.0),
        ("tramite_adapter_calls_refused", &[("reason", "UNKNOWN_RECIPIENT")], 1.0),
        ("tramite_adapter_notices", &[("kind", "OPENED")], 1.0),
        ("tramite_adapter_acknowledged", &[], 2.0),
    ] {
        moved(caritas, &before.1, family, labels, by).await?;
    }
    moved(inps, &before.2, "tramite_adapter_opened", &[], 1.0).await?;
    moved(inps, &before.2, "tramite_adapter_acknowledged", &[], 1.0).await?;
    let now = page(inps).await?;
    ensure!(value(&now, "tramite_adapter_connected", &[]) > 0.5, "inps is connected and does not say so");
    ensure!(value(&now, "tramite_adapter_inbox_waiting", &[]) < 0.5, "what was acknowledged still waits");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_from_short_lists_and_no_series_comes_with_a_message() -> Result<()> {
    let network = Network::of_two().await?;
    let nodes = [&network.gateway, network.adapter("caritas")?, network.adapter("inps")?];
    let mut known: BTreeSet<&str> = WORDS.into_iter().chain(["caritas", "inps"]).collect();
    known.extend(Reason::all().map(Reason::as_str));
    known.extend(Refusal::ALL.map(Refusal::as_str));
    let mut counts = Vec::new();
    for number in 1..=ROUNDS {
        round(&network, number).await?;
        let mut series = 0;
        for node in nodes {
            for family in page(node).await?.values() {
                series += family.samples.len();
                for (name, value) in family.samples.iter().flat_map(|(_, labels, _)| labels) {
                    let bounded =
                        if name == "le" { value.parse::<f64>().is_ok() } else { known.contains(value.as_str()) };
                    ensure!(bounded, "{}: {name}={value:?} is from no list", node.name);
                }
            }
        }
        counts.push(series);
    }
    // A series that came with each message would have come in each round; one that a busy machine brings (an attempt that had to be
    // repeated) comes once.
    let (first, last) = (counts[0], counts[ROUNDS - 1]);
    ensure!(last < first + ROUNDS - 1, "{counts:?} series: some come with each message");
    Ok(())
}

/// True when Prometheus' own tool is here.
async fn promtool_is_here() -> Result<bool> {
    let tried = Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    if tried.is_ok_and(|status| status.success()) {
        return Ok(true);
    }
    component::missing("Prometheus' own opinion", "promtool (of the package prometheus) is not installed")?;
    Ok(false)
}

async fn promtool(arguments: &[&str], input: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("its standard input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "promtool {arguments:?}: {}\n{input}", String::from_utf8_lossy(&said));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_own_tool_finds_nothing_wrong_with_the_pages() -> Result<()> {
    if !promtool_is_here().await? {
        return Ok(());
    }
    let network = Network::of_two().await?;
    round(&network, 1).await?;
    for name in ["gateway", "caritas"] {
        let text = text(network.node(name)?).await?;
        // Its linter knows names, help and types, and reads the older format only.
        promtool(&["check", "metrics"], &as_older_text(&text)?).await.with_context(|| name.to_owned())?;
        // Its reader of OpenMetrics is the one that scrapes; from a file it wants a time with each sample.
        let timed =
            |line: &str| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1700000000\n") };
        let file = network.folder().join(format!("{name}.openmetrics"));
        fs::write(&file, text.lines().map(timed).collect::<String>())?;
        let (file, blocks) = (file.display().to_string(), network.folder().join("blocks").display().to_string());
        promtool(&["tsdb", "create-blocks-from", "openmetrics", &file, &blocks], "").await?;
    }
    Ok(())
}
