//! An attachment on its way to the back office: opened chunk by chunk from its sealed file.
//!
//! Knows part files and the content key in the body. Never keeps clear bytes. Invariant: only attachments of messages that wait for the
//! back office are read; the last bytes come only when the whole part has checked.

use bytes::Bytes;
use tramite_proto::{
    ids::MessageId,
    parts::{CHUNK, PartOpener, TAG},
    reason::{Reason, Refused},
};
use tramite_store::{MessageState, PartReader, accepted};

use crate::{
    core::{BACKOFFICE, Core, origin, unreadable},
    inbound::open,
};

/// A frame to the back office has at most 256 KiB; a sealed chunk is 64 KiB and a tag.
const READ_BYTES: usize = 3 * (CHUNK + TAG);

/// An attachment, being read.
pub(crate) struct Reading {
    reader: PartReader,
    opener: Option<PartOpener>,
}

impl Reading {
    pub(super) async fn open(core: &Core, message_id: &str, index: u32) -> Result<Self, Refused> {
        let unknown = || Refused::because(Reason::AttachmentUnknown);
        let id: MessageId = message_id.parse().map_err(|_| unknown().field("message_id"))?;
        let row = core.store.message(id.as_bytes()).map_err(unreadable)?.ok_or_else(unknown)?;
        if row.queue != BACKOFFICE || matches!(row.state, MessageState::Final(_)) {
            return Err(unknown());
        }
        let fact = core.store.fact(row.sequence).map_err(unreadable)?;
        let accepted = accepted(&fact).ok_or_else(unknown)?;
        let content = core.store.content(row.sequence).map_err(unreadable)?;
        let (origin, _) = origin(accepted)?;
        let body = open(core, &origin, &accepted.enc, &content)?;
        let key = <[u8; 32]>::try_from(body.content_key.as_ref()).map_err(|_| unknown())?;
        let place = usize::try_from(index).map_err(|_| unknown())?;
        let part = origin.parts.get(place).cloned().ok_or_else(|| unknown().field("index"))?;
        let opener = PartOpener::new(&key, &id, index, part)?;
        let reader = core.store.part_reader(&id, index, 0).await?;
        Ok(Self { reader, opener: Some(opener) })
    }

    /// The next bytes; `None` when the attachment has ended and checked.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Refused> {
        while let Some(opener) = &mut self.opener {
            let sealed = self.reader.next(READ_BYTES).await?;
            if sealed.is_empty() {
                if let Some(opener) = self.opener.take() {
                    opener.finish()?;
                }
                return Ok(None);
            }
            let plain = opener.push(&sealed)?;
            if !plain.is_empty() {
                return Ok(Some(plain.into()));
            }
        }
        Ok(None)
    }
}
