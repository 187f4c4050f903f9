//! One signing certificate that was admitted, with the record it came in.
//!
//! Knows the chain and how it was judged last. Never knows statements. Invariant: a judgement is used only under the roots and lists
//! that it was made with; after a reload the chain is judged again.
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tramite_proto::{
    ids::{Digest, InstitutionName},
    jws::VerifyingKey,
    pb::statement::v1::Statement as Proof,
    reason::Refused,
    statement::{KeyRecord, identity},
};

use crate::{
    identity::Role,
    trust::{Judged, Trust},
};

/// A signer.
#[derive(Debug)]
pub struct KeyEntry {
    role: Role,
    name: InstitutionName,
    x5t: Digest,
    chain: Vec<Bytes>,
    source: Option<Source>,
    judged: ArcSwap<(u64, Judged)>,
}

#[derive(Debug)]
struct Source {
    record: KeyRecord,
    statement: Proof,
    identity: Digest,
}

impl KeyEntry {
    pub(super) fn of_record(record: KeyRecord, statement: Proof, x5t: Digest, judged: Judged, generation: u64) -> Self {
        let identity = identity(&statement.json);
        Self {
            role: Role::Institution,
            name: record.iss.clone(),
            x5t,
            chain: record.x5c.clone(),
            source: Some(Source { record, statement, identity }),
            judged: ArcSwap::from_pointee((generation, judged)),
        }
    }

    pub(super) fn of_gateway(
        name: InstitutionName,
        chain: &[impl AsRef<[u8]>],
        judged: Judged,
        generation: u64,
    ) -> Self {
        let chain: Vec<Bytes> = chain.iter().map(|der| Bytes::copy_from_slice(der.as_ref())).collect();
        let x5t = judged.holder.fingerprint();
        Self {
            role: Role::Gateway,
            name,
            x5t,
            chain,
            source: None,
            judged: ArcSwap::from_pointee((generation, judged)),
        }
    }

    /// Institution or gateway.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whose it is.
    #[must_use]
    pub fn name(&self) -> &InstitutionName {
        &self.name
    }

    /// SHA-256 of the signing certificate in DER.
    #[must_use]
    pub fn x5t(&self) -> Digest {
        self.x5t
    }

    /// Certificates in DER, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[Bytes] {
        &self.chain
    }

    /// The record that it came in; a gateway has none.
    #[must_use]
    pub fn record(&self) -> Option<&KeyRecord> {
        self.source.as_ref().map(|source| &source.record)
    }

    /// The record's sequence.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        self.record().map(|record| record.seq)
    }

    /// The record's statement, byte for byte: to keep and to hand on.
    #[must_use]
    pub fn statement(&self) -> Option<&Proof> {
        self.source.as_ref().map(|source| &source.statement)
    }

    /// The record's identity.
    #[must_use]
    pub fn identity(&self) -> Option<Digest> {
        self.source.as_ref().map(|source| source.identity)
    }

    /// Whether the certificate counts at this time, by the roots and lists of now; then its key.
    pub fn check_at(&self, trust: &Trust, at_ms: i64) -> Result<VerifyingKey, Refused> {
        let generation = trust.generation();
        let known = self.judged.load();
        if known.0 == generation {
            known.1.check_at(at_ms)?;
            return Ok(known.1.key.clone());
        }
        let judged = trust.judge(&self.chain, self.role, Some(&self.name), at_ms)?;
        judged.check_at(at_ms)?;
        let key = judged.key.clone();
        self.judged.store(Arc::new((generation, judged)));
        Ok(key)
    }
}
