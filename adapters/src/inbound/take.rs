//! A delivery on the disk, with its receipt: one commit for all that came in a frame.
//!
//! Knows what was taken before, and how a receipt is written. Never knows the stream. Invariants: the receipt is signed in the very
//! group that makes the message durable; what is refused for good is remembered under its origin's identity, not under its id, so that
//! a forgery takes nobody's id; a move of a case that crossed another on its way changes nothing here, for the gateway has judged it.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use tramite_proto::{
    ids::{Digest, MessageId},
    pb::{
        journal::v1::{Accepted, CaseMove, Outcome, Part, Settled},
        statement::v1::Statement,
    },
    reason::{Reason, Refused},
    statement::{Origin, REMEMBERED_MS, Receipt},
    states::MessageType,
};
use tramite_store::{Change, Done, Mover, Rejected, Slot, accepted};

use super::check::Arrived;
use crate::{
    core::{BACKOFFICE, Core, REFUSED, rejected, unreadable},
    metrics,
    recount::{self, News},
};

/// Items that may wait for a back office; one that stays away that long is told of by operations.
const INBOX_MAX: u64 = 100_000;

/// What is said of a delivery.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It was opened, or never will be: the receipt says which.
    Receipt(Statement),
    /// Not now.
    Later(Refused),
}

/// The receipt that this very message got before.
pub(super) fn before(core: &Core, arrived: &Arrived) -> Result<Option<Statement>, Refused> {
    let digest = Digest::of(&arrived.statement.json);
    for id in [arrived.origin.jti.as_bytes().as_slice(), &refused_id(&digest)] {
        let Some(row) = core.store.message(id).map_err(unreadable)? else { continue };
        if row.digest == digest {
            let fact = core.store.fact(row.sequence).map_err(unreadable)?;
            return Ok(accepted(&fact).and_then(|accepted| accepted.receipt.clone()));
        }
    }
    Ok(None)
}

/// Room in the inbox for one message on its way to the disk; given back unless it came there.
#[derive(Debug)]
pub(super) struct Reserved {
    core: Arc<Core>,
    bytes: u64,
}

impl Reserved {
    /// Takes the room that a message will need, or puts it off.
    pub(super) fn take(core: &Arc<Core>, arrived: &Arrived) -> Result<Self, Refused> {
        let sealed = arrived.origin.parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.len));
        let bytes = sealed.saturating_add(arrived.ciphertext.len() as u64);
        let (used, most) = (&core.inbox_bytes, core.inbox_bytes_max);
        let room = |used: u64| used.checked_add(bytes).filter(|used| *used <= most);
        if used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            let detail =
                "the inbox holds as many bytes as it may: the back office has to read and acknowledge what waits";
            return Err(Refused::new(Reason::QuotaExceeded, detail));
        }
        Ok(Self { core: Arc::clone(core), bytes })
    }

    /// The message is on the disk: its room stays taken until it is acknowledged.
    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.core.leaves_inbox(self.bytes);
    }
}

/// True while there is room for more.
pub(super) fn has_room(core: &Core) -> Result<bool, Refused> {
    Ok(core.store.queue(BACKOFFICE).map_err(unreadable)?.waiting < INBOX_MAX)
}

