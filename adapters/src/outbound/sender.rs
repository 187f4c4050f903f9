//! The sender: hands what waits for the gateway over its Submit stream, several frames in flight.
//!
//! Knows frames, leases and the stream. Never knows what an answer means: that is `answer`. Invariants: every lease of a stream that
//! ended is given back; messages of one conversation go one after the other, because the store leases only the first; a gateway that leaves
//! a frame without an answer ends the stream, whatever else it answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prost::Message as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinError, JoinSet},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tramite_proto::{
    batch::{BATCH_MAX, Framer},
    pb::exchange::v1::{FramedMessage, SubmitAnswer, SubmitFrame},
    reason::{Reason, Refused},
};
use tramite_store::{Leased, accepted};

use super::{answer, upload};
use crate::{
    backoff::Backoff,
    core::{Core, GATEWAY, origin, rejected, unreadable},
    link::{Way, refusal_of},
};

/// Messages of a frame, as the contract says.
const FRAME_MESSAGES: usize = BATCH_MAX;
/// Content of a frame: below the 8 MiB of a frame with room for statements.
const FRAME_BYTES: usize = 6 * 1024 * 1024;
/// Frames without an answer: enough to keep the line busy while the gateway's disk works.
const FRAMES_IN_FLIGHT: usize = 4;
/// Messages whose parts go up at the same time; more would only share the line.
const UPLOADS: usize = 2;
/// Bytes a second of the slowest line that an office may have; a frame has so much longer than any other answer.
const LINE_MIN: usize = 16 * 1024;

/// A frame that waits for its answer.
struct InFlight {
    leased: Vec<Leased>,
    /// Since it is the gateway's turn: it was sent, or the frame before it answered.
    since: Instant,
    /// How long it may take from then on.
    patience: Duration,
    _slot: OwnedSemaphorePermit,
}

/// The sender.
#[derive(Debug)]
pub(crate) struct Sender {
    core: Arc<Core>,
}

impl Sender {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Works until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let ended = |first, result| {
            self.core.store.release_all(GATEWAY);
            if let Err(refused) = result {
                tell(first, &self.core.link.because(refused));
            }
        };
        Backoff::run(&self.core.entropy, &stop, || self.session(), ended).await;
    }

    /// One stream, to its end.
    async fn session(&self) -> Result<(), Refused> {
        self.core.link.wait_introduced().await;
        // Nothing to send, no stream: the gateway is not asked in vain, and a broken line is found when it matters.
        self.core.store.arrival(GATEWAY).await;
        let (frames, stream) = mpsc::channel(FRAMES_IN_FLIGHT);
        let session = Arc::new(Session {
            core: Arc::clone(&self.core),
            slots: Arc::new(Semaphore::new(FRAMES_IN_FLIGHT)),
            in_flight: Mutex::default(),
            next: std::sync::atomic::AtomicU64::new(1),
            frames,
        });
        tokio::select! {
            biased;
            ended = session.pump() => ended,
            ended = session.listen(stream) => ended,
        }
    }
}

fn tell(first: bool, refused: &Refused) {
    let (reason, detail) = (refused.reason.as_str(), refused.detail.as_str());
    if first {
        tracing::warn!(reason, detail, "the stream to the gateway ended; what waits is kept and tried again");
    } else {
        tracing::debug!(reason, detail, "still no stream to the gateway");
    }
}

struct Session {
    core: Arc<Core>,
    slots: Arc<Semaphore>,
    in_flight: Mutex<HashMap<u64, InFlight>>,
    next: std::sync::atomic::AtomicU64,
    frames: mpsc::Sender<SubmitFrame>,
}

impl Session {
    /// Leases and sends, for ever.
    async fn pump(self: &Arc<Self>) -> Result<(), Refused> {
        let uploads = Arc::new(Semaphore::new(UPLOADS));
        // Dropped with the session, and the uploads with it.
        let mut tasks = JoinSet::new();
        loop {
            let next = async { Ok::<_, Refused>((self.slot().await?, self.lease().await?)) };
            let (slot, leased) = tokio::select! {
                biased;
                // Heard of at once, however long nothing else arrives: what it could not put off is still leased.
                failed = first_failed(&mut tasks) => return Err(failed),
                next = next => next?,
            };
            let live = still_live(&self.core, leased).await?;
            let (heavy, light): (Vec<_>, Vec<_>) =
                live.into_iter().partition(|leased| accepted(&leased.fact).is_some_and(|fact| !fact.parts.is_empty()));
            if !light.is_empty() {
                self.send(slot, light).await?;
            }
            for leased in heavy {
                let (session, uploads) = (Arc::clone(self), Arc::clone(&uploads));
                tasks.spawn(async move { session.send_with_parts(&uploads, leased).await });
            }
            // A full lot on its way is enough: its leases and contents are in memory.
            while tasks.len() >= FRAME_MESSAGES {
                match tasks.join_next().await {
                    Some(done) => ended(done)?,
                    None => break,
                }
            }
        }
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, Refused> {
        // Never closed.
        Arc::clone(&self.slots).acquire_owned().await.map_err(|_| Refused::because(Reason::ShuttingDown))
    }

    async fn lease(&self) -> Result<Vec<Leased>, Refused> {
        loop {
            let leased = self.core.store.lease(GATEWAY, FRAME_MESSAGES, FRAME_BYTES).map_err(unreadable)?;
            if !leased.is_empty() {
                return Ok(leased);
            }
            self.core.store.arrival(GATEWAY).await;
        }
    }

    /// Parts first; then the message in a frame of its own. A refused part is a failed attempt, and only that.
    async fn send_with_parts(&self, uploads: &Semaphore, leased: Leased) -> Result<(), Refused> {
        let origin = accepted(&leased.fact).ok_or_else(|| Refused::because(Reason::Internal)).and_then(origin);
        let uploaded = match origin {
            Ok((origin, _)) => {
                let _turn = uploads.acquire().await.map_err(|_| Refused::because(Reason::ShuttingDown))?;
                upload::parts(&self.core, &origin).await
            }
            Err(refused) => Err(refused),
        };
        if let Err(refused) = uploaded {
            let failed = self.core.store.commit_one(answer::fail(&self.core, &leased, &refused)).await;
            // Not put off, it would stay with a sender that has done with it: the session ends, and gives it back.
            return failed.map(drop).map_err(rejected);
        }
        let slot = self.slot().await?;
        self.send(slot, vec![leased]).await
    }

    async fn send(&self, slot: OwnedSemaphorePermit, leased: Vec<Leased>) -> Result<(), Refused> {
        let mut framer = Framer::new();
        let mut messages = Vec::with_capacity(leased.len());
        for leased in &leased {
            let fact = accepted(&leased.fact).ok_or_else(|| Refused::because(Reason::Internal))?;
            let statement = fact.statement.as_ref().ok_or_else(|| Refused::because(Reason::Internal))?;
            messages.push(FramedMessage {
                origin: Some(framer.frame(statement)),
                enc: fact.enc.clone(),
                ciphertext: leased.content.clone(),
                traceparent: fact.traceparent.clone(),
            });
        }
        let frame_id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let frame = SubmitFrame { frame_id, jws: framer.into_jws(), messages };
        let patience = self.core.answer_max + Duration::from_secs((frame.encoded_len() / LINE_MIN) as u64);
        let waiting = InFlight { leased, since: Instant::now(), patience, _slot: slot };
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).insert(frame_id, waiting);
        let sent = self.frames.send(frame).await;
        fail::fail_point!("outbound.sent");
        sent.map_err(|_| Refused::new(Reason::ConnectionLost, "the stream to the gateway is closed"))
    }

