//! Queues: order, dead letters that hold it, leases, due times, notices, expiry.

use super::*;
use crate::MessageState;

#[test]
fn those_of_one_order_go_one_after_the_other() {
    let mut running = Lab::new().open();
    running.commit(vec![
        message(1, "inps").order("a").change(),
        message(2, "inps").order("a").change(),
        message(3, "inps").order("b").change(),
        message(4, "inps").change(),
        message(5, "inps").order("a").change(),
        message(6, "comune").order("a").change(),
    ]);
    assert_eq!(running.leasable("inps"), [1, 3, 4]);
    assert_eq!(running.leasable("comune"), [6]);
    let leased = running.store.lease("inps", 1, usize::MAX).unwrap();
    assert_eq!((leased[0].sequence, leased[0].attempt, &leased[0].content[..]), (1, 1, &b"content of 1 "[..]));
    assert_eq!(running.leasable("inps"), [3, 4], "what follows a leased one waits");
    running.done(settle(1, Outcome::HandedOver));
    assert_eq!(running.leasable("inps"), [2, 3, 4]);
    running.done(settle(2, Outcome::Refused));
    assert_eq!(running.leasable("inps"), [3, 4, 5]);
}

#[test]
fn a_dead_letter_holds_what_follows_until_it_is_redriven_or_discarded() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.commit((1..=3).map(|number| message(number, "inps").order("a").change()).collect());
    running.done(fail_attempt(1, T0));
    running.done(settle(1, Outcome::DeadLettered));
    assert!(running.leasable("inps").is_empty());
    assert_eq!(running.store.message(&id(1)).unwrap().unwrap().state, MessageState::DeadLettered);
    assert_eq!(running.store.dead_letters("inps", 0, 10).unwrap().len(), 1);
    let stats = running.store.queue("inps").unwrap();
    assert_eq!((stats.waiting, stats.dead_letters), (2, 1));
    // Also after a restart.
    drop(running);
    let mut running = lab.open();
    assert!(running.leasable("inps").is_empty());
    assert!(matches!(running.one(redrive(2)), Ok(Done::Already { .. })), "it is no dead letter");
    running.done(redrive(1));
    assert_eq!(running.leasable("inps"), [1]);
    assert_eq!(running.store.lease("inps", 1, 0).unwrap()[0].attempt, 1, "attempts begin anew");
    running.done(settle(1, Outcome::DeadLettered));
    running.done(settle(1, Outcome::Discarded));
    assert_eq!(running.leasable("inps"), [2]);
    let history: Vec<u32> = running.store.history(1).unwrap().iter().map(|attempt| attempt.attempt).collect();
    assert_eq!(
        history,
        [1, 2, 0, 1],
        "the failed attempt, the one at which it was given up, the redrive, given up again"
    );
}

#[test]
fn a_failed_attempt_is_offered_again_when_it_is_due() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.commit(vec![message(1, "inps").order("a").change(), message(2, "inps").order("a").change()]);
    assert_eq!(running.store.lease("inps", 10, usize::MAX).unwrap().len(), 1);
    assert!(matches!(running.one(fail_attempt(1, T0 + 500)), Ok(Done::AttemptFailed { attempt: 1, .. })));
    assert!(running.leasable("inps").is_empty(), "not due, and the next waits behind it");
    lab.clock.advance(500);
    let leased = running.store.lease("inps", 10, usize::MAX).unwrap();
    assert_eq!((leased[0].sequence, leased[0].attempt), (1, 2));
    assert!(matches!(running.one(fail_attempt(1, T0 + 900)), Ok(Done::AttemptFailed { attempt: 2, .. })));
    running.done(settle(1, Outcome::HandedOver));
    assert!(matches!(running.one(fail_attempt(1, T0)), Ok(Done::Already { .. })));
    assert_eq!(running.leasable("inps"), [2]);
}

#[test]
fn a_lease_holds_until_it_is_released() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.commit((1..=200).map(|number| message(number, "inps").change()).collect());
    let first: Vec<u64> = running.store.lease("inps", 150, usize::MAX).unwrap().iter().map(|l| l.sequence).collect();
    let second: Vec<u64> = running.store.lease("inps", 150, usize::MAX).unwrap().iter().map(|l| l.sequence).collect();
    assert_eq!((first.len(), second.len()), (150, 50));
    assert_eq!(running.store.queue("inps").unwrap().leased, 200);
    running.store.release("inps", &[3, 170]);
    assert_eq!(running.leasable("inps"), [3, 170]);
    lab.clock.advance(10);
    assert_eq!(running.store.lease("inps", 1, usize::MAX).unwrap()[0].sequence, 3);
    assert_eq!(running.store.release_stale(T0 + 5).len(), 198);
    running.store.release_all("inps");
    assert_eq!(running.leasable("inps").len(), 100);
}

