//! A person, the household, the mandate.
//!
//! Knows: that nothing about a person is required, and what form each thing has when it is there. Never knows: whether it is true.
use std::collections::HashSet;

use super::field::Check;
use crate::{
    pb::body::v1::{
        Address, Assurance, Contact, HouseholdMember, Mandate, Person, PersonIdentifier, Sex, address,
        person_identifier,
    },
    person::Identifier,
    vocabulary::{MandateKind, Relation},
};

/// Identifiers of one person: one of each kind and some more, expired or of several institutions.
const IDENTIFIERS_MAX: usize = 16;
/// Addresses, citizenships, languages of one person: far more than anybody has.
const FEW_MAX: usize = 16;
/// Members of a household: the largest that a register knows, with room to spare.
const HOUSEHOLD_MAX: usize = 30;
/// Characters of a name or a place.
const NAME_MAX: usize = 120;
/// Characters of one line.
const LINE_MAX: usize = 200;

pub(super) fn person(check: &mut Check<'_>, person: &Person) {
    identifiers(check, &person.identifiers);
    check.text("surname", &person.surname, NAME_MAX);
    check.text("given_name", &person.given_name, NAME_MAX);
    if Sex::try_from(person.sex).is_err() {
        check.problem("sex", "not a value of Sex");
    }
    check.date("born", person.born.as_ref());
    check.text("birth_place", &person.birth_place, NAME_MAX);
    check.count("citizenships", person.citizenships.len(), FEW_MAX);
    for (place, country) in person.citizenships.iter().take(FEW_MAX).enumerate() {
        check.letters(
            format_args!("citizenships[{place}]"),
            country,
            2,
            u8::is_ascii_uppercase,
            "an ISO 3166-1 code such as IT",
        );
    }
    check.count("addresses", person.addresses.len(), FEW_MAX);
    for (place, it) in person.addresses.iter().take(FEW_MAX).enumerate() {
        address(&mut check.inside(format_args!("addresses[{place}]")), it);
    }
    if let Some(it) = &person.contact {
        contact(&mut check.inside("contact"), it);
    }
    check.count("languages", person.languages.len(), FEW_MAX);
    for (place, language) in person.languages.iter().take(FEW_MAX).enumerate() {
        check.letters(
            format_args!("languages[{place}]"),
            language,
            2,
            u8::is_ascii_lowercase,
            "an ISO 639-1 code such as it",
        );
    }
}

fn identifiers(check: &mut Check<'_>, identifiers: &[PersonIdentifier]) {
    check.count("identifiers", identifiers.len(), IDENTIFIERS_MAX);
    let mut seen = HashSet::new();
    for (place, it) in identifiers.iter().take(IDENTIFIERS_MAX).enumerate() {
        let mut check = check.inside(format_args!("identifiers[{place}]"));
        match Identifier::from_pb(it) {
            Ok(identifier) => {
                if !seen.insert(identifier) {
                    check.problem(field_of(it), "stands twice");
                }
            }
            Err(error) => check.problem(field_of(it), error.to_string()),
        }
        check.text("issuer", &it.issuer, 80);
        check.date("issued", it.issued.as_ref());
        check.date("expires", it.expires.as_ref());
        if Assurance::try_from(it.assurance).is_err() {
            check.problem("assurance", "not a value of Assurance");
        }
    }
}

fn field_of(identifier: &PersonIdentifier) -> &'static str {
    use person_identifier::Kind;
    match identifier.kind {
        None => "kind",
        Some(Kind::CodiceFiscale(_)) => "codice_fiscale",
        Some(Kind::ProvisionalNumeric(_)) => "provisional_numeric",
        Some(Kind::Stp(_)) => "stp",
        Some(Kind::Eni(_)) => "eni",
        Some(Kind::IdAnpr(_)) => "id_anpr",
        Some(Kind::LocalCase(_)) => "local_case",
    }
}

fn address(check: &mut Check<'_>, address: &Address) {
    if address::Kind::try_from(address.kind).is_err() {
        check.problem("kind", "not a value of Address.Kind");
    }
    check.text("street", &address.street, LINE_MAX);
    check.text("postal_code", &address.postal_code, 16);
    check.text("municipality", &address.municipality, NAME_MAX);
    let code = address.municipality_code.as_bytes();
    let belfiore = |(letter, digits): (&u8, &[u8])| {
        letter.is_ascii_uppercase() && digits.len() == 3 && digits.iter().all(u8::is_ascii_digit)
    };
    if !code.is_empty() && !code.split_first().is_some_and(belfiore) {
        check.problem("municipality_code", "not a Belfiore code such as A944");
    }
    if !address.country.is_empty() {
        check.letters("country", &address.country, 2, u8::is_ascii_uppercase, "an ISO 3166-1 code such as IT");
    }
}

fn contact(check: &mut Check<'_>, contact: &Contact) {
    check.text("phone", &contact.phone, 40);
    check.text("email", &contact.email, 254);
    if !contact.email.is_empty()
        && !contact.email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
    {
        check.problem("email", "not an address with an @ in it");
    }
    check.text("through", &contact.through, LINE_MAX);
}

pub(super) fn household(check: &mut Check<'_>, members: &[HouseholdMember]) {
    check.count("household", members.len(), HOUSEHOLD_MAX);
    for (place, member) in members.iter().take(HOUSEHOLD_MAX).enumerate() {
        let mut check = check.inside(format_args!("household[{place}]"));
        if let Some(it) = check.required("person", member.person.as_ref()) {
            person(&mut check.inside("person"), it);
        }
        check.optional_code::<Relation>("relation", &member.relation);
    }
}

pub(super) fn mandate(check: &mut Check<'_>, mandate: Option<&Mandate>) {
    let Some(mandate) = mandate else { return };
    let mut check = check.inside("mandate");
    check.code::<MandateKind>("kind", &mandate.kind);
    check.text("reference", &mandate.reference, LINE_MAX);
    check.date("given", mandate.given.as_ref());
}
