//! A flipped bit or a cut in each kind of file, region by region: what verify, opening and handing out make of it.
//!
//! One store that was stopped in order, with two segments: final messages whose contents are gone, messages that wait, a part, a
//! reserve; and one of which the first segment was packed. Every case is tried on a copy of it. Whatever is damaged: verify names the file, nothing is handed out altered, and
//! nothing that was acknowledged is missing without a word.

use std::collections::BTreeMap;

use super::{
    parts::{ask, named, put},
    *,
};
use crate::{ReadError, journal::segment_path, map::Maps as _};

/// Contents that fill two segments.
const LARGE: usize = 200_000;
/// Messages, the last with a part.
const MESSAGES: u64 = 8;
const PART: &[u8] = b"a sealed part, whole and as it was announced";

/// What opening makes of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// It refuses, and names the file and where the damaged record begins.
    Refuses,
    /// It opens with the outbox as it was left; what is damaged is set aside when it is asked for.
    Opens,
    /// It opens, and rebuilds the outbox.
    Rebuilds,
    /// It opens, and says that it cut what stood behind the journal's end.
    Cuts,
}

/// A stretch of a file, where the record in it begins, and what opening makes of damage to it.
struct Region {
    name: &'static str,
    file: PathBuf,
    bytes: std::ops::Range<usize>,
    record: u64,
    opening: Opening,
}

/// The store, its rows, and what was answered.
struct Scene {
    lab: Lab,
    rows: Vec<Pair>,
    contents: BTreeMap<u64, Bytes>,
    evidence: BTreeMap<u64, Arc<Fact>>,
}

fn change(number: u64) -> Change {
    let content = Bytes::from(vec![u8::try_from(number).unwrap(); LARGE]);
    let evidence = vec![(Slot::Evidence, bytes(&format!("evidence of {number}")))];
    let mut message = message(number, "inps").content(content);
    if number == MESSAGES {
        message = message.with(|fact| fact.parts = vec![named(0, PART)]);
    }
    Message { sign: evidence, ..message }.change()
}

impl Scene {
    /// So many of the messages are final.
    async fn play(settled: usize) -> Self {
        let lab = Lab::new();
        let mut running = lab.open();
        put(&running.store, MESSAGES, 0, PART).await.unwrap();
        let mut sequences = Vec::new();
        for number in 1..=MESSAGES {
            sequences.push(sequence(&ask(&mut running, change(number)).await.unwrap()));
        }
        // An odd number of bytes, so that zeros stand behind it.
        sequences.push(running.done(message(90, "inps").content(bytes("odd")).change()));
        for sequence in &sequences[..settled] {
            running.done(settle(*sequence, Outcome::HandedOver));
        }
        running.writer.apply();
        let leased = running.store.lease("inps", 100, usize::MAX).unwrap();
        let contents = leased.iter().map(|leased| (leased.sequence, leased.content.clone())).collect();
        let evidence = sequences.iter().map(|at| (*at, running.store.fact(*at).unwrap())).collect();
        let rows = running.rows();
        running.stop();
        Self { lab, rows, contents, evidence }
    }

    /// The same with its first segment packed.
    fn packed(self) -> Self {
        let mut running = self.lab.open();
        running.writer.compact();
        running.stop();
        self
    }

    /// A copy, its rows too.
    fn copy(&self) -> Lab {
        let copy = self.lab.fork();
        let (from, to) = (self.lab.maps.open(&self.lab.path("outbox")), copy.maps.open(&copy.path("outbox")));
        let rows = from.unwrap().scan(&[], rows::END, usize::MAX).unwrap();
        to.unwrap().apply(&mut rows.into_iter().map(|(key, value)| (key, Some(value)))).unwrap();
        copy
    }

    fn second(&self) -> PathBuf {
        let names = self.lab.disk.list(&self.lab.path("journal")).unwrap();
        let first = names.iter().filter_map(|name| u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok()).max();
        segment_path(&self.lab.path("journal"), first.unwrap())
    }

    fn first(&self) -> PathBuf {
        let names = self.lab.disk.list(&self.lab.path("journal")).unwrap();
        let packed = names.iter().find(|name| name.ends_with(".pack"));
        packed.map_or(self.lab.segment(), |name| self.lab.path("journal").join(name))
    }

