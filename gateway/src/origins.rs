//! Origins as they were read when their messages were permitted, for the receipts: most come back within a second, and to read an origin
//! again costs more than all else that a settlement looks at.
//!
//! It knows identities and origins; never where a message is. Invariants: an origin is the reading of the bytes that have its identity;
//! at most two generations of some thousand each, of which the older goes as a whole.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tramite_proto::{ids::Digest, statement::Origin};

/// Origins of one generation, at some 2 KiB each: what is on its way in a second of full load.
const GENERATION_MAX: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub struct Origins {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    young: HashMap<Digest, Arc<Origin>>,
    old: HashMap<Digest, Arc<Origin>>,
}

impl Origins {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the origin of that identity for a while.
    pub fn keep(&self, identity: Digest, origin: Arc<Origin>) {
        let mut kept = self.kept();
        if kept.young.len() >= GENERATION_MAX {
            kept.old = mem::take(&mut kept.young);
        }
        kept.young.insert(identity, origin);
    }

    /// Takes out the origin of that identity, if it is here: a message is settled once.
    #[must_use]
    pub fn take(&self, identity: &Digest) -> Option<Arc<Origin>> {
        let mut kept = self.kept();
        kept.young.remove(identity).or_else(|| kept.old.remove(identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_gives_back_what_was_kept_last() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../proto/vectors/statements.json")).unwrap();
        let json = vectors.as_array().unwrap().iter().find(|made| made["kind"] == "origin").unwrap();
        let origin = Arc::new(Origin::parse(json["statement"]["json"].as_str().unwrap().as_bytes()).unwrap());
        let identity = |n: usize| Digest::of(&n.to_be_bytes());
        let origins = Origins::default();
        for n in 0..3 * GENERATION_MAX {
            origins.keep(identity(n), Arc::clone(&origin));
        }
        let there = |kept: &Kept| kept.young.len() + kept.old.len();
        assert!(there(&origins.kept()) <= 2 * GENERATION_MAX);
        assert!(origins.take(&identity(0)).is_none());
        let last = identity(3 * GENERATION_MAX - 1);
        assert_eq!(origins.take(&last), Some(origin));
        assert!(origins.take(&last).is_none());
    }
}
