//! Who takes part and with which keys, as far as this adapter has verified it; and its own key record at the gateway.
//!
//! Knows the Directory service, and what of it was kept: every key record that was admitted, the gateway's chain, the list of
//! participants. Never believes the gateway: the keyring checks each record against the pinned roots. Invariants: what was admitted
//! once survives a restart, so that neither an outage nor a rollback of the directory changes what this adapter knows; a record is on
//! the disk before it is used a second time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tramite_proto::{
    batch,
    ids::InstitutionName,
    pb::{
        directory::v1::{GetInstitutionRequest, Institution, ListInstitutionsRequest, PublishKeyRequest},
        journal::v1::Recorded,
        statement::v1::Statement,
    },
    reason::{Reason, Refused},
    seal::PublicKey,
    statement::{Evidence, KeyRecord},
};
use tramite_store::Change;

use crate::{
    backoff::Backoff,
    core::{Core, rejected, unreadable},
    link::refusal_of,
};

/// A call of the directory is one lookup in the gateway's memory; a caller of the back office waits for it.
const CALL: Duration = Duration::from_secs(5);
/// How often the list is fetched again: a new participant or key is known everywhere within minutes, and at once where it is needed.
const REFRESH: Duration = Duration::from_secs(300);

/// Names of records: one for each key record that was admitted, one for each participant, the gateway's chain, the own key record.
const KEYS: &str = "key/";
const PARTICIPANTS: &str = "participant/";
const CHAINS: &str = "chain/";
const OWN: &str = "own-key";

/// What does not check, and whether asking later may help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It could not be checked now.
    Later(Refused),
    /// It is wrong, and will stay wrong.
    Wrong(Refused),
}

impl Core {
    /// Takes what was admitted in earlier runs into the keyring.
    pub(crate) fn restore_keys(&self) -> Result<(), Refused> {
        let mut restored = 0_u32;
        for row in self.store.records(CHAINS).map_err(unreadable)? {
            // As it was judged then: what it signed may still be on its way.
            if let Some(chain) = chain_of(&row.value) {
                self.note_restored("the gateway's chain", self.keyring.admit_gateway(&chain, row.at_ms).map(drop));
            }
        }
        // Names sort by institution and sequence: lower ones come first, as they did then.
        for row in self.store.records(KEYS).map_err(unreadable)? {
            if let Ok(statement) = Statement::decode(row.value) {
                self.note_restored(&row.name, self.keyring.restore(&statement).map(drop));
                restored += 1;
            }
        }
        tracing::info!(records = restored, "key records of earlier runs are in the keyring");
        Ok(())
    }

    fn note_restored(&self, what: &str, result: Result<(), Refused>) {
        if let Err(refused) = result {
            // Normal for what has expired since.
            tracing::debug!(what, reason = %refused.reason, "a kept key is no longer of use");
        }
    }

    /// Keeps the adapter known to the gateway and its view of the directory fresh, until stopped.
    pub(crate) async fn run_directory(self: Arc<Self>, stop: CancellationToken) {
        let mut backoff = Backoff::new(&self.entropy);
        loop {
            let round = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                round = self.refresh() => round,
            };
            let pause = match round {
                Ok(()) => {
                    backoff.reset();
                    REFRESH
                }
                Err(refused) => {
                    let refused = self.link.because(refused);
                    // The stream tells for itself that it is well, whatever the directory does.
                    if !self.link.standing().connected {
                        self.link.lost(&refused.detail);
                    }
                    if backoff.is_fresh() {
                        tracing::warn!(
                            reason = %refused.reason,
                            detail = refused.detail,
                            "the directory was not reached"
                        );
                    }
                    backoff.next()
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.link.introduce.notified() => sleep(backoff.next()).await,
                () = sleep(pause) => {}
            }
        }
    }

    /// Fetches the whole list, then says who we are, whether or not there was a list: without the own key nothing at all would work.
    async fn refresh(&self) -> Result<(), Refused> {
        let listed = self.fetch_list().await;
        self.publish(*listed.as_ref().unwrap_or(&0)).await?;
        listed.map(drop)
    }

    /// Takes in the whole list; gives the highest sequence of the own key records in it.
    async fn fetch_list(&self) -> Result<u64, Refused> {
        let list = within(self.link.directory().list_institutions(ListInstitutionsRequest {})).await?;
        if !list.gateway_chain.is_empty() {
            self.admit_chain(&list.gateway_chain).await?;
        }
        let mut seq_seen = 0;
        for institution in list.institutions {
            let own = match institution.name == self.name.as_str() {
                true => institution.keys.clone(),
                false => Vec::new(),
            };
            self.take_institution(institution).await?;
            for key in own {
                seq_seen = seq_seen.max(self.sequence_kept(&key)?);
            }
        }
        Ok(seq_seen)
    }

