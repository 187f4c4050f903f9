//! Promises of the checks: what people really send passes, each rule refuses what it names, and nothing leaks or panics.
use std::fs;

use proptest::prelude::*;

use super::*;
use crate::pb::body::v1::{
    Address, AnswerMode, Attachment, BenefitState, Contact, Date, DocumentProvided, DocumentRequest,
    DocumentRequestUpdate, DocumentResponse, DocumentWanted, HouseholdMember, Mandate, Money, Person, PersonIdentifier,
    Referral, ReferralUpdate, document_provided::Answer, person_identifier,
};

const CASE: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn of(kind: Kind) -> Body {
    Body { kind: Some(kind), ..Body::default() }
}

fn referral() -> Referral {
    Referral { person: Some(Person::default()), needs: vec!["SHELTER".to_owned()], ..Referral::default() }
}

fn update(status: &str) -> ReferralUpdate {
    ReferralUpdate { status: status.to_owned(), ..ReferralUpdate::default() }
}

fn request() -> DocumentRequest {
    DocumentRequest {
        person: Some(Person::default()),
        documents: vec![wanted("RESIDENZA")],
        ..DocumentRequest::default()
    }
}

fn wanted(document: &str) -> DocumentWanted {
    DocumentWanted { document: document.to_owned(), mode: AnswerMode::Value.into(), ..DocumentWanted::default() }
}

fn response(status: &str) -> DocumentResponse {
    DocumentResponse { status: status.to_owned(), ..DocumentResponse::default() }
}

fn attachment(name: &str) -> Attachment {
    Attachment {
        name: name.to_owned(),
        media_type: "application/pdf".to_owned(),
        length: 10,
        sha256: vec![0; 32].into(),
        document: "RESIDENZA".to_owned(),
    }
}

/// The fields at fault, in order.
fn faults(kind: Kind) -> Vec<String> {
    faults_of(&of(kind))
}

fn faults_of(it: &Body) -> Vec<String> {
    body(it).err().unwrap_or_default().into_iter().map(|problem| problem.field).collect()
}

fn person_faults(person: Person) -> Vec<String> {
    faults(Kind::Referral(Referral { person: Some(person), ..referral() }))
}

const NONE: [&str; 0] = [];

#[test]
fn a_person_of_whom_nothing_is_known_can_be_referred() {
    assert_eq!(faults(Kind::Referral(referral())), NONE);
}

#[test]
fn a_full_referral_passes() {
    let identifier = PersonIdentifier {
        kind: Some(person_identifier::Kind::CodiceFiscale("RSSMRA80A01A944I".to_owned())),
        issuer: "Agenzia delle Entrate".to_owned(),
        ..PersonIdentifier::default()
    };
    let person = Person {
        identifiers: vec![identifier],
        surname: "Prova".to_owned(),
        given_name: "Esempio".to_owned(),
        born: Some(Date { year: 1980, month: 0, day: 0 }),
        citizenships: vec!["IT".to_owned(), "XX".to_owned()],
        addresses: vec![Address {
            municipality_code: "A944".to_owned(),
            country: "IT".to_owned(),
            ..Address::default()
        }],
        contact: Some(Contact { email: "prova@example.org".to_owned(), ..Contact::default() }),
        languages: vec!["it".to_owned()],
        homeless: true,
        ..Person::default()
    };
    let member =
        HouseholdMember { person: Some(Person::default()), relation: "CHILD".to_owned(), minor: true, disabled: false };
    let full = Referral {
        person: Some(person),
        household: vec![member],
        benefits: vec!["ADI".to_owned(), "RESIDENZA_SFD".to_owned()],
        needs: vec!["RESIDENCE".to_owned()],
        situation: "Vive in strada da due anni.\nVia M. Tuccella.".to_owned(),
        mandate: Some(Mandate { kind: "CONSENT".to_owned(), reference: "fascicolo 12/2026".to_owned(), given: None }),
        disadvantages: vec!["HOMELESS_IN_CARE".to_owned()],
        continues_case: CASE.to_owned(),
    };
    assert_eq!(faults(Kind::Referral(full)), NONE);
}

