//! Fourth verb: hand over what waits. One task for each recipient that is connected: it leases from the outbox as far as the
//! recipient's credit goes, frames up to 64 at a time with each signature once, and waits for the recipient's word; what it says waits for
//! the disk beside what it says next, and is answered in order. A slow or absent recipient holds up nobody but itself. It passes bytes on
//! as they came; it never looks at content.
//!
//! Leases live in this task's memory. When the stream ends they are given back at once; what had been sent is noted as an attempt, but a
//! lost stream gives nothing up ([`retry`]).

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Status, Streaming};
use tramite_proto::{
    batch::Framer,
    ids::uuid_text,
    pb::{
        exchange::v1::{Delivery, FramedMessage, Notice, ReceiveFrame, ReceiveRequest, SettlementAnswer},
        journal::v1::{Accepted, Fact, fact::Kind},
        statement::v1::Statement,
    },
    reason::{Reason, Refused},
    trace,
};
use tramite_store::{Leased, MessageRow, MessageState, accepted};

use crate::{
    hub::Hub,
    identify::Member,
    limits, metrics,
    presence::Seat,
    retry::{self, Again, Failure},
    settle,
};

/// What goes to the recipient.
pub type Frames = mpsc::Sender<Result<ReceiveFrame, Status>>;

/// Pause after the outbox promised something and gave nothing: a damaged row must not make this task spin.
const EMPTY_PAUSE: Duration = Duration::from_millis(100);

/// Tags, lengths, ids and a traceparent around one delivery.
const FRAMING_BYTES: usize = 256;

/// Why a stream ends.
#[derive(Debug)]
enum Ending {
    /// The recipient closed it, or the connection broke.
    Gone,
    /// A newer stream of the same institution took over.
    Superseded,
    /// The gateway stops.
    Stopping,
    /// The recipient broke the protocol.
    Refused(Refused),
}

/// Something sent and not settled.
#[derive(Debug, Clone, Copy)]
struct Sent {
    attempt: u32,
    notice: bool,
    deadline: Instant,
}

/// One recipient's stream.
struct Desk {
    hub: Arc<Hub>,
    member: Member,
    out: Frames,
    credit: u32,
    outstanding: HashMap<u64, Sent>,
    /// Settlements that wait for the disk, in their order: what comes after them need not wait for it, too.
    settling: FuturesOrdered<BoxFuture<'static, Settled>>,
    began: bool,
}

/// What came of the settlements of one request, and the credit that came with them.
struct Settled {
    answers: Vec<SettlementAnswer>,
    /// Of which attempts it spoke.
    attempts: HashMap<u64, u32>,
    credit: u32,
}

/// Serves one Receive stream until it ends.
pub async fn run(hub: Arc<Hub>, member: Member, seat: Seat, mut requests: Streaming<ReceiveRequest>, out: Frames) {
    hub.metrics.receivers.inc();
    // A predecessor that did not end well may have left leases behind.
    hub.store.release_all(member.as_str());
    tracing::info!(recipient = member.as_str(), "receiving");
    let (outstanding, settling) = (HashMap::new(), FuturesOrdered::new());
    let mut desk = Desk { hub: Arc::clone(&hub), member, out, credit: 0, outstanding, settling, began: false };
    let ending = match desk.serve(&seat, &mut requests).await {
        Err(ending) => ending,
        Ok(never) => match never {},
    };
    // What it said before it went counts.
    while let Some(settled) = desk.settling.next().await {
        desk.note(&settled);
    }
    desk.give_back(&ending).await;
    drop(seat);
    hub.metrics.receivers.dec();
    desk.say(ending).await;
}

impl Desk {
    async fn serve(
        &mut self,
        seat: &Seat,
        requests: &mut Streaming<ReceiveRequest>,
    ) -> Result<std::convert::Infallible, Ending> {
        let hub = Arc::clone(&self.hub);
        loop {
            let overdue = self.next_deadline();
            tokio::select! {
                biased;
                () = hub.stop.cancelled() => return Err(Ending::Stopping),
                () = seat.superseded() => return Err(Ending::Superseded),
                Some(settled) = self.settling.next(), if !self.settling.is_empty() => self.answer(seat, settled).await?,
                request = requests.message(), if self.settling.len() < limits::SETTLEMENTS_IN_FLIGHT_MAX => match request {
                    Ok(Some(request)) => self.request(request)?,
                    Ok(None) | Err(_) => return Err(Ending::Gone),
                },
                () = tokio::time::sleep_until(overdue) => self.time_out().await,
                permit = room(&hub, &self.member, self.out.clone()), if self.credit > 0 => {
                    let permit = permit.ok_or(Ending::Gone)?;
                    self.deliver(permit).await;
                }
            }
        }
    }

