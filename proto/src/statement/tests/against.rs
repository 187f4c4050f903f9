//! Statements against the clock, sealed bytes, and each other.
use super::*;

#[test]
fn an_origin_from_the_future_or_past_its_expiry_is_refused() {
    let origin = Origin::parse(fullest("origin").as_bytes()).unwrap();
    origin.check_issued(origin.iat - CLOCK_AHEAD_S_MAX).unwrap();
    let early = origin.check_issued(origin.iat - CLOCK_AHEAD_S_MAX - 1).unwrap_err();
    assert_eq!(early.reason, Reason::IssuedInFuture);
    origin.check_issued(i64::MIN).unwrap_err();
    origin.check_not_expired(origin.exp - 1).unwrap();
    assert_eq!(origin.check_not_expired(origin.exp).unwrap_err().reason, Reason::MessageExpired);
}

#[test]
fn other_sealed_bytes_than_the_origin_names_are_refused() {
    let mut origin = Origin::parse(fullest("origin").as_bytes()).unwrap();
    let (enc, ciphertext) = (vec![1; origin.ct.suite.enc_len()], vec![2; 528]);
    (origin.ct.enc_s256, origin.ct.s256, origin.ct.len) = (Digest::of(&enc), Digest::of(&ciphertext), 528);
    origin.check_content(&enc, &ciphertext).unwrap();
    let reason =
        |origin: &Origin, enc: &[u8], ciphertext: &[u8]| origin.check_content(enc, ciphertext).unwrap_err().reason;
    let changed = |bytes: &[u8]| {
        bytes.iter().enumerate().map(|(i, byte)| if i == 7 { byte ^ 1 } else { *byte }).collect::<Vec<_>>()
    };
    assert_eq!(reason(&origin, &changed(&enc), &ciphertext), Reason::EncMismatch);
    assert_eq!(reason(&origin, &enc, &changed(&ciphertext)), Reason::CiphertextMismatch);
    let longer = Content { len: 1040, ..origin.ct.clone() };
    assert_eq!(reason(&Origin { ct: longer, ..origin.clone() }, &enc, &ciphertext), Reason::CiphertextMismatch);
    let short = Content { enc_s256: Digest::of(b"short"), ..origin.ct.clone() };
    assert_eq!(reason(&Origin { ct: short, ..origin }, b"short", &ciphertext), Reason::EncMismatch);
}

#[test]
fn a_receipt_about_anything_else_is_refused() {
    let json = fullest("origin");
    let origin = Origin::parse(json.as_bytes()).unwrap();
    let honest = Receipt {
        iss: origin.aud.clone(),
        aud: origin.iss.clone(),
        mid: origin.jti,
        org_s256: identity(json.as_bytes()),
        ct_s256: origin.ct.s256,
        ptc: origin.ptc,
        ..Receipt::parse(fullest("receipt").as_bytes()).unwrap()
    };
    honest.check_against(&origin, json.as_bytes()).unwrap();
    let other = Digest([9; 32]);
    let wrong = [
        Receipt { iss: "comune".parse().unwrap(), ..honest.clone() },
        Receipt { aud: "comune".parse().unwrap(), ..honest.clone() },
        Receipt { mid: origin.in_reply_to.unwrap(), ..honest.clone() },
        Receipt { org_s256: other, ..honest.clone() },
        Receipt { ct_s256: other, ..honest.clone() },
        Receipt { ptc: other, ..honest },
    ];
    for wrong in &wrong {
        assert_eq!(wrong.check_against(&origin, json.as_bytes()).unwrap_err().reason, Reason::ReceiptMismatch);
    }
}

#[test]
fn evidence_about_anything_else_is_refused() {
    let json = fullest("origin");
    let origin = Origin::parse(json.as_bytes()).unwrap();
    let honest = Evidence {
        mid: origin.jti,
        org_s256: identity(json.as_bytes()),
        from: origin.iss.clone(),
        to: origin.aud.clone(),
        case: origin.case,
        ..Evidence::parse(fullest("evidence").as_bytes()).unwrap()
    };
    honest.check_against(&origin, json.as_bytes()).unwrap();
    let wrong = [
        Evidence { mid: origin.in_reply_to.unwrap(), ..honest.clone() },
        Evidence { org_s256: Digest([9; 32]), ..honest.clone() },
        Evidence { from: "comune".parse().unwrap(), ..honest.clone() },
        Evidence { to: "comune".parse().unwrap(), ..honest.clone() },
        Evidence { case: origin.jti.into(), ..honest },
    ];
    for wrong in &wrong {
        assert_eq!(wrong.check_against(&origin, json.as_bytes()).unwrap_err().reason, Reason::EvidenceInvalid);
    }
}
