//! Second verb: may this message be accepted? Every check that needs no lock: signature, issuer, time, audience, type, policy, the
//! recipient's key, the digests of what travels beside the origin, the parts. A [`Permit`] can only be made here, and only with a
//! [`Member`] in hand. It knows what origin says; never content. What only the journal's writer can decide (uniqueness, the case) is
//! decided there.
//!
//! While the clock is not believed, what only the clock speaks against is put off, never refused for good.
//! A repeat of an accepted message, byte for byte and by its issuer, skips what may have changed since (its certificate, policy, keys,
//! time, parts): all of it counted when it was accepted, and it gets its original answer.

use bytes::Bytes;
use tramite_proto::{
    ids::Digest,
    pb::statement::v1::Statement as Proof,
    reason::{Reason, Refused},
    statement::{Origin, Statement},
    states::{MessageType, Party},
    vocabulary::{LegalBasis, Purpose},
};

use crate::{hub::Hub, identify::Member, limits, policy::Asked};

/// What a sender hands in: an origin statement and what travels beside it.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The origin statement, standing alone.
    pub origin: Proof,
    /// HPKE encapsulated key.
    pub enc: Bytes,
    /// Sealed body.
    pub ciphertext: Bytes,
    /// W3C traceparent; not vouched for.
    pub traceparent: String,
}

/// Leave to accept one message.
#[derive(Debug)]
pub struct Permit {
    pub(crate) origin: Origin,
    pub(crate) identity: Digest,
    pub(crate) submission: Submission,
    pub(crate) message_type: MessageType,
    /// SHA-256 of the TLS certificate that it came with.
    pub(crate) certificate: Digest,
}

/// What permit says of a submission.
#[derive(Debug)]
pub enum Permitted {
    /// It may be accepted.
    New(Box<Permit>),
    /// It was accepted before, by the fact of that sequence.
    Repeat {
        /// The accepting fact.
        sequence: u64,
    },
}

impl Permitted {
    /// Whether it names sealed parts.
    #[must_use]
    pub fn has_parts(&self) -> bool {
        matches!(self, Self::New(permit) if !permit.origin.parts.is_empty())
    }
}

/// A refusal, and whether the gateway can vouch that the issuer truly sent what it refuses.
#[derive(Debug)]
pub struct Denied {
    /// Why.
    pub refused: Refused,
    /// True once signature and issuer held.
    pub vouched: bool,
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        Self { refused, vouched: false }
    }
}

/// Checks one submission of `member`.
///
/// # Errors
/// The first check that does not hold, with its reason. What only a clock that is not believed speaks against is put off (CLOCK_HELD).
/// STORE_FAILED when it cannot be read whether it was accepted before.
pub fn permit(hub: &Hub, member: &Member, submission: Submission) -> Result<Permitted, Denied> {
    check_sizes(&submission)?;
    let (now_ms, json) = (hub.clock.now_ms(), submission.origin.json.clone());
    judge(hub, member, submission, now_ms).or_else(|denied| {
        // Only now: what is permitted need not be looked for twice.
        match before(hub, member, &json)? {
            Some(sequence) => Ok(Permitted::Repeat { sequence }),
            None => Err(Denied { refused: hub.by_clock(now_ms, denied.refused), ..denied }),
        }
    })
}

fn judge(hub: &Hub, member: &Member, submission: Submission, now_ms: i64) -> Result<Permitted, Denied> {
    let verified = hub.keyring.verify(&submission.origin, now_ms, Some(member.as_str()))?;
    let identity = verified.identity;
    let Statement::Origin(origin) = verified.statement else {
        return Err(Refused::new(Reason::StatementMalformed, "A message begins with an origin statement.")
            .field("typ")
            .into());
    };
    let origin = *origin;
    match decide(hub, &origin, identity, &submission, now_ms) {
        Ok(Decided::Repeat(sequence)) => Ok(Permitted::Repeat { sequence }),
        Ok(Decided::New(message_type)) => {
            let certificate = member.fingerprint();
            Ok(Permitted::New(Box::new(Permit { origin, identity, submission, message_type, certificate })))
        }
        Err(refused) => Err(Denied { refused, vouched: true }),
    }
}

/// Under which sequence these very bytes of `member` were accepted before. Their signature counted then, and the answer is one that is
/// nobody's but the member's.
fn before(hub: &Hub, member: &Member, json: &[u8]) -> Result<Option<u64>, Refused> {
    let Some(origin) = Origin::parse(json).ok().filter(|origin| origin.iss == *member.name()) else { return Ok(None) };
    let row = hub.store.message(origin.jti.as_bytes()).map_err(|error| hub.read_failed(&error))?;
    Ok(row.filter(|row| row.digest == Digest::of(json)).map(|row| row.sequence))
}

