//! A recipient that somebody wrote by hand: takes what `Receive` brings, piece by piece, and settles it as a test likes.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context, Result};
use tokio::{sync::mpsc::Sender, time::timeout};
use tonic::{Status, Streaming};
use tramite_proto::pb::{
    exchange::v1::{
        Delivery, Notice, NoticeAcknowledged, ReceiveFrame, ReceiveRequest, RetryLater, Settlement, SettlementAnswer,
        settlement::Outcome,
    },
    statement::v1::{FramedStatement, Statement},
};

use crate::{
    forge::{Object, Pen},
    raw::RawPeer,
};

/// How long one frame is waited for.
const FRAME_MAX: Duration = Duration::from_secs(20);

/// A delivery whose statements stand alone again.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// As it came.
    pub delivery: Delivery,
    /// The origin.
    pub origin: Statement,
    /// The gateway's acceptance.
    pub acceptance: Statement,
}

/// A notice whose statements stand alone again.
#[derive(Debug, Clone)]
pub struct Noticed {
    /// As it came.
    pub notice: Notice,
    /// The recipient's receipt.
    pub receipt: Option<Statement>,
    /// The gateway's evidence.
    pub evidence: Option<Statement>,
}

/// An open `Receive` stream.
#[derive(Debug)]
pub struct Receiving {
    up: Sender<ReceiveRequest>,
    down: Streaming<ReceiveFrame>,
    deliveries: VecDeque<Delivered>,
    notices: VecDeque<Noticed>,
    answers: VecDeque<SettlementAnswer>,
}

/// A statement of a frame with its JWS beside it.
pub(crate) fn alone(jws: &[String], framed: FramedStatement) -> Result<Statement> {
    let jws = jws.get(usize::try_from(framed.jws_index)?).context("a batch that the frame does not carry")?;
    Ok(Statement { json: framed.json, jws: jws.clone(), index: framed.index, path: framed.path })
}

impl Receiving {
    /// Opens the stream with some credit.
    ///
    /// # Errors
    /// The gateway's refusal.
    pub async fn open(peer: &RawPeer, credit: u32) -> Result<Self, Status> {
        let (up, down) = peer.receive(credit).await?;
        Ok(Self { up, down, deliveries: VecDeque::new(), notices: VecDeque::new(), answers: VecDeque::new() })
    }

    /// The next delivery.
    ///
    /// # Errors
    /// When the stream ends or none comes in time.
    pub async fn delivery(&mut self) -> Result<Delivered> {
        while self.deliveries.is_empty() {
            self.frame().await.context("no delivery")?;
        }
        self.deliveries.pop_front().context("one is there")
    }

    /// The next notice.
    ///
    /// # Errors
    /// When the stream ends or none comes in time.
    pub async fn notice(&mut self) -> Result<Noticed> {
        while self.notices.is_empty() {
            self.frame().await.context("no notice")?;
        }
        self.notices.pop_front().context("one is there")
    }

    /// What has come and was not taken yet, up to `count` of each kind; waits until there is something.
    ///
    /// # Errors
    /// When the stream ends or nothing comes in time.
    pub async fn next(&mut self, count: usize) -> Result<(Vec<Delivered>, Vec<Noticed>)> {
        while self.deliveries.is_empty() && self.notices.is_empty() {
            self.frame().await?;
        }
        let deliveries = self.deliveries.drain(..count.min(self.deliveries.len())).collect();
        Ok((deliveries, self.notices.drain(..count.min(self.notices.len())).collect()))
    }

    /// True when no delivery and no notice comes for a while: only then time is all there is to wait for.
    pub async fn silent(&mut self, for_a: Duration) -> bool {
        let silent = self.deliveries.is_empty() && self.notices.is_empty();
        silent && timeout(for_a, self.frame()).await.is_err()
    }

