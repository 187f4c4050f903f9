//! Sealed parts: bound to message, length, digest and audience, within a quota, and given only to whom they wait for.

use bytes::Bytes;
use tramite_proto::{
    batch::Framer,
    ids::Digest,
    pb::{
        exchange::v1::{
            FramedMessage, GetPartRequest, PartHeader, PutPartRequest, SubmitFrame, put_part_request::Frame,
            submit_result::Result as Outcome,
        },
        statement::v1::SealedMessage,
    },
    reason::{Reason, Refused},
    statement::SealedPart,
};

use super::{
    adapter::{Adapter, Draft, refused, two},
    world::World,
};

/// A sealed part of 300 KB: five chunks, more than one frame.
pub(super) fn sealed() -> Bytes {
    (0..300_000_u32).map(|place| place.to_le_bytes()[0]).collect::<Vec<_>>().into()
}

pub(super) fn header(draft: &Draft, part: u32, bytes: &[u8]) -> PartHeader {
    PartHeader {
        message_id: draft.id.to_string(),
        part,
        length: bytes.len() as u64,
        sha256: Digest::of(bytes).as_bytes().to_vec().into(),
        audience: draft.to.clone(),
    }
}

pub(super) async fn put(from: &Adapter, header: PartHeader, bytes: &Bytes) -> Result<bool, Refused> {
    let frames =
        [Frame::Header(header)].into_iter().chain(bytes.chunks(200_000).map(|data| Frame::Data(bytes.slice_ref(data))));
    let frames: Vec<_> = frames.map(|frame| PutPartRequest { frame: Some(frame) }).collect();
    let answer = from.exchange().put_part(tokio_stream::iter(frames)).await;
    answer.map(|answer| answer.into_inner().stored).map_err(refused)
}

/// A message to inps with three times the same part, put.
pub(super) async fn three_put(from: &Adapter, bytes: &Bytes) -> Draft {
    let part = SealedPart { len: bytes.len() as u64, s256: Digest::of(bytes) };
    let draft = Draft { parts: vec![part; 3], ..from.draft("inps") };
    for number in 0..3 {
        assert!(put(from, header(&draft, number, bytes), bytes).await.unwrap());
    }
    draft
}

async fn get(by: &Adapter, draft: &Draft, part: u32, offset: u64) -> Result<Bytes, Refused> {
    let request = GetPartRequest { message_id: draft.id.to_string(), part, offset };
    let mut stream = by.exchange().get_part(request).await.map_err(refused)?.into_inner();
    let mut bytes = Vec::new();
    while let Some(frame) = stream.message().await.map_err(refused)? {
        assert!(frame.data.len() <= 256 << 10);
        bytes.extend_from_slice(&frame.data);
    }
    Ok(bytes.into())
}

#[tokio::test]
async fn a_part_is_put_once_waits_with_its_message_and_is_gone_with_it() {
    let mut world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let bytes = sealed();
    let part = SealedPart { len: bytes.len() as u64, s256: Digest::of(&bytes) };
    let draft = Draft { parts: vec![part], ..caritas.draft("inps") };
    let message = caritas.message(&draft, &inps);
    assert_eq!(caritas.submit(&message).await.unwrap_err().reason, Reason::PartMissing);
    assert!(put(&caritas, header(&draft, 0, &bytes), &bytes).await.unwrap());
    assert!(!put(&caritas, header(&draft, 0, &bytes), &bytes).await.unwrap());
    // Nobody has it before its message is accepted, and what binds it survives a restart.
    assert_eq!(get(&inps, &draft, 0, 0).await.unwrap_err().reason, Reason::PartUnknown);
    world.stop().await;
    world.start().await;
    let (caritas, inps) = (Adapter::of(&world, "caritas"), Adapter::of(&world, "inps"));
    caritas.submit(&message).await.unwrap();
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    assert_eq!(get(&inps, &draft, 0, 0).await.unwrap(), bytes);
    assert_eq!(get(&inps, &draft, 0, 299_000).await.unwrap(), bytes.slice(299_000..));
    assert_eq!(get(&inps, &draft, 1, 0).await.unwrap_err().reason, Reason::PartUnknown);
    assert_eq!(get(&caritas, &draft, 0, 0).await.unwrap_err().reason, Reason::PartUnknown);
    recipient.opened(&inps, &delivery).await;
    assert_eq!(get(&inps, &draft, 0, 0).await.unwrap_err().reason, Reason::PartUnknown);
    assert_eq!(caritas.submit(&message).await.unwrap().mid, draft.id, "a repeat needs its parts no more");
}

