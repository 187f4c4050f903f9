//! One trace spans a message's whole way, and no span, event or attribute tells anything of a person.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use tonic::{Code, Request, Status};
use tramite_proto::pb::{
    backoffice::v1::{InboxItem, SendReferralRequest, SendResponse, UpdateReferralRequest},
    body::v1::{PersonIdentifier, person_identifier::Kind},
};
use tramite_tests::{
    canary,
    clerk::Clerk,
    collector::{Collector, Span, is_one_tree, way_up},
    desk::{Desk, insist},
    forge::random,
    network::{Network, PATIENCE},
    sample,
};

use crate::sockets::dialled;

/// Spans leave in lots, every five seconds; twice that and time for a busy machine.
pub(crate) const SPANS_MAX: Duration = Duration::from_secs(40);
/// Every span of a referral's way: which process makes it, and what it is called.
const WAY: [(&str, &str); 7] = [
    ("tramite-adapter/caritas", "backoffice.send"),
    ("tramite-adapter/caritas", "outbound.send"),
    ("tramite-gateway/gateway", "accept"),
    ("tramite-gateway/gateway", "permit"),
    ("tramite-gateway/gateway", "deliver"),
    ("tramite-gateway/gateway", "settle"),
    ("tramite-adapter/inps", "inbound.take"),
];

/// A back office that traces its own work: its span, in its trace.
struct Caller {
    trace: String,
    span: String,
    flags: &'static str,
}

impl Caller {
    fn new(flags: &'static str) -> Self {
        Self { trace: hex::encode(random::<16>()), span: hex::encode(random::<8>()), flags }
    }

    fn traceparent(&self) -> String {
        format!("00-{}-{}-{}", self.trace, self.span, self.flags)
    }
}

/// A call with a traceparent in its metadata.
fn traced<T>(call: T, traceparent: &str) -> Result<Request<T>, Status> {
    let mut call = Request::new(call);
    let value = traceparent.parse().map_err(|_| Status::invalid_argument("the test's traceparent"))?;
    call.metadata_mut().insert("traceparent", value);
    Ok(call)
}

async fn refer(desk: &Desk, request: &SendReferralRequest, traceparent: &str) -> Result<SendResponse> {
    insist(PATIENCE, || {
        let (mut client, request) = (desk.client(), request.clone());
        async move { Ok(client.send_referral(traced(request, traceparent)?).await?.into_inner()) }
    })
    .await
}

fn referral(request_id: &str, situation: &str) -> SendReferralRequest {
    SendReferralRequest {
        sending: Some(sample::sending(request_id, &[])),
        to: "inps".into(),
        referral: Some(sample::referral(situation)),
        conversation_id: String::new(),
    }
}

/// A network of two that sends its traces to a collector.
async fn network(collector: &Collector, settings: &str) -> Result<Network> {
    let settings = format!("{}\n{settings}", collector.settings());
    let builder = Network::builder().institutions(&["caritas", "inps"]);
    builder.gateway(&settings)?.adapters(&settings)?.start().await
}

/// The item about a message.
fn item_of(clerk: &Clerk, message_id: &str) -> Option<InboxItem> {
    let seen = clerk.seen();
    let about = |item: &&InboxItem| match &item.kind {
        Some(tramite_proto::pb::backoffice::v1::inbox_item::Kind::Message(message)) => message.message_id == message_id,
        _ => false,
    };
    seen.items.iter().find(about).cloned()
}

