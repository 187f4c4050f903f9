//! Document requests, their answers and updates.
//!
//! Knows: that the least that serves is asked for, that an ISEE consultation names its benefit, what each status asks for.
//! Never knows: whether an answer is true, or the content of a document.
use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use super::{field::Check, person, referral::NOTE_MAX, status_and_reason};
use crate::{
    ids::CaseId,
    pb::body::v1::{
        AnswerMode, DocumentProvided, DocumentRequest, DocumentRequestUpdate, DocumentResponse, DocumentWanted,
        document_provided::Answer,
    },
    states::MessageType,
    vocabulary::{Benefit, Document, DocumentReason},
};

/// Documents asked for, or answered, in one message.
const DOCUMENTS_MAX: usize = 20;
/// Characters of a sentence.
const SENTENCE_MAX: usize = 500;
/// Bytes of a datum in JSON: half of what a body holds.
const VALUE_BYTES_MAX: usize = 32 * 1024;

pub(super) fn request(check: &mut Check<'_>, request: &DocumentRequest) {
    if let Some(it) = check.required("person", request.person.as_ref()) {
        person::person(&mut check.inside("person"), it);
    }
    if request.documents.is_empty() {
        check.problem("documents", "at least one document must be asked for");
    }
    check.count("documents", request.documents.len(), DOCUMENTS_MAX);
    for (place, it) in request.documents.iter().take(DOCUMENTS_MAX).enumerate() {
        wanted(&mut check.inside(format_args!("documents[{place}]")), it);
    }
    if !request.for_case.is_empty() {
        check.parses::<CaseId>("for_case", &request.for_case);
    }
    check.optional_code::<Benefit>("benefit", &request.benefit);
    if request.benefit.is_empty() && request.documents.iter().any(|it| it.document == Document::Isee.as_str()) {
        check.problem("benefit", "missing: an ISEE consultation must name the benefit that it is for");
    }
    check.text("note", &request.note, NOTE_MAX);
    person::mandate(check, request.mandate.as_ref());
}

fn wanted(check: &mut Check<'_>, wanted: &DocumentWanted) {
    check.code::<Document>("document", &wanted.document);
    match AnswerMode::try_from(wanted.mode) {
        Err(_) | Ok(AnswerMode::Unspecified) => {
            check.problem("mode", "missing: VERIFY, VALUE or COPY, the least that serves")
        }
        Ok(AnswerMode::Verify) => check.required_text("statement", &wanted.statement, SENTENCE_MAX),
        Ok(AnswerMode::Value | AnswerMode::Copy) => {
            if !wanted.statement.is_empty() {
                check.problem("statement", "only with mode VERIFY");
            }
        }
    }
    check.date("as_of", wanted.as_of.as_ref());
}

/// `attachments`: how many the body has; none while it is a draft.
pub(super) fn response(check: &mut Check<'_>, response: &DocumentResponse, attachments: Option<usize>) {
    status_and_reason::<DocumentReason>(check, MessageType::DocumentResponse, &response.status, &response.reason);
    check.text("detail", &response.detail, SENTENCE_MAX);
    check.count("documents", response.documents.len(), DOCUMENTS_MAX);
    for (place, it) in response.documents.iter().take(DOCUMENTS_MAX).enumerate() {
        provided(&mut check.inside(format_args!("documents[{place}]")), it, attachments);
    }
    match response.status.as_str() {
        "provided" if response.documents.is_empty() => {
            check.problem("documents", "missing: status provided needs an answer")
        }
        "refused" if response.detail.trim().is_empty() => {
            check.problem(
                "detail",
                "missing: status refused needs the rule broken, or what is missing, in one sentence",
            );
        }
        "action_required" if response.action_url.is_empty() && response.detail.trim().is_empty() => {
            check.problem(
                "action_url",
                "missing: status action_required needs an address or a detail that says what to do",
            );
        }
        "deferred" => check.time("available_at", response.available_at),
        _ => {}
    }
    check.text("action_url", &response.action_url, SENTENCE_MAX);
    // Any other scheme, shown to a case worker as a link, could do something on a click.
    if !response.action_url.is_empty() && !response.action_url.starts_with("https://") {
        check.problem("action_url", "not an address that begins with https://");
    }
    if response.status != "deferred" && response.available_at != 0 {
        check.problem("available_at", "only with status deferred");
    }
}

fn provided(check: &mut Check<'_>, provided: &DocumentProvided, attachments: Option<usize>) {
    check.code::<Document>("document", &provided.document);
    match &provided.answer {
        None => check.problem("answer", "missing"),
        Some(Answer::Confirmed(_)) => {}
        Some(Answer::ValueJson(json)) => {
            if json.len() > VALUE_BYTES_MAX {
                check.problem("value_json", "over 32 KiB: send it as an attachment");
            } else if serde_json::from_str::<BTreeMap<String, IgnoredAny>>(json).is_err() {
                check.problem("value_json", "not a JSON object");
            }
        }
        Some(Answer::Attachment(index)) => {
            if attachments.is_some_and(|count| usize::try_from(*index).map_or(true, |index| index >= count)) {
                check.problem("attachment", "there is no such attachment");
            }
        }
        Some(Answer::Unavailable(reason)) => {
            check.code::<DocumentReason>("unavailable", reason);
        }
    }
    check.date("issued", provided.issued.as_ref());
    check.date("valid_until", provided.valid_until.as_ref());
}

pub(super) fn update(check: &mut Check<'_>, update: &DocumentRequestUpdate) {
    status_and_reason::<DocumentReason>(check, MessageType::DocumentRequestUpdate, &update.status, &update.reason);
    check.text("note", &update.note, NOTE_MAX);
}
