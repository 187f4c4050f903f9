//! Anchors: the authority's roots, pinned from a file got out of band, and its revocation lists.
//!
//! Knows roots and lists, and when a list ends. Never knows which certificates are shown. Invariants: a root is a certificate
//! authority's; a list is signed by one of the roots and not past its end when it is taken over; its number never falls, so that
//! yesterday's list cannot bring a revoked certificate back.
use std::{collections::HashMap, path::Path};

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use tramite_proto::clock::Clock;
use webpki::{ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, OwnedCertRevocationList, RevocationReason};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use crate::{
    files::{self, FileError},
    identity,
};

/// What is wrong with roots or revocation lists.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate among the roots is not an authority's, or cannot be read.
    #[error("{path} holds a certificate that is not an authority's root")]
    NotARoot {
        /// Which file.
        path: String,
    },
    /// A list cannot be read, or has no end or no number.
    #[error("{path} holds a revocation list that cannot be read or has no nextUpdate or number")]
    CrlMalformed {
        /// Which file.
        path: String,
    },
    /// A list is not signed by any of the roots.
    #[error("{path} holds a revocation list that none of the roots signed")]
    CrlForeign {
        /// Which file.
        path: String,
    },
    /// A list is past its end: have the authority make a new one.
    #[error("{path} is past its end ({next_update}): have the authority write a new one with `tramite certs crl`")]
    CrlExpired {
        /// Which file.
        path: String,
        /// Its end.
        next_update: String,
    },
    /// A list is older than the one in use.
    #[error("{path} is revocation list {offered}, older than {known} that is in use")]
    CrlRolledBack {
        /// Which file.
        path: String,
        /// Its number.
        offered: u128,
        /// The number in use.
        known: u128,
    },
}

/// A revocation list that was checked.
#[derive(Debug)]
pub(crate) struct Crl {
    pub(crate) der: CertificateRevocationListDer<'static>,
    pub(crate) parsed: CertRevocationList<'static>,
    pub(crate) next_update_s: i64,
    pub(crate) number: u128,
}

/// When and why a certificate was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revoked {
    pub(crate) at_s: i64,
    /// The key is somebody else's too: nothing that it signed can be told from the thief's.
    pub(crate) compromised: bool,
}

/// Roots and lists.
#[derive(Debug)]
pub struct Anchors {
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    pub(crate) crls: Vec<Crl>,
}

impl Anchors {
    /// Reads and checks both; `before` is what is in use.
    pub(crate) fn load(
        roots: &Path,
        crl: Option<&Path>,
        before: Option<&Self>,
        clock: &dyn Clock,
    ) -> Result<Self, AnchorError> {
        let path = roots.display().to_string();
        let roots = files::certificates(roots)?;
        let mut anchors = Vec::with_capacity(roots.len());
        for root in &roots {
            let is_root = identity::parse(root).is_ok_and(|certificate| certificate.is_ca());
            let anchor = webpki::anchor_from_trusted_cert(root).ok().filter(|_| is_root);
            anchors.push(anchor.ok_or_else(|| AnchorError::NotARoot { path: path.clone() })?.to_owned());
        }
        let mut loaded = Self { roots, anchors, crls: Vec::new() };
        if let Some(crl) = crl {
            loaded.crls = loaded.load_crls(crl, before, clock)?;
        }
        Ok(loaded)
    }

    fn load_crls(&self, path: &Path, before: Option<&Self>, clock: &dyn Clock) -> Result<Vec<Crl>, AnchorError> {
        let mut crls = Vec::new();
        let mut known = before.map(Self::numbers).unwrap_or_default();
        let text = path.display().to_string();
        for der in files::crls(path)? {
            let crl = self.check_crl(der, &text, clock)?;
            if let Some(known) = known.remove(crl.parsed.issuer())
                && known > crl.number
            {
                return Err(AnchorError::CrlRolledBack { path: text, offered: crl.number, known });
            }
            crls.push(crl);
        }
        Ok(crls)
    }

    fn numbers(&self) -> HashMap<&[u8], u128> {
        self.crls.iter().map(|crl| (crl.parsed.issuer(), crl.number)).collect()
    }

    fn check_crl(
        &self,
        der: CertificateRevocationListDer<'static>,
        path: &str,
        clock: &dyn Clock,
    ) -> Result<Crl, AnchorError> {
        let malformed = || AnchorError::CrlMalformed { path: path.to_owned() };
        let Ok(([], crl)) = CertificateRevocationList::from_der(&der) else { return Err(malformed()) };
        let next_update = crl.next_update().ok_or_else(malformed)?;
        let number = crl.crl_number().and_then(|number| u128::try_from(number).ok()).ok_or_else(malformed)?;
        let signed = self.roots.iter().any(|root| signs(root, crl.tbs_cert_list.as_ref(), &crl.signature_value.data));
        if !signed {
            return Err(AnchorError::CrlForeign { path: path.to_owned() });
        }
        if next_update.timestamp() <= clock.now_s() {
            return Err(AnchorError::CrlExpired { path: path.to_owned(), next_update: next_update.to_string() });
        }
        let parsed = OwnedCertRevocationList::from_der(&der).map_err(|_| malformed())?.into();
        Ok(Crl { next_update_s: next_update.timestamp(), number, parsed, der })
    }

    /// The end of the list that ends first; `None` without lists.
    pub(crate) fn crl_ends_s(&self) -> Option<i64> {
        self.crls.iter().map(|crl| crl.next_update_s).min()
    }

    /// What the lists say of a certificate.
    pub(crate) fn revoked(&self, certificate: &CertificateDer<'_>) -> Option<Revoked> {
        let end_entity = EndEntityCert::try_from(certificate).ok()?;
        let crl = self.crls.iter().find(|crl| crl.parsed.issuer() == end_entity.issuer())?;
        let revoked = crl.parsed.find_serial(end_entity.serial()).ok()??;
        Some(Revoked {
            at_s: i64::try_from(revoked.revocation_date.as_secs()).unwrap_or(i64::MAX),
            compromised: matches!(
                revoked.reason_code,
                Some(RevocationReason::KeyCompromise | RevocationReason::CaCompromise)
            ),
        })
    }
}

/// Whether `root`'s key signed `message`, by any algorithm that we know.
fn signs(root: &CertificateDer<'_>, message: &[u8], signature: &[u8]) -> bool {
    let Ok(root) = EndEntityCert::try_from(root) else { return false };
    ALL_VERIFICATION_ALGS.iter().any(|algorithm| root.verify_signature(*algorithm, message, signature).is_ok())
}

/// The time in webpki's form; before 1970 is 1970.
pub(crate) fn unix_time(now_s: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(now_s).unwrap_or(0)))
}
