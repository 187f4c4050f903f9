//! Ports on loopback that no other test takes, and that a restarted process finds again.
//!
//! Port 0 would do for a process that starts once; a gateway that is killed must come back where its adapters look for it.
//! So a port is reserved: below the range from which the system gives ports to outgoing connections, and held by a lock
//! file for as long as its owner lives, so that tests in parallel processes never meet.

use std::{
    env, fs,
    net::TcpListener,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// Above well-known services, below Linux' ephemeral range (32768).
const FIRST: u16 = 17_000;
const COUNT: u16 = 15_000;

/// A port that is ours until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: fs::File,
}

impl Port {
    /// Reserves one.
    ///
    /// # Errors
    /// When none of the range is free.
    pub fn reserve() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let locks = env::temp_dir().join(format!("tramite-tests-ports-{}", rustix::process::geteuid().as_raw()));
        fs::create_dir_all(&locks)?;
        let start = u16::try_from(process::id() % u32::from(COUNT))?.wrapping_mul(7);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + start.wrapping_add(step) % COUNT;
            let lock = fs::File::create(locks.join(number.to_string()))?;
            let ours = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if ours && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        None.context("no free port")
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// As `address:port` on loopback.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
