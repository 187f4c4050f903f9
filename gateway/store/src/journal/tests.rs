//! The journal's bytes, held against those of a second implementation (proto/vectors/journal.py, written from FORMATS.md §6 alone).

use std::{fs, path::Path};

use bytes::Bytes;
use tramite_proto::pb::{
    journal::v1::{Accepted, Fact, Recorded, Settled, fact::Kind},
    statement::v1::Statement,
};

use super::{
    Found, Journal, Placed, Segment,
    format::{GROUP_HEADER_BYTES, GroupHeader, Mark, SegmentHeader, decode_facts, encode_group, seed_of},
    inspect,
    packed::RawGroup,
};
use crate::{
    Change,
    disk::{Access, Disk as _},
    error::ReadError,
    tests::{Lab, T0},
};

/// What the second implementation wrote (`proto/vectors/journal.json`): a `segment` of 1 MiB, store id of sevens, first sequence 1; its
/// first `group`: two batches, an acceptance with a statement by each and the content `seal`, and a record; the `mark` after it; the
/// segment `packed`, and packed with what is left when only the record is.
fn vector(name: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/vectors/journal.json");
    let vectors: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    hex::decode(vectors[name].as_str().unwrap()).unwrap()
}

fn accepted() -> Accepted {
    Accepted {
        queue: "inps".into(),
        id: (0..16).collect(),
        digest: Bytes::from_static(&[0xaa; 32]),
        expires_ms: 1_900_000_000_000,
        remember_ms: 1_900_000_000_001,
        statement: Some(Statement { json: Bytes::from_static(b"{}"), jws: "a.b.c".into(), ..Statement::default() }),
        evidence: Some(Statement {
            json: Bytes::from_static(b"[]"),
            jws: "d.e.f".into(),
            index: 1,
            ..Statement::default()
        }),
        ..Accepted::default()
    }
}

fn recorded() -> Recorded {
    Recorded { name: "n".into(), value: Some(Bytes::from_static(b"v")), ..Recorded::default() }
}

