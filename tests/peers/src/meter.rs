//! What every peer is measured with: when each message was confirmed and when it arrived, and how many arrived again.
//!
//! Knows payloads that begin with their number and the time at which they were made. Never knows a peer. One process publishes and
//! consumes, so that there is one clock.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::Load;

/// Times of one run, in microseconds, by the number of the message; 0 is none.
pub(crate) struct Meter {
    load: Load,
    base: Instant,
    arrived: Vec<AtomicU32>,
    confirmed: Vec<AtomicU32>,
    again: AtomicU64,
}

impl Meter {
    pub(crate) fn new(load: &Load) -> Arc<Self> {
        let none = || (0..load.messages).map(|_| AtomicU32::new(0)).collect();
        let again = AtomicU64::new(0);
        Arc::new(Self { load: load.clone(), base: Instant::now(), arrived: none(), confirmed: none(), again })
    }

    /// How many messages the recipient gets: they take turns.
    pub(crate) fn share(&self, recipient: usize) -> usize {
        (self.load.messages + self.load.recipients - 1 - recipient) / self.load.recipients
    }

    /// The payload of that message; nothing that a disk could make shorter.
    pub(crate) fn payload(&self, number: usize) -> Vec<u8> {
        let mut x = 0x9E37_79B9_7F4A_7C15_u64 ^ number as u64;
        let now = self.base.elapsed().as_nanos() as u64;
        let mut bytes: Vec<u8> = (number as u64).to_le_bytes().into_iter().chain(now.to_le_bytes()).collect();
        while bytes.len() < self.load.content {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            bytes.extend(x.to_le_bytes());
        }
        bytes.truncate(self.load.content);
        bytes
    }

    /// True when it had not arrived before.
    pub(crate) fn arrived(&self, payload: &[u8]) -> Result<bool> {
        let word = |from: usize| -> Result<u64> {
            let bytes = payload.get(from..from + 8).context("a payload is too short")?;
            Ok(u64::from_le_bytes(bytes.try_into()?))
        };
        let slot = self.arrived.get(usize::try_from(word(0)?)?).context("a payload of another run")?;
        let took = (self.base.elapsed().as_nanos() as u64).saturating_sub(word(8)?) / 1_000;
        let first = slot.swap(u32::try_from(took.max(1))?, Relaxed) == 0;
        self.again.fetch_add(u64::from(!first), Relaxed);
        Ok(first)
    }

    /// The peer said that it has it.
    pub(crate) fn confirmed(&self, number: usize, since: Instant) {
        if let Some(slot) = self.confirmed.get(number) {
            slot.store((since.elapsed().as_micros() as u32).max(1), Relaxed);
        }
    }

    /// One line of JSON; fails when anything is missing.
    pub(crate) fn finish(&self, peer: &str, begun: Instant) -> Result<()> {
        let seconds = begun.elapsed().as_secs_f64();
        let (arrived, confirmed) = (sorted(&self.arrived), sorted(&self.confirmed));
        let messages = self.load.messages;
        ensure!(arrived.len() == messages, "{} of {messages} messages arrived", arrived.len());
        ensure!(confirmed.len() == messages, "{} of {messages} messages were confirmed", confirmed.len());
        let spread = |times: &[u32]| serde_json::json!({"p50": at(times, 500), "p99": at(times, 990)});
        let line = serde_json::json!({
            "peer": peer, "messages": messages, "in_flight": self.load.in_flight, "seconds": seconds,
            "messages_per_s": messages as f64 / seconds, "acknowledgement_us": spread(&confirmed),
            "delivery_us": spread(&arrived), "again": self.again.load(Relaxed),
        });
        println!("{line}");
        Ok(())
    }
}

fn sorted(times: &[AtomicU32]) -> Vec<u32> {
    let mut times: Vec<u32> = times.iter().map(|time| time.load(Relaxed)).filter(|time| *time != 0).collect();
    times.sort_unstable();
    times
}

fn at(times: &[u32], permille: usize) -> u32 {
    times.get(times.len().saturating_sub(1) * permille / 1_000).copied().unwrap_or(0)
}

/// Mutual TLS with the certificates of the run.
pub(crate) fn tls(certs: &Path) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certs.join("ca.pem"))?)?;
    let chain = CertificateDer::pem_file_iter(certs.join("client.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(certs.join("client.key"))?;
    Ok(ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?)
}
