//! The gateway is not trusted with identity: whatever a lying one says, an adapter seals only to the recipient's own key, shows
//! its back office only what its issuer signed, and believes only a receipt that the recipient gave.
//!
//! A test server plays the gateway, with right certificates, for one real adapter. Every lie stands beside the truth that differs
//! from it in one thing, so that the refusal is the lie's.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use tonic::Code;
use tramite_proto::{
    pb::{
        exchange::v1::{Delivery, FramedMessage, Notice, ReceiveFrame},
        statement::v1::Statement,
    },
    seal::{PrivateKey, PublicKey, Suite},
};
use tramite_tests::{
    clerk::Clerk,
    config::GATEWAY,
    desk::{Desk, insist},
    forge::{self, Draft, Object, Pen, b64, key_record, random, receipt, sha256},
    lying::{Liar, framed},
    network::{Network, PATIENCE},
    pki::{Fields, Forger},
    sample,
};

/// Long enough for an adapter that believed a lie to act on it.
const GRACE: Duration = Duration::from_secs(2);

/// A caritas that is real, an inps and a comune that are only names with keys, and a gateway that lies.
struct Scene {
    network: Network,
    liar: Liar,
    caritas: Desk,
    inps: Pen,
    comune: Pen,
}

impl Scene {
    async fn prepare() -> Result<Self> {
        let network = Network::builder().institutions(&["caritas"]).played(&["inps", "comune"]).prepare()?;
        let liar = Liar::start(&network, GATEWAY).await?;
        let (inps, comune) = (network.pki.pen("inps")?, network.pki.pen("comune")?);
        liar.shows("comune", vec![comune.statement(&record(&comune, 1, "comune-1")?.json())?]);
        let caritas = network.desk("caritas")?;
        Ok(Self { network, liar, caritas, inps, comune })
    }

    async fn start(&self) -> Result<()> {
        self.network.adapter("caritas")?.process.start().await?;
        self.caritas.connected(PATIENCE).await.with_context(|| self.network.logs())
    }

    /// A key record of inps as it should be, for a key id.
    fn truth(&self, seq: i64, kid: &str) -> Result<Statement> {
        self.inps.statement(&record(&self.inps, seq, kid)?.json())
    }

    async fn refer(&self, request_id: &str) -> Result<()> {
        insist(PATIENCE, || self.caritas.refer("inps", request_id, "a secret")).await.map(drop)
    }

