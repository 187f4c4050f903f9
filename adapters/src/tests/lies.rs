//! A gateway that lies: each lie is refused with its reason and counted, and the truth still gets through.

use tramite_proto::{
    ids::Digest,
    pb::{
        backoffice::v1::{self as pb, inbox_item::Kind},
        exchange::v1::settlement::Outcome,
        statement::v1::{SealedMessage, Statement},
    },
    reason::Reason,
    statement::{Event, Evidence, Receipt},
};

use super::{
    delivery::{next_item, origin_of, pair, put, waiting},
    network::{Network, referral, until},
    stand_in::{self, Answer, StandIn},
};

/// Delivers to INPS and gives the reason for which it was put off. Nothing is signed: the issuer did no wrong.
async fn put_off(gateway: &mut StandIn, message: &SealedMessage, acceptance: Option<&Statement>) -> String {
    gateway.send("inps", stand_in::delivery(9, message, acceptance)).await;
    match gateway.settlement("inps").await.1 {
        Outcome::Retry(later) => later.reason,
        outcome => panic!("not put off: {outcome:?}"),
    }
}

/// Delivers to INPS and gives its receipt.
async fn receipt(gateway: &mut StandIn, message: &SealedMessage, acceptance: &Statement) -> Receipt {
    gateway.send("inps", stand_in::delivery(10, message, Some(acceptance))).await;
    let (receipt, outcome) = gateway.settlement("inps").await;
    Receipt::parse(&receipt.unwrap_or_else(|| panic!("no receipt: {outcome:?}")).json).expect("a receipt")
}

