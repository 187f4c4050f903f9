//! Third verb: make it durable. Only a [`Permit`] can be accepted, and only what comes back from here (after the journal's
//! `fdatasync`) can become an answer: an [`Acceptance`] has no other maker. It never looks at content: bytes go to the disk as they came.

use std::sync::Arc;

use bytes::Bytes;
use tramite_proto::{
    ids::Digest,
    pb::{
        journal::v1::{Accepted, CaseMove, Part},
        statement::v1::Statement,
    },
    reason::{Reason, Refused},
    statement::Origin,
    states::CaseKind,
};
use tramite_store::{Change, Done, Mover, Slot, accepted};

use crate::{
    hub::Hub,
    limits,
    permit::{Permit, Permitted},
    prove::About,
};

/// Length of an order key.
const ORDER_BYTES: usize = 16;

/// The gateway's word that a message is durable and that it answers for it from here.
#[derive(Debug)]
pub struct Acceptance {
    evidence: Statement,
    sequence: u64,
    repeated: bool,
}

impl Acceptance {
    /// The SubmissionAcceptance.
    #[must_use]
    pub fn into_evidence(self) -> Statement {
        self.evidence
    }

    /// Where the message stands in the order of everything here.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether it was accepted before: this is the original answer.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }
}

/// Accepts what was permitted, all in one group of the journal; one answer for each, in order.
pub async fn accept(hub: &Hub, permitted: Vec<Permitted>) -> Vec<Result<Acceptance, Refused>> {
    let mut changes = Vec::new();
    let mut answers: Vec<Option<Result<Acceptance, Refused>>> = Vec::with_capacity(permitted.len());
    for one in permitted {
        match one {
            Permitted::Repeat { sequence } => answers.push(Some(original(hub, sequence))),
            Permitted::New(permit) => {
                changes.push(change(hub, *permit));
                answers.push(None);
            }
        }
    }
    let mut committed = Vec::new().into_iter();
    if !changes.is_empty() {
        fail::fail_point!("submit.received");
        committed = hub.store.commit(changes).await.into_iter();
    }
    answers
        .into_iter()
        .map(|answer| match answer {
            Some(answer) => answer,
            None => match committed.next() {
                Some(Ok(done)) => acceptance(done),
                Some(Err(rejected)) => Err(hub.rejected(rejected)),
                None => Err(Refused::because(Reason::StoreFailed)),
            },
        })
        .collect()
}

/// The original answer to a message accepted before.
fn original(hub: &Hub, sequence: u64) -> Result<Acceptance, Refused> {
    let fact = hub.store.fact(sequence).map_err(|error| hub.read_failed(&error))?;
    let evidence = accepted(&fact).and_then(|accepted| accepted.evidence.clone());
    evidence
        .map(|evidence| Acceptance { evidence, sequence, repeated: true })
        .ok_or_else(|| Refused::because(Reason::Internal))
}

fn acceptance(done: Done) -> Result<Acceptance, Refused> {
    let (fact, sequence, repeated) = match &done {
        Done::Accepted { fact, sequence } => (fact, *sequence, false),
        Done::Repeated { fact, sequence } => (fact, *sequence, true),
        _ => return Err(Refused::because(Reason::Internal)),
    };
    let evidence = accepted(fact).and_then(|accepted| accepted.evidence.clone());
    evidence
        .map(|evidence| Acceptance { evidence, sequence, repeated })
        .ok_or_else(|| Refused::because(Reason::Internal))
}

fn change(hub: &Hub, permit: Permit) -> Change {
    let evidence = hub.prover.accepted(About { origin: &permit.origin, identity: permit.identity }, permit.certificate);
    let mover = Mover::Institution {
        issuer: permit.origin.iss.as_str().to_owned(),
        audience: permit.origin.aud.as_str().to_owned(),
    };
    let Permit { origin, identity, submission, message_type, .. } = permit;
    let expires_ms = origin.exp.saturating_mul(1_000);
    let parts = (0_u32..)
        .zip(&origin.parts)
        .map(|(part, sealed)| Part { part, length: sealed.len, sha256: sealed.s256.as_bytes().to_vec().into() })
        .collect();
    let fact = Accepted {
        queue: origin.aud.as_str().to_owned(),
        id: origin.jti.as_bytes().to_vec().into(),
        digest: identity.as_bytes().to_vec().into(),
        order: order(&origin),
        expires_ms,
        remember_ms: expires_ms.saturating_add(limits::REMEMBER_AFTER_EXPIRY_MS),
        return_to: origin.iss.as_str().to_owned(),
        case_move: Some(case_move(&origin, message_type.case_kind())),
        statement: Some(submission.origin),
        enc: submission.enc,
        parts,
        traceparent: submission.traceparent,
        case_id: origin.case.as_bytes().to_vec().into(),
        ..Accepted::default()
    };
    hub.origins.keep(identity, Arc::new(origin));
    Change::Accept {
        fact: Box::new(fact),
        content: submission.ciphertext,
        sign: vec![(Slot::Evidence, evidence)],
        mover: Some(mover),
    }
}

/// What goes one after the other: what one issuer says in one conversation. Another institution's messages in the same conversation do not
/// wait behind a dead letter of this one.
fn order(origin: &Origin) -> Bytes {
    let both = [origin.cid.as_bytes().as_slice(), origin.iss.as_str().as_bytes()].concat();
    let digest = Digest::of(&both);
    Bytes::copy_from_slice(digest.as_bytes().first_chunk::<ORDER_BYTES>().map_or(&[], |order| order.as_slice()))
}

/// Of a case that exists the store keeps what it knows better: parties, kind, conversation, where it stands.
fn case_move(origin: &Origin, kind: CaseKind) -> CaseMove {
    CaseMove {
        case_id: origin.case.as_bytes().to_vec().into(),
        kind: kind.as_str().to_owned(),
        opener: origin.iss.as_str().to_owned(),
        responder: origin.aud.as_str().to_owned(),
        from: String::new(),
        to: origin.cs.clone(),
        reason: origin.rsn.clone().unwrap_or_default(),
        conversation: origin.cid.as_bytes().to_vec().into(),
        // Only who opens a case says until when it waits to be taken up: nobody extends a deadline of their own.
        deadline_ms: origin.dl.filter(|_| origin.opens_case()).map_or(0, |deadline| deadline.saturating_mul(1_000)),
    }
}
