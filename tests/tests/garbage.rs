//! Bytes from a peer never panic anything: whatever is sent, the gateway goes on serving.
//!
//! Bytes are made from fixed seeds, so a failure repeats itself. The peer is a member with a right certificate: the worst place
//! from which garbage can come.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tonic::{Request, Status, client::Grpc, transport::Channel};
use tramite_proto::pb::{directory::v1::ListInstitutionsRequest, exchange::v1::SubmitOneRequest};
use tramite_tests::{
    attack::{Player, gateway_and},
    codec::AsIs,
    forge::Draft,
    network::Network,
    raw, sample,
};

/// Calls any method with any bytes.
async fn call(channel: Channel, path: &'static str, frames: Vec<Bytes>) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = Request::new(tokio_stream::iter(frames));
    let mut answers = client.streaming(request, http_path(path), AsIs).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

fn http_path(path: &'static str) -> tonic::codegen::http::uri::PathAndQuery {
    tonic::codegen::http::uri::PathAndQuery::from_static(path)
}

const METHODS: [&str; 10] = [
    "/tramite.exchange.v1.Exchange/Submit",
    "/tramite.exchange.v1.Exchange/Receive",
    "/tramite.exchange.v1.Exchange/PutPart",
    "/tramite.exchange.v1.Exchange/GetPart",
    "/tramite.exchange.v1.Exchange/SubmitOne",
    "/tramite.directory.v1.Directory/PublishKey",
    "/tramite.directory.v1.Directory/GetInstitution",
    "/tramite.operations.v1.Operations/Redrive",
    "/tramite.audit.v1.Audit/Search",
    "/no.such.Service/../../etc/passwd",
];

/// Still serving, and nothing panicked on the way.
async fn unharmed(network: &Network, caritas: &Player) -> Result<()> {
    let draft = Draft::blind("caritas", "inps");
    let peer = network.peer("caritas").await.context("no new connection")?;
    peer.submit(draft.signed(&caritas.pen)?).await.context("no submission")?;
    let log = network.gateway.process.log();
    ensure!(!log.lines().iter().any(|line| line.contains("panicked")), "{}", log.tail(20));
    let panics = network.gateway.metrics().await?.sum("tramite_gateway_handler_panics_total", &[]);
    ensure!(panics == 0.0, "{panics} handlers panicked");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_any_method_harms_nothing() -> Result<()> {
    let (network, [caritas, _inps]) = gateway_and(["caritas", "inps"], "").await?;
    for (seed, path) in (1u64..).zip(METHODS) {
        for length in [0, 1, 7, 100, 5_000, 100_000] {
            let frames = (0..3).map(|n| Bytes::from(sample::bytes(length, seed * 1000 + n))).collect();
            // A refusal of any kind is right, an acceptance of noise is not. A stream of both directions may also just end.
            let peer = network.peer("caritas").await?;
            let answer = timeout(Duration::from_secs(5), call(peer.channel(), path, frames)).await;
            let stream = path.ends_with("/Submit") || path.ends_with("/Receive");
            ensure!(length == 0 || stream || !matches!(answer, Ok(Ok(()))), "{path} took {length} bytes of noise");
        }
    }
    unharmed(&network, &caritas).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_message_with_any_byte_changed_harms_nothing() -> Result<()> {
    let (network, [caritas, _inps]) = gateway_and(["caritas", "inps"], "").await?;
    let message = Draft::blind("caritas", "inps").signed(&caritas.pen)?;
    let right = SubmitOneRequest { message: Some(message) }.encode_to_vec();
    let mut calls = Vec::new();
    for (round, place) in (0..right.len()).step_by(right.len() / 150 + 1).enumerate() {
        let mut changed = right.clone();
        changed[place] = changed[place].wrapping_add(1 + u8::try_from(round % 200)?);
        calls.push(vec![Bytes::from(changed)]);
        calls.push(vec![Bytes::copy_from_slice(&right[..place])]);
    }
    for frames in calls {
        let path = "/tramite.exchange.v1.Exchange/SubmitOne";
        let answer = timeout(Duration::from_secs(10), call(caritas.peer.channel(), path, frames)).await?;
        ensure!(answer.is_err(), "a changed message was accepted");
    }
    unharmed(&network, &caritas).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_below_grpc_harms_nothing() -> Result<()> {
    let (network, [caritas, _inps]) = gateway_and(["caritas", "inps"], "").await?;
    let badge = network.pki.badge("caritas")?;
    for seed in 0..20 {
        let mut noise = sample::bytes(4_000, seed);
        if seed % 2 == 0 {
            // A right preface and an empty SETTINGS frame: the noise meets the HTTP/2 parser itself.
            noise.splice(0..0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".iter().copied());
        }
        let mut stream = raw::connect(&network.address(), raw::client_config(Some(&badge))?).await?;
        stream.write_all(&noise).await.ok();
        let mut rest = Vec::new();
        timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.context("noise keeps a connection")?.ok();
    }
    let list = caritas.peer.directory().list_institutions(ListInstitutionsRequest {}).await;
    ensure!(list.is_ok(), "another connection suffered: {list:?}");
    unharmed(&network, &caritas).await
}
