//! Ids that are short texts of a fixed alphabet: institution names, key ids, request ids, ModI tokens.
//!
//! Knows: alphabet and length of each. Never knows: who or what bears the name.
//! Invariant: ASCII only, so that bytes, characters and file names agree; no path separator in what becomes a file name.
use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::IdError;

/// Declares a newtype around a checked text.
macro_rules! text_id {
    ($(#[$meta:meta])* $Name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $Name(Box<str>);

        impl $Name {
            /// As written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $Name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&[u8]) -> bool = $check;
                if check(text.as_bytes()) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError::Text { what: $what, rule: $rule })
                }
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl AsRef<str> for $Name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $Name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $Name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $Name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl Serialize for $Name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $Name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

text_id! {
    /// The name of a participant, as in the SAN of its certificate. A DNS label, so it fits file names, metrics and URIs.
    InstitutionName, "an institution name",
    "1 to 63 lower-case letters, digits and hyphens, no hyphen first or last",
    |text| {
        let inner = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        (1..=63).contains(&text.len())
            && text.iter().all(|c| inner(c) || *c == b'-')
            && text.first().is_some_and(inner)
            && text.last().is_some_and(inner)
    }
}
text_id! {
    /// Names an encryption key of an institution. It becomes a file name: no separator, no leading point.
    KeyId, "a key id", "1 to 64 characters of [A-Za-z0-9._-], no point first",
    |text| {
        (1..=64).contains(&text.len())
            && text.iter().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(c))
            && text.first() != Some(&b'.')
    }
}
text_id! {
    /// A caller's own id of a request to its adapter.
    RequestId, "a request id", "1 to 128 characters of [A-Za-z0-9._:-]",
    |text| (1..=128).contains(&text.len()) && text.iter().all(|c| c.is_ascii_alphanumeric() || b"._:-".contains(c))
}
text_id! {
    /// Agreement, operator pseudonym, location: the short free names of an origin statement (ModI AUDIT).
    Token, "a token", "1 to 64 characters of [A-Za-z0-9._:/-]",
    |text| (1..=64).contains(&text.len()) && text.iter().all(|c| c.is_ascii_alphanumeric() || b"._:/-".contains(c))
}
