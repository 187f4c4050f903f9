//! Traffic at a gateway whose institutions the test plays: one sends in full frames, one receives and settles, and the first reads the
//! news of it. Whatever is answered goes into the accounts at once.
//!
//! Knows how a sound peer behaves: after a break it repeats everything under the same ids. Invariant: a task here ends when its
//! connection does; nothing is concluded from a break.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tramite_proto::{batch, jws::VerifyingKey, pb::statement::v1::SealedMessage};

use crate::{
    accounts::{Book, Entry},
    attack::{Player, connect},
    config::GATEWAY,
    forge::{BLIND_BYTES, Draft, b64, random},
    network::Network,
    receiving::{Noticed, Receiving},
    submitting::{Part, Submitting},
};

/// Messages, deliveries or notices in one frame.
const FRAME_MAX: usize = 64;
/// Frames of a sender that wait for their answers.
const IN_FLIGHT: usize = 4;
/// Deliveries that a recipient takes before it has settled the first.
const CREDIT: u32 = 256;
/// As long as something waits, some of it is delivered, settled or told of within this. How long all of it takes is the machine's affair.
const DRAIN_SILENCE_MAX: Duration = Duration::from_secs(60);
/// Something that comes twice comes at once; only time shows that nothing does.
const SILENCE: Duration = Duration::from_millis(300);

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Messages in a frame, 1 to 64.
    pub frame: usize,
    /// Bytes of a ciphertext: a power of two and 16.
    pub content: usize,
    /// Bytes of a part before it was sealed; with a part, frames hold one message.
    pub part: Option<u64>,
    /// Senders at a time, each with a stream of its own.
    pub senders: usize,
    /// Frames of each, at most.
    pub frames: usize,
    /// Whether there is somebody who receives.
    pub received: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { frame: FRAME_MAX, content: BLIND_BYTES, part: None, senders: 1, frames: 400, received: true }
    }
}

/// Two institutions at work, until their connections break.
#[derive(Debug)]
pub struct Traffic {
    book: Arc<Book>,
    sending: JoinSet<Result<()>>,
    receiving: JoinSet<Result<()>>,
}

impl Traffic {
    /// Connects both and begins.
    ///
    /// # Errors
    /// When the gateway does not serve.
    pub async fn start(network: &Network, book: &Arc<Book>, shape: Shape) -> Result<Self> {
        let caritas = Arc::new(connect(network, "caritas").await?);
        let mut sending = JoinSet::new();
        for _ in 0..shape.senders {
            sending.spawn(send(Arc::clone(&caritas), Arc::clone(book), shape));
        }
        let mut traffic = Self { book: Arc::clone(book), sending, receiving: JoinSet::new() };
        if shape.received {
            traffic.receive(network).await?;
        }
        Ok(traffic)
    }

    /// Nobody sends; what waits is received, settled and told of.
    ///
    /// # Errors
    /// When the gateway does not serve.
    pub async fn of_recipients(network: &Network, book: &Arc<Book>) -> Result<Self> {
        Self::start(network, book, Shape { senders: 0, ..Shape::default() }).await
    }

    async fn receive(&mut self, network: &Network) -> Result<()> {
        for name in ["inps", "caritas"] {
            let (player, signers) = (connect(network, name).await?, Signers::of(network)?);
            self.receiving.spawn(receive(player, Arc::clone(&self.book), signers));
        }
        Ok(())
    }

    /// Waits until every sender has got its last answer, or has lost its connection.
    ///
    /// # Errors
    /// When a task of it panics.
    pub async fn sent(&mut self) -> Result<()> {
        while let Some(ended) = self.sending.join_next().await {
            // A break is what tests are about.
            drop(ended?);
        }
        Ok(())
    }

    /// Waits until all is over, which is after the gateway is gone.
    ///
    /// # Errors
    /// When a task of it panics.
    pub async fn over(mut self) -> Result<()> {
        self.sent().await?;
        while let Some(ended) = self.receiving.join_next().await {
            drop(ended?);
        }
        Ok(())
    }
}

