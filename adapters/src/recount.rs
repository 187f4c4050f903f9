//! Where a case stands by what counts.
//!
//! A message of ours moves its case here as soon as it is on the disk, and may end unopened all the same: refused, expired, discarded. Then
//! it counts for nothing, and neither does it at the gateway: the case is counted again from its timeline. So a move of the other side that
//! crossed ours and was kept without effect has it after all, and so has a deadline; and a case that no message opened has ended. Knows
//! what a timeline says. Never knows content. Invariant: what was once told to be opened counts, whatever is told later.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tramite_proto::{
    ids::{CaseId, MessageId},
    pb::journal::v1::{Accepted, CaseMove, Fact, Outcome, fact::Kind},
    reason::Refused,
    states::{self, CaseKind, Party, Step},
};
use tramite_store::{CaseRow, accepted};

use crate::{
    core::{BACKOFFICE, Core, GATEWAY, origin, unreadable},
    inbound::{CASE_EXPIRED, OPENED, UNOPENED, shown},
};

/// What has just become of a message of ours, and is not in the timeline yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct News<'a> {
    pub(crate) message: MessageId,
    pub(crate) opened: bool,
    /// Why it was not.
    pub(crate) reason: &'a str,
}

/// Sets the case to where it stands with this news; none when it stands there anyway.
///
/// # Errors
/// The case cannot be read: the news must wait.
pub(crate) fn recount(core: &Core, case: CaseId, news: News<'_>) -> Result<Option<CaseMove>, Refused> {
    let Some(row) = core.store.case(case).map_err(unreadable)? else { return Ok(None) };
    let Ok(kind) = row.kind.parse::<CaseKind>() else { return Ok(None) };
    let facts: Vec<_> = core.store.timeline(case).map_err(unreadable)?;
    let ended = ended(facts.iter().map(|(sequence, fact)| (*sequence, fact.as_ref())), news);
    let steps = facts.iter().filter_map(|(_, fact)| step(accepted(fact)?, &row, &ended));
    let stands = states::stands(kind, steps);
    let (to, reason) = stands.unwrap_or_else(|| (states::unopened(kind).to_owned(), news.reason.to_owned()));
    let (case_id, from) = (Bytes::copy_from_slice(case.as_bytes()), row.status);
    Ok((to != from).then(|| CaseMove { case_id, from, to, reason, ..CaseMove::default() }))
}

/// The messages of ours that ended unopened.
fn ended<'a>(facts: impl Iterator<Item = (u64, &'a Fact)>, news: News<'_>) -> HashSet<MessageId> {
    let (mut sent, mut opened, mut ended) = (HashMap::new(), HashSet::new(), HashSet::new());
    if news.opened {
        opened.insert(news.message)
    } else {
        ended.insert(news.message)
    };
    for (sequence, fact) in facts {
        match &fact.kind {
            Some(Kind::Accepted(accepted)) => match shown(accepted) {
                Some(notice) => {
                    let Ok(message) = notice.message_id.parse() else { continue };
                    if notice.kind == OPENED {
                        opened.insert(message);
                    } else if UNOPENED.contains(&notice.kind.as_str()) {
                        ended.insert(message);
                    }
                }
                None if accepted.queue == GATEWAY => {
                    sent.extend(MessageId::from_bytes(&accepted.id).ok().map(|message| (sequence, message)));
                }
                None => {}
            },
            Some(Kind::Settled(settled)) if [Outcome::Refused, Outcome::Expired].contains(&settled.outcome()) => {
                ended.extend(sent.get(&settled.sequence));
            }
            _ => {}
        }
    }
    ended.retain(|message| !opened.contains(message));
    ended
}

/// How something that was sent, received or told moves the case, if it does.
fn step(accepted: &Accepted, row: &CaseRow, ended: &HashSet<MessageId>) -> Option<Step> {
    if let Some(notice) = shown(accepted) {
        let (to, by) = ("expired".to_owned(), Party::Gateway);
        return (notice.kind == CASE_EXPIRED).then_some(Step { to, by, reason: notice.reason });
    }
    if ![GATEWAY, BACKOFFICE].contains(&accepted.queue.as_str()) {
        return None;
    }
    let (origin, _) = origin(accepted).ok()?;
    let by = if origin.iss.as_str() == row.opener { Party::Opener } else { Party::Responder };
    (!ended.contains(&origin.jti)).then(|| Step { to: origin.cs, by, reason: origin.rsn.unwrap_or_default() })
}