    /// Credit and settlements.
    fn request(&mut self, request: ReceiveRequest) -> Result<(), Ending> {
        let sizes =
            [request.jws.len() > limits::FRAME_BATCHES_MAX, request.settlements.len() > limits::FRAME_ITEMS_MAX];
        if sizes.contains(&true) {
            return Err(Ending::Refused(Refused::because(Reason::FrameInvalid)));
        }
        if !self.began && request.credit == 0 {
            return Err(Ending::Refused(Refused::because(Reason::CreditExceeded).field("credit")));
        }
        self.began = true;
        let ReceiveRequest { credit, jws, settlements } = request;
        if settlements.is_empty() {
            self.grant(credit);
            return Ok(());
        }
        let attempt = |id| self.outstanding.get(&id).map(|sent| (id, sent.attempt));
        let attempts: HashMap<u64, u32> =
            settlements.iter().filter_map(|settlement| attempt(settlement.delivery_id)).collect();
        let (hub, member) = (Arc::clone(&self.hub), self.member.clone());
        self.settling.push_back(Box::pin(async move {
            let began = Instant::now();
            let answers = settle::settle(&hub, &member, &jws, settlements, &attempts).await;
            hub.metrics.took("settle", began.elapsed());
            Settled { answers, attempts, credit }
        }));
        Ok(())
    }

    /// Takes note of what is settled, and gives the credit that came with it: after it, as it makes room.
    fn note(&mut self, settled: &Settled) {
        for answer in settled.answers.iter().filter(|answer| answer.refused.is_none()) {
            let id = answer.delivery_id;
            // What was put off may be on its way again before its answer is: that attempt is still to be settled.
            if self.outstanding.get(&id).is_some_and(|sent| settled.attempts.get(&id) == Some(&sent.attempt)) {
                self.outstanding.remove(&id);
            }
        }
        self.grant(settled.credit);
    }

    /// Answers the settlements of one request.
    async fn answer(&mut self, seat: &Seat, settled: Settled) -> Result<(), Ending> {
        self.note(&settled);
        let frame = ReceiveFrame { settled: settled.answers, ..ReceiveFrame::default() };
        tokio::select! {
            sent = self.out.send(Ok(frame)) => sent.map_err(|_| Ending::Gone),
            () = seat.superseded() => Err(Ending::Superseded),
            () = self.hub.stop.cancelled() => Err(Ending::Stopping),
        }
    }

    /// More credit, as far as a stream may have any.
    fn grant(&mut self, credit: u32) {
        let outstanding = u32::try_from(self.outstanding.len()).unwrap_or(limits::CREDIT_MAX);
        self.credit = self.credit.saturating_add(credit).min(limits::CREDIT_MAX.saturating_sub(outstanding));
    }

    /// Leases as much as the credit allows and sends it in one frame.
    async fn deliver(&mut self, permit: mpsc::OwnedPermit<Result<ReceiveFrame, Status>>) {
        let limit = usize::try_from(self.credit).unwrap_or(limits::FRAME_ITEMS_MAX).min(limits::FRAME_ITEMS_MAX);
        let leased = match self.hub.store.lease(self.member.as_str(), limit, limits::DELIVERY_FRAME_BYTES_MAX) {
            Ok(leased) => leased,
            Err(error) => {
                tracing::error!(recipient = self.member.as_str(), %error, "the outbox could not be read");
                Vec::new()
            }
        };
        if leased.is_empty() {
            tokio::time::sleep(EMPTY_PAUSE).await;
            return;
        }
        let (frame, later) = self.frame(leased);
        if frame != ReceiveFrame::default() {
            permit.send(Ok(frame));
            fail::fail_point!("deliver.sent");
        }
        retry::record(&self.hub, self.member.as_str(), later).await;
    }

