//! The institution that referred a person: it follows what becomes of the referral, and closes it.

use tramite_proto::pb::{backoffice::v1 as bo, body::v1::ReferralUpdate};

use crate::desk::{
    Desk,
    calls::{Stopped, Unanswered},
    dossier::Terms,
    event::What,
    office::REFERRAL,
};

impl Desk {
    /// Sends a referral: how a case begins. Returns the case, or none when the adapter refused it.
    pub async fn refer(&mut self, request: bo::SendReferralRequest) -> Result<Option<String>, Stopped> {
        let answer = self.calls.persist(|mut client| {
            let request = request.clone();
            async move { client.send_referral(request).await }
        });
        let sent = match answer.await {
            Err(Unanswered::Stopped) => return Err(Stopped),
            Err(Unanswered::Refused(status)) => {
                self.trouble("", &super::refusal(&status)).await?;
                return Ok(None);
            }
            Ok(sent) => sent,
        };
        let sending = request.sending.unwrap_or_default();
        let terms = Terms { purpose: sending.purpose, legal_basis: sending.legal_basis };
        self.dossiers.sent.insert(sent.case_id.clone(), terms);
        let request_id = sending.request_id;
        let opened = What::Opened { kind: REFERRAL, to: request.to, parent: String::new(), request_id };
        self.say(&sent.case_id, opened).await;
        Ok(Some(sent.case_id))
    }

    /// The other side moved a referral.
    pub(super) async fn on_update(
        &mut self,
        message: &bo::ReceivedMessage,
        update: &ReferralUpdate,
    ) -> Result<(), Stopped> {
        let case_id = message.case_id.as_str();
        let reason = if update.reason.is_empty() { &update.outcome } else { &update.reason };
        self.say(case_id, What::Learned { status: update.status.clone(), reason: reason.clone() }).await;
        if let Some(dossier) = self.dossiers.referrals.get_mut(case_id) {
            // The referrer took it back, or closed the loop.
            dossier.ended = true;
            return Ok(());
        }
        let terms = Terms::of(message);
        match update.status.as_str() {
            "completed" | "failed" | "rejected" => self.close(case_id, &terms).await,
            _ => match (self.office.reconsider)(update) {
                None => Ok(()),
                Some(reason) => {
                    let cancelled = ReferralUpdate {
                        status: "cancelled".to_owned(),
                        reason: reason.to_owned(),
                        ..ReferralUpdate::default()
                    };
                    self.update(case_id, &terms, cancelled).await
                }
            },
        }
    }

    /// The clock ended a case. Its opener closes the loop; the other side only learns of it.
    pub(super) async fn on_expiry(&mut self, notice: &bo::Notice) -> Result<(), Stopped> {
        let learned = What::Learned { status: "expired".to_owned(), reason: notice.reason.clone() };
        self.say(&notice.case_id, learned).await;
        if let Some(dossier) = self.dossiers.referrals.get_mut(&notice.case_id) {
            dossier.ended = true;
        }
        match self.dossiers.sent.get(&notice.case_id).cloned() {
            Some(terms) => self.close(&notice.case_id, &terms).await,
            None => Ok(()),
        }
    }

    /// Acknowledges the outcome.
    async fn close(&self, case_id: &str, terms: &Terms) -> Result<(), Stopped> {
        self.update(case_id, terms, ReferralUpdate { status: "closed".to_owned(), ..ReferralUpdate::default() }).await
    }
}
