//! News from the gateway about a message or a case: checked, kept, shown to the back office.
//!
//! Knows which event is which kind of notice. Never believes: the gateway's evidence must check and be about a message that this store
//! knows; a receipt in it must be the recipient's own over that very message. Invariant: one event is one item in the inbox, however often
//! it comes.

use bytes::Bytes;
use prost::Message as _;
use tramite_proto::{
    batch,
    ids::Digest,
    pb::{
        backoffice::v1 as pb,
        exchange::v1::Notice,
        journal::v1::{Accepted, Fact, Outcome, Settled},
        statement::v1::Statement,
    },
    reason::{Reason, Refused},
    statement::{Event, Evidence, Origin, Receipt},
    states::{Party, Step},
};
use tramite_store::{Change, Done, MessageRow, MessageState, accepted};

use super::take::settle_refused;
use crate::{
    core::{BACKOFFICE, Core, GATEWAY, REFUSED as REFUSED_QUEUE, origin, rejected, unreadable},
    directory::Doubt,
    metrics,
    recount::{self, News, is_late},
};

/// The kinds of notice, as the contract names them.
pub(crate) const OPENED: &str = "OPENED";
const REFUSED: &str = "REFUSED";
const EXPIRED: &str = "EXPIRED";
const DEAD_LETTERED: &str = "DEAD_LETTERED";
const DISCARDED: &str = "DISCARDED";
pub(crate) const CASE_EXPIRED: &str = "CASE_EXPIRED";
pub(crate) const RECEIPT_AFTER_EXPIRY: &str = "RECEIPT_AFTER_EXPIRY";
/// Ends of a message that counts for nothing any more.
pub(crate) const UNOPENED: [&str; 3] = [REFUSED, EXPIRED, DISCARDED];
/// Ends after which a receipt changes nothing.
const ENDS: [&str; 4] = [REFUSED, EXPIRED, DEAD_LETTERED, DISCARDED];

/// A notice that checks.
struct Checked {
    evidence: Evidence,
    said: Statement,
    receipt: Option<(Receipt, Statement)>,
    /// Where that stands in the gateway's order.
    sequence: u64,
    /// What it is about; `None`: a case that expired, of which this institution never heard.
    about: Option<About>,
}

/// A message that was sent or received here.
struct About {
    origin: Origin,
    /// None: it ended so long ago that its id is forgotten.
    row: Option<MessageRow>,
}

/// Takes a notice in; durable when it returns.
pub(super) async fn take(core: &Core, jws: &[String], notice: Notice) -> Result<(), Refused> {
    let about = notice.message_id.clone();
    let checked = match check(core, jws, notice).await {
        Ok(checked) => checked,
        Err(Doubt::Later(refused)) => return Err(refused),
        Err(Doubt::Wrong(refused)) => {
            core.distrust("notice", &about, &refused);
            return Err(refused);
        }
    };
    let Some(About { origin, row }) = &checked.about else { return Ok(()) };
    let kind = kind_of(core, &checked, origin)?;
    if let Some(row) = row {
        arrived(core, row, checked.sequence).await?;
    }
    let shown = shown_of(&checked.evidence, origin, kind);
    // It expired here, too, and that was told: this is kept and not shown.
    let expired_here = row.as_ref().is_some_and(|row| row.state == MessageState::Final(Outcome::Expired));
    let is_known = kind == EXPIRED && expired_here;
    let (change, news) = (change(&checked, origin, &shown, is_known), news(core, &checked, origin, &shown));
    let done = match news {
        Some(news) => recount::commit(core, change, origin.case, news).await,
        None => core.store.commit_one(change).await,
    };
    if let Done::Accepted { sequence, .. } = done.map_err(rejected)? {
        if is_known {
            // A start ends it, if this does not.
            core.store.commit(vec![settle_refused(sequence, &shown.reason)]).await;
        }
        core.metrics.notices.get_or_create(&metrics::kind(kind)).inc();
        // A reason that we do not know could be anything that its writer liked: the back office is shown it, the log is not.
        let reason = checked.evidence.rsn.as_deref().and_then(|reason| reason.parse::<Reason>().ok());
        tracing::info!(
            kind,
            message_id = %origin.jti,
            case_id = %origin.case,
            reason = reason.map_or("", Reason::as_str),
            "news of a message"
        );
    }
    Ok(())
}

