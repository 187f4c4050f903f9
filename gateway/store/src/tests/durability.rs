//! Nothing is answered before it is durable, and a group costs one sync.

use super::*;

#[test]
fn a_group_costs_one_sync_however_many_changes_it_has() {
    let lab = Lab::new();
    let mut running = lab.open();
    let many = (1..=64).map(|number| message(number, "inps").change()).collect();
    assert_eq!(syncs(&lab.disk, || drop(running.commit(many))), 1);
    assert_eq!(running.store.health().groups, 1);
    assert_eq!(syncs(&lab.disk, || drop(running.one(message(1, "inps").change()))), 0, "a repeat needs no sync");
}

#[test]
fn calls_that_wait_share_a_group() {
    let lab = Lab::new();
    let mut running = lab.open();
    let store = running.store.clone();
    let mut context = Context::from_waker(Waker::noop());
    let mut asked: Vec<_> =
        (1..=10).map(|number| Box::pin(store.commit(vec![message(number, "inps").change()]))).collect();
    for call in &mut asked {
        assert!(call.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(syncs(&lab.disk, || assert_eq!(running.writer.step(), Step::Worked)), 1);
    let answered = asked.iter_mut().filter_map(|call| match call.as_mut().poll(&mut context) {
        Poll::Ready(answers) => Some(sequence(answers[0].as_ref().unwrap())),
        Poll::Pending => None,
    });
    assert_eq!(answered.collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert_eq!((running.store.health().groups, running.writer.step()), (1, Step::Idle));
}

#[test]
fn a_group_signs_once_for_up_to_64_statements() {
    let lab = Lab::new();
    let mut running = lab.open();
    let signed = |number| {
        let sign = vec![(Slot::Evidence, bytes(&format!("evidence {number}")))];
        Message { sign, ..message(number, "inps") }.change()
    };
    let answers = running.commit((1..=65).map(signed).collect());
    assert_eq!(lab.notary.calls.load(Ordering::SeqCst), 2);
    let evidence = |i: usize| {
        let Ok(Done::Accepted { fact, .. }) = &answers[i] else { panic!() };
        accepted_of(fact).evidence.clone().unwrap()
    };
    assert_eq!((evidence(63).json, evidence(63).index, evidence(63).jws), (bytes("evidence 64"), 63, "call 0".into()));
    assert_eq!((evidence(64).json, evidence(64).index, evidence(64).jws), (bytes("evidence 65"), 0, "call 1".into()));
    drop(running);
    let stored = lab.open().store.fact(64).unwrap();
    assert_eq!(accepted_of(&stored).evidence, Some(evidence(63)), "signed before it was written");
}

#[test]
fn what_cannot_be_signed_is_not_written() {
    let lab = Lab::new();
    let mut running = lab.open();
    lab.notary.fails.store(true, Ordering::SeqCst);
    let signed = || Message { sign: vec![(Slot::Evidence, bytes("e"))], ..message(1, "inps") }.change();
    let answers = running.commit(vec![signed(), signed(), message(2, "inps").change(), settle(9, Outcome::Expired)]);
    assert!(answers[..3].iter().all(|answer| matches!(answer, Err(Rejected::NotSigned(_)))), "{answers:?}");
    assert!(matches!(answers[3], Err(Rejected::UnknownSequence { sequence: 9 })));
    assert_eq!((running.store.sequence(), running.rows()), (0, Vec::new()));
    lab.notary.fails.store(false, Ordering::SeqCst);
    assert_eq!(running.done(signed()), 1);
}

#[test]
fn everything_acknowledged_survives_a_power_cut() {
    for seed in 0..40 {
        let lab = Lab::new();
        let mut running = lab.open();
        let mut acknowledged = Vec::new();
        for number in 1..=20 {
            acknowledged.push((number, running.done(message(number, "inps").change())));
            if number % 7 == 0 {
                running.done(settle(number - 1, Outcome::HandedOver));
                running.writer.apply();
            }
        }
        lab.disk.cut_power(seed);
        drop(running);
        let running = lab.open();
        for (number, sequence) in acknowledged {
            let row = running.store.message(&id(number)).unwrap().unwrap();
            assert_eq!(row.sequence, sequence);
            if row.final_sequence == 0 {
                assert_eq!(running.store.content(sequence).unwrap(), message(number, "").content);
            }
        }
    }
}

#[test]
fn a_directory_that_its_caller_has_just_made_survives_a_power_cut() {
    for made in [vec!["a/data"], vec!["a", "a/data"]] {
        let mut lab = Lab::new();
        lab.options.directory = "a/data".into();
        made.iter().for_each(|folder| lab.disk.make_loose_dir(Path::new(folder)));
        let mut running = lab.open();
        running.done(message(1, "inps").change());
        lab.disk.cut_power(1);
        drop(running);
        let reopened = lab.open();
        assert_eq!((reopened.store.sequence(), reopened.recovery.created), (1, false), "made: {made:?}");
    }
}

#[test]
fn a_power_cut_within_a_group_leaves_all_of_it_or_nothing() {
    let (mut kept, mut cut) = (0, 0);
    for seed in 0..200 {
        let lab = Lab::new();
        let mut running = lab.open();
        running.done(message(1, "inps").change());
        // The sync fails, so nothing is acknowledged, and the device keeps what it likes.
        let next = lab.disk.faults().syncs.load(Ordering::SeqCst) + 1;
        lab.disk.faults().sync_fails_from.store(next, Ordering::SeqCst);
        let two = vec![message(2, "inps").change(), message(3, "inps").content(Bytes::from(vec![3; 1500])).change()];
        assert!(running.commit(two).iter().all(|answer| matches!(answer, Err(Rejected::Failed))));
        lab.disk.faults().sync_fails_from.store(0, Ordering::SeqCst);
        lab.disk.cut_power(seed);
        drop(running);
        let mut running = lab.open();
        let there = running.store.sequence();
        assert!(there == 1 || there == 3, "{there}");
        kept += u64::from(there == 3);
        cut += u64::from(running.recovery.cut.is_some());
        assert!(running.one(message(3, "inps").content(Bytes::from(vec![3; 1500])).change()).is_ok());
        running.stop();
        assert_eq!(
            crate::verify_with(&(Arc::new(lab.disk.clone()) as _), &lab.maps, Path::new("store")).unwrap().problems,
            Vec::new()
        );
    }
    assert!(kept > 0 && cut > 0, "some cuts must come after everything was written back, some before: {kept}, {cut}");
}
