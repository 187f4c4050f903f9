//! Each batch once in a group (FORMATS.md §6): the facts of a group refer to a table of JWS instead of carrying them.
//!
//! Knows: where the statements of a fact are, and how a reference is written. Never knows: what a JWS says. Invariant: a reference
//! begins with `#`, which no base64url text does; what is restored is what was taken out, to the letter.

use std::collections::HashMap;

use tramite_proto::pb::{
    journal::v1::{Fact, fact::Kind},
    statement::v1::Statement,
};
use xxhash_rust::xxh3::xxh3_64;

/// Begins a reference.
const REFERENCE: char = '#';

/// The batches that were taken out of the facts of a group.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Of each statement, in order.
    taken: Vec<String>,
    /// Those of them that are the first of their kind, in the order of their first use.
    firsts: Vec<usize>,
}

impl Table {
    /// Takes the batches out of facts that are to be written and puts references there; [`put_back`](Self::put_back) undoes it.
    pub(super) fn take(facts: &mut [Fact]) -> Self {
        let mut table = Self::default();
        let mut places: HashMap<u64, usize> = HashMap::new();
        for statement in facts.iter_mut().flat_map(statements_mut).flatten() {
            let jws = std::mem::take(&mut statement.jws);
            let hash = xxh3_64(jws.as_bytes());
            // Two batches with one hash would stand apart, which is allowed.
            let known = places.get(&hash).copied().filter(|place| table.jws(*place) == Some(&jws));
            let place = known.unwrap_or_else(|| {
                places.insert(hash, table.firsts.len());
                table.firsts.push(table.taken.len());
                table.firsts.len() - 1
            });
            statement.jws = format!("{REFERENCE}{place}");
            table.taken.push(jws);
        }
        table
    }

    fn jws(&self, place: usize) -> Option<&String> {
        self.firsts.get(place).and_then(|first| self.taken.get(*first))
    }

    /// Each batch once.
    pub(super) fn batches(&self) -> impl ExactSizeIterator<Item = &str> {
        self.firsts.iter().map(|first| self.taken.get(*first).map_or("", String::as_str))
    }

    /// Makes the facts what they were.
    pub(super) fn put_back(self, facts: &mut [Fact]) {
        let statements = facts.iter_mut().flat_map(statements_mut).flatten();
        for (statement, jws) in statements.zip(self.taken) {
            statement.jws = jws;
        }
    }
}

/// Puts the batches back into a fact that was read.
pub(super) fn restore(fact: &mut Fact, jws: &[String]) -> Result<(), &'static str> {
    for statement in statements_mut(fact).into_iter().flatten() {
        let place = statement.jws.strip_prefix(REFERENCE).and_then(|place| place.parse::<usize>().ok());
        let batch = place.and_then(|place| jws.get(place)).ok_or("a fact refers to a batch that its group has not")?;
        statement.jws.clone_from(batch);
    }
    Ok(())
}

/// Whether a fact that was read has a statement of a batch.
pub(super) fn names(fact: &Fact, jws: &[u8]) -> bool {
    statements(fact).into_iter().flatten().any(|statement| statement.jws.as_bytes() == jws)
}

/// The places at which a fact may have a statement.
fn statements(fact: &Fact) -> [Option<&Statement>; 3] {
    match &fact.kind {
        Some(Kind::Accepted(it)) => [it.statement.as_ref(), it.evidence.as_ref(), it.receipt.as_ref()],
        Some(Kind::Settled(it)) => [it.evidence.as_ref(), it.receipt.as_ref(), None],
        Some(Kind::CaseExpired(it)) => [it.evidence.as_ref(), None, None],
        Some(Kind::AttemptFailed(_) | Kind::Redriven(_) | Kind::Recorded(_) | Kind::Retired(_)) | None => [None; 3],
    }
}

/// The same, to be changed.
fn statements_mut(fact: &mut Fact) -> [Option<&mut Statement>; 3] {
    match &mut fact.kind {
        Some(Kind::Accepted(it)) => [it.statement.as_mut(), it.evidence.as_mut(), it.receipt.as_mut()],
        Some(Kind::Settled(it)) => [it.evidence.as_mut(), it.receipt.as_mut(), None],
        Some(Kind::CaseExpired(it)) => [it.evidence.as_mut(), None, None],
        Some(Kind::AttemptFailed(_) | Kind::Redriven(_) | Kind::Recorded(_) | Kind::Retired(_)) | None => {
            [None, None, None]
        }
    }
}
