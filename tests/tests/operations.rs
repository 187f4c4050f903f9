//! What keeps a network running when something in it does not: held, absent and slow institutions harm nobody else, and what
//! operators and probes ask is answered.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tramite_proto::pb::operations::v1::{GetMessageRequest, GetOverviewRequest, HoldRequest, ReleaseRequest};
use tramite_tests::{
    attack::{Player, gateway_and, reason},
    codec::AsIs,
    forge::{Draft, receipt},
    network::Network,
    pki::OPERATOR,
    raw::RawPeer,
    receiving::Receiving,
};

/// Long enough for a wrong delivery to come, short enough for a test.
const SILENCE: Duration = Duration::from_millis(700);
/// More than any window or credit, so that whatever could be blocked by them is.
const FLOOD: u64 = 1_500;

async fn operator(network: &Network) -> Result<RawPeer> {
    RawPeer::connect(&network.address(), Some(&network.pki.badge(OPERATOR)?)).await
}

async fn submit(from: &Player, draft: &Draft) -> Result<()> {
    from.peer.submit(draft.signed(&from.pen)?).await.map(drop).map_err(Into::into)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_a_held_institution_waits_until_it_is_released_even_over_a_restart() -> Result<()> {
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], "").await?;
    let operations = operator(&network).await?.operations();
    let hold = HoldRequest { institution: "inps".into(), reason: "maintenance until noon".into() };
    operations.clone().hold(hold).await?;
    let draft = Draft::blind("caritas", "inps");
    submit(&caritas, &draft).await?;
    let mut inbox = Receiving::open(&inps.peer, 10).await?;
    ensure!(inbox.silent(SILENCE).await, "delivered to a held institution");

    network.gateway.process.kill().await?;
    network.gateway.process.start().await?;
    let inps = tramite_tests::attack::join(&network, "inps").await?;
    let mut inbox = Receiving::open(&inps.peer, 10).await?;
    ensure!(inbox.silent(SILENCE).await, "a restart released it");
    let mut operations = operator(&network).await?.operations();
    let seen = operations.get_message(GetMessageRequest { message_id: draft.id().to_owned() }).await?.into_inner();
    ensure!(seen.state == "HELD", "{seen:?}");
    operations.release(ReleaseRequest { institution: "inps".into(), reason: "back".into() }).await?;
    ensure!(inbox.delivery().await?.origin.json == draft.origin.json());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_or_slow_recipient_slows_no_other() -> Result<()> {
    let (network, [caritas, inps, absent, slow]) = gateway_and(["caritas", "inps", "absent", "slow"], "").await?;
    // Takes a few, settles none.
    let mut stuck = Receiving::open(&slow.peer, 5).await?;
    for number in 0..FLOOD {
        submit(&caritas, &Draft::blind("caritas", if number % 2 == 0 { "absent" } else { "slow" })).await?;
    }
    stuck.delivery().await?;
    let mut inbox = Receiving::open(&inps.peer, 10).await?;
    let begun = tokio::time::Instant::now();
    for _ in 0..20 {
        let draft = Draft::blind("caritas", "inps");
        submit(&caritas, &draft).await?;
        let delivered = inbox.delivery().await?;
        ensure!(delivered.origin.json == draft.origin.json());
        let settled = receipt("inps", &draft.origin, &draft.ciphertext);
        ensure!(inbox.receipt(delivered.delivery.delivery_id, &settled, &inps.pen).await?.refused.is_none());
    }
    // Each round takes milliseconds; a lease of the slow one takes three seconds, and twenty a minute.
    ensure!(begun.elapsed() < Duration::from_secs(40), "20 messages took {:?}", begun.elapsed());
    let overview = operator(&network).await?.operations().get_overview(GetOverviewRequest {}).await?.into_inner();
    let waiting =
        |name: &str| overview.queues.iter().find(|queue| queue.institution == name).map_or(0, |queue| queue.waiting);
    ensure!(waiting("absent") == FLOOD / 2 && waiting("slow") == FLOOD / 2, "{overview:?}");
    drop(absent);
    Ok(())
}

/// One unary call of a service that is not among our contracts.
async fn plain(channel: Channel, path: &'static str) -> Result<Bytes, Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(client.unary(Request::new(Bytes::new()), PathAndQuery::from_static(path), AsIs).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_answered_and_reflection_can_be_switched_off() -> Result<()> {
    let (_network, [caritas]) = gateway_and(["caritas"], "reflection = { enabled = false }").await?;
    let health = plain(caritas.peer.channel(), "/grpc.health.v1.Health/Check").await?;
    // HealthCheckResponse { status: SERVING }.
    ensure!(health[..] == [0x08, 0x01], "{health:?}");
    for path in [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let status = plain(caritas.peer.channel(), path).await.err().context("reflection is on")?;
        ensure!(status.code() == Code::Unimplemented, "{path}: {status:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_later_is_answered_with_a_reason() -> Result<()> {
    use tramite_proto::pb::audit::v1::{GetCheckpointRequest, audit_client::AuditClient};
    use tramite_tests::pki::Fields;
    let (network, [_caritas]) = gateway_and(["caritas"], "").await?;
    let badge = network.pki.forger()?.badge(&Fields::client("auditor", "ada"))?;
    let auditor = RawPeer::connect(&network.address(), Some(&badge)).await?;
    let answer = AuditClient::new(auditor.channel()).get_checkpoint(GetCheckpointRequest {}).await;
    let status = answer.err().context("the audit log is served")?;
    ensure!(status.code() == Code::Unimplemented && reason(&status) == "AUDIT_NOT_YET_SERVED", "{status:?}");
    Ok(())
}
