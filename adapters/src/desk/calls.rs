//! A desk's calls to its adapter. Knows gRPC and patience, nothing of cases. Every call is repeated while the adapter is away:
//! each one that sends carries a request id, so a repeat sends nothing twice. Invariant: nothing here waits longer than its named
//! limit, except for the adapter to come back, which the desk's stop token ends.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status, Streaming, transport::Channel};
use tramite_proto::{
    ids::Digest,
    parts::FRAME_MAX,
    pb::{
        backoffice::v1::{self as bo, back_office_client::BackOfficeClient},
        body::v1::Attachment,
    },
};

/// One call: an adapter answers from its own disk, so this is long.
const CALL: Duration = Duration::from_secs(20);
/// First and longest pause between two tries while the adapter is away.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// The desk was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// Why a call has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The desk was told to stop.
    Stopped,
    /// The adapter refused, for good.
    Refused(Status),
}

impl From<Stopped> for Unanswered {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// A file to be attached.
#[derive(Debug, Clone)]
pub struct File {
    /// File name.
    pub name: String,
    /// Media type.
    pub media_type: &'static str,
    /// Document code.
    pub document: String,
    /// The bytes.
    pub bytes: Bytes,
}

/// The adapter, as a desk calls it.
#[derive(Debug, Clone)]
pub struct Calls {
    client: BackOfficeClient<Channel>,
    stop: CancellationToken,
}

impl Calls {
    /// Calls over this channel until stopped.
    #[must_use]
    pub fn new(channel: Channel, stop: CancellationToken) -> Self {
        Self { client: BackOfficeClient::new(channel), stop }
    }

    /// Waits.
    pub async fn pause(&self, time: Duration) -> Result<(), Stopped> {
        self.unless_stopped(sleep(time)).await
    }

    /// Calls, and again while the adapter is away.
    pub async fn persist<T, F, Fut>(&self, call: F) -> Result<T, Unanswered>
    where
        F: Fn(BackOfficeClient<Channel>) -> Fut + Send,
        Fut: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let mut pause = RETRY_FIRST;
        loop {
            let answer = self.unless_stopped(timeout(CALL, call(self.client.clone()))).await?;
            match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) if !passes(&status) => return Err(Unanswered::Refused(status)),
                Ok(Err(_)) | Err(_) => self.pause(pause).await?,
            }
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    /// Opens the inbox; none when the adapter is away.
    pub async fn watch(&self, follow: bool, window: u32) -> Result<Option<Streaming<bo::InboxItem>>, Stopped> {
        let mut client = self.client.clone();
        let call = timeout(CALL, client.watch_inbox(bo::WatchInboxRequest { follow, window }));
        Ok(self.unless_stopped(call).await?.ok().and_then(Result::ok).map(Response::into_inner))
    }

    /// The next item; none at the end of the stream, whatever ended it.
    pub async fn next(&self, inbox: &mut Streaming<bo::InboxItem>) -> Result<Option<bo::InboxItem>, Stopped> {
        Ok(self.unless_stopped(inbox.message()).await?.ok().flatten())
    }

    /// Acknowledges; returns when the adapter has answered.
    pub async fn acknowledge(&self, item_id: &str) -> Result<(), Stopped> {
        let request = bo::AcknowledgeRequest { item_ids: vec![item_id.to_owned()] };
        let answer = self.persist(|mut client| {
            let request = request.clone();
            async move { client.acknowledge(request).await }
        });
        match answer.await {
            Err(Unanswered::Stopped) => Err(Stopped),
            // An adapter that refuses an acknowledgement shows the item again; the desk then acts again, under the same request
            // ids.
            Ok(_) | Err(Unanswered::Refused(_)) => Ok(()),
        }
    }

    /// Stores a file at the adapter; returns its attachment id.
    pub async fn put(&self, file: &File) -> Result<String, Unanswered> {
        let header = bo::AttachmentHeader {
            name: file.name.clone(),
            media_type: file.media_type.to_owned(),
            document: file.document.clone(),
        };
        let frame = |frame| bo::PutAttachmentRequest { frame: Some(frame) };
        let mut frames = vec![frame(bo::put_attachment_request::Frame::Header(header))];
        let mut rest = file.bytes.clone();
        while !rest.is_empty() {
            let data = rest.split_to(FRAME_MAX.min(rest.len()));
            frames.push(frame(bo::put_attachment_request::Frame::Data(data)));
        }
        let answer = self.persist(|mut client| {
            let frames = frames.clone();
            async move { client.put_attachment(tokio_stream::iter(frames)).await }
        });
        Ok(answer.await?.attachment_id)
    }

    /// Reads an attachment and checks that it is what the body says: length and digest. False: it is not, or it could not be
    /// read.
    pub async fn check(&self, message_id: &str, index: u32, attachment: &Attachment) -> Result<bool, Stopped> {
        let request = bo::GetAttachmentRequest { message_id: message_id.to_owned(), index };
        let mut pause = RETRY_FIRST;
        for _ in 0..10 {
            match self.read(&request).await? {
                Ok(bytes) => {
                    let whole = u64::try_from(bytes.len()).is_ok_and(|length| length == attachment.length);
                    return Ok(whole && Digest::of(&bytes).as_bytes()[..] == attachment.sha256[..]);
                }
                Err(status) if !passes(&status) => return Ok(false),
                Err(_) => self.pause(pause).await?,
            }
            pause = (pause * 2).min(RETRY_LONGEST);
        }
        Ok(false)
    }

    /// One try at an attachment's bytes.
    async fn read(&self, request: &bo::GetAttachmentRequest) -> Result<Result<Vec<u8>, Status>, Stopped> {
        let mut client = self.client.clone();
        let read = async move {
            let mut frames = client.get_attachment(request.clone()).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(frame) = frames.message().await? {
                bytes.extend_from_slice(&frame.data);
            }
            Ok(bytes)
        };
        self.unless_stopped(read).await
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Stopped),
            done = work => Ok(done),
        }
    }
}

/// True for what passes by itself: the adapter is away or busy, or does not know its correspondents' keys yet.
fn passes(status: &Status) -> bool {
    let reason = tramite_proto::reason::Refused::from_status(status);
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Cancelled
            | Code::Unknown
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
    ) || reason.is_some_and(|refused| refused.reason.retryable())
}
