//! The institution that acts on a referral: from `received` to its outcome.

use tramite_proto::pb::{
    backoffice::v1 as bo,
    body::v1::{Date, Referral, ReferralUpdate},
};

use crate::desk::{
    Desk,
    calls::{Stopped, Unanswered},
    dossier::{Dossier, Terms},
    event::What,
    office::{Conclusion, REFERRAL, Triage},
};

/// When a case on hold is looked at again.
const REVIEW: Date = Date { year: 2027, month: 1, day: 15 };

impl Desk {
    /// A referral came: opens a dossier, decides, and takes the first steps.
    pub(super) async fn on_referral(
        &mut self,
        message: &bo::ReceivedMessage,
        referral: &Referral,
    ) -> Result<(), Stopped> {
        let case_id = message.case_id.clone();
        let terms = Terms::of(message);
        let triage = (self.office.triage)(referral, &self.today);
        if triage == Triage::Unattended {
            return Ok(());
        }
        let dossier = Dossier {
            case_id: case_id.clone(),
            conversation_id: message.conversation_id.clone(),
            terms: terms.clone(),
            referral: referral.clone(),
            ..Dossier::default()
        };
        // An item that is shown again before it was acknowledged finds its dossier as it stands.
        self.dossiers.referrals.entry(case_id.clone()).or_insert(dossier);
        self.step(&case_id, &terms, "received").await?;
        match triage {
            Triage::Unattended => Ok(()),
            Triage::Reject { by, reason, note } => {
                let update = ReferralUpdate { by: by.to_owned(), ..reasoned("rejected", reason, note) };
                self.update(&case_id, &terms, update).await
            }
            Triage::Reroute { to, benefits, needs, note } => {
                let onward = Referral {
                    benefits: benefits.iter().map(|&code| code.to_owned()).collect(),
                    needs: needs.iter().map(|&code| code.to_owned()).collect(),
                    continues_case: case_id.clone(),
                    ..referral.clone()
                };
                self.reroute(message, &terms, to, onward, note).await
            }
            Triage::Hold { reason, note } => {
                self.step(&case_id, &terms, "accepted").await?;
                let update = ReferralUpdate { review: Some(REVIEW), ..reasoned("on_hold", reason, note) };
                self.update(&case_id, &terms, update).await
            }
            Triage::Take { pause, wanted } => {
                self.step(&case_id, &terms, "accepted").await?;
                if let Some(reason) = pause {
                    let update = ReferralUpdate { review: Some(REVIEW), ..reasoned("on_hold", reason, "") };
                    self.update(&case_id, &terms, update).await?;
                }
                self.step(&case_id, &terms, "in_progress").await?;
                self.ask(&case_id, &wanted).await?;
                self.conclude(&case_id).await
            }
        }
    }

    /// Refers the person on, and tells the referrer where to.
    async fn reroute(
        &mut self,
        message: &bo::ReceivedMessage,
        terms: &Terms,
        to: &str,
        onward: Referral,
        note: &str,
    ) -> Result<(), Stopped> {
        let request = bo::SendReferralRequest {
            sending: Some(Self::sending("onward", &message.case_id, terms, Vec::new())),
            to: to.to_owned(),
            referral: Some(onward),
            conversation_id: message.conversation_id.clone(),
        };
        let answer = self.calls.persist(|mut client| {
            let request = request.clone();
            async move { client.send_referral(request).await }
        });
        let sent = match answer.await {
            Err(Unanswered::Stopped) => return Err(Stopped),
            Err(Unanswered::Refused(status)) => return self.trouble(&message.case_id, &super::refusal(&status)).await,
            Ok(sent) => sent,
        };
        self.dossiers.sent.insert(sent.case_id.clone(), terms.clone());
        let request_id = format!("onward:{}", message.case_id);
        let opened = What::Opened { kind: REFERRAL, to: to.to_owned(), parent: message.case_id.clone(), request_id };
        self.say(&sent.case_id, opened).await;
        let update = ReferralUpdate {
            rerouted_to: to.to_owned(),
            rerouted_case: sent.case_id,
            ..reasoned("rerouted", "", note)
        };
        self.update(&message.case_id, terms, update).await
    }

    /// Reports the outcome, once every document asked for was answered.
    pub(super) async fn conclude(&mut self, case_id: &str) -> Result<(), Stopped> {
        let Some(dossier) = self.dossiers.referrals.get(case_id) else { return Ok(()) };
        if !dossier.open.is_empty() || dossier.ended {
            return Ok(());
        }
        let terms = dossier.terms.clone();
        let update = match (self.office.conclude)(&dossier.referral, &dossier.answers) {
            Conclusion::Complete { outcome, benefits, note } => {
                ReferralUpdate { outcome: outcome.to_owned(), benefits, ..reasoned("completed", "", note) }
            }
            Conclusion::Fail { reason, note } => reasoned("failed", reason, note),
        };
        self.update(case_id, &terms, update).await?;
        if let Some(dossier) = self.dossiers.referrals.get_mut(case_id) {
            dossier.ended = true;
        }
        Ok(())
    }

    /// A step that needs no more than its name.
    async fn step(&self, case_id: &str, terms: &Terms, status: &str) -> Result<(), Stopped> {
        self.update(case_id, terms, reasoned(status, "", "")).await
    }
}

/// An update with its reason and a note.
fn reasoned(status: &str, reason: &str, note: &str) -> ReferralUpdate {
    ReferralUpdate {
        status: status.to_owned(),
        reason: reason.to_owned(),
        note: note.to_owned(),
        ..ReferralUpdate::default()
    }
}
