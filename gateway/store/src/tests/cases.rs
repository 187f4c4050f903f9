//! Cases: judged by the writer, also within one group.

use tramite_proto::{ids::CaseId, pb::journal::v1::CaseExpired, reason::Reason};

use super::*;
use crate::Mover;

fn opens(number: u64, kind: &str, deadline_ms: i64) -> Change {
    let fact = |fact: &mut Accepted| {
        let case =
            CaseMove { kind: kind.into(), deadline_ms, conversation: bytes("talk"), ..case_move(number, "requested") };
        fact.case_move = Some(case);
        fact.case_id = id(number);
    };
    by("caritas", "inps", message(number, "inps").with(fact)).change()
}

fn by(issuer: &str, audience: &str, message: Message) -> Message {
    Message { mover: Some(Mover::Institution { issuer: issuer.into(), audience: audience.into() }), ..message }
}

fn moves(number: u64, case: u64, issuer: &str, audience: &str, to: &str) -> Change {
    let fact = |fact: &mut Accepted| {
        fact.case_move = Some(case_move(case, to));
        fact.case_id = id(case);
    };
    by(issuer, audience, message(number, audience).with(fact)).change()
}

fn refusal(answer: Result<Done, Rejected>) -> Reason {
    match answer {
        Err(Rejected::Case(refused)) => refused.reason,
        other => panic!("{other:?}"),
    }
}

fn case_id(number: u64) -> CaseId {
    CaseId::from_bytes(&id(number)).unwrap()
}

#[test]
fn a_case_moves_by_its_table_within_one_group() {
    let mut running = Lab::new().open();
    let answers = running.commit(vec![
        opens(1, "REFERRAL", 0),
        moves(2, 1, "inps", "caritas", "accepted"),
        moves(3, 1, "inps", "caritas", "requested"),
        moves(4, 1, "caritas", "inps", "completed"),
        moves(5, 1, "inps", "caritas", "in_progress"),
    ]);
    assert!(answers[0].is_ok() && answers[1].is_ok() && answers[4].is_ok(), "{answers:?}");
    assert_eq!(refusal(answers[2].clone()), Reason::CaseExists);
    assert_eq!(refusal(answers[3].clone()), Reason::CaseTransitionInvalid);
    let Ok(Done::Accepted { fact, .. }) = &answers[4] else { panic!() };
    let written = accepted_of(fact).case_move.as_ref().unwrap();
    assert_eq!(
        (written.from.as_str(), written.opener.as_str(), written.responder.as_str()),
        ("accepted", "caritas", "inps")
    );
    let row = running.store.case(case_id(1)).unwrap().unwrap();
    assert_eq!(
        (row.status.as_str(), row.kind.as_str(), row.opened_sequence, row.moved_sequence),
        ("in_progress", "REFERRAL", 1, 3)
    );
    let timeline: Vec<u64> =
        running.store.timeline(case_id(1)).unwrap().iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(timeline, [1, 2, 3]);
}

#[test]
fn only_the_two_of_a_case_move_it_towards_each_other() {
    let mut running = Lab::new().open();
    running.done(opens(1, "REFERRAL", 0));
    assert_eq!(refusal(running.one(moves(2, 1, "comune", "caritas", "accepted"))), Reason::CaseNotParty);
    assert_eq!(refusal(running.one(moves(3, 1, "inps", "comune", "accepted"))), Reason::CaseNotParty);
    assert_eq!(refusal(running.one(moves(4, 9, "inps", "caritas", "accepted"))), Reason::CaseUnknown);
    assert_eq!(refusal(running.one(moves(5, 1, "caritas", "inps", "accepted"))), Reason::CaseTransitionInvalid);
    let other_kind = |fact: &mut Accepted| {
        fact.case_move = Some(CaseMove { kind: "DOCUMENT_REQUEST".into(), ..case_move(1, "accepted") });
    };
    let wrong = by("inps", "caritas", message(6, "caritas").with(other_kind)).change();
    assert_eq!(refusal(running.one(wrong)), Reason::CaseMismatch);
    assert!(running.one(moves(7, 1, "inps", "caritas", "accepted")).is_ok());
}

#[test]
fn a_case_is_judged_the_same_after_it_was_applied_and_after_a_crash() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(opens(1, "REFERRAL", 0));
    running.writer.apply();
    running.done(moves(2, 1, "inps", "caritas", "accepted"));
    drop(running);
    let mut running = lab.open();
    assert_eq!(refusal(running.one(moves(3, 1, "inps", "caritas", "received"))), Reason::CaseTransitionInvalid);
    assert!(running.one(moves(4, 1, "inps", "caritas", "in_progress")).is_ok());
}

