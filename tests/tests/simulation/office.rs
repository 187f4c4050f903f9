//! A back office: opens its cases, withdraws some, does what each case asks of it whenever there is news of it, repeats what it has sent,
//! acknowledges what it has read. It never crashes, so that it can tell; its line to its adapter breaks like any other.

use std::{future::Future, ops::Range, time::Duration};

use anyhow::Result;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tramite_proto::pb::{
    backoffice::v1::{
        Case, GetCaseRequest, ProvideDocumentsRequest, ReceivedMessage, RequestDocumentsRequest, SendReferralRequest,
        SendResponse, Sending, UpdateDocumentRequestRequest, UpdateReferralRequest, WatchInboxRequest,
        inbox_item::Kind,
    },
    body::v1::{DocumentProvided, DocumentRequestUpdate, DocumentResponse, ReferralUpdate, document_provided::Answer},
};
use tramite_tests::{
    attack::reason,
    desk::{Desk, passing},
    sample,
};

use super::{
    attachment::Attachment,
    dice::Dice,
    record::{Book, CROSSED, Sent},
};

/// A call that takes longer is made again: its line is dead.
const CALL: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// Messages that are of use for a few seconds only.
const HASTY_PERCENT: u64 = 20;
const HASTY_S: Range<u64> = 2..10;
/// Referrals that are declined.
const DECLINED_PERCENT: u64 = 25;

/// A case to open.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) at: Duration,
    pub(crate) to: &'static str,
    pub(crate) kind: Opening,
    /// What is attached.
    pub(crate) attached: Option<Attachment>,
    /// Until when somebody must have taken it up; 0: whenever.
    pub(crate) reply_within_s: u64,
    /// When it is withdrawn after it was opened, whatever has become of it.
    pub(crate) withdrawn: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    Referral,
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
    Settle(UpdateDocumentRequestRequest),
}

impl Request {
    fn sending(&mut self) -> &mut Sending {
        let (Self::Referral(SendReferralRequest { sending, .. })
        | Self::Update(UpdateReferralRequest { sending, .. })
        | Self::Documents(RequestDocumentsRequest { sending, .. })
        | Self::Provide(ProvideDocumentsRequest { sending, .. })
        | Self::Settle(UpdateDocumentRequestRequest { sending, .. })) = self;
        sending.get_or_insert_default()
    }

    fn opens(&self) -> bool {
        matches!(self, Self::Referral(_) | Self::Documents(_))
    }
}

impl Office {
    /// Works for ever.
    pub(crate) async fn run(self, plans: Vec<Plan>) -> Result<()> {
        for plan in plans {
            let office = self.clone();
            tokio::spawn(async move { office.open(plan).await });
        }
        loop {
            // A broken stream is a crash or a line that broke; what was not acknowledged is shown again.
            if let Err(status) = self.watch().await {
                self.book.open().note(format_args!("{} lost its inbox: {:?}", self.name, status.code()));
            }
            sleep(PAUSE).await;
        }
    }

    async fn open(&self, plan: Plan) {
        sleep(plan.at).await;
        let to = plan.to.to_owned();
        let sending = Some(Sending { reply_within_s: plan.reply_within_s, ..Sending::default() });
        let (conversation_id, situation) = (String::new(), "to be taken");
        let request = match plan.kind {
            Opening::Documents => {
                let request = Some(sample::document_request());
                Request::Documents(RequestDocumentsRequest { sending, to, request, conversation_id })
            }
            Opening::Referral => {
                let referral = Some(sample::referral(situation));
                Request::Referral(SendReferralRequest { sending, to, referral, conversation_id })
            }
        };
        let opened = self.send("open", plan.to, request, plan.attached).await;
        self.book.open().to_open -= 1;
        if let (Some(opened), Some(after)) = (opened, plan.withdrawn) {
            sleep(after).await;
            self.send("withdraw", plan.to, withdrawal(plan.kind, opened.case_id), None).await;
            self.book.open().to_withdraw -= 1;
        }
    }

    async fn watch(&self) -> Result<(), Status> {
        let request = WatchInboxRequest { follow: true, window: 0 };
        let watched = timeout(CALL, async { self.desk.client().watch_inbox(request).await }).await;
        let mut items = watched.unwrap_or_else(|_| Err(Status::deadline_exceeded("no stream")))?.into_inner();
        while let Some(item) = items.message().await? {
            self.book.open().shown(self.name, &item);
            match &item.kind {
                Some(Kind::Message(message)) => {
                    self.read(message).await;
                    self.attend(&message.case_id).await;
                }
                Some(Kind::Notice(notice)) => self.attend(&notice.case_id).await,
                None => {}
            }
            let ids = [item.item_id.clone()];
            self.must("acknowledge", || self.desk.acknowledge(&ids)).await;
            self.book.open().acknowledged(self.name, &item.item_id);
        }
        Ok(())
    }

    /// Does what a case asks of this office, until it asks nothing more. What changes a case comes with an item, so nothing is looked at otherwise.
    async fn attend(&self, case_id: &str) {
        loop {
            let look = || async {
                let request = GetCaseRequest { case_id: case_id.to_owned() };
                Ok(self.desk.client().get_case(request).await?.into_inner())
            };
            let Some(case) = self.must("look", look).await else { return };
            self.book.open().stands(self.name, &case);
            if case.next != self.name {
                return;
            }
            let Some((request, attached)) = asked_for(&case) else {
                let stands = format!("{} is to move {case_id}, which is {}", self.name, case.status);
                return self.book.open().breaks(stands);
            };
            let other = if case.opener == self.name { &case.responder } else { &case.opener };
            self.send("move", other, request, attached).await;
        }
    }

