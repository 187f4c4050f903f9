//! What operations count: one struct of handles and the registry that they are in. Labels are institutions' names and stable
//! reasons, both from short configured lists: no message id, no case, nothing of a person, and never a label that grows.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tramite_certs::refusal::Refusal;
use tramite_proto::reason::Reason;

/// The content type of what [`Metrics::render`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A label with a stable reason.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    /// E.g. `SIGNATURE_INVALID`.
    pub reason: String,
}

/// A label with an institution's configured name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct InstitutionLabel {
    /// E.g. `inps`.
    pub institution: String,
}

/// A label with the kind of a receipt: `opened` or `refused`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// `opened` or `refused`.
    pub outcome: &'static str,
}

/// A label with the verb whose time is taken.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct VerbLabel {
    /// `permit`, `accept`, `settle`.
    pub verb: &'static str,
}

/// Buckets of seconds from 50 µs (a check) to 13 s (a disk in trouble).
#[derive(Clone, Copy)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.000_05, 4.0, 10))
    }
}

/// Handles to everything that is counted.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Messages that came in, by issuer.
    pub submitted: Family<InstitutionLabel, Counter>,
    /// Messages accepted for the first time, by issuer.
    pub accepted: Family<InstitutionLabel, Counter>,
    /// Repeats of accepted messages, which got the original answer.
    pub repeated: Counter,
    /// Messages, settlements, parts and calls refused, by reason.
    pub refused: Family<ReasonLabel, Counter>,
    /// Messages and notices sent to recipients, repeats included, by recipient.
    pub delivered: Family<InstitutionLabel, Counter>,
    /// Receipts that stand, by what they say.
    pub receipts: Family<OutcomeLabel, Counter>,
    /// Attempts that failed, by reason.
    pub retries: Family<ReasonLabel, Counter>,
    /// Messages given up.
    pub dead_letters: Counter,
    /// Messages that expired before anybody had them.
    pub expired: Counter,
    /// Cases that passed their deadline.
    pub cases_expired: Counter,
    /// What waits for each institution.
    pub waiting: Family<InstitutionLabel, Gauge>,
    /// Dead letters that wait for an operator, by recipient.
    pub dead_waiting: Family<InstitutionLabel, Gauge>,
    /// Receive streams that are open.
    pub receivers: Gauge,
    /// Receive streams that a newer one of the same institution ended, by institution.
    pub takeovers: Family<InstitutionLabel, Counter>,
    /// Submit streams that are open.
    pub submitters: Gauge,
    /// Handshakes refused, by reason.
    pub handshakes_refused: Family<ReasonLabel, Counter>,
    /// TLS connections that are open.
    pub connections: Gauge,
    /// 1 while expiry is held because the clock and the records disagree.
    pub clock_held: Gauge,
    /// Handlers that panicked; the process went on.
    pub panics: Counter,
    /// Groups that the journal wrote, each with one `fdatasync`, since start.
    pub store_groups: Gauge,
    /// Facts in those groups.
    pub store_facts: Gauge,
    /// Damaged rows and records that were set aside since start.
    pub store_set_aside: Gauge,
    /// Contents of final messages that the disk has not erased so far.
    pub store_not_erased: Gauge,
    /// How often the outbox was rebuilt since start.
    pub store_rebuilds: Gauge,
    /// 1 while the disk is full: nothing new is accepted, what waits is delivered and settled.
    pub store_full: Gauge,
    /// Seconds that each verb took for a frame.
    pub seconds: Family<VerbLabel, Histogram, SecondsOf>,
    /// The same sums since start, for the operators' overview.
    pub totals: Totals,
}

/// Hides the bucket choice from the type of the public field.
#[derive(Clone)]
pub struct SecondsOf(Seconds);

impl MetricConstructor<Histogram> for SecondsOf {
    fn new_metric(&self) -> Histogram {
        self.0.new_metric()
    }
}

/// Sums since start.
#[derive(Debug, Default)]
pub struct Totals {
    accepted: AtomicU64,
    delivered: AtomicU64,
    refused: AtomicU64,
}

