//! Power cuts: the data of a real process is on an ext4 file system of its own, which is cut off at a moment that nobody chose; the
//! process is killed, the file system mounted again, the process started again, and everything that was answered is looked for.
//!
//! `TRAMITE_CUTS=n` spreads that many cuts over the promises; without it each has its least. A failure prints the seed, and
//! `TRAMITE_SEED` gives the same choices again.

use std::{env, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tramite_tests::{
    accounts::{Book, Figures},
    attack::join,
    dice::{Dice, SEED},
    loop_disk::{self, LoopDisk},
    network::{Network, PATIENCE},
    traffic::{self, Shape, Traffic},
};

/// How many cuts there are in all.
const CUTS: &str = "TRAMITE_CUTS";
/// Promises among which they are spread.
const PROMISES: usize = 10;
/// Cuts of one gateway, one after the other, before its accounts are closed.
const CUTS_OF_ONE: usize = 5;

/// A gateway on a disk that can be cut off, and the accounts with it.
struct Scene {
    // First: the process ends before its disk goes.
    network: Network,
    disk: LoopDisk,
    book: Arc<Book>,
}

impl Scene {
    async fn open() -> Result<Self> {
        let scene = Self::prepare()?;
        scene.network.gateway.process.start().await?;
        for name in ["caritas", "inps"] {
            join(&scene.network, name).await?;
        }
        Ok(scene)
    }

    fn prepare() -> Result<Self> {
        let disk = LoopDisk::make()?;
        let network = Network::builder().played(&["caritas", "inps"]).on("gateway", &disk)?;
        // Nothing is delivered again only because a busy machine was slow.
        let network = network.gateway("[delivery]\nlease_s = 120")?.prepare()?;
        Ok(Self { network, disk, book: Arc::default() })
    }

    /// Power goes: whoever runs is told that its disk failed, and then it is gone itself.
    async fn cut(&self) -> Result<()> {
        self.disk.cut()?;
        self.network.gateway.process.kill().await
    }

    /// Power is back.
    async fn start(&self) -> Result<()> {
        self.disk.mount_again()?;
        self.network.gateway.process.start().await
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

/// How many cuts the promise of this number makes.
fn cuts(promise: usize) -> Result<usize> {
    let all = env::var(CUTS).map_or(Ok(PROMISES), |wish| wish.parse()).with_context(|| CUTS)?;
    Ok((all / PROMISES + usize::from(promise < all % PROMISES)).max(1))
}

#[expect(clippy::print_stdout, reason = "the figures of a longer run")]
fn say(promise: &str, cuts: usize, figures: Figures) {
    println!("{promise}: {cuts} cuts, {figures:?}, none lost, none twice");
}

/// When the power goes.
#[derive(Clone, Copy)]
enum Moment {
    /// At any moment of the traffic's first so long.
    Within(Duration),
    /// Right after the last answer.
    Answered,
}

/// Traffic, a cut, a repeat of everything; again and again, and at the end the accounts.
async fn survives(promise: usize, name: &str, shape: Shape, moment: Moment) -> Result<()> {
    if !loop_disk::is_here()? {
        return Ok(());
    }
    let seed = Dice::seed()?;
    let mut dice = Dice::new(seed.wrapping_add(u64::try_from(promise)? << 32));
    let (mut left, mut all) = (cuts(promise)?, Figures::default());
    let made = left;
    while left > 0 {
        let scene = Scene::open().await?;
        let here = left.min(CUTS_OF_ONE);
        left -= here;
        let run = several(&scene, here, shape, moment, &mut dice).await;
        let figures = run.with_context(|| format!("{SEED}={seed} repeats it\n{}", scene.network.logs()))?;
        all = all.and(figures);
    }
    say(name, made, all);
    Ok(())
}

async fn several(scene: &Scene, cuts: usize, shape: Shape, moment: Moment, dice: &mut Dice) -> Result<Figures> {
    for _ in 0..cuts {
        let before = scene.book.read().figures().sent;
        let shape = Shape { frames: shape.frames.min(usize::try_from(dice.of(1..400))?), ..shape };
        let mut traffic = Traffic::start(&scene.network, &scene.book, shape).await?;
        match moment {
            Moment::Within(span) => tokio::time::sleep(dice.within(span)).await,
            Moment::Answered => traffic.sent().await?,
        }
        scene.cut().await?;
        traffic.over().await?;
        scene.start().await?;
        traffic::repeat(&scene.network, &scene.book, before).await?;
    }
    scene.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_messages_survive_a_power_cut() -> Result<()> {
    survives(0, "small messages", Shape::default(), Moment::Within(Duration::from_millis(1500))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_sync_a_power_cut_loses_what_was_answered() -> Result<()> {
    if !loop_disk::is_here()? {
        return Ok(());
    }
    for _ in 0..3 {
        let scene = Scene::open().await?;
        let process = &scene.network.gateway.process;
        process.terminate(PATIENCE).await?;
        process.start_without_sync().await?;
        let shape = Shape { frames: 5, received: false, ..Shape::default() };
        Traffic::start(&scene.network, &scene.book, shape).await?.sent().await?;
        ensure!(scene.book.read().figures().accepted == 5 * shape.frame, "it does not even answer");
        scene.cut().await?;
        scene.start().await?;
        traffic::repeat(&scene.network, &scene.book, 0).await?;
        let lost = scene.book.read().lost.len();
        if lost > 0 {
            return Ok(());
        }
    }
    bail!("a power cut takes nothing: the cuts of these tests prove nothing")
}