    /// Publishes the own key record, a new one when keys have changed or it runs out.
    async fn publish(&self, seq_seen: u64) -> Result<(), Refused> {
        self.check_clock(self.clock.now_ms())?;
        let kept = self.store.record(OWN).map_err(unreadable)?;
        let last = kept.as_ref().and_then(|row| Statement::decode(row.value.clone()).ok());
        let seq_last = last.as_ref().and_then(|last| KeyRecord::parse(&last.json).ok()).map_or(0, |record| record.seq);
        let known = last.clone();
        let (record, statement) = self.own.record(last, seq_seen.max(seq_last), self.clock.now_s())?;
        if known.as_ref() != Some(&statement) {
            // On the disk first: the same sequence must never stand for two records.
            self.keep(OWN.to_owned(), statement.encode_to_vec().into()).await?;
        }
        within(self.link.directory().publish_key(PublishKeyRequest { key: Some(statement) })).await?;
        tracing::debug!(sequence = record.seq, "the gateway has this adapter's key record");
        self.link.introduced();
        Ok(())
    }

    /// The key to which messages for an institution are sealed.
    pub(crate) async fn recipient(&self, name: &InstitutionName) -> Result<PublicKey, Refused> {
        if let Some(key) = self.recipient_known(name) {
            return Ok(key);
        }
        self.fetch(name).await.map_err(|refused| match refused.reason {
            Reason::UnknownInstitution => {
                Refused::new(Reason::UnknownRecipient, format!("the gateway knows no institution `{name}`")).field("to")
            }
            _ => refused,
        })?;
        self.recipient_known(name).ok_or_else(|| {
            let detail = format!("`{name}` has no key that is good now; send again when its adapter has published one");
            Refused::new(Reason::DirectoryUnavailable, detail).field("to")
        })
    }

    fn recipient_known(&self, name: &InstitutionName) -> Option<PublicKey> {
        self.keyring.recipient(name.as_str(), self.clock.now_ms())
    }

    /// Fetches one participant's key records.
    async fn fetch(&self, name: &InstitutionName) -> Result<(), Refused> {
        let answer =
            within(self.link.directory().get_institution(GetInstitutionRequest { name: name.to_string() })).await?;
        match answer.institution {
            Some(institution) if institution.name == name.as_str() => self.take_institution(institution).await,
            _ => Err(Refused::new(Reason::DirectoryUnavailable, "the directory answered with another institution")),
        }
    }

    /// Admits and keeps the key records of a participant, and what people want to know of it.
    async fn take_institution(&self, mut institution: Institution) -> Result<(), Refused> {
        let mut keys = std::mem::take(&mut institution.keys);
        // The directory gives the highest sequence first; a lower one after it would be a rollback.
        keys.sort_by_key(|key| KeyRecord::parse(&key.json).map_or(0, |record| record.seq));
        for key in keys {
            self.take_key(&institution.name, key).await?;
        }
        institution.online = false;
        let (name, value) = (format!("{PARTICIPANTS}{}", institution.name), Bytes::from(institution.encode_to_vec()));
        let kept = self.store.record(&name).map_err(unreadable)?;
        if kept.is_none_or(|kept| kept.value != value) {
            self.keep(name, value).await?;
        }
        Ok(())
    }

    /// The sequence of an own record that checked and was kept; 0 for one that did not: a directory must not wind our sequence up.
    fn sequence_kept(&self, key: &Statement) -> Result<u64, Refused> {
        let Ok(record) = KeyRecord::parse(&key.json) else { return Ok(0) };
        let kept = self.store.record(&format!("{KEYS}{}/{:020}", self.name, record.seq)).map_err(unreadable)?;
        Ok(kept.filter(|kept| kept.value == key.encode_to_vec()).map_or(0, |_| record.seq))
    }

    async fn take_key(&self, institution: &str, key: Statement) -> Result<(), Refused> {
        let record = match KeyRecord::parse(&key.json) {
            Ok(record) if record.iss.as_str() == institution => record,
            Ok(_) => {
                let detail = "the directory gave another member's key record for an institution";
                self.distrust("key record", institution, &Refused::new(Reason::IssuerMismatch, detail));
                return Ok(());
            }
            Err(refused) => {
                self.distrust("key record", institution, &refused);
                return Ok(());
            }
        };
        let name = format!("{KEYS}{institution}/{:020}", record.seq);
        let value = Bytes::from(key.encode_to_vec());
        let kept = self.store.record(&name).map_err(unreadable)?;
        if kept.as_ref().is_some_and(|kept| kept.value == value)
            && self.keyring.signer(institution, &leaf_of(&record)).is_some()
        {
            return Ok(());
        }
        match self.keyring.admit(&key, self.clock.now_ms()) {
            Ok(_) if kept.is_none() => self.keep(name, value).await,
            Ok(_) => Ok(()),
            // An older record than the highest that is known is what a directory keeps for messages on their way, when we never saw it.
            Err(refused) if refused.reason == Reason::KeyExpired => Ok(()),
            Err(refused) => {
                self.distrust("key record", institution, &refused);
                Ok(())
            }
        }
    }

