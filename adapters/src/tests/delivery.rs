//! The whole way between two adapters, with everybody honest: sent, accepted, opened, receipted, shown once.

use tramite_proto::{
    ids::Digest,
    pb::{
        backoffice::v1::{self as pb, inbox_item::Kind},
        body::v1::body,
        exchange::v1::settlement::Outcome,
        statement::v1::{SealedMessage, Statement},
    },
    reason::Reason,
    statement::{Event, Evidence, Origin, Receipt},
};

use super::{
    network::{Institution, Network, Office, PATIENCE, reason, referral, sending, until},
    stand_in::{self, Calls, StandIn},
};

/// Two institutions that know each other.
pub(super) async fn pair(network: &Network) -> (StandIn, Institution, Institution) {
    let gateway = StandIn::start(network).await;
    let inps = network.start("inps", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("inps").then_some(())).await;
    let caritas = network.start("caritas", gateway.port()).await;
    until(async || gateway.state.keys.lock().expect("lock").contains_key("caritas").then_some(())).await;
    (gateway, caritas, inps)
}

/// The next item of an inbox.
pub(super) async fn next_item(office: &mut Office) -> pb::InboxItem {
    let mut inbox =
        office.watch_inbox(pb::WatchInboxRequest { follow: true, window: 1 }).await.expect("an inbox").into_inner();
    let item = tokio::time::timeout(PATIENCE, inbox.message()).await.expect("in time");
    item.expect("a stream").expect("an item")
}

/// Everything that waits in an inbox.
pub(super) async fn waiting(office: &mut Office) -> Vec<pb::InboxItem> {
    let watch = pb::WatchInboxRequest { follow: false, window: 0 };
    let mut inbox = office.watch_inbox(watch).await.expect("an inbox").into_inner();
    let mut items = Vec::new();
    while let Some(item) = inbox.message().await.expect("a stream") {
        items.push(item);
    }
    items
}

pub(super) fn origin_of(message: &SealedMessage) -> (Origin, bytes::Bytes) {
    let json = message.origin.as_ref().expect("an origin").json.clone();
    (Origin::parse(&json).expect("an origin"), json)
}

