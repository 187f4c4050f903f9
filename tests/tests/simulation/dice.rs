//! Chance from a seed: the same seed throws the same numbers, on every machine.

use std::{
    cell::RefCell,
    fs::File,
    io::Read as _,
    ops::Range,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Dice. Clones share the sequence; [`Dice::split`] begins another.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Arc<AtomicU64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// Dice that throw the same for the same text.
    pub(crate) fn of(text: &str) -> Self {
        Self::new(text.bytes().fold(0, |seed: u64, byte| seed.rotate_left(7) ^ u64::from(byte)))
    }

    /// Dice of their own for one use, so that how often they are thrown changes nothing elsewhere.
    pub(crate) fn split(&self) -> Self {
        Self::new(self.throw())
    }

    /// `SplitMix64` (Steele, Lea, Flood).
    pub(crate) fn throw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn within(&self, range: Range<u64>) -> u64 {
        range.start + self.throw() % (range.end - range.start)
    }

    /// True in `percent` of a hundred throws.
    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.within(0..100) < percent
    }

    pub(crate) fn pick<T: Copy>(&self, of: &[T]) -> T {
        let at = usize::try_from(self.within(0..of.len() as u64)).expect("an index");
        *of.get(at).expect("something to pick from")
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            for (to, from) in piece.iter_mut().zip(self.throw().to_le_bytes()) {
                *to = from;
            }
        }
    }
}

thread_local! {
    /// Where this thread's random numbers come from, if it simulates.
    static REPLACED: RefCell<Option<Dice>> = const { RefCell::new(None) };
}

/// From here on this thread's random numbers come from the dice: the order of hash maps, and which branch of a `select!` is looked at
/// first. To be called before the thread has made any map. (Key agreement takes its own from the hardware; it decides nothing.)
pub(crate) fn replace_randomness(dice: &Dice) {
    REPLACED.set(Some(dice.clone()));
}

/// Stands in for the C library's, which the standard library asks for the keys of hash maps.
#[expect(
    unsafe_code,
    reason = "the only way to the keys of hash maps in libraries, so that a seed played again does the same"
)]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller of getrandom(2) owns `length` bytes at `buffer`.
    let bytes = unsafe {
        buffer.write_bytes(0, length);
        slice::from_raw_parts_mut(buffer, length)
    };
    let replaced = REPLACED.try_with(|dice| dice.borrow().as_ref().map(|dice| dice.fill(bytes)).is_some());
    if !replaced.unwrap_or(false) && File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)).is_err() {
        return -1;
    }
    isize::try_from(length).unwrap_or(-1)
}
