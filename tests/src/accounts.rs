//! What a gateway has answered for, message by message, and whether it keeps it: nothing lost, nothing twice.
//!
//! Knows what was sent, what was answered, what was delivered and what was told. Never asks anybody: `traffic.rs` does. Invariants: what
//! was accepted keeps its first acceptance to the letter; what was settled is not delivered again; of each message its sender is
//! told once, and not again after it has acknowledged that; what it is told is the very receipt that settled the message, and the
//! gateway's evidence of it. (Whose signatures they carry, `traffic.rs` sees.)

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::watch, time::timeout};
use tramite_proto::pb::{
    exchange::v1::Refusal,
    statement::v1::{SealedMessage, Statement},
};

use crate::{
    config::GATEWAY,
    forge::{Object, b64, receipt, sha256},
    receiving::{Delivered, Noticed},
    submitting::{Answer, Part},
};

/// One message.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What its origin says.
    pub origin: Object,
    /// As it was sent, and is sent again.
    pub message: SealedMessage,
    /// Its part, when it has one.
    pub part: Option<Part>,
    /// The gateway answered that it has the part.
    pub stored: bool,
    /// It came to its recipient, who may have settled it.
    pub delivered: bool,
    acceptance: Option<Statement>,
    /// Its sender had to ask again, without ever having had an answer.
    unanswered: bool,
    settled: bool,
    /// Every receipt that was made for it, the newest last: a settlement without an answer may stand.
    receipts: Vec<Vec<u8>>,
    /// The one whose settlement was answered.
    settled_with: Option<Vec<u8>>,
    told: bool,
    told_for_good: bool,
}

/// How many of what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Messages that were sent.
    pub sent: usize,
    /// Whose acceptance was answered before any break.
    pub accepted: usize,
    /// Parts whose storing was answered.
    pub stored: usize,
    /// Whose settlement was answered.
    pub settled: usize,
    /// Of which the sender was told, and that was settled.
    pub told: usize,
}

impl Figures {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            accepted: self.accepted + other.accepted,
            stored: self.stored + other.stored,
            settled: self.settled + other.settled,
            told: self.told + other.told,
        }
    }
}

impl Entry {
    /// What is wrong in the news of it.
    fn wrong_in(&self, noticed: &Noticed) -> Option<String> {
        let Some(receipt) = &noticed.receipt else { return Some("it was given up: there is no receipt".into()) };
        let receipt: &[u8] = &receipt.json;
        let settled = match &self.settled_with {
            Some(with) => with == receipt,
            None => self.receipts.iter().any(|made| made == receipt),
        };
        if !settled {
            return Some(format!("another receipt than it was settled with: {}", String::from_utf8_lossy(receipt)));
        }
        let Some(evidence) = &noticed.evidence else { return Some("there is no evidence".into()) };
        let Ok(evidence) = serde_json::from_slice::<Value>(&evidence.json) else {
            return Some("its evidence is no JSON".into());
        };
        let expected = [
            ("typ", "evidence".into()),
            ("evt", "ContentHandover".into()),
            ("iss", GATEWAY.into()),
            ("mid", self.origin.text("jti").to_owned()),
            ("org_s256", b64(&sha256(&self.origin.json()))),
            ("from", self.origin.text("iss").to_owned()),
            ("to", self.origin.text("aud").to_owned()),
            ("case", self.origin.text("case").to_owned()),
            ("rcp_s256", b64(&sha256(receipt))),
        ];
        let differs = expected.iter().find(|(name, value)| evidence.get(name) != Some(&Value::from(value.as_str())));
        differs.map(|(name, value)| format!("{name} is not {value} in its evidence {evidence}"))
    }
}

/// The accounts with one gateway.
#[derive(Debug, Default)]
pub struct Accounts {
    entries: Vec<Entry>,
    places: HashMap<String, usize>,
    /// What was answered for and is not there, or is another: must stay empty.
    pub lost: Vec<String>,
    /// What came again after it was over: must stay empty.
    pub twice: Vec<String>,
    /// What was refused and should not have been: must stay empty.
    pub refused: Vec<String>,
}

