//! Every check of FORMATS.md §2, on the statements of proto/vectors/statements.json with one thing changed: here the shape that all
//! kinds share, in `rules` what single members must be, in `against` what is compared with something else.
mod against;
mod rules;

use proptest::prelude::*;

use super::*;
use crate::{
    jws::tests::{certificate, signer},
    strict::{self, Value},
};

/// Members that a statement may do without: taking one out is no error of its own.
const OPTIONAL: [&str; 9] = ["ref", "rsn", "dl", "parts", "sj", "lcp", "rcp_s256", "peer_s256", "opened"];

/// The valid statements: kind and JSON.
fn valid() -> Vec<(String, String)> {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../../vectors/statements.json")).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let one = |made: &serde_json::Value| (text(&made["kind"]), text(&made["statement"]["json"]));
    vectors.as_array().unwrap().iter().map(one).collect()
}

/// The fullest of a kind.
fn fullest(kind: &str) -> String {
    valid()
        .into_iter()
        .filter(|(of, json)| of == kind && !json.contains('\n'))
        .map(|(_, json)| json)
        .max_by_key(String::len)
        .unwrap()
}

/// Writes a value again, in its own order; `edit` gives for a member's path the text that stands there instead of `"name":value`.
fn render(value: &Value<'_>, at: &str, edit: &dyn Fn(&str) -> Option<String>) -> String {
    match value {
        Value::Text(text) => serde_json::to_string(text).unwrap(),
        Value::Number(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::List(list) => {
            let elements = list.iter().enumerate().map(|(place, value)| render(value, &format!("{at}[{place}]"), edit));
            format!("[{}]", elements.collect::<Vec<_>>().join(","))
        }
        Value::Object(members) => {
            let member = |(name, value): &(std::borrow::Cow<'_, str>, Value<'_>)| {
                let at = if at.is_empty() { name.to_string() } else { format!("{at}.{name}") };
                edit(&at).unwrap_or_else(|| format!("\"{name}\":{}", render(value, &at, edit)))
            };
            let members = members.iter().map(member).filter(|text| !text.is_empty());
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
    }
}

fn value(json: &str) -> Value<'_> {
    serde_json::from_str(json).unwrap()
}

/// `json` with the member at `path` set to the JSON text `new`.
fn set(json: &str, path: &str, new: &str) -> String {
    let name = path.rsplit('.').next().unwrap().to_owned();
    let edited = render(&value(json), "", &|at| (at == path).then(|| format!("\"{name}\":{new}")));
    assert_ne!(edited, json, "{path} is not there or had that value");
    edited
}

/// `json` without the member at `path`.
fn without(json: &str, path: &str) -> String {
    render(&value(json), "", &|at| (at == path).then(String::new))
}

/// The paths of all members of all objects, and their values.
fn paths<'a>(value: &Value<'a>, at: &str, found: &mut Vec<(String, Value<'a>)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let at = if at.is_empty() { name.to_string() } else { format!("{at}.{name}") };
                found.push((at.clone(), value.clone()));
                paths(value, &at, found);
            }
        }
        Value::List(list) => {
            list.iter().enumerate().for_each(|(place, value)| paths(value, &format!("{at}[{place}]"), found))
        }
        _ => {}
    }
}

fn refusal(json: &str) -> Refused {
    match Statement::parse(json.as_bytes()) {
        Err(refused) => refused,
        Ok(_) => panic!("this was read: {json}"),
    }
}

fn refused(json: &str) {
    assert_eq!(refusal(json).reason, Reason::StatementMalformed, "{json}");
}

#[test]
fn valid_statements_are_read_as_what_they_are() {
    for (kind, json) in valid() {
        assert_eq!(kind_of(json.as_bytes()).unwrap().as_str(), kind);
        assert_eq!(Statement::parse(json.as_bytes()).unwrap().kind().as_str(), kind);
    }
    for kind in Kind::all() {
        assert!(valid().iter().any(|(of, _)| of == kind.as_str()));
    }
}

#[test]
fn every_member_is_held_to_its_name_and_type() {
    for (_, json) in valid() {
        let mut members = Vec::new();
        paths(&value(&json), "", &mut members);
        for (path, good) in members {
            let name = path.rsplit('.').next().unwrap().to_owned();
            if !OPTIONAL.contains(&path.as_str()) {
                refused(&without(&json, &path));
            }
            refused(&set(&json, &path, "null"));
            // Twice, with the same value: which of the two counts is nobody's to choose.
            let twice = format!("\"{name}\":{0},\"{name}\":{0}", render(&good, "", &|_| None));
            refused(&render(&value(&json), "", &|at| (at == path).then(|| twice.clone())));
            let unknown = format!("\"{name}x\":1,\"{name}\":{}", render(&good, "", &|_| None));
            // An unknown name before `typ` is refused for another reason; one behind it, for being unknown.
            refused(&render(&value(&json), "", &|at| (at == path).then(|| unknown.clone())));
            let others: &[&str] = match good {
                Value::Text(_) => &["1", "true", "[]", "{}", "\"\"", "\"\\u0000\""],
                Value::Number(_) => &["\"1\"", "1.0", "1e0", "-1", "true", "[]", "{}", "9007199254740992"],
                Value::Flag(_) => &["\"true\"", "1", "0", "[]"],
                Value::List(_) => &["{}", "[]", "\"\"", "1", "[null]", "[1]", "[[]]"],
                Value::Object(_) => &["[]", "{}", "\"\"", "1", "[1,2]"],
            };
            others.iter().for_each(|other| refused(&set(&json, &path, other)));
        }
    }
}

