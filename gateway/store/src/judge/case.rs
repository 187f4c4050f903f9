//! The rules of cases, asked where nothing can change any more between the question and the answer.
//!
//! Knows: who a case belongs to, and the tables of `tramite_proto::states`. Never knows: the message behind a move.

use tramite_proto::{
    pb::journal::v1::CaseMove,
    reason::{Reason, Refused},
    states::{self, CaseKind, Party},
};

use super::Stop;
use crate::{
    change::{Mover, Rejected},
    overlay::Rows as _,
    project::{Draft, row},
    rows::{self, CaseValue},
};

/// A case id is that of the message that opened it.
const CASE_ID_BYTES: usize = 16;

fn refuse<T>(reason: Reason, detail: &str, field: &str) -> Result<T, Stop> {
    Err(Rejected::case(Refused::new(reason, detail).field(field)).into())
}

/// Judges a move and fills in what the store knows of the case.
pub(super) fn judge(
    draft: &Draft<'_>,
    case_move: &mut CaseMove,
    opens: bool,
    mover: Option<&Mover>,
) -> Result<(), Stop> {
    if case_move.case_id.len() != CASE_ID_BYTES {
        return Err(Rejected::Malformed { what: "case_move.case_id" }.into());
    }
    let mover = mover.filter(|mover| !matches!(mover, Mover::Counted { .. }));
    let case = row::<CaseValue>(draft, &rows::case(&case_move.case_id))?;
    let party = match (case, opens) {
        (Some(_), true) => return refuse(Reason::CaseExists, "the case was opened already", "case"),
        (None, false) if mover.is_some() => return refuse(Reason::CaseUnknown, "there is no such case", "case"),
        (None, _) => {
            case_move.from.clear();
            opening(case_move, mover)
        }
        (Some(case), false) => moving(case_move, case, mover)?,
    };
    let Some(party) = party else { return Ok(()) };
    let Ok(kind) = case_move.kind.parse::<CaseKind>() else {
        return Err(Rejected::Malformed { what: "case_move.kind" }.into());
    };
    let from = (!opens).then_some(case_move.from.as_str());
    let reason = (!case_move.reason.is_empty()).then_some(case_move.reason.as_str());
    states::check(kind, from, &case_move.to, party, reason).map_err(|refused| Rejected::case(refused).into())
}

/// Who opens a case is its opener.
fn opening(case_move: &mut CaseMove, mover: Option<&Mover>) -> Option<Party> {
    match mover? {
        Mover::Counted { .. } => None,
        Mover::Party(party) => Some(*party),
        Mover::Institution { issuer, audience } => {
            case_move.opener.clone_from(issuer);
            case_move.responder.clone_from(audience);
            Some(Party::Opener)
        }
    }
}

/// Fills in the case as it is, and finds the mover's part in it.
fn moving(case_move: &mut CaseMove, case: CaseValue, mover: Option<&Mover>) -> Result<Option<Party>, Stop> {
    let party = match mover {
        None | Some(Mover::Counted { .. }) => None,
        Some(Mover::Party(party)) => Some(*party),
        Some(Mover::Institution { issuer, audience }) => {
            if *issuer == case.opener && *audience == case.responder {
                Some(Party::Opener)
            } else if *issuer == case.responder && *audience == case.opener {
                Some(Party::Responder)
            } else {
                return refuse(Reason::CaseNotParty, "the case is between other institutions", "case");
            }
        }
    };
    if party.is_some() {
        if !case_move.kind.is_empty() && case_move.kind != case.kind {
            return refuse(Reason::CaseMismatch, "the case is of another kind than the message", "mt");
        }
        if !case_move.conversation.is_empty() && case_move.conversation != case.conversation {
            return refuse(Reason::CaseMismatch, "the case belongs to another conversation", "cid");
        }
    }
    case_move.kind = case.kind;
    case_move.opener = case.opener;
    case_move.responder = case.responder;
    case_move.from = case.status;
    case_move.conversation = case.conversation;
    Ok(party)
}

/// The fact that moved a case last, when the case has no deadline that is over.
pub(super) fn not_due(draft: &Draft<'_>, case_id: &[u8], now_ms: i64) -> Result<Option<u64>, Stop> {
    let case = row::<CaseValue>(draft, &rows::case(case_id))?;
    Ok(case.filter(|case| !case.expires || case.deadline_ms > now_ms).map(|case| case.moved_sequence))
}

/// A case was counted up to a sequence: nothing may have been added to it since.
pub(super) fn unchanged(draft: &Draft<'_>, case_id: &[u8], mover: Option<&Mover>) -> Result<(), Stop> {
    let Some(Mover::Counted { up_to }) = mover else { return Ok(()) };
    let newer = rows::timeline(case_id, up_to.saturating_add(1));
    let is_unchanged = draft.scan(&newer, &rows::timeline(case_id, u64::MAX), 1)?.is_empty();
    is_unchanged.then_some(()).ok_or_else(|| Rejected::CaseChanged.into())
}
