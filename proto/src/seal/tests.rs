//! Every check of FORMATS.md §3. Bodies with a forged padding or commitment are in proto/vectors/sealed.json.
use proptest::prelude::*;

use super::*;
use crate::{
    pb::body::v1::{self as body, body::Kind},
    statement::{Origin, SealedPart},
};

/// What a context points to.
#[derive(Clone)]
struct Bound {
    jti: MessageId,
    cid: ConversationId,
    case: CaseId,
    iss: InstitutionName,
    aud: InstitutionName,
    mt: String,
    kid: KeyId,
    exp: i64,
}

impl Bound {
    fn new() -> Self {
        let jti = MessageId::new(1_795_400_000_000, [1; 10]);
        Self {
            jti,
            cid: ConversationId::new(1_795_400_000_000, [2; 10]),
            case: jti.into(),
            iss: "caritas".parse().unwrap(),
            aud: "inps".parse().unwrap(),
            mt: "tramite.body.v1.Referral".into(),
            kid: "inps-1".parse().unwrap(),
            exp: 1_795_500_000,
        }
    }

    fn context(&self) -> Context<'_> {
        let Self { jti, cid, case, iss, aud, mt, kid, exp } = self;
        Context { jti, cid, case, iss, aud, mt, kid, exp: *exp }
    }
}

fn key(suite: Suite) -> PrivateKey {
    PrivateKey::from_bytes(suite, &[7; 32]).unwrap()
}

fn sealed(suite: Suite, body: &[u8]) -> Sealed {
    let bound = Bound::new();
    seal(&key(suite).public_key(bound.kid.clone()), &bound.context(), body, [5; 32]).unwrap()
}

fn reopened(suite: Suite, bound: &Bound, sealed: &Sealed) -> Result<Bytes, Refused> {
    open(&key(suite), &bound.context(), &sealed.enc, &sealed.ciphertext, &sealed.ptc)
}

fn reason<T: fmt::Debug>(result: Result<T, Refused>) -> &'static str {
    result.unwrap_err().reason.as_str()
}

#[test]
fn what_was_sealed_opens_at_every_size() {
    for suite in Suite::all() {
        for length in [0, 1, 476, 477, 20_000, BODY_MAX] {
            let body = vec![3; length];
            let sealed = sealed(suite, &body);
            assert_eq!(sealed.enc.len(), suite.enc_len());
            assert!(is_ciphertext_len(sealed.ciphertext.len() as u64));
            assert_eq!(sealed.ptc, commitment::commit(&[5; 32], &body));
            assert_eq!(reopened(suite, &Bound::new(), &sealed).unwrap(), body);
            let opened =
                open_salted(&key(suite), &Bound::new().context(), &sealed.enc, &sealed.ciphertext, &sealed.ptc);
            assert_eq!(opened.unwrap().salt, [5; 32]);
        }
    }
}

#[test]
fn a_body_that_does_not_fit_is_not_sealed() {
    let bound = Bound::new();
    let to = key(Suite::X25519).public_key(bound.kid.clone());
    let error = seal(&to, &bound.context(), &vec![0; BODY_MAX + 1], [0; 32]).unwrap_err();
    assert_eq!(error, SealError::BodyTooLong(BODY_MAX + 1));
}

#[test]
fn it_opens_in_no_other_context() {
    let (honest, later) = (Bound::new(), MessageId::new(1_795_400_000_001, [1; 10]));
    for suite in Suite::all() {
        let sealed = sealed(suite, b"body");
        let others = [
            Bound { jti: later, ..honest.clone() },
            Bound { cid: ConversationId::new(1, [1; 10]), ..honest.clone() },
            Bound { case: later.into(), ..honest.clone() },
            Bound { iss: "comune".parse().unwrap(), ..honest.clone() },
            Bound { aud: "comune".parse().unwrap(), ..honest.clone() },
            Bound { mt: "tramite.body.v1.DocumentRequest".into(), ..honest.clone() },
            Bound { kid: "inps-2".parse().unwrap(), ..honest.clone() },
            Bound { exp: honest.exp + 1, ..honest.clone() },
        ];
        for other in &others {
            assert_eq!(reason(reopened(suite, other, &sealed)), "DECRYPTION_FAILED");
        }
    }
}

#[test]
fn fields_of_a_context_do_not_run_into_each_other() {
    let honest = Bound::new();
    let one = Bound { iss: "ab".parse().unwrap(), aud: "c".parse().unwrap(), ..honest.clone() };
    let other = Bound { iss: "a".parse().unwrap(), aud: "bc".parse().unwrap(), ..honest };
    assert_ne!(one.context().aad(), other.context().aad());
}

