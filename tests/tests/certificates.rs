//! Who is let in: every certificate that is not exactly right is refused with its own reason, in a log line and a counter; what
//! changes while the gateway runs (revocation, a new certificate) takes effect on open connections, too.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use rcgen::ExtendedKeyUsagePurpose;
use rustix::process::Signal;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tramite_proto::pb::{directory::v1::ListInstitutionsRequest, operations::v1::GetOverviewRequest};
use tramite_tests::{
    attack::{adapter_with_office, gateway_and, reason},
    config::GATEWAY,
    forge::Draft,
    network::{Network, PATIENCE, START_MAX},
    pki::{Badge, Fields, Forger, OPERATOR},
    raw::{self, RawPeer},
    receiving::Receiving,
};

/// A log line follows its cause at once; this is for a busy machine.
const LINE_MAX: Duration = Duration::from_secs(10);
/// Long enough for a running gateway to take up a list while it still holds.
const LIST_ENDS: Duration = Duration::from_secs(20);
/// The promise of the design for a revoked peer.
const CUT_MAX: Duration = Duration::from_secs(60);

/// Shakes hands and expects to be thrown out with a reason, in a log line and in the counter of that reason.
async fn thrown_out(network: &Network, what: &str, config: ClientConfig, expected: &str) -> Result<()> {
    let label = format!("reason=\"{expected}\"");
    let counted = async || {
        let metrics = network.gateway.metrics().await?;
        Ok::<_, anyhow::Error>(metrics.sum("tramite_gateway_handshakes_refused_total", &[&label]))
    };
    let (before, lines) = (counted().await?, network.gateway.process.log().lines().len());
    if let Ok(mut stream) = raw::connect(&network.address(), config).await {
        // With TLS 1.3 the client is done before the server judges its certificate; the end comes with the next read.
        let mut rest = Vec::new();
        let ended = timeout(LINE_MAX, stream.read_to_end(&mut rest)).await;
        ensure!(ended.is_ok(), "{what}: the connection stays open");
    }
    network.gateway.process.log().wait_for(lines, &[expected], LINE_MAX).await.with_context(|| what.to_owned())?;
    ensure!(counted().await? > before, "{what}: {expected} was not counted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_shows_no_right_certificate_is_thrown_out_with_a_reason() -> Result<()> {
    let (network, [_caritas]) = gateway_and(["caritas"], "").await?;
    let (ours, theirs) = (network.pki.forger()?, Forger::stranger(&network.pki.authority())?);
    let right = || Fields::client("institution", "caritas");
    let day = Duration::from_secs(86_400);
    let uri = |text: &str| Fields { uris: vec![text.to_owned()], ..right() };
    let own = "spiffe://tramite.test/institution/caritas".to_owned();
    let cases = [
        ("of another authority", theirs.badge(&right())?, "CERTIFICATE_UNTRUSTED"),
        ("without SAN", ours.badge(&Fields { uris: Vec::new(), ..right() })?, "SAN_MISSING"),
        (
            "with a DNS name only",
            ours.badge(&Fields { uris: Vec::new(), dns: vec!["caritas".into()], ..right() })?,
            "SAN_MISSING",
        ),
        ("with two names", ours.badge(&Fields { uris: vec![own.clone(), own], ..right() })?, "SAN_AMBIGUOUS"),
        ("of another trust domain", ours.badge(&uri("spiffe://elsewhere.test/institution/caritas"))?, "SAN_FOREIGN"),
        ("with a path for a name", ours.badge(&uri("spiffe://tramite.test/institution/../caritas"))?, "SAN_FOREIGN"),
        ("of no role", ours.badge(&uri("spiffe://tramite.test/king/caritas"))?, "SAN_FOREIGN"),
        ("that is no URI of ours", ours.badge(&uri("https://tramite.test/institution/caritas"))?, "SAN_FOREIGN"),
        ("without any usage", ours.badge(&Fields { usages: Vec::new(), ..right() })?, "PURPOSE_MISSING"),
        (
            "of a server",
            ours.badge(&Fields { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..right() })?,
            "PURPOSE_MISSING",
        ),
        ("for signing", ours.badge(&Fields::signing("institution", "caritas"))?, "PURPOSE_MISSING"),
        (
            "expired",
            ours.badge(&Fields { from: right().from - day * 9, until: right().from - day, ..right() })?,
            "CERTIFICATE_EXPIRED",
        ),
        (
            "of tomorrow",
            ours.badge(&Fields { from: right().until - Duration::from_secs(60), ..right() })?,
            "CERTIFICATE_NOT_YET_VALID",
        ),
    ];
    for (what, badge, expected) in cases {
        thrown_out(&network, what, raw::client_config(Some(&badge))?, expected).await?;
    }
    thrown_out(&network, "without certificate", raw::client_config(None)?, "CERTIFICATE_MISSING").await?;
    let mut other_protocol = raw::client_config(Some(&ours.badge(&right())?))?;
    other_protocol.alpn_protocols = vec![b"http/1.1".to_vec()];
    thrown_out(&network, "that speaks HTTP/1.1", other_protocol, "ALPN_MISSING").await?;

    // The forger's certificate is let in when nothing is wrong with it: each refusal above has only its own cause.
    let peer = RawPeer::connect(&network.address(), Some(&ours.badge(&right())?)).await?;
    peer.directory().list_institutions(ListInstitutionsRequest {}).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_reaches_what_is_its_own_and_nothing_else() -> Result<()> {
    let (network, [caritas, _inps]) = gateway_and(["caritas", "inps"], "").await?;
    let forger = network.pki.forger()?;
    let connect = async |role: &str, name: &str| {
        RawPeer::connect(&network.address(), Some(&forger.badge(&Fields::client(role, name))?)).await
    };
    let message = Draft::blind("caritas", "inps").signed(&caritas.pen)?;
    for (role, name) in
        [("operator", "caritas"), ("auditor", "caritas"), ("gateway", GATEWAY), ("institution", "stranger")]
    {
        let peer = connect(role, name).await?;
        let status = peer.submit(message.clone()).await.err().with_context(|| format!("{role}/{name} submitted"))?;
        let known = ["NOT_AUTHORIZED", "UNKNOWN_INSTITUTION"];
        ensure!(known.contains(&reason(&status)), "{role}/{name}: {status:?}");
        let status = Receiving::open(&peer, 1).await.err().with_context(|| format!("{role}/{name} receives"))?;
        ensure!(known.contains(&reason(&status)), "{role}/{name}: {status:?}");
    }
    let overview = async |peer: RawPeer| peer.operations().get_overview(GetOverviewRequest {}).await;
    let status = overview(caritas.peer.clone()).await.err().context("an institution saw operations")?;
    ensure!(reason(&status) == "NOT_AUTHORIZED", "{status:?}");
    let status = overview(connect("auditor", "ada").await?).await.err().context("an auditor operates")?;
    ensure!(reason(&status) == "NOT_AUTHORIZED", "{status:?}");
    overview(connect("operator", "ada").await?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_peer_is_cut_off_while_connected_and_not_let_in_again() -> Result<()> {
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], "").await?;
    let mut inbox = Receiving::open(&inps.peer, 1).await?;
    let mut other = Receiving::open(&caritas.peer, 1).await?;
    let lines = network.gateway.process.log().lines().len();
    network.pki.revoke("inps")?;
    fs::copy(network.pki.authority().join("crl.pem"), network.gateway.folder.join("keys/crl.pem"))?;
    inbox.end(CUT_MAX).await.context("a revoked peer's stream")?;
    network.gateway.process.log().wait_for(lines, &["CERTIFICATE_REVOKED"], LINE_MAX).await?;
    let badge = network.pki.badge("inps")?;
    thrown_out(&network, "revoked", raw::client_config(Some(&badge))?, "CERTIFICATE_REVOKED").await?;
    ensure!(other.silent(Duration::from_millis(200)).await, "another peer's stream was cut, too");
    caritas.peer.directory().list_institutions(ListInstitutionsRequest {}).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_revocation_list_past_its_end_nobody_is_let_in() -> Result<()> {
    let (network, [caritas]) = gateway_and(["caritas"], "").await?;
    let mut inbox = Receiving::open(&caritas.peer, 1).await?;
    let log = network.gateway.process.log();
    let lines = log.lines().len();
    network.pki.list_that_ends_in(LIST_ENDS)?;
    fs::copy(network.pki.authority().join("crl.pem"), network.gateway.folder.join("keys/crl.pem"))?;
    log.wait_for(lines, &["reloaded", "server TLS"], LIST_ENDS).await?;
    inbox.end(CUT_MAX).await.context("an open stream, though nobody knows who is revoked")?;
    let badge = network.pki.badge("caritas")?;
    thrown_out(&network, "nobody knows who is revoked", raw::client_config(Some(&badge))?, "REVOCATION_LIST_EXPIRED")
        .await?;
    // One that is past its end already is not even taken up.
    network.pki.list_that_ends_in(Duration::ZERO)?;
    let lines = log.lines().len();
    fs::copy(network.pki.authority().join("crl.pem"), network.gateway.folder.join("keys/crl.pem"))?;
    log.wait_for(lines, &["reload failed", "past its end"], LINE_MAX).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_tls_is_refused_with_a_reason() -> Result<()> {
    let (network, [_caritas]) = gateway_and(["caritas"], "").await?;
    let lines = network.gateway.process.log().lines().len();
    let mut stream = TcpStream::connect(network.address()).await?;
    stream.write_all(&hello_of_tls12()).await?;
    let mut rest = Vec::new();
    timeout(LINE_MAX, stream.read_to_end(&mut rest)).await.context("TLS 1.2 is spoken")?.ok();
    // An alert record (21): protocol_version (70) or handshake_failure (40), fatal.
    ensure!(rest.first() == Some(&21), "{rest:?}");
    network.gateway.process.log().wait_for(lines, &["TLS_VERSION"], LINE_MAX).await?;
    Ok(())
}

/// A ClientHello of RFC 5246: ECDHE-ECDSA with AES-128-GCM, P-256 and X25519, and not a word of 1.3.
fn hello_of_tls12() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2c, 1, 0]);
    let groups = [0, 10, 0, 6, 0, 4, 0, 29, 0, 23];
    let formats = [0, 11, 0, 2, 1, 0];
    let signatures = [0, 13, 0, 6, 0, 4, 4, 3, 8, 4];
    let extensions = [&groups[..], &formats, &signatures].concat();
    body.extend([0, u8::try_from(extensions.len()).unwrap_or_default()]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap_or_default();
    let handshake = [&[1, 0, 0, length][..], &body].concat();
    [&[22, 3, 1, 0, length + 4][..], &handshake].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_office_listener_lets_in_its_own_institution_alone() -> Result<()> {
    use tramite_proto::pb::backoffice::v1::{GetStatusRequest, back_office_client::BackOfficeClient};
    let (network, port) = adapter_with_office("caritas", &["inps"]).await?;
    let node = network.adapter("caritas")?;
    let status = async |badge: Option<&Badge>| {
        let channel = RawPeer::connect(&port.address(), badge).await?.channel();
        Ok::<_, anyhow::Error>(BackOfficeClient::new(channel).get_status(GetStatusRequest {}).await?.into_inner())
    };
    ensure!(status(Some(&network.pki.badge("caritas")?)).await?.institution == "caritas");
    for (what, badge) in [
        ("another institution", network.pki.badge("inps")?),
        ("an operator", network.pki.badge(OPERATOR)?),
        ("a stranger", Forger::stranger(&network.pki.authority())?.badge(&Fields::client("institution", "caritas"))?),
    ] {
        ensure!(status(Some(&badge)).await.is_err(), "{what} was let in");
    }
    ensure!(status(None).await.is_err(), "somebody without a certificate was let in");
    node.process.log().wait_for(0, &["NOT_AUTHORIZED"], LINE_MAX).await?;
    Ok(())
}

/// The certificate that the gateway shows now.
async fn shown(network: &Network, badge: &Badge) -> Result<Vec<u8>> {
    let stream = raw::connect(&network.address(), raw::client_config(Some(badge))?).await?;
    let chain = stream.get_ref().1.peer_certificates().context("no certificate shown")?;
    Ok(chain.first().context("an empty chain")?.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_taken_up_without_a_dropped_stream_and_a_bad_one_is_not() -> Result<()> {
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], "").await?;
    let mut inbox = Receiving::open(&inps.peer, 10).await?;
    let badge = network.pki.badge("caritas")?;
    let (keys, before) = (network.gateway.folder.join("keys"), shown(&network, &badge).await?);
    let (old_cert, old_key) = (fs::read(keys.join("tls.pem"))?, fs::read(keys.join("tls.key"))?);

    let lines = network.gateway.process.log().lines().len();
    fs::write(keys.join("tls.pem"), "no certificate\n")?;
    network.gateway.process.signal(Signal::HUP).await?;
    network.gateway.process.log().wait_for(lines, &["reload failed", "tls.pem"], LINE_MAX).await?;
    ensure!(shown(&network, &badge).await? == before, "a broken file was taken up");
    fs::write(keys.join("tls.pem"), old_cert)?;
    fs::write(keys.join("tls.key"), old_key)?;

    network.pki.renew(GATEWAY)?;
    for file in ["tls.pem", "tls.key"] {
        fs::copy(network.pki.bundle(GATEWAY).join(file), keys.join(file))?;
    }
    network.gateway.process.signal(Signal::HUP).await?;
    let until = tokio::time::Instant::now() + PATIENCE;
    while shown(&network, &badge).await? == before {
        ensure!(tokio::time::Instant::now() < until, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let draft = Draft::blind("caritas", "inps");
    caritas.peer.submit(draft.signed(&caritas.pen)?).await.context("the old connection")?;
    ensure!(inbox.delivery().await.context("the old stream")?.origin.json == draft.origin.json());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_file_that_others_can_read_is_refused_and_so_is_a_second_gateway() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let (network, [_caritas]) = gateway_and(["caritas"], "").await?;
    let file = network.gateway.folder.join("gateway.toml");
    let second = tramite_tests::process::Process::new("second", vec!["gateway".into(), "--config".into(), file.into()]);
    second.start().await?;
    let status = second.exited(START_MAX).await.context("two gateways on one directory")?;
    ensure!(!status.success(), "two gateways on one directory");

    network.gateway.process.terminate(PATIENCE).await?;
    let key = network.gateway.folder.join("keys/sign.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640))?;
    network.gateway.process.start().await?;
    let status = network.gateway.process.exited(START_MAX).await.context("a key that the group can read")?;
    ensure!(!status.success(), "it served with a key that the group can read");
    let said = network.gateway.process.log().tail(5);
    ensure!(said.contains("sign.key") && said.contains("600"), "no clear words: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_connects_and_says_nothing_is_shown_out() -> Result<()> {
    let (network, [_caritas]) = gateway_and(["caritas"], "").await?;
    let lines = network.gateway.process.log().lines().len();
    let mut silent = TcpStream::connect(network.address()).await?;
    let mut garbage = TcpStream::connect(network.address()).await?;
    garbage.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let badge = network.pki.badge("caritas")?;
    let mut shaken = raw::connect(&network.address(), raw::client_config(Some(&badge))?).await?;
    let mut rest = Vec::new();
    let limit = Duration::from_secs(20);
    timeout(limit, garbage.read_to_end(&mut rest)).await.context("HTTP in the clear")?.ok();
    timeout(limit, silent.read_to_end(&mut rest)).await.context("no handshake")?.ok();
    timeout(limit, shaken.read_to_end(&mut rest)).await.context("nothing after the handshake")?.ok();
    let log = network.gateway.process.log();
    log.wait_for(lines, &["HANDSHAKE_TIMEOUT"], LINE_MAX).await?;
    log.wait_for(lines, &["FIRST_BYTES_TIMEOUT"], LINE_MAX).await?;
    Ok(())
}
