//! Arguments of the commands that look at a stopped node's store.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Check, measure and repair the store of a gateway or adapter that is stopped.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo -u tramite-gateway tramite store verify /var/lib/tramite-gateway
                                           is every byte what was written?
  sudo -u tramite-adapter tramite store stat /var/lib/tramite-adapter
                                           what stands in it, how large is it?
  sudo -u tramite-gateway tramite store rebuild /var/lib/tramite-gateway
                                           make its outbox anew from its journal

STORE is the node's data folder (`data` in its configuration), or the
configuration file itself. Stop the node first, and ask as the user that it runs
as: a file that anybody else makes there, the node could not open. Only
`rebuild` changes anything. `verify` and `stat` make the rows of the outbox anew
in the folder for temporary files (TMPDIR), which needs as much room as the
outbox has.")]
pub(crate) struct Store {
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read everything and check it: segments, groups, facts, contents and parts still needed, marks, the outbox.
    #[command(after_help = "Example:
  sudo -u tramite-gateway tramite store verify /var/lib/tramite-gateway

Names the first bad record by file and offset, and how much was sound before it;
exit code 1 then. A tail that was never acknowledged and an outbox that was not
left clean are no damage: the next start repairs both. Changes nothing. A node
does not start from a journal with a damaged group, header or mark. It does from
one in which only a content is damaged: that message is set aside when its turn
comes, and everything else is served.
Next: its last lines say what to do about each kind of finding.")]
    Verify(At),
    /// Make the outbox anew from the journal; what was wrong with it is gone.
    #[command(after_help = "Example:
  sudo -u tramite-gateway tramite store rebuild /var/lib/tramite-gateway

The journal is the truth and is only read; a tail of it that was never
acknowledged is cut, as at every start. Nothing that waits is lost or sent
twice. Only the user that owns the store may: the files that are made are the
node's.
Next: `tramite store verify`, then start the node.")]
    Rebuild(At),
    /// Show sizes: segments, facts by kind, contents, queues, outbox, parts.
    #[command(after_help = "Example:
  sudo -u tramite-gateway tramite store stat /var/lib/tramite-gateway --json

Bytes are shown twice: as long as the files are, and what they take on the disk,
as erased contents leave holes.
Next: `tramite store verify` checks every byte.")]
    Stat(At),
}

#[derive(Debug, Args)]
pub(crate) struct At {
    /// The node's data folder, or its configuration file.
    #[arg(value_name = "STORE")]
    pub(crate) store: PathBuf,
}
