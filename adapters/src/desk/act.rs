//! What a desk does with an item: the casework of a back office, one file for each part that it plays.
//! Every step's request id is made of the step and the case, so that acting twice on the same item sends nothing twice.

mod documents;
mod opener;
mod responder;

use tonic::Status;
use tramite_proto::pb::{
    backoffice::v1 as bo,
    body::v1::{ReferralUpdate, body},
};

use super::{
    Desk,
    calls::{Stopped, Unanswered},
    dossier::Terms,
    event::What,
};

/// The pseudonym of whoever works at a demo desk.
const OPERATOR: &str = "desk-1";

impl Desk {
    /// Acts on a message.
    pub(super) async fn on_message(&mut self, message: &bo::ReceivedMessage) -> Result<(), Stopped> {
        let Some(kind) = message.body.as_ref().and_then(|body| body.kind.as_ref()) else {
            return self.trouble(&message.case_id, "a message without a body came").await;
        };
        match kind {
            body::Kind::Referral(referral) => self.on_referral(message, referral).await,
            body::Kind::ReferralUpdate(update) => self.on_update(message, update).await,
            body::Kind::DocumentRequest(request) => self.on_request(message, request).await,
            body::Kind::DocumentResponse(response) => self.on_response(message, response).await,
            body::Kind::DocumentRequestUpdate(update) => self.on_request_update(message, update).await,
        }
    }

    /// Acts on a notice.
    pub(super) async fn on_notice(&mut self, notice: &bo::Notice) -> Result<(), Stopped> {
        match notice.kind.as_str() {
            "OPENED" | "RECEIPT_AFTER_EXPIRY" => {
                self.say(&notice.case_id, What::Receipt).await;
                Ok(())
            }
            "CASE_EXPIRED" => self.on_expiry(notice).await,
            _ => {
                let sentence =
                    format!("{} of a message to {}: {} {}", notice.kind, notice.to, notice.reason, notice.detail);
                self.trouble(&notice.case_id, &sentence).await
            }
        }
    }

    /// What every sending needs: the request id is the step's own.
    fn sending(step: &str, case_id: &str, terms: &Terms, attachments: Vec<String>) -> bo::Sending {
        bo::Sending {
            request_id: format!("{step}:{case_id}"),
            purpose: terms.purpose.clone(),
            legal_basis: terms.legal_basis.clone(),
            operator: OPERATOR.to_owned(),
            attachments,
            ..bo::Sending::default()
        }
    }

    /// Moves a referral.
    async fn update(&self, case_id: &str, terms: &Terms, update: ReferralUpdate) -> Result<(), Stopped> {
        let request = bo::UpdateReferralRequest {
            sending: Some(Self::sending(&update.status, case_id, terms, Vec::new())),
            case_id: case_id.to_owned(),
            update: Some(update.clone()),
        };
        let answer = self.calls.persist(|mut client| {
            let request = request.clone();
            async move { client.update_referral(request).await }
        });
        let reason =
            [&update.reason, &update.outcome].into_iter().find(|word| !word.is_empty()).cloned().unwrap_or_default();
        let moved = What::Moved { status: update.status, reason };
        self.told(case_id, answer.await.map(drop), moved).await.map(drop)
    }

    /// Says that a step is done, or what stood in its way. True when it is done.
    async fn told(&self, case_id: &str, answer: Result<(), Unanswered>, done: What) -> Result<bool, Stopped> {
        match answer {
            Err(Unanswered::Stopped) => Err(Stopped),
            Err(Unanswered::Refused(status)) => {
                self.trouble(case_id, &refusal(&status)).await?;
                Ok(false)
            }
            Ok(()) => {
                self.say(case_id, done).await;
                Ok(true)
            }
        }
    }

    /// Says that something happened that was not to happen.
    async fn trouble(&self, case_id: &str, sentence: &str) -> Result<(), Stopped> {
        self.say(case_id, What::Trouble { sentence: sentence.to_owned() }).await;
        Ok(())
    }
}

/// A refusal of the adapter, in words.
fn refusal(status: &Status) -> String {
    format!("the adapter refused: {}", status.message())
}
