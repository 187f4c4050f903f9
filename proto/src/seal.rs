//! Sealing: a body encrypted to its recipient's key with HPKE, bound to its message (FORMATS.md §3).
//!
//! Knows the two suites, the binding and the padding. Never knows whose key it is: a public key gets here verified. Invariants: private
//! keys are zeroed when dropped and shown nowhere; the suite is the key's, never chosen by the bytes; what opens is exactly what was
//! committed to, or it is refused.
mod body;
mod hpke_suite;

use std::{fmt, str::FromStr};

use bytes::Bytes;
use serde::Serialize;
use zeroize::Zeroizing;

pub use self::body::{check_body, message_type};
use crate::{
    commitment::{self, BODY_MAX, PADDED_MAX, PADDED_MIN, SALT_LEN},
    ids::{CaseId, ConversationId, Digest, InstitutionName, KeyId, MessageId},
    reason::{Reason, Refused},
};

const INFO: &[u8] = b"tramite/v1 hpke-body";
const AAD_LABEL: &[u8] = b"tramite-aad-v1";
/// Bytes of the AES-GCM tag behind a ciphertext.
const TAG: u64 = 16;
/// Bytes of a private key of either suite (X-Wing's is the seed of both its halves).
pub const PRIVATE_KEY_LEN: usize = 32;

/// An HPKE suite (RFC 9180, mode Base), by its name in statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
    X25519,
    /// X-Wing (ML-KEM-768 with X25519): against those who store today what they hope to open with a quantum computer.
    XWing,
}

impl Suite {
    /// Its name in statements.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X25519 => "X25519-SHA256-AES256GCM",
            Self::XWing => "XWING-SHA256-AES256GCM",
        }
    }

    /// A later key record may be as strong or stronger, never weaker.
    pub fn strength(self) -> u32 {
        match self {
            Self::X25519 => 1,
            Self::XWing => 2,
        }
    }

    /// Bytes of the encapsulated key.
    pub const fn enc_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::XWing => 1120,
        }
    }

    /// Both.
    pub fn all() -> [Self; 2] {
        [Self::X25519, Self::XWing]
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a suite: X25519-SHA256-AES256GCM or XWING-SHA256-AES256GCM")]
pub struct UnknownSuite;

impl FromStr for Suite {
    type Err = UnknownSuite;

    fn from_str(text: &str) -> Result<Self, UnknownSuite> {
        Self::all().into_iter().find(|suite| suite.as_str() == text).ok_or(UnknownSuite)
    }
}

impl Serialize for Suite {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Suite {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A recipient's public key, of its suite's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    suite: Suite,
    kid: KeyId,
    bytes: Bytes,
}

impl PublicKey {
    /// Checks that `bytes` are a public key of the suite.
    pub fn new(suite: Suite, kid: KeyId, bytes: &[u8]) -> Option<Self> {
        hpke_suite::is_public_key(suite, bytes).then(|| Self { suite, kid, bytes: Bytes::copy_from_slice(bytes) })
    }

    /// Its suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Its name.
    pub fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A private key. Zeroed when dropped; `Debug` shows its suite only.
#[derive(Clone)]
pub struct PrivateKey {
    suite: Suite,
    bytes: Zeroizing<[u8; PRIVATE_KEY_LEN]>,
}

impl PrivateKey {
    /// A new one, from the operating system's randomness.
    pub fn generate(suite: Suite) -> Result<Self, NoRandomness> {
        let mut bytes = Zeroizing::new([0; PRIVATE_KEY_LEN]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| NoRandomness)?;
        Ok(Self { suite, bytes })
    }

    /// From its 32 bytes; `None` at any other length.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Option<Self> {
        let bytes = Zeroizing::new(<[u8; PRIVATE_KEY_LEN]>::try_from(bytes).ok()?);
        Some(Self { suite, bytes })
    }

    /// Its 32 bytes, for its file.
    pub fn to_bytes(&self) -> Zeroizing<[u8; PRIVATE_KEY_LEN]> {
        self.bytes.clone()
    }

    /// Its suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The public key that belongs to it, under a name.
    pub fn public_key(&self, kid: KeyId) -> PublicKey {
        PublicKey { suite: self.suite, kid, bytes: hpke_suite::public_key(self.suite, &self.bytes).into() }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("suite", &self.suite).finish_non_exhaustive()
    }
}

/// The operating system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no randomness")]
pub struct NoRandomness;

/// The routing facts to which a sealed body is bound: it opens under no others.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Message id.
    pub jti: &'a MessageId,
    /// Conversation id.
    pub cid: &'a ConversationId,
    /// Case.
    pub case: &'a CaseId,
    /// Issuer: nobody signs somebody else's ciphertext as his own.
    pub iss: &'a InstitutionName,
    /// Audience.
    pub aud: &'a InstitutionName,
    /// Message type.
    pub mt: &'a str,
    /// The recipient's key.
    pub kid: &'a KeyId,
    /// Expiry, unix seconds.
    pub exp: i64,
}

impl Context<'_> {
    /// The bytes that HPKE authenticates beside the ciphertext.
    pub fn aad(&self) -> Vec<u8> {
        let mut aad = Vec::with_capacity(256);
        let exp = self.exp.to_be_bytes();
        for field in [
            AAD_LABEL,
            self.jti.as_bytes(),
            self.cid.as_bytes(),
            self.case.as_bytes(),
            self.iss.as_str().as_bytes(),
            self.aud.as_str().as_bytes(),
            self.mt.as_bytes(),
            self.kid.as_str().as_bytes(),
            &exp,
        ] {
            // Only `mt` is not bounded by its type, and no origin has one over 128 bytes; saturating keeps this total.
            aad.extend_from_slice(&u16::try_from(field.len()).unwrap_or(u16::MAX).to_be_bytes());
            aad.extend_from_slice(field);
        }
        aad
    }
}

