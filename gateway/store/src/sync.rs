//! Locks of the modules that are tried in every order: here the system's. Their tests take in the same source with locks at which a
//! scheduler chooses who goes on (`tests/lanes.rs`).

pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};
