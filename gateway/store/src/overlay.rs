//! Row changes in memory, laid over the rows below: what is being judged, what is durable but not applied yet.
//!
//! Knows: for each key the newest value or that it was removed, and whether the rows below have the key at all. Never knows: what
//! a key means. Invariant: a row that was new here and is removed again leaves no trace, so a message that is accepted and
//! settled before its rows are applied never reaches the map below.

use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
};

use bytes::Bytes;

use crate::{
    error::MapError,
    map::{Key, OrderedMap, Pair, RowChange},
};

/// Asked for beyond what is wanted, so that a few removed rows cost no second look below.
const SPARE: usize = 4;

/// Something that has rows.
pub(crate) trait Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError>;
    /// Up to `limit` pairs with `from <= key < to`, in order.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError>;
}

impl Rows for &dyn OrderedMap {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        OrderedMap::get(*self, key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        OrderedMap::scan(*self, from, to, limit)
    }
}

#[derive(Debug)]
struct Entry {
    value: Option<Bytes>,
    /// The rows below do not have this key.
    fresh: bool,
}

/// Changes laid over rows.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    rows: BTreeMap<Key, Entry>,
}

impl Overlay {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The newest value, or that it was removed; `None`: ask below.
    fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.rows.get(key).map(|entry| entry.value.clone())
    }

    /// Sets a row, which may be there below.
    pub(crate) fn put(&mut self, key: Key, value: Bytes) {
        self.set(key, value, false);
    }

    /// Sets a row of which the caller knows that it is not there below.
    pub(crate) fn put_new(&mut self, key: Key, value: Bytes) {
        self.set(key, value, true);
    }

    fn set(&mut self, key: Key, value: Bytes, fresh: bool) {
        match self.rows.entry(key) {
            btree_map::Entry::Occupied(mut there) => there.get_mut().value = Some(value),
            btree_map::Entry::Vacant(place) => {
                place.insert(Entry { value: Some(value), fresh });
            }
        }
    }

    pub(crate) fn remove(&mut self, key: Key) {
        match self.rows.entry(key) {
            btree_map::Entry::Occupied(there) if there.get().fresh => {
                there.remove();
            }
            btree_map::Entry::Occupied(mut there) => there.get_mut().value = None,
            btree_map::Entry::Vacant(place) => {
                place.insert(Entry { value: None, fresh: false });
            }
        }
    }

    /// Takes in the changes that lay over this one.
    pub(crate) fn merge(&mut self, upper: Self) {
        for (key, entry) in upper.rows {
            match (self.rows.entry(key), entry) {
                (btree_map::Entry::Occupied(there), Entry { value: None, .. }) if there.get().fresh => {
                    there.remove();
                }
                (btree_map::Entry::Occupied(mut there), entry) => there.get_mut().value = entry.value,
                (btree_map::Entry::Vacant(place), entry) => {
                    place.insert(entry);
                }
            }
        }
    }

    /// Every change, for the map below.
    pub(crate) fn changes(&self) -> impl Iterator<Item = RowChange> + '_ {
        self.rows.iter().map(|(key, entry)| (key.clone(), entry.value.clone()))
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> impl Iterator<Item = (&'a Key, &'a Option<Bytes>)> + use<'a> {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        self.rows.range::<[u8], _>(bounds).map(|(key, entry)| (key, &entry.value))
    }
}

/// Changes and the rows below them, read as one.
pub(crate) struct Over<'a> {
    pub(crate) upper: &'a Overlay,
    pub(crate) below: &'a dyn Rows,
}

impl Rows for Over<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        match self.upper.get(key) {
            Some(newest) => Ok(newest),
            None => self.below.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, MapError> {
        let mut found = Vec::new();
        let mut cursor = Key::from_slice(from);
        while found.len() < limit && cursor.as_slice() < to {
            let asked = (limit - found.len()).saturating_add(SPARE);
            let below = self.below.scan(&cursor, to, asked)?;
            // The keys up to here are all known; those after a full answer are not.
            let end = match below.last() {
                Some((key, _)) if below.len() == asked => successor(key),
                _ => Key::from_slice(to),
            };
            merge_into(&mut found, self.upper.range(&cursor, &end), below, limit);
            cursor = end;
        }
        Ok(found)
    }
}

/// The least key after `key`.
pub(crate) fn successor(key: &[u8]) -> Key {
    let mut next = Key::from_slice(key);
    next.push(0);
    next
}