    /// Reads what is attached to a message.
    async fn read(&self, message: &ReceivedMessage) {
        let attached = message.body.as_ref().map(|body| body.attachments.as_slice()).unwrap_or_default();
        for (index, about) in (0..).zip(attached) {
            let bytes = self.must("read", || self.desk.attachment(&message.message_id, index)).await;
            let Some(bytes) = bytes else { return };
            self.book.open().read(self.name, &message.message_id, &about.name, &bytes);
        }
    }

    /// Sends until it is answered; sometimes once more, at once or much later, as one does who was not sure of the answer. None: another
    /// move came first.
    async fn send(
        &self,
        what: &str,
        to: &str,
        mut request: Request,
        attached: Option<Attachment>,
    ) -> Option<SendResponse> {
        let id = format!("{what}-{:016x}", self.dice.throw());
        let hasty = self.dice.chance(HASTY_PERCENT);
        let sending = request.sending();
        let expires_in_s = if hasty { self.dice.within(HASTY_S) } else { 0 };
        *sending = Sending { reply_within_s: sending.reply_within_s, expires_in_s, ..sample::sending(&id, &[]) };
        if let Some(attached) = attached {
            let (name, bytes) = (attached.name(), attached.bytes());
            let put = self.must(&id, || self.desk.attach(&name, &bytes)).await?.attachment_id;
            self.book.open().attached(self.name, &id, &put);
            request.sending().attachments.push(put);
        }
        let (opens, deadline) = (request.opens(), request.sending().reply_within_s != 0);
        let first = match self.insist(|| self.call(request.clone())).await {
            Ok(first) => first,
            Err(status) if !opens && reason(&status) == CROSSED => {
                self.book.open().note(format_args!("{} was too late with {id}", self.name));
                return None;
            }
            Err(status) => {
                self.book.open().breaks(format!("{}: {id} was refused: {status:?}", self.name));
                return None;
            }
        };
        let sent = Sent {
            from: self.name,
            to: to.to_owned(),
            case_id: first.case_id.clone(),
            hasty,
            opens,
            deadline,
            attached,
        };
        self.book.open().answered(&id, sent.clone(), &first, None);
        if self.dice.chance(30) {
            let (office, first, wait) = (self.clone(), first.clone(), self.dice.within(0..20_000));
            tokio::spawn(async move {
                sleep(Duration::from_millis(wait)).await;
                if let Some(again) = office.must(&id, || office.call(request.clone())).await {
                    office.book.open().answered(&id, sent, &again, Some(&first));
                }
            });
        }
        Some(first)
    }

    async fn call(&self, request: Request) -> Result<SendResponse, Status> {
        let mut client = self.desk.client();
        let answer = match request {
            Request::Referral(request) => client.send_referral(request).await,
            Request::Update(request) => client.update_referral(request).await,
            Request::Documents(request) => client.request_documents(request).await,
            Request::Provide(request) => client.provide_documents(request).await,
            Request::Settle(request) => client.update_document_request(request).await,
        };
        Ok(answer?.into_inner())
    }

    /// What may not be refused.
    async fn must<T, F>(&self, what: &str, call: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let refused = |status| self.book.open().breaks(format!("{}: {what} was refused: {status:?}", self.name));
        self.insist(call).await.map_err(refused).ok()
    }

    /// The same call until there is an answer, or it is refused for good.
    async fn insist<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        loop {
            match timeout(CALL, call()).await {
                Ok(Err(status)) if !passing(&status) => return Err(status),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(_)) | Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// The move that a case waits for, by where it stands.
fn asked_for(case: &Case) -> Option<(Request, Option<Attachment>)> {
    let update = match case.status.as_str() {
        "requested" if case.kind == "DOCUMENT_REQUEST" => return Some(provided(case)),
        "provided" => return Some((settle(case.case_id.clone(), "confirmed"), None)),
        "requested" if Dice::of(&case.case_id).chance(DECLINED_PERCENT) => {
            ReferralUpdate { reason: "NO_CAPACITY".into(), by: "PROVIDER".into(), ..sample::update("rejected") }
        }
        "requested" => sample::update("accepted"),
        "accepted" => sample::update("in_progress"),
        "in_progress" => ReferralUpdate { outcome: "SERVICE_PROVIDED".into(), ..sample::update("completed") },
        "completed" | "rejected" | "expired" => sample::update("closed"),
        _ => return None,
    };
    let (sending, case_id) = (None, case.case_id.clone());
    Some((Request::Update(UpdateReferralRequest { sending, case_id, update: Some(update) }), None))
}

fn provided(case: &Case) -> (Request, Option<Attachment>) {
    let attached = Attachment::answering(&case.case_id);
    let provided = DocumentProvided {
        document: "STATO_FAMIGLIA".into(),
        answer: Some(attached.map_or(Answer::Confirmed(true), |_| Answer::Attachment(0))),
        ..DocumentProvided::default()
    };
    let response = DocumentResponse { status: "provided".into(), documents: vec![provided], ..Default::default() };
    let (sending, case_id) = (None, case.case_id.clone());
    (Request::Provide(ProvideDocumentsRequest { sending, case_id, response: Some(response) }), attached)
}

fn withdrawal(kind: Opening, case_id: String) -> Request {
    let reason = "DUPLICATE".into();
    match kind {
        Opening::Documents => settle(case_id, "cancelled"),
        Opening::Referral => {
            let update = Some(ReferralUpdate { reason, ..sample::update("cancelled") });
            Request::Update(UpdateReferralRequest { sending: None, case_id, update })
        }
    }
}

fn settle(case_id: String, status: &str) -> Request {
    let update = Some(DocumentRequestUpdate { status: status.into(), ..DocumentRequestUpdate::default() });
    Request::Settle(UpdateDocumentRequestRequest { sending: None, case_id, update })
}
