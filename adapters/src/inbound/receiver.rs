//! The receiver: holds the Receive stream, gives credit, takes what comes, settles it.
//!
//! Knows the stream and what is on its way. Never knows what makes a delivery good. Invariants: credit comes back only with a
//! settlement, so no more is in memory than was asked for; a delivery with parts holds up nobody else; what the stream lost comes again
//! and gets the receipt that it got.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use tramite_proto::{
    batch::Framer,
    ids::MessageId,
    pb::{
        exchange::v1::{
            Notice, NoticeAcknowledged, ReceiveFrame, ReceiveRequest, RetryLater, Settlement, SettlementAnswer,
            settlement::Outcome,
        },
        statement::v1::Statement,
    },
    reason::{Reason, Refused},
};
use tramite_store::Change;

use super::{
    check::{self, Arrived, Fault},
    fetch, notice,
    take::{self, Reserved, Verdict},
};
use crate::{
    backoff::Backoff,
    core::Core,
    link::{SUPERSEDED, refusal_of},
    metrics,
};

/// Deliveries on their way: four frames, so that the line stays busy while a frame is on its way to the disk.
const CREDIT: u32 = 256;
/// A receipt that was not taken for now is said again no sooner.
const SAY_AGAIN_MIN: Duration = Duration::from_secs(1);
/// Receipts that are said again in one request.
const SETTLEMENTS_MAX: usize = 64;
/// Requests that wait for the line.
const REQUESTS_AHEAD: usize = 16;

/// The receiver.
#[derive(Debug)]
pub(crate) struct Receiver {
    core: Arc<Core>,
    /// Messages that are being taken in, or news of them: what comes of one meanwhile waits for its turn.
    busy: Arc<Mutex<HashSet<MessageId>>>,
}

