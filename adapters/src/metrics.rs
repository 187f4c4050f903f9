//! What operations count at an adapter: one struct of handles and the registry that they are in. Labels are stable reasons and kinds
//! of notice, both short lists: no message id, no case, nothing of a person, and never a label that grows.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// The content type of what [`Metrics::render`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A label with a stable reason.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    /// E.g. `SIGNATURE_INVALID`.
    pub reason: String,
}

/// A label with a kind of notice.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct KindLabel {
    /// E.g. `OPENED`.
    pub kind: String,
}

/// Handles to everything that is counted.
#[derive(Default)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Messages taken from the back office or the spool, on the disk.
    pub sent: Counter,
    /// Requests that were answered before.
    pub repeated: Counter,
    /// Messages that the gateway accepted.
    pub accepted: Counter,
    /// Messages that the gateway refused for good, by reason.
    pub refused: Family<ReasonLabel, Counter>,
    /// Attempts to hand a message to the gateway that failed, by reason.
    pub retries: Family<ReasonLabel, Counter>,
    /// Messages opened, with a receipt on the disk.
    pub opened: Counter,
    /// Messages that will never be opened, by reason.
    pub unopened: Family<ReasonLabel, Counter>,
    /// Deliveries put off, by reason.
    pub deferred: Family<ReasonLabel, Counter>,
    /// What the gateway said or passed on that did not check: a gateway that lies, or is broken.
    pub distrusted: Family<ReasonLabel, Counter>,
    /// Notices, by kind.
    pub notices: Family<KindLabel, Counter>,
    /// Calls of the back office refused, by reason.
    pub calls_refused: Family<ReasonLabel, Counter>,
    /// Connections of back offices refused, by reason.
    pub handshakes_refused: Family<ReasonLabel, Counter>,
    /// Items that the back office acknowledged.
    pub acknowledged: Counter,
    /// Spool files sent.
    pub spool_sent: Counter,
    /// Spool files rejected.
    pub spool_rejected: Counter,
    /// 1 while connected to the gateway.
    pub connected: Gauge,
    /// Connections made.
    pub connections: Counter,
    /// What waits for the gateway.
    pub outbox: Gauge,
    /// What waits for the back office.
    pub inbox: Gauge,
    /// Damaged rows and records that were set aside since start.
    pub store_set_aside: Gauge,
    /// Contents of final messages that the disk has not erased so far.
    pub store_not_erased: Gauge,
    /// 1 while the disk is full: nothing new is taken, what is there is sent and shown.
    pub store_full: Gauge,
    /// 1 while what the clock decides is held because the clock and the records disagree.
    pub clock_held: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All metrics, at zero, in a registry of their own.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self { registry: Mutex::new(Registry::with_prefix("tramite_adapter")), ..Self::default() };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register("sent", "Messages taken from the back office or the spool", self.sent.clone());
        registry.register("repeated", "Requests that were answered before", self.repeated.clone());
        registry.register("accepted", "Messages that the gateway accepted", self.accepted.clone());
        registry.register("refused", "Messages that the gateway refused for good", self.refused.clone());
        registry.register(
            "retries",
            "Attempts to hand a message to the gateway, or to end it, that failed",
            self.retries.clone(),
        );
        registry.register("opened", "Messages opened", self.opened.clone());
        registry.register("unopened", "Messages that will never be opened", self.unopened.clone());
        registry.register("deferred", "Deliveries put off", self.deferred.clone());
        registry.register("distrusted", "What came from the gateway and did not check", self.distrusted.clone());
        registry.register("notices", "Notices", self.notices.clone());
        registry.register("calls_refused", "Calls of the back office refused", self.calls_refused.clone());
        registry.register("handshakes_refused", "Connections of back offices refused", self.handshakes_refused.clone());
        registry.register("acknowledged", "Items that the back office acknowledged", self.acknowledged.clone());
        registry.register("spool_sent", "Spool files sent", self.spool_sent.clone());
        registry.register("spool_rejected", "Spool files rejected", self.spool_rejected.clone());
        registry.register("connected", "1 while connected to the gateway", self.connected.clone());
        registry.register("connections", "Connections made to the gateway", self.connections.clone());
        registry.register("outbox_waiting", "What waits for the gateway", self.outbox.clone());
        registry.register("inbox_waiting", "What waits for the back office", self.inbox.clone());
        registry.register("store_set_aside", "Damaged rows and records set aside", self.store_set_aside.clone());
        registry.register("store_not_erased", "Contents that the disk did not erase", self.store_not_erased.clone());
        registry.register("store_full", "1 while the disk is full and nothing new is taken", self.store_full.clone());
        registry.register("clock_held", "1 while expiry is held for the clock", self.clock_held.clone());
    }

    /// Everything in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if text::encode(&mut page, &registry).is_err() {
            tracing::error!("the metrics page could not be written");
        }
        page
    }
}

/// The label of a reason.
#[must_use]
pub fn reason(reason: &str) -> ReasonLabel {
    ReasonLabel { reason: reason.to_owned() }
}

/// The label of a kind of notice.
#[must_use]
pub fn kind(kind: &str) -> KindLabel {
    KindLabel { kind: kind.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_on_the_page() {
        let metrics = Metrics::new();
        metrics.distrusted.get_or_create(&reason("SIGNATURE_INVALID")).inc();
        metrics.outbox.set(3);
        let page = metrics.render();
        assert!(page.contains("tramite_adapter_distrusted_total{reason=\"SIGNATURE_INVALID\"} 1"), "{page}");
        assert!(page.contains("tramite_adapter_outbox_waiting 3"), "{page}");
        assert!(page.ends_with("# EOF\n"));
    }
}
