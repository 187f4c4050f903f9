//! What the accept loop promises, shown by real handshakes over loopback: each refusal with its own word, every limit, reload and cut.
use std::sync::Mutex;

use rcgen::ExtendedKeyUsagePurpose;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_rustls::{TlsConnector, client};
use tokio_stream::StreamExt as _;

use super::*;
use crate::{
    authority::{Renewal, RevocationReason, renew},
    identity::Role,
    testing::{Badge, DAY_S, Fields, NOW_S, Stage, stranger},
};

const PATIENCE: Duration = Duration::from_secs(20);
const INPS: &str = "spiffe://tramite.test/institution/inps";
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the hooks told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Refused(Refusal),
    Open(String),
    Close(String),
    Cut(Refusal, String),
}

struct Telling(UnboundedSender<Told>);

impl Hooks for Telling {
    fn on_refused(&self, refusal: Refusal, _remote: SocketAddr, _detail: &str) {
        let _ = self.0.send(Told::Refused(refusal));
    }
    fn on_open(&self, peer: &Peer) {
        let _ = self.0.send(Told::Open(peer.to_string()));
    }
    fn on_close(&self, peer: &Peer) {
        let _ = self.0.send(Told::Close(peer.to_string()));
    }
    fn on_cut(&self, refusal: Refusal, peer: &Peer) {
        let _ = self.0.send(Told::Cut(refusal, peer.to_string()));
    }
}

/// A listener whose streams say back what they hear.
struct Echo {
    address: SocketAddr,
    tls: ServerTls,
    told: UnboundedReceiver<Told>,
    agreed: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
}

impl Echo {
    async fn start(stage: &mut Stage, limits: Limits) -> Self {
        Self::start_sweeping(stage, limits, SWEEP_EVERY).await
    }

