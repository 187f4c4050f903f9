//! A disk that fails: nothing is acknowledged, nothing is tried twice, nothing is lost.

use tramite_proto::pb::journal::v1::{CaseExpired, Recorded};

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
fn what_cannot_be_read_just_now_is_neither_set_aside_nor_overtaken() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(message(1, "inps").change());
    running.done(message(2, "inps").change());
    drop(running);
    let mut running = lab.open();
    // The only one that is still in memory.
    running.done(message(3, "inps").change());
    let (segment, gone) = (lab.segment(), Path::new("store/journal/gone"));
    lab.disk.rename(&segment, gone).unwrap();
    assert!(matches!(running.store.lease("inps", 10, usize::MAX), Err(ReadError::Io { .. })));
    lab.disk.rename(gone, &segment).unwrap();
    assert_eq!(running.leasable("inps"), [1, 2, 3]);
    assert_eq!(running.store.health().set_aside, 0);
}

/// Three messages in a segment, of which 2 follows 1 in its order, and one in the next, that nobody has in memory; and places behind
/// all that the next one has: in the content of 1, and the beginning of 2.
fn on_the_disk(lab: &Lab) -> (Running, [u64; 2]) {
    let mut running = lab.open();
    for (number, length) in [(1, 400_000), (2, 300_000), (3, 300_000), (4, 300_000)] {
        let large = message(number, "inps").content(growth::noise(number, length));
        running.done(if number <= 2 { large.order("a") } else { large }.change());
    }
    let journal = &running.writer.shared.journal;
    let (_, content) = journal.fact(1).unwrap();
    let places = [content.unwrap().offset + 350_000, journal.group(2).unwrap().offset];
    running.stop();
    (lab.open(), places)
}

#[test]
fn what_stands_in_a_bad_sector_is_set_aside_and_the_others_go_on() {
    // What stands behind a beginning that cannot be read cannot be found.
    for (which, goes_on) in [(0, [3, 4]), (1, [1, 4])] {
        let lab = Lab::new();
        let (mut running, places) = on_the_disk(&lab);
        for started in 0..2 {
            lab.disk.faults().bad_at.store(places[which], Ordering::SeqCst);
            for _ in 0..2 {
                assert_eq!(running.leasable("inps"), goes_on, "{which} {started}");
                assert_eq!(running.store.health().set_aside, 1, "counted and said once");
            }
            lab.disk.faults().bad_at.store(0, Ordering::SeqCst);
            assert_eq!(running.leasable("inps"), goes_on, "until the next start, whatever the disk says by then");
            running.stop();
            running = lab.open();
        }
        assert_eq!(running.leasable("inps"), [1, 3, 4]);
    }
}

