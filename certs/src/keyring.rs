//! The keyring: verified key records of institutions and signing certificates of the gateway, and the checking of statements by them.
//!
//! Knows what was admitted, in memory. Never knows where a record came from: the directory is a cache that may lie, so nothing counts
//! but the pinned roots. Invariants (FORMATS.md §1, §2.4): a record is admitted only with a chain to those roots, by its own leaf's
//! signature; the sequence of an institution never falls, the same sequence never has other bytes, its suite never weakens; evidence
//! counts only from a certificate of role gateway, everything else only from one of role institution. Whether a certificate counted
//! at some time is judged again after each reload of the roots and lists. Only successes are cached.
//!
//! After a restart, what was on the own disk comes back through [`Keyring::restore`], or a rolled back record would pass as the first.
mod cache;
mod entry;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use tramite_proto::{
    batch::{self, Header},
    ids::{Digest, InstitutionName, KeyId},
    pb::statement::v1::Statement as Proof,
    reason::{Reason, Refused},
    seal::PublicKey,
    statement::{CLOCK_AHEAD_S_MAX, KeyRecord, Kind, Statement, identity},
};

use self::cache::Cache;
pub use self::entry::KeyEntry;
use crate::{identity::Role, trust::Trust};

/// Signing certificates of one member: some years of changes, and statements are verified anew only while they travel (60 days).
pub const ENTRIES_MAX: usize = 16;
/// Members of a network: a country has some thousand institutions.
pub const MEMBERS_MAX: usize = 8_192;

/// A statement that was verified.
#[derive(Debug, Clone)]
pub struct Verified {
    /// What it says.
    pub statement: Statement,
    /// SHA-256 of its bytes.
    pub identity: Digest,
    /// Who signed it.
    pub signer: Arc<KeyEntry>,
    /// The batch it came in.
    pub header: Arc<Header>,
}

/// How much of today a record is held to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It came from outside: it must count now.
    Current,
    /// It was admitted before and comes from the own disk: it must have counted then.
    Remembered,
}

/// What is known of one member.
#[derive(Debug, Default)]
struct Member {
    /// Newest first.
    entries: Vec<Arc<KeyEntry>>,
    /// Highest sequence and strongest suite seen.
    highest: Option<u64>,
    strongest: u32,
}

/// Verified keys. Share it in an `Arc`.
#[derive(Debug)]
pub struct Keyring {
    trust: Trust,
    members: RwLock<HashMap<(Role, InstitutionName), Member>>,
    cache: Mutex<Cache>,
}

