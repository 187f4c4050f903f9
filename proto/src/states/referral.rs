//! What a referral becomes, from `requested` to `closed`: the loop is closed when its sender has seen what came of it.
//!
//! Knows: the statuses and the table of who moves them. Never knows: benefits, persons, messages.
//! Invariants: only the opener closes and corrects, only the responder works, only the clock expires.
use super::{
    Next, Party, ReasonRule,
    ReasonRule::{Optional, Required},
    Standing, Transition,
};
use crate::codes::codes;

codes! {
    /// Where a referral stands.
    pub enum Status("a referral status") {
        Requested = "requested", "sent; waits for its recipient";
        Received = "received", "seen by its recipient, not decided";
        Accepted = "accepted", "taken in charge (presa in carico)";
        Rejected = "rejected", "declined, by the provider or by the person";
        Rerouted = "rerouted", "referred on to another institution; a case of its own goes on there";
        InProgress = "in_progress", "being worked on";
        OnHold = "on_hold", "waits for something; has a date to be looked at again";
        Completed = "completed", "done, with an outcome";
        Failed = "failed", "could not be done";
        Cancelled = "cancelled", "ended by either side before it was done";
        Expired = "expired", "nobody took it up before its deadline";
        Closed = "closed", "its sender has seen the outcome: the loop is closed";
        EnteredInError = "entered_in_error", "should never have been sent";
    }
}

use Status::{
    Accepted, Cancelled, Closed, Completed, EnteredInError, Expired, Failed, InProgress, OnHold, Received, Rejected,
    Requested, Rerouted,
};

const OPENER: &[Party] = &[Party::Opener];
const RESPONDER: &[Party] = &[Party::Responder];
const EITHER: &[Party] = &[Party::Opener, Party::Responder];
const CLOCK: &[Party] = &[Party::Gateway];

const fn line(from: Status, to: Status, by: &'static [Party], reason: ReasonRule) -> Transition<Status> {
    Transition { from: Some(from), to, by, reason }
}

/// Every move that there is.
pub const TRANSITIONS: &[Transition<Status>] = &[
    Transition { from: None, to: Requested, by: OPENER, reason: Optional },
    line(Requested, Received, RESPONDER, Optional),
    line(Requested, Accepted, RESPONDER, Optional),
    line(Requested, Rejected, RESPONDER, Required),
    line(Requested, Rerouted, RESPONDER, Optional),
    line(Requested, Cancelled, EITHER, Required),
    line(Requested, Expired, CLOCK, Optional),
    line(Requested, EnteredInError, OPENER, Required),
    line(Received, Accepted, RESPONDER, Optional),
    line(Received, Rejected, RESPONDER, Required),
    line(Received, Rerouted, RESPONDER, Optional),
    line(Received, Cancelled, EITHER, Required),
    line(Received, Expired, CLOCK, Optional),
    line(Received, EnteredInError, OPENER, Required),
    line(Accepted, InProgress, RESPONDER, Optional),
    line(Accepted, OnHold, RESPONDER, Required),
    line(Accepted, Cancelled, EITHER, Required),
    line(Accepted, EnteredInError, OPENER, Required),
    line(InProgress, OnHold, RESPONDER, Required),
    line(InProgress, Completed, RESPONDER, Optional),
    line(InProgress, Failed, RESPONDER, Required),
    line(InProgress, Cancelled, EITHER, Required),
    line(InProgress, EnteredInError, OPENER, Required),
    line(OnHold, InProgress, RESPONDER, Optional),
    line(OnHold, Completed, RESPONDER, Optional),
    line(OnHold, Failed, RESPONDER, Required),
    line(OnHold, Cancelled, EITHER, Required),
    line(OnHold, EnteredInError, OPENER, Required),
    line(Completed, Closed, OPENER, Optional),
    line(Completed, EnteredInError, OPENER, Required),
    line(Failed, Closed, OPENER, Optional),
    line(Failed, EnteredInError, OPENER, Required),
    line(Rejected, Closed, OPENER, Optional),
    line(Rejected, EnteredInError, OPENER, Required),
    line(Expired, Closed, OPENER, Optional),
    line(Expired, EnteredInError, OPENER, Required),
    line(Rerouted, EnteredInError, OPENER, Required),
    line(Cancelled, EnteredInError, OPENER, Required),
];

/// Who has the next move in each status.
pub const STANDINGS: &[Standing<Status>] = &[
    Standing { status: Requested, next: Next::Responder },
    Standing { status: Received, next: Next::Responder },
    Standing { status: Accepted, next: Next::Responder },
    Standing { status: InProgress, next: Next::Responder },
    Standing { status: OnHold, next: Next::Responder },
    Standing { status: Completed, next: Next::Opener },
    Standing { status: Failed, next: Next::Opener },
    Standing { status: Rejected, next: Next::Opener },
    Standing { status: Expired, next: Next::Opener },
    Standing { status: Rerouted, next: Next::Nobody },
    Standing { status: Cancelled, next: Next::Nobody },
    Standing { status: Closed, next: Next::Nobody },
    Standing { status: EnteredInError, next: Next::Nobody },
];
