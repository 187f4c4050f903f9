//! One message for one id, whoever asks again, whenever.

use super::*;

#[test]
fn a_repeat_gets_the_original_answer() {
    let lab = Lab::new();
    let mut running = lab.open();
    let Ok(Done::Accepted { sequence, fact }) = running.one(message(1, "inps").change()) else { panic!() };
    lab.clock.advance(5_000);
    let Ok(Done::Repeated { sequence: again, fact: same }) = running.one(message(1, "inps").change()) else { panic!() };
    assert_eq!((again, same), (sequence, fact));
    assert_eq!(running.store.sequence(), 1, "a repeat writes nothing");
    assert_eq!(running.store.queue("inps").unwrap().waiting, 1);
}

#[test]
fn a_repeat_in_the_same_group_gets_the_same_answer() {
    let mut running = Lab::new().open();
    let answers = running.commit(vec![message(1, "inps").change(), message(1, "inps").change()]);
    let [Ok(Done::Accepted { sequence: 1, fact }), Ok(Done::Repeated { sequence: 1, fact: same })] = answers.as_slice()
    else {
        panic!("{answers:?}")
    };
    assert!(Arc::ptr_eq(fact, same));
}

#[test]
fn the_same_id_with_other_content_is_refused_also_in_the_same_group() {
    let mut running = Lab::new().open();
    let other = || message(1, "inps").with(|fact| fact.digest = Bytes::from_static(&[9; 32])).change();
    let answers = running.commit(vec![message(1, "inps").change(), other()]);
    assert_eq!(answers[1].as_ref().unwrap_err(), &Rejected::IdReused { sequence: 1 });
    assert_eq!(running.one(other()).unwrap_err(), Rejected::IdReused { sequence: 1 });
}

#[test]
fn a_repeat_after_the_end_and_a_restart_gets_the_original_answer() {
    let lab = Lab::new();
    let mut running = lab.open();
    let Ok(Done::Accepted { sequence, fact }) = running.one(message(1, "inps").change()) else { panic!() };
    running.done(settle(sequence, Outcome::HandedOver));
    running.stop();
    for crash in [false, true] {
        let mut running = lab.open();
        let Ok(Done::Repeated { sequence: 1, fact: same }) = running.one(message(1, "inps").change()) else { panic!() };
        assert_eq!(same, fact);
        if !crash {
            running.stop();
        }
    }
}

#[test]
fn a_repeat_past_the_time_of_memory_is_refused_and_the_id_is_forgotten() {
    let lab = Lab::new();
    let mut running = lab.open();
    let short = || message(1, "inps").with(|fact| fact.remember_ms = T0 + 60_000).change();
    let sequence = running.done(short());
    running.done(settle(sequence, Outcome::HandedOver));
    lab.clock.advance(60_000);
    assert_eq!(running.one(short()).unwrap_err(), Rejected::IdExpired, "still in the rows");
    lab.clock.advance(120_000);
    running.done(message(2, "inps").change());
    assert_eq!(running.store.message(&id(1)).unwrap(), None, "no longer in the rows");
    assert_eq!(running.one(short()).unwrap_err(), Rejected::IdExpired);
}

#[test]
fn an_id_that_still_waits_is_not_forgotten() {
    let lab = Lab::new();
    let mut running = lab.open();
    let short = || message(1, "inps").with(|fact| fact.remember_ms = T0 + 60_000).change();
    let sequence = running.done(short());
    lab.clock.advance(600_000);
    running.done(message(2, "inps").change());
    assert!(running.store.message(&id(1)).unwrap().is_some());
    running.done(settle(sequence, Outcome::Discarded));
    assert_eq!(running.store.message(&id(1)).unwrap(), None);
}

#[test]
fn a_clock_that_jumps_makes_nobody_forget_until_it_is_confirmed() {
    let lab = Lab::new();
    let mut running = lab.open();
    let sequence = running.done(message(1, "inps").change());
    running.done(settle(sequence, Outcome::HandedOver));
    lab.clock.advance(400 * DAY_MS);
    running.done(message(2, "inps").with(|fact| fact.remember_ms = T0 + 500 * DAY_MS).change());
    assert!(running.store.message(&id(1)).unwrap().is_some());
    let confirmed =
        tramite_proto::pb::journal::v1::Recorded { name: crate::CLOCK_CONFIRMED.into(), ..Default::default() };
    running.done(Change::Record { fact: Box::new(confirmed) });
    assert_eq!(running.store.message(&id(1)).unwrap(), None);
}

#[test]
fn one_request_makes_one_message() {
    let mut running = Lab::new().open();
    let request = |number, digest: u8| {
        let with = |fact: &mut Accepted| {
            fact.request_id = "pratica-17.json".into();
            fact.request_digest = Bytes::copy_from_slice(&[digest; 32]);
        };
        message(number, "gateway").with(with).change()
    };
    let first = running.done(request(1, 1));
    let Ok(Done::Repeated { sequence, fact }) = running.one(request(2, 1)) else { panic!() };
    assert_eq!((sequence, &accepted_of(&fact).id), (first, &id(1)), "the retry's own id is not used");
    assert_eq!(running.one(request(3, 2)).unwrap_err(), Rejected::RequestReused { sequence: first });
    assert_eq!(running.store.request("pratica-17.json").unwrap().unwrap().id, id(1));
}

#[test]
fn a_refusal_does_not_take_the_id() {
    let mut running = Lab::new().open();
    let bad = message(1, "inps").with(|fact| fact.case_move = Some(case_move(99, "accepted")));
    let bad = Message { mover: Some(crate::Mover::Party(tramite_proto::states::Party::Responder)), ..bad };
    assert!(matches!(running.one(bad.change()), Err(Rejected::Case(_))));
    assert!(matches!(running.one(message(1, "inps").change()), Ok(Done::Accepted { sequence: 1, .. })));
}

#[test]
fn what_cannot_be_a_fact_is_refused() {
    let mut running = Lab::new().open();
    type Wrong = (&'static str, fn(&mut Accepted));
    let wrong: [Wrong; 7] = [
        ("queue", |fact| fact.queue.clear()),
        ("queue", |fact| fact.queue = "a\0b".into()),
        ("id", |fact| fact.id = Bytes::new()),
        ("id", |fact| fact.id = Bytes::from_static(&[1; 65])),
        ("digest", |fact| fact.digest = Bytes::from_static(&[1; 31])),
        ("order", |fact| fact.order = Bytes::from_static(&[1; 65])),
        ("case_id", |fact| fact.case_id = Bytes::from_static(&[1; 15])),
    ];
    for (field, change) in wrong {
        let answer = running.one(message(1, "inps").with(change).change());
        assert_eq!(answer.unwrap_err(), Rejected::Malformed { what: field });
    }
    let large = message(1, "inps").content(Bytes::from(vec![1; 1024 * 1024 + 1])).change();
    assert_eq!(running.one(large).unwrap_err(), Rejected::TooLarge { what: "content" });
    let many = (0..513).map(|number| message(number, "inps").change()).collect();
    assert!(running.commit(many).iter().all(|answer| matches!(answer, Err(Rejected::TooLarge { .. }))));
    assert_eq!(running.store.sequence(), 0);
}
