//! The BackOffice service: what the institution's own systems call, on a listener of its own.
//!
//! Knows the contract and turns it into the office's calls. Never knows keys, the store or the gateway: all that is the office's.
//! Invariants: every refusal carries its stable reason and is counted; a stream that ends gives back what it held.

mod listener;
mod watch;

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request as Call, Response, Status, Streaming};
use tracing::Instrument as _;
use tramite_proto::{
    parts::FRAME_MAX,
    pb::backoffice::v1::{self as pb, back_office_server, put_attachment_request},
    reason::{Reason, Refused},
    trace,
};

pub(crate) use self::listener::{Listening, serve};
use crate::{metrics, office::Office, request::Request};

/// Frames of an attachment on its way out that may wait for the caller.
const FRAMES_AHEAD: usize = 4;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    office: Arc<Office>,
    stop: CancellationToken,
}

impl Service {
    pub(crate) fn new(office: Arc<Office>, stop: CancellationToken) -> Self {
        Self { office, stop }
    }

    /// Counts a refusal on its way out.
    fn refuse(&self, refused: &Refused) -> Status {
        self.office.metrics().calls_refused.get_or_create(&metrics::reason(refused.reason.as_str())).inc();
        tracing::debug!(reason = %refused.reason, "a call of the back office was refused");
        refused.to_status()
    }

    fn answer<T>(&self, result: Result<T, Refused>) -> Result<Response<T>, Status> {
        result.map(Response::new).map_err(|refused| self.refuse(&refused))
    }

    /// Sends, in the trace of the caller when it names one.
    async fn send<T>(&self, call: Call<T>, read: fn(T) -> Request) -> Result<Response<pb::SendResponse>, Status> {
        let span = tracing::info_span!("backoffice.send");
        let parent = call.metadata().get("traceparent").and_then(|text| text.to_str().ok()).unwrap_or_default();
        trace::follow(&span, parent);
        let sent = self.office.send(read(call.into_inner())).instrument(span).await;
        self.answer(sent)
    }

