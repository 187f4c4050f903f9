//! One caller's view of the inbox: what waits, then what arrives, never more than its window ahead of its acknowledgements.
//!
//! Knows leases and the window. Never knows what stands in an item. Invariants: an item is shown to one watcher at a time; what the
//! watcher did not acknowledge is offered again when its stream ends.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tramite_proto::{
    pb::backoffice::v1 as pb,
    reason::{Reason, Refused},
};

use crate::office::Office;

/// Without a window of its own, a caller is shown so many items ahead.
const WINDOW_DEFAULT: usize = 100;
/// As the contract says.
const WINDOW_MAX: u32 = 1_000;
/// Items opened at a time: each is up to 64 KiB, and all of a lot are in memory together.
const LOT: usize = 16;

/// A caller that does not follow and acknowledges nothing has seen its window by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Begins to show.
pub(super) fn watch(
    office: Arc<Office>,
    call: &pb::WatchInboxRequest,
    stop: CancellationToken,
) -> Result<impl Stream<Item = Result<pb::InboxItem, Status>> + Send + 'static, Refused> {
    if call.window > WINDOW_MAX {
        return Err(Refused::new(Reason::FieldInvalid, "a window is at most 1000 items").field("window"));
    }
    let window = usize::try_from(call.window).ok().filter(|window| *window > 0).unwrap_or(WINDOW_DEFAULT);
    let (items, shown) = mpsc::channel(LOT);
    let mut watcher = Watcher { office, held: HashSet::new(), window, follow: call.follow, items };
    tokio::spawn(async move {
        let ended = tokio::select! {
            () = stop.cancelled() => Err(Refused::because(Reason::ShuttingDown)),
            () = watcher.items.closed() => Ok(()),
            ended = Watcher::run(watcher.office.clone(), &mut watcher.held, watcher.window, watcher.follow, watcher.items.clone()) => ended,
        };
        if let Err(refused) = ended {
            // The caller may be gone already.
            drop(watcher.items.send(Err(refused.to_status())).await);
        }
    });
    Ok(ReceiverStream::new(shown))
}

struct Watcher {
    office: Arc<Office>,
    /// Shown and, as far as this watcher knows, not acknowledged.
    held: HashSet<u64>,
    window: usize,
    follow: bool,
    items: mpsc::Sender<Result<pb::InboxItem, Status>>,
}

impl Watcher {
    async fn run(
        office: Arc<Office>,
        held: &mut HashSet<u64>,
        window: usize,
        follow: bool,
        items: mpsc::Sender<Result<pb::InboxItem, Status>>,
    ) -> Result<(), Refused> {
        let inbox = office.inbox();
        loop {
            let changed = inbox.changed();
            inbox.forget_acknowledged(held);
            let room = window.saturating_sub(held.len()).min(LOT);
            if room == 0 {
                // Who does not follow wants an end: without acknowledgements the window stays full.
                if tokio::time::timeout(PATIENCE, changed).await.is_err() && !follow {
                    return Ok(());
                }
                continue;
            }
            let lot = inbox.lease(room).await?;
            if lot.is_empty() {
                if !follow {
                    return Ok(());
                }
                inbox.arrival().await;
                continue;
            }
            held.extend(lot.iter().map(|shown| shown.sequence));
            for shown in lot {
                if items.send(Ok(shown.item)).await.is_err() {
                    return Ok(());
                }
                fail::fail_point!("backoffice.sent");
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let held: Vec<u64> = self.held.drain().collect();
        self.office.inbox().release(&held);
    }
}
