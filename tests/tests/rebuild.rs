//! The journal is the truth: whatever else is lost is made again from it, and what is wrong with itself is said, never served.

use std::fs;

use anyhow::{Context, Result, ensure};
use tramite_proto::pb::statement::v1::{SealedMessage, Statement};
use tramite_tests::{
    attack::{Player, gateway_and, join, reason},
    damage::{self, Tail},
    forge::{Draft, receipt},
    network::{Network, PATIENCE, START_MAX},
    receiving::Receiving,
};

const MESSAGES: usize = 30;
/// So many of them are settled before the gateway ends.
const SETTLED: usize = 12;

/// Messages sent, with their acceptances.
struct Sent {
    drafts: Vec<Draft>,
    messages: Vec<SealedMessage>,
    acceptances: Vec<Statement>,
}

async fn send(caritas: &Player) -> Result<Sent> {
    let mut sent = Sent { drafts: Vec::new(), messages: Vec::new(), acceptances: Vec::new() };
    for _ in 0..MESSAGES {
        let draft = Draft::blind("caritas", "inps");
        let message = draft.signed(&caritas.pen)?;
        sent.acceptances.push(caritas.peer.submit(message.clone()).await?);
        sent.messages.push(message);
        sent.drafts.push(draft);
    }
    Ok(sent)
}

/// Receives and settles so many.
async fn settle(inps: &Player, sent: &Sent, range: std::ops::Range<usize>) -> Result<()> {
    let mut inbox = Receiving::open(&inps.peer, u32::try_from(range.len())?).await?;
    for draft in sent.drafts.get(range).context("so many were sent")? {
        let delivered = inbox.delivery().await?;
        ensure!(delivered.origin.json == draft.origin.json(), "another message than the next");
        let receipt = receipt("inps", &draft.origin, &draft.ciphertext);
        let answer = inbox.receipt(delivered.delivery.delivery_id, &receipt, &inps.pen).await?;
        ensure!(answer.refused.is_none(), "{answer:?}");
    }
    Ok(())
}

/// Every repeat gets its first answer, other content under a known id is refused, and what waits is delivered.
async fn is_as_before(network: &Network, sent: &Sent) -> Result<()> {
    let (caritas, inps) = (join(network, "caritas").await?, join(network, "inps").await?);
    for (message, acceptance) in sent.messages.iter().zip(&sent.acceptances) {
        ensure!(caritas.peer.submit(message.clone()).await? == *acceptance, "a repeat got another answer");
    }
    for draft in sent.drafts.first().into_iter().chain(sent.drafts.last()) {
        let other = Draft::blind("caritas", "inps").with("jti", draft.id()).with("case", draft.id());
        let status = caritas.peer.submit(other.signed(&caritas.pen)?).await.err().context("taken under a known id")?;
        ensure!(reason(&status) == "ID_REUSED", "{status:?}");
    }
    settle(&inps, sent, SETTLED..MESSAGES).await
}

async fn scene() -> Result<(Network, Sent)> {
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], "").await?;
    let sent = send(&caritas).await?;
    settle(&inps, &sent, 0..SETTLED).await?;
    Ok((network, sent))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_that_is_lost_is_made_again() -> Result<()> {
    let (network, sent) = scene().await?;
    network.gateway.process.terminate(PATIENCE).await?;
    fs::remove_dir_all(network.gateway.folder.join("data/outbox"))?;
    network.gateway.process.start().await?;
    is_as_before(&network, &sent).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_that_is_damaged_is_made_again() -> Result<()> {
    let (network, sent) = scene().await?;
    network.gateway.process.terminate(PATIENCE).await?;
    for entry in fs::read_dir(network.gateway.folder.join("data/outbox"))?.flatten() {
        if entry.path().is_file() {
            let damaged: Vec<u8> = fs::read(entry.path())?.iter().map(|byte| byte ^ 0x55).collect();
            fs::write(entry.path(), damaged)?;
        }
    }
    network.gateway.process.start().await?;
    is_as_before(&network, &sent).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_is_cut_and_nothing_acknowledged_is_lost() -> Result<()> {
    let (network, sent) = scene().await?;
    network.gateway.process.kill().await?;
    let Tail { file, offset, bytes } = damage::tear(damage::segment(&network.gateway.folder.join("data"))?)?;
    let log = network.gateway.process.log();
    let lines = log.lines().len();
    network.gateway.process.start().await?;
    let line = log.wait_for(lines, &["torn tail", "never acknowledged", "cut"], START_MAX).await?;
    let said: serde_json::Value = serde_json::from_str(&line)?;
    let field = |name: &str| said.get(name).or_else(|| said.pointer(&format!("/fields/{name}"))).cloned();
    let of = field("file").and_then(|file| file.as_str().map(ToOwned::to_owned));
    ensure!(of.as_deref() == file.to_str() && of.is_some(), "another file than {}: {line}", file.display());
    ensure!(field("offset") == Some(offset.into()) && field("bytes") == Some(bytes.into()), "{offset}: {line}");
    is_as_before(&network, &sent).await?;
    // It is gone, not skipped.
    network.gateway.process.kill().await?;
    let lines = log.lines().len();
    network.gateway.process.start().await?;
    log.wait_for(lines, &["the store is open"], START_MAX).await?;
    ensure!(!log.lines()[lines..].join("\n").contains("torn tail"), "it was there again: {}", log.tail(20));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_is_not_served_and_the_place_is_named() -> Result<()> {
    let (network, _sent) = scene().await?;
    network.gateway.process.terminate(PATIENCE).await?;
    let path = damage::segment(&network.gateway.folder.join("data"))?;
    let mut bytes = fs::read(&path)?;
    // A fact in the middle: an acceptance that somebody would like to be another.
    let word = b"SubmissionAcceptance";
    let places: Vec<usize> =
        bytes.windows(word.len()).enumerate().filter(|(_, seen)| seen == word).map(|(at, _)| at).collect();
    let place = places[places.len() / 2];
    let group = damage::groups(&bytes).into_iter().rfind(|group| *group < place).context("a group")?;
    bytes[place] ^= 1;
    fs::write(&path, bytes)?;
    let lines = network.gateway.process.log().lines().len();
    network.gateway.process.start().await?;
    let status = network.gateway.process.exited(START_MAX).await.context("it serves a damaged journal")?;
    ensure!(!status.success(), "it ended with {status}");
    let said = network.gateway.process.log().lines()[lines..].join("\n");
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    ensure!(said.contains(&format!("{name} is damaged at offset {group}")), "{group} of {name} is not named: {said}");
    ensure!(!said.contains("the store is open"), "it was opened: {said}");
    Ok(())
}
