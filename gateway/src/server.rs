//! The gRPC server: every service, behind the accept loop of our own, with every limit written down. tonic passes "no limit" to hyper
//! where we say nothing, and its own TLS can neither refuse TLS 1.2 nor read a revocation list. It knows transport; never messages.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use http::Request;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    server::NamedService,
    transport::{Server, server::Router},
};
use tonic_health::server::HealthReporter;
use tower::{
    Service,
    layer::util::{Identity, Stack},
};
use tramite_certs::{
    identity::Peer,
    listen::{Hooks, Incoming},
    refusal::Refusal,
};
use tramite_proto::pb::{
    DESCRIPTORS,
    audit::v1::audit_server::{AuditServer, SERVICE_NAME as AUDIT},
    directory::v1::directory_server::{DirectoryServer, SERVICE_NAME as DIRECTORY},
    exchange::v1::exchange_server::{ExchangeServer, SERVICE_NAME as EXCHANGE},
    operations::v1::operations_server::{OperationsServer, SERVICE_NAME as OPERATIONS},
};

use crate::{
    audit::AuditService, directory::DirectoryService, exchange::ExchangeService, guard::GuardLayer, hub::Hub, limits,
    metrics::Metrics, operations::OperationsService,
};

type Guarded = Router<Stack<GuardLayer, Identity>>;

/// The exchange, with the limit of what each call needs: a call for one message is never allowed the bytes of a frame of 64.
#[derive(Debug, Clone)]
struct ExchangeByCall {
    frames: ExchangeServer<ExchangeService>,
    one: ExchangeServer<ExchangeService>,
    parts: ExchangeServer<ExchangeService>,
}

impl ExchangeByCall {
    fn new(service: ExchangeService) -> Self {
        let limited = |most: usize| {
            ExchangeServer::new(service.clone())
                .max_decoding_message_size(most)
                .max_encoding_message_size(limits::FRAME_BYTES_MAX)
        };
        Self {
            frames: limited(limits::FRAME_BYTES_MAX),
            one: limited(limits::SUBMIT_ONE_BYTES_MAX),
            parts: limited(limits::PART_CALL_BYTES_MAX),
        }
    }
}

impl NamedService for ExchangeByCall {
    const NAME: &'static str = EXCHANGE;
}

impl Service<Request<Body>> for ExchangeByCall {
    type Response = <ExchangeServer<ExchangeService> as Service<Request<Body>>>::Response;
    type Error = Infallible;
    type Future = <ExchangeServer<ExchangeService> as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = request.uri().path().rsplit('/').next().unwrap_or_default();
        match call {
            "Submit" | "Receive" => self.frames.call(request),
            "PutPart" | "GetPart" => self.parts.call(request),
            _ => self.one.call(request),
        }
    }
}

/// Counts what the accept loop does.
#[derive(Debug, Clone)]
pub(crate) struct Counting(pub(crate) Arc<Metrics>);

impl Hooks for Counting {
    fn on_refused(&self, refusal: Refusal, _remote: std::net::SocketAddr, _detail: &str) {
        self.0.handshake_refused(refusal.as_str());
    }

    fn on_open(&self, _peer: &Peer) {
        self.0.connections.inc();
    }

    fn on_close(&self, _peer: &Peer) {
        self.0.connections.dec();
    }

    fn on_cut(&self, refusal: Refusal, _peer: &Peer) {
        self.0.handshake_refused(refusal.as_str());
    }
}

/// Why the reflection service cannot be built: its descriptors are compiled in, so it is a fault of the build.
#[derive(Debug, thiserror::Error)]
#[error("the compiled-in descriptors cannot be served")]
pub struct ReflectionError(#[from] tonic_reflection::server::Error);

/// Serves until `stop`, then lets open calls end.
pub(crate) async fn serve(
    hub: Arc<Hub>,
    incoming: Incoming,
    stop: CancellationToken,
) -> Result<Result<(), tonic::transport::Error>, ReflectionError> {
    let router = router(&hub).await?;
    Ok(router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await)
}

async fn router(hub: &Arc<Hub>) -> Result<Guarded, ReflectionError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter).await;
    tokio::spawn(report_the_end(reporter, hub.stop.clone()));
    // Every service has the limit of what it needs: a frame for the exchange, a key record or a few words for the rest.
    let exchange = ExchangeByCall::new(ExchangeService::new(Arc::clone(hub)));
    let directory = DirectoryServer::new(DirectoryService::new(Arc::clone(hub)))
        .max_decoding_message_size(limits::CALL_BYTES_MAX)
        .max_encoding_message_size(limits::ANSWER_BYTES_MAX);
    let operations = OperationsServer::new(OperationsService::new(Arc::clone(hub)))
        .max_decoding_message_size(limits::CALL_BYTES_MAX)
        .max_encoding_message_size(limits::ANSWER_BYTES_MAX);
    let audit = AuditServer::new(AuditService::new(Arc::clone(hub)))
        .max_decoding_message_size(limits::CALL_BYTES_MAX)
        .max_encoding_message_size(limits::ANSWER_BYTES_MAX);
    let (reflection, reflection_alpha) = if hub.config.reflection.enabled {
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // The contracts are one set, with the adapter's service and the journal; only what is served here is listed.
                .with_service_name(EXCHANGE)
                .with_service_name(DIRECTORY)
                .with_service_name(OPERATIONS)
                .with_service_name(AUDIT)
                .with_service_name("grpc.health.v1.Health")
        };
        // Python's grpcio still asks in v1alpha.
        (Some(described().build_v1()?), Some(described().build_v1alpha()?))
    } else {
        (None, None)
    };
    Ok(builder(hub)
        .add_service(exchange)
        .add_service(directory)
        .add_service(operations)
        .add_service(audit)
        .add_service(health)
        .add_optional_service(reflection)
        .add_optional_service(reflection_alpha))
}

/// The standard health service says no more than that something serves here.
async fn report(reporter: &HealthReporter) {
    reporter.set_serving::<ExchangeServer<ExchangeService>>().await;
    reporter.set_serving::<DirectoryServer<DirectoryService>>().await;
    reporter.set_serving::<OperationsServer<OperationsService>>().await;
}

async fn report_the_end(reporter: HealthReporter, stop: CancellationToken) {
    stop.cancelled().await;
    reporter.set_not_serving::<ExchangeServer<ExchangeService>>().await;
    reporter.set_not_serving::<DirectoryServer<DirectoryService>>().await;
    reporter.set_not_serving::<OperationsServer<OperationsService>>().await;
}

fn builder(hub: &Arc<Hub>) -> Server<Stack<GuardLayer, Identity>> {
    // Spread, so that connections which began together (after a restart) are not asked to go together.
    let spread = limits::CONNECTION_AGE_MAX.as_secs() / 4 * hub.prover.permille() / 1_000;
    let age = limits::CONNECTION_AGE_MAX + std::time::Duration::from_secs(spread);
    Server::builder()
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION_MAX)
        .concurrency_limit_per_connection(limits::REQUESTS_PER_CONNECTION_MAX)
        .load_shed(true)
        .http2_max_pending_accept_reset_streams(Some(limits::PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(limits::PROVOKED_RESETS_MAX))
        .http2_max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT))
        .max_connection_age(age)
        .layer(GuardLayer::new(Arc::clone(&hub.metrics)).admitting(Arc::clone(hub)))
}
