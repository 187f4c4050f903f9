//! A case stands where the messages that count have brought it: what ended unopened counts for nothing, in whatever order it is told.

use tramite_proto::{
    ids::Digest,
    pb::{
        backoffice::v1 as pb,
        body::v1::ReferralUpdate,
        exchange::v1::settlement::Outcome,
        journal::v1::Recorded,
        statement::v1::{SealedMessage, Statement},
    },
    reason::Reason,
    statement::{Event, Evidence},
};
use tramite_store::Change;

use super::{
    delivery::{origin_of, pair, waiting},
    network::{Institution, Network, Office, referral, sending, until},
    stand_in::{self, Answer, StandIn},
};

/// Longer than an id is remembered after its message has expired.
const FORGOTTEN_MS: i64 = 40 * 86_400_000;
/// Nobody listens there.
const NOWHERE: u16 = 1;

async fn moves(office: &mut Office, case_id: &str, status: &str, expires_in_s: u64) -> String {
    let reason = if status == "cancelled" { "PERSON_DECLINED" } else { "" };
    let outcome = if status == "completed" { "SERVICE_PROVIDED" } else { "" };
    let request = pb::UpdateReferralRequest {
        sending: Some(pb::Sending { expires_in_s, ..sending(status) }),
        case_id: case_id.to_owned(),
        update: Some(ReferralUpdate {
            status: status.to_owned(),
            reason: reason.to_owned(),
            outcome: outcome.to_owned(),
            ..ReferralUpdate::default()
        }),
    };
    office.update_referral(request).await.expect("a move that the case permits").into_inner().message_id
}

/// Sends a referral that lives a minute; gives its case.
async fn fleeting(caritas: &mut Institution, request_id: &str) -> String {
    let mut request = referral(request_id, "inps");
    request.sending.as_mut().expect("sending").expires_in_s = 60;
    caritas.office.send_referral(request).await.expect("sent").into_inner().case_id
}

async fn case(office: &mut Office, case_id: &str) -> pb::Case {
    let get = pb::GetCaseRequest { case_id: case_id.to_owned() };
    office.get_case(get).await.expect("a case").into_inner()
}

async fn stands(office: &mut Office, case_id: &str) -> String {
    case(office, case_id).await.status
}

/// How often something of that name has happened.
async fn happened(office: &mut Office, case_id: &str, event: &str) -> usize {
    case(office, case_id).await.timeline.iter().filter(|entry| entry.event == event).count()
}

/// Delivers the n-th message that was submitted; gives its receipt.
async fn deliver(gateway: &mut StandIn, to: &str, n: usize) -> (SealedMessage, Statement) {
    let message = gateway.message(n).await;
    let acceptance = gateway.state.acceptance(&message);
    let place = gateway.state.place(&origin_of(&message).1);
    gateway.send(to, stand_in::delivery(place, &message, Some(&acceptance))).await;
    let receipt = gateway.settlement(to).await.0.expect("a receipt");
    (message, receipt)
}

/// Tells of a message; `receipt` when its recipient has signed one.
async fn tell(gateway: &mut StandIn, to: &str, message: &SealedMessage, event: Event, receipt: Option<&Statement>) {
    let (origin, json) = origin_of(message);
    let reason = if event == Event::AcceptanceRejectionExpiry { Reason::CaseExpired } else { Reason::TtlExpired };
    let evidence = Evidence {
        rsn: receipt.is_none().then(|| reason.as_str().to_owned()),
        rcp_s256: receipt.map(|receipt| Digest::of(&receipt.json)),
        ..gateway.state.evidence(event, &origin, &json)
    };
    let evidence = gateway.state.sign(&gateway.state.gateway, evidence.to_json());
    // A deadline passes before anything else comes.
    let place = gateway.state.place(&json) + if event == Event::AcceptanceRejectionExpiry { 5 } else { 0 };
    gateway.send(to, stand_in::notice_at(place, 1, &origin.jti.to_string(), &evidence, receipt)).await;
    assert!(matches!(gateway.settlement(to).await.1, Outcome::Notice(_)));
}