/// Who must have signed what a sender is told.
struct Signers {
    recipient: VerifyingKey,
    gateway: VerifyingKey,
}

impl Signers {
    fn of(network: &Network) -> Result<Self> {
        let key = |name: &str| {
            let leaf = network.pki.pen(name)?.chain.into_iter().next().context("a certificate")?;
            VerifyingKey::from_certificate(&leaf).with_context(|| format!("the key of {name}"))
        };
        Ok(Self { recipient: key("inps")?, gateway: key(GATEWAY)? })
    }

    fn check(&self, noticed: &Noticed) -> Result<()> {
        let signed =
            [(&noticed.receipt, &self.recipient, "its receipt"), (&noticed.evidence, &self.gateway, "its evidence")];
        for (statement, key, what) in signed {
            let Some(statement) = statement else { continue };
            let header = batch::verify(&statement.jws, key).with_context(|| format!("the signature on {what}"))?;
            batch::check_inclusion(statement, &header).with_context(|| format!("{what} in its batch"))?;
        }
        Ok(())
    }
}

/// Messages as the shape says, signed together, each with an account.
fn prepare(player: &Player, book: &Book, shape: Shape) -> Result<Vec<(String, SealedMessage, Option<Part>)>> {
    let drafts: Vec<(Draft, Option<Part>)> = (0..shape.frame).map(|_| draft(shape)).collect();
    let jsons: Vec<Vec<u8>> = drafts.iter().map(|(draft, _)| draft.origin.json()).collect();
    let mut prepared = Vec::new();
    for ((draft, part), statement) in drafts.into_iter().zip(player.pen.batch(&jsons)?) {
        let (id, message) = (draft.id().to_owned(), draft.carrying(statement));
        book.note(|accounts| accounts.open(draft.origin, message.clone(), part));
        prepared.push((id, message, part));
    }
    Ok(prepared)
}

fn draft(shape: Shape) -> (Draft, Option<Part>) {
    // No two are the same, and no sector of one could be lost unseen.
    let ciphertext = random::<32>().into_iter().cycle().take(shape.content).collect();
    let draft = Draft::blind_over("caritas", "inps", ciphertext);
    let Some(plain) = shape.part else { return (draft, None) };
    let part = Part::of(draft.id(), plain);
    let named = serde_json::json!([{"len": part.length, "s256": b64(&part.sha256)}]);
    (draft.with("parts", named), Some(part))
}

/// Sends until the connection breaks or enough is sent; frames go out while answers to earlier ones are awaited.
async fn send(player: Arc<Player>, book: Arc<Book>, shape: Shape) -> Result<()> {
    let mut stream = Submitting::open(&player.peer).await?;
    let mut waiting: VecDeque<Vec<String>> = VecDeque::new();
    // A part is large enough to keep the gateway busy by itself.
    let in_flight = if shape.part.is_some() { 1 } else { IN_FLIGHT };
    for number in 0..shape.frames {
        if send_one(&player, &book, shape, number, &stream, &mut waiting).await.is_err() {
            break;
        }
        if waiting.len() == in_flight {
            answer(&mut stream, &mut waiting, &book).await?;
        }
    }
    // After a break too: what has come by then was answered.
    while !waiting.is_empty() {
        answer(&mut stream, &mut waiting, &book).await?;
    }
    Ok(())
}

async fn send_one(
    player: &Player,
    book: &Book,
    shape: Shape,
    number: usize,
    stream: &Submitting,
    waiting: &mut VecDeque<Vec<String>>,
) -> Result<()> {
    let prepared = prepare(player, book, shape)?;
    for (id, _, part) in &prepared {
        if let Some(part) = part {
            let anew = part.put(&player.peer, id, "inps").await?;
            book.note(|accounts| accounts.stored(id, anew));
        }
    }
    let messages: Vec<SealedMessage> = prepared.iter().map(|(_, message, _)| message.clone()).collect();
    stream.send(u64::try_from(number)?, &messages).await?;
    waiting.push_back(prepared.into_iter().map(|(id, ..)| id).collect());
    Ok(())
}

