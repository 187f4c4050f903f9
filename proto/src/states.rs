//! Two kinds of state machine, never mixed: *delivery* says where a message is, *casework* what a case has become.
//!
//! Knows: the tables (who may move what from where to where, and whether a reason is needed), who has the next move, what the
//! clock may end. Never knows: a particular case, who is who in it, the time.
//! Invariants: the tables are the rules and the documentation: [`check`] reads them, STATES.md is written from them
//! ([`documentation`]) and a test holds it equal. Pure functions, no I/O.
use std::str::FromStr;

use crate::{
    codes::codes,
    reason::{Reason, Refused},
    vocabulary::{DocumentReason, ReferralReason},
};

pub mod delivery;
pub mod document_request;
mod documentation;
mod message_type;
pub mod referral;

pub use documentation::documentation;
pub use message_type::MessageType;

codes! {
    /// What a case is about; decides which table holds.
    pub enum CaseKind("a kind of case") {
        Referral = "REFERRAL", "referral";
        DocumentRequest = "DOCUMENT_REQUEST", "document request";
    }
}

codes! {
    /// Who moves a case.
    pub enum Party("a party") {
        Opener = "OPENER", "the institution that opened the case";
        Responder = "RESPONDER", "the institution that it was opened with";
        Gateway = "GATEWAY", "the gateway's clock";
    }
}

codes! {
    /// Who has the next move in a case.
    pub enum Next("a next mover") {
        Opener = "OPENER", "the institution that opened the case";
        Responder = "RESPONDER", "the institution that it was opened with";
        Nobody = "NOBODY", "nobody: the case has ended";
    }
}

/// Whether a transition carries a reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasonRule {
    /// It must.
    Required,
    /// It may.
    Optional,
}

/// One line of a table of casework.
#[derive(Debug, Clone, Copy)]
pub struct Transition<S: 'static> {
    /// None: it opens the case.
    pub from: Option<S>,
    /// Where it leads.
    pub to: S,
    /// Who may make it.
    pub by: &'static [Party],
    /// Whether it needs a reason code.
    pub reason: ReasonRule,
}

/// One line of the table of what a status asks for.
#[derive(Debug, Clone, Copy)]
pub struct Standing<S> {
    /// The status.
    pub status: S,
    /// Who has the next move.
    pub next: Next,
}

/// The status in which every case begins.
pub const OPENING: &str = "requested";

/// Whether `by` may move a case of this kind from `from` (none: there is no such case) to `to`, with this reason code.
///
/// The gateway asks it with what the origin statement shows; the store asks it again in its writer, where `from` cannot change
/// any more. A reason given by the gateway itself is one of [`Reason`] and not looked up in the vocabulary.
pub fn check(kind: CaseKind, from: Option<&str>, to: &str, by: Party, reason: Option<&str>) -> Result<(), Refused> {
    match kind {
        CaseKind::Referral => check_in(referral::TRANSITIONS, from, to, by, reason, is_code::<ReferralReason>),
        CaseKind::DocumentRequest => {
            check_in(document_request::TRANSITIONS, from, to, by, reason, is_code::<DocumentReason>)
        }
    }
}

fn is_code<C: FromStr>(text: &str) -> bool {
    text.parse::<C>().is_ok()
}

