//! A message that moved a case and ends without having been opened takes its move back with it, so that its issuer can send a corrected
//! one: the other side never saw the move. Whether the case still stands where the message left it is looked at again by the journal's
//! writer. A message that opened its case is another matter: there is nothing before it. It knows where a case stood; never content.

use tramite_proto::{pb::journal::v1::CaseMove, reason::Refused};
use tramite_store::accepted;

use crate::hub::{Consigned, Hub};

/// The move back to where the case stood before this message; none when it opened the case, or was not the last to move it.
///
/// # Errors
/// STORE_FAILED: the case cannot be read, so the message must not end yet.
pub fn move_back(hub: &Hub, sequence: u64, consigned: &Consigned) -> Result<Option<CaseMove>, Refused> {
    let moved = accepted(&consigned.fact).and_then(|accepted| accepted.case_move.as_ref());
    let Some(moved) = moved.filter(|moved| !consigned.origin.opens_case() && !moved.from.is_empty()) else {
        return Ok(None);
    };
    let case = hub.store.case(consigned.origin.case).map_err(|error| hub.read_failed(&error))?;
    Ok(case.filter(|case| case.moved_sequence == sequence).map(|_| CaseMove {
        case_id: moved.case_id.clone(),
        to: moved.from.clone(),
        ..CaseMove::default()
    }))
}
