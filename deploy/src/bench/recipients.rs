//! The institutions that receive: each has a connection, keys and a cache of verified batches of its own; one process holds them all.
//!
//! What an adapter does without opening: digests of what came against the origin, the origin's batch and inclusion, the acceptance's,
//! then a receipt, signed with others, and the word that it stands. Invariant: what was delivered is counted by its number, so that
//! nothing that comes twice passes for something new.

mod accounts;
#[cfg(test)]
mod tests;

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use tokio::{
    sync::mpsc,
    task::{JoinSet, LocalSet},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};
use tramite_proto::{
    batch,
    ids::{Digest, InstitutionName, MessageId},
    jws::EcdsaSigner,
    pb::{
        exchange::v1::{
            Delivery, ReceiveFrame, ReceiveRequest, Settlement, exchange_client::ExchangeClient, settlement,
        },
        statement::v1::FramedStatement,
    },
    statement::{Event, Evidence, Origin},
};

use self::accounts::{Accounts, begin, tell};
use super::{
    batches::Batches,
    client::{self, Trouble, say},
    letter::ReceiptForm,
    network::{GATEWAY, SENDER},
    part,
    time::{Epoch, now_ns, reached},
    wire::{Order, Said, Setup},
};

/// Deliveries on their way to one recipient: the most that a gateway gives.
const CREDIT: u32 = 1_024;
/// The same when each has a part to be fetched: a gateway lets an institution fetch 16 at a time.
const CREDIT_OF_PARTS: u32 = 8;
/// Receipts under one signature.
const GATHERED_MAX: usize = 64;
/// Requests that wait for the line: each gives credit back, so there are never more.
const AHEAD: usize = CREDIT as usize;
/// Between the ids of receipts and those of messages: their numbers begin here.
const RECEIPTS_FROM: u64 = 1 << 48;

/// A delivery that was checked, but for its parts.
#[derive(Debug)]
struct Taken {
    delivery_id: u64,
    origin: Origin,
    identity: Digest,
    /// Bytes of its parts that came.
    part_bytes: u64,
}

/// One recipient.
struct Recipient {
    epoch: Epoch,
    name: InstitutionName,
    pen: EcdsaSigner,
    form: ReceiptForm,
    sender: Batches,
    gateway: Batches,
    client: ExchangeClient<Channel>,
    requests: mpsc::Sender<ReceiveRequest>,
    /// Deliveries whose parts are being fetched.
    fetches: JoinSet<Result<Taken, Trouble>>,
    /// Receipts that wait for a signature: the delivery, when the message was submitted, the receipt's text.
    gathered: Vec<(u64, u64, bytes::Bytes)>,
    /// What was settled and waits for its answer: the delivery, and when its message was submitted.
    unanswered: VecDeque<(u64, u64)>,
    flush_at: Option<Instant>,
    accounts: Rc<RefCell<Accounts>>,
}

/// Connects every recipient, and does as it is told.
pub(super) async fn run(setup: Setup, orders: mpsc::Receiver<Order>) -> Result<(), Trouble> {
    LocalSet::new().run_until(within(setup, orders)).await
}

async fn within(setup: Setup, mut orders: mpsc::Receiver<Order>) -> Result<(), Trouble> {
    let accounts = Rc::new(RefCell::new(Accounts::default()));
    let (failed, mut failures) = mpsc::channel(1);
    for name in &setup.recipients {
        let (recipient, frames) = Recipient::connect(&setup, name, Rc::clone(&accounts)).await?;
        let failed = failed.clone();
        tokio::task::spawn_local(async move {
            if let Err(trouble) = recipient.receive(frames).await {
                // The first one is told; the rest follows from it.
                let _ = failed.try_send(trouble);
            }
        });
    }
    say(&Said::Ready { address: String::new() });
    loop {
        tokio::select! {
            trouble = failures.recv() => return Err(trouble.unwrap_or_else(|| Trouble::new("nobody receives".to_owned()))),
            order = orders.recv() => match order {
                None => return Ok(()),
                Some(Order::Run { window, load }) => begin(&accounts, window, load.gather(&setup)),
                Some(Order::Tell { settled }) => tell(&accounts, settled).await?,
                Some(Order::Fill { .. } | Order::Stream { .. }) => {}
            },
        }
    }
}

