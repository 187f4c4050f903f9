//! What stands around every handler: a call that is not the caller's to make is refused before its body is read, a panic becomes an
//! INTERNAL answer of that one call, and a call that does not begin to answer in time is ended. It knows paths and roles, never messages.
//!
//! Tokio would keep the process alive after a panic anyway, but the whole connection would go with the task, and with it every
//! other stream of that institution.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};
use tramite_proto::reason::Refused;

use crate::{hub::Hub, identify, limits, metrics::Metrics};

/// Wraps every service of the server.
#[derive(Clone, Debug)]
pub struct GuardLayer {
    metrics: Arc<Metrics>,
    call_max: Duration,
    hub: Option<Arc<Hub>>,
}

impl GuardLayer {
    /// Counts panics there.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, call_max: limits::CALL_MAX, hub: None }
    }

    /// And lets in by role and membership.
    #[must_use]
    pub fn admitting(self, hub: Arc<Hub>) -> Self {
        Self { hub: Some(hub), ..self }
    }

    fn refuse<B>(&self, request: &Request<B>) -> Option<Refused> {
        let hub = self.hub.as_ref()?;
        let refused = identify::may_call(request.extensions(), request.uri().path(), &hub.config).err()?;
        let peer = identify::peer(request.extensions()).map(|peer| peer.name().to_string()).unwrap_or_default();
        hub.refuse("identify", &peer, "", &refused);
        Some(refused)
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guard { inner, layer: self.clone() }
    }
}

/// See [`GuardLayer`].
#[derive(Clone, Debug)]
pub struct Guard<S> {
    inner: S,
    layer: GuardLayer,
}

impl<S, B, R> Service<Request<B>> for Guard<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: From<Infallible>,
    S::Future: Send + 'static,
    R: Default + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(refused) = self.layer.refuse(&request) {
            return Box::pin(async move { Ok(refused.to_status().into_http()) });
        }
        let path = request.uri().path().to_owned();
        let GuardLayer { metrics, call_max, .. } = self.layer.clone();
        // Uploads take long by nature and have an idle limit of their own.
        let longest = if path.ends_with("/PutPart") { limits::PART_UPLOAD_MAX } else { call_max };
        let call = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            match tokio::time::timeout(longest, call).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_panic)) => {
                    metrics.panics.inc();
                    tracing::error!(path, "a handler panicked; its call was answered INTERNAL and the process goes on");
                    Ok(Status::new(Code::Internal, "the gateway failed at this call; it was recorded").into_http())
                }
                Err(_elapsed) => {
                    tracing::warn!(path, "a call did not answer in time");
                    Ok(Status::new(Code::DeadlineExceeded, "the gateway did not answer in time; try again").into_http())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_handler_ends_one_call_and_not_the_process() {
        let metrics = Arc::new(Metrics::new());
        let handler = service_fn(|request: Request<()>| async move {
            assert_ne!(request.uri().path(), "/boom", "as a handler with a bug would");
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let guarded = GuardLayer::new(Arc::clone(&metrics)).layer(handler);
        let to = |path: &str| Request::builder().uri(path).body(()).unwrap();
        let answer = guarded.clone().oneshot(to("/boom")).await.unwrap();
        assert_eq!(answer.headers().get("grpc-status").unwrap(), "13");
        assert_eq!(metrics.panics.get(), 1);
        let answer = guarded.oneshot(to("/fine")).await.unwrap();
        assert!(answer.headers().get("grpc-status").is_none());
    }

    #[tokio::test]
    async fn a_call_that_does_not_answer_is_ended() {
        let hang = service_fn(|_: Request<()>| std::future::pending::<Result<Response<String>, Infallible>>());
        let layer = GuardLayer { metrics: Arc::new(Metrics::new()), call_max: Duration::from_millis(1), hub: None };
        let answer = layer.layer(hang).oneshot(Request::new(())).await.unwrap();
        assert_eq!(answer.headers().get("grpc-status").unwrap(), "4");
    }
}