impl Accounts {
    /// How many of what.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let count = |fits: fn(&Entry) -> bool| self.entries.iter().filter(|entry| fits(entry)).count();
        Figures {
            sent: self.entries.len(),
            accepted: count(|entry| entry.acceptance.is_some() && !entry.unanswered),
            stored: count(|entry| entry.stored),
            settled: count(|entry| entry.settled),
            told: count(|entry| entry.told_for_good),
        }
    }

    /// True when the sender has been told of every message.
    #[must_use]
    pub fn all_told(&self) -> bool {
        // Not whether its acknowledgement was answered: one that was on its way at a cut may stand.
        self.entries.iter().all(|entry| entry.told)
    }

    /// The messages from a place on.
    #[must_use]
    pub fn from(&self, place: usize) -> Vec<Entry> {
        self.entries.get(place..).unwrap_or_default().to_vec()
    }

    /// Opens the account of a message that is about to be sent. Returns its place.
    pub fn open(&mut self, origin: Object, message: SealedMessage, part: Option<Part>) -> usize {
        self.places.insert(origin.text("jti").to_owned(), self.entries.len());
        self.entries.push(Entry {
            origin,
            message,
            part,
            stored: false,
            delivered: false,
            acceptance: None,
            unanswered: false,
            settled: false,
            receipts: Vec::new(),
            settled_with: None,
            told: false,
            told_for_good: false,
        });
        self.entries.len() - 1
    }

    /// The connection broke: what has no answer by now was not answered for.
    pub fn broken(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.unanswered |= entry.acceptance.is_none());
    }

    fn of(&mut self, id: &str) -> Option<&mut Entry> {
        self.entries.get_mut(*self.places.get(id)?)
    }

    /// The gateway says that it has the part: from now on it has it. A repeat must find it there.
    pub fn stored(&mut self, id: &str, anew: bool) {
        let Some(entry) = self.of(id) else { return };
        let gone = anew && entry.stored && !entry.delivered;
        entry.stored = true;
        if gone {
            self.lost.push(format!("{id}: its part was answered for and is gone"));
        }
    }

    /// The gateway's answer to a message, or to its repeat.
    pub fn answered(&mut self, id: &str, answer: Answer) {
        let Some(entry) = self.of(id) else { return };
        match (&entry.acceptance, answer) {
            (None, Ok(first)) => entry.acceptance = Some(first),
            (Some(first), Ok(again)) if *first == again => {}
            // It says that it may be asked again: nothing was answered for.
            (_, Err(why)) if why.retryable => {}
            (Some(_), Ok(_)) => self.lost.push(format!("{id}: a repeat got another acceptance")),
            (Some(_), Err(why)) => self.lost.push(format!("{id}: a repeat was refused: {} {}", why.reason, why.detail)),
            (None, Err(why)) => self.refused.push(format!("{id}: {} {}", why.reason, why.detail)),
        }
    }

    /// A message is delivered: the receipt to settle it with, and its part to look for. `None`: it must not be here.
    pub fn delivered(&mut self, delivered: &Delivered) -> Option<(String, Object, Option<Part>)> {
        let Ok(origin) = serde_json::from_slice::<Value>(&delivered.origin.json) else {
            self.lost.push("something without an id was delivered".into());
            return None;
        };
        let id = origin.get("jti").and_then(|id| id.as_str()).unwrap_or_default().to_owned();
        let Some(entry) = self.of(&id) else {
            self.twice.push(format!("{id} was delivered and never sent"));
            return None;
        };
        let message = delivered.delivery.message.as_ref();
        let same = entry.message.origin.as_ref() == Some(&delivered.origin)
            && message.is_some_and(|came| came.enc == entry.message.enc && came.ciphertext == entry.message.ciphertext)
            && entry.acceptance.as_ref().is_none_or(|acceptance| *acceptance == delivered.acceptance);
        let over = entry.settled || entry.told;
        let recipient = entry.origin.text("aud").to_owned();
        let answer = receipt(&recipient, &entry.origin, &entry.message.ciphertext);
        let part = entry.part;
        entry.delivered = true;
        entry.receipts.push(answer.json());
        if !same {
            self.lost.push(format!("{id} was delivered with another content or acceptance"));
        }
        if over {
            self.twice.push(format!("{id} was delivered after it was settled"));
        }
        Some((id, answer, part))
    }

    /// A settlement was answered.
    pub fn settled(&mut self, id: &str, refused: Option<Refusal>) {
        match (refused, self.of(id)) {
            (None, Some(entry)) => {
                entry.settled = true;
                entry.settled_with = entry.receipts.last().cloned();
            }
            (Some(why), _) if !why.retryable => {
                self.refused.push(format!("the receipt of {id}: {} {}", why.reason, why.detail));
            }
            _ => {}
        }
    }

    /// The sender is told of a message. Returns its id.
    pub fn told(&mut self, noticed: &Noticed) -> String {
        let id = noticed.notice.message_id.clone();
        match self.of(&id) {
            None => self.twice.push(format!("news of {id}, which was never sent")),
            Some(entry) => {
                let again = entry.told_for_good;
                entry.told = true;
                let wrong = entry.wrong_in(noticed);
                if again {
                    self.twice.push(format!("news of {id} after they were acknowledged"));
                }
                if let Some(wrong) = wrong {
                    self.lost.push(format!("news of {id}: {wrong}"));
                }
            }
        }
        id
    }

    /// The acknowledgement of that was answered.
    pub fn told_for_good(&mut self, id: &str) {
        if let Some(entry) = self.of(id) {
            entry.told_for_good = true;
        }
    }

    /// Nothing more is coming: what was never told of is lost.
    pub fn close(&mut self) {
        let missing = self.entries.iter().filter(|entry| !entry.told);
        let state = |entry: &Entry| {
            let Entry { acceptance, settled, .. } = entry;
            format!("{}: no news (accepted {}, settled {settled})", entry.origin.text("jti"), acceptance.is_some())
        };
        self.lost.extend(missing.map(state).collect::<Vec<_>>());
    }
}

/// Accounts that several keep at once.
#[derive(Debug)]
pub struct Book {
    accounts: Mutex<Accounts>,
    changed: watch::Sender<()>,
}

impl Default for Book {
    fn default() -> Self {
        Self { accounts: Mutex::default(), changed: watch::channel(()).0 }
    }
}

impl Book {
    /// The accounts, to be read.
    pub fn read(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something in the accounts.
    pub fn note<T>(&self, what: impl FnOnce(&mut Accounts) -> T) -> T {
        let noted = what(&mut self.read());
        self.changed.send_replace(());
        noted
    }

    /// Waits until the accounts fit; false when nothing was noted for so long and they still do not.
    pub async fn until(&self, silence: Duration, fits: impl Fn(&Accounts) -> bool) -> bool {
        let mut changed = self.changed.subscribe();
        while !fits(&self.read()) {
            // The sender lives in `self`, so the channel cannot close.
            if timeout(silence, changed.changed()).await.is_err() {
                return fits(&self.read());
            }
        }
        true
    }
}
