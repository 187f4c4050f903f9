//! A recipient takes what is right, and nothing else: without one of its checks one of these cases passes.

use tramite_proto::pb::exchange::v1::FramedMessage;

use super::*;
use crate::bench::{
    fixture::{Fixture, framed},
    letter::Letter,
};

/// A delivery before it is made: a case changes one thing.
struct Parcel<'a> {
    fixture: &'a Fixture,
    to: &'a str,
    /// Who signs the origin, and the acceptance.
    signers: [EcdsaSigner; 2],
}

impl Parcel<'_> {
    /// As the gateway delivers it, once the case has changed what it is about.
    fn delivery(&self, change: impl FnOnce(&mut FramedMessage, &mut Evidence)) -> (Vec<String>, Delivery) {
        let (setup, mut jws) = (&self.fixture.setup, Vec::new());
        let (from, to) = (SENDER.parse().unwrap(), self.to.parse().unwrap());
        let key = client::encryption_key(&setup.folder, self.to).unwrap();
        let letter = Letter::seal(&from, &to, &key, setup.content, &[7; 400], None).unwrap();
        let (epoch, at_ns) = (setup.epoch(), now_ns());
        let iat = epoch.unix_s(at_ns);
        let json = letter.write(&epoch.message(at_ns, 0), &epoch.conversation(at_ns, 0), iat);
        let mut acceptance = self.fixture.evidence(Event::SubmissionAcceptance, &Origin::parse(&json).unwrap());
        let [sender, gateway] = &self.signers;
        let mut message = FramedMessage {
            origin: Some(framed(&mut jws, sender, iat, json)),
            enc: letter.enc,
            ciphertext: letter.ciphertext,
            traceparent: String::new(),
        };
        change(&mut message, &mut acceptance);
        let acceptance = framed(&mut jws, gateway, iat, acceptance.to_json());
        (jws, Delivery { delivery_id: 1, message: Some(message), acceptance: Some(acceptance), attempt: 1 })
    }
}

fn changed(bytes: &bytes::Bytes) -> bytes::Bytes {
    let mut bytes = bytes.to_vec();
    bytes[0] ^= 1;
    bytes.into()
}

#[tokio::test]
async fn a_delivery_of_which_anything_is_not_right_ends_the_bench() {
    let fixture = Fixture::new().await;
    let (requests, _line) = mpsc::channel(AHEAD);
    let mut recipient = Recipient::new(&fixture.setup, "recipient-1", requests, Rc::default()).unwrap();
    let gateway = || fixture.pen_of_the_gateway();
    let parcel = |to, signers| Parcel { fixture: &fixture, to, signers };
    let right = || parcel("recipient-1", [fixture.pen(SENDER), gateway()]);
    let other = Digest::of(b"another");
    let cases = [
        ("the ciphertext", right().delivery(|message, _| message.ciphertext = changed(&message.ciphertext))),
        ("the encapsulated key", right().delivery(|message, _| message.enc = changed(&message.enc))),
        ("the proof", right().delivery(|message, _| message.origin.as_mut().unwrap().index = 1)),
        ("the origin's signer", parcel("recipient-1", [fixture.pen("recipient-2"), gateway()]).delivery(|_, _| {})),
        (
            "the acceptance's signer",
            parcel("recipient-1", [fixture.pen(SENDER), fixture.pen(SENDER)]).delivery(|_, _| {}),
        ),
        ("whom it is for", parcel("recipient-2", [fixture.pen(SENDER), gateway()]).delivery(|_, _| {})),
        ("the accepted origin", right().delivery(|_, acceptance| acceptance.org_s256 = other)),
        ("the accepted message", right().delivery(|_, acceptance| acceptance.mid = acceptance.jti)),
        (
            "the event",
            right().delivery(|_, acceptance| {
                (acceptance.evt, acceptance.peer_s256) = (Event::ContentHandover, None);
                acceptance.rcp_s256 = Some(other);
            }),
        ),
    ];
    for (what, (jws, delivery)) in cases {
        assert!(recipient.take(&jws, delivery).is_err(), "{what} was not right");
    }
    let (jws, delivery) = right().delivery(|_, _| {});
    recipient.take(&jws, delivery.clone()).unwrap();
    assert_eq!(recipient.gathered.len(), 1);
    assert!(recipient.take(&jws, delivery).is_err(), "it was delivered twice");
}
