//! How many power cuts each promise makes, and by which chance.
//!
//! Knows `TRAMITE_CUTS` and the seed of a run. Invariant: every promise makes at least one cut, and a failure names the seed.

use std::env;

use anyhow::{Context, Result};

use crate::{
    dice::{Dice, SEED},
    loop_disk,
    network::Network,
};

/// How many cuts there are in all.
const CUTS: &str = "TRAMITE_CUTS";
/// Promises among which they are spread.
const PROMISES: u64 = 16;

/// One of the promises: its number, its name, its chance.
#[derive(Debug)]
pub struct Promise {
    name: &'static str,
    cuts: u64,
    seed: u64,
    /// Its own chance.
    pub dice: Dice,
}

impl Promise {
    /// `None` where no power can be cut.
    ///
    /// # Errors
    /// When a wish is no number, or nothing may be skipped.
    pub fn of(number: u64, name: &'static str) -> Result<Option<Self>> {
        if !loop_disk::is_here()? {
            return Ok(None);
        }
        let all: u64 = env::var(CUTS).map_or(Ok(PROMISES), |wish| wish.parse()).with_context(|| CUTS)?;
        let cuts = (all / PROMISES + u64::from(number < all % PROMISES)).max(1);
        let seed = Dice::seed()?;
        Ok(Some(Self { name, cuts, seed, dice: Dice::new(seed.wrapping_add(number << 32)) }))
    }

    /// How many cuts it makes.
    #[must_use]
    pub const fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Cuts for each network, one after the other.
    pub fn networks(&self, cuts_of_one: u64) -> impl Iterator<Item = u64> + use<> {
        let all = self.cuts;
        (0..all).step_by(usize::try_from(cuts_of_one).unwrap_or(1)).map(move |done| cuts_of_one.min(all - done))
    }

    /// What a failure needs to be seen again.
    #[must_use]
    pub fn failed(&self, network: &Network) -> String {
        format!("{}: {SEED}={} makes the same choices\n{}", self.name, self.seed, network.logs())
    }

    /// Says what a run has shown.
    #[expect(clippy::print_stdout, reason = "the figures of a longer run")]
    pub fn kept(&self, figures: impl std::fmt::Debug) {
        println!("power: {}: {} cuts, {figures:?}; none lost, none twice", self.name, self.cuts);
    }
}
