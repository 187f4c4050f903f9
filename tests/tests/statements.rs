//! What the gateway refuses on submission: each wrong thing with its own reason, in the answer, in a log line, in a counter.
//!
//! The messages are made by hand; each is right in everything but one.

use anyhow::{Context, Result, ensure};
use tramite_proto::pb::statement::v1::{SealedMessage, Statement};
use tramite_tests::{
    attack::{Player, gateway_and, join, publish, reason, refused},
    forge::{self, Draft, Object, Pen, b64, key_record, leaf, now_s, random},
    network::Network,
};

/// A message with its bytes changed after it was signed.
fn changed(caritas: &Player, change: impl FnOnce(&mut SealedMessage)) -> Result<SealedMessage> {
    let mut message = Draft::blind("caritas", "inps").signed(&caritas.pen)?;
    change(&mut message);
    Ok(message)
}

/// The same bytes with one bit of one byte turned.
fn turned(bytes: &[u8], at: usize) -> bytes::Bytes {
    bytes.iter().enumerate().map(|(place, byte)| if place == at { byte ^ 1 } else { *byte }).collect()
}

/// A message whose batch has a header or payload of the attacker's choice.
fn batched(pen: &Pen, header: Option<String>, payload: impl FnOnce(&str, &str) -> String) -> Result<SealedMessage> {
    let draft = Draft::blind("caritas", "inps");
    let json = draft.origin.json();
    let (right, root) = (pen.payload(1, &leaf(&json)), b64(&leaf(&json)));
    let jws = pen.jws(&header.unwrap_or_else(|| pen.header()), &payload(&right, &root))?;
    Ok(draft.carrying(Statement { json: json.into(), jws, index: 0, path: Vec::new() }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_right_is_accepted_and_a_changed_byte_anywhere_is_refused() -> Result<()> {
    let (network, [caritas, _inps]) = gateway_and(["caritas", "inps"], "").await?;
    let right = Draft::blind("caritas", "inps").signed(&caritas.pen)?;
    let acceptance = caritas.peer.submit(right).await?;
    ensure!(String::from_utf8_lossy(&acceptance.json).contains("SubmissionAcceptance"));

    let origin = changed(&caritas, |m| {
        let origin = m.origin.as_mut().unwrap();
        // Inside the operator's pseudonym: still JSON, still well formed, another statement.
        let at = origin.json.windows(8).position(|bytes| bytes == b"raw-peer").unwrap();
        origin.json = turned(&origin.json, at);
    })?;
    refused(&network, &caritas.peer, "a byte of origin", origin, "INCLUSION_INVALID").await?;
    let enc = changed(&caritas, |m| m.enc = turned(&m.enc, 0))?;
    refused(&network, &caritas.peer, "a byte of enc", enc, "ENC_MISMATCH").await?;
    let ciphertext = changed(&caritas, |m| m.ciphertext = turned(&m.ciphertext, 527))?;
    refused(&network, &caritas.peer, "a byte of ciphertext", ciphertext, "CIPHERTEXT_MISMATCH").await?;
    let shorter = changed(&caritas, |m| m.ciphertext = m.ciphertext.slice(..512))?;
    refused(&network, &caritas.peer, "a shorter ciphertext", shorter, "CIPHERTEXT_MISMATCH").await?;

    let draft = Draft::blind("caritas", "inps");
    let [mut first, _] = caritas.pen.pair(&draft.origin.json(), b"{}")?;
    first.path[0] = turned(&first.path[0], 31);
    refused(&network, &caritas.peer, "a byte of path", draft.carrying(first), "INCLUSION_INVALID").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_out_of_its_bounds_is_refused() -> Result<()> {
    let (network, [caritas, _inps]) = gateway_and(["caritas", "inps"], "").await?;
    let pen = &caritas.pen;
    let bounds = "BATCH_BOUNDS";
    for (what, from, to) in
        [("v 2", "\"v\":1", "\"v\":2"), ("n 0", "\"n\":1", "\"n\":0"), ("n 65", "\"n\":1", "\"n\":65")]
    {
        let message = batched(pen, None, |right, _| right.replace(from, to))?;
        refused(&network, &caritas.peer, what, message, bounds).await?;
    }
    let index = changed(&caritas, |m| m.origin.as_mut().unwrap().index = 1)?;
    refused(&network, &caritas.peer, "index 1 of 1", index, bounds).await?;
    let index = changed(&caritas, |m| m.origin.as_mut().unwrap().index = u32::MAX)?;
    refused(&network, &caritas.peer, "the largest index", index, bounds).await?;
    let long = changed(&caritas, |m| m.origin.as_mut().unwrap().path.push(vec![0; 32].into()))?;
    refused(&network, &caritas.peer, "a path too long", long, bounds).await?;

    let draft = Draft::blind("caritas", "inps");
    let json = draft.origin.json();
    let [mut first, _] = pen.pair(&json, b"{}")?;
    first.path[0] = first.path[0].slice(..31);
    refused(&network, &caritas.peer, "31 bytes in a path", draft.carrying(first), bounds).await?;
    let [mut first, _] = pen.pair(&json, b"{}")?;
    first.path.clear();
    refused(&network, &caritas.peer, "a path too short", draft.carrying(first), bounds).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_anything_that_is_not_specified_is_refused() -> Result<()> {
    let (network, [caritas, _inps]) = gateway_and(["caritas", "inps"], "").await?;
    let pen = &caritas.pen;
    let right = pen.header();
    let extra = |member: &str| right.replacen('{', &format!("{{{member},"), 1);
    let headers = [
        ("crit", extra(r#""crit":["b64"]"#)),
        ("jku", extra(r#""jku":"https://example.org/keys""#)),
        ("jwk", extra(r#""jwk":{"kty":"EC"}"#)),
        ("x5u", extra(r#""x5u":"https://example.org/cert""#)),
        ("x5c", extra(r#""x5c":["MAA="]"#)),
        ("kid", extra(r#""kid":"caritas""#)),
        ("a name twice", extra(r#""alg":"ES256""#)),
        ("alg none", right.replace("ES256", "none")),
        ("alg HS256", right.replace("ES256", "HS256")),
        ("another typ", right.replace("tramite-batch+jwt", "JWT")),
        ("no certificate named", r#"{"alg":"ES256","typ":"tramite-batch+jwt"}"#.to_owned()),
        ("no object", "[]".to_owned()),
    ];
    for (what, header) in headers {
        let message = batched(pen, Some(header), |right, _| right.to_owned())?;
        refused(&network, &caritas.peer, what, message, "BATCH_MALFORMED").await?;
    }
    let twice = batched(pen, None, |right, _| right.replacen('{', r#"{"v":1,"#, 1))?;
    refused(&network, &caritas.peer, "v twice", twice, "BATCH_MALFORMED").await?;
    let more = batched(pen, None, |right, _| right.replacen('{', r#"{"exp":1,"#, 1))?;
    refused(&network, &caritas.peer, "an unknown member", more, "BATCH_MALFORMED").await?;
    for (what, jws) in
        [("nothing", ""), ("one part", "e30"), ("four parts", "e30.e30.e30.e30"), ("no base64url", "{}.{}.{}")]
    {
        let message = changed(&caritas, |m| m.origin.as_mut().unwrap().jws = jws.to_owned())?;
        refused(&network, &caritas.peer, what, message, "BATCH_MALFORMED").await?;
    }
    let padded = changed(&caritas, |m| m.origin.as_mut().unwrap().jws.push('='))?;
    refused(&network, &caritas.peer, "padding", padded, "BATCH_MALFORMED").await?;
    let long = changed(&caritas, |m| m.origin.as_mut().unwrap().jws.push_str(&"A".repeat(2048)))?;
    refused(&network, &caritas.peer, "over 2 KiB", long, "BATCH_MALFORMED").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_speaks_for_another() -> Result<()> {
    let (network, [caritas, inps, comune]) = gateway_and(["caritas", "inps", "comune"], "").await?;
    let draft = || Draft::blind("caritas", "inps");
    let own = draft().signed(&caritas.pen)?;
    refused(&network, &comune.peer, "a captured message, by another member", own, "ISSUER_MISMATCH").await?;
    let spoofed = draft().signed(&comune.pen)?;
    refused(&network, &comune.peer, "iss of another in the statement", spoofed, "ISSUER_MISMATCH").await?;
    let theirs = Draft::blind("comune", "inps").signed(&comune.pen)?;
    refused(&network, &caritas.peer, "another member's own message", theirs, "ISSUER_MISMATCH").await?;

    // Everything names caritas; the pen is the comune's.
    let mut thief = network.pki.pen("comune")?;
    thief.issuer = "caritas".into();
    refused(&network, &caritas.peer, "another member's certificate", draft().signed(&thief)?, "SIGNER_UNKNOWN").await?;
    let copied = caritas.pen.header();
    let json = draft();
    let jws = thief.jws(&copied, &thief.payload(1, &leaf(&json.origin.json())))?;
    let statement = Statement { json: json.origin.json().into(), jws, index: 0, path: Vec::new() };
    refused(&network, &caritas.peer, "another member's key", json.carrying(statement), "SIGNATURE_INVALID").await?;
    drop(inps);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_not_as_specified_is_refused() -> Result<()> {
    let (network, [caritas, _inps]) = gateway_and(["caritas", "inps"], "").await?;
    let now = now_s();
    let blind = || Draft::blind("caritas", "inps");
    let cases = [
        ("an unknown member", blind().with("extra", 1), "STATEMENT_MALFORMED"),
        ("a null member", blind().with("rsn", serde_json::Value::Null), "STATEMENT_MALFORMED"),
        ("another typ", blind().with("typ", "receipt"), "STATEMENT_MALFORMED"),
        ("another version", blind().with("v", 2), "STATEMENT_MALFORMED"),
        ("an id that is no UUIDv7", blind().with("jti", uuid::Uuid::new_v4().to_string()), "STATEMENT_MALFORMED"),
        ("a path for a name", blind().with("aud", "../inps"), "STATEMENT_MALFORMED"),
        ("a line break in the operator", blind().with("op", "a\nb"), "STATEMENT_MALFORMED"),
        ("itself as audience", blind().with("aud", "caritas"), "STATEMENT_MALFORMED"),
        ("an audience that nobody is", blind().with("aud", "nobody"), "UNKNOWN_RECIPIENT"),
        ("another purpose", blind().with("pur", "CASE_FOLLOW_UP"), "PURPOSE_NOT_ALLOWED"),
        ("another legal basis", blind().with("lb", "GDPR-9-2-A"), "LEGAL_BASIS_NOT_ALLOWED"),
        ("past its expiry", blind().with("iat", now - 100).with("exp", now - 50), "MESSAGE_EXPIRED"),
        ("from the future", blind().with("iat", now + 900).with("exp", now + 1800), "ISSUED_IN_FUTURE"),
        ("61 days of life", blind().with("exp", now + 61 * 86_400), "EXPIRY_INVALID"),
        ("an end before its beginning", blind().with("exp", now - 1), "EXPIRY_INVALID"),
        (
            "a case that nobody opened",
            blind()
                .with("case", forge::uuid7().to_string())
                .with("cs", "accepted")
                .with("mt", "tramite.body.v1.ReferralUpdate"),
            "CASE_UNKNOWN",
        ),
    ];
    let mut wrong = Vec::new();
    for (what, draft, expected) in cases {
        let message = draft.signed(&caritas.pen)?;
        if let Err(error) = refused(&network, &caritas.peer, what, message, expected).await {
            wrong.push(format!("{error:#}"));
        }
    }
    let twice = Draft::blind("caritas", "inps");
    let json = String::from_utf8(twice.origin.json())?.replacen("\"v\":1", "\"v\":1,\"v\":1", 1);
    let message = twice.carrying(caritas.pen.statement(json.as_bytes())?);
    refused(&network, &caritas.peer, "a member twice", message, "STATEMENT_MALFORMED").await?;
    let huge = Draft::blind("caritas", "inps");
    let json = format!("{}{}", " ".repeat(16 * 1024), String::from_utf8(huge.origin.json())?);
    let message = huge.carrying(caritas.pen.statement(json.as_bytes())?);
    let answer = caritas.peer.submit(message).await.err().context("17 KiB of statement were accepted")?;
    ensure!(["STATEMENT_TOO_LARGE", "STATEMENT_MALFORMED", "BATCH_BOUNDS"].contains(&reason(&answer)), "{answer:?}");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_gets_the_first_answer_and_an_id_takes_no_other_content() -> Result<()> {
    let (network, [caritas, _inps]) = gateway_and(["caritas", "inps"], "").await?;
    let draft = Draft::blind("caritas", "inps");
    let message = draft.signed(&caritas.pen)?;
    let first = caritas.peer.submit(message.clone()).await?;
    let again = caritas.peer.submit(message.clone()).await?;
    ensure!(first == again, "a repeat got another acceptance");
    // ECDSA is not deterministic here: another JWS over the same bytes is the same message.
    let resigned = caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
    ensure!(first == resigned, "the identity is the statement's bytes, not its signature");
    let other =
        Draft::blind("caritas", "inps").with("jti", draft.id()).with("case", draft.id()).signed(&caritas.pen)?;
    refused(&network, &caritas.peer, "other content under the same id", other, "ID_REUSED").await?;
    network.gateway.process.kill().await?;
    network.gateway.process.start().await?;
    let caritas = join(&network, "caritas").await?;
    ensure!(caritas.peer.submit(message).await? == first, "after a restart a repeat got another acceptance");
    let overview =
        caritas.peer.operations().get_overview(tramite_proto::pb::operations::v1::GetOverviewRequest {}).await;
    ensure!(reason(&overview.err().context("an institution saw operations")?) == "NOT_AUTHORIZED");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_submissions_of_one_message_at_once_make_one() -> Result<()> {
    let (network, [caritas, _inps]) = gateway_and(["caritas", "inps"], "").await?;
    let message = Draft::blind("caritas", "inps").signed(&caritas.pen)?;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (peer, message) = (caritas.peer.clone(), message.clone());
        calls.spawn(async move {
            // Above the limit of a connection a call is shed, to be repeated.
            tramite_tests::desk::insist(tramite_tests::network::PATIENCE, || peer.submit(message.clone())).await
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = calls.join_next().await {
        answers.push(answer??);
    }
    ensure!(answers.len() == 100 && answers.iter().all(|answer| *answer == answers[0]), "not one answer");
    let accepted = network.gateway.metrics().await?.sum("tramite_gateway_accepted_total", &["caritas"]);
    ensure!(accepted <= 1.0, "{accepted} were accepted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_record_that_is_older_weaker_or_anothers_is_refused() -> Result<()> {
    let (network, [caritas, comune]) = gateway_and(["caritas", "comune"], "").await?;
    let now = now_s();
    let record = |seq: i64, kid: &str| key_record(&caritas.pen, seq, kid, &random::<32>());
    let newer = record(now + 10, "k-2");
    ensure!(publish(&caritas, &newer.json()).await?, "a higher sequence was not new");
    ensure!(!publish(&caritas, &newer.json()).await?, "the same record was new again");
    let expect = async |what: &str, player: &Player, record: &Object, expected: &[&str]| {
        let status = publish(player, &record.json()).await.err().with_context(|| format!("{what}: was taken"))?;
        ensure!(
            expected.contains(&reason(&status)),
            "{what}: expected {expected:?}, got {} {status:?}",
            reason(&status)
        );
        Ok(())
    };
    expect("a lower sequence", &caritas, &record(now + 5, "k-3"), &["KEY_ROLLED_BACK"]).await?;
    expect("the same sequence, other bytes", &caritas, &record(now + 10, "k-4"), &["KEY_ROLLED_BACK"]).await?;
    expect(
        "another member's record",
        &comune,
        &record(now + 20, "k-5"),
        &["ISSUER_MISMATCH", "KEY_RECORD_INVALID", "SIGNER_UNKNOWN"],
    )
    .await?;
    let expired = record(now + 30, "k-6").with("nbf", now - 200).with("exp", now - 100);
    expect("an expired record", &caritas, &expired, &["KEY_EXPIRED", "KEY_RECORD_INVALID"]).await?;
    let long = record(now + 40, "k-7").with("exp", now + 500 * 86_400);
    expect("401 days and more", &caritas, &long, &["KEY_RECORD_INVALID", "STATEMENT_MALFORMED"]).await?;
    let strong = record(now + 50, "k-8").with(
        "enc",
        serde_json::json!({"kid": "k-8", "suite": "XWING-SHA256-AES256GCM", "pub": b64(&xwing_public(&network)?)}),
    );
    ensure!(publish(&caritas, &strong.json()).await?, "a stronger suite was not taken");
    expect("a weaker suite", &caritas, &record(now + 60, "k-9"), &["KEY_WEAKER_SUITE"]).await
}

/// A public key of the post-quantum suite.
fn xwing_public(_: &Network) -> Result<Vec<u8>> {
    use tramite_proto::seal::{PrivateKey, Suite};
    let key = PrivateKey::generate(Suite::XWing)?;
    Ok(key.public_key("k-8".parse()?).as_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signing_certificate_that_is_no_signing_certificate_is_refused() -> Result<()> {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, Other};
    use tramite_tests::pki::{Fields, Forger};
    let (network, [caritas]) = gateway_and(["caritas"], "").await?;
    let forger = network.pki.forger()?;
    let signing = || Fields::signing("institution", "caritas");
    let usages = signing().usages;
    let past = Fields { until: signing().from + std::time::Duration::from_secs(60), ..signing() };
    let pens = [
        ("another authority", Forger::stranger(&network.pki.authority())?.pen("caritas", &signing())?),
        ("another institution's name", forger.pen("caritas", &Fields::signing("institution", "inps"))?),
        ("another role", forger.pen("caritas", &Fields::signing("operator", "caritas"))?),
        ("a TLS certificate", forger.pen("caritas", &Fields::client("institution", "caritas"))?),
        (
            "a usage of TLS beside signing",
            forger.pen("caritas", &Fields { usages: [usages, vec![ClientAuth]].concat(), ..signing() })?,
        ),
        (
            "code signing",
            forger.pen("caritas", &Fields { usages: vec![Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 3])], ..signing() })?,
        ),
        ("no name", forger.pen("caritas", &Fields { uris: Vec::new(), ..signing() })?),
        ("expired", forger.pen("caritas", &past)?),
    ];
    for (seq, (what, pen)) in (now_s() + 10..).zip(pens) {
        let record = key_record(&pen, seq, "k-2", &random::<32>());
        let player = Player { name: "caritas".into(), peer: caritas.peer.clone(), pen };
        let status = publish(&player, &record.json()).await.err().with_context(|| format!("{what}: was taken"))?;
        let known = ["CERTIFICATE_INVALID", "KEY_RECORD_INVALID", "ISSUER_MISMATCH"];
        ensure!(known.contains(&reason(&status)), "{what}: {} {status:?}", reason(&status));
    }
    Ok(())
}
