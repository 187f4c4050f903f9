//! What the connector promises: only the gateway of our own trust domain, by its expected name, is spoken to.
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;
use tonic::transport::Server;
use tonic_health::pb::{
    HealthCheckRequest,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

use super::*;
use crate::{
    authority::{BundleOptions, Renewal, RevocationReason, renew},
    farewell::Farewell,
    limits::Limits,
    listen::Listener,
    testing::{Stage, name},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A listener with the certificate of a bundle; what comes is held open.
async fn listener(
    stage: &Stage,
    bundle: &std::path::Path,
    stop: &CancellationToken,
) -> (SocketAddr, crate::listen::Incoming) {
    let tls = stage.server(bundle);
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), tls, Limits::default(), Arc::new(())).await.unwrap();
    (listener.local_addr().unwrap(), listener.incoming(stop))
}

async fn held(stage: &Stage, bundle: &std::path::Path, stop: &CancellationToken) -> SocketAddr {
    let (address, mut incoming) = listener(stage, bundle, stop).await;
    tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Some(Ok(stream)) = incoming.next().await {
            streams.push(stream);
        }
    });
    address
}

fn refusal(result: Result<PeerStream, ConnectError>) -> Refusal {
    match result {
        Err(ConnectError::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_the_expected_gateway_is_talked_to() {
    let mut stage = Stage::new();
    let stop = CancellationToken::new();
    let gateway = stage.bundle(Role::Gateway, "gateway");
    let address = held(&stage, &gateway, &stop).await.to_string();
    let inps = stage.bundle(Role::Institution, "inps");
    let tls = stage.client(&inps);
    let dial = |address: &str, expected: Expected| Connector::new(address, tls.clone(), expected).unwrap();
    let stream = dial(&address, Expected::gateway(name("gateway"))).connect().await.unwrap();
    assert_eq!((stream.peer().role(), stream.peer().name().as_str()), (Role::Gateway, "gateway"));
    assert_eq!(stream.agreed(), "X25519MLKEM768 TLS13_AES_256_GCM_SHA384");
    assert_eq!(refusal(dial(&address, Expected::gateway(name("other"))).connect().await), Refusal::OtherPeer);
    let institution = Expected { role: Role::Institution, name: name("gateway") };
    assert_eq!(refusal(dial(&address, institution).connect().await), Refusal::OtherPeer);
    // The certificate is for 127.0.0.1, not for a name that leads there.
    let by_name = address.replace("127.0.0.1", "localhost");
    assert_eq!(refusal(dial(&by_name, Expected::gateway(name("gateway"))).connect().await), Refusal::OtherPeer);
    // An institution that listens for its own back office is no gateway.
    let options = BundleOptions { addresses: vec!["127.0.0.1".parse().unwrap()], ..BundleOptions::default() };
    let comune = stage.bundle_with(Role::Institution, "gateway", &options);
    let office = held(&stage, &comune, &stop).await.to_string();
    assert_eq!(refusal(dial(&office, Expected::gateway(name("gateway"))).connect().await), Refusal::OtherPeer);
    let own = Expected { role: Role::Institution, name: name("gateway") };
    dial(&office, own).connect().await.unwrap();
    // A gateway of another network under the same name.
    let mut other = Stage::new();
    let false_gateway = other.bundle(Role::Gateway, "gateway");
    let elsewhere = held(&other, &false_gateway, &stop).await.to_string();
    assert_eq!(refusal(dial(&elsewhere, Expected::gateway(name("gateway"))).connect().await), Refusal::OtherAuthority);
}

#[tokio::test]
async fn a_gateway_that_no_longer_counts_is_not_dialled() {
    let mut stage = Stage::new();
    let stop = CancellationToken::new();
    let gateway = stage.bundle(Role::Gateway, "gateway");
    let address = held(&stage, &gateway, &stop).await.to_string();
    let inps = stage.bundle(Role::Institution, "inps");
    let tls = stage.client(&inps);
    let dial = || Connector::new(&address, tls.clone(), Expected::gateway(name("gateway"))).unwrap();
    let mut stream = dial().connect().await.unwrap();
    stage.authority.revoke_file(&gateway.join("tls.pem"), RevocationReason::KeyCompromise).unwrap();
    stage.authority.publish_crl(std::slice::from_ref(&inps)).unwrap();
    tls.reload().unwrap();
    // The open connection is cut, a new one is refused.
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(refusal(dial().connect().await), Refusal::Revoked);
}

#[tokio::test]
async fn nobody_there_is_told_apart_from_a_refusal() {
    let mut stage = Stage::new();
    let inps = stage.bundle(Role::Institution, "inps");
    let tls = stage.client(&inps);
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dial = |address: &str| Connector::new(address, tls.clone(), Expected::gateway(name("gateway")));
    assert!(matches!(dial(&port.to_string()).unwrap().connect().await, Err(ConnectError::Unreachable { .. })));
    for wrong in ["", "gateway", "gateway:", "gateway:x", "gateway:70000", ":1", "a b:1"] {
        assert!(matches!(dial(wrong), Err(ConnectError::Address(_))), "{wrong}");
    }
    for right in ["gateway.example:8443", "127.0.0.1:1", "[::1]:8443"] {
        dial(right).unwrap();
        endpoint(right).unwrap();
    }
}

/// Answers only to whom it can name.
struct Named;

#[tonic::async_trait]
impl Health for Named {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<tonic_health::pb::HealthCheckResponse>, tonic::Status> {
        let peer = request.extensions().get::<Arc<Peer>>().ok_or_else(|| tonic::Status::unauthenticated("nobody"))?;
        if request.get_ref().service != peer.to_string() {
            return Err(tonic::Status::permission_denied(peer.to_string()));
        }
        Ok(tonic::Response::new(tonic_health::pb::HealthCheckResponse { status: 1 }))
    }

    type WatchStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<tonic_health::pb::HealthCheckResponse, tonic::Status>> + Send>>;

    /// Answers once a call, and stays open.
    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        let once = tokio_stream::once(Ok(tonic_health::pb::HealthCheckResponse { status: 1 }));
        Ok(tonic::Response::new(Box::pin(once.chain(tokio_stream::pending()))))
    }
}

#[tokio::test]
async fn a_call_over_a_channel_names_its_caller_and_an_open_call_lives_through_a_rotation() {
    let mut stage = Stage::new();
    let stop = CancellationToken::new();
    let gateway = stage.bundle(Role::Gateway, "gateway");
    let server_tls = stage.server(&gateway);
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), server_tls.clone(), Limits::default(), Arc::new(()));
    let listener = listener.await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = listener.incoming(&stop);
    tokio::spawn(Server::builder().add_service(HealthServer::new(Named)).serve_with_incoming(incoming));
    let inps = stage.bundle(Role::Institution, "inps");
    let client_tls = stage.client(&inps);
    let channel = channel(&address, client_tls.clone(), Expected::gateway(name("gateway"))).unwrap();
    let mut client = HealthClient::new(channel);
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    client.check(ask("institution/inps")).await.unwrap();
    let other = client.check(ask("institution/comune")).await.unwrap_err();
    assert_eq!((other.code(), other.message()), (tonic::Code::PermissionDenied, "institution/inps"));
    let mut open = client.watch(ask("")).await.unwrap().into_inner();
    open.message().await.unwrap().unwrap();
    for bundle in [&gateway, &inps] {
        renew(&mut stage.authority, bundle, Renewal::Tls, None).unwrap();
    }
    server_tls.reload().unwrap();
    client_tls.reload().unwrap();
    client.check(ask("institution/inps")).await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(50), open.message()).await.is_err(),
        "the open call still waits"
    );
    // Revoked, the open call ends.
    stage.authority.revoke_file(&inps.join("tls.pem"), RevocationReason::Superseded).unwrap();
    stage.authority.publish_crl(std::slice::from_ref(&gateway)).unwrap();
    server_tls.reload().unwrap();
    // The connection was made with the certificate before the renewal, which still counts; a new channel shows the revoked one.
    client.check(ask("institution/inps")).await.unwrap();
    let channel = super::channel(&address, client_tls, Expected::gateway(name("gateway"))).unwrap();
    HealthClient::new(channel).check(ask("institution/inps")).await.unwrap_err();
}

#[tokio::test]
async fn a_revoked_client_learns_from_the_alert_why_it_is_not_kept() {
    let mut stage = Stage::new();
    let stop = CancellationToken::new();
    let gateway = stage.bundle(Role::Gateway, "gateway");
    let inps = stage.bundle(Role::Institution, "inps");
    stage.authority.revoke_file(&inps.join("tls.pem"), RevocationReason::KeyCompromise).unwrap();
    stage.authority.publish_crl(std::slice::from_ref(&gateway)).unwrap();
    let address = held(&stage, &gateway, &stop).await.to_string();
    let expected = Expected::gateway(name("gateway"));
    let (channel, farewells) = told_channel_over(Tcp::shared(), &address, stage.client(&inps), expected).unwrap();
    for _ in 0..10 {
        HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap_err();
        assert_eq!(farewells.last(), Some(Farewell::Alert(rustls::AlertDescription::CertificateRevoked)));
    }
}
