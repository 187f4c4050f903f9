//! Documents, on both sides: the one who asks, checks and confirms or disputes; and the holder, who answers from its register.

use std::collections::BTreeMap;

use tramite_proto::pb::{
    backoffice::v1 as bo,
    body::v1::{
        AnswerMode, DocumentProvided, DocumentRequest, DocumentRequestUpdate, DocumentResponse, DocumentWanted,
        document_provided,
    },
};

use crate::desk::{
    Desk,
    calls::{File, Stopped, Unanswered},
    dossier::{Answer, Asked, Terms},
    event::What,
    office::{DOCUMENT_REQUEST, Wanted},
    paper,
    register::codice_fiscale,
    sample::{DOCUMENT_LEGAL_BASIS, DOCUMENT_PURPOSE},
};

impl Desk {
    /// Asks the holders for what a referral needs: one request for each holder.
    pub(super) async fn ask(&mut self, case_id: &str, wanted: &[Wanted]) -> Result<(), Stopped> {
        let mut by_holder: BTreeMap<&str, Vec<DocumentWanted>> = BTreeMap::new();
        for Wanted { from, document, mode, statement } in wanted {
            by_holder.entry(from).or_default().push(DocumentWanted {
                document: (*document).to_owned(),
                mode: (*mode).into(),
                statement: (*statement).to_owned(),
                as_of: None,
            });
        }
        for (holder, documents) in by_holder {
            self.ask_holder(case_id, holder, documents).await?;
        }
        Ok(())
    }

    /// One document request: a case of its own.
    async fn ask_holder(
        &mut self,
        for_case: &str,
        holder: &str,
        documents: Vec<DocumentWanted>,
    ) -> Result<(), Stopped> {
        let Some(dossier) = self.dossiers.referrals.get(for_case) else { return Ok(()) };
        let terms = Terms { purpose: DOCUMENT_PURPOSE.to_owned(), legal_basis: DOCUMENT_LEGAL_BASIS.to_owned() };
        let body = DocumentRequest {
            person: dossier.referral.person.clone(),
            documents,
            for_case: for_case.to_owned(),
            benefit: dossier.referral.benefits.first().cloned().unwrap_or_default(),
            mandate: dossier.referral.mandate.clone(),
            note: String::new(),
        };
        let sending = Self::sending(&format!("ask-{holder}"), for_case, &terms, Vec::new());
        let request_id = sending.request_id.clone();
        let request = bo::RequestDocumentsRequest {
            sending: Some(sending),
            to: holder.to_owned(),
            request: Some(body.clone()),
            conversation_id: dossier.conversation_id.clone(),
        };
        let answer = self.calls.persist(|mut client| {
            let request = request.clone();
            async move { client.request_documents(request).await }
        });
        let sent = match answer.await {
            Err(Unanswered::Stopped) => return Err(Stopped),
            Err(Unanswered::Refused(status)) => return self.trouble(for_case, &super::refusal(&status)).await,
            Ok(sent) => sent,
        };
        if let Some(dossier) = self.dossiers.referrals.get_mut(for_case) {
            dossier.open.insert(sent.case_id.clone());
        }
        let asked = Asked { for_case: for_case.to_owned(), terms, request: body, times: 0 };
        self.dossiers.documents.entry(sent.case_id.clone()).or_insert(asked);
        let parent = for_case.to_owned();
        let opened = What::Opened { kind: DOCUMENT_REQUEST, to: holder.to_owned(), parent, request_id };
        self.say(&sent.case_id, opened).await;
        Ok(())
    }

    /// A holder answered: checks what came, confirms or disputes it, and goes on with the referral.
    pub(super) async fn on_response(
        &mut self,
        message: &bo::ReceivedMessage,
        response: &DocumentResponse,
    ) -> Result<(), Stopped> {
        let case_id = message.case_id.as_str();
        self.say(case_id, What::Learned { status: response.status.clone(), reason: response.reason.clone() }).await;
        if !matches!(response.status.as_str(), "provided" | "refused") {
            return Ok(());
        }
        let Some(asked) = self.dossiers.documents.get(case_id) else { return Ok(()) };
        let (for_case, terms) = (asked.for_case.clone(), asked.terms.clone());
        if response.status == "provided" {
            if let Some(reason) = self.fault(message, response).await? {
                return self.move_request(case_id, &terms, "disputed", reason).await;
            }
            self.move_request(case_id, &terms, "confirmed", "").await?;
        }
        self.file(case_id, &for_case, message, response).await;
        self.conclude(&for_case).await
    }

