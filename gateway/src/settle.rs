//! Fifth verb: what the recipient says of a delivery. A receipt is judged by the message's identity and by the recipient's signature,
//! never by a lease: it counts whenever it comes. What stands is a fact with the gateway's evidence, and a notice to the sender.
//! It knows origins and receipts; never content.
//!
//! A receipt that the stream lost comes again as it was signed, be it after its certificate's end. So the certificate must count now, or
//! must have counted when the receipt says that it was given: that is how the sender judges it, too, so nothing has to be signed anew. It
//! opens no way to date back what is new: the hour lies between acceptance and now, the connection is the recipient's own, a certificate
//! of which the key was known to others never counts, and one that was revoked does not from then on.

use std::collections::HashMap;

use tramite_proto::{
    batch,
    pb::{
        exchange::v1::{RetryLater, Settlement, SettlementAnswer, settlement},
        journal::v1::{Fact, Outcome, Settled, fact::Kind},
        statement::v1::{FramedStatement, Statement},
    },
    reason::{Reason, Refused},
    statement::{CLOCK_AHEAD_S_MAX, Receipt, Statement as Said},
    trace,
};
use tramite_store::{Change, Done, MessageState, ReadError, Rejected, Slot, accepted};

use crate::{
    expire,
    hub::{Consigned, Hub},
    identify::Member,
    prove::About,
    retry::{self, Again, Failure},
    undo,
};

/// What one settlement asks the store for.
enum Asked {
    /// Nothing: it is so already.
    Nothing,
    /// A receipt over a message, and what to do if it is found to be final when the writer looks.
    Receipt { consigned: Box<Consigned>, receipt: Box<Receipt>, statement: Box<Statement>, change: Option<Change> },
    /// A notice is safe with its recipient.
    Notice { change: Option<Change> },
    /// Not now.
    Later { reason: String, change: Option<Change> },
}

/// Settles what `member` says; one answer for each settlement, in order, durable. `attempts` are the deliveries on their way to it on
/// this stream, with the number of the attempt.
pub async fn settle(
    hub: &Hub,
    member: &Member,
    jws: &[String],
    settlements: Vec<Settlement>,
    attempts: &HashMap<u64, u32>,
) -> Vec<SettlementAnswer> {
    let mut asked = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        let delivery_id = settlement.delivery_id;
        let retry = matches!(settlement.outcome, Some(settlement::Outcome::Retry(_)));
        asked.push((delivery_id, retry, ask(hub, member, jws, settlement, attempts)));
    }
    let changes: Vec<_> =
        asked.iter_mut().filter_map(|(.., asked)| asked.as_mut().ok().and_then(Asked::take_change)).collect();
    fail::fail_point!("settle.received");
    // Nobody waits for the end of a notice, and a kill before it only shows it once more.
    let patient = asked.iter().all(|(.., asked)| matches!(asked, Ok(Asked::Nothing | Asked::Notice { .. }) | Err(_)));
    let done = match changes.is_empty() {
        true => Vec::new(),
        false if patient => hub.store.commit_with_next(changes).await,
        false => hub.store.commit(changes).await,
    };
    let mut done = done.into_iter();
    let mut answers = Vec::with_capacity(asked.len());
    for (delivery_id, retry, asked) in asked {
        let outcome = match asked {
            Err(refused) => Err(refused),
            Ok(Asked::Nothing) => Ok(()),
            Ok(asked) => match done.next() {
                Some(Ok(done)) => conclude(hub, member, delivery_id, asked, done).await,
                Some(Err(Rejected::CaseChanged)) => count_again(hub, member, delivery_id, asked).await,
                Some(Err(rejected)) => Err(hub.rejected(rejected)),
                None => Err(Refused::because(Reason::StoreFailed)),
            },
        };
        if let Err(refused) = &outcome {
            hub.refuse("settle", member.as_str(), &delivery_id.to_string(), refused);
        }
        let refused = outcome.err().map(|refused| refused.to_refusal());
        answers.push(SettlementAnswer { delivery_id, refused, retry });
    }
    fail::fail_point!("settle.answered");
    answers
}

impl Asked {
    /// What the store is to be asked, once.
    fn take_change(&mut self) -> Option<Change> {
        match self {
            Self::Nothing => None,
            Self::Receipt { change, .. } | Self::Notice { change } | Self::Later { change, .. } => change.take(),
        }
    }
}

fn ask(
    hub: &Hub,
    member: &Member,
    jws: &[String],
    settlement: Settlement,
    attempts: &HashMap<u64, u32>,
) -> Result<Asked, Refused> {
    let delivery_id = settlement.delivery_id;
    match settlement.outcome {
        Some(settlement::Outcome::Receipt(framed)) => receipt(hub, member, jws, delivery_id, framed),
        Some(settlement::Outcome::Notice(_)) => notice(hub, member, delivery_id),
        Some(settlement::Outcome::Retry(later)) => Ok(retry_later(hub, member, delivery_id, &later, attempts)),
        None => Err(Refused::new(Reason::FieldInvalid, "A settlement has an outcome.").field("outcome")),
    }
}