#[test]
fn what_cannot_be_read_when_its_time_is_over_holds_up_no_other_end() {
    let lab = Lab::new();
    let mut running = lab.open();
    let content = Bytes::from(vec![1; 600_000]);
    for number in 1..=3 {
        let message = message(number, "inps").content(content.clone()).with(|fact| fact.expires_ms = T0 + 1_000);
        running.done(message.change());
    }
    running.writer.apply();
    drop(running);
    let running = lab.open();
    lab.clock.advance(1_000);
    lab.disk.spoil(&lab.segment());
    let due = running.store.due(T0 + 1_000, 10).unwrap();
    assert_eq!(due.messages.iter().map(|message| message.sequence).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(due.unreadable, 1);
    assert!(matches!(due.why, Some(ReadError::Io { .. })), "{:?}", due.why);
    lab.disk.mend();
    let due = running.store.due(T0 + 1_000, 10).unwrap();
    assert_eq!((due.messages.len(), due.unreadable, due.why), (3, 0, None));
}

#[test]
fn a_damaged_record_is_set_aside_and_what_stands_beside_it_is_listed_and_ends() {
    let lab = Lab::new();
    let mut running = lab.open();
    for number in 1..=3 {
        running.done(message(number, "inps").with(|fact| fact.expires_ms = T0 + 1_000).change());
    }
    running.writer.apply();
    drop(running);
    let running = lab.open();
    lab.edit(&lab.segment(), |bytes| {
        let id = id(2);
        let at = bytes.windows(id.len()).position(|window| window == id).unwrap();
        bytes[at] ^= 1;
    });
    lab.clock.advance(1_000);
    for _ in 0..2 {
        let due = running.store.due(T0 + 1_000, 10).unwrap().messages;
        assert_eq!(due.iter().map(|message| message.sequence).collect::<Vec<_>>(), [1, 3]);
        let listed = running.store.messages("inps", 0, 10).unwrap();
        assert_eq!(listed.iter().map(|message| message.sequence).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(running.store.health().set_aside, 1, "counted and said once");
    }
}

#[test]
fn what_was_set_aside_for_its_content_is_listed_and_ends_in_its_time() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(message(1, "inps").with(|fact| fact.expires_ms = T0 + 1_000).change());
    running.writer.apply();
    drop(running);
    let mut running = lab.open();
    lab.edit(&lab.segment(), |bytes| {
        let content = b"content of 1 ";
        let at = bytes.windows(content.len()).position(|window| window == content).unwrap();
        bytes[at] ^= 1;
    });
    assert!(running.leasable("inps").is_empty());
    assert_eq!(running.store.health().set_aside, 1);
    assert_eq!(running.store.messages("inps", 0, 10).unwrap().len(), 1);
    lab.clock.advance(1_000);
    assert_eq!(running.store.due(T0 + 1_000, 10).unwrap().messages.len(), 1);
    running.done(settle(1, Outcome::Expired));
}

#[test]
fn what_cannot_be_looked_up_is_not_leased_meanwhile() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(message(1, "inps").change());
    running.writer.apply();
    lab.maps.spoil(b'q');
    assert!(running.store.lease("inps", 1, usize::MAX).is_err());
    lab.maps.mend();
    assert_eq!(
        running.store.lease("inps", 1, usize::MAX).unwrap().len(),
        1,
        "on the same lane, with no lease left over"
    );
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
        assert_eq!(running.recovery.rebuilt, None);
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

fn spares(lab: &Lab) -> usize {
    lab.disk.paths().iter().filter(|path| path.extension().is_some_and(|ending| ending == "spare")).count()
}

#[test]
fn everything_that_was_accepted_can_be_settled_on_a_disk_without_any_room() {
    let lab = Lab::new();
    let mut running = lab.open();
    assert_eq!(spares(&lab), 1, "made with the store");
    // Small messages: what waits wants more than one spare.
    for number in 1..=3_000 {
        running.done(message(number, "inps").content(Bytes::from(vec![1; 100])).change());
    }
    assert!(spares(&lab) >= 6, "{} spares", spares(&lab));
    lab.disk.faults().full.store(1, Ordering::SeqCst);
    assert_eq!(running.one(message(9_999, "inps").change()).unwrap_err(), Rejected::Full);
    assert!(running.store.health().full);
    // Whoever is absent for days lets attempts fail many times over.
    let attempt = |sequence| {
        let (queue, reason, detail) = ("inps".into(), "NACK_TRANSIENT".into(), "later ".repeat(50));
        Change::FailAttempt { sequence, queue, reason, detail, due_ms: T0 }
    };
    for _ in 0..4 {
        for sequences in (1..=3_000).collect::<Vec<_>>().chunks(500) {
            let answers = running.commit(sequences.iter().map(|sequence| attempt(*sequence)).collect());
            assert!(answers.iter().all(|answer| matches!(answer, Ok(Done::PutOff { .. }))), "{answers:?}");
        }
    }
    // As large as settlements become: a receipt and evidence, each with a batch of its own, told to the sender, who acknowledges.
    let statement = |number: u64| {
        let jws = format!("{number} {}", "s".repeat(500));
        Some(Statement { json: Bytes::from(vec![b'j'; 400]), jws, ..Statement::default() })
    };
    for sequence in 1..=3_000_u64 {
        let fact = Settled {
            sequence,
            outcome: Outcome::HandedOver.into(),
            receipt: statement(2 * sequence),
            evidence: statement(2 * sequence + 1),
            notify: vec!["caritas".into()],
            ..Settled::default()
        };
        let settled = running.one(Change::Settle { fact: Box::new(fact), sign: Vec::new(), mover: None });
        let notice = sequence_of(settled, sequence);
        assert!(running.one(settle(notice, Outcome::HandedOver)).is_ok(), "the notice of {sequence}");
        let again = running.one(message(sequence, "inps").change());
        assert!(matches!(again, Ok(Done::Repeated { sequence: first, .. }) if first == sequence));
    }
    assert_eq!(running.store.queue("inps").unwrap().waiting, 0);
    running.writer.apply();
    lab.disk.faults().full.store(0, Ordering::SeqCst);
    running.done(message(9_999, "inps").change());
    assert!(!running.store.health().full);
    drop(running);
    let running = lab.open();
    assert_eq!(running.store.queue("inps").unwrap().waiting, 1);
    assert!(spares(&lab) <= 2, "what is no longer needed went back: {}", spares(&lab));
}

#[test]
fn on_a_full_disk_nothing_is_written_that_could_be_told_any_number_of_times() {
    let lab = Lab::new();
    let mut running = lab.open();
    let opening = case_move(1, "requested");
    let opening = CaseMove { kind: "REFERRAL".into(), deadline_ms: T0 + 1, conversation: bytes("talk"), ..opening };
    let mover = Some(crate::Mover::Institution { issuer: "caritas".into(), audience: "inps".into() });
    let opens = message(1, "inps").with(|fact| {
        fact.case_move = Some(opening);
        fact.case_id = id(1);
    });
    running.done(Message { mover, ..opens }.change());
    running.commit((2..=6).map(|number| message(number, "inps").change()).collect());
    running.done(settle(2, Outcome::DeadLettered));
    running.done(settle(3, Outcome::DeadLettered));
    running.done(settle(4, Outcome::Expired));
    lab.clock.advance(1);
    lab.disk.faults().full.store(1, Ordering::SeqCst);
    let expired = CaseExpired { case_move: Some(case_move(1, "")), ..CaseExpired::default() };
    let record = |name: &str, begins| {
        let fact = Recorded { name: name.into(), value: Some(bytes("value")), ..Recorded::default() };
        Change::Record { fact: Box::new(fact), begins }
    };
    let refused = || {
        vec![
            settle(4, Outcome::ReceiptAfterEnd),
            Change::ExpireCase { fact: Box::new(expired.clone()), sign: Vec::new() },
            record("part/1", true),
        ]
    };
    let put_off = || vec![fail_attempt(5, T0 + 2), settle(5, Outcome::DeadLettered)];
    let sequence = running.store.sequence();
    let answers = running.commit(refused());
    assert!(answers.iter().all(|answer| matches!(answer, Err(Rejected::Full))), "{answers:?}");
    let answers = running.commit(put_off());
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Done::PutOff { sequence: 5, attempt: 1 }))), "{answers:?}");
    assert_eq!(running.store.sequence(), sequence, "nothing was written");
    // What people say, and what ends, goes on.
    running.commit(vec![redrive(2), settle(3, Outcome::Discarded), settle(6, Outcome::Expired), record("hold", false)]);
    assert_eq!(running.store.sequence(), sequence + 4);
    lab.disk.faults().full.store(0, Ordering::SeqCst);
    let answers = running.commit([refused(), put_off()].concat());
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(running.store.sequence(), sequence + 9);
}

