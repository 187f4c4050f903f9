//! Receipts that were given, and that the gateway has not answered.
//!
//! A line may break under a receipt. What is offered again gets it again; but a message that ends meanwhile is never offered again, and its
//! sender would be told that nobody opened it, while the case goes on here. So on every new stream what was not answered is said again. It
//! knows what was taken in and what was answered. Invariant: up to the mark that is recorded, everything was answered; so what a crash
//! forgot is found after it.

use std::{
    collections::{BTreeMap, BTreeSet},
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
use tramite_store::{Change, ReadError, Store, accepted};

use crate::core::{BACKOFFICE, rejected, unreadable};

/// The record of how far everything was answered.
const MARK: &str = "receipts/answered";
/// Facts that a start looks through: far more than come between two marks, unless one receipt is never answered.
const RESTORE_FACTS_MAX: u64 = 100_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unanswered(Mutex<Deliveries>);

#[derive(Debug, Default)]
struct Deliveries {
    /// Which stream of this run it is.
    stream: u64,
    taken: BTreeMap<u64, Taken>,
}

/// A delivery that is being taken in, or was.
#[derive(Debug, Clone, Copy)]
struct Taken {
    message: MessageId,
    /// It comes after this sequence.
    after: u64,
    /// The streams on which it was offered first and last.
    first: u64,
    stream: u64,
}

impl Unanswered {
    /// What was taken in by an earlier run and not answered as far as is known.
    ///
    /// # Errors
    /// The store cannot be read. A damaged fact is no reason: it is left out.
    pub(crate) fn restore(&self, store: &Store) -> Result<(), Refused> {
        let last = store.sequence();
        for sequence in marked(store)?.max(last.saturating_sub(RESTORE_FACTS_MAX)) + 1..=last {
            let Some(fact) = unless_damaged(store.fact(sequence))? else { continue };
            let Some(accepted) = accepted(&fact).filter(|accepted| is_receipted(accepted)) else { continue };
            let Ok(message) = MessageId::from_bytes(&accepted.id) else { continue };
            self.lock()
                .taken
                .insert(accepted.gateway_sequence, Taken { message, after: sequence - 1, first: 0, stream: 0 });
        }
        Ok(())
    }

    /// A new stream begins; what was being taken in on the one before has ended with it.
    pub(super) fn begin_stream(&self) {
        self.lock().stream += 1;
    }

    /// A delivery is about to be taken in.
    pub(super) fn begins(&self, store: &Store, delivery_id: u64, message: MessageId) {
        let mut deliveries = self.lock();
        let (after, stream) = (store.sequence(), deliveries.stream);
        deliveries.taken.entry(delivery_id).or_insert(Taken { message, after, first: stream, stream }).stream = stream;
    }

    /// It was answered.
    pub(super) fn ends(&self, delivery_id: u64) {
        self.lock().taken.remove(&delivery_id);
    }

    /// It was put off, so this stream gives it no receipt. One of an earlier stream may still be on its way to the disk.
    pub(super) fn puts_off(&self, delivery_id: u64) {
        let mut deliveries = self.lock();
        let stream = deliveries.stream;
        deliveries.taken.retain(|id, taken| *id != delivery_id || taken.first != stream);
    }

    /// The deliveries that are not answered.
    pub(crate) fn deliveries(&self) -> Vec<u64> {
        self.lock().taken.keys().copied().collect()
    }

    /// The receipts that were given for some deliveries. Those of an earlier stream of which there is none are forgotten.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub(super) async fn receipts(&self, store: &Store, deliveries: &[u64]) -> Result<Vec<(u64, Statement)>, Refused> {
        let mut receipts = Vec::new();
        let without = self.given(store, deliveries, &mut receipts)?;
        if !without.is_empty() {
            // What ended with its stream may still be on its way to the disk; after this it is there, or never will be.
            record(store, self.answered(store)).await?;
            let never = self.given(store, &without, &mut receipts)?;
            let mut deliveries = self.lock();
            let (stream, never): (_, BTreeSet<_>) = (deliveries.stream, never.into_iter().collect());
            deliveries.taken.retain(|delivery_id, taken| taken.stream == stream || !never.contains(delivery_id));
        }
        Ok(receipts)
    }

    /// Adds the receipts that there are; gives the deliveries of earlier streams without one.
    fn given(
        &self,
        store: &Store,
        deliveries: &[u64],
        receipts: &mut Vec<(u64, Statement)>,
    ) -> Result<Vec<u64>, Refused> {
        let mut without = Vec::new();
        for delivery_id in deliveries {
            let (stream, taken) = self.at(*delivery_id);
            let Some(taken) = taken else { continue };
            match receipt(store, *delivery_id, taken.message)? {
                Some(receipt) => receipts.push((*delivery_id, receipt)),
                None if taken.stream < stream => without.push(*delivery_id),
                None => {}
            }
        }
        Ok(without)
    }

    fn at(&self, delivery_id: u64) -> (u64, Option<Taken>) {
        let deliveries = self.lock();
        (deliveries.stream, deliveries.taken.get(&delivery_id).copied())
    }

    /// Records how far everything was answered, if that is further than before.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub(crate) async fn mark(&self, store: &Store) -> Result<(), Refused> {
        let answered = self.answered(store);
        // A store in which nothing but the mark was written since is as it was.
        if answered <= marked(store)? + 1 {
            return Ok(());
        }
        record(store, answered).await
    }

    /// Up to here everything was answered; what begins from now on comes after it.
    fn answered(&self, store: &Store) -> u64 {
        let deliveries = self.lock();
        deliveries.taken.values().map(|taken| taken.after).min().unwrap_or_else(|| store.sequence())
    }

    fn lock(&self) -> MutexGuard<'_, Deliveries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this is a message that was opened here, under a delivery that is known.
