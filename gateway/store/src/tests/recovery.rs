//! What opening does with a torn tail, and with damage: region by region, byte by byte.

use super::*;
use crate::verify_with;

/// Three groups in one segment, killed, with the mark behind `marked` groups. Says where each group ends.
fn three_groups(marked: usize) -> (Lab, Vec<usize>) {
    let lab = Lab::new();
    let mut running = lab.open();
    let mut ends = Vec::new();
    let mut marks = Vec::new();
    for number in 1..=3 {
        running.commit(vec![message(2 * number, "inps").change(), message(2 * number + 1, "inps").change()]);
        marks.push(lab.disk.bytes(&lab.mark()).unwrap());
        let end = u64::from_le_bytes(marks[marks.len() - 1][8..16].try_into().unwrap());
        ends.push(usize::try_from(end).unwrap());
    }
    drop(running);
    lab.disk.overwrite(&lab.mark(), marks[marked - 1].clone());
    // What is only reserved reads as zeros anyway, and would have to be copied for each case.
    lab.edit(&lab.segment(), |bytes| bytes.truncate(ends[2]));
    (lab, ends)
}

fn damaged_at(result: Result<Running, OpenError>) -> (PathBuf, u64) {
    match result {
        Err(OpenError::Damaged(damage)) => (damage.file, damage.offset),
        Err(other) => panic!("{other}"),
        Ok(running) => panic!("opened with {:?}", running.recovery),
    }
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_if_it_was_never_acknowledged() {
    let (lab, ends) = three_groups(2);
    let whole = lab.disk.bytes(&lab.segment()).unwrap();
    for at in ends[1]..ends[2] {
        for truncate in [false, true] {
            let torn = lab.fork();
            torn.edit(&lab.segment(), |bytes| if truncate { bytes.truncate(at) } else { bytes[at..].fill(0) });
            let unchanged = whole[at..ends[2]].iter().all(|byte| *byte == 0);
            let mut running = torn.open();
            let there = running.store.sequence();
            if unchanged {
                assert_eq!(there, 6, "only padding was lost at {at}");
                continue;
            }
            assert_eq!(there, 4, "torn at {at}");
            assert_eq!(running.recovery.cut.is_some(), at > ends[1], "said, when there was anything to cut, at {at}");
            assert_eq!(running.done(message(6, "inps").change()), 5, "goes on where it ended");
            running.stop();
            assert_eq!(torn.open().store.sequence(), 5);
        }
    }
}

#[test]
fn an_acknowledged_group_is_never_cut() {
    let (lab, ends) = three_groups(3);
    let whole = lab.disk.bytes(&lab.segment()).unwrap();
    let contents = 2 * "content of 6 ".len();
    for at in (ends[1]..ends[2] - contents - 8).step_by(3) {
        for truncate in [false, true] {
            let torn = lab.fork();
            torn.edit(&lab.segment(), |bytes| if truncate { bytes.truncate(at) } else { bytes[at..].fill(0) });
            assert_ne!(whole[at..ends[2]], vec![0; ends[2] - at]);
            assert_eq!(damaged_at(torn.try_open()), (lab.segment(), ends[1] as u64), "at {at}");
        }
    }
}

#[test]
fn a_flipped_bit_in_facts_or_headers_is_refused_and_named() {
    let (lab, ends) = three_groups(3);
    let starts = [64, ends[0], ends[1]];
    let whole = lab.disk.bytes(&lab.segment()).unwrap();
    for (group, start) in starts.into_iter().enumerate() {
        let facts = u32::from_le_bytes(whole[start + 4..start + 8].try_into().unwrap()) as usize;
        for at in (start..start + 40 + facts).step_by(11).chain([start, start + 4, start + 36, start + 40]) {
            let rotten = lab.fork();
            rotten.edit(&lab.segment(), |bytes| bytes[at] ^= 0x10);
            assert_eq!(damaged_at(rotten.try_open()), (lab.segment(), start as u64), "group {group}, byte {at}");
        }
    }
    for at in 0..64 {
        let rotten = lab.fork();
        rotten.edit(&lab.segment(), |bytes| bytes[at] ^= 1);
        assert_eq!(damaged_at(rotten.try_open()), (lab.segment(), 0), "segment header, byte {at}");
    }
    for at in 0..28 {
        let rotten = lab.fork();
        rotten.edit(&lab.mark(), |bytes| bytes[at] ^= 1);
        assert_eq!(damaged_at(rotten.try_open()).0, lab.mark(), "mark, byte {at}");
    }
}

#[test]
fn a_flipped_bit_beyond_the_mark_is_cut_in_the_last_group_only() {
    let (lab, ends) = three_groups(1);
    for at in (ends[1]..ends[2]).step_by(5) {
        let rotten = lab.fork();
        rotten.edit(&lab.segment(), |bytes| bytes[at] ^= 1);
        let running = rotten.open();
        // Padding is not checked by any checksum, and nothing reads it.
        assert!(running.store.sequence() == 4 || at >= ends[2] - 7, "byte {at}");
    }
    for at in (ends[0]..ends[1] - 8).step_by(5) {
        let rotten = lab.fork();
        rotten.edit(&lab.segment(), |bytes| bytes[at] ^= 1);
        let (file, offset) = damaged_at(rotten.try_open());
        assert_eq!(file, lab.segment());
        assert!((ends[0] as u64..ends[1] as u64).contains(&offset), "byte {at} is named {offset}");
    }
}

#[test]
fn a_damaged_content_is_found_by_verify_and_never_handed_out() {
    let (lab, ends) = three_groups(3);
    let needle = b"content of 5 ";
    let whole = lab.disk.bytes(&lab.segment()).unwrap();
    let at = whole.windows(needle.len()).position(|window| window == needle).unwrap();
    assert!(at < ends[1]);
    lab.edit(&lab.segment(), |bytes| {
        bytes[at] ^= 1;
        bytes.resize(1024 * 1024, 0);
    });
    let found = verify_with(&(Arc::new(lab.disk.clone()) as _), &lab.maps, Path::new("store")).unwrap();
    assert_eq!((found.groups, found.facts, found.contents, found.problems.len()), (3, 6, 5, 1), "{found:?}");
    let mut running = lab.open();
    assert_eq!(running.leasable("inps"), [1, 2, 3, 5, 6]);
    assert_eq!(running.leasable("inps"), [1, 2, 3, 5, 6]);
    assert_eq!(running.store.health().set_aside, 1, "counted once");
    assert!(matches!(running.store.content(4), Err(crate::ReadError::Damaged(_))));
    running.done(settle(4, Outcome::Discarded));
}

#[test]
fn a_group_hidden_in_a_content_is_no_group() {
    let (lab, ends) = three_groups(3);
    let group = lab.disk.bytes(&lab.segment()).unwrap()[ends[1]..ends[2]].to_vec();
    for shift in 0..8 {
        let lab = Lab::new();
        let mut running = lab.open();
        running.done(message(1, "inps").change());
        let mark = lab.disk.bytes(&lab.mark()).unwrap();
        let mut hidden = vec![0; shift];
        hidden.extend_from_slice(&group);
        running.done(message(2, "inps").content(Bytes::from(hidden)).change());
        drop(running);
        lab.disk.overwrite(&lab.mark(), mark);
        // The torn group's facts are damaged, its header is whole.
        lab.edit(&lab.segment(), |bytes| {
            let end = bytes.windows(4).rposition(|window| window == b"TRMG").unwrap();
            assert!(end > 64);
            let second = bytes.windows(4).enumerate().filter(|(_, w)| *w == b"TRMG").nth(1).unwrap().0;
            bytes[second + 50] ^= 1;
        });
        assert_eq!(lab.open().store.sequence(), 1);
    }
}

#[test]
fn a_group_of_another_store_in_a_content_is_no_group_even_with_its_own_header_torn() {
    let other = Lab::new();
    let foreign = other.options.clone().open(Seams { store_id: [8; 16], ..other.seams() }).unwrap();
    let mut foreign = Running { store: foreign.0, writer: foreign.1, recovery: foreign.2 };
    foreign.done(message(9, "inps").change());
    let end = usize::try_from(u64::from_le_bytes(other.disk.bytes(&other.mark()).unwrap()[8..16].try_into().unwrap()));
    let group = other.disk.bytes(&other.segment()).unwrap()[64..end.unwrap()].to_vec();
    for shift in 0..8 {
        let lab = Lab::new();
        let mut running = lab.open();
        running.done(message(1, "inps").change());
        let mark = lab.disk.bytes(&lab.mark()).unwrap();
        let start = usize::try_from(u64::from_le_bytes(mark[8..16].try_into().unwrap())).unwrap();
        let hidden = [vec![0; 1024 + shift], group.clone()].concat();
        running.done(message(2, "inps").content(Bytes::from(hidden)).change());
        drop(running);
        lab.disk.overwrite(&lab.mark(), mark);
        // The sector with the group's header was not written.
        lab.edit(&lab.segment(), |bytes| bytes[start..start.next_multiple_of(512)].fill(0));
        let mut running = lab.open();
        let cut = running.recovery.cut.clone().unwrap();
        assert_eq!((running.store.sequence(), cut.offset), (1, start as u64), "hidden at {shift}");
        assert_eq!(running.done(message(2, "inps").change()), 2, "goes on where it ended");
    }
}

#[test]
fn a_journal_goes_on_over_many_segments() {
    let lab = Lab::new();
    let mut running = lab.open();
    let big =
        |number| message(number, "inps").content(Bytes::from(vec![u8::try_from(number).unwrap(); 400_000])).change();
    for number in 1..=8 {
        running.done(big(number));
    }
    let segments = lab.disk.list(&lab.path("journal")).unwrap().len() - 1;
    assert!(segments >= 4, "{segments}");
    running.stop();
    let mut running = lab.open();
    assert_eq!(running.recovery.rebuilt, None);
    for number in 1..=8 {
        assert_eq!(running.store.content(number).unwrap()[0], u8::try_from(number).unwrap());
    }
    running.done(message(9, "inps").change());
    drop(running);
    assert_eq!(lab.open().store.sequence(), 9);
    // One that is missing, in the middle or at the end, is damage.
    let names = lab.disk.list(&lab.path("journal")).unwrap();
    for name in names.iter().filter(|name| name.ends_with(".seg")) {
        let holed = lab.fork();
        holed.disk.remove(&lab.path("journal").join(name)).unwrap();
        assert!(matches!(holed.try_open(), Err(OpenError::Damaged(_))), "{name}");
    }
}

#[test]
fn the_only_group_of_the_last_segment_is_not_cut_after_a_clean_stop() {
    let lab = Lab::new();
    let mut running = lab.open();
    for number in 1..=3 {
        running.done(message(number, "inps").content(Bytes::from(vec![7; 400_000])).change());
    }
    running.stop();
    let last = lab.path("journal/0000000000000003.seg");
    for (at, until) in [(64, 65), (120, 121), (64, 500_000)] {
        let rotten = Lab { maps: lab.maps.clone(), ..lab.fork() };
        rotten.edit(&last, |bytes| bytes[at..until].fill(0));
        assert_eq!(damaged_at(rotten.try_open()), (last.clone(), 64), "zeros from {at} to {until}");
    }
}

#[test]
fn a_group_larger_than_a_segment_gets_a_segment_of_its_own() {
    let lab = Lab::new();
    let mut running = lab.open();
    let many = (1..=12).map(|number| message(number, "inps").content(Bytes::from(vec![7; 300_000])).change());
    assert!(running.commit(many.collect()).iter().all(Result::is_ok));
    running.done(message(13, "inps").change());
    drop(running);
    let running = lab.open();
    assert_eq!(running.store.sequence(), 13);
    assert_eq!(running.store.content(12).unwrap().len(), 300_000);
}

#[test]
fn what_a_killed_process_had_written_is_kept_and_a_repeat_is_answered() {
    let (lab, _) = three_groups(2);
    let mut running = lab.open();
    assert_eq!((running.recovery.sequence, running.recovery.cut.clone()), (6, None));
    assert!(matches!(running.one(message(6, "inps").change()), Ok(Done::Repeated { sequence: 5, .. })));
    lab.disk.cut_power(0);
    drop(running);
    assert_eq!(lab.open().store.sequence(), 6, "opening made it durable before it was served");
}

#[test]
fn opening_again_and_again_changes_nothing() {
    let (lab, ends) = three_groups(2);
    lab.edit(&lab.segment(), |bytes| bytes[ends[2] - 20..].fill(0));
    let first = lab.open();
    let rows = first.rows();
    drop(first);
    for _ in 0..5 {
        let again = lab.open();
        assert_eq!((again.rows(), again.recovery.cut.clone()), (rows.clone(), None));
    }
}

#[test]
fn a_kill_while_the_store_is_made_leaves_one_that_opens() {
    let lab = Lab::new();
    lab.open().done(message(1, "inps").change());
    let made: Vec<PathBuf> = lab.disk.paths();
    for missing in [vec!["synced", "seg"], vec!["seg"]] {
        let early = Lab::new();
        drop(early.open());
        for path in &made {
            if missing.iter().any(|end| path.to_string_lossy().ends_with(end)) {
                early.disk.remove(path).unwrap();
            }
        }
        early.disk.overwrite(&early.path("journal/0000000000000001.tmp"), vec![1; 10]);
        let mut running = early.open();
        assert_eq!(running.done(message(1, "inps").change()), 1);
    }
}

#[test]
fn what_is_cut_is_named_by_file_and_offset_before_and_after() {
    let (lab, ends) = three_groups(2);
    for at in (ends[1] + 1..ends[2] - 30).step_by(17) {
        let torn = lab.fork();
        torn.edit(&lab.segment(), |bytes| {
            bytes[at..].fill(0);
            bytes.resize(1024 * 1024, 0);
        });
        let bytes = torn.disk.bytes(&lab.segment()).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        let cut = crate::Cut { file: lab.segment(), offset: ends[1] as u64, bytes: (last + 1 - ends[1]) as u64 };
        let found = verified(&torn);
        assert_eq!((found.torn, found.problems), (Some(cut.clone()), Vec::new()), "torn at {at}");
        assert_eq!(torn.open().recovery.cut, Some(cut), "torn at {at}");
    }
}

#[test]
fn verify_reads_all_groups_without_a_mark_and_names_it_first() {
    let lab = Lab::new();
    let mut running = lab.open();
    for number in 1..=3 {
        running.commit(vec![message(2 * number, "inps").change(), message(2 * number + 1, "inps").change()]);
    }
    running.stop();
    let mark = lab.disk.bytes(&lab.mark()).unwrap();
    for missing in [true, false] {
        if missing {
            lab.disk.remove(&lab.mark()).unwrap();
        } else {
            lab.disk.overwrite(&lab.mark(), mark.iter().map(|byte| byte ^ 1).collect());
        }
        let found = verified(&lab);
        assert_eq!((found.groups, found.facts, found.contents), (3, 6, 6));
        let [problem] = found.problems.try_into().unwrap();
        assert_eq!((problem.file, problem.offset), (lab.mark(), Some(0)), "{}", problem.what);
        let rotten = lab.fork();
        let first = rotten.disk.bytes(&lab.segment()).unwrap();
        let at = first.windows(4).rposition(|seen| seen == b"TRMG").unwrap();
        rotten.edit(&lab.segment(), |bytes| (bytes[64], bytes[at]) = (bytes[64] ^ 1, bytes[at] ^ 1));
        let found: Vec<_> =
            verified(&rotten).problems.into_iter().map(|finding| (finding.file, finding.offset)).collect();
        assert_eq!(found, [(lab.mark(), Some(0)), (lab.segment(), Some(64))]);
    }
}

#[test]
fn of_two_damaged_records_verify_names_the_first_first() {
    let lab = Lab::new();
    let mut running = lab.open();
    for number in 1..=9 {
        let content = growth::noise(number, 300_000);
        running.done(message(number, "inps").content(content).change());
    }
    running.stop();
    let [first, second] = ["0000000000000001", "0000000000000004"].map(|name| lab.path(&format!("journal/{name}.seg")));
    let content = |number: u64| {
        let (path, content) = (if number < 4 { &first } else { &second }, growth::noise(number, 300_000));
        let bytes = lab.disk.bytes(path).unwrap();
        (path.clone(), bytes.windows(content.len()).position(|seen| seen == content).unwrap())
    };
    let group = |number| {
        let (path, at) = content(number);
        let bytes = lab.disk.bytes(&path).unwrap();
        (path, bytes[..at].windows(4).rposition(|seen| seen == b"TRMG").unwrap())
    };
    // Behind the last group of a segment, where nothing was written.
    let rest = |path: &PathBuf, at: usize| (path.clone(), 1024 * 1024 - at);
    let cases = [
        [content(2), content(3)],
        [content(2), content(4)],
        [content(2), group(3)],
        [content(3), group(5)],
        [content(5), rest(&first, 9)],
        [rest(&first, 9), rest(&second, 900)],
    ];
    for damage in cases {
        let lab = Lab { maps: lab.maps.clone(), ..lab.fork() };
        for (path, at) in &damage {
            lab.edit(path, |bytes| bytes[*at] ^= 1);
        }
        let found = verified(&lab).problems;
        let found: Vec<_> = found.into_iter().map(|it| (it.file, it.offset.unwrap())).collect();
        let wanted = damage.map(|(path, at)| (path, at as u64));
        assert_eq!(found, wanted);
    }
}
