//! Without a gateway: what is refused clearly, what is kept, what is answered twice the same.

use tonic::Code;
use tramite_proto::pb::backoffice::v1 as pb;

use super::{
    delivery::pair,
    network::{Network, reason, referral, until},
    stand_in::StandIn,
};

/// More than are looked at together.
const CASES: usize = 300;
/// Nobody listens there.
const NOWHERE: u16 = 1;

#[tokio::test]
async fn an_unknown_recipient_without_a_gateway_is_unavailable_and_says_so() {
    let network = Network::new();
    let mut caritas = network.start("caritas", NOWHERE).await;
    let refused = caritas.office.send_referral(referral("r-1", "inps")).await.expect_err("no key is known");
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(reason(&refused), "GATEWAY_UNAVAILABLE");
    let status = caritas.office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner();
    assert!(!status.connected && !status.problem.is_empty());
    assert_eq!((status.outbox, status.inbox), (0, 0));
    caritas.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_field_before_anything_is_sealed() {
    let network = Network::new();
    let mut caritas = network.start("caritas", NOWHERE).await;
    let mut request = referral("r-1", "inps");
    request.referral.as_mut().expect("a referral").benefits = vec!["NO-SUCH-BENEFIT".into()];
    let refused = caritas.office.send_referral(request).await.expect_err("a wrong code");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "FIELD_INVALID"));
    let refused = caritas.office.send_referral(referral("bad id", "inps")).await.expect_err("a wrong request id");
    assert_eq!(reason(&refused), "FIELD_INVALID");
    let refused = caritas.office.send_referral(referral("r-1", "caritas")).await.expect_err("to itself");
    assert_eq!(reason(&refused), "FIELD_INVALID");
    let update = pb::UpdateReferralRequest { sending: Some(super::network::sending("r-2")), ..Default::default() };
    let refused = caritas.office.update_referral(update).await.expect_err("no body");
    assert_eq!(reason(&refused), "FIELD_INVALID");
    let case_id = "019b2f6e-0000-7000-8000-000000000000".to_owned();
    let refused = caritas.office.get_case(pb::GetCaseRequest { case_id }).await.expect_err("no case");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "CASE_UNKNOWN"));
    let refused = caritas.office.screen_rights(pb::ScreenRightsRequest::default()).await.expect_err("later");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unimplemented, "SCREENING_NOT_YET_SERVED"));
    caritas.stop().await;
}

#[tokio::test]
async fn a_known_recipient_stays_known_and_a_request_id_is_answered_once_across_restarts() {
    let network = Network::new();
    let gateway = StandIn::start(&network).await;
    let inps = network.start("inps", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    let mut caritas = network.start("caritas", gateway.port()).await;
    until(async || {
        let status = caritas.office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner();
        status.connected.then_some(())
    })
    .await;
    let online = caritas.office.send_referral(referral("r-0", "inps")).await.expect("sent").into_inner();
    until(async || {
        let status = caritas.office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner();
        (status.outbox == 0).then_some(())
    })
    .await;
    caritas.stop().await;
    inps.stop().await;
    drop(gateway);

    let mut caritas = network.start("caritas", NOWHERE).await;
    let first =
        caritas.office.send_referral(referral("r-1", "inps")).await.expect("the key is remembered").into_inner();
    assert!(!first.repeated && first.case_id == first.message_id);
    let again = caritas.office.send_referral(referral("r-1", "inps")).await.expect("the same").into_inner();
    assert_eq!((again.message_id.as_str(), again.repeated), (first.message_id.as_str(), true));
    let mut other = referral("r-1", "inps");
    other.referral.as_mut().expect("a referral").situation = "Another one.".into();
    let refused = caritas.office.send_referral(other).await.expect_err("another content");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    caritas.stop().await;

    let mut caritas = network.start("caritas", NOWHERE).await;
    for (id, sent) in [("r-0", &online), ("r-1", &first)] {
        let again = caritas.office.send_referral(referral(id, "inps")).await.expect("after a restart").into_inner();
        assert_eq!((&again.message_id, again.repeated), (&sent.message_id, true), "{id}");
    }
    let status = caritas.office.get_status(pb::GetStatusRequest {}).await.expect("a status").into_inner();
    assert_eq!(status.outbox, 1, "one was accepted, one waits, none twice");
    let list = caritas.office.list_cases(pb::ListCasesRequest::default()).await.expect("cases").into_inner();
    assert_eq!(list.cases.len(), 2);
    assert_eq!(list.cases[0].case_id, first.case_id, "most recently moved first");
    assert_eq!((list.cases[0].status.as_str(), list.cases[0].next.as_str()), ("requested", "inps"));
    caritas.stop().await;
}

#[tokio::test]
async fn a_message_that_expires_before_the_gateway_can_be_reached_is_told_of() {
    let network = Network::new();
    let gateway = StandIn::start(&network).await;
    let inps = network.start("inps", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    let mut caritas = network.start("caritas", gateway.port()).await;
    caritas.knows("inps").await;
    caritas.stop().await;
    inps.stop().await;
    drop(gateway);

    let mut caritas = network.start("caritas", NOWHERE).await;
    let mut request = referral("r-1", "inps");
    request.sending.as_mut().expect("sending").expires_in_s = 60;
    let sent = caritas.office.send_referral(request).await.expect("kept").into_inner();
    network.clock.advance(61_000);
    let watch = pb::WatchInboxRequest { follow: true, window: 1 };
    let mut inbox = caritas.office.watch_inbox(watch).await.expect("an inbox").into_inner();
    let item = tokio::time::timeout(super::network::PATIENCE, inbox.message()).await.expect("in time");
    let item = item.expect("a stream").expect("an item");
    let Some(pb::inbox_item::Kind::Notice(notice)) = item.kind else { panic!("not a notice: {item:?}") };
    assert_eq!((notice.kind.as_str(), notice.reason.as_str()), ("EXPIRED", "MESSAGE_EXPIRED"));
    assert_eq!(notice.message_id, sent.message_id);
    let case =
        caritas.office.get_case(pb::GetCaseRequest { case_id: sent.case_id }).await.expect("a case").into_inner();
    assert_eq!(case.status, "entered_in_error", "nobody else ever heard of it");
    caritas.stop().await;
}

#[tokio::test]
async fn of_however_many_cases_the_page_has_those_that_moved_last_and_all_are_on_some_page() {
    let network = Network::new();
    let (_gateway, mut caritas, inps) = pair(&network).await;
    let mut newest_first = Vec::new();
    for n in 0..CASES {
        let sent = caritas.office.send_referral(referral(&format!("r-{n}"), "inps")).await.expect("sent").into_inner();
        newest_first.insert(0, sent.case_id);
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let call = pb::ListCasesRequest { page_size: 100, page_token, ..pb::ListCasesRequest::default() };
        let page = caritas.office.list_cases(call).await.expect("a page").into_inner();
        seen.extend(page.cases.into_iter().map(|case| case.case_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, newest_first);
    caritas.stop().await;
    inps.stop().await;
}
