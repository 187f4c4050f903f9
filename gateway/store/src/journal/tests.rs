//! The journal's bytes, held against those of a second implementation (proto/vectors/journal.py, written from FORMATS.md §6 alone).

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use tramite_proto::pb::{
    journal::v1::{Accepted, Fact, Recorded, Settled, fact::Kind},
    statement::v1::Statement,
};

use super::{
    Found, Segment,
    format::{GROUP_HEADER_BYTES, decode_facts, encode_group},
};
use crate::{
    Change,
    disk::{Access, Disk as _},
    tests::{Lab, T0},
};

/// What the second implementation wrote (`proto/vectors/journal.json`): a `segment` of 1 MiB, store id of sevens, first sequence 1; its
/// first `group`: two batches, an acceptance with a statement by each and the content `seal`, and a record; the `mark` after it.
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
    let answers = running.commit(vec![accept, Change::Record { fact: Box::new(recorded()) }]);
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
    assert_eq!((group.header.first_sequence, group.header.number, group.header.count), (1, 1, 2));
    let (first, place) = &group.facts[0];
    assert_eq!(first.at_ms, T0);
    let Some(Kind::Accepted(read)) = &first.kind else { panic!("{first:?}") };
    assert_eq!(Accepted { content: None, ..read.clone() }, accepted());
    let mut content = [0; 4];
    file.read_at(&mut content, place.unwrap().offset).unwrap();
    assert_eq!(&content, b"seal");
    assert_eq!(group.facts[1], (Arc::new(Fact { at_ms: T0, kind: Some(Kind::Recorded(recorded())) }), None));
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
