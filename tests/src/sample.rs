//! Bodies to send, with invented persons: every field that a promise does not care about has a plausible value.

use tramite_proto::pb::{
    backoffice::v1::Sending,
    body::v1::{
        AnswerMode, Date, DocumentProvided, DocumentRequest, DocumentResponse, DocumentWanted, Mandate, Person,
        PersonIdentifier, Referral, ReferralUpdate, document_provided::Answer, person_identifier::Kind,
    },
};

/// What a message needs besides its body.
#[must_use]
pub fn sending(request_id: &str, attachments: &[String]) -> Sending {
    Sending {
        request_id: request_id.to_owned(),
        purpose: "RIGHTS_SCREENING".into(),
        legal_basis: "GDPR-6-1-E".into(),
        attachments: attachments.to_vec(),
        ..Sending::default()
    }
}

/// A homeless person with a codice fiscale.
#[must_use]
pub fn person(surname: &str) -> Person {
    let code =
        PersonIdentifier { kind: Some(Kind::CodiceFiscale("RSSMRA80A01A944I".into())), ..PersonIdentifier::default() };
    Person {
        identifiers: vec![code],
        surname: surname.to_owned(),
        given_name: "Mario".into(),
        born: Some(Date { year: 1980, month: 1, day: 1 }),
        homeless: true,
        ..Person::default()
    }
}

/// A referral whose situation is the given words, so that a promise finds it again.
#[must_use]
pub fn referral(situation: &str) -> Referral {
    Referral {
        person: Some(person("Prova")),
        benefits: vec!["ADI".into()],
        situation: situation.to_owned(),
        mandate: Some(Mandate { kind: "CONSENT".into(), reference: "Caritas file 12/2026".into(), given: None }),
        ..Referral::default()
    }
}

/// Moves a referral to a status that needs no more than its name.
#[must_use]
pub fn update(status: &str) -> ReferralUpdate {
    ReferralUpdate { status: status.to_owned(), ..ReferralUpdate::default() }
}

/// Asks for a copy of the family status.
#[must_use]
pub fn document_request() -> DocumentRequest {
    let wanted = DocumentWanted {
        document: "STATO_FAMIGLIA".into(),
        mode: AnswerMode::Copy.into(),
        ..DocumentWanted::default()
    };
    DocumentRequest { person: Some(person("Prova")), documents: vec![wanted], ..DocumentRequest::default() }
}

/// Provides the first `count` attachments of the message as copies.
#[must_use]
pub fn document_response(count: u32) -> DocumentResponse {
    let provided = |index| DocumentProvided {
        document: "STATO_FAMIGLIA".into(),
        answer: Some(Answer::Attachment(index)),
        ..DocumentProvided::default()
    };
    DocumentResponse {
        status: "provided".into(),
        documents: (0..count).map(provided).collect(),
        ..DocumentResponse::default()
    }
}

/// Bytes that no compression shortens and that are the same at every run: an attachment of a given length.
#[must_use]
pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    // Knuth's MMIX generator; the top byte of each step.
    let mut state = seed;
    let step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(step).take(length).collect()
}