    /// Where the groups or blocks of a segment begin: start, end of header and facts, end of contents, start of the next.
    fn groups(&self, path: &Path) -> Vec<[usize; 4]> {
        let bytes = self.lab.disk.bytes(path).unwrap();
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let (mut at, mut groups) = (64, Vec::new());
        while let Some(magic) =
            bytes.get(at..at + 4).filter(|magic| [b"TRMG", b"TRMP"].contains(&&magic[..].try_into().unwrap()))
        {
            let (header, contents_at) = if magic == b"TRMG" { (40, at + 8) } else { (56, at + 12) };
            let facts = at + header + number(at + 4);
            let contents = facts + number(contents_at);
            groups.push([at, facts, contents, contents.next_multiple_of(8)]);
            at = contents.next_multiple_of(8);
        }
        groups
    }

    fn regions(&self) -> Vec<Region> {
        use Opening::{Cuts, Opens, Rebuilds, Refuses};
        let (first, last) = (self.first(), self.second());
        let is_packed = first != self.lab.segment();
        let mut regions = Vec::new();
        let mut region = |name, file: &Path, bytes, record, opening| {
            regions.push(Region { name, file: file.to_owned(), bytes, record, opening });
        };
        // Of a segment before the last one, opening after a clean stop reads the header only.
        for (file, groups, opening) in [(&first, self.groups(&first), Opens), (&last, self.groups(&last), Refuses)] {
            let is_last = opening == Refuses;
            region("segment header", file, 0..64, 0, Refuses);
            let (name, header) = if is_packed && !is_last { ("block header", 56) } else { ("group header", 40) };
            for [start, facts, contents, end] in &groups {
                region(name, file, *start..start + header, *start as u64, opening);
                region("facts", file, start + header..*facts, *start as u64, opening);
                if contents > facts {
                    let erased = !is_last && !is_packed && *start < groups[2][0];
                    region(
                        if erased { "erased content" } else { "content" },
                        file,
                        *facts..*contents,
                        *facts as u64,
                        Opens,
                    );
                }
                if end > contents {
                    region("padding", file, *contents..*end, *contents as u64, Opens);
                }
            }
            let end = groups.last().unwrap()[3];
            if is_packed && !is_last {
                // It ends with its last block.
                continue;
            }
            region("room", file, end..1024 * 1024, end as u64, if is_last { Cuts } else { Opens });
        }
        region("mark", &self.lab.mark(), 0..28, 0, Refuses);
        let identity = self.lab.path("store.toml");
        region("store.toml", &identity, 0..self.lab.disk.bytes(&identity).unwrap().len(), 0, Refuses);
        let clean = self.lab.path("outbox/clean");
        region("marker", &clean, 0..self.lab.disk.bytes(&clean).unwrap().len(), 0, Rebuilds);
        let part = self.lab.disk.paths().into_iter().find(|path| path.starts_with("store/parts")).unwrap();
        region("part", &part, 0..PART.len(), 0, Opens);
        let spare = self.lab.path("journal/0000000000000001.spare");
        region("spare", &spare, 0..1024 * 1024, 0, Opens);
        regions
    }
}

/// Whatever could be opened: nothing is altered, and nothing is missing without a word.
async fn serves_the_truth(scene: &Scene, mut running: Running, what: &str) {
    assert_eq!(running.rows(), scene.rows, "{what}");
    let leased = running.store.lease("inps", 100, usize::MAX).unwrap();
    for leased in &leased {
        assert_eq!(scene.contents.get(&leased.sequence), Some(&leased.content), "{what}: {}", leased.sequence);
        assert_eq!(scene.evidence.get(&leased.sequence), Some(&leased.fact), "{what}: {}", leased.sequence);
    }
    let aside = usize::try_from(running.store.health().set_aside).unwrap();
    assert_eq!(leased.len() + aside, scene.contents.len(), "{what}: nothing is left out without being counted");
    let numbers: Vec<u64> = (1..=MESSAGES).collect();
    for (number, sequence) in numbers.into_iter().zip(scene.evidence.keys()) {
        match ask(&mut running, change(number)).await {
            Ok(Done::Repeated { sequence: first, fact }) => {
                assert_eq!(
                    (first, Some(&fact)),
                    (*sequence, scene.evidence.get(sequence)),
                    "{what}: repeat of {number}"
                );
            }
            Err(Rejected::Unreadable(ReadError::Damaged(_))) => {}
            other => panic!("{what}: a repeat of {number} was answered {other:?}"),
        }
    }
    let id = tramite_proto::ids::MessageId::from_bytes(&id(MESSAGES)).unwrap();
    let Ok(mut reader) = running.store.part_reader(&id, 0, 0).await else { return };
    let mut given = Vec::new();
    while let Ok(piece) = reader.next(7).await {
        if piece.is_empty() {
            assert_eq!(given, PART, "{what}: a part was given out whole");
            return;
        }
        given.extend_from_slice(&piece);
    }
}

