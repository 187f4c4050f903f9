//! What is left when facts went: nothing that speaks of them, nothing that says more than they did, and not one fact too few before the
//! outbox can do without it.

use super::{
    growth::{noise, segments},
    retention::{
        LARGE, RETENTION_DAYS, case_of, fill, hand_over, in_case, lab, lose_rows, now_ms, pass_days, record, same_rows,
        there,
    },
    *,
};

/// Days in which nothing is applied to the outbox.
fn pass_days_unapplied(lab: &Lab, running: &mut Running, days: i64) {
    for _ in 0..days * 2 {
        lab.clock.advance(DAY_MS / 2);
        running.done(record("clock/seen", &now_ms(lab).to_string()));
        running.writer.compact();
    }
}

/// A case that is over, of which only the first fact is in the map.
fn half_applied(lab: &Lab) -> Running {
    let mut running = lab.open();
    let opened = running.done(in_case(1, 1, "closed", T0 + DAY_MS));
    running.writer.apply();
    hand_over(&mut running, opened);
    fill(&mut running, 400);
    pass_days_unapplied(lab, &mut running, RETENTION_DAYS + 3);
    assert_eq!(case_of(&running, 1), None, "it is retired");
    running
}

#[test]
fn facts_that_the_map_has_not_got_stay_until_it_has() {
    let lab = lab();
    let running = half_applied(&lab);
    let rows = running.rows();
    drop(running);
    same_rows(&lab.open(), &rows, "completed after a kill");
}

#[test]
fn facts_that_the_map_may_lose_again_stay_until_it_may_not() {
    let lab = lab();
    let mut running = half_applied(&lab);
    running.writer.apply();
    running.writer.compact();
    assert!(!there(&running).contains(&1), "it is swept");
    let rows = running.rows();
    drop(running);
    lab.maps.lose_last();
    same_rows(&lab.open(), &rows, "completed after a power cut");
}

#[test]
fn the_first_fact_that_is_left_is_no_word_for_its_own_clock() {
    let lab = lab();
    let mut running = lab.open();
    let over = running.done(in_case(1, 1, "closed", T0 + DAY_MS));
    hand_over(&mut running, over);
    // By a clock that nobody believed.
    lab.clock.advance(400 * DAY_MS);
    let ahead = running.done(in_case(2, 2, "requested", T0 + 300 * DAY_MS));
    lab.clock.advance(-400 * DAY_MS);
    let remembered = running.done(in_case(3, 3, "requested", T0 + 300 * DAY_MS));
    hand_over(&mut running, remembered);
    fill(&mut running, 400);
    running.writer.apply();
    pass_days(&lab, &mut running, RETENTION_DAYS + 3);
    assert_eq!(there(&running).first(), Some(&ahead));
    let rows = running.rows();
    drop(running);
    lose_rows(&lab);
    let mut running = lab.open();
    same_rows(&running, &rows, "rebuilt");
    let repeat = running.one(in_case(3, 3, "requested", T0 + 300 * DAY_MS));
    assert!(matches!(repeat, Ok(Done::Repeated { sequence, .. }) if sequence == remembered), "{repeat:?}");
}

#[test]
fn an_issuer_of_whom_nothing_is_left_still_owes_nothing() {
    let lab = lab();
    let mut running = lab.open();
    let change = match in_case(1, 1, "closed", T0 + DAY_MS) {
        Change::Accept { mut fact, content, sign, mover } => {
            fact.return_to = "comune".into();
            Change::Accept { fact, content, sign, mover }
        }
        other => other,
    };
    let over = running.done(change);
    hand_over(&mut running, over);
    fill(&mut running, 400);
    running.writer.apply();
    pass_days(&lab, &mut running, RETENTION_DAYS + 3);
    assert!(!there(&running).contains(&over));
    let (rows, charges) = (running.rows(), running.charges());
    assert!(charges.contains(&("comune".into(), 0)), "{charges:?}");
    drop(running);
    lose_rows(&lab);
    same_rows(&lab.open(), &rows, "rebuilt");
}

