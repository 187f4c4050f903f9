//! What must happen by itself: a look at the clock, messages that expire here, refusals that were not ended, the mark of what was answered,
//! attachments that were never sent, keys that change on the disk.
//!
//! Knows intervals. Never knows how any of it is done. Invariants: nothing here is needed for what was acknowledged to stay safe; by a
//! clock that is not believed nothing expires and nothing is removed; none of it waits for another.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tramite_proto::reason::{Reason, Refused};
use tramite_store::{ClockState, Leased, MessageRow};

use crate::{
    attachments::Attachments,
    core::{Core, GATEWAY, REFUSED, unreadable},
    inbound::settle_refused,
    metrics, outbound,
};

/// An expired message is told of within this.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// A disk that could not be read may be well again after so long.
const REFUSALS_AGAIN: Duration = Duration::from_secs(5);
/// New key files are in use within this.
const KEYS_EVERY: Duration = Duration::from_secs(5);
/// How far receipts were answered is recorded so often, while it changes: a restart says again what came since.
const MARK_EVERY: Duration = Duration::from_secs(10);
/// Attachments are kept a day; a little longer does no harm.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Messages that expire at one look.
const DUE_MAX: usize = 256;

/// Works until stopped.
pub(crate) async fn run(core: Arc<Core>, attachments: Attachments, stop: CancellationToken) {
    // Refusals that cannot be read are asked for again for as long as that takes.
    let ends = async { tokio::join!(end_refusals(&core), expire(&core)) };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = ends => {}
        () = watch_keys(&core) => {}
        () = mark(&core) => {}
        () = sweep(&core, &attachments) => {}
    }
}

/// Looks at the clock. The store holds one that is more than a day from the last record; here that is told.
pub(crate) async fn look_at_clock(core: &Core) {
    let state = match core.store.look_at_clock(core.name.as_str()).await {
        Ok(state) => state,
        Err(rejected) => return tracing::warn!(%rejected, "what the clock says was not recorded"),
    };
    if state == (ClockState::Held { began: true }) {
        tracing::error!(
            why = core.store.clock_hold().ok().flatten().unwrap_or_default(),
            "more than a day between record and clock: nothing expires or is deleted until somebody has looked at this machine's date and \
             time and says that they are right: tramite confirm-clock --reason '…'"
        );
    }
    core.metrics.clock_held.set(i64::from(state != ClockState::Believed));
}

/// Refusals whose end a crash prevented.
async fn end_refusals(core: &Core) {
    loop {
        let leased = match core.store.lease(REFUSED, DUE_MAX, usize::MAX) {
            Ok(leased) => leased,
            Err(error) => {
                tracing::error!(%error, "refusals that were not ended cannot be read: look at the disk; they are asked for again");
                sleep(REFUSALS_AGAIN).await;
                continue;
            }
        };
        if leased.is_empty() {
            return;
        }
        let changes = leased.iter().map(|leased| settle_refused(leased.sequence, "")).collect();
        if let Some(rejected) = core.store.commit(changes).await.into_iter().find_map(Result::err) {
            core.metrics.retries.get_or_create(&metrics::reason(Refused::from(rejected).reason.as_str())).inc();
            tracing::error!("refusals could not be ended: look at the disk; they are tried again");
            core.store.release_all(REFUSED);
            sleep(REFUSALS_AGAIN).await;
        }
    }
}

/// Messages that the gateway could not be given in time.
async fn expire(core: &Core) {
    loop {
        sleep(EXPIRE_EVERY).await;
        look_at_clock(core).await;
        let due = match core.store.due(core.clock.now_ms(), DUE_MAX) {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "what has expired could not be read");
                continue;
            }
        };
        if let Some(error) = &due.why {
            core.metrics.retries.get_or_create(&metrics::reason(Reason::StoreFailed.as_str())).inc();
            let messages = due.unreadable;
            tracing::error!(messages, %error, "past their time, but not ended yet, as they cannot be read: look at the disk");
        }
        for row in due.messages.into_iter().filter(|row| row.queue == GATEWAY) {
            match end(core, &row).await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(sequence = row.sequence, "a message expired before the gateway could be reached");
                }
                Err(refused) => {
                    core.metrics.retries.get_or_create(&metrics::reason(refused.reason.as_str())).inc();
                    tracing::error!(
                        sequence = row.sequence,
                        reason = %refused.reason,
                        detail = refused.detail,
                        "a message is past its expiry, but not ended yet: look at the disk"
                    );
                }
            }
        }
    }
}

/// Ends a message; what cannot be read does not end yet, and is looked at again.
async fn end(core: &Core, row: &MessageRow) -> Result<bool, Refused> {
    let fact = core.store.fact(row.sequence).map_err(unreadable)?;
    let leased = Leased { sequence: row.sequence, attempt: row.attempts, fact, content: Bytes::new() };
    outbound::expire(core, &leased).await
}

async fn mark(core: &Core) {
    loop {
        sleep(MARK_EVERY).await;
        if let Err(refused) = core.unanswered.mark(&core.store).await {
            tracing::warn!(reason = %refused.reason, detail = refused.detail, "how far receipts were answered was not recorded");
        }
    }
}

async fn watch_keys(core: &Core) {
    loop {
        sleep(KEYS_EVERY).await;
        core.look_for_new_keys();
    }
}

async fn sweep(core: &Core, attachments: &Attachments) {
    loop {
        let now_ms = core.clock.now_ms();
        if core.store.believes(now_ms)
            && let Err(error) = attachments.sweep(now_ms)
        {
            tracing::warn!(%error, "old attachments could not be removed");
        }
        sleep(SWEEP_EVERY).await;
    }
}
