//! What a desk remembers: its dossiers, and what it acknowledged. In memory, as a real back office has it in its database.
//! Invariant: an item is remembered as acknowledged only after the adapter answered that it is; whatever is shown again after
//! that is a fault.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;
use tramite_proto::pb::{
    backoffice::v1::{ReceivedMessage, inbox_item::Kind},
    body::v1::{DocumentRequest, Referral},
};

/// The answers to the documents asked for, by document code.
pub type Answers = BTreeMap<String, Answer>;

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Yes or no to the statement.
    Confirmed(bool),
    /// The datum.
    Value(Value),
    /// A copy, of so many bytes.
    Copy(u64),
    /// Not available: reason code.
    Unavailable(String),
}

/// What is common to all that a desk says within a case: the purpose and basis under which the case was opened.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Purpose code.
    pub purpose: String,
    /// Legal basis code.
    pub legal_basis: String,
}

impl Terms {
    /// Those of a message that came.
    #[must_use]
    pub fn of(message: &ReceivedMessage) -> Self {
        Self { purpose: message.purpose.clone(), legal_basis: message.legal_basis.clone() }
    }
}

/// A referral that this desk received and acts on.
#[derive(Debug, Default)]
pub struct Dossier {
    /// The case.
    pub case_id: String,
    /// Its conversation.
    pub conversation_id: String,
    /// Purpose and basis.
    pub terms: Terms,
    /// What was referred.
    pub referral: Referral,
    /// Document cases that are not answered yet.
    pub open: HashSet<String>,
    /// What was answered.
    pub answers: Answers,
    /// The other side, or the clock, ended the case: nothing more is to be done.
    pub ended: bool,
}

/// A document request that this desk sent, or that it received and answers.
#[derive(Debug, Default)]
pub struct Asked {
    /// The referral that it serves; empty at the holder.
    pub for_case: String,
    /// Purpose and basis.
    pub terms: Terms,
    /// What was asked.
    pub request: DocumentRequest,
    /// How often it was answered.
    pub times: usize,
}

/// Everything that a desk remembers.
#[derive(Debug, Default)]
pub struct Dossiers {
    /// Referrals received, by case.
    pub referrals: BTreeMap<String, Dossier>,
    /// Document requests sent or received, by case.
    pub documents: BTreeMap<String, Asked>,
    /// Terms of the referrals that this desk sent, by case.
    pub sent: BTreeMap<String, Terms>,
    items: HashSet<String>,
    contents: HashSet<String>,
}

impl Dossiers {
    /// What it is, in words, when it was acknowledged before: by its item id, or by what it says under another id.
    #[must_use]
    pub fn seen_again(&self, item_id: &str, kind: &Kind) -> Option<String> {
        let content = content(kind);
        (self.items.contains(item_id) || self.contents.contains(&content)).then_some(content)
    }

    /// The adapter answered that the item is acknowledged.
    pub fn acknowledged(&mut self, item_id: &str, kind: &Kind) {
        self.items.insert(item_id.to_owned());
        self.contents.insert(content(kind));
    }
}

/// What an item says, whatever its id.
fn content(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => format!("message {}", message.message_id),
        Kind::Notice(notice) => format!("notice {} of {}{}", notice.kind, notice.message_id, suffix(&notice.case_id)),
    }
}

/// The case after the message, when there is one.
fn suffix(case_id: &str) -> String {
    if case_id.is_empty() { String::new() } else { format!(" in case {case_id}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> Kind {
        Kind::Message(ReceivedMessage { message_id: id.to_owned(), ..ReceivedMessage::default() })
    }

    #[test]
    fn an_item_shown_again_after_acknowledgement_is_noticed_under_any_id() {
        let mut dossiers = Dossiers::default();
        assert_eq!(dossiers.seen_again("1", &message("a")), None);
        dossiers.acknowledged("1", &message("a"));
        assert!(dossiers.seen_again("1", &message("a")).is_some());
        assert!(dossiers.seen_again("2", &message("a")).is_some(), "the same message under another item id");
        assert_eq!(dossiers.seen_again("2", &message("b")), None);
    }

    #[test]
    fn an_item_shown_again_before_acknowledgement_is_no_fault() {
        let dossiers = Dossiers::default();
        assert_eq!(dossiers.seen_again("1", &message("a")), None);
        assert_eq!(dossiers.seen_again("1", &message("a")), None);
    }
}
