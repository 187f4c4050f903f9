//! Messages as JSON, for people and for systems that speak no gRPC: the spool folder and the command line.
//!
//! The form is that of the contracts in `proto/tramite/body/v1` and `proto/tramite/backoffice/v1`, with friendlier dates
//! (`"1980-01-31"`) and words (`"male"`, `"routine"`); `SPOOL.md` beside this crate's manifest is its documentation. Knows how to
//! read a request and how to show what arrived. Never knows keys, files' contents or the network. Invariants: an unknown member is
//! an error that names the known ones; what is shown can be read again; a content key is never shown.

mod bodies;
mod form;
mod person;
mod send;

use serde_json::{Map, Value, json};
use tramite_proto::pb::{
    backoffice::v1 as pb,
    body::v1::{self as body, body::Kind},
};

use self::form::Form;
pub use self::send::{FileToAttach, JsonError, SendRequest, TEXT_MAX, media_type_of, parse_send};

/// An inbox item as a JSON object.
#[must_use]
pub fn inbox_item_to_json(item: &pb::InboxItem) -> Value {
    let mut object = Map::new();
    object.insert("item_id".into(), item.item_id.clone().into());
    object.insert("received_ms".into(), item.received_ms.into());
    match &item.kind {
        Some(pb::inbox_item::Kind::Message(message)) => {
            object.insert("message".into(), message_to_json(message));
        }
        Some(pb::inbox_item::Kind::Notice(notice)) => {
            object.insert("notice".into(), notice_to_json(notice));
        }
        None => {}
    }
    if item.repeated {
        object.insert("repeated".into(), true.into());
    }
    put_text(&mut object, "traceparent", &item.traceparent);
    Value::Object(object)
}

/// A received message as a JSON object: its routing, its body under the name of its kind, its attachments.
#[must_use]
pub fn message_to_json(message: &pb::ReceivedMessage) -> Value {
    let mut object = Map::new();
    for (name, text) in [
        ("message_id", &message.message_id),
        ("case_id", &message.case_id),
        ("conversation_id", &message.conversation_id),
        ("in_reply_to", &message.in_reply_to),
        ("from", &message.from),
        ("type", &message.r#type),
        ("purpose", &message.purpose),
        ("legal_basis", &message.legal_basis),
        ("agreement", &message.agreement),
        ("operator", &message.operator),
    ] {
        put_text(&mut object, name, text);
    }
    object.insert("issued".into(), message.issued.into());
    if message.reply_by != 0 {
        object.insert("reply_by".into(), message.reply_by.into());
    }
    if let Some(word) = <send::Priority as Form<i32>>::show(message.priority) {
        object.insert("priority".into(), to_value(&word));
    }
    if let Some(body) = &message.body {
        put_body(&mut object, body);
    }
    Value::Object(object)
}

/// A notice as a JSON object.
#[must_use]
pub fn notice_to_json(notice: &pb::Notice) -> Value {
    let mut object = Map::new();
    put_text(&mut object, "kind", &notice.kind);
    put_text(&mut object, "message_id", &notice.message_id);
    put_text(&mut object, "case_id", &notice.case_id);
    put_text(&mut object, "to", &notice.to);
    put_text(&mut object, "reason", &notice.reason);
    put_text(&mut object, "detail", &notice.detail);
    object.insert("at".into(), notice.at.into());
    Value::Object(object)
}

/// The answer to a request that was sent, as a JSON object.
#[must_use]
pub fn sent_to_json(sent: &pb::SendResponse) -> Value {
    json!({
        "message_id": sent.message_id,
        "case_id": sent.case_id,
        "conversation_id": sent.conversation_id,
        "repeated": sent.repeated,
    })
}

/// A case as a JSON object.
#[must_use]
pub fn case_to_json(case: &pb::Case) -> Value {
    let mut object = Map::new();
    for (name, text) in [
        ("case_id", &case.case_id),
        ("conversation_id", &case.conversation_id),
        ("kind", &case.kind),
        ("opener", &case.opener),
        ("responder", &case.responder),
        ("status", &case.status),
        ("reason", &case.reason),
        ("next", &case.next),
    ] {
        put_text(&mut object, name, text);
    }
    object.insert("opened_ms".into(), case.opened_ms.into());
    object.insert("moved_ms".into(), case.moved_ms.into());
    if case.reply_by != 0 {
        object.insert("reply_by".into(), case.reply_by.into());
    }
    if !case.timeline.is_empty() {
        object.insert("timeline".into(), case.timeline.iter().map(entry_to_json).collect());
    }
    Value::Object(object)
}

fn entry_to_json(entry: &pb::TimelineEntry) -> Value {
    let mut object = Map::new();
    object.insert("at_ms".into(), entry.at_ms.into());
    for (name, text) in [
        ("event", &entry.event),
        ("message_id", &entry.message_id),
        ("from", &entry.from),
        ("to", &entry.to),
        ("type", &entry.r#type),
        ("status", &entry.status),
        ("reason", &entry.reason),
    ] {
        put_text(&mut object, name, text);
    }
    Value::Object(object)
}

/// The body under the name of its kind, and its attachments; never the content key.
fn put_body(object: &mut Map<String, Value>, body: &body::Body) {
    let shown = match body.kind.clone() {
        Some(Kind::Referral(kind)) => bodies::Referral::show(kind).map(|form| ("referral", to_value(&form))),
        Some(Kind::ReferralUpdate(kind)) => {
            bodies::ReferralUpdate::show(kind).map(|form| ("referral_update", to_value(&form)))
        }
        Some(Kind::DocumentRequest(kind)) => {
            bodies::DocumentRequest::show(kind).map(|form| ("document_request", to_value(&form)))
        }
        Some(Kind::DocumentResponse(kind)) => {
            bodies::DocumentResponse::show(kind).map(|form| ("document_response", to_value(&form)))
        }
        Some(Kind::DocumentRequestUpdate(kind)) => {
            bodies::DocumentRequestUpdate::show(kind).map(|form| ("document_request_update", to_value(&form)))
        }
        None => None,
    };
    if let Some((name, value)) = shown {
        object.insert("kind".into(), name.into());
        object.insert(name.into(), value);
    }
    let attachments: Vec<Value> =
        body.attachments.iter().cloned().filter_map(bodies::Attachment::show).map(|form| to_value(&form)).collect();
    if !attachments.is_empty() {
        object.insert("attachments".into(), attachments.into());
    }
}

fn put_text(object: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        object.insert(name.into(), text.into());
    }
}

/// Forms hold strings, numbers, lists and other forms only, which always are JSON.
fn to_value<T: serde::Serialize>(form: &T) -> Value {
    serde_json::to_value(form).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests;
