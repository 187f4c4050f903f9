//! What a back office may ask to be sent: the five sending requests as one type.
//!
//! Knows which body each carries, whom it goes to and what it does to a case. Never knows keys, ids or storage. Invariant: what origin
//! will say of a body is read from the very body that is sealed, so that they agree.

use prost::Message as _;
use tramite_proto::{
    ids::Digest,
    pb::{
        backoffice::v1 as pb,
        body::v1::{self as body, body::Kind},
    },
    reason::{Reason, Refused},
};

/// One of the five sending requests.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Opens a referral.
    Referral(pb::SendReferralRequest),
    /// Moves a referral.
    ReferralUpdate(pb::UpdateReferralRequest),
    /// Opens a document request.
    DocumentRequest(pb::RequestDocumentsRequest),
    /// Answers a document request.
    DocumentResponse(pb::ProvideDocumentsRequest),
    /// Confirms, disputes or cancels a document request.
    DocumentRequestUpdate(pb::UpdateDocumentRequestRequest),
}

/// Where a message belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target<'a> {
    /// It opens a case with this institution.
    Opens {
        /// Name of the institution.
        to: &'a str,
        /// Conversation id; empty: not said.
        conversation: &'a str,
        /// Case from which the conversation is taken when none is said; empty: none.
        for_case: &'a str,
    },
    /// It moves this case.
    Moves {
        /// Case id.
        case: &'a str,
    },
}

impl Request {
    /// What it needs besides its body; the default when the caller left it out.
    #[must_use]
    pub fn sending(&self) -> pb::Sending {
        let sending = match self {
            Self::Referral(request) => &request.sending,
            Self::ReferralUpdate(request) => &request.sending,
            Self::DocumentRequest(request) => &request.sending,
            Self::DocumentResponse(request) => &request.sending,
            Self::DocumentRequestUpdate(request) => &request.sending,
        };
        sending.clone().unwrap_or_default()
    }

    /// The same request with another `sending`.
    pub fn set_sending(&mut self, sending: pb::Sending) {
        let place = match self {
            Self::Referral(request) => &mut request.sending,
            Self::ReferralUpdate(request) => &mut request.sending,
            Self::DocumentRequest(request) => &mut request.sending,
            Self::DocumentResponse(request) => &mut request.sending,
            Self::DocumentRequestUpdate(request) => &mut request.sending,
        };
        *place = Some(sending);
    }

    /// Where it belongs.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        match self {
            Self::Referral(request) => Target::Opens {
                to: &request.to,
                conversation: &request.conversation_id,
                for_case: request.referral.as_ref().map_or("", |referral| referral.continues_case.as_str()),
            },
            Self::DocumentRequest(request) => Target::Opens {
                to: &request.to,
                conversation: &request.conversation_id,
                for_case: request.request.as_ref().map_or("", |wanted| wanted.for_case.as_str()),
            },
            Self::ReferralUpdate(request) => Target::Moves { case: &request.case_id },
            Self::DocumentResponse(request) => Target::Moves { case: &request.case_id },
            Self::DocumentRequestUpdate(request) => Target::Moves { case: &request.case_id },
        }
    }

    /// The body, still without attachments.
    ///
    /// # Errors
    /// `FIELD_INVALID` when the caller left it out.
    pub fn body(&self) -> Result<body::Body, Refused> {
        let (kind, field) = match self {
            Self::Referral(request) => (request.referral.clone().map(Kind::Referral), "referral"),
            Self::ReferralUpdate(request) => (request.update.clone().map(Kind::ReferralUpdate), "update"),
            Self::DocumentRequest(request) => (request.request.clone().map(Kind::DocumentRequest), "request"),
            Self::DocumentResponse(request) => (request.response.clone().map(Kind::DocumentResponse), "response"),
            Self::DocumentRequestUpdate(request) => (request.update.clone().map(Kind::DocumentRequestUpdate), "update"),
        };
        if kind.is_none() {
            let detail = format!("`{field}` is missing: the message has no body");
            return Err(Refused::new(Reason::FieldInvalid, detail).field(field));
        }
        Ok(body::Body { kind, ..body::Body::default() })
    }

    /// What a request id stands for, as the caller wrote it: which request, and every field of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let (kind, bytes) = match self {
            Self::Referral(request) => (1, request.encode_to_vec()),
            Self::ReferralUpdate(request) => (2, request.encode_to_vec()),
            Self::DocumentRequest(request) => (3, request.encode_to_vec()),
            Self::DocumentResponse(request) => (4, request.encode_to_vec()),
            Self::DocumentRequestUpdate(request) => (5, request.encode_to_vec()),
        };
        let mut all = vec![kind];
        all.extend(bytes);
        Digest::of(&all)
    }
}
