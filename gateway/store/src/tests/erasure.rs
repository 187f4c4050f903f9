//! Content goes when its message is final; facts stay, and so do all answers.

use super::*;
use crate::ReadError;

const CANARY: &str = "canary in the ciphertext";

fn canary(number: u64) -> Change {
    message(number, "inps").content(bytes(CANARY)).change()
}

#[test]
fn erased_content_is_in_no_file() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(canary(1));
    running.writer.apply();
    assert!(is_on_disk(&lab.disk, CANARY.as_bytes()));
    running.done(settle(1, Outcome::HandedOver));
    running.writer.apply();
    assert!(!is_on_disk(&lab.disk, CANARY.as_bytes()));
    assert_eq!(running.store.content(1).unwrap_err(), ReadError::Erased(1));
    assert!(running.store.fact(1).is_ok(), "its fact stays");
    assert_eq!(running.store.health().erased_bytes, CANARY.len() as u64);
}

#[test]
fn a_dead_letter_keeps_its_content_until_it_is_discarded() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(canary(1));
    running.done(settle(1, Outcome::DeadLettered));
    running.writer.apply();
    assert_eq!(running.store.content(1).unwrap(), bytes(CANARY));
    running.done(settle(1, Outcome::Discarded));
    running.writer.apply();
    assert!(!is_on_disk(&lab.disk, CANARY.as_bytes()));
}

#[test]
fn a_straggler_pins_only_itself_and_neighbours_go_in_one_hole() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.commit((1..=9).map(canary).collect());
    running.commit((1..=9).filter(|number| *number != 5).map(|number| settle(number, Outcome::HandedOver)).collect());
    running.writer.apply();
    assert_eq!(lab.disk.faults().punches.load(Ordering::SeqCst), 2);
    let leased = running.store.lease("inps", 10, usize::MAX).unwrap();
    assert_eq!((leased.len(), &leased[0].content), (1, &bytes(CANARY)));
}

#[test]
fn what_a_crash_kept_from_being_erased_is_erased_at_the_next_opening() {
    for power in [false, true] {
        let lab = Lab::new();
        let mut running = lab.open();
        running.commit(vec![canary(1), message(2, "inps").change()]);
        running.done(settle(1, Outcome::HandedOver));
        drop(running);
        if power {
            lab.disk.cut_power(3);
        }
        assert!(is_on_disk(&lab.disk, CANARY.as_bytes()));
        let running = lab.open();
        assert!(!is_on_disk(&lab.disk, CANARY.as_bytes()));
        assert_eq!(running.leasable("inps"), [2]);
    }
}

#[test]
fn a_hole_is_durable_before_the_position_that_says_so() {
    for seed in 0..8 {
        let lab = Lab::new();
        let mut running = lab.open();
        running.done(message(1, "inps").content(Bytes::from(CANARY.repeat(400))).change());
        running.done(settle(1, Outcome::HandedOver));
        running.writer.apply();
        drop(running);
        lab.disk.cut_power(seed);
        assert_eq!(lab.open().recovery.rebuilt, None);
        assert!(!is_on_disk(&lab.disk, CANARY.as_bytes()), "seed {seed}");
    }
}

#[test]
fn what_cannot_be_erased_keeps_its_rows_back_until_it_can() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.commit(vec![canary(1), message(2, "inps").change()]);
    running.writer.apply();
    running.done(settle(1, Outcome::HandedOver));
    let (segment, gone) = (lab.segment(), Path::new("store/journal/gone"));
    lab.disk.rename(&segment, gone).unwrap();
    running.writer.apply();
    assert!(running.writer.shared.outbox.unapplied() > 0);
    assert_eq!(running.store.message(&id(1)).unwrap().unwrap().state, crate::MessageState::Final(Outcome::HandedOver));
    lab.disk.rename(gone, &segment).unwrap();
    running.writer.apply();
    assert_eq!(running.writer.shared.outbox.unapplied(), 0);
    assert!(!is_on_disk(&lab.disk, CANARY.as_bytes()));
    assert_eq!(running.leasable("inps"), [2]);
}

#[test]
fn an_opening_erases_what_was_accepted_before_the_position_and_ended_behind_it() {
    for behind in [false, true] {
        let lab = Lab::new();
        let mut running = lab.open();
        running.commit(vec![canary(1), message(2, "inps").change()]);
        running.writer.apply();
        running.done(settle(1, Outcome::HandedOver));
        if behind {
            running.writer.apply();
        }
        drop(running);
        if behind {
            lab.maps.lose_last();
        }
        let running = lab.open();
        assert_eq!(running.recovery.rebuilt, None);
        assert!(!is_on_disk(&lab.disk, CANARY.as_bytes()));
        assert_eq!(running.leasable("inps"), [2]);
    }
}

#[test]
fn after_a_clean_stop_a_power_cut_brings_nothing_back() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(message(1, "inps").content(Bytes::from(CANARY.repeat(400))).change());
    running.done(settle(1, Outcome::HandedOver));
    running.stop();
    for seed in 0..8 {
        lab.disk.cut_power(seed);
        assert!(!is_on_disk(&lab.disk, CANARY.as_bytes()));
    }
    assert_eq!(lab.open().recovery.rebuilt, None);
}

#[test]
fn erased_contents_beyond_a_mark_that_lags_are_no_damage() {
    let lab = Lab::new();
    let mut running = lab.open();
    let mark = lab.disk.bytes(&lab.mark()).unwrap();
    running.commit(vec![canary(1), canary(2)]);
    running.done(settle(1, Outcome::HandedOver));
    running.writer.apply();
    drop(running);
    lab.disk.overwrite(&lab.mark(), mark.clone());
    let running = lab.open();
    assert_eq!(running.store.sequence(), 3);
    drop(running);
    // The content of what still waits is zeros: that is damage.
    let at = {
        let bytes = lab.disk.bytes(&lab.segment()).unwrap();
        bytes.windows(CANARY.len()).position(|window| window == CANARY.as_bytes()).unwrap()
    };
    lab.edit(&lab.segment(), |bytes| bytes[at..at + CANARY.len()].fill(0));
    lab.disk.overwrite(&lab.mark(), mark);
    assert!(matches!(lab.try_open(), Err(OpenError::Damaged(damage)) if damage.offset == at as u64));
}

#[test]
fn verify_tells_erased_from_lost() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.commit(vec![canary(1), canary(2)]);
    running.done(settle(1, Outcome::HandedOver));
    running.stop();
    let verify = || crate::verify_with(&(Arc::new(lab.disk.clone()) as _), &lab.maps, Path::new("store")).unwrap();
    lab.disk.overwrite(&lab.path("journal/0000000000000009.tmp"), vec![1]);
    let before: Vec<_> = lab.disk.paths().into_iter().map(|path| (lab.disk.bytes(&path), path)).collect();
    let found = verify();
    let after: Vec<_> = lab.disk.paths().into_iter().map(|path| (lab.disk.bytes(&path), path)).collect();
    assert_eq!(after, before, "it changes nothing");
    assert_eq!((found.contents, found.erased, found.problems.len()), (1, 1, 0), "{found:?}");
    assert!(found.rows > 0);
    lab.edit(&lab.segment(), |bytes| {
        let at = bytes.windows(CANARY.len()).position(|window| window == CANARY.as_bytes()).unwrap();
        bytes[at..at + CANARY.len()].fill(0);
    });
    let [finding] = verify().problems.try_into().unwrap();
    assert_eq!((finding.file, finding.offset.is_some()), (lab.segment(), true));
    assert_eq!(finding.what, "the content of 2 is zeros, and still needed");
}
