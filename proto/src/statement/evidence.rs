//! Evidence: what the gateway says of a message (FORMATS.md §2.3), in the events of ETSI EN 319 522-3.
//!
//! Knows which event, of which message, between whom. Never knows content. Invariants: each event carries the members that its kind
//! asks for and no other: a reason on failures, the receipt on handover, the peer's certificate on submission.
use std::{fmt, str::FromStr};

use bytes::Bytes;
use serde::Serialize;

use super::{Kind, Origin, field, identity, read, write};
use crate::{
    ids::{CaseId, Digest, InstitutionName, MessageId},
    reason::{Reason, Refused},
    strict::{Object, Problem},
};

/// The gateway's word about one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The evidence's own id.
    pub jti: MessageId,
    /// The gateway's name.
    pub iss: InstitutionName,
    /// What happened.
    pub evt: Event,
    /// The message.
    pub mid: MessageId,
    /// Identity of its origin.
    pub org_s256: Digest,
    /// Its issuer.
    pub from: InstitutionName,
    /// Its audience.
    pub to: InstitutionName,
    /// Its case.
    pub case: CaseId,
    /// When, unix seconds.
    pub at: i64,
    /// Why, on failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rsn: Option<String>,
    /// Identity of the receipt, on handover (and on its failure, when the recipient said so).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rcp_s256: Option<Digest>,
    /// SHA-256 of the submitting TLS certificate, on submission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_s256: Option<Digest>,
}

/// Events of ETSI EN 319 522-3, as far as they happen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Accepted, durably: the gateway answers for it from here.
    SubmissionAcceptance,
    /// Refused at submission.
    SubmissionRejection,
    /// Could not be offered to its recipient until its expiry.
    ContentConsignmentFailure,
    /// The recipient opened it and signed for it.
    ContentHandover,
    /// The recipient could not open it and never will.
    ContentHandoverFailure,
    /// A case passed its deadline without an answer.
    AcceptanceRejectionExpiry,
}

/// Whether a member stands in an event's evidence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Must,
    May,
    Never,
}

impl Event {
    /// Its name in EN 319 522-3.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// One row for each event: its name, and whether `rsn`, `rcp_s256` and `peer_s256` stand in it.
    fn row(self) -> (&'static str, Presence, Presence, Presence) {
        use Presence::{May, Must, Never};
        match self {
            Self::SubmissionAcceptance => ("SubmissionAcceptance", Never, Never, Must),
            Self::SubmissionRejection => ("SubmissionRejection", Must, Never, Must),
            Self::ContentConsignmentFailure => ("ContentConsignmentFailure", Must, Never, Never),
            Self::ContentHandover => ("ContentHandover", Never, Must, Never),
            Self::ContentHandoverFailure => ("ContentHandoverFailure", Must, May, Never),
            Self::AcceptanceRejectionExpiry => ("AcceptanceRejectionExpiry", May, Never, Never),
        }
    }

    /// Every event.
    pub fn all() -> [Self; 6] {
        [
            Self::SubmissionAcceptance,
            Self::SubmissionRejection,
            Self::ContentConsignmentFailure,
            Self::ContentHandover,
            Self::ContentHandoverFailure,
            Self::AcceptanceRejectionExpiry,
        ]
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Event {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::all().into_iter().find(|event| event.as_str() == text).ok_or(())
    }
}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Evidence {
    /// Reads an evidence statement strictly.
    pub fn parse(json: &[u8]) -> Result<Self, Refused> {
        read(json, Kind::Evidence, members)
    }

    /// Writes it: the bytes that are then signed and never written again.
    pub fn to_json(&self) -> Bytes {
        write(Kind::Evidence, self)
    }

    /// Checks that it is about this message: its id, its bytes, its way and its case (EVIDENCE_INVALID).
    pub fn check_against(&self, origin: &Origin, origin_json: &[u8]) -> Result<(), Refused> {
        let same = self.mid == origin.jti
            && self.org_s256 == identity(origin_json)
            && self.from == origin.iss
            && self.to == origin.aud
            && self.case == origin.case;
        if same {
            return Ok(());
        }
        Err(Refused::new(Reason::EvidenceInvalid, "The evidence is not about this message."))
    }
}

fn members(object: &mut Object<'_>) -> Result<Evidence, Problem> {
    let evidence = Evidence {
        jti: field::own_id(object, "jti")?,
        iss: field::institution(object, "iss")?,
        evt: field::spelled(object, "evt", "an event of FORMATS.md §2.3")?,
        mid: field::message_id(object, "mid")?,
        org_s256: field::digest(object, "org_s256")?,
        from: field::institution(object, "from")?,
        to: field::institution(object, "to")?,
        case: field::case_id(object, "case")?,
        at: field::time(object, "at")?,
        rsn: field::optional(object, "rsn", field::code)?,
        rcp_s256: field::optional(object, "rcp_s256", field::digest)?,
        peer_s256: field::optional(object, "peer_s256", field::digest)?,
    };
    let (event, rsn, rcp, peer) = evidence.evt.row();
    for (name, presence, present) in [
        ("rsn", rsn, evidence.rsn.is_some()),
        ("rcp_s256", rcp, evidence.rcp_s256.is_some()),
        ("peer_s256", peer, evidence.peer_s256.is_some()),
    ] {
        match (presence, present) {
            (Presence::Must, false) => return Err(object.problem(name, format!("is missing in {event}"))),
            (Presence::Never, true) => return Err(object.problem(name, format!("does not stand in {event}"))),
            _ => {}
        }
    }
    Ok(evidence)
}