impl Totals {
    /// Messages accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Messages opened by their recipients.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Whatever was refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("totals", &self.totals).finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero, in a registry of their own.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("tramite_gateway")),
            submitted: Family::default(),
            accepted: Family::default(),
            repeated: Counter::default(),
            refused: Family::default(),
            delivered: Family::default(),
            receipts: Family::default(),
            retries: Family::default(),
            dead_letters: Counter::default(),
            expired: Counter::default(),
            cases_expired: Counter::default(),
            waiting: Family::default(),
            dead_waiting: Family::default(),
            receivers: Gauge::default(),
            takeovers: Family::default(),
            submitters: Gauge::default(),
            handshakes_refused: Family::default(),
            connections: Gauge::default(),
            clock_held: Gauge::default(),
            panics: Counter::default(),
            store_groups: Gauge::default(),
            store_facts: Gauge::default(),
            store_set_aside: Gauge::default(),
            store_not_erased: Gauge::default(),
            store_rebuilds: Gauge::default(),
            store_full: Gauge::default(),
            seconds: Family::new_with_constructor(SecondsOf(Seconds)),
            totals: Totals::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register("submitted", "Messages that came in", self.submitted.clone());
        registry.register("accepted", "Messages accepted", self.accepted.clone());
        registry.register("repeated", "Repeats answered with the original acceptance", self.repeated.clone());
        registry.register("refused", "Messages, settlements, parts and calls refused", self.refused.clone());
        registry.register("delivered", "Messages and notices sent to recipients", self.delivered.clone());
        registry.register("receipts", "Receipts that stand", self.receipts.clone());
        registry.register("retries", "Attempts to deliver that failed", self.retries.clone());
        registry.register("dead_letters", "Messages given up", self.dead_letters.clone());
        registry.register("expired", "Messages that expired undelivered", self.expired.clone());
        registry.register("cases_expired", "Cases that passed their deadline", self.cases_expired.clone());
        registry.register("queue_waiting", "Messages and notices that wait", self.waiting.clone());
        registry.register("queue_dead_letters", "Dead letters that wait for an operator", self.dead_waiting.clone());
        registry.register("receive_streams", "Open Receive streams", self.receivers.clone());
        registry.register("receive_takeovers", "Receive streams that a newer one ended", self.takeovers.clone());
        registry.register("submit_streams", "Open Submit streams", self.submitters.clone());
        registry.register("handshakes_refused", "TLS handshakes refused", self.handshakes_refused.clone());
        registry.register("connections", "Open TLS connections", self.connections.clone());
        registry.register("clock_held", "1 while expiry is held for the clock", self.clock_held.clone());
        registry.register("handler_panics", "Handlers that panicked", self.panics.clone());
        registry.register("store_groups", "Journal groups, one fdatasync each, since start", self.store_groups.clone());
        registry.register("store_facts", "Facts in those groups", self.store_facts.clone());
        registry.register("store_set_aside", "Damaged rows and records set aside", self.store_set_aside.clone());
        registry.register("store_not_erased", "Contents that the disk did not erase", self.store_not_erased.clone());
        registry.register("store_rebuilds", "Rebuilds of the outbox", self.store_rebuilds.clone());
        registry.register(
            "store_full",
            "1 while the disk is full and nothing new is accepted",
            self.store_full.clone(),
        );
        registry.register("verb_seconds", "Seconds of each verb for a frame", self.seconds.clone());
    }

    /// Sets up the series whose labels are known from the start, at zero: an alert on a series that begins with its first count misses
    /// that very one.
    pub fn begin<'a>(&self, institutions: impl Iterator<Item = &'a str>) {
        for name in institutions.map(institution) {
            drop(self.submitted.get_or_create(&name));
            drop(self.accepted.get_or_create(&name));
            drop(self.delivered.get_or_create(&name));
            drop(self.takeovers.get_or_create(&name));
        }
        for outcome in ["opened", "refused"] {
            drop(self.receipts.get_or_create(&OutcomeLabel { outcome }));
        }
        for refusal in Refusal::ALL {
            drop(self.handshakes_refused.get_or_create(&ReasonLabel { reason: refusal.as_str().to_owned() }));
        }
        for reason in Reason::all() {
            drop(self.refused.get_or_create(&ReasonLabel { reason: reason.as_str().to_owned() }));
        }
    }

    /// Counts a refusal.
    pub fn refuse(&self, reason: &str) {
        self.refused.get_or_create(&ReasonLabel { reason: reason.to_owned() }).inc();
        self.totals.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message accepted from an institution.
    pub fn accept(&self, issuer: &str) {
        self.accepted.get_or_create(&institution(issuer)).inc();
        self.totals.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a receipt that stands.
    pub fn receipt(&self, opened: bool) {
        self.receipts.get_or_create(&OutcomeLabel { outcome: if opened { "opened" } else { "refused" } }).inc();
        if opened {
            self.totals.delivered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an attempt that failed.
    pub fn retry(&self, reason: &str) {
        self.retries.get_or_create(&ReasonLabel { reason: reason.to_owned() }).inc();
    }

    /// Counts a handshake refused.
    pub fn handshake_refused(&self, reason: &str) {
        self.handshakes_refused.get_or_create(&ReasonLabel { reason: reason.to_owned() }).inc();
    }

    /// Takes the time of a verb.
    pub fn took(&self, verb: &'static str, elapsed: std::time::Duration) {
        self.seconds.get_or_create(&VerbLabel { verb }).observe(elapsed.as_secs_f64());
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

/// The label of an institution.
#[must_use]
pub fn institution(name: &str) -> InstitutionLabel {
    InstitutionLabel { institution: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_on_the_page() {
        let metrics = Metrics::new();
        metrics.refuse("SIGNATURE_INVALID");
        metrics.accept("caritas");
        metrics.waiting.get_or_create(&institution("inps")).set(3);
        let page = metrics.render();
        assert!(page.contains("tramite_gateway_refused_total{reason=\"SIGNATURE_INVALID\"} 1"), "{page}");
        assert!(page.contains("tramite_gateway_accepted_total{institution=\"caritas\"} 1"));
        assert!(page.contains("tramite_gateway_queue_waiting{institution=\"inps\"} 3"));
        assert!(page.ends_with("# EOF\n"));
        assert_eq!((metrics.totals.accepted(), metrics.totals.refused()), (1, 1));
    }
}
