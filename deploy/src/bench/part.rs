//! A content that is too long for a body: a sealed part beside a small body, as an attachment travels.
//!
//! Knows frames of PutPart and GetPart. Never opens a part. Invariants: it is sealed once, before the clock starts, and put under
//! every message's id, as sealed bodies are used again: the gateway and the recipients digest all of it each time, and opening it
//! would fail, because it is bound to the id that it was sealed under; whoever puts or gets one holds some frames of it at a time.

use std::iter;

use bytes::{Bytes, BytesMut};
use tonic::transport::Channel;
use tramite_proto::{
    ids::{Digest, InstitutionName, MessageId},
    parts::{CHUNK, FRAME_MAX, PartSealer, RunningDigest},
    pb::exchange::v1::{
        GetPartRequest, PartHeader, PutPartRequest, exchange_client::ExchangeClient, put_part_request::Frame,
    },
    statement::{Origin, SealedPart},
};

use super::{client::Trouble, time::Epoch};

/// The longest content: the largest attachment that a desk sends every day.
pub(super) const CONTENT_MAX: u64 = 20 << 20;
/// Bytes of the padded body beside it.
pub(super) const BODY: u64 = 2_048;

/// A sealed part, and what an origin says of it.
#[derive(Debug, Clone)]
pub(super) struct Part {
    bytes: Bytes,
    pub(super) facts: SealedPart,
}

impl Part {
    /// Seals a content of that length.
    pub(super) fn seal(length: usize) -> Result<Self, Trouble> {
        let failed = |error| Trouble::of("sealing a part", &error);
        let key = Digest::of(b"the content key of a bench");
        let mut sealer = PartSealer::new(key.as_bytes(), &Epoch(0).message(0, 0), 0).map_err(failed)?;
        let filling = Bytes::from((0..CHUNK).map(|at| u8::try_from(at * 31 % 251).unwrap_or(0)).collect::<Vec<_>>());
        let mut bytes = BytesMut::new();
        for from in (0..length).step_by(CHUNK) {
            let chunk = filling.slice(..CHUNK.min(length - from));
            bytes.extend_from_slice(&sealer.push(&chunk).map_err(failed)?);
        }
        let (last, facts) = sealer.finish().map_err(failed)?;
        bytes.extend_from_slice(&last);
        Ok(Self { bytes: bytes.freeze(), facts })
    }

    /// Puts it as the first part of a message; `passed` is told of every frame that goes to the line, and its bytes.
    pub(super) async fn put(
        self,
        mut client: ExchangeClient<Channel>,
        jti: MessageId,
        audience: InstitutionName,
        passed: impl Fn(u64) + Send + 'static,
    ) -> Result<(), Trouble> {
        let header = PartHeader {
            message_id: jti.to_string(),
            part: 0,
            length: self.facts.len,
            sha256: Bytes::copy_from_slice(self.facts.s256.as_bytes()),
            audience: audience.to_string(),
        };
        let data = (0..self.bytes.len()).step_by(FRAME_MAX).map(move |from| {
            let frame = self.bytes.slice(from..self.bytes.len().min(from + FRAME_MAX));
            passed(frame.len() as u64);
            Frame::Data(frame)
        });
        let frames = iter::once(Frame::Header(header)).chain(data).map(|frame| PutPartRequest { frame: Some(frame) });
        let answer = client.put_part(tokio_stream::iter(frames)).await;
        let answer = answer.map_err(|status| Trouble::status("putting a part", &status))?.into_inner();
        if answer.stored {
            return Ok(());
        }
        Err(Trouble::new(format!("the part of {jti} was there before it was put")))
    }
}

/// Gets every part of a message, and checks that it is what the origin says; how many bytes came.
pub(super) async fn get(mut client: ExchangeClient<Channel>, origin: &Origin) -> Result<u64, Trouble> {
    let mut bytes = 0;
    let broken = |status| Trouble::status("getting a part", &status);
    for (number, part) in (0_u32..).zip(&origin.parts) {
        let request = GetPartRequest { message_id: origin.jti.to_string(), part: number, offset: 0 };
        let mut frames = client.get_part(request).await.map_err(broken)?.into_inner();
        let mut digest = RunningDigest::new();
        while let Some(frame) = frames.message().await.map_err(broken)? {
            digest.update(&frame.data);
        }
        bytes += digest.length();
        if !is_as_said(digest, part) {
            return Err(Trouble::new(format!("part {number} of {} is not what its origin says", origin.jti)));
        }
    }
    Ok(bytes)
}

fn is_as_said(digest: RunningDigest, part: &SealedPart) -> bool {
    digest.length() == part.len && digest.finish() == part.s256
}

#[cfg(test)]
mod tests {
    use tramite_proto::parts::sealed_len;

    use super::*;

    #[test]
    fn a_part_is_as_long_as_any_other_and_a_changed_or_shortened_one_is_noticed() {
        for length in [65_537, 1 << 20, 20 << 20] {
            let part = Part::seal(length).unwrap();
            assert_eq!(part.facts.len, sealed_len(length as u64));
            assert_eq!(part.bytes.len() as u64, part.facts.len);
            let digest = |bytes: &[u8]| {
                let mut digest = RunningDigest::new();
                digest.update(bytes);
                digest
            };
            assert!(is_as_said(digest(&part.bytes), &part.facts));
            let mut changed = part.bytes.to_vec();
            assert!(!is_as_said(digest(&changed[1..]), &part.facts));
            changed[length / 2] ^= 1;
            assert!(!is_as_said(digest(&changed), &part.facts));
        }
    }
}
