//! An adapter that the gateway does not let in, or that another one of the same institution pushes out, says so in its own log and in
//! `tramite status`: its office has no other place to look.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;
use tramite_tests::{
    desk::Desk,
    network::{Network, PATIENCE},
    process::Process,
};

/// Looks at the adapter's standing until its problem holds the words.
async fn problem(desk: &Desk, words: &str) -> Result<()> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let status = desk.status().await?;
        if status.problem.contains(words) {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < end, "the status does not say {words:?}: {status:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_adapter_says_that_it_is_revoked_and_what_to_do() -> Result<()> {
    let network = Network::of_two().await?;
    let inps = network.adapter("inps")?;
    network.pki.revoke("inps")?;
    fs::copy(network.pki.authority().join("crl.pem"), network.gateway.folder.join("keys/crl.pem"))?;
    let words = ["ERROR", "CERTIFICATE_REVOKED", "it is revoked", "tramite certs issue"];
    inps.process.log().wait_for(0, &words, PATIENCE).await.with_context(|| network.logs())?;
    problem(&network.desk("inps")?, "it is revoked").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_adapters_of_one_institution_are_told_of_each_other_and_do_not_fight() -> Result<()> {
    let network = Network::of_two().await?;
    let (first, folder) = (network.adapter("inps")?, network.folder().join("second"));
    fs::create_dir_all(folder.join("keys"))?;
    for file in fs::read_dir(first.folder.join("keys"))? {
        let file = file?;
        fs::copy(file.path(), folder.join("keys").join(file.file_name()))?;
    }
    let mut config: toml::Table = fs::read_to_string(first.folder.join("adapter.toml"))?.parse()?;
    config.remove("metrics");
    fs::write(folder.join("adapter.toml"), config.to_string())?;
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let arguments = vec!["adapter".into(), "--config".into(), folder.join("adapter.toml").into()];
    let second = Process::new("second", arguments);
    second.start().await?;
    let words = ["ERROR", "another adapter with this institution's certificate took over; stop one of them"];
    first.process.log().wait_for(0, &words, PATIENCE).await.with_context(|| network.logs())?;
    problem(&network.desk("inps")?, "another adapter").await?;
    network.gateway.process.log().wait_for(0, &["WARN", "took over", "\"inps\""], PATIENCE).await?;
    // The first waits five seconds at least; then it pushes the second out, and its status still tells of it.
    let again = second.log().wait_for(0, &words, PATIENCE).await;
    again.with_context(|| second.log().tail(20))?;
    problem(&network.desk("inps")?, "another adapter").await?;
    let metrics = network.gateway.metrics().await?;
    let takeovers = metrics.sum("tramite_gateway_receive_takeovers_total", &["institution=\"inps\""]);
    ensure!((2.0..=3.0).contains(&takeovers), "{takeovers} takeovers");
    second.terminate(PATIENCE).await?;
    Ok(())
}