    async fn admit_chain(&self, chain: &[Bytes]) -> Result<(), Refused> {
        let der: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
        if let Err(refused) = self.keyring.admit_gateway(&der, self.clock.now_ms()) {
            self.distrust("gateway's chain", self.gateway.as_str(), &refused);
            return Ok(());
        }
        let leaf = chain.first().map(|der| tramite_proto::ids::Digest::of(der).to_hex()).unwrap_or_default();
        let name = format!("{CHAINS}{leaf}");
        if self.store.record(&name).map_err(unreadable)?.is_some() {
            return Ok(());
        }
        let kept = tramite_proto::pb::directory::v1::ListInstitutionsResponse {
            gateway_chain: chain.to_vec(),
            institutions: Vec::new(),
        };
        self.keep(name, kept.encode_to_vec().into()).await
    }

    async fn keep(&self, name: String, value: Bytes) -> Result<(), Refused> {
        let fact = Recorded { name, value: Some(value), by: self.name.to_string(), reason: String::new() };
        self.store.commit_one(Change::Record { fact: Box::new(fact), begins: false }).await.map(drop).map_err(rejected)
    }

    /// The participants that are known, without their keys.
    pub(crate) fn participants(&self) -> Result<Vec<Institution>, Refused> {
        let rows = self.store.records(PARTICIPANTS).map_err(unreadable)?;
        Ok(rows.into_iter().filter_map(|row| Institution::decode(row.value).ok()).collect())
    }

    /// Checks that an institution said this, with a certificate that counted at that time.
    pub(crate) async fn check_said(
        &self,
        statement: &Statement,
        by: &InstitutionName,
        at_ms: i64,
    ) -> Result<(), Doubt> {
        check_signer(statement, by)?;
        match self.keyring.verify(statement, at_ms, Some(by.as_str())) {
            Ok(_) => return Ok(()),
            Err(refused) if refused.reason != Reason::SignerUnknown => return Err(Doubt::Wrong(refused)),
            Err(_) => {}
        }
        self.fetch(by).await.map_err(|refused| match refused.reason {
            Reason::UnknownInstitution => Doubt::Wrong(Refused::because(Reason::SignerUnknown)),
            _ => Doubt::Later(Refused::new(Reason::DirectoryUnavailable, refused.detail)),
        })?;
        self.keyring.verify(statement, at_ms, Some(by.as_str())).map(drop).map_err(|refused| self.doubt(refused))
    }

    /// A signer that stayed unknown is a forger, unless our own revocation list is past its end: then nobody new can be admitted.
    fn doubt(&self, refused: Refused) -> Doubt {
        let stale = self.keyring.trust().crl_ends_s().is_some_and(|ends_s| ends_s <= self.clock.now_s());
        if stale && refused.reason == Reason::SignerUnknown {
            return Doubt::Later(Refused::because(Reason::RevocationUnknown));
        }
        Doubt::Wrong(refused)
    }

    /// Checks that the gateway said this, and reads it.
    pub(crate) async fn check_evidence(&self, statement: &Statement) -> Result<Evidence, Doubt> {
        let evidence = Evidence::parse(&statement.json).map_err(Doubt::Wrong)?;
        check_signer(statement, &self.gateway)?;
        let at_ms = evidence.at.saturating_mul(1_000);
        let verify = || self.keyring.verify(statement, at_ms, Some(self.gateway.as_str()));
        match verify() {
            Ok(_) => return Ok(evidence),
            Err(refused) if refused.reason != Reason::SignerUnknown => return Err(Doubt::Wrong(refused)),
            Err(_) => {}
        }
        // The gateway's certificate may be new.
        let list =
            within(self.link.directory().list_institutions(ListInstitutionsRequest {})).await.map_err(Doubt::Later)?;
        self.admit_chain(&list.gateway_chain).await.map_err(Doubt::Later)?;
        verify().map(|_| evidence.clone()).map_err(|refused| self.doubt(refused))
    }
}

/// Who signed the batch, by its own word: nobody is asked for the keys of somebody who has no say in it.
fn check_signer(statement: &Statement, by: &InstitutionName) -> Result<(), Doubt> {
    let header = batch::parse(&statement.jws).map_err(Doubt::Wrong)?;
    batch::check_issuer(&header, by).map_err(Doubt::Wrong)
}

/// A call with its limit.
async fn within<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, Refused> {
    match timeout(CALL, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(refusal_of(&status)),
        Err(_) => Err(Refused::new(Reason::GatewayUnavailable, "the gateway did not answer in time")),
    }
}

fn leaf_of(record: &KeyRecord) -> tramite_proto::ids::Digest {
    record.x5c.first().map_or(tramite_proto::ids::Digest([0; 32]), |der| tramite_proto::ids::Digest::of(der))
}

fn chain_of(value: &Bytes) -> Option<Vec<Vec<u8>>> {
    let kept = tramite_proto::pb::directory::v1::ListInstitutionsResponse::decode(value.clone()).ok()?;
    Some(kept.gateway_chain.iter().map(|der| der.to_vec()).collect())
}
