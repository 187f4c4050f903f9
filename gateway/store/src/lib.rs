//! Journal and outbox: what was accepted, and what waits for whom. Used by the gateway and by adapters alike.
//!
//! ```text
//! LOCK             held while a process has the directory
//! store.toml       format version, store id, role; written once
//! journal/         the truth: <first sequence>.seg, groups of facts with contents behind them; `synced`, how far;
//!                  <first sequence>.<generation>.pack, what is left of them, compressed; <sequence>.unerased, a content that the
//!                  disk did not erase
//! outbox/          a projection in an ordered map (files of rows, sled their root); `clean` only between a clean stop and the next start
//! parts/           sealed parts, one file each
//! ```
//!
//! What a crash leaves behind, and what the next opening does about it:
//!
//! | a kill or power cut | leaves | opening |
//! |---|---|---|
//! | before a group is written | nothing | nothing: it was never acknowledged |
//! | while it is written | a torn tail | cuts it, and says so |
//! | after writing, before the sync | the group, if only the process died | keeps and syncs it; a repeat gets its answer |
//! | after the sync, before the answer | the group | as above |
//! | before rows are applied | an outbox that lags, or does not add up | completes it from the journal, or makes it anew |
//! | before a content is erased | the content of a final message | erases it |
//! | while segments are packed | a `.tmp` file, or what they replace | removes it |
//! | before what is retired is swept | its bytes | sweeps it at the next pass |
//! | while a part is taken in | a `.tmp` file | removes it |
//!
//! Anything else that does not check is damage: opening refuses and names file and offset.
//!
//! Knows: sequences, ids, queues, order, leases, the rules of cases. Never knows: what a message says, who is connected, keys.
//! Invariants: nothing is acknowledged before its `fdatasync`; everything acknowledged is there after any crash; the outbox is a
//! function of the journal. Seams: disk, ordered map, clock, signer.
//!
//! ```no_run
//! # async fn example(clock: std::sync::Arc<dyn tramite_proto::clock::Clock>, notary: std::sync::Arc<dyn tramite_store::Notary>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use tramite_store::{Options, Seams, Work};
//! let (store, writer, recovery) = Options::new("data/store", "gateway").open(Seams::real(clock, notary))?;
//! let writing = writer.start(Work::Threads)?;
//! assert!(recovery.cut.is_none(), "a torn tail was cut; nothing that was acknowledged is missing");
//! store.end(writing).await;
//! # Ok(()) }
//! ```

mod answer;
mod change;
mod clock;
pub mod disk;
mod error;
mod growth;
mod home;
mod journal;
mod judge;
mod lanes;
pub mod map;
mod open;
mod options;
mod outbox;
mod overlay;
mod parts;
mod project;
mod recent;
mod refuse;
mod replay;
mod retention;
mod rows;
mod scratch;
mod seal;
mod shared;
mod stat;
mod store;
mod sync;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub use answer::{Attempt, CaseRow, Due, Leased, MessageRow, MessageState, QueueStats, RecordRow, accepted};
pub use change::{Change, Done, Mover, Notary, Rejected, Retirement, Slot};
pub use clock::{CLOCK_CONFIRMED, CLOCK_GAP_MAX_MS, CLOCK_HELD, ClockState};
pub use error::{Damage, MapError, OpenError, Poisoned, ReadError};
pub use options::{Cut, Options, Recovery, Seams};
pub use parts::{PartError, PartInfo, PartReader, PartWriter};
pub use stat::{Amount, QueueSize, Size, Stat, stat};
pub use store::{Health, Store};
pub use verify::{Finding, Verification, Watch, rebuild, verify, verify_watched, verify_with};
pub use writer::{Step, Work, Working, Writer, WriterThread};
