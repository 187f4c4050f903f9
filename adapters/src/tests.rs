//! The adapter as a whole: real certificates, real store, real sockets; a stand-in for the gateway that can also lie.
//!
//! What only the real gateway can show (policy, order, kills across both) is promised in the workspace's `tests`.

mod clock;
mod delivery;
mod inbox;
mod keys;
mod leases;
mod lies;
mod network;
mod offline;
mod recount;
mod spool;
mod stand_in;
mod unreadable;
