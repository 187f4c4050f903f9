//! A disk that fails: nothing is acknowledged, nothing is tried twice, nothing is lost.

use super::*;
use crate::ReadError;

fn strike(lab: &Lab, sync: bool) {
    let faults = lab.disk.faults();
    let (count, from) =
        if sync { (&faults.syncs, &faults.sync_fails_from) } else { (&faults.writes, &faults.write_fails_from) };
    from.store(count.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
}

#[test]
fn a_failed_sync_or_write_poisons_and_nothing_is_acknowledged() {
    for sync in [true, false] {
        let lab = Lab::new();
        let mut running = lab.open();
        running.done(message(1, "inps").change());
        strike(&lab, sync);
        let answers = running.commit(vec![
            message(2, "inps").change(),
            message(1, "inps").change(),
            settle(1, Outcome::HandedOver),
        ]);
        assert!(answers.iter().all(|answer| matches!(answer, Err(Rejected::Failed))), "{answers:?}");
        // A sync that works again proves nothing about the pages that the kernel dropped.
        lab.disk.faults().sync_fails_from.store(0, Ordering::SeqCst);
        lab.disk.faults().write_fails_from.store(0, Ordering::SeqCst);
        assert!(matches!(running.one(message(3, "inps").change()), Err(Rejected::Failed)));
        assert_eq!(running.store.lease("inps", 1, 1).unwrap_err(), ReadError::Failed);
        assert!(running.store.health().failed);
        assert_eq!(running.store.sequence(), 1);
        assert_eq!(running.store.message(&id(2)).unwrap(), None, "rows of what failed are not shown");
        let mut failed = pin!(running.store.failed());
        assert!(failed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(running.writer.finish().is_err());
    }
}

#[test]
fn after_a_failed_sync_recovery_decides_and_syncs_before_it_serves() {
    for seed in 0..8 {
        let lab = Lab::new();
        let mut running = lab.open();
        running.done(message(1, "inps").change());
        strike(&lab, true);
        assert!(running.one(message(2, "inps").change()).is_err());
        drop(running);
        lab.disk.faults().sync_fails_from.store(0, Ordering::SeqCst);
        let mut running = lab.open();
        assert!(running.recovery.rebuilt.is_some());
        assert!(matches!(running.one(message(2, "inps").change()), Ok(Done::Repeated { sequence: 2, .. })));
        drop(running);
        lab.disk.cut_power(seed);
        assert_eq!(lab.open().store.sequence(), 2, "what was answered from stays");
    }
}

#[test]
fn a_full_disk_refuses_what_is_new_and_recovers_without_a_restart() {
    let lab = Lab::new();
    let mut running = lab.open();
    let big = |number| message(number, "inps").content(Bytes::from(vec![1; 600_000])).change();
    running.done(big(1));
    lab.disk.faults().full.store(1, Ordering::SeqCst);
    assert_eq!(running.one(big(2)).unwrap_err(), Rejected::Full);
    assert_eq!(running.leasable("inps"), [1], "what is there is handed over");
    assert!(running.one(settle(1, Outcome::HandedOver)).is_ok(), "and small facts have room in the segment");
    assert!(!lab.disk.paths().iter().any(|path| path.to_string_lossy().ends_with(".tmp")), "no half segment stays");
    lab.disk.faults().full.store(0, Ordering::SeqCst);
    assert_eq!(running.done(big(2)), 3);
}

#[test]
fn a_closed_store_says_so() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(message(1, "inps").change());
    let mut closing = pin!(running.store.close());
    assert!(closing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    running.writer.step();
    assert_eq!(running.writer.step(), Step::Over);
    let mut asked = pin!(running.store.commit(vec![message(2, "inps").change()]));
    let Poll::Ready(answers) = asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { panic!() };
    assert_eq!(answers[0].as_ref().unwrap_err(), &Rejected::Closing);
}
