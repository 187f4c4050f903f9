//! The store's answers in the protocol's words, the same at the gateway and at adapters.
//!
//! Knows: which reason stands for which answer. Never knows: which field of a caller's request is at fault; the caller adds that.
//! Invariant: what only the log may know (a path, what the disk said) is logged here and not told.

use tramite_proto::reason::{Reason, Refused};

use crate::{change::Rejected, parts::PartError};

impl From<Rejected> for Refused {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::IdReused { .. } => Self::because(Reason::IdReused),
            Rejected::IdExpired => Self::because(Reason::IdExpired),
            Rejected::RequestReused { .. } => Self::because(Reason::RequestIdReused),
            Rejected::Case(refused) => *refused,
            Rejected::UnknownSequence { .. } => Self::because(Reason::DeliveryUnknown),
            Rejected::CaseChanged => Self::new(Reason::Internal, "The case has just changed; try again."),
            Rejected::Leased { .. } => Self::new(Reason::Internal, "It is on its way to the recipient; try again."),
            Rejected::ClockHeld => Self::because(Reason::ClockHeld),
            Rejected::Full => Self::because(Reason::StoreFull),
            Rejected::OverQuota => {
                let detail = "As much of this institution waits here as may; send again when some of it was delivered.";
                Self::new(Reason::QuotaExceeded, detail)
            }
            Rejected::PartMissing { .. } => Self::because(Reason::PartMissing),
            Rejected::TooLarge { what } => {
                Self::new(Reason::PayloadTooLarge, format!("Over the store's limit for {what}."))
            }
            Rejected::Closing => Self::because(Reason::ShuttingDown),
            Rejected::Failed => Self::because(Reason::StoreFailed),
            Rejected::Unreadable(error) => {
                tracing::error!(%error, "the store cannot read what it has to know");
                Self::because(Reason::StoreFailed)
            }
            other @ (Rejected::Malformed { .. } | Rejected::NotSigned(_)) => {
                tracing::error!(error = %other, "the store refused what this program itself wrote");
                Self::because(Reason::Internal)
            }
        }
    }
}

impl From<PartError> for Refused {
    fn from(error: PartError) -> Self {
        match error {
            PartError::Missing { .. } => Self::because(Reason::PartUnknown),
            PartError::Mismatch { what } => {
                Self::new(Reason::PartMismatch, format!("The part is not what was announced: {what}."))
            }
            PartError::TooLarge { what } => {
                Self::new(Reason::PayloadTooLarge, format!("Over the store's limit for {what}."))
            }
            PartError::Full => Self::because(Reason::StoreFull),
            PartError::Io(error) => {
                tracing::error!(%error, "a part could not be read or written");
                Self::because(Reason::StoreFailed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_does_not_fit_is_refused_in_a_sentence() {
        let refused = Refused::from(PartError::Mismatch { what: "the offset is beyond its end" });
        assert_eq!(refused.reason, Reason::PartMismatch);
        assert_eq!(refused.detail, "The part is not what was announced: the offset is beyond its end.");
    }

    #[test]
    fn a_store_that_cannot_read_has_failed_and_is_no_fault_of_the_program() {
        let unreadable = Rejected::Unreadable(crate::ReadError::Failed);
        assert_eq!(Refused::from(unreadable).reason, Reason::StoreFailed);
    }

    #[test]
    fn what_a_case_refuses_is_told_as_it_was_said() {
        let said = Refused::because(Reason::CaseTransitionInvalid).field("cs");
        let refused = Refused::from(Rejected::Case(Box::new(said)));
        assert_eq!((refused.reason, refused.field.as_deref()), (Reason::CaseTransitionInvalid, Some("cs")));
    }
}
