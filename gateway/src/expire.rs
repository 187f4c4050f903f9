//! What the clock ends: messages that nobody took before their expiry, and cases that nobody took up before their deadline. Each is a
//! fact with the gateway's evidence, and somebody is told. It runs each second; it knows times and states, never content.
//!
//! When more than a day lies between the last record and the clock, the clock itself may be wrong: then the store holds whatever it
//! would end, running or just started, until an operator releases `clock`.

use std::{collections::HashSet, sync::Arc};

use tramite_proto::{
    ids::uuid_text,
    pb::journal::v1::{CaseExpired, CaseMove, Outcome, Settled},
    reason::{Reason, Refused},
};
use tramite_store::{CaseRow, Change, ClockState, Done, Rejected, Slot};

use crate::{
    hub::{Consigned, Hub},
    limits,
    prove::About,
    undo,
};

/// Looks at the clock. The store holds one that is more than a day from the last record; here that is told, or answered by the
/// configuration.
pub async fn look_at_clock(hub: &Hub) {
    let by = hub.config.name.as_str();
    let state = match hub.store.look_at_clock(by).await {
        Ok(state) => state,
        Err(rejected) => return tracing::warn!(%rejected, "what the clock says was not recorded"),
    };
    let began = state == ClockState::Held { began: true };
    if began && hub.config.clock.accept_gap {
        tracing::warn!("more than a day between record and clock; the configuration says to go on");
        if let Err(rejected) = hub.store.confirm_clock(by, "[clock] accept_gap = true").await {
            tracing::error!(%rejected, "that the clock is right was not recorded");
        }
        return;
    }
    if began {
        tracing::error!(
            why = hub.store.clock_hold().ok().flatten().unwrap_or_default(),
            "more than a day between record and clock: nothing expires, is deleted or given up until an operator has checked the clock and \
             says so: tramite ops release clock --reason '…'"
        );
    }
    hub.metrics.clock_held.set(i64::from(state != ClockState::Believed));
}

/// Looks each second at the clock, and for what has expired, until the gateway stops.
pub async fn run(hub: Arc<Hub>) {
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = tokio::time::sleep(limits::EXPIRY_INTERVAL) => {}
        }
        look_at_clock(&hub).await;
        while pass(&hub).await == limits::CHANGES_AT_ONCE_MAX {}
    }
}

/// One pass; says how many it found due, or as many as it may when it left some.
pub async fn pass(hub: &Hub) -> usize {
    let due = match hub.store.due(hub.clock.now_ms(), limits::CHANGES_AT_ONCE_MAX) {
        Ok(due) => due,
        Err(error) => {
            tracing::error!(%error, "the store could not say what is due");
            return 0;
        }
    };
    if let Some(error) = &due.why {
        hub.metrics.retry(Reason::StoreFailed.as_str());
        let messages = due.unreadable;
        tracing::error!(messages, %error, "past their time, but not ended yet, as they cannot be read: look at the disk");
    }
    // What one end makes of a case is known to the next once it is durable.
    let (mut cases_met, all) = (HashSet::new(), due.messages.len());
    let one_of_each: Vec<_> =
        due.messages.iter().filter(|row| row.case_id.is_none_or(|case| cases_met.insert(case))).collect();
    let mut left = one_of_each.len() < all;
    let messages = one_of_each.into_iter().filter_map(|row| {
        let name = name(row.id.as_ref());
        let (change, _) = unless_unreadable(hub, &name, message(hub, row.sequence, Reason::TtlExpired))?;
        Some((name, change))
    });
    let cases = due.cases.iter().filter_map(|row| {
        let name = row.case_id.to_string();
        let change = unless_unreadable(hub, &name, case(hub, row))?;
        Some((name, change))
    });
    let (ending, changes): (Vec<_>, Vec<_>) = messages.chain(cases).take(limits::CHANGES_AT_ONCE_MAX).unzip();
    let found = changes.len();
    if found == 0 {
        return 0;
    }
    let mut ended = 0;
    for (name, done) in ending.iter().zip(hub.store.commit(changes).await) {
        match done {
            Ok(Done::Settled { .. }) => {
                ended += 1;
                hub.metrics.expired.inc();
                tracing::info!(message_id = name, "expired before its recipient had it; its sender is told");
            }
            Ok(Done::Recorded { .. }) => {
                ended += 1;
                hub.metrics.cases_expired.inc();
                tracing::info!(case_id = name, "the case passed its deadline; both sides are told");
            }
            Ok(_) => {}
            // Something was added to it: the next pass counts again.
            Err(Rejected::CaseChanged) => left = true,
            // Leased or moved in the meantime: the next pass looks again.
            Err(rejected) => tracing::debug!(name, %rejected, "not expired"),
        }
    }
    match ended {
        0 => 0,
        _ if left => limits::CHANGES_AT_ONCE_MAX,
        _ => found,
    }
}

