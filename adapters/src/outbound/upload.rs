//! Parts to the gateway, before the message that names them.
//!
//! Knows frames and the gateway's limits on them. Never knows what is in a part. A part is sent from its beginning at every attempt: the
//! gateway answers at once when it has it already.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tramite_proto::{
    ids::MessageId,
    parts::FRAME_MAX,
    pb::exchange::v1::{PartHeader, PutPartRequest, put_part_request::Frame},
    reason::Refused,
    statement::Origin,
};

use crate::{core::Core, link::refusal_of};

/// Frames read ahead of the network.
const FRAMES_AHEAD: usize = 4;

/// Sends every part of a message.
pub(super) async fn parts(core: &Core, origin: &Origin) -> Result<(), Refused> {
    for (number, part) in (0_u32..).zip(&origin.parts) {
        let header = PartHeader {
            message_id: origin.jti.to_string(),
            part: number,
            length: part.len,
            sha256: Bytes::copy_from_slice(part.s256.as_bytes()),
            audience: origin.aud.to_string(),
        };
        one(core, &origin.jti, header).await?;
    }
    Ok(())
}

async fn one(core: &Core, jti: &MessageId, header: PartHeader) -> Result<(), Refused> {
    let mut reader = core.store.part_reader(jti, header.part, 0).await?;
    let (frames, stream) = mpsc::channel(FRAMES_AHEAD);
    let mut client = core.link.exchange();
    let call = client.put_part(ReceiverStream::new(stream));
    let feed = async move {
        let mut frame = Frame::Header(header);
        loop {
            // The call has its answer already, or has failed: it says which.
            if frames.send(PutPartRequest { frame: Some(frame) }).await.is_err() {
                return Ok(());
            }
            let data = reader.next(FRAME_MAX).await?;
            if data.is_empty() {
                return Ok::<(), Refused>(());
            }
            frame = Frame::Data(data);
        }
    };
    let (fed, answer) = tokio::join!(feed, call);
    fed?;
    answer.map(drop).map_err(|status| refusal_of(&status))
}
