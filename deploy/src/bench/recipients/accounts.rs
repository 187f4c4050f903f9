//! What all recipients count together, by the numbers of the messages.

use std::{cell::RefCell, rc::Rc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::bench::{
    client::{Trouble, say},
    histogram::Histogram,
    wire::{Received, Said, Window},
};

/// How long what was sent may take to be settled.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all recipients share: the accounts.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    pub(super) received: Received,
    pub(super) seen: Seen,
    pub(super) counting: Option<Window>,
    pub(super) receipts: u64,
    /// For how long receipts gather.
    pub(super) gather: Duration,
    pub(super) moved: Rc<Notify>,
}

/// Which numbers were seen: one bit each.
#[derive(Debug, Default)]
pub(super) struct Seen {
    words: Vec<u64>,
}

impl Seen {
    /// True when it was seen before.
    pub(super) fn again(&mut self, number: u64) -> bool {
        let place = usize::try_from(number / 64).unwrap_or(usize::MAX >> 8);
        if place >= self.words.len() {
            self.words.resize(place + 1, 0);
        }
        let bit = 1 << (number % 64);
        self.words.get_mut(place).is_some_and(|word| std::mem::replace(word, *word | bit) & bit != 0)
    }
}

/// A run begins.
pub(super) fn begin(accounts: &RefCell<Accounts>, window: Window, gather: Duration) {
    let mut accounts = accounts.borrow_mut();
    (accounts.counting, accounts.gather) = (Some(window), gather);
    let received = &mut accounts.received;
    received.window = 0;
    received.delivery = Histogram::default();
    received.handover = Histogram::default();
}

/// Waits until so much is settled, then says what was counted.
pub(super) async fn tell(accounts: &RefCell<Accounts>, settled: u64) -> Result<(), Trouble> {
    let moved = Rc::clone(&accounts.borrow().moved);
    let until = Instant::now() + PATIENCE;
    while accounts.borrow().received.settled < settled {
        tokio::select! {
            () = moved.notified() => {}
            () = sleep_until(until) => {
                let received = &accounts.borrow().received;
                let sentence = format!("{} of {settled} messages are settled; {} were delivered", received.settled, received.delivered);
                return Err(Trouble::new(sentence));
            }
        }
    }
    say(&Said::Received(Box::new(accounts.borrow().received.clone())));
    Ok(())
}
