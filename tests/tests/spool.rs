//! The folder of an office without developers: what is put into it is sent once, what arrives stands in it once, and a mistake
//! comes back with words.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tramite_tests::{
    clerk::Clerk,
    component,
    network::{Network, PATIENCE},
    sample,
};

const SPOOL: &str = "spool = { directory = \"spool\", poll_ms = 50 }";

/// A referral as the samples write it, with one attachment.
fn referral(situation: &str) -> String {
    serde_json::json!({
        "kind": "referral", "to": "inps", "purpose": "RIGHTS_SCREENING", "legal_basis": "GDPR-6-1-E",
        "referral": {
            "person": {"surname": "Prova", "given_name": "Elvira", "homeless": true},
            "benefits": ["ADI"], "situation": situation, "mandate": {"kind": "CONSENT", "reference": "Caritas file 12/2026"},
        },
        "attachments": ["scan.pdf"],
    })
    .to_string()
}

/// Puts a message and its attachment into `outgoing`, as its documentation says: the attachment first, the file by a rename.
fn put(spool: &Path, name: &str, text: &str) -> Result<()> {
    let outgoing = spool.join("outgoing");
    fs::create_dir_all(outgoing.join(name))?;
    fs::write(outgoing.join(name).join("scan.pdf"), sample::bytes(70_000, 1))?;
    fs::write(outgoing.join(format!("{name}.partial")), text)?;
    Ok(fs::rename(outgoing.join(format!("{name}.partial")), outgoing.join(format!("{name}.json")))?)
}

/// Looks until something is there: a folder has no other event that every system has.
async fn until<T>(what: &str, network: &Network, look: impl Fn() -> Option<T>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "not in {PATIENCE:?}: {what}\n{}", network.logs());
        sleep(Duration::from_millis(50)).await;
    }
}

/// The JSON files of a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let listed =
        fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default();
    let json = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
    let mut files: Vec<PathBuf> = Vec::into_iter(listed).filter(json).collect();
    files.sort();
    files
}

