//! Arguments of the commands for operators.

use clap::{Args, Subcommand};

use super::GatewayAddress;

/// Operate the gateway. Needs a certificate of role operator (`tramite certs issue --role operator`).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  export TRAMITE_GATEWAY=gateway.example:7443 TRAMITE_CERTS=anna
  tramite ops queues
  tramite ops dead-letters
  tramite ops redrive 0198… --reason 'recipient has a new key'

No command shows content or personal data. What changes something needs a
reason, which is kept in the log.")]
pub(crate) struct Ops {
    #[command(flatten)]
    pub(crate) address: GatewayAddress,
    #[command(subcommand)]
    pub(crate) command: OpsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OpsCommand {
    /// How the gateway stands.
    #[command(after_help = "Example:
  tramite ops overview

Next: `tramite ops dead-letters` where there are any; `tramite ops release
clock` where the clock is held and right.")]
    Overview,
    /// What waits for whom.
    #[command(after_help = "Example:
  tramite ops queues

online: its adapter is connected. held: an operator stopped deliveries. waiting:
all that has not ended; of it sent, and not yet receipted; retry, an attempt
failed and the next one is due later. dead: given up. oldest: when the first was
accepted.
Next: `tramite ops messages --institution NAME` shows what waits for one.")]
    Queues,
    /// Messages that have not ended, oldest first.
    #[command(after_help = "Example:
  tramite ops messages --institution inps --limit 20

Next: `tramite ops message MESSAGE` shows one with every attempt; the last eight
characters of its id are enough.")]
    Messages(Page),
    /// One message with the history of every attempt.
    #[command(after_help = "Example:
  tramite ops message 3f2a9c1b

Next: of a dead letter, `tramite ops redrive` or `tramite ops discard`.")]
    Message {
        /// Message id; of one that waits or was given up, its first or last characters (at least four).
        #[arg(value_name = "MESSAGE")]
        id: String,
    },
    /// Messages that were given up and wait for a decision.
    #[command(after_help = "Example:
  tramite ops dead-letters

Next: put right what the last reason names, then `tramite ops redrive MESSAGE`;
or `tramite ops discard MESSAGE`.")]
    DeadLetters(Page),
    /// Put a dead letter back into its queue, under the same id.
    #[command(after_help = "Example:
  tramite ops redrive 3f2a9c1b --reason 'recipient has a new key'

Next: `tramite ops message MESSAGE` shows what becomes of it.")]
    Redrive(Decision),
    /// End a dead letter; its sender is told, and what it held back goes on.
    #[command(after_help = "Example:
  tramite ops discard 3f2a9c1b --reason 'sender will write a new one'

It cannot be undone.
Next: `tramite ops dead-letters` shows what is left.")]
    Discard(Decision),
    /// Stop deliveries to an institution; messages for it are still accepted. `clock`: all that the clock would end or delete.
    #[command(after_help = "Example:
  tramite ops hold inps --reason 'maintenance until noon'

It stays so over a restart of the gateway.
Next: `tramite ops release inps --reason …` goes on; `tramite ops queues` shows
who is held.")]
    Hold(Gate),
    /// Go on with deliveries to an institution. `clock`: the gateway's date and time are right.
    #[command(after_help = "Examples:
  tramite ops release inps --reason 'maintenance is over'
  tramite ops release clock --reason 'was off over Easter; the date is right'

Look at the gateway's date and time (`date -u`) before the second.
Next: `tramite ops queues` shows what goes out.")]
    Release(Gate),
}

#[derive(Debug, Args)]
pub(crate) struct Page {
    /// Only those for this institution.
    #[arg(long, value_name = "INSTITUTION", default_value = "")]
    pub(crate) institution: String,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Decision {
    /// Message id, or its first or last characters (at least four).
    #[arg(value_name = "MESSAGE")]
    pub(crate) id: String,
    /// Why; kept in the log.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Gate {
    /// Name of the institution, or `clock`.
    #[arg(value_name = "INSTITUTION")]
    pub(crate) institution: String,
    /// Why; kept in the log.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}