impl Keyring {
    /// An empty keyring that stands on these roots.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self { trust, members: RwLock::default(), cache: Mutex::default() }
    }

    /// The roots and lists that it stands on.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Admits a key record from outside. The same record again is no change.
    pub fn admit(&self, statement: &Proof, now_ms: i64) -> Result<Arc<KeyEntry>, Refused> {
        self.take(statement, now_ms, Standing::Current)
    }

    /// Brings back a record that this node admitted before, from its own disk: without a look at today's time, for the memory of
    /// sequence and strength.
    pub fn restore(&self, statement: &Proof) -> Result<Arc<KeyEntry>, Refused> {
        let issued_s = KeyRecord::parse(&statement.json)?.iat;
        self.take(statement, issued_s.saturating_mul(1000), Standing::Remembered)
    }

    fn take(&self, statement: &Proof, at_ms: i64, standing: Standing) -> Result<Arc<KeyEntry>, Refused> {
        let header = batch::parse(&statement.jws)?;
        let record = KeyRecord::parse(&statement.json)?;
        batch::check_issuer(&header, &record.iss)?;
        if record.x5c.first().map(|leaf| Digest::of(leaf)) != Some(header.x5t) {
            return Err(invalid(&record, "is signed by another certificate than the first of its own chain"));
        }
        if standing == Standing::Current {
            self.trust.check_crl()?;
            check_time(&record, at_ms.div_euclid(1000))?;
        }
        let generation = self.trust.generation();
        let judged = self.trust.judge(&record.x5c, Role::Institution, Some(&record.iss), at_ms)?;
        if standing == Standing::Current {
            judged.check_at(at_ms)?;
        }
        batch::verify(&statement.jws, &judged.key)?;
        batch::check_inclusion(statement, &header)?;
        let entry = KeyEntry::of_record(record, statement.clone(), header.x5t, judged, generation);
        self.insert_record(Arc::new(entry))
    }

    /// The rules that look at what was seen before, judged and noted under one lock.
    fn insert_record(&self, entry: Arc<KeyEntry>) -> Result<Arc<KeyEntry>, Refused> {
        let Some(record) = entry.record() else { return Ok(entry) };
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        let count = members.len();
        let key = (Role::Institution, record.iss.clone());
        if count >= MEMBERS_MAX && !members.contains_key(&key) {
            return Err(Refused::new(
                Reason::KeyRecordInvalid,
                format!("The keyring has {MEMBERS_MAX} members already."),
            ));
        }
        let member = members.entry(key).or_default();
        let strength = record.enc.suite().strength();
        if let Some(highest) = member.highest {
            // What the directory repeats, be it an older record for messages on their way, changes nothing.
            if let Some(known) = member.entries.iter().find(|known| known.identity() == entry.identity()) {
                return Ok(Arc::clone(known));
            }
            if record.seq <= highest {
                return Err(rolled_back(record, highest));
            }
        }
        if strength < member.strongest {
            let detail = format!("Key record {} of {} has a weaker suite than one before it.", record.seq, record.iss);
            return Err(Refused::new(Reason::KeyWeakerSuite, detail));
        }
        member.highest = Some(record.seq);
        member.strongest = strength;
        member.entries.insert(0, Arc::clone(&entry));
        member.entries.truncate(ENTRIES_MAX);
        Ok(entry)
    }

    /// Admits a signing certificate of a gateway (chain in DER, leaf first), as the directory gives it. Which gateway's word is wanted
    /// is said when a statement is verified.
    pub fn admit_gateway(&self, chain: &[impl AsRef<[u8]>], now_ms: i64) -> Result<Arc<KeyEntry>, Refused> {
        self.trust.check_crl()?;
        let generation = self.trust.generation();
        let judged = self.trust.judge(chain, Role::Gateway, None, now_ms)?;
        judged.check_at(now_ms)?;
        let name = judged.holder.name().clone();
        let entry = Arc::new(KeyEntry::of_gateway(name.clone(), chain, judged, generation));
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        let member = members.entry((Role::Gateway, name)).or_default();
        if let Some(known) = member.entries.iter().find(|known| known.x5t() == entry.x5t()) {
            return Ok(Arc::clone(known));
        }
        member.entries.insert(0, Arc::clone(&entry));
        member.entries.truncate(ENTRIES_MAX);
        Ok(entry)
    }

    /// The entry of `iss` whose certificate has this digest.
    #[must_use]
    pub fn signer(&self, iss: &str, x5t: &Digest) -> Option<Arc<KeyEntry>> {
        let name: InstitutionName = iss.parse().ok()?;
        [Role::Institution, Role::Gateway].into_iter().find_map(|role| self.signer_as(role, &name, x5t))
    }

    fn signer_as(&self, role: Role, name: &InstitutionName, x5t: &Digest) -> Option<Arc<KeyEntry>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let member = members.get(&(role, name.clone()))?;
        member.entries.iter().find(|entry| entry.x5t() == *x5t).cloned()
    }

    /// The newest record of an institution, whether it still counts or not.
    #[must_use]
    pub fn newest(&self, name: &str) -> Option<Arc<KeyEntry>> {
        let name: InstitutionName = name.parse().ok()?;
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.get(&(Role::Institution, name))?.entries.first().cloned()
    }

    /// The key to seal to: that of the newest record, if it counts at `now_ms`.
    #[must_use]
    pub fn recipient(&self, name: &str, now_ms: i64) -> Option<PublicKey> {
        self.recipient_at(name, now_ms).ok()
    }

    /// The key of that id, of the newest record or an older one that still counts: what is sealed to it can be opened.
    #[must_use]
    pub fn encryption_key(&self, name: &InstitutionName, kid: &KeyId, now_ms: i64) -> Option<PublicKey> {
        let entries = {
            let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
            members.get(&(Role::Institution, name.clone()))?.entries.clone()
        };
        let entry = entries.into_iter().find(|entry| entry.record().is_some_and(|record| record.enc.kid() == kid))?;
        let record = entry.record()?;
        check_time(record, now_ms.div_euclid(1000)).ok()?;
        entry.check_at(&self.trust, now_ms).ok()?;
        Some(record.enc.clone())
    }

    /// As [`Self::recipient`], with the reason when there is none (KEY_UNKNOWN, KEY_EXPIRED, CERTIFICATE_INVALID).
    pub fn recipient_at(&self, name: &str, now_ms: i64) -> Result<PublicKey, Refused> {
        let unknown = || Refused::new(Reason::KeyUnknown, "No key record of the recipient is known.");
        let entry = self.newest(name).ok_or_else(unknown)?;
        let record = entry.record().ok_or_else(unknown)?;
        check_time(record, now_ms.div_euclid(1000))?;
        self.trust.check_crl()?;
        entry.check_at(&self.trust, now_ms)?;
        Ok(record.enc.clone())
    }

    /// Verifies a statement as of `at_ms` (now at submission; the acceptance's time at the recipient), by all of FORMATS.md §1;
    /// `expected_iss`: it must be this one's word.
    pub fn verify(
        &self,
        statement: &Proof,
        at_ms: i64,
        expected_iss: Option<&(impl AsRef<str> + ?Sized)>,
    ) -> Result<Verified, Refused> {
        let cached = self.cached(statement);
        let header = match &cached {
            Some(header) => Arc::clone(header),
            None => Arc::new(batch::parse(&statement.jws)?),
        };
        let said = Statement::parse(&statement.json)?;
        let role = if said.kind() == Kind::Evidence { Role::Gateway } else { Role::Institution };
        let signer = self.signer_as(role, &header.iss, &header.x5t).ok_or_else(|| {
            let detail = format!("No signing certificate of {role}/{} with that digest is known.", header.iss);
            Refused::new(Reason::SignerUnknown, detail)
        })?;
        let key = signer.check_at(&self.trust, at_ms)?;
        if cached.is_none() {
            batch::verify(&statement.jws, &key)?;
        }
        batch::check_inclusion(statement, &header)?;
        batch::check_issuer(&header, said.issuer())?;
        check_expected(said.issuer(), expected_iss.map(AsRef::as_ref))?;
        if cached.is_none() {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.insert(Digest::of(statement.jws.as_bytes()), Arc::clone(&header));
        }
        Ok(Verified { statement: said, identity: identity(&statement.json), signer, header })
    }

    fn cached(&self, statement: &Proof) -> Option<Arc<Header>> {
        // What is longer is no JWS: nothing is gained by hashing it.
        if statement.jws.len() > tramite_proto::jws::JWS_MAX {
            return None;
        }
        let digest = Digest::of(statement.jws.as_bytes());
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).find(&digest)
    }
}

