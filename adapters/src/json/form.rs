//! How a protobuf type and its JSON form become each other.
//!
//! Knows the two directions, the macro that writes them for a plain message, and scalars, dates and words. Never knows what a
//! field means: that is checked where a message is sent. Invariants: an absent member is the protobuf default and the other way
//! round, so nothing is ever written as `null`, `""` or `0`; an unknown member is an error that names the known ones.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tramite_proto::pb::body::v1 as body;

/// What is wrong with a value, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Members from the outside in, joined by dots; empty: the value itself.
    pub(crate) path: String,
    /// One sentence without a full stop.
    pub(crate) what: String,
}

impl Problem {
    /// A problem with the value itself.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { path: String::new(), what: what.into() }
    }

    /// The same problem, seen from the member that holds the value.
    pub(crate) fn within(mut self, member: &str) -> Self {
        self.path = if self.path.is_empty() { member.to_owned() } else { format!("{member}.{}", self.path) };
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.path, self.what) }
    }
}

/// The JSON form of the protobuf type `P`.
pub(crate) trait Form<P>: Sized {
    /// `None` when the value is the default and is left out.
    fn show(value: P) -> Option<Self>;
    /// The value that this form stands for.
    fn read(self) -> Result<P, Problem>;
}

macro_rules! plain {
    ($($kind:ty),*) => { $(
        impl Form<$kind> for $kind {
            fn show(value: $kind) -> Option<Self> {
                (value != <$kind>::default()).then_some(value)
            }
            fn read(self) -> Result<$kind, Problem> {
                Ok(self)
            }
        }
    )* };
}
plain!(String, bool, u32, u64, i64);

impl<P, J: Form<P>> Form<Vec<P>> for Vec<J> {
    fn show(value: Vec<P>) -> Option<Self> {
        let list: Vec<J> = value.into_iter().filter_map(J::show).collect();
        (!list.is_empty()).then_some(list)
    }

    fn read(self) -> Result<Vec<P>, Problem> {
        self.into_iter().enumerate().map(|(at, item)| item.read().map_err(|p| p.within(&at.to_string()))).collect()
    }
}

/// Bytes as lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Hex(String);

impl Form<Bytes> for Hex {
    fn show(value: Bytes) -> Option<Self> {
        (!value.is_empty()).then(|| Self(hex::encode(value)))
    }

    fn read(self) -> Result<Bytes, Problem> {
        hex::decode(&self.0).map(Bytes::from).map_err(|_| Problem::new("must be hexadecimal digits"))
    }
}

/// `"1980-01-31"`, `"1980-01"` or `"1980"`: many people know only the year.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Day(String);

impl Form<Option<body::Date>> for Day {
    fn show(value: Option<body::Date>) -> Option<Self> {
        let date = value.filter(|date| date.year != 0)?;
        Some(Self(match (date.month, date.day) {
            (0, _) => format!("{:04}", date.year),
            (month, 0) => format!("{:04}-{month:02}", date.year),
            (month, day) => format!("{:04}-{month:02}-{day:02}", date.year),
        }))
    }

    fn read(self) -> Result<Option<body::Date>, Problem> {
        let wrong = || Problem::new(format!("`{}` is not a date: write 1980-01-31, 1980-01 or 1980", self.0));
        let mut numbers = Vec::new();
        for (at, part) in self.0.split('-').enumerate() {
            let width = if at == 0 { 4 } else { 2 };
            if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong());
            }
            numbers.push(part.parse::<i32>().map_err(|_| wrong())?);
        }
        match numbers.as_slice() {
            [year] => Ok(Some(body::Date { year: *year, month: 0, day: 0 })),
            [year, month] => Ok(Some(body::Date { year: *year, month: *month, day: 0 })),
            [year, month, day] => Ok(Some(body::Date { year: *year, month: *month, day: *day })),
            _ => Err(wrong()),
        }
    }
}

/// A protobuf enumeration as a lower-case word, without the prefix of its names.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident => $kind:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $name(String);

        impl $crate::json::form::Form<i32> for $name {
            fn show(value: i32) -> Option<Self> {
                let known = <$kind>::try_from(value).ok().filter(|_| value != 0)?;
                Some(Self(known.as_str_name().trim_start_matches($prefix).to_ascii_lowercase()))
            }

            fn read(self) -> Result<i32, $crate::json::form::Problem> {
                let name = format!("{}{}", $prefix, self.0.to_ascii_uppercase());
                match <$kind>::from_str_name(&name).map(|known| known as i32) {
                    Some(known) if known != 0 => Ok(known),
                    _ => {
                        // Enumerations here have fewer than 32 values, numbered from 1.
                        let words: Vec<String> = (1..32).filter_map(|n| Self::show(n).map(|word| word.0)).collect();
                        let what = format!("`{}` is none of {}", self.0, words.join(", "));
                        Err($crate::json::form::Problem::new(what))
                    }
                }
            }
        }
    };
}
pub(crate) use word;

/// The JSON form of a message whose fields have the names and order given.
macro_rules! form {
    ($(#[$doc:meta])* $name:ident => $kind:ty { $($field:ident : $form:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $(
                #[doc = concat!("`", stringify!($field), "`, as in the contract.")]
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub(crate) $field: Option<$form>,
            )*
        }

        impl $crate::json::form::Form<$kind> for $name {
            fn show(value: $kind) -> Option<Self> {
                Some(Self { $($field: $crate::json::form::Form::show(value.$field),)* })
            }

            fn read(self) -> Result<$kind, $crate::json::form::Problem> {
                type Made = $kind;
                Ok(Made {
                    $($field: match self.$field {
                        Some(form) => $crate::json::form::Form::read(form).map_err(|p| p.within(stringify!($field)))?,
                        None => Default::default(),
                    },)*
                })
            }
        }

        impl $crate::json::form::Form<Option<$kind>> for $name {
            fn show(value: Option<$kind>) -> Option<Self> {
                value.and_then(<Self as $crate::json::form::Form<$kind>>::show)
            }

            fn read(self) -> Result<Option<$kind>, $crate::json::form::Problem> {
                <Self as $crate::json::form::Form<$kind>>::read(self).map(Some)
            }
        }
    };
}
pub(crate) use form;
