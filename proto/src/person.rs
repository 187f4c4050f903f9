//! Who a person is, as far as any code says: a tagged union, never a string, because formats overlap and mean different things.
//!
//! Knows: the form and check characters of each kind of identifier. Never knows: whether the code was ever assigned, and to whom.
//! Invariants: a value was checked when it was made, and is in upper case; `Debug` shows the kind and never the code, and nothing
//! here implements `Display`, so that no code gets into a log by accident; no error repeats the text that was offered.
//! A person has none, one or many of these: no code at all is legal.
use std::{fmt, str::FromStr};

use crate::{
    ids::{InstitutionName, Token},
    pb::body::v1::{PersonIdentifier, person_identifier::Kind},
};

mod codice_fiscale;
mod encode;
pub use codice_fiscale::{CodiceFiscale, SearchHint};
pub use encode::{EncodeError, Given, encode};

/// What is wrong with an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// No kind is set, or one that this version does not know.
    #[error("names no kind of identifier")]
    Missing,
    /// Not of the form of its kind.
    #[error("not {what}: {rule}")]
    Form {
        /// Which kind, with its article.
        what: &'static str,
        /// How it is written.
        rule: &'static str,
    },
    /// The form holds and the check character does not: mistyped.
    #[error("the check character does not fit: {what} was mistyped")]
    Check {
        /// Which kind, with its article.
        what: &'static str,
    },
}

/// Declares a newtype around a checked personal code.
macro_rules! personal_code {
    ($(#[$meta:meta])* $Name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $Name(Box<str>);

        impl $Name {
            /// The code. Personal data: not for logs.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($Name), "(…)"))
            }
        }
    };
}

personal_code! {
    /// Provisional numeric code of a person (DM 23/12/1976 art. 10), e.g. of an asylum seeker. Organisations' codes have the same
    /// form and check digit: only the kind says that this one is a person's.
    ProvisionalNumeric
}
personal_code! {
    /// Straniero temporaneamente presente. Restricted: it reveals irregular stay.
    Stp
}
personal_code! {
    /// Europeo non iscritto. Restricted: it reveals indigence.
    Eni
}
personal_code! {
    /// ANPR's identificativo unico nazionale. Its exact form is not published; letters and digits are all that is checked.
    IdAnpr
}

impl FromStr for ProvisionalNumeric {
    type Err = IdentifierError;
    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        const WHAT: &str = "a provisional numeric code";
        let form = IdentifierError::Form { what: WHAT, rule: "11 digits, not all zero" };
        if text.len() != 11 || !text.bytes().all(|c| c.is_ascii_digit()) || text.bytes().all(|c| c == b'0') {
            return Err(form);
        }
        // Luhn, from the left: digits at odd places count once, at even places twice. With the check digit the sum is a multiple of ten.
        let sum: u32 = text
            .bytes()
            .enumerate()
            .map(|(place, c)| {
                let digit = u32::from(c - b'0');
                if place % 2 == 0 { digit } else { (2 * digit) / 10 + (2 * digit) % 10 }
            })
            .sum();
        if sum.is_multiple_of(10) { Ok(Self(text.into())) } else { Err(IdentifierError::Check { what: WHAT }) }
    }
}

/// `prefix` and 13 digits: region, issuer, progressive number. No check digit is described anywhere.
fn health_code(text: &str, prefix: &str) -> Option<Box<str>> {
    let upper = text.to_ascii_uppercase();
    let digits = upper.strip_prefix(prefix)?;
    (digits.len() == 13 && digits.bytes().all(|c| c.is_ascii_digit())).then(|| upper.into_boxed_str())
}

impl FromStr for Stp {
    type Err = IdentifierError;
    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        health_code(text, "STP")
            .map(Self)
            .ok_or(IdentifierError::Form { what: "an STP code", rule: "STP and 13 digits" })
    }
}

impl FromStr for Eni {
    type Err = IdentifierError;
    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        health_code(text, "ENI")
            .map(Self)
            .ok_or(IdentifierError::Form { what: "an ENI code", rule: "ENI and 13 digits" })
    }
}

impl FromStr for IdAnpr {
    type Err = IdentifierError;
    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        if (1..=32).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric()) {
            Ok(Self(text.to_ascii_uppercase().into()))
        } else {
            Err(IdentifierError::Form { what: "an ID ANPR", rule: "1 to 32 letters and digits" })
        }
    }
}

