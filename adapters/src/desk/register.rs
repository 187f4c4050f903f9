//! What an institution holds about people, for its desk to answer from. Read from the samples; a real office has its own systems
//! here. Invariant: a person is found by an identifier that is equal, letter by letter: two codes that are equal only after
//! undoing the omocodia are two people.

use std::collections::BTreeMap;

use serde_json::Value;
use tramite_proto::pb::body::v1::{Person, PersonIdentifier, person_identifier::Kind};

/// The records of one institution.
#[derive(Debug, Default)]
pub struct Register {
    by_identifier: BTreeMap<String, usize>,
    records: Vec<Record>,
}

/// What is held about one person: for each document code the answers, the first time first; the last one stands.
pub type Record = BTreeMap<String, Vec<Value>>;

impl Register {
    /// Enters what is held about a person. A person without identifiers cannot be entered, as nobody could find the record.
    pub fn enter(&mut self, person: &Person, record: Record) {
        let place = self.records.len();
        for key in person.identifiers.iter().filter_map(key) {
            self.by_identifier.insert(key, place);
        }
        self.records.push(record);
    }

    /// What is held of a document about this person, at the n-th time of asking (from 0).
    #[must_use]
    pub fn find(&self, person: &Person, document: &str, time: usize) -> Option<&Value> {
        let place = person.identifiers.iter().filter_map(key).find_map(|key| self.by_identifier.get(&key))?;
        let answers = self.records.get(*place)?.get(document)?;
        answers.get(time).or_else(|| answers.last())
    }
}

/// An identifier as a key: kind and value.
fn key(identifier: &PersonIdentifier) -> Option<String> {
    let (kind, value) = match identifier.kind.as_ref()? {
        Kind::CodiceFiscale(value) => ("cf", value),
        Kind::ProvisionalNumeric(value) => ("provisional", value),
        Kind::Stp(value) => ("stp", value),
        Kind::Eni(value) => ("eni", value),
        Kind::IdAnpr(value) => ("anpr", value),
        Kind::LocalCase(value) => ("local", value),
    };
    Some(format!("{kind}:{value}"))
}

/// The person's codice fiscale, when one is known.
#[must_use]
pub fn codice_fiscale(person: &Person) -> Option<&str> {
    person.identifiers.iter().find_map(|identifier| match identifier.kind.as_ref()? {
        Kind::CodiceFiscale(value) => Some(value.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(code: &str) -> Person {
        let kind = Some(Kind::CodiceFiscale(code.to_owned()));
        Person { identifiers: vec![PersonIdentifier { kind, ..PersonIdentifier::default() }], ..Person::default() }
    }

    fn held(answers: &[&str]) -> Record {
        Record::from([("RESIDENZA".to_owned(), answers.iter().map(|&text| Value::from(text)).collect())])
    }

    #[test]
    fn an_omocode_and_its_base_code_are_two_people() {
        let mut register = Register::default();
        register.enter(&person("RSSMRA80A01A944I"), held(&["base"]));
        register.enter(&person("RSSMRAU0A01A944F"), held(&["omocode"]));
        assert_eq!(register.find(&person("RSSMRAU0A01A944F"), "RESIDENZA", 0), Some(&Value::from("omocode")));
        assert_eq!(register.find(&person("RSSMRA80A01A944I"), "RESIDENZA", 0), Some(&Value::from("base")));
        assert_eq!(register.find(&person("RSSMRA80AL1A944T"), "RESIDENZA", 0), None);
    }

    #[test]
    fn the_last_answer_stands_for_every_later_question() {
        let mut register = Register::default();
        register.enter(&person("RSSMRA80A01A944I"), held(&["first", "second"]));
        let asked = |time| register.find(&person("RSSMRA80A01A944I"), "RESIDENZA", time).cloned();
        assert_eq!([asked(0), asked(1), asked(7)], ["first", "second", "second"].map(|text| Some(Value::from(text))));
    }
}