    async fn start_sweeping(stage: &mut Stage, limits: Limits, sweep_every: Duration) -> Self {
        let bundle = stage.bundle(Role::Gateway, "gateway");
        let (tls, (send, told)) = (stage.server(&bundle), unbounded_channel());
        let mut listener =
            Listener::bind("127.0.0.1:0".parse().unwrap(), tls.clone(), limits, Arc::new(Telling(send))).await.unwrap();
        listener.sweep_every = sweep_every;
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let mut incoming = listener.incoming(&stop);
        let agreed = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&agreed);
        tokio::spawn(async move {
            while let Some(Ok(mut stream)) = incoming.next().await {
                seen.lock().unwrap().push(stream.agreed());
                tokio::spawn(async move {
                    let mut bytes = [0; 1024];
                    while let Ok(n @ 1..) = stream.read(&mut bytes).await {
                        if stream.write_all(&bytes[..n]).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, tls, told, agreed, stop }
    }

    async fn next(&mut self) -> Told {
        tokio::time::timeout(PATIENCE, self.told.recv()).await.unwrap().unwrap()
    }

    /// A connection that was let in.
    async fn connect(&mut self, config: ClientConfig) -> client::TlsStream<TcpStream> {
        let mut stream = shake(self.address, config).await.unwrap();
        assert!(matches!(self.next().await, Told::Open(_)));
        say(&mut stream, PREFACE).await.unwrap();
        stream
    }

    /// A connection that is refused.
    async fn refused(&mut self, config: ClientConfig) -> Refusal {
        let stream = shake(self.address, config).await;
        let refusal = match self.next().await {
            Told::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        };
        if let Ok(mut stream) = stream {
            assert!(say(&mut stream, b"let me in").await.is_err());
        }
        refusal
    }
}

async fn shake(address: SocketAddr, config: ClientConfig) -> io::Result<client::TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), socket).await
}

/// Says something and hears it back.
async fn say(stream: &mut client::TlsStream<TcpStream>, what: &[u8]) -> io::Result<()> {
    stream.write_all(what).await?;
    stream.flush().await?;
    let mut heard = vec![0; what.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await.expect("an answer or an end")?;
    assert_eq!(heard, what);
    Ok(())
}

/// Waits until the other side has ended the connection.
async fn ended(stream: &mut client::TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the end");
}

#[tokio::test]
async fn a_member_is_let_in_by_its_certificate_with_tls_1_3_hybrid_and_without_tickets() {
    let mut stage = Stage::new();
    let mut echo = Echo::start(&mut stage, Limits::default()).await;
    for (role, name) in [(Role::Institution, "inps"), (Role::Operator, "anna"), (Role::Auditor, "bruno")] {
        let bundle = stage.bundle(role, name);
        let mut stream = shake(echo.address, stage.raw_client(Some(Badge::of(&bundle)))).await.unwrap();
        assert_eq!(echo.next().await, Told::Open(format!("{role}/{name}")));
        say(&mut stream, PREFACE).await.unwrap();
        say(&mut stream, b"hello").await.unwrap();
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
        drop(stream);
        assert_eq!(echo.next().await, Told::Close(format!("{role}/{name}")));
    }
    let agreed = echo.agreed.lock().unwrap().clone();
    assert_eq!(agreed[0], "X25519MLKEM768 TLS13_AES_256_GCM_SHA384");
}

#[tokio::test]
async fn each_certificate_that_does_not_count_is_refused_with_its_own_reason() {
    let mut stage = Stage::new();
    let mut echo = Echo::start(&mut stage, Limits::default()).await;
    let (issuer, right) = (stage.issuer(), Fields::client(INPS));
    let with = |change: fn(&mut Fields)| {
        let mut fields = right.clone();
        change(&mut fields);
        fields.signed_by(&issuer)
    };
    let revoked = stage.bundle(Role::Institution, "gone");
    stage.authority.revoke_file(&revoked.join("tls.pem"), RevocationReason::CessationOfOperation).unwrap();
    stage.authority.publish_crl(&[stage.directory.path().join("gateway-gateway")]).unwrap();
    echo.tls.reload().unwrap();
    let elsewhere = {
        let mut other = Stage::new();
        Badge::of(&other.bundle(Role::Institution, "inps"))
    };
    for (badge, expected) in [
        (None, Refusal::NoCertificate),
        (Some(elsewhere), Refusal::OtherAuthority),
        (Some(right.signed_by(&stranger(&stage))), Refusal::OtherAuthority),
        (Some(with(|f| f.uris.clear())), Refusal::NoSan),
        (Some(with(|f| f.uris.push("spiffe://tramite.test/institution/comune".into()))), Refusal::AmbiguousSan),
        (Some(with(|f| f.uris = vec!["spiffe://other.test/institution/inps".into()])), Refusal::ForeignSan),
        (Some(with(|f| f.usages.clear())), Refusal::WrongPurpose),
        (Some(with(|f| f.usages = vec![ExtendedKeyUsagePurpose::ServerAuth])), Refusal::WrongPurpose),
        (Some(Fields::signing(INPS).signed_by(&issuer)), Refusal::WrongPurpose),
        (Some(with(|f| f.to_s = NOW_S - 1)), Refusal::Expired),
        (Some(with(|f| f.from_s = NOW_S + 1)), Refusal::NotYetValid),
        (Some(Badge::of(&revoked)), Refusal::Revoked),
    ] {
        assert_eq!(echo.refused(stage.raw_client(badge)).await, expected);
    }
    // A leaf that signs another leaf is no authority.
    let leaf = with(|_| ());
    let key = rcgen::KeyPair::try_from(leaf.key.secret_der()).unwrap();
    let leaf_issuer = rcgen::Issuer::from_ca_cert_der(&leaf.chain[0], key).unwrap();
    let mut below = right.signed_by(&leaf_issuer);
    below.chain.push(leaf.chain[0].clone());
    let refusal = echo.refused(stage.raw_client(Some(below))).await;
    assert!(matches!(refusal, Refusal::CertificateMalformed | Refusal::OtherAuthority), "{refusal}");
}

#[tokio::test]
async fn without_http_2_or_with_tls_1_2_nobody_gets_in() {
    let mut stage = Stage::new();
    let mut echo = Echo::start(&mut stage, Limits::default()).await;
    let badge = Badge::of(&stage.bundle(Role::Institution, "inps"));
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = stage.raw_client(Some(badge.clone()));
        config.alpn_protocols = protocols;
        assert_eq!(echo.refused(config).await, Refusal::NoAlpnH2);
    }
    let mut socket = TcpStream::connect(echo.address).await.unwrap();
    socket.write_all(&hello_of_tls_1_2()).await.unwrap();
    assert_eq!(echo.next().await, Told::Refused(Refusal::TlsVersion));
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    // A fatal alert: protocol_version.
    assert_eq!(answer[..7], [21, 3, 3, 0, 2, 2, 70]);
    let mut socket = TcpStream::connect(echo.address).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n").await.unwrap();
    assert_eq!(echo.next().await, Told::Refused(Refusal::TlsFailed));
    drop(TcpStream::connect(echo.address).await.unwrap());
    assert_eq!(echo.next().await, Told::Refused(Refusal::ClosedInHandshake));
}

/// What OpenSSL says with `-tls1_2`, in short: two suites, two groups, two signatures, no supported_versions.
fn hello_of_tls_1_2() -> Vec<u8> {
    let extensions =
        [&[0, 10, 0, 6, 0, 4, 0, 29, 0, 23][..], &[0, 11, 0, 2, 1, 0], &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4]].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0, 0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    [vec![22, 3, 1, 0, length + 4, 1, 0, 0, length], body].concat()
}

