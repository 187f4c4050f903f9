//! Somebody who works at a desk: reads the inbox as it comes, does something with each item, acknowledges it, and notes
//! everything that was shown, so that a promise can ask whether anything came twice.
//!
//! Invariant: an item is acknowledged only after its work succeeded, and `shown_again` holds every item that was shown after
//! an acknowledgement that the adapter had answered.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tramite_proto::pb::{
    backoffice::v1::{InboxItem, Notice, ReceivedMessage, WatchInboxRequest, inbox_item::Kind},
    body::v1::body,
};

use crate::desk::{Desk, insist};

/// How long one step of the work is tried while adapters are killed and come back.
const PATIENCE: Duration = Duration::from_secs(60);
/// After a broken stream.
const PAUSE: Duration = Duration::from_millis(50);

/// What a clerk saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Each item once, in the order in which it was first shown.
    pub items: Vec<InboxItem>,
    /// How often each was shown, and whether its acknowledgement was answered.
    shown: BTreeMap<String, (u32, bool)>,
    /// Items shown after they were acknowledged: must stay empty.
    pub shown_again: Vec<String>,
    /// Work that failed for good: must stay empty.
    pub failed: Vec<String>,
}

impl Seen {
    /// Messages, in the order of their arrival.
    pub fn messages(&self) -> impl Iterator<Item = &ReceivedMessage> {
        self.items.iter().filter_map(|item| match &item.kind {
            Some(Kind::Message(message)) => Some(message),
            _ => None,
        })
    }

    /// Notices, in the order of their arrival.
    pub fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.items.iter().filter_map(|item| match &item.kind {
            Some(Kind::Notice(notice)) => Some(notice),
            _ => None,
        })
    }

    /// Notices of one kind.
    #[must_use]
    pub fn notices_of(&self, kind: &str) -> usize {
        self.notices().filter(|notice| notice.kind == kind).count()
    }

    /// The situations of all referrals that came: the words by which a promise knows them.
    #[must_use]
    pub fn situations(&self) -> Vec<String> {
        let situation = |message: &ReceivedMessage| match &message.body.as_ref()?.kind {
            Some(body::Kind::Referral(referral)) => Some(referral.situation.clone()),
            _ => None,
        };
        self.messages().filter_map(situation).collect()
    }

    /// Items whose acknowledgement was answered.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.shown.values().filter(|(_, acknowledged)| *acknowledged).count()
    }

    fn note(&mut self, item: &InboxItem) {
        let (times, acknowledged) = self.shown.entry(item.item_id.clone()).or_default();
        *times += 1;
        if *acknowledged {
            self.shown_again.push(item.item_id.clone());
        } else if *times == 1 {
            self.items.push(item.clone());
        }
    }
}

/// A clerk at work, until dropped.
#[derive(Debug)]
pub struct Clerk {
    seen: Arc<Mutex<Seen>>,
    changed: watch::Receiver<()>,
    task: JoinHandle<()>,
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clerk {
    /// Reads and acknowledges, nothing else.
    #[must_use]
    pub fn reads(desk: &Desk) -> Self {
        Self::works(desk, |_, _| async { Ok(()) })
    }

    /// Accepts every referral, then acknowledges it.
    #[must_use]
    pub fn accepts(desk: &Desk) -> Self {
        Self::works(desk, |desk, item| async move {
            let Some(Kind::Message(message)) = item.kind else { return Ok(()) };
            if !message.r#type.ends_with(".Referral") {
                return Ok(());
            }
            let request_id = format!("answer-{}", message.message_id);
            insist(PATIENCE, || desk.move_referral(&message.case_id, &request_id, "accepted")).await?;
            Ok(())
        })
    }

    /// Does the given work for each item before acknowledging it.
    pub fn works<F>(desk: &Desk, work: impl Fn(Desk, InboxItem) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (changes, changed) = watch::channel(());
        let (noted, desk) = (Arc::clone(&seen), desk.clone());
        let task = tokio::spawn(async move {
            loop {
                // A broken stream is the adapter's restart; what was not acknowledged is shown again.
                let _ = watch_once(&desk, &noted, &changes, &work).await;
                sleep(PAUSE).await;
            }
        });
        Self { seen, changed, task }
    }

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Waits until what was seen fits.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until(&self, what: &str, within: Duration, fits: impl Fn(&Seen) -> bool) -> Result<()> {
        let mut changed = self.changed.clone();
        let wait = timeout(within, async {
            while !fits(&self.seen()) {
                if changed.changed().await.is_err() {
                    break;
                }
            }
        });
        wait.await.with_context(|| {
            let seen = self.seen();
            let (messages, notices) = (seen.messages().count(), seen.notices().count());
            format!("not in {within:?}: {what}; seen {messages} messages, {notices} notices, failed {:?}", seen.failed)
        })
    }
}

async fn watch_once<F>(
    desk: &Desk,
    seen: &Mutex<Seen>,
    changes: &watch::Sender<()>,
    work: &(impl Fn(Desk, InboxItem) -> F + Send + Sync),
) -> Result<()>
where
    F: Future<Output = Result<()>> + Send,
{
    let request = WatchInboxRequest { follow: true, window: 0 };
    let mut items = desk.client().watch_inbox(request).await?.into_inner();
    while let Some(item) = items.message().await? {
        lock(seen).note(&item);
        changes.send_replace(());
        let id = item.item_id.clone();
        if let Err(error) = work(desk.clone(), item).await {
            lock(seen).failed.push(format!("{id}: {error:#}"));
        }
        let ids = [id.clone()];
        insist(PATIENCE, || desk.acknowledge(&ids)).await?;
        lock(seen).shown.entry(id).or_default().1 = true;
        changes.send_replace(());
    }
    Ok(())
}
