//! Promises of the reasons: one table, and every document that names a reason agrees with it.
use std::{collections::BTreeSet, fs, path::Path};

use super::*;

fn crate_file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of this crate")
}

/// Whether a text is written like a reason: capitals, digits and at least one underscore.
fn looks_like_a_reason(text: &str) -> bool {
    text.contains('_') && text.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
}

#[test]
fn every_reason_parses_from_its_word_and_words_are_unique() {
    let mut seen = BTreeSet::new();
    for row in Reason::ROWS {
        assert_eq!(row.word.parse(), Ok(row.reason));
        assert!(seen.insert(row.word), "{} twice", row.word);
        assert!(row.word.bytes().all(|c| c.is_ascii_uppercase() || c == b'_'), "{}", row.word);
        assert!(row.meaning.ends_with('.') && row.meaning.len() <= 140, "{}", row.word);
    }
    assert_eq!(Reason::GROUPS.iter().map(|(_, rows)| rows.len()).sum::<usize>(), Reason::ROWS.len());
    assert_eq!("NO_SUCH_REASON".parse::<Reason>(), Err(UnknownReason));
}

#[test]
fn reasons_md_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("REASONS.md");
    if std::env::var_os("TRAMITE_WRITE_DOCS").is_some() {
        fs::write(&path, documentation()).expect("writable");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == documentation(),
        "REASONS.md is not the table: TRAMITE_WRITE_DOCS=1 cargo test -p tramite-proto writes it"
    );
}

#[test]
fn every_reason_in_brackets_in_formats_md_is_in_the_table() {
    let formats = crate_file("FORMATS.md");
    let bracketed: Vec<&str> = formats
        .split('[')
        .skip(1)
        .filter_map(|rest| rest.split(']').next())
        .filter(|text| looks_like_a_reason(text))
        .collect();
    assert!(bracketed.len() >= 10, "the search finds them: {bracketed:?}");
    for word in bracketed {
        assert!(word.parse::<Reason>().is_ok(), "FORMATS.md names {word}, the table does not");
    }
}

#[test]
fn the_contracts_name_reasons_of_the_table_with_their_status() {
    let mut pairs = 0;
    for name in ["statement", "exchange", "directory", "operations", "audit", "body", "backoffice", "journal"] {
        let text = crate_file(&format!("tramite/{name}/v1/{name}.proto"));
        for (before, after) in text.split(" / ").zip(text.split(" / ").skip(1)) {
            let status = before.rsplit(|c: char| !(c.is_ascii_uppercase() || c == '_')).next().unwrap_or_default();
            let word: String = after.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            if status.is_empty() || !looks_like_a_reason(&format!("{word}_")) {
                continue;
            }
            let Ok(reason) = word.parse::<Reason>() else { panic!("{name}.proto names {word}, the table does not") };
            assert_eq!(status_name(reason.code()), status, "{name}.proto: {word}");
            pairs += 1;
        }
    }
    assert!(pairs >= 5, "the search finds them: {pairs}");
}

#[test]
fn a_refusal_survives_the_way_through_a_status() {
    let refused = Refused::new(Reason::RateLimited, "Slow down.").retry_after_ms(250).field("frame");
    let status = refused.to_status();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert_eq!(Refused::from_status(&status), Some(refused));
    let never = Refused::because(Reason::SignatureInvalid);
    let back = Refused::from_status(&never.to_status()).expect("ours");
    assert_eq!((back.reason, back.retry_after_ms), (Reason::SignatureInvalid, None));
    assert_eq!(Refused::from_status(&tonic::Status::internal("another's")), None);
}

#[test]
fn a_refusal_survives_the_way_through_a_stream_and_an_unknown_reason_keeps_its_word() {
    let refused = Refused::new(Reason::StoreFull, "No room.").retry_after_ms(7);
    assert_eq!(Refused::from_refusal(&refused.to_refusal()), refused);
    let mut later = refused.to_refusal();
    later.reason = "REASON_OF_A_LATER_VERSION".to_owned();
    let read = Refused::from_refusal(&later);
    assert!(read.retryable() && read.detail.starts_with("REASON_OF_A_LATER_VERSION: "), "{read}");
    later.retryable = false;
    later.retry_after_ms = 0;
    assert!(!Refused::from_refusal(&later).retryable());
}

#[test]
fn field_problems_travel_as_bad_request_and_are_limited() {
    let problem = |n: usize| FieldProblem { field: format!("f[{n}]"), problem: "too long".to_owned() };
    let refused = Refused::fields((0..40).map(problem).collect());
    assert_eq!(refused.detail, "f[0]: too long (and 39 more)");
    let back = Refused::from_status(&refused.to_status()).expect("ours");
    assert_eq!(back.field.as_deref(), Some("f[0]"));
    assert_eq!(back.problems.len(), 16);
    assert_eq!(Refused::fields(Vec::new()).reason, Reason::FieldInvalid);
}
