//! One message for one id, whoever asks again, whenever.

use std::cell::Cell;

use tramite_proto::pb::journal::v1::Recorded;

use super::*;
use crate::{
    MapError, ReadError,
    map::{Key, Maps as _, OrderedMap},
    overlay::Rows,
    project::{Draft, FORGET_AT_ONCE, Facts},
    rows::{ClockRow, IdRow},
};

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
    let confirmed = Recorded { name: crate::CLOCK_CONFIRMED.into(), ..Default::default() };
    running.done(Change::Record { fact: Box::new(confirmed), begins: false });
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

/// Rows at which somebody counts the looks.
struct Counted {
    map: Arc<dyn OrderedMap>,
    scans: Cell<usize>,
}

impl Rows for Counted {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        self.map.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        self.scans.set(self.scans.get() + 1);
        self.map.scan(from, to, limit)
    }
}

struct NoFacts;

impl Facts for NoFacts {
    fn fact(&self, sequence: u64) -> Result<Arc<Fact>, ReadError> {
        Err(ReadError::NoFact(sequence))
    }
}

/// Ids in the rows.
fn known(running: &Running) -> usize {
    running.writer.shared.outbox.scan(&rows::id(&[]), b"j", usize::MAX).unwrap().len()
}

fn seen() -> Recorded {
    Recorded { name: "clock/seen".into(), value: Some(bytes("now")), ..Recorded::default() }
}

#[test]
fn a_fact_forgets_a_bounded_number_of_ids_and_looks_at_each_once() {
    const IDS: usize = 40 * FORGET_AT_ONCE;
    let map = MemoryMaps::new().open(Path::new("m")).unwrap();
    let minute = T0 / 60_000;
    let row = IdRow { sequence: 1, remember_ms: T0, final_sequence: 2, ..IdRow::default() };
    let ids = (0..IDS as u64).flat_map(|number| {
        let (id, row) = (id(number), rows::encode(&row));
        [(rows::id(&id), Some(row)), (rows::forget(minute, &id), Some(Bytes::new()))]
    });
    let clock = ClockRow { minute, dated: minute, ..ClockRow::default() };
    map.apply(&mut ids.chain([(Key::from_slice(rows::CLOCK), Some(rows::encode(&clock)))])).unwrap();
    let rows = Counted { map, scans: Cell::default() };
    // All in one group, where what was removed still stands in the way.
    let mut draft = Draft::new(&rows, &NoFacts);
    let fact = Fact { at_ms: T0 + 60_000, kind: Some(Kind::Recorded(seen())) };
    let left = |draft: &Draft<'_>| draft.scan(&rows::id(&[]), b"j", usize::MAX).unwrap().len();
    for facts in 1..=IDS / FORGET_AT_ONCE {
        let before = rows.scans.get();
        draft.apply(facts as u64 + 2, &fact).unwrap();
        assert_eq!(rows.scans.get() - before, 1, "one look for one fact");
        assert_eq!(left(&draft), IDS - facts * FORGET_AT_ONCE);
        rows.scans.set(before + 1);
    }
    assert!(!draft.clock().unwrap().forgetting.is_empty(), "nobody knows yet that these were all");
    draft.apply(99, &fact).unwrap();
    assert!(draft.clock().unwrap().forgetting.is_empty());
    let before = rows.scans.get();
    draft.apply(100, &fact).unwrap();
    assert_eq!(rows.scans.get(), before, "nobody looks when there is nothing to forget");
}