    /// What goes out, and what is put off because it would say nothing yet.
    fn frame(&mut self, leased: Vec<Leased>) -> (ReceiveFrame, Vec<Failure>) {
        let mut framer = Framer::new();
        let mut frame = ReceiveFrame::default();
        let deadline = Instant::now() + Duration::from_secs(self.hub.config.delivery.lease_s);
        let (mut bytes, mut left, mut later) = (0_usize, Vec::new(), Vec::new());
        for one in leased {
            let (sequence, attempt) = (one.sequence, one.attempt);
            bytes = bytes.saturating_add(bytes_of(&one));
            // One always fits; what does not goes with the next frame.
            if bytes > limits::DELIVERY_FRAME_BYTES_MAX && !(frame.deliveries.is_empty() && frame.notices.is_empty()) {
                left.push(sequence);
                continue;
            }
            let notice = match &one.fact.kind {
                Some(Kind::Accepted(accepted)) => {
                    frame.deliveries.push(self.delivery(&mut framer, accepted, &one));
                    false
                }
                _ => match notice_of(&self.hub, self.member.as_str(), &mut framer, &one) {
                    Ok(notice) => {
                        frame.notices.push(notice);
                        true
                    }
                    Err(refused) => {
                        later.push(put_off(self.member.as_str(), &one, &refused));
                        continue;
                    }
                },
            };
            self.outstanding.insert(sequence, Sent { attempt, notice, deadline });
            self.credit = self.credit.saturating_sub(1);
        }
        if !left.is_empty() {
            self.hub.store.release(self.member.as_str(), &left);
        }
        let sent = frame.deliveries.len() + frame.notices.len();
        let counter = self.hub.metrics.delivered.get_or_create(&metrics::institution(self.member.as_str())).clone();
        counter.inc_by(u64::try_from(sent).unwrap_or(u64::MAX));
        frame.jws = framer.into_jws();
        (frame, later)
    }

    fn delivery(&self, framer: &mut Framer, accepted: &Accepted, leased: &Leased) -> Delivery {
        let message_id = message_id(accepted);
        let span =
            tracing::info_span!("deliver", message_id, recipient = self.member.as_str(), attempt = leased.attempt);
        trace::follow(&span, &accepted.traceparent);
        span.in_scope(|| {
            tracing::info!(message_id, recipient = self.member.as_str(), attempt = leased.attempt, "delivering");
            let ours = trace::traceparent(&span);
            let message = FramedMessage {
                origin: accepted.statement.as_ref().map(|statement| framer.frame(statement)),
                enc: accepted.enc.clone(),
                ciphertext: leased.content.clone(),
                traceparent: if ours.is_empty() { accepted.traceparent.clone() } else { ours },
            };
            Delivery {
                delivery_id: leased.sequence,
                message: Some(message),
                acceptance: accepted.evidence.as_ref().map(|evidence| framer.frame(evidence)),
                attempt: leased.attempt,
            }
        })
    }

    fn next_deadline(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3_600);
        self.outstanding.values().map(|sent| sent.deadline).min().unwrap_or(far).min(far)
    }

    /// Takes back what was not settled in time.
    async fn time_out(&mut self) {
        let now = Instant::now();
        let late = self.outstanding.extract_if(|_, sent| sent.deadline <= now).collect::<Vec<_>>();
        self.fail(late, Reason::LeaseTimeout, Again::Later { at_least_ms: 0 }).await;
    }

    /// Gives back what was not settled when the stream ends: at once, because the recipient has to come back first. When the gateway
    /// itself stops, no attempt is counted.
    async fn give_back(&mut self, ending: &Ending) {
        let sent = self.outstanding.drain().collect::<Vec<_>>();
        if !matches!(ending, Ending::Stopping) {
            self.fail(sent, retry::LOST, Again::Lost).await;
        }
        self.hub.store.release_all(self.member.as_str());
    }

    async fn fail(&mut self, sent: Vec<(u64, Sent)>, reason: Reason, again: Again) {
        // A notice is offered for as long as it takes and keeps no history: nobody's message depends on it.
        let notices: Vec<_> = sent.iter().filter(|(_, sent)| sent.notice).map(|(sequence, _)| *sequence).collect();
        self.hub.store.release(self.member.as_str(), &notices);
        let failures = sent.into_iter().filter(|(_, sent)| !sent.notice).map(|(sequence, sent)| Failure {
            sequence,
            attempt: sent.attempt,
            reason: reason.as_str().to_owned(),
            detail: reason.meaning().to_owned(),
            again,
        });
        retry::record(&self.hub, self.member.as_str(), failures.collect()).await;
    }

    /// The stream's last word, if anybody still reads it.
    async fn say(self, ending: Ending) {
        let refused = match ending {
            Ending::Gone => None,
            Ending::Superseded => Some(Refused::because(Reason::Superseded)),
            Ending::Stopping => Some(Refused::because(Reason::ShuttingDown)),
            Ending::Refused(refused) => {
                self.hub.refuse("receive", self.member.as_str(), "", &refused);
                Some(refused)
            }
        };
        tracing::info!(
            recipient = self.member.as_str(),
            reason = refused.as_ref().map_or("GONE", |refused| refused.reason.as_str()),
            "no longer receiving"
        );
        if let Some(refused) = refused {
            let said = self.out.send(Err(refused.to_status()));
            // Who does not read gets no last word.
            let _ = tokio::time::timeout(limits::HANDOVER_MAX, said).await;
        }
    }
}

