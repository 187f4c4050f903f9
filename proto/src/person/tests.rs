//! Promises of the identifiers: the vectors, every omocode, every other kind, and that no text panics.
use std::{collections::BTreeSet, fs, path::Path};

use proptest::prelude::*;

use super::*;
use crate::pb::body::v1::{Date, Person, Sex};

const BASE: &str = "RSSMRA80A01A944I";

fn cf(text: &str) -> CodiceFiscale {
    text.parse().expect("a codice fiscale")
}

/// Fields of one line: commas separate, quotes protect.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields.last_mut().expect("never empty").push(c),
        }
    }
    fields
}

#[test]
fn every_vector_holds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/codice_fiscale.csv");
    let text = fs::read_to_string(path).expect("the vectors");
    let mut kinds = BTreeSet::new();
    for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
        let row = fields(line);
        let [kind, input, value, expect, ..] = row.as_slice() else { panic!("four fields: {line}") };
        kinds.insert(kind.clone());
        match (kind.as_str(), expect.as_str()) {
            ("encode", "valid") => encodes(input, value),
            ("omocode", "valid") => {
                let (base, mask) = input.split_once("|mask=").expect("base and mask");
                let made = cf(base).with_omocodia(mask.parse().expect("a mask"));
                assert_eq!(made.as_str(), value, "{line}");
                assert_eq!(cf(value).hint(), cf(base).hint());
            }
            ("checkdigit", "invalid") => {
                assert!(input.parse::<CodiceFiscale>().is_ok());
                assert_eq!(
                    value.parse::<CodiceFiscale>(),
                    Err(IdentifierError::Check { what: "a codice fiscale" }),
                    "{line}"
                );
            }
            ("numeric11", "valid") => assert!(value.parse::<ProvisionalNumeric>().is_ok(), "{line}"),
            ("numeric11", "reject") => assert!(value.parse::<ProvisionalNumeric>().is_err(), "{line}"),
            ("stp", "format-ok") => {
                assert!(value.parse::<Stp>().is_ok(), "{line}");
                assert!(value.parse::<CodiceFiscale>().is_err(), "{line}");
            }
            _ => panic!("a vector that this test does not know: {line}"),
        }
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
}

fn encodes(input: &str, value: &str) {
    let parts: Vec<_> = input.split('|').collect();
    let [surname, given_name, year, month, day, sex, place] = parts[..] else { panic!("seven parts: {input}") };
    let given = Given {
        surname,
        given_name,
        year: year.parse().expect("year"),
        month: month.parse().expect("month"),
        day: day.parse().expect("day"),
        female: sex == "F",
        place,
    };
    assert_eq!(encode(&given).expect("it can be computed").as_str(), value, "{input}");
}

#[test]
fn all_128_omocodes_are_accepted_different_and_have_one_hint() {
    let base = cf(BASE);
    let forms: BTreeSet<_> = (0..128).map(|mask| base.with_omocodia(mask)).collect();
    assert_eq!(forms.len(), 128);
    for form in &forms {
        assert_eq!(form.as_str().parse(), Ok(*form));
        assert_eq!(form.as_str().to_lowercase().parse(), Ok(*form), "lower case is read");
        assert_eq!(form.hint().as_str(), BASE);
        assert_eq!(form.is_omocode(), *form != base);
        assert_eq!(form.birth_month_and_day(), (1, 1));
        assert_eq!(form.birth_year_two_digits(), 80);
        assert!(!form.says_female());
    }
}

#[test]
fn a_wrong_character_anywhere_is_noticed_by_form_or_check() {
    // The odd values are a permutation and so are the even ones: one wrong character always changes the check.
    for mask in 0..128 {
        let form = cf(BASE).with_omocodia(mask);
        for place in 0..16 {
            for c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" {
                let mut bytes = form.as_str().as_bytes().to_vec();
                // A digit and the letter of its rank are worth the same; form tells them apart except at numeric places,
                // where only L to V stand for digits and none of them has the rank of a digit.
                if bytes[place] == *c {
                    continue;
                }
                bytes[place] = *c;
                let text = String::from_utf8(bytes).expect("ascii");
                assert!(text.parse::<CodiceFiscale>().is_err(), "{text}");
            }
        }
    }
}

