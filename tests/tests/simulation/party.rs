//! A party: the gateway or an adapter, with what outlives its crashes: disk, map, clock, dice. It runs the product itself; only what is
//! around it is simulated.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, anyhow};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tramite_adapters::{Adapter, Entropy};
use tramite_gateway::Gateway;
use tramite_proto::clock::{Clock, ManualClock};
use tramite_store::{
    Work,
    disk::{Disk, SimulatedDisk},
    map::{Maps, MemoryMaps},
};

use super::{
    dice::Dice,
    guard::{Forgetful, Lying, Without},
    network,
    stage::{GATEWAY, Stage},
};

/// Between two starts of what did not start.
const START_AGAIN: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Party {
    pub(crate) name: &'static str,
    pub(crate) disk: SimulatedDisk,
    pub(crate) clock: ManualClock,
    maps: Arc<dyn Maps>,
    dice: Dice,
    without: Without,
    /// By how much its clock is wrong.
    wrong_ms: Arc<AtomicI64>,
    /// Its store found less than it had acknowledged, and did not open.
    refused: Arc<AtomicBool>,
}

impl Party {
    pub(crate) fn new(name: &'static str, clock: ManualClock, dice: Dice, without: Without) -> Self {
        let maps: Arc<dyn Maps> = Arc::new(MemoryMaps::new());
        let maps = if without == Without::Dedupe && name != GATEWAY { Arc::new(Forgetful(maps)) } else { maps };
        let (wrong_ms, refused) = Default::default();
        Self { name, disk: SimulatedDisk::new(), clock, maps, dice, without, wrong_ms, refused }
    }

    /// Runs it until it is crashed. Its disk failing is part of the play: it stops then, and waits for the crash that follows.
    pub(crate) async fn run(self, stage: Arc<Stage>) -> Result<()> {
        let ended = loop {
            let misled = self.is_misled();
            let ended = self.live(&stage).await;
            // It may have been set while it started.
            if self.is_dying() || !(misled || self.is_misled()) {
                break ended;
            }
            // With another year's clock its certificates do not count, and it does not start. It is started again, as whoever runs it does.
            sleep(START_AGAIN).await;
        };
        if self.is_dying() {
            return pending().await;
        }
        if self.without == Without::Sync {
            self.refused.store(true, Ordering::SeqCst);
            return pending().await;
        }
        Err(anyhow!("{} ended by itself: {ended:?}", self.name))
    }

    async fn live(&self, stage: &Stage) -> Result<()> {
        match self.name {
            GATEWAY => self.gateway(stage).await,
            _ => self.adapter(stage).await,
        }
    }

    fn is_misled(&self) -> bool {
        self.wrong_ms.load(Ordering::SeqCst) != 0
    }

    /// Whether its store once did not open, for want of what it had acknowledged.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::SeqCst)
    }

    /// Whether its disk has been told to fail.
    fn is_dying(&self) -> bool {
        let faults = self.disk.faults();
        faults.sync_fails_from.load(Ordering::SeqCst) != 0 || faults.write_fails_from.load(Ordering::SeqCst) != 0
    }

    async fn gateway(&self, stage: &Stage) -> Result<()> {
        let dice = self.dice.clone();
        let around = tramite_gateway::Surroundings {
            clock: self.clock(),
            random: Arc::new(move || {
                let mut bytes = [0; 10];
                dice.fill(&mut bytes);
                bytes
            }),
            disk: self.disk(),
            maps: Some(Arc::clone(&self.maps)),
            network: network::simulated(),
            work: Work::Task,
        };
        // Nobody stops it in order.
        let running = Gateway::start_in(stage.gateway()?, around, CancellationToken::new()).await?;
        Ok(running.wait().await?)
    }

    async fn adapter(&self, stage: &Stage) -> Result<()> {
        let dice = self.dice.clone();
        let around = tramite_adapters::Surroundings {
            clock: self.clock(),
            entropy: Entropy::new(move |bytes| dice.fill(bytes)),
            disk: self.disk(),
            maps: Some(Arc::clone(&self.maps)),
            network: network::simulated(),
            work: Work::Task,
            answer_max: tramite_adapters::ANSWER_MAX,
        };
        let running = Adapter::start_in(stage.adapter(self.name)?, around, CancellationToken::new()).await?;
        Ok(running.wait().await?)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    fn disk(&self) -> Arc<dyn Disk> {
        match self.without {
            Without::Sync | Without::Parts => Arc::new(Lying(self.disk.clone(), self.without)),
            Without::Nothing | Without::Dedupe => Arc::new(self.disk.clone()),
        }
    }

    /// Its disk refuses from so many syncs on.
    pub(crate) fn fail_syncs(&self, after: u64) {
        let faults = self.disk.faults();
        faults.sync_fails_from.store(faults.syncs.load(Ordering::SeqCst) + after, Ordering::SeqCst);
    }

    /// Its disk takes half of what is written from so many writes on.
    pub(crate) fn fail_writes(&self, after: u64) {
        let faults = self.disk.faults();
        faults.write_fails_from.store(faults.writes.load(Ordering::SeqCst) + after, Ordering::SeqCst);
    }

    /// The power is back: the disk has what was synced, and works.
    pub(crate) fn lose_power(&self, seed: u64) {
        self.disk.cut_power(seed);
        self.disk.faults().sync_fails_from.store(0, Ordering::SeqCst);
        self.disk.faults().write_fails_from.store(0, Ordering::SeqCst);
    }

    /// Its clock is wrong by so much from now on.
    pub(crate) fn mislead(&self, days: i32) {
        let wrong_ms = i64::from(days) * 86_400_000;
        let before = self.wrong_ms.swap(wrong_ms, Ordering::SeqCst);
        // At once: whoever starts now starts by it.
        self.clock.advance(wrong_ms - before);
    }

    pub(crate) fn set_clock(&self, now_ms: i64) {
        let now_ms = now_ms + self.wrong_ms.load(Ordering::SeqCst);
        self.clock.set(now_ms);
        self.disk.faults().now_ms.store(now_ms, Ordering::SeqCst);
    }
}
