//! A back office: opens its cases, answers those of others, repeats what it has sent, acknowledges what it has read. It never crashes, so
//! that it can tell; its line to its adapter breaks like any other.

use std::{future::Future, time::Duration};

use anyhow::Result;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tramite_proto::pb::{
    backoffice::v1::{
        InboxItem, ProvideDocumentsRequest, ReceivedMessage, RequestDocumentsRequest, SendReferralRequest,
        SendResponse, UpdateDocumentRequestRequest, UpdateReferralRequest, WatchInboxRequest, inbox_item::Kind,
    },
    body::v1::{
        DocumentProvided, DocumentRequestUpdate, DocumentResponse, ReferralUpdate, body, document_provided::Answer,
    },
};
use tramite_tests::{
    desk::{Desk, passing},
    sample,
};

use super::{
    attachment::Attachment,
    dice::Dice,
    record::{Book, Sent},
};

/// A call that takes longer is made again: its line is dead.
const CALL: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// Words by which the office that gets a referral knows what to do with it.
const DECLINED: &str = "to be declined";

/// A case to open.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) at: Duration,
    pub(crate) to: &'static str,
    pub(crate) kind: Opening,
    /// What is attached.
    pub(crate) attached: Option<Attachment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    Taken,
    Declined,
    Documents,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Office {
    pub(crate) name: &'static str,
    pub(crate) desk: Desk,
    pub(crate) book: Book,
    pub(crate) dice: Dice,
}

/// What an office asks its adapter to send.
#[derive(Clone)]
enum Request {
    Referral(SendReferralRequest),
    Update(UpdateReferralRequest),
    Documents(RequestDocumentsRequest),
    Provide(ProvideDocumentsRequest),
    Confirm(UpdateDocumentRequestRequest),
}

impl Request {
    fn attaching(mut self, attachment: String) -> Self {
        let (Self::Referral(SendReferralRequest { sending, .. })
        | Self::Update(UpdateReferralRequest { sending, .. })
        | Self::Documents(RequestDocumentsRequest { sending, .. })
        | Self::Provide(ProvideDocumentsRequest { sending, .. })
        | Self::Confirm(UpdateDocumentRequestRequest { sending, .. })) = &mut self;
        sending.get_or_insert_default().attachments.push(attachment);
        self
    }
}

impl Office {
    /// Works for ever.
    pub(crate) async fn run(self, plans: Vec<Plan>) -> Result<()> {
        for (number, plan) in plans.into_iter().enumerate() {
            let office = self.clone();
            tokio::spawn(async move { office.open(number, plan).await });
        }
        loop {
            // A broken stream is a crash or a line that broke; what was not acknowledged is shown again.
            if let Err(status) = self.watch().await {
                self.book.open().note(format_args!("{} lost its inbox: {:?}", self.name, status.code()));
            }
            sleep(PAUSE).await;
        }
    }

    async fn open(&self, number: usize, plan: Plan) {
        sleep(plan.at).await;
        let sending = Some(sample::sending(&format!("open-{number}"), &[]));
        let to = plan.to.to_owned();
        let conversation_id = String::new();
        let request = match plan.kind {
            Opening::Documents => {
                let request = Some(sample::document_request());
                Request::Documents(RequestDocumentsRequest { sending, to, request, conversation_id })
            }
            kind => {
                let situation = if kind == Opening::Declined { DECLINED } else { "to be taken" };
                let referral = Some(sample::referral(situation));
                Request::Referral(SendReferralRequest { sending, to, referral, conversation_id })
            }
        };
        self.send(&format!("open-{number}"), plan.to, request, (plan.attached, false)).await;
        self.book.open().to_open -= 1;
    }

    async fn watch(&self) -> Result<(), Status> {
        let request = WatchInboxRequest { follow: true, window: 0 };
        let watched = timeout(CALL, async { self.desk.client().watch_inbox(request).await }).await;
        let mut items = watched.unwrap_or_else(|_| Err(Status::deadline_exceeded("no stream")))?.into_inner();
        while let Some(item) = items.message().await? {
            self.book.open().shown(self.name, &item);
            self.work(&item).await;
            let ids = [item.item_id.clone()];
            self.insist("acknowledge", || self.desk.acknowledge(&ids)).await;
            self.book.open().acknowledged(self.name, &item.item_id);
        }
        Ok(())
    }

