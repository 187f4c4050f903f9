//! A message that moved a case and ends without having been opened counts for nothing: the other side never saw the move. The case then
//! stands where the messages and deadlines that do count have brought it, and its issuer can send a corrected one; if none of them opened it,
//! it has ended. Whether anything was added to it meanwhile is asked by the journal's writer. It knows where a case stood; never
//! content.

use std::{collections::HashSet, sync::Arc};

use tramite_proto::{
    ids::CaseId,
    pb::journal::v1::{CaseMove, Fact, Outcome, fact::Kind},
    reason::Refused,
    states::{self, CaseKind, Party, Step},
};
use tramite_store::{CaseRow, Mover, accepted};

use crate::hub::{Consigned, Hub};

/// The facts of a case, oldest first.
type Timeline = [(u64, Arc<Fact>)];

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
fn steps(hub: &Hub, timeline: &Timeline, case: &CaseRow, without: u64) -> Result<Vec<Step>, Refused> {
    let (mut steps, unopened) = (Vec::new(), unopened(timeline));
    for (sequence, fact) in timeline.iter().map(|(sequence, fact)| (*sequence, fact)) {
        let (moved, by) = match &fact.kind {
            Some(Kind::CaseExpired(expired)) => (expired.case_move.as_ref(), Party::Gateway),
            Some(Kind::Accepted(message)) if sequence != without && !unopened.contains(&sequence) => {
                let issuer = hub.consigned(sequence)?.origin.iss.as_str() == case.opener;
                (message.case_move.as_ref(), if issuer { Party::Opener } else { Party::Responder })
            }
            _ => continue,
        };
        steps.extend(moved.map(|moved| Step { to: moved.to.clone(), by, reason: moved.reason.clone() }));
    }
    Ok(steps)
}

/// The messages of a case that ended unopened. (Ids are forgotten sooner than cases end, so they are not asked.)
fn unopened(timeline: &Timeline) -> HashSet<u64> {
    let ends = timeline.iter().filter_map(|(_, fact)| match &fact.kind {
        Some(Kind::Settled(settled)) => Some(settled),
        _ => None,
    });
    let unopened = [Outcome::Refused, Outcome::Expired, Outcome::Discarded];
    ends.filter(|settled| unopened.contains(&settled.outcome())).map(|settled| settled.sequence).collect()
}

/// Whether the message that was to open a case was opened, or still may be.
///
/// # Errors
/// STORE_FAILED: the case cannot be read.
pub fn is_opened(hub: &Hub, case: CaseId) -> Result<bool, Refused> {
    let timeline = hub.store.timeline(case).map_err(|error| hub.read_failed(&error))?;
    let unopened = unopened(&timeline);
    let opens =
        |fact: &Fact| accepted(fact).is_some_and(|accepted| accepted.id == case.opened_by().as_bytes().as_slice());
    Ok(!timeline.iter().any(|(sequence, fact)| unopened.contains(sequence) && opens(fact)))
}
