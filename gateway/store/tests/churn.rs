//! Messages come and go for months, some of them wait, and the disk holds what waits and what is retained, and no more; nor does
//! memory grow. Days pass on a clock of their own.
//!
//! `TRAMITE_CHURN=200000 cargo test -p tramite-store --test churn --release -- --nocapture` for more of it, and its figures: minutes.
//! `TRAMITE_CHURN=3600s` is an hour by the clock.

use std::{
    env, fs,
    future::poll_fn,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    pin::pin,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tramite_proto::{
    clock::ManualClock,
    pb::{
        journal::v1::{Accepted, CaseMove, Outcome, Recorded, Settled},
        statement::v1::Statement,
    },
};
use tramite_store::{Change, Done, Notary, Options, ReadError, Seams, Slot, Store, Work, Writer, accepted};

const HOUR_MS: i64 = 60 * 60 * 1000;
const T0: i64 = 1_800_000_000_000;
/// One message an hour.
const MESSAGES_A_DAY: u64 = 24;
const RETENTION_DAYS: u32 = 25;
/// In a run of `cargo test`: a few seconds.
const MESSAGES: u64 = 1_800;
const CONTENT_BYTES: usize = 2048;
/// One in so many waits for ever.
const WAITS: u64 = 50;
const SEGMENT_BYTES: u32 = 1 << 20;
/// The segment that is written, the spare, those that are not packed yet, the outbox before its files are merged.
const RESERVE_BYTES: u64 = 7 * SEGMENT_BYTES as u64 / 2;
const FACTS_BYTES: u64 = 3 * 1024;
/// Caches that fill, an index that grows with the journal.
const MEMORY_BYTES: u64 = 32 * 1024 * 1024;

/// What is over is gone within so long, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const ALONE: &str = "TRAMITE_CHURN_ALONE";

/// Memory is a process's: a test that counts it has one to itself, with the allocator set as the program sets it.
fn alone(test: &str, counted: impl FnOnce()) -> io::Result<()> {
    if env::var_os(ALONE).is_some() {
        counted();
        return Ok(());
    }
    let mut process = Command::new(env::current_exe()?);
    process.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    process.envs([(ALONE, "1"), ("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "1048576")]);
    let ended = process.stderr(Stdio::inherit()).output()?;
    let passed = String::from_utf8_lossy(&ended.stdout).contains("test result: ok. 1 passed");
    passed.then_some(()).ok_or_else(|| io::Error::other(format!("{test}: {}", ended.status)))
}

/// Random letters, as signatures and digests are.
fn letters(seed: u64, length: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let letter = |_| {
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ 0x94d0_49bb_1331_11eb;
        state ^= state >> 27;
        usize::try_from((state >> 20) % 64)
            .ok()
            .and_then(|at| ALPHABET.get(at))
            .map_or('A', |letter| char::from(*letter))
    };
    (0..length).map(letter).collect()
}

/// Makes statements as large and as random as real ones.
#[derive(Debug, Default)]
struct Pen(AtomicU64);

impl Notary for Pen {
    fn sign(&self, _: i64, jsons: &[Bytes]) -> Result<Vec<Statement>, String> {
        let jws = jws("gateway", self.0.fetch_add(1, Ordering::Relaxed));
        let statement = |(index, json): (usize, &Bytes)| Statement {
            json: json.clone(),
            jws: jws.clone(),
            index: u32::try_from(index).unwrap_or_default(),
            path: Vec::new(),
        };
        Ok(jsons.iter().enumerate().map(statement).collect())
    }
}

fn jws(issuer: &str, seed: u64) -> String {
    // Header and payload of FORMATS.md §1, of which the certificate's digest stays and the root does not.
    let header = letters(issuer.len() as u64, 134);
    format!("{header}.{}{}.{}", letters(3, 64), letters(seed ^ 0x5555, 62), letters(seed ^ 0x1234_5678, 86))
}

fn id(number: u64) -> Bytes {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&(number | 1 << 63).to_be_bytes());
    id[6] = 0x70;
    Bytes::copy_from_slice(&id)
}

fn uuid(number: u64) -> String {
    format!("018f2b6e-7a4c-7{:03x}-8{:03x}-{number:012x}", number % 4096, number / 7 % 4096)
}

fn at_s(number: u64) -> i64 {
    T0 / 1000 + (number * 3600).cast_signed()
}

/// The members of FORMATS.md §2.1.
fn origin(number: u64) -> String {
    let (id, seconds) = (uuid(number), at_s(number));
    format!(
        concat!(
            r#"{{"typ":"origin","v":1,"jti":"{id}","cid":"{}","case":"{id}","iss":"caritas","aud":"inps","#,
            r#""mt":"tramite.body.v1.Referral","cs":"requested","iat":{seconds},"exp":{},"pri":"routine","pur":"SOCIAL_SUPPORT","#,
            r#""lb":"ART_6_1_E","agr":"INPS-PER-TUTTI-2021","op":"{}","loc":"office-1","loa":"substantial","#,
            r#""ct":{{"suite":"X25519-SHA256-AES256GCM","kid":"inps-2026","enc_s256":"{}","s256":"{}","len":2064}},"ptc":"{}"}}"#,
        ),
        uuid(number ^ 0xffff),
        seconds + 432_000,
        letters(number % 7, 12),
        letters(number * 4, 43),
        letters(number * 4 + 1, 43),
        letters(number * 4 + 2, 43),
        id = id,
        seconds = seconds,
    )
}

fn said(kind: &str, number: u64) -> Bytes {
    let text = format!(
        r#"{{"typ":"{kind}","v":1,"jti":"{}","iss":"gateway","evt":"SubmissionAcceptance","mid":"{}","org_s256":"{}","from":"caritas","to":"inps","case":"{}","at":{},"peer_s256":"{}"}}"#,
        uuid(number * 31),
        uuid(number),
        letters(number * 8, 43),
        uuid(number),
        at_s(number),
        letters(number % 5, 43),
    );
    text.into()
}

fn statement(json: impl Into<Bytes>, issuer: &str, seed: u64) -> Option<Statement> {
    Some(Statement { json: json.into(), jws: jws(issuer, seed), ..Statement::default() })
}

fn moved(number: u64, to: &str) -> Option<CaseMove> {
    Some(CaseMove {
        case_id: id(number),
        kind: "REFERRAL".into(),
        opener: "caritas".into(),
        responder: "inps".into(),
        to: to.into(),
        ..CaseMove::default()
    })
}

async fn sequence(store: &Store, change: Change) -> Result<u64, String> {
    match store.commit_one(change).await {
        Ok(Done::Accepted { sequence, .. } | Done::Settled { sequence, .. }) => Ok(sequence),
        other => Err(format!("{other:?}")),
    }
}

fn arrives(number: u64, now_ms: i64) -> Change {
    let fact = Accepted {
        queue: "inps".into(),
        id: id(number),
        digest: letters(number * 9, 32).into(),
        order: letters(number * 13, 16).into(),
        expires_ms: now_ms + 5 * 24 * HOUR_MS,
        remember_ms: now_ms + 10 * 24 * HOUR_MS,
        return_to: "caritas".into(),
        case_move: moved(number, "requested"),
        statement: statement(origin(number), "caritas", number),
        enc: letters(number * 17, 32).into(),
        case_id: id(number),
        ..Accepted::default()
    };
    let content = letters(number * 19, CONTENT_BYTES).into();
    let sign = vec![(Slot::Evidence, said("evidence", number))];
    Change::Accept { fact: Box::new(fact), content, sign, mover: None }
}

/// One message in a group of its own, and if it does not wait, its receipt and the notice of it in groups of theirs.
async fn message(store: &Store, number: u64, now_ms: i64) -> Result<(), String> {
    let accepted = sequence(store, arrives(number, now_ms)).await?;
    if number.is_multiple_of(WAITS) {
        return Ok(());
    }
    let settled = Settled {
        sequence: accepted,
        outcome: Outcome::HandedOver.into(),
        receipt: statement(said("receipt", number), "inps", number * 3),
        notify: vec!["caritas".into()],
        case_move: moved(number, "closed"),
        ..Settled::default()
    };
    let sign = vec![(Slot::Evidence, said("evidence", number))];
    let notice = sequence(store, Change::Settle { fact: Box::new(settled), sign, mover: None }).await?;
    let taken = Settled { sequence: notice, outcome: Outcome::HandedOver.into(), ..Settled::default() };
    sequence(store, Change::Settle { fact: Box::new(taken), sign: Vec::new(), mover: None }).await.map(drop)
}

/// How long messages come and go.
enum Length {
    Messages(u64),
    Time(Instant, Duration),
}

impl Length {
    fn asked() -> Self {
        let asked = env::var("TRAMITE_CHURN").unwrap_or_default();
        match asked.strip_suffix('s').and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => Self::Time(Instant::now(), Duration::from_secs(seconds)),
            None => Self::Messages(asked.parse().unwrap_or(MESSAGES)),
        }
    }

    /// How long the disk may hold more than it is to: messages that come and go as fast as they can are written before anything of
    /// them is erased; when it lasts, what is written and what goes keep pace.
    const fn patience(&self) -> Duration {
        match self {
            Self::Messages(_) => PATIENCE,
            Self::Time(..) => Duration::ZERO,
        }
    }

    /// How many twelfths of it are over after so many messages.
    fn twelfths(&self, messages: u64) -> u64 {
        match self {
            Self::Messages(all) => messages * 12 / all.max(&1),
            Self::Time(begun, all) => {
                u64::try_from(begun.elapsed().as_millis() * 12 / all.as_millis().max(1)).unwrap_or(12).min(12)
            }
        }
    }
}

/// Files of a folder with such an ending.
fn endings(folder: &Path, ending: &str) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|its| its == ending)).count()
}

