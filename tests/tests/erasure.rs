//! Content is gone from every file within a minute of its settlement: the ciphertext at the gateway, and what a person said and is
//! at the adapters once the office has it. Files are read as they are, holes and what stands behind them too.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use serde_json::json;
use tokio::time::Instant;
use tramite_proto::{
    pb::{
        body::v1::{Body, body::Kind},
        directory::v1::GetInstitutionRequest,
    },
    seal::PublicKey,
};
use tramite_tests::{
    attack::{Player, gateway_and, join},
    canary,
    desk::insist,
    forge::{self, Draft, b64, receipt},
    network::{Network, PATIENCE},
    receiving::Receiving,
    sample,
    submitting::Part,
};

/// What is promised.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Three waiting, three settled; of the largest that stand inline, and of a few bytes, which share a block with others.
const LENGTHS: [usize; 6] = [LARGE, SMALL, LARGE, SMALL, SMALL, LARGE];
/// Padded bodies and their tags.
const LARGE: usize = 65_536 + 16;
const SMALL: usize = 512 + 16;
const SITUATION: &str = "qvx-situazione-8841-canarino";
const FILE: &str = "kqz-allegato-canarino.pdf";

/// Bytes that are nobody else's.
fn marker(number: usize, length: usize) -> Vec<u8> {
    format!("sealed canary {number} Kx7q ").into_bytes().into_iter().cycle().take(length).collect()
}

/// Waits until none of these is in any file of a folder.
async fn gone(folder: &Path, needles: &[(&str, Vec<u8>)]) -> Result<Duration> {
    let since = Instant::now();
    loop {
        // A file that is removed while it is looked for is gone.
        match canary::in_directory(folder, needles) {
            Ok(found) if found.is_empty() => return Ok(since.elapsed()),
            found => ensure!(since.elapsed() < GONE_WITHIN, "after a minute: {found:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ciphertext_is_in_no_file_of_the_gateway_a_minute_after_its_settlement() -> Result<()> {
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], "").await?;
    let data = network.gateway.folder.join("data");
    let mut drafts = Vec::new();
    for (number, length) in LENGTHS.into_iter().enumerate() {
        let mut draft = Draft::blind_over("caritas", "inps", marker(number, length));
        if number == 0 {
            let id = draft.id().to_owned();
            let part = Part::of(&id, 300_000);
            ensure!(part.put(&caritas.peer, &id, "inps").await?, "the part was there already");
            draft = draft.with("parts", json!([{ "len": part.length, "s256": b64(&part.sha256) }]));
        }
        caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
        drafts.push(draft);
    }
    let needle = |number: usize| ("content", marker(number, 200));
    for number in 0..drafts.len() {
        ensure!(
            !canary::in_directory(&data, &[needle(number)])?.is_empty(),
            "content {number} is nowhere while it waits"
        );
    }
    ensure!(fs::read_dir(data.join("parts"))?.count() == 1, "the part waits with its message");
    let mut inbox = Receiving::open(&inps.peer, 100).await?;
    for (number, draft) in drafts.iter().enumerate() {
        let delivered = inbox.delivery().await?;
        if number < 3 {
            let receipt = receipt("inps", &draft.origin, &draft.ciphertext);
            let answer = inbox.receipt(delivered.delivery.delivery_id, &receipt, &inps.pen).await?;
            ensure!(answer.refused.is_none(), "{answer:?}");
        }
    }
    let took = gone(&data, &[needle(0), needle(1), needle(2)]).await?;
    ensure!(took < GONE_WITHIN && fs::read_dir(data.join("parts"))?.count() == 0, "the part is still there");
    for number in 3..drafts.len() {
        ensure!(!canary::in_directory(&data, &[needle(number)])?.is_empty(), "content {number} waits, and is gone");
    }
    network.gateway.process.terminate(PATIENCE).await?;
    ensure!(canary::in_directory(&data, &[needle(0), needle(1), needle(2)])?.is_empty(), "a stop brought it back");
    Ok(())
}

/// The key that others seal to.
async fn key_of(player: &Player, name: &str) -> Result<PublicKey> {
    let request = GetInstitutionRequest { name: name.into() };
    let found = player.peer.directory().get_institution(request).await?.into_inner();
    let keys = found.institution.context("an institution")?.keys;
    forge::encryption_key(&keys.first().context("a key record")?.json)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_office_has_taken_is_in_no_file_of_its_adapter_a_minute_later() -> Result<()> {
    let network = Network::builder().institutions(&["inps"]).played(&["caritas"]).start().await?;
    let caritas = join(&network, "caritas").await?;
    let (data, inps) = (network.node("inps")?.folder.join("data"), network.desk("inps")?);
    let body = Body { kind: Some(Kind::Referral(sample::referral(SITUATION))), ..Body::default() };
    let draft = Draft::sealed("caritas", "inps", &key_of(&caritas, "inps").await?, &body.encode_to_vec())?;
    let ciphertext = draft.ciphertext.iter().copied().take(64).collect::<Vec<u8>>();
    let words = [("ciphertext", ciphertext), ("situation", SITUATION.into())];
    caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
    let mut news = Receiving::open(&caritas.peer, 10).await?;
    news.notice().await.with_context(|| network.logs())?;
    let found = canary::in_directory(&data, &words)?;
    ensure!(found.len() == 1, "sealed while the office has not taken it, and no more: {found:?}");
    let items: Vec<String> = inps.waiting().await?.into_iter().map(|item| item.item_id).collect();
    ensure!(items.len() == 1 && inps.acknowledge(&items).await? == 1, "{items:?}");
    gone(&data, &words).await?;
    gone(&network.gateway.folder.join("data"), &words).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gateway_has_is_in_no_file_of_the_senders_adapter_a_minute_later() -> Result<()> {
    let network = Network::builder().institutions(&["caritas"]).played(&["inps"]).start().await?;
    let inps = join(&network, "inps").await?;
    let (data, caritas) = (network.node("caritas")?.folder.join("data"), network.desk("caritas")?);
    let file: Vec<u8> = std::iter::repeat_n(SITUATION.as_bytes(), 3000).flatten().copied().collect();
    let attached = insist(PATIENCE, || caritas.attach(FILE, &file)).await?.attachment_id;
    insist(PATIENCE, || caritas.refer_with("inps", "r-1", SITUATION, std::slice::from_ref(&attached))).await?;
    let delivered = Receiving::open(&inps.peer, 10).await?.delivery().await.with_context(|| network.logs())?;
    let sealed = delivered.delivery.message.context("a message")?.ciphertext;
    let ciphertext = sealed.iter().copied().take(64).collect::<Vec<u8>>();
    let words = [("ciphertext", ciphertext), ("situation", SITUATION.into()), ("file name", FILE.into())];
    let at_gateway = canary::in_directory(&network.gateway.folder.join("data"), &words)?;
    ensure!(at_gateway.len() == 1, "it waits at the gateway, sealed: {at_gateway:?}");
    gone(&data, &words).await?;
    let left = |folder: &str| -> Result<Vec<String>> {
        let names = fs::read_dir(data.join(folder))?.flatten().map(|entry| entry.file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        // What is known of an attachment stays for a day, sealed, so that a repeat can be told.
        Ok(names.filter(|name| name != "staging.key" && !name.ends_with(".about")).collect())
    };
    let left = [left("store/parts")?, left("attachments")?];
    ensure!(left.iter().all(Vec::is_empty), "the attachment is still there: {left:?}");
    Ok(())
}
