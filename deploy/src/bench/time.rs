//! The bench's clock, and message ids that tell when and as which they were made.
//!
//! Knows CLOCK_MONOTONIC, which is the same for every process of a machine, and UUIDv7. Never knows messages. Invariant: an id is made
//! of an instant and a number, and gives both back, so that whoever receives a message needs no table to say how long it took.
//! RFC 9562 §6.2 lets `rand_a` carry the fraction of the millisecond; the number stands in `rand_b`, scrambled, so that the ids of a
//! millisecond come in no order, as everybody else's do.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use tramite_proto::{
    clock::{Clock as _, SystemClock},
    ids::{ConversationId, MessageId},
};

/// 62 bits: what RFC 9562 leaves to `rand_b`.
const MASK: u64 = (1 << 62) - 1;
/// Odd, so that multiplying by it modulo 2^62 loses nothing.
const SCRAMBLE: u64 = 0x1E37_79B9_7F4A_7C15;
const UNSCRAMBLE: u64 = inverse(SCRAMBLE);
/// Another constant makes conversations other ids than messages.
const CONVERSATION: u64 = 0x2545_F491_4F6C_DD1D;

/// The inverse modulo 2^64 by Newton's iteration: each step doubles the bits that are right, from 3.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut step = 0;
    while step < 5 {
        x = x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    x
}

/// Resolves at a moment; never, when there is none.
pub(super) async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The run time's instant for one of the monotonic clock.
pub(super) fn instant(at_ns: u64) -> Instant {
    Instant::now() + Duration::from_nanos(at_ns.saturating_sub(now_ns()))
}

/// The monotonic clock, set once by the wall clock; given to every process, so that all read the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Epoch(pub(super) u64);

impl Epoch {
    /// Nanoseconds from 1970 to where the monotonic clock begins.
    pub(super) fn of_now() -> Self {
        let wall = u64::try_from(SystemClock.now_ms()).unwrap_or(0).saturating_mul(1_000_000);
        Self(wall.saturating_sub(now_ns()))
    }

    /// Unix seconds.
    pub(super) fn unix_s(self, at_ns: u64) -> i64 {
        i64::try_from((self.0 + at_ns) / 1_000_000_000).unwrap_or(i64::MAX)
    }

    /// The id of the message with that number, submitted then.
    pub(super) fn message(self, at_ns: u64, number: u64) -> MessageId {
        let (ms, random) = self.parts(at_ns, number.wrapping_mul(SCRAMBLE) & MASK);
        MessageId::new(ms, random)
    }

    /// The id of its conversation.
    pub(super) fn conversation(self, at_ns: u64, number: u64) -> ConversationId {
        let (ms, random) = self.parts(at_ns, (number + 1).wrapping_mul(CONVERSATION) & MASK);
        ConversationId::new(ms, random)
    }

    fn parts(self, at_ns: u64, low: u64) -> (i64, [u8; 10]) {
        let unix_ns = self.0 + at_ns;
        let fraction = (unix_ns % 1_000_000) * 4_096 / 1_000_000;
        let [a, b] = u16::try_from(fraction).unwrap_or(0).to_be_bytes();
        let [c, d, e, f, g, h, i, j] = low.to_be_bytes();
        (i64::try_from(unix_ns / 1_000_000).unwrap_or(0), [a, b, c, d, e, f, g, h, i, j])
    }

    /// When a message was submitted, and its number.
    pub(super) fn read(self, id: &MessageId) -> (u64, u64) {
        let bits = u128::from_be_bytes(*id.as_bytes());
        let ms = u64::try_from(bits >> 80).unwrap_or(0);
        let fraction = u64::try_from((bits >> 64) & 0xFFF).unwrap_or(0);
        let low = u64::try_from(bits & u128::from(MASK)).unwrap_or(0);
        let unix_ns = ms * 1_000_000 + fraction * 1_000_000 / 4_096;
        (unix_ns.saturating_sub(self.0), low.wrapping_mul(UNSCRAMBLE) & MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_gives_back_when_and_as_which_it_was_made() {
        let epoch = Epoch::of_now();
        for number in [0, 1, 2, 77, 1_000_000, 20_000_000_000] {
            let at = now_ns();
            let id = epoch.message(at, number);
            assert!(id.is_v7());
            let (made, as_which) = epoch.read(&id);
            assert_eq!(as_which, number);
            assert!(at.abs_diff(made) < 250, "{at} {made}");
            assert_ne!(epoch.conversation(at, number).as_bytes(), id.as_bytes());
        }
    }
}
