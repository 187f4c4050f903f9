//! In: from the gateway's delivery to the back office's inbox, and the receipt.
//!
//! `receiver` holds the Receive stream; `check` judges a delivery; `fetch` brings its parts; `take` has it on the disk with a signed
//! receipt, which `unanswered` says again until it is heard; `notice` does the like for news about what was sent. Invariants: a receipt that
//! says opened is signed only when everything that it vouches for is on the disk; a message that came before gets the receipt that it got,
//! and the back office never a second one; nothing that the gateway says or passes on is believed unless it checks.

mod check;
mod fetch;
mod notice;
mod receiver;
mod take;
mod unanswered;

pub(crate) use self::{
    check::open,
    notice::{CASE_EXPIRED, OPENED, RECEIPT_AFTER_EXPIRY, UNOPENED, shown, told},
    receiver::Receiver,
    take::settle_refused,
    unanswered::Unanswered,
};