/// The gateway had a message of ours of which it has news, though its acceptance was lost: it is sent no more, and does not expire here.
async fn arrived(core: &Core, row: &MessageRow, gateway_sequence: u64) -> Result<(), Refused> {
    if row.queue != GATEWAY || matches!(row.state, MessageState::Final(_)) {
        return Ok(());
    }
    let (sequence, outcome, queue) = (row.sequence, Outcome::HandedOver.into(), row.queue.clone());
    let fact = Settled { sequence, outcome, queue, gateway_sequence, ..Settled::default() };
    let change = Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None };
    core.store.commit_one(change).await.map(drop).map_err(rejected)
}

async fn check(core: &Core, jws: &[String], notice: Notice) -> Result<Checked, Doubt> {
    let sequence = notice.sequence;
    let wrong = |reason: Reason, detail: &str| Doubt::Wrong(Refused::new(reason, detail));
    let unframe = |framed| batch::unframe(jws, framed).map_err(Doubt::Wrong);
    let framed = notice.evidence.ok_or_else(|| wrong(Reason::EvidenceInvalid, "the notice has no evidence"))?;
    let said = unframe(framed)?;
    let evidence = core.check_evidence(&said).await?;
    let Some((origin, statement, row)) = known(core, &evidence).map_err(Doubt::Later)? else {
        let unheard = evidence.evt == Event::AcceptanceRejectionExpiry && evidence.to == core.name;
        return match unheard {
            true => Ok(Checked { evidence, said, receipt: None, sequence, about: None }),
            false => {
                Err(wrong(Reason::UnknownMessage, "the notice is about a message that this institution did not send"))
            }
        };
    };
    evidence.check_against(&origin, &statement.json).map_err(Doubt::Wrong)?;
    let receipt = match notice.receipt.map(unframe).transpose()? {
        Some(given) => Some((check_receipt(core, &given, &evidence, (&origin, &statement)).await?, given)),
        None => None,
    };
    let opened = receipt.as_ref().map(|(receipt, _)| receipt.opened);
    match (evidence.evt, opened) {
        (Event::ContentHandover, Some(true)) | (Event::ContentHandoverFailure, None | Some(false)) => {}
        (Event::ContentConsignmentFailure | Event::AcceptanceRejectionExpiry, None) => {}
        _ => return Err(wrong(Reason::EvidenceInvalid, "the notice's event and its receipt do not go together")),
    }
    Ok(Checked { evidence, said, receipt, sequence, about: Some(About { origin, row }) })
}

/// A receipt is the recipient's own word, over this very message, and the one that the gateway's evidence names.
async fn check_receipt(
    core: &Core,
    given: &Statement,
    evidence: &Evidence,
    (origin, statement): (&Origin, &Statement),
) -> Result<Receipt, Doubt> {
    let receipt = Receipt::parse(&given.json).map_err(Doubt::Wrong)?;
    receipt.check_against(origin, &statement.json).map_err(Doubt::Wrong)?;
    core.check_said(given, &origin.aud, receipt.at.saturating_mul(1_000)).await?;
    if evidence.rcp_s256 != Some(Digest::of(&given.json)) {
        let detail = "the gateway's evidence is not about the receipt beside it";
        return Err(Doubt::Wrong(Refused::new(Reason::ReceiptMismatch, detail)));
    }
    Ok(receipt)
}

/// The origin of a message that was sent or received here. Its case outlives its id.
fn known(core: &Core, evidence: &Evidence) -> Result<Option<(Origin, Statement, Option<MessageRow>)>, Refused> {
    let id = evidence.mid.as_bytes();
    let row = core.store.message(id).map_err(unreadable)?;
    let fact = match &row {
        Some(row) => Some(core.store.fact(row.sequence).map_err(unreadable)?),
        None => {
            let timeline = core.store.timeline(evidence.case).map_err(unreadable)?;
            let is_it = |fact: &Fact| accepted(fact).is_some_and(|accepted| accepted.id == id.as_slice());
            timeline.into_iter().map(|(_, fact)| fact).find(|fact| is_it(fact))
        }
    };
    let Some(fact) = fact else { return Ok(None) };
    let accepted = accepted(&fact).ok_or_else(|| Refused::because(Reason::Internal))?;
    let (origin, statement) = origin(accepted)?;
    Ok(Some((origin, statement.clone(), row)))
}

