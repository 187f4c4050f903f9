//! What a new user does first: one command, and a whole network plays the protocol to its end.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};
use tramite_tests::binary;

/// A debug build on two cores; the promise is the outcome, the speed has a bench of its own.
const DEMO_MAX: Duration = Duration::from_secs(240);

/// Runs the demo in a folder of its own and gives back what it printed.
async fn demo(arguments: &[&str]) -> Result<String> {
    let folder = TempDir::with_prefix("tramite")?;
    let binary = tokio::task::spawn_blocking(binary::path).await??;
    let child = Command::new(binary)
        .arg("demo")
        .args(arguments)
        .arg("--dir")
        .arg(folder.path().join("demo"))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = timeout(DEMO_MAX, child.wait_with_output()).await.context("the demo does not end")??;
    let (told, problems) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "the demo ended with {}\n{told}\n{problems}", output.status);
    Ok(told.into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_brings_every_case_to_its_expected_end() -> Result<()> {
    let told = demo(&["--once"]).await?;
    for end in ["closed", "rejected", "rerouted", "expired"] {
        ensure!(told.contains(end), "no case {end}:\n{told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_survives_processes_killed_in_its_middle() -> Result<()> {
    let told = demo(&["--once", "--chaos"]).await?;
    ensure!(told.to_lowercase().contains("kill"), "nothing was killed:\n{told}");
    Ok(())
}
