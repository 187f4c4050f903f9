//! `tramite.exchange.v1.Exchange`: what adapters call. It turns streams into calls of the verbs and their results into frames; every
//! decision is made elsewhere. Refusals of one message are answers in the stream; a stream fails only when the protocol is broken.
//! It knows frames and their limits; never a policy, a case or the journal.

mod parts;
mod submit;

use std::{panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures_util::{FutureExt as _, Stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tramite_proto::pb::exchange::v1::{
    GetPartRequest, GetPartResponse, PutPartRequest, PutPartResponse, ReceiveFrame, ReceiveRequest, SubmitAnswer,
    SubmitFrame, SubmitOneRequest, SubmitOneResponse, exchange_server::Exchange,
};

use crate::{
    deliver,
    hub::Hub,
    identify::{self, Member},
    limits, metrics,
    places::{Place, Places},
};

/// The service.
#[derive(Debug, Clone)]
pub struct ExchangeService {
    hub: Arc<Hub>,
    submitting: Arc<Places>,
    fetching: Arc<Places>,
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl ExchangeService {
    /// On that hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        let (submitting, fetching) = (Places::new(limits::SUBMIT_STREAMS_MAX), Places::new(limits::PART_DOWNLOADS_MAX));
        Self { hub, submitting, fetching }
    }

    fn member<T>(&self, call: &'static str, request: &Request<T>) -> Result<Member, Status> {
        let identified = identify::peer(request.extensions()).and_then(|peer| {
            identify::member(&peer, &self.hub.config)
                .inspect_err(|refused| self.hub.refuse(call, peer.name().as_str(), "", refused))
        });
        Ok(identified?)
    }

    fn place(&self, places: &Arc<Places>, call: &'static str, member: &Member) -> Result<Place, Status> {
        let taken = places.take(member.as_str());
        Ok(taken.inspect_err(|refused| self.hub.refuse(call, member.as_str(), "", refused))?)
    }
}

#[tonic::async_trait]
impl Exchange for ExchangeService {
    type SubmitStream = Answers<SubmitAnswer>;
    type ReceiveStream = Answers<ReceiveFrame>;
    type GetPartStream = Answers<GetPartResponse>;

    async fn submit(&self, request: Request<Streaming<SubmitFrame>>) -> Result<Response<Self::SubmitStream>, Status> {
        let member = self.member("submit", &request)?;
        let place = self.place(&self.submitting, "submit", &member)?;
        let (out, answers) = mpsc::channel(limits::FRAMES_OUT_MAX);
        let run = submit::run(Arc::clone(&self.hub), member, request.into_inner(), out);
        spawn(&self.hub, async move {
            run.await;
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn receive(
        &self,
        request: Request<Streaming<ReceiveRequest>>,
    ) -> Result<Response<Self::ReceiveStream>, Status> {
        let member = self.member("receive", &request)?;
        let (out, frames) = mpsc::channel(limits::FRAMES_OUT_MAX);
        let hub = Arc::clone(&self.hub);
        let requests = request.into_inner();
        spawn(&self.hub, async move {
            let taken_over = || {
                hub.metrics.takeovers.get_or_create(&metrics::institution(member.as_str())).inc();
                tracing::warn!(
                    institution = member.as_str(),
                    "a newer Receive stream took over while the older one was open: an adapter that came back over a broken line, or, \
                     when this goes on, two adapters with this institution's certificate, of which one must be stopped"
                );
            };
            let seat = hub.presence.take(member.as_str(), taken_over).await;
            deliver::run(hub, member, seat, requests, out).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }

    async fn put_part(&self, request: Request<Streaming<PutPartRequest>>) -> Result<Response<PutPartResponse>, Status> {
        let member = self.member("put_part", &request)?;
        let stored = parts::put(&self.hub, &member, request.into_inner()).await.map_err(|refused| {
            self.hub.refuse("put_part", member.as_str(), "", &refused);
            refused.to_status()
        })?;
        Ok(Response::new(PutPartResponse { stored }))
    }

    async fn get_part(&self, request: Request<GetPartRequest>) -> Result<Response<Self::GetPartStream>, Status> {
        let member = self.member("get_part", &request)?;
        let place = self.place(&self.fetching, "get_part", &member)?;
        let request = request.into_inner();
        let reader = parts::open(&self.hub, &member, &request).await.map_err(|refused| {
            self.hub.refuse("get_part", member.as_str(), "", &refused);
            refused.to_status()
        })?;
        let (out, answers) = mpsc::channel(limits::FRAMES_OUT_MAX);
        spawn(&self.hub, async move {
            parts::send(reader, out).await;
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn submit_one(&self, request: Request<SubmitOneRequest>) -> Result<Response<SubmitOneResponse>, Status> {
        let member = self.member("submit_one", &request)?;
        let traceparent =
            request.metadata().get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let traceparent = traceparent.to_owned();
        let acceptance = submit::one(&self.hub, &member, request.into_inner(), traceparent).await?;
        Ok(Response::new(SubmitOneResponse { acceptance: Some(acceptance) }))
    }
}

/// Runs a stream's task. A panic in it ends that stream alone, and is counted.
fn spawn(hub: &Arc<Hub>, task: impl Future<Output = ()> + Send + 'static) {
    let metrics = Arc::clone(&hub.metrics);
    tokio::spawn(async move {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            metrics.panics.inc();
            tracing::error!("the task of a stream panicked; the stream ended and the process goes on");
        }
    });
}
