//! A clock that steps: nothing ends and nothing is deleted by it until somebody says that it is right; then all of it is.

use tramite_proto::{pb::journal::v1::CaseExpired, states::Party};

use super::{
    parts::{ask, named, put},
    *,
};
use crate::{ClockState, MessageState, Mover, home};

const STEPS: [i64; 2] = [400 * DAY_MS, -400 * DAY_MS];

/// Works while the writer steps.
pub(super) fn wait<T>(running: &mut Running, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
        assert_eq!(running.writer.step(), Step::Worked, "it waits for something else than the writer");
    }
}

fn look(running: &mut Running) -> ClockState {
    let store = running.store.clone();
    wait(running, async move { store.look_at_clock("gateway").await.unwrap() })
}

pub(super) fn confirm(running: &mut Running) {
    let store = running.store.clone();
    wait(running, async move { store.confirm_clock("prova", "it is right").await.unwrap() });
}

/// The store with this clock, running on or started anew after a crash.
fn step(lab: &Lab, running: Running, by_ms: i64, stopped: bool) -> Running {
    let now_ms = lab.clock.advance(by_ms);
    lab.disk.faults().now_ms.store(now_ms, Ordering::SeqCst);
    if !stopped {
        return running;
    }
    drop(running);
    lab.open()
}

fn referral(number: u64) -> Change {
    let opens = CaseMove {
        kind: "REFERRAL".into(),
        opener: "caritas".into(),
        responder: "inps".into(),
        deadline_ms: T0 + 2 * DAY_MS,
        ..case_move(number, "requested")
    };
    let with = |fact: &mut Accepted| {
        fact.case_id = id(number);
        fact.case_move = Some(opens);
        fact.expires_ms = T0 + 3 * DAY_MS;
    };
    Message { mover: Some(Mover::Party(Party::Opener)), ..message(number, "inps").with(with) }.change()
}

fn case_expired(number: u64) -> Change {
    let fact = CaseExpired { case_move: Some(case_move(number, "expired")), ..CaseExpired::default() };
    Change::ExpireCase { fact: Box::new(fact), sign: Vec::new() }
}

#[tokio::test]
async fn a_step_of_400_days_ends_and_deletes_nothing_until_it_is_confirmed() {
    for (by_ms, stopped) in STEPS.into_iter().flat_map(|by| [(by, false), (by, true)]) {
        let lab = Lab::new();
        let mut running = lab.open();
        let waiting = running.done(referral(1));
        let over = running.done(message(2, "inps").change());
        running.done(settle(over, Outcome::HandedOver));
        let dead = running.done(message(3, "inps").with(|fact| fact.expires_ms = T0 + DAY_MS).change());
        running.done(settle(dead, Outcome::DeadLettered));
        put(&running.store, 9, 0, b"orphan").await.unwrap();
        put(&running.store, 4, 0, b"named").await.unwrap();
        ask(&mut running, message(4, "inps").with(|fact| fact.parts = vec![named(0, b"named")]).change())
            .await
            .unwrap();

        let mut running = step(&lab, running, by_ms, stopped);
        assert_eq!(look(&mut running), ClockState::Held { began: true }, "{by_ms} {stopped}");
        for _ in 0..2 {
            let now_ms = lab.clock.advance(3_600_000);
            assert_eq!(look(&mut running), ClockState::Held { began: false });
            assert!(!running.store.believes(now_ms));
            let due = running.store.due(now_ms, 100).unwrap();
            assert!(due.messages.is_empty() && due.cases.is_empty(), "{by_ms} {stopped}: {due:?}");
            home::sweep_parts(&running.writer.shared, false);
            assert_eq!(running.store.parts().unwrap().len(), 2, "{by_ms} {stopped}");
            assert!(matches!(running.one(message(2, "inps").change()), Ok(Done::Repeated { .. })), "{by_ms} {stopped}");
            let stats = running.store.queue("inps").unwrap();
            assert_eq!((stats.waiting, stats.dead_letters), (2, 1));
            running = step(&lab, running, 0, stopped);
        }
        // Nor does a clock that comes back take anybody's word.
        let mut running = step(&lab, running, -by_ms, stopped);
        assert_eq!(look(&mut running), ClockState::Held { began: false });
        assert_eq!(running.leasable("inps").len(), 2);

        // With the clock where it is right, what is past its time ends.
        let mut running = step(&lab, running, 10 * DAY_MS, stopped);
        confirm(&mut running);
        assert_eq!(look(&mut running), ClockState::Believed);
        let due = running.store.due(lab.clock.advance(0), 100).unwrap();
        assert_eq!((due.messages.len(), due.cases.len()), (1, 1));
        running.done(settle(waiting, Outcome::Expired));
        running.done(case_expired(1));
        home::sweep_parts(&running.writer.shared, false);
        assert_eq!(running.store.parts().unwrap().len(), 1, "the orphan is gone");
        assert_eq!(running.store.message(&id(3)).unwrap().unwrap().state, MessageState::DeadLettered);
        assert_eq!(running.rows(), lab.fork().open().rows(), "{by_ms} {stopped}");
    }
}