/// A case number of the institution that first met the person, for people who have no code at all.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LocalCase {
    institution: InstitutionName,
    number: Token,
}

impl LocalCase {
    /// The institution that keeps the number.
    #[must_use]
    pub fn institution(&self) -> &InstitutionName {
        &self.institution
    }

    /// The number there.
    #[must_use]
    pub fn number(&self) -> &str {
        self.number.as_str()
    }
}

impl fmt::Debug for LocalCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalCase(…)")
    }
}

impl FromStr for LocalCase {
    type Err = IdentifierError;
    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        let form = IdentifierError::Form {
            what: "a local case",
            rule: "an institution name, a slash and a number of [A-Za-z0-9._:/-], 3 to 64 characters in all",
        };
        let (institution, number) = text.split_once('/').filter(|_| text.len() <= 64).ok_or(form)?;
        Ok(Self { institution: institution.parse().map_err(|_| form)?, number: number.parse().map_err(|_| form)? })
    }
}

/// One identifier of a person.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identifier {
    /// The tax code of 16 characters.
    CodiceFiscale(CodiceFiscale),
    /// The provisional tax code of 11 digits.
    ProvisionalNumeric(ProvisionalNumeric),
    /// Straniero temporaneamente presente.
    Stp(Stp),
    /// Europeo non iscritto.
    Eni(Eni),
    /// ANPR's identifier.
    IdAnpr(IdAnpr),
    /// An institution's case number.
    LocalCase(LocalCase),
}

impl Identifier {
    /// Checks what a contract carries. Issuer, dates and assurance stay with the caller: they are not part of who it is.
    pub fn from_pb(identifier: &PersonIdentifier) -> Result<Self, IdentifierError> {
        Ok(match identifier.kind.as_ref().ok_or(IdentifierError::Missing)? {
            Kind::CodiceFiscale(text) => Self::CodiceFiscale(text.parse()?),
            Kind::ProvisionalNumeric(text) => Self::ProvisionalNumeric(text.parse()?),
            Kind::Stp(text) => Self::Stp(text.parse()?),
            Kind::Eni(text) => Self::Eni(text.parse()?),
            Kind::IdAnpr(text) => Self::IdAnpr(text.parse()?),
            Kind::LocalCase(text) => Self::LocalCase(text.parse()?),
        })
    }

    /// As a contract carries it, without issuer, dates and assurance.
    #[must_use]
    pub fn to_pb(&self) -> PersonIdentifier {
        let code = self.code();
        PersonIdentifier {
            kind: Some(match self {
                Self::CodiceFiscale(_) => Kind::CodiceFiscale(code),
                Self::ProvisionalNumeric(_) => Kind::ProvisionalNumeric(code),
                Self::Stp(_) => Kind::Stp(code),
                Self::Eni(_) => Kind::Eni(code),
                Self::IdAnpr(_) => Kind::IdAnpr(code),
                Self::LocalCase(_) => Kind::LocalCase(code),
            }),
            ..PersonIdentifier::default()
        }
    }

    /// The field of the contract in which it stands.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CodiceFiscale(_) => "codice_fiscale",
            Self::ProvisionalNumeric(_) => "provisional_numeric",
            Self::Stp(_) => "stp",
            Self::Eni(_) => "eni",
            Self::IdAnpr(_) => "id_anpr",
            Self::LocalCase(_) => "local_case",
        }
    }

    /// The code without its kind. Personal data: not for logs.
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Self::CodiceFiscale(code) => code.as_str().to_owned(),
            Self::ProvisionalNumeric(code) => code.as_str().to_owned(),
            Self::Stp(code) => code.as_str().to_owned(),
            Self::Eni(code) => code.as_str().to_owned(),
            Self::IdAnpr(code) => code.as_str().to_owned(),
            Self::LocalCase(case) => format!("{}/{}", case.institution, case.number),
        }
    }

    /// One text for kind and code: what a subject tag is computed over. Personal data: not for logs.
    #[must_use]
    pub fn canonical(&self) -> String {
        format!("{}:{}", self.kind(), self.code())
    }

    /// Whether having such a code at all reveals irregular stay or indigence, so that it is shown only where it is needed.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        matches!(self, Self::Stp(_) | Self::Eni(_))
    }
}

#[cfg(test)]
mod tests;