#[test]
fn a_case_past_its_deadline_expires_once_and_tells_both() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(opens(1, "REFERRAL", T0 + 1_000));
    running.done(opens(2, "REFERRAL", T0 + 1_000));
    assert!(running.store.due(T0 + 999, 10).unwrap().cases.is_empty());
    lab.clock.advance(1_000);
    let expire = |case| {
        let notify = vec!["caritas".to_owned(), "inps".to_owned()];
        let fact = CaseExpired { case_move: Some(case_move(case, "")), evidence: None, notify };
        Change::ExpireCase { fact: Box::new(fact), sign: vec![(Slot::Evidence, bytes("{}"))] }
    };
    assert_eq!(running.store.due(T0 + 1_000, 10).unwrap().cases.len(), 2);
    running.done(moves(3, 2, "inps", "caritas", "accepted"));
    let answers = running.commit(vec![expire(1), expire(1), expire(2)]);
    let Ok(Done::Recorded { sequence, fact }) = &answers[0] else { panic!("{answers:?}") };
    assert!(matches!(&fact.kind, Some(Kind::CaseExpired(expired)) if expired.evidence.is_some()));
    assert!(matches!(answers[1], Ok(Done::Already { .. })) && matches!(answers[2], Ok(Done::Already { .. })));
    assert_eq!(running.store.case(case_id(1)).unwrap().unwrap().status, "expired");
    assert_eq!(running.store.case(case_id(2)).unwrap().unwrap().status, "accepted");
    assert!(running.store.due(T0 + 1_000, 10).unwrap().cases.is_empty());
    for queue in ["caritas", "inps"] {
        assert!(running.leasable(queue).contains(sequence), "{queue} is told");
    }
}

#[test]
fn cases_are_listed_in_order_and_page_by_page() {
    let mut running = Lab::new().open();
    running.commit((1..=5).map(|number| opens(number, "DOCUMENT_REQUEST", 0)).collect());
    let first = running.store.cases(None, 3).unwrap();
    let rest = running.store.cases(Some(first[2].case_id), 10).unwrap();
    assert_eq!((first.len(), rest.len()), (3, 2));
    assert!(first[2].case_id < rest[0].case_id);
}

/// Ends message `number`, and sets case 1, as it was counted up to a sequence, to where it stands without it.
fn ends(number: u64, up_to: u64, to: &str) -> Change {
    let fact = Settled {
        sequence: number,
        outcome: Outcome::Refused.into(),
        case_move: Some(case_move(1, to)),
        ..Settled::default()
    };
    Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: Some(Mover::Counted { up_to }) }
}

#[test]
fn a_case_that_was_counted_is_set_only_while_nothing_was_added_to_it() {
    let mut running = Lab::new().open();
    let answers = running.commit(vec![
        opens(1, "REFERRAL", 0),
        moves(2, 1, "inps", "caritas", "accepted"),
        moves(3, 1, "inps", "caritas", "in_progress"),
    ]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let stands = |running: &Running| running.store.case(case_id(1)).unwrap().unwrap().status;
    // Counted before the case was in progress; in the other kind of fact, too, and when it would stay where it is.
    let told = |up_to, to: Option<&'static str>| {
        let with = move |fact: &mut Accepted| {
            (fact.case_id, fact.case_move) = (case_move(1, "").case_id, to.map(|to| case_move(1, to)));
        };
        Message { mover: Some(Mover::Counted { up_to }), ..message(4, "caritas").with(with) }.change()
    };
    let stale = [ends(2, 2, "requested"), told(2, Some("requested")), told(2, None)];
    for answer in running.commit(stale.into()) {
        assert_eq!(answer.unwrap_err(), Rejected::CaseChanged);
    }
    assert_eq!(stands(&running), "in_progress");
    // In one group, too: the second was counted without the first.
    let answers = running.commit(vec![ends(3, 3, "accepted"), ends(2, 3, "requested")]);
    assert!(matches!(&answers[..], [Ok(_), Err(Rejected::CaseChanged)]), "{answers:?}");
    assert_eq!(stands(&running), "accepted");
    running.done(told(4, Some("requested")));
    assert_eq!(stands(&running), "requested");
}