#[test]
fn a_referral_says_what_it_is_for() {
    assert_eq!(faults(Kind::Referral(Referral { needs: Vec::new(), ..referral() })), ["referral.benefits"]);
    let coded = Referral {
        benefits: vec!["ADI".to_owned(), "ADI".to_owned(), "GOLD".to_owned()],
        disadvantages: vec!["h".to_owned()],
        continues_case: "12".to_owned(),
        situation: "x".repeat(8_001),
        person: None,
        ..referral()
    };
    assert_eq!(
        faults(Kind::Referral(coded)),
        [
            "referral.person",
            "referral.benefits[1]",
            "referral.benefits[2]",
            "referral.situation",
            "referral.disadvantages[0]",
            "referral.continues_case"
        ]
    );
}

#[test]
fn every_thing_about_a_person_has_its_form() {
    let code = |text: &str| PersonIdentifier {
        kind: Some(person_identifier::Kind::CodiceFiscale(text.to_owned())),
        ..PersonIdentifier::default()
    };
    let person = Person {
        identifiers: vec![
            code("RSSMRA80A01A944I"),
            code("rssmra80a01a944i"),
            code("RSSMRA80A01A944X"),
            PersonIdentifier::default(),
        ],
        surname: "a\u{0}b".to_owned(),
        sex: 77,
        born: Some(Date { year: 1981, month: 2, day: 29 }),
        citizenships: vec!["ita".to_owned()],
        addresses: vec![Address {
            kind: 9,
            municipality_code: "BO".to_owned(),
            country: "it".to_owned(),
            ..Address::default()
        }],
        contact: Some(Contact { email: "nobody".to_owned(), ..Contact::default() }),
        languages: vec!["IT".to_owned()],
        ..Person::default()
    };
    let expected = [
        "identifiers[1].codice_fiscale",
        "identifiers[2].codice_fiscale",
        "identifiers[3].kind",
        "surname",
        "sex",
        "born",
        "citizenships[0]",
        "addresses[0].kind",
        "addresses[0].municipality_code",
        "addresses[0].country",
        "contact.email",
        "languages[0]",
    ];
    assert_eq!(person_faults(person), expected.map(|field| format!("referral.person.{field}")));
}

#[test]
fn dates_may_be_known_in_part_and_must_be_possible() {
    let date = |year, month, day| {
        person_faults(Person { born: Some(Date { year, month, day }), ..Person::default() }).is_empty()
    };
    for (year, month, day) in [(0, 0, 0), (1980, 0, 0), (1980, 2, 0), (1980, 2, 29), (2000, 2, 29), (1850, 12, 31)] {
        assert!(date(year, month, day), "{year}-{month}-{day}");
    }
    for (year, month, day) in [
        (1849, 1, 1),
        (2201, 1, 1),
        (1980, 13, 1),
        (1980, 4, 31),
        (1900, 2, 29),
        (1980, 0, 5),
        (0, 5, 0),
        (-1, 0, 0),
        (1980, -1, 0),
        (1980, 1, -1),
    ] {
        assert!(!date(year, month, day), "{year}-{month}-{day}");
    }
}

#[test]
fn each_status_of_a_referral_asks_for_what_it_needs() {
    let needs = |status: &str| -> Vec<String> {
        faults(Kind::ReferralUpdate(update(status)))
            .into_iter()
            .map(|field| field.replace("referral_update.", ""))
            .collect()
    };
    for status in ["received", "accepted", "in_progress", "closed"] {
        assert_eq!(needs(status), NONE, "{status}");
    }
    assert_eq!(needs("rejected"), ["reason", "by"]);
    assert_eq!(needs("rerouted"), ["rerouted_to"]);
    assert_eq!(needs("on_hold"), ["reason", "review"]);
    assert_eq!(needs("completed"), ["outcome"]);
    for status in ["failed", "cancelled", "entered_in_error"] {
        assert_eq!(needs(status), ["reason"], "{status}");
    }
    for status in ["", "requested", "expired", "provided", "ACCEPTED"] {
        assert_eq!(needs(status), ["status"], "{status}");
    }
}

