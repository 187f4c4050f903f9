//! A new encryption key while messages are on their way: it is taken up and published without a restart, others seal to it, and what
//! was sealed to the old one still opens. Nothing is refused.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::{process::Command, time::sleep};
use tramite_proto::{pb::directory::v1::ListInstitutionsRequest, statement::KeyRecord};
use tramite_tests::{
    binary,
    clerk::Clerk,
    load,
    network::{Network, PATIENCE},
    raw::RawPeer,
};

/// How often the key is changed within the load.
const ROTATIONS: usize = 3;

/// Sequence and key id of the newest record that the gateway lists for inps.
async fn published(peer: &RawPeer) -> Result<(u64, String)> {
    let list = peer.directory().list_institutions(ListInstitutionsRequest {}).await?.into_inner().institutions;
    let inps = list.into_iter().find(|one| one.name == "inps").context("inps is not listed")?;
    let record = KeyRecord::parse(&inps.keys.first().context("it has no record")?.json)?;
    Ok((record.seq, record.enc.kid().to_string()))
}

async fn rotate(network: &Network) -> Result<String> {
    let node = network.adapter("inps")?;
    let binary = tokio::task::spawn_blocking(binary::path).await??;
    let keys = node.folder.join("keys");
    let output = Command::new(binary).args(["--json", "certs", "rotate-encryption-key"]).arg(&keys).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    if node.process.id().await.is_some() {
        node.process.signal(Signal::HUP).await?;
    }
    Ok(told.get("key_id").and_then(|id| id.as_str()).context("a key id")?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_rotated_under_load_and_nothing_is_refused() -> Result<()> {
    let network = Network::builder().institutions(&["caritas", "inps"]).played(&["comune"]).start().await?;
    let peer = RawPeer::connect(&network.address(), Some(&network.pki.badge("comune")?)).await?;
    let mut sequences = vec![published(&peer).await?.0];
    let started = network.adapter("inps")?.process.id().await;
    let trouble = async {
        for _ in 0..ROTATIONS {
            let kid = rotate(&network).await?;
            let end = tokio::time::Instant::now() + PATIENCE;
            loop {
                let (sequence, newest) = published(&peer).await?;
                if newest == kid {
                    sequences.push(sequence);
                    break;
                }
                ensure!(tokio::time::Instant::now() < end, "{kid} is not published");
                sleep(Duration::from_millis(50)).await;
            }
            // A sender that starts anew fetches the list, and seals to the new key while older messages are on their way.
            let caritas = network.adapter("caritas")?;
            caritas.process.terminate(PATIENCE).await?;
            caritas.process.start().await?;
            network.ready().await?;
        }
        Ok(())
    };
    load::survives(&network, 30, trouble).await?;
    ensure!(sequences.is_sorted_by(|one, next| one < next), "{sequences:?}");
    ensure!(network.adapter("inps")?.process.id().await == started, "the adapter was restarted");
    for name in ["caritas", "inps"] {
        ensure!(network.desk(name)?.status().await?.refused == 0, "{name}: something was refused");
        ensure!(!network.adapter(name)?.process.log().tail(usize::MAX).contains("KEY_UNKNOWN"), "{}", network.logs());
    }
    let metrics = network.gateway.metrics().await?;
    ensure!(metrics.sum("tramite_gateway_refused_total", &[]) == 0.0, "the gateway refused something");
    let files = fs::read_dir(network.adapter("inps")?.folder.join("keys"))?;
    let keys: BTreeSet<_> = files.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    let keys = keys.iter().filter(|name| name.starts_with("enc-")).count();
    ensure!(keys == ROTATIONS + 1, "{keys} keys: an old one was taken away");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sealed_to_the_old_key_before_the_rotation_still_opens_after_it() -> Result<()> {
    let network = Network::builder().institutions(&["caritas", "inps"]).played(&["comune"]).start().await?;
    let peer = RawPeer::connect(&network.address(), Some(&network.pki.badge("comune")?)).await?;
    let old = published(&peer).await?.1;
    let (sender, inps) = (network.desk("caritas")?, network.adapter("inps")?);
    inps.process.terminate(PATIENCE).await?;
    sender.refer("inps", "before", "sealed to the old key").await?;
    ensure!(rotate(&network).await? != old, "the same key");
    inps.process.start().await?;
    let work = Clerk::reads(&network.desk("inps")?);
    let came = |seen: &tramite_tests::clerk::Seen| seen.situations().contains(&"sealed to the old key".to_owned());
    work.until("the one before the rotation", PATIENCE, came).await.with_context(|| network.logs())?;
    // The key that others seal to is the new one; the load of the other promise goes to it.
    let end = tokio::time::Instant::now() + PATIENCE;
    while published(&peer).await?.1 == old {
        ensure!(tokio::time::Instant::now() < end, "the new key is not published");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