/// What the files take on the disk.
fn on_disk(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
    let sizes = entries.into_iter().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => on_disk(&entry.path()),
        // One that was removed meanwhile takes nothing.
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

fn memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn options(folder: &Path) -> Options {
    let mut options = Options::new(folder, "test");
    options.segment_bytes = SEGMENT_BYTES;
    options.recent_bytes = 1 << 20;
    options.retention(RETENTION_DAYS);
    options
}

/// Lets time pass until it is so; no longer than `patience`.
async fn becomes(store: &Store, clock: &ManualClock, patience: Duration, is_so: impl Fn() -> bool) -> bool {
    let until = Instant::now() + patience;
    while !is_so() {
        clock.advance(1_000);
        let seen = Recorded { name: "clock/seen".into(), value: Some(Bytes::new()), ..Recorded::default() };
        let seen = Change::Record { fact: Box::new(seen), begins: false };
        if Instant::now() >= until || store.commit_one(seen).await.is_err() {
            return false;
        }
    }
    true
}

/// Messages whose acceptance is there.
fn retained(store: &Store) -> Result<u64, ReadError> {
    let (mut count, mut after) = (0, 0);
    while after < store.sequence() {
        count += store.facts(after, 4096)?.iter().filter(|(_, fact)| accepted(fact).is_some()).count() as u64;
        after += 4096;
    }
    Ok(count)
}

/// The most memory since this was last asked. None: this system does not count it anew.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    fs::write("/proc/self/clear_refs", "5").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Has the writer do what is asked.
async fn served(writer: &mut Writer, store: &Store, changes: Vec<Change>) {
    let mut asked = pin!(store.commit(changes));
    let answers = poll_fn(|context| {
        let answer = asked.as_mut().poll(context);
        if answer.is_pending() {
            writer.step();
            context.waker().wake_by_ref();
        }
        answer
    });
    assert!(answers.await.iter().all(Result::is_ok));
}

/// What is looked through, and stays, as it waits: some megabytes of facts.
const OLD: u64 = 6_000;
/// What a look may take for itself.
const LOOK_BYTES: u64 = 2 * 1024 * 1024;

#[test]
fn a_look_for_what_is_over_holds_little_of_what_stays() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let look = async {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(T0);
        let seams = Seams::real(Arc::new(clock.clone()), Arc::new(Pen::default()));
        let (store, mut writer, _) = options(folder.path()).open(seams).unwrap();
        let mut old: Vec<_> = (1..=OLD).map(|number| arrives(number, T0)).collect();
        while !old.is_empty() {
            served(&mut writer, &store, old.split_off(old.len().saturating_sub(100))).await;
            writer.apply();
        }
        writer.compact();
        let mut grown = Vec::new();
        for _ in 0..2 * (RETENTION_DAYS + 2) {
            clock.advance(12 * HOUR_MS);
            let seen = Recorded { name: "clock/seen".into(), value: Some(Bytes::new()), ..Recorded::default() };
            served(&mut writer, &store, vec![Change::Record { fact: Box::new(seen), begins: false }]).await;
            writer.apply();
            let before = peak().and_then(|_| peak());
            writer.compact();
            grown.extend(peak().zip(before).map(|(most, before)| most.saturating_sub(before)));
        }
        assert!(grown.iter().all(|grown| *grown < LOOK_BYTES), "{grown:?}");
        writer.finish().unwrap();
    };
    alone("a_look_for_what_is_over_holds_little_of_what_stays", || runtime.block_on(look)).unwrap();
}