#[test]
fn whoever_saw_a_clock_before_it_stepped_ends_nothing_by_it_after() {
    let lab = Lab::new();
    let mut running = lab.open();
    let sequence = running.done(referral(1));
    lab.clock.advance(400 * DAY_MS);
    assert_eq!(running.one(settle(sequence, Outcome::Expired)).unwrap_err(), Rejected::ClockHeld);
    assert_eq!(running.one(case_expired(1)).unwrap_err(), Rejected::ClockHeld);
    confirm(&mut running);
    running.done(settle(sequence, Outcome::Expired));
    running.done(case_expired(1));
}

#[test]
fn nothing_is_signed_with_an_hour_that_cannot_be() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(message(1, "inps").change());
    let signed = |number| Message { sign: vec![(Slot::Evidence, bytes("{}"))], ..message(number, "inps") };
    for by_ms in STEPS {
        lab.clock.advance(by_ms);
        let change = signed(2).with(|fact| fact.remember_ms = T0 + 900 * DAY_MS).change();
        assert_eq!(running.one(change).unwrap_err(), Rejected::ClockHeld, "{by_ms}");
        assert!(!running.store.can_date(lab.clock.advance(0)));
        lab.clock.advance(-by_ms);
    }
    // A machine that was off for a month goes on.
    lab.clock.advance(30 * DAY_MS);
    running.done(signed(3).change());
    assert_eq!(look(&mut running), ClockState::Held { began: true }, "but ends nothing");
    // And one that was off for longer, once it was told that it was.
    lab.clock.advance(370 * DAY_MS);
    confirm(&mut running);
    running.done(signed(4).with(|fact| fact.remember_ms = T0 + 900 * DAY_MS).change());
}

#[test]
fn a_hold_that_nobody_ends_stops_no_work_for_months() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(message(1, "inps").change());
    lab.clock.advance(3 * DAY_MS);
    assert_eq!(look(&mut running), ClockState::Held { began: true });
    for number in 2..130 {
        lab.clock.advance(DAY_MS);
        let signed = Message { sign: vec![(Slot::Evidence, bytes("{}"))], ..message(number, "inps") };
        running.done(signed.with(|fact| fact.remember_ms = T0 + 900 * DAY_MS).change());
    }
    assert_eq!(look(&mut running), ClockState::Held { began: false });
    assert!(running.store.message(&id(1)).unwrap().is_some(), "and nothing is forgotten");
    // What a wrong clock signed meanwhile binds nobody when it is right again.
    lab.clock.advance(50 * DAY_MS);
    running.done(message(200, "inps").with(|fact| fact.remember_ms = T0 + 900 * DAY_MS).change());
    lab.clock.advance(-180 * DAY_MS);
    assert!(running.store.can_date(lab.clock.advance(0)));
}

#[test]
fn a_clock_that_was_wrong_and_confirmed_is_put_right_by_another_word() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(message(1, "inps").change());
    lab.clock.advance(400 * DAY_MS);
    confirm(&mut running);
    lab.clock.advance(-400 * DAY_MS);
    assert_eq!(look(&mut running), ClockState::Held { began: true });
    confirm(&mut running);
    assert_eq!(look(&mut running), ClockState::Believed);
    let sequence = running.done(message(2, "inps").change());
    running.done(settle(sequence, Outcome::HandedOver));
    assert!(matches!(running.one(message(2, "inps").change()), Ok(Done::Repeated { .. })), "it is remembered");
}

#[test]
fn a_retry_happens_wherever_the_clock_was_set_back_to() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.commit(vec![message(1, "inps").change(), message(2, "inps").change()]);
    running.done(fail_attempt(1, T0 + 600_000));
    assert_eq!(running.leasable("inps"), [2]);
    lab.clock.advance(-400 * DAY_MS);
    assert_eq!(running.leasable("inps"), [1, 2]);
    let leased: Vec<_> = running.store.lease("inps", 10, usize::MAX).unwrap();
    running.done(settle(2, Outcome::HandedOver));
    running.store.release("inps", &leased.iter().map(|leased| leased.sequence).collect::<Vec<_>>());
    let store = running.store.clone();
    wait(&mut running, async move { store.arrival("inps").await });
    // No clock puts anything off for longer than a day.
    running.done(fail_attempt(1, T0 + 400 * DAY_MS));
    assert!(running.leasable("inps").is_empty());
    lab.clock.advance(DAY_MS);
    assert_eq!(running.leasable("inps"), [1]);
}