fn check_expected(issuer: &InstitutionName, expected: Option<&str>) -> Result<(), Refused> {
    match expected {
        Some(expected) if issuer.as_str() != expected => {
            Err(Refused::new(Reason::IssuerMismatch, format!("The statement is by {issuer}, not by {expected}.")))
        }
        _ => Ok(()),
    }
}

fn check_time(record: &KeyRecord, now_s: i64) -> Result<(), Refused> {
    if record.iat > now_s + CLOCK_AHEAD_S_MAX {
        return Err(Refused::new(
            Reason::IssuedInFuture,
            format!("The key record of {} is issued in the future.", record.iss),
        ));
    }
    if !(record.nbf..record.exp).contains(&now_s) {
        let detail = format!("Key record {} of {} is past its expiry, or not valid yet.", record.seq, record.iss);
        return Err(Refused::new(Reason::KeyExpired, detail));
    }
    Ok(())
}

fn rolled_back(record: &KeyRecord, highest: u64) -> Refused {
    let detail = format!(
        "Key record {} of {} came after record {highest}, or differs from the one seen.",
        record.seq, record.iss
    );
    Refused::new(Reason::KeyRolledBack, detail)
}

fn invalid(record: &KeyRecord, what: &str) -> Refused {
    Refused::new(Reason::KeyRecordInvalid, format!("Key record {} of {} {what}.", record.seq, record.iss))
}

#[cfg(test)]
mod tests;
