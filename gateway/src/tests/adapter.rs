//! An adapter made by hand: it signs, seals, submits, receives and settles, and nothing else.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use tramite_certs::{
    identity::Role,
    secrets::{self, load_encryption_keys},
};
use tramite_proto::{
    batch,
    clock::Clock,
    ids::{CaseId, ConversationId, Digest, KeyId, MessageId},
    jws::EcdsaSigner,
    pb::{
        directory::v1::{PublishKeyRequest, directory_client::DirectoryClient},
        exchange::v1::{
            Delivery, Notice, NoticeAcknowledged, ReceiveFrame, ReceiveRequest, RetryLater, Settlement,
            SettlementAnswer, SubmitOneRequest, exchange_client::ExchangeClient, settlement::Outcome,
        },
        statement::v1::{FramedStatement, SealedMessage, Statement},
    },
    reason::Refused,
    seal::{Context, PrivateKey, PublicKey, seal},
    statement::{Content, Evidence, KeyRecord, LevelOfAssurance, Origin, Priority, Receipt, SealedPart},
};

use super::world::{SOON, TestClock, World, name};

pub(super) struct Adapter {
    pub(super) name: String,
    pub(super) channel: Channel,
    pub(super) signer: EcdsaSigner,
    pub(super) key: PublicKey,
    pub(super) clock: TestClock,
    pub(super) chain: Vec<Vec<u8>>,
    /// When its key records were made: the same number is the same record.
    pub(super) born_s: i64,
}

/// What a message is to say; the rest is made up.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) id: MessageId,
    pub(super) case: Option<CaseId>,
    pub(super) conversation: Option<ConversationId>,
    pub(super) message_type: &'static str,
    pub(super) status: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) to: String,
    pub(super) lives_s: i64,
    pub(super) deadline_s: Option<i64>,
    pub(super) parts: Vec<SealedPart>,
    pub(super) body: Bytes,
}

pub(super) fn random() -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&uuid::Uuid::new_v4().as_bytes()[..10]);
    bytes
}

impl Adapter {
    /// Connected, and with its key published.
    pub(super) async fn join(world: &World, who: &str) -> Self {
        let adapter = Self::of(world, who);
        adapter.publish(1).await.unwrap();
        adapter
    }

    /// With its certificates and keys.
    pub(super) fn of(world: &World, who: &str) -> Self {
        let bundle = world.bundle(Role::Institution, who);
        let domain = "tramite.test".parse().unwrap();
        let loaded =
            secrets::load_signing(&bundle.join("sign.pem"), &bundle.join("sign.key"), &domain, Role::Institution, who)
                .unwrap();
        let (kid, key): (KeyId, PrivateKey) = load_encryption_keys(&bundle).unwrap().remove(0);
        Self {
            name: who.to_owned(),
            channel: world.channel(&bundle),
            signer: loaded.signer,
            key: key.public_key(kid),
            clock: world.clock.clone(),
            born_s: world.clock.now_s(),
            chain: loaded.chain,
        }
    }

    pub(super) async fn publish(&self, seq: u64) -> Result<bool, Refused> {
        let now = self.born_s;
        let record = KeyRecord {
            iss: name(&self.name),
            seq,
            iat: now,
            nbf: now - 60,
            exp: now + 30 * 86_400,
            x5c: self.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            enc: self.key.clone(),
        };
        let key = Some(self.sign(record.to_json()));
        let answer = DirectoryClient::new(self.channel.clone()).publish_key(PublishKeyRequest { key }).await;
        answer.map(|answer| answer.into_inner().published).map_err(refused)
    }

    pub(super) fn sign(&self, json: Bytes) -> Statement {
        batch::sign(&self.signer, self.clock.now_s(), &[json]).unwrap().remove(0)
    }

    /// A receipt as a settlement: its batch and itself.
    pub(super) fn signed(&self, receipt: &Receipt) -> (Vec<String>, Outcome) {
        let Statement { json, jws, .. } = self.sign(receipt.to_json());
        (vec![jws], Outcome::Receipt(FramedStatement { json, jws_index: 0, index: 0, path: Vec::new() }))
    }

    pub(super) fn exchange(&self) -> ExchangeClient<Channel> {
        ExchangeClient::new(self.channel.clone())
    }

    pub(super) fn draft(&self, to: &str) -> Draft {
        Draft {
            id: MessageId::new(self.clock.now_ms(), random()),
            case: None,
            conversation: None,
            message_type: "tramite.body.v1.Referral",
            status: "requested",
            reason: None,
            to: to.to_owned(),
            lives_s: 86_400,
            deadline_s: None,
            parts: Vec::new(),
            body: Bytes::from_static(b"sealed for the recipient alone"),
        }
    }

