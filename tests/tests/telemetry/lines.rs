//! Log lines: one JSON object each, as many as the level asks for, and of a refusal the reason and the peer but no content.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};
use tramite_proto::pb::{
    backoffice::v1::SendReferralRequest,
    exchange::v1::{ReceiveRequest, RetryLater, Settlement, settlement::Outcome},
};
use tramite_tests::{
    attack::{Player, gateway_and, refused},
    binary, canary,
    clerk::Clerk,
    collector::Collector,
    desk::{Desk, insist},
    forge::{Draft, receipt},
    network::{Network, Node, PATIENCE},
    receiving::Receiving,
    sample,
};

/// A log line follows its cause at once; this is for a busy machine.
const LINE_MAX: Duration = Duration::from_secs(10);
const SITUATION: &str = "qvx-situazione-8841-canarino";

/// The lines of a process as the objects that they must be.
fn objects(node: &Node) -> Result<Vec<Value>> {
    let lines = node.process.log().lines();
    ensure!(!lines.is_empty(), "{} wrote nothing", node.name);
    lines.iter().map(|line| serde_json::from_str(line).with_context(|| format!("{}: {line}", node.name))).collect()
}

fn word<'a>(line: &'a Value, name: &str) -> &'a str {
    line.get(name).and_then(Value::as_str).unwrap_or_default()
}

async fn send(desk: &Desk, request_id: &str, purpose: &str) -> Result<String> {
    let mut sending = sample::sending(request_id, &[]);
    sending.purpose = purpose.into();
    let request = SendReferralRequest {
        sending: Some(sending),
        to: "inps".into(),
        referral: Some(sample::referral(SITUATION)),
        conversation_id: String::new(),
    };
    let sent = insist(PATIENCE, || {
        let (mut client, request) = (desk.client(), request.clone());
        async move { client.send_referral(request).await }
    });
    Ok(sent.await?.into_inner().message_id)
}

