//! Trust: whether a signing certificate is one, by the roots that were pinned out of band.
//!
//! Knows roots, revocation lists and chains. Never knows statements or where a chain came from. Invariants: a signing certificate
//! states documentSigning and no TLS usage, and bears the role and name that it is taken for; a revoked one does not count from its
//! revocation on, and never where the key was compromised; with a list past its end nothing new is trusted.
use std::{path::PathBuf, sync::Arc};

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tramite_proto::{
    clock::Clock,
    ids::InstitutionName,
    jws::VerifyingKey,
    reason::{Reason, Refused},
    statement::CHAIN_MAX,
};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};

use crate::{
    anchors::{AnchorError, Anchors, Revoked, unix_time},
    identity::{self, Peer, Role, TrustDomain, Usage},
    reload::{Loaded, Reloadable},
    tls::TlsFiles,
};

/// documentSigning (1.3.6.1.5.5.7.3.36) as DER writes it, without tag and length. webpki asks it of intermediates too, which state it
/// only when they are bound to it; that the leaf states it was asked before ([`Usage::Signing`]).
const DOCUMENT_SIGNING: KeyUsage = KeyUsage::required_if_present(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x24]);

/// Where roots and revocation lists are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustFiles {
    /// The authority's roots in PEM, got out of band.
    pub roots: PathBuf,
    /// Its revocation lists in PEM.
    #[serde(default)]
    pub crl: Option<PathBuf>,
}

/// Signatures are judged by the roots that connections are judged by.
impl From<&TlsFiles> for TrustFiles {
    fn from(files: &TlsFiles) -> Self {
        Self { roots: files.roots.clone(), crl: files.crl.clone() }
    }
}

/// A chain that was found good, and between which hours it is.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The leaf's key.
    pub key: VerifyingKey,
    /// Whose it is.
    pub holder: Peer,
    /// The whole chain counts from here, unix seconds.
    pub not_before_s: i64,
    /// To here.
    pub not_after_s: i64,
    revoked: Option<Revoked>,
}

impl Judged {
    /// Whether it counts at this time.
    pub fn check_at(&self, at_ms: i64) -> Result<(), Refused> {
        let at_s = at_ms.div_euclid(1000);
        if at_s < self.not_before_s || at_s > self.not_after_s {
            return Err(invalid(format!("The signing certificate of {} was not valid at that time.", self.holder)));
        }
        match self.revoked {
            Some(revoked) if revoked.compromised || at_s >= revoked.at_s => {
                Err(invalid(format!("The signing certificate of {} is revoked.", self.holder)))
            }
            _ => Ok(()),
        }
    }
}

/// Pinned roots and revocation lists. Clones share one state.
#[derive(Debug, Clone)]
pub struct Trust {
    inner: Arc<Reloadable<Anchors, AnchorError>>,
    trust_domain: TrustDomain,
    clock: Arc<dyn Clock>,
}

impl Trust {
    /// Reads and checks the files. Any error is final here.
    pub fn load(files: TrustFiles, trust_domain: TrustDomain, clock: Arc<dyn Clock>) -> Result<Self, AnchorError> {
        let paths = [&files.roots].into_iter().chain(&files.crl).cloned().collect();
        let hour = Arc::clone(&clock);
        let load = move |before: Option<&Anchors>| {
            Loaded::of(Anchors::load(&files.roots, files.crl.as_deref(), before, &*hour))
        };
        Ok(Self { inner: Reloadable::start("roots of signatures", paths, load)?, trust_domain, clock })
    }

    /// Reads the files again, now.
    pub fn reload(&self) -> Result<(), AnchorError> {
        self.inner.reload()
    }

