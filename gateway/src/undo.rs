//! A message that moved a case and ends without having been opened counts for nothing: the other side never saw the move. The case then
//! stands where the messages and deadlines that do count have brought it, and its issuer can send a corrected one; if none of them opened it,
//! it has ended. Whether anything was added to it meanwhile is asked by the journal's writer. It knows where a case stood; never
//! content.

use std::sync::Arc;

use tramite_proto::{
    pb::journal::v1::{CaseMove, Fact, Outcome, fact::Kind},
    reason::Refused,
    states::{self, CaseKind, Party, Step},
};
use tramite_store::{CaseRow, MessageState, Mover};

use crate::hub::{Consigned, Hub};

/// Sets the case to where it stands without the message that was accepted as `sequence`, which ends for that reason; no move when that is where
/// it stands anyway. With it, for the writer, up to where it was counted.
///
/// # Errors
/// STORE_FAILED: the case cannot be read, so the message must not end yet.
pub fn move_back(
    hub: &Hub,
    sequence: u64,
    consigned: &Consigned,
    reason: &str,
) -> Result<(Option<CaseMove>, Mover), Refused> {
    let id = consigned.origin.case;
    let timeline = hub.store.timeline(id).map_err(|error| hub.read_failed(&error))?;
    let mover = Mover::Counted { up_to: timeline.last().map_or(0, |(sequence, _)| *sequence) };
    let Some(case) = hub.store.case(id).map_err(|error| hub.read_failed(&error))? else { return Ok((None, mover)) };
    let Ok(kind) = case.kind.parse::<CaseKind>() else { return Ok((None, mover)) };
    let stands = states::stands(kind, steps(hub, &timeline, &case, sequence)?);
    let (to, reason) = stands.unwrap_or_else(|| (states::unopened(kind).to_owned(), reason.to_owned()));
    let (case_id, from) = (id.as_bytes().to_vec().into(), case.status);
    Ok(((to != from).then(|| CaseMove { case_id, from, to, reason, ..CaseMove::default() }), mover))
}

/// What counts in a case, but for the message that ends now.
fn steps(hub: &Hub, timeline: &[(u64, Arc<Fact>)], case: &CaseRow, without: u64) -> Result<Vec<Step>, Refused> {
    let mut steps = Vec::new();
    for (sequence, fact) in timeline.iter().map(|(sequence, fact)| (*sequence, fact)) {
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
pub fn counts(hub: &Hub, id: &[u8]) -> Result<bool, Refused> {
    let row = hub.store.message(id).map_err(|error| hub.read_failed(&error))?;
    let unopened = [Outcome::Refused, Outcome::Expired, Outcome::Discarded];
    Ok(!row.is_some_and(|row| matches!(row.state, MessageState::Final(end) if unopened.contains(&end))))
}
