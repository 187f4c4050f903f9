//! Facts go at the end of their retention, and nothing else does: what waits, what is open, what must be remembered; whatever the clock
//! says.

use std::collections::BTreeSet;

use tramite_proto::{ids::CaseId, pb::journal::v1::Recorded};

use super::{
    growth::{noise, segments},
    *,
};
use crate::{CLOCK_CONFIRMED, MessageState, ReadError};

pub(super) const RETENTION_DAYS: i64 = 30;
pub(super) const LARGE: usize = 100_000;

pub(crate) fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.options.retention_ms = Some(RETENTION_DAYS * DAY_MS);
    lab.options.recent_bytes = 0;
    lab
}

pub(super) fn now_ms(lab: &Lab) -> i64 {
    use tramite_proto::clock::Clock as _;
    lab.clock.now_ms()
}

fn moved(case: u64, to: &str) -> Option<CaseMove> {
    let parties = |case: CaseMove| CaseMove { opener: "caritas".into(), responder: "inps".into(), ..case };
    Some(parties(CaseMove { kind: "REFERRAL".into(), ..case_move(case, to) }))
}

pub(super) fn in_case(number: u64, case: u64, to: &str, remember_ms: i64) -> Change {
    let with = |fact: &mut Accepted| {
        fact.case_id = id(case);
        fact.case_move = moved(case, to);
        fact.remember_ms = remember_ms;
        fact.request_id = format!("request {number}");
    };
    message(number, "inps").content(noise(number, LARGE)).with(with).change()
}

/// Handed over, with a notice to the sender, which takes it.
pub(super) fn hand_over(running: &mut Running, sequence: u64) {
    let fact =
        Settled { sequence, outcome: Outcome::HandedOver.into(), notify: vec!["caritas".into()], ..Settled::default() };
    let notice = running.done(Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None });
    running.done(fail_attempt_in("caritas", notice, 0));
    running.done(settle(notice, Outcome::HandedOver));
}

pub(super) fn record(name: &str, value: &str) -> Change {
    let fact = Recorded { name: name.into(), value: Some(bytes(value)), ..Recorded::default() };
    Change::Record { fact: Box::new(fact), begins: false }
}

/// Lets days pass as a running node sees them.
pub(crate) fn pass_days(lab: &Lab, running: &mut Running, days: i64) {
    for _ in 0..days * 2 {
        lab.clock.advance(DAY_MS / 2);
        running.done(record("clock/seen", &now_ms(lab).to_string()));
        running.writer.apply();
        running.writer.compact();
    }
}

/// Fills a segment and some.
pub(super) fn fill(running: &mut Running, from: u64) {
    for number in from..from + 13 {
        running.done(in_case(number, number, "requested", T0 + 300 * DAY_MS));
    }
}

/// A life of which some is over after a time: cases 1 to 9. What is accepted and what becomes of it stand in different segments.
fn a_life(running: &mut Running) {
    let soon = T0 + 20 * DAY_MS;
    let mut accepted = Vec::new();
    for case in 1..=9 {
        // 6 must be remembered for long.
        let opened = running.done(in_case(case, case, "requested", if case == 6 { T0 + 300 * DAY_MS } else { soon }));
        running.done(fail_attempt(opened, 0));
        // 3 stays open.
        let closed = (case != 3).then(|| running.done(in_case(10 * case, case, "closed", soon)));
        accepted.push((case, opened, closed));
    }
    for number in [300, 301] {
        running.done(message(number, "inps").with(|fact| fact.remember_ms = soon).change());
    }
    fill(running, 400);
    for (case, opened, closed) in accepted {
        match case {
            // A dead letter, and one that waits.
            4 => drop(running.done(settle(opened, Outcome::DeadLettered))),
            5 => {}
            // A notice that nobody has taken.
            7 => {
                let (outcome, notify) = (Outcome::HandedOver.into(), vec!["comune".into()]);
                let fact = Settled { sequence: opened, outcome, notify, ..Settled::default() };
                running.done(Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None });
            }
            _ => hand_over(running, opened),
        }
        if let Some(closed) = closed {
            hand_over(running, closed);
        }
    }
    // What an adapter notes for its office: remembered for as long as it is there.
    let noted = message(200, "backoffice").with(|fact| (fact.case_id, fact.remember_ms) = (id(1), 0)).change();
    let noted = running.done(noted);
    running.done(settle(noted, Outcome::HandedOver));
    // Of no case: one over, one not.
    let over = running.store.message(&id(300)).unwrap().unwrap().sequence;
    running.done(fail_attempt(over, 0));
    hand_over(running, over);
    running.done(record("key/inps", "old"));
    running.done(record("key/inps", "new"));
    fill(running, 420);
    running.writer.apply();
}

