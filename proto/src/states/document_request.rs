//! What a document request becomes, from `requested` to `confirmed` (after the EU's Once-Only exchange, with its error codes).
//!
//! Knows: the statuses and the table of who moves them. Never knows: documents, persons, messages.
//! Invariants: only the holder answers, only the requester confirms, disputes or cancels, only the clock expires. A holder that
//! answers at once may skip `received`: whatever it may do from there it may do from `requested`.
use super::{
    Next, Party, ReasonRule,
    ReasonRule::{Optional, Required},
    Standing, Transition,
};
use crate::codes::codes;

codes! {
    /// Where a document request stands.
    pub enum Status("a document request status") {
        Requested = "requested", "sent; waits for the holder";
        Received = "received", "seen by the holder";
        InProcess = "in_process", "being looked for";
        ActionRequired = "action_required", "the person or the requester must act first: preview, consent, more data";
        Deferred = "deferred", "will be there at a named time";
        Provided = "provided", "answered; waits for the requester's confirmation";
        Confirmed = "confirmed", "the requester has what it asked for";
        Disputed = "disputed", "what came is not what was asked for: wrong subject, wrong digest";
        Refused = "refused", "the holder will not or cannot provide it";
        Cancelled = "cancelled", "taken back by the requester";
        Expired = "expired", "not answered before its deadline";
    }
}

use Status::{
    ActionRequired, Cancelled, Confirmed, Deferred, Disputed, Expired, InProcess, Provided, Received, Refused,
    Requested,
};

const OPENER: &[Party] = &[Party::Opener];
const RESPONDER: &[Party] = &[Party::Responder];
const CLOCK: &[Party] = &[Party::Gateway];

const fn line(from: Status, to: Status, by: &'static [Party], reason: ReasonRule) -> Transition<Status> {
    Transition { from: Some(from), to, by, reason }
}

/// Every move that there is.
pub const TRANSITIONS: &[Transition<Status>] = &[
    Transition { from: None, to: Requested, by: OPENER, reason: Optional },
    line(Requested, Received, RESPONDER, Optional),
    line(Requested, InProcess, RESPONDER, Optional),
    line(Requested, ActionRequired, RESPONDER, Optional),
    line(Requested, Deferred, RESPONDER, Optional),
    line(Requested, Provided, RESPONDER, Optional),
    line(Requested, Refused, RESPONDER, Required),
    line(Requested, Cancelled, OPENER, Optional),
    line(Requested, Expired, CLOCK, Optional),
    line(Received, InProcess, RESPONDER, Optional),
    line(Received, ActionRequired, RESPONDER, Optional),
    line(Received, Deferred, RESPONDER, Optional),
    line(Received, Provided, RESPONDER, Optional),
    line(Received, Refused, RESPONDER, Required),
    line(Received, Cancelled, OPENER, Optional),
    line(Received, Expired, CLOCK, Optional),
    line(InProcess, ActionRequired, RESPONDER, Optional),
    line(InProcess, Deferred, RESPONDER, Optional),
    line(InProcess, Provided, RESPONDER, Optional),
    line(InProcess, Refused, RESPONDER, Required),
    line(InProcess, Cancelled, OPENER, Optional),
    line(InProcess, Expired, CLOCK, Optional),
    line(ActionRequired, InProcess, RESPONDER, Optional),
    line(ActionRequired, Refused, RESPONDER, Required),
    line(ActionRequired, Cancelled, OPENER, Optional),
    line(ActionRequired, Expired, CLOCK, Optional),
    line(Deferred, InProcess, RESPONDER, Optional),
    line(Deferred, Provided, RESPONDER, Optional),
    line(Deferred, Refused, RESPONDER, Required),
    line(Deferred, Cancelled, OPENER, Optional),
    line(Deferred, Expired, CLOCK, Optional),
    line(Provided, Confirmed, OPENER, Optional),
    line(Provided, Disputed, OPENER, Required),
    line(Disputed, InProcess, RESPONDER, Optional),
];

/// Who has the next move in each status.
pub const STANDINGS: &[Standing<Status>] = &[
    Standing { status: Requested, next: Next::Responder },
    Standing { status: Received, next: Next::Responder },
    Standing { status: InProcess, next: Next::Responder },
    // The requester acts at the address given; the holder then moves the case on.
    Standing { status: ActionRequired, next: Next::Opener },
    Standing { status: Deferred, next: Next::Responder },
    Standing { status: Provided, next: Next::Opener },
    Standing { status: Disputed, next: Next::Responder },
    Standing { status: Confirmed, next: Next::Nobody },
    Standing { status: Refused, next: Next::Nobody },
    Standing { status: Cancelled, next: Next::Nobody },
    Standing { status: Expired, next: Next::Nobody },
];