#[test]
fn a_lease_is_bounded_by_bytes_but_one_always_fits() {
    let mut running = Lab::new().open();
    running
        .commit((1..=3).map(|number| message(number, "inps").content(Bytes::from(vec![1; 1000])).change()).collect());
    assert_eq!(running.store.lease("inps", 10, 2_500).unwrap().len(), 2);
    assert_eq!(running.store.lease("inps", 10, 1).unwrap().len(), 1);
}

#[test]
fn a_retry_and_fresh_messages_share_a_lease() {
    let mut running = Lab::new().open();
    running.commit((1..=8).map(|number| message(number, "inps").change()).collect());
    running.commit((1..=4).map(|sequence| fail_attempt(sequence, T0)).collect());
    let leased: Vec<u64> = running.store.lease("inps", 4, usize::MAX).unwrap().iter().map(|l| l.sequence).collect();
    assert_eq!(leased, [1, 2, 5, 6]);
}

#[test]
fn a_notice_waits_for_everyone_it_names_and_is_settled_by_acknowledgement() {
    let mut running = Lab::new().open();
    running.done(message(1, "inps").change());
    let fact = Settled {
        sequence: 1,
        outcome: Outcome::HandedOver.into(),
        notify: vec!["caritas".into(), "inps".into()],
        ..Settled::default()
    };
    let notice = running.done(Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None });
    let leased = running.store.lease("caritas", 10, usize::MAX).unwrap();
    assert_eq!((leased[0].sequence, leased[0].content.len()), (notice, 0));
    let acknowledge = |queue: &str| {
        let fact = Settled {
            sequence: notice,
            outcome: Outcome::HandedOver.into(),
            queue: queue.into(),
            ..Settled::default()
        };
        Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None }
    };
    running.done(acknowledge("caritas"));
    assert!(running.leasable("caritas").is_empty());
    assert!(matches!(running.one(acknowledge("caritas")), Ok(Done::Already { .. })));
    assert!(matches!(running.one(acknowledge("comune")), Err(Rejected::UnknownSequence { .. })));
    assert_eq!(running.leasable("inps"), [notice]);
    assert!(running.store.messages("inps", 0, 10).unwrap().is_empty(), "a notice is no message");
    assert!(matches!(running.one(settle(99, Outcome::HandedOver)), Err(Rejected::UnknownSequence { sequence: 99 })));
}

#[test]
fn a_notice_that_one_party_puts_off_is_not_put_off_for_the_other() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(message(1, "inps").change());
    let notify = vec!["caritas".into(), "inps".into()];
    let fact = Settled { sequence: 1, outcome: Outcome::HandedOver.into(), notify, ..Settled::default() };
    let notice = running.done(Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None });
    assert_eq!(running.store.lease("inps", 1, usize::MAX).unwrap()[0].sequence, notice);
    for attempt in 1..=2 {
        let put_off = running.one(fail_attempt_in("caritas", notice, T0 + 500)).unwrap();
        assert!(matches!(put_off, Done::AttemptFailed { attempt: n, .. } if n == attempt), "{put_off:?}");
    }
    assert!(matches!(running.one(fail_attempt_in("comune", notice, T0)), Err(Rejected::UnknownSequence { .. })));
    assert!(running.store.lease("inps", 1, usize::MAX).unwrap().is_empty(), "the other's lease holds");
    drop(running);
    // Also when the rows are made anew from the facts.
    let mut running = lab.open();
    assert!(running.leasable("caritas").is_empty(), "not due");
    let leased = running.store.lease("inps", 1, usize::MAX).unwrap();
    assert_eq!((leased[0].sequence, leased[0].attempt), (notice, 1), "due, and never failed here");
    assert!(matches!(running.one(fail_attempt(notice, T0)), Ok(Done::AttemptFailed { attempt: 1, .. })));
    lab.clock.advance(500);
    assert_eq!(running.store.lease("caritas", 1, usize::MAX).unwrap()[0].attempt, 3);
}

