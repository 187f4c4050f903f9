//! What the samples promise: real messages, plainly invented persons, known institutions and documents.

use std::collections::BTreeSet;

use tramite_proto::{
    pb::body::v1::{Body, body::Kind},
    validate,
};

use super::*;
use crate::{caritas, citta_metropolitana, comune, desk::office::Office, inps};

fn offices() -> [&'static Office; 4] {
    [&caritas::OFFICE, &comune::OFFICE, &citta_metropolitana::OFFICE, &inps::OFFICE]
}

#[test]
fn every_sample_is_a_message_that_an_adapter_would_send() {
    for sample in all().unwrap() {
        let referral = sample.request.referral.clone().unwrap();
        let body = Body { kind: Some(Kind::Referral(referral)), ..Body::default() };
        if let Err(problems) = validate::body(&body) {
            panic!("{}: {problems:?}", sample.name);
        }
    }
}

#[test]
fn the_samples_are_every_file_of_their_folder() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/samples");
    let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let known: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(on_disk, known);
    assert!(known.len() >= 12);
}

#[test]
fn every_name_says_plainly_that_the_person_is_invented() {
    let invented = ["Campione", "Esempio", "Fittizio", "Modello", "Prova"];
    for sample in all().unwrap() {
        let referral = sample.request.referral.unwrap();
        let household = referral.household.into_iter().filter_map(|member| member.person);
        for person in household.chain(referral.person) {
            let surname = person.surname.as_str();
            assert!(surname.is_empty() || invented.contains(&surname), "{}: {surname}", sample.name);
        }
    }
}

#[test]
fn institutions_and_the_documents_that_they_hold_are_known() {
    for sample in all().unwrap() {
        let known = |name: &str| offices().into_iter().find(|office| office.name == name);
        assert!(known(&sample.from).is_some() && known(&sample.request.to).is_some(), "{}", sample.name);
        for (institution, record) in &sample.held {
            let office = known(institution).unwrap();
            for document in record.keys() {
                assert!(office.holding(document).is_some(), "{}: {institution} does not hold {document}", sample.name);
            }
        }
    }
}

#[test]
fn a_sample_can_be_sent_as_it_is() {
    for (name, text) in FILES {
        let message = message_in(text).unwrap();
        assert!(parse_send(&message).is_ok(), "{name}");
    }
    assert_eq!(message_in(r#"{"kind":"referral"}"#), None, "a message of its own is left as it is");
}
