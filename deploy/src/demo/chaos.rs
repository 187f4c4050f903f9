//! Chaos: the gateway and an adapter are killed with SIGKILL in the middle of the work, and started again. Knows when, by how far
//! the work has come, never by the clock: so it hits the middle on a fast machine and on a slow one.

use std::time::Duration;

use tokio::time::sleep;

use super::network::Network;
use crate::failure::Failure;

/// How long what was killed stays away: longer than a connection takes to notice, shorter than anybody's patience.
const AWAY: Duration = Duration::from_millis(800);

/// Whom it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Gateway,
    Adapter(&'static str),
}

/// Whom it hits, once so many moves were seen. A whole demo has over a hundred.
const PLAN: [(usize, Victim); 4] =
    [(10, Victim::Gateway), (25, Victim::Adapter("inps")), (45, Victim::Gateway), (60, Victim::Adapter("comune"))];

/// What was done so far.
#[derive(Debug, Default)]
pub(super) struct Chaos {
    done: usize,
}

impl Chaos {
    /// Kills and restarts whoever is due. Returns what it did, in words.
    pub(super) async fn strike(&mut self, network: &mut Network, moves: usize) -> Result<Option<String>, Failure> {
        let Some((_, victim)) = PLAN.get(self.done).filter(|(after, _)| moves >= *after) else { return Ok(None) };
        self.done += 1;
        let process = match victim {
            Victim::Gateway => &mut network.gateway,
            Victim::Adapter(name) => {
                let member = network.members.iter_mut().find(|member| member.office.name == *name);
                &mut member.ok_or_else(|| Failure::internal(format!("there is no adapter of {name}")))?.process
            }
        };
        let was = process.id().map_or_else(String::new, |id| format!(" (process {id})"));
        process.kill().await?;
        sleep(AWAY).await;
        process.restart()?;
        Ok(Some(format!("{}{was} killed with SIGKILL after {moves} moves, and started again", process.name())))
    }

    /// True when everything that was planned has happened.
    pub(super) fn is_over(&self) -> bool {
        self.done == PLAN.len()
    }
}
