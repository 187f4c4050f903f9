//! Submit and SubmitOne: frames come in, each message is permitted and accepted, one answer goes out for each frame, in order, after
//! everything accepted in it is on the disk. Frames are checked in the order in which they came and asked of the journal in that order,
//! while earlier ones still wait for the disk; so a message may refer to a case that the frame before it opened.
//! It knows frames and their order; never why a message is permitted, nor what is in it.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use tracing::Span;
use tramite_proto::{
    batch::{self, Framer},
    ids::MessageId,
    pb::{
        exchange::v1::{
            FramedMessage, Refusal, SubmitAnswer, SubmitFrame, SubmitOneRequest, SubmitResult, submit_result,
        },
        statement::v1::Statement,
    },
    reason::{Reason, Refused},
    statement::Origin,
    trace,
};

use crate::{
    accept::{Acceptance, accept},
    hub::Hub,
    identify::Member,
    limits, metrics,
    permit::{Denied, Permitted, Submission, permit},
    prove::About,
};

/// One message of a frame, checked.
struct Checked {
    /// The origin's bytes as they came, for a rejection.
    json: Bytes,
    /// Of what is new; of anything else it is read when it is needed.
    message_id: Option<MessageId>,
    /// Refused at once; none when it went on to `accept`.
    denied: Option<Denied>,
    /// Lives as long as the message is worked on.
    span: Span,
}

/// Serves one Submit stream until it ends.
pub(super) async fn run(
    hub: Arc<Hub>,
    member: Member,
    mut frames: Streaming<SubmitFrame>,
    out: mpsc::Sender<Result<SubmitAnswer, Status>>,
) {
    hub.metrics.submitters.inc();
    let mut in_flight = FuturesOrdered::new();
    // What the frames in flight are together, and each of them in their order.
    let (mut all, mut sizes) = (Size::default(), VecDeque::new());
    let mut last: Option<Refused> = None;
    let mut open = true;
    // A frame with parts goes alone: they may have to be read again before the journal is asked, and what comes after it must not
    // overtake it.
    let mut alone = false;
    while open || !in_flight.is_empty() {
        tokio::select! {
            biased;
            Some(answer) = in_flight.next(), if !in_flight.is_empty() => {
                all = all.without(sizes.pop_front().unwrap_or_default());
                if out.send(Ok(answer)).await.is_err() {
                    break;
                }
            }
            () = hub.stop.cancelled(), if open => {
                open = false;
                last = Some(Refused::because(Reason::ShuttingDown));
            }
            frame = frames.message(), if open && (in_flight.is_empty() || !alone && all.has_room()) => match frame {
                Ok(Some(frame)) => match measured(frame, |frame| check_frame(&hub, &member, frame)) {
                    (size, Ok((frame_id, checked, permitted))) => {
                        all = all.with(size);
                        sizes.push_back(size);
                        alone = permitted.iter().any(Permitted::has_parts);
                        in_flight.push_back(answer(&hub, &member, frame_id, checked, permitted));
                    }
                    (_, Err(refused)) => {
                        hub.refuse("submit", member.as_str(), "", &refused);
                        open = false;
                        last = Some(refused);
                    }
                },
                Ok(None) | Err(_) => open = false,
            },
            () = out.closed() => break,
        }
    }
    hub.metrics.submitters.dec();
    if let Some(refused) = last {
        // Who does not read gets no last word.
        let _ = out.send(Err(refused.to_status())).await;
    }
}

/// One message in a call of its own; a refusal is the call's failure.
pub(super) async fn one(
    hub: &Hub,
    member: &Member,
    request: SubmitOneRequest,
    traceparent: String,
) -> Result<Statement, Status> {
    let message = request.message.unwrap_or_default();
    let Some(origin) = message.origin else {
        let refused = Refused::new(Reason::FieldInvalid, "A message has an origin.").field("message.origin");
        hub.refuse("submit", member.as_str(), "", &refused);
        return Err(refused.to_status());
    };
    let submission = Submission { origin, enc: message.enc, ciphertext: message.ciphertext, traceparent };
    count(hub, member, 1);
    let (checked, permitted) = check(hub, member, submission);
    let answer = match permitted {
        Some(permitted) => {
            accept(hub, vec![permitted]).await.pop().unwrap_or_else(|| Err(Refused::because(Reason::StoreFailed)))
        }
        None => Err(checked
            .denied
            .as_ref()
            .map_or_else(|| Refused::because(Reason::Internal), |denied| denied.refused.clone())),
    };
    conclude(hub, member, &checked, &answer);
    fail::fail_point!("submit.answered");
    Ok(answer?.into_evidence())
}