pub(super) fn case_of(running: &Running, case: u64) -> Option<crate::CaseRow> {
    running.store.case(CaseId::from_bytes(&id(case)).unwrap()).unwrap()
}

/// The sequences that are there.
pub(super) fn there(running: &Running) -> BTreeSet<u64> {
    let all = running.store.facts(0, usize::try_from(running.store.sequence()).unwrap()).unwrap();
    all.into_iter().map(|(sequence, _)| sequence).collect()
}

/// The next opening reads the whole journal.
pub(crate) fn lose_rows(lab: &Lab) {
    use crate::map::Maps as _;
    lab.maps.wipe(&lab.path("outbox")).unwrap();
}

/// The rows are those; names the first that is not.
pub(crate) fn same_rows(running: &Running, rows: &[Pair], what: &str) {
    let now = running.rows();
    let key = |row: Option<&Pair>| row.map(|(key, value)| format!("{} {}", key.escape_ascii(), value.escape_ascii()));
    let (gone, new) = (rows.iter().find(|row| !now.contains(row)), now.iter().find(|row| !rows.contains(row)));
    assert!(gone.is_none() && new.is_none(), "{what}: {:?} is now {:?}", key(gone), key(new));
}

#[test]
fn facts_go_at_the_end_of_their_retention_and_nothing_else_does() {
    let lab = lab();
    let mut running = lab.open();
    a_life(&mut running);
    let before = there(&running);
    pass_days(&lab, &mut running, RETENTION_DAYS - 1);
    assert!(there(&running).is_superset(&before), "nothing went before its time");
    pass_days(&lab, &mut running, 4);
    let left = there(&running);
    assert!(!left.is_superset(&before), "something went");
    for case in 1..=9 {
        let stays = [3, 4, 5, 6, 7].contains(&case);
        assert_eq!(case_of(&running, case).is_some(), stays, "case {case}");
        let message = running.store.message(&id(case)).unwrap();
        assert_eq!(message.is_some_and(|row| !matches!(row.state, MessageState::Final(_))), [4, 5].contains(&case));
        let known = left.iter().any(|sequence| {
            let fact = running.store.fact(*sequence).unwrap();
            matches!(&fact.kind, Some(Kind::Accepted(it)) if it.case_id == id(case))
        });
        assert_eq!(known, stays, "facts of case {case}");
    }
    assert_eq!(running.store.message(&id(200)).unwrap(), None, "remembered for as long as its case");
    assert_eq!(running.store.message_at(1).unwrap_err(), ReadError::NoFact(1));
    assert_eq!(running.store.record("key/inps").unwrap().unwrap().value, bytes("new"));
    assert_eq!(running.store.queue("inps").unwrap().accepted, 17 + 2 + 26, "it counts what went");
    assert_eq!(running.leasable("inps").len(), 1 + 1 + 26);
    // Whoever speaks of what went is told that it is not known.
    assert!(matches!(running.one(settle(1, Outcome::HandedOver)), Err(Rejected::UnknownSequence { sequence: 1 })));
    let rows = running.rows();
    drop(running);
    lose_rows(&lab);
    let running = lab.open();
    same_rows(&running, &rows, "rebuilt from what is left");
    assert_eq!(there(&running), left);
    running.stop();
    let found = verified(&lab);
    assert_eq!((found.problems, found.facts), (Vec::new(), left.len() as u64));
}

#[test]
fn a_clock_that_jumps_lets_nothing_go_until_it_is_confirmed() {
    for jump_days in [400, -400] {
        let lab = lab();
        let mut running = lab.open();
        a_life(&mut running);
        pass_days(&lab, &mut running, 3);
        let before = there(&running);
        lab.clock.advance(jump_days * DAY_MS);
        pass_days(&lab, &mut running, RETENTION_DAYS / 2);
        running.stop();
        let mut running = lab.open();
        pass_days(&lab, &mut running, RETENTION_DAYS / 2);
        assert!(there(&running).is_superset(&before), "a jump of {jump_days} days let something go");
        if jump_days > 0 {
            running.done(record(CLOCK_CONFIRMED, "an operator"));
            pass_days(&lab, &mut running, 1);
            assert_eq!(case_of(&running, 1), None, "confirmed, it is the time");
            assert!(case_of(&running, 3).is_some());
        } else {
            // Back again: what was written while the clock was wrong is no older for it.
            let late = running.done(in_case(77, 77, "closed", now_ms(&lab) + DAY_MS));
            hand_over(&mut running, late);
            lab.clock.advance(400 * DAY_MS - RETENTION_DAYS * DAY_MS);
            pass_days(&lab, &mut running, RETENTION_DAYS / 2);
            assert!(case_of(&running, 77).is_some(), "it is not as old as its clock said");
        }
        let rows = running.rows();
        drop(running);
        lose_rows(&lab);
        same_rows(&lab.open(), &rows, "rebuilt");
    }
}

