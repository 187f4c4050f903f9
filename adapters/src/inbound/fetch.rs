//! Parts from the gateway, checked while they come, stored as they are: sealed.
//!
//! Knows length, digest and the content key. Never keeps clear bytes. Invariants: a part is durable only when its length and digest are
//! those of origin, every chunk opens in its place, and the file inside has the digest that the body says; a connection that breaks goes
//! on from where it was.

use tokio::time::timeout;
use tramite_proto::{
    parts::{PartOpener, RunningDigest},
    pb::{body::v1::Body, exchange::v1::GetPartRequest},
    reason::{Reason, Refused},
    statement::Origin,
};
use tramite_store::PartWriter;

use super::check::Fault;
use crate::{backoff::Backoff, core::Core, link::refusal_of};

/// Connections tried for one part before the whole delivery is put off.
const ATTEMPTS: u32 = 4;
/// A line that gives nothing for so long is broken.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Fetches every part that is not here yet.
pub(super) async fn parts(core: &Core, origin: &Origin, body: &Body) -> Result<(), Fault> {
    for number in 0..origin.parts.len() {
        let number = u32::try_from(number).map_err(|_| Fault::Issuer(Refused::because(Reason::PartMismatch)))?;
        let here = core.store.part_len(&origin.jti, number).map_err(|error| Fault::Later(error.into()))?;
        if here.is_none() {
            one(core, origin, body, number).await?;
        }
    }
    Ok(())
}

/// One part on its way in.
struct Incoming {
    writer: PartWriter,
    opener: PartOpener,
    /// Why it does not open. Whose fault that is can be said only when the whole part has come.
    broken: Option<Refused>,
    sealed: RunningDigest,
    plain: RunningDigest,
    taken: u64,
}

async fn one(core: &Core, origin: &Origin, body: &Body, number: u32) -> Result<(), Fault> {
    let mismatch = || Fault::Issuer(Refused::because(Reason::PartMismatch));
    let place = usize::try_from(number).map_err(|_| mismatch())?;
    let (part, about) = origin.parts.get(place).zip(body.attachments.get(place)).ok_or_else(mismatch)?;
    let key = <[u8; 32]>::try_from(body.content_key.as_ref()).map_err(|_| mismatch())?;
    let writer = core.store.put_part(&origin.jti, number, part.len, part.s256).await;
    let mut incoming = Incoming {
        writer: writer.map_err(|error| Fault::Later(error.into()))?,
        opener: PartOpener::new(&key, &origin.jti, number, part.clone()).map_err(Fault::Issuer)?,
        broken: None,
        sealed: RunningDigest::new(),
        plain: RunningDigest::new(),
        taken: 0,
    };
    let mut backoff = Backoff::new(&core.entropy);
    let mut attempt = 1;
    while let Err(fault) = stream(core, origin, number, part.len, &mut incoming).await {
        match fault {
            Fault::Later(_) if attempt < ATTEMPTS => backoff.pause().await,
            fault => return Err(fault),
        }
        attempt += 1;
    }
    if incoming.sealed.finish() != part.s256 {
        let refused = Refused::new(Reason::PartMismatch, "a part has not the digest that the origin names");
        return Err(Fault::Untrue(refused));
    }
    // From here on these are the issuer's own bytes.
    if let Some(refused) = incoming.broken {
        return Err(Fault::Issuer(refused));
    }
    incoming.opener.finish().map_err(Fault::Issuer)?;
    if incoming.plain.finish().as_bytes().as_slice() != about.sha256 {
        let refused = Refused::new(Reason::DigestMismatch, "an attachment has not the digest that its body says");
        return Err(Fault::Issuer(refused));
    }
    incoming.writer.finish().await.map_err(|error| match Refused::from(error) {
        refused if refused.reason == Reason::PartMismatch => Fault::Untrue(refused),
        refused => Fault::Later(refused),
    })
}

/// From where it is to the end, or until the line breaks.
async fn stream(core: &Core, origin: &Origin, part: u32, length: u64, incoming: &mut Incoming) -> Result<(), Fault> {
    let later = |status: tonic::Status| Fault::Later(refusal_of(&status));
    let silent =
        |_| Fault::Later(Refused::new(Reason::GatewayUnavailable, "the gateway stopped in the middle of a part"));
    let request = GetPartRequest { message_id: origin.jti.to_string(), part, offset: incoming.taken };
    let mut client = core.link.exchange();
    let mut frames = timeout(SILENCE, client.get_part(request)).await.map_err(silent)?.map_err(later)?.into_inner();
    while let Some(frame) = timeout(SILENCE, frames.message()).await.map_err(silent)?.map_err(later)? {
        incoming.taken = incoming.taken.saturating_add(frame.data.len() as u64);
        if incoming.taken > length {
            let refused = Refused::new(Reason::PartMismatch, "a part is longer than the origin says");
            return Err(Fault::Untrue(refused));
        }
        incoming.sealed.update(&frame.data);
        if incoming.broken.is_none() {
            match incoming.opener.push(&frame.data) {
                Ok(plain) => incoming.plain.update(&plain),
                Err(refused) => incoming.broken = Some(refused),
            }
        }
        incoming.writer.write(frame.data).await.map_err(|error| Fault::Later(error.into()))?;
    }
    if incoming.taken < length {
        return Err(Fault::Later(Refused::new(Reason::ConnectionLost, "a part ended before its length")));
    }
    Ok(())
}
