//! Which sealed parts lie here, for whom and from whom: what binds a part to its message before that message exists. A mirror of the
//! records `part/<message id>/<number>` in the journal, each written after the part itself is durable. It knows lengths and digests;
//! never what is sealed in a part: the bytes pass through and are the store's.
//!
//! The store removes a part when its message is final or after a day without one; the record follows at the next sweep.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tramite_proto::{
    ids::{Digest, InstitutionName, MessageId},
    parts::{PARTS_MAX, PLAIN_MAX, plain_len},
    pb::{exchange::v1::PartHeader, journal::v1::Recorded},
    reason::{Reason, Refused},
    statement::Origin,
};
use tramite_store::{Change, PartError, ReadError, Store};

use crate::{hub::Hub, identify::Member, limits};

/// Records of parts are named with this, the message id and the number.
pub const RECORD_PREFIX: &str = "part/";

/// Of which message, and its number.
pub type PartKey = (MessageId, u32);

/// What was announced for a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Who put it here.
    pub issuer: InstitutionName,
    /// Whom it is for.
    pub audience: InstitutionName,
    /// Sealed length.
    pub length: u64,
    /// SHA-256 of the sealed bytes.
    pub sha256: Digest,
}

/// The parts that lie here or are on their way.
#[derive(Debug, Default)]
pub struct Parts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bound: HashMap<PartKey, Bound>,
    uploading: HashMap<PartKey, Bound>,
    /// What the bound parts of each issuer come to.
    held: HashMap<InstitutionName, Held>,
}

/// So many parts, and what they are charged.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Held {
    parts: u64,
    bytes: u64,
}

impl Bound {
    /// What it takes of a disk at least: a small part is a file and a record too.
    fn charge(&self) -> u64 {
        self.length.max(limits::PART_BYTES_MIN).saturating_add(limits::PART_BYTES_BESIDE)
    }
}

impl State {
    fn bind(&mut self, key: PartKey, bound: Bound) {
        self.unbind(&key);
        let held = self.held.entry(bound.issuer.clone()).or_default();
        held.parts = held.parts.saturating_add(1);
        held.bytes = held.bytes.saturating_add(bound.charge());
        self.bound.insert(key, bound);
    }

    fn unbind(&mut self, key: &PartKey) {
        let Some(bound) = self.bound.remove(key) else { return };
        if let Some(held) = self.held.get_mut(&bound.issuer) {
            held.parts = held.parts.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(bound.charge());
        }
    }

    /// What the issuer has here or on its way, beside that part. Uploads are few, so they are counted anew.
    fn beside(&self, key: &PartKey, issuer: &InstitutionName) -> Held {
        let mut held = self.held.get(issuer).copied().unwrap_or_default();
        if let Some(same) = self.bound.get(key).filter(|same| same.issuer == *issuer) {
            held.parts = held.parts.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(same.charge());
        }
        for coming in self.uploading.values().filter(|coming| coming.issuer == *issuer) {
            held.parts = held.parts.saturating_add(1);
            held.bytes = held.bytes.saturating_add(coming.charge());
        }
        held
    }
}

/// Leave to upload one part; the place is free again when it is dropped.
#[derive(Debug)]
pub struct Upload {
    hub: Arc<Hub>,
    key: PartKey,
    bound: Bound,
}

/// What becomes of an announced part.
#[derive(Debug)]
pub enum Announced {
    /// Send it.
    Wanted(Upload),
    /// It is here already, or its message was accepted.
    Known,
}

