//! Signatures and their spelling. The signers are those of proto/vectors/signers.json.
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn field(signer: &str, name: &str) -> Vec<u8> {
    let signers: Value = serde_json::from_str(include_str!("../../vectors/signers.json")).unwrap();
    hex::decode(signers[signer][name].as_str().unwrap()).unwrap()
}

pub(crate) fn certificate(signer: &str) -> Vec<u8> {
    field(signer, "certificate")
}

/// One of the signers of the vectors: caritas, inps, gateway.
pub(crate) fn signer(name: &str) -> EcdsaSigner {
    EcdsaSigner::from_pkcs8(name, &certificate(name), &field(name, "test_signing_key_pkcs8")).unwrap()
}

pub(crate) fn verifying_key(name: &str) -> VerifyingKey {
    VerifyingKey::from_certificate(&certificate(name)).unwrap()
}

#[test]
fn a_signature_verifies_under_its_own_key_and_bytes_only() {
    let signature = signer("caritas").sign(b"input").unwrap();
    assert!(verifying_key("caritas").verifies(b"input", &signature));
    assert!(!verifying_key("caritas").verifies(b"inpuT", &signature));
    assert!(!verifying_key("inps").verifies(b"input", &signature));
    assert!(!verifying_key("caritas").verifies(b"input", &[0; 64]));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let pkcs8 = field("caritas", "test_signing_key_pkcs8");
    let error = EcdsaSigner::from_pkcs8("caritas", &certificate("inps"), &pkcs8).unwrap_err();
    assert!(matches!(error, SignError::KeyOfAnotherCertificate), "{error}");
    let error = EcdsaSigner::from_pkcs8("caritas", b"no certificate", &pkcs8).unwrap_err();
    assert!(matches!(error, SignError::CertificateUnreadable), "{error}");
    let error = EcdsaSigner::from_pkcs8("caritas", &certificate("caritas"), b"no key").unwrap_err();
    assert!(matches!(error, SignError::KeyUnreadable), "{error}");
}

#[test]
fn a_signer_shows_no_key() {
    let key = hex::encode(&field("caritas", "test_signing_key_pkcs8")[36..68]);
    let shown = format!("{:?}", signer("caritas"));
    assert!(shown.contains("caritas") && !shown.contains(&key));
}

#[test]
fn only_p256_points_on_the_curve_are_keys() {
    let point = point_of(&certificate("caritas")).unwrap();
    let spki = [&SPKI_P256[..], &point].concat();
    assert!(VerifyingKey::from_spki(&spki).is_some());
    assert!(VerifyingKey::from_spki(&point).is_none());
    assert!(VerifyingKey::from_spki(&spki[..90]).is_none());
    // The same point compressed is another spelling of the key.
    let compressed = [&SPKI_P256[..], &[2 + (point[64] & 1)], &point[1..33]].concat();
    assert!(VerifyingKey::from_spki(&compressed).is_none());
    let mut off_curve = spki.clone();
    off_curve[90] ^= 1;
    assert!(VerifyingKey::from_spki(&off_curve).is_none());
    let mut p384 = spki;
    p384[22] = 0x22;
    assert!(VerifyingKey::from_spki(&p384).is_none());
}

#[test]
fn a_certificate_over_its_limit_is_not_read() {
    let mut long = certificate("caritas");
    assert!(VerifyingKey::from_certificate(&long).is_some());
    long.push(0);
    assert!(VerifyingKey::from_certificate(&long).is_none(), "a byte behind it");
    let over = certificate("over_4_kib");
    assert!(over.len() > CERTIFICATE_MAX);
    let der = CertificateDer::from(over.as_slice());
    EndEntityCert::try_from(&der).expect("nothing but its length is wrong with it");
    assert!(VerifyingKey::from_certificate(&over).is_none());
}

#[test]
fn a_jws_has_three_parts_and_one_spelling() {
    let jws = Compact::sign(&signer("caritas"), b"{}", b"{}").unwrap();
    Compact::parse(&jws).unwrap();
    let (signed, signature) = jws.rsplit_once('.').unwrap();
    let last = signature.chars().last().unwrap();
    // 64 bytes leave four bits unused in the last character; each other setting of them is another spelling of the same bytes.
    let other = char::from(u8::try_from(last).unwrap() + 1);
    for wrong in [
        signed.to_owned(),
        format!("{jws}."),
        format!(".{jws}"),
        format!("{jws}="),
        format!("{jws}\n"),
        format!(" {jws}"),
        format!("{signed}.{}{other}", &signature[..85]),
        format!("{signed}.{}", &signature[..84]),
        format!("{signed}.{signature}AA"),
        jws.replacen('e', "+", 1),
        String::new(),
        "..".to_owned(),
    ] {
        assert!(Compact::parse(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_jws_over_two_kib_is_refused_and_one_of_two_kib_is_read() {
    // Header and signature are 4 + 1 + 1 + 86 characters.
    let payload = vec![b' '; (JWS_MAX - 91) / 4 * 3];
    let jws = Compact::sign(&signer("caritas"), b"{}", &payload).unwrap();
    assert!(jws.len() <= JWS_MAX && jws.len() > JWS_MAX - 4);
    Compact::parse(&jws).unwrap();
    let jws = Compact::sign(&signer("caritas"), b"{}", &[&payload[..], b"   "].concat()).unwrap();
    assert!(Compact::parse(&jws).unwrap_err().to_string().contains("2 KiB"));
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..600), text in "[A-Za-z0-9_.=+-]{0,200}") {
        let _ = VerifyingKey::from_spki(&bytes);
        let _ = VerifyingKey::from_certificate(&bytes);
        let _ = Compact::parse(&text);
    }

    #[test]
    fn a_changed_certificate_does_not_break_it(place in 0_usize..1000, byte: u8, cut in 0_usize..1000) {
        let mut certificate = certificate("caritas");
        let length = certificate.len();
        certificate[place % length] = byte;
        let _ = VerifyingKey::from_certificate(&certificate);
        let _ = VerifyingKey::from_certificate(&certificate[..cut % length]);
    }
}
