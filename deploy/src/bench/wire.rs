//! What the bench and its processes say to each other: one JSON object on each line of standard input and output.
//!
//! A pipe costs nothing while nothing is said, and its end tells a child that its parent is gone.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{histogram::Histogram, time::Epoch};

/// The first line to a process: who it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Setup {
    /// What it does.
    pub(super) role: Role,
    /// Where the network's folders are, one for each name.
    pub(super) folder: PathBuf,
    /// `host:port` of the gateway.
    pub(super) address: String,
    /// Nanoseconds from 1970 to the begin of the monotonic clock.
    pub(super) epoch_ns: u64,
    /// Institutions that receive what counts.
    pub(super) recipients: Vec<String>,
    /// Institutions that never come.
    pub(super) absent: Vec<String>,
    /// Institutions that are only connected.
    pub(super) idle: Vec<String>,
    /// Bytes of a padded body.
    pub(super) content: usize,
    /// Bytes of a content that goes beside it as a part, when contents are long.
    pub(super) part: Option<usize>,
    /// Milliseconds for which receipts gather, where more may come.
    pub(super) gather_ms: u64,
}

impl Setup {
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch_ns)
    }
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    /// Submits, and takes the notices.
    Sender,
    /// Receives for every recipient.
    Recipients,
    /// Holds streams on which nothing comes.
    Idle,
    /// Serves the bare stream: answers every frame at once, looks at nothing.
    Bare,
}

/// When a run begins, from when it counts, and when it ends: nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) begin_ns: u64,
    pub(super) count_ns: u64,
    pub(super) end_ns: u64,
}

impl Window {
    /// Whether what happened then counts.
    pub(super) fn counts(&self, at_ns: u64) -> bool {
        (self.count_ns..self.end_ns).contains(&at_ns)
    }
}

/// How much may be on its way: whole frames of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Load {
    /// Submitted and not acknowledged.
    pub(super) in_flight: u64,
    /// Submitted and not receipted.
    pub(super) unsettled: u64,
    /// Messages in a frame.
    pub(super) frame: u64,
}

impl Load {
    /// How long receipts, and acknowledgements of notices, gather: not at all where no more may come.
    pub(super) fn gather(self, setup: &Setup) -> Duration {
        if self.in_flight == 1 { Duration::ZERO } else { Duration::from_millis(setup.gather_ms) }
    }
}

/// What a process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub(super) enum Order {
    /// To everybody: a run. The sender sends, and says `sent` when everything has come back; the others only count.
    Run { window: Window, load: Load },
    /// To the sender: so many to the absent.
    Fill { count: u64, load: Load },
    /// To recipients: when everything up to this number of messages is settled, say what was counted.
    Tell { settled: u64 },
    /// To the sender: the bare stream at this address for a window, instead of the gateway.
    Stream { address: String, window: Window, load: Load },
}

/// What a process says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "kebab-case")]
pub(super) enum Said {
    /// It is connected; where it listens, if it does.
    Ready { address: String },
    /// Messages so far in this run, for whoever looks on.
    Progress { count: u64 },
    /// The sender's accounts.
    Sent(Box<Sent>),
    /// The recipients' accounts.
    Received(Box<Received>),
    /// It cannot go on.
    Failed { sentence: String },
}

/// The sender's accounts. The sums are since it began; what `window` and the histograms have is of the window alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) submitted: u64,
    pub(super) acknowledged: u64,
    pub(super) noticed: u64,
    /// Of them, to the absent.
    pub(super) absent: u64,
    /// Acknowledged in the window.
    pub(super) window: u64,
    /// Bytes of parts that went to the bare stream in the window.
    pub(super) window_bytes: u64,
    /// From submission to a verified acceptance.
    pub(super) acknowledgement: Histogram,
    /// From submission to the notice of the receipt, checked.
    pub(super) notice: Histogram,
    /// Signatures verified.
    pub(super) batches: u64,
}

/// The recipients' accounts, as [`Sent`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Received {
    pub(super) delivered: u64,
    pub(super) settled: u64,
    /// Bytes of parts that came.
    pub(super) part_bytes: u64,
    /// Settled in the window.
    pub(super) window: u64,
    /// From submission until the recipient has the content and has checked it.
    pub(super) delivery: Histogram,
    /// From submission to the word that the receipt stands.
    pub(super) handover: Histogram,
    /// Signatures verified, and made.
    pub(super) batches: u64,
    pub(super) receipts_signed: u64,
}
