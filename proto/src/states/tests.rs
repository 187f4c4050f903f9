//! Promises of the state machines, over every status, party and move that there is.
use std::{collections::BTreeSet, fs, path::Path};

use proptest::prelude::*;

use super::*;

/// From (none: it opens), to, who, and whether a reason is required.
type Line = (Option<String>, String, &'static [Party], ReasonRule);

fn lines(kind: CaseKind) -> Vec<Line> {
    fn text<S: Copy + ToString>(table: &[Transition<S>]) -> Vec<Line> {
        table.iter().map(|line| (line.from.map(|s| s.to_string()), line.to.to_string(), line.by, line.reason)).collect()
    }
    match kind {
        CaseKind::Referral => text(referral::TRANSITIONS),
        CaseKind::DocumentRequest => text(document_request::TRANSITIONS),
    }
}

fn statuses(kind: CaseKind) -> &'static [&'static str] {
    match kind {
        CaseKind::Referral => referral::Status::CODES,
        CaseKind::DocumentRequest => document_request::Status::CODES,
    }
}

fn a_reason(kind: CaseKind) -> &'static str {
    match kind {
        CaseKind::Referral => "OTHER",
        CaseKind::DocumentRequest => "EDM:ERR:0004",
    }
}

#[test]
fn a_move_is_allowed_exactly_when_the_table_has_it() {
    for kind in CaseKind::all() {
        let lines = lines(kind);
        let froms = std::iter::once(None).chain(statuses(kind).iter().copied().map(Some));
        for from in froms {
            for to in statuses(kind) {
                for by in Party::all() {
                    let told = lines.iter().any(|(f, t, who, _)| f.as_deref() == from && t == to && who.contains(&by));
                    let ruled = check(kind, from, to, by, Some(a_reason(kind)));
                    assert_eq!(ruled.is_ok(), told, "{kind} {from:?} -> {to} by {by}: {ruled:?}");
                }
            }
        }
    }
}

#[test]
fn a_move_stands_in_the_table_once_and_every_status_has_a_standing() {
    for kind in CaseKind::all() {
        let lines = lines(kind);
        let moves: BTreeSet<_> = lines.iter().map(|(from, to, ..)| (from.clone(), to.clone())).collect();
        assert_eq!(moves.len(), lines.len(), "{kind}");
        for status in statuses(kind) {
            assert!(standing(kind, status).is_some(), "{kind} {status}");
            assert!(lines.iter().any(|(_, to, ..)| to == status), "{kind} {status} can be reached");
        }
    }
}

#[test]
fn a_final_status_has_no_way_out_but_the_correction_and_any_other_has_one_for_who_moves_next() {
    for kind in CaseKind::all() {
        for status in statuses(kind) {
            let out: Vec<_> = lines(kind).into_iter().filter(|(from, ..)| from.as_deref() == Some(status)).collect();
            match next_mover(kind, status) {
                Next::Nobody => {
                    assert!(is_final(kind, status));
                    assert!(out.iter().all(|(_, to, ..)| to == "entered_in_error"), "{kind} {status}");
                }
                Next::Opener => assert!(out.iter().any(|(_, _, by, _)| by.contains(&Party::Opener)), "{kind} {status}"),
                Next::Responder => {
                    assert!(out.iter().any(|(_, _, by, _)| by.contains(&Party::Responder)), "{kind} {status}")
                }
            }
        }
    }
}

#[test]
fn every_status_leads_to_an_end() {
    for kind in CaseKind::all() {
        let lines = lines(kind);
        let mut ends: BTreeSet<String> =
            statuses(kind).iter().filter(|s| is_final(kind, s)).map(|s| (*s).to_owned()).collect();
        loop {
            let before = ends.len();
            for (from, to, ..) in &lines {
                if let Some(from) = from.as_ref().filter(|_| ends.contains(to)) {
                    ends.insert(from.clone());
                }
            }
            if ends.len() == before {
                break;
            }
        }
        assert_eq!(ends.len(), statuses(kind).len(), "{kind}: {ends:?}");
    }
}