impl Receiver {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, busy: Arc::default() }
    }

    /// Works until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let ended = |first, result: Result<(), Refused>| {
            self.core.metrics.connected.set(0);
            match result.map_err(|refused| self.core.link.because(refused)) {
                Err(refused) if refused.reason == Reason::Superseded => {
                    self.core.link.superseded(self.core.clock.now_ms());
                    tracing::error!(reason = %refused.reason, "{SUPERSEDED}");
                }
                Err(refused) => {
                    self.core.link.lost(&refused.detail);
                    tell(first, &refused);
                }
                Ok(()) => {}
            }
        };
        Backoff::run(&self.core.entropy, &stop, || self.session(), ended).await;
    }

    /// One stream, to its end.
    async fn session(&self) -> Result<(), Refused> {
        self.core.link.wait_introduced().await;
        let (requests, stream) = mpsc::channel(REQUESTS_AHEAD);
        let first = ReceiveRequest { credit: CREDIT, ..ReceiveRequest::default() };
        // There is room: nothing was sent yet.
        drop(requests.send(first).await);
        let mut client = self.core.link.exchange();
        let frames = client.receive(ReceiverStream::new(stream)).await.map_err(|status| refusal_of(&status))?;
        let mut frames = frames.into_inner();
        self.core.link.connected(self.core.clock.now_ms());
        self.core.metrics.connected.set(1);
        self.core.metrics.connections.inc();
        tracing::info!(gateway = %self.core.gateway, "connected to the gateway");
        // Dropped with the stream: what was not settled comes again.
        let mut tasks = JoinSet::new();
        self.core.unanswered.begin_stream();
        let mut say_again = Some(Instant::now());
        loop {
            let frame = tokio::select! {
                biased;
                () = sleep_until(say_again.unwrap_or_else(Instant::now)), if say_again.is_some() => {
                    say_again = None;
                    self.say_again(&requests, &mut tasks);
                    continue;
                }
                frame = frames.message() => frame.map_err(|status| refusal_of(&status))?,
            };
            let frame = frame.ok_or_else(|| Refused::new(Reason::ConnectionLost, "the gateway ended the stream"))?;
            if let Some(wait) = self.heed(&frame.settled) {
                say_again.get_or_insert_with(|| Instant::now() + wait);
            }
            while tasks.try_join_next().is_some() {}
            self.spread(frame, &requests, &mut tasks);
        }
    }

    /// The receipts that are not answered.
    fn say_again(&self, requests: &mpsc::Sender<ReceiveRequest>, tasks: &mut JoinSet<()>) {
        let (core, requests) = (Arc::clone(&self.core), requests.clone());
        tasks.spawn(async move {
            for some in core.unanswered.deliveries().chunks(SETTLEMENTS_MAX) {
                let receipts = match core.unanswered.receipts(&core.store, some).await {
                    Ok(receipts) => receipts,
                    Err(refused) => {
                        tracing::error!(reason = %refused.reason, detail = refused.detail, "receipts wait for the next stream");
                        return;
                    }
                };
                if receipts.is_empty() {
                    continue;
                }
                let (jws, settlements) = framed(&receipts);
                // They come with no delivery of this stream, so they make no room in it.
                drop(requests.send(ReceiveRequest { credit: 0, jws, settlements }).await);
            }
        });
    }

    /// What the gateway says to settlements. When it takes one for now only: how long to wait before it is said again, as what it is about may
    /// have ended, and not be offered again.
    fn heed(&self, answers: &[SettlementAnswer]) -> Option<Duration> {
        let mut again = None;
        for answer in answers {
            let refused = answer.refused.as_ref().map(Refused::from_refusal);
            match refused.as_ref().and_then(Refused::come_back_ms) {
                Some(wait_ms) => again = again.max(Some(Duration::from_millis(wait_ms).max(SAY_AGAIN_MIN))),
                // A second offer was put off, and the first may still be on its way to a receipt.
                None if answer.retry => {}
                None => self.core.unanswered.ends(answer.delivery_id),
            }
            let Some(refused) = refused else { continue };
            tracing::error!(reason = %refused.reason, detail = refused.detail, "the gateway did not take a settlement");
            if refused.reason == Reason::SignerUnknown {
                self.core.link.introduce.notify_one();
            }
        }
        again
    }

    /// Gives each notice and each delivery with parts a task of its own; the rest of the frame goes together.
    fn spread(&self, frame: ReceiveFrame, requests: &mpsc::Sender<ReceiveRequest>, tasks: &mut JoinSet<()>) {
        let jws = Arc::new(frame.jws);
        let work = Work { core: Arc::clone(&self.core), busy: Arc::clone(&self.busy), jws, requests: requests.clone() };
        if !frame.notices.is_empty() {
            // Taken here, so that news of one message is heard in its order.
            let turns = Turn::of_all(&self.busy, &frame.notices);
            tasks.spawn(work.clone().notices(frame.notices, turns));
        }
        let mut light = Vec::new();
        for delivery in frame.deliveries {
            let delivery_id = delivery.delivery_id;
            match Arrived::read(&self.core, &work.jws, delivery) {
                Ok(arrived) if arrived.origin.parts.is_empty() => light.push(arrived),
                Ok(arrived) => drop(tasks.spawn(work.clone().deliveries(vec![arrived]))),
                Err(refused) => {
                    // Without a readable origin nothing can be said of it in a receipt: it goes back, and ends as a dead letter.
                    self.core.distrust("delivery", &delivery_id.to_string(), &refused);
                    tasks.spawn(work.clone().put_off(delivery_id, refused));
                }
            }
        }
        if !light.is_empty() {
            tasks.spawn(work.deliveries(light));
        }
    }
}

fn tell(first: bool, refused: &Refused) {
    let (reason, detail) = (refused.reason.as_str(), refused.detail.as_str());
    if first {
        tracing::warn!(reason, detail, "no connection to the gateway; it is tried again until there is one");
    } else {
        tracing::debug!(reason, detail, "still no connection to the gateway");
    }
}

/// What a task needs for its part of a frame.
#[derive(Clone)]
struct Work {
    core: Arc<Core>,
    busy: Arc<Mutex<HashSet<MessageId>>>,
    jws: Arc<Vec<String>>,
    requests: mpsc::Sender<ReceiveRequest>,
}

