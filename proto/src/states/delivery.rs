//! Where a message is between its acceptance and its end, at one recipient's queue.
//!
//! Knows: the states and the table of who moves them and why. Never knows: what the message means for its case.
//! Invariants: the end of a message is written once; a leased message does not expire; a permanent refusal is never retried; a
//! dead letter moves only by an operator, under the same message id. Settlement is judged by the message's identity, not by its
//! lease, so a receipt counts in every state in which the message still waits.
//! Recall (`Cancelled`, by the sender) and the reason of a hold (`RecipientSuspended`) are the field's own and stand here so that their
//! words are settled; no call makes them yet.
use crate::{codes::codes, reason::Reason};

codes! {
    /// Where a message is.
    pub enum State("a delivery state") {
        Queued = "QUEUED", "durable, waits to be delivered";
        Leased = "LEASED", "on its way to the recipient, not settled";
        RetryWait = "RETRY_WAIT", "waits for the time of its next attempt";
        Held = "HELD", "waits because an operator holds the recipient's deliveries";
        Delivered = "DELIVERED", "opened by the recipient, whose receipt says so";
        Refused = "REFUSED", "refused for good by the recipient, whose receipt says why";
        Expired = "EXPIRED", "past its expiry before it was delivered";
        Cancelled = "CANCELLED", "taken back by its sender before it was delivered";
        DeadLettered = "DEAD_LETTERED", "given up; an operator decides; holds what follows it in its conversation";
        Discarded = "DISCARDED", "ended by an operator after it was given up";
    }
}

codes! {
    /// Who moves a message.
    pub enum Actor("an actor") {
        Sender = "SENDER", "its sender";
        Gateway = "GATEWAY", "the gateway";
        Recipient = "RECIPIENT", "its recipient";
        Clock = "CLOCK", "the gateway's clock";
        Operator = "OPERATOR", "an operator, with a reason that is kept";
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Transition {
    /// None: the message is accepted.
    pub from: Option<State>,
    /// Where it leads.
    pub to: State,
    /// Who makes it.
    pub by: Actor,
    /// The reasons that it may carry in the history of attempts and in evidence; empty: it needs none.
    pub reasons: &'static [Reason],
}

use Actor::{Clock, Gateway, Operator, Recipient, Sender};
use State::{Cancelled, DeadLettered, Delivered, Discarded, Expired, Held, Leased, Queued, Refused, RetryWait};

const fn line(from: State, to: State, by: Actor, reasons: &'static [Reason]) -> Transition {
    Transition { from: Some(from), to, by, reasons }
}

const NOW_NOT: &[Reason] = &[Reason::NackTransient, Reason::DirectoryUnavailable, Reason::InboxFull];
const GONE: &[Reason] = &[Reason::LeaseTimeout, Reason::ConnectionLost, Reason::RecipientUnreachable];
const NEVER: &[Reason] = &[
    Reason::NackPermanent,
    Reason::SchemaInvalid,
    Reason::KeyUnknown,
    Reason::DecryptionFailed,
    Reason::CommitmentMismatch,
    Reason::BodyMismatch,
    Reason::PartMismatch,
    Reason::SignatureInvalid,
    Reason::CertificateInvalid,
];

/// Every move that there is.
pub const TRANSITIONS: &[Transition] = &[
    Transition { from: None, to: Queued, by: Gateway, reasons: &[] },
    line(Queued, Leased, Gateway, &[]),
    line(Queued, Held, Operator, &[Reason::RecipientSuspended]),
    line(Queued, Expired, Clock, &[Reason::TtlExpired]),
    line(Queued, Cancelled, Sender, &[Reason::Recalled]),
    line(Queued, Delivered, Recipient, &[]),
    line(Queued, Refused, Recipient, NEVER),
    line(Leased, Delivered, Recipient, &[]),
    line(Leased, Refused, Recipient, NEVER),
    line(Leased, RetryWait, Recipient, NOW_NOT),
    line(Leased, RetryWait, Gateway, GONE),
    line(Leased, DeadLettered, Gateway, &[Reason::AttemptsExhausted]),
    line(RetryWait, Queued, Clock, &[]),
    line(RetryWait, Held, Operator, &[Reason::RecipientSuspended]),
    line(RetryWait, Expired, Clock, &[Reason::TtlExpired]),
    // The message that was to open its case ended before its recipient had it.
    line(RetryWait, Expired, Gateway, &[Reason::CaseUnknown]),
    line(RetryWait, Cancelled, Sender, &[Reason::Recalled]),
    line(RetryWait, Delivered, Recipient, &[]),
    line(RetryWait, Refused, Recipient, NEVER),
    line(RetryWait, DeadLettered, Gateway, &[Reason::AttemptsExhausted]),
    line(Held, Queued, Operator, &[]),
    line(Held, Expired, Clock, &[Reason::TtlExpired]),
    line(Held, Cancelled, Sender, &[Reason::Recalled]),
    line(Held, Delivered, Recipient, &[]),
    line(Held, Refused, Recipient, NEVER),
    line(DeadLettered, Queued, Operator, &[]),
    line(DeadLettered, Discarded, Operator, &[Reason::Discarded]),
];

/// Whether `by` may move a message from `from` (none: it is new) to `to`.
#[must_use]
pub fn may(from: Option<State>, to: State, by: Actor) -> bool {
    TRANSITIONS.iter().any(|line| line.from == from && line.to == to && line.by == by)
}

/// Whether the message's story is over: its content is erased and nothing moves it any more.
#[must_use]
pub fn is_final(state: State) -> bool {
    !TRANSITIONS.iter().any(|line| line.from == Some(state))
}
