//! Content is gone from every file within a minute of its settlement: the ciphertext at the gateway, and what a person said and is
//! at the adapters once the office has it. Files are read as they are, holes and what stands behind them too.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use serde_json::json;
use tokio::time::Instant;
use tramite_proto::{
    pb::{
        backoffice::v1::{SendReferralRequest, Sending},
        body::v1::{Body, body::Kind},
        directory::v1::GetInstitutionRequest,
    },
    seal::PublicKey,
};
use tramite_tests::{
    attack::{Player, connect, gateway_and, join},
    canary,
    clerk::Clerk,
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
/// Long enough to be accepted, short enough to be waited for.
const SOON_S: i64 = 12;
/// No destructor runs, no buffer is flushed.
const SIGKILL: i32 = 9;
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
    let parts = files_in(&data.join("parts"))?;
    ensure!(parts.len() == 1, "the part waits with its message: {parts:?}");
    let sealed = beginning_of(&parts[0])?;
    let mut inbox = Receiving::open(&inps.peer, 100).await?;
    for (number, draft) in drafts.iter().enumerate() {
        let delivered = inbox.delivery().await?;
        if number < 3 {
            let receipt = receipt("inps", &draft.origin, &draft.ciphertext);
            let answer = inbox.receipt(delivered.delivery.delivery_id, &receipt, &inps.pen).await?;
            ensure!(answer.refused.is_none(), "{answer:?}");
        }
    }
    let took = gone(&network.gateway.folder, &[needle(0), needle(1), needle(2), ("part", sealed)]).await?;
    ensure!(took < GONE_WITHIN && fs::read_dir(data.join("parts"))?.count() == 0, "the part is still there");
    for number in 3..drafts.len() {
        ensure!(!canary::in_directory(&data, &[needle(number)])?.is_empty(), "content {number} waits, and is gone");
    }
    network.gateway.process.terminate(PATIENCE).await?;
    let left = canary::in_directory(&network.gateway.folder, &[needle(0), needle(1), needle(2)])?;
    ensure!(left.is_empty(), "a stop brought it back: {left:?}");
    Ok(())
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// The beginning of a part, which is no other's.
fn beginning_of(file: &Path) -> Result<Vec<u8>> {
    Ok(fs::read(file)?.get(..64).context("a longer file")?.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_message_that_is_refused_or_expires_nothing_is_in_any_file_of_the_gateway_a_minute_later() -> Result<()> {
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], "").await?;
    let folder = &network.gateway.folder;
    let put = async |number: usize, expires_s: i64| {
        let draft = Draft::blind_over("caritas", "inps", marker(number, LARGE));
        let part = Part::of(draft.id(), 300_000);
        part.put(&caritas.peer, draft.id(), "inps").await?;
        let draft = draft.with("parts", json!([{ "len": part.length, "s256": b64(&part.sha256) }]));
        let draft = draft.with("exp", forge::now_s() + expires_s);
        caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
        let parts = files_in(&folder.join("data/parts"))?;
        let name = draft.id().to_owned();
        let part = parts.iter().find(|path| path.to_string_lossy().contains(&name)).context("its part")?;
        let needles = [("content", marker(number, 200)), ("part", beginning_of(part)?)];
        let found = canary::in_directory(folder, &needles)?;
        ensure!(found.len() == 2, "not there while it waits: {found:?}");
        anyhow::Ok((draft, needles))
    };
    let (refused, refused_needles) = put(0, 3600).await?;
    let mut inbox = Receiving::open(&inps.peer, 1).await?;
    let delivered = inbox.delivery().await?;
    let receipt = receipt("inps", &refused.origin, &refused.ciphertext).with("opened", false);
    let receipt = receipt.with("rsn", "DECRYPTION_FAILED");
    let answer = inbox.receipt(delivered.delivery.delivery_id, &receipt, &inps.pen).await?;
    ensure!(answer.refused.is_none(), "{answer:?}");
    // Nobody is there any more who would take the other.
    drop((inbox, inps));
    let (_, expired_needles) = put(1, SOON_S).await?;
    let mut news = Receiving::open(&caritas.peer, 10).await?;
    for event in ["ContentHandoverFailure", "ContentConsignmentFailure"] {
        let noticed = news.notice().await?;
        news.all_noticed(&[noticed.notice.delivery_id]).await?;
        let evidence = noticed.evidence.context("evidence")?;
        let evidence: serde_json::Value = serde_json::from_slice(&evidence.json)?;
        ensure!(evidence["evt"] == event, "{evidence}");
    }
    gone(folder, &[refused_needles, expired_needles].concat()).await?;
    let left = files_in(&folder.join("data/parts"))?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kill_leaves_between_settlement_and_erasure_is_erased_by_the_next_start() -> Result<()> {
    let (network, players) = gateway_and(["caritas", "inps"], "").await?;
    drop(players);
    let (process, folder) = (&network.gateway.process, &network.gateway.folder);
    process.terminate(PATIENCE).await?;
    process.start_to_be_killed_at(Some("content.before_erase:1")).await?;
    let (caritas, inps) = (join(&network, "caritas").await?, join(&network, "inps").await?);
    let draft = Draft::blind_over("caritas", "inps", marker(0, LARGE));
    let part = Part::of(draft.id(), 300_000);
    part.put(&caritas.peer, draft.id(), "inps").await?;
    let draft = draft.with("parts", json!([{ "len": part.length, "s256": b64(&part.sha256) }]));
    caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
    let sealed = beginning_of(files_in(&folder.join("data/parts"))?.first().context("a part")?)?;
    let needles = [("content", marker(0, 200)), ("part", sealed)];
    let mut inbox = Receiving::open(&inps.peer, 10).await?;
    let delivered = inbox.delivery().await?;
    let receipt = receipt("inps", &draft.origin, &draft.ciphertext);
    // Whether its answer still comes is the machine's affair.
    let _ = inbox.receipt(delivered.delivery.delivery_id, &receipt, &inps.pen).await;
    let status = process.exited(PATIENCE).await?;
    ensure!(status.signal() == Some(SIGKILL), "it was not killed: {status}");
    ensure!(!canary::in_directory(folder, &needles)?.is_empty(), "it was erased before the kill, which shows nothing");
    process.start().await?;
    let mut news = Receiving::open(&connect(&network, "caritas").await?.peer, 10).await?;
    let told = news.notice().await?.receipt.context("a receipt")?;
    ensure!(told.json == receipt.json(), "the settlement did not stand");
    gone(folder, &needles).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attachment_that_an_office_has_taken_is_in_no_file_of_any_node_a_minute_later() -> Result<()> {
    let network = Network::of_two().await?;
    let (caritas, inps, recipient) = (network.desk("caritas")?, network.desk("inps")?, network.node("inps")?);
    recipient.process.terminate(PATIENCE).await?;
    let file: Vec<u8> = sample::bytes(300_000, 11);
    let attached = [insist(PATIENCE, || caritas.attach(FILE, &file)).await?.attachment_id];
    let sent = insist(PATIENCE, || caritas.refer_with("inps", "r-1", SITUATION, &attached)).await?;
    // Sealed once more on its way: as it waits at the gateway, and only there.
    let at_gateway = network.gateway.folder.join("data/parts");
    let until = Instant::now() + PATIENCE;
    let part = loop {
        let whole = files_in(&at_gateway)?.into_iter().find(|path| path.extension().is_some_and(|part| part == "0"));
        match whole {
            Some(part) => break part,
            None => ensure!(Instant::now() < until, "the part does not come to the gateway\n{}", network.logs()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let middle = file.len() / 2;
    let needles = [
        ("sealed attachment", beginning_of(&part)?),
        ("attachment", file[middle..middle + 64].to_vec()),
        ("situation", SITUATION.into()),
        ("file name", FILE.into()),
    ];
    recipient.process.start().await?;
    let items = insist(PATIENCE, || async {
        let items = inps.waiting().await?;
        if items.is_empty() { Err(tonic::Status::unavailable("nothing yet")) } else { Ok(items) }
    });
    let items: Vec<String> = items.await?.into_iter().map(|item| item.item_id).collect();
    let found = canary::in_directory(&recipient.folder, &needles)?;
    ensure!(found.len() == 1 && found[0].1 == "sealed attachment", "sealed while it waits, and no more: {found:?}");
    ensure!(insist(PATIENCE, || inps.attachment(&sent.message_id, 0)).await? == file, "the attachment is another");
    ensure!(insist(PATIENCE, || inps.acknowledge(&items)).await? == 1, "{items:?}");
    for name in ["inps", "gateway", "caritas"] {
        gone(&network.node(name)?.folder, &needles).await.with_context(|| name.to_owned())?;
    }
    recipient.process.terminate(PATIENCE).await?;
    let left = canary::in_directory(&recipient.folder, &needles)?;
    ensure!(left.is_empty(), "a stop brought it back: {left:?}");
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
    let (data, inps) = (network.node("inps")?.folder.clone(), network.desk("inps")?);
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
    gone(&network.gateway.folder, &words).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gateway_has_is_in_no_file_of_the_senders_adapter_a_minute_later() -> Result<()> {
    let network = Network::builder().institutions(&["caritas"]).played(&["inps"]).start().await?;
    let inps = join(&network, "inps").await?;
    let (folder, caritas) = (network.node("caritas")?.folder.clone(), network.desk("caritas")?);
    let data = folder.join("data");
    let file: Vec<u8> = std::iter::repeat_n(SITUATION.as_bytes(), 3000).flatten().copied().collect();
    let attached = insist(PATIENCE, || caritas.attach(FILE, &file)).await?.attachment_id;
    insist(PATIENCE, || caritas.refer_with("inps", "r-1", SITUATION, std::slice::from_ref(&attached))).await?;
    let delivered = Receiving::open(&inps.peer, 10).await?.delivery().await.with_context(|| network.logs())?;
    let sealed = delivered.delivery.message.context("a message")?.ciphertext;
    let ciphertext = sealed.iter().copied().take(64).collect::<Vec<u8>>();
    let words = [("ciphertext", ciphertext), ("situation", SITUATION.into()), ("file name", FILE.into())];
    let at_gateway = canary::in_directory(&network.gateway.folder.join("data"), &words)?;
    ensure!(at_gateway.len() == 1, "it waits at the gateway, sealed: {at_gateway:?}");
    gone(&folder, &words).await?;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_office_has_taken_when_its_adapter_is_killed_before_it_erases_is_erased_by_the_next_start() -> Result<()>
{
    let network = Network::builder().institutions(&["inps"]).played(&["caritas"]).start().await?;
    let caritas = join(&network, "caritas").await?;
    let (node, inps) = (network.node("inps")?, network.desk("inps")?);
    node.process.terminate(PATIENCE).await?;
    node.process.start_to_be_killed_at(Some("content.before_erase:1")).await?;
    let body = Body { kind: Some(Kind::Referral(sample::referral(SITUATION))), ..Body::default() };
    let draft = Draft::sealed("caritas", "inps", &key_of(&caritas, "inps").await?, &body.encode_to_vec())?;
    let words = [("ciphertext", draft.ciphertext.iter().copied().take(64).collect::<Vec<u8>>())];
    caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
    Receiving::open(&caritas.peer, 10).await?.notice().await.with_context(|| network.logs())?;
    let items: Vec<String> = inps.waiting().await?.into_iter().map(|item| item.item_id).collect();
    // Whether its answer still comes is the machine's affair.
    let _ = inps.acknowledge(&items).await;
    let status = node.process.exited(PATIENCE).await?;
    ensure!(status.signal() == Some(SIGKILL), "it was not killed: {status}");
    let found = canary::in_directory(&node.folder, &words)?;
    ensure!(!found.is_empty(), "it was erased before the kill, which shows nothing");
    node.process.start().await?;
    ensure!(insist(PATIENCE, || inps.waiting()).await?.is_empty(), "the acknowledgement did not stand");
    gone(&node.folder, &words).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_adapter_refuses_is_in_none_of_its_files_a_minute_later() -> Result<()> {
    let network = Network::builder().institutions(&["inps"]).played(&["caritas"]).start().await?;
    let caritas = join(&network, "caritas").await?;
    let draft = Draft::sealed("caritas", "inps", &key_of(&caritas, "inps").await?, SITUATION.as_bytes())?;
    let words = [
        ("ciphertext", draft.ciphertext.iter().copied().take(64).collect::<Vec<u8>>()),
        ("situation", SITUATION.into()),
    ];
    caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
    let told = Receiving::open(&caritas.peer, 10).await?.notice().await.with_context(|| network.logs())?;
    let receipt: serde_json::Value = serde_json::from_slice(&told.receipt.context("a receipt")?.json)?;
    ensure!(receipt["opened"] == false, "it was not refused: {receipt}");
    for name in ["inps", "gateway"] {
        gone(&network.node(name)?.folder, &words).await.with_context(|| name.to_owned())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attachment_whose_message_expires_before_it_leaves_is_in_no_file_of_its_adapter_a_minute_later() -> Result<()>
{
    let network = Network::of_two().await?;
    let (caritas, node) = (network.desk("caritas")?, network.node("caritas")?);
    // By which it knows the recipient's key.
    insist(PATIENCE, || caritas.refer("inps", "r-0", "something else")).await?;
    network.gateway.process.terminate(PATIENCE).await?;
    let file: Vec<u8> = sample::bytes(300_000, 13);
    let attached = [insist(PATIENCE, || caritas.attach(FILE, &file)).await?.attachment_id];
    let sending = Sending { expires_in_s: u64::try_from(SOON_S)?, ..sample::sending("r-1", &attached) };
    let request = SendReferralRequest {
        sending: Some(sending),
        to: "inps".into(),
        referral: Some(sample::referral(SITUATION)),
        conversation_id: String::new(),
    };
    caritas.send_referral(request).await?;
    let parts = files_in(&node.folder.join("data/store/parts"))?;
    let words = [("attachment", beginning_of(parts.first().context("a part")?)?), ("situation", SITUATION.into())];
    ensure!(canary::in_directory(&node.folder, &words)?.len() == 1, "sealed while it waits, and no more");
    let news = Clerk::reads(&caritas);
    news.until("that it expired", PATIENCE, |seen| seen.notices_of("EXPIRED") == 1)
        .await
        .with_context(|| network.logs())?;
    gone(&node.folder, &words).await.map(drop)
}
