//! What the back offices know of the exchange: what was sent, what came, what was told. The promises are judged by it alone, so the
//! product is never asked whether it kept them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tramite_proto::pb::backoffice::v1::{Case, InboxItem, Notice, SendResponse, inbox_item::Kind};

use super::attachment::Attachment;

/// Why a move is refused that came too late.
pub(crate) const CROSSED: &str = "CASE_TRANSITION_INVALID";
/// Why one is refused whose case was never opened.
const UNOPENED: &str = "CASE_UNKNOWN";
/// Why a hasty message is.
const TOO_LATE: [&str; 2] = ["MESSAGE_EXPIRED", "TTL_EXPIRED"];
/// What is told of a message that ended on its way.
const ENDS: [&str; 2] = ["EXPIRED", "REFUSED"];
/// What is told of one that its recipient had opened all the same.
const LATE: &str = "RECEIPT_AFTER_EXPIRY";

/// A message that an adapter took, by its answer.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) from: &'static str,
    pub(crate) to: String,
    pub(crate) case_id: String,
    /// It may end on its way.
    pub(crate) hasty: bool,
    /// It opens the case.
    pub(crate) opens: bool,
    /// Somebody must take it up in time.
    pub(crate) deadline: bool,
    pub(crate) attached: Option<Attachment>,
}

/// What an office was told of a message.
#[derive(Debug)]
struct News {
    kind: String,
    reason: String,
    item: String,
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
    /// By office and message id: the news of it, in order.
    told: BTreeMap<(&'static str, String), Vec<News>>,
    acknowledged: BTreeSet<(&'static str, String)>,
    /// By office, message id, and name: attachments that were read and were what was sent.
    pub(crate) read: BTreeSet<(&'static str, String, String)>,
    /// By case and office: its status there, and who is to move it.
    stands: BTreeMap<String, BTreeMap<&'static str, (String, String)>>,
    /// How many cases are still to be opened.
    pub(crate) to_open: usize,
    /// How many are still to be withdrawn.
    pub(crate) to_withdraw: usize,
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
            Some(Kind::Notice(notice)) => self.tell(office, &item.item_id, notice),
            None => self.breaks(format!("{office} was shown nothing in {}", place(&item.item_id))),
        }
    }

    fn tell(&mut self, office: &'static str, item_id: &str, notice: &Notice) {
        let Notice { kind, message_id, reason, .. } = notice;
        self.note(format_args!("{office} is told {kind} {reason} of {message_id}"));
        let told = self.told.entry((office, message_id.clone())).or_default();
        let again = told.iter().any(|news| news.kind == *kind && news.item != item_id);
        if !told.iter().any(|news| news.item == item_id) {
            told.push(News { kind: kind.clone(), reason: reason.clone(), item: item_id.to_owned() });
        }
        if again {
            self.twice += 1;
            self.breaks(format!("{office} was told {kind} twice of {message_id}"));
        }
    }

    /// News that cannot be true, by what was sent and what was told before. Only at the end is it known what was sent.
    fn untrue(&self) -> Vec<String> {
        let mut untrue = Vec::new();
        for ((office, id), told) in &self.told {
            let Some(sent) = self.sent.get(id) else {
                untrue.push(format!("{office} was told of {id}, which was never sent"));
                continue;
            };
            let own = sent.from == *office;
            for (index, News { kind, reason, .. }) in told.iter().enumerate() {
                let before = |kinds: &[&str]| told.iter().take(index).any(|news| kinds.contains(&news.kind.as_str()));
                let may = match kind.as_str() {
                    // What its own adapter gave up may have been at the gateway all the same.
                    "OPENED" => own && (sent.hasty || !before(&ENDS)) && !self.has(office, id, &[LATE]),
                    "CASE_EXPIRED" => sent.opens && sent.deadline,
                    "EXPIRED" if reason == UNOPENED => own && self.is_unopened(&sent.case_id),
                    "EXPIRED" => own && sent.hasty && !before(&["OPENED"]),
                    "REFUSED" if reason == CROSSED => own && !sent.opens,
                    "REFUSED" if reason == UNOPENED => own && self.is_unopened(&sent.case_id),
                    "REFUSED" => own && sent.hasty && TOO_LATE.contains(&reason.as_str()),
                    LATE if own => before(&ENDS),
                    LATE => self.has_ended(sent.from, id),
                    _ => false,
                };
                if !may {
                    untrue.push(format!("{office} was told {kind} {reason} of {id}"));
                }
            }
        }
        untrue
    }

    /// A case as its adapter shows it to an office.
    pub(crate) fn stands(&mut self, office: &'static str, case: &Case) {
        let now = (case.status.clone(), case.next.clone());
        let offices = self.stands.entry(case.case_id.clone()).or_default();
        if offices.insert(office, now.clone()).as_ref() != Some(&now) {
            self.note(format_args!("{office} has {} as {}", case.case_id, case.status));
        }
    }

    /// Whether the message that was to open a case ended on its way.
    fn is_unopened(&self, case_id: &str) -> bool {
        let opening = self.sent.iter().find(|(_, sent)| sent.opens && sent.case_id == case_id);
        opening.is_some_and(|(id, sent)| self.has_ended(sent.from, id))
    }

    /// Whether a message of an office ended, as far as it knows.
    fn has_ended(&self, from: &'static str, id: &str) -> bool {
        self.has(from, id, &ENDS) && !self.has(from, id, &["OPENED"])
    }

    /// Whether an office was told any of this of a message.
    fn has(&self, office: &'static str, id: &str, kinds: &[&str]) -> bool {
        self.news_of(office, id, kinds).next().is_some()
    }

    fn news_of(&self, office: &'static str, id: &str, kinds: &[&str]) -> impl Iterator<Item = &News> {
        let told = self.told.get(&(office, id.to_owned()));
        told.into_iter().flatten().filter(|news| kinds.contains(&news.kind.as_str()))
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

    /// What is still to come: empty when every message arrived and was receipted, or ended and its sender knows, and every case ended
    /// alike on both sides.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.to_open + self.to_withdraw > 0 {
            missing.push(format!("{} cases are to be opened, {} to be withdrawn", self.to_open, self.to_withdraw));
        }
        for (id, sent) in &self.sent {
            let recipient = super::stage::INSTITUTIONS.into_iter().find(|name| *name == sent.to).unwrap_or_default();
            let ended = self.has_ended(sent.from, id);
            let came = self.came.get(&(recipient, id.clone()));
            if came.is_none() && ended && self.knows(sent.from, id, &ENDS) && !self.has(sent.from, id, &[LATE]) {
                continue;
            }
            if !came.and_then(BTreeSet::first).is_some_and(|item| self.is_done(recipient, item)) {
                missing.push(format!("{id} of {} has not arrived at {}", sent.from, sent.to));
            }
            let read = |sent: Attachment| self.read.contains(&(recipient, id.clone(), sent.name()));
            if !sent.attached.is_none_or(read) {
                missing.push(format!("what is attached to {id} was not read at {}", sent.to));
            }
            if !self.knows(sent.from, id, if ended { &[LATE] } else { &["OPENED"] }) {
                missing.push(format!("{} was not told that {id} was opened", sent.from));
            }
        }
        missing.extend(self.stands.iter().filter_map(|(case, offices)| {
            let mut all = offices.values();
            let first = all.next();
            let ended = offices.values().all(|(_, next)| next == "nobody") && all.all(|other| Some(other) == first);
            (!ended).then(|| format!("the case {case} stands as {offices:?}"))
        }));
        missing
    }

