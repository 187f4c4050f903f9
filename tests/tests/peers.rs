//! What one peer can do to another through the gateway: nothing but what its own certificate and pen allow.
//!
//! Recipients are played by hand, so that each promise sees every delivery, notice and answer as it is on the wire.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tonic::Code;
use tramite_proto::pb::{
    exchange::v1::{
        FramedMessage, GetPartRequest, PartHeader, PutPartRequest, SettlementAnswer, SubmitFrame, put_part_request,
        submit_result::Result as Answer,
    },
    operations::v1::{GetMessageRequest, ListDeadLettersRequest, RedriveRequest},
    statement::v1::{FramedStatement, SealedMessage},
};
use tramite_tests::{
    attack::{Player, gateway_and, join, reason},
    forge::{Draft, b64, random, receipt, sha256},
    pki::OPERATOR,
    raw::RawPeer,
    receiving::{Delivered, Receiving},
};

/// Long enough for a wrong delivery to come, short enough for a test.
const SILENCE: Duration = Duration::from_millis(700);

/// The reason in an answer to a settlement; empty when it stands.
fn why(answer: &SettlementAnswer) -> &str {
    answer.refused.as_ref().map_or("", |refused| refused.reason.as_str())
}

/// A frame of messages, each in a batch of its own.
fn frame(messages: Vec<SealedMessage>) -> SubmitFrame {
    let mut frame = SubmitFrame { frame_id: 7, ..SubmitFrame::default() };
    for (place, message) in (0u32..).zip(messages) {
        let origin = message.origin.unwrap_or_default();
        frame.jws.push(origin.jws);
        let origin = FramedStatement { json: origin.json, jws_index: place, index: origin.index, path: origin.path };
        let (enc, ciphertext) = (message.enc, message.ciphertext);
        frame.messages.push(FramedMessage { origin: Some(origin), enc, ciphertext, traceparent: String::new() });
    }
    frame
}

/// Stores a part as its header says it is.
async fn put(peer: &RawPeer, header: PartHeader, content: &[u8]) -> Result<bool, tonic::Status> {
    let first = PutPartRequest { frame: Some(put_part_request::Frame::Header(header)) };
    let data = PutPartRequest { frame: Some(put_part_request::Frame::Data(content.to_vec().into())) };
    Ok(peer.exchange().put_part(tokio_stream::iter([first, data])).await?.into_inner().stored)
}

fn header(draft: &Draft, to: &str, content: &[u8]) -> PartHeader {
    PartHeader {
        message_id: draft.id().to_owned(),
        part: 0,
        length: content.len() as u64,
        sha256: sha256(content).to_vec().into(),
        audience: to.to_owned(),
    }
}