#[test]
fn a_required_reason_must_be_there_and_be_one_of_the_kind() {
    for kind in CaseKind::all() {
        for (from, to, by, rule) in lines(kind) {
            let Some(by) = by.first().copied().filter(|by| *by != Party::Gateway) else { continue };
            let ask = |reason| check(kind, from.as_deref(), &to, by, reason).map_err(|refused| refused.reason);
            let without = if rule == ReasonRule::Required { Err(Reason::CaseReasonInvalid) } else { Ok(()) };
            assert_eq!(ask(None), without, "{kind} {from:?} -> {to}");
            assert_eq!(ask(Some("")), without, "{kind} {from:?} -> {to}");
            assert_eq!(ask(Some("NO_SUCH_CODE")), Err(Reason::CaseReasonInvalid), "{kind} {from:?} -> {to}");
            assert_eq!(ask(Some(a_reason(kind))), Ok(()), "{kind} {from:?} -> {to}");
        }
    }
}

#[test]
fn only_the_clock_expires_and_only_what_nobody_finished() {
    let referral: Vec<_> = referral::Status::CODES.iter().filter(|s| can_expire(CaseKind::Referral, s)).collect();
    assert_eq!(referral, [&"requested", &"received"]);
    let request: Vec<_> =
        document_request::Status::CODES.iter().filter(|s| can_expire(CaseKind::DocumentRequest, s)).collect();
    assert_eq!(request, [&"requested", &"received", &"in_process", &"action_required", &"deferred"]);
    for kind in CaseKind::all() {
        assert!(check(kind, Some("requested"), "expired", Party::Gateway, Some("CASE_EXPIRED")).is_ok());
        assert!(check(kind, Some("requested"), "expired", Party::Opener, None).is_err());
    }
}

#[test]
fn each_refusal_has_its_reason() {
    let ask = |from, to, by| check(CaseKind::Referral, from, to, by, None).map_err(|refused| refused.reason);
    assert_eq!(ask(None, "accepted", Party::Responder), Err(Reason::CaseUnknown));
    assert_eq!(ask(Some("accepted"), "requested", Party::Opener), Err(Reason::CaseExists));
    assert_eq!(ask(Some("closed"), "accepted", Party::Responder), Err(Reason::CaseTransitionInvalid));
    assert_eq!(ask(Some("requested"), "accepted", Party::Opener), Err(Reason::CaseTransitionInvalid));
    assert_eq!(ask(Some("requested"), "provided", Party::Responder), Err(Reason::CaseTransitionInvalid));
    assert_eq!(ask(Some("nonsense"), "accepted", Party::Responder), Err(Reason::CaseTransitionInvalid));
}

#[test]
fn a_holder_may_answer_at_once() {
    for to in ["provided", "in_process"] {
        assert!(check(CaseKind::DocumentRequest, Some("requested"), to, Party::Responder, None).is_ok(), "{to}");
    }
    assert!(
        check(CaseKind::DocumentRequest, Some("requested"), "refused", Party::Responder, Some("EDM:ERR:0004")).is_ok()
    );
}

#[test]
fn the_loop_of_a_referral_closes() {
    let path = [
        ("received", Party::Responder),
        ("accepted", Party::Responder),
        ("in_progress", Party::Responder),
        ("completed", Party::Responder),
        ("closed", Party::Opener),
    ];
    let mut at = "requested";
    for (to, by) in path {
        assert_eq!(MessageType::ReferralUpdate.check(Some(at), to, by, None), Ok(()), "{at} -> {to}");
        at = to;
    }
    assert!(is_final(CaseKind::Referral, at));
}