#[test]
fn an_object_is_never_a_list_of_its_values() {
    for (_, json) in valid() {
        let Value::Object(members) = value(&json) else { panic!("no object") };
        let listed: Vec<_> = members.iter().map(|(_, value)| render(value, "", &|_| None)).collect();
        refused(&format!("[{}]", listed.join(",")));
    }
    refused(&set(&fullest("receipt"), "lcp", "[70000,\"3Zc7wJD8s8ZYCn5hJNXG4bD8pTzPV1pQq1hLQW9r7kM\"]"));
}

#[test]
fn typ_stands_first_and_v_second_and_both_are_known() {
    for (_, json) in valid().into_iter().filter(|(_, json)| !json.contains('\n')) {
        let (typ, rest) = json[1..].split_once(',').unwrap();
        let (v, rest) = rest.split_once(',').unwrap();
        refused(&format!("{{{v},{typ},{rest}"));
        let (next, rest) = rest.split_once(',').unwrap();
        if !next.contains('{') && !next.contains('[') {
            refused(&format!("{{{typ},{next},{v},{rest}"));
            refused(&format!("{{{next},{v},{typ},{rest}"));
        }
        refused(&set(&json, "v", "2"));
        refused(&set(&json, "v", "0"));
        refused(&set(&json, "typ", "\"letter\""));
    }
    // A statement of one kind is not another, even when all else is as it must be.
    let json = fullest("origin");
    assert!(Receipt::parse(json.as_bytes()).is_err());
    assert!(Origin::parse(set(&json, "typ", "\"receipt\"").as_bytes()).is_err());
}

#[test]
fn nothing_stands_before_or_behind_the_object() {
    let json = fullest("receipt");
    for wrong in [
        format!("{json}x"),
        format!("{json}{json}"),
        format!("{json}\0"),
        format!("\u{feff}{json}"),
        json[..json.len() - 1].into(),
    ] {
        refused(&wrong);
    }
    assert!(Statement::parse(&[json.as_bytes(), b"\xff"].concat()).is_err());
}

#[test]
fn a_statement_over_16_kib_is_refused_and_one_of_16_kib_is_read() {
    let json = fullest("receipt");
    let padded = format!("{json}{}", " ".repeat(STATEMENT_MAX - json.len()));
    Receipt::parse(padded.as_bytes()).unwrap();
    let longer = padded + " ";
    assert_eq!(refusal(&longer).reason, Reason::StatementTooLarge);
    assert_eq!(Receipt::parse(longer.as_bytes()).unwrap_err().reason, Reason::StatementTooLarge);
}

fn quoted(text: impl AsRef<str>) -> String {
    serde_json::to_string(text.as_ref()).unwrap()
}

#[test]
fn errors_name_the_field_and_repeat_no_value() {
    let refused = refusal(&set(&fullest("origin"), "ct.kid", "\"RSSMRA80A01A944I !\""));
    assert_eq!(refused.field.as_deref(), Some("ct.kid"));
    assert!(!refused.to_string().contains("RSSMRA"), "{refused}");
}

#[test]
fn a_written_statement_signs_and_verifies_alone() {
    let origin = Origin::parse(fullest("origin").as_bytes()).unwrap();
    let statement = crate::batch::sign(&signer("caritas"), 1, &[origin.to_json()]).unwrap().remove(0);
    let header = crate::batch::verify(&statement.jws, &crate::jws::tests::verifying_key("caritas")).unwrap();
    crate::batch::check_inclusion(&statement, &header).unwrap();
    assert_eq!(Origin::parse(&statement.json).unwrap(), origin);
}

fn any_kind(bytes: &[u8]) {
    let _ = kind_of(bytes);
    let _ = Statement::parse(bytes);
    let _ = (Origin::parse(bytes), Receipt::parse(bytes), Evidence::parse(bytes), KeyRecord::parse(bytes));
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,200}") {
        any_kind(&bytes);
        any_kind(text.as_bytes());
    }

    #[test]
    fn no_change_to_a_valid_statement_breaks_it(
        which: prop::sample::Index, place: prop::sample::Index, byte: u8, cut: bool,
        inserted in prop::collection::vec(prop::sample::select(b"{}[]\",:0e-. nulltrue\\\xff".to_vec()), 0..4),
    ) {
        let mut json = which.get(&valid()).1.clone().into_bytes();
        let place = place.index(json.len());
        json[place] = byte;
        json.splice(place..place, inserted);
        if cut { json.truncate(place); }
        any_kind(&json);
    }

    #[test]
    fn what_is_read_is_written_and_read_the_same(which: prop::sample::Index, iat in 0_i64..(1 << 53) - 1, life in 1..=LIFETIME_S_MAX, code in "[A-Za-z0-9._:/-]{1,64}") {
        let origins: Vec<_> = valid().into_iter().filter(|(kind, _)| kind == "origin").collect();
        let mut origin = Origin::parse(which.get(&origins).1.as_bytes()).unwrap();
        (origin.iat, origin.exp) = (iat, (iat + life).min((1 << 53) - 1));
        (origin.pur, origin.rsn) = (code.clone(), Some(code));
        prop_assume!(origin.exp > origin.iat);
        prop_assert_eq!(Origin::parse(&origin.to_json()).unwrap(), origin);
    }
}