/// A frame of one message.
fn frame(frame_id: u64, message: SealedMessage) -> SubmitFrame {
    let SealedMessage { origin, enc, ciphertext } = message;
    let mut framer = Framer::new();
    let origin = Some(framer.frame(&origin.unwrap()));
    let messages = vec![FramedMessage { origin, enc, ciphertext, traceparent: String::new() }];
    SubmitFrame { frame_id, jws: framer.into_jws(), messages }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_does_not_overtake_one_whose_parts_are_read_again() {
    let mut world = World::with(|config| config.institutions.iter_mut().for_each(|one| one.quota_parts_mib = 64)).await;
    let (caritas, _) = two(&world).await;
    let bytes: Bytes = vec![7; 20 << 20].into();
    let part = SealedPart { len: bytes.len() as u64, s256: Digest::of(&bytes) };
    let heavy = Draft { parts: vec![part], ..caritas.draft("inps") };
    assert!(put(&caritas, header(&heavy, 0, &bytes), &bytes).await.unwrap());
    // What its digest is, this process does not know by heart.
    world.restart().await;
    let (caritas, inps) = (Adapter::of(&world, "caritas"), Adapter::of(&world, "inps"));
    let light = caritas.draft("inps");
    let frames = [frame(1, caritas.message(&heavy, &inps)), frame(2, caritas.message(&light, &inps))];
    let mut answers = caritas.exchange().submit(tokio_stream::iter(frames)).await.unwrap().into_inner();
    let mut sequences = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(matches!(answer.results[0].result, Some(Outcome::Accepted(_))), "{answer:?}");
        sequences.push(answer.results[0].sequence);
    }
    assert!(sequences.len() == 2 && sequences.is_sorted(), "{sequences:?}");
}

#[tokio::test]
async fn what_is_not_as_announced_is_refused() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let bytes = sealed();
    let draft = caritas.draft("inps");
    let announced = || header(&draft, 0, &bytes);
    let reason = |outcome: Result<bool, Refused>| outcome.unwrap_err().reason;
    let other = || Digest::of(b"another").as_bytes().to_vec().into();
    assert_eq!(
        reason(put(&caritas, PartHeader { sha256: other(), ..announced() }, &bytes).await),
        Reason::PartMismatch
    );
    assert_eq!(reason(put(&caritas, announced(), &bytes.slice(..200_000)).await), Reason::PartMismatch);
    assert_eq!(reason(put(&caritas, PartHeader { part: 16, ..announced() }, &bytes).await), Reason::FieldInvalid);
    assert_eq!(reason(put(&caritas, PartHeader { length: 15, ..announced() }, &bytes).await), Reason::PayloadTooLarge);
    assert_eq!(
        reason(put(&caritas, PartHeader { audience: "prefettura".to_owned(), ..announced() }, &bytes).await),
        Reason::UnknownRecipient
    );
    assert_eq!(
        reason(put(&caritas, PartHeader { message_id: "../../etc".to_owned(), ..announced() }, &bytes).await),
        Reason::FieldInvalid
    );

    assert!(put(&caritas, announced(), &bytes).await.unwrap());
    assert_eq!(
        reason(put(&caritas, PartHeader { sha256: other(), ..announced() }, &bytes).await),
        Reason::PartMismatch
    );
    // Another institution cannot take its place.
    let theirs = PartHeader { audience: "caritas".to_owned(), ..announced() };
    assert_eq!(reason(put(&inps, theirs, &bytes).await), Reason::PartMismatch);
    // The message says another digest, or goes to somebody else than the part.
    let wrong = Draft { parts: vec![SealedPart { len: bytes.len() as u64, s256: Digest::of(b"") }], ..draft.clone() };
    assert_eq!(caritas.submit(&caritas.message(&wrong, &inps)).await.unwrap_err().reason, Reason::PartMismatch);
}

#[tokio::test]
async fn an_institution_stores_no_more_than_its_quota_until_its_messages_are_final() {
    let world = World::new().await;
    let (caritas, inps) = two(&world).await;
    let bytes = sealed();
    let draft = three_put(&caritas, &bytes).await;
    let next = caritas.draft("inps");
    let over = put(&caritas, header(&next, 0, &bytes), &bytes).await.unwrap_err();
    assert_eq!((over.reason, over.retryable()), (Reason::QuotaExceeded, true));
    caritas.submit(&caritas.message(&draft, &inps)).await.unwrap();
    let mut recipient = inps.receive(8).await;
    let delivery = recipient.delivery().await;
    recipient.opened(&inps, &delivery).await;
    // The store removes parts after the settlement is durable; the refusal says to come back.
    loop {
        match put(&caritas, header(&next, 0, &bytes), &bytes).await {
            Ok(stored) => break assert!(stored),
            Err(refused) => assert_eq!(refused.reason, Reason::QuotaExceeded),
        }
    }
}
