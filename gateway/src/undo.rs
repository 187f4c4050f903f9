//! A message that moved a case and ends without having been opened counts for nothing: the other side never saw the move. The case then
//! stands where the messages and deadlines that do count have brought it, and its issuer can send a corrected one; if none of them opened it,
//! it has ended. Whether it still stands where it was looked at is asked again by the journal's writer. It knows where a case stood; never
//! content.

use tramite_proto::{
    ids::CaseId,
    pb::journal::v1::{CaseMove, Outcome, fact::Kind},
    reason::Refused,
    states::{self, CaseKind, Party, Step},
};
use tramite_store::{CaseRow, MessageState};

use crate::hub::{Consigned, Hub};

/// Sets the case to where it stands without the message that was accepted as `sequence`, which ends for that reason; none when that is where
/// it stands anyway.
///
/// # Errors
/// STORE_FAILED: the case cannot be read, so the message must not end yet.
pub fn move_back(hub: &Hub, sequence: u64, consigned: &Consigned, reason: &str) -> Result<Option<CaseMove>, Refused> {
    let id = consigned.origin.case;
    let Some(case) = hub.store.case(id).map_err(|error| hub.read_failed(&error))? else { return Ok(None) };
    let Ok(kind) = case.kind.parse::<CaseKind>() else { return Ok(None) };
    let stands = states::stands(kind, steps(hub, id, &case, sequence)?);
    let (to, reason) = stands.unwrap_or_else(|| (states::unopened(kind).to_owned(), reason.to_owned()));
    let (case_id, from) = (id.as_bytes().to_vec().into(), case.status);
    Ok((to != from).then(|| CaseMove { case_id, from, to, reason, ..CaseMove::default() }))
}

/// What counts in a case, but for the message that ends now.
fn steps(hub: &Hub, id: CaseId, case: &CaseRow, without: u64) -> Result<Vec<Step>, Refused> {
    let mut steps = Vec::new();
    for (sequence, fact) in hub.store.timeline(id).map_err(|error| hub.read_failed(&error))? {
        let (moved, by) = match &fact.kind {
            Some(Kind::CaseExpired(expired)) => (expired.case_move.as_ref(), Party::Gateway),
            Some(Kind::Accepted(message)) if sequence != without && counts(hub, &message.id)? => {
                let issuer = hub.consigned(sequence)?.origin.iss.as_str() == case.opener;
                (message.case_move.as_ref(), if issuer { Party::Opener } else { Party::Responder })
            }
            _ => continue,
        };
        steps.extend(moved.map(|moved| Step { to: moved.to.clone(), by, reason: moved.reason.clone() }));
    }
    Ok(steps)
}

/// Whether a message was opened, or still may be.
fn counts(hub: &Hub, id: &[u8]) -> Result<bool, Refused> {
    let row = hub.store.message(id).map_err(|error| hub.read_failed(&error))?;
    let unopened = [Outcome::Refused, Outcome::Expired, Outcome::Discarded];
    Ok(!row.is_some_and(|row| matches!(row.state, MessageState::Final(end) if unopened.contains(&end))))
}
