//! The outbox is a function of the journal: applied late, rebuilt, healed, it says the same row by row.

use super::*;
use crate::map::{Maps, OrderedMap, RowChange};
use crate::{MapError, outbox::Outbox, verify_with};

/// A life with everything in it. Returns the rows that it left.
fn a_life(lab: &Lab, apply: bool) -> Vec<Pair> {
    let mut running = lab.open();
    let group = |running: &mut Running, changes| {
        assert!(running.commit(changes).iter().all(Result::is_ok));
        if apply {
            running.writer.apply();
        }
        lab.clock.advance(61_000);
    };
    let opens = |number| {
        let with = |fact: &mut Accepted| {
            fact.case_id = id(number);
            fact.expires_ms = T0 + 3_600_000;
            let case = case_move(number, "requested");
            fact.case_move = Some(CaseMove { kind: "REFERRAL".into(), deadline_ms: T0 + 7_200_000, ..case });
            fact.request_id = format!("request {number}");
        };
        message(number, "inps").order("talk").with(with).change()
    };
    group(&mut running, (1..=6).map(opens).collect());
    group(&mut running, vec![fail_attempt(1, T0 + 5), settle(2, Outcome::DeadLettered)]);
    group(
        &mut running,
        vec![fail_attempt(1, T0 + 5), settle(3, Outcome::HandedOver), settle(4, Outcome::DeadLettered)],
    );
    let notice = Settled {
        sequence: 1,
        outcome: Outcome::HandedOver.into(),
        notify: vec!["caritas".into()],
        case_move: Some(CaseMove { opener: "x".into(), ..case_move(1, "received") }),
        ..Settled::default()
    };
    group(&mut running, vec![Change::Settle { fact: Box::new(notice), sign: Vec::new(), mover: None }, redrive(2)]);
    let record =
        tramite_proto::pb::journal::v1::Recorded { name: "n".into(), value: Some(bytes("v")), ..Default::default() };
    group(&mut running, vec![Change::Record { fact: Box::new(record), begins: false }, settle(2, Outcome::HandedOver)]);
    let short = message(20, "comune").with(|fact| fact.remember_ms = lab_now(lab) + 60_000).change();
    group(&mut running, vec![short]);
    let last = running.store.sequence();
    group(&mut running, vec![settle(last, Outcome::Refused)]);
    lab.clock.advance(120_000);
    group(&mut running, vec![message(21, "comune").change()]);
    let rows = running.rows();
    drop(running);
    rows
}

fn lab_now(lab: &Lab) -> i64 {
    use tramite_proto::clock::Clock as _;
    lab.clock.now_ms()
}

#[test]
fn a_rebuilt_outbox_is_equal_row_by_row_also_after_every_content_is_gone() {
    let (eager, late) = (Lab::new(), Lab::new());
    let rows = a_life(&eager, true);
    assert!(rows.len() > 30, "{}", rows.len());
    assert_eq!(a_life(&late, false), rows, "applied or not, it reads the same");
    let mut running = late.open();
    assert_eq!(running.rows(), rows, "rebuilt after a kill");
    while running.writer.shared.outbox.apply(|| true).unwrap() {}
    for message in running.store.messages("inps", 0, 100).unwrap() {
        running.done(settle(message.sequence, Outcome::Discarded));
    }
    running.done(settle(running.store.message(&id(21)).unwrap().unwrap().sequence, Outcome::Discarded));
    running.writer.apply();
    assert!(!is_on_disk(&late.disk, b"content of"));
    let rows = running.rows();
    running.stop();
    late.maps.wipe(&late.path("outbox")).unwrap();
    late.disk.remove(&late.path("outbox/clean")).unwrap();
    let mut running = late.open();
    assert_eq!(running.rows(), rows, "rebuilt when every content is gone");
    for number in 1..=6 {
        let again = message(number, "inps").order("talk").change();
        assert!(matches!(running.one(again), Ok(Done::Repeated { sequence, .. }) if sequence == number));
    }
}

