//! Facts on their way into a map: the journal replayed, group by group, as it is when an outbox is made anew, completed or checked.
//!
//! Knows: how many rows are written at once, the position that goes with them. Never knows: what rows mean, where the map is kept.
//! Invariants: rows and the position that they belong to are written in one batch; where the end is named nothing behind it is applied.

use crate::{
    error::{MapError, ReadError},
    journal::{Group, Journal},
    map::{Key, OrderedMap},
    outbox::APPLY_ROWS,
    overlay::{Over, Overlay, Rows as _},
    project::{Draft, Effects, Facts},
    rows,
};

/// Replays the journal's facts before `end` into an empty map.
pub(crate) fn rebuild(journal: &Journal, base: &dyn OrderedMap, end: u64) -> Result<(), ReadError> {
    let mut replay = Replay::new(base, 1);
    let mut sequence = 1;
    while sequence < end {
        let group = journal.group(sequence)?;
        replay.group_before(journal, &group, end)?;
        sequence = group.span.end;
    }
    Ok(replay.finish()?)
}

/// Facts on their way into a map, group by group.
pub(crate) struct Replay<'a> {
    base: &'a dyn OrderedMap,
    rows: Overlay,
    /// The first sequence that is not replayed.
    end: u64,
}

impl<'a> Replay<'a> {
    /// Into a map that has the facts before `end`.
    pub(crate) fn new(base: &'a dyn OrderedMap, end: u64) -> Self {
        Self { base, rows: Overlay::default(), end }
    }

    /// So many rows wait that the next group has them written.
    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= APPLY_ROWS
    }

    /// Applies a group. Returns what it brings about.
    pub(crate) fn group(&mut self, facts: &dyn Facts, group: &Group) -> Result<Effects, ReadError> {
        self.group_before(facts, group, u64::MAX)
    }

    /// Applies the facts of a group before `end`: what is packed goes on behind what was applied together.
    fn group_before(&mut self, facts: &dyn Facts, group: &Group, end: u64) -> Result<Effects, ReadError> {
        if self.is_full() {
            self.write()?;
        }
        let below = Over { upper: &self.rows, below: &self.base };
        let mut draft = Draft::new(&below, facts);
        // Packed while it is replayed, a segment may begin with facts that were applied already.
        for placed in group.facts.iter().filter(|placed| (self.end..end).contains(&placed.sequence)) {
            draft.apply(placed.sequence, &placed.fact)?;
        }
        let Draft { upper, effects, .. } = draft;
        self.rows.merge(upper);
        self.end = group.span.end.min(end);
        Ok(effects)
    }

    /// Writes what waits, in one batch with its position, and keeps the map in order meanwhile: nobody else does yet.
    pub(crate) fn write(&mut self) -> Result<(), MapError> {
        let position = (Key::from_slice(rows::POSITION), Some(rows::number(self.end)));
        self.base.apply(&mut self.rows.changes().chain(std::iter::once(position)))?;
        self.rows = Overlay::default();
        while self.base.tidy()? {}
        Ok(())
    }

    /// Whether something still waits in a queue.
    pub(crate) fn waits(&self, queue: &str, sequence: u64) -> Result<bool, MapError> {
        Ok(Over { upper: &self.rows, below: &self.base }.get(&rows::item(queue, sequence))?.is_some())
    }

    /// Applies the rest.
    pub(crate) fn finish(mut self) -> Result<(), MapError> {
        self.write()
    }
}