    /// Seals the body and says what origin says.
    pub(super) fn seal(&self, draft: &Draft, to: &Adapter) -> (Origin, Bytes, Bytes) {
        let (cid, iat) = (draft.conversation.unwrap_or_else(|| ConversationId::new(0, random())), self.clock.now_s());
        let case = draft.case.unwrap_or_else(|| CaseId::from(draft.id));
        let (iss, aud, exp) = (name(&self.name), name(&draft.to), iat + draft.lives_s);
        let context = Context {
            jti: &draft.id,
            cid: &cid,
            case: &case,
            iss: &iss,
            aud: &aud,
            mt: draft.message_type,
            kid: to.key.kid(),
            exp,
        };
        let sealed = seal(&to.key, &context, &draft.body, [7; 32]).unwrap();
        let ct = Content {
            suite: to.key.suite(),
            kid: to.key.kid().clone(),
            enc_s256: Digest::of(&sealed.enc),
            s256: Digest::of(&sealed.ciphertext),
            len: sealed.ciphertext.len() as u64,
        };
        let origin = Origin {
            jti: draft.id,
            cid,
            case,
            in_reply_to: None,
            iss,
            aud,
            mt: draft.message_type.to_owned(),
            cs: draft.status.to_owned(),
            rsn: draft.reason.map(str::to_owned),
            iat,
            exp,
            dl: draft.deadline_s.map(|seconds| iat + seconds),
            pri: Priority::Routine,
            pur: tramite_proto::vocabulary::Purpose::CODES[0].to_owned(),
            lb: tramite_proto::vocabulary::LegalBasis::CODES[0].to_owned(),
            agr: "INPS-PER-TUTTI".parse().unwrap(),
            op: "op-1".parse().unwrap(),
            loc: "desk-1".parse().unwrap(),
            loa: LevelOfAssurance::Substantial,
            ct,
            ptc: sealed.ptc,
            parts: draft.parts.clone(),
            sj: Vec::new(),
            lcp: None,
        };
        (origin, sealed.enc, sealed.ciphertext)
    }

    pub(super) fn message(&self, draft: &Draft, to: &Adapter) -> SealedMessage {
        let (origin, enc, ciphertext) = self.seal(draft, to);
        SealedMessage { origin: Some(self.sign(origin.to_json())), enc, ciphertext }
    }

    /// Submits one message; gives the evidence of its acceptance.
    pub(super) async fn submit(&self, message: &SealedMessage) -> Result<Evidence, Refused> {
        let request = SubmitOneRequest { message: Some(message.clone()) };
        let answer = self.exchange().submit_one(request).await.map_err(refused)?;
        Ok(Evidence::parse(&answer.into_inner().acceptance.unwrap().json).unwrap())
    }

    /// A referral, accepted.
    pub(super) async fn refer(&self, to: &Adapter) -> Draft {
        let draft = self.draft(&to.name);
        self.submit(&self.message(&draft, to)).await.unwrap();
        draft
    }

    pub(super) async fn receive(&self, credit: u32) -> Inbox {
        let (requests, stream) = mpsc::channel(16);
        requests.send(ReceiveRequest { credit, ..ReceiveRequest::default() }).await.unwrap();
        let frames = self.exchange().receive(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Inbox { requests, frames, deliveries: VecDeque::new(), notices: VecDeque::new(), settled: VecDeque::new() }
    }

    /// What the recipient signs over a delivery.
    pub(super) fn receipt(&self, delivery: &Delivered, opened: bool) -> Receipt {
        let origin = &delivery.origin;
        Receipt {
            jti: MessageId::new(self.clock.now_ms(), random()),
            iss: name(&self.name),
            aud: origin.iss.clone(),
            mid: origin.jti,
            org_s256: Digest::of(&delivery.json),
            ct_s256: origin.ct.s256,
            ptc: origin.ptc,
            at: self.clock.now_s(),
            opened,
            rsn: (!opened).then(|| "DECRYPTION_FAILED".to_owned()),
            sj: Vec::new(),
            lcp: None,
        }
    }
}

pub(super) fn refused(status: Status) -> Refused {
    Refused::from_status(&status).unwrap_or_else(|| panic!("a refusal with a reason, not {status:?}"))
}

/// A delivery, read.
pub(super) struct Delivered {
    pub(super) id: u64,
    pub(super) attempt: u32,
    pub(super) origin: Origin,
    pub(super) json: Bytes,
    pub(super) ciphertext: Bytes,
    pub(super) acceptance: Evidence,
}

/// A notice, read.
pub(super) struct Noticed {
    pub(super) id: u64,
    pub(super) message_id: String,
    pub(super) receipt: Option<Receipt>,
    pub(super) evidence: Option<Evidence>,
}

/// An open Receive stream.
pub(super) struct Inbox {
    pub(super) requests: mpsc::Sender<ReceiveRequest>,
    frames: Streaming<ReceiveFrame>,
    deliveries: VecDeque<Delivered>,
    notices: VecDeque<Noticed>,
    settled: VecDeque<SettlementAnswer>,
}

impl Inbox {
    async fn read(&mut self) -> Result<(), Status> {
        let frame = tokio::time::timeout(SOON, self.frames.message()).await.expect("a frame comes soon")?;
        let frame = frame.ok_or_else(|| Status::ok("ended"))?;
        let alone = |framed: FramedStatement| batch::unframe(&frame.jws, framed).unwrap().json;
        for Delivery { delivery_id, message, acceptance, attempt } in frame.deliveries {
            let message = message.unwrap();
            let json = alone(message.origin.unwrap());
            self.deliveries.push_back(Delivered {
                id: delivery_id,
                attempt,
                origin: Origin::parse(&json).unwrap(),
                json,
                ciphertext: message.ciphertext,
                acceptance: Evidence::parse(&alone(acceptance.unwrap())).unwrap(),
            });
        }
        for Notice { delivery_id, message_id, receipt, evidence, .. } in frame.notices {
            self.notices.push_back(Noticed {
                id: delivery_id,
                message_id,
                receipt: receipt.map(|receipt| Receipt::parse(&alone(receipt)).unwrap()),
                evidence: evidence.map(|evidence| Evidence::parse(&alone(evidence)).unwrap()),
            });
        }
        self.settled.extend(frame.settled);
        Ok(())
    }

