//! `tramite store` on nodes that are stopped: what is sound, what is damaged and where, how large it is, and the outbox made anew.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};
use tramite_proto::pb::{
    operations::v1::ListMessagesRequest,
    statement::v1::{SealedMessage, Statement},
};
use tramite_tests::{
    attack::{gateway_and, join},
    binary, component,
    damage::{self, Tail},
    forge::{Draft, receipt},
    network::{Network, PATIENCE},
    pki::OPERATOR,
    raw::RawPeer,
    receiving::Receiving,
    small_disk::SmallDisk,
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
        ensure!(nowhere.status.code() == Some(73) && said.contains("TMPDIR"), "{command}: {} {said}", nowhere.status);
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
async fn a_full_folder_for_temporary_files_is_no_damage() -> Result<()> {
    let Some(disk) = SmallDisk::mount(1)? else { return Ok(()) };
    let (network, _) = stopped().await?;
    let data = network.gateway.folder.join("data");
    disk.fill("full", 0)?;
    for command in ["verify", "stat"] {
        let full = run_with(disk.path(), &["store", command, data.to_str().context("UTF-8")?]).await?;
        let said = String::from_utf8_lossy(&full.stderr).into_owned();
        ensure!(full.status.code() == Some(73) && said.contains("TMPDIR"), "{command}: {} {said}", full.status);
    }
    ask("verify", &data, 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_bad_record_is_named_with_what_was_sound_before_it() -> Result<()> {
    let (network, _) = stopped().await?;
    let data = network.gateway.folder.join("data");
    let segment = data.join("journal/0000000000000001.seg");
    let mut bytes = fs::read(&segment)?;
    let (at, before) = (damage::groups(&bytes)[6], 6);
    bytes[at + 50] ^= 1;
    fs::write(&segment, &bytes)?;
    let found = ask("verify", &data, 1).await?;
    let first = &found["problems"][0];
    ensure!(first["file"].as_str() == segment.to_str() && first["offset"] == u64::try_from(at)?, "{found}");
    ensure!(first["sound_before"]["groups"] == before, "{found}");
    let words = run(&["store", "verify", data.to_str().context("UTF-8")?]).await?;
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    ensure!(words.contains(&format!("0000000000000001.seg at offset {at}: ")), "{words}");
    ensure!(words.contains("sound before it: 6 groups, 6 facts, 0 contents"), "{words}");
    ensure!(words.lines().last().is_some_and(|next| next.contains("0000000000000001.seg back from a copy")), "{words}");
    let refused = ask("rebuild", &data, 1).await?;
    let place = format!("0000000000000001.seg is damaged at offset {at}");
    ensure!(refused["error"]["message"].as_str().is_some_and(|said| said.contains(&place)), "{refused}");
    let config = network.gateway.folder.join("gateway.toml");
    let started = run(&["gateway", "--config", config.to_str().context("UTF-8")?]).await?;
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    ensure!(started.status.code() == Some(65) && said.contains("tramite store verify"), "{} {said}", started.status);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_content_is_named_by_its_sequence_and_the_rest_is_served() -> Result<()> {
    let (network, sent) = stopped().await?;
    let data = network.gateway.folder.join("data");
    let segment = data.join("journal/0000000000000001.seg");
    let mut bytes = fs::read(&segment)?;
    // Of the first that is not settled.
    let content = &sent[SETTLED].0.ciphertext;
    let at = bytes.windows(content.len()).position(|seen| seen == content).context("the content is in the segment")?;
    bytes[at] ^= 1;
    fs::write(&segment, &bytes)?;
    let found = ask("verify", &data, 1).await?;
    ensure!(found["problems"].as_array().is_some_and(|problems| problems.len() == 1), "{found}");
    let what = found["problems"][0]["what"].as_str().unwrap_or_default();
    let sequence = what.split(' ').find_map(|word| word.parse::<u64>().ok()).context("a sequence")?;
    let next = found["next"][0].as_str().unwrap_or_default();
    ensure!(next.contains(&format!("the content of sequence {sequence} ")) && next.contains("set aside"), "{found}");
    network.gateway.process.start().await?;
    let inps = join(&network, "inps").await?;
    let left = u32::try_from(MESSAGES - SETTLED)?;
    let mut inbox = Receiving::open(&inps.peer, left).await?;
    for _ in 1..left {
        inbox.delivery().await?;
    }
    let operations = RawPeer::connect(&network.address(), Some(&network.pki.badge(OPERATOR)?)).await?.operations();
    let page = ListMessagesRequest { institution: "inps".into(), page_size: 100, page_token: String::new() };
    let listed = operations.clone().list_messages(page).await?.into_inner().messages;
    ensure!(listed.iter().any(|message| message.sequence == sequence), "the advice leads nowhere: {listed:?}");
    Ok(())
}

/// Another account of this machine.
const NOBODY: u32 = 65_534;

/// Says why it is skipped when this user is not root; fails where nothing may be skipped.
#[expect(clippy::print_stderr, reason = "a test that skips itself says so in words")]
fn is_root() -> Result<bool> {
    let root = rustix::process::geteuid().is_root();
    ensure!(root || std::env::var("TRAMITE_REQUIRE_ALL").as_deref() != Ok("1"), "root is required here");
    if !root {
        eprintln!("skipped: only root can act as another user");
    }
    Ok(root)
}

/// A folder with the program, in which another account may run it; without one it says why the test is skipped.
async fn for_others() -> Result<Option<(TempDir, PathBuf)>> {
    if !is_root()? {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    // Its temporary files, too.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let program = folder.path().join("tramite");
    fs::copy(tokio::task::spawn_blocking(binary::path).await??, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    match Command::new(&program).arg("--version").current_dir("/").uid(NOBODY).output().await {
        Ok(_) => Ok(Some((folder, program))),
        Err(why) => {
            let what = "a folder for temporary files (TMPDIR) in which another account may run a program";
            component::missing(what, &why.to_string()).map(|()| None)
        }
    }
}

/// What is in a folder, with owner, length and time.
fn listed(folder: &Path) -> Result<Vec<(PathBuf, u32, u64, i64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let about = fs::metadata(&path)?;
        if about.is_dir() {
            files.extend(listed(&path)?);
        }
        files.push((path, about.uid(), about.len(), about.mtime_nsec()));
    }
    files.sort();
    Ok(files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_its_owner_makes_an_outbox_anew() -> Result<()> {
    if !is_root()? {
        return Ok(());
    }
    let (network, _) = stopped().await?;
    let data = network.gateway.folder.join("data");
    chown(&data, Some(NOBODY), None)?;
    let before = listed(&data)?;
    let refused = ask("rebuild", &data, 77).await?;
    let advice = refused["error"]["advice"].as_str().unwrap_or_default();
    ensure!(advice.contains(&format!("sudo -u nobody tramite store rebuild {}", data.display())), "{refused}");
    ensure!(listed(&data)? == before, "something was changed");
    // A store that was brought back without its lock: even reading would make a file in it.
    fs::remove_file(data.join("LOCK"))?;
    for command in ["verify", "stat"] {
        ask(command, &data, 77).await?;
        ensure!(!data.join("LOCK").exists(), "{command} made a file");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_read_is_not_said_to_be_missing() -> Result<()> {
    let Some((folder, program)) = for_others().await? else { return Ok(()) };
    let (store, config) = (folder.path().join("store"), folder.path().join("gateway.toml"));
    fs::create_dir(&store)?;
    fs::set_permissions(&store, fs::Permissions::from_mode(0o700))?;
    fs::write(&config, "data = \"store\"\n")?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
    let missing = folder.path().join("gatway.toml");
    for (path, code, words) in
        [(&store, 77, "permission denied"), (&config, 77, "permission denied"), (&missing, 66, "no such file")]
    {
        for command in ["verify", "stat", "rebuild"] {
            let mut asked = Command::new(&program);
            let asked = asked.args(["store", command]).arg(path).current_dir("/").uid(NOBODY).kill_on_drop(true);
            let output = timeout(PATIENCE, asked.output()).await??;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(code) && said.contains(words), "{command}: {} {said}", output.status);
            ensure!(code != 77 || said.contains("sudo -u root tramite store"), "{said}");
        }
    }
    Ok(())
}

/// Gives a file, or a folder with all that is in it, to another account.
fn give(path: &Path, owner: u32) -> Result<()> {
    chown(path, Some(owner), None)?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), owner)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_a_file_that_may_not_be_read_is_not_said_to_be_damaged() -> Result<()> {
    let Some((folder, program)) = for_others().await? else { return Ok(()) };
    let (network, _) = stopped().await?;
    let data = folder.path().join("data");
    fs::rename(network.gateway.folder.join("data"), &data)?;
    for file in ["journal/0000000000000001.seg", "outbox/db", "store.toml", "outbox/db", "outbox/0000000000000009.run"]
    {
        give(&data, NOBODY)?;
        if file == "store.toml" {
            // From here on it is as one that was killed, of which the outbox says how far the journal went.
            fs::remove_file(data.join("outbox/clean"))?;
            fs::write(data.join("outbox/0000000000000009.run"), "")?;
        }
        chown(data.join(file), Some(0), None)?;
        fs::set_permissions(data.join(file), fs::Permissions::from_mode(0o600))?;
        let mut asked = Command::new(&program);
        let asked = asked.args(["store", "verify"]).arg(&data).env("TMPDIR", folder.path()).current_dir("/");
        let asked = asked.uid(NOBODY).kill_on_drop(true);
        let output = timeout(PATIENCE, asked.output()).await??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(77) && said.contains("permission denied"), "{} {said}", output.status);
        ensure!(said.contains(file.split('/').next().context("a name")?), "it names no file: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_can_only_be_read_is_verified_and_not_changed() -> Result<()> {
    let (network, _) = stopped().await?;
    let Some(disk) = SmallDisk::mount(16)? else { return Ok(()) };
    let data = disk.path().join("data");
    let copied = Command::new("cp").arg("-a").arg(network.gateway.folder.join("data")).arg(&data).status().await?;
    ensure!(copied.success(), "cp: {copied}");
    // As the backup that is advised has none.
    fs::remove_file(data.join("LOCK"))?;
    disk.only_read()?;
    let found = ask("verify", &data, 0).await?;
    ensure!(found["sound"] == true && found["clean"] == true, "{found}");
    ask("stat", &data, 0).await?;
    let refused = ask("rebuild", &data, 73).await?;
    ensure!(refused["error"]["advice"].as_str().is_some_and(|said| said.contains("mount")), "{refused}");
    Ok(())
}

/// What is said in words, with success.
async fn tell(command: &str, store: &Path) -> Result<String> {
    let output = run(&["store", command, store.to_str().context("a path in UTF-8")?]).await?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_is_no_damage_is_told_of_and_goes_with_a_rebuild() -> Result<()> {
    let (network, sent) = stopped().await?;
    let data = network.gateway.folder.join("data");
    ensure!(ask("verify", &data, 0).await?["torn_tail"].is_null(), "a tail before there is one");
    let Tail { file, offset, bytes } = damage::tear(damage::segment(&data)?)?;
    let tail = serde_json::json!({ "file": file, "offset": offset, "bytes": bytes });
    let place = format!("a tail of {bytes} bytes at offset {offset} of {}", file.display());
    for _ in 0..2 {
        // Looking cuts nothing.
        let found = ask("verify", &data, 0).await?;
        ensure!(found["sound"] == true && found["torn_tail"] == tail, "{found}");
        let words = tell("verify", &data).await?;
        ensure!(words.contains(&place) && words.contains("the next start cuts it"), "{words}");
    }
    let done = ask("rebuild", &data, 0).await?;
    ensure!(done["rebuilt"] == true && done["cut"] == tail, "{done}");
    let found = ask("verify", &data, 0).await?;
    ensure!(found["torn_tail"].is_null() && found["clean"] == true && found["sound"] == true, "{found}");
    damage::tear(file)?;
    let words = tell("rebuild", &data).await?;
    ensure!(words.contains(&format!("{place}, which was never acknowledged, was cut")), "{words}");
    network.gateway.process.start().await?;
    let caritas = join(&network, "caritas").await?;
    for (message, acceptance) in sent {
        ensure!(caritas.peer.submit(message).await? == acceptance, "a repeat got another answer");
    }
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
