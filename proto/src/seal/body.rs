//! Whether an opened body says what its origin says (FORMATS.md §3, BODY_MISMATCH).
//!
//! Knows kind, status, reason and number of attachments of each kind of body. Never knows vocabulary, nor who may move what.
use crate::{
    pb::body::v1::{Body, body::Kind},
    reason::{Reason, Refused},
    statement::Origin,
};

/// The status to which a body of a kind that opens a case moves it.
const OPENING: &str = "requested";
/// Bytes of the content key of a body with attachments.
const CONTENT_KEY: usize = 32;

/// The message type of a body: the protobuf full name of its kind.
pub fn message_type(kind: &Kind) -> &'static str {
    match kind {
        Kind::Referral(_) => "tramite.body.v1.Referral",
        Kind::ReferralUpdate(_) => "tramite.body.v1.ReferralUpdate",
        Kind::DocumentRequest(_) => "tramite.body.v1.DocumentRequest",
        Kind::DocumentResponse(_) => "tramite.body.v1.DocumentResponse",
        Kind::DocumentRequestUpdate(_) => "tramite.body.v1.DocumentRequestUpdate",
    }
}

/// Status and reason that a body moves its case with.
fn moves(kind: &Kind) -> (&str, &str) {
    match kind {
        Kind::Referral(_) | Kind::DocumentRequest(_) => (OPENING, ""),
        Kind::ReferralUpdate(update) => (&update.status, &update.reason),
        Kind::DocumentResponse(response) => (&response.status, &response.reason),
        Kind::DocumentRequestUpdate(update) => (&update.status, &update.reason),
    }
}

/// Checks kind, status, reason and attachments of a body against its origin.
pub fn check_body(origin: &Origin, body: &Body) -> Result<(), Refused> {
    let Some(kind) = &body.kind else { return Err(mismatch("The body is of no kind that is known here.")) };
    if message_type(kind) != origin.mt {
        return Err(mismatch("The body is of another kind than the origin's `mt`."));
    }
    let (status, reason) = moves(kind);
    if status != origin.cs {
        return Err(mismatch("The body has another status than the origin's `cs`."));
    }
    if reason != origin.rsn.as_deref().unwrap_or_default() {
        return Err(mismatch("The body has another reason than the origin's `rsn`."));
    }
    if body.attachments.len() != origin.parts.len() {
        return Err(mismatch("The body has not as many attachments as the origin has `parts`."));
    }
    for (attachment, part) in body.attachments.iter().zip(&origin.parts) {
        if crate::parts::plain_len(part.len) != Some(attachment.length) {
            return Err(mismatch("An attachment has another length than its part in the origin."));
        }
    }
    let key = if body.attachments.is_empty() { 0 } else { CONTENT_KEY };
    if body.content_key.len() != key {
        return Err(mismatch("The body's content key is missing, or stands there without attachments."));
    }
    Ok(())
}

fn mismatch(detail: &str) -> Refused {
    Refused::new(Reason::BodyMismatch, detail)
}
