//! `tramite.operations.v1.Operations`: what is queued, late, failed, and how to put it right. For the role `operator` alone. No answer
//! has content or personal data; every command is a fact in the journal with the operator's certificate name and the reason given.

mod command;
pub(crate) mod view;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tramite_proto::{
    pb::operations::v1::{
        DiscardRequest, DiscardResponse, GetMessageRequest, GetOverviewRequest, HoldRequest, HoldResponse,
        ListDeadLettersRequest, ListDeadLettersResponse, ListMessagesRequest, ListMessagesResponse, ListQueuesRequest,
        ListQueuesResponse, Message, Overview, RedriveRequest, RedriveResponse, ReleaseRequest, ReleaseResponse,
        WatchRequest, operations_server::Operations,
    },
    reason::Refused,
};

use crate::{
    hub::Hub,
    identify::{self, Operator},
};

/// Between two looks of a watcher.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The service.
#[derive(Debug, Clone)]
pub struct OperationsService {
    hub: Arc<Hub>,
}

impl OperationsService {
    /// On that hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    fn operator<T>(&self, request: &Request<T>) -> Result<Operator, Status> {
        let peer = identify::peer(request.extensions())?;
        let identified = identify::operator(&peer);
        Ok(identified.inspect_err(|refused| self.hub.refuse("operations", peer.name().as_str(), "", refused))?)
    }

    fn told<T>(&self, operator: &Operator, outcome: Result<T, Refused>) -> Result<Response<T>, Status> {
        let outcome = outcome.inspect_err(|refused| self.hub.refuse("operations", operator.name(), "", refused));
        Ok(Response::new(outcome?))
    }
}

#[tonic::async_trait]
impl Operations for OperationsService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Overview, Status>> + Send>>;

    async fn get_overview(&self, request: Request<GetOverviewRequest>) -> Result<Response<Overview>, Status> {
        let operator = self.operator(&request)?;
        self.told(&operator, view::overview(&self.hub))
    }

    async fn list_queues(&self, request: Request<ListQueuesRequest>) -> Result<Response<ListQueuesResponse>, Status> {
        let operator = self.operator(&request)?;
        self.told(&operator, view::queues(&self.hub).map(|queues| ListQueuesResponse { queues }))
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        let operator = self.operator(&request)?;
        let ListMessagesRequest { institution, page_size, page_token } = request.into_inner();
        let page = view::page(&self.hub, view::Listing::Waiting, &institution, page_size, &page_token);
        self.told(&operator, page.map(|(messages, next_page_token)| ListMessagesResponse { messages, next_page_token }))
    }

    async fn get_message(&self, request: Request<GetMessageRequest>) -> Result<Response<Message>, Status> {
        let operator = self.operator(&request)?;
        self.told(&operator, view::message(&self.hub, &request.get_ref().message_id))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let operator = self.operator(&request)?;
        let ListDeadLettersRequest { institution, page_size, page_token } = request.into_inner();
        let page = view::page(&self.hub, view::Listing::DeadLetters, &institution, page_size, &page_token);
        self.told(
            &operator,
            page.map(|(messages, next_page_token)| ListDeadLettersResponse { messages, next_page_token }),
        )
    }

    async fn redrive(&self, request: Request<RedriveRequest>) -> Result<Response<RedriveResponse>, Status> {
        let operator = self.operator(&request)?;
        let request = request.into_inner();
        let done = command::redrive(&self.hub, &operator, &request.message_id, &request.reason).await;
        self.told(&operator, done.map(|()| RedriveResponse {}))
    }

    async fn discard(&self, request: Request<DiscardRequest>) -> Result<Response<DiscardResponse>, Status> {
        let operator = self.operator(&request)?;
        let request = request.into_inner();
        let done = command::discard(&self.hub, &operator, &request.message_id, &request.reason).await;
        self.told(&operator, done.map(|()| DiscardResponse {}))
    }

    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldResponse>, Status> {
        let operator = self.operator(&request)?;
        let request = request.into_inner();
        let done = command::hold(&self.hub, &operator, &request.institution, &request.reason).await;
        self.told(&operator, done.map(|()| HoldResponse {}))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let operator = self.operator(&request)?;
        let request = request.into_inner();
        let done = command::release(&self.hub, &operator, &request.institution, &request.reason).await;
        self.told(&operator, done.map(|()| ReleaseResponse {}))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.operator(&request)?;
        let (out, overviews) = mpsc::channel(1);
        tokio::spawn(watch(Arc::clone(&self.hub), out));
        Ok(Response::new(Box::pin(ReceiverStream::new(overviews))))
    }
}

/// Sends the overview at once, and again whenever it changed, until nobody reads or the gateway stops.
async fn watch(hub: Arc<Hub>, out: mpsc::Sender<Result<Overview, Status>>) {
    let mut last = Overview::default();
    loop {
        let overview = match view::overview(&hub) {
            Ok(overview) => overview,
            Err(refused) => {
                // The watcher that reads no more needs no last word.
                let _ = out.send(Err(refused.to_status())).await;
                return;
            }
        };
        // Time alone is no change.
        last.uptime_s = overview.uptime_s;
        if overview != last {
            last = overview.clone();
            if out.send(Ok(overview)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = out.closed() => return,
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
        }
    }
}