fn name(id: &[u8]) -> String {
    uuid_text(id)
}

/// What cannot be read does not end yet: the next pass asks again.
fn unless_unreadable<T>(hub: &Hub, name: &str, read: Result<T, Refused>) -> Option<T> {
    let said = |refused: &Refused| {
        hub.metrics.retry(refused.reason.as_str());
        tracing::error!(name, reason = %refused.reason, "past its time, but not ended yet, as it cannot be read: look at the disk");
    };
    read.inspect_err(said).ok()
}

/// Ends a message of which its recipient says that it knows no such case, if the message that was to open the case ended unopened: then it
/// never will know it.
pub async fn without_case(hub: &Hub, sequence: u64) {
    let ended = async {
        let case = hub.consigned(sequence)?.origin.case;
        if undo::is_opened(hub, case)? {
            return Ok(());
        }
        let (change, consigned) = message(hub, sequence, Reason::CaseUnknown)?;
        let done = hub.store.commit_one(change).await.map_err(|rejected| hub.rejected(rejected))?;
        if matches!(done, Done::Settled { .. }) {
            hub.metrics.expired.inc();
            tracing::info!(message_id = %consigned.origin.jti, "nobody opened its case, so nobody will have it; its sender is told");
        }
        Ok::<_, Refused>(())
    };
    if let Err(refused) = ended.await {
        // It is put off until then.
        tracing::debug!(sequence, reason = %refused.reason, "not ended yet");
    }
}

/// The end of a message, and what it was.
fn message(hub: &Hub, sequence: u64, reason: Reason) -> Result<(Change, Consigned), Refused> {
    let consigned = hub.consigned(sequence)?;
    let evidence = hub.prover.expired(About::new(&consigned.origin, consigned.json()), reason);
    let (case_move, mover) = undo::move_back(hub, sequence, &consigned, reason.as_str())?;
    let fact = Settled {
        sequence,
        outcome: Outcome::Expired.into(),
        reason: reason.as_str().to_owned(),
        notify: vec![consigned.origin.iss.as_str().to_owned()],
        case_move,
        queue: consigned.origin.aud.as_str().to_owned(),
        ..Settled::default()
    };
    let sign = vec![(Slot::Evidence, evidence)];
    Ok((Change::Settle { fact: Box::new(fact), sign, mover: Some(mover) }, consigned))
}

/// The end of a case that passed its deadline; both sides are told, with evidence, unless no message opened it.
fn case(hub: &Hub, row: &CaseRow) -> Result<Change, Refused> {
    let sign = match hub.consigned(row.opened_sequence) {
        Ok(opened) => {
            vec![(Slot::Evidence, hub.prover.case_expired(About::new(&opened.origin, opened.json())))]
        }
        Err(Refused { reason: Reason::DeliveryUnknown, .. }) => {
            tracing::error!(case_id = %row.case_id, "no message opened the case; no evidence");
            Vec::new()
        }
        Err(refused) => return Err(refused),
    };
    let fact = CaseExpired {
        case_move: Some(CaseMove {
            case_id: row.case_id.as_bytes().to_vec().into(),
            to: "expired".to_owned(),
            reason: Reason::CaseExpired.as_str().to_owned(),
            ..CaseMove::default()
        }),
        evidence: None,
        notify: vec![row.opener.clone(), row.responder.clone()],
    };
    Ok(Change::ExpireCase { fact: Box::new(fact), sign })
}