/// Nothing larger than a frame may carry is hashed or verified.
fn check_sizes(submission: &Submission) -> Result<(), Refused> {
    if submission.enc.is_empty() || submission.enc.len() > limits::ENC_BYTES_MAX {
        return Err(Refused::new(Reason::EncMismatch, "The encapsulated key has the length of no suite.").field("enc"));
    }
    let length = submission.ciphertext.len();
    if length > limits::CIPHERTEXT_BYTES_MAX {
        return Err(Refused::new(Reason::PayloadTooLarge, "The sealed body is over 64 KiB; send documents as parts.")
            .field("ciphertext"));
    }
    if length < limits::CIPHERTEXT_BYTES_MIN {
        return Err(
            Refused::new(Reason::CiphertextMismatch, "The sealed body is shorter than any.").field("ciphertext")
        );
    }
    Ok(())
}

/// A message that its issuer truly sent, and that may pass.
enum Decided {
    New(MessageType),
    /// Accepted before, by the fact of this sequence.
    Repeat(u64),
}

/// The checks on a message that its issuer truly sent.
fn decide(
    hub: &Hub,
    origin: &Origin,
    identity: Digest,
    submission: &Submission,
    now_ms: i64,
) -> Result<Decided, Refused> {
    if let Some(sequence) = repeat(hub, origin, identity)? {
        return Ok(Decided::Repeat(sequence));
    }
    let now_s = now_ms.div_euclid(1_000);
    origin.check_issued(now_s)?;
    origin.check_not_expired(now_s)?;
    if hub.config.institution(origin.aud.as_str()).is_none() {
        return Err(Refused::because(Reason::UnknownRecipient).field("aud"));
    }
    let message_type = check_type(origin)?;
    check_policy(hub, origin)?;
    check_case(hub, origin, message_type)?;
    origin.check_content(&submission.enc, &submission.ciphertext)?;
    check_key(hub, origin, now_ms)?;
    hub.parts.check(hub, origin)?;
    Ok(Decided::New(message_type))
}

/// The sequence under which this very message was accepted before; the same id with other content is refused.
fn repeat(hub: &Hub, origin: &Origin, identity: Digest) -> Result<Option<u64>, Refused> {
    match hub.store.message(origin.jti.as_bytes()).map_err(|error| hub.read_failed(&error))? {
        None => Ok(None),
        Some(row) if row.digest == identity => Ok(Some(row.sequence)),
        Some(_) => Err(Refused::because(Reason::IdReused).field("jti")),
    }
}

/// The type is known, and opens a case exactly when it is one that does.
fn check_type(origin: &Origin) -> Result<MessageType, Refused> {
    let unknown = || Refused::new(Reason::FieldInvalid, "There is no such message type.").field("mt");
    let message_type = origin.mt.parse::<MessageType>().map_err(|_| unknown())?;
    if origin.opens_case() != message_type.opens() {
        let detail = "Referral and DocumentRequest open a case of their own; every other type belongs to an open one.";
        return Err(Refused::new(Reason::CaseMismatch, detail).field("case"));
    }
    Ok(message_type)
}

/// The type, the conversation and the sender's part belong to the case, as far as it can be seen already: a case that was opened a
/// moment ago is judged by the journal's writer alone, who also judges the move itself.
fn check_case(hub: &Hub, origin: &Origin, message_type: MessageType) -> Result<(), Refused> {
    let case = hub.store.case(origin.case).map_err(|error| hub.read_failed(&error))?;
    let Some(case) = case.filter(|_| !message_type.opens()) else { return Ok(()) };
    if case.kind != message_type.case_kind().as_str() {
        return Err(
            Refused::new(Reason::CaseMismatch, "The message's type is not one of this kind of case.").field("mt")
        );
    }
    if !case.conversation.is_empty() && case.conversation.as_ref() != origin.cid.as_bytes() {
        return Err(Refused::new(Reason::CaseMismatch, "The case belongs to another conversation.").field("cid"));
    }
    let party = if case.opener == origin.iss.as_str() { Party::Opener } else { Party::Responder };
    if !message_type.senders().contains(&party) {
        let detail = format!("{} may not send {message_type} in this case.", party.label());
        return Err(Refused::new(Reason::CaseTransitionInvalid, detail).field("mt"));
    }
    Ok(())
}

fn check_policy(hub: &Hub, origin: &Origin) -> Result<(), Refused> {
    if origin.pur.parse::<Purpose>().is_err() {
        return Err(Refused::because(Reason::PurposeNotAllowed).field("pur"));
    }
    if origin.lb.parse::<LegalBasis>().is_err() {
        return Err(Refused::because(Reason::LegalBasisNotAllowed).field("lb"));
    }
    hub.policy.check(&Asked {
        from: origin.iss.as_str(),
        to: origin.aud.as_str(),
        message_type: &origin.mt,
        purpose: &origin.pur,
        legal_basis: &origin.lb,
    })
}

/// The key that the body is sealed to is one that the recipient published and that is still valid: otherwise nobody could open it.
fn check_key(hub: &Hub, origin: &Origin, now_ms: i64) -> Result<(), Refused> {
    let key = hub.keyring.encryption_key(&origin.aud, &origin.ct.kid, now_ms);
    let key = key.ok_or_else(|| Refused::because(Reason::KeyUnknown).field("ct.kid"))?;
    if key.suite() != origin.ct.suite {
        return Err(
            Refused::new(Reason::KeyUnknown, "The recipient's key of that id is of another suite.").field("ct.suite")
        );
    }
    Ok(())
}
