//! What was accepted lately, kept in memory so that most deliveries and settlements read no disk.
//!
//! Knows: facts and contents by sequence, and how many bytes they are. Never knows: whether they still wait; whoever makes one
//! final drops its content. Invariant: what is in here is durable and the same as in the journal; at the limit the oldest go.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tramite_proto::pb::journal::v1::Fact;

use crate::journal::Place;

/// Added to each fact's own bytes for what holds them.
const OVERHEAD_BYTES: usize = 512;
/// What the place of a fact takes that is not kept.
const PLACE_BYTES: usize = size_of::<Option<(Recent, usize)>>();

/// A fact, its content, and where that stands.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    pub(crate) fact: Arc<Fact>,
    pub(crate) content: Bytes,
    pub(crate) place: Option<Place>,
}

#[derive(Debug, Default)]
struct Kept {
    /// One for each sequence from `first` on, with its bytes, as far as they count; none: not kept.
    places: VecDeque<Option<(Recent, usize)>>,
    first: u64,
    bytes: usize,
}

impl Kept {
    fn place(&self, sequence: u64) -> Option<usize> {
        sequence.checked_sub(self.first).and_then(|place| usize::try_from(place).ok())
    }

    fn push(&mut self, sequence: u64, recent: Recent, bytes: usize) {
        if self.places.is_empty() {
            self.first = sequence;
        }
        // Sequences rise one by one, and some are not kept.
        let Some(place) = self.place(sequence).filter(|place| *place >= self.places.len()) else { return };
        self.bytes += bytes + (place - self.places.len()) * PLACE_BYTES;
        self.places.resize_with(place, || None);
        self.places.push_back(Some((recent, bytes)));
    }

    fn pop(&mut self) -> bool {
        let Some(oldest) = self.places.pop_front() else { return false };
        self.first = self.first.saturating_add(1);
        self.bytes = self.bytes.saturating_sub(oldest.map_or(PLACE_BYTES, |(_, bytes)| bytes));
        true
    }
}

/// The memory of recent facts.
#[derive(Debug)]
pub(crate) struct RecentFacts {
    kept: Mutex<Kept>,
    bytes_max: usize,
}

fn size(recent: &Recent) -> usize {
    use prost::Message as _;
    recent.fact.encoded_len() + recent.content.len() + OVERHEAD_BYTES
}

impl RecentFacts {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { kept: Mutex::default(), bytes_max }
    }

    fn locked(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the facts of a group that is durable.
    pub(crate) fn keep(&self, recents: impl Iterator<Item = (u64, Recent)>) {
        let mut kept = self.locked();
        for (sequence, recent) in recents {
            let bytes = size(&recent);
            kept.push(sequence, recent, bytes);
        }
        while kept.bytes > self.bytes_max && kept.pop() {}
    }

    pub(crate) fn get(&self, sequence: u64) -> Option<Recent> {
        let kept = self.locked();
        let (recent, _) = kept.places.get(kept.place(sequence)?)?.as_ref()?;
        Some(recent.clone())
    }

    /// Lets the content of a final one go; its fact may be asked for by a repeat or a notice. It counts on: both are pieces of the frame
    /// in which they came, which is in memory as long as either is.
    pub(crate) fn drop_content(&self, sequence: u64) {
        let mut kept = self.locked();
        let place = kept.place(sequence);
        if let Some(Some((there, _))) = place.and_then(|place| kept.places.get_mut(place)) {
            (there.content, there.place) = (Bytes::new(), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_counts_as_long_as_the_frame_in_which_it_came_is_kept() {
        let fact = Arc::new(Fact::default());
        let recent = || Recent { fact: Arc::clone(&fact), content: Bytes::from(vec![7; 10_000]), place: None };
        let recents = RecentFacts::new(20 * size(&recent()));
        recents.keep((1..=20).map(|sequence| (sequence, recent())));
        (1..=20).for_each(|sequence| recents.drop_content(sequence));
        assert!(recents.get(1).unwrap().content.is_empty());
        recents.keep((21..=25).map(|sequence| (sequence, recent())));
        let kept: Vec<u64> = (1..=25).filter(|sequence| recents.get(*sequence).is_some()).collect();
        assert_eq!(kept, (6..=25).collect::<Vec<_>>());
    }
}