/// Tries one change to one file.
async fn case(scene: &Scene, region: &Region, what: &str, edit: impl FnOnce(&mut Vec<u8>)) {
    let what = format!("{} of {}: {what}", region.name, region.file.display());
    let copy = scene.copy();
    copy.edit(&region.file, edit);
    let found = verified(&copy);
    if region.opening == Opening::Cuts {
        let torn = found.torn.clone().map(|torn| (torn.file, torn.offset));
        let cut_off = found.problems.iter().any(|finding| finding.file == region.file);
        assert!(cut_off || torn == Some((region.file.clone(), region.record)), "{what}: {found:?}");
    } else {
        let finding = found.problems.first().unwrap_or_else(|| panic!("{what}: not found"));
        assert_eq!(finding.file, region.file, "{what}: {finding}");
        let offset = finding.offset.unwrap_or_else(|| panic!("{what}: {finding}"));
        assert!((region.record..region.bytes.end as u64).contains(&offset), "{what}: {finding}");
    }
    match (copy.try_open(), region.opening) {
        (Err(OpenError::Damaged(damage)), Opening::Refuses) => {
            assert_eq!(damage.file, region.file, "{what}: {damage}");
            assert!(damage.offset >= region.record, "{what}: {damage}");
        }
        (Ok(running), Opening::Opens | Opening::Cuts | Opening::Rebuilds) => {
            assert_eq!(running.recovery.rebuilt.is_some(), region.opening == Opening::Rebuilds, "{what}");
            assert!(running.recovery.cut.is_none() || region.opening == Opening::Cuts, "{what}");
            serves_the_truth(scene, running, &what).await;
        }
        (opened, expected) => panic!("{what}: expected {expected:?}, {:?}", opened.map(|it| it.recovery)),
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_found_and_named_and_never_served() {
    let scene = Scene::play(2).await;
    assert_eq!(flip_everywhere(&scene).await.len(), 12);
    let packed = Scene::play(4).await.packed();
    let tried = flip_everywhere(&packed).await;
    assert!(tried.contains_key("block header") && tried["facts"] > 1, "{tried:?}");
}

/// Flips bits in each region. Says how many of each kind there are.
async fn flip_everywhere(scene: &Scene) -> BTreeMap<&'static str, usize> {
    let mut tried = BTreeMap::new();
    for region in scene.regions() {
        let Region { bytes, .. } = &region;
        let middle = bytes.start + bytes.len() / 2;
        for (at, bit) in [(bytes.start, 0x01), (middle, 0x10), (bytes.end - 1, 0x80)] {
            case(scene, &region, &format!("bit {bit:#x} of byte {at}"), |bytes| bytes[at] ^= bit).await;
        }
        *tried.entry(region.name).or_insert(0) += 1;
    }
    tried
}

#[tokio::test]
async fn a_cut_anywhere_is_found_and_named_and_nothing_is_silently_shorter() {
    cut_everywhere(&Scene::play(2).await).await;
    cut_everywhere(&Scene::play(4).await.packed()).await;
}

async fn cut_everywhere(scene: &Scene) {
    let (last, groups) = (scene.second(), scene.groups(&scene.second()));
    for mut region in scene.regions() {
        // A cut takes away what stands behind it, too: a group that the last segment must have.
        if region.file == last && region.opening == Opening::Opens && region.bytes.start < groups.last().unwrap()[0] {
            region.opening = Opening::Refuses;
        }
        if region.name == "room" {
            // What is gone was zeros, and reads as zeros.
            region.opening = Opening::Opens;
        }
        for at in [region.bytes.start, region.bytes.start + region.bytes.len() / 2, region.bytes.end - 1] {
            case(scene, &region, &format!("cut to {at}"), |bytes| bytes.truncate(at)).await;
        }
    }
}
