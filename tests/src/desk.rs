//! An institution's back office: a client of the `BackOffice` service at its own adapter, over the Unix socket.
//!
//! Knows what a developer at an institution would know, nothing more. `insist` is what a sound caller does: the same request
//! again under the same request id until there is an answer.

use std::{fmt, future::Future, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    time::{Instant, sleep},
};
use tokio_stream::StreamExt as _;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tramite_proto::pb::backoffice::v1::{
    self as bo, AcknowledgeRequest, AttachmentHeader, GetAttachmentRequest, InboxItem, PutAttachmentRequest,
    SendReferralRequest, SendResponse, UpdateReferralRequest, WatchInboxRequest, back_office_client::BackOfficeClient,
    put_attachment_request,
};

use crate::sample;

/// The largest frame that `BackOffice` takes.
const FRAME_BYTES: usize = 256 * 1024;
/// Between two tries while an adapter is down; short, so that a restart is met at once.
const PAUSE: Duration = Duration::from_millis(50);
/// Larger than any inbox item: 64 KiB of body and what stands around it.
const ITEM_BYTES_MAX: usize = 1024 * 1024;

/// A back office.
#[derive(Clone)]
pub struct Desk {
    client: BackOfficeClient<Channel>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// True when the same call may well succeed later: the adapter is away, or asks for patience.
#[must_use]
pub fn passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Internal
    )
}

/// Calls until there is an answer that stands: success, or a refusal for good.
///
/// # Errors
/// The refusal, or the last passing error when the time is over.
pub async fn insist<T, F>(within: Duration, mut call: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, Status>>,
{
    let until = Instant::now() + within;
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(status) if passing(&status) && Instant::now() < until => sleep(PAUSE).await,
            Err(status) => bail!("{:?}: {}", status.code(), status.message()),
        }
    }
}

impl Desk {
    /// A desk at the adapter that listens at a socket; connects when it is first used, and again after a break.
    ///
    /// # Errors
    /// Never in practice: the endpoint's name is fixed.
    pub fn at(socket: &Path) -> Result<Self> {
        let socket = socket.to_path_buf();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let channel = Endpoint::from_static("http://adapter").connect_with_connector_lazy(connector);
        Ok(Self::over(channel))
    }

    /// A desk on a line that somebody else has laid.
    #[must_use]
    pub fn over(channel: Channel) -> Self {
        Self { client: BackOfficeClient::new(channel).max_decoding_message_size(ITEM_BYTES_MAX) }
    }

    /// The generated client, for calls that have no shorter form here.
    #[must_use]
    pub fn client(&self) -> BackOfficeClient<Channel> {
        self.client.clone()
    }

    /// How the adapter stands.
    ///
    /// # Errors
    /// As the adapter answers.
    pub async fn status(&self) -> Result<bo::Status, Status> {
        Ok(self.client().get_status(bo::GetStatusRequest {}).await?.into_inner())
    }

    /// Waits until the adapter is connected to the gateway.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn connected(&self, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        loop {
            let status = self.status().await;
            match status {
                Ok(status) if status.connected => return Ok(()),
                status if Instant::now() > until => bail!("not connected after {within:?}: {status:?}"),
                _ => sleep(PAUSE).await,
            }
        }
    }

    /// Whom this institution may write to, as its adapter knows by now.
    ///
    /// # Errors
    /// As the adapter answers.
    pub async fn correspondents(&self) -> Result<Vec<bo::Correspondent>, Status> {
        Ok(self.client().list_institutions(bo::ListInstitutionsRequest {}).await?.into_inner().institutions)
    }

    /// Sends a referral, once.
    ///
    /// # Errors
    /// As the adapter answers.
    pub async fn refer(&self, to: &str, request_id: &str, situation: &str) -> Result<SendResponse, Status> {
        self.refer_with(to, request_id, situation, &[]).await
    }

    /// Sends a referral with attachments that are at the adapter already, once.
    ///
    /// # Errors
    /// As the adapter answers.
    pub async fn refer_with(
        &self,
        to: &str,
        request_id: &str,
        situation: &str,
        attached: &[String],
    ) -> Result<SendResponse, Status> {
        self.send_referral(SendReferralRequest {
            sending: Some(sample::sending(request_id, attached)),
            to: to.to_owned(),
            referral: Some(sample::referral(situation)),
            conversation_id: String::new(),
        })
        .await
    }

    /// Sends a referral as it is given, once.
    ///
    /// # Errors
    /// As the adapter answers.
    pub async fn send_referral(&self, request: SendReferralRequest) -> Result<SendResponse, Status> {
        Ok(self.client().send_referral(request).await?.into_inner())
    }

    /// Moves a referral, once.
    ///
    /// # Errors
    /// As the adapter answers.
    pub async fn move_referral(&self, case_id: &str, request_id: &str, status: &str) -> Result<SendResponse, Status> {
        let request = UpdateReferralRequest {
            sending: Some(sample::sending(request_id, &[])),
            case_id: case_id.to_owned(),
            update: Some(sample::update(status)),
        };
        Ok(self.client().update_referral(request).await?.into_inner())
    }

    /// Stores a file to be attached.
    ///
    /// # Errors
    /// As the adapter answers.
    pub async fn attach(&self, name: &str, content: &[u8]) -> Result<bo::PutAttachmentResponse, Status> {
        let header = AttachmentHeader {
            name: name.to_owned(),
            media_type: "application/pdf".into(),
            document: "STATO_FAMIGLIA".into(),
        };
        let first = PutAttachmentRequest { frame: Some(put_attachment_request::Frame::Header(header)) };
        let rest = content.chunks(FRAME_BYTES).map(|piece| PutAttachmentRequest {
            frame: Some(put_attachment_request::Frame::Data(piece.to_vec().into())),
        });
        let frames: Vec<_> = std::iter::once(first).chain(rest).collect();
        Ok(self.client().put_attachment(tokio_stream::iter(frames)).await?.into_inner())
    }

    /// Reads an attachment of a message in the inbox.
    ///
    /// # Errors
    /// As the adapter answers.
    pub async fn attachment(&self, message_id: &str, index: u32) -> Result<Vec<u8>, Status> {
        let request = GetAttachmentRequest { message_id: message_id.to_owned(), index };
        let mut frames = self.client().get_attachment(request).await?.into_inner();
        let mut content = Vec::new();
        while let Some(frame) = frames.message().await? {
            content.extend_from_slice(&frame.data);
        }
        Ok(content)
    }

    /// What waits now, in one reading.
    ///
    /// # Errors
    /// As the adapter answers.
    pub async fn waiting(&self) -> Result<Vec<InboxItem>, Status> {
        let request = WatchInboxRequest { follow: false, window: 1000 };
        self.client().watch_inbox(request).await?.into_inner().collect().await
    }

    /// Acknowledges items.
    ///
    /// # Errors
    /// As the adapter answers.
    pub async fn acknowledge(&self, item_ids: &[String]) -> Result<u32, Status> {
        let request = AcknowledgeRequest { item_ids: item_ids.to_vec() };
        Ok(self.client().acknowledge(request).await?.into_inner().acknowledged)
    }

    /// One case with its timeline.
    ///
    /// # Errors
    /// As the adapter answers, in words.
    pub async fn case(&self, case_id: &str) -> Result<bo::Case> {
        let request = bo::GetCaseRequest { case_id: case_id.to_owned() };
        Ok(self.client().get_case(request).await.context("GetCase")?.into_inner())
    }
}
