//! What the clock ends: messages that nobody took before their expiry, and cases that nobody took up before their deadline. Each is a
//! fact with the gateway's evidence, and somebody is told. It runs each second; it knows times and states, never content.
//!
//! When more than a day lies between the last record and the clock, or between two looks at the clock, the clock itself may be wrong:
//! then nothing expires until an operator releases `clock`.

use std::sync::Arc;

use tramite_proto::{
    ids::{CaseId, uuid_text},
    pb::journal::v1::{CaseExpired, CaseMove, Outcome, Recorded, Settled},
    reason::{Reason, Refused},
    states::{CaseKind, Party, can_expire},
};
use tramite_store::{CaseRow, Change, Done, MessageRow, Mover, Slot};

use crate::{
    holds::{CLOCK, RECORD_PREFIX},
    hub::{Consigned, Hub},
    limits,
    prove::About,
    undo,
};

const EXPIRED: &str = "expired";
/// The record of what the clock last said.
const CLOCK_SEEN: &str = "clock/seen";

/// Holds expiry when the clock and the last record are more than a day apart; `last_ms` 0: there is no record yet. The hold is a
/// record itself, so that a restart does not undo it.
pub async fn judge_clock(hub: &Hub, last_ms: i64) {
    let now_ms = hub.clock.now_ms();
    if last_ms == 0 || now_ms.abs_diff(last_ms) <= limits::CLOCK_GAP_MAX_MS.unsigned_abs() {
        return;
    }
    if hub.config.clock.accept_gap {
        tracing::warn!(last_ms, now_ms, "more than a day between record and clock; the configuration says to go on");
        return;
    }
    if !hub.holds.hold(CLOCK) {
        return;
    }
    hub.metrics.clock_held.set(1);
    tracing::error!(
        last_ms,
        now_ms,
        "more than a day between record and clock: nothing expires until an operator releases `clock`"
    );
    let reason = format!("the last record is of {last_ms} ms, the clock says {now_ms} ms");
    let fact = Recorded {
        name: format!("{RECORD_PREFIX}{CLOCK}"),
        value: Some(reason.clone().into()),
        by: hub.config.name.clone(),
        reason,
    };
    if let Err(rejected) = hub.store.commit_one(Change::Record { fact: Box::new(fact) }).await {
        tracing::error!(%rejected, "the hold on the clock was not recorded");
    }
}

/// Looks each second for what has expired, until the gateway stops.
pub async fn run(hub: Arc<Hub>) {
    let mut last_ms = hub.clock.now_ms();
    let mut seen_ms = last_ms;
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = tokio::time::sleep(limits::EXPIRY_INTERVAL) => {}
        }
        judge_clock(&hub, last_ms).await;
        last_ms = hub.clock.now_ms();
        if last_ms.saturating_sub(seen_ms) >= limits::CLOCK_SEEN_INTERVAL_MS {
            seen_ms = last_ms;
            record_clock(&hub, last_ms).await;
        }
        while pass(&hub).await == limits::EXPIRIES_PER_PASS_MAX {}
    }
}

/// Writes down what the clock says, so that only a gateway that was away has a gap.
async fn record_clock(hub: &Hub, now_ms: i64) {
    let fact = Recorded { name: CLOCK_SEEN.to_owned(), value: Some(now_ms.to_string().into()), ..Recorded::default() };
    if let Err(rejected) = hub.store.commit_one(Change::Record { fact: Box::new(fact) }).await {
        tracing::warn!(%rejected, "what the clock says was not recorded");
    }
}

/// One pass; says how many it found due.
pub async fn pass(hub: &Hub) -> usize {
    if hub.holds.is_held(CLOCK) {
        return 0;
    }
    let due = match hub.store.due(hub.clock.now_ms(), limits::EXPIRIES_PER_PASS_MAX) {
        Ok(due) => due,
        Err(error) => {
            tracing::error!(%error, "the store could not say what is due");
            return 0;
        }
    };
    let messages = due.messages.iter().filter_map(|row| Some((name(row.id.as_ref()), message(hub, row)?)));
    let cases = due.cases.iter().map(|row| (row.case_id.to_string(), case(hub, row)));
    let (names, changes): (Vec<_>, Vec<_>) = messages.chain(cases).take(limits::EXPIRIES_PER_PASS_MAX).unzip();
    let found = changes.len();
    if found == 0 {
        return 0;
    }
    let mut ended = 0;
    for (name, done) in names.iter().zip(hub.store.commit(changes).await) {
        if let Ok(done) = &done {
            hub.waiting.settled(&hub.store, done);
        }
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
            // Leased or moved in the meantime: the next pass looks again.
            Err(rejected) => tracing::debug!(name, %rejected, "not expired"),
        }
    }
    if ended == 0 { 0 } else { found }
}

fn name(id: &[u8]) -> String {
    uuid_text(id)
}

/// The end of a message; none when its fact cannot be read.
fn message(hub: &Hub, row: &MessageRow) -> Option<Change> {
    let consigned = hub.consigned(row.sequence).ok()?;
    let evidence = hub.prover.expired(About::new(&consigned.origin, consigned.json()));
    let ended = case_of(hub, &consigned);
    let mover = ended.is_some().then_some(Mover::Party(Party::Gateway));
    let case_move = ended.or_else(|| undo::move_back(hub, row.sequence, &consigned));
    let fact = Settled {
        sequence: row.sequence,
        outcome: Outcome::Expired.into(),
        reason: Reason::TtlExpired.as_str().to_owned(),
        notify: vec![consigned.origin.iss.as_str().to_owned()],
        case_move,
        queue: row.queue.clone(),
        ..Settled::default()
    };
    Some(Change::Settle { fact: Box::new(fact), sign: vec![(Slot::Evidence, evidence)], mover })
}

/// The case goes with the message that would have opened it at its recipient.
fn case_of(hub: &Hub, consigned: &Consigned) -> Option<CaseMove> {
    let origin = &consigned.origin;
    let row = hub.store.case(origin.case).ok().flatten().filter(|_| origin.opens_case())?;
    let kind: CaseKind = row.kind.parse().ok()?;
    can_expire(kind, &row.status).then(|| moved(origin.case, Reason::TtlExpired))
}

fn moved(case: CaseId, reason: Reason) -> CaseMove {
    CaseMove {
        case_id: case.as_bytes().to_vec().into(),
        to: EXPIRED.to_owned(),
        reason: reason.as_str().to_owned(),
        ..CaseMove::default()
    }
}

/// The end of a case that passed its deadline; both sides are told.
fn case(hub: &Hub, row: &CaseRow) -> Change {
    let sign = match hub.consigned(row.opened_sequence) {
        Ok(opened) => {
            vec![(Slot::Evidence, hub.prover.case_expired(About::new(&opened.origin, opened.json())))]
        }
        Err(Refused { reason, .. }) => {
            tracing::error!(case_id = %row.case_id, %reason, "the message that opened the case cannot be read; no evidence");
            Vec::new()
        }
    };
    let fact = CaseExpired {
        case_move: Some(moved(row.case_id, Reason::CaseExpired)),
        evidence: None,
        notify: vec![row.opener.clone(), row.responder.clone()],
    };
    Change::ExpireCase { fact: Box::new(fact), sign }
}
