//! Frames (FORMATS.md §5) in both directions: what the second implementation wrote byte by byte (`frames.json`) is read here, and
//! every statement in it stands alone again and verifies; what is framed here goes to `make.py --check`.
use std::fmt;

use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};

use super::theirs::{hash, hex, list, statement, text, vectors, verifying_key};
use crate::{
    batch::{self, Framer},
    ids::Digest,
    pb::{
        exchange::v1::{
            Delivery, FramedMessage, Notice, ReceiveFrame, Refusal, SettlementAnswer, SubmitAnswer, SubmitFrame,
            SubmitResult, submit_result::Result as Answer,
        },
        statement::v1::{FramedStatement, Statement},
    },
    reason::Refused,
    statement,
};

/// A frame of any kind: its batches, the statements in it and the messages that their contents come with.
trait Frame: Message + Default + PartialEq + fmt::Debug {
    fn jws(&self) -> &[String];
    fn framed(&self) -> Vec<FramedStatement>;
    fn messages(&self) -> Vec<FramedMessage>;

    fn alone(&self) -> Result<Vec<Statement>, Refused> {
        self.framed().into_iter().map(|framed| batch::unframe(self.jws(), framed)).collect()
    }
}

impl Frame for SubmitFrame {
    fn jws(&self) -> &[String] {
        &self.jws
    }

    fn framed(&self) -> Vec<FramedStatement> {
        self.messages.iter().map(|message| message.origin.clone().unwrap()).collect()
    }

    fn messages(&self) -> Vec<FramedMessage> {
        self.messages.clone()
    }
}

impl Frame for SubmitAnswer {
    fn jws(&self) -> &[String] {
        &self.jws
    }

    fn framed(&self) -> Vec<FramedStatement> {
        let of = |result: &SubmitResult| match result.result.clone().unwrap() {
            Answer::Accepted(acceptance) => Some(acceptance),
            Answer::Refused(refusal) => refusal.evidence,
        };
        self.results.iter().filter_map(of).collect()
    }

    fn messages(&self) -> Vec<FramedMessage> {
        Vec::new()
    }
}

impl Frame for ReceiveFrame {
    fn jws(&self) -> &[String] {
        &self.jws
    }

    fn framed(&self) -> Vec<FramedStatement> {
        let delivered =
            self.deliveries.iter().flat_map(|one| [one.message.clone().unwrap().origin, one.acceptance.clone()]);
        let noticed = self.notices.iter().flat_map(|one| [one.receipt.clone(), one.evidence.clone()]);
        let settled = self.settled.iter().map(|one| one.refused.clone().and_then(|refused| refused.evidence));
        delivered.chain(noticed).chain(settled).flatten().collect()
    }

    fn messages(&self) -> Vec<FramedMessage> {
        self.deliveries.iter().map(|one| one.message.clone().unwrap()).collect()
    }
}

/// Reads one frame of the second implementation; gives it back, for what only its kind has.
fn read<F: Frame>(made: &Value) -> F {
    let bytes = hex(&made["frame"]);
    let frame = F::decode(&*bytes).unwrap();
    assert_eq!(F::decode(&*hex(&made["same"])).unwrap(), frame, "other bytes of the same frame");
    // Nothing of it was overlooked: both sides write the same.
    assert_eq!(frame.encode_to_vec(), bytes);
    assert_eq!(frame.jws(), list(&made["jws"]).iter().map(text).collect::<Vec<_>>());
    let (alone, expected) = (frame.alone().unwrap(), list(&made["statements"]));
    assert_eq!(alone, expected.iter().map(|one| statement(one, &one["jws"])).collect::<Vec<_>>());
    let mut origins = Vec::new();
    for (one, expected) in alone.iter().zip(expected) {
        let issuer = text(&expected["issuer"]);
        let header = batch::verify(&one.jws, &verifying_key(issuer)).unwrap();
        batch::check_inclusion(one, &header).unwrap();
        let read = statement::Statement::parse(&one.json).unwrap();
        assert_eq!(read.issuer().as_str(), issuer);
        batch::check_issuer(&header, read.issuer()).unwrap();
        if let statement::Statement::Origin(origin) = read {
            origins.push(origin);
        }
    }
    // What is sealed stands beside the origin that names its digests.
    let (messages, contents) = (frame.messages(), list(&made["contents"]));
    assert_eq!((messages.len(), messages.len()), (contents.len(), origins.len()));
    for ((message, content), origin) in messages.iter().zip(contents).zip(&origins) {
        assert_eq!(message.enc, hex(&content["enc"]));
        assert_eq!(Digest::of(&message.ciphertext), Digest(hash(&content["ciphertext_sha256"])));
        assert_eq!((origin.ct.enc_s256, origin.ct.s256), (Digest::of(&message.enc), Digest::of(&message.ciphertext)));
    }
    frame
}

