//! Going through rows of one file, and of several as if they were one.
//!
//! Knows: order, and that the newer file counts. Never knows: what a row means. Invariant: each key comes once, rising.

use std::sync::Arc;

use bytes::Bytes;

use super::file::{Block, Run};
use crate::{
    error::MapError,
    map::{Key, RowChange},
};

/// A row, or that it was removed.
type Said = RowChange;

/// A place in one file. The row there is `key` and `value`; there is none at the end.
pub(super) struct Cursor {
    run: Arc<Run>,
    next_block: usize,
    rows: Block,
    value: Option<Option<Bytes>>,
}

impl Cursor {
    /// Before the first row.
    pub(super) fn all(run: &Arc<Run>) -> Result<Self, MapError> {
        Self::at(run, &[])
    }

    /// Before the first row that is not less than `from`.
    pub(super) fn at(run: &Arc<Run>, from: &[u8]) -> Result<Self, MapError> {
        let next_block = run.block_of(from).unwrap_or(0);
        let mut cursor = Self { run: Arc::clone(run), next_block, rows: Block::default(), value: None };
        cursor.step()?;
        while cursor.key().is_some_and(|key| key < from) {
            cursor.step()?;
        }
        Ok(cursor)
    }

    fn key(&self) -> Option<&[u8]> {
        self.value.as_ref().map(|_| self.rows.key())
    }

    fn step(&mut self) -> Result<(), MapError> {
        self.value = self.rows.next()?;
        if self.value.is_none() {
            self.rows = self.run.rows(self.next_block)?;
            self.next_block += 1;
            self.value = self.rows.next()?;
        }
        Ok(())
    }
}

/// Several files as one; the first counts most.
pub(super) struct Merge {
    cursors: Vec<Cursor>,
    /// Whose row comes next, as long as it is less than `bound`.
    leader: usize,
    /// The least key of the others, if they have any more: mostly, rows of one file follow each other for long.
    bound: Option<Key>,
}

impl Merge {
    /// Newest first.
    pub(super) fn new(cursors: Vec<Cursor>) -> Self {
        // Nothing is less, so that the first leader is chosen.
        Self { cursors, leader: 0, bound: Some(Key::new()) }
    }

    /// The next key and what the newest file says of it.
    pub(super) fn next(&mut self) -> Result<Option<Said>, MapError> {
        let before = |key: &[u8]| self.bound.as_ref().is_none_or(|bound| key < bound.as_slice());
        let leads = self.cursors.get(self.leader).and_then(Cursor::key).is_some_and(before);
        if !leads && !self.choose()? {
            return Ok(None);
        }
        let Some(cursor) = self.cursors.get_mut(self.leader) else { return Ok(None) };
        let (key, value) = (Key::from_slice(cursor.rows.key()), cursor.value.take().flatten());
        cursor.step()?;
        Ok(Some((key, value)))
    }

    /// Looks who has the least key, and passes over what the older ones say of it. False: none has any.
    fn choose(&mut self) -> Result<bool, MapError> {
        let heads = self.cursors.iter().enumerate().filter_map(|(i, cursor)| Some((cursor.key()?, i)));
        let Some((key, newest)) = heads.min() else { return Ok(false) };
        let key = Key::from_slice(key);
        for older in self.cursors.iter_mut().skip(newest + 1) {
            if older.key() == Some(&key) {
                older.step()?;
            }
        }
        let others = self.cursors.iter().enumerate().filter(|(i, _)| *i != newest);
        self.bound = others.filter_map(|(_, cursor)| cursor.key()).min().map(Key::from_slice);
        self.leader = newest;
        Ok(true)
    }
}