/// A referral that both have, on its way to `completed`, which waits to be delivered as the returned number.
async fn completed(gateway: &mut StandIn, caritas: &mut Institution, inps: &mut Institution) -> (String, usize) {
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    deliver(gateway, "inps", 0).await;
    for (n, status) in [(1, "accepted"), (2, "in_progress")] {
        moves(&mut inps.office, &sent.case_id, status, 0).await;
        deliver(gateway, "caritas", n).await;
    }
    moves(&mut inps.office, &sent.case_id, "completed", 0).await;
    gateway.message(3).await;
    (sent.case_id, 3)
}

#[tokio::test]
async fn a_move_that_crossed_one_of_ours_counts_when_ours_is_refused() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let (case_id, last) = completed(&mut gateway, &mut caritas, &mut inps).await;
    gateway.answer(Answer::Refuse(Reason::RateLimited));
    moves(&mut caritas.office, &case_id, "cancelled", 0).await;
    until(async || (happened(&mut caritas.office, &case_id, "ATTEMPT_FAILED").await > 0).then_some(())).await;
    deliver(&mut gateway, "caritas", last).await;
    assert_eq!(stands(&mut caritas.office, &case_id).await, "completed", "the gateway has it, and ours not yet");
    gateway.answer(Answer::Refuse(Reason::CaseTransitionInvalid));
    network.clock.advance(120_000);
    until(async || (happened(&mut caritas.office, &case_id, "REFUSED").await > 0).then_some(())).await;
    assert_eq!(stands(&mut caritas.office, &case_id).await, "completed");
    gateway.answer(Answer::Accept);
    moves(&mut caritas.office, &case_id, "closed", 0).await;
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_deadline_that_crossed_a_move_of_ours_counts_when_ours_is_refused() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    let (opening, _) = deliver(&mut gateway, "inps", 0).await;
    gateway.answer(Answer::Refuse(Reason::RateLimited));
    moves(&mut inps.office, &sent.case_id, "accepted", 0).await;
    until(async || (happened(&mut inps.office, &sent.case_id, "ATTEMPT_FAILED").await > 0).then_some(())).await;
    tell(&mut gateway, "inps", &opening, Event::AcceptanceRejectionExpiry, None).await;
    assert_eq!(stands(&mut inps.office, &sent.case_id).await, "expired", "the gateway has it, and ours not yet");
    gateway.answer(Answer::Refuse(Reason::CaseTransitionInvalid));
    network.clock.advance(120_000);
    until(async || (happened(&mut inps.office, &sent.case_id, "REFUSED").await > 0).then_some(())).await;
    assert_eq!(stands(&mut inps.office, &sent.case_id).await, "expired");
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_referral_that_was_withdrawn_and_of_which_nobody_heard_does_not_rise_again() {
    let network = Network::new();
    let (gateway, mut caritas, inps) = pair(&network).await;
    caritas.knows("inps").await;
    caritas.stop().await;
    inps.stop().await;
    drop(gateway);
    let mut caritas = network.start("caritas", NOWHERE).await;
    let mut request = referral("r-1", "inps");
    request.sending.as_mut().expect("sending").expires_in_s = 60;
    let case_id = caritas.office.send_referral(request).await.expect("kept").into_inner().case_id;
    moves(&mut caritas.office, &case_id, "cancelled", 120).await;
    for ended in 1..=2 {
        network.clock.advance(61_000);
        until(async || (happened(&mut caritas.office, &case_id, "EXPIRED").await == ended).then_some(())).await;
        assert_eq!(stands(&mut caritas.office, &case_id).await, "entered_in_error");
    }
    caritas.stop().await;
}

