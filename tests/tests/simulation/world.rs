//! One simulation: a gateway, three adapters, three back offices, a network between them, and time that passes as fast as it can.

use std::{collections::BTreeMap, ops::Range, sync::Arc, thread, time::Duration};

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use tramite_proto::clock::ManualClock;
use tramite_tests::desk::Desk;
use turmoil::{Builder, Sim};

use super::{
    attachment::{self, Attachment},
    dice::Dice,
    guard::Without,
    machine,
    office::{Office, Opening, Plan},
    operator::{self, OPERATORS},
    party::Party,
    record::Book,
    stage::{GATEWAY, INSTITUTIONS, Stage, T0_MS},
    storm::{Act, CALM_MS, Storm, storm},
};

/// One step of the simulated network and of every host.
const TICK: Duration = Duration::from_millis(10);
/// By then everything has arrived, however bad the storm was.
const END: Duration = Duration::from_secs(180);
/// What comes twice may come a little later.
const AFTER: Duration = Duration::from_secs(3);
/// Of what is missing then, so much is said.
const SHOWN: usize = 6;
const CASES: u64 = 6;
/// Referrals that carry an attachment.
const ATTACHED_PERCENT: u64 = 40;

/// Cases that must be taken up within seconds.
const DEADLINE_PERCENT: u64 = 15;
const DEADLINE_S: Range<u64> = 3..20;
/// Cases that are withdrawn.
const WITHDRAWN_PERCENT: u64 = 25;
const WITHDRAWN_MS: Range<u64> = 0..10_000;

pub(crate) const OFFICES: [&str; 3] = ["caritas-office", "comune-office", "inps-office"];

/// What came of a seed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    /// Every promise that was broken, in words.
    pub(crate) broken: Vec<String>,
    /// Messages that an adapter took and no office saw.
    pub(crate) lost: usize,
    /// Acknowledgements and answers of which an adapter knew nothing later.
    pub(crate) forgotten: usize,
    /// Stores that did not open, for want of what they had acknowledged.
    pub(crate) refused: usize,
    /// Messages and notices that came again as if they were new.
    pub(crate) twice: usize,
    pub(crate) messages: usize,
    /// Attachments that were read and were what was sent.
    pub(crate) attachments: usize,
    pub(crate) crashes: usize,
    pub(crate) cuts: usize,
    /// Clocks that were wrong for a while.
    pub(crate) steps: usize,
    /// How often each kind of news came.
    pub(crate) news: BTreeMap<String, usize>,
    /// Everything that happened.
    pub(crate) trace: Vec<String>,
}

/// Runs a seed to its end, on a thread of its own, which sees no chance but the seed's and no time but its own.
pub(crate) fn run(stage: &Arc<Stage>, seed: u64, without: Without) -> Outcome {
    let played = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let dice = Dice::new(seed);
            machine::replace(&dice.split());
            Simulation::new(seed, dice, without).run(stage)
        });
        thread.join()
    });
    played.unwrap_or_else(|_| Outcome::failed(seed, "the simulation panicked".to_owned()))
}

impl Outcome {
    pub(crate) fn failed(seed: u64, why: String) -> Self {
        Self { seed, broken: vec![why], ..Self::default() }
    }
}

struct Simulation {
    seed: u64,
    dice: Dice,
    parties: Vec<Party>,
    book: Book,
    /// What is still to happen, the next last.
    acts: Storm,
    crashes: usize,
    cuts: usize,
    steps: usize,
}

impl Simulation {
    fn new(seed: u64, dice: Dice, without: Without) -> Self {
        let names = [GATEWAY].into_iter().chain(INSTITUTIONS);
        let parties = names.map(|name| Party::new(name, ManualClock::new(T0_MS), dice.split(), without)).collect();
        let mut acts = storm(&dice.split());
        acts.reverse();
        Self { seed, dice, parties, book: Book::default(), acts, crashes: 0, cuts: 0, steps: 0 }
    }

