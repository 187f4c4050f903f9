//! First verb: who is calling. What it returns can only be made here, from the certificate that the TLS layer verified: a request
//! cannot say who sends it. It knows roles and configured names; never what the caller wants.

use std::sync::Arc;

use tramite_certs::identity::{Peer, Role};
use tramite_proto::{
    ids::{Digest, InstitutionName},
    pb::{
        audit::v1::audit_server::SERVICE_NAME as AUDIT, directory::v1::directory_server::SERVICE_NAME as DIRECTORY,
        exchange::v1::exchange_server::SERVICE_NAME as EXCHANGE,
        operations::v1::operations_server::SERVICE_NAME as OPERATIONS,
    },
    reason::{Reason, Refused},
};

use crate::config::Config;

/// A configured institution, by its certificate.
#[derive(Debug, Clone)]
pub struct Member {
    name: InstitutionName,
    fingerprint: Digest,
}

/// An operator, by its certificate.
#[derive(Debug, Clone)]
pub struct Operator {
    name: String,
}

/// Whoever may read the directory: anybody of this network.
#[derive(Debug, Clone)]
pub struct Reader {
    name: String,
    institution: bool,
}

impl Member {
    /// The institution's name.
    #[must_use]
    pub fn name(&self) -> &InstitutionName {
        &self.name
    }

    /// The same, as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.name.as_str()
    }

    /// SHA-256 of its TLS certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }
}

impl Operator {
    /// The operator's name, for the record.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Reader {
    /// The institution's name; none for an operator or auditor, whom nobody sends anything.
    #[must_use]
    pub fn institution(&self) -> Option<&str> {
        self.institution.then_some(self.name.as_str())
    }
}

/// The peer whose certificate was verified on this connection.
///
/// # Errors
/// CERTIFICATE_MISSING when the request did not come through the TLS listener.
pub fn peer(extensions: &http::Extensions) -> Result<Arc<Peer>, Refused> {
    extensions.get::<Arc<Peer>>().cloned().ok_or_else(|| Refused::because(Reason::CertificateMissing))
}

/// The caller as an institution that takes part.
///
/// # Errors
/// NOT_AUTHORIZED for another role, UNKNOWN_INSTITUTION for a name that is not configured.
pub fn member(peer: &Peer, config: &Config) -> Result<Member, Refused> {
    role(peer, Role::Institution)?;
    if config.institution(peer.name().as_str()).is_none() {
        let detail = "The certificate is good, but its institution does not take part; ask the gateway's operators.";
        return Err(Refused::new(Reason::UnknownInstitution, detail));
    }
    Ok(Member { name: peer.name().clone(), fingerprint: peer.fingerprint() })
}

/// The caller as an operator.
///
/// # Errors
/// NOT_AUTHORIZED for another role.
pub fn operator(peer: &Peer) -> Result<Operator, Refused> {
    role(peer, Role::Operator)?;
    Ok(Operator { name: peer.name().to_string() })
}

/// Refuses whoever is no auditor.
///
/// # Errors
/// NOT_AUTHORIZED for another role.
pub fn auditor(peer: &Peer) -> Result<(), Refused> {
    role(peer, Role::Auditor)
}

/// The caller as a reader of the directory.
///
/// # Errors
/// NOT_AUTHORIZED for another gateway, UNKNOWN_INSTITUTION for one that does not take part.
pub fn reader(peer: &Peer, config: &Config) -> Result<Reader, Refused> {
    match peer.role() {
        Role::Institution => {
            member(peer, config).map(|member| Reader { name: member.as_str().to_owned(), institution: true })
        }
        Role::Operator | Role::Auditor => Ok(Reader { name: peer.name().to_string(), institution: false }),
        Role::Gateway => Err(Refused::because(Reason::NotAuthorized)),
    }
}

/// Whether the caller has the role for a call, by its path alone: asked before anything of the body is read, so that nobody makes the
/// gateway hold a body for a call that is not theirs. Every service asks again when it takes the caller's name.
///
/// # Errors
/// As [`member`], [`operator`] and [`auditor`].
pub fn may_call(extensions: &http::Extensions, path: &str, config: &Config) -> Result<(), Refused> {
    let (service, call) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    match service {
        EXCHANGE => member(&*peer(extensions)?, config).map(drop),
        DIRECTORY if call == "PublishKey" => member(&*peer(extensions)?, config).map(drop),
        OPERATIONS => operator(&*peer(extensions)?).map(drop),
        AUDIT => auditor(&*peer(extensions)?),
        // The directory's readers are told apart there; health and reflection are for everybody.
        _ => Ok(()),
    }
}

fn role(peer: &Peer, wanted: Role) -> Result<(), Refused> {
    if peer.role() == wanted {
        return Ok(());
    }
    let detail = format!("This service is for the role {wanted}; the certificate says {}.", peer.role());
    Err(Refused::new(Reason::NotAuthorized, detail))
}
