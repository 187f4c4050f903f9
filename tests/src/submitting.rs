//! A sender that somebody wrote by hand: frames of up to 64 messages up a `Submit` stream, answers down, and parts beside it.
//!
//! Knows how a frame is built. Invariant: a frame's answers come back as statements that stand alone, in the order of its messages.

use std::{collections::HashMap, sync::OnceLock, time::Duration};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::{
    digest::{Context as Hash, SHA256},
    rand::fill,
};
use bytes::Bytes;
use tokio::{sync::mpsc::Sender, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tramite_proto::{
    parts::{FRAME_MAX, PLAIN_MAX, sealed_len},
    pb::{
        exchange::v1::{
            FramedMessage, GetPartRequest, PartHeader, PutPartRequest, Refusal, SubmitAnswer, SubmitFrame,
            put_part_request::Frame, submit_result,
        },
        statement::v1::{FramedStatement, SealedMessage, Statement},
    },
};

use crate::{raw::RawPeer, receiving::alone};

/// Frames that wait in an open stream.
const FRAMES_MAX: usize = 4;
/// How long one answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// An open `Submit` stream.
#[derive(Debug)]
pub struct Submitting {
    up: Sender<SubmitFrame>,
    down: Streaming<SubmitAnswer>,
}

/// What became of one message.
pub type Answer = Result<Statement, Refusal>;

impl Submitting {
    /// Opens the stream.
    ///
    /// # Errors
    /// The gateway's refusal.
    pub async fn open(peer: &RawPeer) -> Result<Self, Status> {
        let (up, frames) = tokio::sync::mpsc::channel(FRAMES_MAX);
        let down = peer.exchange().submit(ReceiverStream::new(frames)).await?.into_inner();
        Ok(Self { up, down })
    }

    /// Sends 1 to 64 messages; their answers come with [`answer`](Self::answer).
    ///
    /// # Errors
    /// When the stream is closed.
    pub async fn send(&self, frame_id: u64, messages: &[SealedMessage]) -> Result<()> {
        self.up.send(frame(frame_id, messages)?).await.ok().context("the stream is closed")
    }

    /// The next frame's answers: its id, and one for each of its messages.
    ///
    /// # Errors
    /// When the stream ends or nothing comes in time.
    pub async fn answer(&mut self) -> Result<(u64, Vec<Answer>)> {
        let answer = timeout(ANSWER_MAX, self.down.message()).await.context("no answer")??;
        let SubmitAnswer { frame_id, jws, results } = answer.context("the stream ended")?;
        let one = |result| match result {
            Some(submit_result::Result::Accepted(framed)) => Ok(Ok(alone(&jws, framed)?)),
            Some(submit_result::Result::Refused(refusal)) => Ok(Err(refusal)),
            None => Err(anyhow::anyhow!("an answer that says nothing")),
        };
        Ok((frame_id, results.into_iter().map(|result| one(result.result)).collect::<Result<_>>()?))
    }

    /// Sends messages and waits for their answers; nothing else is under way.
    ///
    /// # Errors
    /// When the stream ends or nothing comes in time.
    pub async fn ask(&mut self, messages: &[SealedMessage]) -> Result<Vec<Answer>> {
        self.send(0, messages).await?;
        let (_, answers) = self.answer().await?;
        ensure!(answers.len() == messages.len(), "{} answers to {} messages", answers.len(), messages.len());
        Ok(answers)
    }
}

/// A frame in which each JWS stands once.
fn frame(frame_id: u64, messages: &[SealedMessage]) -> Result<SubmitFrame> {
    let mut frame = SubmitFrame { frame_id, ..SubmitFrame::default() };
    let mut places = HashMap::new();
    for message in messages {
        let Statement { json, jws, index, path } = message.origin.clone().context("an origin")?;
        let jws_index = *places.entry(jws.clone()).or_insert_with(|| {
            frame.jws.push(jws);
            frame.jws.len() - 1
        });
        let origin = Some(FramedStatement { json, jws_index: u32::try_from(jws_index)?, index, path });
        let (enc, ciphertext) = (message.enc.clone(), message.ciphertext.clone());
        frame.messages.push(FramedMessage { origin, enc, ciphertext, traceparent: String::new() });
    }
    Ok(frame)
}

/// A sealed part for whoever cannot open it: its message's id, and noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Of how many bytes.
    pub length: u64,
    /// Their digest.
    pub sha256: [u8; 32],
}

impl Part {
    /// The part of a message, of a length that sealing so many bytes gives.
    #[must_use]
    pub fn of(message_id: &str, plain: u64) -> Self {
        let length = sealed_len(plain);
        let mut hash = Hash::new(&SHA256);
        pieces(message_id, length).for_each(|piece| hash.update(&piece));
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(hash.finish().as_ref());
        Self { length, sha256 }
    }

    /// Stores it. True when the gateway had it not yet.
    ///
    /// # Errors
    /// The gateway's refusal.
    pub async fn put(self, peer: &RawPeer, message_id: &str, audience: &str) -> Result<bool, Status> {
        let header = PartHeader {
            message_id: message_id.to_owned(),
            part: 0,
            length: self.length,
            sha256: self.sha256.to_vec().into(),
            audience: audience.to_owned(),
        };
        let data = pieces(message_id, self.length).map(Frame::Data);
        let frames = std::iter::once(Frame::Header(header)).chain(data);
        let requests: Vec<_> = frames.map(|frame| PutPartRequest { frame: Some(frame) }).collect();
        Ok(peer.exchange().put_part(tokio_stream::iter(requests)).await?.into_inner().stored)
    }

    /// Reads what the gateway has under its name, and says whether it is this.
    ///
    /// # Errors
    /// The gateway's refusal.
    pub async fn is_there(self, peer: &RawPeer, message_id: &str) -> Result<bool, Status> {
        let request = GetPartRequest { message_id: message_id.to_owned(), part: 0, offset: 0 };
        let mut frames = peer.exchange().get_part(request).await?.into_inner();
        let mut hash = Hash::new(&SHA256);
        while let Some(frame) = frames.message().await? {
            hash.update(&frame.data);
        }
        Ok(hash.finish().as_ref() == self.sha256)
    }
}

/// The bytes of a message's part, in frames.
fn pieces(message_id: &str, length: u64) -> impl Iterator<Item = Bytes> + use<> {
    static NOISE: OnceLock<Bytes> = OnceLock::new();
    let noise = NOISE.get_or_init(|| {
        let mut noise = vec![0; usize::try_from(sealed_len(PLAIN_MAX)).unwrap_or(0)];
        // Zeros would do as well: the id makes every part another.
        let _ = fill(&mut noise);
        noise.into()
    });
    let id = Bytes::copy_from_slice(message_id.as_bytes());
    let rest = usize::try_from(length).unwrap_or(0).saturating_sub(id.len());
    let noise = noise.slice(..rest.min(noise.len()));
    let starts = (0..noise.len()).step_by(FRAME_MAX);
    let ends = starts.map(move |start| noise.slice(start..noise.len().min(start + FRAME_MAX)));
    std::iter::once(id).chain(ends)
}
