//! The command line against a running network: what an office and an operator do with it, and what it says when it cannot.

use std::{
    fs,
    path::Path,
    process::{Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};
use tramite_tests::{
    binary,
    network::{Network, PATIENCE},
    pki::OPERATOR,
};

/// Runs a command to its end.
async fn run(arguments: &[&str]) -> Result<Output> {
    let binary = tokio::task::spawn_blocking(binary::path).await??;
    let mut command = Command::new(binary);
    command.args(arguments).kill_on_drop(true);
    for name in ["TRAMITE_ADAPTER", "TRAMITE_GATEWAY", "TRAMITE_CERTS", "TRAMITE_KILL_AT"] {
        command.env_remove(name);
    }
    timeout(PATIENCE, command.output())
        .await
        .with_context(|| format!("{arguments:?} does not end"))?
        .map_err(Into::into)
}

/// Runs a command that must succeed, and gives back the JSON values that it printed, one on each line.
async fn ask(arguments: &[&str]) -> Result<Vec<Value>> {
    let output = run(&[&["--json"], arguments].concat()).await?;
    let told = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "{arguments:?}: {} {told} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    told.lines().map(|line| serde_json::from_str(line).with_context(|| format!("{arguments:?}: {line}"))).collect()
}

/// Runs a command that must fail, with an exit code and in words that a person can act on.
async fn fails(arguments: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let output = run(arguments).await?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(code), "{arguments:?}: {} instead of {code}: {said}", output.status);
    ensure!(words.iter().all(|word| said.contains(word)), "{arguments:?} does not say {words:?}: {said}");
    let dump = ["panicked", "Status {", "Os {", "Error(", "stack backtrace"];
    ensure!(!dump.iter().any(|word| said.contains(word)), "{arguments:?} dumps its insides: {said}");
    ensure!(output.stdout.is_empty(), "{arguments:?}: a failure was printed as an answer");
    Ok(())
}

