//! The path of a message between two institutions: out, opened, answered, receipted.
//!
//! Each promise has a network of its own, of real processes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tonic::Code;
use tramite_proto::pb::{
    backoffice::v1::{
        ProvideDocumentsRequest, RequestDocumentsRequest, SendReferralRequest, SendResponse, inbox_item::Kind,
    },
    body::v1::body,
};
use tramite_tests::{
    attack::reason,
    clerk::{Clerk, Seen},
    desk::{Desk, insist},
    forge::sha256,
    load,
    network::{Network, PATIENCE},
    sample,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_referral_goes_out_and_its_receipt_comes_back() -> Result<()> {
    let network = Network::of_two().await?;
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    let (news, work) = (Clerk::reads(&caritas), Clerk::reads(&inps));
    let sent = insist(PATIENCE, || caritas.refer("inps", "r-1", "sleeps at the station")).await?;
    ensure!(sent.case_id == sent.message_id && !sent.repeated, "{sent:?}");
    work.until("the referral", PATIENCE, |seen| seen.situations() == ["sleeps at the station"])
        .await
        .with_context(|| network.logs())?;
    news.until("its receipt", PATIENCE, |seen| seen.notices_of("OPENED") == 1).await.with_context(|| network.logs())?;
    let notice = news.seen().notices().next().cloned().context("a notice")?;
    ensure!(notice.message_id == sent.message_id && notice.to == "inps", "{notice:?}");
    let message = work.seen().messages().next().cloned().context("a message")?;
    ensure!(message.message_id == sent.message_id && message.from == "caritas", "{message:?}");
    ensure!(message.purpose == "RIGHTS_SCREENING" && message.legal_basis == "GDPR-6-1-E", "{message:?}");
    let case = caritas.case(&sent.case_id).await?;
    ensure!(case.opener == "caritas" && case.responder == "inps" && case.status == "requested", "{case:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_several_mib_come_back_intact() -> Result<()> {
    let network = Network::of_two().await?;
    let (asks, holds) = (network.desk("inps")?, network.desk("caritas")?);
    let files = [sample::bytes(6 * 1024 * 1024 + 17, 1), sample::bytes(1, 2), sample::bytes(65_536, 3)];
    let provided = files.clone();
    let work = Clerk::works(&holds, move |desk, item| {
        let files = provided.clone();
        async move {
            let Some(Kind::Message(message)) = item.kind else { return Ok(()) };
            let mut attached = Vec::new();
            for (number, file) in files.iter().enumerate() {
                let name = format!("family-{number}.pdf");
                attached.push(insist(PATIENCE, || desk.attach(&name, file)).await?.attachment_id);
            }
            let request = ProvideDocumentsRequest {
                sending: Some(sample::sending("provide-1", &attached)),
                case_id: message.case_id,
                response: Some(sample::document_response(3)),
            };
            insist(PATIENCE, || {
                let (mut client, request) = (desk.client(), request.clone());
                async move { client.provide_documents(request).await }
            })
            .await?;
            Ok(())
        }
    });
    let request = RequestDocumentsRequest {
        sending: Some(sample::sending("ask-1", &[])),
        to: "caritas".into(),
        request: Some(sample::document_request()),
        conversation_id: String::new(),
    };
    insist(PATIENCE, || {
        let (mut client, request) = (asks.client(), request.clone());
        async move { client.request_documents(request).await }
    })
    .await?;
    let expected = files.map(|file| sha256(&file).to_vec());
    let news = Clerk::works(&asks, move |desk, item| {
        let expected = expected.clone();
        async move {
            let Some(Kind::Message(message)) = item.kind else { return Ok(()) };
            let body = message.body.context("a body")?;
            ensure!(matches!(body.kind, Some(body::Kind::DocumentResponse(_))), "another body");
            ensure!(body.attachments.len() == expected.len(), "{} attachments", body.attachments.len());
            for (index, hash) in (0..).zip(&expected) {
                let content = desk.attachment(&message.message_id, index).await?;
                ensure!(sha256(&content)[..] == hash[..], "attachment {index} of {} bytes is another", content.len());
            }
            Ok(())
        }
    });
    let all = |seen: &Seen| seen.messages().count() == 1 && seen.notices_of("OPENED") == 1;
    let told = news.until("the documents and a receipt", PATIENCE, all).await;
    told.with_context(|| format!("the holder failed: {:?}\n{}", work.seen().failed, network.logs()))?;
    work.until("a receipt", PATIENCE, |seen| seen.notices_of("OPENED") == 1).await.with_context(|| network.logs())?;
    news.until("the acknowledgement", PATIENCE, |seen| seen.acknowledged() == 2).await?;
    ensure!(
        news.seen().failed.is_empty() && work.seen().failed.is_empty(),
        "{:?} {:?}",
        news.seen().failed,
        work.seen().failed
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_id_makes_one_referral_and_takes_no_other_content() -> Result<()> {
    let network = Network::of_two().await?;
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    let work = Clerk::reads(&inps);
    let calls = (0..20).map(|_| {
        let desk = caritas.clone();
        tokio::spawn(async move { insist(PATIENCE, || desk.refer("inps", "same", "one situation")).await })
    });
    let mut answers = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        answers.push(call.await??);
    }
    ensure!(answers.iter().all(|answer| answer.message_id == answers[0].message_id), "{answers:?}");
    ensure!(answers.iter().filter(|answer| !answer.repeated).count() == 1, "{answers:?}");
    let other = caritas.refer("inps", "same", "another situation").await;
    let status = other.err().context("another content under the same request id was taken")?;
    ensure!(status.code() == Code::AlreadyExists && reason(&status) == "REQUEST_ID_REUSED", "{status:?}");
    // What comes behind it in its conversation shows that nothing else was between.
    let next = SendReferralRequest {
        sending: Some(sample::sending("next", &[])),
        to: "inps".into(),
        referral: Some(sample::referral("the next")),
        conversation_id: answers[0].conversation_id.clone(),
    };
    insist(PATIENCE, || caritas.send_referral(next.clone())).await?;
    work.until("both", PATIENCE, |seen| seen.situations().contains(&"the next".to_owned())).await?;
    ensure!(work.seen().situations() == ["one situation", "the next"], "{:?}", work.seen().situations());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_while_gateway_and_recipient_are_away_arrives_when_they_are_back() -> Result<()> {
    let network = Network::of_two().await?;
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    // Once the recipient's key is known, nobody else is needed for sending.
    refer(&caritas, 5).await?;
    network.gateway.process.kill().await?;
    network.adapter("inps")?.process.kill().await?;
    for number in 0..5 {
        refer(&caritas, number).await?;
    }
    network.adapter("caritas")?.process.kill().await?;
    network.adapter("caritas")?.process.start().await?;
    network.gateway.process.start().await?;
    network.adapter("inps")?.process.start().await?;
    let (news, work) = (Clerk::reads(&caritas), Clerk::reads(&inps));
    work.until("all six", PATIENCE, |seen| seen.situations().len() == 6).await.with_context(|| network.logs())?;
    news.until("all receipts", PATIENCE, |seen| seen.notices_of("OPENED") == 6).await.with_context(|| network.logs())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_back_office_acknowledged_is_never_shown_again_and_what_it_did_not_is() -> Result<()> {
    let network = Network::of_two().await?;
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    for number in 0..2 {
        refer(&caritas, number).await?;
    }
    let first = loop {
        let items = insist(PATIENCE, || inps.waiting()).await?;
        if items.len() == 2 {
            break items;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ensure!(inps.acknowledge(&[first[0].item_id.clone()]).await? == 1);
    ensure!(inps.acknowledge(&[first[0].item_id.clone()]).await? == 0, "acknowledged twice");
    for restart in 0..2 {
        let items = insist(PATIENCE, || inps.waiting()).await?;
        ensure!(items.len() == 1 && items[0].item_id == first[1].item_id, "restart {restart}: {items:?}");
        network.adapter("inps")?.process.kill().await?;
        network.adapter("inps")?.process.start().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_nobody_fetches_expires_and_its_sender_is_told() -> Result<()> {
    let network = Network::of_two().await?;
    let caritas = network.desk("caritas")?;
    network.adapter("inps")?.process.terminate(PATIENCE).await?;
    let mut sending = sample::sending("r-1", &[]);
    sending.expires_in_s = 3;
    let request = SendReferralRequest {
        sending: Some(sending),
        to: "inps".into(),
        referral: Some(sample::referral("too late")),
        conversation_id: String::new(),
    };
    let sent = caritas.client().send_referral(request).await?.into_inner();
    let news = Clerk::reads(&caritas);
    let told = |seen: &Seen| seen.notices_of("EXPIRED") + seen.notices_of("CASE_EXPIRED") > 0;
    news.until("that it expired", PATIENCE, told).await.with_context(|| network.logs())?;
    ensure!(news.seen().notices().all(|notice| notice.message_id == sent.message_id), "{:?}", news.seen().items);
    network.adapter("inps")?.process.start().await?;
    network.desk("inps")?.connected(PATIENCE).await?;
    ensure!(network.desk("inps")?.waiting().await?.is_empty(), "an expired message was delivered");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_case_moves_only_as_its_table_says() -> Result<()> {
    let network = Network::of_two().await?;
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    let work = Clerk::reads(&inps);
    let sent = insist(PATIENCE, || caritas.refer("inps", "r-1", "a case")).await?;
    work.until("the referral", PATIENCE, |seen| seen.situations().len() == 1).await.with_context(|| network.logs())?;
    let wrong =
        inps.move_referral(&sent.case_id, "u-1", "in_progress").await.err().context("begun before it was accepted")?;
    ensure!(reason(&wrong) == "CASE_TRANSITION_INVALID", "{wrong:?}");
    let wrong =
        caritas.move_referral(&sent.case_id, "u-1", "accepted").await.err().context("accepted by its sender")?;
    ensure!(reason(&wrong) == "CASE_TRANSITION_INVALID", "{wrong:?}");
    inps.move_referral(&sent.case_id, "u-2", "accepted").await?;
    let news = Clerk::reads(&caritas);
    news.until("the answer", PATIENCE, |seen| seen.messages().count() == 1).await.with_context(|| network.logs())?;
    ensure!(caritas.case(&sent.case_id).await?.status == "accepted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_asked_to_end_under_load_ends_in_order_and_loses_nothing() -> Result<()> {
    let network = Network::of_two().await?;
    let restart = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let status = network.gateway.process.terminate(Duration::from_secs(30)).await?;
            ensure!(status.success(), "asked to end, it ended with {status}");
            network.gateway.process.start().await?;
        }
        Ok(())
    };
    load::survives(&network, 12, restart).await
}

/// Refers to inps, under a request id and a situation of that number.
async fn refer(desk: &Desk, number: usize) -> Result<SendResponse> {
    let (request_id, situation) = (format!("r-{number}"), format!("situation {number}"));
    insist(PATIENCE, || desk.refer("inps", &request_id, &situation)).await
}
