//! Where a case stands by what counts.
//!
//! A message of ours moves its case here as soon as it is on the disk, and may end unopened all the same: refused, expired, discarded. Then
//! it counts for nothing, and neither does it at the gateway: the case is counted again from its timeline. So a move of the other side that
//! crossed ours and was kept without effect has it after all, and so has a deadline; and a case that no message opened has ended. The same
//! holds for a message of the other side that had ended when our receipt for it came. All count in the gateway's order, which is not that in
//! which things are heard of here. Knows what a timeline says. Never knows content. Invariant: what was once told to be opened counts,
//! whatever is told later.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use tramite_proto::{
    ids::{CaseId, InstitutionName, MessageId},
    pb::{
        backoffice::v1::Notice,
        journal::v1::{Accepted, CaseMove, Fact, Outcome, fact::Kind},
    },
    statement::Origin,
    states::{self, CaseKind, Party, Step},
};
use tramite_store::{CaseRow, Change, Done, Mover, ReadError, Rejected, accepted};

use crate::{
    core::{BACKOFFICE, Core, GATEWAY, origin},
    inbound::{CASE_EXPIRED, OPENED, RECEIPT_AFTER_EXPIRY, UNOPENED, told},
};

/// The place of what the gateway does not have yet, as far as is known.
const ON_ITS_WAY: u64 = u64::MAX;

/// What has just become known, and is not in the timeline yet.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// A message of ours was opened; where it stands in the gateway's order.
    Opened(MessageId, u64),
    /// A message ended unopened, as everybody else counts; for that reason.
    Ended(MessageId, String),
    /// Something came that moves the case, if it may where it stands in the gateway's order.
    Came(Step, u64),
}

/// Sets the case of a change to where it stands with this news, and commits it; counts again for as long as something else is added to the
/// case meanwhile.
///
/// # Errors
/// As the store says; unreadable when it is the case: the news must wait.
pub(crate) async fn commit(core: &Core, mut change: Change, case: CaseId, news: News) -> Result<Done, Rejected> {
    loop {
        count(core, &mut change, case, &news).map_err(Rejected::Unreadable)?;
        match core.store.commit_one(change.clone()).await {
            Err(Rejected::CaseChanged) => {}
            done => return done,
        }
    }
}

/// Sets the case of a change to where it stands with this news.
fn count(core: &Core, change: &mut Change, case: CaseId, news: &News) -> Result<(), ReadError> {
    let timeline = core.store.timeline(case)?;
    let up_to = timeline.last().map_or(0, |(sequence, _)| *sequence);
    let counted = stands(core, case, &timeline, news)?;
    match change {
        Change::Accept { fact, mover, .. } => (fact.case_move, *mover) = (counted, Some(Mover::Counted { up_to })),
        Change::Settle { fact, mover, .. } => (fact.case_move, *mover) = (counted, Some(Mover::Counted { up_to })),
        _ => {}
    }
    Ok(())
}

/// Where the case stands; none when that is where it stands anyway.
fn stands(
    core: &Core,
    case: CaseId,
    timeline: &[(u64, Arc<Fact>)],
    news: &News,
) -> Result<Option<CaseMove>, ReadError> {
    let Some(row) = core.store.case(case)? else { return Ok(None) };
    let Ok(kind) = row.kind.parse::<CaseKind>() else { return Ok(None) };
    let known = Known::of(timeline, news, &core.name);
    let mut steps: Vec<_> = known.steps(timeline, &row).collect();
    let why = match news {
        News::Came(step, place) => {
            steps.push((*place, step.clone()));
            ""
        }
        News::Ended(_, why) => why,
        News::Opened(..) => "",
    };
    steps.sort_by_key(|(place, _)| *place);
    let stands = states::stands(kind, steps.into_iter().map(|(_, step)| step));
    let (to, reason) = stands.unwrap_or_else(|| (states::unopened(kind).to_owned(), why.to_owned()));
    let (case_id, from) = (Bytes::copy_from_slice(case.as_bytes()), row.status);
    Ok((to != from).then(|| CaseMove { case_id, from, to, reason, ..CaseMove::default() }))
}

