//! What every verb works with: configuration, policy, store, keyring, prover, metrics, clock, and who is connected or held. Made once
//! at start; shared by all streams. It also is where a refusal becomes a log line and a counter, in one shape for all. It knows who and
//! how much; never what a verb decides, nor content.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tramite_certs::keyring::Keyring;
use tramite_proto::{
    clock::Clock,
    ids::Digest,
    pb::journal::v1::Fact,
    reason::{Reason, Refused},
    statement::Origin,
};
use tramite_store::{ReadError, Rejected, Store, accepted};

use crate::{
    config::Config, holds::Holds, metrics::Metrics, origins::Origins, parts::Parts, policy::Policy, presence::Presence,
    prove::Prover,
};

/// See the module.
#[derive(Debug)]
pub struct Hub {
    /// As read at start.
    pub config: Config,
    /// The `[[allow]]` rules.
    pub policy: Policy,
    /// Journal and outbox.
    pub store: Store,
    /// Every institution's published keys.
    pub keyring: Arc<Keyring>,
    /// Writes evidence.
    pub prover: Prover,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Who is connected to Receive.
    pub presence: Arc<Presence>,
    /// Who is held.
    pub holds: Holds,
    /// Which stored parts belong to whom.
    pub parts: Parts,
    /// Origins of what was permitted lately.
    pub origins: Origins,
    /// Cancelled when the gateway stops.
    pub stop: CancellationToken,
    /// When it began to serve, unix milliseconds.
    pub started_ms: i64,
}

/// A message that was accepted, read back from its fact.
#[derive(Debug)]
pub struct Consigned {
    /// What its sender said.
    pub origin: Arc<Origin>,
    /// The fact.
    pub fact: Arc<Fact>,
}

impl Consigned {
    /// Reads an accepting fact; none when the fact is another one.
    #[must_use]
    pub fn of(fact: &Arc<Fact>) -> Option<Self> {
        let accepted = accepted(fact)?;
        let statement = accepted.statement.as_ref()?;
        // It was parsed before it was accepted; that it does not parse now means that the disk is not ours any more.
        let origin = Origin::parse(&statement.json).ok()?;
        Some(Self { origin: Arc::new(origin), fact: Arc::clone(fact) })
    }

    /// The exact bytes of the origin.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        accepted(&self.fact).and_then(|accepted| accepted.statement.as_ref()).map_or(&[], |statement| &statement.json)
    }
}

impl Hub {
    /// Logs and counts a refusal: one line with stable names, one counter by reason. No content, no personal data: details are
    /// written by this program, never taken from a message.
    pub fn refuse(&self, verb: &'static str, peer: &str, message_id: &str, refused: &Refused) {
        self.metrics.refuse(refused.reason.as_str());
        tracing::warn!(
            verb,
            peer,
            message_id,
            reason = refused.reason.as_str(),
            field = refused.field.as_deref().unwrap_or_default(),
            detail = %refused.detail,
            "refused"
        );
    }

    /// A read that failed, as a refusal; logged in full, told in short.
    #[must_use]
    pub fn read_failed(&self, error: &ReadError) -> Refused {
        tracing::error!(%error, "the store could not be read");
        Refused::because(Reason::StoreFailed)
    }

    /// What the journal's writer refused, in the words of the protocol, with the field of the message that is at fault.
    #[must_use]
    pub fn rejected(&self, rejected: Rejected) -> Refused {
        let field = match &rejected {
            Rejected::IdReused { .. } | Rejected::IdExpired => Some("jti".to_owned()),
            Rejected::PartMissing { part } => Some(format!("parts[{part}]")),
            _ => None,
        };
        let refused = Refused::from(rejected);
        match field {
            Some(field) => refused.field(field),
            None => refused,
        }
    }

    /// A refusal for good, unless a clock that is not believed may be what made it: then it is put off.
    #[must_use]
    pub fn by_clock(&self, now_ms: i64, refused: Refused) -> Refused {
        use Reason::{CertificateInvalid, IdExpired, KeyExpired, KeyUnknown, MessageExpired};
        let of_the_clock =
            matches!(refused.reason, CertificateInvalid | IdExpired | KeyExpired | KeyUnknown | MessageExpired);
        if of_the_clock && !self.store.believes(now_ms) { Refused::because(Reason::ClockHeld) } else { refused }
    }

    /// The message of an accepting fact.
    ///
    /// # Errors
    /// DELIVERY_UNKNOWN when the fact is none.
    pub fn consigned(&self, sequence: u64) -> Result<Consigned, Refused> {
        let unknown = || Refused::because(Reason::DeliveryUnknown);
        let fact = match self.store.fact(sequence) {
            Ok(fact) => fact,
            Err(ReadError::NoFact(_)) => return Err(unknown()),
            Err(error) => return Err(self.read_failed(&error)),
        };
        let identity = accepted(&fact).and_then(|accepted| Digest::from_bytes(&accepted.digest).ok());
        match identity.and_then(|identity| self.origins.take(&identity)) {
            Some(origin) => Ok(Consigned { origin, fact }),
            None => Consigned::of(&fact).ok_or_else(unknown),
        }
    }
}