fn kind_of(core: &Core, checked: &Checked, origin: &Origin) -> Result<&'static str, Refused> {
    let reason = checked.evidence.rsn.as_deref().unwrap_or_default();
    Ok(match (checked.evidence.evt, &checked.receipt) {
        // About our own receipt, or after an end that was told: both mean that the message was over when the receipt came.
        (_, Some(_)) if origin.aud == core.name || is_over(core, origin)? => RECEIPT_AFTER_EXPIRY,
        (Event::ContentHandover, _) => OPENED,
        (_, Some(_)) => REFUSED,
        (Event::AcceptanceRejectionExpiry, _) => CASE_EXPIRED,
        (Event::ContentConsignmentFailure, _) => EXPIRED,
        _ if reason == Reason::Discarded.as_str() => DISCARDED,
        _ => DEAD_LETTERED,
    })
}

/// True when the end of this message was told before. A dead letter that was put back is none.
fn is_over(core: &Core, origin: &Origin) -> Result<bool, Refused> {
    let id = origin.jti.to_string();
    let timeline = core.store.timeline(origin.case).map_err(unreadable)?;
    let mut newest_first = timeline.iter().rev().filter_map(|(_, fact)| told(accepted(fact)?));
    let told = newest_first.find(|notice| notice.message_id == id);
    Ok(told.is_some_and(|notice| ENDS.contains(&notice.kind.as_str()) && notice.kind != DEAD_LETTERED))
}

/// The notice that was kept here; `None` for a message.
pub(crate) fn told(accepted: &Accepted) -> Option<pb::Notice> {
    if accepted.queue == REFUSED_QUEUE { notice_in(accepted) } else { shown(accepted) }
}

/// The notice in an inbox row; `None` when the row is a message.
pub(crate) fn shown(accepted: &Accepted) -> Option<pb::Notice> {
    if accepted.queue == BACKOFFICE { notice_in(accepted) } else { None }
}

fn notice_in(accepted: &Accepted) -> Option<pb::Notice> {
    if accepted.extra.is_empty() {
        return None;
    }
    pb::Notice::decode(accepted.extra.clone()).ok()
}

/// What the back office is told.
fn shown_of(evidence: &Evidence, origin: &Origin, kind: &str) -> pb::Notice {
    let reason = evidence.rsn.clone().unwrap_or_default();
    let detail = reason.parse::<Reason>().map(|reason| reason.meaning().to_owned()).unwrap_or_default();
    pb::Notice {
        kind: kind.to_owned(),
        message_id: origin.jti.to_string(),
        case_id: origin.case.to_string(),
        to: origin.aud.to_string(),
        reason,
        detail,
        at: evidence.at,
    }
}

fn change(checked: &Checked, origin: &Origin, shown: &pb::Notice, is_known: bool) -> Change {
    // A receipt is news once, whatever evidence the gateway writes about it.
    let news = checked.receipt.as_ref().map_or(&checked.said, |(_, statement)| statement);
    let digest = Digest::of(&news.json);
    let fact = Accepted {
        queue: if is_known { REFUSED_QUEUE } else { BACKOFFICE }.to_owned(),
        // No message has it, for theirs have 16 bytes.
        id: [b"n".as_slice(), digest.as_bytes()].concat().into(),
        digest: Bytes::copy_from_slice(digest.as_bytes()),
        evidence: Some(checked.said.clone()),
        receipt: checked.receipt.as_ref().map(|(_, statement)| statement.clone()),
        extra: shown.encode_to_vec().into(),
        case_id: Bytes::copy_from_slice(origin.case.as_bytes()),
        gateway_sequence: checked.sequence,
        ..Accepted::default()
    };
    Change::Accept { fact: Box::new(fact), content: Bytes::new(), sign: Vec::new(), mover: None }
}

/// What of it tells where the case stands: that a message of ours was opened, or never will be; that one was over when we opened it; that the
/// case passed its deadline. A dead letter may still be put back at the gateway, so it is no end.
fn news(core: &Core, checked: &Checked, origin: &Origin, shown: &pb::Notice) -> Option<News> {
    // A case that nobody opened ends for a reason.
    let why = if shown.reason.is_empty() { &shown.kind } else { &shown.reason };
    match shown.kind.as_str() {
        CASE_EXPIRED => {
            let (to, reason) = ("expired".to_owned(), Reason::CaseExpired.as_str().to_owned());
            Some(News::Came(Step { to, by: Party::Gateway, reason }, checked.sequence))
        }
        OPENED if origin.iss == core.name => Some(News::Opened(origin.jti, checked.sequence)),
        kind if origin.iss == core.name && UNOPENED.contains(&kind) => Some(News::Ended(origin.jti, why.clone())),
        _ if is_late(shown, &core.name) => Some(News::Ended(origin.jti, why.clone())),
        _ => None,
    }
}
