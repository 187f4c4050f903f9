//! One trace from back office to back office: the W3C traceparent that travels beside a message and through every queue.
//!
//! Knows: how a span's context becomes the text `00-<trace>-<span>-<flags>` (W3C Trace Context §3.2) and how a span is hung under
//! such a text. Never knows: whether anybody collects traces; without an OpenTelemetry layer both functions do nothing.
//! The text is written and read here rather than by the process-wide propagator, which does nothing until somebody installs it:
//! a forgotten line in one program would cut every trace. `tracestate` does not travel, being other vendors' business.
//! Invariant: a traceparent is never vouched for and never a reason to refuse: what does not parse is ignored.
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The length of a traceparent of version 00.
pub const TRACEPARENT_LENGTH: usize = 55;

/// The traceparent of the span that is entered now; empty when there is none or nobody traces.
#[must_use]
pub fn current_traceparent() -> String {
    traceparent(&Span::current())
}

/// The traceparent of a span; empty when nobody traces.
#[must_use]
pub fn traceparent(span: &Span) -> String {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    if context.is_valid() {
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
    } else {
        String::new()
    }
}

/// Hangs `span` under the span that `traceparent` names. To be called before the span is first entered; what does not parse, and
/// a span that nobody traces, stay as they are.
pub fn follow(span: &Span, traceparent: &str) {
    if let Some(parent) = parse(traceparent) {
        // Refused when no layer listens or the span has begun: a trace is never a reason to fail.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Whether a text is a traceparent of version 00 that names a trace.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    parse(text).is_some()
}

fn parse(text: &str) -> Option<SpanContext> {
    if text.len() != TRACEPARENT_LENGTH {
        return None;
    }
    let mut fields = text.split('-');
    if fields.next()? != "00" {
        return None;
    }
    let trace = TraceId::from_bytes(hexadecimal(fields.next()?)?);
    let span = SpanId::from_bytes(hexadecimal(fields.next()?)?);
    let [flags] = hexadecimal::<1>(fields.next()?)?;
    let context = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::default());
    (fields.next().is_none() && context.is_valid()).then_some(context)
}

/// Lower case only, as the specification has it.
fn hexadecimal<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let lower = !text.bytes().any(|c| c.is_ascii_uppercase());
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn traced<R>(test: impl FnOnce() -> R) -> R {
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), test)
    }

    #[test]
    fn a_trace_goes_on_at_the_next_hop() {
        traced(|| {
            let here = tracing::info_span!("here");
            let sent = here.in_scope(current_traceparent);
            assert!(is_traceparent(&sent), "{sent}");
            let there = tracing::info_span!("there");
            follow(&there, &sent);
            let passed_on = there.in_scope(current_traceparent);
            assert_eq!(passed_on.get(..36), sent.get(..36), "the same trace");
            assert_ne!(passed_on, sent, "another span");
        });
    }

    #[test]
    fn the_specification_s_example_is_followed() {
        traced(|| {
            let span = tracing::info_span!("there");
            follow(&span, EXAMPLE);
            assert!(span.in_scope(current_traceparent).starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        });
    }

    #[test]
    fn nothing_happens_when_nobody_traces() {
        let span = tracing::info_span!("here");
        follow(&span, EXAMPLE);
        assert_eq!(span.in_scope(current_traceparent), "");
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        assert!(is_traceparent(EXAMPLE));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0è",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        traced(|| {
            let span = tracing::info_span!("there");
            follow(&span, "nonsense");
            assert!(is_traceparent(&span.in_scope(current_traceparent)), "a trace of its own");
        });
    }
}
