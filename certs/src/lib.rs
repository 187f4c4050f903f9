//! Who is who: authority, certificates, revocation, TLS set-up and reload, and the keyring of verified key records.
//!
//! Knows certificates, keys, files and sockets. Never knows messages, policy or what a role may do.
//! Invariants: a [`identity::Peer`] that a handler sees came over a handshake that ended well; whatever is not TLS 1.3 with a valid,
//! unrevoked certificate of the pinned authority never gets that far; private keys are read only from files that others cannot read.
pub mod anchors;
pub mod authority;
pub mod connect;
pub mod farewell;
pub mod files;
pub mod identity;
pub mod keyring;
pub mod limits;
pub mod listen;
pub mod network;
pub mod refusal;
mod registry;
mod reload;
pub mod secrets;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod trust;
