//! What of the machine a thread that simulates must not see: its chance, which decides the order of hash maps and which branch of a
//! `select!` is looked at first, and its time, by which libraries forget (h2 the streams that were reset) whatever a simulation calls the
//! time. A seed would do one thing on a fast machine and another on a slow one. Both are asked of the C library, and answered here. (Key
//! agreement takes its chance from the hardware; it decides nothing.)

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::Read as _,
    slice,
    time::Duration,
};

use rustix::time::{ClockId, Timespec, clock_gettime as real_time};

use super::dice::Dice;

thread_local! {
    /// Where this thread's chance comes from, if it simulates.
    static CHANCE: RefCell<Option<Dice>> = const { RefCell::new(None) };
    /// What all of this thread's clocks show, if it simulates.
    static TIME: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// From here on this thread simulates. To be called before it has made any map.
pub(crate) fn replace(dice: &Dice) {
    CHANCE.set(Some(dice.clone()));
    show(Duration::ZERO);
}

/// So long has this thread simulated.
pub(crate) fn show(elapsed: Duration) {
    TIME.set(Some(elapsed));
}

/// Stands in for the C library's, which the standard library asks for the keys of hash maps.
#[expect(unsafe_code, reason = "the only way to the keys of hash maps in libraries")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller of getrandom(2) owns `length` bytes at `buffer`.
    let bytes = unsafe {
        buffer.write_bytes(0, length);
        slice::from_raw_parts_mut(buffer, length)
    };
    let replaced = CHANCE.try_with(|dice| dice.borrow().as_ref().map(|dice| dice.fill(bytes)).is_some());
    if !replaced.unwrap_or(false) && File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)).is_err() {
        return -1;
    }
    isize::try_from(length).unwrap_or(-1)
}

/// Stands in for the C library's, which the standard library asks for every `Instant` and `SystemTime`.
#[expect(unsafe_code, reason = "the only way to the clocks that libraries read")]
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: i32, time: *mut Timespec) -> i32 {
    let shown = TIME.try_with(Cell::get).ok().flatten().and_then(|elapsed| elapsed.try_into().ok());
    let Some(now) = shown.or_else(|| ClockId::try_from(clock).ok().map(real_time)) else { return -1 };
    // SAFETY: the caller of clock_gettime(2) owns the `timespec` at `time`, which this type has the layout of.
    unsafe { time.write(now) };
    0
}

mod tests {
    use std::{
        hash::{BuildHasher as _, RandomState},
        thread,
        time::{Duration, Instant, SystemTime},
    };

    use super::{Dice, replace, show};

    /// By the clock of a machine.
    fn a_moment() {
        let begun = Instant::now();
        while begun.elapsed().is_zero() {}
    }

    #[test]
    fn a_thread_that_simulates_sees_its_own_time_only() {
        replace(&Dice::new(1));
        let begun = (Instant::now(), SystemTime::now());
        thread::spawn(a_moment).join().unwrap();
        assert_eq!(begun, (Instant::now(), SystemTime::now()));
        show(Duration::from_secs(60));
        assert_eq!(begun.0.elapsed(), Duration::from_secs(60));
        assert_eq!(begun.1.elapsed().unwrap(), Duration::from_secs(60));
    }

    #[test]
    fn a_thread_that_simulates_sees_the_chance_of_its_dice_only() {
        let hashed = |seed| {
            let map = move || {
                replace(&Dice::new(seed));
                RandomState::new().hash_one(0)
            };
            thread::spawn(map).join().unwrap()
        };
        assert_eq!(hashed(1), hashed(1));
        assert_ne!(hashed(1), hashed(2));
    }
}