#[tokio::test]
async fn silent_peers_are_dropped_in_time_and_delay_nobody() {
    let mut stage = Stage::new();
    let limits = Limits { handshake_ms: 3_000, first_bytes_ms: 3_000, ..Limits::default() };
    let mut echo = Echo::start(&mut stage, limits).await;
    let badge = Badge::of(&stage.bundle(Role::Institution, "inps"));
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(echo.address).await.unwrap());
    }
    let mut honest = shake(echo.address, stage.raw_client(Some(badge.clone()))).await.unwrap();
    assert!(matches!(echo.next().await, Told::Open(_)));
    say(&mut honest, PREFACE).await.unwrap();
    for _ in 0..silent.len() {
        assert_eq!(echo.next().await, Told::Refused(Refusal::HandshakeTimeout));
    }
    // After the handshake, one byte is not a beginning either.
    for first in [&b""[..], &PREFACE[..1], &PREFACE[..23]] {
        let mut stream = shake(echo.address, stage.raw_client(Some(badge.clone()))).await.unwrap();
        assert!(matches!(echo.next().await, Told::Open(_)));
        stream.write_all(first).await.unwrap();
        assert_eq!(echo.next().await, Told::Refused(Refusal::NoFirstBytes));
        ended(&mut stream).await;
        assert!(matches!(echo.next().await, Told::Close(_)));
    }
    // Who has begun may be silent as long as it likes.
    say(&mut honest, b"still here").await.unwrap();
}

