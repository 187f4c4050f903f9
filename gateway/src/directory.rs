//! `tramite.directory.v1.Directory`: who takes part and with which keys. A cache that nobody has to believe: every key record is its
//! institution's own statement with the chain inside, and callers verify it against the root that they got out of band. It knows
//! the configuration and the records; a published record is a fact in the journal before it is served.

use std::sync::Arc;

use prost::Message as _;
use tonic::{Request, Response, Status};
use tramite_certs::keyring::Keyring;
use tramite_proto::{
    pb::{
        directory::v1::{
            GetInstitutionRequest, GetInstitutionResponse, Institution, InstitutionKind as PbKind,
            ListInstitutionsRequest, ListInstitutionsResponse, PublishKeyRequest, PublishKeyResponse,
            directory_server::Directory,
        },
        journal::v1::Recorded,
        statement::v1::Statement,
    },
    reason::{Reason, Refused},
    statement::KeyRecord,
};
use tramite_store::{Change, ReadError, Store};

use crate::{
    config::{self, InstitutionKind},
    hub::Hub,
    identify::{self, Member, Reader},
    limits,
    pace::Paces,
};

/// Records of keys are named with this, the institution and the sequence in 20 digits, so that names sort like sequences.
const RECORD_PREFIX: &str = "key/";

/// The service.
#[derive(Debug, Clone)]
pub struct DirectoryService {
    hub: Arc<Hub>,
    publishing: Arc<Paces>,
}

impl DirectoryService {
    /// On that hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        let publishing = Arc::new(Paces::new(limits::KEY_RECORDS_BURST, limits::KEY_RECORDS_INTERVAL));
        Self { hub, publishing }
    }

    fn reader<T>(&self, request: &Request<T>) -> Result<Reader, Status> {
        let identified = identify::peer(request.extensions()).and_then(|peer| {
            identify::reader(&peer, &self.hub.config).inspect_err(|refused| self.refuse(peer.name().as_str(), refused))
        });
        Ok(identified?)
    }

    fn refuse(&self, peer: &str, refused: &Refused) {
        self.hub.refuse("directory", peer, "", refused);
    }

    fn institution(&self, institution: &config::Institution, reader: &Reader) -> Result<Institution, Status> {
        let name = institution.name.as_str();
        let keys = live_keys(&self.hub.store, name, self.hub.clock.now_s());
        let keys = keys.map_err(|error| self.hub.read_failed(&error))?;
        let accepts = reader.institution().map(|caller| self.hub.policy.accepted(caller, name)).unwrap_or_default();
        Ok(Institution {
            name: name.to_owned(),
            display_name: institution.display_name.clone(),
            kind: match institution.kind {
                InstitutionKind::Pa => PbKind::Pa.into(),
                InstitutionKind::Private => PbKind::Private.into(),
            },
            ipa_code: institution.ipa_code.clone(),
            codice_fiscale: institution.codice_fiscale.clone(),
            organization_identifier: institution.organization_identifier.clone(),
            accepts: accepts.into_iter().filter(|_| reader.institution() != Some(name)).collect(),
            keys,
            online: self.hub.presence.is_online(name),
        })
    }

    async fn publish(&self, member: &Member, statement: Statement) -> Result<bool, Refused> {
        self.publishing.take(member.as_str(), self.hub.clock.now_ms())?;
        let record = KeyRecord::parse(&statement.json)?;
        if record.iss != *member.name() {
            return Err(Refused::because(Reason::IssuerMismatch).field("key.json.iss"));
        }
        self.hub.keyring.admit(&statement, self.hub.clock.now_ms())?;
        let name = record_name(record.iss.as_str(), record.seq);
        let value = statement.encode_to_vec();
        let before = self.hub.store.record(&name).map_err(|error| self.hub.read_failed(&error))?;
        if before.is_some_and(|before| same_statement(&before.value, &statement)) {
            return Ok(false);
        }
        let mut changes = self.surplus(record.iss.as_str(), &name)?;
        let fact = Recorded { name, value: Some(value.into()), ..Recorded::default() };
        changes.push(Change::Record { fact: Box::new(fact), begins: false });
        for done in self.hub.store.commit(changes).await {
            done.map_err(|rejected| self.hub.rejected(rejected))?;
        }
        tracing::info!(institution = member.as_str(), sequence = record.seq, "published a key record");
        Ok(true)
    }
}