#[tokio::test]
async fn what_a_full_disk_puts_off_waits_in_memory_and_ends_like_any_other() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.commit((1..=4).map(|number| message(number, "inps").change()).collect());
    assert_eq!(running.leasable("inps"), [1, 2, 3, 4]);
    lab.disk.faults().full.store(1, Ordering::SeqCst);
    let leased = running.store.lease("inps", 4, usize::MAX).unwrap();
    assert_eq!(leased.len(), 4);
    running.store.release("inps", &[1]);
    // Soon, for which its wait would have to grow; and late.
    running.commit(vec![fail_attempt(2, 0), fail_attempt(3, T0 + 60_000)]);
    running.commit(vec![fail_attempt(4, T0 + 60_000), settle(4, Outcome::Expired)]);
    assert_eq!(running.leasable("inps"), [1]);
    let waits = |running: &Running| {
        let mut arrival = pin!(running.store.arrival("inps"));
        arrival.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
    };
    let held = running.store.lease("inps", 1, usize::MAX).unwrap();
    assert!(held.len() == 1 && waits(&running));
    lab.clock.advance(29_999);
    assert!(waits(&running), "not sooner than in half a minute");
    lab.clock.advance(1);
    assert!(!waits(&running));
    assert_eq!(running.leasable("inps"), [2]);
    running.store.release_all("inps");
    assert_eq!(running.leasable("inps"), [1, 2], "what is held back is no lease");
    lab.clock.advance(30_000);
    assert_eq!(running.leasable("inps"), [1, 2, 3]);
    running.commit(vec![fail_attempt(3, T0 + 600_000)]);
    assert_eq!(running.leasable("inps"), [1, 2]);
    lab.clock.advance(-400 * DAY_MS);
    running.commit(vec![fail_attempt(2, 0)]);
    assert_eq!(running.leasable("inps"), [1, 3], "by another clock it would wait for more than a year");
    lab.clock.advance(400 * DAY_MS);
    running.commit(vec![fail_attempt(3, T0 + 600_000)]);
    assert_eq!(running.leasable("inps"), [1, 2]);
    drop(running);
    assert_eq!(lab.open().leasable("inps"), [1, 2, 3], "a restart forgets it");
}