#[test]
fn a_status_does_not_carry_what_belongs_to_another() {
    let odd = ReferralUpdate {
        by: "PERSON".to_owned(),
        outcome: "SERVICE_PROVIDED".to_owned(),
        rerouted_to: "inps".to_owned(),
        rerouted_case: CASE.to_owned(),
        ..update("accepted")
    };
    assert_eq!(faults(Kind::ReferralUpdate(odd)).len(), 4);
    let other = ReferralUpdate { reason: "OTHER".to_owned(), ..update("cancelled") };
    assert_eq!(faults(Kind::ReferralUpdate(other)), ["referral_update.note"]);
}

#[test]
fn the_state_of_a_benefit_has_its_codes_and_amounts() {
    let state = |amount: &str, currency: &str| BenefitState {
        benefit: "ADI".to_owned(),
        state: "EROGATO".to_owned(),
        monthly: Some(Money { amount: amount.to_owned(), currency: currency.to_owned() }),
        ..BenefitState::default()
    };
    let ask = |state| faults(Kind::ReferralUpdate(ReferralUpdate { benefits: vec![state], ..update("in_progress") }));
    for amount in ["541.66", "0", "500", "1.5"] {
        assert_eq!(ask(state(amount, "EUR")), NONE, "{amount}");
    }
    for amount in ["", "541,66", "-1", "1.234", ".5", "1.", "1e3", "1234567890"] {
        assert_eq!(ask(state(amount, "EUR")), ["referral_update.benefits[0].monthly.amount"], "{amount}");
    }
    assert_eq!(ask(state("1", "euro")), ["referral_update.benefits[0].monthly.currency"]);
    assert_eq!(
        ask(BenefitState::default()),
        ["referral_update.benefits[0].benefit", "referral_update.benefits[0].state"]
    );
}

#[test]
fn a_document_request_asks_for_the_least_and_says_for_what() {
    let with = |wanted| faults(Kind::DocumentRequest(DocumentRequest { documents: vec![wanted], ..request() }));
    assert_eq!(with(wanted("RESIDENZA")), NONE);
    assert_eq!(with(wanted("ISEE")), ["document_request.benefit"]);
    assert_eq!(with(DocumentWanted { mode: 0, ..wanted("DID") }), ["document_request.documents[0].mode"]);
    assert_eq!(
        with(DocumentWanted { mode: AnswerMode::Verify.into(), ..wanted("DID") }),
        ["document_request.documents[0].statement"]
    );
    assert_eq!(with(wanted("PASSPORT")), ["document_request.documents[0].document"]);
    assert_eq!(
        faults(Kind::DocumentRequest(DocumentRequest { documents: Vec::new(), ..request() })),
        ["document_request.documents"]
    );
    let many = DocumentRequest { documents: vec![wanted("DID"); 21], ..request() };
    assert_eq!(faults(Kind::DocumentRequest(many)), ["document_request.documents"]);
}

#[test]
fn each_status_of_a_document_request_asks_for_what_it_needs() {
    let ask = |it: DocumentResponse| faults(Kind::DocumentResponse(it));
    assert_eq!(ask(response("received")), NONE);
    assert_eq!(ask(response("provided")), ["document_response.documents"]);
    assert_eq!(ask(response("refused")), ["document_response.reason", "document_response.detail"]);
    assert_eq!(ask(response("action_required")), ["document_response.action_url"]);
    assert_eq!(
        ask(DocumentResponse { action_url: "javascript:alert(1)".to_owned(), ..response("action_required") }),
        ["document_response.action_url"]
    );
    assert_eq!(ask(response("deferred")), ["document_response.available_at"]);
    assert_eq!(ask(DocumentResponse { available_at: 1, ..response("received") }), ["document_response.available_at"]);
    assert_eq!(ask(response("confirmed")), ["document_response.status"]);
    let update = |status: &str, reason: &str| {
        faults(Kind::DocumentRequestUpdate(DocumentRequestUpdate {
            status: status.to_owned(),
            reason: reason.to_owned(),
            ..DocumentRequestUpdate::default()
        }))
    };
    assert_eq!(update("confirmed", ""), NONE);
    assert_eq!(update("disputed", ""), ["document_request_update.reason"]);
    assert_eq!(update("disputed", "SUBJECT_MISMATCH"), NONE);
    assert_eq!(update("disputed", "NO_CAPACITY"), ["document_request_update.reason"]);
}

