//! A request to send, read from JSON: who, to whom, for what purpose, the body, and the files to attach.
//!
//! Knows which members go with which kind. Never reads a file: a file's name is checked here, its content elsewhere. Invariant: a
//! name of a file can never lead out of the folder that it is looked for in.

use serde::{Deserialize, Serialize};
use tramite_proto::pb::backoffice::v1 as pb;

use super::{
    bodies,
    form::{Form, Problem, word},
};
use crate::request::Request;

/// The largest text that is read: 64 KiB go into a body, and JSON spells it longer.
pub const TEXT_MAX: usize = 256 * 1024;

word!(
    /// `routine`, `urgent`.
    Priority => pb::Priority, "PRIORITY_"
);

/// Why a text is not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON, or a member is unknown or of the wrong type.
    #[error("not a message: {0}")]
    Syntax(String),
    /// A member does not fit.
    #[error("{0}")]
    Member(String),
}

/// A request with the files that are to be attached to it.
#[derive(Debug, Clone, PartialEq)]
pub struct SendRequest {
    /// What is to be sent; its `attachments` are still empty.
    pub request: Request,
    /// In the order in which they are attached.
    pub files: Vec<FileToAttach>,
}

/// A file to attach, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileToAttach {
    /// Relative to the folder of the message, parts joined by `/`.
    pub file: String,
    /// How the recipient will see it: a name without a path.
    pub name: String,
    /// E.g. `application/pdf`.
    pub media_type: String,
    /// Document code; may be empty.
    pub document: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Text {
    kind: String,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    case_id: String,
    #[serde(default)]
    conversation_id: String,
    #[serde(default)]
    purpose: String,
    #[serde(default)]
    legal_basis: String,
    #[serde(default)]
    agreement: String,
    #[serde(default)]
    operator: String,
    priority: Option<Priority>,
    #[serde(default)]
    expires_in_s: u64,
    #[serde(default)]
    reply_within_s: u64,
    #[serde(default)]
    attachments: Vec<FileText>,
    referral: Option<bodies::Referral>,
    referral_update: Option<bodies::ReferralUpdate>,
    document_request: Option<bodies::DocumentRequest>,
    document_response: Option<bodies::DocumentResponse>,
    document_request_update: Option<bodies::DocumentRequestUpdate>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum FileText {
    Name(String),
    Described(FileDescribed),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FileDescribed {
    file: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    document: String,
}

/// Reads a request to send.
///
/// # Errors
/// One sentence that names the member, and the line where the JSON itself is wrong.
pub fn parse_send(text: &str) -> Result<SendRequest, JsonError> {
    if text.len() > TEXT_MAX {
        // Its own length is not told: whoever read it may have stopped right behind the limit.
        return Err(JsonError::Syntax(format!("it is too long; a message has at most {TEXT_MAX} bytes")));
    }
    let text: Text = serde_json::from_str(text).map_err(|e| JsonError::Syntax(e.to_string()))?;
    read(text).map_err(|problem| JsonError::Member(problem.to_string()))
}

fn read(mut text: Text) -> Result<SendRequest, Problem> {
    let attachments = std::mem::take(&mut text.attachments);
    let mut files = Vec::with_capacity(attachments.len());
    for (at, file) in attachments.into_iter().enumerate() {
        files.push(read_file(file).map_err(|p| p.within(&at.to_string()).within("attachments"))?);
    }
    let sending = Some(pb::Sending {
        request_id: std::mem::take(&mut text.request_id),
        purpose: std::mem::take(&mut text.purpose),
        legal_basis: std::mem::take(&mut text.legal_basis),
        agreement: std::mem::take(&mut text.agreement),
        operator: std::mem::take(&mut text.operator),
        priority: match text.priority.take() {
            Some(word) => word.read().map_err(|p| p.within("priority"))?,
            None => 0,
        },
        expires_in_s: text.expires_in_s,
        reply_within_s: text.reply_within_s,
        attachments: Vec::new(),
    });
    Ok(SendRequest { request: read_kind(text, sending)?, files })
}

/// The body that belongs to the kind, and only that one.
fn read_kind(text: Text, sending: Option<pb::Sending>) -> Result<Request, Problem> {
    check_members(&text)?;
    let Text { to, case_id, conversation_id, .. } = text;
    let missing = || Problem::new(format!("the member `{}` with the body is missing", text.kind));
    match text.kind.as_str() {
        "referral" => {
            let referral = text.referral.ok_or_else(missing)?.read().map_err(|p| p.within("referral"))?;
            Ok(Request::Referral(pb::SendReferralRequest { sending, to, referral, conversation_id }))
        }
        "referral_update" => {
            let update = text.referral_update.ok_or_else(missing)?.read().map_err(|p| p.within("referral_update"))?;
            Ok(Request::ReferralUpdate(pb::UpdateReferralRequest { sending, case_id, update }))
        }
        "document_request" => {
            let request =
                text.document_request.ok_or_else(missing)?.read().map_err(|p| p.within("document_request"))?;
            Ok(Request::DocumentRequest(pb::RequestDocumentsRequest { sending, to, request, conversation_id }))
        }
        "document_response" => {
            let response =
                text.document_response.ok_or_else(missing)?.read().map_err(|p| p.within("document_response"))?;
            Ok(Request::DocumentResponse(pb::ProvideDocumentsRequest { sending, case_id, response }))
        }
        // `check_members` left nothing else.
        _ => {
            let update = text
                .document_request_update
                .ok_or_else(missing)?
                .read()
                .map_err(|p| p.within("document_request_update"))?;
            Ok(Request::DocumentRequestUpdate(pb::UpdateDocumentRequestRequest { sending, case_id, update }))
        }
    }
}

/// A member that the kind does not use is a mistake that would otherwise be lost without a word.
fn check_members(text: &Text) -> Result<(), Problem> {
    let bodies = [
        ("referral", text.referral.is_some()),
        ("referral_update", text.referral_update.is_some()),
        ("document_request", text.document_request.is_some()),
        ("document_response", text.document_response.is_some()),
        ("document_request_update", text.document_request_update.is_some()),
    ];
    let kind = text.kind.as_str();
    if !bodies.iter().any(|(name, _)| *name == kind) {
        let kinds: Vec<&str> = bodies.iter().map(|(name, _)| *name).collect();
        return Err(Problem::new(format!("`{kind}` is none of {}", kinds.join(", "))).within("kind"));
    }
    if let Some((name, _)) = bodies.iter().find(|(name, given)| *given && *name != kind) {
        return Err(Problem::new(format!("does not belong to a message of kind `{kind}`")).within(name));
    }
    let opens = matches!(kind, "referral" | "document_request");
    let wrong = |member: &str, what: &str| Err(Problem::new(what).within(member));
    match (opens, text.to.is_empty(), text.case_id.is_empty()) {
        (true, true, _) => wrong("to", "is missing: name the institution that it goes to"),
        (true, _, false) => wrong("case_id", "does not belong to a message that opens a case"),
        (false, _, true) => wrong("case_id", "is missing: name the case that it moves"),
        (false, false, _) => wrong("to", "does not belong here: it goes to the other side of the case"),
        (false, ..) if !text.conversation_id.is_empty() => {
            wrong("conversation_id", "does not belong here: the case has one")
        }
        _ => Ok(()),
    }
}

fn read_file(text: FileText) -> Result<FileToAttach, Problem> {
    let described = match text {
        FileText::Name(file) => {
            FileDescribed { file, name: String::new(), media_type: String::new(), document: String::new() }
        }
        FileText::Described(described) => described,
    };
    let FileDescribed { file, mut name, mut media_type, document } = described;
    let inside = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !file.split('/').all(inside) || file.contains(['\\', '\0']) {
        let what =
            format!("`{file}` is not a file in the message's folder: write its name, without a path that leads out");
        return Err(Problem::new(what));
    }
    if name.is_empty() {
        name = file.rsplit('/').next().unwrap_or_default().to_owned();
    }
    if media_type.is_empty() {
        media_type = media_type_of(&name).to_owned();
    }
    Ok(FileToAttach { file, name, media_type, document })
}

/// The media type that goes with a file name's ending.
#[must_use]
pub fn media_type_of(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).as_deref() {
        Some("pdf") => "application/pdf",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("p7m") => "application/pkcs7-mime",
        Some("txt") => "text/plain",
        Some("csv") => "text/csv",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("png") => "image/png",
        Some("tif" | "tiff") => "image/tiff",
        _ => "application/octet-stream",
    }
}