#[test]
fn another_key_suite_or_length_does_not_open() {
    let bound = Bound::new();
    let honest = sealed(Suite::X25519, b"body");
    let other = PrivateKey::from_bytes(Suite::X25519, &[8; 32]).unwrap();
    let open =
        |key: &PrivateKey, enc: &[u8], ciphertext: &[u8]| open(key, &bound.context(), enc, ciphertext, &honest.ptc);
    assert_eq!(reason(open(&other, &honest.enc, &honest.ciphertext)), "DECRYPTION_FAILED");
    assert_eq!(reason(open(&key(Suite::XWing), &honest.enc, &honest.ciphertext)), "DECRYPTION_FAILED");
    for enc in [&honest.enc[..31], &[&honest.enc[..], b"x"].concat(), &[], &[0; 32], &[0; 1120]] {
        assert_eq!(reason(open(&key(Suite::X25519), enc, &honest.ciphertext)), "DECRYPTION_FAILED");
    }
    for ciphertext in [&honest.ciphertext[..honest.ciphertext.len() - 1], &[], &[0; 16], &[0; 65_536 + 17]] {
        assert_eq!(reason(open(&key(Suite::X25519), &honest.enc, ciphertext)), "DECRYPTION_FAILED");
    }
}

#[test]
fn a_body_that_is_not_the_one_committed_to_is_refused() {
    let mut other = sealed(Suite::X25519, b"body");
    other.ptc = commitment::commit(&[5; 32], b"bodz");
    assert_eq!(reason(reopened(Suite::X25519, &Bound::new(), &other)), "COMMITMENT_MISMATCH");
}

#[test]
fn a_key_of_small_order_is_not_sealed_to() {
    let bound = Bound::new();
    let zero = PublicKey::new(Suite::X25519, bound.kid.clone(), &[0; 32]).unwrap();
    assert_eq!(seal(&zero, &bound.context(), b"body", [0; 32]).unwrap_err(), SealError::KeyUnusable);
}

#[test]
fn public_keys_have_their_suites_length_and_form() {
    let kid: KeyId = "k".parse().unwrap();
    for (suite, exact) in [(Suite::X25519, 32), (Suite::XWing, 1216)] {
        let public = key(suite).public_key(kid.clone());
        assert_eq!(public.as_bytes().len(), exact);
        assert_eq!(PublicKey::new(suite, kid.clone(), public.as_bytes()), Some(public.clone()));
        for length in [0, 31, 33, 1215, 1217, exact + 1] {
            assert_eq!(PublicKey::new(suite, kid.clone(), &vec![1; length]), None);
        }
        assert_eq!(suite.as_str().parse(), Ok(suite));
    }
    // A coefficient that is not below q: no ML-KEM key (FIPS 203 §7.2).
    assert_eq!(PublicKey::new(Suite::XWing, kid, &[0xff; 1216]), None);
    assert_eq!("X25519".parse::<Suite>(), Err(UnknownSuite));
    assert!(Suite::XWing.strength() > Suite::X25519.strength());
}

#[test]
fn private_keys_differ_are_32_bytes_and_show_nothing() {
    for suite in Suite::all() {
        let key = PrivateKey::generate(suite).unwrap();
        assert_ne!(*key.to_bytes(), *PrivateKey::generate(suite).unwrap().to_bytes());
        assert!(PrivateKey::from_bytes(suite, &[0; 31]).is_none());
        let shown = format!("{key:?}");
        let bytes = format!("{:?}", key.to_bytes());
        assert!(!shown.contains(bytes.trim_matches(['[', ']'])) && !shown.contains(&hex::encode(*key.to_bytes())));
    }
    let opened = Opened { body: Bytes::from_static(b"secret"), salt: [1; 32] };
    assert!(!format!("{opened:?}").contains("secret"));
}

fn origin() -> Origin {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../../vectors/statements.json")).unwrap();
    Origin::parse(vectors[0]["statement"]["json"].as_str().unwrap().as_bytes()).unwrap()
}

fn with_kind(kind: Kind) -> body::Body {
    body::Body { kind: Some(kind), ..body::Body::default() }
}

#[test]
fn a_body_of_another_kind_than_its_origin_is_refused() {
    let origin = origin();
    check_body(&origin, &with_kind(Kind::Referral(body::Referral::default()))).unwrap();
    let request = with_kind(Kind::DocumentRequest(body::DocumentRequest::default()));
    assert_eq!(reason(check_body(&origin, &request)), "BODY_MISMATCH");
    assert_eq!(reason(check_body(&origin, &body::Body::default())), "BODY_MISMATCH");
    check_body(&Origin { mt: "tramite.body.v1.DocumentRequest".into(), ..origin }, &request).unwrap();
}