#[tokio::test]
async fn connections_are_limited_in_all_by_certificate_and_by_address() {
    let mut stage = Stage::new();
    let limits = Limits { connections_per_certificate: 2, connections_per_address: 3, ..Limits::default() };
    let mut echo = Echo::start(&mut stage, limits).await;
    let (inps, comune) =
        (Badge::of(&stage.bundle(Role::Institution, "inps")), Badge::of(&stage.bundle(Role::Institution, "comune")));
    let first = echo.connect(stage.raw_client(Some(inps.clone()))).await;
    let _second = echo.connect(stage.raw_client(Some(inps.clone()))).await;
    assert_eq!(echo.refused(stage.raw_client(Some(inps.clone()))).await, Refusal::TooManyOfCertificate);
    let _third = echo.connect(stage.raw_client(Some(comune.clone()))).await;
    assert_eq!(echo.refused(stage.raw_client(Some(comune.clone()))).await, Refusal::TooManyOfAddress);
    // A place that is given up is free again.
    drop(first);
    assert_eq!(echo.next().await, Told::Close("institution/inps".into()));
    let mut again = echo.connect(stage.raw_client(Some(inps))).await;
    say(&mut again, b"hello").await.unwrap();

    let mut small = Echo::start_again(&stage, Limits { connections: 1, ..Limits::default() }).await;
    let _only = small.connect(stage.raw_client(Some(comune.clone()))).await;
    assert_eq!(small.refused(stage.raw_client(Some(comune))).await, Refusal::TooManyConnections);
}

