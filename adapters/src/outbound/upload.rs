//! Parts to the gateway, before the message that names them.
//!
//! Knows frames and the gateway's limits on them. Never knows what is in a part. A part is sent from its beginning at every attempt: the
//! gateway answers at once when it has it already. Invariant: a part of which the gateway takes nothing for long has failed.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tramite_proto::{
    ids::MessageId,
    parts::FRAME_MAX,
    pb::exchange::v1::{PartHeader, PutPartRequest, put_part_request::Frame},
    reason::Refused,
    statement::Origin,
};

use crate::{
    core::Core,
    link::{Way, refusal_of},
};

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
    let taken = Arc::new(Notify::new());
    let tell = Arc::clone(&taken);
    let stream = ReceiverStream::new(stream).inspect(move |_| tell.notify_one());
    let mut client = core.link.exchange();
    let mut call = std::pin::pin!(client.put_part(stream));
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
    // Slow is well: each frame that is taken counts anew, and so does the answer after the last.
    let stalled = async { while timeout(core.answer_max, taken.notified()).await.is_ok() {} };
    let answered = async {
        let answer = tokio::select! {
            biased;
            answer = &mut call => answer,
            fed = feed => {
                fed?;
                call.await
            }
        };
        answer.map(drop).map_err(|status| refusal_of(&status))
    };
    let done = tokio::select! {
        biased;
        done = answered => done,
        () = stalled => return Err(core.link.blocks(Way::Attachments)),
    };
    core.link.answers(Way::Attachments);
    done
}
