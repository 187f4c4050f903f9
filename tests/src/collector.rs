//! A collector of traces, as operations would run one: an OTLP server over gRPC on loopback that keeps every span it is given.
//!
//! Knows the format of OTLP and how spans hang together. Never knows what they should say. Invariant: what a process sent is kept
//! as it came, so that a search for a canary looks at every field and not at those that are read here.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::Span as Sent,
};
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A tree of a message's way has a handful of levels; a walk that goes on longer goes in circles.
const DEPTH_MAX: usize = 32;
/// A client's preface, its SETTINGS and a WINDOW_UPDATE are below this; the fewest spans are above it.
const GREETING_BYTES: usize = 200;

/// One span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of the process that made it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// The trace that it belongs to, in hexadecimal.
    pub trace: String,
    /// Its own id, in hexadecimal.
    pub id: String,
    /// The span that it hangs under, in hexadecimal; empty: none.
    pub parent: String,
    /// The names of its attributes and of those of its events.
    pub attributes: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Kept {
    requests: Mutex<Vec<ExportTraceServiceRequest>>,
    grown: watch::Sender<usize>,
}

impl Kept {
    fn requests(&self) -> MutexGuard<'_, Vec<ExportTraceServiceRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The service as tonic wants it.
#[derive(Debug, Clone)]
struct Service(Arc<Kept>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut requests = self.0.requests();
        requests.push(request.into_inner());
        self.0.grown.send_replace(requests.len());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector that listens until dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    kept: Arc<Kept>,
    serving: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    /// Listens on a port that the system chooses.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> Result<Self> {
        Self::start_at("127.0.0.1:0").await
    }

    /// Listens at an address.
    ///
    /// # Errors
    /// When it is taken.
    pub async fn start_at(address: &str) -> Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| address.to_owned())?;
        let address = listener.local_addr()?;
        let kept = Arc::new(Kept::default());
        let server = Server::builder().add_service(TraceServiceServer::new(Service(Arc::clone(&kept))));
        let serving = tokio::spawn(async move {
            // Ends with the test; whoever waits for spans then says that none came.
            drop(server.serve_with_incoming(TcpListenerStream::new(listener)).await);
        });
        Ok(Self { address, kept, serving })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The lines of a configuration that send traces here.
    #[must_use]
    pub fn settings(&self) -> String {
        settings(&self.address.to_string())
    }

    /// Every span so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.kept.requests().iter().flat_map(spans).collect()
    }

    /// Everything that came so far, as bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.kept.requests().iter().flat_map(prost::Message::encode_to_vec).collect()
    }

    /// Waits until the spans fit; gives them.
    ///
    /// # Errors
    /// When they do not in time, with what came.
    pub async fn until(&self, what: &str, within: Duration, fits: impl Fn(&[Span]) -> bool) -> Result<Vec<Span>> {
        let mut grown = self.kept.grown.subscribe();
        let waited = timeout(within, async {
            loop {
                let spans = self.spans();
                if fits(&spans) {
                    return spans;
                }
                // The sender lives in `self`, so the channel cannot close.
                let _ = grown.changed().await;
            }
        });
        waited.await.with_context(|| format!("no {what} in {within:?}; what came: {:#?}", self.spans()))
    }
}

/// The lines of a configuration that send traces to an address.
#[must_use]
pub fn settings(address: &str) -> String {
    format!("telemetry.otlp = \"http://{address}\"")
}

/// A collector that takes connections, hears what is said and never answers a word: worse than one that is away.
#[derive(Debug)]
pub struct Deaf {
    address: SocketAddr,
    heard: watch::Receiver<usize>,
    serving: JoinHandle<()>,
}

impl Drop for Deaf {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Deaf {
    /// Listens on a port that the system chooses.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (tell, heard) = watch::channel(0);
        let serving = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                let tell = tell.clone();
                open.spawn(async move {
                    let mut bytes = [0; 4_096];
                    while let Ok(count @ 1..) = connection.read(&mut bytes).await {
                        tell.send_modify(|heard| *heard += count);
                    }
                });
            }
        });
        Ok(Self { address, heard, serving })
    }

    /// The lines of a configuration that send traces here.
    #[must_use]
    pub fn settings(&self) -> String {
        settings(&self.address.to_string())
    }

    /// Waits until it was told something more than an HTTP/2 greeting: an export that will never be answered has begun.
    ///
    /// # Errors
    /// When nothing came in time.
    pub async fn told_something(&mut self, within: Duration) -> Result<()> {
        let told = timeout(within, self.heard.wait_for(|heard| *heard > GREETING_BYTES)).await;
        told.context("nothing was exported")?.context("it listens")?;
        Ok(())
    }
}