/// The change that takes a message in.
pub(super) fn acceptance(core: &Core, arrived: &Arrived) -> Change {
    let origin = &arrived.origin;
    let case_id = Bytes::copy_from_slice(origin.case.as_bytes());
    let kind = origin.mt.parse::<MessageType>().map(|kind| kind.case_kind().as_str().to_owned()).unwrap_or_default();
    let fact = Accepted {
        queue: BACKOFFICE.to_owned(),
        case_move: Some(CaseMove {
            case_id,
            kind,
            // Read by the store only when the message opens the case.
            opener: origin.iss.to_string(),
            responder: origin.aud.to_string(),
            from: String::new(),
            to: origin.cs.clone(),
            reason: origin.rsn.clone().unwrap_or_default(),
            conversation: Bytes::copy_from_slice(origin.cid.as_bytes()),
            deadline_ms: 0,
        }),
        enc: arrived.enc.clone(),
        parts: parts(origin),
        gateway_sequence: arrived.delivery_id,
        ..fact(arrived, Bytes::copy_from_slice(origin.jti.as_bytes()))
    };
    let mover = Mover::Institution { issuer: origin.iss.to_string(), audience: origin.aud.to_string() };
    let receipt = receipt(core, arrived, None);
    Change::Accept {
        fact: Box::new(fact),
        content: arrived.ciphertext.clone(),
        sign: vec![(Slot::Receipt, receipt)],
        mover: Some(mover),
    }
}

/// What the store said to the change of [`acceptance`].
pub(super) async fn settled(
    core: &Core,
    arrived: &Arrived,
    (change, reserved): (Change, Reserved),
    done: Result<Done, Rejected>,
) -> Verdict {
    match done {
        Ok(done) => opened(core, arrived, reserved, &done),
        Err(Rejected::Case(refused)) if crossed(&refused) => {
            tracing::warn!(
                message_id = %arrived.origin.jti,
                case_id = %arrived.origin.case,
                reason = %refused.reason,
                "a move crossed another one on its way; the case stays where it is here"
            );
            match crossing(core, arrived, change).await {
                Ok(done) => opened(core, arrived, reserved, &done),
                Err(error) => later(error),
            }
        }
        // The message that opened the case may have been held back on the way, and may still come; so may one that is late have been.
        Err(Rejected::Case(refused)) if refused.reason == Reason::CaseUnknown => untimely(core, arrived, *refused),
        Err(Rejected::Case(refused)) => refuse(core, arrived, &refused).await,
        Err(Rejected::IdReused { .. }) => refuse(core, arrived, &Refused::because(Reason::IdReused)).await,
        Err(Rejected::IdExpired) => untimely(core, arrived, Refused::because(Reason::IdExpired)),
        Err(error) => later(error),
    }
}

/// The gateway has judged the move against the case as it was when the message came; here it may have moved on since.
fn crossed(refused: &Refused) -> bool {
    refused.reason == Reason::CaseTransitionInvalid
}

/// It is kept, and has what effect it has where it comes: what it crossed may have come to nothing meanwhile.
async fn crossing(core: &Core, arrived: &Arrived, change: Change) -> Result<Done, Rejected> {
    let case = arrived.origin.case;
    let Some(row) = core.store.case(case).map_err(Rejected::Unreadable)? else { return Err(Rejected::CaseChanged) };
    recount::commit(core, change, case, News::Came(recount::moving(&arrived.origin, &row), arrived.delivery_id)).await
}

/// What its issuer said in time, and the gateway passed on out of turn.
fn untimely(core: &Core, arrived: &Arrived, refused: Refused) -> Verdict {
    core.distrust("message", &arrived.origin.jti.to_string(), &refused);
    Verdict::Later(refused)
}

fn opened(core: &Core, arrived: &Arrived, reserved: Reserved, done: &Done) -> Verdict {
    let (Done::Accepted { fact, .. } | Done::Repeated { fact, .. }) = done else {
        return Verdict::Later(Refused::because(Reason::Internal));
    };
    if matches!(done, Done::Accepted { .. }) {
        reserved.keep();
        core.metrics.opened.inc();
        tracing::info!(
            message_id = %arrived.origin.jti,
            case_id = %arrived.origin.case,
            from = %arrived.origin.iss,
            r#type = arrived.origin.mt,
            "a message was opened"
        );
    }
    match accepted(fact).and_then(|accepted| accepted.receipt.clone()) {
        Some(receipt) => Verdict::Receipt(receipt),
        None => Verdict::Later(Refused::new(Reason::Internal, "a message in the store has no receipt")),
    }
}