async fn answer(stream: &mut Submitting, waiting: &mut VecDeque<Vec<String>>, book: &Book) -> Result<()> {
    let (_, answers) = stream.answer().await?;
    let ids = waiting.pop_front().context("an answer to nothing")?;
    ensure!(ids.len() == answers.len(), "{} answers to {} messages", answers.len(), ids.len());
    book.note(|accounts| ids.iter().zip(answers).for_each(|(id, answer)| accounts.answered(id, answer)));
    Ok(())
}

/// Settles what comes and acknowledges news, until the connection breaks.
async fn receive(player: Player, book: Arc<Book>, signers: Signers) -> Result<()> {
    let mut inbox = Receiving::open(&player.peer, CREDIT).await?;
    loop {
        let (deliveries, notices) = inbox.next(FRAME_MAX).await?;
        let mut receipts = Vec::new();
        let mut ids = Vec::new();
        for delivered in deliveries {
            let Some((id, receipt, part)) = book.note(|accounts| accounts.delivered(&delivered)) else { continue };
            if let Some(part) = part
                && !part.is_there(&player.peer, &id).await?
            {
                book.note(|accounts| accounts.lost.push(format!("{id}: its part is another")));
            }
            receipts.push((delivered.delivery.delivery_id, receipt));
            ids.push(id);
        }
        if !receipts.is_empty() {
            let answers = inbox.receipts(&receipts, &player.pen).await?;
            for (id, answer) in ids.iter().zip(answers) {
                book.note(|accounts| accounts.settled(id, answer.refused));
            }
        }
        for noticed in &notices {
            if let Err(error) = signers.check(noticed) {
                book.note(|accounts| accounts.lost.push(format!("news of {}: {error:#}", noticed.notice.message_id)));
            }
        }
        let told: Vec<String> = notices.iter().map(|noticed| book.note(|accounts| accounts.told(noticed))).collect();
        if !told.is_empty() {
            let numbers: Vec<u64> = notices.iter().map(|noticed| noticed.notice.delivery_id).collect();
            let answers = inbox.all_noticed(&numbers).await?;
            let stands = told.iter().zip(answers).filter(|(_, answer)| answer.refused.is_none());
            book.note(|accounts| stands.for_each(|(id, _)| accounts.told_for_good(id)));
        }
    }
}

/// Repeats every message from a place on, as a sender does after a break, and holds each answer against the first.
///
/// # Errors
/// When the gateway does not serve.
pub async fn repeat(network: &Network, book: &Book, from: usize) -> Result<()> {
    let caritas = connect(network, "caritas").await?;
    let mut stream = Submitting::open(&caritas.peer).await?;
    let entries = book.note(|accounts| {
        accounts.broken();
        accounts.from(from)
    });
    for entry in &entries {
        put_again(&caritas, book, entry).await?;
    }
    for frame in entries.chunks(FRAME_MAX) {
        let messages: Vec<SealedMessage> = frame.iter().map(|entry| entry.message.clone()).collect();
        let answers = stream.ask(&messages).await?;
        let ids = frame.iter().map(|entry| entry.origin.text("jti"));
        book.note(|accounts| ids.zip(answers).for_each(|(id, answer)| accounts.answered(id, answer)));
    }
    Ok(())
}

async fn put_again(player: &Player, book: &Book, entry: &Entry) -> Result<()> {
    // The part of a settled message is gone, and rightly so.
    let Some(part) = entry.part.filter(|_| !entry.delivered) else { return Ok(()) };
    let id = entry.origin.text("jti");
    let anew = part.put(&player.peer, id, "inps").await?;
    book.note(|accounts| accounts.stored(id, anew));
    Ok(())
}

/// Receives and settles all that waits, and closes the accounts.
///
/// # Errors
/// When the gateway does not serve.
pub async fn drain(network: &Network, book: &Arc<Book>) -> Result<()> {
    let mut recipients = Traffic::of_recipients(network, book).await?;
    if book.until(DRAIN_SILENCE_MAX, |accounts| accounts.all_told()).await {
        tokio::time::sleep(SILENCE).await;
    }
    recipients.receiving.shutdown().await;
    book.note(|accounts| accounts.close());
    Ok(())
}
