//! Where the BackOffice service is served: a Unix socket, a mutual TLS address, or both.
//!
//! Knows who may call: whoever may open the socket (0600 in a directory 0700), or whoever shows a certificate of this very institution.
//! Never knows calls. tonic says "no limit" to hyper where nothing is set, so every limit is set here.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Server, server::Router},
};
use tramite_certs::{
    identity::{Peer, Role},
    limits::Limits,
    listen::{Hooks, Listener},
    network::Network,
    refusal::Refusal,
    tls::ServerTls,
};
use tramite_proto::{
    ids::InstitutionName,
    pb::{DESCRIPTORS, backoffice::v1::back_office_server::BackOfficeServer},
    reason::{Reason, Refused},
};

use super::Service;
use crate::metrics::{Metrics, reason};

/// A body is at most 64 KiB, a frame of an attachment 256 KiB: a call is never larger than this.
const CALL_BYTES_MAX: usize = 1 << 20;
/// A page of a thousand cases, a case with a long timeline.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Streams and calls of one connection: a back office's threads, not a flood.
const STREAMS_MAX: u32 = 64;
const CALLS_MAX: usize = 32;
/// hyper's own defaults, which tonic takes away (RUSTSEC-2024-0003).
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 256;
const HEADERS_BYTES_MAX: u32 = 8 * 1024;
/// A dead connection is found within half a minute.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls that are on their way when the adapter stops get so long.
const DRAIN: Duration = Duration::from_secs(5);

/// What to listen on.
pub(crate) struct Listening {
    pub(crate) socket: Option<PathBuf>,
    pub(crate) address: Option<(SocketAddr, ServerTls)>,
    pub(crate) reflection: bool,
    pub(crate) name: InstitutionName,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) network: Arc<dyn Network>,
}

/// Servers that run, and where.
pub(crate) struct Serving {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Binds and serves until `stop`.
pub(crate) async fn serve(listening: Listening, service: Service, stop: &CancellationToken) -> io::Result<Serving> {
    let mut serving = Serving { address: None, tasks: Vec::new() };
    if let Some(path) = &listening.socket {
        let incoming = UnixListenerStream::new(bind(path)?);
        let router = router(limited(service.clone()), listening.reflection).await?;
        let served = router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        serving.tasks.push(run(served, stop.clone()));
        tracing::info!(socket = %path.display(), "the back office is served on a socket");
    }
    if let Some((address, tls)) = listening.address {
        let hooks = Arc::new(Counting(Arc::clone(&listening.metrics)));
        let listener = Listener::bind_on(&*listening.network, address, tls.clone(), Limits::default(), hooks).await?;
        let address = listener.local_addr()?;
        serving.address = Some(address);
        tokio::spawn(tls.run(stop.clone()));
        let only_own = OnlyOwn { name: listening.name, metrics: listening.metrics };
        let guarded = InterceptedService::new(limited(service), only_own);
        let router = router(guarded, listening.reflection).await?;
        let served = router.serve_with_incoming_shutdown(listener.incoming(stop), stop.clone().cancelled_owned());
        serving.tasks.push(run(served, stop.clone()));
        tracing::info!(%address, "the back office is served over TLS");
    }
    Ok(serving)
}

/// Ends when the server has, or a while after `stop`.
fn run(
    served: impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = served => if let Err(error) = served {
                tracing::error!(%error, "the back office is not served any more");
            },
            () = late => tracing::warn!("some calls of the back office did not end in time and are cut"),
        }
    })
}

/// Sets limits, health and reflection around the service.
async fn router<S>(service: S, reflection: bool) -> io::Result<Router>
where
    S: tower::Service<http::Request<tonic::body::Body>, Error = std::convert::Infallible>
        + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Response: axum::response::IntoResponse,
    S::Future: Send + 'static,
{
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<BackOfficeServer<Service>>().await;
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("tramite.backoffice.v1.BackOffice")
            .with_service_name("grpc.health.v1.Health")
    };
    let (v1, v1alpha) = if reflection {
        // Older tools still ask in v1alpha.
        let v1 = described().build_v1().map_err(io::Error::other)?;
        (Some(v1), Some(described().build_v1alpha().map_err(io::Error::other)?))
    } else {
        (None, None)
    };
    Ok(Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .concurrency_limit_per_connection(CALLS_MAX)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(service)
        .add_service(health)
        .add_optional_service(v1)
        .add_optional_service(v1alpha))
}

/// Only who shows a certificate of this institution is its back office. The network's other members have good certificates too.
#[derive(Clone)]
struct OnlyOwn {
    name: InstitutionName,
    metrics: Arc<Metrics>,
}

impl Interceptor for OnlyOwn {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        match request.extensions().get::<Arc<Peer>>() {
            Some(peer) if peer.role() == Role::Institution && *peer.name() == self.name => Ok(request),
            peer => {
                let who = peer.map_or_else(|| "nobody".to_owned(), |peer| peer.to_string());
                tracing::warn!(peer = who, reason = %Reason::NotAuthorized, "a call of the back office was refused");
                self.metrics.calls_refused.get_or_create(&reason(Reason::NotAuthorized.as_str())).inc();
                let detail = format!("this adapter serves {}/{} only, not {who}", Role::Institution, self.name);
                Err(Refused::new(Reason::NotAuthorized, detail).to_status())
            }
        }
    }
}

fn limited(service: Service) -> BackOfficeServer<Service> {
    BackOfficeServer::new(service).max_decoding_message_size(CALL_BYTES_MAX).max_encoding_message_size(ANSWER_BYTES_MAX)
}

/// A socket that nobody but our own user can open. One that a killed process left is replaced; one that answers is not.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        // A path without a folder lies in the current one.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mode = std::fs::metadata(folder)?.permissions().mode();
        if mode & 0o077 != 0 {
            let what = format!(
                "{} may be entered by others (mode {:04o}): run `chmod 700` on it",
                folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).display(),
                mode & 0o7777
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            let what = format!("{} is served by another process already", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) if std::fs::symlink_metadata(path)?.file_type().is_socket() => std::fs::remove_file(path)?,
        Err(_) => {
            let what = format!("{} is there, and is no socket: name another path", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Counts refused connections.
struct Counting(Arc<Metrics>);

impl Hooks for Counting {
    fn on_refused(&self, refusal: Refusal, _: SocketAddr, _: &str) {
        self.0.handshakes_refused.get_or_create(&reason(refusal.as_str())).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_socket_that_a_killed_process_left_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/backoffice.sock");
        drop(bind(&path).expect("bound"));
        drop(bind(&path).expect("the one that was left is replaced"));
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "precious").expect("written");
        let refused = bind(&path).map(drop).expect_err("a file");
        assert!(refused.to_string().contains("is no socket"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "precious");
    }

    #[tokio::test]
    async fn a_socket_without_a_folder_in_its_path_lies_in_the_current_one_which_is_checked() {
        let mode = std::fs::metadata(".").expect("there").permissions().mode();
        let path = Path::new("listener-test.sock");
        let bound = bind(path).map_err(|error| error.to_string());
        drop(std::fs::remove_file(path));
        match bound {
            Ok(_) => assert_eq!(mode & 0o077, 0, "others may enter the folder (mode {mode:o})"),
            Err(words) => assert!(mode & 0o077 != 0 && words.contains("chmod 700"), "{words}"),
        }
    }
}