fn whole(spans: &[Span], caller: &Caller) -> bool {
    let has = |service: &str, name: &str| {
        spans.iter().any(|span| span.trace == caller.trace && span.service == service && span.name == name)
    };
    WAY.iter().all(|(service, name)| has(service, name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_goes_from_back_office_to_back_office_and_on_with_the_answer() -> Result<()> {
    let collector = Collector::start().await?;
    let network = network(&collector, "").await?;
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    let (news, work) = (Clerk::reads(&caritas), Clerk::reads(&inps));
    let callers = [Caller::new("01"), Caller::new("01")];
    let mut sent = Vec::new();
    for (number, caller) in callers.iter().enumerate() {
        let request = referral(&format!("r-{number}"), "sleeps at the station");
        sent.push(refer(&caritas, &request, &caller.traceparent()).await?);
    }
    work.until("both", PATIENCE, |seen| seen.situations().len() == 2).await.with_context(|| network.logs())?;
    let mut last = String::new();
    for (caller, sent) in callers.iter().zip(&sent) {
        let item = item_of(&work, &sent.message_id).context("the item of the message")?;
        let (trace, span) = (item.traceparent.get(3..35).unwrap_or(""), item.traceparent.get(36..52).unwrap_or(""));
        ensure!(trace == caller.trace && item.traceparent.ends_with("-01"), "{} is of another trace", item.traceparent);
        let spans = collector.until("whole way", SPANS_MAX, |spans| whole(spans, caller)).await?;
        is_one_tree(&spans, &caller.trace, &caller.span)?;
        // What the recipient's back office is told to go on from hangs, span by span, under what the sender's one was doing.
        let way = way_up(&spans, &caller.trace, span, &caller.span)?;
        let straight = [WAY[6], WAY[4], WAY[2], WAY[1], WAY[0]].map(|(service, name)| format!("{service} {name}"));
        ensure!(way == straight, "{way:#?}");
        last = item.traceparent;
    }
    // A back office that goes on from what it was given carries the trace back with its answer.
    let answer = UpdateReferralRequest {
        sending: Some(sample::sending("a-1", &[])),
        case_id: sent[1].case_id.clone(),
        update: Some(sample::update("accepted")),
    };
    let answered = insist(PATIENCE, || {
        let (mut client, answer, last) = (inps.client(), answer.clone(), last.clone());
        async move { Ok(client.update_referral(traced(answer, &last)?).await?.into_inner()) }
    })
    .await?;
    let came = |seen: &tramite_tests::clerk::Seen| seen.messages().count() == 1;
    news.until("the answer", PATIENCE, came).await.with_context(|| network.logs())?;
    let item = item_of(&news, &answered.message_id).context("the answer's item")?;
    ensure!(item.traceparent.get(3..35) == Some(callers[1].trace.as_str()), "{item:?}");
    // What is dialled is the collector, and the search for it finds it: see `endpoint`.
    let gateway = network.gateway.process.id().await.context("the gateway runs")?;
    ensure!(dialled(gateway)? == [collector.port()].into(), "the gateway dials {:?}", dialled(gateway)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_its_caller_does_not_record_is_passed_on_and_a_wrong_one_is_ignored() -> Result<()> {
    let collector = Collector::start().await?;
    let network = network(&collector, "").await?;
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    let work = Clerk::reads(&inps);
    let (quiet, loud) = (Caller::new("00"), Caller::new("01"));
    let unrecorded = refer(&caritas, &referral("r-1", "one"), &quiet.traceparent()).await?;
    let wrong = refer(&caritas, &referral("r-2", "two"), "00-Prova-RSSMRA80A01A944I-01").await?;
    refer(&caritas, &referral("r-3", "three"), &loud.traceparent()).await?;
    work.until("all three", PATIENCE, |seen| seen.situations().len() == 3).await.with_context(|| network.logs())?;
    let item = item_of(&work, &unrecorded.message_id).context("the unrecorded one")?;
    ensure!(item.traceparent.get(3..35) == Some(quiet.trace.as_str()), "{}", item.traceparent);
    ensure!(item.traceparent.ends_with("-00"), "{}", item.traceparent);
    let item = item_of(&work, &wrong.message_id).context("the wrong one")?;
    ensure!(tramite_proto::trace::is_traceparent(&item.traceparent), "not a trace of its own: {}", item.traceparent);
    // Sent after the first: when the last one's way is whole, the first one's would be there.
    let spans = collector.until("whole way", SPANS_MAX, |spans| whole(spans, &loud)).await?;
    ensure!(spans.iter().all(|span| span.trace != quiet.trace), "recorded against its caller's wish");
    ensure!(!canary::holds(&collector.bytes(), b"RSSMRA80A01A944I"), "what is no traceparent went on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_span_event_or_attribute_holds_content_a_personal_datum_or_a_key() -> Result<()> {
    const NAME: &str = "Zwrtlkanarina";
    const SITUATION: &str = "qvx-situazione-8841-canarino";
    const CODE: &str = "RSSMRA80A01A944I";
    const WRONG_CODE: &str = "RSSMRA80A01A944Z";
    const FILE: &str = "kqz-allegato-canarino.pdf";
    const CONTENT: &str = "jwp-contenuto-canarino";
    let collector = Collector::start().await?;
    let network = network(&collector, "log.level = \"trace\"").await?;
    let (caritas, inps) = (network.desk("caritas")?, network.desk("inps")?);
    let (news, work) = (Clerk::reads(&caritas), Clerk::accepts(&inps));
    let attached = insist(PATIENCE, || caritas.attach(FILE, CONTENT.as_bytes())).await?.attachment_id;
    let mut request = referral("r-1", SITUATION);
    request.sending = Some(sample::sending("r-1", &[attached]));
    if let Some(referral) = &mut request.referral {
        referral.person = Some(sample::person(NAME));
    }
    let caller = Caller::new("01");
    refer(&caritas, &request, &caller.traceparent()).await?;
    // Refused by the gateway, whose policy does not know the purpose.
    let mut refused = request.clone();
    refused.sending = Some(sample::sending("r-2", &[]));
    if let Some(sending) = &mut refused.sending {
        sending.purpose = "DOCUMENT_ACQUISITION".into();
    }
    refer(&caritas, &refused, &Caller::new("01").traceparent()).await?;
    // Refused by the sender's own adapter: no such codice fiscale.
    let mut wrong = request.clone();
    wrong.sending = Some(sample::sending("r-3", &[]));
    if let Some(person) = wrong.referral.as_mut().and_then(|referral| referral.person.as_mut()) {
        let kind = Some(Kind::CodiceFiscale(WRONG_CODE.into()));
        person.identifiers = vec![PersonIdentifier { kind, ..PersonIdentifier::default() }];
    }
    let status = caritas.client().send_referral(traced(wrong, &Caller::new("01").traceparent())?).await.err();
    ensure!(status.as_ref().is_some_and(|status| status.code() == Code::InvalidArgument), "{status:?}");
    work.until("the referral", PATIENCE, |seen| seen.acknowledged() == 1).await.with_context(|| network.logs())?;
    let ended = |seen: &tramite_tests::clerk::Seen| {
        seen.notices_of("OPENED") == 1 && seen.notices_of("REFUSED") == 1 && seen.messages().count() == 1
    };
    news.until("all news", PATIENCE, ended).await.with_context(|| network.logs())?;
    collector.until("whole way", SPANS_MAX, |spans| whole(spans, &caller)).await?;
    // What is left is sent when a process ends.
    for name in ["caritas", "inps", "gateway"] {
        network.node(name)?.process.terminate(PATIENCE).await?;
    }
    let bytes = collector.bytes();
    for control in ["message_id", "PURPOSE_NOT_ALLOWED", "backoffice.put_attachment"] {
        ensure!(canary::holds(&bytes, control.as_bytes()), "{control} is not found, so a search finds nothing");
    }
    for word in [NAME, SITUATION, CODE, WRONG_CODE, FILE, CONTENT, "Caritas file 12/2026"] {
        ensure!(!canary::holds(&bytes, word.as_bytes()), "a span says {word}");
    }
    for name in ["gateway", "caritas", "inps"] {
        for entry in fs::read_dir(network.node(name)?.folder.join("keys"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "key") {
                let key = fs::read_to_string(&path)?;
                let line = key.lines().rfind(|line| !line.starts_with("-----")).context("a key has lines")?;
                ensure!(!canary::holds(&bytes, line.as_bytes()), "a span has {}", path.display());
            }
        }
    }
    Ok(())
}
