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

/// Where a content stands in a file.
fn place_of(lab: &Lab, path: &Path, content: &Bytes) -> u64 {
    let file = lab.disk.bytes(path).unwrap();
    file.windows(content.len()).position(|window| window == content).unwrap() as u64
}

/// The sequences of what is noted as not erased.
fn notes(lab: &Lab) -> Vec<u64> {
    let names = lab.disk.list(&lab.path("journal")).unwrap();
    let noted = names.iter().filter_map(|name| name.strip_suffix(".unerased"));
    noted.map(|sequence| u64::from_str_radix(sequence, 16).unwrap()).collect()
}

/// Three neighbours are final, and the disk does not erase the one in the middle.
fn refused() -> (Lab, Running) {
    let lab = Lab::new();
    let mut running = lab.open();
    running
        .commit((1..=4).map(|number| message(number, "inps").content(growth::noise(number, 300)).change()).collect());
    running.writer.apply();
    let at = place_of(&lab, &lab.segment(), &growth::noise(2, 300));
    lab.disk.faults().punch_fails_at.store(at + 150, Ordering::SeqCst);
    running.commit((1..=3).map(|number| settle(number, Outcome::HandedOver)).collect());
    running.writer.apply();
    (lab, running)
}

fn is_there(lab: &Lab, number: u64) -> bool {
    is_on_disk(&lab.disk, &growth::noise(number, 300))
}

#[test]
fn a_content_that_the_disk_does_not_erase_holds_nothing_up_and_is_erased_when_it_can_be() {
    let (lab, mut running) = refused();
    assert_eq!(running.writer.shared.outbox.unapplied(), 0, "its rows are applied");
    assert_eq!([1, 2, 3].map(|number| is_there(&lab, number)), [false, true, false], "its neighbours are gone");
    assert_eq!((notes(&lab), running.store.health().not_erased), (vec![2], 1));
    assert!(matches!(&running.store.health().troubles()[..], [only] if only.contains("not be erased")));
    assert_eq!(running.store.content(2).unwrap_err(), ReadError::Erased(2));
    running.writer.compact();
    assert!(is_there(&lab, 2) && !running.store.health().failed);
    lab.disk.faults().punch_fails_at.store(0, Ordering::SeqCst);
    running.writer.compact();
    assert_eq!((is_there(&lab, 2), notes(&lab), running.store.health().not_erased), (false, Vec::new(), 0));
    assert!(running.store.health().troubles().is_empty());
    running.stop();
    assert_eq!(verified(&lab).problems, Vec::new());
}

#[test]
fn a_content_that_could_not_be_erased_is_found_again_after_any_stop() {
    for (clean, power) in [(true, false), (false, false), (false, true)] {
        let (lab, running) = refused();
        let at = place_of(&lab, &lab.segment(), &growth::noise(2, 300));
        if clean {
            running.stop();
            let [finding] = verified(&lab).problems.try_into().unwrap();
            assert_eq!((finding.file, finding.offset), (lab.segment(), Some(at)), "{}", finding.what);
        } else {
            drop(running);
        }
        if power {
            lab.disk.cut_power(5);
        }
        let running = lab.open();
        assert_eq!((running.recovery.rebuilt.clone(), running.leasable("inps")), (None, vec![4]), "it opens");
        assert!(is_there(&lab, 2));
        drop(running);
        lab.disk.faults().punch_fails_at.store(0, Ordering::SeqCst);
        let running = lab.open();
        assert!(!is_there(&lab, 2));
        assert_eq!(notes(&lab), Vec::<u64>::new());
        running.stop();
        assert_eq!(verified(&lab).problems, Vec::new());
    }
}

