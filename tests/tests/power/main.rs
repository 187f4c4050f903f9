//! Power cuts: the data of real processes is on an ext4 file system of its own, which is cut off at a moment that nobody chose; the
//! processes are killed, the file system mounted again, the processes started again, and everything that was answered is looked for.
//!
//! `TRAMITE_CUTS=n` spreads that many cuts over the promises; without it each has its least. A failure prints the seed, and
//! `TRAMITE_SEED` gives the same choices again.

mod adapters;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, sleep};
use tramite_tests::{
    accounts::{Book, Figures},
    attack::join,
    cuts::Promise,
    dice::Dice,
    loop_disk::{self, LoopDisk},
    network::{Network, PATIENCE, START_MAX},
    traffic::{self, Shape, Traffic},
    upon::{self, OPEN, Upon, segments},
};

/// Cuts of one network, one after the other, before its accounts are closed.
const CUTS_OF_ONE: u64 = 5;
/// The largest attachments that are common, and some of the largest that are allowed.
const PART_BYTES: u64 = 300_000;
const LARGE_PART_BYTES: u64 = 20 * 1024 * 1024;
/// Sealed bodies of which a segment of 1 MiB holds thirty.
const LARGE_CONTENT_BYTES: usize = 32 * 1024 + 16;
/// Further cuts until one has come upon what a promise is about.
const MORE_MAX: u64 = 12;
const SECOND: Duration = Duration::from_secs(1);

/// A gateway on a disk that can be cut off, and the accounts with it.
struct Scene {
    // First: the process ends before its disk goes.
    network: Network,
    disk: LoopDisk,
    book: Arc<Book>,
}

impl Scene {
    fn prepare() -> Result<Self> {
        let disk = LoopDisk::make()?;
        let network = Network::builder().played(&["caritas", "inps"]).on("gateway", &disk)?;
        // Nothing is delivered again only because a busy machine was slow.
        let network = network.gateway("[delivery]\nlease_s = 120")?.prepare()?;
        Ok(Self { network, disk, book: Arc::default() })
    }

    async fn open() -> Result<Self> {
        let scene = Self::prepare()?;
        scene.network.gateway.process.start().await?;
        scene.introduce().await?;
        Ok(scene)
    }

    /// Both institutions publish their keys.
    async fn introduce(&self) -> Result<()> {
        for name in ["caritas", "inps"] {
            join(&self.network, name).await?;
        }
        Ok(())
    }

    /// Power goes: whoever runs is told that its disk failed, and then is gone.
    async fn cut(&self) -> Result<()> {
        self.disk.cut()?;
        self.network.gateway.process.kill().await
    }

    /// Power is back.
    async fn start(&self) -> Result<()> {
        self.disk.mount_again()?;
        self.network.gateway.process.start().await
    }

    /// The same, and says how long opening took.
    async fn start_and_open(&self) -> Result<Duration> {
        let (begun, lines) = (Instant::now(), self.network.gateway.process.log().lines().len());
        self.start().await?;
        self.network.gateway.process.log().wait_for(lines, &[OPEN], START_MAX).await?;
        Ok(begun.elapsed())
    }

    /// As it is seen from outside the disk's own namespace.
    fn store(&self) -> PathBuf {
        self.disk.seen_from_here().join("gateway")
    }

    fn sent(&self) -> usize {
        self.book.read().figures().sent
    }

    /// Closes the accounts: all that waits is received, and nothing was lost, came twice, or was refused.
    async fn close(&self) -> Result<Figures> {
        traffic::repeat(&self.network, &self.book, 0).await?;
        traffic::drain(&self.network, &self.book).await?;
        let accounts = self.book.read();
        let some = |what: &[String]| what.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        for (what, found) in [("lost", &accounts.lost), ("twice", &accounts.twice), ("refused", &accounts.refused)] {
            ensure!(found.is_empty(), "{} {what}: {}\n{:?}", found.len(), some(found), accounts.figures());
        }
        Ok(accounts.figures())
    }
}

/// When the power goes.
#[derive(Clone, Copy)]
enum Moment {
    /// At any moment of the traffic's first so long.
    Within(Duration),
    /// Right after the last answer.
    Answered,
    /// Right after the process has ended in order.
    Ended,
    /// At any moment of the traffic, and then again and again while the process opens its store.
    Recovering(Duration),
}

/// Traffic, a cut, a repeat of everything; again and again, and at the end the accounts. What is sent before the traffic waits for it.
async fn survives(promise: Option<Promise>, before: Option<Shape>, shape: Shape, moment: Moment) -> Result<()> {
    survives_upon(promise, before, shape, moment, Upon::anything).await
}