fn spans(request: &ExportTraceServiceRequest) -> Vec<Span> {
    let of_resource = request.resource_spans.iter().flat_map(|resource| {
        let service = service(resource.resource.as_ref());
        resource.scope_spans.iter().flat_map(|scope| &scope.spans).map(move |sent| span(&service, sent))
    });
    of_resource.collect()
}

fn service(resource: Option<&Resource>) -> String {
    let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
    attributes.iter().find(|attribute| attribute.key == "service.name").and_then(text).unwrap_or_default()
}

fn text(attribute: &KeyValue) -> Option<String> {
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

fn span(service: &str, sent: &Sent) -> Span {
    let of_events = sent.events.iter().flat_map(|event| &event.attributes);
    Span {
        service: service.to_owned(),
        name: sent.name.clone(),
        trace: hex::encode(&sent.trace_id),
        id: hex::encode(&sent.span_id),
        parent: hex::encode(&sent.parent_span_id),
        attributes: sent.attributes.iter().chain(of_events).map(|attribute| attribute.key.clone()).collect(),
    }
}

/// The spans of one trace, of which there is at least one, hang together under the span `root`, which is not among them: each
/// directly, or under another of them.
///
/// # Errors
/// Names the span that hangs nowhere.
pub fn is_one_tree(spans: &[Span], trace: &str, root: &str) -> Result<()> {
    let ours: Vec<&Span> = spans.iter().filter(|span| span.trace == trace).collect();
    ensure!(
        ours.iter().map(|span| &span.id).collect::<BTreeSet<_>>().len() == ours.len(),
        "an id came twice: {ours:#?}"
    );
    ensure!(!ours.is_empty(), "there is no span of trace {trace}");
    for span in &ours {
        way_up(spans, trace, &span.id, root).with_context(|| format!("{span:?} hangs nowhere"))?;
    }
    Ok(())
}

/// The spans from the one with an id up to the one under `root`, as `service name`.
///
/// # Errors
/// When a parent is missing, or they go in circles.
pub fn way_up(spans: &[Span], trace: &str, id: &str, root: &str) -> Result<Vec<String>> {
    let mut way = Vec::new();
    let mut id = id.to_owned();
    while id != root {
        let span = spans.iter().find(|span| span.trace == trace && span.id == id);
        let span = span.with_context(|| format!("no span {id} in trace {trace}; the way so far: {way:?}"))?;
        way.push(format!("{} {}", span.service, span.name));
        if way.len() > DEPTH_MAX {
            bail!("spans hang under each other in a circle: {way:?}");
        }
        id.clone_from(&span.parent);
    }
    Ok(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: &str) -> Span {
        let (id, parent) = (id.to_owned(), parent.to_owned());
        let (service, name, trace) = ("s".to_owned(), format!("span-{id}"), "t".to_owned());
        Span { service, name, trace, id, parent, attributes: BTreeSet::new() }
    }

    #[test]
    fn a_tree_is_told_from_a_forest_a_circle_and_a_loose_end() {
        is_one_tree(&[span("a", "root"), span("b", "a"), span("c", "a"), span("d", "root")], "t", "root").unwrap();
        for (what, spans) in [
            ("nothing at all", vec![]),
            ("a circle", vec![span("a", "root"), span("b", "c"), span("c", "b")]),
            ("a loose end", vec![span("a", "root"), span("b", "gone")]),
            ("another top", vec![span("a", "root"), span("b", "")]),
            ("an id twice", vec![span("a", "root"), span("b", "a"), span("b", "a")]),
        ] {
            assert!(is_one_tree(&spans, "t", "root").is_err(), "{what}");
        }
        let way = way_up(&[span("a", "root"), span("b", "a")], "t", "b", "root").unwrap();
        assert_eq!(way, ["s span-b", "s span-a"]);
    }
}