/// What a look at a delivery came to.
enum Looked {
    /// It can be said what becomes of it.
    Known(Verdict),
    /// It is good and waits for the disk, its room in the inbox taken.
    Good(Change, Reserved),
}

impl Work {
    async fn deliveries(self, mut arrived: Vec<Arrived>) {
        fail::fail_point!("inbound.received");
        let spans: Vec<_> = arrived.iter_mut().map(Arrived::span).collect();
        let turns: Vec<_> = arrived.iter().map(|arrived| Turn::take(&self.busy, arrived.origin.jti)).collect();
        let looks = arrived.iter().zip(&turns).zip(spans);
        let looks = looks.map(|((arrived, turn), span)| self.look(arrived, turn.is_some()).instrument(span));
        let looked = join_all(looks).await;
        let verdicts = self.store(&arrived, looked).await;
        fail::fail_point!("inbound.stored");
        let said: Vec<_> = arrived.iter().map(|arrived| arrived.delivery_id).zip(verdicts).collect();
        for ((delivery_id, verdict), turn) in said.iter().zip(turns) {
            if turn.is_some() && matches!(verdict, Verdict::Later(_)) {
                self.core.unanswered.puts_off(*delivery_id);
            }
        }
        self.settle(said).await;
        fail::fail_point!("inbound.settled");
    }

    /// Everything that can be found out before the disk.
    async fn look(&self, arrived: &Arrived, my_turn: bool) -> Looked {
        if !my_turn {
            let refused = Refused::new(Reason::NackTransient, "this very message is being taken in");
            return Looked::Known(Verdict::Later(refused));
        }
        self.core.unanswered.begins(&self.core.store, arrived.delivery_id, arrived.origin.jti);
        match take::before(&self.core, arrived) {
            Ok(Some(receipt)) => return Looked::Known(Verdict::Receipt(receipt)),
            Ok(None) => {}
            Err(refused) => return Looked::Known(Verdict::Later(refused)),
        }
        match self.judge(arrived).await {
            Ok(reserved) => Looked::Good(take::acceptance(&self.core, arrived), reserved),
            Err(Fault::Later(refused)) => Looked::Known(Verdict::Later(refused)),
            Err(Fault::Untrue(refused)) => {
                self.core.distrust("message", &arrived.origin.jti.to_string(), &refused);
                Looked::Known(Verdict::Later(refused))
            }
            Err(Fault::Issuer(refused)) => Looked::Known(take::refuse(&self.core, arrived, &refused).await),
        }
    }

    async fn judge(&self, arrived: &Arrived) -> Result<Reserved, Fault> {
        self.core.check_clock(self.core.clock.now_ms()).map_err(Fault::Later)?;
        if !take::has_room(&self.core).map_err(Fault::Later)? {
            return Err(Fault::Later(Refused::because(Reason::InboxFull)));
        }
        let body = check::check(&self.core, arrived).await?;
        // Only now: what nobody vouches for takes no room.
        let reserved = Reserved::take(&self.core, arrived).map_err(Fault::Later)?;
        fetch::parts(&self.core, &arrived.origin, &body).await?;
        Ok(reserved)
    }

    /// One commit for all that is good.
    async fn store(&self, arrived: &[Arrived], looked: Vec<Looked>) -> Vec<Verdict> {
        let changes: Vec<Change> = looked
            .iter()
            .filter_map(|looked| match looked {
                Looked::Good(change, _) => Some(change.clone()),
                Looked::Known(_) => None,
            })
            .collect();
        let mut done = if changes.is_empty() { Vec::new() } else { self.core.store.commit(changes).await }.into_iter();
        let mut verdicts = Vec::with_capacity(looked.len());
        for (arrived, looked) in arrived.iter().zip(looked) {
            verdicts.push(match looked {
                Looked::Known(verdict) => verdict,
                Looked::Good(change, reserved) => {
                    let done = done.next().unwrap_or(Err(tramite_store::Rejected::Failed));
                    take::settled(&self.core, arrived, (change, reserved), done).await
                }
            });
        }
        verdicts
    }

