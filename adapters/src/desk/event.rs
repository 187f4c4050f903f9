//! What a desk says about its work, for whoever watches: the demo's live view, its table and its verdict. Plain facts; no
//! person's data.

/// One thing that happened at a desk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The institution's name.
    pub desk: String,
    /// The case that it is about; empty when it is about none.
    pub case_id: String,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The desk opened a case.
    Opened {
        /// `REFERRAL` or `DOCUMENT_REQUEST`.
        kind: &'static str,
        /// The institution that is to act.
        to: String,
        /// The case that it serves or continues; empty: none.
        parent: String,
        /// Under which request id.
        request_id: String,
    },
    /// The desk moved a case.
    Moved {
        /// The business status.
        status: String,
        /// Reason or outcome; empty: none.
        reason: String,
    },
    /// The desk learned that the other side, or the gateway's clock, moved a case.
    Learned {
        /// The business status.
        status: String,
        /// Reason or outcome; empty: none.
        reason: String,
    },
    /// Documents came and were checked.
    Documents {
        /// How many.
        count: usize,
        /// Bytes of their attachments.
        bytes: u64,
    },
    /// The recipient opened a message of ours: the receipt is here.
    Receipt,
    /// An item was shown again after it was acknowledged: this must never happen.
    SeenAgain {
        /// Which item.
        item: String,
    },
    /// Something that was not to happen, in one sentence.
    Trouble {
        /// The sentence.
        sentence: String,
    },
}

impl What {
    /// One short sentence for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let with = |status: &str, reason: &str| {
            if reason.is_empty() { status.to_owned() } else { format!("{status} ({reason})") }
        };
        match self {
            Self::Opened { kind, to, .. } if *kind == super::office::DOCUMENT_REQUEST => {
                format!("asks {to} for documents")
            }
            Self::Opened { to, .. } => format!("refers a person to {to}"),
            Self::Moved { status, reason } => format!("says {}", with(status, reason)),
            Self::Learned { status, reason } => format!("learns {}", with(status, reason)),
            Self::Documents { count, bytes } => {
                let answers = if *count == 1 { "the answer".to_owned() } else { format!("{count} answers") };
                let size =
                    if *bytes == 0 { String::new() } else { format!(", {} KiB of attachments", bytes.div_ceil(1024)) };
                format!("has {answers}{size}")
            }
            Self::Receipt => "has the receipt".to_owned(),
            Self::SeenAgain { item } => format!("was shown {item} again after acknowledging it"),
            Self::Trouble { sentence } => sentence.clone(),
        }
    }
}