/// Merges two ordered runs; on the same key the upper one counts. Stops at `limit`.
fn merge_into<'a>(
    found: &mut Vec<Pair>,
    upper: impl Iterator<Item = (&'a Key, &'a Option<Bytes>)>,
    below: Vec<Pair>,
    limit: usize,
) {
    let mut upper = upper.peekable();
    let mut below = below.into_iter().peekable();
    while found.len() < limit {
        let next = match (upper.peek(), below.peek()) {
            (None, None) => return,
            (Some((key, _)), Some((other, _))) if *key > other => below.next(),
            (None, Some(_)) => below.next(),
            (Some((key, _)), other) => {
                if other.is_some_and(|(other, _)| *key == other) {
                    below.next();
                }
                upper.next().and_then(|(key, value)| Some((key.clone(), value.clone()?)))
            }
        };
        found.extend(next);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn overlay(changes: &[(u8, Option<u8>)], base: &BTreeMap<Key, Bytes>) -> Overlay {
        let mut overlay = Overlay::default();
        for (key, value) in changes {
            let key = Key::from_slice(&[*key]);
            match value {
                Some(value) if base.contains_key(&key) || overlay.rows.contains_key(&key) => {
                    overlay.put(key, Bytes::copy_from_slice(&[*value]));
                }
                Some(value) => overlay.put_new(key, Bytes::copy_from_slice(&[*value])),
                None => overlay.remove(key),
            }
        }
        overlay
    }

    fn plain(rows: &BTreeMap<Key, Bytes>) -> std::sync::Arc<dyn OrderedMap> {
        use crate::map::{Maps as _, MemoryMaps};
        let map = MemoryMaps::new().open(std::path::Path::new("m")).unwrap();
        map.apply(&mut rows.iter().map(|(k, v)| (k.clone(), Some(v.clone())))).unwrap();
        map
    }

    proptest! {
        #[test]
        fn layers_read_like_one_map(
            base in proptest::collection::btree_map(0_u8..20, any::<u8>(), 0..20),
            lower in proptest::collection::vec((0_u8..20, any::<Option<u8>>()), 0..30),
            upper in proptest::collection::vec((0_u8..20, any::<Option<u8>>()), 0..30),
            from in 0_u8..20, to in 0_u8..21, limit in 0_usize..8,
        ) {
            let base: BTreeMap<_, _> = base.iter().map(|(k, v)| (Key::from_slice(&[*k]), Bytes::copy_from_slice(&[*v]))).collect();
            let map = plain(&base);
            let below = map.as_ref();
            let mut model = base.clone();
            for (key, value) in lower.iter().chain(&upper) {
                match value {
                    Some(value) => model.insert(Key::from_slice(&[*key]), Bytes::copy_from_slice(&[*value])),
                    None => model.remove([*key].as_slice()),
                };
            }
            let mut tail = overlay(&lower, &base);
            let mut after_lower = base.clone();
            for (key, value) in &lower {
                match value {
                    Some(value) => after_lower.insert(Key::from_slice(&[*key]), Bytes::copy_from_slice(&[*value])),
                    None => after_lower.remove([*key].as_slice()),
                };
            }
            let group = overlay(&upper, &after_lower);
            let expected: Vec<Pair> = model.iter().filter(|(k, _)| k.as_slice() >= [from].as_slice() && k.as_slice() < [to].as_slice())
                .take(limit).map(|(k, v)| (k.clone(), v.clone())).collect();
            {
                let lower = Over { upper: &tail, below: &below };
                let all = Over { upper: &group, below: &lower };
                prop_assert_eq!(&all.scan(&[from], &[to], limit).unwrap(), &expected);
                prop_assert_eq!(all.get(&[from]).unwrap(), model.get([from].as_slice()).cloned());
            }
            tail.merge(group);
            prop_assert_eq!(&Over { upper: &tail, below: &below }.scan(&[from], &[to], limit).unwrap(), &expected);
            map.apply(&mut tail.changes()).unwrap();
            prop_assert_eq!(below.scan(&[0], &[255], 100).unwrap(), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_row_that_comes_and_goes_leaves_no_trace() {
        let (mut tail, mut group) = (Overlay::default(), Overlay::default());
        tail.put_new(Key::from_slice(&[1]), Bytes::new());
        group.remove(Key::from_slice(&[1]));
        tail.merge(group);
        assert_eq!(tail.len(), 0);
    }
}