#[test]
fn what_is_not_of_the_form_is_refused_as_such() {
    for bad in [
        "",
        "RSSMRA80A01A944",
        "RSSMRA80A01A944II",
        "RSSMRA80F01A944I",
        "RSSMRA80A00A944I",
        "RSSMRA80A32A944I",
        "RSSMRA80A40A944I",
        "RSSMRA80A72A944I",
        "RSSMRA80A010944I",
        "RSSMRA8AA01A944I",
        "RSSMRA80A01A9441",
        "RSSMR480A01A944I",
        " SSMRA80A01A944I",
        "RSSMRÀ80A01A944I",
        "STP0801051234567",
        "97735020584",
    ] {
        assert!(matches!(bad.parse::<CodiceFiscale>(), Err(IdentifierError::Form { .. })), "{bad}");
    }
}

#[test]
fn codes_that_differ_by_omocodia_are_different_people() {
    let base = cf(BASE);
    let other = base.with_omocodia(64);
    assert_ne!(Identifier::CodiceFiscale(base), Identifier::CodiceFiscale(other));
    assert_ne!(Identifier::CodiceFiscale(base).canonical(), Identifier::CodiceFiscale(other).canonical());
}

#[test]
fn the_check_digit_of_a_provisional_code_notices_every_wrong_digit() {
    let good = "97735020584";
    assert!(good.parse::<ProvisionalNumeric>().is_ok());
    for place in 0..11 {
        for digit in b'0'..=b'9' {
            let mut bytes = good.as_bytes().to_vec();
            if bytes[place] != digit {
                bytes[place] = digit;
                assert!(String::from_utf8(bytes).expect("ascii").parse::<ProvisionalNumeric>().is_err());
            }
        }
    }
    for bad in ["", "9773502058", "977350205840", "9773502058A", "00000000000", "٩٧٧٣٥"] {
        assert!(matches!(bad.parse::<ProvisionalNumeric>(), Err(IdentifierError::Form { .. })), "{bad}");
    }
}

#[test]
fn the_other_kinds_have_their_forms() {
    assert_eq!("stp0801051234567".parse::<Stp>().expect("lower case is read").as_str(), "STP0801051234567");
    assert!("ENI0801051234567".parse::<Eni>().is_ok());
    assert!("ENI0801051234567".parse::<Stp>().is_err());
    assert!("STP080105123456".parse::<Stp>().is_err());
    assert!("STP080105123456A".parse::<Stp>().is_err());
    assert!("a1".parse::<IdAnpr>().is_ok());
    assert!("".parse::<IdAnpr>().is_err());
    assert!("x".repeat(33).parse::<IdAnpr>().is_err());
    let case: LocalCase = "caritas/2026/12".parse().expect("institution and number");
    assert_eq!((case.institution().as_str(), case.number()), ("caritas", "2026/12"));
    for bad in
        ["", "caritas", "/12", "caritas/", "Caritas/12", "caritas/due parole", &format!("caritas/{}", "1".repeat(57))]
    {
        assert!(bad.parse::<LocalCase>().is_err(), "{bad}");
    }
}

#[test]
fn every_kind_survives_the_contract() {
    let all = [
        Identifier::CodiceFiscale(cf(BASE)),
        Identifier::ProvisionalNumeric("97735020584".parse().expect("numeric")),
        Identifier::Stp("STP0801051234567".parse().expect("stp")),
        Identifier::Eni("ENI0801051234567".parse().expect("eni")),
        Identifier::IdAnpr("AB12CD".parse().expect("anpr")),
        Identifier::LocalCase("caritas/12".parse().expect("case")),
    ];
    for identifier in &all {
        assert_eq!(Identifier::from_pb(&identifier.to_pb()).as_ref(), Ok(identifier));
        assert_eq!(identifier.is_restricted(), matches!(identifier.kind(), "stp" | "eni"));
    }
    assert_eq!(all.iter().map(Identifier::canonical).collect::<BTreeSet<_>>().len(), all.len());
    assert_eq!(Identifier::from_pb(&PersonIdentifier::default()), Err(IdentifierError::Missing));
}

#[test]
fn no_code_is_shown_by_debug_or_by_an_error() {
    let identifier = Identifier::CodiceFiscale(cf(BASE));
    assert!(!format!("{identifier:?} {:?}", cf(BASE).hint()).contains("RSSMRA"));
    let case = Identifier::LocalCase("caritas/segreto".parse().expect("case"));
    assert!(!format!("{case:?}").contains("segreto"));
    let error = "RSSMRA80A01A944X".parse::<CodiceFiscale>().expect_err("mistyped");
    assert!(!format!("{error} {error:?}").contains("RSSMRA"));
}