#[test]
fn answers_refer_to_what_is_there() {
    let provided =
        |answer| DocumentProvided { document: "RESIDENZA".to_owned(), answer, ..DocumentProvided::default() };
    let with = |answer, attachments: Vec<Attachment>| Body {
        kind: Some(Kind::DocumentResponse(DocumentResponse {
            documents: vec![provided(answer)],
            ..response("provided")
        })),
        content_key: if attachments.is_empty() { Vec::new() } else { vec![1; 32] }.into(),
        attachments,
    };
    assert_eq!(faults_of(&with(Some(Answer::Attachment(0)), vec![attachment("a.pdf")])), NONE);
    let dangling = with(Some(Answer::Attachment(1)), vec![attachment("a.pdf")]);
    assert_eq!(faults_of(&dangling), ["document_response.documents[0].attachment"]);
    assert!(draft(&with(Some(Answer::Attachment(1)), Vec::new())).is_ok(), "a draft has no attachments yet");
    assert_eq!(faults_of(&with(Some(Answer::ValueJson("{\"via\":\"Prova\"}".to_owned())), Vec::new())), NONE);
    for json in ["", "[]", "1", "{", "{}x"] {
        assert_eq!(
            faults_of(&with(Some(Answer::ValueJson(json.to_owned())), Vec::new())),
            ["document_response.documents[0].value_json"]
        );
    }
    assert_eq!(faults_of(&with(Some(Answer::Unavailable("EDM:ERR:0004".to_owned())), Vec::new())), NONE);
    assert_eq!(faults_of(&with(None, Vec::new())), ["document_response.documents[0].answer"]);
}

#[test]
fn attachments_have_their_key_and_their_limits() {
    let with = |attachments, key: usize| Body {
        attachments,
        content_key: vec![1; key].into(),
        ..of(Kind::Referral(referral()))
    };
    assert_eq!(faults_of(&with(vec![attachment("a.pdf")], 32)), NONE);
    assert_eq!(faults_of(&with(vec![attachment("a.pdf")], 0)), ["content_key"]);
    assert_eq!(faults_of(&with(Vec::new(), 32)), ["content_key"]);
    assert_eq!(faults_of(&with(vec![attachment("a.pdf"), attachment("A.PDF")], 32)), ["attachments[1].name"]);
    let big = Attachment { length: ATTACHMENT_BYTES_MAX, ..attachment("b.pdf") };
    assert_eq!(faults_of(&with(vec![attachment("a.pdf"), big], 32)), ["attachments"]);
    let overflow = Attachment { length: u64::MAX, ..attachment("b.pdf") };
    assert_eq!(faults_of(&with(vec![attachment("a.pdf"), overflow], 32)), ["attachments"]);
    let odd = Attachment {
        media_type: "pdf".to_owned(),
        sha256: vec![0; 31].into(),
        document: "X".to_owned(),
        ..attachment("a.pdf")
    };
    assert_eq!(
        faults_of(&with(vec![odd], 32)),
        ["attachments[0].media_type", "attachments[0].document", "attachments[0].sha256"]
    );
}

#[test]
fn an_attachment_s_name_cannot_leave_its_folder_or_deceive() {
    let problem = attachments::file_name_problem;
    for good in ["verbale.pdf", "Stato di famiglia (2026).pdf", "città.json", "a", "console.txt", &"x".repeat(120)] {
        assert_eq!(problem(good), None, "{good}");
    }
    for bad in [
        "",
        ".",
        "..",
        "../a",
        "a/b",
        "a\\b",
        "/etc/passwd",
        "C:a",
        ".hidden",
        "-rf",
        "a.",
        "a ",
        " a",
        "a\n.pdf",
        "a\0",
        "con",
        "NUL.txt",
        "com1.pdf",
        "a\u{202E}fdp.exe",
        "a\u{200B}.pdf",
        &"x".repeat(121),
        &"€".repeat(100),
    ] {
        assert!(problem(bad).is_some(), "{bad:?}");
    }
}