impl Recipient {
    /// With its keys; what it asks for goes to the line.
    fn new(
        setup: &Setup,
        name: &str,
        requests: mpsc::Sender<ReceiveRequest>,
        accounts: Rc<RefCell<Accounts>>,
    ) -> Result<Self, Trouble> {
        let own: InstitutionName = name.parse().map_err(|error| Trouble::of("a recipient's name", &error))?;
        let from: InstitutionName = SENDER.parse().map_err(|error| Trouble::of("the sender's name", &error))?;
        Ok(Self {
            epoch: setup.epoch(),
            pen: client::pen(&setup.folder, name)?,
            form: ReceiptForm::new(&own, &from)?,
            name: own,
            sender: Batches::of(&setup.folder, SENDER)?,
            gateway: Batches::of(&setup.folder, GATEWAY)?,
            client: client::exchange(&setup.folder, name, &setup.address)?,
            requests,
            fetches: JoinSet::new(),
            gathered: Vec::new(),
            unanswered: VecDeque::new(),
            flush_at: None,
            accounts,
        })
    }

    async fn connect(
        setup: &Setup,
        name: &str,
        accounts: Rc<RefCell<Accounts>>,
    ) -> Result<(Self, Streaming<ReceiveFrame>), Trouble> {
        let (requests, requests_out) = mpsc::channel(AHEAD);
        let recipient = Self::new(setup, name, requests, accounts)?;
        let credit = if setup.part.is_some() { CREDIT_OF_PARTS } else { CREDIT };
        recipient.request(ReceiveRequest { credit, ..ReceiveRequest::default() }).await?;
        let mut client = recipient.client.clone();
        let frames = client.receive(ReceiverStream::new(requests_out)).await;
        let frames = frames.map_err(|status| Trouble::status("a stream of a recipient", &status))?.into_inner();
        Ok((recipient, frames))
    }

    /// Until the stream ends, which it must not.
    async fn receive(mut self, mut frames: Streaming<ReceiveFrame>) -> Result<(), Trouble> {
        loop {
            tokio::select! {
                biased;
                () = reached(self.flush_at) => self.flush().await?,
                Some(fetched) = self.fetches.join_next() => {
                    let taken = fetched.map_err(|error| Trouble::of("fetching a part", &error))??;
                    self.receipt(&taken)?;
                    self.gather().await?;
                }
                frame = frames.message() => match frame {
                    Ok(Some(frame)) => self.frame(frame).await?,
                    Ok(None) => return Err(Trouble::new(format!("the gateway ended the stream of {}", self.name))),
                    Err(status) => return Err(Trouble::status(&format!("the stream of {}", self.name), &status)),
                },
            }
        }
    }

    async fn frame(&mut self, frame: ReceiveFrame) -> Result<(), Trouble> {
        if !frame.notices.is_empty() {
            return Err(Trouble::new(format!("{} got a notice, and sent nothing", self.name)));
        }
        self.settled(&frame)?;
        for delivery in frame.deliveries {
            self.take(&frame.jws, delivery)?;
            if self.gathered.len() == GATHERED_MAX {
                self.flush().await?;
            }
        }
        self.gather().await
    }

    /// Signs what is enough, and gives the rest time for more.
    async fn gather(&mut self) -> Result<(), Trouble> {
        if self.gathered.len() == GATHERED_MAX {
            return self.flush().await;
        }
        if !self.gathered.is_empty() && self.flush_at.is_none() {
            self.flush_at = Some(Instant::now() + self.accounts.borrow().gather);
        }
        Ok(())
    }

    /// Answers to settlements, in the order in which they were sent.
    fn settled(&mut self, frame: &ReceiveFrame) -> Result<(), Trouble> {
        let now = now_ns();
        let mut accounts = self.accounts.borrow_mut();
        for answer in &frame.settled {
            if let Some(refusal) = &answer.refused {
                let sentence = format!("a receipt was refused ({}): {}", refusal.reason, refusal.detail);
                return Err(Trouble::new(sentence));
            }
            let (delivery_id, submitted_ns) = self.unanswered.pop_front().unwrap_or_default();
            if delivery_id != answer.delivery_id {
                return Err(Trouble::new("a settlement was answered that was not asked for".to_owned()));
            }
            accounts.received.settled += 1;
            if accounts.counting.is_some_and(|window| window.counts(now)) {
                accounts.received.window += 1;
                accounts.received.handover.record(now.saturating_sub(submitted_ns));
            }
        }
        if !frame.settled.is_empty() {
            accounts.moved.notify_one();
        }
        Ok(())
    }