/// Checks a receipt: about a message that was for this institution, signed by it, over these very bytes.
fn receipt(
    hub: &Hub,
    member: &Member,
    jws: &[String],
    delivery_id: u64,
    framed: FramedStatement,
) -> Result<Asked, Refused> {
    let consigned = hub.consigned(delivery_id)?;
    if consigned.origin.aud != *member.name() {
        // Nobody learns whether another's delivery exists.
        return Err(Refused::because(Reason::DeliveryUnknown));
    }
    let span = tracing::info_span!("settle", message_id = %consigned.origin.jti, recipient = member.as_str());
    trace::follow(&span, accepted(&consigned.fact).map_or("", |accepted| accepted.traceparent.as_str()));
    let _entered = span.enter();
    let statement = batch::unframe(jws, framed)?;
    let receipt = said(hub, member, &consigned, &statement)?;
    let late = match state(hub, &consigned)? {
        MessageState::Final(Outcome::HandedOver | Outcome::Refused) => return Ok(Asked::Nothing),
        MessageState::Final(_) => true,
        MessageState::Waiting | MessageState::Leased | MessageState::DeadLettered => false,
    };
    let change = Some(settlement_of(hub, delivery_id, &consigned, &receipt, &statement, late)?);
    Ok(Asked::Receipt { consigned: Box::new(consigned), receipt, statement: Box::new(statement), change })
}

/// The recipient's own word over this very message.
fn said(hub: &Hub, member: &Member, consigned: &Consigned, statement: &Statement) -> Result<Box<Receipt>, Refused> {
    let now_ms = hub.clock.now_ms();
    let verify = |at_ms| hub.keyring.verify(statement, at_ms, Some(member.as_str()));
    let verified = verify(now_ms).or_else(|refused| {
        let given = given_ms(consigned, statement, now_ms);
        given.and_then(|at_ms| verify(at_ms).ok()).ok_or_else(|| hub.by_clock(now_ms, refused))
    })?;
    let Said::Receipt(receipt) = verified.statement else {
        return Err(Refused::new(Reason::StatementMalformed, "A delivery is settled with a receipt.").field("typ"));
    };
    receipt.check_against(&consigned.origin, consigned.json())?;
    Ok(receipt)
}

/// When a receipt says that it was given, if that lies between the acceptance (clocks differ) and now.
fn given_ms(consigned: &Consigned, statement: &Statement, now_ms: i64) -> Option<i64> {
    let at_ms = Receipt::parse(&statement.json).ok()?.at.saturating_mul(1_000);
    let accepted_ms = consigned.fact.at_ms.saturating_sub(CLOCK_AHEAD_S_MAX * 1_000);
    (accepted_ms..=now_ms).contains(&at_ms).then_some(at_ms)
}

fn state(hub: &Hub, consigned: &Consigned) -> Result<MessageState, Refused> {
    let row = hub.store.message(consigned.origin.jti.as_bytes()).map_err(|error| hub.read_failed(&error))?;
    // A row that is not there any more belongs to a message that was final long ago.
    Ok(row.map_or(MessageState::Final(Outcome::HandedOver), |row| row.state))
}

/// The fact that a receipt makes. `late`: the message was final before; the receipt changes nothing and both are told.
fn settlement_of(
    hub: &Hub,
    sequence: u64,
    consigned: &Consigned,
    receipt: &Receipt,
    statement: &Statement,
    late: bool,
) -> Result<Change, Refused> {
    let about = About::new(&consigned.origin, consigned.json());
    let reason = receipt.rsn.clone().unwrap_or_default();
    let evidence = if receipt.opened {
        hub.prover.handed_over(about, &statement.json)
    } else {
        hub.prover.refused(about, &statement.json, &reason)
    };
    let sender = consigned.origin.iss.as_str().to_owned();
    let (outcome, notify) = match (late, receipt.opened) {
        (true, true) => (Outcome::ReceiptAfterEnd, vec![sender, consigned.origin.aud.as_str().to_owned()]),
        // Its recipient has nothing to take back.
        (true, false) => (Outcome::ReceiptAfterEnd, vec![sender]),
        (false, true) => (Outcome::HandedOver, vec![sender]),
        (false, false) => (Outcome::Refused, vec![sender]),
    };
    let refused = outcome == Outcome::Refused;
    let (case_move, mover) = match refused {
        true => {
            undo::move_back(hub, sequence, consigned, &reason).map(|(case_move, mover)| (case_move, Some(mover)))?
        }
        false => (None, None),
    };
    let fact = Settled {
        sequence,
        outcome: outcome.into(),
        receipt: Some(statement.clone()),
        reason,
        notify,
        queue: consigned.origin.aud.as_str().to_owned(),
        case_move,
        ..Settled::default()
    };
    Ok(Change::Settle { fact: Box::new(fact), sign: vec![(Slot::Evidence, evidence)], mover })
}