#[test]
fn a_body_without_a_kind_or_too_large_is_refused() {
    assert_eq!(faults_of(&Body::default()), ["kind"]);
    let long =
        Referral { situation: "€".repeat(8_000), household: vec![member("€".repeat(120)); 30], ..referral() };
    let body_of = of(Kind::Referral(long));
    assert!(body_of.encoded_len() > 24_000, "large and still allowed");
    assert_eq!(faults_of(&body_of), NONE);
    let response =
        DocumentResponse { documents: vec![value(30_000), value(30_000), value(30_000)], ..response("provided") };
    assert_eq!(faults(Kind::DocumentResponse(response)), ["body"]);
}

fn member(surname: String) -> HouseholdMember {
    HouseholdMember { person: Some(Person { surname, ..Person::default() }), ..HouseholdMember::default() }
}

fn value(bytes: usize) -> DocumentProvided {
    let answer = Some(Answer::ValueJson(format!("{{\"v\":\"{}\"}}", "x".repeat(bytes))));
    DocumentProvided { document: "ESTRATTO_CONTRIBUTIVO".to_owned(), answer, ..DocumentProvided::default() }
}

#[test]
fn a_hostile_body_yields_a_limited_list_without_its_values() {
    let secret = "SEGRETO";
    let identifier = PersonIdentifier {
        kind: Some(person_identifier::Kind::CodiceFiscale(secret.to_owned())),
        issuer: secret.repeat(50),
        ..PersonIdentifier::default()
    };
    let person =
        Person { identifiers: vec![identifier; 16], citizenships: vec![secret.to_owned(); 16], ..Person::default() };
    let hostile = Referral {
        household: vec![
            HouseholdMember {
                person: Some(person.clone()),
                relation: secret.to_owned(),
                ..HouseholdMember::default()
            };
            30
        ],
        person: Some(person),
        benefits: vec![secret.to_owned(); 20],
        ..referral()
    };
    let problems = body(&of(Kind::Referral(hostile))).expect_err("refused");
    assert_eq!(problems.len(), PROBLEMS_MAX);
    assert!(!format!("{problems:?}").contains(secret));
    let refused = crate::reason::Refused::fields(problems);
    assert_eq!(refused.to_status().code(), tonic::Code::InvalidArgument);
    assert!(!format!("{:?}", refused.to_status()).contains(secret));
}

#[test]
fn a_warning_is_not_a_refusal() {
    let identifier = PersonIdentifier {
        kind: Some(person_identifier::Kind::CodiceFiscale("RSSMRA80A01A944I".to_owned())),
        ..PersonIdentifier::default()
    };
    let person = Person { identifiers: vec![identifier], surname: "Esempio".to_owned(), ..Person::default() };
    let odd = of(Kind::Referral(Referral { person: Some(person), benefits: vec!["RDC".to_owned()], ..referral() }));
    assert_eq!(faults_of(&odd), NONE);
    let fields: Vec<_> = warnings(&odd).into_iter().map(|warning| warning.field).collect();
    assert_eq!(fields, ["referral.person.surname", "referral.benefits[0]"]);
}

#[test]
fn every_code_named_in_the_contract_of_bodies_is_in_the_vocabulary() {
    use crate::vocabulary::{BenefitStage, DeclinedBy, MandateKind, Outcome, Relation};
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tramite/body/v1/body.proto");
    let contract = fs::read_to_string(path).expect("the contract");
    for codes in [BenefitStage::CODES, DeclinedBy::CODES, MandateKind::CODES, Outcome::CODES, Relation::CODES] {
        for code in codes {
            assert!(contract.contains(code), "{code} is not in the comments of body.proto");
        }
    }
}

proptest! {
    #[test]
    fn bytes_that_decode_are_checked_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(decoded) = Body::decode(bytes.as_slice()) {
            let _ = body(&decoded);
            let _ = warnings(&decoded);
        }
    }

    #[test]
    fn no_file_name_that_passes_leaves_its_folder(name in "\\PC{0,12}") {
        if attachments::file_name_problem(&name).is_none() {
            let path = std::path::Path::new("folder").join(&name);
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("folder")));
            prop_assert!(path.file_name().is_some());
        }
    }
}