    fn is_done(&self, office: &'static str, item: &str) -> bool {
        self.acknowledged.contains(&(office, item.to_owned()))
    }

    /// Whether an office has acknowledged such news.
    fn knows(&self, office: &'static str, id: &str, kinds: &[&str]) -> bool {
        self.news_of(office, id, kinds).any(|news| self.is_done(office, &news.item))
    }

    /// How often each kind of news came.
    pub(crate) fn news(&self) -> BTreeMap<String, usize> {
        let mut news = BTreeMap::new();
        for News { kind, .. } in self.told.values().flatten() {
            *news.entry(kind.clone()).or_default() += 1;
        }
        news
    }

    /// Messages that an adapter took, no office saw, and nobody gave up.
    pub(crate) fn lost(&self) -> Vec<String> {
        let seen = |id: &str| self.came.keys().any(|(_, came)| came == id);
        let lost = self.sent.iter().filter(|(id, sent)| !seen(id) && !self.has_ended(sent.from, id));
        lost.map(|(id, _)| id.clone()).collect()
    }

    /// What came, or was told, and cannot be true.
    pub(crate) fn invented(&self) -> Vec<String> {
        let unknown = self.came.keys().filter(|(_, id)| !self.sent.contains_key(id));
        let mut invented: Vec<_> =
            unknown.map(|(office, id)| format!("{id} came to {office} and was never sent")).collect();
        invented.extend(self.untrue());
        invented
    }
}

/// The sequence in an item's id. The rest is a hash over what was sealed, with keys that are made anew for each play.
fn place(item_id: &str) -> &str {
    item_id.split('-').next().unwrap_or(item_id)
}