fn check_in<S: Copy + PartialEq + FromStr + std::fmt::Display>(
    table: &[Transition<S>],
    from: Option<&str>,
    to: &str,
    by: Party,
    reason: Option<&str>,
    is_reason: fn(&str) -> bool,
) -> Result<(), Refused> {
    let invalid = |detail: String| Refused::new(Reason::CaseTransitionInvalid, detail).field("cs");
    let Ok(target) = to.parse::<S>() else {
        return Err(invalid("the status asked for is none of this kind of case".to_owned()));
    };
    let source = match from {
        None if to != OPENING => {
            return Err(
                Refused::new(Reason::CaseUnknown, "there is no such case; only `requested` opens one").field("case")
            );
        }
        Some(_) if to == OPENING => {
            return Err(Refused::new(Reason::CaseExists, "the case was opened already").field("case"));
        }
        None => None,
        Some(text) => match text.parse::<S>() {
            Ok(status) => Some(status),
            Err(_) => return Err(invalid("the case is in a status that this version does not know".to_owned())),
        },
    };
    let mut lines = table.iter().filter(|line| line.from == source && line.to == target).peekable();
    if lines.peek().is_none() {
        return Err(invalid(format!("a case that is {} cannot become {target}", from.unwrap_or("not open"))));
    }
    let Some(line) = lines.find(|line| line.by.contains(&by)) else {
        return Err(invalid(format!("{} may not make a case {target}", by.label())));
    };
    check_reason(line.reason, target.to_string(), by, reason, is_reason)
}

fn check_reason(
    rule: ReasonRule,
    target: String,
    by: Party,
    reason: Option<&str>,
    is_reason: fn(&str) -> bool,
) -> Result<(), Refused> {
    let refuse = |detail| Err(Refused::new(Reason::CaseReasonInvalid, detail).field("rsn"));
    match reason {
        None | Some("") if rule == ReasonRule::Required => refuse(format!("{target} needs a reason code")),
        None => Ok(()),
        Some("") => Ok(()),
        Some(text) if by == Party::Gateway || is_reason(text) => Ok(()),
        Some(_) => refuse("the reason code is not one for this kind of case (STATES.md)".to_owned()),
    }
}

/// Whether the case has ended there: nobody has the next move. (A referral that ended can still be marked `entered_in_error`
/// by its opener, until it is closed.) A text that is no status of this kind is no end.
#[must_use]
pub fn is_final(kind: CaseKind, status: &str) -> bool {
    standing(kind, status) == Some(Next::Nobody)
}

/// Who has the next move. Nobody, for a text that is no status of this kind.
#[must_use]
pub fn next_mover(kind: CaseKind, status: &str) -> Next {
    standing(kind, status).unwrap_or(Next::Nobody)
}

fn standing(kind: CaseKind, status: &str) -> Option<Next> {
    fn find<S: FromStr + PartialEq>(table: &[Standing<S>], status: &str) -> Option<Next> {
        let status = status.parse::<S>().ok()?;
        table.iter().find(|line| line.status == status).map(|line| line.next)
    }
    match kind {
        CaseKind::Referral => find(referral::STANDINGS, status),
        CaseKind::DocumentRequest => find(document_request::STANDINGS, status),
    }
}

/// One thing that may have moved a case: to where, by whom, with which reason code (empty: none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The status asked for.
    pub to: String,
    /// Who asked.
    pub by: Party,
    /// Why.
    pub reason: String,
}

/// Where a case stands, and why, after these steps in their order: one that the table does not permit where it comes counts for nothing.
/// None when nothing opened the case: see [`unopened`].
#[must_use]
pub fn stands(kind: CaseKind, steps: impl IntoIterator<Item = Step>) -> Option<(String, String)> {
    let mut now: Option<(String, String)> = None;
    for Step { to, by, reason } in steps {
        let from = now.as_ref().map(|(status, _)| status.as_str());
        let given = (!reason.is_empty()).then_some(reason.as_str());
        if check(kind, from, &to, by, given).is_ok() {
            now = Some((to, reason));
        }
    }
    now
}

/// How a case ends whose first message ended without having been opened: its other side never heard of it, so nobody has the next move.
#[must_use]
pub fn unopened(kind: CaseKind) -> &'static str {
    match kind {
        CaseKind::Referral => "entered_in_error",
        CaseKind::DocumentRequest => "cancelled",
    }
}

/// Whether the gateway's clock may end the case there.
#[must_use]
pub fn can_expire(kind: CaseKind, status: &str) -> bool {
    check(kind, Some(status), "expired", Party::Gateway, None).is_ok()
}

#[cfg(test)]
mod tests;
