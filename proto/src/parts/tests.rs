//! Every check of FORMATS.md §4.
use proptest::prelude::*;

use super::*;

const KEY: [u8; 32] = [9; 32];
const SEALED_CHUNK: usize = CHUNK + TAG;

fn jti() -> MessageId {
    MessageId::new(1_795_400_000_000, [3; 10])
}

fn file(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

fn seal(length: usize, part: u32) -> (Vec<u8>, SealedPart) {
    let mut sealer = PartSealer::new(&KEY, &jti(), part).unwrap();
    let mut sealed = sealer.push(&file(length)).unwrap();
    let (last, said) = sealer.finish().unwrap();
    sealed.extend(last);
    (sealed, said)
}

fn open(sealed: &[u8], part: u32, expected: &SealedPart) -> Result<Vec<u8>, Refused> {
    let mut opener = PartOpener::new(&KEY, &jti(), part, expected.clone())?;
    let plain = opener.push(sealed)?;
    opener.finish()?;
    Ok(plain)
}

fn refused<T: std::fmt::Debug>(result: Result<T, Refused>) {
    assert_eq!(result.unwrap_err().reason, Reason::PartMismatch);
}

#[test]
fn what_was_sealed_opens() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
        let (sealed, said) = seal(length, 2);
        assert_eq!(said.len, sealed.len() as u64);
        assert_eq!(said.len, sealed_len(length as u64));
        assert_eq!(plain_len(said.len), Some(length as u64));
        assert_eq!(said.s256, Digest::of(&sealed));
        assert_eq!(open(&sealed, 2, &said).unwrap(), file(length));
    }
}

#[test]
fn lengths_that_no_sealed_part_has_are_refused() {
    for length in (0..16).chain(65_553..=65_568).chain([2 * 65_552 + 1, 2 * 65_552 + 16]) {
        assert_eq!(plain_len(length), None, "{length}");
        let said = SealedPart { len: length, s256: Digest([0; 32]) };
        refused(PartOpener::new(&KEY, &jti(), 0, said));
    }
    assert_eq!(plain_len(u64::MAX).map(sealed_len).unwrap_or(u64::MAX), u64::MAX);
    let said = SealedPart { len: sealed_len(PLAIN_MAX + 1), s256: Digest([0; 32]) };
    refused(PartOpener::new(&KEY, &jti(), 0, said));
}

#[test]
fn a_part_under_another_key_message_or_number_does_not_open() {
    let (sealed, said) = seal(1000, 2);
    refused(open(&sealed, 3, &said));
    let other = MessageId::new(1_795_400_000_001, [3; 10]);
    refused(PartOpener::new(&KEY, &other, 2, said.clone()).unwrap().push(&sealed));
    refused(PartOpener::new(&[8; 32], &jti(), 2, said).unwrap().push(&sealed));
    refused(PartOpener::new(&KEY, &jti(), 16, seal(0, 0).1));
    assert_eq!(PartSealer::new(&KEY, &jti(), 16).unwrap_err(), PartError::Number(16));
    assert_eq!(PartSealer::new(&KEY, &jti(), u32::MAX).unwrap_err(), PartError::Number(u32::MAX));
}

#[test]
fn chunks_in_another_order_or_from_another_place_do_not_open() {
    let (sealed, said) = seal(3 * CHUNK, 0);
    let chunks: Vec<_> = sealed.chunks(SEALED_CHUNK).collect();
    refused(open(&[chunks[1], chunks[0], chunks[2]].concat(), 0, &said));
    refused(open(&[chunks[0], chunks[0], chunks[2]].concat(), 0, &said));
    refused(open(&[chunks[0], chunks[2], chunks[1]].concat(), 0, &said));
}

#[test]
fn a_part_cut_short_at_a_chunk_does_not_open_even_when_its_length_agrees() {
    let (sealed, _) = seal(3 * CHUNK, 0);
    let cut = &sealed[..2 * SEALED_CHUNK];
    let said = SealedPart { len: cut.len() as u64, s256: Digest::of(cut) };
    refused(open(cut, 0, &said));
}

#[test]
fn a_part_that_goes_on_after_its_last_chunk_does_not_open() {
    let (short, _) = seal(CHUNK, 0);
    let (long, _) = seal(2 * CHUNK, 0);
    let joined = [&short[..], &long[SEALED_CHUNK..]].concat();
    let said = SealedPart { len: joined.len() as u64, s256: Digest::of(&joined) };
    refused(open(&joined, 0, &said));
}

#[test]
fn more_or_fewer_bytes_than_said_are_refused() {
    let (sealed, said) = seal(1000, 0);
    refused(open(&[&sealed[..], b"x"].concat(), 0, &said));
    refused(open(&sealed[..sealed.len() - 1], 0, &said));
    refused(open(b"", 0, &said));
    let mut opener = PartOpener::new(&KEY, &jti(), 0, said).unwrap();
    refused(opener.open_chunk(&sealed[1..]));
    refused(opener.open_chunk(&sealed));
}

#[test]
fn another_digest_than_said_is_refused() {
    let (sealed, said) = seal(1000, 0);
    refused(open(&sealed, 0, &SealedPart { s256: Digest([1; 32]), ..said }));
}

