//! Keeps the journal small: lets facts go whose retention is over, and packs segments whose contents are gone.
//!
//! Knows: when to look. Never knows: what may go (`retention`), bytes (`journal::compact`). Invariant: it only makes smaller what is
//! complete without it, so it may be late. It has its share of the processor: left what others do not need, it does nothing for as long as
//! the machine is busy, and what is over stays.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    change::{Change, Done, Rejected},
    error::ReadError,
    journal::Stopped,
    retention,
    shared::Shared,
    writer::{Command, End, Writer},
};

/// Between two looks, and after a failure.
const LOOK_EVERY_MS: i64 = 10_000;
/// What a retirement weighs in its group, roughly.
const RETIREMENT_BYTES: usize = 16 * 1024;

/// By which the writer is asked.
pub(crate) type Ask<'a> = dyn FnMut(Change) -> Result<Done, Rejected> + 'a;

/// The fourth thread: looks until the writer ends.
pub(crate) fn run(shared: &Shared) {
    let _end = End { shared, thread: "growth" };
    let mut at_ms = i64::MIN;
    while shared.outbox.wait_for_rows() {
        let now_ms = shared.clock.now_ms();
        // A clock that was set back is no reason to wait.
        if now_ms >= at_ms || now_ms < at_ms.saturating_sub(LOOK_EVERY_MS) {
            pass(shared, &mut |change| ask(shared, change));
            at_ms = now_ms.saturating_add(LOOK_EVERY_MS);
        }
    }
}

/// Asks the writer from another thread.
fn ask(shared: &Shared, change: Change) -> Result<Done, Rejected> {
    let (reply, answers) = oneshot::channel();
    let sender = shared.asks.upgrade().ok_or(Rejected::Closing)?;
    let command = Command::Commit { changes: vec![change], bytes: RETIREMENT_BYTES, reply };
    sender.blocking_send(command).map_err(|_| Rejected::Closing)?;
    drop(sender);
    answers.blocking_recv().ok().and_then(|mut answers| answers.pop()).unwrap_or(Err(Rejected::Closing))
}

impl Writer {
    /// Retires what is over and packs what can be packed by now, as [`run`](Self::run)'s fourth thread does by itself.
    pub fn compact(&mut self) {
        let shared = Arc::clone(&self.shared);
        pass(&shared, &mut |change| {
            let (reply, mut answers) = oneshot::channel();
            self.write(vec![(vec![change], reply)], RETIREMENT_BYTES);
            answers.try_recv().ok().and_then(|mut answers| answers.pop()).unwrap_or(Err(Rejected::Failed))
        });
    }

    /// What a writer does while nobody asks: applies, and from `at_ms` on makes the journal smaller, now and then.
    pub(crate) fn rest(&mut self, at_ms: &mut i64) {
        self.apply();
        let now_ms = self.shared.clock.now_ms();
        if now_ms >= *at_ms {
            self.compact();
            *at_ms = now_ms.saturating_add(LOOK_EVERY_MS);
        }
    }
}

/// What is half written when the store is closed is written anew another day.
pub(crate) fn goes_on(shared: &Shared) -> Result<(), ReadError> {
    if shared.outbox.is_stopping() { Err(ReadError::Failed) } else { Ok(()) }
}

/// Does all there is to do by now. What keeps facts from going does not keep segments from being packed.
pub(crate) fn pass(shared: &Shared, ask: &mut Ask<'_>) {
    shared.erase_again();
    judge(shared, retention::pass(shared, ask));
    judge(shared, pack_all(shared));
}

fn pack_all(shared: &Shared) -> Result<(), Stopped> {
    while !shared.has_failed() && shared.journal.compact(&mut |_, _| goes_on(shared).map(|()| true))? {}
    Ok(())
}

fn judge(shared: &Shared, done: Result<(), Stopped>) {
    match done {
        Ok(()) => {}
        Err(Stopped::Poisoned(poisoned)) => shared.fail(poisoned),
        Err(Stopped::Failed(_)) if shared.outbox.is_stopping() => {}
        Err(Stopped::Failed(error)) => tracing::warn!(%error, "the journal is not made smaller for now"),
    }
}
