//! How the members of statements are read: one function for each kind of value (FORMATS.md §2).
//!
//! Knows the spelling of ids, names, codes, digests and times. Never knows which statement it reads.
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::{
    ids::{CaseId, ConversationId, Digest, InstitutionName, KeyId, MessageId, Token},
    strict::{self, Object, Problem},
};

/// Characters of a status, as of a code.
const STATUS_MAX: usize = 64;
/// Characters of a protobuf name: package and message, with room for longer packages.
const TYPE_MAX: usize = 128;

/// A message id: the UUIDv7 of a message.
pub(super) fn message_id(object: &mut Object<'_>, name: &str) -> Result<MessageId, Problem> {
    let id = own_id(object, name)?;
    if !id.is_v7() {
        return Err(object.problem(name, "is not a UUIDv7"));
    }
    Ok(id)
}

/// The id of a statement that is not a message: any UUID.
pub(super) fn own_id(object: &mut Object<'_>, name: &str) -> Result<MessageId, Problem> {
    spelled(object, name, "a lower-case UUID")
}

pub(super) fn conversation_id(object: &mut Object<'_>, name: &str) -> Result<ConversationId, Problem> {
    spelled(object, name, "a lower-case UUID")
}

/// A case id, which is the id of the message that opened it.
pub(super) fn case_id(object: &mut Object<'_>, name: &str) -> Result<CaseId, Problem> {
    message_id(object, name).map(CaseId::from)
}

pub(super) fn institution(object: &mut Object<'_>, name: &str) -> Result<InstitutionName, Problem> {
    spelled(object, name, "an institution name")
}

/// Agreement, operator pseudonym, location.
pub(super) fn token(object: &mut Object<'_>, name: &str) -> Result<Token, Problem> {
    spelled(object, name, "1 to 64 characters of A-Z a-z 0-9 . _ : / -")
}

pub(super) fn key_id(object: &mut Object<'_>, name: &str) -> Result<KeyId, Problem> {
    spelled(object, name, "a key id")
}

/// A value of a type that knows its own spelling.
pub(super) fn spelled<T: FromStr>(object: &mut Object<'_>, name: &str, what: &str) -> Result<T, Problem> {
    // Every type here parses its one spelling only, so that what is written again is what was read.
    object.text(name)?.parse().map_err(|_| object.problem(name, format!("is not {what}")))
}

pub(super) fn digest(object: &mut Object<'_>, name: &str) -> Result<Digest, Problem> {
    exact(object, name).map(Digest)
}

/// Base64url of exactly `N` bytes.
pub(super) fn exact<const N: usize>(object: &mut Object<'_>, name: &str) -> Result<[u8; N], Problem> {
    let text = object.text(name)?;
    strict::decode_exact(&text).ok_or_else(|| object.problem(name, format!("is not base64url of {N} bytes")))
}

/// Unix seconds; 0..=2^53-1 by the reader's own rule.
pub(super) fn time(object: &mut Object<'_>, name: &str) -> Result<i64, Problem> {
    i64::try_from(object.number(name)?).map_err(|_| object.problem(name, "is out of range"))
}

/// A code of the vocabulary, which is not looked up here: 1 to 64 characters of the same alphabet as a token.
pub(super) fn code(object: &mut Object<'_>, name: &str) -> Result<String, Problem> {
    token(object, name).map(|token| token.to_string())
}

/// A case status: lower_snake.
pub(super) fn status(object: &mut Object<'_>, name: &str) -> Result<String, Problem> {
    let text = object.text(name)?;
    let fits = (1..=STATUS_MAX).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if fits {
        Ok(text.into_owned())
    } else {
        Err(object.problem(name, "is not a status of 1 to 64 characters a-z 0-9 _"))
    }
}

/// A protobuf full name: identifiers with points between them.
pub(super) fn message_type(object: &mut Object<'_>, name: &str) -> Result<String, Problem> {
    let text = object.text(name)?;
    let identifier = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let fits = text.len() <= TYPE_MAX && text.contains('.') && text.split('.').all(identifier);
    if fits { Ok(text.into_owned()) } else { Err(object.problem(name, "is not the full name of a protobuf message")) }
}

/// What `read` reads, when there is such a member.
pub(super) fn optional<T>(
    object: &mut Object<'_>,
    name: &str,
    read: impl FnOnce(&mut Object<'_>, &str) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    if object.has(name) { read(object, name).map(Some) } else { Ok(None) }
}

/// A list of objects, left out when there are none: an empty one is refused, so that each statement has one spelling.
pub(super) fn list<T>(
    object: &mut Object<'_>,
    name: &str,
    most: usize,
    mut read: impl FnMut(&mut Object<'_>) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    if !object.has(name) {
        return Ok(Vec::new());
    }
    object.list(name, most, |within, value, place| {
        let mut element = within.within(value, place)?;
        let read = read(&mut element)?;
        element.finish()?;
        Ok(read)
    })
}

/// Writes bytes as base64url.
pub(super) fn base64url<S: Serializer>(bytes: &impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    strict::encode(bytes.as_ref()).serialize(serializer)
}

/// Writes a list of bytes as base64url.
pub(super) fn base64urls<S: Serializer>(list: &[bytes::Bytes], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|bytes| strict::encode(bytes)))
}