#[test]
fn months_of_churn_leave_what_waits_and_what_is_retained_and_memory_is_flat() {
    let churn = || {
        let length = Length::asked();
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(T0);
        let options = options(folder.path());
        let seams = Seams::real(Arc::new(clock.clone()), Arc::new(Pen::default()));
        let (store, writer, _) = options.clone().open(seams).unwrap();
        let writing = writer.start(Work::Threads).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut early = None;
        let (mut worst, mut messages, mut twelfths) = (0, 0, 0);
        while twelfths < 12 {
            messages += 1;
            let (number, now_ms) = (messages, clock.advance(HOUR_MS));
            runtime.block_on(message(&store, number, now_ms)).unwrap();
            if length.twelfths(number) == twelfths {
                continue;
            }
            twelfths = length.twelfths(number);
            let waits = number / WAITS;
            let measure = || {
                let retained = retained(&store).unwrap();
                let bound = 2 * waits * CONTENT_BYTES as u64 + FACTS_BYTES * retained + RESERVE_BYTES;
                (retained, bound, on_disk(folder.path()))
            };
            let is_small = || matches!(measure(), (_, bound, disk) if disk <= bound);
            let becomes_small = runtime.block_on(becomes(&store, &clock, length.patience(), is_small));
            let (retained, bound, disk) = measure();
            assert!(becomes_small, "{disk} bytes on the disk after {number}: {waits} wait, {retained} are retained");
            worst = worst.max(disk * 100 / bound);
            let now = memory();
            let first = *early.get_or_insert(now);
            if let (Some(first), Some(now)) = (first, now) {
                assert!(now <= first + MEMORY_BYTES, "{now} bytes of memory after {number}, {first} at first");
            }
            let line = format!(
                "{number} messages: {disk} bytes of at most {bound}, {waits} wait, {retained} retained, memory {now:?}\n"
            );
            io::stderr().write_all(line.as_bytes()).unwrap();
        }
        let young = u64::from(RETENTION_DAYS) * MESSAGES_A_DAY;
        // Days pass in a blink, so marks stand days apart; a segment's worth, and one that is not swept yet.
        let most = young + 7 * MESSAGES_A_DAY + 2 * 200 + messages / WAITS;
        runtime.block_on(becomes(&store, &clock, PATIENCE, || retained(&store).unwrap() <= most));
        let left = retained(&store).unwrap();
        assert!((young.min(messages)..=most).contains(&left), "{left} are retained, of {young} that must be");
        // The one that is written, and one that is not packed yet.
        let is_packed = || endings(&folder.path().join("journal"), "seg") <= 2;
        assert!(runtime.block_on(becomes(&store, &clock, PATIENCE, is_packed)), "segments stay as they were written");
        runtime.block_on(store.end(writing));
        let before = on_disk(folder.path());
        drop(store);
        let found = tramite_store::verify(folder.path()).unwrap();
        assert_eq!((found.problems, found.contents), (Vec::new(), messages / WAITS));
        let stat = tramite_store::stat(folder.path()).unwrap();
        // A sweep that was under way when it was counted may have come to its end.
        let kept = stat.facts["accepted"];
        assert!((young.min(messages)..=left).contains(&kept), "{kept} are there, of {left} that were");
        assert_eq!(stat.waiting.count, messages / WAITS);
        assert!(stat.packed.files > 0 && stat.segments.files <= 2, "{stat:?}");
        // From what is left the outbox is made anew, row by row.
        tramite_store::rebuild(folder.path()).unwrap();
        assert_eq!(tramite_store::verify(folder.path()).unwrap().problems, Vec::new());
        let line = format!("{kept} messages in {before} bytes after the stop; at worst {worst} % of the bound\n");
        io::stderr().write_all(line.as_bytes()).unwrap();
    };
    alone("months_of_churn_leave_what_waits_and_what_is_retained_and_memory_is_flat", churn).unwrap();
}
