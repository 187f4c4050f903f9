//! The disk is given back: segments are packed when their contents are gone, and nothing that anybody may ask for is lost by it.

use super::*;
use crate::ReadError;

/// Contents of which some five fill a segment.
const LARGE: usize = 200_000;
const MESSAGES: u64 = 12;

/// A content that is found by any piece of it.
pub(crate) fn noise(number: u64, length: usize) -> Bytes {
    number
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .to_le_bytes()
        .into_iter()
        .cycle()
        .take(length)
        .collect::<Vec<u8>>()
        .into()
}

pub(crate) fn large(number: u64) -> Change {
    let sign = vec![(Slot::Evidence, bytes(&format!("evidence of {number}")))];
    Message { sign, ..message(number, "inps").content(noise(number, LARGE)) }.change()
}

/// The journal's files.
pub(crate) fn segments(lab: &Lab) -> Vec<String> {
    let mut names = lab.disk.list(&lab.path("journal")).unwrap();
    names.retain(|name| name.ends_with(".seg") || name.ends_with(".pack"));
    names
}

fn journal_bytes(lab: &Lab) -> usize {
    segments(lab).iter().map(|name| lab.disk.bytes(&lab.path("journal").join(name)).unwrap().len()).sum()
}

/// Messages in three segments and one more; all settled but those.
fn settled_but(lab: &Lab, waiting: &[u64]) -> Running {
    let mut running = lab.open();
    for number in 1..=MESSAGES {
        running.done(large(number));
    }
    for number in (1..=MESSAGES).filter(|number| !waiting.contains(number)) {
        running.done(settle(number, Outcome::HandedOver));
    }
    running.writer.apply();
    running
}

/// Every repeat gets its first answer, and what waits is handed out.
fn serves(running: &mut Running, facts: &[Arc<Fact>], waiting: &[u64]) {
    for (fact, number) in facts.iter().zip(1..) {
        let answer = running.one(large(number)).unwrap();
        assert!(matches!(answer, Done::Repeated { sequence, fact: first } if sequence == number && first == *fact));
        let content = running.store.content(number);
        if waiting.contains(&number) {
            assert_eq!(content.unwrap(), noise(number, LARGE));
        } else {
            assert_eq!(content.unwrap_err(), ReadError::Erased(number));
        }
    }
    assert_eq!(running.leasable("inps"), waiting);
}

#[test]
fn one_message_that_waits_pins_only_itself() {
    let mut lab = Lab::new();
    lab.options.recent_bytes = 0;
    let mut running = settled_but(&lab, &[7]);
    let facts: Vec<_> = (1..=MESSAGES).map(|sequence| running.store.fact(sequence).unwrap()).collect();
    let (rows, before) = (running.rows(), segments(&lab).len());
    running.writer.compact();
    assert_eq!(segments(&lab).iter().filter(|name| name.ends_with(".pack")).count(), before - 1);
    let last = 1024 * 1024;
    let left = journal_bytes(&lab) - last;
    assert!((LARGE..LARGE + 10_000).contains(&left), "{left} bytes for one content of {LARGE}");
    serves(&mut running, &facts, &[7]);
    assert_eq!(running.rows(), rows);
    running.stop();
    assert_eq!(verified(&lab).problems, Vec::new());
    let mut running = lab.open();
    assert_eq!((running.recovery.rebuilt.clone(), running.rows()), (None, rows.clone()));
    serves(&mut running, &facts, &[7]);
    drop(running);
    retention::lose_rows(&lab);
    let mut running = lab.open();
    assert_eq!(running.rows(), rows, "rebuilt from packed segments");
    serves(&mut running, &facts, &[7]);
    running.done(settle(7, Outcome::HandedOver));
    running.writer.apply();
    assert!(!is_on_disk(&lab.disk, &noise(7, LARGE)[..100]));
    running.writer.compact();
    serves(&mut running, &facts, &[]);
    assert!(journal_bytes(&lab) - last < 10_000, "{}", journal_bytes(&lab) - last);
    running.stop();
    assert_eq!(verified(&lab).problems, Vec::new());
}

