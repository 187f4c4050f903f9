//! Key record: an institution's signing certificate and encryption key, in its own words (FORMATS.md §2.4).
//!
//! Knows what a record says. Never knows whether to believe it: chain, time, sequence and strength are the keyring's. Invariants: the
//! encryption key has its suite's length; the leaf, which signs the record's own batch, holds a P-256 key.
use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{Kind, field, read, write};
use crate::{
    ids::InstitutionName,
    jws::{CERTIFICATE_MAX, VerifyingKey},
    reason::Refused,
    seal::{PublicKey, Suite},
    strict::{self, Object, Problem, Value},
};

/// Validity: a year and a month to change over.
pub const VALIDITY_S_MAX: i64 = 400 * 86_400;
/// Certificates in a chain: leaf, two intermediates, root.
pub const CHAIN_MAX: usize = 4;

/// An institution's keys, as it vouches for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The institution.
    pub iss: InstitutionName,
    /// Rises with each record.
    pub seq: u64,
    /// Issued, unix seconds.
    pub iat: i64,
    /// Valid from, unix seconds.
    pub nbf: i64,
    /// Valid until, unix seconds; at most 400 days after `nbf`.
    pub exp: i64,
    /// Certificates in DER, the signing certificate first.
    pub x5c: Vec<Bytes>,
    /// The key to which messages for it are sealed.
    pub enc: EncryptionKey,
}

/// The public encryption key in a record.
pub type EncryptionKey = PublicKey;

impl KeyRecord {
    /// Reads a key record strictly.
    pub fn parse(json: &[u8]) -> Result<Self, Refused> {
        read(json, Kind::Key, members)
    }

    /// Writes it: the bytes that are then signed and never written again.
    pub fn to_json(&self) -> Bytes {
        write(Kind::Key, self)
    }

    /// The key of the signing certificate; `None` when that certificate cannot be read, which a parsed record's can.
    pub fn verifying_key(&self) -> Option<VerifyingKey> {
        VerifyingKey::from_certificate(self.x5c.first()?)
    }
}

impl Serialize for KeyRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Chain<'a>(#[serde(serialize_with = "field::base64urls")] &'a [Bytes]);
        #[derive(Serialize)]
        struct Encryption<'a> {
            kid: String,
            suite: Suite,
            #[serde(rename = "pub", serialize_with = "field::base64url")]
            bytes: &'a [u8],
        }
        let enc = Encryption { kid: self.enc.kid().to_string(), suite: self.enc.suite(), bytes: self.enc.as_bytes() };
        let mut record = serializer.serialize_struct("KeyRecord", 8)?;
        record.serialize_field("iss", &self.iss)?;
        record.serialize_field("seq", &self.seq)?;
        record.serialize_field("iat", &self.iat)?;
        record.serialize_field("nbf", &self.nbf)?;
        record.serialize_field("exp", &self.exp)?;
        record.serialize_field("x5c", &Chain(&self.x5c))?;
        record.serialize_field("alg", "ES256")?;
        record.serialize_field("enc", &enc)?;
        record.end()
    }
}

fn members(object: &mut Object<'_>) -> Result<KeyRecord, Problem> {
    let record = KeyRecord {
        iss: field::institution(object, "iss")?,
        seq: object.number("seq")?,
        iat: field::time(object, "iat")?,
        nbf: field::time(object, "nbf")?,
        exp: field::time(object, "exp")?,
        x5c: object.list("x5c", CHAIN_MAX, certificate)?,
        enc: encryption_key(object)?,
    };
    // The record's own `alg`, not a header's, is what later decides how this key verifies.
    if object.text("alg")? != "ES256" {
        return Err(object.problem("alg", "is not ES256"));
    }
    if record.exp <= record.nbf || record.exp - record.nbf > VALIDITY_S_MAX {
        return Err(object.problem("exp", "is not after `nbf` and at most 400 days later"));
    }
    // A chain names each certificate once; repeated ones only make a record large.
    let distinct: BTreeSet<_> = record.x5c.iter().collect();
    if distinct.len() != record.x5c.len() {
        return Err(object.problem("x5c", "has the same certificate twice"));
    }
    if record.verifying_key().is_none() {
        return Err(object.problem("x5c[0]", "is not a certificate with a P-256 key"));
    }
    Ok(record)
}

fn certificate(object: &Object<'_>, value: Value<'_>, name: &str) -> Result<Bytes, Problem> {
    let Value::Text(text) = value else { return Err(object.problem(name, "is not a string")) };
    match strict::decode(&text) {
        Some(der) if (1..=CERTIFICATE_MAX).contains(&der.len()) => Ok(der.into()),
        _ => Err(object.problem(name, "is not base64url of a certificate of at most 4 KiB")),
    }
}

fn encryption_key(object: &mut Object<'_>) -> Result<PublicKey, Problem> {
    let mut enc = object.object("enc")?;
    let kid = field::key_id(&mut enc, "kid")?;
    let suite: Suite = field::spelled(&mut enc, "suite", "a suite of FORMATS.md §3")?;
    let bytes = strict::decode(&enc.text("pub")?).and_then(|bytes| PublicKey::new(suite, kid, &bytes));
    let key = bytes.ok_or_else(|| enc.problem("pub", "is not base64url of a public key of its suite"))?;
    enc.finish()?;
    Ok(key)
}
