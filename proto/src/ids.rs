//! The names of things: messages, conversations, cases, institutions, digests, keys.
//!
//! Knows: how each is written and what makes it well formed (FORMATS.md §2). Never knows: whether the thing exists.
//! Invariants: a value was checked when it was made (parse once, at the edge); two spellings of one id do not exist, because
//! only the canonical spelling parses. No error repeats the text that was offered.
use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

mod text;
pub use text::{InstitutionName, KeyId, RequestId, Token};

/// What is wrong with the text or bytes of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a lower-case hyphenated UUID.
    #[error("not a lower-case hyphenated UUID of 36 characters")]
    Uuid,
    /// Not the right number of bytes.
    #[error("{actual} bytes instead of {expected}")]
    Length {
        /// How many there should be.
        expected: usize,
        /// How many there are.
        actual: usize,
    },
    /// Not canonical base64url without padding.
    #[error("not canonical base64url without padding")]
    Base64,
    /// A text id with characters or a length that it may not have.
    #[error("not {what}: {rule}")]
    Text {
        /// Which id, with its article.
        what: &'static str,
        /// How it is written.
        rule: &'static str,
    },
}

/// Declares a newtype around a UUID.
macro_rules! uuid_id {
    ($(#[$meta:meta])* $Name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $Name(Uuid);

        impl $Name {
            /// The 16 bytes, as they stand in bindings and in the journal.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From exactly 16 bytes.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
                let bytes = <[u8; 16]>::try_from(bytes)
                    .map_err(|_| IdError::Length { expected: 16, actual: bytes.len() })?;
                Ok(Self(Uuid::from_bytes(bytes)))
            }
        }

        impl FromStr for $Name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let id = Uuid::try_parse(text).map_err(|_| IdError::Uuid)?;
                // The crate also reads upper case, braces and urn:uuid:, which would be second spellings of one id.
                let mut buffer = Uuid::encode_buffer();
                if *id.hyphenated().encode_lower(&mut buffer) == *text { Ok(Self(id)) } else { Err(IdError::Uuid) }
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl AsRef<[u8]> for $Name {
            fn as_ref(&self) -> &[u8] {
                self.as_bytes()
            }
        }

        impl Serialize for $Name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
        }

        impl<'de> Deserialize<'de> for $Name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

uuid_id! {
    /// A message. Made as UUIDv7 (RFC 9562 §5.7); whoever reads one from a peer asks [`MessageId::is_v7`].
    MessageId
}
uuid_id! {
    /// A conversation: what belongs together between institutions, in order for each recipient.
    ConversationId
}
uuid_id! {
    /// A case: the id of the message that opened it.
    CaseId
}

/// The text of an id that stands in a fact as bytes; empty when they are none.
#[must_use]
pub fn uuid_text(bytes: &[u8]) -> String {
    MessageId::from_bytes(bytes).map(|id| id.to_string()).unwrap_or_default()
}

impl MessageId {
    /// A UUIDv7 of this millisecond. Time and randomness are the caller's.
    #[must_use]
    pub fn new(now_ms: i64, random: [u8; 10]) -> Self {
        // Before 1970 or beyond the year 10889 only a broken clock leads; the id stays unique by its random part.
        let millis = u64::try_from(now_ms).unwrap_or(0) & 0xFFFF_FFFF_FFFF;
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// Whether it is a UUIDv7 of the RFC 9562 variant, as every message id must be.
    #[must_use]
    pub fn is_v7(&self) -> bool {
        self.0.get_version_num() == 7 && self.0.get_variant() == uuid::Variant::RFC4122
    }

    /// The unix milliseconds in a UUIDv7, as its maker's clock had them.
    #[must_use]
    pub fn made_ms(&self) -> Option<i64> {
        // 48 bits always fit.
        self.is_v7().then(|| i64::try_from(self.0.as_u128() >> 80).unwrap_or(0))
    }
}

impl ConversationId {
    /// A new conversation (UUIDv7, so that they sort by age). Time and randomness are the caller's.
    #[must_use]
    pub fn new(now_ms: i64, random: [u8; 10]) -> Self {
        Self(MessageId::new(now_ms, random).0)
    }
}

impl From<MessageId> for CaseId {
    fn from(id: MessageId) -> Self {
        Self(id.0)
    }
}

impl CaseId {
    /// The message that opened the case.
    #[must_use]
    pub fn opened_by(self) -> MessageId {
        MessageId(self.0)
    }
}

/// A SHA-256. Written as base64url without padding (43 characters) in statements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
        Self(digest)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From exactly 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        <[u8; 32]>::try_from(bytes).map(Self).map_err(|_| IdError::Length { expected: 32, actual: bytes.len() })
    }

    /// 64 lower-case hexadecimal digits, for logs and file names.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        // The engine refuses padding and non-zero trailing bits, so a digest has one spelling.
        Self::from_bytes(&URL_SAFE_NO_PAD.decode(text).map_err(|_| IdError::Base64)?)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
