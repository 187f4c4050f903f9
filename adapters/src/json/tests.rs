//! What the JSON form promises: what is written is read, what is wrong is said in words, what is shown can be read again.

use tramite_proto::pb::body::v1::{Date, body::Kind, person_identifier};

use super::*;
use crate::request::Request;

const REFERRAL: &str = r#"{
  "kind": "referral", "to": "inps", "purpose": "RIGHTS_SCREENING", "legal_basis": "GDPR-6-1-E", "priority": "urgent",
  "attachments": ["delega.pdf", {"file": "fogli/isee.xml", "document": "ISEE"}],
  "referral": {
    "person": {
      "identifiers": [{"codice_fiscale": "RSSMRA80A01A944I", "assurance": "verified"}, {"local_case": "caritas/12"}],
      "surname": "Prova", "given_name": "Esempio", "sex": "not_stated", "born": "1980-01", "homeless": true,
      "addresses": [{"kind": "shelter", "municipality": "Bologna"}]
    },
    "benefits": ["ADI"], "mandate": {"kind": "CONSENT", "given": "2026-11-02"}
  }
}"#;

fn wrong(text: &str) -> String {
    parse_send(text).expect_err("must be refused").to_string()
}

#[test]
fn a_referral_is_read_with_every_member() {
    let SendRequest { request, files } = parse_send(REFERRAL).expect("a referral");
    let Request::Referral(request) = request else { panic!("not a referral: {request:?}") };
    let sending = request.sending.expect("sending");
    assert_eq!((request.to.as_str(), sending.purpose.as_str()), ("inps", "RIGHTS_SCREENING"));
    assert_eq!(sending.priority, pb::Priority::Urgent as i32);
    let referral = request.referral.expect("referral");
    let person = referral.person.expect("person");
    assert_eq!(person.born, Some(Date { year: 1980, month: 1, day: 0 }));
    assert_eq!(person.sex, body::Sex::NotStated as i32);
    assert_eq!(
        person.identifiers[0].kind,
        Some(person_identifier::Kind::CodiceFiscale("RSSMRA80A01A944I".into())),
        "an identifier keeps its kind"
    );
    assert_eq!(files.len(), 2);
    assert_eq!((files[0].name.as_str(), files[0].media_type.as_str()), ("delega.pdf", "application/pdf"));
    assert_eq!((files[1].name.as_str(), files[1].document.as_str()), ("isee.xml", "ISEE"));
}

#[test]
fn an_unknown_member_is_named_with_its_line() {
    let said = wrong(&REFERRAL.replace("surname\"", "surnme\""));
    assert!(said.contains("surnme") && said.contains("surname") && said.contains("line 7"), "{said}");
}

#[test]
fn a_wrong_word_is_answered_with_the_right_ones() {
    let said = wrong(&REFERRAL.replace("not_stated", "unknown"));
    assert_eq!(said, "referral.person.sex: `unknown` is none of male, female, not_stated");
    let said = wrong(&REFERRAL.replace("\"kind\": \"referral\"", "\"kind\": \"letter\""));
    assert!(said.starts_with("kind: `letter` is none of referral,"), "{said}");
}

#[test]
fn a_wrong_date_is_said_with_an_example() {
    let said = wrong(&REFERRAL.replace("2026-11-02", "02/11/2026"));
    assert_eq!(said, "referral.mandate.given: `02/11/2026` is not a date: write 1980-01-31, 1980-01 or 1980");
}

#[test]
fn a_file_that_would_lead_out_of_the_folder_is_refused() {
    for file in ["../secret.pdf", "/etc/passwd", "a/../../b", "a\\\\b", "", "a//b", "./a"] {
        let said = wrong(&REFERRAL.replace("delega.pdf", file));
        assert!(said.starts_with("attachments.0: "), "{file}: {said}");
    }
}

#[test]
fn a_member_of_another_kind_is_refused() {
    let said = wrong(
        r#"{"kind": "referral_update", "case_id": "x", "referral_update": {"status": "received"}, "referral": {}}"#,
    );
    assert_eq!(said, "referral: does not belong to a message of kind `referral_update`");
    let said = wrong(r#"{"kind": "referral_update", "referral_update": {"status": "received"}}"#);
    assert_eq!(said, "case_id: is missing: name the case that it moves");
    let said = wrong(r#"{"kind": "document_request", "document_request": {}}"#);
    assert_eq!(said, "to: is missing: name the institution that it goes to");
    let said = wrong(r#"{"kind": "referral", "to": "inps"}"#);
    assert_eq!(said, "the member `referral` with the body is missing");
}

#[test]
fn an_identifier_has_exactly_one_kind() {
    let said = wrong(&REFERRAL.replace("{\"local_case\": \"caritas/12\"}", "{\"issuer\": \"caritas\"}"));
    assert!(said.starts_with("referral.person.identifiers.1: an identifier has exactly one of"), "{said}");
}

#[test]
fn what_is_shown_can_be_read_again() {
    let Request::Referral(request) = parse_send(REFERRAL).expect("a referral").request else {
        panic!("not a referral")
    };
    let body = body::Body {
        kind: request.referral.clone().map(Kind::Referral),
        attachments: vec![body::Attachment { name: "a.pdf".into(), length: 3, ..Default::default() }],
        content_key: vec![7_u8; 32].into(),
    };
    let message = pb::ReceivedMessage { message_id: "m".into(), body: Some(body), ..Default::default() };
    let shown = message_to_json(&message);
    let again = json!({"kind": "referral", "to": "inps", "referral": shown["referral"]});
    let Request::Referral(read) = parse_send(&again.to_string()).expect("what was shown").request else { panic!() };
    assert_eq!(read.referral, request.referral);
    assert_eq!(shown["attachments"][0]["name"], "a.pdf");
    assert!(!shown.to_string().contains("content_key"), "the content key is never shown");
}

#[test]
fn a_value_stands_as_json_itself() {
    let text = r#"{"kind": "document_response", "case_id": "c", "document_response": {"status": "provided", "documents": [
        {"document": "DID", "value": {"data": "2026-01-01"}}, {"document": "RESIDENZA", "confirmed": false}]}}"#;
    let Request::DocumentResponse(request) = parse_send(text).expect("a response").request else { panic!() };
    let documents = request.response.expect("response").documents;
    assert_eq!(
        documents[0].answer,
        Some(body::document_provided::Answer::ValueJson(r#"{"data":"2026-01-01"}"#.into()))
    );
    assert_eq!(documents[1].answer, Some(body::document_provided::Answer::Confirmed(false)));
}

#[test]
fn a_text_that_is_too_long_is_not_read() {
    let said = wrong(&" ".repeat(TEXT_MAX + 1));
    assert!(said.contains("at most"), "{said}");
}

#[test]
fn the_examples_of_the_documentation_are_messages() {
    let text = include_str!("../../SPOOL.md");
    let examples: Vec<&str> = text.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let SendRequest { request, files } = parse_send(example).expect("a message");
        let sending = request.sending();
        assert!(sending.purpose.parse::<tramite_proto::vocabulary::Purpose>().is_ok(), "{}", sending.purpose);
        assert!(
            sending.legal_basis.parse::<tramite_proto::vocabulary::LegalBasis>().is_ok(),
            "{}",
            sending.legal_basis
        );
        assert!(!files.is_empty());
        let body = request.body().expect("a body");
        assert_eq!(tramite_proto::validate::draft(&body), Ok(()));
    }
}
