//! Arguments of the commands for operators.

use clap::{Args, Subcommand};

use super::GatewayAddress;

/// Operate the gateway. Needs a certificate of role operator (`tramite certs issue --role operator`).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tramite ops queues
  tramite ops dead-letters
  tramite ops redrive 0198… --reason 'recipient has a new key'

No command shows content or personal data. What changes something needs a reason, which is
kept in the log.")]
pub(crate) struct Ops {
    #[command(flatten)]
    pub(crate) address: GatewayAddress,
    #[command(subcommand)]
    pub(crate) command: OpsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OpsCommand {
    /// How the gateway stands.
    Overview,
    /// What waits for whom.
    Queues,
    /// Messages that have not ended, oldest first.
    Messages(Page),
    /// One message with the history of every attempt.
    Message {
        /// Message id; of one that waits or was given up, its first or last characters (at least four).
        #[arg(value_name = "MESSAGE")]
        id: String,
    },
    /// Messages that were given up and wait for a decision.
    DeadLetters(Page),
    /// Put a dead letter back into its queue, under the same id.
    Redrive(Decision),
    /// End a dead letter; its sender is told, and what it held back goes on.
    Discard(Decision),
    /// Stop deliveries to an institution; messages for it are still accepted. `clock`: all that the clock would end or delete.
    Hold(Gate),
    /// Go on with deliveries to an institution. `clock`: the gateway's date and time are right.
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