#[test]
fn a_crash_at_any_step_of_retention_loses_nothing_and_the_next_pass_goes_on() {
    let whole = {
        let lab = lab();
        let mut running = lab.open();
        a_life(&mut running);
        pass_days(&lab, &mut running, RETENTION_DAYS + 3);
        (lab, there(&running))
    };
    let mut step = 1;
    loop {
        let lab = lab();
        let mut running = lab.open();
        a_life(&mut running);
        // Only then is there work: the last mark before which everything is over.
        pass_days(&lab, &mut running, RETENTION_DAYS);
        for _ in 0..4 {
            lab.clock.advance(DAY_MS / 2);
            running.done(record("clock/seen", "then"));
        }
        running.writer.apply();
        lab.disk.faults().stop_after(step);
        // What is over is retired by one pass, and swept by the next when its rows are applied.
        running.writer.compact();
        running.writer.apply();
        running.writer.compact();
        let done = !lab.disk.faults().is_stopped();
        lab.disk.faults().stop_after(0);
        let (rows, failed) = (running.rows(), running.store.health().failed);
        drop(running);
        if step % 2 == 0 {
            lab.disk.cut_power(step);
        }
        // By turns: rows as they were, behind, and none.
        match step % 3 {
            0 => lose_rows(&lab),
            1 => lab.maps.lose_last(),
            _ => {}
        }
        let mut running = lab.open();
        // A retirement whose sync failed was made or not.
        if !failed {
            same_rows(&running, &rows, &format!("at step {step}"));
        }
        pass_days(&lab, &mut running, 2);
        assert_eq!(case_of(&running, 1), None, "at step {step}");
        let (rows, left) = (running.rows(), there(&running));
        assert!(left.range(..40).eq(whole.1.range(..40)), "at step {step}: {left:?} and {:?}", whole.1);
        drop(running);
        lose_rows(&lab);
        let running = lab.open();
        same_rows(&running, &rows, &format!("rebuilt, at step {step}"));
        assert_eq!(there(&running), left, "rebuilt, at step {step}");
        running.stop();
        assert_eq!(verified(&lab).problems, Vec::new(), "at step {step}");
        if done {
            break;
        }
        step += 1 + step / 8;
    }
    assert!(step > 20, "{step}");
}

#[test]
fn a_gap_that_retention_made_is_told_from_a_record_that_was_lost() {
    let lab = lab();
    let mut running = lab.open();
    a_life(&mut running);
    pass_days(&lab, &mut running, RETENTION_DAYS + 3);
    running.stop();
    assert_eq!(verified(&lab).problems, Vec::new());
    for name in segments(&lab).iter().filter(|name| name.ends_with(".pack")) {
        let path = lab.path("journal").join(name);
        let lost = lab.fork();
        lost.disk.remove(&path).unwrap();
        assert!(!verified(&lost).problems.is_empty(), "{name} is missing");
        assert!(matches!(lost.try_open(), Err(OpenError::Damaged(_))), "{name} is missing");
        // After a clean stop, too, when only the last segment is read.
        let lost = Lab { maps: lab.maps.clone(), ..lab.fork() };
        lost.disk.remove(&path).unwrap();
        assert!(matches!(lost.try_open(), Err(OpenError::Damaged(_))), "{name} is missing after a clean stop");
        let whole = lab.disk.bytes(&path).unwrap();
        let blocks = whole.windows(4).enumerate().filter(|(_, seen)| seen == b"TRMP").map(|(at, _)| at);
        for at in blocks {
            let lost = lab.fork();
            lost.edit(&path, |bytes| bytes[at..at + 56].fill(0));
            let found = verified(&lost).problems.remove(0);
            assert_eq!((found.file, found.offset), (path.clone(), Some(at as u64)));
            assert!(matches!(lost.try_open(), Err(OpenError::Damaged(damage)) if damage.offset == at as u64));
        }
    }
}

