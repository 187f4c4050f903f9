//! Cases as people want to see them: where each stands, who is next, and everything that happened in one line of time.
//!
//! Knows how the store's facts read in a timeline: business states, deliveries and receipts together. Never knows content.

use std::collections::HashMap;

use tramite_proto::{
    ids::{CaseId, uuid_text},
    pb::{
        backoffice::v1 as pb,
        journal::v1::{Accepted, Fact, Outcome, Settled, fact},
    },
    reason::{Reason, Refused},
    statement::Origin,
    states::{self, CaseKind, Next},
};
use tramite_store::{CaseRow, accepted};

use super::case_unknown;
use crate::{
    core::{BACKOFFICE, Core, GATEWAY, REFUSED, origin, unreadable},
    inbound::shown,
};

/// Cases that are looked at together.
const LOOK_AT_ONCE: usize = 256;
/// As the contract says.
const PAGE_MAX: u32 = 1_000;
const PAGE_DEFAULT: usize = 100;

/// One case with its timeline.
pub(super) fn one(core: &Core, case_id: &str) -> Result<pb::Case, Refused> {
    let id: CaseId = case_id.parse().map_err(|_| case_unknown())?;
    let row = core.store.case(id).map_err(unreadable)?.ok_or_else(case_unknown)?;
    let facts = core.store.timeline(id).map_err(unreadable)?;
    let mut case = summary(row);
    case.reply_by = facts.first().and_then(|(_, fact)| origin_of(fact)).and_then(|origin| origin.dl).unwrap_or(0);
    let messages: HashMap<u64, &Accepted> =
        facts.iter().filter_map(|(sequence, fact)| Some((*sequence, accepted(fact)?))).collect();
    let mut lines: Vec<(u64, pb::TimelineEntry)> =
        facts.iter().filter_map(|(sequence, fact)| Some((*sequence, entry(fact, &messages)?))).collect();
    for (sequence, message) in messages.iter().filter(|(_, message)| message.queue == GATEWAY) {
        lines.extend(attempts(core, *sequence, message)?);
    }
    lines.sort_by_key(|(sequence, _)| *sequence);
    case.timeline = lines.into_iter().map(|(_, line)| line).collect();
    Ok(case)
}

/// Attempts to hand a message to the gateway that failed.
fn attempts(core: &Core, sequence: u64, message: &Accepted) -> Result<Vec<(u64, pb::TimelineEntry)>, Refused> {
    let (origin, _) = origin(message)?;
    let line = |attempt: tramite_store::Attempt| {
        let entry = pb::TimelineEntry {
            event: "ATTEMPT_FAILED".to_owned(),
            reason: attempt.reason,
            r#type: String::new(),
            status: String::new(),
            ..message_entry(&origin, attempt.at_ms)
        };
        (attempt.sequence, entry)
    };
    Ok(core.store.history(sequence).map_err(unreadable)?.into_iter().map(line).collect())
}

/// A page of cases, most recently moved first. The token is where the page begins: cases that move meanwhile are shown again rather
/// than lost.
pub(super) fn list(core: &Core, call: &pb::ListCasesRequest) -> Result<pb::ListCasesResponse, Refused> {
    if call.page_size > PAGE_MAX {
        return Err(Refused::new(Reason::FieldInvalid, "a page has at most 1000 cases").field("page_size"));
    }
    let size = usize::try_from(call.page_size).ok().filter(|size| *size > 0).unwrap_or(PAGE_DEFAULT);
    let before = match call.page_token.as_str() {
        "" => u64::MAX,
        token => {
            token.parse().map_err(|_| Refused::new(Reason::FieldInvalid, "no token of a page").field("page_token"))?
        }
    };
    let is_asked_for = |row: &CaseRow| row.moved_sequence < before && !(call.open_only && is_over(row));
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let found = core.store.cases(after, LOOK_AT_ONCE).map_err(unreadable)?;
        let Some(last) = found.last() else { break };
        after = Some(last.case_id);
        rows.extend(found.into_iter().filter(is_asked_for));
        rows.sort_by_key(|row| std::cmp::Reverse(row.moved_sequence));
        // One more says that there is another page.
        rows.truncate(size + 1);
    }
    let next_page_token = match rows.get(size.saturating_sub(1)) {
        Some(last) if rows.len() > size => last.moved_sequence.to_string(),
        _ => String::new(),
    };
    rows.truncate(size);
    let cases = rows.into_iter().map(|row| {
        let opened = core.store.fact(row.opened_sequence).map_err(unreadable)?;
        let reply_by = origin_of(&opened).and_then(|origin| origin.dl).unwrap_or(0);
        Ok(pb::Case { reply_by, ..summary(row) })
    });
    let cases = cases.collect::<Result<_, Refused>>()?;
    Ok(pb::ListCasesResponse { cases, next_page_token })
}

