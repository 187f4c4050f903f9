//! Receipts that were given, and that the gateway has not answered.
//!
//! A line may break under a receipt. What is offered again gets it again; but a message that ends meanwhile is never offered again, and its
//! sender would be told that nobody opened it, while the case goes on here. So on every new stream what was not answered is said again. It
//! knows what was taken in and what was answered. Invariant: up to the mark that is recorded, everything was answered; so what a crash
//! forgot is found after it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tramite_proto::{
    ids::MessageId,
    pb::{
        journal::v1::{Accepted, Recorded},
        statement::v1::Statement,
    },
    reason::Refused,
};
use tramite_store::{Change, Store, accepted};

use crate::core::{BACKOFFICE, rejected, unreadable};

/// The record of how far everything was answered.
const MARK: &str = "receipts/answered";
/// Facts that are read at once.
const FACTS_AT_ONCE: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    deliveries: Mutex<BTreeMap<u64, Taken>>,
}

/// A delivery that is being taken in, or was.
#[derive(Debug, Clone, Copy)]
struct Taken {
    message: MessageId,
    /// It comes after this sequence.
    after: u64,
}

impl Unanswered {
    /// What was taken in by an earlier run and not answered as far as is known.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn restore(&self, store: &Store) -> Result<(), Refused> {
        let mut after = marked(store)?;
        while after < store.sequence() {
            for (sequence, fact) in store.facts(after, FACTS_AT_ONCE).map_err(unreadable)? {
                let Some(accepted) = accepted(&fact).filter(|accepted| is_receipted(accepted)) else { continue };
                let Ok(message) = MessageId::from_bytes(&accepted.id) else { continue };
                self.lock().insert(accepted.delivery_id, Taken { message, after: sequence - 1 });
            }
            after += FACTS_AT_ONCE as u64;
        }
        Ok(())
    }

    /// A delivery is about to be taken in.
    pub(super) fn begins(&self, store: &Store, delivery_id: u64, message: MessageId) {
        let mut deliveries = self.lock();
        let after = store.sequence();
        deliveries.entry(delivery_id).or_insert(Taken { message, after });
    }

    /// It was answered, or no receipt was given for it.
    pub(super) fn ends(&self, delivery_id: u64) {
        self.lock().remove(&delivery_id);
    }

    /// The receipts that are to be said again, by delivery. For the others there is none: their task ended with its stream.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn receipts(&self, store: &Store) -> Result<Vec<(u64, Statement)>, Refused> {
        let mut receipts = Vec::new();
        let deliveries: Vec<_> = self.lock().iter().map(|(id, taken)| (*id, taken.message)).collect();
        for (delivery_id, message) in deliveries {
            match receipt(store, delivery_id, message)? {
                Some(receipt) => receipts.push((delivery_id, receipt)),
                None => self.ends(delivery_id),
            }
        }
        Ok(receipts)
    }

    /// Records how far everything was answered, if that is further than before.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub(crate) async fn mark(&self, store: &Store) -> Result<(), Refused> {
        let answered = {
            let deliveries = self.lock();
            // What begins from now on comes after this.
            deliveries.values().map(|taken| taken.after).min().unwrap_or_else(|| store.sequence())
        };
        // A store in which nothing but the mark was written since is as it was.
        if answered <= marked(store)? + 1 {
            return Ok(());
        }
        let value = Some(Bytes::copy_from_slice(&answered.to_be_bytes()));
        let fact = Recorded { name: MARK.to_owned(), value, ..Recorded::default() };
        store.commit_one(Change::Record { fact: Box::new(fact) }).await.map(drop).map_err(rejected)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Taken>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this is a message that was opened here, under a delivery that is known.
fn is_receipted(accepted: &Accepted) -> bool {
    accepted.queue == BACKOFFICE && accepted.delivery_id != 0 && accepted.receipt.is_some()
}

fn receipt(store: &Store, delivery_id: u64, message: MessageId) -> Result<Option<Statement>, Refused> {
    let Some(row) = store.message(message.as_bytes()).map_err(unreadable)? else { return Ok(None) };
    let fact = store.fact(row.sequence).map_err(unreadable)?;
    let given = accepted(&fact).filter(|accepted| is_receipted(accepted) && accepted.delivery_id == delivery_id);
    Ok(given.and_then(|accepted| accepted.receipt.clone()))
}

fn marked(store: &Store) -> Result<u64, Refused> {
    let record = store.record(MARK).map_err(unreadable)?;
    let mark = record.and_then(|record| Some(u64::from_be_bytes(record.value.as_ref().try_into().ok()?)));
    Ok(mark.unwrap_or(0))
}