#[test]
fn frames_of_the_second_implementation_are_read_and_their_statements_stand_alone_again() {
    let vectors = vectors("frames.json");
    let made = |kind: &str| list(&vectors["read"]).iter().find(|made| made["kind"] == kind).unwrap();
    let submit: SubmitFrame = read(made("SubmitFrame"));
    assert_eq!((submit.frame_id, submit.jws.len(), submit.messages.len()), (1 << 40, 2, 5));
    assert!(submit.messages[0].traceparent.starts_with("00-0af7") && submit.messages[1].traceparent.is_empty());
    let places: Vec<_> = submit.framed().iter().map(|one| (one.jws_index, one.index)).collect();
    assert_eq!(places, [(0, 0), (1, 2), (1, 0), (0, 1), (1, 1)], "messages of two batches, mixed");

    let answer: SubmitAnswer = read(made("SubmitAnswer"));
    assert_eq!((answer.frame_id, answer.jws.len(), answer.results.len()), (1 << 40, 2, 4));
    let refused: Vec<_> = answer.results.iter().filter_map(|one| one.result.clone()).filter_map(refusal).collect();
    let [denied, limited] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!((&*denied.reason, &*denied.detail, denied.retryable), ("POLICY_DENIED", "Not agreed: è così.", false));
    assert_eq!((&*limited.reason, limited.retryable, limited.retry_after_ms), ("RATE_LIMITED", true, 1_500));
    assert!(denied.evidence.is_some() && limited.evidence.is_none());

    let receive: ReceiveFrame = read(made("ReceiveFrame"));
    let delivered: Vec<_> = receive.deliveries.iter().map(|one| (one.delivery_id, one.attempt)).collect();
    assert_eq!(delivered, [(300, 1), (301, 2)]);
    assert_eq!((receive.notices[0].delivery_id, receive.notices[0].attempt), (7, 1));
    let settled: Vec<_> = receive.settled.iter().map(|one| (one.delivery_id, one.refused.is_some())).collect();
    assert_eq!(settled, [(1, false), (2, true)]);
}

fn refusal(answer: Answer) -> Option<Refusal> {
    match answer {
        Answer::Refused(refusal) => Some(refusal),
        Answer::Accepted(_) => None,
    }
}

#[test]
fn a_statement_that_points_at_another_batch_is_refused() {
    for made in list(&vectors("frames.json")["refused"]) {
        let frame = SubmitFrame::decode(&*hex(&made["frame"])).unwrap();
        let verified = frame.alone().and_then(|alone| {
            let header = batch::verify(&alone[0].jws, &verifying_key("caritas"))?;
            batch::check_inclusion(&alone[0], &header)
        });
        assert_eq!(verified.unwrap_err().reason.as_str(), text(&made["reason"]), "{}", made["why"]);
    }
}

/// Frames of all kinds that carry the statements of some batches, each batch of at least two; what `make.py --check` reads.
pub(super) fn made_here(statements: &[Statement]) -> Vec<Value> {
    let mut framer = Framer::new();
    let mut messages: Vec<_> = statements.iter().map(|one| message(framer.frame(one))).collect();
    // Mixed, so that places in the list and in the frame differ.
    messages.reverse();
    let submit = SubmitFrame { frame_id: u64::MAX, jws: framer.into_jws(), messages };

    let mut framer = Framer::new();
    let framed: Vec<_> = statements.iter().map(|one| framer.frame(one)).collect();
    let (accepted, refused) = framed.split_at(framed.len() / 2);
    let accepted = accepted.iter().cloned().map(Answer::Accepted);
    let refused = refused.iter().cloned().map(|evidence| {
        let (reason, detail) = ("POLICY_DENIED".to_owned(), "Perché no.".to_owned());
        Answer::Refused(Refusal { reason, detail, evidence: Some(evidence), retryable: true, retry_after_ms: 300 })
    });
    let results = accepted.chain(refused).map(|result| SubmitResult { result: Some(result), sequence: 0 }).collect();
    let answer = SubmitAnswer { frame_id: 1, jws: framer.into_jws(), results };

    let mut framer = Framer::new();
    let mut receive = ReceiveFrame::default();
    for (id, pair) in (1_u64..).zip(statements.chunks_exact(2)) {
        let [first, second] = [&pair[0], &pair[1]].map(|one| framer.frame(one));
        if id % 2 == 0 {
            let (receipt, evidence) = (Some(first), Some(second));
            receive.notices.push(Notice {
                delivery_id: id,
                message_id: "m".into(),
                receipt,
                evidence,
                attempt: 1,
                sequence: 0,
            });
        } else {
            let (message, acceptance) = (Some(message(first)), Some(second));
            receive.deliveries.push(Delivery { delivery_id: id, message, acceptance, attempt: 200 });
        }
        receive.settled.push(SettlementAnswer { delivery_id: id, refused: None, retry: false });
    }
    receive.jws = framer.into_jws();
    vec![told("SubmitFrame", &submit), told("SubmitAnswer", &answer), told("ReceiveFrame", &receive)]
}

fn message(origin: FramedStatement) -> FramedMessage {
    let (enc, ciphertext) = (Bytes::from_static(&[1; 32]), Bytes::from_static(&[2; 528]));
    FramedMessage { origin: Some(origin), enc, ciphertext, traceparent: "00-trace".into() }
}

fn told<F: Frame>(kind: &str, frame: &F) -> Value {
    let alone: Vec<_> = frame.alone().unwrap().iter().map(super::ours::told).collect();
    json!({"kind": kind, "frame": hex::encode(frame.encode_to_vec()), "statements": alone})
}
