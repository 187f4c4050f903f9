//! Whether a body is well formed: lengths, codes, identifiers, and what a status asks for. The sender's adapter asks before it
//! seals, the recipient's before it shows.
//!
//! Knows: the rules of `tramite.body.v1` and the limits, each with its reason. Never knows: the case (the state machines do), who
//! may send what (policy does), amounts or entitlement.
//! Invariants: every problem is reported, not the first alone, up to a limit; a problem names the path of its field and never
//! repeats the value, because it travels and is logged; no input panics.
use prost::Message as _;

use crate::{
    commitment::BODY_MAX,
    parts::{PARTS_MAX, PLAIN_MAX},
    pb::{
        backoffice::v1::AttachmentHeader,
        body::v1::{Body, body::Kind},
    },
    states::MessageType,
};

mod attachments;
mod document;
mod field;
mod person;
mod referral;
mod warnings;

pub use crate::reason::FieldProblem;
use field::Check;
pub use warnings::warnings;

/// A body's encoding must fit the largest padded plaintext beside salt and length (FORMATS.md §3).
pub const BODY_BYTES_MAX: usize = BODY_MAX;
/// Attachments of one message: as many as parts in an origin statement (FORMATS.md §2.1).
pub const ATTACHMENTS_MAX: usize = PARTS_MAX;
/// Plaintext of all attachments of a message: a scanned file of a person, with room to spare (FORMATS.md §4).
pub const ATTACHMENT_BYTES_MAX: u64 = PLAIN_MAX;
/// Problems reported for one body: beyond these, who made it must look at it anyway.
pub const PROBLEMS_MAX: usize = 64;

/// Checks a body as it is about to be sealed, or as it was opened.
pub fn body(body: &Body) -> Result<(), Vec<FieldProblem>> {
    check(body, Stage::Whole)
}

/// Checks a body whose attachments are not joined to it yet: everything but attachments and references to them.
pub fn draft(body: &Body) -> Result<(), Vec<FieldProblem>> {
    check(body, Stage::Draft)
}

/// Checks what is said of an attachment before its bytes come, by the same rules as [`body()`] once they are joined to a message.
pub fn attachment_header(header: &AttachmentHeader) -> Result<(), Vec<FieldProblem>> {
    let mut problems = Vec::new();
    let mut check = Check::root(&mut problems);
    attachments::described(&mut check.inside("header"), &header.name, &header.media_type, &header.document);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// How much of a body is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Whole,
    Draft,
}

fn check(body: &Body, stage: Stage) -> Result<(), Vec<FieldProblem>> {
    let mut problems = Vec::new();
    let mut check = Check::root(&mut problems);
    let attachments = (stage == Stage::Whole).then_some(body.attachments.len());
    match &body.kind {
        None => check.problem("kind", "no kind of body is set, or one that this version does not know"),
        Some(Kind::Referral(it)) => referral::referral(&mut check.inside("referral"), it),
        Some(Kind::ReferralUpdate(it)) => referral::update(&mut check.inside("referral_update"), it),
        Some(Kind::DocumentRequest(it)) => document::request(&mut check.inside("document_request"), it),
        Some(Kind::DocumentResponse(it)) => document::response(&mut check.inside("document_response"), it, attachments),
        Some(Kind::DocumentRequestUpdate(it)) => document::update(&mut check.inside("document_request_update"), it),
    }
    if stage == Stage::Whole {
        attachments::attachments(&mut check, body);
    }
    if body.encoded_len() > BODY_BYTES_MAX {
        check.problem("body", "over 65,500 bytes in all: send long texts as attachments");
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// That a status is one to which a message of this type can move a case, and that a reason stands where the status needs one.
fn status_and_reason<R: std::str::FromStr<Err = crate::codes::UnknownCode>>(
    check: &mut Check<'_>,
    kind: MessageType,
    status: &str,
    reason: &str,
) {
    if !kind.statuses().contains(&status) {
        check.problem("status", format!("not a status of this message; it is one of {}", kind.statuses().join(", ")));
    } else if reason.is_empty() && kind.needs_reason(status) {
        check.problem("reason", "this status needs a reason code");
    }
    check.optional_code::<R>("reason", reason);
}

#[cfg(test)]
mod tests;
