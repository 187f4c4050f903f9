//! What every task of an adapter shares: who it is, its store, its keys, whom it trusts, the time.
//!
//! Knows the queues and the words in which the store's refusals become the contract's. Never knows what a task does with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tramite_certs::keyring::Keyring;
use tramite_proto::{
    clock::Clock,
    ids::InstitutionName,
    pb::{journal::v1::Accepted, statement::v1::Statement},
    reason::{Reason, Refused},
    statement::Origin,
};
use tramite_store::{ReadError, Rejected, Store, accepted};

use crate::{config::Defaults, entropy::Entropy, inbound::Unanswered, link::Link, metrics::Metrics, own::Own};

/// What waits for the gateway.
pub(crate) const GATEWAY: &str = "gateway";
/// What waits for the back office: messages and notices.
pub(crate) const BACKOFFICE: &str = "backoffice";
/// Messages that were refused for good: remembered with the receipt that was given, handed to nobody.
pub(crate) const REFUSED: &str = "refused";

/// What every task shares.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) name: InstitutionName,
    pub(crate) gateway: InstitutionName,
    pub(crate) defaults: Defaults,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Entropy,
    pub(crate) store: Store,
    /// Sealed bytes that wait for the back office or are on their way there, and how many may.
    pub(crate) inbox_bytes: AtomicU64,
    pub(crate) inbox_bytes_max: u64,
    pub(crate) unanswered: Unanswered,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) own: Arc<Own>,
    /// A gateway that answers nothing for so long, or takes nothing, is taken as gone.
    pub(crate) answer_max: Duration,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) link: Link,
}

impl Core {
    /// Reads the institution's own keys again; new ones are introduced to the directory.
    pub(crate) fn look_for_new_keys(&self) {
        if self.own.reload() {
            self.link.introduce.notify_one();
        }
    }

    /// Refuses for now whatever would be signed with an hour that cannot be the time: it would be taken nowhere.
    pub(crate) fn check_clock(&self, now_ms: i64) -> Result<(), Refused> {
        if self.store.can_date(now_ms) {
            return Ok(());
        }
        let detail = "this machine's clock is far from what was recorded here: set its date and time, or, if they are right, say so: \
                      tramite confirm-clock --reason '…'";
        Err(Refused::new(Reason::ClockHeld, detail))
    }

    /// Counts what waits for the back office since an earlier run.
    pub(crate) fn count_inbox(&self) -> Result<(), Refused> {
        let mut bytes = 0_u64;
        for row in self.store.messages(BACKOFFICE, 0, usize::MAX).map_err(unreadable)? {
            let fact = self.store.fact(row.sequence).map_err(unreadable)?;
            bytes = bytes.saturating_add(accepted(&fact).map_or(0, sealed_bytes));
        }
        self.inbox_bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// So much does not wait any more.
    pub(crate) fn leaves_inbox(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        // It always gives a value.
        let _ = self.inbox_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Writes a line and counts: something that came from the gateway does not check.
    pub(crate) fn distrust(&self, what: &str, about: &str, refused: &Refused) {
        self.metrics.distrusted.get_or_create(&crate::metrics::reason(refused.reason.as_str())).inc();
        tracing::error!(
            what,
            about,
            reason = %refused.reason,
            detail = refused.detail,
            "what the gateway passed on does not check"
        );
    }
}

/// What a message takes on the disk: its body and its parts, sealed.
pub(crate) fn sealed_bytes(accepted: &Accepted) -> u64 {
    let body = accepted.content.as_ref().map_or(0, |content| u64::from(content.length));
    accepted.parts.iter().fold(body, |sum, part| sum.saturating_add(part.length))
}

/// The origin of an accepted message, and the statement that it stands in.
pub(crate) fn origin(accepted: &Accepted) -> Result<(Origin, &Statement), Refused> {
    let statement = accepted.statement.as_ref();
    let statement = statement.ok_or_else(|| Refused::new(Reason::Internal, "a message in the store has no origin"))?;
    Ok((Origin::parse(&statement.json)?, statement))
}

/// A read that failed, in the contract's words.
pub(crate) fn unreadable(error: ReadError) -> Refused {
    tracing::error!(%error, "the store could not be read");
    Refused::new(Reason::StoreFailed, "the adapter's store could not be read; its log says more")
}

/// A change that was not made, in the contract's words.
pub(crate) fn rejected(rejected: Rejected) -> Refused {
    match rejected {
        Rejected::RequestReused { .. } => request_reused(),
        rejected => rejected.into(),
    }
}

/// The one answer to a request id that stands for another request.
pub(crate) fn request_reused() -> Refused {
    let detail = "this request id was used before with other content: choose a new one for a new request";
    Refused::new(Reason::RequestIdReused, detail).field("sending.request_id")
}
