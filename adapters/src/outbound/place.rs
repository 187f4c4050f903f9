//! Where a message belongs: its case, its conversation, to whom it goes.
//!
//! Knows the cases in the store and the rules of casework. Never knows bodies beyond what origin will say of them. The store asks the
//! rules again when it writes; here they are asked so that the caller gets the answer before anything is sealed.

use std::str::FromStr as _;

use tramite_proto::{
    ids::{CaseId, ConversationId, InstitutionName, MessageId},
    pb::body::v1::Body,
    reason::{Reason, Refused},
    states::{MessageType, Party},
};
use tramite_store::CaseRow;

use crate::{
    core::{Core, unreadable},
    request::Target,
};

/// Where a message belongs.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) to: InstitutionName,
    pub(super) case: CaseId,
    pub(super) conversation: ConversationId,
    pub(super) in_reply_to: Option<MessageId>,
    pub(super) opener: InstitutionName,
    pub(super) responder: InstitutionName,
    pub(super) kind: MessageType,
    pub(super) status: String,
    pub(super) reason: String,
}

/// Finds the place of the message `jti`.
pub(super) fn find(
    core: &Core,
    target: &Target<'_>,
    body: &Body,
    jti: MessageId,
    new_conversation: ConversationId,
) -> Result<Place, Refused> {
    let kind = MessageType::of(body).ok_or_else(|| Refused::because(Reason::SchemaInvalid))?;
    let (status, reason) = MessageType::move_of(body).unwrap_or_default();
    let (status, reason) = (status.to_owned(), reason.to_owned());
    match target {
        Target::Opens { to, conversation, for_case } => {
            let to = InstitutionName::from_str(to).map_err(|_| {
                Refused::new(Reason::FieldInvalid, "`to` is not the name of an institution").field("to")
            })?;
            if to == core.name {
                return Err(Refused::new(Reason::FieldInvalid, "an institution does not write to itself").field("to"));
            }
            let conversation = conversation_of(core, conversation, for_case)?.unwrap_or(new_conversation);
            let (opener, responder) = (core.name.clone(), to.clone());
            Ok(Place { to, case: jti.into(), conversation, in_reply_to: None, opener, responder, kind, status, reason })
        }
        Target::Moves { case } => moves(core, case, kind, status, reason),
    }
}

fn moves(core: &Core, case: &str, kind: MessageType, status: String, reason: String) -> Result<Place, Refused> {
    let case = CaseId::from_str(case).map_err(|error| Refused::from(error).field("case_id"))?;
    let unknown = || Refused::new(Reason::CaseUnknown, "this institution has no such case").field("case_id");
    let row = core.store.case(case).map_err(unreadable)?.ok_or_else(unknown)?;
    if row.kind != kind.case_kind().as_str() {
        let detail = "the message's type does not belong to this kind of case";
        return Err(Refused::new(Reason::CaseMismatch, detail).field("case_id"));
    }
    let by = party(&row, &core.name)?;
    kind.check(Some(&row.status), &status, by, (!reason.is_empty()).then_some(reason.as_str()))?;
    let broken = |_| Refused::new(Reason::Internal, "the case in the store names no institution");
    let (opener, responder) = (row.opener.parse().map_err(broken)?, row.responder.parse().map_err(broken)?);
    let (to, in_reply_to) = match by {
        Party::Opener => (InstitutionName::clone(&responder), None),
        _ => (InstitutionName::clone(&opener), Some(case.opened_by())),
    };
    let conversation = ConversationId::from_bytes(&row.conversation)?;
    Ok(Place { to, case, conversation, in_reply_to, opener, responder, kind, status, reason })
}

/// Which part this institution plays in a case.
pub(crate) fn party(row: &CaseRow, name: &InstitutionName) -> Result<Party, Refused> {
    match name.as_str() {
        name if name == row.opener => Ok(Party::Opener),
        name if name == row.responder => Ok(Party::Responder),
        _ => Err(Refused::because(Reason::CaseNotParty).field("case_id")),
    }
}

/// The conversation that was named, or that of the case that it serves, when this institution knows that one.
fn conversation_of(core: &Core, named: &str, for_case: &str) -> Result<Option<ConversationId>, Refused> {
    if !named.is_empty() {
        let named = ConversationId::from_str(named).map_err(|error| Refused::from(error).field("conversation_id"))?;
        return Ok(Some(named));
    }
    let Ok(case) = CaseId::from_str(for_case) else { return Ok(None) };
    let row = core.store.case(case).map_err(unreadable)?;
    Ok(row.and_then(|row| ConversationId::from_bytes(&row.conversation).ok()))
}