/// The same, until a cut has come upon what the promise is about.
async fn survives_upon(
    promise: Option<Promise>,
    before: Option<Shape>,
    shape: Shape,
    moment: Moment,
    is_it: fn(&Upon) -> bool,
) -> Result<()> {
    let Some(mut promise) = promise else { return Ok(()) };
    let (mut figures, mut seen) = (Figures::default(), Vec::new());
    for cuts in promise.networks(CUTS_OF_ONE) {
        let scene = Scene::open().await?;
        let closed = async {
            let mut round = 0;
            while round < cuts || (round < cuts + MORE_MAX && !seen.iter().any(is_it)) {
                round += 1;
                let known = scene.sent();
                if let Some(before) = before {
                    let mut waiting = Traffic::start(&scene.network, &scene.book, before).await?;
                    waiting.sent().await?;
                }
                seen.push(once(&scene, shape, moment, &mut promise.dice).await?);
                traffic::repeat(&scene.network, &scene.book, known).await?;
            }
            scene.close().await
        };
        let closed = closed.await;
        figures = figures.and(closed.with_context(|| promise.failed(&scene.network))?);
    }
    ensure!(seen.iter().any(is_it), "no cut came upon what this is about: {seen:?}");
    promise.kept((figures, seen.into_iter().find(is_it)));
    Ok(())
}

async fn once(scene: &Scene, mut shape: Shape, moment: Moment, dice: &mut Dice) -> Result<Upon> {
    let before = segments(&scene.store())?;
    if matches!(moment, Moment::Answered) {
        shape.frames = usize::try_from(dice.of(1..16))?;
    }
    let mut traffic = Traffic::start(&scene.network, &scene.book, shape).await?;
    match moment {
        Moment::Within(span) | Moment::Recovering(span) => sleep(dice.within(span)).await,
        Moment::Answered => traffic.sent().await?,
        Moment::Ended => {
            sleep(dice.within(Duration::from_millis(500))).await;
            scene.network.gateway.process.terminate(PATIENCE).await?;
        }
    }
    scene.cut().await?;
    traffic.over().await?;
    if matches!(moment, Moment::Recovering(_)) {
        let opening = scene.start_and_open().await?;
        for _ in 0..dice.of(1..4) {
            scene.cut().await?;
            scene.start().await?;
            sleep(dice.within(opening)).await;
        }
        scene.cut().await?;
    }
    scene.disk.mount_again()?;
    let upon = Upon::found(&scene.store(), &before).await?;
    scene.start().await?;
    Ok(upon)
}