#[tokio::test]
async fn a_referral_arrives_is_receipted_and_shown_until_acknowledged() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    let message = gateway.message(0).await;
    let acceptance = gateway.state.acceptance(&message);
    gateway.send("inps", stand_in::delivery(7, &message, Some(&acceptance))).await;
    let (receipt, _) = gateway.settlement("inps").await;
    let receipt = receipt.expect("a receipt");
    let (origin, json) = origin_of(&message);
    let said = Receipt::parse(&receipt.json).expect("a receipt");
    assert!(said.opened && said.check_against(&origin, &json).is_ok());

    // The same delivery again: the same receipt, byte for byte, and nothing new for the back office.
    gateway.send("inps", stand_in::delivery(7, &message, Some(&acceptance))).await;
    assert_eq!(gateway.settlement("inps").await.0.expect("a receipt"), receipt);
    let items = waiting(&mut inps.office).await;
    assert_eq!(items.len(), 1);
    let Some(Kind::Message(shown)) = &items[0].kind else { panic!("not a message") };
    assert_eq!((shown.from.as_str(), &shown.message_id, &shown.case_id), ("caritas", &sent.message_id, &sent.case_id));
    let body = shown.body.clone().expect("a body");
    assert!(matches!(body.kind, Some(body::Kind::Referral(_))) && body.content_key.is_empty());

    // Shown again before it is acknowledged, under the same id; never after.
    let again = waiting(&mut inps.office).await;
    assert_eq!((&again[0].item_id, again[0].repeated), (&items[0].item_id, true));
    let acknowledge = pb::AcknowledgeRequest { item_ids: vec![items[0].item_id.clone(), "999999".into(), "x".into()] };
    let answer = inps.office.acknowledge(acknowledge.clone()).await.expect("acknowledged").into_inner();
    assert_eq!(answer.acknowledged, 1);
    assert_eq!(inps.office.acknowledge(acknowledge).await.expect("no error").into_inner().acknowledged, 0);
    assert!(waiting(&mut inps.office).await.is_empty());
    inps.stop().await;
    let mut inps = network.start("inps", gateway.port()).await;
    assert!(waiting(&mut inps.office).await.is_empty(), "nor after a restart");
    gateway.send("inps", stand_in::delivery(7, &message, Some(&acceptance))).await;
    assert_eq!(gateway.settlement("inps").await.0.expect("a receipt"), receipt, "and the receipt is the same");
    assert!(waiting(&mut inps.office).await.is_empty());
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_case_moves_at_both_ends_and_its_timeline_tells_all() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let sent = caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent").into_inner();
    let message = gateway.message(0).await;
    let acceptance = gateway.state.acceptance(&message);
    gateway.send("inps", stand_in::delivery(1, &message, Some(&acceptance))).await;
    let receipt = gateway.settlement("inps").await.0.expect("a receipt");
    let (origin, json) = origin_of(&message);
    let handover = Evidence {
        rcp_s256: Some(Digest::of(&receipt.json)),
        ..gateway.state.evidence(Event::ContentHandover, &origin, &json)
    };
    let handover = gateway.state.sign(&gateway.state.gateway, handover.to_json());
    gateway.send("caritas", stand_in::notice(2, &sent.message_id, &handover, Some(&receipt))).await;
    assert!(matches!(gateway.settlement("caritas").await.1, Outcome::Notice(_)));
    let item = next_item(&mut caritas.office).await;
    let Some(Kind::Notice(notice)) = &item.kind else { panic!("not a notice: {item:?}") };
    assert_eq!((notice.kind.as_str(), &notice.message_id), ("OPENED", &sent.message_id));

    let update = pb::UpdateReferralRequest {
        sending: Some(sending("u-1")),
        case_id: sent.case_id.clone(),
        update: Some(tramite_proto::pb::body::v1::ReferralUpdate { status: "accepted".into(), ..Default::default() }),
    };
    let wrong = caritas.office.update_referral(update.clone()).await.expect_err("only INPS may accept");
    assert_eq!(reason(&wrong), "CASE_TRANSITION_INVALID");
    inps.office.update_referral(update).await.expect("accepted");
    let message = gateway.message(1).await;
    let acceptance = gateway.state.acceptance(&message);
    gateway.send("caritas", stand_in::delivery(3, &message, Some(&acceptance))).await;
    assert!(gateway.settlement("caritas").await.0.is_some());
    let case =
        caritas.office.get_case(pb::GetCaseRequest { case_id: sent.case_id }).await.expect("a case").into_inner();
    assert_eq!((case.status.as_str(), case.next.as_str()), ("accepted", "inps"));
    let events: Vec<&str> = case.timeline.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["SENT", "ACCEPTED", "OPENED", "RECEIVED"]);
    caritas.stop().await;
    inps.stop().await;
}

/// Puts a file for a message to come.
pub(super) async fn put(office: &mut Office, content: &[u8]) -> pb::PutAttachmentResponse {
    use pb::put_attachment_request::Frame;
    let header = pb::AttachmentHeader {
        name: "delega.pdf".into(),
        media_type: "application/pdf".into(),
        document: String::new(),
    };
    let data = content.chunks(200_000).map(|data| Frame::Data(data.to_vec().into()));
    let frames: Vec<Frame> = std::iter::once(Frame::Header(header)).chain(data).collect();
    let frames = frames.into_iter().map(|frame| pb::PutAttachmentRequest { frame: Some(frame) });
    office.put_attachment(tokio_stream::iter(frames)).await.expect("stored").into_inner()
}

