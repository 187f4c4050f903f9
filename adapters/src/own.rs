//! The institution's own keys: what it signs with, what it opens with, and the key record in which it says so.
//!
//! Knows the files, and watches them: an office renews certificates and keys without stopping its adapter. Never knows whom it
//! trusts. Invariants: old encryption keys stay usable for what was sealed to them; keys stand in memory and in their files only.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tramite_certs::{
    identity::{Role, TrustDomain},
    secrets::{self, LoadedSigner, SecretError, SigningFiles},
};
use tramite_proto::{
    batch,
    ids::{Digest, InstitutionName, KeyId},
    jws::Signer as _,
    pb::statement::v1::Statement,
    reason::{Reason, Refused},
    seal::PrivateKey,
    statement::{CLOCK_AHEAD_S_MAX, KeyRecord},
};
use tramite_store::Notary;

use crate::config::Encryption;

/// A record is good for a year at most, and no longer than its certificate.
const RECORD_S: i64 = 365 * 86_400;
/// Clocks differ: a record is valid from a little before it was made.
const BEFORE_S: i64 = 300;
/// With less than this left, a new record is made where the certificate allows one.
const RENEW_S: i64 = 30 * 86_400;

/// Why the own keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// A file is missing, readable by others, or not what it should be.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is no key with which anything could be opened.
    #[error("{0} holds no enc-<key id>.key: make one with `tramite certs`")]
    NoEncryptionKey(String),
    /// The configured one is not there.
    #[error("[encryption] active = {0:?} is not among the keys in the directory")]
    NoSuchKey(String),
}

/// One state of the files.
pub(crate) struct Keys {
    signing: LoadedSigner,
    private: BTreeMap<KeyId, PrivateKey>,
    active: KeyId,
}

/// The own keys, as the files have them now.
pub(crate) struct Own {
    name: InstitutionName,
    trust_domain: TrustDomain,
    signing: SigningFiles,
    encryption: Encryption,
    current: ArcSwap<Keys>,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Own {
    /// Reads the files.
    pub(crate) fn load(
        name: InstitutionName,
        trust_domain: TrustDomain,
        signing: SigningFiles,
        encryption: Encryption,
    ) -> Result<Self, OwnError> {
        let keys = Keys::load(&name, &trust_domain, &signing, &encryption)?;
        Ok(Self { name, trust_domain, signing, encryption, current: ArcSwap::from_pointee(keys) })
    }

    /// Reads the files again; true when something changed. What cannot be used is left as it was, and said.
    pub(crate) fn reload(&self) -> bool {
        let keys = match Keys::load(&self.name, &self.trust_domain, &self.signing, &self.encryption) {
            Ok(keys) => keys,
            Err(error) => {
                tracing::error!(%error, "the keys on the disk cannot be used; those in memory stay");
                return false;
            }
        };
        let before = self.current.load();
        let same = before.signing.signer.x5t() == keys.signing.signer.x5t()
            && before.active == keys.active
            && before.private.keys().eq(keys.private.keys());
        drop(before);
        if !same {
            tracing::info!(key = %keys.active, "the keys on the disk have changed");
            self.current.store(Arc::new(keys));
        }
        !same
    }

    /// The private key of that id.
    pub(crate) fn private(&self, kid: &KeyId) -> Option<PrivateKey> {
        self.current.load().private.get(kid).cloned()
    }

    /// A key record that is still good: the one given, or else a new one with a sequence above `seq_seen`.
    pub(crate) fn record(
        &self,
        last: Option<Statement>,
        seq_seen: u64,
        now_s: i64,
    ) -> Result<(KeyRecord, Statement), Refused> {
        let keys = self.current.load();
        if let Some(statement) = last
            && let Ok(record) = KeyRecord::parse(&statement.json)
            && keys.are_in(&record)
            && (record.exp - now_s > RENEW_S || record.exp >= keys.signing.holder.not_after_s())
            // One that was made by a clock far ahead is taken by nobody until then.
            && record.iat <= now_s.saturating_add(CLOCK_AHEAD_S_MAX)
            && record.seq >= seq_seen
        {
            return Ok((record, statement));
        }
        // At least the time: an adapter that lost its disk still makes records that are newer than those it made before.
        let seq = seq_seen.saturating_add(1).max(u64::try_from(now_s).unwrap_or(0));
        let record = keys.write_record(&self.name, seq, now_s)?;
        let signed = batch::sign(&keys.signing.signer, now_s, &[record.to_json()]);
        let statement = signed.ok().and_then(|mut signed| signed.pop());
        let statement =
            statement.ok_or_else(|| Refused::new(Reason::Internal, "the key record could not be signed"))?;
        Ok((record, statement))
    }
}

impl Keys {
    fn load(
        name: &InstitutionName,
        trust_domain: &TrustDomain,
        signing: &SigningFiles,
        encryption: &Encryption,
    ) -> Result<Self, OwnError> {
        let signing =
            secrets::load_signing(&signing.cert, &signing.key, trust_domain, Role::Institution, name.as_str())?;
        let found = secrets::load_encryption_keys(&encryption.keys)?;
        let changed = |kid: &KeyId| {
            let path = encryption.keys.join(format!("enc-{kid}.key"));
            std::fs::metadata(path).and_then(|data| data.modified()).ok()
        };
        let newest =
            found.iter().max_by_key(|(kid, key)| (key.suite().strength(), changed(kid), kid.as_str().to_owned()));
        let active = match &encryption.active {
            Some(wanted) => found.iter().find(|(kid, _)| kid.as_str() == wanted),
            None => newest,
        };
        let active = active.map(|(kid, _)| kid.clone()).ok_or_else(|| match &encryption.active {
            Some(wanted) => OwnError::NoSuchKey(wanted.clone()),
            None => OwnError::NoEncryptionKey(encryption.keys.display().to_string()),
        })?;
        Ok(Self { signing, private: found.into_iter().collect(), active })
    }

    /// True when the record names these very keys.
    fn are_in(&self, record: &KeyRecord) -> bool {
        let leaf = record.x5c.first().map(|der| Digest::of(der));
        leaf == Some(self.signing.signer.x5t()) && record.enc.kid() == &self.active
    }

    fn write_record(&self, name: &InstitutionName, seq: u64, now_s: i64) -> Result<KeyRecord, Refused> {
        let private = self.private.get(&self.active);
        let private = private.ok_or_else(|| Refused::new(Reason::Internal, "the active key is not loaded"))?;
        Ok(KeyRecord {
            iss: name.clone(),
            seq,
            iat: now_s,
            nbf: now_s - BEFORE_S,
            exp: (now_s + RECORD_S).min(self.signing.holder.not_after_s()),
            x5c: self.signing.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            enc: private.public_key(self.active.clone()),
        })
    }
}

impl Notary for Own {
    fn sign(&self, now_ms: i64, jsons: &[Bytes]) -> Result<Vec<Statement>, String> {
        let keys = self.current.load();
        batch::sign(&keys.signing.signer, now_ms.div_euclid(1_000), jsons).map_err(|error| error.to_string())
    }
}
