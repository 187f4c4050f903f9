//! Every check of FORMATS.md §1 that is made here, and §5. Batches with a forged header are in proto/vectors/batches.json.
use proptest::prelude::*;

use super::*;
use crate::jws::tests::{signer, verifying_key};

const AT: i64 = 1_795_400_000;

fn jsons(n: usize) -> Vec<Bytes> {
    (0..n).map(|i| Bytes::from(format!("{{\"i\":{i}}}"))).collect()
}

fn batch(n: usize) -> (Vec<Statement>, Header) {
    let statements = sign(&signer("caritas"), AT, &jsons(n)).unwrap();
    let header = verify(&statements[0].jws, &verifying_key("caritas")).unwrap();
    (statements, header)
}

fn reason<T: std::fmt::Debug>(result: Result<T, Refused>) -> &'static str {
    result.unwrap_err().reason.as_str()
}

#[test]
fn every_statement_of_every_size_of_batch_verifies() {
    for n in 1..=BATCH_MAX {
        let (statements, header) = batch(n);
        assert_eq!((header.n as usize, header.iss.as_str(), header.iat), (n, "caritas", AT));
        assert_eq!(statements.len(), n);
        for (place, statement) in statements.iter().enumerate() {
            assert_eq!((statement.index as usize, &statement.json), (place, &jsons(n)[place]));
            check_inclusion(statement, &header).unwrap();
        }
    }
    let (statements, header) = batch(1);
    assert!(statements[0].path.is_empty());
    assert_eq!(header.root, merkle::leaf(&statements[0].json));
}

#[test]
fn a_batch_takes_1_to_64_statements_of_at_most_16_kib() {
    let signer = signer("caritas");
    assert!(matches!(sign(&signer, AT, &[]), Err(SignError::BatchSize(0))));
    assert!(matches!(sign(&signer, AT, &jsons(65)), Err(SignError::BatchSize(65))));
    let long = Bytes::from(vec![b' '; STATEMENT_MAX + 1]);
    assert!(matches!(sign(&signer, AT, std::slice::from_ref(&long)), Err(SignError::StatementTooLong(_))));
    let whole = sign(&signer, AT, &[long.slice(1..)]).unwrap();
    let header = parse(&whole[0].jws).unwrap();
    check_inclusion(&whole[0], &header).unwrap();
    let too_long = Statement { json: long, ..whole[0].clone() };
    assert_eq!(reason(check_inclusion(&too_long, &header)), "STATEMENT_TOO_LARGE");
}

#[test]
fn a_batch_by_another_key_is_refused() {
    let (statements, _) = batch(3);
    assert_eq!(reason(verify(&statements[0].jws, &verifying_key("inps"))), "SIGNER_UNKNOWN");
    let point_only = VerifyingKey::from_spki(&spki("inps")).unwrap();
    assert_eq!(reason(verify(&statements[0].jws, &point_only)), "SIGNATURE_INVALID");
    let own = VerifyingKey::from_spki(&spki("caritas")).unwrap();
    verify(&statements[0].jws, &own).unwrap();
}

fn spki(name: &str) -> Vec<u8> {
    let der = crate::jws::tests::certificate(name);
    let der = rustls_pki_types::CertificateDer::from(der.as_slice());
    webpki::EndEntityCert::try_from(&der).unwrap().subject_public_key_info().to_vec()
}

#[test]
fn a_changed_byte_anywhere_in_the_jws_is_refused() {
    let (statements, _) = batch(5);
    let jws = &statements[0].jws;
    let key = verifying_key("caritas");
    for place in 0..jws.len() {
        let mut changed = jws.clone().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(verify(&changed, &key).is_err(), "at {place}");
    }
}

#[test]
fn a_place_out_of_bounds_is_refused() {
    let (statements, header) = batch(5);
    let good = &statements[1];
    let mut wrong = good.clone();
    wrong.index = 5;
    assert_eq!(reason(check_inclusion(&wrong, &header)), "BATCH_BOUNDS");
    wrong.index = u32::MAX;
    assert_eq!(reason(check_inclusion(&wrong, &header)), "BATCH_BOUNDS");
    let mut short = good.clone();
    short.path.pop();
    assert_eq!(reason(check_inclusion(&short, &header)), "BATCH_BOUNDS");
    let mut long = good.clone();
    long.path.push(Bytes::from_static(&[0; 32]));
    assert_eq!(reason(check_inclusion(&long, &header)), "BATCH_BOUNDS");
    for length in [0, 31, 33] {
        let mut element = good.clone();
        element.path[1] = Bytes::from(vec![0; length]);
        assert_eq!(reason(check_inclusion(&element, &header)), "BATCH_BOUNDS");
    }
}