/// A notice that waits for this institution is safe with it.
fn notice(hub: &Hub, member: &Member, delivery_id: u64) -> Result<Asked, Refused> {
    let unknown = || Refused::because(Reason::DeliveryUnknown);
    let fact = hub.store.fact(delivery_id).map_err(|error| match error {
        ReadError::NoFact(_) => unknown(),
        error => hub.read_failed(&error),
    })?;
    if !notified(&fact).iter().any(|queue| queue == member.as_str()) {
        return Err(unknown());
    }
    let fact = Settled {
        sequence: delivery_id,
        outcome: Outcome::HandedOver.into(),
        queue: member.as_str().to_owned(),
        ..Settled::default()
    };
    Ok(Asked::Notice { change: Some(Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None }) })
}

/// The queues in which a fact waits as a notice.
pub(crate) fn notified(fact: &Fact) -> &[String] {
    match &fact.kind {
        Some(Kind::Settled(settled)) => &settled.notify,
        Some(Kind::CaseExpired(expired)) => &expired.notify,
        _ => &[],
    }
}

/// An attempt that the recipient puts off. One that is no longer on its way is offered again anyhow.
fn retry_later(hub: &Hub, member: &Member, sequence: u64, later: &RetryLater, attempts: &HashMap<u64, u32>) -> Asked {
    let Some(attempt) = attempts.get(&sequence).copied() else { return Asked::Nothing };
    let reason =
        if is_stable(&later.reason) { later.reason.clone() } else { Reason::NackTransient.as_str().to_owned() };
    let again = match reason == retry::CLOCK.as_str() {
        true => Again::Lost,
        false => Again::Later { at_least_ms: later.delay_ms },
    };
    let failure = Failure { sequence, attempt, reason: reason.clone(), detail: later.detail.clone(), again };
    Asked::Later { reason, change: Some(retry::change(hub, member.as_str(), failure)) }
}

/// Whether a peer's word can stand where reasons stand: it becomes a label of a counter or stands in a log line, so it must be one that we
/// know; and not the one by which attempts do not count.
fn is_stable(reason: &str) -> bool {
    reason.parse::<Reason>().is_ok_and(|reason| reason != retry::LOST)
}

async fn conclude(hub: &Hub, member: &Member, delivery_id: u64, asked: Asked, done: Done) -> Result<(), Refused> {
    match asked {
        Asked::Nothing | Asked::Notice { .. } => Ok(()),
        Asked::Later { reason, .. } => {
            retry::count(hub, member.as_str(), delivery_id, &reason, &done);
            if reason == Reason::CaseUnknown.as_str() {
                expire::without_case(hub, delivery_id).await;
            }
            Ok(())
        }
        Asked::Receipt { consigned, receipt, statement, .. } => {
            let done = match done {
                // It became final between our look and the writer's: by another receipt, or by the clock.
                Done::Already { .. } => after_end(hub, delivery_id, &consigned, &receipt, &statement).await?,
                done => Some(done),
            };
            if matches!(done, Some(Done::Settled { .. })) {
                hub.metrics.receipt(receipt.opened);
                tracing::info!(
                    message_id = %consigned.origin.jti,
                    recipient = member.as_str(),
                    opened = receipt.opened,
                    reason = receipt.rsn.as_deref().map_or("", |reason| if is_stable(reason) { reason } else { "(unknown)" }),
                    "settled"
                );
            }
            Ok(())
        }
    }
}

/// Something was added to the case meanwhile: the refusal ends its message with the case as it stands now.
async fn count_again(hub: &Hub, member: &Member, delivery_id: u64, asked: Asked) -> Result<(), Refused> {
    let Asked::Receipt { consigned, receipt, statement, .. } = &asked else { return Ok(()) };
    loop {
        let change = settlement_of(hub, delivery_id, consigned, receipt, statement, false)?;
        match hub.store.commit_one(change).await {
            Err(Rejected::CaseChanged) => {}
            Err(rejected) => return Err(hub.rejected(rejected)),
            Ok(done) => return conclude(hub, member, delivery_id, asked, done).await,
        }
    }
}

/// Records a receipt for a message that is final, unless it is final by a receipt.
async fn after_end(
    hub: &Hub,
    sequence: u64,
    consigned: &Consigned,
    receipt: &Receipt,
    statement: &Statement,
) -> Result<Option<Done>, Refused> {
    if matches!(state(hub, consigned)?, MessageState::Final(Outcome::HandedOver | Outcome::Refused)) {
        return Ok(None);
    }
    let change = settlement_of(hub, sequence, consigned, receipt, statement, true)?;
    hub.store.commit_one(change).await.map(Some).map_err(|rejected| hub.rejected(rejected))
}
