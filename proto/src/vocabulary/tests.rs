//! Promises of the vocabulary: codes are unique, safe to travel, and cover what the contracts mention.
use std::collections::BTreeSet;

use super::*;

/// Every list, with its codes.
fn lists() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("Benefit", Benefit::CODES),
        ("BenefitStage", BenefitStage::CODES),
        ("Document", Document::CODES),
        ("Need", Need::CODES),
        ("Purpose", Purpose::CODES),
        ("LegalBasis", LegalBasis::CODES),
        ("MandateKind", MandateKind::CODES),
        ("ReferralReason", ReferralReason::CODES),
        ("Outcome", Outcome::CODES),
        ("DeclinedBy", DeclinedBy::CODES),
        ("DocumentReason", DocumentReason::CODES),
        ("Disadvantage", Disadvantage::CODES),
        ("Relation", Relation::CODES),
    ]
}

#[test]
fn codes_are_unique_in_their_list_and_fit_an_origin_statement() {
    for (name, codes) in lists() {
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len(), "{name} has a code twice");
        for code in codes {
            assert!(code.parse::<crate::ids::Token>().is_ok(), "{name}: {code}");
        }
    }
}

#[test]
fn every_code_survives_json() {
    for benefit in Benefit::all() {
        let json = serde_json::to_string(&benefit).expect("json");
        assert_eq!(json, format!("\"{benefit}\""));
        assert_eq!(serde_json::from_str::<Benefit>(&json).expect("back"), benefit);
    }
    for basis in LegalBasis::all() {
        assert_eq!(basis.as_str().parse(), Ok(basis));
    }
}

#[test]
fn siuss_codes_are_written_as_inps_writes_them_and_belong_to_one_benefit() {
    let codes: Vec<_> = Benefit::all().filter_map(|benefit| benefit.facts().siuss).collect();
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
    for code in codes {
        let mut parts = code.split('.');
        let area = parts.next().expect("split gives one");
        assert!(area.len() == 2 && area.starts_with('A'), "{code}");
        assert!(parts.all(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_digit())), "{code}");
    }
}

#[test]
fn every_national_benefit_names_its_law() {
    for benefit in Benefit::all() {
        let facts = benefit.facts();
        assert!(!facts.provider.is_empty());
        let local = facts.siuss.is_some_and(|code| code.starts_with("A2."));
        assert_eq!(facts.source.is_empty(), local, "{benefit}");
    }
}

#[test]
fn a_document_that_anpr_answers_for_can_be_verified_before_it_is_read() {
    for document in Document::all() {
        let facts = document.facts();
        assert_eq!(facts.anpr_value.is_some(), facts.anpr_verify.is_some(), "{document}");
    }
}

#[test]
fn the_codes_that_the_contracts_mention_exist() {
    assert!("RIGHTS_SCREENING".parse::<Purpose>().is_ok());
    assert!("GDPR-6-1-E".parse::<LegalBasis>().is_ok());
    assert!("HOMELESS_IN_CARE".parse::<Disadvantage>().is_ok());
    assert!("STATO_FAMIGLIA".parse::<Document>().is_ok());
    assert!("EDM:ERR:0004".parse::<DocumentReason>().is_ok());
    assert!("NO_CAPACITY".parse::<ReferralReason>().is_ok());
    for need in ["RESIDENCE", "EMPLOYMENT", "SHELTER", "HEALTH"] {
        assert!(need.parse::<Need>().is_ok(), "{need}");
    }
}
