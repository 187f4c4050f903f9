//! Registry: who is connected, so that places are counted and a peer that no longer counts is cut off.
//!
//! Knows addresses, certificates and tokens. Never knows bytes. Invariants: a place is given back when its [`Slot`] is dropped, however
//! that comes; what is cut stays listed until its stream is gone.
use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tramite_proto::ids::Digest;

use crate::{identity::Peer, limits::Limits, listen::Hooks, refusal::Refusal};

pub(crate) struct Registry {
    inner: Mutex<Inner>,
    limits: Limits,
    hooks: Arc<dyn Hooks>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    total: usize,
    addresses: HashMap<IpAddr, usize>,
    certificates: HashMap<Digest, usize>,
    open: HashMap<u64, Open>,
}

/// An open connection of a peer.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) peer: Arc<Peer>,
    pub(crate) remote: SocketAddr,
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) cut: CancellationToken,
}

/// A place among the connections, given back on drop.
pub(crate) struct Slot {
    registry: Arc<Registry>,
    remote: SocketAddr,
    admitted: Option<(u64, Arc<Peer>)>,
}

impl Registry {
    pub(crate) fn new(limits: Limits, hooks: Arc<dyn Hooks>) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), limits, hooks })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counters stay true whatever panicked elsewhere.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for an address, before its handshake.
    pub(crate) fn enter(self: &Arc<Self>, remote: SocketAddr) -> Result<Slot, Refusal> {
        let mut inner = self.lock();
        if inner.total >= self.limits.connections.max(1) {
            return Err(Refusal::TooManyConnections);
        }
        if !take(&mut inner.addresses, network(remote.ip()), self.limits.connections_per_address) {
            return Err(Refusal::TooManyOfAddress);
        }
        inner.total += 1;
        Ok(Slot { registry: Arc::clone(self), remote, admitted: None })
    }

    /// Cuts every connection whose certificate `judge` no longer takes; looks at them without holding the lock.
    pub(crate) async fn sweep(&self, judge: impl Fn(&Open) -> Result<(), (Refusal, String)>) {
        let open: Vec<Open> = self.lock().open.values().cloned().collect();
        for (count, open) in open.iter().enumerate() {
            if open.cut.is_cancelled() {
                continue;
            }
            if let Err((refusal, detail)) = judge(open) {
                tracing::warn!(reason = refusal.as_str(), peer = %open.peer, remote = %open.remote, detail, "connection cut");
                self.hooks.on_cut(refusal, &open.peer);
                open.cut.cancel();
            }
            // A judgement takes 0.1 ms; others shall not wait for a thousand of them.
            if count % 16 == 15 {
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Slot {
    /// Takes the peer's place, after the handshake. The token is cancelled when it shall be cut.
    pub(crate) fn admit(
        &mut self,
        peer: Arc<Peer>,
        chain: Arc<[CertificateDer<'static>]>,
    ) -> Result<CancellationToken, Refusal> {
        let cut = CancellationToken::new();
        {
            let mut inner = self.registry.lock();
            let limit = self.registry.limits.connections_per_certificate;
            if !take(&mut inner.certificates, peer.fingerprint(), limit) {
                return Err(Refusal::TooManyOfCertificate);
            }
            let id = inner.next;
            inner.next += 1;
            inner.open.insert(id, Open { peer: Arc::clone(&peer), remote: self.remote, chain, cut: cut.clone() });
            self.admitted = Some((id, Arc::clone(&peer)));
        }
        self.registry.hooks.on_open(&peer);
        Ok(cut)
    }

    pub(crate) fn refused(&self, refusal: Refusal, detail: &str) {
        tracing::warn!(reason = refusal.as_str(), remote = %self.remote, detail, "connection refused");
        self.registry.hooks.on_refused(refusal, self.remote, detail);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        inner.total = inner.total.saturating_sub(1);
        give_back(&mut inner.addresses, &network(self.remote.ip()));
        if let Some((id, peer)) = self.admitted.take() {
            give_back(&mut inner.certificates, &peer.fingerprint());
            inner.open.remove(&id);
            drop(inner);
            self.registry.hooks.on_close(&peer);
        }
    }
}

fn take<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K, limit: usize) -> bool {
    let count = counts.entry(key).or_insert(0);
    if *count >= limit.max(1) {
        return false;
    }
    *count += 1;
    true
}

fn give_back<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// What counts as one address: IPv4 alone, IPv6 by its /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_count_together() {
        let same = |one: &str, other: &str| network(one.parse().unwrap()) == network(other.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn a_place_is_given_back_when_its_slot_is_dropped() {
        let limits = Limits { connections: 2, connections_per_address: 1, ..Limits::default() };
        let registry = Registry::new(limits, Arc::new(()));
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let first = registry.enter(at("192.0.2.1:1")).unwrap();
        assert_eq!(registry.enter(at("192.0.2.1:2")).err(), Some(Refusal::TooManyOfAddress));
        let _second = registry.enter(at("192.0.2.2:1")).unwrap();
        assert_eq!(registry.enter(at("192.0.2.3:1")).err(), Some(Refusal::TooManyConnections));
        drop(first);
        registry.enter(at("192.0.2.1:3")).unwrap();
        let inner = registry.lock();
        assert_eq!((inner.total, inner.addresses.len()), (1, 1));
    }
}