#[test]
fn a_case_to_which_something_came_meanwhile_stays() {
    let lab = lab();
    let mut running = lab.open();
    let opened = running.done(in_case(1, 1, "closed", T0 + DAY_MS));
    running.done(settle(opened, Outcome::HandedOver));
    let found = |timeline: &[u64], before| {
        let dossier = crate::change::Dossier { case: id(1), timeline: timeline.to_vec(), ids: Vec::new() };
        Change::Retire(crate::Retirement { cases: vec![dossier], before, ..Default::default() })
    };
    let retire = |running: &mut Running, change| matches!(running.one(change), Ok(Done::Recorded { .. }));
    assert!(!retire(&mut running, found(&[1], 10)), "a fact more than was found");
    assert!(!retire(&mut running, found(&[1, 2], 1)), "it moved since");
    assert!(case_of(&running, 1).is_some());
    assert!(retire(&mut running, found(&[1, 2], 10)));
    assert_eq!(case_of(&running, 1), None);
}

#[test]
fn marks_and_retirements_go_in_their_turn() {
    let lab = lab();
    let mut running = lab.open();
    a_life(&mut running);
    // So many that the segments with the marks are sealed, too.
    for from in (1000..1400).step_by(13) {
        fill(&mut running, from);
        pass_days(&lab, &mut running, 3);
    }
    let marks: Vec<u64> =
        running.rows().iter().filter(|(key, _)| key[0] == b'a').map(|(key, _)| rows::number_at_end(key)).collect();
    assert!(marks.len() <= usize::try_from(RETENTION_DAYS).unwrap() + 5, "{} marks", marks.len());
    let retired = |sequence: &u64| matches!(running.store.fact(*sequence).unwrap().kind, Some(Kind::Retired(_)));
    let there: Vec<u64> = there(&running).into_iter().filter(retired).collect();
    assert!(there.len() <= marks.len() + 20, "{} facts for {} rows", there.len(), marks.len());
}

#[test]
fn a_fact_that_cannot_be_read_keeps_only_its_own_case() {
    for case in [1, 2] {
        let lab = lab();
        let mut running = lab.open();
        a_life(&mut running);
        running.stop();
        let mut running = lab.open();
        let message = running.store.message(&id(case)).unwrap().unwrap().sequence;
        // Of the first, what begins it; of the other, what ends its message, in a later segment.
        let is_end =
            |(_, fact): &(u64, Arc<Fact>)| matches!(&fact.kind, Some(Kind::Settled(it)) if it.sequence == message);
        let end = running.store.facts(0, 1_000).unwrap().into_iter().find(is_end).unwrap().0;
        let broken = if case == 1 { message } else { end };
        let journal = &running.writer.shared.journal;
        let (path, at) = (journal.path_of(broken), usize::try_from(journal.group(broken).unwrap().offset).unwrap());
        // So that its group is read anew.
        drop(running.store.facts(if case == 1 { 20 } else { 0 }, 20));
        lab.edit(&path, |bytes| bytes[at + 50] ^= 1);
        pass_days(&lab, &mut running, RETENTION_DAYS + 4);
        let there: Vec<u64> = [1, 2, 8, 9].into_iter().filter(|case| case_of(&running, *case).is_some()).collect();
        assert_eq!(there, [case]);
        running.stop();
        let found = verified(&lab).problems.remove(0);
        assert_eq!((found.file, found.offset), (path, Some(at as u64)));
    }
}

#[test]
fn what_keeps_facts_from_going_does_not_keep_segments_from_being_packed() {
    let lab = lab();
    let mut running = lab.open();
    a_life(&mut running);
    pass_days(&lab, &mut running, RETENTION_DAYS + 3);
    running.stop();
    let mut running = lab.open();
    running.writer.compact();
    let marks = |(key, _): &Pair| (key[0] == b'a').then(|| rows::number_at_end(key));
    let last = running.rows().iter().filter_map(marks).max().unwrap();
    for number in 500..520 {
        let sequence = running.done(message(number, "inps").content(noise(number, LARGE)).change());
        running.done(settle(sequence, Outcome::HandedOver));
    }
    running.writer.apply();
    let packed = || segments(&lab).iter().filter(|name| name.ends_with(".pack")).count();
    let before = packed();
    lab.disk.spoil(&running.writer.shared.journal.path_of(last));
    running.writer.compact();
    assert!(packed() > before, "{:?}", segments(&lab));
}
