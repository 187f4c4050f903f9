//! What the back offices know of the exchange: what was sent, what came, what was told. The promises are judged by it alone, so the
//! product is never asked whether it kept them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tramite_proto::pb::backoffice::v1::{InboxItem, SendResponse, inbox_item::Kind};

use super::attachment::Attachment;

/// A message that an adapter took, by its answer.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) from: &'static str,
    pub(crate) to: String,
    pub(crate) case_id: String,
    /// It ends the case.
    pub(crate) last: bool,
    pub(crate) attached: Option<Attachment>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Record {
    now: Duration,
    /// Everything that happened, in order.
    pub(crate) trace: Vec<String>,
    /// By message id.
    pub(crate) sent: BTreeMap<String, Sent>,
    /// By office and message id: the items in which it came.
    came: BTreeMap<(&'static str, String), BTreeSet<String>>,
    /// By office and message id: what was told of it, by item.
    told: BTreeMap<(&'static str, String), BTreeMap<String, String>>,
    acknowledged: BTreeSet<(&'static str, String)>,
    /// By office, message id, and name: attachments that were read and were what was sent.
    pub(crate) read: BTreeSet<(&'static str, String, String)>,
    /// Case, and whether its last message was sent.
    pub(crate) cases: BTreeMap<String, bool>,
    /// How many cases are still to be opened.
    pub(crate) to_open: usize,
    /// Acknowledgements and answers of which an adapter knew nothing later.
    pub(crate) forgotten: usize,
    /// Messages and notices that came again as if they were new.
    pub(crate) twice: usize,
    /// Promises that were broken.
    pub(crate) broken: Vec<String>,
}

/// A record that all share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book(Arc<Mutex<Record>>);

impl Book {
    pub(crate) fn open(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    pub(crate) fn at(&mut self, now: Duration) {
        self.now = now;
    }

    pub(crate) fn note(&mut self, what: impl std::fmt::Display) {
        self.trace.push(format!("{:>9.3} {what}", self.now.as_secs_f64()));
    }

    pub(crate) fn breaks(&mut self, what: String) {
        self.note(format_args!("BROKEN {what}"));
        self.broken.push(what);
    }

    /// An adapter took a request, for the first time or again.
    pub(crate) fn answered(&mut self, request: &str, sent: Sent, answer: &SendResponse, before: Option<&SendResponse>) {
        self.note(format_args!("{} sent {request} = {}", sent.from, answer.message_id));
        if let Some(before) = before
            && (&before.message_id, &before.case_id) != (&answer.message_id, &answer.case_id)
        {
            self.forgotten += 1;
            self.breaks(format!("{request} repeated got {answer:?}, at first {before:?}"));
        }
        if sent.last {
            self.cases.insert(sent.case_id.clone(), true);
        } else {
            self.cases.entry(sent.case_id.clone()).or_default();
        }
        self.sent.insert(answer.message_id.clone(), sent);
    }

    /// An item was shown.
    pub(crate) fn shown(&mut self, office: &'static str, item: &InboxItem) {
        if self.acknowledged.contains(&(office, item.item_id.clone())) {
            self.forgotten += 1;
            self.breaks(format!("{office} was shown {} after it had acknowledged it", place(&item.item_id)));
        }
        match &item.kind {
            Some(Kind::Message(message)) => {
                self.note(format_args!("{office} sees {} {}", message.message_id, place(&item.item_id)));
                let items = self.came.entry((office, message.message_id.clone())).or_default();
                items.insert(item.item_id.clone());
                if items.len() > 1 {
                    self.twice += 1;
                    self.breaks(format!("{} came twice to {office}", message.message_id));
                }
            }
            Some(Kind::Notice(notice)) => {
                self.note(format_args!("{office} is told {} of {}", notice.kind, notice.message_id));
                let told = self.told.entry((office, notice.message_id.clone())).or_default();
                told.insert(item.item_id.clone(), notice.kind.clone());
                if told.len() > 1 {
                    self.twice += 1;
                    self.breaks(format!("{office} was told twice of {}", notice.message_id));
                }
                if notice.kind != "OPENED" {
                    self.breaks(format!("{office} was told {notice:?}"));
                }
            }
            None => self.breaks(format!("{office} was shown nothing in {}", place(&item.item_id))),
        }
    }

    /// An adapter has taken an attachment.
    pub(crate) fn attached(&mut self, office: &'static str, request: &str, attachment: &str) {
        self.note(format_args!("{office} attaches {attachment} to {request}"));
    }

    /// An attachment was read.
    pub(crate) fn read(&mut self, office: &'static str, message_id: &str, name: &str, bytes: &[u8]) {
        self.note(format_args!("{office} reads {name} of {message_id}, {} bytes", bytes.len()));
        if Attachment::named(name).is_none_or(|sent| sent.bytes() != bytes) {
            self.breaks(format!("{office} was given other bytes in place of {name} of {message_id}"));
        }
        self.read.insert((office, message_id.to_owned(), name.to_owned()));
    }

    pub(crate) fn acknowledged(&mut self, office: &'static str, item_id: &str) {
        self.note(format_args!("{office} has acknowledged {}", place(item_id)));
        self.acknowledged.insert((office, item_id.to_owned()));
    }

    /// What is still to come: empty when every message arrived and was receipted, and every case ended.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.to_open > 0 {
            missing.push(format!("{} cases are not opened yet", self.to_open));
        }
        for (id, sent) in &self.sent {
            let done = |items: Option<&String>, office: &'static str| {
                items.is_some_and(|item| self.acknowledged.contains(&(office, item.clone())))
            };
            let recipient = super::stage::INSTITUTIONS.into_iter().find(|name| *name == sent.to).unwrap_or_default();
            if !done(self.came.get(&(recipient, id.clone())).and_then(BTreeSet::first), recipient) {
                missing.push(format!("{id} of {} has not arrived at {}", sent.from, sent.to));
            }
            let read = |sent: Attachment| self.read.contains(&(recipient, id.clone(), sent.name()));
            if !sent.attached.is_none_or(read) {
                missing.push(format!("what is attached to {id} was not read at {}", sent.to));
            }
            let told = self.told.get(&(sent.from, id.clone())).and_then(|told| told.keys().next());
            if !done(told, sent.from) {
                missing.push(format!("{} was not told that {id} was opened", sent.from));
            }
        }
        let open = self.cases.iter().filter(|(_, ended)| !**ended);
        missing.extend(open.map(|(case, _)| format!("the case {case} has not ended")));
        missing
    }

    /// Messages that an adapter took and no office saw.
    pub(crate) fn lost(&self) -> Vec<String> {
        let seen = |id: &str| self.came.keys().any(|(_, came)| came == id);
        self.sent.keys().filter(|id| !seen(id)).cloned().collect()
    }

    /// What came without having been sent.
    pub(crate) fn unsent(&self) -> Vec<String> {
        let unknown = self.came.keys().filter(|(_, id)| !self.sent.contains_key(id));
        unknown.map(|(office, id)| format!("{id} came to {office} and was never sent")).collect()
    }
}

/// The sequence in an item's id. The rest is a hash over what was sealed, with keys that are made anew for each play.
fn place(item_id: &str) -> &str {
    item_id.split('-').next().unwrap_or(item_id)
}