#[test]
fn rows_that_add_up_need_no_rebuild_and_anything_else_does() {
    let lab = Lab::new();
    assert!(lab.open().recovery.created);
    a_life(&lab, true);
    let rows = lab.open().rows();
    lab.maps.lose_last();
    let running = lab.open();
    assert_eq!((running.recovery.rebuilt.clone(), running.rows()), (None, rows.clone()), "it was killed");
    running.stop();
    let running = lab.open();
    assert_eq!((running.recovery.rebuilt.clone(), running.recovery.sequence), (None, running.store.sequence()));
    assert_eq!(running.rows(), rows);
    assert!(running.recovery.last_ms > T0);
    running.stop();
    lab.maps.wipe(&lab.path("outbox")).unwrap();
    let running = lab.open();
    assert!(running.recovery.rebuilt.is_some(), "the outbox was missing");
    assert_eq!(running.rows(), rows);
    running.stop();
    lab.edit(&lab.path("outbox/clean"), |bytes| bytes[0] ^= 1);
    assert!(lab.open().recovery.rebuilt.is_some(), "the marker was damaged");
}

#[test]
fn a_message_that_comes_and_goes_leaves_little_in_the_map() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.done(message(1, "inps").order("a").with(|fact| fact.expires_ms = T0 + 5_000).change());
    running.done(settle(1, Outcome::HandedOver));
    let kinds: String = running.rows().iter().map(|(key, _)| char::from(key[0])).collect();
    assert_eq!(kinds, "biksy", "what its issuer has waiting, id, its forgetting, the queue's counts, the clock");
    let removed = running.writer.shared.outbox.unapplied();
    assert_eq!(removed, 5, "and nothing to remove");
}

#[test]
fn verify_finds_a_row_that_says_what_no_fact_says() {
    let lab = Lab::new();
    a_life(&lab, true);
    lab.open().stop();
    let verify = || verify_with(&(Arc::new(lab.disk.clone()) as _), &lab.maps, Path::new("store")).unwrap();
    assert_eq!(verify().problems, Vec::new());
    let map = lab.maps.open(&lab.path("outbox")).unwrap();
    map.apply(&mut [(rows::item("inps", 77), Some(bytes("x")))].into_iter()).unwrap();
    assert_eq!(verify().problems.len(), 1);
}

/// A map that fails when told to.
#[derive(Debug)]
struct Moody {
    inner: Arc<dyn OrderedMap>,
    fails: Arc<AtomicBool>,
}

#[derive(Debug, Clone)]
struct MoodyMaps {
    inner: MemoryMaps,
    fails: Arc<AtomicBool>,
}

impl Moody {
    fn mood(&self) -> Result<(), MapError> {
        if self.fails.load(Ordering::SeqCst) { Err(MapError("a bad day".into())) } else { Ok(()) }
    }
}

impl OrderedMap for Moody {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        self.mood().and_then(|()| self.inner.get(key))
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        self.mood().and_then(|()| self.inner.scan(from, to, limit))
    }
    fn apply(&self, changes: &mut dyn Iterator<Item = RowChange>) -> Result<(), MapError> {
        self.mood().and_then(|()| self.inner.apply(changes))
    }
    fn flush(&self) -> Result<(), MapError> {
        self.mood()
    }
}