/// What is known of the messages of a case.
#[derive(Debug, Default)]
struct Known {
    /// Those that ended unopened, as everybody else counts.
    ended: HashSet<MessageId>,
    /// Where those of ours that the gateway had stand in its order; 0: not known.
    places: HashMap<MessageId, u64>,
}

impl Known {
    fn of(timeline: &[(u64, Arc<Fact>)], news: &News, name: &InstitutionName) -> Self {
        let (mut known, mut sent, mut opened) = (Self::default(), HashMap::new(), HashSet::new());
        for (sequence, fact) in timeline {
            match &fact.kind {
                Some(Kind::Accepted(accepted)) => match told(accepted) {
                    Some(notice) => {
                        let Ok(message) = notice.message_id.parse() else { continue };
                        if notice.kind == OPENED {
                            opened.insert(message);
                            known.places.insert(message, accepted.gateway_sequence);
                        } else if UNOPENED.contains(&notice.kind.as_str()) || is_late(&notice, name) {
                            known.ended.insert(message);
                        }
                    }
                    None if accepted.queue == GATEWAY => {
                        sent.extend(MessageId::from_bytes(&accepted.id).ok().map(|message| (*sequence, message)));
                    }
                    None => {}
                },
                Some(Kind::Settled(settled)) => {
                    let Some(message) = sent.get(&settled.sequence) else { continue };
                    match settled.outcome() {
                        Outcome::Refused | Outcome::Expired => drop(known.ended.insert(*message)),
                        Outcome::HandedOver => drop(known.places.insert(*message, settled.gateway_sequence)),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        match news {
            News::Opened(message, place) => {
                opened.insert(*message);
                known.places.insert(*message, *place);
            }
            News::Ended(message, _) => drop(known.ended.insert(*message)),
            News::Came(..) => {}
        }
        known.ended.retain(|message| !opened.contains(message));
        known
    }

    /// What counts, in the order in which it came here, each with its place in the gateway's order: what is still on its way stands last, and
    /// what has no place stands with what came before it.
    fn steps<'a>(
        &'a self,
        timeline: &'a [(u64, Arc<Fact>)],
        row: &'a CaseRow,
    ) -> impl Iterator<Item = (u64, Step)> + 'a {
        let steps = timeline.iter().filter_map(|(_, fact)| self.step(accepted(fact)?, row));
        steps.scan(0, |before, (place, step)| {
            let place = if place == 0 { *before } else { place };
            *before = if place == ON_ITS_WAY { *before } else { place };
            Some((place, step))
        })
    }

    /// How something that was sent, received or told moves the case, if it does.
    fn step(&self, accepted: &Accepted, row: &CaseRow) -> Option<(u64, Step)> {
        if let Some(notice) = told(accepted) {
            let (to, by) = ("expired".to_owned(), Party::Gateway);
            let step = Step { to, by, reason: notice.reason };
            return (notice.kind == CASE_EXPIRED).then_some((accepted.gateway_sequence, step));
        }
        let place = |origin: &Origin| match accepted.queue.as_str() {
            GATEWAY => Some(self.places.get(&origin.jti).copied().unwrap_or(ON_ITS_WAY)),
            BACKOFFICE => Some(accepted.gateway_sequence),
            _ => None,
        };
        let (origin, _) = origin(accepted).ok()?;
        let place = place(&origin)?;
        (!self.ended.contains(&origin.jti)).then(|| (place, moving(&origin, row)))
    }
}

/// Whether a message was opened here when it had ended everywhere else.
pub(crate) fn is_late(notice: &Notice, name: &InstitutionName) -> bool {
    notice.kind == RECEIPT_AFTER_EXPIRY && notice.to == name.as_str()
}

/// How a message moves its case.
pub(crate) fn moving(origin: &Origin, row: &CaseRow) -> Step {
    let by = if origin.iss.as_str() == row.opener { Party::Opener } else { Party::Responder };
    Step { to: origin.cs.clone(), by, reason: origin.rsn.clone().unwrap_or_default() }
}