fn is_receipted(accepted: &Accepted) -> bool {
    accepted.queue == BACKOFFICE
        && accepted.gateway_sequence != 0
        && accepted.receipt.is_some()
        && accepted.extra.is_empty()
}

fn receipt(store: &Store, delivery_id: u64, message: MessageId) -> Result<Option<Statement>, Refused> {
    let Some(row) = unless_damaged(store.message(message.as_bytes()))?.flatten() else { return Ok(None) };
    let Some(fact) = unless_damaged(store.fact(row.sequence))? else { return Ok(None) };
    let given = accepted(&fact).filter(|accepted| is_receipted(accepted) && accepted.gateway_sequence == delivery_id);
    Ok(given.and_then(|accepted| accepted.receipt.clone()))
}

/// Damage holds up its own message alone.
fn unless_damaged<T>(read: Result<T, ReadError>) -> Result<Option<T>, Refused> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(ReadError::NoFact(_)) => Ok(None),
        Err(error @ ReadError::Damaged(_)) => {
            tracing::error!(%error, "a receipt cannot be said again");
            Ok(None)
        }
        Err(error) => Err(unreadable(error)),
    }
}

async fn record(store: &Store, answered: u64) -> Result<(), Refused> {
    let value = Some(Bytes::copy_from_slice(&answered.to_be_bytes()));
    let fact = Recorded { name: MARK.to_owned(), value, ..Recorded::default() };
    store.commit_one(Change::Record { fact: Box::new(fact), begins: false }).await.map(drop).map_err(rejected)
}

fn marked(store: &Store) -> Result<u64, Refused> {
    let record = unless_damaged(store.record(MARK))?.flatten();
    let mark = record.and_then(|record| Some(u64::from_be_bytes(record.value.as_ref().try_into().ok()?)));
    Ok(mark.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tramite_proto::clock::ManualClock;
    use tramite_store::{Notary, Options, Seams, Work};

    use super::*;

    #[derive(Debug)]
    struct NoPen;

    impl Notary for NoPen {
        fn sign(&self, _: i64, _: &[Bytes]) -> Result<Vec<Statement>, String> {
            Err("nothing is signed here".to_owned())
        }
    }

    #[tokio::test]
    async fn only_what_an_earlier_stream_was_taking_in_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let seams = Seams::real(Arc::new(ManualClock::new(1_800_000_000_000)), Arc::new(NoPen));
        let (store, writer, _) = Options::new(folder.path(), "test").open(seams).unwrap();
        let writing = writer.start(Work::Threads).unwrap();
        let unanswered = Unanswered::default();
        unanswered.begin_stream();
        for (delivery_id, chance) in [(1, [1; 10]), (2, [2; 10])] {
            unanswered.begins(&store, delivery_id, MessageId::new(0, chance));
        }
        assert!(unanswered.receipts(&store, &[1, 2]).await.unwrap().is_empty());
        assert_eq!(unanswered.deliveries(), [1, 2], "they are still being taken in");
        unanswered.begin_stream();
        // Offered again, it is being taken in again.
        unanswered.begins(&store, 2, MessageId::new(0, [2; 10]));
        assert!(unanswered.receipts(&store, &[1, 2]).await.unwrap().is_empty());
        assert_eq!(unanswered.deliveries(), [2]);
        unanswered.begins(&store, 3, MessageId::new(0, [3; 10]));
        unanswered.puts_off(2);
        unanswered.puts_off(3);
        assert_eq!(unanswered.deliveries(), [2], "the stream before may have had a receipt for it");
        store.end(writing).await;
    }
}
