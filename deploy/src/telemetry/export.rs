//! Spans on their way to the collector, and one line in the log when they do not arrive: one when it begins, one when it is over.
//!
//! Knows whether a lot of spans was taken, never what stands in it. A collector that is away for a day is told once: each lot fails
//! on its own, many times a second when there is much to do, and the log is for messages.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};

/// An exporter whose failures are counted and told in our words.
#[derive(Debug)]
pub(super) struct Export<E> {
    inner: E,
    /// Since the collector last took a lot; 0: it took the last one.
    lost: AtomicU64,
}

impl<E> Export<E> {
    pub(super) fn new(inner: E) -> Self {
        Self { inner, lost: AtomicU64::new(0) }
    }
}

impl<E: SpanExporter> SpanExporter for Export<E> {
    /// Never fails: what was lost is told here.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        match self.inner.export(batch).await {
            Ok(()) => match self.lost.swap(0, Ordering::Relaxed) {
                0 => {}
                lost => tracing::info!(lost, "the collector takes traces again; some spans are lost"),
            },
            Err(error) => {
                if self.lost.fetch_add(spans, Ordering::Relaxed) == 0 {
                    tracing::warn!(%error, "the collector does not take traces; spans are lost until it does, messages are not");
                }
            }
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
