//! The institutions: the adapter runtime and one folder for each institution.
//!
//! ```text
//! back office ──gRPC, spool──▶ office ──▶ outbound ══ sealed, signed ══▶ gateway
//!                                 ▲                                        │
//!                               inbox ◀── inbound ◀════════════════════════╝
//! ```
//! The runtime seals, signs, keeps, sends, receives, verifies, opens, receipts; it dials out and trusts the gateway with delivery alone.
//! [`Adapter::start`] puts it together from a [`Config`]; [`json`] is the form in which people and small systems write messages.

mod adapter;
mod attachments;
mod backoff;
mod backoffice;
pub mod caritas;
pub mod citta_metropolitana;
pub mod comune;
pub mod config;
mod core;
pub mod desk;
mod directory;
mod entropy;
mod files;
mod inbound;
pub mod inps;
mod janitor;
pub mod json;
mod link;
pub mod metrics;
mod office;
mod outbound;
mod own;
mod page;
mod recount;
pub mod request;
mod spool;

pub use adapter::{ANSWER_MAX, Adapter, Ended, Running, StartError, Surroundings};
pub use config::{Config, ConfigError};
pub use entropy::Entropy;
pub use own::OwnError;

#[cfg(test)]
mod tests;
