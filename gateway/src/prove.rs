//! Last verb: what happened, in the gateway's own signed words. Evidence is written here for every event and signed in the journal's
//! group (one signature for up to 64), so that no fact is durable without it. It knows origins and receipts; never content.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use tramite_proto::{
    batch,
    clock::Clock,
    ids::{Digest, InstitutionName, MessageId},
    jws::{SignError, Signer},
    pb::statement::v1::Statement,
    reason::Reason,
    statement::{Event, Evidence, Origin, identity},
};
use tramite_store::Notary;

/// Ten random bytes: the part of an id that is not the time. Passed in, so that a simulation repeats.
pub type Randomness = Arc<dyn Fn() -> [u8; 10] + Send + Sync>;

/// Writes and signs the gateway's evidence.
#[derive(Clone)]
pub struct Prover {
    name: InstitutionName,
    signer: Arc<dyn Signer>,
    chain: Vec<Bytes>,
    clock: Arc<dyn Clock>,
    random: Randomness,
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The message that evidence is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// What its sender said.
    pub origin: &'a Origin,
    /// The identity of that.
    pub identity: Digest,
}

impl<'a> About<'a> {
    /// Of an origin and its bytes.
    #[must_use]
    pub fn new(origin: &'a Origin, json: &[u8]) -> Self {
        Self { origin, identity: identity(json) }
    }
}

impl Prover {
    /// With the gateway's signing key and the chain (DER, leaf first) of its certificate.
    #[must_use]
    pub fn new(
        name: InstitutionName,
        signer: Arc<dyn Signer>,
        chain: Vec<Bytes>,
        clock: Arc<dyn Clock>,
        random: Randomness,
    ) -> Self {
        Self { name, signer, chain, clock, random }
    }

    /// The chain of the certificate that evidence is signed with, DER, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[Bytes] {
        &self.chain
    }

    /// A number in 0..=1000 for jitter, from the same randomness as the ids.
    #[must_use]
    pub fn permille(&self) -> u64 {
        let [high, low, ..] = (self.random)();
        u64::from(u16::from_be_bytes([high, low])) % 1_001
    }

    /// SubmissionAcceptance, for a message that came over the connection of that TLS certificate.
    #[must_use]
    pub fn accepted(&self, about: About<'_>, certificate: Digest) -> Bytes {
        Evidence { peer_s256: Some(certificate), ..self.evidence(Event::SubmissionAcceptance, about) }.to_json()
    }

    /// SubmissionRejection.
    #[must_use]
    pub fn rejected(&self, about: About<'_>, certificate: Digest, reason: Reason) -> Bytes {
        let rsn = Some(reason.as_str().to_owned());
        Evidence { peer_s256: Some(certificate), rsn, ..self.evidence(Event::SubmissionRejection, about) }.to_json()
    }

    /// ContentHandover: the recipient signed that it opened the message.
    #[must_use]
    pub fn handed_over(&self, about: About<'_>, receipt: &[u8]) -> Bytes {
        let rcp_s256 = Some(identity(receipt));
        Evidence { rcp_s256, ..self.evidence(Event::ContentHandover, about) }.to_json()
    }

    /// ContentHandoverFailure: the recipient signed that it never will open the message.
    #[must_use]
    pub fn refused(&self, about: About<'_>, receipt: &[u8], reason: &str) -> Bytes {
        let rcp_s256 = Some(identity(receipt));
        let rsn = Some(reason.to_owned());
        Evidence { rcp_s256, rsn, ..self.evidence(Event::ContentHandoverFailure, about) }.to_json()
    }

    /// ContentHandoverFailure: given up, or discarded by an operator.
    #[must_use]
    pub fn given_up(&self, about: About<'_>, reason: Reason) -> Bytes {
        let rsn = Some(reason.as_str().to_owned());
        Evidence { rsn, ..self.evidence(Event::ContentHandoverFailure, about) }.to_json()
    }

    /// ContentConsignmentFailure: the message expired before its recipient had it, or its case never came to be.
    #[must_use]
    pub fn expired(&self, about: About<'_>, reason: Reason) -> Bytes {
        let rsn = Some(reason.as_str().to_owned());
        Evidence { rsn, ..self.evidence(Event::ContentConsignmentFailure, about) }.to_json()
    }

    /// AcceptanceRejectionExpiry: the case that this message opened passed its deadline.
    #[must_use]
    pub fn case_expired(&self, about: About<'_>) -> Bytes {
        let rsn = Some(Reason::CaseExpired.as_str().to_owned());
        Evidence { rsn, ..self.evidence(Event::AcceptanceRejectionExpiry, about) }.to_json()
    }

    /// Signs at once what waits for no journal: rejections.
    ///
    /// # Errors
    /// The signer's own.
    pub fn sign_now(&self, jsons: &[Bytes]) -> Result<Vec<Statement>, SignError> {
        let mut signed = Vec::with_capacity(jsons.len());
        for chunk in jsons.chunks(batch::BATCH_MAX) {
            signed.extend(batch::sign(self.signer.as_ref(), self.clock.now_s(), chunk)?);
        }
        Ok(signed)
    }

    fn evidence(&self, evt: Event, about: About<'_>) -> Evidence {
        let now_ms = self.clock.now_ms();
        Evidence {
            jti: MessageId::new(now_ms, (self.random)()),
            iss: self.name.clone(),
            evt,
            mid: about.origin.jti,
            org_s256: about.identity,
            from: about.origin.iss.clone(),
            to: about.origin.aud.clone(),
            case: about.origin.case,
            at: now_ms.div_euclid(1_000),
            rsn: None,
            rcp_s256: None,
            peer_s256: None,
        }
    }
}

impl Notary for Prover {
    fn sign(&self, now_ms: i64, jsons: &[Bytes]) -> Result<Vec<Statement>, String> {
        batch::sign(self.signer.as_ref(), now_ms.div_euclid(1_000), jsons).map_err(|error| error.to_string())
    }
}