impl Parts {
    /// Those of the records.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn load(store: &Store) -> Result<Self, ReadError> {
        let mut state = State::default();
        for row in store.records(RECORD_PREFIX)? {
            match (key_of(&row.name), serde_json::from_slice(&row.value)) {
                (Some(key), Ok(one)) => state.bind(key, one),
                _ => tracing::error!(
                    record = row.name,
                    "a part's record cannot be read; the part will be asked for again"
                ),
            }
        }
        Ok(Self { state: Mutex::new(state) })
    }

    /// Every part that origin names lies here whole, from its issuer and for its audience.
    ///
    /// # Errors
    /// PART_MISSING, PART_MISMATCH; STORE_FAILED when the disk does not say.
    pub fn check(&self, hub: &Hub, origin: &Origin) -> Result<(), Refused> {
        for (number, part) in (0_u32..).zip(&origin.parts) {
            let field = format!("parts[{number}]");
            let bound = self.lock().bound.get(&(origin.jti, number)).cloned();
            let missing = || Refused::because(Reason::PartMissing).field(field.clone());
            let bound = bound.ok_or_else(missing)?;
            if !is_there(&hub.store, (origin.jti, number), &bound).map_err(|error| unreadable(&error))? {
                return Err(missing());
            }
            let same = bound.issuer == origin.iss
                && bound.audience == origin.aud
                && bound.length == part.len
                && bound.sha256 == part.s256;
            if !same {
                return Err(Refused::because(Reason::PartMismatch).field(field));
            }
        }
        Ok(())
    }

    /// Forgets, and deletes the records of, parts that the store has removed. One of which the disk does not say stays.
    pub async fn sweep(&self, hub: &Hub) {
        let is_gone = |(key, bound): (&PartKey, &Bound)| match is_there(&hub.store, *key, bound) {
            Ok(there) => !there,
            Err(error) => {
                let (message_id, part) = key;
                tracing::error!(%message_id, part, %error, "whether a part is still here cannot be read: look at the disk; it is asked again");
                false
            }
        };
        let gone: Vec<PartKey> = {
            let state = self.lock();
            state.bound.iter().filter(|entry| is_gone(*entry)).map(|(key, _)| *key).collect()
        };
        for chunk in gone.chunks(limits::CHANGES_AT_ONCE_MAX) {
            let changes = chunk.iter().map(|key| record(*key, None)).collect();
            let done = hub.store.commit(changes).await;
            let mut state = self.lock();
            for (key, done) in chunk.iter().zip(done) {
                if done.is_ok() {
                    state.unbind(key);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Judges the announcement of a part.
///
/// # Errors
/// FIELD_INVALID, UNKNOWN_RECIPIENT, PART_MISMATCH, QUOTA_EXCEEDED, RATE_LIMITED.
pub async fn announce(hub: &Arc<Hub>, member: &Member, header: &PartHeader) -> Result<Announced, Refused> {
    let (key, bound) = read(hub, member, header)?;
    if hub.store.message(key.0.as_bytes()).map_err(|error| hub.read_failed(&error))?.is_some() {
        return Ok(Announced::Known);
    }
    if let Some(announced) = begin(hub, key, &bound)? {
        return Ok(announced);
    }
    // The quota seemed to be used up: parts of messages that are final by now no longer count.
    hub.parts.sweep(hub).await;
    begin(hub, key, &bound)?.ok_or_else(|| Refused::because(Reason::QuotaExceeded))
}

/// None when there is no room within the institution's quota.
fn begin(hub: &Arc<Hub>, key: PartKey, bound: &Bound) -> Result<Option<Announced>, Refused> {
    let mut state = hub.parts.lock();
    if let Some(before) = state.bound.get(&key) {
        if before != bound {
            let detail =
                "A part of that message and number was announced with other facts; a new message needs a new id.";
            return Err(Refused::new(Reason::PartMismatch, detail));
        }
        if is_there(&hub.store, key, before).map_err(|error| unreadable(&error))? {
            return Ok(Some(Announced::Known));
        }
    }
    let busy = state.uploading.values().filter(|other| other.issuer == bound.issuer).count();
    if busy >= limits::PART_UPLOADS_MAX || state.uploading.contains_key(&key) {
        return Err(Refused::new(Reason::RateLimited, "This part, or enough others, are being sent already."));
    }
    let held = state.beside(&key, &bound.issuer);
    let quota_mib = hub.config.institution(bound.issuer.as_str()).map_or(0, |institution| institution.quota_parts_mib);
    let over = held.bytes.saturating_add(bound.charge()) > quota_mib.saturating_mul(1 << 20);
    if over || held.parts >= limits::PARTS_WAITING_MAX {
        return Ok(None);
    }
    state.uploading.insert(key, bound.clone());
    Ok(Some(Announced::Wanted(Upload { hub: Arc::clone(hub), key, bound: bound.clone() })))
}

fn read(hub: &Hub, member: &Member, header: &PartHeader) -> Result<(PartKey, Bound), Refused> {
    let invalid = |field: &'static str, detail: &'static str| Refused::new(Reason::FieldInvalid, detail).field(field);
    let message: MessageId =
        header.message_id.parse().map_err(|_| invalid("message_id", "It is the text of a UUIDv7."))?;
    if !message.is_v7() {
        return Err(invalid("message_id", "It is the text of a UUIDv7."));
    }
    if usize::try_from(header.part).is_ok_and(|part| part >= PARTS_MAX) {
        return Err(invalid("part", "A message has at most 16 parts, numbered from 0."));
    }
    if plain_len(header.length).is_none_or(|plain| plain > PLAIN_MAX) {
        return Err(
            Refused::new(Reason::PayloadTooLarge, "No sealed part of at most 25 MiB has that length.").field("length")
        );
    }
    let sha256 = Digest::from_bytes(&header.sha256).map_err(|_| invalid("sha256", "It has 32 bytes."))?;
    let audience: InstitutionName =
        header.audience.parse().map_err(|_| invalid("audience", "It is an institution's name."))?;
    if hub.config.institution(audience.as_str()).is_none() || audience == *member.name() {
        return Err(Refused::because(Reason::UnknownRecipient).field("audience"));
    }
    let bound = Bound { issuer: member.name().clone(), audience, length: header.length, sha256 };
    Ok(((message, header.part), bound))
}

impl Upload {
    /// Of which message, and its number.
    #[must_use]
    pub fn key(&self) -> PartKey {
        self.key
    }

    /// What was announced.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The part is durable: so is now what binds it.
    ///
    /// # Errors
    /// The store's.
    pub async fn finish(self) -> Result<(), Refused> {
        let value = serde_json::to_vec(&self.bound).map_err(|_| Refused::because(Reason::Internal))?;
        if let Err(rejected) = self.hub.store.commit_one(record(self.key, Some(value))).await {
            // Nobody would count it.
            if let Err(error) = self.hub.store.remove_part(&self.key.0, self.key.1).await {
                tracing::warn!(%error, "a part that was not taken stays for a day");
            }
            return Err(self.hub.rejected(rejected));
        }
        self.hub.parts.lock().bind(self.key, self.bound.clone());
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.hub.parts.lock().uploading.remove(&self.key);
    }
}

fn is_there(store: &Store, key: PartKey, bound: &Bound) -> Result<bool, PartError> {
    Ok(store.part_len(&key.0, key.1)? == Some(bound.length))
}

fn unreadable(error: &PartError) -> Refused {
    tracing::error!(%error, "whether a part is here cannot be read: look at the disk");
    Refused::because(Reason::StoreFailed)
}

fn record(key: PartKey, value: Option<Vec<u8>>) -> Change {
    let name = format!("{RECORD_PREFIX}{}/{}", key.0, key.1);
    let (begins, value) = (value.is_some(), value.map(Into::into));
    Change::Record { fact: Box::new(Recorded { name, value, ..Recorded::default() }), begins }
}

fn key_of(name: &str) -> Option<PartKey> {
    let (message, part) = name.strip_prefix(RECORD_PREFIX)?.split_once('/')?;
    Some((message.parse().ok()?, part.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parts_count_what_they_take_and_the_sum_follows_what_lies_here() {
        let issuer: InstitutionName = "caritas".parse().unwrap();
        let bound = |length| Bound {
            issuer: issuer.clone(),
            audience: "inps".parse().unwrap(),
            length,
            sha256: Digest::of(b"sealed"),
        };
        let key = |part| (MessageId::new(0, [0; 10]), part);
        let mut state = State::default();
        state.bind(key(0), bound(16));
        state.bind(key(1), bound(10_000));
        // Bound anew, it is still one part.
        state.bind(key(1), bound(10_000));
        assert_eq!(state.beside(&key(2), &issuer), Held { parts: 2, bytes: 4_096 + 10_000 + 2 * 512 });
        assert_eq!(state.beside(&key(1), &issuer), Held { parts: 1, bytes: 4_096 + 512 });
        state.uploading.insert(key(2), bound(1));
        assert_eq!(state.beside(&key(3), &issuer).parts, 3);
        state.unbind(&key(0));
        state.unbind(&key(0));
        state.uploading.clear();
        assert_eq!(state.beside(&key(2), &issuer), Held { parts: 1, bytes: 10_000 + 512 });
    }
}
