//! What operators do: redrive, discard, hold, release. Each is durable before it takes effect or is answered, and says who and why.

use tramite_proto::{
    pb::journal::v1::{Outcome, Recorded, Settled},
    reason::{Reason, Refused},
};
use tramite_store::{Change, Done, MessageRow, MessageState, Rejected, Slot};

use crate::{
    holds::{CLOCK, RECORD_PREFIX},
    hub::Hub,
    identify::Operator,
    limits,
    prove::About,
    undo,
};

use super::view;

/// Puts a dead letter back into its queue.
pub(super) async fn redrive(hub: &Hub, operator: &Operator, message_id: &str, reason: &str) -> Result<(), Refused> {
    let reason = check_reason(reason)?;
    let row = dead_letter(hub, message_id)?;
    let change = Change::Redrive { sequence: row.sequence, by: operator.name().to_owned(), reason: reason.to_owned() };
    settled_by_this(commit(hub, change).await?)?;
    tracing::info!(operator = operator.name(), message_id, "redriven");
    Ok(())
}

/// Ends a dead letter; its sender is told.
pub(super) async fn discard(hub: &Hub, operator: &Operator, message_id: &str, reason: &str) -> Result<(), Refused> {
    let reason = check_reason(reason)?;
    let row = dead_letter(hub, message_id)?;
    let consigned = hub.consigned(row.sequence)?;
    let evidence = hub.prover.given_up(About::new(&consigned.origin, consigned.json()), Reason::Discarded);
    let done = loop {
        let (case_move, mover) = undo::move_back(hub, row.sequence, &consigned, Reason::Discarded.as_str())?;
        let fact = Settled {
            sequence: row.sequence,
            outcome: Outcome::Discarded.into(),
            reason: Reason::Discarded.as_str().to_owned(),
            detail: reason.to_owned(),
            notify: vec![consigned.origin.iss.as_str().to_owned()],
            by: operator.name().to_owned(),
            case_move,
            queue: row.queue.clone(),
            ..Settled::default()
        };
        let sign = vec![(Slot::Evidence, evidence.clone())];
        match hub.store.commit_one(Change::Settle { fact: Box::new(fact), sign, mover: Some(mover) }).await {
            Err(Rejected::CaseChanged) => {}
            done => break done.map_err(|rejected| hub.rejected(rejected))?,
        }
    };
    settled_by_this(done)?;
    tracing::info!(operator = operator.name(), message_id, "discarded");
    Ok(())
}

/// Stops deliveries to an institution, or what the clock decides.
pub(super) async fn hold(hub: &Hub, operator: &Operator, name: &str, reason: &str) -> Result<(), Refused> {
    let reason = check_reason(reason)?;
    check_name(hub, name)?;
    if name == CLOCK {
        hub.store.hold_clock(operator.name(), reason).await.map_err(|rejected| hub.rejected(rejected))?;
        hub.metrics.clock_held.set(1);
    } else {
        commit(hub, record(operator, name, reason, true)).await?;
        hub.holds.hold(name);
    }
    tracing::warn!(operator = operator.name(), institution = name, "held");
    Ok(())
}

/// Lets deliveries to an institution, or what the clock decides, go on.
pub(super) async fn release(hub: &Hub, operator: &Operator, name: &str, reason: &str) -> Result<(), Refused> {
    let reason = check_reason(reason)?;
    check_name(hub, name)?;
    if name == CLOCK {
        hub.store.confirm_clock(operator.name(), reason).await.map_err(|rejected| hub.rejected(rejected))?;
        hub.metrics.clock_held.set(0);
    } else {
        commit(hub, record(operator, name, reason, false)).await?;
        hub.holds.release(name);
    }
    tracing::warn!(operator = operator.name(), institution = name, "released");
    Ok(())
}

fn record(operator: &Operator, name: &str, reason: &str, held: bool) -> Change {
    let fact = Recorded {
        name: format!("{RECORD_PREFIX}{name}"),
        value: held.then(|| reason.to_owned().into()),
        by: operator.name().to_owned(),
        reason: reason.to_owned(),
    };
    Change::Record { fact: Box::new(fact), begins: false }
}

fn dead_letter(hub: &Hub, message_id: &str) -> Result<MessageRow, Refused> {
    let row = view::row(hub, message_id)?;
    if row.state == MessageState::DeadLettered {
        return Ok(row);
    }
    Err(Refused::because(Reason::NotDeadLettered).field("message_id"))
}

fn check_reason(reason: &str) -> Result<&str, Refused> {
    let reason = reason.trim();
    let length = reason.chars().count();
    if length == 0 || length > limits::OPERATOR_REASON_CHARS_MAX || reason.chars().any(char::is_control) {
        let detail = "Say why, in 1 to 500 characters on one line: it is kept in the journal.";
        return Err(Refused::new(Reason::FieldInvalid, detail).field("reason"));
    }
    Ok(reason)
}

fn check_name(hub: &Hub, name: &str) -> Result<(), Refused> {
    if name == CLOCK || hub.config.institution(name).is_some() {
        return Ok(());
    }
    Err(Refused::because(Reason::UnknownInstitution).field("institution"))
}

async fn commit(hub: &Hub, change: Change) -> Result<Done, Refused> {
    hub.store.commit_one(change).await.map_err(|rejected| hub.rejected(rejected))
}

/// Somebody else may have been faster: the recipient with a receipt, or another operator.
fn settled_by_this(done: Done) -> Result<(), Refused> {
    match done {
        Done::Already { .. } => Err(Refused::because(Reason::NotDeadLettered).field("message_id")),
        _ => Ok(()),
    }
}