#[tokio::test]
async fn a_call_that_repeats_another_leaves_no_copy_of_its_files_and_can_be_repeated_itself() {
    let network = Network::new();
    let (_gateway, mut caritas, inps) = pair(&network).await;
    let mut request = referral("r-1", "inps");
    let mut first = String::new();
    for repeated in [false, true, true] {
        let stored = put(&mut caritas.office, b"the same file").await;
        let copy = network.path("caritas/data/attachments").join(format!("{}.data", stored.attachment_id));
        let sealed = std::fs::read(&copy).expect("a copy");
        request.sending.as_mut().expect("sending").attachments = vec![stored.attachment_id];
        for again in [false, true] {
            // The second time as after a kill that left it there.
            std::fs::write(&copy, &sealed).expect("written");
            let sent = caritas.office.send_referral(request.clone()).await.expect("answered").into_inner();
            assert_eq!(sent.repeated, repeated || again);
            assert!(first.is_empty() || first == sent.message_id, "the answer of the first time");
            first = sent.message_id;
            assert!(!copy.exists(), "repeated: {repeated}, again: {again}");
        }
    }
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn attachments_arrive_whole_even_when_the_line_breaks_in_the_middle() {
    let network = Network::new();
    let (mut gateway, mut caritas, mut inps) = pair(&network).await;
    let content: Vec<u8> = (0..700_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let stored = put(&mut caritas.office, &content).await;
    assert_eq!(stored.length, 700_000);
    let mut request = referral("r-1", "inps");
    request.sending.as_mut().expect("sending").attachments = vec![stored.attachment_id.clone()];
    let sent = caritas.office.send_referral(request.clone()).await.expect("sent").into_inner();
    let again = caritas.office.send_referral(request).await.expect("the same, though its file is gone").into_inner();
    assert_eq!((&again.message_id, again.repeated), (&sent.message_id, true));
    let mut other = referral("r-2", "inps");
    other.sending.as_mut().expect("sending").attachments = vec![stored.attachment_id];
    let refused = caritas.office.send_referral(other).await.expect_err("a file goes with one message");
    assert_eq!(reason(&refused), "ATTACHMENT_UNKNOWN");

    let message = gateway.message(0).await;
    for sealed in gateway.state.parts.lock().expect("lock").values() {
        assert!(!sealed.windows(64).any(|window| window == &content[..64]), "sealed on the way");
    }
    let acceptance = gateway.state.acceptance(&message);
    gateway.send("inps", stand_in::delivery(1, &message, Some(&acceptance))).await;
    let receipt = gateway.settlement("inps").await.0.expect("a receipt");
    assert!(Receipt::parse(&receipt.json).expect("a receipt").opened);
    let item = next_item(&mut inps.office).await;
    let Some(Kind::Message(shown)) = &item.kind else { panic!("not a message") };
    assert_eq!(shown.body.as_ref().expect("a body").attachments[0].name, "delega.pdf");
    let get = pb::GetAttachmentRequest { message_id: shown.message_id.clone(), index: 0 };
    let mut stream = inps.office.get_attachment(get.clone()).await.expect("an attachment").into_inner();
    let mut read = Vec::new();
    while let Some(frame) = stream.message().await.expect("a frame") {
        assert!(frame.data.len() <= 256 * 1024);
        read.extend_from_slice(&frame.data);
    }
    assert!(read == content, "the same bytes");
    inps.office.acknowledge(pb::AcknowledgeRequest { item_ids: vec![item.item_id] }).await.expect("acknowledged");
    let gone = inps.office.get_attachment(get).await.expect_err("erased");
    assert_eq!(reason(&gone), "ATTACHMENT_UNKNOWN");
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn a_receipt_is_said_again_on_every_new_stream_until_it_is_answered() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    let deliver = async |gateway: &StandIn, n: usize| {
        let message = gateway.message(n).await;
        let acceptance = gateway.state.acceptance(&message);
        gateway.send("inps", stand_in::delivery(7 + n as u64, &message, Some(&acceptance))).await;
    };
    let receipt = async |gateway: &mut StandIn| gateway.settlement("inps").await.0.expect("a receipt");
    caritas.office.send_referral(referral("r-1", "inps")).await.expect("sent");
    deliver(&gateway, 0).await;
    let given = receipt(&mut gateway).await;
    gateway.hang_up("inps");
    assert_eq!(receipt(&mut gateway).await, given, "the line broke under it");
    inps.stop().await;
    let inps = network.start("inps", gateway.port()).await;
    assert_eq!(receipt(&mut gateway).await, given, "after a restart, too");
    gateway.send("inps", stand_in::answered(7, Some(Reason::StoreFailed))).await;
    assert_eq!(receipt(&mut gateway).await, given, "and on the same one, when it is not taken for now");

    gateway.send("inps", stand_in::answered(7, None)).await;
    let core = inps.core();
    let unanswered = async || core.unanswered.deliveries().is_empty().then_some(());
    until(unanswered).await;
    core.unanswered.mark(&core.store).await.expect("written");
    drop(core);
    inps.stop().await;
    let inps = network.start("inps", gateway.port()).await;
    caritas.office.send_referral(referral("r-2", "inps")).await.expect("sent");
    deliver(&gateway, 1).await;
    assert_ne!(receipt(&mut gateway).await, given, "nor is it said once it was");
    caritas.stop().await;
    inps.stop().await;
}

/// A referral to inps with a file, which the gateway has, and its acceptance.
async fn with_a_file(gateway: &StandIn, caritas: &mut Institution) -> (SealedMessage, Statement) {
    let stored = put(&mut caritas.office, b"a file").await;
    let mut request = referral("r-1", "inps");
    request.sending.as_mut().expect("sending").attachments = vec![stored.attachment_id];
    caritas.office.send_referral(request).await.expect("sent");
    let message = gateway.message(0).await;
    let acceptance = gateway.state.acceptance(&message);
    (message, acceptance)
}

#[tokio::test]
async fn a_receipt_is_said_again_although_a_second_offer_of_its_message_was_put_off() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    let (message, acceptance) = with_a_file(&gateway, &mut caritas).await;
    let offer = async |gateway: &StandIn| {
        gateway.send("inps", stand_in::delivery(7, &message, Some(&acceptance))).await;
    };
    gateway.state.get_part.send_replace(Calls::Refused);
    offer(&gateway).await;
    assert!(gateway.settlement("inps").await.0.is_none(), "its part does not come");
    assert!(inps.core().unanswered.deliveries().is_empty(), "so there will be no receipt");
    // The line to the parts is slower than the lease.
    gateway.state.get_part.send_replace(Calls::Unheard);
    offer(&gateway).await;
    offer(&gateway).await;
    assert!(gateway.settlement("inps").await.0.is_none(), "it is being taken in");
    gateway.send("inps", stand_in::put_off(7)).await;
    gateway.state.get_part.send_replace(Calls::Served);
    let given = gateway.settlement("inps").await.0.expect("a receipt");
    gateway.hang_up("inps");
    assert_eq!(gateway.settlement("inps").await.0, Some(given));
    caritas.stop().await;
    inps.stop().await;
}

#[tokio::test]
async fn news_of_a_message_waits_while_other_news_of_it_is_being_taken_in() {
    let network = Network::new();
    let (mut gateway, mut caritas, inps) = pair(&network).await;
    let (message, acceptance) = with_a_file(&gateway, &mut caritas).await;
    gateway.state.get_part.send_replace(Calls::Unheard);
    gateway.send("inps", stand_in::delivery(7, &message, Some(&acceptance))).await;
    let core = inps.core();
    until(async || (core.unanswered.deliveries() == [7]).then_some(())).await;
    drop(core);
    let (origin, json) = origin_of(&message);
    let evidence = gateway.state.evidence(Event::ContentConsignmentFailure, &origin, &json);
    let evidence = gateway.state.sign(&gateway.state.gateway, evidence.to_json());
    let notice = stand_in::notice(8, &origin.jti.to_string(), &evidence, None);
    gateway.send("inps", notice).await;
    let (_, Outcome::Retry(later)) = gateway.settlement("inps").await else { panic!("not put off") };
    assert!(later.detail.starts_with("other news"), "{}", later.detail);
    gateway.state.get_part.send_replace(Calls::Served);
    assert!(gateway.settlement("inps").await.0.is_some(), "a receipt");
    caritas.stop().await;
    inps.stop().await;
}