/// Resolves when there is something to deliver, leave to deliver it, and room for one more frame; none when nobody reads any more.
async fn room(hub: &Hub, member: &Member, out: Frames) -> Option<mpsc::OwnedPermit<Result<ReceiveFrame, Status>>> {
    loop {
        hub.holds.released(member.as_str()).await;
        let permit = out.clone().reserve_owned().await.ok()?;
        hub.store.arrival(member.as_str()).await;
        if !hub.holds.is_held(member.as_str()) {
            return Some(permit);
        }
    }
}

/// What it takes of a frame at most: as if it shared no batch with another.
fn bytes_of(leased: &Leased) -> usize {
    // A fact holds every statement that goes into a frame, and more.
    let fact = prost::Message::encoded_len(leased.fact.as_ref());
    leased.content.len().saturating_add(fact).saturating_add(FRAMING_BYTES)
}

/// A notice that would say nothing yet.
fn put_off(recipient: &str, leased: &Leased, refused: &Refused) -> Failure {
    let (sequence, attempt, reason) = (leased.sequence, leased.attempt, refused.reason.as_str().to_owned());
    tracing::info!(recipient, sequence, reason, detail = refused.detail, "a notice is put off");
    let again = if refused.reason == Reason::NackTransient { Again::Behind } else { Again::Later { at_least_ms: 0 } };
    Failure { sequence, attempt, reason, detail: refused.detail.clone(), again }
}

/// News for a sender, or for both sides of a case.
///
/// # Errors
/// It cannot be read whose it is; or the case is one of which its recipient has not heard yet, as the message that opened it is still on its
/// way. Told now, it would be forgotten.
fn notice_of(hub: &Hub, recipient: &str, framer: &mut Framer, leased: &Leased) -> Result<Notice, Refused> {
    let (message_id, sequence, receipt, evidence) = match &leased.fact.kind {
        Some(Kind::Settled(settled)) => {
            let message = hub.store.fact(settled.sequence).map_err(|error| {
                tracing::error!(
                    sequence = leased.sequence,
                    "the message that a notice is about cannot be read: look at the disk"
                );
                hub.read_failed(&error)
            })?;
            let message_id = accepted_id(&message).unwrap_or_default();
            (message_id, settled.sequence, settled.receipt.as_ref(), settled.evidence.as_ref())
        }
        Some(Kind::CaseExpired(expired)) => {
            let case = expired.case_move.as_ref().map(|moved| moved.case_id.clone()).unwrap_or_default();
            let opening = hub.store.message(&case).map_err(|error| hub.read_failed(&error))?;
            let is_on_its_way =
                |row: MessageRow| row.queue == recipient && !matches!(row.state, MessageState::Final(_));
            if opening.is_some_and(is_on_its_way) {
                return Err(Refused::new(
                    Reason::NackTransient,
                    "The message that opened the case is still on its way.",
                ));
            }
            (uuid_text(&case), leased.sequence, None, expired.evidence.as_ref())
        }
        _ => (String::new(), 0, None, None),
    };
    let mut framed = |statement: Option<&Statement>| statement.map(|statement| framer.frame(statement));
    Ok(Notice {
        delivery_id: leased.sequence,
        message_id,
        receipt: framed(receipt),
        evidence: framed(evidence),
        attempt: leased.attempt,
        sequence,
    })
}

fn accepted_id(fact: &Fact) -> Option<String> {
    accepted(fact).map(message_id)
}

/// The text of a message's id.
fn message_id(accepted: &Accepted) -> String {
    uuid_text(&accepted.id)
}
