//! Logs and traces: lines on standard error, as text or JSON, and spans to an OTLP collector where one is configured.
//!
//! Knows how they leave the process, never what they say: that no content and no personal datum stands in them is each caller's
//! care, held by a test. Invariant: what was recorded before the end is sent before the end, or given up after a few seconds.

mod export;

use std::{env, time::Duration};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use self::export::Export;
use crate::failure::{Exit, Failure};

/// What becomes spans and their events: ours, whatever the level of the log. A list of whom to hear and not of whom not to: what a library
/// would say of a message was not written with people in mind, and the exporter's own calls would never end.
const SPANS: &str = "off,tramite=info";
/// Overrules `[log] level` for one start, as in every program with `tracing`.
const LEVEL: &str = "RUST_LOG";
/// A collector that is away must not hold up the end of the process.
const FLUSH: Duration = Duration::from_secs(3);
/// One export; the next one carries what this one could not.
const EXPORT: Duration = Duration::from_secs(5);

/// What a configuration says of logs and traces.
#[derive(Debug, Clone)]
pub(crate) struct Wish<'a> {
    /// `service.name` of the spans.
    pub(crate) service: String,
    /// A filter such as `info`.
    pub(crate) level: &'a str,
    /// True: one JSON object for each line.
    pub(crate) json: bool,
    /// OTLP endpoint over gRPC; none: no traces.
    pub(crate) otlp: Option<&'a str>,
}

/// Ends the traces when it goes.
#[derive(Debug)]
pub(crate) struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Begins logs and traces for the process.
pub(crate) fn begin(wish: &Wish<'_>) -> Result<Telemetry, Failure> {
    let wrong = |what: &str, error: &dyn std::error::Error| {
        Failure::new(Exit::Config, what, "Put it right in the configuration.").because(error)
    };
    let overruled = env::var(LEVEL).ok().filter(|level| !level.is_empty());
    let (what, level) = match &overruled {
        Some(level) => ("RUST_LOG is not a filter such as info", level.as_str()),
        None => ("[log] level is not a filter such as info", wish.level),
    };
    let filter = EnvFilter::try_new(level).map_err(|error| wrong(what, &error))?;
    // The exporter takes an empty endpoint for its own default one, and would dial it.
    let endpoint = wish.otlp.filter(|endpoint| !endpoint.trim().is_empty());
    let provider = endpoint.map(|endpoint| exporter(endpoint, &wish.service)).transpose();
    let provider =
        provider.map_err(|error| wrong("[telemetry] otlp is not an endpoint such as http://127.0.0.1:4317", &error))?;
    let spans = provider.as_ref().map(|provider| {
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tramite"));
        layer.with_filter(EnvFilter::new(SPANS))
    });
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines = if wish.json { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
    let begun = tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).try_init();
    begun.map_err(|error| Failure::internal("logs cannot begin").because(&error))?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    Ok(Telemetry { provider })
}

fn exporter(endpoint: &str, service: &str) -> Result<SdkTracerProvider, opentelemetry_otlp::ExporterBuildError> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT).build()?;
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(Export::new(exporter)).with_resource(resource).build())
}

impl Telemetry {
    /// Sends what is left. Blocks for a moment at most, so it is called from a thread that may.
    pub(crate) fn end(self) {
        if let Some(provider) = self.provider {
            // A collector that is away has lost its spans; there is nobody left to tell but the log, which ends here too.
            drop(provider.shutdown_with_timeout(FLUSH));
        }
    }
}
