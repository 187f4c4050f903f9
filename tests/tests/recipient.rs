//! What a recipient refuses although the gateway let it through: only the recipient can look inside, and what it finds wrong comes
//! back to the sender as a signed refusal with its own reason, and never reaches the back office.

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use serde_json::Value;
use tramite_proto::{
    pb::{
        body::v1::{Attachment, Body, DocumentRequest, Referral, body::Kind},
        directory::v1::GetInstitutionRequest,
        exchange::v1::{PartHeader, PutPartRequest, put_part_request},
    },
    seal::{PrivateKey, PublicKey, Suite},
};
use tramite_tests::{
    attack::{Player, join, refused},
    clerk::Clerk,
    forge::{self, Draft, b64, random, referral_origin, sha256, uuid7},
    network::{Network, PATIENCE},
    receiving::Receiving,
    sample,
};

/// A real inps, and a caritas that the test plays.
async fn scene() -> Result<(Network, Player, PublicKey)> {
    let network = Network::builder().institutions(&["inps"]).played(&["caritas"]).start().await?;
    let caritas = join(&network, "caritas").await?;
    let request = GetInstitutionRequest { name: "inps".into() };
    let found = caritas.peer.directory().get_institution(request).await?.into_inner();
    let keys = found.institution.context("inps")?.keys;
    let key = forge::encryption_key(&keys.first().context("a key record")?.json)?;
    Ok((network, caritas, key))
}

fn body(kind: Kind) -> Vec<u8> {
    Body { kind: Some(kind), ..Body::default() }.encode_to_vec()
}

fn referral(situation: &str) -> Vec<u8> {
    body(Kind::Referral(sample::referral(situation)))
}

/// Submits, and gives back the receipt that comes as a notice.
async fn receipt_for(caritas: &Player, news: &mut Receiving, draft: &Draft) -> Result<Value> {
    caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
    loop {
        let noticed = news.notice().await?;
        news.noticed(noticed.notice.delivery_id).await?;
        if noticed.notice.message_id == draft.id() {
            return Ok(serde_json::from_slice(&noticed.receipt.context("a receipt")?.json)?);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_does_not_open_or_is_not_what_origin_says_is_refused_with_its_reason() -> Result<()> {
    let (network, caritas, key) = scene().await?;
    let work = Clerk::reads(&network.desk("inps")?);
    let mut news = Receiving::open(&caritas.peer, 100).await?;
    let sealed = |key: &PublicKey, body: &[u8]| Draft::sealed("caritas", "inps", key, body);
    let stranger = PrivateKey::generate(Suite::X25519)?;
    let with_attachment = Body {
        kind: Some(Kind::Referral(sample::referral("an attachment that is not there"))),
        attachments: vec![Attachment {
            name: "a.pdf".into(),
            media_type: "application/pdf".into(),
            length: 3,
            ..Attachment::default()
        }],
        content_key: random::<32>().to_vec().into(),
    };
    let late = sealed(&key, &referral("another expiry"))?;
    let exp = late.origin.number("exp") + 1;
    let cases = [
        (
            "another key under its name",
            sealed(&stranger.public_key(key.kid().clone()), &referral("x"))?,
            "DECRYPTION_FAILED",
        ),
        ("sealed for another expiry", late.with("exp", exp), "DECRYPTION_FAILED"),
        ("another commitment", sealed(&key, &referral("x"))?.with("ptc", b64(&random::<32>())), "COMMITMENT_MISMATCH"),
        (
            "another kind of body",
            sealed(&key, &body(Kind::DocumentRequest(DocumentRequest::default())))?,
            "BODY_MISMATCH",
        ),
        ("no body at all", sealed(&key, &[])?, "BODY_MISMATCH SCHEMA_INVALID"),
        ("noise for a body", sealed(&key, &random::<100>())?, "SCHEMA_INVALID BODY_MISMATCH"),
        ("an attachment too many", sealed(&key, &with_attachment.encode_to_vec())?, "BODY_MISMATCH"),
        (
            "a referral of nothing",
            sealed(&key, &body(Kind::Referral(Referral::default())))?,
            "SCHEMA_INVALID FIELD_INVALID",
        ),
    ];
    // A key that the recipient never published is known to be wrong without looking inside.
    let unknown = sealed(&stranger.public_key("unknown-1".parse()?), &referral("x"))?;
    refused(&network, &caritas.peer, "an unknown key", unknown.signed(&caritas.pen)?, "KEY_UNKNOWN").await?;
    let mut wrong = Vec::new();
    for (what, draft, expected) in cases {
        let receipt =
            receipt_for(&caritas, &mut news, &draft).await.with_context(|| format!("{what}\n{}", network.logs()))?;
        let reason = receipt.get("rsn").and_then(Value::as_str).unwrap_or_default();
        if receipt.get("opened") != Some(&false.into()) || !expected.split(' ').any(|word| word == reason) {
            wrong.push(format!("{what}: expected {expected}, got {receipt}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let right = sealed(&key, &referral("nothing wrong"))?;
    let receipt = receipt_for(&caritas, &mut news, &right).await?;
    ensure!(receipt.get("opened") == Some(&true.into()), "{receipt}");
    work.until("the only right one", PATIENCE, |seen| !seen.items.is_empty()).await?;
    ensure!(work.seen().situations() == ["nothing wrong"] && work.seen().items.len() == 1, "{:?}", work.seen().items);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_does_not_open_is_refused_although_its_digest_is_right() -> Result<()> {
    let (network, caritas, key) = scene().await?;
    let work = Clerk::reads(&network.desk("inps")?);
    let mut news = Receiving::open(&caritas.peer, 10).await?;
    // 100 bytes of plaintext would be sealed to 116; these are noise.
    let noise = random::<116>();
    let attachment = Attachment {
        name: "a.pdf".into(),
        media_type: "application/pdf".into(),
        length: 100,
        sha256: sha256(&random::<100>()).to_vec().into(),
        document: String::new(),
    };
    let body = Body {
        kind: Some(Kind::Referral(sample::referral("with noise"))),
        attachments: vec![attachment],
        content_key: random::<32>().to_vec().into(),
    };
    let parts = serde_json::json!([{"len": noise.len(), "s256": b64(&sha256(&noise))}]);
    let origin = referral_origin("caritas", "inps", &uuid7().to_string());
    let draft = Draft::seal(origin, &key, &body.encode_to_vec())?.with("parts", parts);
    let header = PartHeader {
        message_id: draft.id().to_owned(),
        part: 0,
        length: 116,
        sha256: sha256(&noise).to_vec().into(),
        audience: "inps".into(),
    };
    let frames = [put_part_request::Frame::Header(header), put_part_request::Frame::Data(noise.to_vec().into())];
    let frames = frames.map(|frame| PutPartRequest { frame: Some(frame) });
    caritas.peer.exchange().put_part(tokio_stream::iter(frames)).await?;
    let receipt = receipt_for(&caritas, &mut news, &draft).await.with_context(|| network.logs())?;
    ensure!(receipt.get("opened") == Some(&false.into()), "{receipt}");
    ensure!(receipt.get("rsn").and_then(Value::as_str) == Some("PART_MISMATCH"), "{receipt}");
    ensure!(work.seen().items.is_empty(), "it was shown");
    Ok(())
}