    async fn put(&self, mut frames: Streaming<pb::PutAttachmentRequest>) -> Result<pb::PutAttachmentResponse, Refused> {
        use put_attachment_request::Frame;
        let broken = |status: Status| {
            Refused::new(Reason::FrameInvalid, format!("the attachment broke off: {}", status.message()))
        };
        let header = match frames.message().await.map_err(broken)?.and_then(|first| first.frame) {
            Some(Frame::Header(header)) => header,
            _ => return Err(Refused::new(Reason::FrameInvalid, "the first frame of an attachment is its header")),
        };
        let mut writing = self.office.begin_attachment(header)?;
        while let Some(frame) = frames.message().await.map_err(broken)? {
            match frame.frame {
                Some(Frame::Data(data)) if data.len() <= FRAME_MAX => writing.write(&data)?,
                Some(Frame::Data(_)) => {
                    return Err(Refused::new(Reason::PayloadTooLarge, "a frame of an attachment has at most 256 KiB"));
                }
                _ => return Err(Refused::new(Reason::FrameInvalid, "after the header, every frame carries data")),
            }
        }
        writing.finish()
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl back_office_server::BackOffice for Service {
    type GetAttachmentStream = Answers<pb::GetAttachmentResponse>;
    type WatchInboxStream = Answers<pb::InboxItem>;

    #[tracing::instrument(name = "backoffice.put_attachment", skip_all)]
    async fn put_attachment(
        &self,
        call: Call<Streaming<pb::PutAttachmentRequest>>,
    ) -> Result<Response<pb::PutAttachmentResponse>, Status> {
        let stored = self.put(call.into_inner()).await;
        self.answer(stored)
    }

    #[tracing::instrument(name = "backoffice.get_attachment", skip_all)]
    async fn get_attachment(
        &self,
        call: Call<pb::GetAttachmentRequest>,
    ) -> Result<Response<Self::GetAttachmentStream>, Status> {
        let call = call.into_inner();
        let reading = self.office.attachment(&call.message_id, call.index).await;
        let mut reading = reading.map_err(|refused| self.refuse(&refused))?;
        let (frames, answers) = tokio::sync::mpsc::channel(FRAMES_AHEAD);
        tokio::spawn(async move {
            loop {
                let frame = match reading.next().await {
                    Ok(Some(data)) => Ok(pb::GetAttachmentResponse { data }),
                    Ok(None) => return,
                    Err(refused) => Err(refused.to_status()),
                };
                let failed = frame.is_err();
                // The caller went away: nobody wants the rest.
                if frames.send(frame).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn send_referral(&self, call: Call<pb::SendReferralRequest>) -> Result<Response<pb::SendResponse>, Status> {
        self.send(call, Request::Referral).await
    }

    async fn update_referral(
        &self,
        call: Call<pb::UpdateReferralRequest>,
    ) -> Result<Response<pb::SendResponse>, Status> {
        self.send(call, Request::ReferralUpdate).await
    }

    async fn request_documents(
        &self,
        call: Call<pb::RequestDocumentsRequest>,
    ) -> Result<Response<pb::SendResponse>, Status> {
        self.send(call, Request::DocumentRequest).await
    }

    async fn provide_documents(
        &self,
        call: Call<pb::ProvideDocumentsRequest>,
    ) -> Result<Response<pb::SendResponse>, Status> {
        self.send(call, Request::DocumentResponse).await
    }

    async fn update_document_request(
        &self,
        call: Call<pb::UpdateDocumentRequestRequest>,
    ) -> Result<Response<pb::SendResponse>, Status> {
        self.send(call, Request::DocumentRequestUpdate).await
    }

    async fn watch_inbox(&self, call: Call<pb::WatchInboxRequest>) -> Result<Response<Self::WatchInboxStream>, Status> {
        let items = watch::watch(Arc::clone(&self.office), &call.into_inner(), self.stop.clone());
        let items = items.map_err(|refused| self.refuse(&refused))?;
        Ok(Response::new(Box::pin(items)))
    }

    async fn acknowledge(
        &self,
        call: Call<pb::AcknowledgeRequest>,
    ) -> Result<Response<pb::AcknowledgeResponse>, Status> {
        let acknowledged = self.office.inbox().acknowledge(&call.into_inner().item_ids).await;
        self.answer(acknowledged.map(|acknowledged| pb::AcknowledgeResponse { acknowledged }))
    }

    async fn get_case(&self, call: Call<pb::GetCaseRequest>) -> Result<Response<pb::Case>, Status> {
        self.answer(self.office.case(&call.into_inner().case_id))
    }

    async fn list_cases(&self, call: Call<pb::ListCasesRequest>) -> Result<Response<pb::ListCasesResponse>, Status> {
        self.answer(self.office.cases(&call.into_inner()))
    }

    async fn list_institutions(
        &self,
        _: Call<pb::ListInstitutionsRequest>,
    ) -> Result<Response<pb::ListInstitutionsResponse>, Status> {
        self.answer(self.office.institutions())
    }

    async fn screen_rights(
        &self,
        _: Call<pb::ScreenRightsRequest>,
    ) -> Result<Response<pb::ScreenRightsResponse>, Status> {
        Err(self.refuse(&Refused::because(Reason::ScreeningNotYetServed)))
    }

    async fn get_status(&self, _: Call<pb::GetStatusRequest>) -> Result<Response<pb::Status>, Status> {
        self.answer(self.office.status())
    }

    async fn confirm_clock(
        &self,
        call: Call<pb::ConfirmClockRequest>,
    ) -> Result<Response<pb::ConfirmClockResponse>, Status> {
        let confirmed = self.office.confirm_clock(&call.into_inner().reason).await;
        self.answer(confirmed.map(|()| pb::ConfirmClockResponse {}))
    }
}