/// A message that arrives and one that the gateway's policy refuses; gives the refused one's id.
async fn round(network: &Network) -> Result<String> {
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    let (news, work) = (Clerk::reads(&caritas), Clerk::reads(&inps));
    send(&caritas, "good", "RIGHTS_SCREENING").await?;
    let refused = send(&caritas, "bad", "DOCUMENT_ACQUISITION").await?;
    work.until("the message", PATIENCE, |seen| seen.acknowledged() == 1).await.with_context(|| network.logs())?;
    let told = |seen: &tramite_tests::clerk::Seen| seen.notices_of("OPENED") == 1 && seen.notices_of("REFUSED") == 1;
    news.until("both ends", PATIENCE, told).await.with_context(|| network.logs())?;
    Ok(refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_is_a_json_object_and_a_refusal_s_has_reason_and_peer_and_no_content() -> Result<()> {
    let builder = Network::builder().institutions(&["caritas", "inps"]);
    let network = builder.gateway("log.level = \"debug\"")?.adapters("log.level = \"debug\"")?.start().await?;
    let refused = round(&network).await?;
    let gateway = &network.gateway;
    gateway.process.log().wait_for(0, &["PURPOSE_NOT_ALLOWED", &refused], LINE_MAX).await?;
    network.adapter("caritas")?.process.log().wait_for(0, &["PURPOSE_NOT_ALLOWED", &refused], LINE_MAX).await?;
    for name in ["caritas", "inps", "gateway"] {
        network.node(name)?.process.terminate(PATIENCE).await?;
    }
    for name in ["gateway", "caritas", "inps"] {
        for line in objects(network.node(name)?)? {
            let at = word(&line, "timestamp");
            ensure!(at.len() >= 20 && at.ends_with('Z') && at.contains('T'), "{name}: no time in {line}");
            ensure!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&word(&line, "level")), "{name}: no level in {line}");
            ensure!(!word(&line, "target").is_empty(), "{name}: no target in {line}");
            for content in [SITUATION, "Prova", "RSSMRA80A01A944I"] {
                ensure!(!line.to_string().contains(content), "{name} says {content}: {line}");
            }
        }
    }
    let lines = objects(gateway)?;
    let about = |line: &&Value| word(line, "message_id") == refused && word(line, "message") == "refused";
    let lines: Vec<_> = lines.iter().filter(about).collect();
    let [line] = lines.as_slice() else { anyhow::bail!("not one line says that {refused} was refused: {lines:#?}") };
    ensure!(word(line, "level") == "WARN" && word(line, "reason") == "PURPOSE_NOT_ALLOWED", "{line}");
    ensure!(word(line, "peer") == "caritas" && word(line, "verb") == "submit", "{line}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_and_the_format_of_the_configuration_are_those_of_the_lines() -> Result<()> {
    let builder = Network::builder().institutions(&["caritas", "inps"]);
    let builder = builder.gateway("log.level = \"warn\"")?;
    let builder = builder.adapter("caritas", "log = { level = \"error,tramite_adapters=debug\" }")?;
    let network = builder.adapter("inps", "log = { format = \"text\" }")?.start().await?;
    let refused = round(&network).await?;
    network.gateway.process.log().wait_for(0, &["PURPOSE_NOT_ALLOWED", &refused], LINE_MAX).await?;
    let levels = |node: &Node| {
        Ok::<_, anyhow::Error>(
            objects(node)?
                .iter()
                .map(|line| (word(line, "level").to_owned(), word(line, "target").to_owned()))
                .collect::<Vec<_>>(),
        )
    };
    let gateway = levels(&network.gateway)?;
    ensure!(gateway.iter().all(|(level, _)| level == "WARN" || level == "ERROR"), "{gateway:?}");
    let caritas = levels(network.adapter("caritas")?)?;
    ensure!(
        caritas.iter().any(|(level, target)| level == "INFO" && target.starts_with("tramite_adapters")),
        "{caritas:?}"
    );
    let others = |(level, target): &(String, String)| level != "ERROR" && !target.starts_with("tramite_adapters");
    ensure!(!caritas.iter().any(others), "{caritas:?}");
    let inps = network.adapter("inps")?.process.log().lines();
    ensure!(inps.iter().any(|line| line.contains(" INFO ")), "{inps:#?}");
    ensure!(!inps.iter().any(|line| line.starts_with('{') || line.contains('\u{1b}')), "no text for a file: {inps:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_writes_where_a_code_belongs_reaches_no_line_no_label_and_no_span() -> Result<()> {
    // Well formed wherever a code is, and known nowhere.
    const CODE: &str = "RSSMRA80A01A944I";
    let collector = Collector::start().await?;
    let settings = format!("{}\nlog.level = \"trace\"", collector.settings());
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], &settings).await?;
    for (member, reason) in [("pur", "PURPOSE_NOT_ALLOWED"), ("lb", "LEGAL_BASIS_NOT_ALLOWED")] {
        let message = Draft::blind("caritas", "inps").with(member, CODE).signed(&caritas.pen)?;
        refused(&network, &caritas.peer, member, message, reason).await?;
    }
    for (member, value) in [("mt", format!("tramite.body.v1.{CODE}")), ("loa", CODE.into()), ("pri", CODE.into())] {
        let message = Draft::blind("caritas", "inps").with(member, value).signed(&caritas.pen)?;
        ensure!(caritas.peer.submit(message).await.is_err(), "{member} was accepted");
    }
    // What the vocabulary does not list, because every institution has its own, passes.
    let own =
        ["agr", "op", "loc"].iter().fold(Draft::blind("caritas", "inps"), |draft, member| draft.with(member, CODE));
    caritas.peer.submit(own.signed(&caritas.pen)?).await?;
    // A recipient puts it off, with a reason of its own making.
    let (up, mut down) = inps.peer.receive(1).await?;
    let sequence =
        down.message().await?.and_then(|frame| Some(frame.deliveries.first()?.delivery_id)).context("one")?;
    let later = RetryLater { delay_ms: 1, reason: CODE.into(), detail: CODE.into() };
    let settlement = Settlement { delivery_id: sequence, outcome: Some(Outcome::Retry(later)) };
    up.send(ReceiveRequest { credit: 0, jws: Vec::new(), settlements: vec![settlement] }).await?;
    network.gateway.process.log().wait_for(0, &["an attempt failed"], LINE_MAX).await?;
    drop((up, down));
    // And refuses another, likewise.
    let draft = Draft::blind("caritas", "inps");
    caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
    let mut receiving = receiving(&inps).await?;
    let delivered = loop {
        let delivered = receiving.delivery().await?;
        if delivered.origin.json == draft.origin.json() {
            break delivered;
        }
    };
    let receipt = receipt("inps", &draft.origin, &draft.ciphertext).with("opened", false).with("rsn", CODE);
    let answer = receiving.receipt(delivered.delivery.delivery_id, &receipt, &inps.pen).await?;
    ensure!(answer.refused.is_none(), "{answer:?}");
    network.gateway.process.log().wait_for(0, &["\"settled\"", draft.id()], LINE_MAX).await?;
    let page = network.gateway.metrics().await?;
    ensure!(page.sum("tramite_gateway_retries_total", &["NACK_TRANSIENT"]) > 0.5, "{}", page.text);
    ensure!(!page.text.contains(CODE), "on the page: {}", page.text);
    network.gateway.process.terminate(PATIENCE).await?;
    let lines = network.gateway.process.log().lines();
    let said: Vec<_> = lines.iter().filter(|line| line.contains(CODE)).collect();
    ensure!(said.is_empty(), "in the log: {said:#?}");
    let bytes = collector.bytes();
    ensure!(canary::holds(&bytes, b"PURPOSE_NOT_ALLOWED") && !canary::holds(&bytes, CODE.as_bytes()), "in a span");
    Ok(())
}

/// A stream of a recipient whose earlier one may not be gone yet.
async fn receiving(player: &Player) -> Result<Receiving> {
    insist(PATIENCE, || Receiving::open(&player.peer, 10)).await
}

/// Starts a gateway by hand with `RUST_LOG` set, and gives its first line; or its whole output when it ends by itself.
async fn first_line(network: &Network, filter: &str) -> Result<String> {
    let path = tokio::task::spawn_blocking(binary::path).await??;
    let mut command = Command::new(path);
    command.arg("gateway").arg("--config").arg(network.gateway.folder.join("gateway.toml")).env("RUST_LOG", filter);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("its lines")?).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.context("no line")??.unwrap_or_default();
    child.kill().await?;
    Ok(line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_log_overrules_the_configuration_for_one_start() -> Result<()> {
    let network = Network::builder().institutions(&["caritas"]).gateway("log.level = \"off\"")?.prepare()?;
    let line = first_line(&network, "info").await?;
    ensure!(word(&serde_json::from_str(&line).context(line.clone())?, "level") == "INFO", "{line}");
    let line = first_line(&network, "tramite=loud").await?;
    ensure!(line.contains("RUST_LOG"), "a filter that is none, and no word of it: {line}");
    Ok(())
}