    pub(super) async fn delivery(&mut self) -> Delivered {
        loop {
            if let Some(delivery) = self.deliveries.pop_front() {
                return delivery;
            }
            self.read().await.unwrap();
        }
    }

    pub(super) async fn notice(&mut self) -> Noticed {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return notice;
            }
            self.read().await.unwrap();
        }
    }

    /// Whether nothing comes for a while. Only to show that something held back stays back.
    pub(super) async fn is_quiet(&mut self) -> bool {
        let quiet = tokio::time::timeout(Duration::from_millis(300), self.read()).await.is_err();
        quiet && self.deliveries.is_empty() && self.notices.is_empty()
    }

    /// The refusal that ends the stream.
    pub(super) async fn end(&mut self) -> Refused {
        loop {
            if let Err(status) = self.read().await {
                return refused(status);
            }
        }
    }

    /// Says something of a delivery, and does not wait for the answer.
    pub(super) async fn say(&mut self, jws: Vec<String>, delivery_id: u64, outcome: Outcome) {
        let settlements = vec![Settlement { delivery_id, outcome: Some(outcome) }];
        self.requests.send(ReceiveRequest { credit: 1, jws, settlements }).await.unwrap();
    }

    /// The next answer, which is about this delivery; `retry`: about its having been put off.
    pub(super) async fn answer(&mut self, delivery_id: u64, retry: bool) -> Result<(), Refused> {
        loop {
            if let Some(answer) = self.settled.pop_front() {
                assert_eq!((answer.delivery_id, answer.retry), (delivery_id, retry));
                return answer.refused.map_or(Ok(()), |refusal| Err(Refused::from_refusal(&refusal)));
            }
            self.read().await.unwrap();
        }
    }

    pub(super) async fn settle(&mut self, jws: Vec<String>, delivery_id: u64, outcome: Outcome) -> Result<(), Refused> {
        let retry = matches!(outcome, Outcome::Retry(_));
        self.say(jws, delivery_id, outcome).await;
        self.answer(delivery_id, retry).await
    }

    pub(super) async fn sign_for(&mut self, by: &Adapter, delivery: u64, receipt: &Receipt) -> Result<(), Refused> {
        let (jws, outcome) = by.signed(receipt);
        self.settle(jws, delivery, outcome).await
    }

    pub(super) async fn opened(&mut self, by: &Adapter, delivery: &Delivered) {
        self.sign_for(by, delivery.id, &by.receipt(delivery, true)).await.unwrap();
    }

    pub(super) async fn later(&mut self, delivery: &Delivered, delay_ms: u64) {
        let reason = "DIRECTORY_UNAVAILABLE".to_owned();
        let later = RetryLater { delay_ms, reason, detail: "no key record yet".to_owned() };
        self.settle(Vec::new(), delivery.id, Outcome::Retry(later)).await.unwrap();
    }

    pub(super) async fn acknowledge(&mut self, notice: &Noticed) {
        self.settle(Vec::new(), notice.id, Outcome::Notice(NoticeAcknowledged {})).await.unwrap();
    }
}

/// Two who may talk: caritas refers to inps.
pub(super) async fn two(world: &World) -> (Arc<Adapter>, Arc<Adapter>) {
    (Arc::new(Adapter::join(world, "caritas").await), Arc::new(Adapter::join(world, "inps").await))
}
