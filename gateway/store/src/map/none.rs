//! What stands where a map was that could not be made anew: it answers nothing, as what cannot be read is not absent.

use bytes::Bytes;

use super::{OrderedMap, Pair, RowChange};
use crate::error::MapError;

/// See the module.
#[derive(Debug)]
pub(crate) struct NoMap;

impl NoMap {
    fn error<T>() -> Result<T, MapError> {
        Err(MapError("it could not be made anew".into()))
    }
}

impl OrderedMap for NoMap {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, MapError> {
        Self::error()
    }

    fn scan(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<Pair>, MapError> {
        Self::error()
    }

    fn apply(&self, _: &mut dyn Iterator<Item = RowChange>) -> Result<(), MapError> {
        Self::error()
    }

    fn flush(&self) -> Result<(), MapError> {
        Self::error()
    }
}