#[test]
fn a_group_is_written_byte_for_byte_as_the_format_says() {
    let lab = Lab::new();
    let mut running = lab.open();
    let accept = Change::Accept {
        fact: Box::new(accepted()),
        content: Bytes::from_static(b"seal"),
        sign: Vec::new(),
        mover: None,
    };
    let answers = running.commit(vec![accept, Change::Record { fact: Box::new(recorded()), begins: false }]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let written = lab.disk.bytes(&lab.segment()).unwrap();
    let (segment, group) = (vector("segment"), vector("group"));
    assert_eq!(hex::encode(&written[..64]), hex::encode(segment));
    assert_eq!(hex::encode(&written[64..64 + group.len()]), hex::encode(&group));
    assert!(written[64 + group.len()..].iter().all(|byte| *byte == 0));
    assert_eq!(written.len(), 1024 * 1024, "reserved");
    assert_eq!(hex::encode(lab.disk.bytes(&lab.mark()).unwrap()), hex::encode(vector("mark")));
}

#[test]
fn the_formats_bytes_are_read_as_what_they_say() {
    let lab = Lab::new();
    let path = lab.path("journal/0000000000000001.seg");
    lab.disk.overwrite(&path, [vector("segment"), vector("group")].concat());
    let file = lab.disk.open(&path, Access::Read).unwrap();
    let segment = Segment::new(&lab.path("journal"), &[7; 16], 1, 1024 * 1024);
    let Found::Group(group) = segment.read(file.as_ref(), 64).unwrap() else { panic!("no group") };
    assert_eq!((group.span.first, group.span.number, group.facts.len()), (1, 1, 2));
    let Placed { fact: first, place, .. } = &group.facts[0];
    assert_eq!(first.at_ms, T0);
    let Some(Kind::Accepted(read)) = &first.kind else { panic!("{first:?}") };
    assert_eq!(Accepted { content: None, ..read.clone() }, accepted());
    let mut content = [0; 4];
    file.read_at(&mut content, place.unwrap().offset).unwrap();
    assert_eq!(&content, b"seal");
    let second = Fact { at_ms: T0, kind: Some(Kind::Recorded(recorded())) };
    assert_eq!((group.facts[1].fact.as_ref(), group.facts[1].place), (&second, None));
}

#[test]
fn each_batch_stands_once_in_a_group_and_a_reference_to_none_is_damage() {
    let (one, two) = ("one.batch.only".to_owned(), "another.batch.too".to_owned());
    let settled = |jws: &String, index| {
        let evidence =
            Some(Statement { json: Bytes::from_static(b"{}"), jws: jws.clone(), index, ..Statement::default() });
        Fact { at_ms: T0, kind: Some(Kind::Settled(Settled { evidence, ..Settled::default() })) }
    };
    let mut facts: Vec<_> = (0..64).map(|index| settled(if index == 7 { &two } else { &one }, index)).collect();
    let mut bytes = Vec::new();
    let header = encode_group(0, 1, 1, &mut facts, &[], &mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert_eq!((text.matches(&one).count(), text.matches(&two).count()), (1, 1));
    let section = Bytes::from(bytes).slice(GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + header.facts_length as usize);
    let read = decode_facts(&header, section.clone(), 1, 64).unwrap();
    assert!(read.iter().map(|(fact, _)| fact.as_ref()).eq(&facts));

    let astray = section.iter().copied().collect::<Vec<_>>();
    let at = astray.windows(2).rposition(|pair| pair == b"#0").unwrap();
    let astray = [&astray[..at], b"#9", &astray[at + 2..]].concat();
    assert!(decode_facts(&header, Bytes::from(astray), 1, 64).is_err());
}

/// The facts of a packed segment, and of each whether its content is there.
fn unpacked(packed: &str) -> Vec<(u64, Fact, bool)> {
    let lab = Lab::new();
    let (store_id, folder) = ([7; 16], lab.path("journal"));
    let next = SegmentHeader { size: 1 << 20, store_id, first_sequence: 3, packed: None }.encode();
    let mut next = next.to_vec();
    next.resize(1 << 20, 0);
    lab.disk.overwrite(&folder.join("0000000000000001.00000001.pack"), vector(packed));
    lab.disk.overwrite(&folder.join("0000000000000003.seg"), next);
    lab.disk.overwrite(&folder.join("synced"), Mark { group: 1, end: 64, segment: 3 }.encode().to_vec());
    let journal = Journal::new(std::sync::Arc::new(lab.disk.clone()), folder, store_id);
    let mut facts = Vec::new();
    let found = inspect(&journal, &mut |journal, group| {
        assert_eq!((group.span.first, group.span.end), (1, 3));
        for placed in &group.facts {
            let Placed { fact, place, .. } = placed;
            let content = place.map(|place| journal.content(placed.sequence, place).unwrap());
            assert!(content.as_ref().is_none_or(|content| *content == b"seal"[..]));
            facts.push((placed.sequence, fact.as_ref().clone(), content.is_some()));
        }
        Ok(())
    });
    assert_eq!(found.unwrap().next_sequence, 3);
    facts
}

#[test]
fn a_packed_segment_is_read_as_the_format_says() {
    let record = Fact { at_ms: T0, kind: Some(Kind::Recorded(recorded())) };
    let content = Some(tramite_proto::pb::journal::v1::Content { length: 4, crc32c: crc32c::crc32c(b"seal") });
    let first = Fact { at_ms: T0, kind: Some(Kind::Accepted(Accepted { content, ..accepted() })) };
    assert_eq!(unpacked("packed"), [(1, first, true), (2, record.clone(), false)]);
    assert_eq!(unpacked("packed_left"), [(2, record, false)]);
}

#[test]
fn what_is_packed_is_byte_for_byte_what_the_format_says() {
    let group = Bytes::from(vector("group"));
    let header = GroupHeader::decode(&group[..GROUP_HEADER_BYTES], seed_of(&[7; 16])).unwrap();
    let section = group.slice(GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + header.facts_length as usize);
    let facts = decode_facts(&header, section.clone(), 1, 64).unwrap();
    let mut raw = RawGroup::of_section(&header, section).unwrap();
    raw.facts[0].has_content = true;
    let plain = |raw: &RawGroup| {
        let mut plain = Vec::new();
        raw.encode(&mut plain).unwrap();
        plain
    };
    assert_eq!(plain(&raw), vector("packed_plain"));
    raw.facts.remove(0);
    raw.drop_batches(&[facts[1].0.clone()]);
    assert_eq!(plain(&raw), vector("packed_left_plain"));
}

#[test]
fn a_disk_that_erases_nothing_fails_the_store() {
    let lab = Lab::new();
    let journal = Journal::new(std::sync::Arc::new(lab.disk.clone()), lab.path("journal"), [7; 16]);
    for sequence in 1..=16 * 1024 {
        journal.refuse(sequence, &ReadError::Failed);
    }
    assert!(journal.sync_erased().unwrap());
    assert_eq!((journal.refused(0..u64::MAX).len(), lab.disk.paths().len()), (16 * 1024, 16 * 1024));
    journal.refuse(1 << 40, &ReadError::Failed);
    assert!(journal.sync_erased().is_err());
}
