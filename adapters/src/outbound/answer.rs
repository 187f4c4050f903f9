//! What the gateway says to a frame, and what becomes of each message by it.
//!
//! Knows acceptance, refusal for good and refusal for now. Never believes: an acceptance counts only when its signature and its
//! subject check; anything else is a failed attempt, with a line in the log and a count. Invariant: a message leaves the outbox only
//! by a `Settled` with the gateway's verified acceptance, with its refusal for good, or past its expiry.

use bytes::Bytes;
use tramite_proto::{
    batch,
    ids::{CaseId, MessageId},
    pb::{
        exchange::v1::{Refusal, SubmitAnswer, SubmitResult, submit_result::Result as Answer},
        journal::v1::{Accepted, Outcome, Settled},
        statement::v1::{FramedStatement, Statement},
    },
    reason::{Reason, Refused},
    statement::{Event, Evidence, Origin},
};
use tramite_store::{Change, Leased, Rejected, accepted};

use crate::{
    backoff,
    core::{BACKOFFICE, Core, GATEWAY, origin, rejected, unreadable},
    directory::Doubt,
    metrics,
    recount::{self, News},
};

/// Wait before the second attempt.
const RETRY_FIRST_MS: u64 = 500;
/// The longest wait. Each attempt is a fact in the own journal: the five days of a message that the gateway never takes are some five hundred,
/// and what is put right there after a weekend is sent a quarter of an hour later.
const RETRY_LONGEST_MS: u64 = 900_000;
/// Of a detail, in characters.
const DETAIL_CHARS_MAX: usize = 300;

/// What becomes of a message.
#[derive(Debug)]
pub(crate) struct End {
    change: Change,
    /// The case that is counted again without it, and why.
    counts: Option<(CaseId, News)>,
}

impl From<Change> for End {
    fn from(change: Change) -> Self {
        Self { change, counts: None }
    }
}

/// Has them on the disk: those that end no case's move together, each of the others with its case.
///
/// # Errors
/// The store does not take one.
pub(crate) async fn commit(core: &Core, leased: &[Leased], ends: Vec<End>) -> Result<(), Refused> {
    let (mut plain, mut counting) = (Vec::new(), Vec::new());
    for (leased, End { change, counts }) in leased.iter().zip(ends) {
        match counts {
            None => plain.push(change),
            Some(counts) => counting.push((leased, change, counts)),
        }
    }
    let mut all = if plain.is_empty() { Vec::new() } else { core.store.commit(plain).await };
    for (leased, change, (case, news)) in counting {
        all.push(match recount::commit(core, change, case, news).await {
            // It ends when its case can be read: sent again, it is refused again.
            Err(Rejected::Unreadable(error)) => core.store.commit_one(fail(core, leased, &unreadable(error))).await,
            done => done,
        });
    }
    // One that the store does not take keeps none of the others.
    all.into_iter().try_for_each(|done| done.map(drop).map_err(rejected))
}

/// What becomes of the messages of a frame, in their order.
pub(super) async fn ends(core: &Core, leased: &[Leased], answer: SubmitAnswer) -> Result<Vec<End>, Refused> {
    if answer.results.len() != leased.len() {
        return Err(Refused::new(
            Reason::FrameInvalid,
            "the gateway answered to another number of messages than it was sent",
        ));
    }
    let mut ends = Vec::with_capacity(leased.len());
    for (leased, result) in leased.iter().zip(answer.results) {
        ends.push(end(core, leased, &answer.jws, result).await);
    }
    Ok(ends)
}

async fn end(core: &Core, leased: &Leased, jws: &[String], result: SubmitResult) -> End {
    let read = accepted(&leased.fact).ok_or_else(|| Refused::because(Reason::Internal));
    let read = read.and_then(|accepted| Ok((accepted, origin(accepted)?)));
    let (accepted, (origin, statement)) = match read {
        Ok(read) => read,
        Err(refused) => return fail(core, leased, &refused).into(),
    };
    let sequence = result.sequence;
    let mut change = match result.result {
        Some(Answer::Accepted(framed)) => {
            match check(core, jws, framed, Event::SubmissionAcceptance, &origin, statement).await {
                Ok(evidence) => {
                    core.metrics.accepted.inc();
                    tracing::info!(
                        message_id = %origin.jti,
                        case_id = %origin.case,
                        "the gateway has accepted a message"
                    );
                    settle(leased, Outcome::HandedOver, Some(evidence), None)
                }
                Err(Doubt::Later(refused)) => fail(core, leased, &refused),
                Err(Doubt::Wrong(refused)) => {
                    core.distrust("acceptance", &origin.jti.to_string(), &refused);
                    fail(core, leased, &Refused::new(Reason::EvidenceInvalid, refused.detail))
                }
            }
        }
        Some(Answer::Refused(refusal)) => {
            return turned_down(core, leased, jws, refusal, (accepted, &origin, statement)).await;
        }
        None => fail(core, leased, &Refused::new(Reason::FrameInvalid, "the gateway gave no result")),
    };
    if let Change::Settle { fact, .. } = &mut change {
        fact.gateway_sequence = sequence;
    }
    change.into()
}