    /// Reloads whenever the files change, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        Arc::clone(&self.inner).run(stop).await;
    }

    /// Tells of each reload.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }

    /// Rises with each reload: what was judged under another one is judged again.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation()
    }

    /// The network.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The end of the revocation list that ends first, unix seconds.
    #[must_use]
    pub fn crl_ends_s(&self) -> Option<i64> {
        self.inner.current().crl_ends_s()
    }

    /// The key of `role`/`name`'s signing certificate (chain in DER, leaf first), if it counts at `at_ms`.
    pub fn verify_signing(
        &self,
        chain: &[impl AsRef<[u8]>],
        role: Role,
        name: &InstitutionName,
        at_ms: i64,
    ) -> Result<VerifyingKey, Refused> {
        self.check_crl()?;
        let judged = self.judge(chain, role, Some(name), at_ms)?;
        judged.check_at(at_ms)?;
        Ok(judged.key)
    }

    /// With a list past its end nobody can be told from the revoked: nothing new is trusted.
    pub(crate) fn check_crl(&self) -> Result<(), Refused> {
        match self.crl_ends_s() {
            Some(ends_s) if ends_s <= self.clock.now_s() => {
                Err(invalid("The authority's revocation list is past its end; a new one must be fetched.".into()))
            }
            _ => Ok(()),
        }
    }

    /// Judges a chain as it was at `at_ms`, for `role` and, unless anyone in it will do, `name`; revocation is noted, not held
    /// against it.
    pub(crate) fn judge(
        &self,
        chain: &[impl AsRef<[u8]>],
        role: Role,
        name: Option<&InstitutionName>,
        at_ms: i64,
    ) -> Result<Judged, Refused> {
        if chain.len() > CHAIN_MAX {
            return Err(invalid(format!("The chain has more than {CHAIN_MAX} certificates.")));
        }
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_ref())).collect();
        let (leaf, others) = chain.split_first().ok_or_else(|| invalid("The chain is empty.".into()))?;
        let holder = Peer::from_certificate(leaf, &self.trust_domain, Usage::Signing);
        let holder = holder.map_err(|error| invalid(format!("The signing certificate does not count: {error}.")))?;
        if holder.role() != role || name.is_some_and(|name| holder.name() != name) {
            let wanted = name.map(InstitutionName::as_str).unwrap_or("<name>");
            return Err(invalid(format!("The signing certificate is of {holder}, not of {role}/{wanted}.")));
        }
        let anchors = self.inner.current();
        let end_entity = EndEntityCert::try_from(leaf).map_err(|error| does_not_count(&holder, &error))?;
        let now = unix_time(at_ms.div_euclid(1000));
        let path = end_entity.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &anchors.anchors,
            others,
            now,
            DOCUMENT_SIGNING,
            None,
            None,
        );
        let path = path.map_err(|error| does_not_count(&holder, &error))?;
        let key = VerifyingKey::from_certificate(leaf);
        let key = key.ok_or_else(|| invalid(format!("The signing certificate of {holder} holds no P-256 key.")))?;
        let (mut not_before_s, mut not_after_s) = validity(leaf)?;
        let mut revoked = anchors.revoked(leaf);
        for intermediate in path.intermediate_certificates() {
            let der = intermediate.der();
            let (from, to) = validity(&der)?;
            (not_before_s, not_after_s) = (not_before_s.max(from), not_after_s.min(to));
            revoked = revoked.or_else(|| anchors.revoked(&der));
        }
        Ok(Judged { key, holder, not_before_s, not_after_s, revoked })
    }
}

fn validity(der: &[u8]) -> Result<(i64, i64), Refused> {
    let certificate = identity::parse(der).map_err(|error| invalid(format!("The chain does not count: {error}.")))?;
    let validity = certificate.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

fn does_not_count(holder: &Peer, error: &webpki::Error) -> Refused {
    let what = match error {
        webpki::Error::CertExpired { .. } => "is past its end".to_owned(),
        webpki::Error::CertNotValidYet { .. } => "is not valid yet".to_owned(),
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            "is of another authority".to_owned()
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => "is not for signing documents".to_owned(),
        error => format!("does not count ({error})"),
    };
    invalid(format!("The signing certificate of {holder} {what}."))
}

fn invalid(detail: String) -> Refused {
    Refused::new(Reason::CertificateInvalid, detail)
}

#[cfg(test)]
mod tests;
