//! What a fact may hold, whatever it means: lengths and characters that rows and files rely on. It knows bounds; never what is stored
//! already.

use bytes::Bytes;
use tramite_proto::pb::journal::v1::{Accepted, Outcome, Recorded, Settled};

use crate::change::Rejected;

/// A message's 16 bytes, or whatever an adapter calls its notices.
const ID_BYTES_MAX: usize = 64;
/// The length stands in one byte of a row's key.
const ORDER_BYTES_MAX: usize = 64;
/// Queue, record and request names are keys of rows.
const NAME_BYTES_MAX: usize = 256;
/// Inline content is 64 KiB of ciphertext; adapters keep opened bodies and some words about them.
const CONTENT_BYTES_MAX: usize = 1024 * 1024;
/// Words of a reason or an operator.
const TEXT_BYTES_MAX: usize = 4096;
/// A key record with its certificates, a directory entry, a timeline entry.
const RECORD_BYTES_MAX: usize = 256 * 1024;
/// FORMATS.md §2.1.
const PARTS_MAX: usize = 16;
/// A notice goes to the sender, at most to both.
const NOTIFY_MAX: usize = 8;
/// Statements with their proofs, enc, and what only this node reads.
const FACT_BYTES_MAX: usize = 512 * 1024;
const DIGEST_BYTES: usize = 32;

fn need(holds: bool, what: &'static str) -> Result<(), Rejected> {
    if holds { Ok(()) } else { Err(Rejected::Malformed { what }) }
}

fn room(holds: bool, what: &'static str) -> Result<(), Rejected> {
    if holds { Ok(()) } else { Err(Rejected::TooLarge { what }) }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0')
}

pub(super) fn queues(queues: &[String]) -> Result<(), Rejected> {
    room(queues.len() <= NOTIFY_MAX, "notify")?;
    // A queue named twice would be one waiting row and two counts.
    let twice = queues.iter().enumerate().any(|(i, queue)| queues.iter().take(i).any(|other| other == queue));
    need(queues.iter().all(|queue| is_name(queue)) && !twice, "notify")
}

pub(super) fn texts(texts: &[&String]) -> Result<(), Rejected> {
    room(texts.iter().all(|text| text.len() <= TEXT_BYTES_MAX), "words")
}

pub(super) fn accepted(fact: &Accepted, content: &Bytes) -> Result<(), Rejected> {
    use prost::Message as _;
    need(is_name(&fact.queue), "queue")?;
    need((1..=ID_BYTES_MAX).contains(&fact.id.len()), "id")?;
    need(fact.digest.len() == DIGEST_BYTES, "digest")?;
    need(fact.order.len() <= ORDER_BYTES_MAX, "order")?;
    need(fact.case_id.is_empty() || fact.case_id.len() == 16, "case_id")?;
    need(fact.request_id.is_empty() || is_name(&fact.request_id), "request_id")?;
    need(fact.parts.len() <= PARTS_MAX, "parts")?;
    room(content.len() <= CONTENT_BYTES_MAX, "content")?;
    room(fact.encoded_len() <= FACT_BYTES_MAX, "fact")
}

pub(super) fn settled(fact: &Settled) -> Result<(), Rejected> {
    need(fact.outcome() != Outcome::Unspecified, "outcome")?;
    queues(&fact.notify)?;
    texts(&[&fact.reason, &fact.detail, &fact.by])
}

pub(super) fn recorded(fact: &Recorded) -> Result<(), Rejected> {
    need(is_name(&fact.name), "name")?;
    room(fact.value.as_ref().is_none_or(|value| value.len() <= RECORD_BYTES_MAX), "value")?;
    texts(&[&fact.by, &fact.reason])
}