#[test]
fn a_message_type_carries_only_its_own_moves() {
    let refused = |kind: MessageType, from, to, by, rsn| kind.check(from, to, by, rsn).is_err();
    assert!(!refused(MessageType::Referral, None, "requested", Party::Opener, None));
    assert!(refused(MessageType::ReferralUpdate, None, "requested", Party::Opener, None));
    assert!(refused(MessageType::Referral, Some("requested"), "accepted", Party::Responder, None));
    assert!(refused(MessageType::DocumentResponse, Some("provided"), "confirmed", Party::Opener, None));
    assert!(refused(MessageType::DocumentRequestUpdate, Some("requested"), "provided", Party::Responder, None));
    assert!(!refused(
        MessageType::DocumentRequestUpdate,
        Some("provided"),
        "disputed",
        Party::Opener,
        Some("SUBJECT_MISMATCH")
    ));
    assert_eq!(MessageType::DocumentRequestUpdate.statuses(), ["cancelled", "confirmed", "disputed"]);
    assert!(!MessageType::ReferralUpdate.statuses().contains(&"expired"));
}

#[test]
fn every_line_of_casework_can_be_carried_by_one_message_type() {
    for kind in CaseKind::all() {
        for (from, to, by, _) in lines(kind) {
            for by in by.iter().filter(|by| **by != Party::Gateway) {
                let carriers = MessageType::all()
                    .filter(|mt| {
                        mt.case_kind() == kind && mt.check(from.as_deref(), &to, *by, Some(a_reason(kind))).is_ok()
                    })
                    .count();
                assert_eq!(carriers, 1, "{kind} {from:?} -> {to} by {by}");
            }
        }
    }
}

#[test]
fn message_types_are_the_names_of_the_contract() {
    let contract = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tramite/body/v1/body.proto"))
        .expect("the contract");
    for kind in MessageType::all() {
        let name = kind.as_str().strip_prefix("tramite.body.v1.").expect("the package");
        assert!(contract.contains(&format!("\nmessage {name} {{")), "{name}");
    }
}

#[test]
fn a_leased_message_does_not_expire_and_a_dead_letter_moves_only_by_an_operator() {
    use delivery::{Actor, State, TRANSITIONS};
    assert!(!delivery::may(Some(State::Leased), State::Expired, Actor::Clock));
    for line in TRANSITIONS.iter().filter(|line| line.from == Some(State::DeadLettered)) {
        assert_eq!(line.by, Actor::Operator);
    }
    let ends: Vec<_> = State::all().filter(|state| delivery::is_final(*state)).collect();
    assert_eq!(ends, [State::Delivered, State::Refused, State::Expired, State::Cancelled, State::Discarded]);
}

#[test]
fn a_reason_to_come_back_can_be_tried_again_and_a_reason_to_refuse_cannot() {
    use delivery::{State, TRANSITIONS};
    for line in TRANSITIONS {
        for reason in line.reasons {
            match line.to {
                State::RetryWait | State::Held => assert!(reason.retryable(), "{reason}"),
                _ => assert!(!reason.retryable(), "{reason}"),
            }
        }
    }
}

#[test]
fn states_of_delivery_are_those_of_the_operations_contract() {
    let contract =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tramite/operations/v1/operations.proto"))
            .expect("the contract");
    let line = contract.lines().find(|line| line.contains("QUEUED, LEASED")).expect("the list");
    let listed: BTreeSet<_> = line.trim_start_matches([' ', '/']).trim_end_matches('.').split(", ").collect();
    assert_eq!(listed, delivery::State::CODES.iter().copied().collect());
}

#[test]
fn states_md_is_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("STATES.md");
    if std::env::var_os("TRAMITE_WRITE_DOCS").is_some() {
        fs::write(&path, documentation()).expect("writable");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == documentation(),
        "STATES.md is not the tables: TRAMITE_WRITE_DOCS=1 cargo test -p tramite-proto writes it"
    );
}

proptest! {
    #[test]
    fn no_text_from_a_peer_panics_a_check(from in ".{0,20}", to in ".{0,20}", reason in ".{0,20}") {
        for kind in CaseKind::all() {
            prop_assert!(check(kind, Some(&from), &to, Party::Gateway, Some(&reason)).is_err() || statuses(kind).contains(&to.as_str()));
            let _ = next_mover(kind, &from);
        }
    }
}
