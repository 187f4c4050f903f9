//! The hub between institutions: **identify, permit, accept, deliver, settle, prove**, one file for each verb. It never sees content: it
//! knows what an origin statement says, checks and orders it, keeps it durable, hands it over, and signs what happened.
//!
//! Types force the order. [`accept`](accept::accept) wants a [`Permit`](permit::Permit), a permit is made only with a
//! [`Member`](identify::Member), a member only from a certificate that the TLS layer verified; and only what accept returns, after the
//! journal's `fdatasync`, becomes an answer.

pub mod accept;
pub mod audit;
pub mod config;
pub mod deliver;
pub mod directory;
pub mod exchange;
pub mod expire;
mod gateway;
pub mod guard;
pub mod holds;
pub mod hub;
pub mod identify;
pub mod limits;
pub mod metrics;
pub mod operations;
pub mod origins;
pub mod pace;
mod page;
pub mod parts;
pub mod permit;
pub mod places;
pub mod policy;
pub mod presence;
pub mod prove;
pub mod retry;
mod server;
pub mod settle;
pub mod undo;

pub use config::{Config, ConfigError};
pub use gateway::{Ended, Gateway, Running, StartError, Surroundings};
pub use server::ReflectionError;

#[cfg(test)]
mod tests;