    fn run(mut self, stage: &Arc<Stage>) -> Outcome {
        let mut sim = Builder::new()
            .tick_duration(TICK)
            .simulation_duration(END + AFTER + AFTER)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(CALM_MS))
            .enable_random_order()
            .rng_seed(self.dice.throw())
            .build();
        for party in &self.parties {
            let (party, stage) = (party.clone(), Arc::clone(stage));
            sim.host(party.name, move || {
                let running = party.clone().run(Arc::clone(&stage));
                async move { Ok(running.await?) }
            });
        }
        self.open_offices(&mut sim, stage);
        let (all, acts) = (Arc::clone(stage), self.acts.iter().rev().copied().collect());
        sim.client(OPERATORS, async move { Ok(operator::run(all, acts).await?) });
        let ended = self.play(&mut sim, stage);
        drop(sim);
        let mut record = self.book.open();
        if let Err(error) = ended {
            record.breaks(format!("{error:#}"));
        }
        let invented = record.invented();
        record.broken.extend(invented);
        Outcome {
            seed: self.seed,
            broken: std::mem::take(&mut record.broken),
            lost: record.lost().len(),
            forgotten: record.forgotten,
            refused: self.parties.iter().filter(|party| party.has_refused()).count(),
            twice: record.twice,
            messages: record.sent.len(),
            attachments: record.read.len(),
            crashes: self.crashes,
            cuts: self.cuts,
            steps: self.steps,
            news: record.news(),
            trace: std::mem::take(&mut record.trace),
        }
    }

    fn open_offices(&self, sim: &mut Sim<'_>, stage: &Arc<Stage>) {
        let mut plans = plans(&self.dice.split());
        let all = || plans.iter().flat_map(|(_, plans)| plans);
        self.book.open().to_open = all().count();
        self.book.open().to_withdraw = all().filter(|plan| plan.withdrawn.is_some()).count();
        for (name, host) in INSTITUTIONS.into_iter().zip(OFFICES) {
            let (stage, book, dice) = (Arc::clone(stage), self.book.clone(), self.dice.split());
            let mine = plans.iter_mut().find(|(opener, _)| *opener == name).map(|(_, mine)| std::mem::take(mine));
            sim.client(host, async move {
                let line = stage.line(name, Arc::new(ManualClock::new(T0_MS)))?;
                let office = Office { name, desk: Desk::over(line), book, dice };
                Ok(office.run(mine.unwrap_or_default()).await?)
            });
        }
    }

    fn play(&mut self, sim: &mut Sim<'_>, stage: &Stage) -> Result<()> {
        let mut settled = None;
        loop {
            let now = sim.elapsed();
            machine::show(now);
            self.book.open().at(now);
            for party in &self.parties {
                party.set_clock(T0_MS + i64::try_from(now.as_millis())?);
            }
            while let Some((_, act)) = self.acts.pop_if(|(at, _)| *at <= now) {
                self.act(sim, stage, act);
            }
            sim.step().map_err(|error| anyhow!("{error}"))?;
            // What came and was settled may come again while the storm lasts.
            let is_over = self.acts.is_empty() && self.book.open().missing().is_empty();
            settled = if is_over { settled.or(Some(now)) } else { None };
            if !self.book.open().broken.is_empty() {
                return Ok(());
            }
            if settled.is_some_and(|since| now > since + AFTER) {
                return Ok(());
            }
            if now > END {
                let missing = self.book.open().missing();
                let (some, all) = (missing.get(..SHOWN).unwrap_or(&missing), missing.len());
                return Err(anyhow!("not over after {END:?}, for {all} reasons: {}", some.join("; ")));
            }
        }
    }

    fn act(&mut self, sim: &mut Sim<'_>, stage: &Stage, act: Act) {
        self.book.open().note(format_args!("! {act:?}"));
        let party = |name| self.parties.iter().find(|party| party.name == name).expect("a party of this name");
        match act {
            Act::SyncFails(name, after) => party(name).fail_syncs(after),
            Act::WriteFails(name, after) => party(name).fail_writes(after),
            Act::Crash(name, seed) => {
                // Whatever it does while it is dropped reaches the disk no more.
                party(name).fail_writes(1);
                party(name).fail_syncs(1);
                sim.crash(name);
                party(name).lose_power(seed);
                self.lose_attachments(stage, name, seed);
                self.crashes += 1;
            }
            Act::Restart(name) => sim.bounce(name),
            Act::Cut((a, b)) => {
                sim.partition(a, b);
                self.cuts += 1;
            }
            Act::CutOneWay((from, to)) => {
                sim.partition_oneway(from, to);
                self.cuts += 1;
            }
            Act::Mend((a, b)) => sim.repair(a, b),
            Act::MendOneWay((from, to)) => sim.repair_oneway(from, to),
            Act::Clock(name, days) => {
                party(name).mislead(days);
                self.steps += usize::from(days != 0);
            }
            Act::Slow((a, b), ms) => sim.set_link_max_message_latency(a, b, Duration::from_millis(ms)),
        }
    }

    /// The folder for attachments is a real one: what the cut did to it is done here.
    fn lose_attachments(&self, stage: &Stage, name: &str, seed: u64) {
        let folder = stage.attachments(name);
        if folder.exists()
            && let Err(error) = attachment::lose_power(&folder, seed)
        {
            self.book.open().breaks(format!("{}: {error}", folder.display()));
        }
    }
}

fn plans(dice: &Dice) -> Vec<(&'static str, Vec<Plan>)> {
    let mut plans: Vec<_> = INSTITUTIONS.into_iter().map(|name| (name, Vec::new())).collect();
    for _ in 0..CASES {
        let opener = dice.pick(&INSTITUTIONS);
        let others: Vec<_> = INSTITUTIONS.into_iter().filter(|name| *name != opener).collect();
        let at = Duration::from_millis(dice.within(0..20_000));
        let kind = dice.pick(&[Opening::Referral, Opening::Referral, Opening::Referral, Opening::Documents]);
        let to = dice.pick(&others);
        let attached = (kind == Opening::Referral && dice.chance(ATTACHED_PERCENT)).then(|| Attachment::thrown(dice));
        let reply_within_s = if dice.chance(DEADLINE_PERCENT) { dice.within(DEADLINE_S) } else { 0 };
        let withdrawn = dice.chance(WITHDRAWN_PERCENT).then(|| Duration::from_millis(dice.within(WITHDRAWN_MS)));
        let plan = Plan { at, to, kind, attached, reply_within_s, withdrawn };
        if let Some((_, mine)) = plans.iter_mut().find(|(name, _)| *name == opener) {
            mine.push(plan);
        }
    }
    plans
}
