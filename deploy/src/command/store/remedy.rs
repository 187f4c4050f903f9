//! What to do about each kind of finding of `tramite store verify`.
//!
//! Knows which file of a store means what. Invariant: what costs least and loses nothing comes first.

use std::{collections::BTreeSet, path::Path};

use tramite_store::Finding;

/// The role of a gateway's store.
const GATEWAY: &str = "gateway";
/// Names are given up to so many; `problems` of the JSON answer has them all.
const NAMED_MAX: usize = 5;

/// What a finding is about, in the order in which it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// The journal is not the one that the outbox was written from.
    Lost,
    /// What the truth is made of.
    Journal,
    /// The sealed content of one message.
    Content,
    /// The sealed attachment of one message.
    Part,
    /// Bytes of a message that is over.
    NotErased,
    /// A file that is not in use yet.
    Spare,
    /// What the journal makes anew.
    Outbox,
}

fn kind(store: &Path, finding: &Finding) -> Kind {
    let (file, what) = (&finding.file, finding.what.as_str());
    if what.contains("went on to") {
        Kind::Lost
    } else if what.contains("was erased") || what.contains("its message is final") {
        Kind::NotErased
    } else if sequence(finding).is_some() {
        Kind::Content
    } else if file.starts_with(store.join("outbox")) {
        Kind::Outbox
    } else if file.starts_with(store.join("parts")) {
        Kind::Part
    } else if file.extension().is_some_and(|ending| ending == "spare") {
        Kind::Spare
    } else {
        Kind::Journal
    }
}

/// The sequence of the message whose content it is about.
fn sequence(finding: &Finding) -> Option<&str> {
    let (_, rest) = finding.what.split_once("the content of ")?;
    rest.split(' ').next().filter(|word| word.parse::<u64>().is_ok())
}

/// One sentence for each kind that was found in a store of that role.
pub(super) fn remedies(store: &Path, role: &str, findings: &[Finding]) -> Vec<String> {
    let new = if role == GATEWAY {
        "`tramite ops messages --json` names the message of a sequence; its sender can send it as a new one"
    } else {
        "Who sent it can send it as a new one: the other institution, or this one"
    };
    let kinds: BTreeSet<Kind> = findings.iter().map(|finding| kind(store, finding)).collect();
    let of = |wanted: Kind| findings.iter().filter(move |finding| kind(store, finding) == wanted);
    let say = |kind: Kind| match kind {
        Kind::Lost => format!(
            "The journal is not there, or is an older one: bring back the one that this node wrote last (is its disk mounted?), and verify \
             again. What it had and this one has not is lost without it; only if nobody has it any more, remove {} and start the node.",
            store.join("outbox").display()
        ),
        Kind::Journal => {
            let files = names(of(kind).map(|finding| finding.file.display().to_string()));
            format!(
                "The node does not start from a damaged journal: bring {files} back from a copy of this same file, then verify again. Never \
                 put an older journal in the place of a newer one: what was acknowledged since would be lost."
            )
        }
        Kind::Content => {
            let sequences = names(of(kind).filter_map(sequence).map(|sequence| format!("sequence {sequence}")));
            format!(
                "Damaged is only the content of {sequences} and nothing around it: that message is set aside when its turn comes, everything else is served. \
                 {new}. Or bring the file back from a copy."
            )
        }
        Kind::Part => {
            let messages = names(
                of(kind).filter_map(|finding| finding.file.file_stem()).map(|stem| stem.to_string_lossy().into_owned()),
            );
            format!(
                "Message {messages}: the attachment is damaged and is not handed out; everything else is served. Bring the file back from \
                 a copy, or let the sender send it as a new message."
            )
        }
        Kind::NotErased | Kind::Outbox => rebuild(store),
        Kind::Spare => "Nothing is to be done about a spare segment: the next start makes it anew.".to_owned(),
    };
    let mut said: Vec<String> = kinds.into_iter().map(say).collect();
    said.dedup();
    said
}

fn rebuild(store: &Path) -> String {
    let store = store.display();
    format!(
        "`tramite store rebuild {store}`, as the store's owner, puts that right from the journal and loses nothing."
    )
}

/// Each once, the first few of them.
fn names(all: impl Iterator<Item = String>) -> String {
    let all: BTreeSet<String> = all.collect();
    let more = all.len().saturating_sub(NAMED_MAX);
    let first: Vec<String> = all.into_iter().take(NAMED_MAX).collect();
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_finding_has_its_own_next_step() {
        let message = "01a217b6-3fbc-7d9e-9d6c-9ec3bffa1156";
        let part = format!("data/parts/{message}.1");
        let cases = [
            (
                "data/journal/0000000000000001.seg",
                "the checksum of the facts is wrong",
                "0000000000000001.seg back from",
            ),
            ("data/journal/synced", "the mark's checksum is wrong", "data/journal/synced back from"),
            ("data/store.toml", "it is not what was written there", "data/store.toml back from"),
            (
                "data/journal/0000000000000001.seg",
                "the checksum of the content of 9 is wrong",
                "content of sequence 9 ",
            ),
            (
                "data/journal/0000000000000001.seg",
                "the content of 9 is zeros, and still needed",
                "content of sequence 9 ",
            ),
            ("data/journal/0000000000000001.seg", "bytes stand where the content of 9 was erased", "rebuild data"),
            ("data/journal/0000000000000001.spare", "bytes stand in a spare segment", "Nothing is to be done"),
            ("data/journal", "the journal ends before sequence 1, and went on to 15 when the outbox", "wrote last"),
            ("data/outbox/db", "it is not what it was", "tramite store rebuild data"),
            ("data/outbox", "the row q/inps is not what the journal says", "tramite store rebuild data"),
            (part.as_str(), "the part is missing, and still needed", message),
        ];
        for (file, what, words) in cases {
            let finding =
                Finding { file: file.into(), offset: Some(0), what: what.into(), groups: 0, facts: 0, contents: 0 };
            let said = remedies(Path::new("data"), GATEWAY, &[finding.clone(), finding]);
            assert!(said.len() == 1 && said[0].contains(words), "{what}: {said:?}");
        }
        assert!(remedies(Path::new("data"), GATEWAY, &[]).is_empty());
        let what = "the checksum of the content of 9 is wrong".to_owned();
        let file = "data/journal/0000000000000001.seg".into();
        let finding = Finding { file, offset: Some(0), what, groups: 0, facts: 0, contents: 0 };
        let said = remedies(Path::new("data"), "adapter:inps", &[finding]);
        assert!(!said[0].contains("tramite ops") && said[0].contains("send it as a new one"), "{said:?}");
    }
}
