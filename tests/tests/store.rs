//! `tramite store` on nodes that are stopped: what is sound, what is damaged and where, how large it is, and the outbox made anew.

use std::{fs, path::Path, process::Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{process::Command, time::timeout};
use tramite_proto::pb::statement::v1::{SealedMessage, Statement};
use tramite_tests::{
    attack::{gateway_and, join},
    binary,
    forge::{Draft, receipt},
    network::{Network, PATIENCE},
    receiving::Receiving,
};

const MESSAGES: usize = 12;
/// So many of them are settled.
const SETTLED: usize = 5;

async fn run(arguments: &[&str]) -> Result<Output> {
    run_with(&std::env::temp_dir(), arguments).await
}

/// With another folder for temporary files.
async fn run_with(temporary: &Path, arguments: &[&str]) -> Result<Output> {
    let binary = tokio::task::spawn_blocking(binary::path).await??;
    let output = Command::new(binary).args(arguments).env("TMPDIR", temporary).kill_on_drop(true).output();
    Ok(timeout(PATIENCE, output).await.with_context(|| format!("{arguments:?} does not end"))??)
}

/// Asks in JSON, and expects an exit code.
async fn ask(command: &str, store: &Path, code: i32) -> Result<Value> {
    let store = store.to_str().context("a path in UTF-8")?;
    let output = run(&["--json", "store", command, store]).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "{command} {store}: {} {said}", output.status);
    let told = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    serde_json::from_slice(&told).with_context(|| String::from_utf8_lossy(&told).into_owned())
}

