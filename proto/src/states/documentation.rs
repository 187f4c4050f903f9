//! STATES.md, written from the tables.
//!
//! Knows: the tables of casework and delivery, the codes of reasons and outcomes. Never knows: anything that is not in a table.
use std::fmt::Display;

use super::{MessageType, Next, Party, ReasonRule, Standing, Transition, delivery, document_request, referral};
use crate::vocabulary::{DocumentReason, Outcome, ReferralReason};

const HEAD: &str = "# States

Written from the tables in `proto/src/states/`; a test holds this page equal to them. Two kinds of machine, never mixed: *delivery*
says where a message is, *casework* what a referral or a document request has become. The gateway enforces delivery wholly and
casework as far as the origin statement shows it (who, from, to, reason); adapters enforce the rest.

*Opener* is the institution that opened the case, *responder* the one it was opened with, *gateway* its clock.
";

/// STATES.md.
#[must_use]
pub fn documentation() -> String {
    let mut text = String::from(HEAD);
    text.push_str("\n## Message types\n| Type | Sent by | Moves the case to |\n|---|---|---|\n");
    for kind in MessageType::all() {
        let statuses = kind.statuses().iter().map(|status| format!("`{status}`")).collect::<Vec<_>>().join(", ");
        text.push_str(&format!("| `{kind}` | {} | {statuses} |\n", parties(kind.senders())));
    }
    text.push_str("\n## Referral\n");
    case(&mut text, referral::STANDINGS, referral::TRANSITIONS, referral::Status::label);
    text.push_str("\nA referral that ended can still be marked `entered_in_error`, until it is closed.\n");
    codes(&mut text, "Reason codes of a referral", ReferralReason::all().map(|code| (code.as_str(), code.label())));
    codes(&mut text, "Outcomes of a completed referral", Outcome::all().map(|code| (code.as_str(), code.label())));
    text.push_str("\n## Document request\n");
    case(&mut text, document_request::STANDINGS, document_request::TRANSITIONS, document_request::Status::label);
    codes(
        &mut text,
        "Reason codes of a document request",
        DocumentReason::all().map(|code| (code.as_str(), code.label())),
    );
    deliveries(&mut text);
    text
}

fn case<S: Copy + PartialEq + Display>(
    text: &mut String,
    standings: &[Standing<S>],
    transitions: &[Transition<S>],
    label: fn(S) -> &'static str,
) {
    text.push_str("| Status | Means | Next move |\n|---|---|---|\n");
    for line in standings {
        let next = match line.next {
            Next::Opener => "opener",
            Next::Responder => "responder",
            Next::Nobody => "nobody: ended",
        };
        text.push_str(&format!("| `{}` | {} | {next} |\n", line.status, label(line.status)));
    }
    text.push_str("\n| From | To | Who | Reason code |\n|---|---|---|---|\n");
    for line in transitions {
        let from = line.from.map_or_else(|| "–".to_owned(), |status| format!("`{status}`"));
        let reason = match line.reason {
            ReasonRule::Required => "required",
            ReasonRule::Optional => "",
        };
        text.push_str(&format!("| {from} | `{}` | {} | {reason} |\n", line.to, parties(line.by)));
    }
}

fn parties(parties: &[Party]) -> String {
    let name = |party: &Party| match party {
        Party::Opener => "opener",
        Party::Responder => "responder",
        Party::Gateway => "gateway",
    };
    parties.iter().map(name).collect::<Vec<_>>().join(" or ")
}

fn codes<'a>(text: &mut String, heading: &str, codes: impl Iterator<Item = (&'a str, &'a str)>) {
    text.push_str(&format!("\n{heading}:\n\n| Code | Means |\n|---|---|\n"));
    for (code, label) in codes {
        text.push_str(&format!("| `{code}` | {label} |\n"));
    }
}

fn deliveries(text: &mut String) {
    text.push_str(
        "\n## Delivery\nSettlement is judged by the message's identity, not by its lease: a receipt counts in every state in which the\n\
         message still waits. A leased message does not expire. A dead letter keeps its content and its place.\n\
         No call offers a recall yet: nothing makes `CANCELLED` or gives `RECALLED`. A hold keeps the operator's own words: nothing gives\n\
         `RECIPIENT_SUSPENDED` yet.\n\n\
         | State | Means | Final |\n|---|---|---|\n",
    );
    for state in delivery::State::all() {
        let end = if delivery::is_final(state) { "yes" } else { "" };
        text.push_str(&format!("| `{state}` | {} | {end} |\n", state.label()));
    }
    text.push_str("\n| From | To | Who | Reasons |\n|---|---|---|---|\n");
    for line in delivery::TRANSITIONS {
        let from = line.from.map_or_else(|| "–".to_owned(), |state| format!("`{state}`"));
        let reasons = line.reasons.iter().map(|reason| format!("`{reason}`")).collect::<Vec<_>>().join(", ");
        text.push_str(&format!("| {from} | `{}` | {} | {reasons} |\n", line.to, line.by.label()));
    }
}