#[test]
fn a_correction_of_minutes_is_no_event_and_a_quiet_month_no_gap() {
    let lab = Lab::new();
    let mut running = lab.open();
    let sequence = running.done(message(1, "inps").change());
    running.done(fail_attempt(sequence, T0 + 60_000));
    for by_ms in [600_000, -600_000, -600_000, 600_000] {
        lab.clock.advance(by_ms);
        assert_eq!(look(&mut running), ClockState::Believed);
    }
    assert_eq!(running.store.sequence(), 2, "nothing was written");
    assert!(running.leasable("inps").is_empty(), "what was put off stays put off");
    for _ in 0..30 * 24 {
        lab.clock.advance(3_600_000);
        assert_eq!(look(&mut running), ClockState::Believed);
    }
    assert!(running.store.sequence() <= 2 + 30 * 4, "some facts a day");
}

#[test]
fn a_hold_by_hand_holds_what_the_store_would_forget_too() {
    let lab = Lab::new();
    let mut running = lab.open();
    let short = || message(1, "inps").with(|fact| fact.remember_ms = T0 + 60_000).change();
    let sequence = running.done(short());
    running.done(settle(sequence, Outcome::HandedOver));
    let store = running.store.clone();
    wait(&mut running, async move { store.hold_clock("prova", "the audit is not over").await.unwrap() });
    assert_eq!(running.store.clock_hold().unwrap().unwrap(), "the audit is not over");
    lab.clock.advance(3_600_000);
    running.done(message(2, "inps").change());
    assert!(matches!(running.one(short()), Ok(Done::Repeated { .. })), "it is still known");
    confirm(&mut running);
    assert_eq!(running.store.message(&id(1)).unwrap(), None);
}

/// Accepts messages of one conversation and case: numbers in the order in which they come.
fn talk(running: &mut Running, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let with = |fact: &mut Accepted| (fact.case_id, fact.remember_ms) = (id(1), 0);
        running.done(message(number, "inps").order("talk").with(with).change());
        running.done(message(100 + number, "comune").with(|fact| fact.remember_ms = 0).change());
    }
}

/// Hands over what comes next, until so many are. Returns their numbers.
fn hand_over(running: &mut Running, count: usize) -> Vec<Bytes> {
    let mut handed_over = Vec::new();
    while handed_over.len() < count {
        let [leased] = &running.store.lease("inps", 10, usize::MAX).unwrap()[..] else {
            panic!("one of an order at a time")
        };
        handed_over.push(accepted_of(&leased.fact).id.clone());
        running.done(settle(leased.sequence, Outcome::HandedOver));
    }
    handed_over
}

#[test]
fn sequence_orders_and_never_the_clock() {
    for (by_ms, stopped) in STEPS.into_iter().flat_map(|by| [(by, false), (by, true)]) {
        let lab = Lab::new();
        let mut running = lab.open();
        talk(&mut running, 1..=3);
        let mut handed_over = hand_over(&mut running, 1);
        let mut running = step(&lab, running, by_ms, stopped);
        talk(&mut running, 4..=6);
        handed_over.extend(hand_over(&mut running, 3));
        let mut running = step(&lab, running, -by_ms, stopped);
        talk(&mut running, 7..=9);
        let free = running.leasable("comune");
        assert!(free.is_sorted() && free.len() == 9, "{by_ms} {stopped}: {free:?}");
        handed_over.extend(hand_over(&mut running, 5));
        assert_eq!(handed_over, (1..=9).map(id).collect::<Vec<_>>(), "{by_ms} {stopped}");

        let timeline = running.store.timeline(tramite_proto::ids::CaseId::from_bytes(&id(1)).unwrap()).unwrap();
        let accepted = timeline.iter().filter(|(_, fact)| matches!(fact.kind, Some(Kind::Accepted(_))));
        let accepted: Vec<_> = accepted.map(|(_, fact)| (accepted_of(fact).id.clone(), fact.at_ms)).collect();
        assert_eq!(accepted.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), handed_over, "{by_ms} {stopped}");
        assert!(timeline.is_sorted_by_key(|(sequence, _)| *sequence) && timeline.len() == 18);
        let dates: Vec<i64> = accepted.iter().map(|(_, at_ms)| at_ms - T0).collect();
        assert_eq!(dates, [0, 0, 0, by_ms, by_ms, by_ms, 0, 0, 0], "what the clock showed is what is dated");
        assert_eq!(running.rows(), lab.fork().open().rows(), "{by_ms} {stopped}");
    }
}
