//! Each batch once in a group (FORMATS.md §6): the facts of a group refer to a table of JWS instead of carrying them.
//!
//! Knows: where the statements of a fact are, and how a reference is written. Never knows: what a JWS says. Invariant: a reference
//! begins with `#`, which no base64url text does; what is restored is what was taken out, to the letter.

use std::collections::HashMap;

use tramite_proto::pb::{
    journal::v1::{Fact, fact::Kind},
    statement::v1::Statement,
};

/// Begins a reference.
const REFERENCE: char = '#';

/// The batches of a group, in the order of their first use.
#[derive(Debug, Default)]
pub(super) struct Table<'a> {
    pub(super) jws: Vec<&'a str>,
    places: HashMap<&'a str, usize>,
}

impl<'a> Table<'a> {
    /// The table of these facts.
    pub(super) fn of(facts: impl Iterator<Item = &'a Fact>) -> Self {
        let mut table = Self::default();
        for statement in facts.flat_map(statements).flatten() {
            let next = table.jws.len();
            if let std::collections::hash_map::Entry::Vacant(free) = table.places.entry(&statement.jws) {
                free.insert(next);
                table.jws.push(&statement.jws);
            }
        }
        table
    }

    /// The fact as it is written: with references. `None`: it has no statement and is written as it is.
    pub(super) fn refer(&self, fact: &Fact) -> Option<Fact> {
        statements(fact).iter().flatten().next()?;
        let mut referring = fact.clone();
        for statement in statements_mut(&mut referring).into_iter().flatten() {
            if let Some(place) = self.places.get(statement.jws.as_str()) {
                statement.jws = format!("{REFERENCE}{place}");
            }
        }
        Some(referring)
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

/// The places at which a fact may have a statement.
fn statements(fact: &Fact) -> [Option<&Statement>; 3] {
    match &fact.kind {
        Some(Kind::Accepted(it)) => [it.statement.as_ref(), it.evidence.as_ref(), it.receipt.as_ref()],
        Some(Kind::Settled(it)) => [it.evidence.as_ref(), it.receipt.as_ref(), None],
        Some(Kind::CaseExpired(it)) => [it.evidence.as_ref(), None, None],
        Some(Kind::AttemptFailed(_) | Kind::Redriven(_) | Kind::Recorded(_)) | None => [None; 3],
    }
}

/// The same, to be changed.
fn statements_mut(fact: &mut Fact) -> [Option<&mut Statement>; 3] {
    match &mut fact.kind {
        Some(Kind::Accepted(it)) => [it.statement.as_mut(), it.evidence.as_mut(), it.receipt.as_mut()],
        Some(Kind::Settled(it)) => [it.evidence.as_mut(), it.receipt.as_mut(), None],
        Some(Kind::CaseExpired(it)) => [it.evidence.as_mut(), None, None],
        Some(Kind::AttemptFailed(_) | Kind::Redriven(_) | Kind::Recorded(_)) | None => [None, None, None],
    }
}
