//! The statements of a group: signed up to 64 at once, each put into its place.
//!
//! Knows: which fact has which statement. Never knows: keys; a [`Notary`] has them.

use bytes::Bytes;
use tramite_proto::pb::{journal::v1::fact::Kind, statement::v1::Statement};

use crate::{
    change::{Notary, Slot},
    judge::NewFact,
};

/// Statements under one signature (FORMATS.md §1).
const SIGNED_AT_ONCE_MAX: usize = tramite_proto::batch::BATCH_MAX;

/// Signs what the facts of a group have to sign, up to 64 at once, and puts each statement into its place.
pub(super) fn sign(notary: &dyn Notary, now_ms: i64, facts: &mut [NewFact]) -> Result<(), String> {
    let mut places = Vec::new();
    let mut jsons: Vec<Bytes> = Vec::new();
    for (i, new) in facts.iter_mut().enumerate() {
        for (slot, json) in std::mem::take(&mut new.sign) {
            places.push((i, slot));
            jsons.push(json);
        }
    }
    for (jsons, places) in jsons.chunks(SIGNED_AT_ONCE_MAX).zip(places.chunks(SIGNED_AT_ONCE_MAX)) {
        let statements = notary.sign(now_ms, jsons)?;
        if statements.len() != jsons.len() {
            return Err(format!("{} statements for {}", statements.len(), jsons.len()));
        }
        for (statement, (i, slot)) in statements.into_iter().zip(places) {
            let fact = facts.get_mut(*i).and_then(|new| new.fact.kind.as_mut());
            *place(fact, *slot).ok_or_else(|| format!("this fact has no {slot:?}"))? = Some(statement);
        }
    }
    Ok(())
}

fn place(kind: Option<&mut Kind>, slot: Slot) -> Option<&mut Option<Statement>> {
    match (kind?, slot) {
        (Kind::Accepted(fact), Slot::Statement) => Some(&mut fact.statement),
        (Kind::Accepted(fact), Slot::Evidence) => Some(&mut fact.evidence),
        (Kind::Accepted(fact), Slot::Receipt) => Some(&mut fact.receipt),
        (Kind::Settled(fact), Slot::Evidence) => Some(&mut fact.evidence),
        (Kind::Settled(fact), Slot::Receipt) => Some(&mut fact.receipt),
        (Kind::CaseExpired(fact), Slot::Evidence) => Some(&mut fact.evidence),
        _ => None,
    }
}