impl DirectoryService {
    /// What must go so that there is room for one more record of that name. The keyring remembers the highest sequence all the same.
    fn surplus(&self, institution: &str, name: &str) -> Result<Vec<Change>, Refused> {
        let rows = self.hub.store.records(&format!("{RECORD_PREFIX}{institution}/"));
        let mut names: Vec<_> =
            rows.map_err(|error| self.hub.read_failed(&error))?.into_iter().map(|row| row.name).collect();
        names.retain(|other| other != name);
        let over = (names.len() + 1).saturating_sub(limits::KEY_RECORDS_MAX);
        let gone = names.into_iter().take(over).take(limits::CHANGES_AT_ONCE_MAX);
        Ok(gone
            .map(|name| Change::Record { fact: Box::new(Recorded { name, ..Recorded::default() }), begins: false })
            .collect())
    }
}

#[tonic::async_trait]
impl Directory for DirectoryService {
    async fn list_institutions(
        &self,
        request: Request<ListInstitutionsRequest>,
    ) -> Result<Response<ListInstitutionsResponse>, Status> {
        let reader = self.reader(&request)?;
        let listed = self.hub.config.institutions.iter().map(|institution| self.institution(institution, &reader));
        let mut institutions = listed.collect::<Result<Vec<_>, _>>()?;
        institutions.sort_by(|one, other| one.name.cmp(&other.name));
        let gateway_chain = self.hub.prover.chain().to_vec();
        Ok(Response::new(ListInstitutionsResponse { institutions, gateway_chain }))
    }

    async fn get_institution(
        &self,
        request: Request<GetInstitutionRequest>,
    ) -> Result<Response<GetInstitutionResponse>, Status> {
        let reader = self.reader(&request)?;
        let institution = self.hub.config.institution(&request.get_ref().name);
        let institution =
            institution.ok_or_else(|| Refused::because(Reason::UnknownInstitution).field("name").to_status())?;
        Ok(Response::new(GetInstitutionResponse { institution: Some(self.institution(institution, &reader)?) }))
    }

    async fn publish_key(&self, request: Request<PublishKeyRequest>) -> Result<Response<PublishKeyResponse>, Status> {
        let peer = identify::peer(request.extensions())?;
        let outcome = match (identify::member(&peer, &self.hub.config), request.into_inner().key) {
            (Ok(member), Some(statement)) => self.publish(&member, statement).await,
            (Ok(_), None) => Err(Refused::new(Reason::FieldInvalid, "There is no key statement.").field("key")),
            (Err(refused), _) => Err(refused),
        };
        let published = outcome.inspect_err(|refused| self.refuse(peer.name().as_str(), refused))?;
        Ok(Response::new(PublishKeyResponse { published }))
    }
}

/// Puts every record of the journal into the keyring, oldest first, so that a rolled back one is still refused after a restart.
/// One that cannot be put back (its certificate no longer chains to the roots) is left out and said.
///
/// # Errors
/// They cannot be read.
pub fn refill(store: &Store, keyring: &Keyring) -> Result<(), ReadError> {
    for row in store.records(RECORD_PREFIX)? {
        let admitted = Statement::decode(row.value.as_ref())
            .map_err(|_| Refused::because(Reason::KeyRecordInvalid))
            .and_then(|statement| keyring.restore(&statement));
        if let Err(refused) = admitted {
            tracing::warn!(
                record = row.name,
                reason = refused.reason.as_str(),
                "a published key record no longer counts"
            );
        }
    }
    Ok(())
}

/// The newest key records that are not past their expiry, highest sequence first.
fn live_keys(store: &Store, institution: &str, now_s: i64) -> Result<Vec<Statement>, ReadError> {
    let rows = store.records(&format!("{RECORD_PREFIX}{institution}/"))?;
    let statements = rows.iter().rev().filter_map(|row| Statement::decode(row.value.as_ref()).ok());
    let live = statements.filter(|statement| KeyRecord::parse(&statement.json).is_ok_and(|record| record.exp > now_s));
    Ok(live.take(limits::KEY_RECORDS_MAX).collect())
}

/// The same record signed anew is the same record: its identity is its JSON.
fn same_statement(value: &[u8], statement: &Statement) -> bool {
    Statement::decode(value).is_ok_and(|before| before.json == statement.json)
}

fn record_name(institution: &str, sequence: u64) -> String {
    format!("{RECORD_PREFIX}{institution}/{sequence:020}")
}