fn is_over(row: &CaseRow) -> bool {
    row.kind.parse::<CaseKind>().is_ok_and(|kind| states::is_final(kind, &row.status))
}

fn summary(row: CaseRow) -> pb::Case {
    let next = match row.kind.parse::<CaseKind>().map(|kind| states::next_mover(kind, &row.status)) {
        Ok(Next::Opener) => row.opener.clone(),
        Ok(Next::Responder) => row.responder.clone(),
        Ok(Next::Nobody) | Err(_) => "nobody".to_owned(),
    };
    let conversation = uuid_text(&row.conversation);
    pb::Case {
        case_id: row.case_id.to_string(),
        conversation_id: conversation,
        kind: row.kind,
        opener: row.opener,
        responder: row.responder,
        status: row.status,
        reason: row.reason,
        next,
        opened_ms: row.opened_ms,
        moved_ms: row.moved_ms,
        reply_by: 0,
        timeline: Vec::new(),
    }
}

/// A line of the timeline; `None` for what is bookkeeping.
fn entry(fact: &Fact, messages: &HashMap<u64, &Accepted>) -> Option<pb::TimelineEntry> {
    match &fact.kind {
        Some(fact::Kind::Accepted(accepted)) => accepted_entry(accepted, fact.at_ms),
        Some(fact::Kind::Settled(settled)) => settled_entry(settled, fact.at_ms, messages.get(&settled.sequence)?),
        _ => None,
    }
}

fn accepted_entry(accepted: &Accepted, at_ms: i64) -> Option<pb::TimelineEntry> {
    if let Some(notice) = shown(accepted) {
        return Some(pb::TimelineEntry {
            // When it happened, as the evidence has it.
            at_ms: notice.at.saturating_mul(1_000).min(at_ms),
            event: notice.kind,
            message_id: notice.message_id,
            to: notice.to,
            reason: notice.reason,
            ..pb::TimelineEntry::default()
        });
    }
    let (origin, _) = origin(accepted).ok()?;
    let event = match accepted.queue.as_str() {
        GATEWAY => "SENT",
        BACKOFFICE => "RECEIVED",
        REFUSED => "NOT_OPENED",
        _ => return None,
    };
    Some(pb::TimelineEntry { event: event.to_owned(), ..message_entry(&origin, at_ms) })
}

fn settled_entry(settled: &Settled, at_ms: i64, message: &Accepted) -> Option<pb::TimelineEntry> {
    let event = match (message.queue.as_str(), settled.outcome()) {
        (GATEWAY, Outcome::HandedOver) => "ACCEPTED",
        (GATEWAY, Outcome::Refused) => "REFUSED",
        (GATEWAY, Outcome::Expired) => "EXPIRED",
        (BACKOFFICE, Outcome::HandedOver) if message.extra.is_empty() => "ACKNOWLEDGED",
        _ => return None,
    };
    let (origin, _) = origin(message).ok()?;
    let (r#type, status) = (String::new(), String::new());
    Some(pb::TimelineEntry {
        event: event.to_owned(),
        reason: settled.reason.clone(),
        r#type,
        status,
        ..message_entry(&origin, at_ms)
    })
}

fn message_entry(origin: &Origin, at_ms: i64) -> pb::TimelineEntry {
    pb::TimelineEntry {
        at_ms,
        event: String::new(),
        message_id: origin.jti.to_string(),
        from: origin.iss.to_string(),
        to: origin.aud.to_string(),
        r#type: origin.mt.clone(),
        status: origin.cs.clone(),
        reason: origin.rsn.clone().unwrap_or_default(),
    }
}

fn origin_of(fact: &Fact) -> Option<Origin> {
    origin(accepted(fact)?).ok().map(|(origin, _)| origin)
}