fn message(folder: &Path, situation: &str) -> Result<String> {
    let file = folder.join("referral.json");
    let message = json!({
        "kind": "referral", "to": "inps", "purpose": "RIGHTS_SCREENING", "legal_basis": "GDPR-6-1-E",
        "referral": {
            "person": {"surname": "Prova", "given_name": "Elvira", "homeless": true}, "benefits": ["ADI"],
            "situation": situation, "mandate": {"kind": "CONSENT", "reference": "Caritas file 12/2026"},
        },
    });
    fs::write(&file, message.to_string())?;
    Ok(file.to_string_lossy().into_owned())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_office_sends_reads_and_follows_a_case_from_the_command_line() -> Result<()> {
    let network = Network::of_two().await?;
    let socket =
        |name: &str| Ok::<_, anyhow::Error>(format!("unix:{}", network.adapter(name)?.folder.join("socket").display()));
    let (caritas, inps) = (socket("caritas")?, socket("inps")?);
    let file = message(network.folder(), "sleeps at the station")?;

    let sent = ask(&["send", &file, "--adapter", &caritas]).await?.into_iter().next().context("an answer")?;
    let again = ask(&["send", &file, "--adapter", &caritas]).await?.into_iter().next().context("an answer")?;
    ensure!(
        text(&sent, "message_id") == text(&again, "message_id") && again.get("repeated") == Some(&true.into()),
        "{sent} {again}"
    );

    let until = tokio::time::Instant::now() + PATIENCE;
    let items = loop {
        let items = ask(&["inbox", "--adapter", &inps]).await?;
        if !items.is_empty() {
            break items;
        }
        ensure!(tokio::time::Instant::now() < until, "nothing arrives:\n{}", network.logs());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    ensure!(items.len() == 1 && items[0].to_string().contains("sleeps at the station"), "{items:?}");
    let kept = network.folder().join("kept");
    let keep = kept.to_string_lossy().into_owned();
    ask(&["inbox", "--adapter", &inps, "--save", &keep, "--acknowledge"]).await?;
    ensure!(fs::read_dir(&kept)?.count() > 0, "nothing was saved");
    ensure!(ask(&["inbox", "--adapter", &inps]).await?.is_empty(), "shown again after it was acknowledged");

    let case_id = text(&sent, "case_id");
    let cases = ask(&["cases", "--adapter", &caritas, "--open"]).await?;
    ensure!(Value::from(cases.clone()).to_string().contains(case_id), "{cases:?}");
    let tail = case_id.get(case_id.len() - 8..).context("an id")?;
    let case = ask(&["case", tail, "--adapter", &inps]).await?;
    ensure!(Value::from(case.clone()).to_string().contains("requested"), "{case:?}");
    let words = String::from_utf8(run(&["case", case_id, "--adapter", &caritas]).await?.stdout)?;
    ensure!(words.contains("inps") && words.contains("requested"), "{words}");

    fails(&["case", "ffffffff", "--adapter", &caritas], 1, &["ffffffff"]).await?;
    let wrong = message(network.folder(), "to nobody")?;
    fs::write(&wrong, fs::read_to_string(&wrong)?.replace("\"inps\"", "\"nobody\""))?;
    fails(&["send", &wrong, "--adapter", &caritas], 1, &["nobody"]).await?;
    fs::write(&wrong, "not JSON")?;
    fails(&["send", &wrong, "--adapter", &caritas], 65, &["referral.json"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_queues_and_dead_letters_from_the_command_line() -> Result<()> {
    let network = Network::of_two().await?;
    let (address, certs) = (network.address(), network.pki.bundle(OPERATOR).to_string_lossy().into_owned());
    let at = ["--gateway", &address, "--certs", &certs];
    let queues = ask(&[&["ops", "queues"], &at[..]].concat()).await?;
    let queues = Value::from(queues).to_string();
    ensure!(queues.contains("caritas") && queues.contains("inps"), "{queues}");
    let dead = Value::from(ask(&[&["ops", "dead-letters"], &at[..]].concat()).await?).to_string();
    ensure!(!dead.contains("message_id"), "{dead}");
    let unknown = "01890000-0000-7000-8000-000000000000";
    fails(&[&["ops", "redrive", unknown, "--reason", "a test"], &at[..]].concat(), 1, &["UNKNOWN_MESSAGE"]).await?;
    let nobody = ["ops", "hold", "nobody", "--reason", "a test"];
    fails(&[&nobody, &at[..]].concat(), 1, &["UNKNOWN_INSTITUTION", "tramite ops queues"]).await?;
    let office = network.pki.bundle("caritas").to_string_lossy().into_owned();
    fails(&["ops", "queues", "--gateway", &address, "--certs", &office], 77, &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_argument_file_or_address_gets_one_sentence_and_what_to_do() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = message(folder.path(), "a situation")?;
    let nowhere = format!("unix:{}", folder.path().join("no-socket").display());
    fails(&["send"], 64, &["FILE"]).await?;
    fails(&["sned", &file], 64, &["send"]).await?;
    fails(&["send", "no-such-file.json", "--adapter", &nowhere], 66, &["no-such-file.json"]).await?;
    fails(&["send", &file, "--adapter", &nowhere], 69, &["no-socket"]).await?;
    fails(&["send", &file], 64, &["--adapter"]).await?;
    fails(&["gateway", "--config", "no-such.toml"], 78, &["no-such.toml"]).await?;
    let config = folder.path().join("gateway.toml");
    fs::write(&config, "name = \"gateway\"\nno_such_setting = 1\n")?;
    fails(&["gateway", "--config", &config.to_string_lossy()], 78, &["gateway.toml"]).await?;
    let help = String::from_utf8(run(&["--help"]).await?.stdout)?;
    ensure!(
        ["demo", "gateway", "adapter", "certs", "send", "inbox", "cases", "ops"].iter().all(|word| help.contains(word)),
        "{help}"
    );
    let completion = run(&["completion", "bash"]).await?;
    ensure!(completion.status.success() && completion.stdout.len() > 1000, "no completion");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_cannot_be_written_is_a_failure_and_a_reader_that_has_gone_is_none() -> Result<()> {
    let binary = tokio::task::spawn_blocking(binary::path).await??;
    let told = async |stdout: Stdio| {
        let mut command = Command::new(binary);
        command.args(["codes", "--json"]).stdout(stdout).stderr(Stdio::piped()).kill_on_drop(true);
        anyhow::Ok(timeout(PATIENCE, command.spawn()?.wait_with_output()).await??)
    };
    let full = told(fs::File::create("/dev/full")?.into()).await?;
    let said = String::from_utf8(full.stderr)?;
    ensure!(full.status.code() == Some(73) && said.contains("cannot be written"), "{}: {said}", full.status);
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let gone = told(writer.into()).await?;
    ensure!(gone.status.success(), "{}: {}", gone.status, String::from_utf8_lossy(&gone.stderr));
    Ok(())
}
