//! The institution that sends: writes, signs and submits as far as the load allows, verifies every acceptance, takes the notices.
//!
//! One task, so that nothing is locked and nobody is woken but by the gateway. Invariants: a message leaves `window` only when all
//! that must come back for it has come back; whatever comes back twice, or for nobody, ends the process with a sentence.

mod correspondent;
mod put;
mod returned;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};
use tramite_proto::{
    batch,
    ids::{Digest, InstitutionName},
    jws::EcdsaSigner,
    pb::{
        exchange::v1::{
            FramedMessage, ReceiveFrame, ReceiveRequest, Settlement, SubmitAnswer, SubmitFrame,
            exchange_client::ExchangeClient,
        },
        statement::v1::FramedStatement,
    },
};

use self::{correspondent::Correspondent, put::Ready};
use super::{
    bare,
    batches::Batches,
    client::{self, Trouble, say},
    network::{GATEWAY, SENDER},
    part::Part,
    time::{Epoch, instant, now_ns, reached},
    wire::{Load, Order, Said, Sent, Setup, Window},
};

/// Sealed bodies in all; more would only take memory.
const POOL: usize = 2_048;
/// Bytes of them in all.
const POOL_BYTES: usize = 8 << 20;
/// Frames that wait for the line.
const AHEAD: usize = 1_024;
/// Notices on their way.
const CREDIT: u32 = 1_024;
/// After the last submission everything must have come back within this.
const DRAIN: Duration = Duration::from_secs(60);
/// How often whoever looks on is told.
const TOLD_EVERY_NS: u64 = 500_000_000;

/// A message on its way.
#[derive(Debug, Clone)]
struct Pending {
    submitted_ns: u64,
    origin: Digest,
    to: Option<usize>,
    acknowledged: bool,
    noticed: bool,
}

struct Sender {
    epoch: Epoch,
    pen: EcdsaSigner,
    gateway: Batches,
    recipients: Vec<Correspondent>,
    absent: Vec<Correspondent>,
    /// What every message has beside its body, when contents are long.
    part: Option<Part>,
    /// Parts on their way.
    puts: JoinSet<Result<Ready, Trouble>>,
    client: ExchangeClient<Channel>,
    frames: mpsc::Sender<SubmitFrame>,
    requests: mpsc::Sender<ReceiveRequest>,
    /// What has not come back, by number from `first`.
    window: VecDeque<Pending>,
    first: u64,
    next: u64,
    unacknowledged: u64,
    unsettled: u64,
    gathered: Vec<Settlement>,
    /// Acknowledged notices whose answers have not come.
    unanswered: u64,
    gather: Duration,
    /// Acknowledged before this run.
    acknowledged_before: u64,
    flush_at: Option<Instant>,
    counting: Option<Window>,
    sent: Sent,
    told_ns: u64,
}

/// The two streams of the sender.
struct Streams {
    answers: Streaming<SubmitAnswer>,
    notices: Streaming<ReceiveFrame>,
}

/// Connects, and does as it is told.
pub(super) async fn run(setup: Setup, mut orders: mpsc::Receiver<Order>) -> Result<(), Trouble> {
    let (frames, frames_out) = mpsc::channel(AHEAD);
    let (requests, requests_out) = mpsc::channel(AHEAD);
    let mut client = client::exchange(&setup.folder, SENDER, &setup.address)?;
    let mut sender = Sender::new(&setup, client.clone(), frames, requests)?;
    let failed = |status: tonic::Status| Trouble::status("a stream of the sender", &status);
    let answers = client.submit(ReceiverStream::new(frames_out)).await.map_err(failed)?.into_inner();
    sender.request(ReceiveRequest { credit: CREDIT, ..ReceiveRequest::default() }).await?;
    let notices = client.receive(ReceiverStream::new(requests_out)).await.map_err(failed)?.into_inner();
    let mut streams = Streams { answers, notices };
    say(&Said::Ready { address: String::new() });
    while let Some(order) = orders.recv().await {
        match order {
            Order::Run { window, load } => {
                sender.gather = load.gather(&setup);
                sender.run(&mut streams, window, load).await?;
            }
            Order::Fill { count, load } => sender.fill(&mut streams, count, load).await?,
            Order::Stream { address, window, load } => {
                let letters = sender.recipients.first().map(|one| one.letters.clone()).unwrap_or_default();
                let sent = match &sender.part {
                    None => bare::load(&setup, &address, window, load, &letters).await?,
                    Some(part) => bare::put(&setup, &address, window, load, part).await?,
                };
                say(&Said::Sent(Box::new(sent)));
            }
            Order::Tell { .. } => {}
        }
    }
    Ok(())
}