    /// What is wrong with an answer, as a reason code: another person's data, or an attachment that is not what the body says.
    async fn fault(
        &self,
        message: &bo::ReceivedMessage,
        response: &DocumentResponse,
    ) -> Result<Option<&'static str>, Stopped> {
        let asked = self.dossiers.documents.get(&message.case_id).and_then(|asked| asked.request.person.as_ref());
        let subject = asked.and_then(codice_fiscale);
        for document in &response.documents {
            let Some(document_provided::Answer::ValueJson(json)) = &document.answer else { continue };
            let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
            let answered = value.get("codice_fiscale").and_then(serde_json::Value::as_str);
            if subject.is_some() && answered.is_some() && subject != answered {
                return Ok(Some("SUBJECT_MISMATCH"));
            }
        }
        let attachments = message.body.as_ref().map(|body| body.attachments.as_slice()).unwrap_or_default();
        for (index, attachment) in (0_u32..).zip(attachments) {
            if !self.calls.check(&message.message_id, index, attachment).await? {
                return Ok(Some("DIGEST_MISMATCH"));
            }
        }
        Ok(None)
    }

    /// Puts the answers into the dossier of the referral.
    async fn file(
        &mut self,
        case_id: &str,
        for_case: &str,
        message: &bo::ReceivedMessage,
        response: &DocumentResponse,
    ) {
        let attachments = message.body.as_ref().map(|body| body.attachments.as_slice()).unwrap_or_default();
        let length = |index: u32| {
            usize::try_from(index).ok().and_then(|place| attachments.get(place)).map_or(0, |file| file.length)
        };
        let bytes = attachments.iter().map(|file| file.length).sum();
        // A refusal as a whole is a refusal of each document.
        let wanted =
            self.dossiers.documents.get(case_id).map(|asked| asked.request.documents.clone()).unwrap_or_default();
        if let Some(dossier) = self.dossiers.referrals.get_mut(for_case) {
            if response.status == "refused" {
                let refused = |wanted: DocumentWanted| (wanted.document, Answer::Unavailable(response.reason.clone()));
                dossier.answers.extend(wanted.into_iter().map(refused));
            }
            for document in &response.documents {
                let answer = match &document.answer {
                    Some(document_provided::Answer::Confirmed(yes)) => Answer::Confirmed(*yes),
                    Some(document_provided::Answer::ValueJson(json)) => {
                        Answer::Value(serde_json::from_str(json).unwrap_or_default())
                    }
                    Some(document_provided::Answer::Attachment(index)) => Answer::Copy(length(*index)),
                    Some(document_provided::Answer::Unavailable(reason)) => Answer::Unavailable(reason.clone()),
                    None => Answer::Unavailable(String::new()),
                };
                dossier.answers.insert(document.document.clone(), answer);
            }
            dossier.open.remove(case_id);
        }
        self.say(case_id, What::Documents { count: response.documents.len(), bytes }).await;
    }

    /// The requester's word on an answer.
    async fn move_request(&self, case_id: &str, terms: &Terms, status: &str, reason: &str) -> Result<(), Stopped> {
        let update =
            DocumentRequestUpdate { status: status.to_owned(), reason: reason.to_owned(), note: String::new() };
        let request = bo::UpdateDocumentRequestRequest {
            sending: Some(Self::sending(status, case_id, terms, Vec::new())),
            case_id: case_id.to_owned(),
            update: Some(update),
        };
        let answer = self.calls.persist(|mut client| {
            let request = request.clone();
            async move { client.update_document_request(request).await }
        });
        let moved = What::Moved { status: status.to_owned(), reason: reason.to_owned() };
        self.told(case_id, answer.await.map(drop), moved).await.map(drop)
    }

    /// A request came to the holder: it says so, then answers.
    pub(super) async fn on_request(
        &mut self,
        message: &bo::ReceivedMessage,
        request: &DocumentRequest,
    ) -> Result<(), Stopped> {
        let asked = Asked { terms: Terms::of(message), request: request.clone(), ..Asked::default() };
        self.dossiers.documents.entry(message.case_id.clone()).or_insert(asked);
        self.answer(&message.case_id, "received", DocumentResponse::default(), Vec::new()).await?;
        self.provide(&message.case_id).await
    }

    /// The requester confirmed, disputed or cancelled.
    pub(super) async fn on_request_update(
        &mut self,
        message: &bo::ReceivedMessage,
        update: &DocumentRequestUpdate,
    ) -> Result<(), Stopped> {
        self.say(&message.case_id, What::Learned { status: update.status.clone(), reason: update.reason.clone() })
            .await;
        if update.status != "disputed" {
            return Ok(());
        }
        if let Some(asked) = self.dossiers.documents.get_mut(&message.case_id) {
            // Counted by what was disputed, not by how often this item was shown: there is one dispute in a demo.
            asked.times = 1;
        }
        self.answer(&message.case_id, "in_process", DocumentResponse::default(), Vec::new()).await?;
        self.provide(&message.case_id).await
    }

    /// Answers every document asked for from the register: yes or no, a value, a copy, or why not.
    async fn provide(&self, case_id: &str) -> Result<(), Stopped> {
        let Some(asked) = self.dossiers.documents.get(case_id) else { return Ok(()) };
        let (mut documents, mut files) = (Vec::new(), Vec::new());
        for wanted in &asked.request.documents {
            documents.push(self.look_up(asked, wanted, &mut files));
        }
        let none =
            documents.iter().all(|document| matches!(document.answer, Some(document_provided::Answer::Unavailable(_))));
        if none {
            let response = DocumentResponse {
                reason: paper::NOT_HELD.to_owned(),
                detail: "no record of this person and document is held here".to_owned(),
                ..DocumentResponse::default()
            };
            return self.answer(case_id, "refused", response, Vec::new()).await;
        }
        self.answer(case_id, "provided", DocumentResponse { documents, ..DocumentResponse::default() }, files).await
    }

    /// One answer from the register; a copy's file joins the others.
    fn look_up(&self, asked: &Asked, wanted: &DocumentWanted, files: &mut Vec<File>) -> DocumentProvided {
        let person = asked.request.person.clone().unwrap_or_default();
        let found = self.register.find(&person, &wanted.document, asked.times);
        let answer = match (found, self.office.holding(&wanted.document)) {
            (Some(value), Some(holding)) => match wanted.mode() {
                AnswerMode::Verify => {
                    let confirmed = value.get("valid").and_then(serde_json::Value::as_bool).unwrap_or(true);
                    document_provided::Answer::Confirmed(confirmed)
                }
                AnswerMode::Copy => {
                    let index = u32::try_from(files.len()).unwrap_or(u32::MAX);
                    files.push(paper::copy(self.office, holding, value));
                    document_provided::Answer::Attachment(index)
                }
                AnswerMode::Value | AnswerMode::Unspecified => document_provided::Answer::ValueJson(value.to_string()),
            },
            _ => document_provided::Answer::Unavailable(paper::NOT_HELD.to_owned()),
        };
        DocumentProvided {
            document: wanted.document.clone(),
            answer: Some(answer),
            issued: Some(self.today),
            valid_until: None,
        }
    }

    /// The holder's next word, with its files.
    async fn answer(
        &self,
        case_id: &str,
        status: &str,
        response: DocumentResponse,
        files: Vec<File>,
    ) -> Result<(), Stopped> {
        let Some(asked) = self.dossiers.documents.get(case_id) else { return Ok(()) };
        let mut attachments = Vec::new();
        for file in &files {
            match self.calls.put(file).await {
                Ok(id) => attachments.push(id),
                Err(Unanswered::Stopped) => return Err(Stopped),
                Err(Unanswered::Refused(refused)) => return self.trouble(case_id, &super::refusal(&refused)).await,
            }
        }
        let step = format!("{status}-{}", asked.times);
        let request = bo::ProvideDocumentsRequest {
            sending: Some(Self::sending(&step, case_id, &asked.terms, attachments)),
            case_id: case_id.to_owned(),
            response: Some(DocumentResponse { status: status.to_owned(), ..response.clone() }),
        };
        let answer = self.calls.persist(|mut client| {
            let request = request.clone();
            async move { client.provide_documents(request).await }
        });
        let moved = What::Moved { status: status.to_owned(), reason: response.reason };
        self.told(case_id, answer.await.map(drop), moved).await.map(drop)
    }
}
