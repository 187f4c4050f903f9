//! A desk: the demo's back office at an institution's adapter, over the same gRPC that any back office uses.
//!
//! It watches the inbox, acts on what arrives (`act`), and only then acknowledges. What is an institution's own (what it decides,
//! which documents it holds) stands in its `Office`; the desk knows how, never what. It keeps its dossiers in memory, as a back
//! office keeps them in its database, and works on the state of the case: so it survives restarts of its adapter and of the
//! gateway. Invariants: every call that sends has a request id made from the case and the step, so that a repeat sends nothing
//! twice; what was acknowledged is remembered, and whatever is shown again after that is reported.
pub mod act;
pub mod calls;
pub mod dossier;
pub mod event;
pub mod office;
pub mod paper;
pub mod register;
pub mod sample;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tramite_proto::pb::{backoffice::v1 as bo, body::v1::Date};

use self::{
    calls::{Calls, Stopped},
    dossier::Dossiers,
    event::{Event, What},
    office::Office,
    register::Register,
};

/// Events that may wait for the one who watches the desks; a desk waits for room rather than lose one.
pub const EVENTS_MAX: usize = 1024;
/// Pause before the inbox is watched again after its stream broke: the adapter may be on its way up.
const WATCH_AGAIN: Duration = Duration::from_millis(200);
/// Items shown and not yet acknowledged: a desk handles one at a time, a few more keep the line busy.
const WINDOW: u32 = 16;

/// What a desk needs to open.
pub struct Options {
    /// Whose desk it is.
    pub office: &'static Office,
    /// A channel to the institution's own adapter; made lazily, it connects again by itself.
    pub channel: Channel,
    /// What the institution holds about people.
    pub register: Arc<Register>,
    /// Where it says what it does.
    pub events: mpsc::Sender<Event>,
    /// The date on its calendar.
    pub today: Date,
    /// How long a clerk takes for one item; zero in tests.
    pub pace: Duration,
}

/// The desk of one institution.
pub struct Desk {
    office: &'static Office,
    calls: Calls,
    register: Arc<Register>,
    events: mpsc::Sender<Event>,
    today: Date,
    pace: Duration,
    dossiers: Dossiers,
}

impl Desk {
    /// Opens the desk; `run` makes it work.
    #[must_use]
    pub fn open(options: Options, stop: CancellationToken) -> Self {
        let Options { office, channel, register, events, today, pace } = options;
        Self { office, calls: Calls::new(channel, stop), register, events, today, pace, dossiers: Dossiers::default() }
    }

    /// Works until it is stopped: watches the inbox, and again whenever the stream to the adapter breaks.
    pub async fn run(mut self) {
        loop {
            match self.watch(true).await {
                Err(Stopped) => return,
                Ok(()) => {
                    if self.calls.pause(WATCH_AGAIN).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// One stream of the inbox, to its end.
    async fn watch(&mut self, follow: bool) -> Result<(), Stopped> {
        let Some(mut inbox) = self.calls.watch(follow, WINDOW).await? else { return Ok(()) };
        while let Some(item) = self.calls.next(&mut inbox).await? {
            self.take(item).await?;
        }
        Ok(())
    }

    /// One item: act, then acknowledge, then remember that it is acknowledged.
    async fn take(&mut self, item: bo::InboxItem) -> Result<(), Stopped> {
        let Some(kind) = item.kind else { return Ok(()) };
        if let Some(what) = self.dossiers.seen_again(&item.item_id, &kind) {
            self.say("", What::SeenAgain { item: what }).await;
        }
        if !self.pace.is_zero() {
            self.calls.pause(self.pace).await?;
        }
        match &kind {
            bo::inbox_item::Kind::Message(message) => self.on_message(message).await?,
            bo::inbox_item::Kind::Notice(notice) => self.on_notice(notice).await?,
        }
        self.calls.acknowledge(&item.item_id).await?;
        self.dossiers.acknowledged(&item.item_id, &kind);
        Ok(())
    }

    /// Tells whoever watches. Nobody listening is no reason to stop working.
    async fn say(&self, case_id: &str, what: What) {
        let event = Event { desk: self.office.name.to_owned(), case_id: case_id.to_owned(), what };
        drop(self.events.send(event).await);
    }
}