impl Sender {
    fn new(
        setup: &Setup,
        client: ExchangeClient<Channel>,
        frames: mpsc::Sender<SubmitFrame>,
        requests: mpsc::Sender<ReceiveRequest>,
    ) -> Result<Self, Trouble> {
        let from: InstitutionName = SENDER.parse().map_err(|error| Trouble::of("the sender's name", &error))?;
        let pool = (POOL_BYTES / setup.content).clamp(4, POOL) / setup.recipients.len().max(1);
        let part = setup.part.map(Part::seal).transpose()?;
        let correspondents = |names: &[String], pool: usize, part: Option<&Part>| {
            let one = |name: &String| Correspondent::new(setup, &from, name, pool.max(1), part);
            names.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            epoch: setup.epoch(),
            pen: client::pen(&setup.folder, SENDER)?,
            gateway: Batches::of(&setup.folder, GATEWAY)?,
            recipients: correspondents(&setup.recipients, pool, part.as_ref())?,
            absent: correspondents(&setup.absent, 16, None)?,
            part,
            puts: JoinSet::new(),
            client,
            frames,
            requests,
            window: VecDeque::new(),
            first: 0,
            next: 0,
            unacknowledged: 0,
            unsettled: 0,
            gathered: Vec::new(),
            unanswered: 0,
            gather: Duration::ZERO,
            acknowledged_before: 0,
            flush_at: None,
            counting: None,
            sent: Sent::default(),
            told_ns: 0,
        })
    }

    /// One run, to the last notice.
    async fn run(&mut self, streams: &mut Streams, window: Window, load: Load) -> Result<(), Trouble> {
        self.begin(Some(window));
        sleep_until(instant(window.begin_ns)).await;
        let mut now = now_ns();
        while now < window.end_ns {
            while now < window.end_ns && self.may_submit(load) {
                match self.part.clone() {
                    None => self.submit(load.frame, false).await?,
                    Some(part) => self.put(part)?,
                }
                now = now_ns();
            }
            self.step(streams, window.end_ns).await?;
            now = now_ns();
            self.tell(now);
        }
        self.drain(streams).await?;
        self.end();
        Ok(())
    }

    /// So many for the absent.
    async fn fill(&mut self, streams: &mut Streams, count: u64, load: Load) -> Result<(), Trouble> {
        self.begin(None);
        let mut left = count;
        while left > 0 {
            while left > 0 && self.may_submit(load) {
                let frame = load.frame.min(left);
                self.submit(frame, true).await?;
                left -= frame;
            }
            self.step(streams, u64::MAX).await?;
            self.tell(now_ns());
        }
        self.drain(streams).await?;
        self.end();
        Ok(())
    }

    fn begin(&mut self, counting: Option<Window>) {
        self.counting = counting;
        self.acknowledged_before = self.sent.acknowledged;
        self.sent.window = 0;
        self.sent.acknowledgement = super::histogram::Histogram::default();
        self.sent.notice = super::histogram::Histogram::default();
    }

    fn end(&mut self) {
        self.sent.batches = self.gateway.verified + self.recipients.iter().map(|one| one.batches.verified).sum::<u64>();
        say(&Said::Sent(Box::new(self.sent.clone())));
    }

    fn tell(&mut self, now: u64) {
        if now.saturating_sub(self.told_ns) > TOLD_EVERY_NS {
            self.told_ns = now;
            say(&Said::Progress { count: self.sent.acknowledged - self.acknowledged_before });
        }
    }

    /// A frame fits into the load, and onto the line: waiting for the line before any answer is read, both sides would wait for ever.
    fn may_submit(&self, load: Load) -> bool {
        self.unacknowledged + load.frame <= load.in_flight
            && self.unsettled + load.frame <= load.unsettled
            && self.frames.capacity() > 0
    }

    /// Writes, signs and submits one frame of so many.
    async fn submit(&mut self, count: u64, absent: bool) -> Result<(), Trouble> {
        // Before anything is written: what the frame costs the sender is part of the time that a message takes.
        let at_ns = now_ns();
        let frame_id = self.next;
        let mut jsons: Vec<Bytes> = Vec::with_capacity(64);
        let mut messages = Vec::with_capacity(64);
        for number in frame_id..frame_id + count {
            let (json, message) = self.write(at_ns, number, absent)?;
            messages.push(message);
            jsons.push(json);
        }
        self.count(count, absent);
        self.sign_and_send(frame_id, at_ns, &jsons, messages).await
    }

    /// Writes one message: its origin, and what goes with it.
    fn write(&mut self, at_ns: u64, number: u64, absent: bool) -> Result<(Bytes, FramedMessage), Trouble> {
        let list = if absent { &mut self.absent } else { &mut self.recipients };
        let place = place_of(number, list);
        let to = list.get_mut(place).ok_or_else(nobody)?;
        let letter = to.letter()?;
        let (jti, cid) = (self.epoch.message(at_ns, number), self.epoch.conversation(at_ns, number));
        let json = letter.write(&jti, &cid, self.epoch.unix_s(at_ns));
        let message = FramedMessage {
            origin: None,
            enc: letter.enc.clone(),
            ciphertext: letter.ciphertext.clone(),
            traceparent: String::new(),
        };
        let origin = Digest::of(&json);
        let to = (!absent).then_some(place);
        self.window.push_back(Pending { submitted_ns: at_ns, origin, to, acknowledged: false, noticed: absent });
        Ok((json, message))
    }

    /// To whom the message with that number goes.
    fn audience(&self, number: u64) -> Result<InstitutionName, Trouble> {
        let to = self.recipients.get(place_of(number, &self.recipients));
        to.map(|to| to.name.clone()).ok_or_else(nobody)
    }

    /// So many more are on their way.
    fn count(&mut self, count: u64, absent: bool) {
        self.next += count;
        self.unacknowledged += count;
        self.sent.submitted += count;
        if absent {
            self.sent.absent += count;
        } else {
            self.unsettled += count;
        }
    }

    /// Signs what was written, once for the frame, and sends it.
    async fn sign_and_send(
        &mut self,
        frame_id: u64,
        at_ns: u64,
        jsons: &[Bytes],
        mut messages: Vec<FramedMessage>,
    ) -> Result<(), Trouble> {
        let signed = batch::sign(&self.pen, self.epoch.unix_s(at_ns), jsons);
        let signed = signed.map_err(|error| Trouble::of("signing", &error))?;
        let mut jws = Vec::with_capacity(1);
        for (message, statement) in messages.iter_mut().zip(signed) {
            if jws.is_empty() {
                jws.push(statement.jws);
            }
            let (json, index, path) = (statement.json, statement.index, statement.path);
            message.origin = Some(FramedStatement { json, jws_index: 0, index, path });
        }
        let sent = self.frames.send(SubmitFrame { frame_id, jws, messages }).await;
        sent.map_err(|_| Trouble::new("the gateway ended the stream of submissions".to_owned()))
    }

    /// Takes one thing that comes, or waits until then.
    async fn step(&mut self, streams: &mut Streams, until_ns: u64) -> Result<(), Trouble> {
        tokio::select! {
            biased;
            () = reached(self.flush_at) => self.flush().await,
            Some(put) = self.puts.join_next() => {
                let ready = put.map_err(|error| Trouble::of("putting a part", &error))??;
                self.submit_put(ready).await
            }
            answer = streams.answers.message() => match answer {
                Ok(Some(answer)) => self.answered(answer),
                Ok(None) => Err(Trouble::new("the gateway ended the stream of submissions".to_owned())),
                Err(status) => Err(Trouble::status("the stream of submissions", &status)),
            },
            frame = streams.notices.message() => match frame {
                Ok(Some(frame)) => self.noticed(frame).await,
                Ok(None) => Err(Trouble::new("the gateway ended the stream of notices".to_owned())),
                Err(status) => Err(Trouble::status("the stream of notices", &status)),
            },
            () = sleep_until(instant(until_ns)), if until_ns != u64::MAX => Ok(()),
        }
    }

    /// Nothing is on its way, and nothing of the sender's waits at the gateway.
    fn has_all_back(&self) -> bool {
        self.window.is_empty() && self.gathered.is_empty() && self.unanswered == 0
    }

    /// Until everything has come back.
    async fn drain(&mut self, streams: &mut Streams) -> Result<(), Trouble> {
        let last = Instant::now() + DRAIN;
        while !self.has_all_back() {
            tokio::select! {
                stepped = self.step(streams, u64::MAX) => stepped?,
                () = sleep_until(last) => {
                    let sentence = format!(
                        "{} messages have not come back {} s after the last was submitted, {} of them not acknowledged; {} notices \
                         that were acknowledged have no answer",
                        self.window.len(), DRAIN.as_secs(), self.unacknowledged, self.unanswered
                    );
                    return Err(Trouble::new(sentence));
                }
            }
        }
        Ok(())
    }
}

/// The recipients take turns.
fn place_of(number: u64, list: &[Correspondent]) -> usize {
    usize::try_from(number).unwrap_or(0) % list.len().max(1)
}

fn nobody() -> Trouble {
    Trouble::new("there is nobody to send to".to_owned())
}
