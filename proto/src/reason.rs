//! Why something was refused, given up or put off: one stable word for each cause, and the one table of what it means to a caller.
//!
//! Knows: every reason, its gRPC status, whether the same thing may be tried again and when, its meaning in one line, and how a
//! refusal travels (google.rpc details, `exchange.v1.Refusal`). Never knows: who refuses, or content.
//! Invariants: a reason's string never changes; the match over the table is exhaustive; REASONS.md is written from the table
//! ([`documentation`]) and a test holds it equal, and FORMATS.md's bracketed reasons and the contracts' `STATUS / REASON` pairs with it.
use std::{fmt, str::FromStr};

mod refused;
mod table;
pub use refused::{DOMAIN, FieldProblem, Refused};
pub use table::Reason;

/// Whether the same thing may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same again meets the same answer.
    Never,
    /// After about so many milliseconds, unless the refusal names its own time.
    AfterMs(u64),
}

/// A text that is no reason of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a reason known to this version")]
pub struct UnknownReason;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The reason.
    pub reason: Reason,
    /// Its stable word.
    pub word: &'static str,
    /// Status of a call that fails for it.
    pub code: tonic::Code,
    /// Whether to try again.
    pub retry: Retry,
    /// What it means, in one line.
    pub meaning: &'static str,
}

impl Reason {
    /// The stable word, e.g. `SIGNATURE_INVALID`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().word
    }

    /// The gRPC status of a call that fails for it.
    #[must_use]
    pub const fn code(self) -> tonic::Code {
        self.row().code
    }

    /// Whether the same thing may be tried again.
    #[must_use]
    pub const fn retry(self) -> Retry {
        self.row().retry
    }

    /// False: the same again meets the same answer.
    #[must_use]
    pub fn retryable(self) -> bool {
        self.retry() != Retry::Never
    }

    /// What it means, in one line.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// Every reason, in the order of the table.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        Self::ROWS.iter().map(|row| row.reason)
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;
    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ROWS.iter().find(|row| row.word == text).map(|row| row.reason).ok_or(UnknownReason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// REASONS.md, written from the table.
#[must_use]
pub fn documentation() -> String {
    let mut text = String::from(
        "# Reasons\n\nWritten from the table in `proto/src/reason/table.rs`; a test holds this page equal to it. A word never changes its\n\
         meaning. *Status* is that of a call that fails for the reason; in a stream the reason stands in the answer instead.\n\
         *Again* says whether the same thing may be tried again, and after how many milliseconds unless the refusal names its own time.\n\
         For connections that came to nothing the log and the counters have finer words: `certs/src/refusal.rs`.\n",
    );
    for (heading, rows) in Reason::GROUPS {
        text.push_str(&format!("\n## {heading}\n| Reason | Status | Again | Meaning |\n|---|---|---|---|\n"));
        for row in *rows {
            let again = match row.retry {
                Retry::Never => "never".to_owned(),
                Retry::AfterMs(ms) => format!("{ms} ms"),
            };
            text.push_str(&format!("| `{}` | {} | {again} | {} |\n", row.word, status_name(row.code), row.meaning));
        }
    }
    text
}

/// The name of a status as specifications write it.
#[must_use]
pub fn status_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests;