fn read(path: &Path) -> Result<Value> {
    serde_json::from_slice(&fs::read(path)?).with_context(|| path.display().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_out_arrives_as_a_file_and_its_receipt_comes_as_a_file() -> Result<()> {
    let network = Network::builder().institutions(&["caritas", "inps"]).adapters(SPOOL)?.start().await?;
    let (ours, theirs) =
        (network.adapter("caritas")?.folder.join("spool"), network.adapter("inps")?.folder.join("spool"));
    put(&ours, "elvira", &referral("sleeps at the station"))?;
    let result = until("a result beside the file", &network, || {
        Some(ours.join("sent/elvira.result.json")).filter(|path| path.exists())
    })
    .await?;
    let result = read(&result)?;
    let id = result.get("message_id").and_then(Value::as_str).context("a message id in the result")?.to_owned();
    until("the file in sent", &network, || ours.join("sent/elvira.json").exists().then_some(())).await?;
    ensure!(files(&ours.join("outgoing")).is_empty() && ours.join("sent/elvira/scan.pdf").exists(), "not moved");

    let arrived = until("what arrived", &network, || {
        Some(theirs.join("incoming").join(format!("{id}.json"))).filter(|path| path.exists())
    })
    .await?;
    let item = fs::read_to_string(&arrived)?;
    ensure!(item.contains("sleeps at the station") && !item.contains("content_key"), "{item}");
    let attachment = fs::read(theirs.join("incoming").join(&id).join("scan.pdf"))?;
    ensure!(attachment == sample::bytes(70_000, 1), "another attachment");
    let notice = until("the receipt", &network, || files(&ours.join("incoming")).into_iter().next()).await?;
    let notice = fs::read_to_string(notice)?;
    ensure!(notice.contains("OPENED") && notice.contains(&id), "{notice}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_is_rejected_with_words() -> Result<()> {
    let network = Network::builder().institutions(&["caritas", "inps"]).adapter("caritas", SPOOL)?.start().await?;
    let spool = network.adapter("caritas")?.folder.join("spool");
    let good = referral("a situation");
    let bad = [
        ("no-json", "not a message".to_owned(), ""),
        ("misspelt", good.replace("\"benefits\"", "\"benefit\""), "benefit"),
        ("nobody", good.replace("\"inps\"", "\"nobody\""), "nobody"),
        ("no-such-benefit", good.replace("ADI", "NO_SUCH_BENEFIT"), "benefits"),
        ("no-attachment", good.replace("scan.pdf", "another.pdf"), "another.pdf"),
        ("outside", good.replace("scan.pdf", "../../keys/tls.key"), "attach"),
    ];
    for (name, text, _) in &bad {
        put(&spool, name, text)?;
    }
    for (name, _, word) in &bad {
        let reason = spool.join(format!("rejected/{name}.reason.txt"));
        until(&format!("{name} in rejected"), &network, || reason.exists().then_some(())).await?;
        let words = fs::read_to_string(&reason)?;
        ensure!(words.contains(word) && words.len() > 10, "{name}: {words}");
    }
    ensure!(files(&spool.join("sent")).is_empty(), "a bad file was sent");
    Ok(())
}

/// A folder so deep that its path is longer than a system call takes: not even root can look at all of it.
fn too_deep(spool: &Path, name: &str) -> Result<()> {
    let half: PathBuf = std::iter::repeat_n("n".repeat(240), 9).collect();
    let (upper, lower) = (spool.join("outgoing").join(name).join(&half), spool.join("lower"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(lower.join(&half))?;
    Ok(fs::rename(lower, upper.join("lower"))?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_looked_at_is_said_in_the_log_and_goes_when_it_can_be() -> Result<()> {
    let network = Network::builder().institutions(&["caritas", "inps"]).adapter("caritas", SPOOL)?.start().await?;
    let caritas = network.adapter("caritas")?;
    let spool = caritas.folder.join("spool");
    too_deep(&spool, "deep")?;
    put(&spool, "deep", &referral("a situation"))?;
    caritas.process.log().wait_for(0, &["a spool file could not be looked at"], PATIENCE).await?;
    ensure!(spool.join("outgoing/deep.json").exists(), "it is gone");
    fs::remove_dir_all(spool.join("outgoing/deep").join("n".repeat(240)))?;
    until("the file in sent", &network, || spool.join("sent/deep.json").exists().then_some(())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attachment_that_may_not_be_read_is_rejected_with_words() -> Result<()> {
    let network = Network::builder().institutions(&["caritas", "inps"]).adapter("caritas", SPOOL)?.prepare()?;
    network.gateway.process.start().await?;
    let caritas = network.adapter("caritas")?;
    // Root reads everything, unless that is taken from it.
    let lesser = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"].map(OsString::from);
    if !rustix::process::geteuid().is_root() {
        caritas.process.start().await?;
    } else if std::process::Command::new("setpriv").arg("--version").output().is_ok() {
        caritas.process.start_under(&lesser).await?;
    } else {
        return component::missing(
            "a folder without the right to enter it",
            "root enters all, and there is no setpriv",
        );
    }
    let spool = caritas.folder.join("spool");
    until("the folders", &network, || spool.join("outgoing").exists().then_some(())).await?;
    for (name, mode) in [("listed", 0o400), ("entered", 0o300), ("closed", 0o000)] {
        let (making, folder) = (spool.join("making"), spool.join("outgoing").join(name));
        fs::create_dir(&making)?;
        fs::write(making.join("scan.pdf"), sample::bytes(1_000, 1))?;
        fs::rename(&making, &folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode))?;
        fs::write(spool.join("outgoing").join(format!("{name}.json")), referral("a situation"))?;
        let rejected = spool.join(format!("rejected/{name}.json"));
        until(&format!("{name} in rejected"), &network, || rejected.exists().then_some(())).await?;
        let words = fs::read_to_string(spool.join(format!("rejected/{name}.reason.txt")))?;
        ensure!(words.contains("scan.pdf") && words.contains("cannot be read"), "{name}: {words}");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Sends three files while the adapter ends itself at a step, and expects each of them once at the recipient.
async fn survives_a_kill(step: &str) -> Result<()> {
    let network = Network::builder().institutions(&["caritas", "inps"]).adapter("caritas", SPOOL)?.prepare()?;
    network.gateway.process.start().await?;
    network.adapter("inps")?.process.start().await?;
    let caritas = network.adapter("caritas")?;
    caritas.process.start_to_be_killed_at(Some(step)).await?;
    let spool = caritas.folder.join("spool");
    until("the folders", &network, || spool.join("outgoing").exists().then_some(())).await?;
    for number in 0..3 {
        put(&spool, &format!("n{number}"), &referral(&format!("situation {number}")))?;
    }
    caritas.process.exited(PATIENCE).await.with_context(|| format!("it never came to {step}"))?;
    caritas.process.start().await?;
    let work = Clerk::reads(&network.desk("inps")?);
    let moved = || {
        (0..3).all(|n| {
            spool.join(format!("sent/n{n}.json")).exists() && spool.join(format!("sent/n{n}.result.json")).exists()
        })
    };
    until("all three moved", &network, || moved().then_some(())).await?;
    work.until("all three", PATIENCE, |seen| seen.situations().len() >= 3).await.with_context(|| network.logs())?;
    // What comes after shows that nothing else was on its way.
    put(&spool, "last", &referral("the last"))?;
    work.until("the last", PATIENCE, |seen| seen.situations().contains(&"the last".to_owned())).await?;
    let mut situations = work.seen().situations();
    situations.sort();
    ensure!(situations == ["situation 0", "situation 1", "situation 2", "the last"], "{situations:?}");
    ensure!(files(&spool.join("rejected")).is_empty(), "something was rejected");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_killed_after_a_file_was_taken_sends_it_once() -> Result<()> {
    survives_a_kill("spool.persisted:2").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_killed_between_two_renames_completes_them() -> Result<()> {
    survives_a_kill("spool.renamed:2").await
}