fn sequence_of(done: Result<Done, Rejected>, number: u64) -> u64 {
    sequence(&done.unwrap_or_else(|rejected| panic!("{number}: {rejected}")))
}

#[test]
fn a_refusal_for_want_of_room_leaves_what_stands_beside_it_in_the_group() {
    let lab = Lab::new();
    let mut running = lab.open();
    let large = |number| message(number, "inps").content(Bytes::from(vec![1; 200_000])).change();
    running.commit((1..=4).map(large).collect());
    lab.disk.faults().full.store(1, Ordering::SeqCst);
    let answers = running.commit(vec![large(5), settle(1, Outcome::HandedOver), large(2)]);
    assert_eq!(answers[0].as_ref().unwrap_err(), &Rejected::Full);
    assert!(matches!(answers[1], Ok(Done::Settled { sequence: 5, .. })), "{answers:?}");
    assert!(matches!(answers[2], Ok(Done::Repeated { sequence: 2, .. })), "{answers:?}");
}

#[test]
fn a_spare_that_is_damaged_is_named_and_made_anew_and_never_becomes_a_segment() {
    let lab = Lab::new();
    lab.open().stop();
    let spare = lab.path("journal/0000000000000001.spare");
    lab.edit(&spare, |bytes| bytes[700_000] ^= 1);
    let [finding] = verified(&lab).problems.try_into().unwrap();
    assert_eq!((finding.file, finding.offset), (spare.clone(), Some(700_000)));
    lab.edit(&spare, |bytes| bytes.truncate(9));
    let mut running = lab.open();
    assert_eq!(lab.disk.bytes(&spare).unwrap(), vec![0; 1024 * 1024]);
    for number in 1..=8 {
        running.done(message(number, "inps").content(Bytes::from(vec![1; 400_000])).change());
    }
    drop(running);
    assert_eq!(lab.open().store.sequence(), 8);
}

fn has_header(lab: &Lab, path: &Path) -> bool {
    lab.disk.bytes(path).unwrap().starts_with(b"TRMJ")
}

#[test]
fn a_kill_while_a_spare_becomes_a_segment_leaves_no_damage() {
    let mut begun = 0;
    for step in 1.. {
        let lab = Lab::new();
        let mut running = lab.open();
        let large = |number| message(number, "inps").content(Bytes::from(vec![1; 600_000])).change();
        running.done(large(1));
        lab.disk.faults().stop_after(step);
        drop(running.one(large(2)));
        let whole = !lab.disk.faults().is_stopped();
        lab.disk.faults().stop_after(0);
        drop(running);
        let is_begun =
            |path: &PathBuf| path.extension().is_some_and(|ending| ending == "spare") && has_header(&lab, path);
        begun += lab.disk.paths().iter().filter(|path| is_begun(path)).count();
        assert_eq!(verified(&lab).problems, Vec::new(), "at step {step}");
        lab.open().stop();
        assert_eq!(verified(&lab).problems, Vec::new(), "at step {step}");
        if whole {
            break;
        }
    }
    assert!(begun > 0, "none had a header and no name");
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
