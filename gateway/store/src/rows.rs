//! Rows of the outbox: keys and values. One tree, one letter for each kind, numbers big-endian so that they sort.
//!
//! | key | value | for |
//! |---|---|---|
//! | `a` sequence | minute, 0: none | retirements: marks of time, and what is not gone yet |
//! | `i` id | [`IdRow`] | uniqueness, repeats, what became of it |
//! | `r` request id | [`RequestRow`] | a caller's retry |
//! | `k` minute, id | | ids to forget in that minute |
//! | `q` queue 0 sequence | [`ItemRow`] | what is not final, notices included |
//! | `w` queue 0 due sequence | | what may be handed out, and when |
//! | `o` queue 0 order sequence | | who comes before whom |
//! | `x` queue 0 sequence | | dead letters |
//! | `e` expires sequence | | messages that expire |
//! | `s` queue | [`QueueRow`] | counts |
//! | `b` issuer | [`ChargeRow`] | bytes of its contents that wait |
//! | `c` case | [`CaseValue`] | cases |
//! | `d` deadline, case | | cases that expire |
//! | `t` case, sequence | | a case's facts |
//! | `h` sequence, fact | | a message's attempts |
//! | `n` name | sequence | named records |
//! | `m` | | taken by the map itself (`map::runs`) |
//! | `p` | sequence | the first fact that is not applied |
//! | `y` | [`ClockRow`] | how far the clock has come, and ids are forgotten |
//!
//! Never knows: facts. Invariant: a value is a function of the facts up to its position and of nothing else (no clock, no lease),
//! so that a rebuilt outbox is equal row by row.

use bytes::Bytes;
use prost::Message;

use crate::{
    error::MapError,
    map::{Key, Shape},
};

/// Counts, charges, retirements, records, position and clock are few and written again and again; what is asked for by name is a whole key, or, of an
/// order, a timeline and a history, all keys that differ in their last number.
pub(crate) const SHAPE: Shape = Shape { few: b"abmnpsy", probe };

fn probe(key: &[u8]) -> Option<&[u8]> {
    match key.first()? {
        b'i' | b'r' | b'q' | b'c' => Some(key),
        b'o' | b't' | b'h' => key.get(..key.len().saturating_sub(8)),
        _ => None,
    }
}

/// Everything is below this.
pub(crate) const END: &[u8] = &[0xff];
/// The position.
pub(crate) const POSITION: &[u8] = b"p";
/// How far the clock has come.
pub(crate) const CLOCK: &[u8] = b"y";

/// An id, from acceptance until it is forgotten.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct IdRow {
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) digest: Bytes,
    #[prost(int64, tag = "3")]
    pub(crate) remember_ms: i64,
    /// 0: not final.
    #[prost(uint64, tag = "4")]
    pub(crate) final_sequence: u64,
    #[prost(int32, tag = "5")]
    pub(crate) outcome: i32,
    /// Of the final one.
    #[prost(uint32, tag = "6")]
    pub(crate) attempts: u32,
    /// A receipt came after the end.
    #[prost(bool, tag = "7")]
    pub(crate) late: bool,
    #[prost(string, tag = "8")]
    pub(crate) request_id: String,
}

/// A request id.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestRow {
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) digest: Bytes,
}

/// Something that waits in a queue.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ItemRow {
    /// Of a message; empty: a notice.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) digest: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) order: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) case_id: Bytes,
    #[prost(uint32, tag = "5")]
    pub(crate) attempts: u32,
    #[prost(int64, tag = "6")]
    pub(crate) due_ms: i64,
    #[prost(int64, tag = "7")]
    pub(crate) expires_ms: i64,
    #[prost(int64, tag = "8")]
    pub(crate) accepted_ms: i64,
    #[prost(bool, tag = "9")]
    pub(crate) dead: bool,
    /// It has a `w` row: nothing of its order comes before it, and it is no dead letter.
    #[prost(bool, tag = "10")]
    pub(crate) ready: bool,
    /// Bytes of its content.
    #[prost(uint32, tag = "11")]
    pub(crate) bytes: u32,
    /// Whose they are; empty: nobody's who is charged.
    #[prost(string, tag = "12")]
    pub(crate) issuer: String,
}

/// What an issuer has waiting.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct ChargeRow {
    /// Of contents whose messages are not final.
    #[prost(uint64, tag = "1")]
    pub(crate) bytes: u64,
}

/// A queue's counts.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct QueueRow {
    #[prost(uint64, tag = "1")]
    pub(crate) waiting: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) dead: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) accepted: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) settled: u64,
}

/// A case.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CaseValue {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) opener: String,
    #[prost(string, tag = "3")]
    pub(crate) responder: String,
    #[prost(string, tag = "4")]
    pub(crate) status: String,
    #[prost(string, tag = "5")]
    pub(crate) reason: String,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) conversation: Bytes,
    #[prost(int64, tag = "7")]
    pub(crate) deadline_ms: i64,
    #[prost(uint64, tag = "8")]
    pub(crate) opened_sequence: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) moved_sequence: u64,
    #[prost(int64, tag = "10")]
    pub(crate) opened_ms: i64,
    #[prost(int64, tag = "11")]
    pub(crate) moved_ms: i64,
    /// It has a `d` row.
    #[prost(bool, tag = "12")]
    pub(crate) expires: bool,
}