impl Maps for MoodyMaps {
    fn open(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, MapError> {
        // A new map is a new day.
        self.fails.store(false, Ordering::SeqCst);
        Ok(Arc::new(Moody { inner: self.inner.open(folder)?, fails: Arc::clone(&self.fails) }))
    }
    fn wipe(&self, folder: &Path) -> Result<(), MapError> {
        self.inner.wipe(folder)
    }
}

#[test]
fn a_map_that_fails_is_replaced_while_the_store_runs() {
    let lab = Lab::new();
    let maps = MoodyMaps { inner: lab.maps.clone(), fails: Arc::default() };
    let seams = Seams { maps: Arc::new(maps.clone()), ..lab.seams() };
    let (store, writer, recovery) = lab.options.clone().open(seams).unwrap();
    let mut running = Running { store, writer, recovery };
    let many =
        |from: u64| (from..from + 10).map(|number| message(number, "inps").order("a").change()).collect::<Vec<_>>();
    running.commit(many(1));
    running.writer.apply();
    running.commit(many(11));
    let rows = running.rows();
    // While reading, with rows that are not applied yet.
    maps.fails.store(true, Ordering::SeqCst);
    assert_eq!(running.rows(), rows);
    assert_eq!(running.store.health().rebuilds, 1);
    // While judging.
    maps.fails.store(true, Ordering::SeqCst);
    assert!(matches!(running.one(message(5, "inps").order("a").change()), Ok(Done::Repeated { sequence: 5, .. })));
    // While applying.
    maps.fails.store(true, Ordering::SeqCst);
    running.writer.apply();
    assert_eq!(running.store.health().rebuilds, 3);
    assert_eq!(running.rows(), rows);
    running.done(settle(1, Outcome::HandedOver));
    let rows = running.rows();
    drop(running);
    assert_eq!(lab.open().rows(), rows);
}

#[test]
fn a_damaged_row_is_never_believed() {
    let lab = Lab::new();
    let mut running = lab.open();
    running.commit(vec![message(1, "inps").change(), message(2, "comune").change()]);
    running.writer.apply();
    // A row for the wrong queue: the journal says that 2 waits for comune.
    let map = lab.maps.open(&lab.path("outbox")).unwrap();
    let stolen = map.get(&rows::item("comune", 2)).unwrap();
    map.apply(&mut [(rows::item("inps", 2), stolen), (rows::ready("inps", 0, 2), Some(Bytes::new()))].into_iter())
        .unwrap();
    assert_eq!(running.leasable("inps"), [1]);
    assert_eq!((running.store.health().set_aside, running.store.health().rebuilds), (1, 1));
    assert_eq!(running.leasable("comune"), [2]);
}

/// A map that, while a batch is on its way into it, is replaced.
#[derive(Debug)]
struct Racing {
    inner: Arc<dyn OrderedMap>,
    armed: Arc<AtomicBool>,
    store: Arc<std::sync::Mutex<Option<Store>>>,
}

impl OrderedMap for Racing {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        self.inner.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        self.inner.scan(from, to, limit)
    }
    fn apply(&self, changes: &mut dyn Iterator<Item = RowChange>) -> Result<(), MapError> {
        if self.armed.swap(false, Ordering::SeqCst) {
            let store = self.store.lock().unwrap().take().unwrap();
            store.shared.outbox.distrust("somebody found a bad row");
        }
        self.inner.apply(changes)
    }
    fn flush(&self) -> Result<(), MapError> {
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
struct RacingMaps {
    inner: MemoryMaps,
    armed: Arc<AtomicBool>,
    store: Arc<std::sync::Mutex<Option<Store>>>,
}

impl Maps for RacingMaps {
    fn open(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, MapError> {
        let (armed, store) = (Arc::clone(&self.armed), Arc::clone(&self.store));
        Ok(Arc::new(Racing { inner: self.inner.open(folder)?, armed, store }))
    }
    fn wipe(&self, folder: &Path) -> Result<(), MapError> {
        self.inner.wipe(folder)
    }
}

#[test]
fn a_batch_on_its_way_into_a_map_that_is_replaced_goes_into_the_new_one() {
    let lab = Lab::new();
    let maps = RacingMaps::default();
    let seams = Seams { maps: Arc::new(maps.clone()), ..lab.seams() };
    let (store, writer, recovery) = lab.options.clone().open(seams).unwrap();
    let mut running = Running { store, writer, recovery };
    running.done(message(1, "inps").change());
    running.writer.apply();
    running.commit((2..10).map(|number| message(number, "inps").change()).collect());
    let rows = running.rows();
    *maps.store.lock().unwrap() = Some(running.store.clone());
    maps.armed.store(true, Ordering::SeqCst);
    running.writer.apply();
    assert_eq!(running.store.health().rebuilds, 1);
    assert_eq!(running.rows(), rows);
}

#[test]
fn a_map_that_is_replaced_has_nothing_of_what_waits_to_be_applied() {
    let lab = Lab::new();
    let mut running = lab.open();
    let large = |number, length| {
        let with = |fact: &mut Accepted| fact.expires_ms = T0 + 1_000;
        message(number, "inps").order("talk").with(with).content(growth::noise(number, length)).change()
    };
    running.done(large(1, 900_000));
    running.done(settle(1, Outcome::HandedOver));
    running.writer.apply();
    let waiting: Vec<u64> = (2..=6).map(|number| running.done(large(number, 100))).collect();
    running.done(large(7, 500_000));
    running.writer.compact();
    assert!(growth::segments(&lab)[0].ends_with(".pack"), "a block over what is applied and what is not");
    running.writer.shared.outbox.distrust("somebody found a bad row");
    let position = || {
        let map = lab.maps.open(&lab.path("outbox")).unwrap();
        rows::number_at_end(&map.get(rows::POSITION).unwrap().unwrap())
    };
    assert_eq!(position(), 3, "it stands where it stood");
    for sequence in waiting {
        running.done(settle(sequence, Outcome::HandedOver));
    }
    running.writer.apply();
    let rows = running.rows();
    drop(running);
    retention::lose_rows(&lab);
    retention::same_rows(&lab.open(), &rows, "rebuilt");
}

/// A map on a disk that may be full: then it fails, and stays failed for reading too, as sled does.
#[derive(Debug)]
struct Cramped {
    inner: Arc<dyn OrderedMap>,
    disk: SimulatedDisk,
    broken: AtomicBool,
}

#[derive(Debug, Clone)]
struct CrampedMaps {
    inner: MemoryMaps,
    disk: SimulatedDisk,
}

impl Cramped {
    fn room(&self, writes: bool) -> Result<(), MapError> {
        if writes && self.disk.faults().full.load(Ordering::SeqCst) != 0 {
            self.broken.store(true, Ordering::SeqCst);
        }
        if self.broken.load(Ordering::SeqCst) { Err(MapError("no space left on device".into())) } else { Ok(()) }
    }
}

impl OrderedMap for Cramped {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        self.room(false).and_then(|()| self.inner.get(key))
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        self.room(false).and_then(|()| self.inner.scan(from, to, limit))
    }
    fn apply(&self, changes: &mut dyn Iterator<Item = RowChange>) -> Result<(), MapError> {
        self.room(true).and_then(|()| self.inner.apply(changes))
    }
    fn flush(&self) -> Result<(), MapError> {
        self.room(true)
    }
}

impl Maps for CrampedMaps {
    fn open(&self, folder: &Path) -> Result<Arc<dyn OrderedMap>, MapError> {
        let (inner, disk) = (self.inner.open(folder)?, self.disk.clone());
        Ok(Arc::new(Cramped { inner, disk, broken: AtomicBool::new(false) }))
    }
    fn wipe(&self, folder: &Path) -> Result<(), MapError> {
        self.inner.wipe(folder)
    }
}

#[test]
fn an_outbox_whose_disk_is_full_is_kept_in_memory_until_there_is_room() {
    let lab = Lab::new();
    let maps = CrampedMaps { inner: lab.maps.clone(), disk: lab.disk.clone() };
    let open = || {
        let seams = Seams { maps: Arc::new(maps.clone()), ..lab.seams() };
        let (store, writer, recovery) = lab.options.clone().open(seams).unwrap();
        Running { store, writer, recovery }
    };
    let mut running = open();
    running.commit((1..=50).map(|number| message(number, "inps").order("talk").change()).collect());
    running.writer.apply();
    lab.disk.faults().full.store(1, Ordering::SeqCst);
    for sequence in 1..=20 {
        running.done(settle(sequence, Outcome::HandedOver));
        running.writer.apply();
        assert_eq!(running.leasable("inps"), [sequence + 1]);
    }
    assert!(running.writer.shared.outbox.is_stuck() && !running.store.health().failed);
    assert_eq!(running.store.health().rebuilds, 1, "once, not again and again");
    assert_eq!(running.one(message(60, "inps").change()).unwrap_err(), Rejected::Full);
    assert!(matches!(running.one(message(7, "inps").order("talk").change()), Ok(Done::Repeated { sequence: 7, .. })));
    let rows = running.rows();
    lab.disk.faults().full.store(0, Ordering::SeqCst);
    running.writer.apply();
    assert!(!running.writer.shared.outbox.is_stuck());
    assert_eq!(running.rows(), rows, "back on the disk, equal row by row");
    running.done(message(60, "inps").change());
    running.stop();
    let mut running = open();
    assert_eq!(running.recovery.rebuilt, None);
    // Stopped while it is in memory: not left clean, and so made anew.
    lab.disk.faults().full.store(1, Ordering::SeqCst);
    running.done(settle(21, Outcome::HandedOver));
    let rows = running.rows();
    running.stop();
    lab.disk.faults().full.store(0, Ordering::SeqCst);
    let running = open();
    assert!(running.recovery.rebuilt.is_some());
    assert_eq!(running.rows(), rows);
}

/// Messages whose rows are in a map on a disk that is full from here on, and an outbox over it.
fn crammed(lab: &Lab, count: u64, rows_in_memory_max: usize) -> Outbox {
    let maps = CrampedMaps { inner: lab.maps.clone(), disk: lab.disk.clone() };
    let mut running = lab.open();
    for from in (1..=count).step_by(512) {
        let with = |fact: &mut Accepted| (fact.order, fact.expires_ms) = (fact.id.clone(), T0 + 1_000);
        let group = (from..=count.min(from + 511)).map(|number| message(number, "inps").with(with).change()).collect();
        assert!(running.commit(group).iter().all(Result::is_ok));
    }
    running.writer.apply();
    let base = maps.open(&lab.path("outbox")).unwrap();
    let journal = Arc::clone(&running.writer.shared.journal);
    let outbox = Outbox::new(Arc::new(maps), lab.path("outbox"), journal, Arc::clone(&base), count + 1)
        .with_rows_in_memory(rows_in_memory_max);
    lab.disk.faults().full.store(1, Ordering::SeqCst);
    base.apply(&mut std::iter::empty()).unwrap_err();
    outbox
}

fn knows(outbox: &Outbox, number: u64) -> Result<bool, MapError> {
    outbox.get(&rows::id(&id(number))).map(|row| row.is_some())
}

#[test]
fn where_no_whole_map_fits_nothing_is_absent() {
    let lab = Lab::new();
    // So many rows that they are written in more than one batch.
    let count = crate::outbox::APPLY_ROWS as u64 / 6 + 512;
    let outbox = crammed(&lab, count, 1);
    for number in [count, count] {
        knows(&outbox, number).unwrap_err();
    }
    lab.disk.faults().full.store(0, Ordering::SeqCst);
    assert_eq!((knows(&outbox, 1), knows(&outbox, count)), (Ok(true), Ok(true)));
}

#[test]
fn where_the_journal_cannot_be_read_nothing_is_absent() {
    let lab = Lab::new();
    let outbox = crammed(&lab, 10, usize::MAX);
    let gone = Path::new("store/journal/gone");
    lab.disk.rename(&lab.segment(), gone).unwrap();
    for number in [10, 10] {
        knows(&outbox, number).unwrap_err();
    }
    lab.disk.rename(gone, &lab.segment()).unwrap();
    assert_eq!((knows(&outbox, 10), knows(&outbox, 11)), (Ok(true), Ok(false)));
    assert!(outbox.is_stuck(), "in memory, whole");
}

#[test]
fn rows_in_memory_have_a_bound() {
    let map = crate::map::MemoryMap::bounded(2);
    let row = |number: u64| (crate::map::Key::from_slice(&rows::number(number)), Some(Bytes::new()));
    map.apply(&mut (0..3).map(row)).unwrap();
    assert!(map.apply(&mut (3..4).map(row)).is_err());
}