#[test]
fn a_body_with_another_status_or_reason_than_its_origin_is_refused() {
    let (status, reason_code) = (String::from("rejected"), String::from("NO_CAPACITY"));
    let kinds = [
        Kind::ReferralUpdate(body::ReferralUpdate {
            status: status.clone(),
            reason: reason_code.clone(),
            ..Default::default()
        }),
        Kind::DocumentResponse(body::DocumentResponse {
            status: status.clone(),
            reason: reason_code.clone(),
            ..Default::default()
        }),
        Kind::DocumentRequestUpdate(body::DocumentRequestUpdate { status, reason: reason_code, ..Default::default() }),
    ];
    for kind in kinds {
        let honest = Origin {
            mt: message_type(&kind).into(),
            cs: "rejected".into(),
            rsn: Some("NO_CAPACITY".into()),
            ..origin()
        };
        let body = with_kind(kind);
        check_body(&honest, &body).unwrap();
        assert_eq!(reason(check_body(&Origin { cs: "accepted".into(), ..honest.clone() }, &body)), "BODY_MISMATCH");
        assert_eq!(reason(check_body(&Origin { rsn: None, ..honest.clone() }, &body)), "BODY_MISMATCH");
        assert_eq!(reason(check_body(&Origin { rsn: Some("OTHER".into()), ..honest }, &body)), "BODY_MISMATCH");
    }
    let opening = with_kind(Kind::Referral(body::Referral::default()));
    assert_eq!(reason(check_body(&Origin { cs: "accepted".into(), ..origin() }, &opening)), "BODY_MISMATCH");
}

#[test]
fn a_body_with_other_attachments_than_its_origin_is_refused() {
    let part = SealedPart { len: 16 + 10, s256: Digest([0; 32]) };
    let honest = Origin { parts: vec![part], ..origin() };
    let attachment = body::Attachment { length: 10, ..Default::default() };
    let content_key = Bytes::from_static(&[1; 32]);
    let kind = Some(Kind::Referral(body::Referral::default()));
    let body = body::Body { kind, attachments: vec![attachment.clone()], content_key };
    check_body(&honest, &body).unwrap();
    let wrong = [
        body::Body { attachments: vec![], content_key: Bytes::new(), ..body.clone() },
        body::Body { attachments: vec![attachment.clone(), attachment.clone()], ..body.clone() },
        body::Body { attachments: vec![body::Attachment { length: 11, ..attachment }], ..body.clone() },
        body::Body { content_key: Bytes::from_static(&[1; 31]), ..body.clone() },
    ];
    for wrong in &wrong {
        assert_eq!(reason(check_body(&honest, wrong)), "BODY_MISMATCH");
    }
    let keyed = body::Body { attachments: vec![], ..body };
    assert_eq!(reason(check_body(&origin(), &keyed)), "BODY_MISMATCH");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_changed_byte_does_not_open(xwing: bool, in_enc: bool, place: prop::sample::Index, bit in 0_u8..8) {
        let suite = if xwing { Suite::XWing } else { Suite::X25519 };
        let mut changed = sealed(suite, b"body");
        let field = if in_enc { &mut changed.enc } else { &mut changed.ciphertext };
        let mut bytes = field.to_vec();
        let place = place.index(bytes.len());
        // The top bit of an X25519 key means nothing (RFC 7748 §5); HPKE binds enc, so it counts here like every other.
        bytes[place] ^= 1 << bit;
        *field = bytes.into();
        prop_assert_eq!(reason(reopened(suite, &Bound::new(), &changed)), "DECRYPTION_FAILED");
    }

    #[test]
    fn no_bytes_break_it(
        enc in prop::collection::vec(any::<u8>(), 0..40),
        long in prop::collection::vec(any::<u8>(), 1120..=1120),
        ciphertext in prop::collection::vec(any::<u8>(), 0..600),
        whole in prop::collection::vec(any::<u8>(), 528..=528),
        public in prop::collection::vec(any::<u8>(), 1216..=1216),
    ) {
        let bound = Bound::new();
        for suite in Suite::all() {
            for enc in [&enc, &long, &long[..32].to_vec()] {
                for ciphertext in [&ciphertext, &whole] {
                    prop_assert!(open(&key(suite), &bound.context(), enc, ciphertext, &Digest([0; 32])).is_err());
                }
            }
            for bytes in [&public[..], &enc] {
                if let Some(to) = PublicKey::new(suite, bound.kid.clone(), bytes) {
                    let _ = seal(&to, &bound.context(), b"body", [0; 32]);
                }
            }
        }
    }
}
