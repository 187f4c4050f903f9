//! Promises of the ids: one spelling each, nothing malformed gets in.
use proptest::prelude::*;

use super::*;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

#[test]
fn a_uuid_has_one_spelling() {
    let id: MessageId = ID.parse().expect("canonical");
    assert_eq!(id.to_string(), ID);
    assert!(id.is_v7());
    for other in [
        ID.to_uppercase(),
        ID.replace('-', ""),
        format!("{{{ID}}}"),
        format!("urn:uuid:{ID}"),
        format!("{ID} "),
        String::new(),
        "01890a5dac-96-774b-bcce-b302099a8057".to_owned(),
    ] {
        assert_eq!(other.parse::<MessageId>(), Err(IdError::Uuid), "{other}");
    }
}

#[test]
fn a_message_id_carries_its_time_and_is_version_seven() {
    let id = MessageId::new(1_763_900_000_123, [0xFF; 10]);
    assert!(id.is_v7());
    assert_eq!(id.made_ms(), Some(1_763_900_000_123));
    assert!(MessageId::new(1_763_900_000_124, [0; 10]) > id, "later ids sort later");
    assert!(MessageId::new(-5, [1; 10]).is_v7());
    let v4: MessageId = "6fa459ea-ee8a-4ca4-894e-db77e160355e".parse().expect("a uuid");
    assert!(!v4.is_v7());
    assert_eq!(v4.made_ms(), None);
}

#[test]
fn ids_of_any_other_length_than_sixteen_bytes_are_refused() {
    for length in [0, 15, 17] {
        assert!(CaseId::from_bytes(&vec![0; length]).is_err());
    }
    let id = MessageId::new(1, [2; 10]);
    assert_eq!(CaseId::from_bytes(id.as_bytes()), Ok(CaseId::from(id)));
    assert_eq!(CaseId::from(id).opened_by(), id);
}

#[test]
fn a_digest_is_sha_256_and_has_one_spelling() {
    let digest = Digest::of(b"abc");
    assert_eq!(digest.to_hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let text = digest.to_string();
    assert_eq!(text.parse(), Ok(digest));
    assert!(format!("{text}=").parse::<Digest>().is_err(), "padding");
    // 43 characters carry 258 bits: the last two must be zero.
    assert!(format!("{}{}", &text[..42], '_').parse::<Digest>().is_err(), "trailing bits");
    assert!(text[..42].parse::<Digest>().is_err());
}

#[test]
fn institution_names_are_dns_labels() {
    for good in ["a", "inps", "citta-metropolitana", "0", &"x".repeat(63)] {
        assert!(good.parse::<InstitutionName>().is_ok(), "{good}");
    }
    for bad in ["", "-a", "a-", "A", "a.b", "a b", "città", "a/b", &"x".repeat(64)] {
        assert!(bad.parse::<InstitutionName>().is_err(), "{bad}");
    }
}

#[test]
fn a_key_id_is_a_safe_file_name() {
    assert!("2026-11.enc_1".parse::<KeyId>().is_ok());
    for bad in ["", ".", "..", ".hidden", "a/b", "a\\b", "a:b", &"k".repeat(65)] {
        assert!(bad.parse::<KeyId>().is_err(), "{bad}");
    }
}

#[test]
fn tokens_and_request_ids_have_their_alphabets() {
    assert!("INPS:BO/42".parse::<Token>().is_ok());
    assert!("INPS:BO/42".parse::<RequestId>().is_err());
    assert!("file.json:abc-1".parse::<RequestId>().is_ok());
    assert!("two words".parse::<Token>().is_err());
    assert!("x".repeat(65).parse::<Token>().is_err());
}

#[test]
fn errors_do_not_repeat_what_was_offered() {
    let problem = "RSSMRA80A01A944I".parse::<InstitutionName>().expect_err("upper case").to_string();
    assert!(!problem.contains("RSSMRA"), "{problem}");
}

proptest! {
    #[test]
    fn every_id_survives_text_bytes_and_json(bytes: [u8; 16], digest: [u8; 32]) {
        let id = MessageId::from_bytes(&bytes).expect("16 bytes");
        prop_assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
        let json = serde_json::to_string(&id).expect("json");
        prop_assert_eq!(serde_json::from_str::<MessageId>(&json).expect("back"), id);
        let digest = Digest(digest);
        let json = serde_json::to_string(&digest).expect("json");
        prop_assert_eq!(serde_json::from_str::<Digest>(&json).expect("back"), digest);
    }

    #[test]
    fn no_text_makes_an_id_panic(text in ".{0,80}") {
        let _ = text.parse::<MessageId>();
        let _ = text.parse::<Digest>();
        let _ = text.parse::<InstitutionName>();
        let _ = text.parse::<KeyId>();
    }
}