#[test]
fn nothing_follows_a_failure() {
    let (sealed, said) = seal(2 * CHUNK, 0);
    let mut opener = PartOpener::new(&KEY, &jti(), 0, said).unwrap();
    let mut changed = sealed.clone();
    changed[0] ^= 1;
    refused(opener.push(&changed[..SEALED_CHUNK]));
    refused(opener.push(&sealed[..SEALED_CHUNK]));
    refused(opener.finish());
}

#[test]
fn a_part_that_went_on_after_its_end_is_refused_even_when_what_came_before_was_whole() {
    let (sealed, said) = seal(1000, 0);
    let mut opener = PartOpener::new(&KEY, &jti(), 0, said).unwrap();
    opener.push(&sealed).unwrap();
    refused(opener.push(b"x"));
    refused(opener.finish());
}

#[test]
fn a_part_that_stops_early_is_refused_even_when_its_digest_was_announced_for_that() {
    let (sealed, said) = seal(3 * CHUNK, 0);
    let early = &sealed[..2 * SEALED_CHUNK];
    let mut opener = PartOpener::new(&KEY, &jti(), 0, SealedPart { s256: Digest::of(early), ..said }).unwrap();
    opener.push(early).unwrap();
    refused(opener.finish());
}

#[test]
fn a_chunk_of_another_length_is_refused_even_when_its_sender_sealed_it_so() {
    let place = Place::new(&KEY, &jti(), 0).unwrap();
    let mut short = b"ten bytes.".to_vec();
    place.key.seal_in_place_append_tag(place.nonce(), Aad::from(place.aad(false)), &mut short).unwrap();
    let said = SealedPart { len: sealed_len(CHUNK as u64 + 1), s256: Digest([0; 32]) };
    refused(PartOpener::new(&KEY, &jti(), 0, said).unwrap().open_chunk(&short));
}

#[test]
fn a_sealer_takes_whole_chunks_and_one_end() {
    let mut sealer = PartSealer::new(&KEY, &jti(), 0).unwrap();
    assert_eq!(sealer.seal_chunk(&file(CHUNK - 1), false).unwrap_err(), PartError::ChunkLength(CHUNK - 1));
    assert_eq!(sealer.seal_chunk(&file(CHUNK + 1), true).unwrap_err(), PartError::ChunkLength(CHUNK + 1));
    sealer.seal_chunk(&file(CHUNK), false).unwrap();
    assert_eq!(sealer.seal_chunk(&[], true).unwrap_err(), PartError::ChunkLength(0));
    sealer.seal_chunk(&file(1), true).unwrap();
    assert_eq!(sealer.seal_chunk(&file(1), true).unwrap_err(), PartError::Complete);
    assert_eq!(sealer.finish().unwrap().1.len, sealed_len(CHUNK as u64 + 1));
}

#[test]
fn a_sealer_stops_at_25_mib() {
    let mut sealer = PartSealer::new(&KEY, &jti(), 0).unwrap();
    let mib = file(1024 * 1024);
    for _ in 0..25 {
        sealer.push(&mib).unwrap();
    }
    sealer.push(b"x").unwrap();
    assert_eq!(sealer.finish().unwrap_err(), PartError::TooLong);
}

#[test]
fn neither_sealer_nor_opener_shows_its_key() {
    let shown = format!(
        "{:?} {:?}",
        PartSealer::new(&KEY, &jti(), 0).unwrap(),
        PartOpener::new(&KEY, &jti(), 0, seal(0, 0).1).unwrap()
    );
    assert!(!shown.contains("9, 9") && !shown.contains("0909"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn pieces_of_any_length_make_and_open_the_same_part(length in 0_usize..200_000, piece in 1_usize..90_000, other in 1_usize..90_000) {
        let (whole, said) = seal(length, 1);
        let mut sealer = PartSealer::new(&KEY, &jti(), 1).unwrap();
        let mut sealed = Vec::new();
        for piece in file(length).chunks(piece) {
            sealed.extend(sealer.push(piece).unwrap());
        }
        let (last, again) = sealer.finish().unwrap();
        sealed.extend(last);
        prop_assert!(sealed == whole && again == said);
        let mut opener = PartOpener::new(&KEY, &jti(), 1, said).unwrap();
        let mut plain = Vec::new();
        for piece in sealed.chunks(other) {
            plain.extend(opener.push(piece).unwrap());
        }
        opener.finish().unwrap();
        prop_assert!(plain == file(length));
    }

    #[test]
    fn a_changed_byte_is_refused(length in 0_usize..70_000, place: prop::sample::Index, bit in 0_u8..8) {
        let (mut sealed, said) = seal(length, 0);
        let place = place.index(sealed.len());
        sealed[place] ^= 1 << bit;
        refused(open(&sealed, 0, &said));
    }

    #[test]
    fn no_bytes_or_lengths_break_it(bytes in prop::collection::vec(any::<u8>(), 0..100), len: u64, small in 0_u64..200, part: u32) {
        for len in [len, small] {
            let said = SealedPart { len, s256: Digest([0; 32]) };
            if let Ok(mut opener) = PartOpener::new(&KEY, &jti(), part % 20, said) {
                let _ = opener.open_chunk(&bytes);
                let _ = opener.push(&bytes);
                prop_assert!(opener.finish().is_err());
            }
            let _ = (plain_len(len), sealed_len(len));
        }
    }
}