/// How far the clock has come with the facts, in minutes since 1970.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClockRow {
    /// By a clock that was believed; ids to be remembered until before it are gone, or go with the next facts. 0: there is no fact yet.
    #[prost(int64, tag = "1")]
    pub(crate) minute: i64,
    /// By one with which something could be signed, believed or not.
    #[prost(int64, tag = "2")]
    pub(crate) dated: i64,
    /// The last `k` row that was looked at, as long as more ids than one fact forgets are to be forgotten; else empty.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) forgetting: Bytes,
}

/// Reads a value; one that is damaged is the map's fault.
pub(crate) fn decode<T: Message + Default>(value: Bytes) -> Result<T, MapError> {
    T::decode(value).map_err(|e| MapError(format!("a row is damaged: {e}")))
}

pub(crate) fn encode(row: &impl Message) -> Bytes {
    Bytes::from(row.encode_to_vec())
}

/// A number as a value.
pub(crate) fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// The number that a value or the end of a key holds.
pub(crate) fn number_at_end(bytes: &[u8]) -> u64 {
    let at = bytes.len().saturating_sub(8);
    let field = bytes.get(at..).and_then(|field| field.try_into().ok());
    u64::from_be_bytes(field.unwrap_or_default())
}

/// Times sort as numbers; those before 1970 are all the same.
fn time(ms: i64) -> [u8; 8] {
    u64::try_from(ms).unwrap_or(0).to_be_bytes()
}

fn key(kind: u8, parts: &[&[u8]]) -> Key {
    let mut key = Key::new();
    key.push(kind);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(crate) fn id(id: &[u8]) -> Key {
    key(b'i', &[id])
}

pub(crate) fn request(id: &str) -> Key {
    key(b'r', &[id.as_bytes()])
}

pub(crate) fn forget(minute: i64, id: &[u8]) -> Key {
    key(b'k', &[&time(minute), id])
}

/// The id in a `forget` key.
pub(crate) fn forgotten(key: &[u8]) -> &[u8] {
    key.get(9..).unwrap_or_default()
}

pub(crate) fn item(queue: &str, sequence: u64) -> Key {
    key(b'q', &[queue.as_bytes(), &[0], &sequence.to_be_bytes()])
}

pub(crate) fn ready(queue: &str, due_ms: i64, sequence: u64) -> Key {
    key(b'w', &[queue.as_bytes(), &[0], &time(due_ms), &sequence.to_be_bytes()])
}

/// The due time in a `ready` key.
pub(crate) fn due_of(key: &[u8]) -> i64 {
    i64::try_from(number_at_end(key.get(..key.len().saturating_sub(8)).unwrap_or_default())).unwrap_or(i64::MAX)
}

pub(crate) fn order(queue: &str, order: &[u8], sequence: u64) -> Key {
    // One byte of length, as order keys have at most 64 bytes.
    let length = [u8::try_from(order.len()).unwrap_or(u8::MAX)];
    key(b'o', &[queue.as_bytes(), &[0], &length, order, &sequence.to_be_bytes()])
}

pub(crate) fn dead(queue: &str, sequence: u64) -> Key {
    key(b'x', &[queue.as_bytes(), &[0], &sequence.to_be_bytes()])
}

pub(crate) fn expiry(expires_ms: i64, sequence: u64) -> Key {
    key(b'e', &[&time(expires_ms), &sequence.to_be_bytes()])
}

pub(crate) fn queue(queue: &str) -> Key {
    key(b's', &[queue.as_bytes()])
}

pub(crate) fn charge(issuer: &str) -> Key {
    key(b'b', &[issuer.as_bytes()])
}

pub(crate) fn case(case: &[u8]) -> Key {
    key(b'c', &[case])
}

pub(crate) fn deadline(deadline_ms: i64, case: &[u8]) -> Key {
    key(b'd', &[&time(deadline_ms), case])
}

/// The case in a `deadline` key.
pub(crate) fn case_of_deadline(key: &[u8]) -> &[u8] {
    key.get(9..).unwrap_or_default()
}

pub(crate) fn timeline(case: &[u8], sequence: u64) -> Key {
    key(b't', &[case, &sequence.to_be_bytes()])
}

pub(crate) fn history(sequence: u64, fact: u64) -> Key {
    key(b'h', &[&sequence.to_be_bytes(), &fact.to_be_bytes()])
}

pub(crate) fn retirement(sequence: u64) -> Key {
    key(b'a', &[&sequence.to_be_bytes()])
}

pub(crate) fn record(name: &str) -> Key {
    key(b'n', &[name.as_bytes()])
}

/// What comes after the letter.
pub(crate) fn rest(key: &[u8]) -> &[u8] {
    key.get(1..).unwrap_or_default()
}

/// The least key after all that begin with `prefix`.
pub(crate) fn after(prefix: &[u8]) -> Key {
    let mut end = Key::from_slice(prefix);
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    Key::from_slice(END)
}