    /// How the stream ended.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn end(&mut self, within: Duration) -> Result<Status> {
        let end = timeout(within, async {
            loop {
                match self.down.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::ok("the stream ended"),
                    Err(status) => return status,
                }
            }
        });
        end.await.context("the stream goes on")
    }

    /// Settles a delivery with a receipt, signed by any pen.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn receipt(&mut self, delivery_id: u64, receipt: &Object, pen: &Pen) -> Result<SettlementAnswer> {
        let statement = pen.statement(&receipt.json())?;
        let framed = FramedStatement { json: statement.json, jws_index: 0, index: 0, path: Vec::new() };
        self.settle(delivery_id, Outcome::Receipt(framed), vec![statement.jws]).await
    }

    /// Settles up to 64 deliveries with receipts under one signature. One answer for each, in their order.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn receipts(&mut self, receipts: &[(u64, Object)], pen: &Pen) -> Result<Vec<SettlementAnswer>> {
        let jsons: Vec<Vec<u8>> = receipts.iter().map(|(_, receipt)| receipt.json()).collect();
        let statements = pen.batch(&jsons)?;
        let jws = statements.first().map(|statement| statement.jws.clone()).into_iter().collect();
        let settlement = |((delivery_id, _), statement): (&(u64, Object), Statement)| {
            let Statement { json, index, path, .. } = statement;
            let framed = FramedStatement { json, jws_index: 0, index, path };
            Settlement { delivery_id: *delivery_id, outcome: Some(Outcome::Receipt(framed)) }
        };
        let settlements = receipts.iter().zip(statements).map(settlement).collect();
        self.settle_all(settlements, jws).await
    }

    /// Acknowledges up to 64 notices. One answer for each, in their order.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn all_noticed(&mut self, delivery_ids: &[u64]) -> Result<Vec<SettlementAnswer>> {
        let settlement = |delivery_id: &u64| {
            let outcome = Some(Outcome::Notice(NoticeAcknowledged {}));
            Settlement { delivery_id: *delivery_id, outcome }
        };
        self.settle_all(delivery_ids.iter().map(settlement).collect(), Vec::new()).await
    }

    /// Puts a delivery off.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn later(&mut self, delivery_id: u64) -> Result<SettlementAnswer> {
        let later = RetryLater { delay_ms: 0, reason: "NACK_TRANSIENT".into(), detail: "not now".into() };
        self.settle(delivery_id, Outcome::Retry(later), Vec::new()).await
    }

    /// Acknowledges a notice.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn noticed(&mut self, delivery_id: u64) -> Result<SettlementAnswer> {
        self.settle(delivery_id, Outcome::Notice(NoticeAcknowledged {}), Vec::new()).await
    }

    async fn settle(&mut self, delivery_id: u64, outcome: Outcome, jws: Vec<String>) -> Result<SettlementAnswer> {
        let settlement = Settlement { delivery_id, outcome: Some(outcome) };
        self.settle_all(vec![settlement], jws).await?.pop().context("one is there")
    }

    async fn settle_all(&mut self, settlements: Vec<Settlement>, jws: Vec<String>) -> Result<Vec<SettlementAnswer>> {
        let count = settlements.len();
        let request = ReceiveRequest { credit: u32::try_from(count)?, jws, settlements };
        self.up.send(request).await.ok().context("the stream is closed")?;
        while self.answers.len() < count {
            self.frame().await.context("no answer to a settlement")?;
        }
        Ok(self.answers.drain(..count).collect())
    }

    async fn frame(&mut self) -> Result<()> {
        let frame =
            timeout(FRAME_MAX, self.down.message()).await.context("nothing came")??.context("the stream ended")?;
        for delivery in frame.deliveries {
            let message = delivery.message.clone().context("a message")?;
            let origin = alone(&frame.jws, message.origin.context("an origin")?)?;
            let acceptance = alone(&frame.jws, delivery.acceptance.clone().context("an acceptance")?)?;
            self.deliveries.push_back(Delivered { delivery, origin, acceptance });
        }
        for notice in frame.notices {
            let receipt = notice.receipt.clone().map(|framed| alone(&frame.jws, framed)).transpose()?;
            let evidence = notice.evidence.clone().map(|framed| alone(&frame.jws, framed)).transpose()?;
            self.notices.push_back(Noticed { notice, receipt, evidence });
        }
        self.answers.extend(frame.settled);
        Ok(())
    }
}