/// How large frames are.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    messages: usize,
    bytes: usize,
}

impl Size {
    fn of(frame: &SubmitFrame) -> Self {
        Self { messages: frame.messages.len(), bytes: prost::Message::encoded_len(frame) }
    }

    fn with(self, other: Self) -> Self {
        Self { messages: self.messages.saturating_add(other.messages), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn without(self, other: Self) -> Self {
        Self { messages: self.messages.saturating_sub(other.messages), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    /// Whether one frame more may be in flight.
    fn has_room(self) -> bool {
        self.messages < limits::SUBMIT_MESSAGES_IN_FLIGHT_MAX && self.bytes < limits::SUBMIT_BYTES_IN_FLIGHT_MAX
    }
}

/// What comes of a frame, beside its size.
fn measured<T>(frame: SubmitFrame, check: impl FnOnce(SubmitFrame) -> T) -> (Size, T) {
    let size = Size::of(&frame);
    (size, check(frame))
}

type CheckedFrame = (u64, Vec<Checked>, Vec<Permitted>);

/// Checks a frame and every message in it.
fn check_frame(hub: &Hub, member: &Member, frame: SubmitFrame) -> Result<CheckedFrame, Refused> {
    let SubmitFrame { frame_id, jws, messages } = frame;
    if messages.is_empty() || messages.len() > limits::FRAME_ITEMS_MAX || jws.len() > limits::FRAME_BATCHES_MAX {
        return Err(Refused::because(Reason::FrameInvalid));
    }
    count(hub, member, messages.len());
    let began = Instant::now();
    let mut checked = Vec::with_capacity(messages.len());
    let mut permitted = Vec::with_capacity(messages.len());
    for message in messages {
        let (one, leave) = match submission(&jws, message) {
            Ok(submission) => check(hub, member, submission),
            Err(refused) => {
                let denied = Some(Denied::from(refused));
                (Checked { json: Bytes::new(), message_id: None, denied, span: Span::none() }, None)
            }
        };
        checked.push(one);
        permitted.extend(leave);
    }
    hub.metrics.took("permit", began.elapsed());
    Ok((frame_id, checked, permitted))
}

fn count(hub: &Hub, member: &Member, messages: usize) {
    let submitted = hub.metrics.submitted.get_or_create(&metrics::institution(member.as_str())).clone();
    submitted.inc_by(u64::try_from(messages).unwrap_or(u64::MAX));
}

fn submission(jws: &[String], message: FramedMessage) -> Result<Submission, Refused> {
    let FramedMessage { origin, enc, ciphertext, traceparent } = message;
    let origin =
        origin.ok_or_else(|| Refused::new(Reason::FieldInvalid, "A message has an origin.").field("origin"))?;
    Ok(Submission { origin: batch::unframe(jws, origin)?, enc, ciphertext, traceparent })
}

/// Permits one message, within a span that continues its sender's trace.
fn check(hub: &Hub, member: &Member, mut submission: Submission) -> (Checked, Option<Permitted>) {
    let span = tracing::info_span!("accept", issuer = member.as_str(), message_id = tracing::field::Empty);
    if !trace::is_traceparent(&submission.traceparent) {
        // Not vouched for, so no reason to refuse either; but nothing else travels in its place.
        submission.traceparent.clear();
    }
    trace::follow(&span, &submission.traceparent);
    let json = submission.origin.json.clone();
    let (denied, permitted) = span.in_scope(|| {
        let ours = trace::traceparent(&span);
        if !ours.is_empty() {
            submission.traceparent = ours;
        }
        let permitted = tracing::info_span!("permit").in_scope(|| permit(hub, member, submission));
        match permitted {
            Ok(permitted) => (None, Some(permitted)),
            Err(denied) => (Some(denied), None),
        }
    });
    let message_id = match &permitted {
        Some(Permitted::New(permit)) => Some(permit.origin.jti),
        _ => None,
    };
    (Checked { json, message_id, denied, span }, permitted)
}

/// Accepts what was permitted and writes the frame's answer.
async fn answer(
    hub: &Hub,
    member: &Member,
    frame_id: u64,
    checked: Vec<Checked>,
    permitted: Vec<Permitted>,
) -> SubmitAnswer {
    let began = Instant::now();
    let mut accepted = accept(hub, permitted).await.into_iter();
    hub.metrics.took("accept", began.elapsed());
    let mut outcomes = Vec::with_capacity(checked.len());
    for mut one in checked {
        let outcome = match one.denied.take() {
            Some(denied) => Err(denied),
            // What the journal refuses was permitted before: its issuer truly sent it.
            None => accepted
                .next()
                .unwrap_or_else(|| Err(Refused::because(Reason::StoreFailed)))
                .map_err(|refused| Denied { refused, vouched: true }),
        };
        let told = outcome.as_ref().map_err(|denied| denied.refused.clone());
        conclude(hub, member, &one, &told);
        outcomes.push((one.json, outcome));
    }
    let mut framer = Framer::new();
    let mut rejections = rejections(hub, member, &outcomes).into_iter();
    let results = outcomes
        .into_iter()
        .map(|(_, outcome)| {
            let sequence = outcome.as_ref().map_or(0, Acceptance::sequence);
            let result = match outcome {
                Ok(acceptance) => submit_result::Result::Accepted(framer.frame(&acceptance.into_evidence())),
                Err(denied) => {
                    let evidence = if deserves_evidence(&denied) { rejections.next() } else { None };
                    let evidence = evidence.map(|evidence| framer.frame(&evidence));
                    submit_result::Result::Refused(Refusal { evidence, ..denied.refused.to_refusal() })
                }
            };
            SubmitResult { result: Some(result), sequence }
        })
        .collect();
    fail::fail_point!("submit.answered");
    SubmitAnswer { frame_id, jws: framer.into_jws(), results }
}

/// Only what is refused for good, and what its issuer truly sent.
fn deserves_evidence(denied: &Denied) -> bool {
    denied.vouched && !denied.refused.retryable()
}

/// SubmissionRejection for each refusal that deserves one, in order. They are not kept: the sender has them.
fn rejections(hub: &Hub, member: &Member, outcomes: &[(Bytes, Result<Acceptance, Denied>)]) -> Vec<Statement> {
    let denied = outcomes.iter().filter_map(|(json, outcome)| Some((json, outcome.as_ref().err()?)));
    let jsons: Vec<Bytes> = denied
        .filter(|(_, denied)| deserves_evidence(denied))
        .filter_map(|(json, denied)| {
            // It was parsed when it was permitted, or it would not be vouched for.
            let origin = Origin::parse(json).ok()?;
            Some(hub.prover.rejected(About::new(&origin, json), member.fingerprint(), denied.refused.reason))
        })
        .collect();
    hub.prover.sign_now(&jsons).unwrap_or_else(|error| {
        tracing::error!(%error, "rejections could not be signed; they go out without evidence");
        Vec::new()
    })
}

/// Counts and logs what became of one message.
fn conclude<E>(hub: &Hub, member: &Member, checked: &Checked, outcome: &Result<E, Refused>)
where
    E: std::borrow::Borrow<Acceptance>,
{
    let known = checked.message_id.or_else(|| Origin::parse(&checked.json).ok().map(|origin| origin.jti));
    let message_id = known.map(|id| id.to_string()).unwrap_or_default();
    checked.span.record("message_id", &message_id);
    let _entered = checked.span.enter();
    match outcome {
        Ok(acceptance) if acceptance.borrow().is_repeated() => {
            hub.metrics.repeated.inc();
            tracing::info!(message_id, issuer = member.as_str(), "repeated; the original acceptance was given");
        }
        Ok(_) => {
            hub.metrics.accept(member.as_str());
            tracing::info!(message_id, issuer = member.as_str(), "accepted");
        }
        Err(refused) => hub.refuse("submit", member.as_str(), &message_id, refused),
    }
}