#[test]
fn an_opening_goes_on_where_the_disk_does_not_erase_what_a_crash_left() {
    let lab = Lab::new();
    let mut running = lab.open();
    running
        .commit((1..=4).map(|number| message(number, "inps").content(growth::noise(number, 300)).change()).collect());
    running.commit((1..=3).map(|number| settle(number, Outcome::HandedOver)).collect());
    drop(running);
    let at = place_of(&lab, &lab.segment(), &growth::noise(2, 300));
    lab.disk.faults().punch_fails_at.store(at, Ordering::SeqCst);
    let running = lab.open();
    assert_eq!([1, 2, 3].map(|number| is_there(&lab, number)), [false, true, false]);
    assert_eq!((notes(&lab), running.leasable("inps")), (vec![2], vec![4]));
    running.stop();
    lab.disk.faults().punch_fails_at.store(0, Ordering::SeqCst);
    drop(lab.open());
    assert!(!is_there(&lab, 2), "it was behind the position, and noted");
}

#[test]
fn a_content_that_is_not_erased_goes_with_its_segment() {
    let lab = Lab::new();
    let mut running = lab.open();
    let large = |number| message(number, "inps").content(growth::noise(number, 200_000)).change();
    for number in 1..=6 {
        running.done(large(number));
    }
    running.writer.apply();
    let at = place_of(&lab, &lab.segment(), &growth::noise(2, 200_000));
    lab.disk.faults().punch_fails_at.store(at, Ordering::SeqCst);
    running.done(settle(2, Outcome::HandedOver));
    running.writer.apply();
    assert_eq!(notes(&lab), [2]);
    // Bulky for nothing else: four of five wait.
    running.writer.compact();
    assert!(!is_on_disk(&lab.disk, &growth::noise(2, 200_000)[..1_000]));
    running.writer.compact();
    assert_eq!(notes(&lab), Vec::<u64>::new());
    assert_eq!(running.leasable("inps"), [1, 3, 4, 5, 6]);
    running.stop();
    let found = verified(&lab);
    assert_eq!((found.problems, found.erased, found.contents), (Vec::new(), 1, 5));
}

#[test]
fn a_content_that_is_refused_while_its_segment_is_packed_is_erased_where_it_stands_then() {
    let lab = Lab::new();
    let mut running = lab.open();
    for number in 1..=6 {
        running.done(message(number, "inps").content(growth::noise(number, 200_000)).change());
    }
    running.writer.apply();
    let content = growth::noise(2, 200_000);
    let at = place_of(&lab, &lab.segment(), &content);
    let journal = Arc::clone(&running.writer.shared.journal);
    let packed = journal.pack(&[journal.sealed().remove(0)], &mut |sequence, _| {
        if sequence == 3 {
            // At its end, where in the packed one, whose facts are smaller, another stands.
            lab.disk.faults().punch_fails_at.store(at + 199_999, Ordering::SeqCst);
            running.done(settle(2, Outcome::HandedOver));
            running.writer.apply();
            assert_eq!(notes(&lab), [2]);
        }
        Ok(true)
    });
    assert!(packed.unwrap());
    assert!(is_on_disk(&lab.disk, &content[..1_000]), "it was taken before");
    running.writer.compact();
    assert!(!is_on_disk(&lab.disk, &content[..1_000]));
    running.writer.compact();
    assert_eq!(notes(&lab), Vec::<u64>::new());
    running.stop();
    assert_eq!(verified(&lab).problems, Vec::new());
}

#[test]
fn a_final_message_whose_segment_cannot_be_opened_holds_nothing_up() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.commit(vec![canary(1), message(2, "inps").change()]);
    running.writer.apply();
    running.done(settle(1, Outcome::HandedOver));
    let (segment, gone) = (lab.segment(), Path::new("store/journal/gone"));
    lab.disk.rename(&segment, gone).unwrap();
    running.writer.apply();
    assert_eq!(running.writer.shared.outbox.unapplied(), 0);
    assert_eq!(running.store.message(&id(1)).unwrap().unwrap().state, crate::MessageState::Final(Outcome::HandedOver));
    lab.disk.rename(gone, &segment).unwrap();
    assert!(is_on_disk(&lab.disk, CANARY.as_bytes()));
    running.writer.compact();
    assert!(!is_on_disk(&lab.disk, CANARY.as_bytes()));
    assert_eq!((running.leasable("inps"), notes(&lab)), (vec![2], Vec::new()));
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