    async fn notices(self, notices: Vec<Notice>, turns: HashMap<MessageId, Turn>) {
        let mut settlements = Vec::with_capacity(notices.len());
        for notice in notices {
            let delivery_id = notice.delivery_id;
            let waits = notice.message_id.parse().is_ok_and(|id| !turns.contains_key(&id));
            let taken = match waits {
                true => Err(Refused::new(Reason::NackTransient, "other news of this very message is being taken in")),
                false => notice::take(&self.core, &self.jws, notice).await,
            };
            let outcome = match taken {
                Ok(()) => Outcome::Notice(NoticeAcknowledged {}),
                Err(refused) => self.later(&refused),
            };
            settlements.push(Settlement { delivery_id, outcome: Some(outcome) });
        }
        drop(turns);
        self.send(Vec::new(), settlements).await;
    }

    async fn put_off(self, delivery_id: u64, refused: Refused) {
        self.settle(vec![(delivery_id, Verdict::Later(refused))]).await;
    }

    async fn settle(&self, said: Vec<(u64, Verdict)>) {
        let mut framer = Framer::new();
        let settlements = said
            .into_iter()
            .map(|(delivery_id, verdict)| {
                let outcome = match verdict {
                    Verdict::Receipt(receipt) => receipt_outcome(&mut framer, &receipt),
                    Verdict::Later(refused) => self.later(&refused),
                };
                Settlement { delivery_id, outcome: Some(outcome) }
            })
            .collect();
        self.send(framer.into_jws(), settlements).await;
    }

    fn later(&self, refused: &Refused) -> Outcome {
        self.core.metrics.deferred.get_or_create(&metrics::reason(refused.reason.as_str())).inc();
        tracing::warn!(reason = %refused.reason, detail = refused.detail, "a delivery is put off");
        Outcome::Retry(RetryLater {
            delay_ms: refused.come_back_ms().unwrap_or(0),
            reason: refused.reason.as_str().to_owned(),
            detail: refused.detail.clone(),
        })
    }

    async fn send(&self, jws: Vec<String>, settlements: Vec<Settlement>) {
        let credit = u32::try_from(settlements.len()).unwrap_or(0);
        // The stream is gone: what it brought comes again.
        drop(self.requests.send(ReceiveRequest { credit, jws, settlements }).await);
    }
}

fn framed(receipts: &[(u64, Statement)]) -> (Vec<String>, Vec<Settlement>) {
    let mut framer = Framer::new();
    let settle = |(delivery_id, receipt): &(u64, Statement)| Settlement {
        delivery_id: *delivery_id,
        outcome: Some(receipt_outcome(&mut framer, receipt)),
    };
    let settlements = receipts.iter().map(settle).collect();
    (framer.into_jws(), settlements)
}

fn receipt_outcome(framer: &mut Framer, receipt: &Statement) -> Outcome {
    Outcome::Receipt(framer.frame(receipt))
}

/// The turn of one message; ends when it is dropped.
struct Turn {
    busy: Arc<Mutex<HashSet<MessageId>>>,
    id: MessageId,
}

impl Turn {
    fn take(busy: &Arc<Mutex<HashSet<MessageId>>>, id: MessageId) -> Option<Self> {
        let first = busy.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        first.then(|| Self { busy: Arc::clone(busy), id })
    }

    /// Those of the messages that some notices are about, as far as nobody else has them.
    fn of_all(busy: &Arc<Mutex<HashSet<MessageId>>>, notices: &[Notice]) -> HashMap<MessageId, Self> {
        let mut turns = HashMap::new();
        for id in notices.iter().filter_map(|notice| notice.message_id.parse().ok()) {
            if !turns.contains_key(&id) {
                turns.extend(Self::take(busy, id).map(|turn| (id, turn)));
            }
        }
        turns
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