#[test]
fn ids_that_are_over_together_go_with_the_facts_that_follow_and_a_rebuilt_store_has_the_same() {
    let mut lab = Lab::new();
    lab.options.retention_ms = Some(30 * DAY_MS);
    let mut running = lab.open();
    let count = 3 * FORGET_AT_ONCE as u64 + 100;
    let short = |number| {
        let with = |fact: &mut Accepted| {
            (fact.remember_ms, fact.request_id) = (T0 + 60_000, format!("request {number}"));
        };
        message(number, "inps").with(with).change()
    };
    for numbers in [1..=count / 2, count / 2 + 1..=count] {
        running.commit(numbers.map(short).collect());
    }
    let all: Vec<u64> = (2..=count).collect();
    for some in all.chunks(500) {
        running.commit(some.iter().map(|sequence| settle(*sequence, Outcome::HandedOver)).collect());
    }
    // The mark of the day.
    running.writer.compact();
    lab.clock.advance(DAY_MS - 60_000);
    let mut left = vec![known(&running)];
    let (mut last, mut refused) = (running.store.sequence(), 0);
    loop {
        // By whoever looks at the clock, as nobody else comes.
        let store = running.store.clone();
        clock::wait(&mut running, async move { store.look_at_clock("gateway").await.unwrap() });
        let written = running.store.sequence() - last;
        if written == 0 {
            break;
        }
        assert_eq!(written, 1);
        left.push(known(&running));
        let rows = running.rows();
        retention::same_rows(&lab.fork().open(), &rows, "rebuilt");
        if left.len() % 2 == 0 {
            running.writer.apply();
        }
        running.writer.shared.outbox.distrust("somebody found a bad row");
        retention::same_rows(&running, &rows, "replayed up to where it was");
        assert_eq!(running.one(short(2)).unwrap_err(), Rejected::IdExpired, "forgotten or not");
        running.writer.shared.tight.store(true, Ordering::Relaxed);
        let store = running.store.clone();
        clock::wait(&mut running, async move { store.look_at_clock("gateway").await.unwrap() });
        running.writer.shared.tight.store(false, Ordering::Relaxed);
        assert_eq!(running.store.sequence(), last + written, "not where there is no room");
        // A mark would have to wait for all of them.
        lab.clock.advance(60_000);
        running.writer.compact();
        refused += u64::from(running.store.sequence() == last + written);
        last = running.store.sequence();
    }
    let forgets: Vec<usize> = left.windows(2).map(|pair| pair[0] - pair[1]).collect();
    assert_eq!(forgets, [FORGET_AT_ONCE - 1, FORGET_AT_ONCE, FORGET_AT_ONCE, 100], "not the first, which waits");
    assert_eq!(refused, 3);
    running.done(settle(1, Outcome::HandedOver));
    assert_eq!(known(&running), 0);
    running.stop();
    assert_eq!(verified(&lab).problems, Vec::new());
}

/// Of ids up to that of this number it sorts last.
const LAST: u64 = 2 * 251 - 1;

/// Messages whose memory is over in a minute, all settled but the last.
fn short_lived(running: &mut Running, count: u64) {
    let numbers: Vec<u64> = (1..=count).collect();
    let short = |number: &u64| message(*number, "inps").with(|fact| fact.remember_ms = T0 + 60_000).change();
    for some in numbers.chunks(500) {
        running.commit(some.iter().map(short).collect());
    }
    for some in numbers[..numbers.len() - 1].chunks(500) {
        running.commit(some.iter().map(|sequence| settle(*sequence, Outcome::HandedOver)).collect());
    }
}

#[test]
fn what_is_held_meanwhile_is_not_forgotten() {
    let lab = Lab::new();
    let mut running = lab.open();
    short_lived(&mut running, LAST);
    lab.clock.advance(120_000);
    let left = usize::try_from(LAST).unwrap() - FORGET_AT_ONCE;
    let store = running.store.clone();
    clock::wait(&mut running, async move { store.hold_clock("prova", "the audit is not over").await.unwrap() });
    assert_eq!(known(&running), left);
    for _ in 0..3 {
        running.done(Change::Record { fact: Box::new(seen()), begins: false });
        lab.clock.advance(60_000);
    }
    assert_eq!(known(&running), left);
    clock::confirm(&mut running);
    assert_eq!(known(&running), 1, "the one that waits");
}

#[test]
fn an_id_that_is_taken_anew_meanwhile_is_remembered() {
    let lab = Lab::new();
    let mut running = lab.open();
    let last = LAST + 3 * 251;
    short_lived(&mut running, last);
    lab.clock.advance(120_000);
    running.done(Change::Record { fact: Box::new(seen()), begins: false });
    running.done(settle(last, Outcome::HandedOver));
    let Ok(Done::Accepted { sequence, .. }) = running.one(message(last, "inps").change()) else { panic!() };
    running.done(settle(sequence, Outcome::HandedOver));
    assert_eq!(known(&running), usize::try_from(last).unwrap() - 4 * FORGET_AT_ONCE);
    running.done(Change::Record { fact: Box::new(seen()), begins: false });
    assert_eq!(known(&running), 1);
    assert!(matches!(running.one(message(last, "inps").change()), Ok(Done::Repeated { .. })));
}
