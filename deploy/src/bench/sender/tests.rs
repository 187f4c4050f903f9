//! The sender takes the acceptances and notices of what it sent, each once, and nothing else: without one of its checks one of these
//! cases passes.

use tramite_proto::{
    pb::exchange::v1::{Notice, SettlementAnswer, SubmitResult, submit_result},
    statement::{Event, Evidence, Origin, Receipt},
};

use super::*;
use crate::bench::{
    fixture::{Fixture, framed},
    letter::ReceiptForm,
};

/// A sender that has submitted one message, its origin, and where the requests of the sender arrive.
async fn after_one_message(fixture: &Fixture) -> (Sender, Origin, mpsc::Receiver<ReceiveRequest>) {
    let ((frames, mut submitted), (requests, line)) = (mpsc::channel(AHEAD), mpsc::channel(AHEAD));
    let client = client::exchange(&fixture.setup.folder, SENDER, &fixture.setup.address).unwrap();
    let mut sender = Sender::new(&fixture.setup, client, frames, requests).unwrap();
    sender.submit(1, false).await.unwrap();
    let frame = submitted.recv().await.unwrap();
    let origin = Origin::parse(&frame.messages[0].origin.as_ref().unwrap().json).unwrap();
    (sender, origin, line)
}

#[tokio::test]
async fn an_acceptance_that_is_not_right_or_comes_twice_ends_the_bench() {
    let fixture = Fixture::new().await;
    let (mut sender, origin, _line) = after_one_message(&fixture).await;
    let answer = |pen: &EcdsaSigner, change: &dyn Fn(&mut Evidence)| {
        let (mut jws, mut evidence) = (Vec::new(), fixture.evidence(Event::SubmissionAcceptance, &origin));
        change(&mut evidence);
        let accepted = framed(&mut jws, pen, origin.iat, evidence.to_json());
        let result = Some(submit_result::Result::Accepted(accepted));
        SubmitAnswer { frame_id: 0, jws, results: vec![SubmitResult { result, ..SubmitResult::default() }] }
    };
    let (gateway, other) = (fixture.pen_of_the_gateway(), Digest::of(b"another"));
    let cases: [(&str, SubmitAnswer); 4] = [
        ("the signer", answer(&fixture.pen("recipient-1"), &|_| {})),
        ("the origin", answer(&gateway, &|evidence| evidence.org_s256 = other)),
        ("the message", answer(&gateway, &|evidence| evidence.mid = evidence.jti)),
        (
            "the event",
            answer(&gateway, &|evidence| {
                (evidence.evt, evidence.peer_s256, evidence.rcp_s256) = (Event::ContentHandover, None, Some(other));
            }),
        ),
    ];
    for (what, answer) in cases {
        assert!(sender.answered(answer).is_err(), "{what} was not right");
    }
    let right = answer(&gateway, &|_| {});
    sender.answered(right.clone()).unwrap();
    assert_eq!(sender.unacknowledged, 0);
    assert!(sender.answered(right).is_err(), "it came twice");
}

#[tokio::test]
async fn a_notice_that_is_not_right_or_comes_twice_ends_the_bench() {
    let fixture = Fixture::new().await;
    let (mut sender, origin, _line) = after_one_message(&fixture).await;
    let to = origin.aud.as_str().to_owned();
    let form = ReceiptForm::new(&origin.aud, &origin.iss).unwrap();
    let (identity, jti) = (Digest::of(&origin.to_json()), sender.epoch.message(now_ns(), 1 << 49));
    let written = form.write(&jti, &origin.jti, &identity, &origin.ct.s256, &origin.ptc, origin.iat);
    let notice = |by: [&EcdsaSigner; 2], change: &dyn Fn(&mut Receipt, &mut Evidence)| {
        let (mut jws, mut receipt) = (Vec::new(), Receipt::parse(&written).unwrap());
        let mut evidence = fixture.evidence(Event::ContentHandover, &origin);
        evidence.rcp_s256 = Some(Digest::of(&written));
        change(&mut receipt, &mut evidence);
        let receipt = Some(framed(&mut jws, by[0], origin.iat, receipt.to_json()));
        let evidence = Some(framed(&mut jws, by[1], origin.iat, evidence.to_json()));
        let message_id = origin.jti.to_string();
        ReceiveFrame {
            jws,
            notices: vec![Notice { delivery_id: 1, message_id, receipt, evidence, attempt: 1, sequence: 0 }],
            ..ReceiveFrame::default()
        }
    };
    let (recipient, gateway, other) = (fixture.pen(&to), fixture.pen_of_the_gateway(), Digest::of(b"another"));
    let cases = [
        ("the receipt's signer", notice([&gateway, &gateway], &|_, _| {})),
        ("the evidence's signer", notice([&recipient, &recipient], &|_, _| {})),
        (
            "the receipt's origin",
            notice([&recipient, &gateway], &|receipt, evidence| {
                receipt.org_s256 = other;
                evidence.rcp_s256 = Some(Digest::of(&receipt.to_json()));
            }),
        ),
        ("the receipt of the evidence", notice([&recipient, &gateway], &|_, evidence| evidence.rcp_s256 = Some(other))),
        ("the origin of the evidence", notice([&recipient, &gateway], &|_, evidence| evidence.org_s256 = other)),
        ("the message of the evidence", notice([&recipient, &gateway], &|_, evidence| evidence.mid = evidence.jti)),
    ];
    for (what, frame) in cases {
        assert!(sender.noticed(frame).await.is_err(), "{what} was not right");
    }
    let right = notice([&recipient, &gateway], &|_, _| {});
    sender.noticed(right.clone()).await.unwrap();
    assert_eq!(sender.unsettled, 0);
    assert!(sender.noticed(right).await.is_err(), "it came twice");
    sender.flush().await.unwrap();
    sender.window.clear();
    assert!(!sender.has_all_back(), "the acknowledgement of the notice was not answered");
    let answer = || ReceiveFrame {
        settled: vec![SettlementAnswer { delivery_id: 1, refused: None, retry: false }],
        ..ReceiveFrame::default()
    };
    sender.noticed(answer()).await.unwrap();
    assert!(sender.has_all_back());
    assert!(sender.noticed(answer()).await.is_err(), "it was answered twice");
}