/// A blind draft that names one part.
fn with_part(content: &[u8]) -> Draft {
    let part = serde_json::json!([{"len": content.len(), "s256": b64(&sha256(content))}]);
    Draft::blind("caritas", "inps").with("parts", part)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_and_its_parts_are_for_its_audience_alone() -> Result<()> {
    // Held for longer than this takes on a busy machine.
    let names = ["caritas", "inps", "comune"];
    let (_network, [caritas, inps, comune]) = gateway_and(names, "delivery = { lease_s = 120 }").await?;
    let content = random::<600>();
    let draft = with_part(&content);
    put(&caritas.peer, header(&draft, "inps", &content), &content).await?;
    caritas.peer.submit(draft.signed(&caritas.pen)?).await?;

    let mut theirs = Receiving::open(&comune.peer, 10).await?;
    let mut ours = Receiving::open(&inps.peer, 10).await?;
    let delivered = ours.delivery().await?;
    ensure!(theirs.silent(SILENCE).await, "the comune received what is for inps");
    let ask = GetPartRequest { message_id: draft.id().to_owned(), part: 0, offset: 0 };
    let stolen = comune.peer.exchange().get_part(ask.clone()).await.err().context("the comune read a part for inps")?;
    ensure!(reason(&stolen) == "PART_UNKNOWN", "{stolen:?}");
    let mut part = inps.peer.exchange().get_part(ask).await?.into_inner();
    let mut read = Vec::new();
    while let Some(frame) = part.message().await? {
        read.extend_from_slice(&frame.data);
    }
    ensure!(read == content, "another part");

    let false_receipt = receipt("comune", &draft.origin, &draft.ciphertext);
    let answer = theirs.receipt(delivered.delivery.delivery_id, &false_receipt, &comune.pen).await?;
    ensure!(why(&answer) == "DELIVERY_UNKNOWN", "{answer:?}");
    ensure!(why(&theirs.noticed(delivered.delivery.delivery_id).await?) == "DELIVERY_UNKNOWN");
    // Putting off what is not one's own is no error and no effect: its recipient still has it, and settles it.
    theirs.later(delivered.delivery.delivery_id).await?;
    let settled = receipt("inps", &draft.origin, &draft.ciphertext);
    ensure!(why(&ours.receipt(delivered.delivery.delivery_id, &settled, &inps.pen).await?).is_empty());
    ensure!(ours.silent(SILENCE).await && theirs.silent(SILENCE).await, "it was delivered once more");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_true_receipt_settles_a_message() -> Result<()> {
    let (network, [caritas, inps, comune]) = gateway_and(["caritas", "inps", "comune"], "").await?;
    let (draft, other) = (Draft::blind("caritas", "inps"), Draft::blind("caritas", "inps"));
    caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
    let mut inbox = Receiving::open(&inps.peer, 10).await?;
    let id = inbox.delivery().await?.delivery.delivery_id;
    let right = || receipt("inps", &draft.origin, &draft.ciphertext);
    let wrong = [
        ("about another message", receipt("inps", &other.origin, &other.ciphertext)),
        ("another origin", right().with("org_s256", b64(&random::<32>()))),
        ("another ciphertext", right().with("ct_s256", b64(&random::<32>()))),
        ("another plaintext", right().with("ptc", b64(&random::<32>()))),
        ("to another sender", right().with("aud", "comune")),
    ];
    for (what, receipt) in wrong {
        let answer = inbox.receipt(id, &receipt, &inps.pen).await?;
        ensure!(why(&answer) == "RECEIPT_MISMATCH", "{what}: {answer:?}");
    }
    let answer = inbox.receipt(id, &right(), &comune.pen).await?;
    ensure!(["SIGNER_UNKNOWN", "ISSUER_MISMATCH"].contains(&why(&answer)), "by another member: {answer:?}");
    let answer = inbox.receipt(id, &right().with("extra", 1), &inps.pen).await?;
    ensure!(why(&answer) == "STATEMENT_MALFORMED", "{answer:?}");
    let mut news = Receiving::open(&caritas.peer, 10).await?;
    ensure!(news.silent(SILENCE).await, "a false receipt reached the sender");

    let receipt = right();
    ensure!(why(&inbox.receipt(id, &receipt, &inps.pen).await?).is_empty(), "a true receipt was refused");
    let noticed = news.notice().await?;
    ensure!(noticed.notice.message_id == draft.id());
    ensure!(noticed.receipt.context("a receipt")?.json == receipt.json(), "the receipt was changed on its way");
    let evidence = String::from_utf8(noticed.evidence.context("evidence")?.json.to_vec())?;
    ensure!(evidence.contains("ContentHandover") && evidence.contains(draft.id()), "{evidence}");
    ensure!(why(&news.noticed(noticed.notice.delivery_id).await?).is_empty());
    network.gateway.process.kill().await?;
    network.gateway.process.start().await?;
    let (caritas, inps) = (join(&network, "caritas").await?, join(&network, "inps").await?);
    let mut news = Receiving::open(&caritas.peer, 10).await?;
    let mut inbox = Receiving::open(&inps.peer, 10).await?;
    ensure!(news.silent(SILENCE).await && inbox.silent(SILENCE).await, "settled things came again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_exactly_what_was_announced_or_it_is_refused() -> Result<()> {
    let (_network, [caritas, _inps]) = gateway_and(["caritas", "inps"], "").await?;
    let content = random::<600>();
    let draft = with_part(&content);
    let early = caritas.peer.submit(draft.signed(&caritas.pen)?).await.err().context("accepted without its part")?;
    ensure!(reason(&early) == "PART_MISSING", "{early:?}");
    let mut changed = content;
    changed[300] ^= 1;
    let wrong = put(&caritas.peer, header(&draft, "inps", &content), &changed).await.err().context("a changed byte")?;
    ensure!(["PART_MISMATCH", "DIGEST_MISMATCH"].contains(&reason(&wrong)), "{wrong:?}");
    let short =
        put(&caritas.peer, header(&draft, "inps", &content), &content[..599]).await.err().context("too short")?;
    ensure!(reason(&short) == "PART_MISMATCH", "{short:?}");
    let long =
        put(&caritas.peer, header(&draft, "inps", &content), &random::<601>()).await.err().context("too long")?;
    ensure!(reason(&long) == "PART_MISMATCH", "{long:?}");
    let huge = PartHeader { length: 30 << 20, ..header(&draft, "inps", &content) };
    let huge = put(&caritas.peer, huge, &content).await.err().context("30 MiB announced")?;
    ensure!(["PAYLOAD_TOO_LARGE", "PART_MISMATCH"].contains(&reason(&huge)), "{huge:?}");
    let path = PartHeader { message_id: "../../key".into(), ..header(&draft, "inps", &content) };
    let path = put(&caritas.peer, path, &content).await.err().context("a path for an id")?;
    ensure!(reason(&path) == "FIELD_INVALID", "{path:?}");

    ensure!(put(&caritas.peer, header(&draft, "inps", &content), &content).await?, "not stored");
    ensure!(!put(&caritas.peer, header(&draft, "inps", &content), &content).await?, "stored twice");
    let other = put(&caritas.peer, header(&draft, "inps", &changed), &changed)
        .await
        .err()
        .context("another part in its place")?;
    ensure!(["PART_MISMATCH", "ID_REUSED"].contains(&reason(&other)), "{other:?}");
    // The origin names another digest than the part that is stored under its id.
    let liar = with_part(&changed).with("jti", draft.id()).with("case", draft.id());
    let liar = caritas.peer.submit(liar.signed(&caritas.pen)?).await.err().context("another part than stored")?;
    ensure!(["PART_MISMATCH", "PART_MISSING"].contains(&reason(&liar)), "{liar:?}");
    caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wrong_message_in_a_frame_harms_no_other() -> Result<()> {
    let (_network, [caritas, inps]) = gateway_and(["caritas", "inps"], "").await?;
    let drafts: Vec<Draft> = (0..3).map(|_| Draft::blind("caritas", "inps")).collect();
    let mut messages = drafts.iter().map(|draft| draft.signed(&caritas.pen)).collect::<Result<Vec<_>>>()?;
    messages[1].ciphertext = random::<528>().to_vec().into();
    let many = (0..65).map(|_| Draft::blind("caritas", "inps").signed(&caritas.pen)).collect::<Result<Vec<_>>>()?;
    let frames = [frame(messages), frame(Vec::new()), frame(many)];
    let mut answers = caritas.peer.exchange().submit(tokio_stream::iter(frames)).await?.into_inner();
    let answer = answers.message().await?.context("an answer")?;
    ensure!(answer.frame_id == 7 && answer.results.len() == 3, "{answer:?}");
    let refused: Vec<&str> = answer
        .results
        .iter()
        .map(|result| match &result.result {
            Some(Answer::Refused(refused)) => refused.reason.as_str(),
            _ => "",
        })
        .collect();
    ensure!(refused == ["", "CIPHERTEXT_MISMATCH", ""], "{refused:?}");
    // An empty frame or one over its bounds is the stream's fault, or its answer's: never accepted.
    match answers.message().await {
        Err(status) => ensure!(reason(&status) == "FRAME_INVALID", "{status:?}"),
        Ok(answer) => {
            let accepted = |answer: &Answer| matches!(answer, Answer::Accepted(_));
            let results = answer.map(|answer| answer.results).unwrap_or_default();
            ensure!(!results.iter().filter_map(|result| result.result.as_ref()).any(accepted), "{results:?}");
        }
    }
    let mut inbox = Receiving::open(&inps.peer, 10).await?;
    for draft in [&drafts[0], &drafts[2]] {
        ensure!(inbox.delivery().await?.origin.json == draft.origin.json(), "not in order");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_and_not_settled_comes_again_and_a_newer_stream_takes_over() -> Result<()> {
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], "").await?;
    let draft = Draft::blind("caritas", "inps");
    caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
    let mut first = Receiving::open(&inps.peer, 1).await?;
    let before = first.delivery().await?;
    let again = network.peer("inps").await?;
    let mut second = Receiving::open(&again, 10).await?;
    let ended = first.end(Duration::from_secs(20)).await?;
    ensure!(ended.code() == Code::Aborted && reason(&ended) == "SUPERSEDED", "{ended:?}");
    let after = second.delivery().await?;
    ensure!(after.delivery.delivery_id == before.delivery.delivery_id && after.origin == before.origin);
    ensure!(after.acceptance == before.acceptance && after.delivery.attempt > before.delivery.attempt, "{after:?}");
    // Nothing is said for longer than the lease of 3 s: the same again.
    let leased = second.delivery().await?;
    ensure!(leased.delivery.delivery_id == before.delivery.delivery_id, "{leased:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_holds_its_conversation_only_until_an_operator_redrives_it() -> Result<()> {
    let settings = "[delivery]\nattempts_max = 3\nretry_initial_ms = 20\nretry_max_ms = 50";
    let (network, [caritas, inps]) = gateway_and(["caritas", "inps"], settings).await?;
    let poison = Draft::blind("caritas", "inps");
    let behind = Draft::blind("caritas", "inps").with("cid", poison.origin.text("cid"));
    let beside = Draft::blind("caritas", "inps");
    for draft in [&poison, &behind, &beside] {
        caritas.peer.submit(draft.signed(&caritas.pen)?).await?;
    }
    let mut inbox = Receiving::open(&inps.peer, 10).await?;
    let (mut tries, mut came_beside) = (0, false);
    while tries < 3 || !came_beside {
        let delivered = inbox.delivery().await?;
        let id = delivered.delivery.delivery_id;
        if delivered.origin.json == poison.origin.json() {
            tries += 1;
            inbox.later(id).await?;
        } else {
            ensure!(delivered.origin.json == beside.origin.json(), "what is behind came before");
            settle(&mut inbox, &delivered, &beside, &inps).await?;
            came_beside = true;
        }
    }
    ensure!(inbox.silent(SILENCE).await, "a dead letter, or what it holds, was delivered");
    let mut news = Receiving::open(&caritas.peer, 10).await?;
    let told = [news.notice().await?, news.notice().await?];
    ensure!(told.iter().any(|one| one.notice.message_id == poison.id()), "the sender was not told: {told:?}");

    let operator = RawPeer::connect(&network.address(), Some(&network.pki.badge(OPERATOR)?)).await?;
    let request = ListDeadLettersRequest { institution: "inps".into(), ..ListDeadLettersRequest::default() };
    let dead = operator.operations().list_dead_letters(request).await?.into_inner().messages;
    ensure!(dead.len() == 1 && dead[0].message_id == poison.id(), "{dead:?}");
    let request = GetMessageRequest { message_id: poison.id().to_owned() };
    let history = operator.operations().get_message(request).await?.into_inner();
    ensure!(history.attempts.len() == 3 && history.state == "DEAD_LETTERED", "{history:?}");
    let redrive = RedriveRequest { message_id: poison.id().to_owned(), reason: "the recipient was mended".into() };
    operator.operations().redrive(redrive).await?;
    for draft in [&poison, &behind] {
        let delivered = inbox.delivery().await?;
        ensure!(delivered.origin.json == draft.origin.json(), "not in order after redrive");
        settle(&mut inbox, &delivered, draft, &inps).await?;
    }
    Ok(())
}

async fn settle(inbox: &mut Receiving, delivered: &Delivered, draft: &Draft, inps: &Player) -> Result<()> {
    let receipt = receipt("inps", &draft.origin, &draft.ciphertext);
    let answer = inbox.receipt(delivered.delivery.delivery_id, &receipt, &inps.pen).await?;
    ensure!(why(&answer).is_empty(), "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_moves_a_case_of_others() -> Result<()> {
    let (_network, [caritas, inps, comune]) = gateway_and(["caritas", "inps", "comune"], "").await?;
    let case = Draft::blind("caritas", "inps");
    caritas.peer.submit(case.signed(&caritas.pen)?).await?;
    let update = |from: &str, to: &str, status: &str| {
        let draft = Draft::blind(from, to).with("mt", "tramite.body.v1.ReferralUpdate").with("cs", status);
        draft.with("case", case.id()).with("cid", case.origin.text("cid")).with("ref", case.id())
    };
    let answer = async |player: &Player, draft: Draft| {
        Ok::<_, anyhow::Error>(
            player.peer.submit(draft.signed(&player.pen)?).await.err().map_or("", |status| reason(&status)),
        )
    };
    ensure!(answer(&comune, update("comune", "inps", "accepted")).await? == "CASE_NOT_PARTY");
    ensure!(answer(&comune, update("comune", "caritas", "accepted")).await? == "CASE_NOT_PARTY");
    ensure!(answer(&inps, update("inps", "comune", "accepted")).await? == "CASE_NOT_PARTY");
    ensure!(answer(&caritas, update("caritas", "inps", "accepted")).await? == "CASE_TRANSITION_INVALID");
    ensure!(answer(&inps, update("inps", "caritas", "completed")).await? == "CASE_TRANSITION_INVALID");
    let opened_again = Draft::blind("caritas", "inps").with("case", case.id());
    ensure!(["CASE_EXISTS", "CASE_MISMATCH", "STATEMENT_MALFORMED"].contains(&answer(&caritas, opened_again).await?));
    ensure!(answer(&inps, update("inps", "caritas", "accepted")).await?.is_empty());
    ensure!(answer(&inps, update("inps", "caritas", "accepted")).await? == "CASE_TRANSITION_INVALID");
    Ok(())
}