/// A sealed body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// HPKE encapsulated key.
    pub enc: Bytes,
    /// Ciphertext of the padded plaintext, and its tag.
    pub ciphertext: Bytes,
    /// Commitment to the plaintext, for origin.
    pub ptc: Digest,
}

/// Why nothing was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Put documents into parts, or shorten the text.
    #[error("the body has {0} bytes; at most {BODY_MAX} fit, documents travel as attachments")]
    BodyTooLong(usize),
    /// The key's bytes do not work: the recipient must publish another.
    #[error("the recipient's key cannot be used")]
    KeyUnusable,
}

/// Seals `body` to `to` in `context`, under a salt of 32 random bytes that is used for nothing else.
pub fn seal(to: &PublicKey, context: &Context<'_>, body: &[u8], salt: [u8; SALT_LEN]) -> Result<Sealed, SealError> {
    let plaintext = commitment::pad(&salt, body).ok_or(SealError::BodyTooLong(body.len()))?;
    let (enc, ciphertext) =
        hpke_suite::seal(to.suite, &to.bytes, INFO, &plaintext, &context.aad()).ok_or(SealError::KeyUnusable)?;
    Ok(Sealed { enc: enc.into(), ciphertext: ciphertext.into(), ptc: commitment::commit(&salt, body) })
}

/// A body opened: its bytes, and the salt with which it can be disclosed later.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// Protobuf `tramite.body.v1.Body`.
    pub body: Bytes,
    /// The salt of its commitment.
    pub salt: [u8; SALT_LEN],
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("length", &self.body.len()).finish_non_exhaustive()
    }
}

/// Opens a sealed body (DECRYPTION_FAILED) and checks its padding and its commitment (COMMITMENT_MISMATCH).
pub fn open(
    key: &PrivateKey,
    context: &Context<'_>,
    enc: &[u8],
    ciphertext: &[u8],
    ptc: &Digest,
) -> Result<Bytes, Refused> {
    open_salted(key, context, enc, ciphertext, ptc).map(|opened| opened.body)
}

/// As [`open`], with the salt.
pub fn open_salted(
    key: &PrivateKey,
    context: &Context<'_>,
    enc: &[u8],
    ciphertext: &[u8],
    ptc: &Digest,
) -> Result<Opened, Refused> {
    let plaintext = hpke_suite::open(key.suite, &key.bytes, enc, INFO, ciphertext, &context.aad());
    let Some(plaintext) = plaintext else {
        return Err(Refused::new(
            Reason::DecryptionFailed,
            "The body does not open under the recipient's key in this message.",
        ));
    };
    match commitment::unpad(&plaintext) {
        Some((salt, body)) if commitment::commit(&salt, &body) == *ptc => Ok(Opened { body, salt }),
        _ => {
            Err(Refused::new(Reason::CommitmentMismatch, "The opened body is not the one that the origin commits to."))
        }
    }
}

/// True for the length of a padded body's ciphertext: a power of two from 512 to 65,536, and the tag.
pub(crate) fn is_ciphertext_len(length: u64) -> bool {
    let bounds = PADDED_MIN as u64..=PADDED_MAX as u64;
    length.checked_sub(TAG).is_some_and(|padded| padded.is_power_of_two() && bounds.contains(&padded))
}

#[cfg(test)]
mod tests;
