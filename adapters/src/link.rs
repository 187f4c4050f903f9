//! The connection to the gateway: one channel, dialled out, and how it stands.
//!
//! Knows whether the gateway listens to this adapter. Never knows what is said. Invariant: what it shows is a hint for people; every
//! call finds out for itself.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;
use tonic::{Status, transport::Channel};
use tramite_certs::farewell::{Farewell, Farewells};
use tramite_proto::{
    pb::{directory::v1::directory_client::DirectoryClient, exchange::v1::exchange_client::ExchangeClient},
    reason::{Reason, Refused},
};

/// A frame's longest form, as the contract says; what a client takes by default is half of it, and a longer frame ends the stream.
const FRAME_BYTES_MAX: usize = 8 << 20;

/// What it means that a newer stream took over: this adapter itself opens only one.
pub(crate) const SUPERSEDED: &str = "another adapter with this institution's certificate took over; stop one of them";
/// A takeover is shown for so long after the connection is back: longer than the longest pause between two (see `backoff`).
const SUPERSEDED_SHOWN_MS: u64 = 15 * 60_000;

/// How it stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// The Receive stream is open.
    pub(crate) connected: bool,
    /// Unix milliseconds of the last time that it became so; 0: never.
    pub(crate) since_ms: i64,
    /// Why not, or what is wrong although it is, in one sentence.
    pub(crate) problem: String,
    /// Unix milliseconds of the last time that another stream of this institution took over; 0: never.
    superseded_ms: i64,
}

/// What goes out to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Messages,
    Attachments,
}

impl Way {
    /// What it means that nothing goes this way, for people.
    pub(crate) fn blocked(self) -> &'static str {
        match self {
            Self::Messages => {
                "the gateway does not answer the messages that it is sent; they wait here and are tried again"
            }
            Self::Attachments => "the gateway does not take attachments; their messages wait here and are tried again",
        }
    }
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Link {
    channel: Channel,
    /// What the gateway says when it does not keep a connection.
    farewells: Farewells,
    /// The one that was told last.
    told: Mutex<Option<Farewell>>,
    standing: Mutex<Standing>,
    /// Where the gateway left the last that was sent without an answer.
    blocked: Mutex<BTreeSet<Way>>,
    /// True once the gateway has this adapter's key record, without which it believes nothing that the adapter says.
    introduced: watch::Sender<bool>,
    refused: AtomicU64,
    /// Wakes the directory: the gateway does not know our key, or keys have changed.
    pub(crate) introduce: tokio::sync::Notify,
}

impl Link {
    pub(crate) fn new(channel: Channel, farewells: Farewells) -> Self {
        let standing = Standing { problem: "not connected yet".into(), ..Standing::default() };
        Self {
            channel,
            farewells,
            told: Mutex::default(),
            standing: Mutex::new(standing),
            blocked: Mutex::default(),
            introduced: watch::Sender::new(false),
            refused: AtomicU64::new(0),
            introduce: tokio::sync::Notify::new(),
        }
    }

    /// Calls of the exchange, answers up to a whole frame.
    pub(crate) fn exchange(&self) -> ExchangeClient<Channel> {
        ExchangeClient::new(self.channel.clone()).max_decoding_message_size(FRAME_BYTES_MAX)
    }

    /// Calls of the directory, answers up to a whole frame.
    pub(crate) fn directory(&self) -> DirectoryClient<Channel> {
        DirectoryClient::new(self.channel.clone()).max_decoding_message_size(FRAME_BYTES_MAX)
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn connected(&self, now_ms: i64) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        (standing.connected, standing.since_ms) = (true, now_ms);
        // Who took over once takes over again, as long as nobody stops one of the two.
        let rival = standing.superseded_ms != 0 && now_ms.abs_diff(standing.superseded_ms) < SUPERSEDED_SHOWN_MS;
        standing.problem = if rival { SUPERSEDED.to_owned() } else { String::new() };
    }

    /// Another stream of this institution took over.
    pub(crate) fn superseded(&self, now_ms: i64) {
        self.lost(SUPERSEDED);
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).superseded_ms = now_ms;
    }

    /// Why a call failed: when the gateway does not keep our connections, what it says to that. Told once, until it listens again.
    pub(crate) fn because(&self, refused: Refused) -> Refused {
        let broken = matches!(refused.reason, Reason::GatewayUnavailable | Reason::ConnectionLost);
        let Some(farewell) = self.farewells.last().filter(|_| broken) else { return refused };
        let refused = Refused::new(farewell.reason(), format!("the gateway {farewell}"));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.replace(farewell) != Some(farewell) {
            tracing::error!(reason = %refused.reason, detail = refused.detail, "the gateway does not let this adapter in");
        }
        refused
    }

    pub(crate) fn lost(&self, problem: &str) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.connected = false;
        problem.clone_into(&mut standing.problem);
    }

    /// The gateway left something without an answer that was sent this way.
    pub(crate) fn blocks(&self, way: Way) -> Refused {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner).insert(way);
        Refused::new(Reason::GatewayUnavailable, way.blocked())
    }

    /// It has answered.
    pub(crate) fn answers(&self, way: Way) {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner).remove(&way);
    }

    /// A way that nothing goes, connected or not.
    pub(crate) fn blocked(&self) -> Option<Way> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner).first().copied()
    }

    /// Messages that the gateway refused for good since start.
    pub(crate) fn refused_for_good(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The gateway has our key record.
    pub(crate) fn introduced(&self) {
        self.introduced.send_replace(true);
    }

    /// Waits until the gateway has our key record.
    pub(crate) async fn wait_introduced(&self) {
        let mut introduced = self.introduced.subscribe();
        // The sender lives as long as this value, so waiting cannot fail.
        drop(introduced.wait_for(|done| *done).await);
    }
}

/// A failed call to the gateway as a refusal: its own words when it gave some, unreachable otherwise.
pub(crate) fn refusal_of(status: &Status) -> Refused {
    Refused::from_status(status).unwrap_or_else(|| {
        let mut words = status.message().to_owned();
        let mut source = std::error::Error::source(status);
        while let Some(cause) = source {
            let cause_words = cause.to_string();
            if !words.contains(&cause_words) {
                words = format!("{words}: {cause_words}");
            }
            source = cause.source();
        }
        Refused::new(Reason::GatewayUnavailable, format!("the gateway cannot be reached ({words})"))
    })
}
