//! A refusal on its way: reason, one sentence, the fields at fault, when to come back.
//!
//! Knows: how it becomes a gRPC status with google.rpc details (AIP-193), an `exchange.v1.Refusal`, and comes back from both.
//! Never knows: content or personal data; `detail` must be free of both, because it travels and is logged.
use std::{fmt, time::Duration};

use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use super::{Reason, Retry};
use crate::pb;

/// The `domain` of google.rpc.ErrorInfo.
pub const DOMAIN: &str = "tramite";

/// At most so many field violations travel with a status: they go in HTTP/2 trailers, which peers limit to some KiB.
const FIELD_PROBLEMS_MAX: usize = 16;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// Path, e.g. `referral.person.identifiers[0].codice_fiscale`.
    pub field: String,
    /// What is wrong, without repeating the value.
    pub problem: String,
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The stable word.
    pub reason: Reason,
    /// One sentence: what is wrong and what to do. No content, no personal data.
    pub detail: String,
    /// The field at fault, when it is one.
    pub field: Option<String>,
    /// Milliseconds; none: the reason's own.
    pub retry_after_ms: Option<u64>,
    /// Every field at fault, when a whole body was checked.
    pub problems: Vec<FieldProblem>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// With one sentence of detail.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), field: None, retry_after_ms: None, problems: Vec::new() }
    }

    /// With the reason's own meaning as detail.
    #[must_use]
    pub fn because(reason: Reason) -> Self {
        Self::new(reason, reason.meaning())
    }

    /// Names the field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Names the time after which to come back.
    #[must_use]
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// FIELD_INVALID for a whole list of problems. An empty list would be a caller's mistake and still refuses.
    #[must_use]
    pub fn fields(problems: Vec<FieldProblem>) -> Self {
        let mut refused = Self::because(Reason::FieldInvalid);
        if let Some(first) = problems.first() {
            refused.field = Some(first.field.clone());
            refused.detail = match problems.len() - 1 {
                0 => first.to_string(),
                more => format!("{first} (and {more} more)"),
            };
        }
        refused.problems = problems;
        refused
    }

    /// False: the same again meets the same answer.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.reason.retryable()
    }

    /// Milliseconds after which to come back; none: never.
    #[must_use]
    pub fn come_back_ms(&self) -> Option<u64> {
        match self.reason.retry() {
            Retry::Never => None,
            Retry::AfterMs(ms) => Some(self.retry_after_ms.unwrap_or(ms)),
        }
    }

    /// As the failure of a call, with google.rpc ErrorInfo, BadRequest and RetryInfo.
    #[must_use]
    pub fn to_status(&self) -> tonic::Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(self.reason.as_str(), DOMAIN, std::collections::HashMap::new());
        if self.problems.is_empty() {
            if let Some(field) = &self.field {
                details.add_bad_request_violation(field, &self.detail);
            }
        } else {
            let violations: Vec<_> = self
                .problems
                .iter()
                .take(FIELD_PROBLEMS_MAX)
                .map(|problem| FieldViolation::new(&problem.field, &problem.problem))
                .collect();
            details.set_bad_request(violations);
        }
        if let Some(ms) = self.come_back_ms() {
            details.set_retry_info(Some(Duration::from_millis(ms)));
        }
        tonic::Status::with_error_details(self.reason.code(), self.detail.clone(), details)
    }

    /// From the failure of a call; none when it carries no reason of this domain that this version knows.
    #[must_use]
    pub fn from_status(status: &tonic::Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let mut refused = Self::new(info.reason.parse().ok()?, status.message());
        refused.retry_after_ms = details
            .retry_info()
            .and_then(|info| info.retry_delay)
            .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        refused.field = violations.first().map(|violation| violation.field.clone());
        if violations.len() > 1 {
            refused.problems = violations
                .iter()
                .map(|violation| FieldProblem {
                    field: violation.field.clone(),
                    problem: violation.description.clone(),
                })
                .collect();
        }
        Some(refused)
    }

    /// As an answer in a stream, without evidence.
    #[must_use]
    pub fn to_refusal(&self) -> pb::exchange::v1::Refusal {
        pb::exchange::v1::Refusal {
            reason: self.reason.as_str().to_owned(),
            detail: self.detail.clone(),
            retryable: self.retryable(),
            retry_after_ms: self.come_back_ms().unwrap_or(0),
            evidence: None,
        }
    }

    /// From an answer in a stream. A reason that this version does not know stands in the detail, and whether it may be tried
    /// again is what the refusal says.
    #[must_use]
    pub fn from_refusal(refusal: &pb::exchange::v1::Refusal) -> Self {
        let mut refused = match refusal.reason.parse() {
            Ok(reason) => Self::new(reason, refusal.detail.clone()),
            Err(_) => {
                let reason = if refusal.retryable { Reason::NackTransient } else { Reason::NackPermanent };
                Self::new(reason, format!("{}: {}", refusal.reason, refusal.detail))
            }
        };
        if refusal.retry_after_ms > 0 {
            refused.retry_after_ms = Some(refusal.retry_after_ms);
        }
        refused
    }
}

impl From<Refused> for tonic::Status {
    fn from(refused: Refused) -> Self {
        refused.to_status()
    }
}

impl From<crate::ids::IdError> for Refused {
    fn from(error: crate::ids::IdError) -> Self {
        Self::new(Reason::FieldInvalid, error.to_string())
    }
}

impl From<crate::codes::UnknownCode> for Refused {
    fn from(error: crate::codes::UnknownCode) -> Self {
        Self::new(Reason::FieldInvalid, error.to_string())
    }
}
