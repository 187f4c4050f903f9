//! Out: from a back office's request to the gateway's acceptance.
//!
//! `compose` makes of a request the exact sealed and signed bytes and has them on the disk before it answers; `sender` hands them to
//! the gateway as often as it takes. Invariants: nothing is sealed twice under one id; what was answered is never lost; what the
//! gateway says counts only when its signature and its subject check.

mod answer;
mod compose;
mod place;
mod sender;
mod upload;

#[cfg(test)]
pub(crate) use self::sender::still_live;
pub(crate) use self::{answer::expire, compose::send, sender::Sender};
