//! What we promise: harness, end-to-end promises, faults, security.
//!
//! The harness drives the real binary as separate processes over loopback, with certificates made at run time in a folder of
//! its own; it links nothing of the hub or of the adapters. The promises are the files in `tests/`.

pub mod accounts;
pub mod attack;
pub mod binary;
pub mod canary;
pub mod clerk;
pub mod codec;
pub mod collector;
pub mod component;
pub mod config;
pub mod cuts;
pub mod damage;
pub mod desk;
pub mod dice;
pub mod failing_disk;
pub mod forge;
pub mod http2;
pub mod load;
pub mod loop_disk;
pub mod lying;
pub mod metrics;
pub mod network;
pub mod other_clock;
pub mod pki;
pub mod ports;
pub mod process;
pub mod raw;
pub mod receiving;
pub mod sample;
pub mod small_disk;
pub mod source;
pub mod submitting;
pub mod traffic;
pub mod upon;
pub mod verify;
pub mod witness;