#[test]
fn a_path_that_leads_elsewhere_is_refused() {
    let (statements, header) = batch(5);
    let mut path = statements[1].clone();
    let mut element = path.path[0].to_vec();
    element[31] ^= 1;
    path.path[0] = element.into();
    assert_eq!(reason(check_inclusion(&path, &header)), "INCLUSION_INVALID");
    let json = Statement { json: Bytes::from_static(b"{\"i\":9}"), ..statements[1].clone() };
    assert_eq!(reason(check_inclusion(&json, &header)), "INCLUSION_INVALID");
    let place = Statement { index: 0, ..statements[1].clone() };
    assert_eq!(reason(check_inclusion(&place, &header)), "INCLUSION_INVALID");
    let (_, other) = batch(6);
    let place = Statement { path: statements[1].path.clone(), ..statements[1].clone() };
    assert_eq!(reason(check_inclusion(&place, &Header { n: 5, ..other })), "INCLUSION_INVALID");
}

#[test]
fn a_statement_of_another_issuer_is_refused() {
    let (_, header) = batch(1);
    check_issuer(&header, &"caritas".parse().unwrap()).unwrap();
    assert_eq!(reason(check_issuer(&header, &"inps".parse().unwrap())), "ISSUER_MISMATCH");
}

#[test]
fn a_frame_carries_each_batch_once_and_its_statements_stand_alone_again() {
    let (first, _) = batch(5);
    let (second, _) = batch(2);
    let statements: Vec<_> = first.into_iter().chain(second).collect();
    let mut framer = Framer::new();
    let framed: Vec<_> = statements.iter().map(|statement| framer.frame(statement)).collect();
    assert_eq!(framer.batches(), 2);
    let jws = framer.into_jws();
    let again: Vec<_> = framed.into_iter().map(|framed| unframe(&jws, framed).unwrap()).collect();
    assert_eq!(again, statements);
    let beyond = FramedStatement { jws_index: 2, ..FramedStatement::default() };
    assert_eq!(reason(unframe(&jws, beyond)), "FRAME_INVALID");
    let beyond = FramedStatement { jws_index: u32::MAX, ..FramedStatement::default() };
    assert_eq!(reason(unframe(&[], beyond)), "FRAME_INVALID");
}

proptest! {
    #[test]
    fn no_bytes_break_it(text in "\\PC{0,300}", base64 in "[A-Za-z0-9_-]{0,200}\\.[A-Za-z0-9_-]{0,200}\\.[A-Za-z0-9_-]{80,90}") {
        let _ = parse(&text);
        let _ = parse(&base64);
    }

    #[test]
    fn no_header_or_payload_breaks_it(protected in prop::collection::vec(any::<u8>(), 0..200), payload in "\\PC{0,200}") {
        let jws = Compact::sign(&signer("caritas"), &protected, payload.as_bytes()).unwrap();
        prop_assert!(parse(&jws).is_err());
    }

    #[test]
    fn no_place_or_path_breaks_it(
        index: u32, n: u32, root: [u8; 32],
        json in prop::collection::vec(any::<u8>(), 0..40),
        path in prop::collection::vec(prop::collection::vec(any::<u8>(), 30..34), 0..9),
    ) {
        let (_, header) = (0, Header { x5t: Digest([0; 32]), iss: "a".parse().unwrap(), iat: 0, n, root });
        let path = path.into_iter().map(Bytes::from).collect();
        let statement = Statement { json: json.into(), jws: String::new(), index, path };
        prop_assert!(check_inclusion(&statement, &header).is_err());
    }

    #[test]
    fn a_changed_batch_never_verifies(place in 0_usize..600, byte in prop::sample::select(b"AQZaz09_-.".to_vec())) {
        let (statements, _) = batch(2);
        let mut jws = statements[0].jws.clone().into_bytes();
        let place = place % jws.len();
        prop_assume!(jws[place] != byte);
        jws[place] = byte;
        prop_assert!(verify(&String::from_utf8(jws).unwrap(), &verifying_key("caritas")).is_err());
    }
}
