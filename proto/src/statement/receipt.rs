//! Receipt: what the recipient says of a message (FORMATS.md §2.2).
//!
//! Knows which message, in which bytes, and whether it was opened. Never knows content. Invariants: a reason stands in it exactly
//! when it was not opened; `opened` is signed only once everything is on the recipient's disk, which its caller keeps.
use bytes::Bytes;
use serde::Serialize;

use super::{Checkpoint, Kind, Origin, SubjectTag, checkpoint, field, identity, read, subject_tags, write};
use crate::{
    ids::{Digest, InstitutionName, MessageId},
    reason::{Reason, Refused},
    strict::{Object, Problem},
};

/// A recipient's word about one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The receipt's own id.
    pub jti: MessageId,
    /// The recipient, who issues it.
    pub iss: InstitutionName,
    /// The message's issuer.
    pub aud: InstitutionName,
    /// The message.
    pub mid: MessageId,
    /// Identity of its origin.
    pub org_s256: Digest,
    /// SHA-256 of its ciphertext.
    pub ct_s256: Digest,
    /// Commitment to its plaintext.
    pub ptc: Digest,
    /// When, unix seconds.
    pub at: i64,
    /// Opened, or refused for good.
    pub opened: bool,
    /// Why it was not opened; absent when it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rsn: Option<String>,
    /// Subject tags under the recipient's own key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sj: Vec<SubjectTag>,
    /// Last log checkpoint seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lcp: Option<Checkpoint>,
}

impl Receipt {
    /// Reads a receipt strictly.
    pub fn parse(json: &[u8]) -> Result<Self, Refused> {
        read(json, Kind::Receipt, members)
    }

    /// Writes it: the bytes that are then signed and never written again.
    pub fn to_json(&self) -> Bytes {
        write(Kind::Receipt, self)
    }

    /// Checks that it is about this message: issued by its audience, for its issuer, over these bytes (RECEIPT_MISMATCH).
    pub fn check_against(&self, origin: &Origin, origin_json: &[u8]) -> Result<(), Refused> {
        let same = self.iss == origin.aud
            && self.aud == origin.iss
            && self.mid == origin.jti
            && self.org_s256 == identity(origin_json)
            && self.ct_s256 == origin.ct.s256
            && self.ptc == origin.ptc;
        if same {
            return Ok(());
        }
        Err(Refused::new(Reason::ReceiptMismatch, "The receipt is not the recipient's over this message."))
    }
}

fn members(object: &mut Object<'_>) -> Result<Receipt, Problem> {
    let receipt = Receipt {
        jti: field::own_id(object, "jti")?,
        iss: field::institution(object, "iss")?,
        aud: field::institution(object, "aud")?,
        mid: field::message_id(object, "mid")?,
        org_s256: field::digest(object, "org_s256")?,
        ct_s256: field::digest(object, "ct_s256")?,
        ptc: field::digest(object, "ptc")?,
        at: field::time(object, "at")?,
        opened: object.flag("opened")?,
        rsn: field::optional(object, "rsn", field::code)?,
        sj: subject_tags(object)?,
        lcp: checkpoint(object)?,
    };
    if receipt.iss == receipt.aud {
        return Err(object.problem("aud", "is the issuer"));
    }
    match (receipt.opened, receipt.rsn.is_some()) {
        (true, true) => Err(object.problem("rsn", "stands in a receipt of something opened")),
        (false, false) => Err(object.problem("rsn", "is missing where nothing was opened")),
        _ => Ok(receipt),
    }
}
