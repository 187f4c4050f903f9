//! How many bytes of sealed contents each issuer has waiting here, so that nobody fills the disk of all: what is accepted is charged, what
//! is final is given back, what an operator has yet to decide stays charged. A sum in memory, begun with what the store has at the start. It knows
//! lengths; never contents.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tramite_proto::{
    pb::journal::v1::{Fact, Outcome, fact::Kind},
    reason::{Reason, Refused},
};
use tramite_store::{Done, ReadError, Store, accepted};

/// The bytes of each issuer.
#[derive(Debug, Default)]
pub struct Waiting {
    bytes: Mutex<HashMap<String, u64>>,
}

impl Waiting {
    /// What waits when the gateway starts.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(store: &Store) -> Result<Self, ReadError> {
        Ok(Self { bytes: Mutex::new(store.charges()?.into_iter().collect()) })
    }

    /// Charges what is about to be accepted.
    ///
    /// # Errors
    /// QUOTA_EXCEEDED when it is more than `quota` together with what waits.
    pub fn take(&self, issuer: &str, bytes: u64, quota: u64) -> Result<(), Refused> {
        let mut all = self.lock();
        let held = all.entry(issuer.to_owned()).or_default();
        let with = held.saturating_add(bytes);
        if with > quota {
            let detail = "As much of this institution waits here as may; send again when some of it was delivered.";
            return Err(Refused::new(Reason::QuotaExceeded, detail));
        }
        *held = with;
        Ok(())
    }

    /// Gives back what was charged.
    pub fn give_back(&self, issuer: &str, bytes: u64) {
        if let Some(held) = self.lock().get_mut(issuer) {
            *held = held.saturating_sub(bytes);
        }
    }

    /// Gives back the content of a message, whose accepting fact is `message`, if it became final by this.
    pub fn settled(&self, message: &Fact, done: &Done) {
        let Done::Settled { fact, .. } = done else { return };
        let Some(Kind::Settled(settled)) = &fact.kind else { return };
        if !matches!(settled.outcome(), Outcome::HandedOver | Outcome::Refused | Outcome::Expired | Outcome::Discarded)
        {
            return;
        }
        if let Some((issuer, bytes)) = charge(message) {
            self.give_back(issuer, bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a message is charged to, and how much.
fn charge(fact: &Fact) -> Option<(&str, u64)> {
    let accepted = accepted(fact)?;
    Some((accepted.return_to.as_str(), accepted.content.as_ref().map_or(0, |content| content.length.into())))
}
