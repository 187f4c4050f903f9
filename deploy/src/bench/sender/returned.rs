//! What comes back to the sender: acceptances, receipts with their evidence, answers to its acknowledgements; each is checked.

use std::collections::VecDeque;

use tokio::time::Instant;
use tramite_proto::{
    ids::{Digest, MessageId},
    pb::exchange::v1::{
        Notice, NoticeAcknowledged, ReceiveFrame, ReceiveRequest, Settlement, SubmitAnswer, settlement, submit_result,
    },
    statement::{Event, Evidence, Receipt},
};

use super::{Pending, Sender};
use crate::bench::{client::Trouble, time::now_ns};

/// Settlements in one request.
const GATHERED_MAX: usize = 64;

impl Sender {
    /// The answer to a frame: one acceptance for each of its messages, in their order. A message's time ends when its own is checked.
    pub(super) fn answered(&mut self, answer: SubmitAnswer) -> Result<(), Trouble> {
        for (number, result) in (answer.frame_id..).zip(answer.results) {
            let framed = match result.result {
                Some(submit_result::Result::Accepted(framed)) => framed,
                Some(submit_result::Result::Refused(refusal)) => {
                    return Err(Trouble::new(format!(
                        "a message was refused ({}): {}",
                        refusal.reason, refusal.detail
                    )));
                }
                None => return Err(Trouble::new("an answer says nothing".to_owned())),
            };
            let json = self.gateway.check(&answer.jws, framed)?;
            let evidence = Evidence::parse(&json).map_err(|refused| Trouble::refused("an acceptance", &refused))?;
            let pending = pending_of(&mut self.window, self.first, number)?;
            let (_, named) = self.epoch.read(&evidence.mid);
            if evidence.evt != Event::SubmissionAcceptance || evidence.org_s256 != pending.origin || named != number {
                return Err(Trouble::new("an acceptance is not about the message that was submitted".to_owned()));
            }
            if std::mem::replace(&mut pending.acknowledged, true) {
                return Err(Trouble::new("a message was acknowledged twice".to_owned()));
            }
            let now = now_ns();
            if self.counting.is_some_and(|window| window.counts(now)) {
                self.sent.window += 1;
                self.sent.acknowledgement.record(now.saturating_sub(pending.submitted_ns));
            }
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
            self.sent.acknowledged += 1;
        }
        self.shrink();
        Ok(())
    }

    /// Notices, and the answers to their settlements.
    pub(super) async fn noticed(&mut self, frame: ReceiveFrame) -> Result<(), Trouble> {
        let answered = frame.settled.len() as u64;
        self.unanswered = self
            .unanswered
            .checked_sub(answered)
            .ok_or_else(|| Trouble::new("an acknowledgement of a notice was answered that was not sent".to_owned()))?;
        if let Some(refusal) = frame.settled.into_iter().find_map(|answer| answer.refused) {
            return Err(Trouble::new(format!("a settlement was refused ({}): {}", refusal.reason, refusal.detail)));
        }
        if !frame.deliveries.is_empty() {
            return Err(Trouble::new("the sender got a message, which nobody sent to it".to_owned()));
        }
        for notice in frame.notices {
            let delivery_id = notice.delivery_id;
            self.notice(&frame.jws, notice)?;
            let outcome = Some(settlement::Outcome::Notice(NoticeAcknowledged {}));
            self.gathered.push(Settlement { delivery_id, outcome });
            if self.gathered.len() == GATHERED_MAX {
                self.flush().await?;
            }
        }
        self.shrink();
        if !self.gathered.is_empty() && self.flush_at.is_none() {
            self.flush_at = Some(Instant::now() + self.gather);
        }
        Ok(())
    }

    /// The receipt of a message, and the gateway's evidence of it.
    fn notice(&mut self, jws: &[String], notice: Notice) -> Result<(), Trouble> {
        let id: MessageId = notice.message_id.parse().map_err(|error| Trouble::of("a notice's message", &error))?;
        let (_, number) = self.epoch.read(&id);
        let pending = pending_of(&mut self.window, self.first, number)?;
        let missing = || Trouble::new("a notice lacks its receipt or its evidence".to_owned());
        let to = pending.to.and_then(|to| self.recipients.get_mut(to)).ok_or_else(missing)?;
        let receipt_json = to.batches.check(jws, notice.receipt.ok_or_else(missing)?)?;
        let receipt = Receipt::parse(&receipt_json).map_err(|refused| Trouble::refused("a receipt", &refused))?;
        let json = self.gateway.check(jws, notice.evidence.ok_or_else(missing)?)?;
        let evidence = Evidence::parse(&json).map_err(|refused| Trouble::refused("an evidence", &refused))?;
        let fits = receipt.opened
            && receipt.mid == id
            && receipt.org_s256 == pending.origin
            && evidence.evt == Event::ContentHandover
            && evidence.mid == id
            && evidence.org_s256 == pending.origin
            && evidence.rcp_s256 == Some(Digest::of(&receipt_json));
        if !fits {
            return Err(Trouble::new("a notice is not about the message that was sent".to_owned()));
        }
        if std::mem::replace(&mut pending.noticed, true) {
            return Err(Trouble::new("a notice came twice".to_owned()));
        }
        let now = now_ns();
        if self.counting.is_some_and(|window| window.counts(now)) {
            self.sent.notice.record(now.saturating_sub(pending.submitted_ns));
        }
        self.unsettled = self.unsettled.saturating_sub(1);
        self.sent.noticed += 1;
        Ok(())
    }

    /// Acknowledges what was gathered, and gives the credit back.
    pub(super) async fn flush(&mut self) -> Result<(), Trouble> {
        self.flush_at = None;
        let settlements = std::mem::take(&mut self.gathered);
        self.unanswered += settlements.len() as u64;
        let credit = u32::try_from(settlements.len()).unwrap_or(0);
        self.request(ReceiveRequest { credit, jws: Vec::new(), settlements }).await
    }

    pub(super) async fn request(&mut self, request: ReceiveRequest) -> Result<(), Trouble> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| Trouble::new("the gateway ended the stream of notices".to_owned()))
    }

    /// Forgets what has come back.
    fn shrink(&mut self) {
        while self.window.front().is_some_and(|pending| pending.acknowledged && pending.noticed) {
            self.window.pop_front();
            self.first += 1;
        }
    }
}

fn pending_of(window: &mut VecDeque<Pending>, first: u64, number: u64) -> Result<&mut Pending, Trouble> {
    let place = number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
    let pending = place.and_then(|place| window.get_mut(place));
    pending.ok_or_else(|| Trouble::new(format!("something came back for message {number}, which is not on its way")))
}