    /// Checks one message, and writes its receipt when it has no part; else when the part is here.
    fn take(&mut self, jws: &[String], delivery: Delivery) -> Result<(), Trouble> {
        let missing = || Trouble::new("a delivery lacks its message, its origin or its acceptance".to_owned());
        let message = delivery.message.ok_or_else(missing)?;
        let json = self.sender.check(jws, message.origin.ok_or_else(missing)?)?;
        let origin = Origin::parse(&json).map_err(|refused| Trouble::refused("an origin", &refused))?;
        let checked = origin.check_content(&message.enc, &message.ciphertext);
        checked.map_err(|refused| Trouble::refused("a content", &refused))?;
        let identity = Digest::of(&json);
        let accepted = self.gateway.check(jws, delivery.acceptance.ok_or_else(missing)?)?;
        let accepted = Evidence::parse(&accepted).map_err(|refused| Trouble::refused("an acceptance", &refused))?;
        let fits = accepted.evt == Event::SubmissionAcceptance
            && accepted.mid == origin.jti
            && accepted.org_s256 == identity
            && origin.aud == self.name;
        if !fits {
            return Err(Trouble::new("a delivery's acceptance is not about its message".to_owned()));
        }
        let taken = Taken { delivery_id: delivery.delivery_id, origin, identity, part_bytes: 0 };
        if taken.origin.parts.is_empty() {
            return self.receipt(&taken);
        }
        let client = self.client.clone();
        self.fetches.spawn(async move {
            let part_bytes = part::get(client, &taken.origin).await?;
            Ok(Taken { part_bytes, ..taken })
        });
        Ok(())
    }

    /// Writes the receipt of a message that is here whole and checked: now it counts as delivered.
    fn receipt(&mut self, taken: &Taken) -> Result<(), Trouble> {
        let Taken { delivery_id, origin, identity, part_bytes } = taken;
        self.accounts.borrow_mut().received.part_bytes += part_bytes;
        let now = now_ns();
        let (submitted_ns, number) = self.epoch.read(&origin.jti);
        let jti = self.account(now, submitted_ns, number)?;
        let at_s = self.epoch.unix_s(now);
        let receipt = self.form.write(&jti, &origin.jti, identity, &origin.ct.s256, &origin.ptc, at_s);
        self.gathered.push((*delivery_id, submitted_ns, receipt));
        Ok(())
    }

    /// Counts a delivery; gives the id of its receipt.
    fn account(&self, now: u64, submitted_ns: u64, number: u64) -> Result<MessageId, Trouble> {
        let mut accounts = self.accounts.borrow_mut();
        accounts.received.delivered += 1;
        if accounts.seen.again(number) {
            return Err(Trouble::new(format!("message {number} was delivered twice")));
        }
        if accounts.counting.is_some_and(|window| window.counts(now)) {
            accounts.received.delivery.record(now.saturating_sub(submitted_ns));
        }
        accounts.receipts += 1;
        Ok(self.epoch.message(now, RECEIPTS_FROM + accounts.receipts))
    }

    /// Signs what was gathered, settles it, and gives the credit back.
    async fn flush(&mut self) -> Result<(), Trouble> {
        self.flush_at = None;
        let mut jsons = Vec::with_capacity(self.gathered.len());
        let mut settlements = Vec::with_capacity(self.gathered.len());
        for (delivery_id, submitted_ns, json) in self.gathered.drain(..) {
            self.unanswered.push_back((delivery_id, submitted_ns));
            settlements.push(Settlement { delivery_id, outcome: None });
            jsons.push(json);
        }
        let iat = self.epoch.unix_s(now_ns());
        let signed = batch::sign(&self.pen, iat, &jsons).map_err(|error| Trouble::of("signing", &error))?;
        let mut jws = Vec::with_capacity(1);
        for (settlement, statement) in settlements.iter_mut().zip(signed) {
            if jws.is_empty() {
                jws.push(statement.jws);
            }
            let (json, index, path) = (statement.json, statement.index, statement.path);
            settlement.outcome =
                Some(settlement::Outcome::Receipt(FramedStatement { json, jws_index: 0, index, path }));
        }
        {
            let mut accounts = self.accounts.borrow_mut();
            accounts.received.receipts_signed += 1;
            let verified = self.sender.verified + self.gateway.verified;
            (self.sender.verified, self.gateway.verified) = (0, 0);
            accounts.received.batches += verified;
        }
        let credit = u32::try_from(settlements.len()).unwrap_or(0);
        self.request(ReceiveRequest { credit, jws, settlements }).await
    }

    async fn request(&self, request: ReceiveRequest) -> Result<(), Trouble> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| Trouble::new(format!("the gateway ended the stream of {}", self.name)))
    }
}