/// A refusal: for now, or for good.
async fn turned_down(
    core: &Core,
    leased: &Leased,
    jws: &[String],
    mut refusal: Refusal,
    (accepted, origin, statement): (&Accepted, &Origin, &Statement),
) -> End {
    let refused = Refused::from_refusal(&refusal);
    if refused.reason == Reason::SignerUnknown {
        // The gateway does not know our key (any more): introduce ourselves again.
        core.link.introduce.notify_one();
    }
    if refusal.retryable || refused.retryable() {
        return fail(core, leased, &refused).into();
    }
    let evidence = match refusal.evidence.take() {
        Some(framed) => check(core, jws, framed, Event::SubmissionRejection, origin, statement).await.ok(),
        None => None,
    };
    core.link.count_refused();
    core.metrics.refused.get_or_create(&metrics::reason(refused.reason.as_str())).inc();
    tracing::warn!(
        message_id = %origin.jti,
        case_id = %origin.case,
        reason = %refused.reason,
        detail = refused.detail,
        "the gateway refused a message for good"
    );
    let change = settle(leased, Outcome::Refused, evidence, Some(&refused));
    End { change, counts: counts(accepted, &refused) }
}

/// Unframes the gateway's evidence and checks signature, event and subject.
async fn check(
    core: &Core,
    jws: &[String],
    framed: FramedStatement,
    event: Event,
    origin: &Origin,
    statement: &Statement,
) -> Result<Statement, Doubt> {
    let evidence = batch::unframe(jws, framed).map_err(Doubt::Wrong)?;
    let read: Evidence = core.check_evidence(&evidence).await?;
    if read.evt != event {
        return Err(Doubt::Wrong(Refused::new(Reason::EvidenceInvalid, "the gateway's evidence is of another event")));
    }
    read.check_against(origin, &statement.json).map_err(Doubt::Wrong)?;
    Ok(evidence)
}

/// The case that a message moved which ends here.
fn counts(accepted: &Accepted, why: &Refused) -> Option<(CaseId, News)> {
    let case = CaseId::from_bytes(&accepted.case_move.as_ref()?.case_id).ok()?;
    Some((case, News::Ended(MessageId::from_bytes(&accepted.id).ok()?, why.reason.as_str().to_owned())))
}

/// Ends a message that is past its expiry; not, when it is on its way, or the clock is not believed.
///
/// # Errors
/// Its case cannot be read, or the store does not take its end: it must not end yet.
pub(crate) async fn expire(core: &Core, leased: &Leased) -> Result<bool, Refused> {
    let End { change, counts } = expired(leased);
    let done = match counts {
        Some((case, news)) => recount::commit(core, change, case, news).await,
        None => core.store.commit_one(change).await,
    };
    match done {
        Err(Rejected::Leased { .. } | Rejected::ClockHeld) => Ok(false),
        done => done.map(|_| true).map_err(rejected),
    }
}

/// Past its expiry, never accepted: the back office is told.
pub(crate) fn expired(leased: &Leased) -> End {
    let refused = Refused::new(Reason::MessageExpired, "the message expired before the gateway could be reached");
    let change = settle(leased, Outcome::Expired, None, Some(&refused));
    End { change, counts: accepted(&leased.fact).and_then(|accepted| counts(accepted, &refused)) }
}

fn settle(leased: &Leased, outcome: Outcome, evidence: Option<Statement>, why: Option<&Refused>) -> Change {
    let fact = Settled {
        sequence: leased.sequence,
        outcome: outcome.into(),
        evidence,
        reason: why.map(|refused| refused.reason.as_str().to_owned()).unwrap_or_default(),
        detail: why.map(words).unwrap_or_default(),
        // An acceptance is no news: the receipt will be.
        notify: if why.is_some() { vec![BACKOFFICE.to_owned()] } else { Vec::new() },
        queue: GATEWAY.to_owned(),
        ..Settled::default()
    };
    Change::Settle { fact: Box::new(fact), sign: Vec::<(tramite_store::Slot, Bytes)>::new(), mover: None }
}

/// As much of another's words as the journal is to keep.
fn words(refused: &Refused) -> String {
    refused.detail.chars().take(DETAIL_CHARS_MAX).collect()
}

/// It is tried again, later each time.
pub(super) fn fail(core: &Core, leased: &Leased, refused: &Refused) -> Change {
    core.metrics.retries.get_or_create(&metrics::reason(refused.reason.as_str())).inc();
    let own = backoff::delay_ms(&core.entropy, RETRY_FIRST_MS, RETRY_LONGEST_MS, leased.attempt.saturating_sub(1));
    let wait = own.max(refused.retry_after_ms.unwrap_or(0).min(RETRY_LONGEST_MS));
    tracing::warn!(
        sequence = leased.sequence,
        attempt = leased.attempt,
        reason = %refused.reason,
        detail = refused.detail,
        wait_ms = wait,
        "a message was not taken by the gateway; it is tried again"
    );
    Change::FailAttempt {
        sequence: leased.sequence,
        queue: GATEWAY.to_owned(),
        reason: refused.reason.as_str().to_owned(),
        detail: words(refused),
        due_ms: core.clock.now_ms().saturating_add(i64::try_from(wait).unwrap_or(0)),
    }
}