#[tokio::test]
async fn a_delivery_that_was_tampered_with_is_put_off_and_the_true_one_is_still_taken() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    for n in 0..6 {
        caritas.office.send_referral(referral(&format!("r-{n}"), "inps")).await.expect("sent");
        gateway.message(n).await;
    }
    let mut messages = Vec::new();
    for n in 0..6 {
        messages.push(gateway.message(n).await);
    }
    let truth = |n: usize| gateway.state.acceptance(&messages[n]);
    let accepted: Vec<Statement> = (0..6).map(truth).collect();

    // Another member signs in the issuer's name.
    let mut forged = messages[0].clone();
    let json = forged.origin.as_ref().expect("an origin").json.clone();
    forged.origin = Some(gateway.state.sign(&gateway.state.member, json));
    assert_eq!(put_off(&mut gateway, &forged, Some(&accepted[0])).await, "ISSUER_MISMATCH");
    // A changed byte in the ciphertext, another message's enc.
    let mut changed = messages[1].clone();
    let mut bytes = changed.ciphertext.to_vec();
    bytes[100] ^= 1;
    changed.ciphertext = bytes.into();
    assert_eq!(put_off(&mut gateway, &changed, Some(&accepted[1])).await, "CIPHERTEXT_MISMATCH");
    let mut changed = messages[2].clone();
    changed.enc = messages[1].enc.clone();
    assert_eq!(put_off(&mut gateway, &changed, Some(&accepted[2])).await, "ENC_MISMATCH");
    // No acceptance, another message's, one that a member signed.
    assert_eq!(put_off(&mut gateway, &messages[3], None).await, "EVIDENCE_INVALID");
    let reason = put_off(&mut gateway, &messages[4], Some(&accepted[3])).await;
    assert!(reason.starts_with("EVIDENCE_"), "{reason}");
    let (origin, json) = origin_of(&messages[5]);
    let evidence = gateway.state.evidence(Event::SubmissionAcceptance, &origin, &json);
    let by_member = gateway.state.sign(&gateway.state.member, evidence.to_json());
    let reason = put_off(&mut gateway, &messages[5], Some(&by_member)).await;
    assert!(["ISSUER_MISMATCH", "SIGNER_UNKNOWN"].contains(&reason.as_str()), "{reason}");
    assert!(waiting(&mut inps.office).await.is_empty(), "the back office sees none of it");

    // None of it was remembered: each message as its issuer sent it is opened.
    for (message, acceptance) in messages.iter().zip(&accepted) {
        assert!(receipt(&mut gateway, message, acceptance).await.opened);
    }
    assert_eq!(waiting(&mut inps.office).await.len(), 6);
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn an_acceptance_that_does_not_check_settles_nothing() {
    let network = Network::new();
    let (gateway, mut caritas, inps) = pair(&network).await;
    for (n, lie) in [Answer::AcceptAnother, Answer::AcceptByMember].into_iter().enumerate() {
        gateway.answer(lie);
        let sent = caritas.office.send_referral(referral(&format!("r-{n}"), "inps")).await.expect("sent").into_inner();
        until(async || {
            let get = pb::GetCaseRequest { case_id: sent.case_id.clone() };
            let case = caritas.office.get_case(get).await.expect("a case").into_inner();
            case.timeline.iter().any(|entry| entry.event == "ATTEMPT_FAILED").then_some(())
        })
        .await;
    }
    // What it could not be made to believe it sends again, until it is told the truth.
    gateway.answer(Answer::Accept);
    network.clock.advance(120_000);
    until(async || {
        let status = caritas.office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner();
        (status.outbox == 0).then_some(())
    })
    .await;
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_refusal_for_good_is_told_to_the_back_office_and_takes_the_case_back() {
    let network = Network::new();
    let (gateway, mut caritas, inps) = pair(&network).await;
    gateway.answer(Answer::Refuse(Reason::PolicyDenied));
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    let item = next_item(&mut caritas.office).await;
    let Some(Kind::Notice(notice)) = &item.kind else { panic!("not a notice: {item:?}") };
    assert_eq!((notice.kind.as_str(), notice.reason.as_str()), ("REFUSED", "POLICY_DENIED"));
    let case =
        caritas.office.get_case(pb::GetCaseRequest { case_id: sent.case_id }).await.expect("a case").into_inner();
    assert_eq!(case.status, "entered_in_error");
    let events: Vec<&str> = case.timeline.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["SENT", "REFUSED"]);
    caritas.office.acknowledge(pb::AcknowledgeRequest { item_ids: vec![item.item_id] }).await.expect("acknowledged");
    assert!(waiting(&mut caritas.office).await.is_empty());
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_forged_receipt_is_no_news() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    let message = gateway.message(0).await;
    let (origin, json) = origin_of(&message);
    let receipt = Receipt {
        jti: origin.jti,
        iss: origin.aud.clone(),
        aud: origin.iss.clone(),
        mid: origin.jti,
        org_s256: Digest::of(&json),
        ct_s256: origin.ct.s256,
        ptc: origin.ptc,
        at: origin.iat,
        opened: true,
        rsn: None,
        sj: Vec::new(),
        lcp: None,
    };
    // The recipient's word in another member's hand.
    let forged = gateway.state.sign(&gateway.state.member, receipt.to_json());
    let handover = Evidence {
        rcp_s256: Some(Digest::of(&forged.json)),
        ..gateway.state.evidence(Event::ContentHandover, &origin, &json)
    };
    let handover = gateway.state.sign(&gateway.state.gateway, handover.to_json());
    gateway.send("caritas", stand_in::notice(1, &sent.message_id, &handover, Some(&forged))).await;
    assert!(matches!(gateway.settlement("caritas").await.1, Outcome::Retry(_)));
    // Opened, says the gateway, and shows no receipt at all.
    gateway.send("caritas", stand_in::notice(1, &sent.message_id, &handover, None)).await;
    assert!(matches!(gateway.settlement("caritas").await.1, Outcome::Retry(_)));
    assert!(waiting(&mut caritas.office).await.is_empty());
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_key_that_a_member_did_not_publish_is_never_sealed_to() {
    let network = Network::new();
    let gateway = StandIn::start(&network).await;
    let comune = network.start("inps", gateway.port()).await;
    let key = until(async || {
        let mut keys = gateway.state.keys.lock().expect("lock");
        // Its record, under another member's name.
        let key = keys.remove("inps").and_then(|keys| keys.first().cloned())?;
        keys.insert("comune".into(), vec![key.clone()]);
        Some(key)
    })
    .await;
    assert!(!key.json.is_empty());
    let mut caritas = network.start("caritas", gateway.port()).await;
    let refused = caritas.office.send_referral(referral("r-1", "comune")).await.expect_err("no key of its own");
    assert_eq!(super::network::reason(&refused), "DIRECTORY_UNAVAILABLE");
    let refused = caritas.office.send_referral(referral("r-1", "nobody")).await.expect_err("no such institution");
    assert_eq!(super::network::reason(&refused), "UNKNOWN_RECIPIENT");
    caritas.stop().await;
    comune.stop().await;
}

#[tokio::test]
async fn a_frame_as_long_as_the_contract_allows_does_not_end_the_stream() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent");
    let message = gateway.message(0).await;
    let acceptance = gateway.state.acceptance(&message);
    let long = SealedMessage { ciphertext: vec![7; 7 << 20].into(), ..message.clone() };
    assert_eq!(put_off(&mut gateway, &long, Some(&acceptance)).await, "CIPHERTEXT_MISMATCH");
    assert!(receipt(&mut gateway, &message, &acceptance).await.opened);
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_directory_without_a_list_keeps_nobody_from_being_introduced() {
    let network = Network::new();
    let gateway = StandIn::start(&network).await;
    gateway.state.no_list.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut inps = network.start("inps", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    until(async || {
        let status = inps.office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner();
        status.connected.then_some(())
    })
    .await;
    inps.stop().await;
}

#[tokio::test]
async fn a_damaged_part_is_put_off_and_the_true_one_is_still_taken() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    let stored = put(&mut caritas.office, &[7; 200_000]).await;
    let mut request = referral("r-1", "inps");
    request.sending.as_mut().expect("sending").attachments = vec![stored.attachment_id];
    let sent = caritas.office.send_referral(request).await.expect("sent").into_inner();
    let message = gateway.message(0).await;
    let acceptance = gateway.state.acceptance(&message);
    let damage = |gateway: &StandIn| {
        let mut parts = gateway.state.parts.lock().expect("lock");
        parts.get_mut(&(sent.message_id.clone(), 0)).expect("a part")[100] ^= 1;
    };
    damage(&gateway);
    assert_eq!(put_off(&mut gateway, &message, Some(&acceptance)).await, "PART_MISMATCH");
    damage(&gateway);
    assert!(receipt(&mut gateway, &message, &acceptance).await.opened);
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_message_whose_case_has_not_come_yet_is_put_off() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    let first = gateway.message(0).await;
    let update = pb::UpdateReferralRequest {
        sending: Some(super::network::sending("u-1")),
        case_id: sent.case_id,
        update: Some(tramite_proto::pb::body::v1::ReferralUpdate {
            status: "entered_in_error".into(),
            reason: "NOT_ELIGIBLE".into(),
            ..Default::default()
        }),
    };
    caritas.office.update_referral(update).await.expect("withdrawn");
    let second = gateway.message(1).await;
    let (opens, moves) = (gateway.state.acceptance(&first), gateway.state.acceptance(&second));
    assert_eq!(put_off(&mut gateway, &second, Some(&moves)).await, "CASE_UNKNOWN");
    assert!(receipt(&mut gateway, &first, &opens).await.opened);
    assert!(receipt(&mut gateway, &second, &moves).await.opened);
    assert_eq!(waiting(&mut inps.office).await.len(), 2);
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn what_never_was_opened_takes_the_senders_case_back() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    let message = gateway.message(0).await;
    let acceptance = gateway.state.acceptance(&message);
    assert!(receipt(&mut gateway, &message, &acceptance).await.opened);
    let get = pb::GetCaseRequest { case_id: sent.case_id.clone() };
    let before = inps.office.get_case(get.clone()).await.expect("a case").into_inner().status;
    let update = pb::UpdateReferralRequest {
        sending: Some(super::network::sending("u-1")),
        case_id: sent.case_id.clone(),
        update: Some(tramite_proto::pb::body::v1::ReferralUpdate { status: "accepted".into(), ..Default::default() }),
    };
    let updated = inps.office.update_referral(update).await.expect("accepted").into_inner();
    let (origin, json) = origin_of(&gateway.message(1).await);
    let expired = Evidence {
        rsn: Some(Reason::TtlExpired.as_str().to_owned()),
        ..gateway.state.evidence(Event::ContentConsignmentFailure, &origin, &json)
    };
    let expired = gateway.state.sign(&gateway.state.gateway, expired.to_json());
    gateway.send("inps", stand_in::notice(1, &updated.message_id, &expired, None)).await;
    assert!(matches!(gateway.settlement("inps").await.1, Outcome::Notice(_)));
    assert_eq!(inps.office.get_case(get.clone()).await.expect("a case").into_inner().status, before);
    // And a discarded message that opened a case.
    let (origin, json) = origin_of(&message);
    let discarded = Evidence {
        rsn: Some(Reason::Discarded.as_str().to_owned()),
        ..gateway.state.evidence(Event::ContentHandoverFailure, &origin, &json)
    };
    let discarded = gateway.state.sign(&gateway.state.gateway, discarded.to_json());
    gateway.send("caritas", stand_in::notice(2, &sent.message_id, &discarded, None)).await;
    assert!(matches!(gateway.settlement("caritas").await.1, Outcome::Notice(_)));
    assert_eq!(caritas.office.get_case(get).await.expect("a case").into_inner().status, "entered_in_error");
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn an_inbox_that_is_full_puts_off_what_comes_until_there_is_room() {
    let network = Network::new();
    let mut gateway = StandIn::start(&network).await;
    let mut config = network.config("inps", gateway.port());
    config.store.inbox_mib = 0;
    let inps = network.start_with(config).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    let mut caritas = network.start("caritas", gateway.port()).await;
    caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent");
    let message = gateway.message(0).await;
    let acceptance = gateway.state.acceptance(&message);
    assert_eq!(put_off(&mut gateway, &message, Some(&acceptance)).await, "QUOTA_EXCEEDED");
    inps.stop().await;
    let inps = network.start("inps", gateway.port()).await;
    assert!(receipt(&mut gateway, &message, &acceptance).await.opened, "and once there is room it is taken");
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_deadline_of_a_case_that_never_came_here_is_news_for_its_recipient_alone() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    let (origin, json) = origin_of(&gateway.message(0).await);
    let told_of = async |gateway: &mut StandIn, to: &str| {
        let passed = Evidence {
            to: to.parse().expect("a name"),
            rsn: Some(Reason::CaseExpired.as_str().to_owned()),
            ..gateway.state.evidence(Event::AcceptanceRejectionExpiry, &origin, &json)
        };
        let passed = gateway.state.sign(&gateway.state.gateway, passed.to_json());
        gateway.send("inps", stand_in::notice(1, &sent.message_id, &passed, None)).await;
        gateway.settlement("inps").await.1
    };
    let Outcome::Retry(doubted) = told_of(&mut gateway, "comune-bologna").await else { panic!("taken") };
    assert_eq!(doubted.reason, "UNKNOWN_MESSAGE");
    assert!(matches!(told_of(&mut gateway, "inps").await, Outcome::Notice(_)));
    caritas.stop().await;
    inps.stop().await;
}
