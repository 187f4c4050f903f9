//! Batches whose signature was verified, by the digest of their JWS.
//!
//! Knows digests and headers. Never knows keys: a header names its certificate, and whether that one counts is asked each time.
//! Invariant: at most two generations of [`GENERATION_MAX`]; the older one is dropped whole, what is used moves to the younger.
use std::{collections::HashMap, mem, sync::Arc};

use tramite_proto::{batch::Header, ids::Digest};

/// Batches of one generation: a full frame each from some thousand adapters; 200 bytes an entry.
const GENERATION_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Cache {
    young: HashMap<Digest, Arc<Header>>,
    old: HashMap<Digest, Arc<Header>>,
}

impl Cache {
    pub(super) fn find(&mut self, digest: &Digest) -> Option<Arc<Header>> {
        if let Some(header) = self.young.get(digest) {
            return Some(Arc::clone(header));
        }
        let header = self.old.remove(digest)?;
        self.insert(*digest, Arc::clone(&header));
        Some(header)
    }

    pub(super) fn insert(&mut self, digest: Digest, header: Arc<Header>) {
        if self.young.len() >= GENERATION_MAX {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(digest, header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let header =
            |n: u32| Arc::new(Header { x5t: Digest::of(b"x"), iss: "inps".parse().unwrap(), iat: 0, n, root: [0; 32] });
        let digest = |n: usize| Digest::of(&n.to_be_bytes());
        let mut cache = Cache::default();
        cache.insert(digest(0), header(64));
        for n in 1..10 * GENERATION_MAX {
            cache.insert(digest(n), header(1));
            if n % 1_000 == 0 {
                assert_eq!(cache.find(&digest(0)).unwrap().n, 64);
            }
        }
        assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION_MAX);
        assert!(cache.find(&digest(1)).is_none());
    }
}
