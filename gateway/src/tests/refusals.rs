//! Refusals at submission: each check has a message that fails it alone, and each gives its own reason, a counter and nothing else.

use bytes::Bytes;
use tramite_proto::{
    ids::{CaseId, Digest, MessageId},
    pb::statement::v1::SealedMessage,
    reason::Reason,
    statement::{Origin, SealedPart},
};

use super::{
    adapter::{Adapter, Draft, random, two},
    world::World,
};

/// A message whose origin was changed before it was signed.
fn with(from: &Adapter, to: &Adapter, draft: &Draft, change: impl FnOnce(&mut Origin)) -> SealedMessage {
    let (mut origin, enc, ciphertext) = from.seal(draft, to);
    change(&mut origin);
    SealedMessage { origin: Some(from.sign(origin.to_json())), enc, ciphertext }
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[0] ^= 1;
    bytes.into()
}

type Cases = Vec<(&'static str, SealedMessage, Reason)>;

/// Messages that were changed on their way: what is wrong, the message, the reason.
fn tampered(caritas: &Adapter, inps: &Adapter) -> Cases {
    let changed = |change: fn(&mut SealedMessage)| {
        let mut message = caritas.message(&caritas.draft("inps"), inps);
        change(&mut message);
        message
    };
    vec![
        ("enc", changed(|message| message.enc = flipped(&message.enc)), Reason::EncMismatch),
        ("no enc", changed(|message| message.enc = Bytes::new()), Reason::EncMismatch),
        (
            "ciphertext",
            changed(|message| message.ciphertext = flipped(&message.ciphertext)),
            Reason::CiphertextMismatch,
        ),
        ("too large", changed(|message| message.ciphertext = vec![0; 70_000].into()), Reason::PayloadTooLarge),
        ("too short", changed(|message| message.ciphertext = vec![0; 100].into()), Reason::CiphertextMismatch),
        (
            "a byte of the origin",
            changed(|message| {
                let origin = message.origin.as_mut().unwrap();
                let text = String::from_utf8(origin.json.to_vec()).unwrap();
                origin.json = text.replace("routine", "urgent").into();
            }),
            Reason::InclusionInvalid,
        ),
        (
            "the signature",
            changed(|message| {
                let jws = &mut message.origin.as_mut().unwrap().jws;
                let at = jws.rfind('.').unwrap() + 1;
                let other = if jws.as_bytes()[at] == b'A' { "B" } else { "A" };
                jws.replace_range(at..=at, other);
            }),
            Reason::SignatureInvalid,
        ),
        ("an index out of bounds", changed(|message| message.origin.as_mut().unwrap().index = 9), Reason::BatchBounds),
        ("no JWS", changed(|message| message.origin.as_mut().unwrap().jws = "a.b".to_owned()), Reason::BatchMalformed),
        ("no origin", changed(|message| message.origin = None), Reason::FieldInvalid),
    ]
}

/// Messages that their issuer signed and that may not pass all the same.
fn not_allowed(caritas: &Adapter, inps: &Adapter) -> Cases {
    let draft = || caritas.draft("inps");
    let said = |change: fn(&mut Origin)| with(caritas, inps, &draft(), change);
    let to = |to: &str| caritas.message(&Draft { to: to.to_owned(), ..draft() }, inps);
    vec![
        ("nobody of that name", to("prefettura"), Reason::UnknownRecipient),
        ("a pair without a rule", to("comune"), Reason::PolicyDenied),
        (
            "a type without a rule",
            said(|origin| origin.mt = "tramite.body.v1.DocumentRequest".into()),
            Reason::PolicyDenied,
        ),
        ("no such type", said(|origin| origin.mt = "tramite.body.v1.Rumour".into()), Reason::FieldInvalid),
        ("no such purpose", said(|origin| origin.pur = "CURIOSITY".into()), Reason::PurposeNotAllowed),
        ("no such legal basis", said(|origin| origin.lb = "BECAUSE".into()), Reason::LegalBasisNotAllowed),
        (
            "expired",
            said(|origin| (origin.iat, origin.exp) = (origin.iat - 900, origin.iat - 300)),
            Reason::MessageExpired,
        ),
        (
            "from the future",
            said(|origin| (origin.iat, origin.exp) = (origin.iat + 900, origin.iat + 1_800)),
            Reason::IssuedInFuture,
        ),
        ("another key id", said(|origin| origin.ct.kid = "enc-of-nobody".parse().unwrap()), Reason::KeyUnknown),
        (
            "an update as an opening",
            said(|origin| origin.mt = "tramite.body.v1.ReferralUpdate".into()),
            Reason::CaseMismatch,
        ),
        (
            "a part that is not here",
            said(|origin| origin.parts = vec![SealedPart { len: 116, s256: Digest::of(b"") }]),
            Reason::PartMissing,
        ),
    ]
}

#[tokio::test]
async fn every_check_refuses_with_its_own_reason_and_is_counted() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    for (what, message, reason) in tampered(&caritas, &inps).into_iter().chain(not_allowed(&caritas, &inps)) {
        let label = format!("reason=\"{reason}\"");
        let before = world.metric("refused_total", &label).await;
        let refused = caritas.submit(&message).await.expect_err(what);
        assert_eq!(refused.reason, reason, "{what}: {refused}");
        assert_eq!(world.metric("refused_total", &label).await, before + 1.0, "{what}");
    }
    assert_eq!(world.metric("accepted_total", "").await, 0.0);
    assert!(inps.receive(8).await.is_quiet().await);
}

#[tokio::test]
async fn a_statement_of_another_member_is_refused_whoever_carries_it() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let message = inps.message(&inps.draft("caritas"), &caritas);
    assert_eq!(caritas.submit(&message).await.unwrap_err().reason, Reason::IssuerMismatch);
    // Signed by inps in caritas' name.
    let (origin, enc, ciphertext) = caritas.seal(&caritas.draft("inps"), &inps);
    let forged = SealedMessage { origin: Some(inps.sign(origin.to_json())), enc, ciphertext };
    assert_eq!(caritas.submit(&forged).await.unwrap_err().reason, Reason::IssuerMismatch);
}

#[tokio::test]
async fn a_sender_without_a_published_key_is_told_to_publish_it() {
    let world = World::new().await;
    let inps = Adapter::join(&world, "inps").await;
    let caritas = Adapter::of(&world, "caritas");
    let message = caritas.message(&caritas.draft("inps"), &inps);
    let refused = caritas.submit(&message).await.unwrap_err();
    assert_eq!((refused.reason, refused.retryable()), (Reason::SignerUnknown, true));
    caritas.publish(1).await.unwrap();
    caritas.submit(&message).await.unwrap();
}

#[tokio::test]
async fn a_case_that_nobody_opened_cannot_be_moved() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let draft = Draft {
        case: Some(CaseId::from(MessageId::new(0, random()))),
        message_type: "tramite.body.v1.ReferralUpdate",
        status: "cancelled",
        reason: Some("DUPLICATE"),
        ..caritas.draft("inps")
    };
    assert_eq!(caritas.submit(&caritas.message(&draft, &inps)).await.unwrap_err().reason, Reason::CaseUnknown);
}