    async fn work(&self, item: &InboxItem) {
        let Some(Kind::Message(message)) = &item.kind else { return };
        self.read(message).await;
        match message.body.as_ref().and_then(|body| body.kind.as_ref()) {
            Some(body::Kind::Referral(referral)) if referral.situation == DECLINED => {
                let update = ReferralUpdate {
                    reason: "NO_CAPACITY".into(),
                    by: "PROVIDER".into(),
                    ..sample::update("rejected")
                };
                self.update(message, update).await;
            }
            Some(body::Kind::Referral(_)) => {
                self.update(message, sample::update("accepted")).await;
                self.update(message, sample::update("in_progress")).await;
                let outcome = "SERVICE_PROVIDED".into();
                self.update(message, ReferralUpdate { outcome, ..sample::update("completed") }).await;
            }
            Some(body::Kind::ReferralUpdate(update)) if ["completed", "rejected"].contains(&update.status.as_str()) => {
                self.update(message, sample::update("closed")).await;
            }
            Some(body::Kind::DocumentRequest(_)) => self.provide(message).await,
            Some(body::Kind::DocumentResponse(_)) => {
                let request = Request::Confirm(UpdateDocumentRequestRequest {
                    sending: Some(sample::sending(&format!("confirm-{}", message.message_id), &[])),
                    case_id: message.case_id.clone(),
                    update: Some(DocumentRequestUpdate { status: "confirmed".into(), ..Default::default() }),
                });
                self.send(&format!("confirm-{}", message.message_id), &message.from, request, (None, true)).await;
            }
            _ => {}
        }
    }

    async fn provide(&self, message: &ReceivedMessage) {
        let attached = Attachment::answering(&message.message_id);
        let provided = DocumentProvided {
            document: "STATO_FAMIGLIA".into(),
            answer: Some(attached.map_or(Answer::Confirmed(true), |_| Answer::Attachment(0))),
            ..DocumentProvided::default()
        };
        let response =
            DocumentResponse { status: "provided".into(), documents: vec![provided], ..DocumentResponse::default() };
        let request = Request::Provide(ProvideDocumentsRequest {
            sending: Some(sample::sending(&format!("provide-{}", message.message_id), &[])),
            case_id: message.case_id.clone(),
            response: Some(response),
        });
        self.send(&format!("provide-{}", message.message_id), &message.from, request, (attached, false)).await;
    }

    async fn update(&self, message: &ReceivedMessage, update: ReferralUpdate) {
        let (id, last) = (format!("{}-{}", update.status, message.message_id), update.status == "closed");
        let request = Request::Update(UpdateReferralRequest {
            sending: Some(sample::sending(&id, &[])),
            case_id: message.case_id.clone(),
            update: Some(update),
        });
        self.send(&id, &message.from, request, (None, last)).await;
    }

    /// Reads what is attached to a message.
    async fn read(&self, message: &ReceivedMessage) {
        let attached = message.body.as_ref().map(|body| body.attachments.as_slice()).unwrap_or_default();
        for (index, about) in (0..).zip(attached) {
            let bytes = self.insist("read", || self.desk.attachment(&message.message_id, index)).await;
            let Some(bytes) = bytes else { return };
            self.book.open().read(self.name, &message.message_id, &about.name, &bytes);
        }
    }

    /// Puts what is to be attached where the request finds it.
    async fn attach(&self, id: &str, request: Request, attached: Option<Attachment>) -> Option<Request> {
        let Some(attached) = attached else { return Some(request) };
        let (name, bytes) = (attached.name(), attached.bytes());
        let put = self.insist(id, || self.desk.attach(&name, &bytes)).await?.attachment_id;
        self.book.open().attached(self.name, id, &put);
        Some(request.attaching(put))
    }

    /// Sends until it is answered; sometimes once more, at once or much later, as one does who was not sure of the answer.
    async fn send(&self, id: &str, to: &str, request: Request, (attached, last): (Option<Attachment>, bool)) {
        let Some(request) = self.attach(id, request, attached).await else { return };
        let first = self.insist(id, || self.call(request.clone())).await;
        let Some(first) = first else { return };
        let sent = Sent { from: self.name, to: to.to_owned(), case_id: first.case_id.clone(), last, attached };
        self.book.open().answered(id, sent.clone(), &first, None);
        if self.dice.chance(30) {
            let (office, id, wait) = (self.clone(), id.to_owned(), self.dice.within(0..20_000));
            tokio::spawn(async move {
                sleep(Duration::from_millis(wait)).await;
                if let Some(again) = office.insist(&id, || office.call(request.clone())).await {
                    office.book.open().answered(&id, sent, &again, Some(&first));
                }
            });
        }
    }

    async fn call(&self, request: Request) -> Result<SendResponse, Status> {
        let mut client = self.desk.client();
        let answer = match request {
            Request::Referral(request) => client.send_referral(request).await,
            Request::Update(request) => client.update_referral(request).await,
            Request::Documents(request) => client.request_documents(request).await,
            Request::Provide(request) => client.provide_documents(request).await,
            Request::Confirm(request) => client.update_document_request(request).await,
        };
        Ok(answer?.into_inner())
    }

    /// The same call until there is an answer; none when it is refused for good, which nothing here may be.
    pub(crate) async fn insist<T, F>(&self, what: &str, mut call: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        loop {
            match timeout(CALL, call()).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(status)) if !passing(&status) => {
                    self.book.open().breaks(format!("{}: {what} was refused: {status:?}", self.name));
                    return None;
                }
                Ok(Err(_)) | Err(_) => sleep(PAUSE).await,
            }
        }
    }
}
