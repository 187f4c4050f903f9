//! Who is held: institutions to which nothing is delivered until an operator releases them. A mirror of the records
//! `hold/…` in the journal: refilled from them at start, changed only after a record is durable. It knows names; never queues, nor why an operator
//! holds. The hold on the clock is the store's own.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// Operators call the hold on everything that the clock decides by this name.
pub const CLOCK: &str = "clock";
/// Records of holds are named with this before the institution's name.
pub const RECORD_PREFIX: &str = "hold/";

/// The holds in force.
#[derive(Debug)]
pub struct Holds {
    names: watch::Sender<BTreeSet<String>>,
}

impl Holds {
    /// Those of the records.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self { names: watch::Sender::new(names.into_iter().collect()) }
    }

    /// Whether it is held.
    #[must_use]
    pub fn is_held(&self, name: &str) -> bool {
        self.names.borrow().contains(name)
    }

    /// Holds it; false when it was held already.
    pub fn hold(&self, name: &str) -> bool {
        self.names.send_if_modified(|names| names.insert(name.to_owned()))
    }

    /// Releases it; false when it was not held.
    pub fn release(&self, name: &str) -> bool {
        self.names.send_if_modified(|names| names.remove(name))
    }

    /// Resolves when it is not held, at once if it is not.
    pub async fn released(&self, name: &str) {
        // The sender is in `self`, so it cannot be gone.
        let _ = self.names.subscribe().wait_for(|names| !names.contains(name)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_release_goes_on_when_it_comes() {
        let holds = Holds::new(["inps".to_owned()]);
        holds.released("caritas").await;
        assert!(holds.is_held("inps") && !holds.hold("inps"));
        let (released, ()) = tokio::join!(
            async {
                holds.released("inps").await;
                true
            },
            async {
                assert!(holds.release("inps"));
            }
        );
        assert!(released && !holds.release("inps"));
    }
}