const SOON: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_messages_survive_a_power_cut() -> Result<()> {
    survives(Promise::of(0, "small messages")?, None, Shape::default(), Moment::Within(SOON)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_300_kilobytes_survive_a_power_cut() -> Result<()> {
    let shape = Shape { frame: 1, part: Some(PART_BYTES), senders: 3, ..Shape::default() };
    survives(Promise::of(1, "parts of 300 KB")?, None, shape, Moment::Within(SOON)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_20_mebibytes_survive_a_power_cut() -> Result<()> {
    let shape = Shape { frame: 1, part: Some(LARGE_PART_BYTES), senders: 2, frames: 3, ..Shape::default() };
    survives(Promise::of(2, "parts of 20 MiB")?, None, shape, Moment::Within(SOON * 2)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_answer_before_a_power_cut_stands() -> Result<()> {
    survives(Promise::of(3, "after the last answer")?, None, Shape::default(), Moment::Answered).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_segments_survives_a_power_cut() -> Result<()> {
    let shape = Shape { frame: 8, content: LARGE_CONTENT_BYTES, ..Shape::default() };
    let promise = Promise::of(4, "while segments change")?;
    survives_upon(promise, None, shape, Moment::Within(SOON), Upon::changed_segments).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_settled_while_contents_are_erased_survives_a_power_cut() -> Result<()> {
    let before = Shape { content: 4096 + 16, frames: 12, received: false, ..Shape::default() };
    let shape = Shape { frame: 8, content: 4096 + 16, frames: 40, ..Shape::default() };
    let promise = Promise::of(5, "while contents are erased")?;
    survives_upon(promise, Some(before), shape, Moment::Within(SOON), Upon::was_erasing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_during_the_recovery_from_a_power_cut_take_nothing() -> Result<()> {
    let before = Shape { frames: 20, ..Shape::default() };
    let shape = Shape { content: 1024 + 16, ..Shape::default() };
    survives(Promise::of(6, "while it recovers")?, Some(before), shape, Moment::Recovering(SOON)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_right_after_a_clean_stop_takes_nothing() -> Result<()> {
    survives(Promise::of(7, "after a clean stop")?, None, Shape::default(), Moment::Ended).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_in_the_first_second_of_a_directory_survives_a_power_cut() -> Result<()> {
    let Some(mut promise) = Promise::of(8, "the first second of a directory")? else { return Ok(()) };
    let (mut figures, mut answered) = (Figures::default(), 0);
    for _ in promise.networks(1) {
        let scene = Scene::prepare()?;
        let span = promise.dice.within(SECOND);
        let (kept, in_time) = first_second(&scene, span).await.with_context(|| promise.failed(&scene.network))?;
        figures = figures.and(kept);
        answered += in_time;
    }
    for _ in 0..MORE_MAX {
        if answered > 0 {
            break;
        }
        let scene = Scene::prepare()?;
        let (kept, in_time) = first_second(&scene, SECOND).await.with_context(|| promise.failed(&scene.network))?;
        figures = figures.and(kept);
        answered += in_time;
    }
    ensure!(answered > 0, "nothing was ever answered in the first second of a directory");
    promise.kept((figures, answered));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_while_a_directory_is_made_leave_one_that_opens() -> Result<()> {
    let Some(mut promise) = Promise::of(12, "while a directory is made")? else { return Ok(()) };
    let (mut figures, mut early, mut round) = (Figures::default(), 0, 0);
    // Where a sync costs nothing, a store is open before most cuts come.
    while round < promise.cuts() || (round < promise.cuts() + MORE_MAX && early == 0) {
        round += 1;
        let scene = Scene::prepare()?;
        let (process, store) = (&scene.network.gateway.process, scene.store());
        let kept = async {
            early += upon::cut_while_it_is_made(&scene.disk, process, &store, &mut promise.dice).await?;
            scene.start().await?;
            scene.introduce().await?;
            Traffic::start(&scene.network, &scene.book, Shape { frames: 4, ..Shape::default() }).await?.sent().await?;
            scene.close().await
        };
        let kept = kept.await;
        figures = figures.and(kept.with_context(|| promise.failed(&scene.network))?);
    }
    ensure!(early > 0, "no cut came between the making of a directory and its opening");
    promise.kept((figures, early));
    Ok(())
}

/// A cut so long after the store was opened for the first time, whatever has happened until then. Says how much was answered by then.
async fn first_second(scene: &Scene, span: Duration) -> Result<(Figures, usize)> {
    let process = &scene.network.gateway.process;
    process.start().await?;
    process.log().wait_for(0, &[OPEN], START_MAX).await?;
    let mut known = false;
    let mut traffic = None;
    let working = async {
        scene.introduce().await?;
        known = true;
        traffic = Some(Traffic::start(&scene.network, &scene.book, Shape { frame: 4, ..Shape::default() }).await?);
        std::future::pending::<Result<()>>().await
    };
    tokio::select! {
        early = working => early?,
        () = sleep(span) => {}
    }
    scene.cut().await?;
    if let Some(traffic) = traffic {
        traffic.over().await?;
    }
    let answered = scene.book.read().figures().accepted;
    scene.start().await?;
    if !known {
        scene.introduce().await?;
    }
    Ok((scene.close().await?, answered))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_sync_a_power_cut_loses_what_was_answered() -> Result<()> {
    if !loop_disk::is_here()? {
        return Ok(());
    }
    // The kernel may write something back by itself; not three times.
    for _ in 0..3 {
        let scene = Scene::open().await?;
        let process = &scene.network.gateway.process;
        process.terminate(PATIENCE).await?;
        process.start_without_sync().await?;
        let shape = Shape { frames: 5, received: false, ..Shape::default() };
        Traffic::start(&scene.network, &scene.book, shape).await?.sent().await?;
        let answered = scene.book.read().figures().accepted;
        ensure!(answered == shape.frames * shape.frame, "{answered} answers: the same traffic does not work at all");
        scene.cut().await?;
        scene.start().await?;
        traffic::repeat(&scene.network, &scene.book, 0).await?;
        let lost = scene.book.read().lost.len();
        if lost > 0 {
            say_lost(lost, answered);
            return Ok(());
        }
    }
    bail!("no cut takes anything that was not synced: the cuts of these tests prove nothing")
}

#[expect(clippy::print_stdout, reason = "the figures of a longer run")]
fn say_lost(lost: usize, answered: usize) {
    println!("power: without the sync: {lost} of {answered} lost, as it must be");
}