#[test]
fn a_computed_code_warns_and_keeps_silent_where_it_cannot_know() {
    let mut person = Person {
        surname: "Rossi".to_owned(),
        given_name: "Mario".to_owned(),
        sex: Sex::Male.into(),
        born: Some(Date { year: 1980, month: 1, day: 1 }),
        ..Person::default()
    };
    // An omocode agrees as well as the plain form does.
    assert_eq!(cf(BASE).with_omocodia(127).disagreements(&person), Vec::<&str>::new());
    person.sex = Sex::Female.into();
    person.born = Some(Date { year: 1980, month: 2, day: 0 });
    person.surname = "Bianchi".to_owned();
    assert_eq!(cf(BASE).disagreements(&person), ["surname", "born", "sex"]);
    person =
        Person {
            surname: "Müller".to_owned(), born: Some(Date { year: 1980, month: 0, day: 0 }), ..Person::default()
        };
    assert_eq!(cf(BASE).disagreements(&person), Vec::<&str>::new());
}

#[test]
fn names_are_encoded_as_the_decree_says() {
    let given = |surname, given_name| Given {
        surname,
        given_name,
        year: 2000,
        month: 12,
        day: 31,
        female: false,
        place: "Z404",
    };
    let start =
        |surname, given_name| encode(&given(surname, given_name)).expect("it can be computed").as_str()[..6].to_owned();
    assert_eq!(start("De  Rossi", "Gianfranco"), "DRSGFR", "four consonants or more: first, third, fourth");
    assert_eq!(start("Aiello", "Io"), "LLAIOX");
    assert_eq!(start("", ""), "XXXXXX", "people without surname or name");
    assert_eq!(encode(&given("Grüß", "A")), Err(EncodeError::Letter));
    assert_eq!(encode(&Given { month: 0, ..given("A", "B") }), Err(EncodeError::Date));
    assert_eq!(encode(&Given { day: 32, ..given("A", "B") }), Err(EncodeError::Date));
    for place in ["", "A94", "A9444", "9944", "ABCD", "Bologna"] {
        assert_eq!(encode(&Given { place, ..given("A", "B") }), Err(EncodeError::Place), "{place}");
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_a_code_and_agrees_with_its_source(
        surname in "[A-Za-zàèìòù' -]{0,20}", given_name in "[A-Za-zàèìòù' -]{0,20}",
        year in 1900_u16..2100, month in 1_u8..=12, day in 1_u8..=31, female: bool, place in "[A-Z][0-9]{3}", mask in 0_u8..128,
    ) {
        let given = Given { surname: &surname, given_name: &given_name, year, month, day, female, place: &place };
        let code = encode(&given).expect("it can be computed");
        prop_assert_eq!(code.as_str().parse(), Ok(code));
        prop_assert!(!code.is_omocode());
        prop_assert_eq!(code.birth_month_and_day(), (month, day));
        prop_assert_eq!(code.says_female(), female);
        let form = code.with_omocodia(mask);
        prop_assert_eq!(form.hint(), code.hint());
        prop_assert_eq!(form.as_str().parse(), Ok(form));
        let sex = if female { Sex::Female } else { Sex::Male };
        let born = Date { year: year.into(), month: month.into(), day: day.into() };
        let person = Person { surname, given_name, sex: sex.into(), born: Some(born), ..Person::default() };
        prop_assert_eq!(form.disagreements(&person), Vec::<&str>::new());
    }

    #[test]
    fn no_text_makes_an_identifier_panic(text in "\\PC{0,40}", ascii in "[A-Z0-9]{16}") {
        for text in [&text, &ascii] {
            let _ = text.parse::<CodiceFiscale>().map(|code| (code.hint(), code.with_omocodia(255)));
            let _ = text.parse::<ProvisionalNumeric>();
            let _ = text.parse::<Stp>();
            let _ = text.parse::<Eni>();
            let _ = text.parse::<IdAnpr>();
            let _ = text.parse::<LocalCase>();
            let _ = encode(&Given { surname: text, given_name: text, year: 0, month: 1, day: 1, female: false, place: text });
        }
    }
}