    async fn logged(&self, words: &[&str]) -> Result<()> {
        let log = self.network.adapter("caritas")?.process.log();
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        while !log.lines().iter().any(|line| words.iter().any(|word| line.contains(word))) {
            ensure!(tokio::time::Instant::now() < until, "the log has none of {words:?}:\n{}", log.tail(30));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// The key to which others seal what is for caritas.
    async fn key_of_caritas(&self) -> Result<PublicKey> {
        forge::encryption_key(&self.liar.key_of_adapter().await?.json)
    }
}

/// A key record with a real public key of today's suite.
fn record(pen: &Pen, seq: i64, kid: &str) -> Result<Object> {
    let key = PrivateKey::generate(Suite::X25519)?.public_key(kid.parse()?);
    Ok(key_record(pen, seq, kid, key.as_bytes()))
}

/// Shows only a false record of inps, and expects that nothing is ever sealed to it, with one of some reasons in the log; then
/// shows the truth, and expects that it is used.
async fn is_not_believed(scene: &Scene, lie: Statement, reasons: &[&str]) -> Result<()> {
    scene.liar.shows("inps", vec![lie]);
    scene.start().await?;
    // Refused at once, or taken and kept until there is a key: both are right, as long as nothing leaves.
    let taken = scene.caritas.refer("inps", "r-1", "a secret").await;
    scene.logged(reasons).await?;
    tokio::time::sleep(GRACE).await;
    ensure!(scene.liar.submitted().is_empty(), "sealed to a false key");
    ensure!(taken.is_ok() || taken.as_ref().is_err_and(|status| status.code() != Code::Internal), "{taken:?}");
    scene.liar.shows("inps", vec![scene.truth(9, "true-1")?]);
    scene.network.adapter("caritas")?.process.kill().await?;
    scene.start().await?;
    scene.refer("r-2").await?;
    let sent = scene.liar.takes(1).await.with_context(|| scene.network.logs())?;
    ensure!(
        sent.iter().all(|message| message.key_id() == "true-1"),
        "{:?}",
        sent.iter().map(|m| m.key_id()).collect::<Vec<_>>()
    );
    Ok(())
}

const NOT_THEIRS: [&str; 4] = ["KEY_RECORD_INVALID", "CERTIFICATE_INVALID", "ISSUER_MISMATCH", "SIGNATURE_INVALID"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_members_key_is_not_believed() -> Result<()> {
    let scene = Scene::prepare().await?;
    let lie = scene.comune.statement(&record(&scene.comune, 2, "false-1")?.json())?;
    is_not_believed(&scene, lie, &NOT_THEIRS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_in_the_recipients_name_by_another_members_pen_is_not_believed() -> Result<()> {
    let scene = Scene::prepare().await?;
    let mut pen = scene.network.pki.pen("comune")?;
    pen.issuer = "inps".into();
    let lie = pen.statement(&record(&pen, 2, "false-1")?.json())?;
    is_not_believed(&scene, lie, &NOT_THEIRS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swapped_certificate_is_not_believed() -> Result<()> {
    let scene = Scene::prepare().await?;
    let stranger = Forger::stranger(&scene.network.pki.authority())?;
    let pen = stranger.pen("inps", &Fields::signing("institution", "inps"))?;
    let lie = pen.statement(&record(&pen, 2, "false-1")?.json())?;
    is_not_believed(&scene, lie, &NOT_THEIRS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_true_record_with_another_encryption_key_put_in_is_not_believed() -> Result<()> {
    let scene = Scene::prepare().await?;
    let mut lie = scene.truth(2, "false-1")?;
    let changed = record(&scene.inps, 2, "false-1")?;
    lie.json = changed.json().into();
    is_not_believed(&scene, lie, &["INCLUSION_INVALID", "KEY_RECORD_INVALID", "SIGNATURE_INVALID"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_key_record_is_not_believed_even_after_a_restart() -> Result<()> {
    let scene = Scene::prepare().await?;
    let older = scene.truth(5, "old-1")?;
    scene.liar.shows("inps", vec![scene.truth(10, "new-1")?]);
    scene.start().await?;
    scene.refer("r-1").await?;
    ensure!(scene.liar.takes(1).await?[0].key_id() == "new-1");
    scene.network.adapter("caritas")?.process.kill().await?;
    scene.liar.shows("inps", vec![older]);
    scene.start().await?;
    // Either refused, or sealed to the key that it knows already.
    let _ = scene.caritas.refer("inps", "r-2", "a secret").await;
    scene.logged(&["KEY_ROLLED_BACK"]).await?;
    tokio::time::sleep(GRACE).await;
    ensure!(scene.liar.submitted().iter().all(|message| message.key_id() == "new-1"), "sealed to an older key");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weaker_suite_than_before_is_not_believed() -> Result<()> {
    let scene = Scene::prepare().await?;
    let strong = PrivateKey::generate(Suite::XWing)?.public_key("strong-1".parse()?);
    let enc = serde_json::json!({"kid": "strong-1", "suite": "XWING-SHA256-AES256GCM", "pub": b64(strong.as_bytes())});
    let record = key_record(&scene.inps, 10, "strong-1", &[]).with("enc", enc);
    scene.liar.shows("inps", vec![scene.inps.statement(&record.json())?]);
    scene.start().await?;
    scene.refer("r-1").await?;
    ensure!(scene.liar.takes(1).await?[0].key_id() == "strong-1");
    scene.network.adapter("caritas")?.process.kill().await?;
    scene.liar.shows("inps", vec![scene.truth(11, "weak-1")?]);
    scene.start().await?;
    let _ = scene.caritas.refer("inps", "r-2", "a secret").await;
    scene.logged(&["KEY_WEAKER_SUITE"]).await?;
    tokio::time::sleep(GRACE).await;
    ensure!(scene.liar.submitted().iter().all(|message| message.key_id() == "strong-1"), "sealed to a weaker key");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_receipt_is_not_believed() -> Result<()> {
    let scene = Scene::prepare().await?;
    scene.liar.shows("inps", vec![scene.truth(2, "true-1")?]);
    scene.start().await?;
    let news = Clerk::reads(&scene.caritas);
    scene.refer("r-1").await?;
    let sent = scene.liar.takes(1).await?.remove(0);
    let origin = sent.origin();
    let text = |name: &str| origin.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let truth = receipt(
        "inps",
        &Object::of("origin").with("iss", "caritas").with("jti", text("jti")).with("ptc", text("ptc")),
        &sent.ciphertext,
    )
    .with("org_s256", b64(&sha256(&sent.json)));
    let mut thief = scene.network.pki.pen("comune")?;
    thief.issuer = "inps".into();
    let stranger = Forger::stranger(&scene.network.pki.authority())?;
    let stranger = stranger.pen("inps", &Fields::signing("institution", "inps"))?;
    let lies = [
        ("by the gateway itself", scene.liar.pen().statement(&truth.json())?),
        ("by another member", thief.statement(&truth.json())?),
        ("by a stranger", stranger.statement(&truth.json())?),
        ("by another member in its own name", scene.comune.statement(&truth.clone().with("iss", "comune").json())?),
        ("over another message", scene.inps.statement(&truth.clone().with("org_s256", b64(&random::<32>())).json())?),
        ("over another ciphertext", scene.inps.statement(&truth.clone().with("ct_s256", b64(&random::<32>())).json())?),
        ("over another plaintext", scene.inps.statement(&truth.clone().with("ptc", b64(&random::<32>())).json())?),
    ];
    let handover = |receipt: &Statement| {
        let evidence = Liar::evidence("ContentHandover", &sent.json).with("rcp_s256", b64(&sha256(&receipt.json)));
        scene.liar.pen().statement(&evidence.json())
    };
    let notice = |id: u64, receipt: &Statement| {
        let evidence = handover(receipt)?;
        let notice = Notice {
            delivery_id: id,
            message_id: text("jti"),
            receipt: Some(framed(receipt, 0)),
            evidence: Some(framed(&evidence, 1)),
            attempt: 1,
            ..Default::default()
        };
        let jws = vec![receipt.jws.clone(), evidence.jws];
        Ok::<_, anyhow::Error>(ReceiveFrame { jws, notices: vec![notice], ..ReceiveFrame::default() })
    };
    for (id, (_, lie)) in (100..).zip(&lies) {
        scene.liar.sends(notice(id, lie)?).await?;
    }
    scene
        .logged(&["RECEIPT_MISMATCH", "SIGNATURE_INVALID", "SIGNER_UNKNOWN", "CERTIFICATE_INVALID", "ISSUER_MISMATCH"])
        .await?;
    tokio::time::sleep(GRACE).await;
    ensure!(news.seen().notices_of("OPENED") == 0, "a forged receipt was shown: {:?}", news.seen().items);
    let true_receipt = scene.inps.statement(&truth.json())?;
    let news_of_it = notice(200, &true_receipt)?;
    scene.liar.sends(news_of_it.clone()).await?;
    let told = news.until("the true receipt", PATIENCE, |seen| seen.notices_of("OPENED") == 1).await;
    told.with_context(|| scene.network.logs())?;
    // The same news under another number is no news.
    let mut again = news_of_it;
    again.notices.iter_mut().for_each(|notice| notice.delivery_id = 201);
    scene.liar.sends(again).await?;
    scene.liar.said_of(201).await?;
    tokio::time::sleep(GRACE).await;
    ensure!(news.seen().notices_of("OPENED") == 1, "one receipt was shown twice: {:?}", news.seen().items);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_delivery_is_not_shown_to_the_back_office() -> Result<()> {
    let scene = Scene::prepare().await?;
    scene.liar.shows("inps", vec![scene.truth(2, "true-1")?]);
    scene.start().await?;
    let work = Clerk::reads(&scene.caritas);
    let key = scene.key_of_caritas().await?;
    let body = |situation: &str| {
        use tramite_proto::pb::body::v1::{Body, body::Kind};
        Body { kind: Some(Kind::Referral(sample::referral(situation))), ..Body::default() }.encode_to_vec()
    };
    let draft = |situation: &str| Draft::sealed("inps", "caritas", &key, &body(situation));
    let mut thief = scene.network.pki.pen("comune")?;
    thief.issuer = "inps".into();

    let truth = draft("the truth")?;
    let signed = scene.inps.statement(&truth.origin.json())?;
    scene.liar.sends(delivery(1, &truth, &signed, scene.liar.pen(), &truth.origin.json())?).await?;
    work.until("the truth", PATIENCE, |seen| seen.situations() == ["the truth"])
        .await
        .with_context(|| scene.network.logs())?;
    let said = scene.liar.said_of(1).await?.receipt();
    ensure!(said.get("opened") == Some(&true.into()), "{said}");

    let stolen = draft("by another member's pen")?;
    let by_thief = thief.statement(&stolen.origin.json())?;
    scene.liar.sends(delivery(2, &stolen, &by_thief, scene.liar.pen(), &stolen.origin.json())?).await?;
    let elsewhere = Draft::sealed("inps", "comune", &key, &body("for the comune"))?;
    let signed = scene.inps.statement(&elsewhere.origin.json())?;
    scene.liar.sends(delivery(3, &elsewhere, &signed, scene.liar.pen(), &elsewhere.origin.json())?).await?;
    let mut changed = draft("with a byte changed")?;
    let signed = scene.inps.statement(&changed.origin.json())?;
    changed.ciphertext = changed.ciphertext.iter().map(|byte| byte ^ 1).collect();
    scene.liar.sends(delivery(4, &changed, &signed, scene.liar.pen(), &changed.origin.json())?).await?;
    let unvouched = draft("with another message's acceptance")?;
    let signed = scene.inps.statement(&unvouched.origin.json())?;
    scene.liar.sends(delivery(5, &unvouched, &signed, scene.liar.pen(), &truth.origin.json())?).await?;
    let forged = draft("with an acceptance by another")?;
    let signed = scene.inps.statement(&forged.origin.json())?;
    scene.liar.sends(delivery(6, &forged, &signed, &scene.comune, &forged.origin.json())?).await?;
    for id in 2..=6 {
        let said = scene.liar.said_of(id).await.with_context(|| scene.network.logs())?.receipt();
        ensure!(said.get("opened") != Some(&true.into()), "delivery {id} was opened: {said}");
    }

    // The same message once more, under another number: settled again, shown no more.
    let signed = scene.inps.statement(&truth.origin.json())?;
    scene.liar.sends(delivery(7, &truth, &signed, scene.liar.pen(), &truth.origin.json())?).await?;
    scene.liar.said_of(7).await?;
    let last = draft("the last")?;
    let signed = scene.inps.statement(&last.origin.json())?;
    scene.liar.sends(delivery(8, &last, &signed, scene.liar.pen(), &last.origin.json())?).await?;
    work.until("the last", PATIENCE, |seen| seen.situations().contains(&"the last".to_owned())).await?;
    ensure!(work.seen().situations() == ["the truth", "the last"], "{:?}", work.seen().situations());
    Ok(())
}

/// A delivery whose acceptance is by a pen and about an origin.
fn delivery(id: u64, draft: &Draft, origin: &Statement, pen: &Pen, about: &[u8]) -> Result<ReceiveFrame> {
    let acceptance = Liar::evidence("SubmissionAcceptance", about).with("peer_s256", b64(&[0; 32]));
    let acceptance = pen.statement(&acceptance.json())?;
    let message = FramedMessage {
        origin: Some(framed(origin, 0)),
        enc: draft.enc.clone().into(),
        ciphertext: draft.ciphertext.clone().into(),
        traceparent: String::new(),
    };
    let delivery =
        Delivery { delivery_id: id, message: Some(message), acceptance: Some(framed(&acceptance, 1)), attempt: 1 };
    let jws = vec![origin.jws.clone(), acceptance.jws];
    Ok(ReceiveFrame { jws, deliveries: vec![delivery], ..ReceiveFrame::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_the_gateway_is_not_spoken_to() -> Result<()> {
    let network = Network::builder().institutions(&["caritas"]).played(&["inps"]).prepare()?;
    // Of the right authority and with the right address, but another gateway.
    let (folder, gateway) = (network.pki.bundle("elsewhere"), network.pki.bundle(GATEWAY));
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::metadata(&gateway)?.permissions())?;
    let fields = Fields {
        usages: vec![ServerAuth],
        dns: vec!["localhost".into(), "127.0.0.1".into()],
        ..Fields::client("gateway", "elsewhere")
    };
    let (certificate, key) = network.pki.forger()?.pem(&fields)?;
    for (name, text) in [("tls.pem", certificate), ("tls.key", key)] {
        fs::write(folder.join(name), text)?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600))?;
    }
    for name in ["root.pem", "crl.pem"] {
        fs::copy(gateway.join(name), folder.join(name))?;
    }
    let liar = Liar::start(&network, "elsewhere").await?;
    let node = network.adapter("caritas")?;
    node.process.start().await?;
    node.process.log().wait_for(0, &["PEER_UNEXPECTED"], PATIENCE).await?;
    let status = insist(PATIENCE, || async {
        network.desk("caritas").map_err(|e| tonic::Status::unavailable(e.to_string()))?.status().await
    })
    .await?;
    ensure!(!status.connected && !status.problem.is_empty(), "{status:?}");
    ensure!(liar.published().is_none(), "it was spoken to");
    Ok(())
}