    /// Takes answers, until there are none.
    async fn listen(&self, frames: mpsc::Receiver<SubmitFrame>) -> Result<(), Refused> {
        let mut client = self.core.link.exchange();
        let answer_max = self.core.answer_max;
        let stream = timeout(answer_max, client.submit(ReceiverStream::new(frames))).await;
        let stream = stream.map_err(|_| self.core.link.blocks(Way::Messages))?.map_err(|status| refusal_of(&status))?;
        let mut answers = stream.into_inner();
        loop {
            let heard = match timeout(answer_max, answers.message()).await {
                Ok(answer) => Some(self.answered(answer.map_err(|status| refusal_of(&status))?)?),
                Err(_) => None,
            };
            // After an answer too, which may be to every frame but one; and before the own disk takes its time.
            let stuck = self.is_stuck();
            if let Some((frame, answer)) = heard {
                self.take(frame, answer).await?;
            }
            if stuck {
                return Err(self.core.link.blocks(Way::Messages));
            }
        }
    }

    fn is_stuck(&self) -> bool {
        let in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        in_flight.values().any(|frame| frame.since.elapsed() > frame.patience)
    }

    /// The frame that has its answer. For those behind it the time begins anew: on a slow line they went out after it.
    fn answered(&self, answer: Option<SubmitAnswer>) -> Result<(InFlight, SubmitAnswer), Refused> {
        let ended = || Refused::new(Reason::ConnectionLost, "the gateway ended the stream");
        let answer = answer.ok_or_else(ended)?;
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = || Refused::new(Reason::FrameInvalid, "the gateway answered a frame that it was not sent");
        let frame = in_flight.remove(&answer.frame_id).ok_or_else(unknown)?;
        for (_, behind) in in_flight.iter_mut().filter(|(id, _)| **id > answer.frame_id) {
            behind.since = Instant::now();
        }
        Ok((frame, answer))
    }

    async fn take(&self, frame: InFlight, answer: SubmitAnswer) -> Result<(), Refused> {
        self.core.link.answers(Way::Messages);
        fail::fail_point!("outbound.answered");
        let ends = answer::ends(&self.core, &frame.leased, answer).await?;
        answer::commit(&self.core, &frame.leased, ends).await
    }
}

/// Waits for a task that failed, for ever if none does.
async fn first_failed(tasks: &mut JoinSet<Result<(), Refused>>) -> Refused {
    while let Some(done) = tasks.join_next().await {
        if let Err(refused) = ended(done) {
            return refused;
        }
    }
    std::future::pending().await
}

/// How a task ended; one that panicked has failed.
fn ended(done: Result<Result<(), Refused>, JoinError>) -> Result<(), Refused> {
    done.unwrap_or_else(|_| Err(Refused::because(Reason::Internal)))
}

/// What has not passed its time since it was leased. The rest goes back first, as what expires must be nobody's, and ends here and now: offered
/// again at once, it would be leased again and again.
///
/// # Errors
/// The store does not take an end.
pub(crate) async fn still_live(core: &Core, leased: Vec<Leased>) -> Result<Vec<Leased>, Refused> {
    let now_ms = core.clock.now_ms();
    let is_past =
        |leased: &Leased| accepted(&leased.fact).is_some_and(|fact| fact.expires_ms != 0 && fact.expires_ms <= now_ms);
    let is_late = |leased: &Leased| is_past(leased) && core.store.believes(now_ms);
    let (late, live): (Vec<_>, Vec<_>) = leased.into_iter().partition(is_late);
    if !late.is_empty() {
        core.store.release(GATEWAY, &late.iter().map(|late| late.sequence).collect::<Vec<_>>());
        answer::commit(core, &late, late.iter().map(answer::expired).collect()).await?;
    }
    Ok(live)
}