#[test]
fn what_is_final_stays_final_and_a_late_receipt_is_recorded_once() {
    let mut running = Lab::new().open();
    running.done(message(1, "inps").with(|fact| fact.expires_ms = T0 + 10).change());
    assert!(matches!(running.one(settle(1, Outcome::ReceiptAfterEnd)), Err(Rejected::Malformed { .. })));
    running.done(settle(1, Outcome::Expired));
    assert!(matches!(running.one(settle(1, Outcome::HandedOver)), Ok(Done::Already { sequence: 1 })));
    let late = || {
        let fact = Settled {
            sequence: 1,
            outcome: Outcome::ReceiptAfterEnd.into(),
            notify: vec!["caritas".into(), "inps".into()],
            ..Settled::default()
        };
        Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None }
    };
    assert!(matches!(running.one(late()), Ok(Done::Settled { .. })));
    assert!(matches!(running.one(late()), Ok(Done::Already { .. })));
    let row = running.store.message(&id(1)).unwrap().unwrap();
    assert_eq!(row.state, MessageState::Final(Outcome::Expired));
}

#[test]
fn no_receipt_comes_late_for_a_message_that_a_receipt_has_ended() {
    let mut running = Lab::new().open();
    for (sequence, outcome) in [(1, Outcome::HandedOver), (3, Outcome::Refused)] {
        assert_eq!(running.done(message(sequence, "inps").change()), sequence);
        running.done(settle(sequence, outcome));
        let late = running.one(settle(sequence, Outcome::ReceiptAfterEnd));
        assert!(matches!(late, Ok(Done::Already { .. })), "{late:?}");
    }
}

#[test]
fn a_leased_message_does_not_expire_and_an_expired_one_is_not_leased() {
    let lab = Lab::new();
    let mut running = lab.open();
    let expiring = |number| message(number, "inps").with(|fact| fact.expires_ms = T0 + 1_000).change();
    running.commit(vec![expiring(1), expiring(2), expiring(3)]);
    running.done(settle(3, Outcome::DeadLettered));
    assert_eq!(running.store.lease("inps", 1, usize::MAX).unwrap()[0].sequence, 1);
    lab.clock.advance(1_000);
    assert!(running.leasable("inps").is_empty());
    let due: Vec<u64> = running.store.due(T0 + 1_000, 10).unwrap().messages.iter().map(|m| m.sequence).collect();
    assert_eq!(due, [2], "1 is leased, 3 a dead letter");
    assert_eq!(running.one(settle(1, Outcome::Expired)).unwrap_err(), Rejected::Leased { sequence: 1 });
    running.done(settle(2, Outcome::Expired));
    running.store.release_all("inps");
    assert_eq!(running.store.due(T0 + 1_000, 10).unwrap().messages.len(), 1);
    running.done(settle(1, Outcome::Expired));
}

#[test]
fn a_full_queue_refuses_and_others_go_on() {
    let mut lab = Lab::new();
    lab.options.queue_max = 2;
    let mut running = lab.open();
    let answers = running.commit((1..=3).map(|number| message(number, "inps").change()).collect());
    assert_eq!(answers[2].as_ref().unwrap_err(), &Rejected::Full);
    running.done(message(4, "comune").change());
    running.done(settle(1, Outcome::HandedOver));
    assert!(running.one(message(3, "inps").change()).is_ok());
}

#[test]
fn records_are_replaced_listed_and_deleted() {
    let lab = Lab::new();
    let mut running = lab.open();
    let record = |name: &str, value: Option<&str>| {
        let value = value.map(bytes);
        let fact = tramite_proto::pb::journal::v1::Recorded { name: name.into(), value, ..Default::default() };
        Change::Record { fact: Box::new(fact), begins: false }
    };
    running.commit(vec![
        record("key/inps/1", Some("a")),
        record("key/inps/2", Some("b")),
        record("hold/inps", Some("c")),
    ]);
    running.done(record("key/inps/1", Some("d")));
    let names: Vec<String> = running.store.records("key/").unwrap().into_iter().map(|r| r.name).collect();
    assert_eq!(names, ["key/inps/1", "key/inps/2"]);
    assert_eq!(running.store.record("key/inps/1").unwrap().unwrap().value, bytes("d"));
    running.done(record("hold/inps", None));
    drop(running);
    let running = lab.open();
    assert_eq!(running.store.record("hold/inps").unwrap(), None);
    assert_eq!(running.store.record("key/inps/1").unwrap().unwrap().value, bytes("d"));
}

