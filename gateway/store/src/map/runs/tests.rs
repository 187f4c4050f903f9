//! Rows in files, held against a plain map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::map::MemoryMaps;

fn probe(key: &[u8]) -> Option<&[u8]> {
    match key.first()? {
        b'b' => Some(key),
        b'c' => key.get(..2),
        _ => None,
    }
}

fn maps(root: &MemoryMaps) -> RunMaps {
    RunMaps { root: Arc::new(root.clone()), shape: Shape { few: b"mpz", probe } }
}

type Model = BTreeMap<Key, Bytes>;

#[derive(Debug, Clone)]
enum Step {
    Apply(BTreeMap<Key, Option<u8>>),
    Tidy,
    Reopen,
}

fn key() -> impl Strategy<Value = Key> {
    (prop::sample::select(b"abcz".to_vec()), prop::collection::vec(0_u8..4, 1..4)).prop_map(|(kind, mut rest)| {
        rest.insert(0, kind);
        Key::from_vec(rest)
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::btree_map(key(), any::<Option<u8>>(), 1..40).prop_map(Step::Apply),
        2 => Just(Step::Tidy),
        1 => Just(Step::Reopen),
    ]
}

fn same(map: &dyn OrderedMap, model: &Model, from: &[u8], to: &[u8], limit: usize) {
    let expected: Vec<Pair> = if from < to {
        model
            .range(Key::from_slice(from)..Key::from_slice(to))
            .take(limit)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    } else {
        Vec::new()
    };
    assert_eq!(map.scan(from, to, limit).unwrap(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn files_read_like_one_map(steps in prop::collection::vec(step(), 1..40), asked in prop::collection::vec((key(), key(), 0_usize..9), 8)) {
        let (folder, root) = (tempfile::tempdir().unwrap(), MemoryMaps::new());
        let mut map = maps(&root).open(folder.path()).unwrap();
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Apply(changes) => {
                    for (key, value) in &changes {
                        match value {
                            Some(value) => model.insert(key.clone(), Bytes::copy_from_slice(&[*value; 300])),
                            None => model.remove(key),
                        };
                    }
                    let value = |value: Option<u8>| value.map(|value| Bytes::copy_from_slice(&[value; 300]));
                    map.apply(&mut changes.into_iter().map(|(key, v)| (key, value(v)))).unwrap();
                }
                Step::Tidy => drop(map.tidy().unwrap()),
                Step::Reopen => map = maps(&root).open(folder.path()).unwrap(),
            }
            for (from, to, limit) in &asked {
                same(map.as_ref(), &model, from, to, *limit);
                prop_assert_eq!(map.get(from).unwrap(), model.get(from.as_slice()).cloned());
                // All that share what is asked for.
                same(map.as_ref(), &model, &[from[0], from[1], 0], &[from[0], from[1], 9], *limit);
            }
            same(map.as_ref(), &model, &[], &[0xff], usize::MAX);
        }
    }
}

fn filled(folder: &Path, root: &MemoryMaps, runs: u16) -> Arc<dyn OrderedMap> {
    let map = maps(root).open(folder).unwrap();
    for run in 0..runs {
        let rows = (0..100_u16)
            .map(|row| (Key::from_vec(format!("b{row:05}").into_bytes()), Some(Bytes::from(format!("{run}")))));
        map.apply(&mut rows.into_iter()).unwrap();
    }
    map
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn many_small_files_become_one_and_the_old_ones_go() {
    let (folder, root) = (tempfile::tempdir().unwrap(), MemoryMaps::new());
    let map = filled(folder.path(), &root, u16::try_from(FAN).unwrap());
    assert_eq!(files(folder.path()).len(), FAN);
    assert!(map.tidy().unwrap());
    assert_eq!(files(folder.path()).len(), 1);
    assert!(!map.tidy().unwrap());
    assert_eq!(map.get(b"b00042").unwrap().unwrap(), format!("{}", FAN - 1));
}

#[test]
fn what_comes_and_goes_leaves_the_file_of_a_million_alone_until_it_is_as_large() {
    let (folder, root) = (tempfile::tempdir().unwrap(), MemoryMaps::new());
    let map = maps(&root).open(folder.path()).unwrap();
    let value = || Some(Bytes::from_static(&[7; 100]));
    let rows = |from: u32, count: u32| {
        (from..from + count).map(move |row| (Key::from_vec(format!("b{row:08}").into_bytes()), value()))
    };
    map.apply(&mut rows(0, 20_000)).unwrap();
    let large = files(folder.path()).remove(0);
    let bytes = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let (mut written, mut most, mut batches) = (0, 0, 0);
    let mut before = files(folder.path());
    while large.exists() {
        map.apply(&mut rows(20_000 + 100 * batches, 100)).unwrap();
        map.tidy().unwrap();
        let after = files(folder.path());
        written += after.iter().filter(|path| !before.contains(path)).map(bytes).sum::<u64>();
        most = most.max(after.len());
        (before, batches) = (after, batches + 1);
    }
    // As many rows as it has, but for the last few files.
    assert!((150..=250).contains(&batches), "it was written anew after {batches} batches of a two hundredth");
    assert!(most <= 2 * FAN, "{most} files");
    let once = u64::from(batches) * 100 * bytes(&before[0]) / u64::from(20_000 + 100 * batches);
    assert!(written - bytes(&before[0]) < 6 * once, "{written} bytes were written for {once}");
}

#[test]
fn removed_rows_that_are_passed_over_again_and_again_go() {
    let (folder, root) = (tempfile::tempdir().unwrap(), MemoryMaps::new());
    let map = maps(&root).open(folder.path()).unwrap();
    let key = |row: u32| Key::from_vec(format!("b{row:08}").into_bytes());
    map.apply(&mut (0..20_000).map(|row| (key(row), Some(Bytes::from_static(&[7; 20]))))).unwrap();
    map.apply(&mut (0..15_000).map(|row| (key(row), None))).unwrap();
    let look = || assert_eq!(map.scan(b"b", b"c", 1).unwrap()[0].0, key(15_000));
    let looks = (1..100).find(|_| {
        look();
        map.tidy().unwrap()
    });
    assert_eq!(looks, Some(9), "as many as make it worth the while");
    assert_eq!(files(folder.path()).len(), 1);
    look();
    assert!(!map.tidy().unwrap());
}

#[test]
fn a_map_that_was_replaced_touches_no_file_of_the_one_after_it() {
    let (folder, root) = (tempfile::tempdir().unwrap(), MemoryMaps::new());
    let outbox = folder.path().join("outbox");
    fs::create_dir(&outbox).unwrap();
    let before = filled(&outbox, &root, u16::try_from(FAN).unwrap());
    // As when it is rebuilt: the folder is made anew, while a merge of the old one may be about to begin or to end.
    fs::remove_dir_all(&outbox).unwrap();
    fs::create_dir(&outbox).unwrap();
    let root = MemoryMaps::new();
    let after = filled(&outbox, &root, u16::try_from(FAN - 1).unwrap());
    let rows = after.scan(b"b", b"c", usize::MAX).unwrap();
    // It may fail; nobody waits for it any more.
    drop(before.tidy());
    assert_eq!(after.scan(b"b", b"c", usize::MAX).unwrap(), rows);
    drop(after);
    assert_eq!(maps(&root).open(&outbox).unwrap().scan(b"b", b"c", usize::MAX).unwrap(), rows);
}

#[test]
fn a_file_that_nobody_names_goes_and_one_that_is_missing_is_an_error() {
    let (folder, root) = (tempfile::tempdir().unwrap(), MemoryMaps::new());
    drop(filled(folder.path(), &root, 2));
    fs::write(folder.path().join("00000000000000ff.run"), b"half a file").unwrap();
    drop(maps(&root).open(folder.path()).unwrap());
    let left = files(folder.path());
    assert_eq!(left.len(), 2);
    fs::remove_file(&left[0]).unwrap();
    assert!(maps(&root).open(folder.path()).unwrap_err().0.contains("cannot open"));
}

#[test]
fn every_flipped_byte_is_found_or_changes_nothing() {
    let (folder, root) = (tempfile::tempdir().unwrap(), MemoryMaps::new());
    let sound = filled(folder.path(), &root, 1).scan(b"b", b"c", usize::MAX).unwrap();
    let path = files(folder.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let read = maps(&root).open(folder.path()).and_then(|map| map.scan(b"b", b"c", usize::MAX));
        assert!(read.is_err() || read.unwrap() == sound, "byte {at} was changed and nobody noticed");
    }
}

#[test]
fn every_cut_is_found() {
    let (folder, root) = (tempfile::tempdir().unwrap(), MemoryMaps::new());
    drop(filled(folder.path(), &root, 1));
    let path = files(folder.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(maps(&root).open(folder.path()).is_err(), "cut to {length}");
    }
}

#[test]
fn rows_of_one_batch_add_up_and_no_others_do() {
    let (folder, root) = (tempfile::tempdir().unwrap(), MemoryMaps::new());
    let open = || maps(&root).open(folder.path()).unwrap();
    assert!(!open().is_whole().unwrap(), "there was no batch yet");
    let map = filled(folder.path(), &root, u16::try_from(FAN).unwrap());
    let row = |number: u8| (Key::from_slice(&[b'p', number]), Some(Bytes::copy_from_slice(&[number; 9])));
    map.apply(&mut (0..5).map(row)).unwrap();
    map.apply(
        &mut [(Key::from_slice(b"p\x01"), None), (Key::from_slice(b"p\x02"), Some(Bytes::from_static(b"new")))]
            .into_iter(),
    )
    .unwrap();
    drop(map);
    assert!(open().is_whole().unwrap());
    root.lose_last();
    assert_eq!(open().get(b"p\x02").unwrap().unwrap(), [2; 9].as_slice(), "the batch before");
    assert!(open().is_whole().unwrap());
    assert!(open().tidy().unwrap());
    assert!(open().is_whole().unwrap(), "after a merge");
    // As sled may show a file of its own that is damaged: with a row missing, changed, or back again.
    let rows = root.open(folder.path()).unwrap();
    let sound = rows.scan(b"", b"\xff", usize::MAX).unwrap();
    for (key, value) in &sound {
        // Without the row that names it, or with another, the file cannot be found: an error, where the others are not whole.
        let whole = || maps(&root).open(folder.path()).is_ok_and(|map| map.is_whole().unwrap());
        for wrong in [None, Some(Bytes::from_static(b"another!"))] {
            let named = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let kept: Vec<_> = named.map(|path| (fs::read(&path).unwrap(), path)).collect();
            rows.apply(&mut std::iter::once((key.clone(), wrong))).unwrap();
            assert!(!whole(), "{}", key.escape_ascii());
            rows.apply(&mut std::iter::once((key.clone(), Some(value.clone())))).unwrap();
            kept.into_iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
        }
        assert!(whole());
    }
    rows.apply(&mut std::iter::once(row(7))).unwrap();
    assert!(!open().is_whole().unwrap(), "a row of another batch is there");
}
