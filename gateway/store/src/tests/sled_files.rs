//! The outbox's own files on the system's disk, damaged, deleted, or of an older day: rebuilt, equal row by row.

use std::fs;

use super::*;
use crate::{
    map::{Maps as _, OrderedMap},
    rebuild, verify,
};

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn outbox(&self) -> PathBuf {
        self.store().join("outbox")
    }

    fn open(&self) -> Running {
        let options =
            Options { segment_bytes: crate::options::SEGMENT_BYTES_MIN, ..Options::new(self.store(), "gateway") };
        let seams = Seams::real(Arc::new(ManualClock::new(T0)), Arc::new(TestNotary::default()));
        let (store, writer, recovery) = options.open(seams).unwrap();
        Running { store, writer, recovery }
    }
}

fn change(number: u64) -> Change {
    let sign = vec![(Slot::Evidence, bytes(&format!("evidence of {number}")))];
    Message { sign, ..message(number, "inps").order("talk") }.change()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A store in which some hundred wait and some are final, stopped in order; its rows.
fn left_clean(site: &Site) -> Vec<Pair> {
    let mut running = site.open();
    running.commit((1..=300).map(change).collect());
    running.writer.apply();
    running.commit((1..=40).map(|sequence| settle(sequence, Outcome::HandedOver)).collect());
    running.writer.apply();
    let rows = running.rows();
    running.stop();
    rows
}

/// Flips a bit of the outbox, or cuts it, at some places of each of its files, in a store that is otherwise what was kept.
fn each_damage(site: &Site, kept: &Site, mut each: impl FnMut(&Path, &str)) {
    let files: Vec<_> = fs::read_dir(kept.outbox()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> = files.into_iter().filter(|path| path.is_file()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for kept_file in files {
        let whole = fs::read(&kept_file).unwrap();
        let file = site.outbox().join(kept_file.file_name().unwrap());
        let places = (0..12).map(|i| whole.len() * i / 12).chain([whole.len() - 1]);
        for (at, cut) in places.flat_map(|at| [(at, false), (at, true)]) {
            fs::remove_dir_all(site.store()).unwrap();
            copy(&kept.store(), &site.store());
            let mut bytes = whole.clone();
            if cut {
                bytes.truncate(at)
            } else {
                bytes[at] ^= 0x04
            }
            fs::write(&file, bytes).unwrap();
            each(&file, &format!("{} at {at}, {}", file.display(), if cut { "cut" } else { "flipped" }));
        }
    }
}

#[test]
fn a_clean_stop_is_trusted_however_often_it_comes() {
    let site = Site::new();
    left_clean(&site);
    for round in 0..30 {
        let mut running = site.open();
        assert_eq!(running.recovery.rebuilt, None, "round {round}");
        running.commit((0..20).map(|i| change(1_000 + round * 20 + i)).collect());
        if round.is_multiple_of(3) {
            running.writer.apply();
        }
        running.stop();
    }
    assert_eq!(verify(&site.store()).unwrap().problems, Vec::new());
    assert_eq!(site.open().recovery.rebuilt, None, "verify has changed nothing");
}

#[test]
fn a_bit_or_a_cut_anywhere_in_the_outboxs_files_is_named_and_the_outbox_is_made_anew() {
    let site = Site::new();
    let rows = left_clean(&site);
    let kept = Site::new();
    copy(&site.store(), &kept.store());
    each_damage(&site, &kept, |file, what| {
        let found = verify(&site.store()).unwrap();
        let finding = found.problems.first().unwrap_or_else(|| panic!("{what}: not found"));
        assert_eq!((finding.file.as_path(), finding.offset.is_some()), (file, true), "{what}: {finding}");
        let running = site.open();
        assert!(running.recovery.rebuilt.is_some(), "{what}");
        assert_eq!(running.rows(), rows, "{what}");
    });
}

#[test]
fn after_a_kill_the_outbox_is_completed_and_made_anew_where_a_bit_or_a_cut_shows() {
    let (site, kept) = (Site::new(), Site::new());
    let mut running = site.open();
    running.commit((1..=300).map(change).collect());
    running.writer.apply();
    running.commit((1..=40).map(|sequence| settle(sequence, Outcome::HandedOver)).collect());
    running.writer.apply();
    running.writer.shared.outbox.tidy().unwrap();
    running.commit((301..=320).map(change).collect());
    let rows = running.rows();
    drop(running);
    copy(&site.store(), &kept.store());
    let running = site.open();
    assert_eq!((running.recovery.rebuilt.clone(), running.rows()), (None, rows.clone()), "completed");
    drop(running);
    let mut rebuilt = 0;
    each_damage(&site, &kept, |_, what| {
        let running = site.open();
        assert_eq!(running.rows(), rows, "{what}");
        rebuilt += u32::from(running.recovery.rebuilt.is_some() || running.store.health().rebuilds > 0);
    });
    assert!(rebuilt > 10, "{rebuilt}: what was damaged was hardly noticed");
}

#[test]
fn an_outbox_of_an_older_day_is_made_anew_equal_row_by_row() {
    let site = Site::new();
    left_clean(&site);
    let older = site.folder.path().join("older");
    copy(&site.outbox(), &older);
    let mut running = site.open();
    running.commit((301..=350).map(change).collect());
    running.commit((50..=60).map(|sequence| settle(sequence, Outcome::Refused)).collect());
    let rows = running.rows();
    running.stop();
    fs::remove_dir_all(site.outbox()).unwrap();
    copy(&older, &site.outbox());
    let found = verify(&site.store()).unwrap();
    assert_eq!((found.problems.len(), found.clean), (0, false), "older is no damage: {found:?}");
    let running = site.open();
    assert!(running.recovery.rebuilt.as_ref().is_some_and(|why| why.contains("stands")), "{:?}", running.recovery);
    assert_eq!(running.rows(), rows);
    running.stop();
    assert_eq!(rebuild(&site.store()).unwrap().sequence, 401);
    assert_eq!(site.open().rows(), rows);
}

#[test]
fn rows_made_anew_stand_in_few_files_however_long_the_journal() {
    let site = Site::new();
    let mut running = site.open();
    for number in 1..=64 {
        running.one(change(number)).unwrap();
    }
    let rows = running.rows();
    let folder = tempfile::tempdir().unwrap();
    let map = crate::options::real_maps().open(folder.path()).unwrap();
    let journal = &running.writer.shared.journal;
    let mut replay = crate::replay::Replay::new(map.as_ref(), 1);
    for sequence in 1..=64 {
        replay.group(journal.as_ref(), &journal.group(sequence).unwrap()).unwrap();
        replay.write().unwrap();
    }
    let named = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let files = named.filter(|path| path.extension().is_some_and(|extension| extension == "run")).count();
    assert!((1..20).contains(&files), "{files} files of 64");
    let mut made = (&*map as &dyn OrderedMap).scan(&[], rows::END, usize::MAX).unwrap();
    made.retain(|(key, _)| key.as_slice() != rows::POSITION);
    assert_eq!(made, rows);
}

#[test]
fn a_journal_of_an_older_day_is_refused_as_it_would_lose_what_was_acknowledged() {
    let site = Site::new();
    left_clean(&site);
    let (journal, older) = (site.store().join("journal"), site.folder.path().join("older"));
    copy(&journal, &older);
    let mut running = site.open();
    running.commit((301..=302).map(change).collect());
    running.stop();
    fs::remove_dir_all(&journal).unwrap();
    copy(&older, &journal);
    let names_it = |what: &str| assert!(what.contains("went on to"), "{what}");
    let found = verify(&site.store()).unwrap();
    assert_eq!((found.problems.len(), &found.problems[0].file), (1, &journal), "{found:?}");
    names_it(&found.problems[0].what);
    names_it(&rebuild(&site.store()).unwrap_err().to_string());
    let options = Options { segment_bytes: crate::options::SEGMENT_BYTES_MIN, ..Options::new(site.store(), "gateway") };
    let seams = || Seams::real(Arc::new(ManualClock::new(T0)), Arc::new(TestNotary::default()));
    let refused = options.clone().open(seams()).map(drop).unwrap_err();
    assert!(matches!(&refused, OpenError::Damaged(_)), "{refused}");
    names_it(&refused.to_string());
}

#[test]
fn a_store_that_was_killed_and_has_lost_its_journal_is_not_sound_and_not_made_anew() {
    let site = Site::new();
    let mut running = site.open();
    running.commit((1..=20).map(change).collect());
    running.writer.apply();
    running.writer.shared.outbox.hand_over().unwrap();
    drop(running);
    let journal = site.store().join("journal");
    fs::remove_dir_all(&journal).unwrap();
    fs::create_dir(&journal).unwrap();
    for _ in 0..2 {
        let found = verify(&site.store()).unwrap();
        assert!(found.problems.iter().any(|problem| problem.what.contains("went on to")), "{found:?}");
        assert!(rebuild(&site.store()).unwrap_err().to_string().contains("went on to"));
    }
}

#[test]
fn when_all_content_is_erased_and_the_outbox_is_gone_every_repeat_gets_its_original_answer() {
    let site = Site::new();
    let mut running = site.open();
    let answers = running.commit((1..=100).map(change).collect());
    let original: Vec<Arc<Fact>> = answers
        .into_iter()
        .map(|answer| match answer.unwrap() {
            Done::Accepted { fact, .. } => fact,
            other => panic!("{other:?}"),
        })
        .collect();
    running.commit((1..=100).map(|sequence| settle(sequence, Outcome::HandedOver)).collect());
    running.writer.apply();
    let rows = running.rows();
    running.stop();
    let found = verify(&site.store()).unwrap();
    assert_eq!((found.contents, found.leftover, found.erased, found.problems.len()), (0, 0, 100, 0), "{found:?}");
    fs::remove_dir_all(site.outbox()).unwrap();
    let mut running = site.open();
    assert_eq!(running.rows(), rows);
    for (number, original) in (1..=100).zip(&original) {
        match running.one(change(number)).unwrap() {
            Done::Repeated { sequence, fact } => {
                assert_eq!(sequence, number);
                assert_eq!(accepted_of(&fact).evidence, accepted_of(original).evidence, "the evidence, byte by byte");
                assert_eq!(&fact, original);
            }
            other => panic!("{number}: {other:?}"),
        }
    }
}
