//! Limits of a listener: how many connections, from whom, and how long a beginning may take.
//!
//! Knows numbers and their reasons. Never knows sockets. Invariant: every number here is a default with its reason; a configuration may
//! change it, and where nothing would shut everybody out it counts as one.
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Handshakes at once: each costs a millisecond of processor and some KiB; 256 silent ones hold 256 sockets for five seconds.
pub const HANDSHAKES: usize = 256;
/// A handshake takes milliseconds; five seconds leave room for a mobile line that loses packets.
pub const HANDSHAKE_MS: u64 = 5_000;
/// An HTTP/2 client sends its preface with its last handshake message. hyper itself would wait for ever.
pub const FIRST_BYTES_MS: u64 = 5_000;
/// Connections in all: ten for each of a hundred institutions; 900 idle ones take 14 MB.
pub const CONNECTIONS: usize = 1024;
/// One certificate: an adapter needs two, a second adapter that takes over two more, and as many again that are not yet known to be dead.
pub const CONNECTIONS_PER_CERTIFICATE: usize = 8;
/// One address: several institutions behind one address translation, or all of a demonstration.
pub const CONNECTIONS_PER_ADDRESS: usize = 64;
/// Between two looks at the certificates of open connections: a certificate that ends, or a list that ends, is noticed within it.
pub const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// A peer that lets nothing through for so long while something waits for it is gone, whatever its kernel says. Keep-alive does not notice:
/// its question, and hyper's farewell, stand behind what the peer does not take. At most 64 KiB stand there (rustls's buffer), which a line
/// of 20 kbit/s carries in time.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(30);
/// The HTTP/2 client preface (RFC 9113 §3.4): what must have come before a connection counts as begun.
pub(crate) const PREFACE_LEN: usize = 24;

/// The limits of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Handshakes at once; more wait in the kernel's queue.
    pub handshakes: usize,
    /// Milliseconds for one handshake.
    pub handshake_ms: u64,
    /// Milliseconds from the handshake to the HTTP/2 preface.
    pub first_bytes_ms: u64,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one certificate.
    pub connections_per_certificate: usize,
    /// Connections from one address (IPv6: one /64, which one customer has whole).
    pub connections_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: HANDSHAKES,
            handshake_ms: HANDSHAKE_MS,
            first_bytes_ms: FIRST_BYTES_MS,
            connections: CONNECTIONS,
            connections_per_certificate: CONNECTIONS_PER_CERTIFICATE,
            connections_per_address: CONNECTIONS_PER_ADDRESS,
        }
    }
}

impl Limits {
    /// Zero would shut everybody out: it counts as one.
    pub(crate) fn handshakes(&self) -> usize {
        // A semaphore takes no more permits than this.
        self.handshakes.clamp(1, tokio::sync::Semaphore::MAX_PERMITS)
    }

    pub(crate) fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_ms.max(1))
    }

    pub(crate) fn first_bytes(&self) -> Duration {
        Duration::from_millis(self.first_bytes_ms.max(1))
    }
}