#[tokio::test]
async fn whoever_waits_is_woken_by_what_is_new_released_or_due() {
    let lab = Lab::new();
    let mut running = lab.open();
    let store = running.store.clone();
    let waiter = |store: Store| tokio::spawn(async move { store.arrival("inps").await });
    let waiting = waiter(store.clone());
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    running.done(message(1, "inps").change());
    waiting.await.unwrap();
    store.arrival("inps").await;
    let leased = store.lease("inps", 1, usize::MAX).unwrap();
    let waiting = waiter(store.clone());
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "it is leased");
    store.release("inps", &[leased[0].sequence]);
    waiting.await.unwrap();
    running.done(fail_attempt(1, T0 + 300));
    let waiting = waiter(store.clone());
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "it is not due");
    lab.clock.advance(300);
    waiting.await.unwrap();
}

#[test]
fn what_an_issuer_has_waiting_is_counted_until_it_is_final() {
    let lab = Lab::new();
    let mut running = lab.open();
    let of = |number, issuer: &str, length| {
        let content = Bytes::from(vec![1; length]);
        message(number, "inps").content(content).with(|fact| fact.return_to = issuer.into()).change()
    };
    running.commit(vec![of(1, "caritas", 100), of(2, "caritas", 20), of(3, "comune", 7), of(4, "", 9)]);
    let expected = |caritas, comune| vec![("caritas".to_owned(), caritas), ("comune".to_owned(), comune)];
    assert_eq!(running.charges(), expected(120, 7));
    running.writer.apply();
    running.commit(vec![settle(1, Outcome::HandedOver), settle(2, Outcome::DeadLettered)]);
    assert_eq!(running.charges(), expected(20, 7), "a dead letter waits for an operator");
    drop(running);
    let mut running = lab.open();
    running.commit(vec![settle(2, Outcome::Discarded), settle(3, Outcome::Expired), settle(4, Outcome::HandedOver)]);
    assert_eq!(running.charges(), expected(0, 0));
    drop(running);
    crate::map::Maps::wipe(&lab.maps, &lab.path("outbox")).unwrap();
    assert_eq!(lab.open().charges(), expected(0, 0), "made anew");
}

#[test]
fn an_issuer_has_no_more_waiting_than_its_quota_be_it_in_one_group() {
    let mut lab = Lab::new();
    lab.options.quotas.insert("caritas".to_owned(), 100);
    let mut running = lab.open();
    let of = |number, issuer: &str, length| {
        let content = Bytes::from(vec![1; length]);
        message(number, "inps").content(content).with(|fact| fact.return_to = issuer.into()).change()
    };
    let over = |answer: &Result<Done, Rejected>| matches!(answer, Err(Rejected::OverQuota));
    let first = of(1, "caritas", 60);
    let answers =
        running.commit(vec![first.clone(), of(2, "caritas", 41), of(3, "caritas", 40), first.clone(), of(4, "x", 999)]);
    assert_eq!(answers.iter().map(over).collect::<Vec<_>>(), [false, true, false, false, false], "{answers:?}");
    running.done(settle(1, Outcome::DeadLettered));
    drop(running);
    let mut running = lab.open();
    assert!(over(&running.one(of(2, "caritas", 1))), "a dead letter waits for an operator");
    assert!(matches!(running.one(first), Ok(Done::Repeated { sequence: 1, .. })), "what was accepted stays so");
    running.done(settle(1, Outcome::Discarded));
    running.done(of(2, "caritas", 60));
}

#[tokio::test]
async fn all_who_were_patient_are_answered_however_many_woke_the_writer_together() {
    for closes in [false, true] {
        let Running { store, mut writer, .. } = Lab::new().open();
        let calls = (0..16).map(|call| {
            let store = store.clone();
            let changes = (1..=64).map(|number| message(64 * call + number, "inps").change()).collect();
            tokio::spawn(async move { store.commit_with_next(changes).await })
        });
        let calls: Vec<_> = calls.collect();
        while writer.commands.len() < calls.len() {
            tokio::task::yield_now().await;
        }
        if closes {
            writer.finish().unwrap();
        } else {
            while writer.step() == Step::Worked {}
        }
        assert_eq!(store.sequence(), 16 * 64, "{closes}");
        for call in calls {
            assert!(call.await.unwrap().iter().all(Result::is_ok));
        }
    }
}