/// Refuses a message for good, by its issuer's own fault: a receipt that says so, durable before it is given.
pub(super) async fn refuse(core: &Core, arrived: &Arrived, why: &Refused) -> Verdict {
    let digest = Digest::of(&arrived.statement.json);
    let fact = Accepted { queue: REFUSED.to_owned(), ..fact(arrived, refused_id(&digest)) };
    let sign = vec![(Slot::Receipt, receipt(core, arrived, Some(why)))];
    let change = Change::Accept { fact: Box::new(fact), content: Bytes::new(), sign, mover: None };
    let done = match core.store.commit_one(change).await {
        Ok(done) => done,
        Err(error) => return later(error),
    };
    let (Done::Accepted { fact, .. } | Done::Repeated { fact, .. }) = &done else {
        return Verdict::Later(Refused::because(Reason::Internal));
    };
    if let Done::Accepted { sequence, .. } = done {
        core.metrics.unopened.get_or_create(&metrics::reason(why.reason.as_str())).inc();
        tracing::error!(
            message_id = %arrived.origin.jti,
            from = %arrived.origin.iss,
            reason = %why.reason,
            detail = why.detail,
            "a message was refused for good"
        );
        core.store.commit(vec![settle_refused(sequence, why.reason.as_str())]).await;
    }
    match accepted(fact).and_then(|accepted| accepted.receipt.clone()) {
        Some(receipt) => Verdict::Receipt(receipt),
        None => Verdict::Later(Refused::because(Reason::Internal)),
    }
}

/// Ends what waits for nobody.
pub(crate) fn settle_refused(sequence: u64, reason: &str) -> Change {
    let fact = Settled {
        sequence,
        outcome: Outcome::Refused.into(),
        reason: reason.to_owned(),
        queue: REFUSED.to_owned(),
        ..Settled::default()
    };
    Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None }
}

fn later(error: Rejected) -> Verdict {
    Verdict::Later(rejected(error))
}

/// What is the same whether it is taken or refused.
fn fact(arrived: &Arrived, id: Bytes) -> Accepted {
    let origin = &arrived.origin;
    Accepted {
        id,
        digest: Bytes::copy_from_slice(Digest::of(&arrived.statement.json).as_bytes()),
        remember_ms: origin.exp.saturating_mul(1_000).saturating_add(REMEMBERED_MS),
        statement: Some(arrived.statement.clone()),
        evidence: arrived.acceptance.clone(),
        traceparent: arrived.traceparent.clone(),
        case_id: Bytes::copy_from_slice(origin.case.as_bytes()),
        ..Accepted::default()
    }
}

fn parts(origin: &Origin) -> Vec<Part> {
    let part = |(part, sealed): (u32, &tramite_proto::statement::SealedPart)| Part {
        part,
        length: sealed.len,
        sha256: Bytes::copy_from_slice(sealed.s256.as_bytes()),
    };
    (0_u32..).zip(&origin.parts).map(part).collect()
}

/// The id under which a refusal is remembered: no message has it, for theirs have 16 bytes.
fn refused_id(digest: &Digest) -> Bytes {
    [b"r".as_slice(), digest.as_bytes()].concat().into()
}

/// The recipient's word, still to be signed.
fn receipt(core: &Core, arrived: &Arrived, why: Option<&Refused>) -> Bytes {
    let origin = &arrived.origin;
    let receipt = Receipt {
        jti: MessageId::new(core.clock.now_ms(), core.entropy.random()),
        iss: core.name.clone(),
        aud: origin.iss.clone(),
        mid: origin.jti,
        org_s256: Digest::of(&arrived.statement.json),
        ct_s256: origin.ct.s256,
        ptc: origin.ptc,
        at: core.clock.now_s(),
        opened: why.is_none(),
        rsn: why.map(|refused| refused.reason.as_str().to_owned()),
        sj: Vec::new(),
        lcp: None,
    };
    receipt.to_json()
}
