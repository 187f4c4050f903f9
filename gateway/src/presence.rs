//! Who is connected to Receive. One stream for an institution: a newer one takes over, the older one ends with SUPERSEDED and
//! gives back what it held first, so that nothing is leased twice. It knows names, never messages.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::limits;

/// The seats: at most one taken for each institution.
#[derive(Debug, Default)]
pub struct Presence {
    seats: Mutex<HashMap<String, Occupant>>,
}

/// Who sits there.
#[derive(Debug, Clone)]
struct Occupant {
    generation: u64,
    superseded: CancellationToken,
    gone: CancellationToken,
}

/// A taken seat; leaving is dropping it.
#[derive(Debug)]
pub struct Seat {
    presence: Arc<Presence>,
    name: String,
    occupant: Occupant,
}

impl Presence {
    /// Takes the institution's seat: asks who sits there to go and waits until it has, but not for ever. `taken_over` hears of it when
    /// somebody sits there.
    pub async fn take(self: &Arc<Self>, name: &str, taken_over: impl FnOnce()) -> Seat {
        let (seat, older) = self.replace(name);
        if let Some(older) = older {
            taken_over();
            older.superseded.cancel();
            if tokio::time::timeout(limits::HANDOVER_MAX, older.gone.cancelled()).await.is_err() {
                tracing::warn!(
                    institution = name,
                    "the older Receive stream did not end in time; the newer one goes on"
                );
            }
        }
        seat
    }

    fn replace(self: &Arc<Self>, name: &str) -> (Seat, Option<Occupant>) {
        let mut seats = self.lock();
        let older = seats.get(name).cloned();
        let generation = older.as_ref().map_or(0, |occupant| occupant.generation + 1);
        let occupant = Occupant { generation, superseded: CancellationToken::new(), gone: CancellationToken::new() };
        seats.insert(name.to_owned(), occupant.clone());
        (Seat { presence: Arc::clone(self), name: name.to_owned(), occupant }, older)
    }

    /// Whether the institution is connected to Receive.
    #[must_use]
    pub fn is_online(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Occupant>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Resolves when a newer stream has taken over.
    pub async fn superseded(&self) {
        self.occupant.superseded.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.presence.lock();
        if seats.get(&self.name).is_some_and(|now| now.generation == self.occupant.generation) {
            seats.remove(&self.name);
        }
        drop(seats);
        self.occupant.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_newer_stream_waits_until_the_older_one_has_given_back_what_it_held() {
        let presence = Arc::new(Presence::default());
        let older = presence.take("inps", || panic!("nobody sits there")).await;
        let told = Arc::new(std::sync::atomic::AtomicBool::new(false));
        assert!(presence.is_online("inps"));
        let newer = tokio::spawn({
            let (presence, told) = (Arc::clone(&presence), Arc::clone(&told));
            async move { presence.take("inps", || told.store(true, std::sync::atomic::Ordering::SeqCst)).await }
        });
        older.superseded().await;
        assert!(!newer.is_finished() && told.load(std::sync::atomic::Ordering::SeqCst));
        drop(older);
        let newer = newer.await.unwrap();
        assert!(presence.is_online("inps") && newer.superseded().now_or_never().is_none());
        drop(newer);
        assert!(!presence.is_online("inps"));
    }
}
