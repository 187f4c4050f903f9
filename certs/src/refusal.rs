//! Refusals of the accept loop: why a connection came to nothing, one stable word for each cause.
//!
//! Knows the words, how rustls' errors map to them and which reason of the protocol each falls under. Never knows who counts them.
//! Invariant: a word never changes; the same cause has the same word on the listening and on the dialling side. In TLS 1.3 a client
//! has finished its handshake before the server looks at its certificate and sees only a broken connection: these words, in the
//! server's log, are the only place of the cause.
use std::{error::Error as _, fmt, io};

use rustls::{CertificateError, Error, PeerIncompatible};
use tramite_proto::reason::Reason;

use crate::identity::IdentityError;

/// Why a connection was refused or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The client showed no certificate.
    NoCertificate,
    /// The certificate is not of the pinned authority.
    OtherAuthority,
    /// No SAN URI.
    NoSan,
    /// More than one SAN URI.
    AmbiguousSan,
    /// A SAN URI that is not of this trust domain or not of the form.
    ForeignSan,
    /// The extended key usage does not allow it.
    WrongPurpose,
    /// Past its end.
    Expired,
    /// Before its beginning.
    NotYetValid,
    /// On the revocation list.
    Revoked,
    /// The revocation list is past its own end, so nobody can be told from the revoked.
    CrlExpired,
    /// No revocation list speaks of its issuer.
    RevocationUnknown,
    /// The certificate cannot be read or uses what is not supported.
    CertificateMalformed,
    /// The dialled server is not who was meant.
    OtherPeer,
    /// HTTP/2 was not agreed on (ALPN).
    NoAlpnH2,
    /// TLS 1.2 or older.
    TlsVersion,
    /// Anything else that is wrong with the handshake.
    TlsFailed,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The peer closed the connection within the handshake.
    ClosedInHandshake,
    /// After the handshake, no HTTP/2 preface came in time.
    NoFirstBytes,
    /// All connections are taken.
    TooManyConnections,
    /// This certificate has all of its connections.
    TooManyOfCertificate,
    /// This address has all of its connections.
    TooManyOfAddress,
}

impl Refusal {
    /// Every refusal: to set up one counter for each.
    pub const ALL: [Self; 22] = [
        Self::NoCertificate,
        Self::OtherAuthority,
        Self::NoSan,
        Self::AmbiguousSan,
        Self::ForeignSan,
        Self::WrongPurpose,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::CrlExpired,
        Self::RevocationUnknown,
        Self::CertificateMalformed,
        Self::OtherPeer,
        Self::NoAlpnH2,
        Self::TlsVersion,
        Self::TlsFailed,
        Self::HandshakeTimeout,
        Self::ClosedInHandshake,
        Self::NoFirstBytes,
        Self::TooManyConnections,
        Self::TooManyOfCertificate,
        Self::TooManyOfAddress,
    ];

