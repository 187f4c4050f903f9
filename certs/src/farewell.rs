//! Farewells: what a server says to a client that it does not keep.
//!
//! In TLS 1.3 a client has finished its handshake before the server looks at its certificate. What is wrong with it comes, if at all, as an
//! alert in place of the first bytes, and HTTP/2 makes a broken connection of it. Here the alert is kept, with a sentence for people.
//! Knows alerts and what they mean for whoever dialled. Never knows what the server's log says. Invariant: only a connection on which
//! the server never said anything else counts; whatever it says takes the farewell back.
use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{AlertDescription, Error};
use tramite_proto::reason::Reason;

/// How a server ended a connection before it said anything on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// With an alert.
    Alert(AlertDescription),
    /// Without a word.
    Closed,
}

impl Farewell {
    /// What a failed read or write tells.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::AlertReceived(alert)) => Self::Alert(*alert),
            _ => Self::Closed,
        }
    }

    /// The reason of the protocol's own table.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Alert(AlertDescription::CertificateRevoked) => Reason::CertificateRevoked,
            Self::Alert(AlertDescription::CertificateExpired) => Reason::CertificateExpired,
            Self::Alert(AlertDescription::CertificateRequired) => Reason::CertificateMissing,
            Self::Alert(AlertDescription::UnsupportedCertificate) => Reason::PurposeMissing,
            Self::Alert(
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError,
            ) => Reason::CertificateUntrusted,
            Self::Alert(AlertDescription::AccessDenied) => Reason::NotAuthorized,
            Self::Alert(_) => Reason::HandshakeFailed,
            Self::Closed => Reason::ConnectionLost,
        }
    }
}

/// A sentence whose subject is the server, and what to do.
impl fmt::Display for Farewell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alert = match self {
            Self::Closed => {
                return f.write_str(
                    "closed the connection right after the handshake without a word: its log has the reason (a certificate that names \
                     no member, too many connections, or it is just stopping)",
                );
            }
            Self::Alert(alert) => alert,
        };
        f.write_str(match *alert {
            AlertDescription::CertificateRevoked => {
                "refused our certificate: it is revoked; ask whoever keeps the authority why, and for a new one (`tramite certs issue`)"
            }
            AlertDescription::CertificateExpired => {
                "refused our certificate: by its clock it is past its end or not valid yet; look at `tramite certs show`, compare the \
                 clocks, and renew it (`tramite certs renew`)"
            }
            AlertDescription::UnknownCA => {
                "refused our certificate: it does not know the authority, or its revocation list is past its end; compare root.pem \
                 with the one that it has, and ask its operator for a new list (`tramite certs crl`)"
            }
            AlertDescription::CertificateRequired => {
                "asked for a certificate and was shown none; name one in [tls] of the configuration"
            }
            AlertDescription::UnsupportedCertificate => {
                "refused our certificate: it is not for connections; [tls] names tls.pem, not sign.pem"
            }
            AlertDescription::AccessDenied => {
                "refused our certificate, though it is a good one: it lets no such holder in; ask its operator"
            }
            AlertDescription::BadCertificate | AlertDescription::CertificateUnknown | AlertDescription::DecryptError => {
                "could not verify our certificate; its log has the reason; have the certificate issued anew (`tramite certs issue`)"
            }
            _ => return write!(f, "ended the connection with the TLS alert {alert:?}; its log has the reason"),
        })
    }
}

/// The last farewell of one server, none once it has said anything else.
#[derive(Debug, Clone, Default)]
pub struct Farewells(Arc<Mutex<Option<Farewell>>>);

impl Farewells {
    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<Farewell> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, farewell: Option<Farewell>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = farewell;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_a_sentence_with_what_to_do_and_no_alert_names_the_log() {
        let of = |alert| Farewell::of_io(&io::Error::new(io::ErrorKind::InvalidData, Error::AlertReceived(alert)));
        for (alert, reason, words) in [
            (AlertDescription::CertificateRevoked, Reason::CertificateRevoked, "revoked"),
            (AlertDescription::CertificateExpired, Reason::CertificateExpired, "certs renew"),
            (AlertDescription::UnknownCA, Reason::CertificateUntrusted, "root.pem"),
            (AlertDescription::AccessDenied, Reason::NotAuthorized, "operator"),
            (AlertDescription::InternalError, Reason::HandshakeFailed, "InternalError"),
        ] {
            assert_eq!(of(alert), Farewell::Alert(alert));
            assert_eq!(of(alert).reason(), reason);
            assert!(of(alert).to_string().contains(words), "{}", of(alert));
        }
        let closed = Farewell::of_io(&io::ErrorKind::ConnectionReset.into());
        assert_eq!((closed, closed.reason()), (Farewell::Closed, Reason::ConnectionLost));
        assert!(closed.to_string().contains("log"));
    }
}
