//! PutPart and GetPart: sealed parts in frames, never whole in memory. What may be put is judged in [`crate::parts`]; who may get is
//! judged here: only the institution for which the message waits.

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use tramite_proto::{
    ids::MessageId,
    pb::exchange::v1::{GetPartRequest, GetPartResponse, PutPartRequest, put_part_request::Frame},
    reason::{Reason, Refused},
};
use tramite_store::{MessageState, PartReader};

use crate::{
    hub::Hub,
    identify::Member,
    limits,
    parts::{self, Announced, Upload},
};

/// Takes in one part; false when it was here already.
pub(super) async fn put(
    hub: &Arc<Hub>,
    member: &Member,
    mut frames: Streaming<PutPartRequest>,
) -> Result<bool, Refused> {
    let Some(Frame::Header(header)) = next(&mut frames).await? else {
        return Err(Refused::new(Reason::FrameInvalid, "The first frame is the header."));
    };
    match parts::announce(hub, member, &header).await? {
        Announced::Known => Ok(false),
        Announced::Wanted(upload) => {
            store(hub, upload, frames).await?;
            Ok(true)
        }
    }
}

async fn store(hub: &Hub, upload: Upload, mut frames: Streaming<PutPartRequest>) -> Result<(), Refused> {
    let (message, part) = upload.key();
    let (length, sha256) = (upload.bound().length, upload.bound().sha256);
    let mut writer = hub.store.put_part(&message, part, length, sha256).await?;
    while let Some(frame) = next(&mut frames).await? {
        let Frame::Data(data) = frame else {
            return Err(Refused::new(Reason::FrameInvalid, "One header stands before the data."));
        };
        if data.len() > limits::PART_FRAME_BYTES_MAX {
            return Err(Refused::new(Reason::PayloadTooLarge, "A frame of a part has at most 256 KiB."));
        }
        writer.write(data).await?;
    }
    writer.finish().await?;
    upload.finish().await
}

/// The next frame; none at the end. A sender that stops in the middle is not waited for.
async fn next(frames: &mut Streaming<PutPartRequest>) -> Result<Option<Frame>, Refused> {
    let frame = tokio::time::timeout(limits::PART_IDLE_MAX, frames.message()).await;
    let frame = frame.map_err(|_| Refused::new(Reason::RateLimited, "The part came too slowly; send it again."))?;
    let frame = frame.map_err(|_| Refused::new(Reason::ConnectionLost, "The part broke off; send it again."))?;
    match frame {
        None => Ok(None),
        Some(PutPartRequest { frame: Some(frame) }) => Ok(Some(frame)),
        Some(PutPartRequest { frame: None }) => {
            Err(Refused::new(Reason::FrameInvalid, "A frame has a header or data."))
        }
    }
}

/// Opens a part of a message that waits for `member`.
pub(super) async fn open(hub: &Hub, member: &Member, request: &GetPartRequest) -> Result<PartReader, Refused> {
    let unknown = || Refused::because(Reason::PartUnknown);
    let message: MessageId = request.message_id.parse().map_err(|_| unknown())?;
    let row = hub.store.message(message.as_bytes()).map_err(|error| hub.read_failed(&error))?;
    let row = row.filter(|row| row.queue == member.as_str() && !matches!(row.state, MessageState::Final(_)));
    row.ok_or_else(unknown)?;
    Ok(hub.store.part_reader(&message, request.part, request.offset).await?)
}

/// Sends the rest of a part.
pub(super) async fn send(mut reader: PartReader, out: mpsc::Sender<Result<GetPartResponse, Status>>) {
    loop {
        let answer = match reader.next(limits::PART_FRAME_BYTES_MAX).await {
            Ok(data) if data.is_empty() => return,
            Ok(data) => Ok(GetPartResponse { data }),
            Err(error) => Err(Refused::from(error).to_status()),
        };
        let failed = answer.is_err();
        if out.send(answer).await.is_err() || failed {
            return;
        }
    }
}
