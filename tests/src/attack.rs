//! What attacks have in common: a gateway whose institutions the test plays, and the three places where a refusal must show:
//! the answer, a log line, a counter.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rcgen::ExtendedKeyUsagePurpose;
use tonic::Status;
use tramite_proto::{
    pb::{directory::v1::PublishKeyRequest, statement::v1::SealedMessage},
    reason::Refused,
};

use crate::{
    forge::{Pen, key_record, now_s, random},
    network::{Network, START_MAX},
    pki::Fields,
    ports::Port,
    raw::RawPeer,
};

/// Between two tries when the gateway finds that it is asked too often.
const PATIENCE_ASKED: Duration = Duration::from_millis(300);
/// A log line follows its cause at once; this is for a busy machine.
const LINE_MAX: Duration = Duration::from_secs(10);

/// An institution that the test plays: its connection and its pen.
#[derive(Debug)]
pub struct Player {
    /// Its name.
    pub name: String,
    /// Its connection, with its own badge.
    pub peer: RawPeer,
    /// Its pen.
    pub pen: Pen,
}

/// A gateway alone, and players whose key records it has.
///
/// # Errors
/// When it does not come up.
pub async fn gateway_and<const N: usize>(names: [&str; N], settings: &str) -> Result<(Network, [Player; N])> {
    let network = Network::builder().played(&names).gateway(settings)?.prepare()?;
    network.gateway.process.start().await?;
    let mut players = Vec::new();
    for name in names {
        players.push(join(&network, name).await?);
    }
    let players = players.try_into().ok().context("as many players as names")?;
    Ok((network, players))
}

/// Connects as soon as the gateway serves, and publishes a key record.
///
/// # Errors
/// When the gateway does not serve or does not take the record.
pub async fn join(network: &Network, name: &str) -> Result<Player> {
    let player = connect(network, name).await?;
    let record = key_record(&player.pen, next_sequence(), "blind-1", &random::<32>());
    publish(&player, &record.json()).await.map_err(|status| anyhow::anyhow!("{name}'s key: {status:?}"))?;
    Ok(player)
}

/// Connects as soon as the gateway serves, which knows the key records of before.
///
/// # Errors
/// When the gateway does not serve.
pub async fn connect(network: &Network, name: &str) -> Result<Player> {
    let until = tokio::time::Instant::now() + START_MAX;
    let peer = loop {
        match network.peer(name).await {
            Ok(peer) => break peer,
            Err(error) if tokio::time::Instant::now() > until => return Err(error.context(network.logs())),
            Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
        }
    };
    Ok(Player { name: name.to_owned(), peer, pen: network.pki.pen(name)? })
}

/// Rises with every call, also within a second.
fn next_sequence() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = now_s();
    LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)))
        .map_or(now, |last| now.max(last + 1))
}

/// A gateway, and an institution's adapter that serves its back office over mutual TLS as well: where. `others` are played.
///
/// # Errors
/// When it does not come up.
pub async fn adapter_with_office(name: &str, others: &[&str]) -> Result<(Network, Port)> {
    let port = Port::reserve()?;
    let office = format!(
        "backoffice = {{ socket = \"socket\", listen = \"{}\", tls = {{ cert = \"office.pem\", key = \"office.key\", roots = \"keys/root.pem\", crl = \"keys/crl.pem\" }} }}",
        port.address()
    );
    let builder = Network::builder().institutions(&[name]).played(others);
    let network = builder.adapter(name, &office)?.prepare()?;
    let node = network.adapter(name)?;
    let fields = Fields {
        usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
        dns: vec!["localhost".into()],
        ..Fields::client("institution", name)
    };
    let (certificate, key) = network.pki.forger()?.pem(&fields)?;
    for (file, text) in [("office.pem", certificate), ("office.key", key)] {
        fs::write(node.folder.join(file), text)?;
        fs::set_permissions(node.folder.join(file), fs::Permissions::from_mode(0o600))?;
    }
    network.gateway.process.start().await?;
    node.process.start().await?;
    network.ready().await?;
    Ok((network, port))
}

/// Publishes a key record's bytes, signed with the player's pen.
///
/// # Errors
/// The gateway's refusal.
pub async fn publish(player: &Player, record: &[u8]) -> Result<bool, Status> {
    let key = player.pen.statement(record).map_err(|error| Status::internal(error.to_string()))?;
    loop {
        let request = PublishKeyRequest { key: Some(key.clone()) };
        match player.peer.directory().publish_key(request).await {
            // Whoever publishes too often is asked for patience: not the refusal that a test looks for.
            Err(status) if reason(&status) == "RATE_LIMITED" => tokio::time::sleep(PATIENCE_ASKED).await,
            answer => return Ok(answer?.into_inner().published),
        }
    }
}

/// The stable reason of a failed call; empty when it carries none.
#[must_use]
pub fn reason(status: &Status) -> &'static str {
    Refused::from_status(status).map_or("", |refused| refused.reason.as_str())
}

/// Submits and expects a refusal with a reason: in the answer, in a log line, in the counter of that reason.
///
/// # Errors
/// When any of the three is missing.
pub async fn refused(
    network: &Network,
    peer: &RawPeer,
    what: &str,
    message: SealedMessage,
    expected: &str,
) -> Result<()> {
    let label = format!("reason=\"{expected}\"");
    let count = async || {
        Ok::<_, anyhow::Error>(network.gateway.metrics().await?.sum("tramite_gateway_refused_total", &[&label]))
    };
    let (before, lines) = (count().await?, network.gateway.process.log().lines().len());
    let status = match peer.submit(message).await {
        Ok(_) => anyhow::bail!("{what}: was accepted"),
        Err(status) => status,
    };
    ensure!(reason(&status) == expected, "{what}: expected {expected}, got {} {status:?}", reason(&status));
    ensure!(count().await? == before + 1.0, "{what}: {expected} was not counted");
    network.gateway.process.log().wait_for(lines, &[expected], LINE_MAX).await.with_context(|| what.to_owned())?;
    Ok(())
}