    /// The stable word, for logs and counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "CERTIFICATE_MISSING",
            Self::OtherAuthority => "CERTIFICATE_UNTRUSTED",
            Self::NoSan => "SAN_MISSING",
            Self::AmbiguousSan => "SAN_AMBIGUOUS",
            Self::ForeignSan => "SAN_FOREIGN",
            Self::WrongPurpose => "PURPOSE_MISSING",
            Self::Expired => "CERTIFICATE_EXPIRED",
            Self::NotYetValid => "CERTIFICATE_NOT_YET_VALID",
            Self::Revoked => "CERTIFICATE_REVOKED",
            Self::CrlExpired => "REVOCATION_LIST_EXPIRED",
            Self::RevocationUnknown => "REVOCATION_UNKNOWN",
            Self::CertificateMalformed => "CERTIFICATE_MALFORMED",
            Self::OtherPeer => "PEER_UNEXPECTED",
            Self::NoAlpnH2 => "ALPN_MISSING",
            Self::TlsVersion => "TLS_VERSION",
            Self::TlsFailed => "HANDSHAKE_FAILED",
            Self::HandshakeTimeout => "HANDSHAKE_TIMEOUT",
            Self::ClosedInHandshake => "HANDSHAKE_ABANDONED",
            Self::NoFirstBytes => "FIRST_BYTES_TIMEOUT",
            Self::TooManyConnections => "CONNECTIONS_EXCEEDED",
            Self::TooManyOfCertificate => "CONNECTIONS_OF_CERTIFICATE_EXCEEDED",
            Self::TooManyOfAddress => "CONNECTIONS_OF_ADDRESS_EXCEEDED",
        }
    }

    /// The reason of the protocol's own table that it falls under.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::NoCertificate => Reason::CertificateMissing,
            Self::OtherAuthority | Self::CertificateMalformed | Self::OtherPeer => Reason::CertificateUntrusted,
            Self::NoSan | Self::AmbiguousSan | Self::ForeignSan => Reason::IdentityMissing,
            Self::WrongPurpose => Reason::PurposeMissing,
            Self::Expired | Self::NotYetValid => Reason::CertificateExpired,
            Self::Revoked => Reason::CertificateRevoked,
            Self::CrlExpired | Self::RevocationUnknown => Reason::RevocationUnknown,
            Self::NoAlpnH2 | Self::TlsVersion | Self::TlsFailed | Self::ClosedInHandshake => Reason::HandshakeFailed,
            Self::HandshakeTimeout | Self::NoFirstBytes => Reason::HandshakeTimeout,
            Self::TooManyConnections | Self::TooManyOfCertificate | Self::TooManyOfAddress => {
                Reason::ConnectionsExceeded
            }
        }
    }

    /// The cause in an error of the TLS stream.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        // rustls may stand one level deeper when another layer wrapped it.
        let inner = inner.or_else(|| error.source().and_then(|source| source.downcast_ref::<Error>()));
        match (inner, error.kind()) {
            (Some(inner), _) => Self::of_tls(inner),
            (None, io::ErrorKind::TimedOut) => Self::HandshakeTimeout,
            (None, _) => Self::ClosedInHandshake,
        }
    }

    /// The cause in an error of rustls.
    pub(crate) fn of_tls(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::InvalidCertRevocationList(_) => Self::RevocationUnknown,
            Error::NoApplicationProtocol => Self::NoAlpnH2,
            Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::TlsVersion,
            _ => Self::TlsFailed,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
                Self::CrlExpired
            }
            CertificateError::UnknownRevocationStatus => Self::RevocationUnknown,
            // An authority that only bears the same name ends as a bad signature.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::OtherAuthority,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Self::WrongPurpose,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::OtherPeer,
            _ => Self::CertificateMalformed,
        }
    }
}

impl From<&IdentityError> for Refusal {
    fn from(error: &IdentityError) -> Self {
        match error {
            IdentityError::Malformed => Self::CertificateMalformed,
            IdentityError::NoSan => Self::NoSan,
            IdentityError::AmbiguousSan => Self::AmbiguousSan,
            IdentityError::ForeignSan { .. } | IdentityError::TrustDomain | IdentityError::Role => Self::ForeignSan,
            IdentityError::Purpose(_) => Self::WrongPurpose,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_refusal_has_its_own_word() {
        let words: HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.as_str()).collect();
        assert_eq!(words.len(), Refusal::ALL.len());
        assert!(
            words.iter().all(|word| word.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_'))
        );
    }

    #[test]
    fn the_cause_is_found_in_what_the_stream_says() {
        let revoked = Error::InvalidCertificate(CertificateError::Revoked);
        assert_eq!(Refusal::of_io(&io::Error::new(io::ErrorKind::InvalidData, revoked)), Refusal::Revoked);
        assert_eq!(Refusal::of_io(&io::ErrorKind::UnexpectedEof.into()), Refusal::ClosedInHandshake);
    }
}