#[test]
fn retirements_go_when_what_they_name_is_gone() {
    let lab = lab();
    let mut running = lab.open();
    for day in 0..3 * RETENTION_DAYS {
        let case = u64::try_from(day).unwrap() + 1;
        // A segment a day, and so a retirement.
        let over = match in_case(case, case, "closed", now_ms(&lab) + DAY_MS) {
            Change::Accept { fact, sign, mover, .. } => {
                Change::Accept { fact, content: noise(case, 9 * LARGE), sign, mover }
            }
            other => other,
        };
        let over = running.done(over);
        hand_over(&mut running, over);
        pass_days(&lab, &mut running, 1);
    }
    assert_eq!((case_of(&running, 50), there(&running).contains(&1)), (None, false), "however small its segment");
    let open = |(key, minute): &&Pair| key[0] == b'a' && rows::number_at_end(minute) == 0;
    let open = running.rows().iter().filter(open).count();
    let retired = |sequence: &u64| match running.store.fact(*sequence).unwrap().kind {
        Some(Kind::Retired(ref retired)) => !retired.mark,
        _ => false,
    };
    let facts = there(&running).iter().filter(|sequence| retired(sequence)).count();
    assert!(open < 20, "{open} rows of retirements");
    assert!(facts < 45, "{facts} facts of retirements");
}

#[test]
fn a_case_of_which_some_stands_in_the_segment_that_is_written_goes_wholly_when_that_is_full() {
    let lab = lab();
    let mut running = lab.open();
    let soon = T0 + DAY_MS;
    let opened = running.done(in_case(1, 1, "requested", soon));
    hand_over(&mut running, opened);
    fill(&mut running, 400);
    let closed = running.done(in_case(10, 1, "closed", soon));
    hand_over(&mut running, closed);
    running.writer.apply();
    pass_days(&lab, &mut running, RETENTION_DAYS + 6);
    assert_eq!(case_of(&running, 1), None, "it is retired");
    assert!(!there(&running).contains(&opened) && there(&running).contains(&closed), "and half of it swept");
    fill(&mut running, 420);
    running.writer.apply();
    // So long that the retirement may go, too.
    pass_days(&lab, &mut running, RETENTION_DAYS + 6);
    assert!(!there(&running).contains(&closed), "swept");
    let rows = running.rows();
    drop(running);
    lose_rows(&lab);
    same_rows(&lab.open(), &rows, "rebuilt");
}

/// Text of which half is left when it is packed.
fn batch(number: u64, length: usize) -> String {
    let digests =
        (0..).flat_map(|i: u64| Digest::of(&[number.to_le_bytes(), i.to_le_bytes()].concat()).to_hex().into_bytes());
    String::from_utf8(digests.take(length).collect()).unwrap()
}

/// A message of a case with a batch of its own of so many characters.
fn signed(number: u64, status: &str, length: usize) -> Change {
    match in_case(number, number, status, 0) {
        Change::Accept { mut fact, sign, mover, .. } => {
            fact.statement = Some(Statement { jws: batch(number, length), ..Statement::default() });
            Change::Accept { fact, content: noise(number, 100), sign, mover }
        }
        other => other,
    }
}

#[test]
fn the_signature_of_what_went_goes_with_it_and_not_that_of_its_neighbours() {
    let lab = lab();
    let mut running = lab.open();
    for number in 1..=10 {
        // Of each group one stays, and one with a batch of some 6 kB goes.
        let answers = running.commit(vec![signed(number, "closed", 12_000), signed(100 + number, "requested", 200)]);
        hand_over(&mut running, sequence(answers[0].as_ref().unwrap()));
    }
    fill(&mut running, 400);
    running.writer.apply();
    pass_days(&lab, &mut running, RETENTION_DAYS + 3);
    assert!(!there(&running).contains(&1), "it is swept");
    for number in 101..=110 {
        let sequence = running.store.message(&id(number)).unwrap().unwrap().sequence;
        let fact = running.store.fact(sequence).unwrap();
        assert_eq!(accepted_of(&fact).statement.as_ref().unwrap().jws, batch(number, 200));
    }
    for name in segments(&lab).iter().filter(|name| name.ends_with(".pack")) {
        let length = lab.disk.bytes(&lab.path("journal").join(name)).unwrap().len();
        assert!(length % LARGE < 20_000, "beside contents of {LARGE} bytes {name} has {} bytes", length % LARGE);
    }
}
