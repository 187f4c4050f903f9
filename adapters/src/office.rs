//! The office: everything that a back office may ask, whether it asks over gRPC or through the spool.
//!
//! Knows the adapter's store and keys through what stands below it. Never knows how it is asked. Invariant: both ways in have the same
//! rules, because there is one office.

mod cases;
mod inbox;
mod reading;

use std::sync::Arc;

use tramite_proto::{
    pb::backoffice::v1 as pb,
    reason::{Reason, Refused},
};

#[cfg(test)]
pub(crate) use self::inbox::id_of;
pub(crate) use self::{
    inbox::{Inbox, Shown},
    reading::Reading,
};
use crate::{
    attachments::{Attachments, Writing},
    core::{BACKOFFICE, Core, GATEWAY, rejected, unreadable},
    entropy::Entropy,
    metrics::Metrics,
    outbound,
    request::Request,
};

/// Characters of the reason for which a clock is right, as the contract says.
const REASON_CHARS_MAX: usize = 500;

/// Everything that a back office may ask.
#[derive(Debug)]
pub(crate) struct Office {
    core: Arc<Core>,
    attachments: Attachments,
    inbox: Inbox,
}

impl Office {
    pub(crate) fn new(core: Arc<Core>, attachments: Attachments) -> Self {
        let inbox = Inbox::new(Arc::clone(&core));
        Self { core, attachments, inbox }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.core.metrics
    }

    /// Where chance comes from.
    pub(crate) fn entropy(&self) -> &Entropy {
        &self.core.entropy
    }

    /// Begins a file for a message to come.
    pub(crate) fn begin_attachment(&self, header: pb::AttachmentHeader) -> Result<Writing, Refused> {
        self.attachments.begin(header, self.core.store.believes(self.core.clock.now_ms()))
    }

    /// What arrived.
    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Puts a message on the disk, ready to be sent.
    pub(crate) async fn send(&self, request: Request) -> Result<pb::SendResponse, Refused> {
        outbound::send(&self.core, &self.attachments, request).await
    }

    /// Reads an attachment of a message in the inbox.
    pub(crate) async fn attachment(&self, message_id: &str, index: u32) -> Result<Reading, Refused> {
        Reading::open(&self.core, message_id, index).await
    }

    /// One case with its timeline.
    pub(crate) fn case(&self, case_id: &str) -> Result<pb::Case, Refused> {
        cases::one(&self.core, case_id)
    }

    /// Cases, most recently moved first.
    pub(crate) fn cases(&self, call: &pb::ListCasesRequest) -> Result<pb::ListCasesResponse, Refused> {
        cases::list(&self.core, call)
    }

    /// Whom this institution may write to.
    pub(crate) fn institutions(&self) -> Result<pb::ListInstitutionsResponse, Refused> {
        let institutions = self
            .core
            .participants()?
            .into_iter()
            .filter(|institution| institution.name != self.core.name.as_str())
            .map(|institution| pb::Correspondent {
                name: institution.name,
                display_name: institution.display_name,
                accepts: institution.accepts,
            })
            .collect();
        Ok(pb::ListInstitutionsResponse { institutions })
    }

    /// How the adapter stands.
    pub(crate) fn status(&self) -> Result<pb::Status, Refused> {
        let standing = self.core.link.standing();
        let store = &self.core.store;
        let outbox = store.queue(GATEWAY).map_err(unreadable)?.waiting;
        // Once nothing waits, nothing is wrong, although no answer has told so.
        let blocked = self.core.link.blocked().filter(|_| outbox > 0 && standing.problem.is_empty());
        Ok(pb::Status {
            institution: self.core.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            connected: standing.connected,
            problem: blocked.map_or(standing.problem, |way| way.blocked().to_owned()),
            outbox,
            inbox: store.queue(BACKOFFICE).map_err(unreadable)?.waiting,
            refused: self.core.link.refused_for_good(),
            connected_since_ms: standing.since_ms,
            clock_held: store.clock_hold().map_err(unreadable)?.unwrap_or_default(),
            store_troubles: store.health().troubles(),
        })
    }

    /// Somebody has looked at the clock, and it is right.
    pub(crate) async fn confirm_clock(&self, reason: &str) -> Result<(), Refused> {
        let reason = reason.trim();
        if !(1..=REASON_CHARS_MAX).contains(&reason.chars().count()) || reason.chars().any(char::is_control) {
            let detail = "say why the clock is right, in 1 to 500 characters on one line: it is kept in the journal";
            return Err(Refused::new(Reason::FieldInvalid, detail).field("reason"));
        }
        self.core.store.confirm_clock(self.core.name.as_str(), reason).await.map_err(rejected)?;
        self.core.metrics.clock_held.set(0);
        tracing::warn!(reason, "the clock was confirmed: what it decides goes on");
        Ok(())
    }
}

/// There is no such case here.
fn case_unknown() -> Refused {
    Refused::new(Reason::CaseUnknown, "this institution has no such case").field("case_id")
}
