//! Whether a delivery is what it claims to be: acceptance, origin, content, body, in this order.
//!
//! Knows who must have said what, and when it counted. Never writes. What cannot be judged now is put off, and so is what a lying
//! gateway would have made, which is counted apart; what the issuer itself said wrongly is refused with its reason. Invariant: what comes out of here was said by its issuer, was
//! accepted by the gateway at a time at which the issuer's certificate counted, and opens under this institution's own key.

use bytes::Bytes;
use prost::Message as _;
use tramite_proto::{
    batch,
    pb::{
        body::v1::Body,
        exchange::v1::Delivery,
        statement::v1::{FramedStatement, Statement},
    },
    reason::{Reason, Refused},
    seal,
    statement::{CLOCK_AHEAD_S_MAX, Event, Origin},
    trace, validate,
};

use crate::{core::Core, directory::Doubt};

/// Why a delivery is not taken in.
#[derive(Debug)]
pub(super) enum Fault {
    /// It could not be judged now.
    Later(Refused),
    /// Nobody vouches for these bytes: whoever passed them on is to blame, and the true ones may still come. Never signed, never
    /// remembered: a signed refusal of a message that its issuer sent rightly could not be taken back.
    Untrue(Refused),
    /// Its issuer said this very thing, and it is wrong.
    Issuer(Refused),
}

impl From<Doubt> for Fault {
    fn from(doubt: Doubt) -> Self {
        match doubt {
            Doubt::Later(refused) => Self::Later(refused),
            Doubt::Wrong(refused) => Self::Untrue(refused),
        }
    }
}

/// A delivery with its statements standing alone.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) delivery_id: u64,
    pub(super) origin: Origin,
    pub(super) statement: Statement,
    pub(super) acceptance: Option<Statement>,
    pub(super) enc: Bytes,
    pub(super) ciphertext: Bytes,
    pub(super) traceparent: String,
}

impl Arrived {
    /// Reads a delivery as far as it must be readable to be answered at all: an origin, for this institution.
    pub(super) fn read(core: &Core, jws: &[String], delivery: Delivery) -> Result<Self, Refused> {
        let unframe = |framed: Option<FramedStatement>| {
            let framed = framed.ok_or_else(|| Refused::new(Reason::FrameInvalid, "the delivery lacks a statement"))?;
            batch::unframe(jws, framed)
        };
        let message =
            delivery.message.ok_or_else(|| Refused::new(Reason::FrameInvalid, "the delivery has no message"))?;
        let statement = unframe(message.origin)?;
        let origin = Origin::parse(&statement.json)?;
        if origin.aud != core.name {
            return Err(Refused::new(Reason::UnknownRecipient, "the message is for another institution"));
        }
        Ok(Self {
            delivery_id: delivery.delivery_id,
            origin,
            statement,
            acceptance: unframe(delivery.acceptance).ok(),
            enc: message.enc,
            ciphertext: message.ciphertext,
            traceparent: message.traceparent,
        })
    }

    /// A span in its sender's trace, which goes on from there to the back office.
    pub(super) fn span(&mut self) -> tracing::Span {
        let span = tracing::info_span!("inbound.take", message_id = %self.origin.jti, case_id = %self.origin.case);
        trace::follow(&span, &self.traceparent);
        let ours = trace::traceparent(&span);
        // What is not vouched for and no traceparent either goes no further.
        if !ours.is_empty() || !trace::is_traceparent(&self.traceparent) {
            self.traceparent = ours;
        }
        span
    }
}

/// Judges a delivery; gives its body.
pub(super) async fn check(core: &Core, arrived: &Arrived) -> Result<Body, Fault> {
    let at_ms = check_acceptance(core, arrived).await?;
    core.check_said(&arrived.statement, &arrived.origin.iss, at_ms).await?;
    arrived.origin.check_content(&arrived.enc, &arrived.ciphertext).map_err(Fault::Untrue)?;
    open(core, &arrived.origin, &arrived.enc, &arrived.ciphertext).map_err(|refused| match refused.reason {
        // Its file may be back in a minute.
        Reason::KeyUnknown => Fault::Later(refused),
        _ => Fault::Issuer(refused),
    })
}

/// The gateway's word that it accepted this very message; gives the time, unix milliseconds, which is when certificates are judged.
async fn check_acceptance(core: &Core, arrived: &Arrived) -> Result<i64, Doubt> {
    let wrong = |detail: &str| Doubt::Wrong(Refused::new(Reason::EvidenceInvalid, detail));
    let acceptance = arrived.acceptance.as_ref().ok_or_else(|| wrong("the delivery lacks the gateway's acceptance"))?;
    let evidence = core.check_evidence(acceptance).await?;
    if evidence.evt != Event::SubmissionAcceptance {
        return Err(wrong("the delivery carries evidence of another event than its acceptance"));
    }
    evidence.check_against(&arrived.origin, &arrived.statement.json).map_err(Doubt::Wrong)?;
    // A time that the gateway chose freely would let it use certificates of the past or of the future.
    let origin = &arrived.origin;
    let issued = origin.iat.saturating_sub(CLOCK_AHEAD_S_MAX);
    let now = core.clock.now_s().saturating_add(CLOCK_AHEAD_S_MAX);
    if evidence.at < issued || evidence.at >= origin.exp || evidence.at > now {
        return Err(wrong("the time of the acceptance is not between the message's issue and its expiry"));
    }
    Ok(evidence.at.saturating_mul(1_000))
}

/// Opens a body and checks that it says what origin says.
pub(crate) fn open(core: &Core, origin: &Origin, enc: &[u8], ciphertext: &[u8]) -> Result<Body, Refused> {
    let key = core.own.private(&origin.ct.kid).ok_or_else(|| Refused::because(Reason::KeyUnknown))?;
    let bytes = seal::open(&key, &origin.context(), enc, ciphertext, &origin.ptc)?;
    let body = Body::decode(bytes).map_err(|_| Refused::because(Reason::SchemaInvalid))?;
    seal::check_body(origin, &body)?;
    validate::body(&body).map_err(|problems| Refused { reason: Reason::SchemaInvalid, ..Refused::fields(problems) })?;
    Ok(body)
}