#[test]
fn a_crash_at_any_step_of_packing_leaves_the_old_or_the_new() {
    let mut whole = Lab::new();
    whole.options.recent_bytes = 0;
    let running = settled_but(&whole, &[4, 8]);
    let facts: Vec<_> = (1..=MESSAGES).map(|sequence| running.store.fact(sequence).unwrap()).collect();
    let rows = running.rows();
    drop(running);
    let mut tried = 0;
    for power in [false, true] {
        for step in 1.. {
            let lab = whole.fork();
            let mut running = lab.open();
            lab.disk.faults().stop_after(step);
            running.writer.compact();
            let whole = !lab.disk.faults().is_stopped();
            lab.disk.faults().stop_after(0);
            drop(running);
            if power {
                lab.disk.cut_power(step);
            }
            let mut running = lab.open();
            none_twice(&lab);
            assert_eq!(running.rows(), rows, "at step {step}");
            running.writer.compact();
            serves(&mut running, &facts, &[4, 8]);
            running.stop();
            assert_eq!(verified(&lab).problems, Vec::new(), "at step {step}");
            assert!(segments(&lab).iter().all(|name| !name.ends_with(".tmp")));
            tried += 1;
            if whole {
                break;
            }
        }
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn what_is_erased_after_packing_failed_at_any_step_does_not_come_back_with_a_power_cut() {
    let mut whole = Lab::new();
    whole.options.recent_bytes = 0;
    drop(settled_but(&whole, &[4]));
    let mut erased = 0;
    for seed in 0..2 {
        for step in 1.. {
            let lab = whole.fork();
            let mut running = lab.open();
            lab.disk.faults().stop_after(step);
            running.writer.compact();
            let done = !lab.disk.faults().is_stopped();
            lab.disk.faults().stop_after(0);
            // Where it is not known what the next opening finds, nothing goes on.
            if !running.store.health().failed {
                running.done(settle(4, Outcome::HandedOver));
                running.writer.apply();
                let rows = running.rows();
                drop(running);
                lab.disk.cut_power(seed * 1_000 + step);
                let running = lab.open();
                assert_eq!(running.rows(), rows, "at step {step}, by chance {seed}");
                assert!(!is_on_disk(&lab.disk, &noise(4, LARGE)[..100]), "at step {step}, by chance {seed}");
                erased += 1;
            }
            if done {
                break;
            }
        }
    }
    assert!(erased > 10, "{erased}");
}

/// No two files begin with the same sequence: what was replaced is gone.
fn none_twice(lab: &Lab) {
    let names = segments(lab);
    let firsts: std::collections::BTreeSet<&str> = names.iter().map(|name| &name[..16]).collect();
    assert_eq!(firsts.len(), names.len(), "{names:?}");
}

#[test]
fn a_crash_while_neighbours_become_one_leaves_them_or_it() {
    let fills = |number| message(number, "inps").content(noise(number, 900_000)).change();
    for step in 1.. {
        let lab = Lab::new();
        let mut running = lab.open();
        for number in 1..=8 {
            running.done(fills(number));
            running.done(settle(2 * number - 1, Outcome::HandedOver));
        }
        running.writer.apply();
        running.writer.compact();
        running.done(fills(9));
        running.writer.apply();
        let rows = running.rows();
        lab.disk.faults().stop_after(step);
        running.writer.compact();
        let whole = !lab.disk.faults().is_stopped();
        lab.disk.faults().stop_after(0);
        drop(running);
        if step % 2 == 0 {
            lab.disk.cut_power(step);
        }
        let running = lab.open();
        none_twice(&lab);
        assert_eq!(running.rows(), rows, "at step {step}");
        running.stop();
        assert_eq!(verified(&lab).problems, Vec::new(), "at step {step}");
        if whole {
            assert!(step > 10 && segments(&lab).len() == 2, "{step}: {:?}", segments(&lab));
            break;
        }
    }
}

#[test]
fn small_neighbours_become_one() {
    let mut lab = Lab::new();
    lab.options.recent_bytes = 0;
    let mut running = lab.open();
    for number in 1..=60 {
        running.done(large(number));
        running.done(settle(2 * number - 1, Outcome::HandedOver));
        running.writer.apply();
        running.writer.compact();
    }
    let there = segments(&lab);
    assert!(there.len() < 10, "{there:?}");
    let mut running = {
        drop(running);
        lab.open()
    };
    for number in 1..=60 {
        assert!(
            matches!(running.one(large(number)), Ok(Done::Repeated { sequence, .. }) if sequence == 2 * number - 1)
        );
    }
    running.stop();
    assert_eq!(verified(&lab).problems, Vec::new());
}

#[test]
fn a_content_whose_segment_was_packed_is_read_and_erased_where_it_stands_now() {
    let lab = Lab::new();
    let mut running = settled_but(&lab, &[3]);
    let journal = Arc::clone(&running.writer.shared.journal);
    let (_, place) = journal.fact(3).unwrap();
    running.writer.compact();
    assert!(segments(&lab)[0].ends_with(".pack"));
    assert_eq!(journal.content(3, place.unwrap()).unwrap(), noise(3, LARGE));
    // Where it stood is still in memory.
    running.done(settle(3, Outcome::HandedOver));
    running.writer.apply();
    assert!(!is_on_disk(&lab.disk, &noise(3, LARGE)[..100]));
    running.stop();
    assert_eq!(verified(&lab).problems, Vec::new());
}

#[test]
fn a_content_that_is_erased_while_its_segment_is_packed_does_not_come_back() {
    let lab = Lab::new();
    let mut running = settled_but(&lab, &[3]);
    let journal = Arc::clone(&running.writer.shared.journal);
    let first = journal.sealed().remove(0);
    let packed = journal.pack(&[first], &mut |sequence, _| {
        if sequence == 5 {
            running.done(settle(3, Outcome::HandedOver));
            running.writer.apply();
        }
        Ok(true)
    });
    assert!(!packed.unwrap(), "it is tried again");
    assert!(!is_on_disk(&lab.disk, &noise(3, LARGE)[..100]));
    running.writer.compact();
    assert!(segments(&lab)[0].ends_with(".pack"));
    assert!(!is_on_disk(&lab.disk, &noise(3, LARGE)[..100]));
}

#[test]
fn a_block_that_begins_before_the_outbox_ends_is_applied_once() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(message(1, "inps").content(noise(1, 800_000)).change());
    running.done(settle(1, Outcome::HandedOver));
    running.writer.apply();
    running.done(message(2, "inps").content(noise(2, 100_000)).change());
    running.done(settle(3, Outcome::HandedOver));
    running.done(message(3, "inps").content(noise(3, 500_000)).change());
    let rows = running.rows();
    running.writer.compact();
    assert!(segments(&lab)[0].ends_with(".pack"), "one block over what is applied and what is not");
    drop(running);
    let running = lab.open();
    assert_eq!((running.recovery.rebuilt.clone(), running.rows()), (None, rows), "completed from its position");
    assert!(!is_on_disk(&lab.disk, &noise(2, LARGE)[..100]));
}

#[test]
fn a_packed_segment_that_lost_a_block_or_its_tail_is_left_alone_and_named() {
    for damage in ["a page of zeros", "cut before a block", "cut before the last content"] {
        let mut lab = Lab::new();
        lab.options.recent_bytes = 0;
        let mut running = lab.open();
        // Facts that fill more than a block.
        let small = |number| message(number, "inps").content(noise(number, 1_000)).change();
        for from in (1..=1_000).step_by(50) {
            running.commit((from..from + 50).map(small).collect());
        }
        let settled = |one: u64| (1..=800).filter(|n| n % 3 == one).map(|n| settle(n, Outcome::HandedOver)).collect();
        for settled in [settled(0), settled(1)] {
            running.commit(settled);
        }
        running.writer.apply();
        running.writer.compact();
        let path = lab.path("journal").join(&segments(&lab)[0]);
        let whole = lab.disk.bytes(&path).unwrap();
        let blocks: Vec<usize> =
            whole.windows(4).enumerate().filter(|(_, seen)| seen == b"TRMP").map(|(at, _)| at).collect();
        let (second, last) = (blocks[1], whole.len() - 1_000);
        lab.edit(&path, |bytes| match damage {
            "a page of zeros" => bytes[second..second + 4096].fill(0),
            "cut before a block" => bytes.truncate(second),
            _ => bytes.truncate(last),
        });
        running.commit((1..=400).filter(|n| n % 3 == 2).map(|n| settle(n, Outcome::HandedOver)).collect());
        running.writer.apply();
        let before = lab.disk.bytes(&path);
        running.writer.compact();
        assert!(lab.disk.bytes(&path) == before, "{damage}: it was packed");
        running.stop();
        let found = verified(&lab).problems.remove(0);
        let at = if damage == "cut before the last content" { last } else { second };
        assert_eq!((found.file, found.offset), (path, Some(at as u64)), "{damage}");
    }
}

#[test]
fn a_segment_that_cannot_be_read_does_not_keep_the_others_from_being_packed() {
    for spoiled in [true, false] {
        let lab = Lab::new();
        drop(settled_but(&lab, &[3, 7]));
        let mut running = lab.open();
        let first = lab.path("journal").join(&segments(&lab)[0]);
        if spoiled {
            lab.disk.spoil(&first);
        } else {
            lab.edit(&first, |bytes| bytes[120] ^= 1);
        }
        for _ in 0..2 {
            running.writer.compact();
            let there = segments(&lab);
            let packed: Vec<bool> = there.iter().map(|name| name.ends_with(".pack")).collect();
            assert_eq!(packed, [false, true, false], "{there:?}");
        }
    }
}

#[test]
fn neighbours_become_no_larger_than_a_segment() {
    const SEGMENT: usize = 1024 * 1024;
    let lab = Lab::new();
    let mut running = lab.open();
    // A group that has a segment of its own, of which more is left than a segment usually has.
    running.commit((1_001..=1_012).map(|n| message(n, "inps").content(noise(n, 300_000)).change()).collect());
    running.commit((1..=7).map(|sequence| settle(sequence, Outcome::HandedOver)).collect());
    // Of each other segment a little waits.
    for number in 1..=40 {
        let gone = running.done(message(2 * number, "inps").content(noise(2 * number, 900_000)).change());
        running.done(message(2 * number + 1, "inps").content(noise(2 * number + 1, 60_000)).change());
        running.done(settle(gone, Outcome::HandedOver));
    }
    running.writer.apply();
    running.writer.compact();
    let sizes = |ending: &str| -> Vec<usize> {
        let names = segments(&lab).into_iter().filter(|name| name.ends_with(ending));
        names.map(|name| lab.disk.bytes(&lab.path("journal").join(name)).unwrap().len()).collect()
    };
    let packed = sizes(".pack");
    assert!(packed.len() <= 8 && packed[0] > SEGMENT, "{packed:?}");
    assert!(packed[1..].iter().all(|size| *size <= SEGMENT), "{packed:?}");
    running.writer.compact();
    assert_eq!(sizes(".pack"), packed, "there is nothing more to do");
    running.stop();
    assert_eq!((verified(&lab).problems, verified(&lab).contents), (Vec::new(), 40 + 5));
}
