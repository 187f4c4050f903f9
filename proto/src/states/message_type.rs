//! The kinds of message: the `mt` of an origin statement, and what it says about the case that it opens or moves.
//!
//! Knows: which kind of case each type belongs to, who may send it, which statuses it may carry. Never knows: bodies' fields.
//! Invariant: a type is the protobuf full name of a kind in `tramite.body.v1.Body`; every kind has one.
use std::str::FromStr;

use super::{CaseKind, OPENING, Party, ReasonRule, Transition, check, document_request, referral};
use crate::{
    codes::codes,
    pb::body::v1::{Body, body::Kind},
    reason::{Reason, Refused},
};

codes! {
    /// What kind of body a message has.
    pub enum MessageType("a message type") {
        Referral = "tramite.body.v1.Referral", "referral";
        ReferralUpdate = "tramite.body.v1.ReferralUpdate", "update of a referral";
        DocumentRequest = "tramite.body.v1.DocumentRequest", "document request";
        DocumentResponse = "tramite.body.v1.DocumentResponse", "answer to a document request";
        DocumentRequestUpdate = "tramite.body.v1.DocumentRequestUpdate", "update of a document request";
    }
}

impl MessageType {
    /// The type of a body; none when the body is empty or of a kind that this version does not know.
    #[must_use]
    pub fn of(body: &Body) -> Option<Self> {
        Some(match body.kind.as_ref()? {
            Kind::Referral(_) => Self::Referral,
            Kind::ReferralUpdate(_) => Self::ReferralUpdate,
            Kind::DocumentRequest(_) => Self::DocumentRequest,
            Kind::DocumentResponse(_) => Self::DocumentResponse,
            Kind::DocumentRequestUpdate(_) => Self::DocumentRequestUpdate,
        })
    }

    /// The kind of case that it opens or moves.
    #[must_use]
    pub const fn case_kind(self) -> CaseKind {
        match self {
            Self::Referral | Self::ReferralUpdate => CaseKind::Referral,
            Self::DocumentRequest | Self::DocumentResponse | Self::DocumentRequestUpdate => CaseKind::DocumentRequest,
        }
    }

    /// Whether it opens a case.
    #[must_use]
    pub const fn opens(self) -> bool {
        matches!(self, Self::Referral | Self::DocumentRequest)
    }

    /// Who in the case may send it.
    #[must_use]
    pub const fn senders(self) -> &'static [Party] {
        match self {
            Self::Referral | Self::DocumentRequest | Self::DocumentRequestUpdate => &[Party::Opener],
            Self::DocumentResponse => &[Party::Responder],
            Self::ReferralUpdate => &[Party::Opener, Party::Responder],
        }
    }

    /// Whether a message of this type, sent by `by`, may move its case from `from` to `to`: [`check`], and that the type is the
    /// one that carries such a move.
    pub fn check(self, from: Option<&str>, to: &str, by: Party, reason: Option<&str>) -> Result<(), Refused> {
        if self.opens() != (to == OPENING) {
            let detail = format!(
                "a message of type {self} cannot make a case {}",
                if self.opens() { "anything but requested" } else { OPENING }
            );
            return Err(Refused::new(Reason::CaseTransitionInvalid, detail).field("cs"));
        }
        check(self.case_kind(), from, to, by, reason)?;
        if self.senders().contains(&by) {
            Ok(())
        } else {
            Err(Refused::new(Reason::CaseTransitionInvalid, format!("{} may not send {self}", by.label())).field("mt"))
        }
    }

    /// The body's own words for where it moves the case: status (always) and reason code (empty: none).
    #[must_use]
    pub fn move_of(body: &Body) -> Option<(&str, &str)> {
        Some(match body.kind.as_ref()? {
            Kind::Referral(_) | Kind::DocumentRequest(_) => (OPENING, ""),
            Kind::ReferralUpdate(update) => (update.status.as_str(), update.reason.as_str()),
            Kind::DocumentResponse(response) => (response.status.as_str(), response.reason.as_str()),
            Kind::DocumentRequestUpdate(update) => (update.status.as_str(), update.reason.as_str()),
        })
    }

    /// Whether a move to this status by a message of this type always carries a reason code.
    #[must_use]
    pub fn needs_reason(self, status: &str) -> bool {
        fn needed<S: PartialEq + FromStr>(table: &[Transition<S>], status: &str) -> bool {
            let Ok(status) = status.parse::<S>() else { return false };
            let mut lines = table.iter().filter(|line| line.to == status).peekable();
            lines.peek().is_some() && lines.all(|line| line.reason == ReasonRule::Required)
        }
        match self.case_kind() {
            CaseKind::Referral => needed(referral::TRANSITIONS, status),
            CaseKind::DocumentRequest => needed(document_request::TRANSITIONS, status),
        }
    }

    /// The statuses to which a message of this type can move a case.
    #[must_use]
    pub fn statuses(self) -> Vec<&'static str> {
        fn reachable<S: Copy + PartialEq>(table: &[Transition<S>], senders: &[Party], opens: bool) -> Vec<S> {
            let mut found = Vec::new();
            for line in table.iter().filter(|line| line.from.is_none() == opens) {
                if line.by.iter().any(|by| senders.contains(by)) && !found.contains(&line.to) {
                    found.push(line.to);
                }
            }
            found
        }
        match self.case_kind() {
            CaseKind::Referral => reachable(referral::TRANSITIONS, self.senders(), self.opens())
                .into_iter()
                .map(referral::Status::as_str)
                .collect(),
            CaseKind::DocumentRequest => reachable(document_request::TRANSITIONS, self.senders(), self.opens())
                .into_iter()
                .map(document_request::Status::as_str)
                .collect(),
        }
    }
}