/// Messages of which some are settled, and the gateway stopped in order.
async fn stopped() -> Result<(Network, Vec<(SealedMessage, Statement)>)> {
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], "").await?;
    let (mut drafts, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..MESSAGES {
        let draft = Draft::blind("caritas", "inps");
        let message = draft.signed(&caritas.pen)?;
        sent.push((message.clone(), caritas.peer.submit(message).await?));
        drafts.push(draft);
    }
    let mut inbox = Receiving::open(&inps.peer, u32::try_from(SETTLED)?).await?;
    for draft in drafts.iter().take(SETTLED) {
        let delivered = inbox.delivery().await?;
        let receipt = receipt("inps", &draft.origin, &draft.ciphertext);
        inbox.receipt(delivered.delivery.delivery_id, &receipt, &inps.pen).await?;
    }
    let in_use = ask("verify", &network.gateway.folder.join("data"), 69).await?;
    ensure!(
        in_use.pointer("/error/message").and_then(Value::as_str).is_some_and(|said| said.contains("in use")),
        "{in_use}"
    );
    network.gateway.process.terminate(PATIENCE).await?;
    Ok((network, sent))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_gateways_store_is_found_sound_and_measured() -> Result<()> {
    let (network, _) = stopped().await?;
    for place in ["data", "gateway.toml"] {
        let found = ask("verify", &network.gateway.folder.join(place), 0).await?;
        let left = u64::try_from(MESSAGES - SETTLED)?;
        ensure!(found["sound"] == true && found["clean"] == true && found["role"] == "gateway", "{found}");
        ensure!(found["contents"] == left && found["erased"] == u64::try_from(SETTLED)?, "{found}");
        ensure!(found["outbox_rows"].as_u64().is_some_and(|rows| rows > left), "{found}");
    }
    let found = ask("stat", &network.gateway.folder.join("data"), 0).await?;
    ensure!(found["facts"]["accepted"] == u64::try_from(MESSAGES)?, "{found}");
    ensure!(found["facts"]["settled"] == u64::try_from(SETTLED)?, "{found}");
    ensure!(found["segments"]["length"] == 1 << 20 && found["reserve"]["files"] == 1, "{found}");
    let inps = found["queues"].as_array().and_then(|queues| queues.iter().find(|queue| queue["queue"] == "inps"));
    let waiting = inps.map(|queue| queue["waiting"].clone());
    ensure!(waiting == Some(u64::try_from(MESSAGES - SETTLED)?.into()), "{found}");
    let words = run(&["store", "stat", network.gateway.folder.join("data").to_str().context("UTF-8")?]).await?;
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    ensure!(words.contains("last sequence") && words.contains("kept in reserve"), "{words}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_to_compare_with_are_made_on_the_disk_and_go_again() -> Result<()> {
    let (network, _) = stopped().await?;
    let data = network.gateway.folder.join("data");
    let data = data.to_str().context("UTF-8")?;
    let temporary = network.gateway.folder.join("temporary");
    for command in ["verify", "stat"] {
        let nowhere = run_with(&temporary, &["store", command, data]).await?;
        let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
        ensure!(!nowhere.status.success() && said.contains("TMPDIR"), "{command}: {} {said}", nowhere.status);
    }
    fs::create_dir(&temporary)?;
    for command in ["verify", "stat"] {
        let found = run_with(&temporary, &["store", command, data]).await?;
        ensure!(found.status.success(), "{command}: {}", String::from_utf8_lossy(&found.stderr));
        ensure!(fs::read_dir(&temporary)?.next().is_none(), "{command} left something");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_bad_record_is_named_with_what_was_sound_before_it() -> Result<()> {
    let (network, _) = stopped().await?;
    let data = network.gateway.folder.join("data");
    let segment = data.join("journal/0000000000000001.seg");
    let mut bytes = fs::read(&segment)?;
    let groups: Vec<usize> =
        bytes.windows(4).enumerate().filter(|(_, seen)| seen == b"TRMG").map(|(at, _)| at).collect();
    let (at, before) = (groups[6], 6);
    bytes[at + 50] ^= 1;
    fs::write(&segment, &bytes)?;
    let found = ask("verify", &data, 1).await?;
    let first = &found["problems"][0];
    ensure!(first["file"].as_str() == segment.to_str() && first["offset"] == u64::try_from(at)?, "{found}");
    ensure!(first["sound_before"]["groups"] == before, "{found}");
    let words = run(&["store", "verify", data.to_str().context("UTF-8")?]).await?;
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    let place = format!("0000000000000001.seg is damaged at offset {at}");
    ensure!(words.contains(&place) && words.contains("sound before it: 6 groups"), "{words}");
    let refused = ask("rebuild", &data, 1).await?;
    ensure!(refused["error"]["message"].as_str().is_some_and(|said| said.contains(&place)), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_is_made_anew_and_the_gateway_goes_on_from_it() -> Result<()> {
    let (network, sent) = stopped().await?;
    let data = network.gateway.folder.join("data");
    let outbox = data.join("outbox/db");
    let mut bytes = fs::read(&outbox)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&outbox, bytes)?;
    let found = ask("verify", &data, 1).await?;
    ensure!(found["problems"][0]["file"].as_str() == outbox.to_str(), "{found}");
    let done = ask("rebuild", &data, 0).await?;
    ensure!(done["rebuilt"] == true && done["facts"].as_u64().is_some_and(|facts| facts > 12), "{done}");
    let found = ask("verify", &data, 0).await?;
    ensure!(found["clean"] == true, "{found}");
    let lines = network.gateway.process.log().lines().len();
    network.gateway.process.start().await?;
    let caritas = join(&network, "caritas").await?;
    for (message, acceptance) in sent {
        ensure!(caritas.peer.submit(message).await? == acceptance, "a repeat got another answer");
    }
    let said = network.gateway.process.log().lines()[lines..].join("\n");
    ensure!(!said.contains("rebuilt"), "it was left clean, and rebuilt once more: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapters_store_is_found_in_its_data_folder_and_by_its_configuration() -> Result<()> {
    let network = Network::of_two().await?;
    let adapter = network.adapter("inps")?;
    adapter.process.terminate(PATIENCE).await?;
    for place in ["data", "data/store", "adapter.toml"] {
        let found = ask("verify", &adapter.folder.join(place), 0).await?;
        ensure!(found["role"] == "adapter:inps" && found["sound"] == true, "{found}");
    }
    let nowhere = ask("verify", &adapter.folder, 66).await?;
    ensure!(nowhere["error"]["advice"].as_str().is_some_and(|said| said.contains("data")), "{nowhere}");
    Ok(())
}
