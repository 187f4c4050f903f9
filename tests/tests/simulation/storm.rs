//! What goes wrong, all of it decided by the dice before the simulation begins: parties crash, their disks fail first, lines are cut one
//! way or both, lines are slow, clocks are set to another year. At the end of the storm everything is whole again, so that what is missing then is lost.

use std::time::Duration;

use super::{
    dice::Dice,
    stage::{GATEWAY, INSTITUTIONS},
    world::OFFICES,
};

/// Nothing goes wrong after this.
pub(crate) const STORM: Duration = Duration::from_secs(30);

/// By so much a clock is set ahead or back.
pub(crate) const STEP_DAYS: i32 = 400;

/// A line between two hosts.
pub(crate) type Line = (&'static str, &'static str);

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// The disk refuses, from so many syncs on; a crash follows.
    SyncFails(&'static str, u64),
    /// The disk takes half a write and no more, from so many writes on; a crash follows.
    WriteFails(&'static str, u64),
    /// The power goes: what was not synced is lost, sector by sector, as the seed decides.
    Crash(&'static str, u64),
    Restart(&'static str),
    Cut(Line),
    /// Nothing arrives in one direction, everything in the other.
    CutOneWay(Line),
    Mend(Line),
    MendOneWay(Line),
    /// What is sent takes up to so many milliseconds.
    Slow(Line, u64),
    /// A party's clock is wrong by so many days from now on, running or not.
    Clock(&'static str, i32),
}

/// What happens, and when.
pub(crate) type Storm = Vec<(Duration, Act)>;

/// Everything that happens, in order.
pub(crate) fn storm(dice: &Dice) -> Storm {
    let mut acts = Vec::new();
    for party in [GATEWAY].into_iter().chain(INSTITUTIONS) {
        crashes(party, &dice.split(), &mut acts);
    }
    for (institution, office) in INSTITUTIONS.into_iter().zip(OFFICES) {
        for line in [(GATEWAY, institution), (institution, office)] {
            cuts(line, &dice.split(), &mut acts);
        }
    }
    for party in [GATEWAY].into_iter().chain(INSTITUTIONS) {
        clocks(party, &dice.split(), &mut acts);
    }
    // Stable: what happens at the same time happens in the order of the parties.
    acts.sort_by_key(|(at, _)| *at);
    acts
}

fn ms(dice: &Dice, from: u64, to: u64) -> Duration {
    Duration::from_millis(dice.within(from..to))
}

fn crashes(party: &'static str, dice: &Dice, acts: &mut Storm) {
    let mut at = ms(dice, 500, 15_000);
    while at < STORM {
        if dice.chance(50) {
            let calls = dice.within(1..4);
            acts.push((at, dice.pick(&[Act::SyncFails(party, calls), Act::WriteFails(party, calls)])));
            at += ms(dice, 0, 1_000);
        }
        acts.push((at, Act::Crash(party, dice.throw())));
        at += ms(dice, 50, 3_000);
        acts.push((at, Act::Restart(party)));
        at += ms(dice, 500, 15_000);
    }
}

fn cuts(line: Line, dice: &Dice, acts: &mut Storm) {
    let mut at = ms(dice, 500, 15_000);
    while at < STORM {
        let end = at + ms(dice, 200, 8_000);
        let back = (line.1, line.0);
        let (begins, ends) = match dice.within(0..4) {
            0 => (Act::Cut(line), Act::Mend(line)),
            1 => (Act::CutOneWay(line), Act::MendOneWay(line)),
            2 => (Act::CutOneWay(back), Act::MendOneWay(back)),
            _ => (Act::Slow(line, dice.within(200..2_000)), Act::Slow(line, CALM_MS)),
        };
        acts.push((at, begins));
        acts.push((end, ends));
        at = end + ms(dice, 500, 12_000);
    }
}

/// Once in a storm or not at all; it is put right by whoever sees it, and their word ends what the party held for it.
fn clocks(party: &'static str, dice: &Dice, acts: &mut Storm) {
    if dice.chance(50) {
        let at = ms(dice, 1_000, 20_000);
        acts.push((at, Act::Clock(party, dice.pick(&[STEP_DAYS, -STEP_DAYS]))));
        acts.push((at + ms(dice, 500, 10_000), Act::Clock(party, 0)));
    }
}

/// What is sent takes up to so long when all is well.
pub(crate) const CALM_MS: u64 = 60;