#[tokio::test]
async fn two_moves_that_expire_at_once_take_the_case_back_before_both() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    deliver(&mut gateway, "inps", 0).await;
    gateway.answer(Answer::Refuse(Reason::RateLimited));
    for status in ["received", "accepted"] {
        moves(&mut inps.office, &sent.case_id, status, 60).await;
    }
    until(async || (happened(&mut inps.office, &sent.case_id, "ATTEMPT_FAILED").await > 0).then_some(())).await;
    network.clock.advance(61_000);
    until(async || (happened(&mut inps.office, &sent.case_id, "EXPIRED").await == 2).then_some(())).await;
    assert_eq!(stands(&mut inps.office, &sent.case_id).await, "requested");
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn what_its_recipient_opened_counts_before_and_after_any_other_end_that_is_told() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    // Its acceptance is lost on the way.
    gateway.answer(Answer::Refuse(Reason::RateLimited));
    let case_id = fleeting(&mut caritas, "r-1").await;
    let (opening, receipt) = deliver(&mut gateway, "inps", 0).await;
    network.clock.advance(61_000);
    until(async || (happened(&mut caritas.office, &case_id, "EXPIRED").await > 0).then_some(())).await;
    assert_eq!(stands(&mut caritas.office, &case_id).await, "entered_in_error");
    tell(&mut gateway, "caritas", &opening, Event::ContentHandover, Some(&receipt)).await;
    assert_eq!(stands(&mut caritas.office, &case_id).await, "requested");
    tell(&mut gateway, "caritas", &opening, Event::ContentConsignmentFailure, None).await;
    assert_eq!(stands(&mut caritas.office, &case_id).await, "requested");
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn what_was_over_when_we_opened_it_counts_for_nothing_here_either() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    let (opening, receipt) = deliver(&mut gateway, "inps", 0).await;
    assert_eq!(stands(&mut inps.office, &sent.case_id).await, "requested");
    tell(&mut gateway, "inps", &opening, Event::ContentHandover, Some(&receipt)).await;
    assert_eq!(stands(&mut inps.office, &sent.case_id).await, "entered_in_error");
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_case_is_closed_although_news_of_its_deadline_comes_after_the_end() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    let (opening, _) = deliver(&mut gateway, "inps", 0).await;
    tell(&mut gateway, "caritas", &opening, Event::AcceptanceRejectionExpiry, None).await;
    moves(&mut caritas.office, &sent.case_id, "closed", 0).await;
    deliver(&mut gateway, "inps", 1).await;
    assert_eq!(stands(&mut inps.office, &sent.case_id).await, "requested");
    tell(&mut gateway, "inps", &opening, Event::AcceptanceRejectionExpiry, None).await;
    assert_eq!(stands(&mut inps.office, &sent.case_id).await, "closed");
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn of_what_ends_unsent_there_is_one_word_and_none_once_it_was_opened() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    gateway.answer(Answer::Refuse(Reason::RateLimited));
    let opened = fleeting(&mut caritas, "r-1").await;
    let (message, receipt) = deliver(&mut gateway, "inps", 0).await;
    tell(&mut gateway, "caritas", &message, Event::ContentHandover, Some(&receipt)).await;
    let status = async |caritas: &mut Institution| {
        caritas.office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner()
    };
    assert_eq!(status(&mut caritas).await.outbox, 0, "the gateway had it");
    let unopened = fleeting(&mut caritas, "r-2").await;
    let message = gateway.message(1).await;
    network.clock.advance(61_000);
    until(async || (happened(&mut caritas.office, &unopened, "EXPIRED").await > 0).then_some(())).await;
    assert_eq!(happened(&mut caritas.office, &opened, "EXPIRED").await, 0);
    tell(&mut gateway, "caritas", &message, Event::ContentConsignmentFailure, None).await;
    assert_eq!(happened(&mut caritas.office, &unopened, "EXPIRED").await, 1);
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_move_of_ours_counts_where_the_gateway_has_it() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    deliver(&mut gateway, "inps", 0).await;
    let rejects = async |inps: &mut Institution, request_id| {
        let (status, reason, by) = ("rejected".to_owned(), "NO_CAPACITY".to_owned(), "PROVIDER".to_owned());
        let request = pb::UpdateReferralRequest {
            sending: Some(sending(request_id)),
            case_id: sent.case_id.clone(),
            update: Some(ReferralUpdate { status, reason, by, ..ReferralUpdate::default() }),
        };
        inps.office.update_referral(request).await.expect("a move that the case permits");
    };
    rejects(&mut inps, "once").await;
    let (rejected, receipt) = deliver(&mut gateway, "caritas", 1).await;
    // The gateway hears of that receipt only when the message has expired; so it is sent once more, and the gateway has it before the answer.
    gateway.answer(Answer::Refuse(Reason::RateLimited));
    moves(&mut caritas.office, &sent.case_id, "closed", 0).await;
    gateway.message(2).await;
    tell(&mut gateway, "inps", &rejected, Event::ContentConsignmentFailure, None).await;
    gateway.answer(Answer::Accept);
    rejects(&mut inps, "again").await;
    deliver(&mut gateway, "caritas", 3).await;
    network.clock.advance(120_000);
    until(async || (happened(&mut caritas.office, &sent.case_id, "ACCEPTED").await == 2).then_some(())).await;
    tell(&mut gateway, "caritas", &rejected, Event::ContentHandover, Some(&receipt)).await;
    assert_eq!(stands(&mut caritas.office, &sent.case_id).await, "closed");
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn what_expired_everywhere_and_was_opened_after_that_is_over_for_its_sender_too() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    gateway.answer(Answer::Refuse(Reason::RateLimited));
    let case_id = fleeting(&mut caritas, "r-1").await;
    let (message, receipt) = deliver(&mut gateway, "inps", 0).await;
    network.clock.advance(61_000);
    until(async || (happened(&mut caritas.office, &case_id, "EXPIRED").await > 0).then_some(())).await;
    tell(&mut gateway, "caritas", &message, Event::ContentConsignmentFailure, None).await;
    tell(&mut gateway, "caritas", &message, Event::ContentHandover, Some(&receipt)).await;
    assert_eq!(happened(&mut caritas.office, &case_id, "OPENED").await, 0);
    assert_eq!(happened(&mut caritas.office, &case_id, "RECEIPT_AFTER_EXPIRY").await, 1);
    assert_eq!(stands(&mut caritas.office, &case_id).await, "entered_in_error");
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_deadline_is_heard_of_by_both_when_the_id_of_what_opened_the_case_is_long_forgotten() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    let (opening, _) = deliver(&mut gateway, "inps", 0).await;
    let item_ids = vec![waiting(&mut inps.office).await.remove(0).item_id];
    inps.office.acknowledge(pb::AcknowledgeRequest { item_ids }).await.expect("acknowledged");

    network.clock.advance(FORGOTTEN_MS);
    let id = origin_of(&opening).0.jti;
    for institution in [&mut caritas, &mut inps] {
        let confirm = pb::ConfirmClockRequest { reason: "the clock is right".to_owned() };
        institution.office.confirm_clock(confirm).await.expect("confirmed");
        let core = institution.core();
        while core.store.message(id.as_bytes()).expect("readable").is_some() {
            // With each fact some are forgotten.
            let fact = Recorded { name: "filler".to_owned(), ..Recorded::default() };
            core.store.commit_one(Change::Record { fact: Box::new(fact), begins: false }).await.expect("written");
        }
    }
    for (to, institution) in [("caritas", &mut caritas), ("inps", &mut inps)] {
        tell(&mut gateway, to, &opening, Event::AcceptanceRejectionExpiry, None).await;
        assert_eq!(stands(&mut institution.office, &sent.case_id).await, "expired", "at {to}");
    }
    caritas.stop().await;
    inps.stop().await;
}