impl Echo {
    /// A second listener of the same gateway.
    async fn start_again(stage: &Stage, limits: Limits) -> Self {
        let bundle = stage.directory.path().join("gateway-gateway");
        let (tls, (send, told)) = (stage.server(&bundle), unbounded_channel());
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), tls.clone(), limits, Arc::new(Telling(send)));
        let listener = listener.await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let mut incoming = listener.incoming(&stop);
        tokio::spawn(async move {
            while let Some(Ok(mut stream)) = incoming.next().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = tokio::io::split(&mut stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        Self { address, tls, told, agreed: Arc::default(), stop }
    }
}

#[tokio::test]
async fn an_open_stream_lives_through_a_rotation_and_new_ones_see_the_new_certificate() {
    let mut stage = Stage::new();
    let mut echo = Echo::start(&mut stage, Limits::default()).await;
    let badge = Badge::of(&stage.bundle(Role::Institution, "inps"));
    let mut stream = echo.connect(stage.raw_client(Some(badge.clone()))).await;
    let shown = |stream: &client::TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let before = shown(&stream);
    for round in 0..5 {
        renew(&mut stage.authority, &stage.directory.path().join("gateway-gateway"), Renewal::Tls, None).unwrap();
        say(&mut stream, b"before").await.unwrap();
        echo.tls.reload().unwrap();
        say(&mut stream, b"after").await.unwrap();
        assert_eq!(echo.tls.status().generation, round + 1);
    }
    let newer = echo.connect(stage.raw_client(Some(badge))).await;
    assert_ne!(shown(&newer), before);
    assert_eq!(shown(&stream), before);
}

#[tokio::test]
async fn a_revoked_peer_is_cut_at_the_reload_and_nobody_else_is() {
    let mut stage = Stage::new();
    let mut echo = Echo::start(&mut stage, Limits::default()).await;
    let (inps, comune) = (stage.bundle(Role::Institution, "inps"), stage.bundle(Role::Institution, "comune"));
    let mut gone = echo.connect(stage.raw_client(Some(Badge::of(&inps)))).await;
    let mut other = echo.connect(stage.raw_client(Some(Badge::of(&comune)))).await;
    stage.authority.revoke_file(&inps.join("tls.pem"), RevocationReason::KeyCompromise).unwrap();
    stage.authority.publish_crl(&[stage.directory.path().join("gateway-gateway")]).unwrap();
    echo.tls.reload().unwrap();
    assert_eq!(echo.next().await, Told::Cut(Refusal::Revoked, "institution/inps".into()));
    ended(&mut gone).await;
    assert_eq!(echo.next().await, Told::Close("institution/inps".into()));
    say(&mut other, b"still here").await.unwrap();
    assert_eq!(echo.refused(stage.raw_client(Some(Badge::of(&inps)))).await, Refusal::Revoked);
}

#[tokio::test]
async fn a_revoked_peer_is_cut_also_while_it_takes_nothing_of_what_is_written_to_it() {
    let mut stage = Stage::new();
    let mut echo = Echo::start(&mut stage, Limits::default()).await;
    let inps = stage.bundle(Role::Institution, "inps");
    let mut deaf = echo.connect(stage.raw_client(Some(Badge::of(&inps)))).await;
    // Until the echo, which nobody reads, fills the way back, and the echo therefore reads no more.
    while let Ok(sent) = tokio::time::timeout(Duration::from_millis(500), deaf.write_all(&[0; 16_384])).await {
        sent.unwrap();
    }
    stage.authority.revoke_file(&inps.join("tls.pem"), RevocationReason::KeyCompromise).unwrap();
    stage.authority.publish_crl(&[stage.directory.path().join("gateway-gateway")]).unwrap();
    echo.tls.reload().unwrap();
    assert_eq!(echo.next().await, Told::Cut(Refusal::Revoked, "institution/inps".into()));
    assert_eq!(echo.next().await, Told::Close("institution/inps".into()));
}

#[tokio::test]
async fn a_peer_is_cut_when_its_certificate_ends_while_it_is_connected() {
    let mut stage = Stage::new();
    let mut echo = Echo::start_sweeping(&mut stage, Limits::default(), Duration::from_millis(50)).await;
    let short = Fields { to_s: NOW_S + 60, ..Fields::client(INPS) }.signed_by(&stage.issuer());
    let comune = Badge::of(&stage.bundle(Role::Institution, "comune"));
    let mut stream = echo.connect(stage.raw_client(Some(short))).await;
    let mut other = echo.connect(stage.raw_client(Some(comune))).await;
    stage.clock.advance(61_000);
    assert_eq!(echo.next().await, Told::Cut(Refusal::Expired, "institution/inps".into()));
    ended(&mut stream).await;
    assert_eq!(echo.next().await, Told::Close("institution/inps".into()));
    say(&mut other, b"still here").await.unwrap();
    // A list past its end lets nobody in, and nobody stay: the revoked can no longer be told from the rest.
    stage.clock.advance(7 * DAY_S * 1000);
    assert_eq!(echo.next().await, Told::Cut(Refusal::CrlExpired, "institution/comune".into()));
    ended(&mut other).await;
}

#[tokio::test]
async fn with_a_list_past_its_end_nobody_gets_in_until_there_is_a_new_one() {
    let mut stage = Stage::new();
    let mut echo = Echo::start(&mut stage, Limits::default()).await;
    let badge = Badge::of(&stage.bundle(Role::Institution, "inps"));
    stage.clock.advance(7 * DAY_S * 1000);
    assert_eq!(echo.refused(stage.raw_client(Some(badge.clone()))).await, Refusal::CrlExpired);
    stage.authority.crl(7).unwrap();
    stage.authority.publish_crl(&[stage.directory.path().join("gateway-gateway")]).unwrap();
    echo.tls.reload().unwrap();
    let _stream = echo.connect(stage.raw_client(Some(badge))).await;
}

#[tokio::test]
async fn after_the_stop_the_port_is_free_and_open_streams_live_on() {
    let mut stage = Stage::new();
    let mut echo = Echo::start(&mut stage, Limits::default()).await;
    let badge = Badge::of(&stage.bundle(Role::Institution, "inps"));
    let mut stream = echo.connect(stage.raw_client(Some(badge))).await;
    echo.stop.cancel();
    tokio::time::timeout(PATIENCE, async { while TcpStream::connect(echo.address).await.is_ok() {} }).await.unwrap();
    say(&mut stream, b"still here").await.unwrap();
}

#[test]
fn only_what_is_the_peers_doing_goes_on_without_a_pause() {
    assert!(is_of_the_peer(&io::ErrorKind::ConnectionAborted.into()));
    // EMFILE: without a pause the loop would spin until somebody else closes a file.
    assert!(!is_of_the_peer(&io::Error::from_raw_os_error(24)));
}
