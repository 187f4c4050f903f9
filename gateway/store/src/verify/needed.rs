//! What messages that are not final need: their contents and parts, met while the journal is read.
//!
//! Knows: what stands where a content was written. Never knows: the outbox. Invariant: what is wrong with a content is a finding only while
//! its message is not final; of one that is, nothing but zeros may be left.

use std::collections::BTreeMap;

use tramite_proto::{
    ids::MessageId,
    pb::journal::v1::{Part, fact::Kind},
};

use super::{FINDINGS_MAX, Finding, Verification};
use crate::{
    error::ReadError,
    journal::{Group, Journal, Placed},
    shared::has_content,
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Needed {
    /// Contents, by the sequence of their message.
    contents: BTreeMap<u64, Content>,
    pub(super) parts: BTreeMap<u64, Vec<(MessageId, Part)>>,
    /// Bytes of contents that should be gone; wrong after a clean stop.
    pub(super) leftovers: Vec<Finding>,
}

/// What stands where a content was written, and the finding that it is unless its message turns out to be final.
#[derive(Debug)]
enum Content {
    /// And where.
    Sound(u64),
    Zeros(Box<Finding>),
    Wrong(Box<Finding>),
}

impl Needed {
    /// Reads the contents of a group.
    pub(super) fn group(&mut self, journal: &Journal, group: &Group, found: &mut Verification) {
        for Placed { sequence, fact, place } in &group.facts {
            let sequence = *sequence;
            if let Some(Kind::Accepted(accepted)) = &fact.kind
                && let (false, Ok(message)) = (accepted.parts.is_empty(), MessageId::from_bytes(&accepted.id))
            {
                let parts = accepted.parts.iter().map(|part| (message, part.clone()));
                self.parts.insert(sequence, parts.collect());
            }
            if !has_content(fact) {
                continue;
            }
            let offset = place.map_or(group.offset, |place| place.offset);
            let read = place.map_or(Err(ReadError::Erased(sequence)), |place| journal.content(sequence, place));
            let content = match read {
                Ok(_) => {
                    found.contents += 1;
                    Content::Sound(offset)
                }
                Err(error) => {
                    let file = journal.path_of(sequence);
                    let finding = |what| Box::new(found.finding(&file, Some(offset), what));
                    match error {
                        ReadError::Erased(_) => {
                            Content::Zeros(finding(format!("the content of {sequence} is zeros, and still needed")))
                        }
                        ReadError::Damaged(_) => {
                            Content::Wrong(finding(format!("the checksum of the content of {sequence} is wrong")))
                        }
                        other => Content::Wrong(finding(other.to_string())),
                    }
                }
            };
            self.contents.insert(sequence, content);
        }
    }

    /// A message is final: nothing of it is needed any more.
    pub(super) fn over(&mut self, journal: &Journal, sequence: u64, found: &mut Verification) {
        self.parts.remove(&sequence);
        match self.contents.remove(&sequence) {
            Some(Content::Zeros(_)) => found.erased += 1,
            Some(Content::Wrong(finding)) => {
                found.leftover += 1;
                let what = format!("bytes stand where the content of {sequence} was erased");
                self.leftovers.push(Finding { what, ..*finding });
            }
            Some(Content::Sound(offset)) => {
                found.contents = found.contents.saturating_sub(1);
                found.leftover += 1;
                let what = format!("the content of {sequence} is there, and its message is final");
                self.leftovers.push(found.finding(&journal.path_of(sequence), Some(offset), what));
            }
            None => {}
        }
        self.leftovers.truncate(FINDINGS_MAX);
    }

    /// Notes the contents that are needed and not what they must be. Where the walk ended early, zeros may be an erased content whose
    /// end was not reached.
    pub(super) fn report(&mut self, whole: bool, found: &mut Verification) {
        for content in std::mem::take(&mut self.contents).into_values() {
            match content {
                Content::Wrong(finding) => found.keep(*finding),
                Content::Zeros(finding) if whole => found.keep(*finding),
                Content::Zeros(_) | Content::Sound(_) => {}
            }
        }
    }
}
