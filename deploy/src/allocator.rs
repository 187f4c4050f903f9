//! Where the memory of every process comes from: small blocks from mimalloc, large ones from the system.
//!
//! A message passes through some hundred small allocations, which cost the gateway a quarter of its CPU with the system's allocator and
//! a third of that with mimalloc. But mimalloc keeps what large blocks leave behind, and an attachment of 25 MiB made a process
//! grow by as much; the system gives them back. So each does what it is good at. Knows sizes alone; never what they are for.
//! Invariant: a block goes back to where it came from, which its layout says.
#![expect(
    unsafe_code,
    reason = "a global allocator can be written in no other way; each call goes to one that keeps the contract"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr,
};

use mimalloc::MiMalloc;

/// Blocks of more than that come from the system: frames, records of TLS, contents. For such mimalloc takes half a mebibyte for each length and
/// thread.
const SMALL_MAX: usize = 8 * 1024;

/// Blocks from that on are mapped for themselves, and gone when they are freed.
#[cfg(target_env = "gnu")]
const LARGE_MIN: libc::c_int = 1024 * 1024;

/// The two of them.
struct BySize;

/// Has the system give back what large blocks leave behind. Left alone, glibc has eight arenas for each core, and keeps in each as much as the
/// largest block that was ever freed: threads that take turns at a file hold more of it than passes through. To be called before there are threads.
pub(crate) fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: no more than numbers go in; a refusal leaves the default, with which everything works.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, cores.try_into().unwrap_or(libc::c_int::MAX));
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_MIN);
        }
    }
}

#[global_allocator]
static ALLOCATOR: BySize = BySize;

fn is_small(layout: &Layout) -> bool {
    layout.size() <= SMALL_MAX
}

// SAFETY: every method hands its arguments on, under the same contract, to the one allocator that `layout` chooses; and the layout with
// which a block is freed or resized is the one with which it was made.
unsafe impl GlobalAlloc for BySize {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { if is_small(&layout) { MiMalloc.alloc(layout) } else { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { if is_small(&layout) { MiMalloc.alloc_zeroed(layout) } else { System.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { if is_small(&layout) { MiMalloc.dealloc(block, layout) } else { System.dealloc(block, layout) } }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller vouches that the new size, rounded up to the alignment, does not overflow.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: as above; a block that moves from one to the other is copied as far as both go.
        unsafe {
            match (is_small(&layout), is_small(&new)) {
                (true, true) => MiMalloc.realloc(block, layout, new_size),
                (false, false) => System.realloc(block, layout, new_size),
                _ => {
                    let moved = self.alloc(new);
                    if !moved.is_null() {
                        ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_its_bytes_when_it_moves_from_one_to_the_other() {
        let bytes = |length: usize| (0..length).map(|place| place.to_le_bytes()[0]).collect::<Vec<u8>>();
        let mut grown = Vec::new();
        for length in [1, SMALL_MAX - 1, SMALL_MAX, SMALL_MAX + 1, 3 * SMALL_MAX, SMALL_MAX + 1, SMALL_MAX, 7] {
            grown.resize(length, 0);
            grown.copy_from_slice(&bytes(length));
            grown.shrink_to_fit();
            assert_eq!(grown, bytes(length));
            grown.reserve_exact(2 * SMALL_MAX);
            assert_eq!(grown, bytes(length));
            grown.shrink_to(length);
            assert_eq!(grown, bytes(length));
            assert!(vec![0_u8; length].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn a_large_block_comes_from_the_system_however_many_were_freed() {
        /// Where a block begins that was mapped for itself: behind its header in a page of its own.
        const MAPPED_AT: usize = 16;
        limit_arenas();
        let large = || vec![0_u8; 2 * usize::try_from(LARGE_MIN).expect("a size")];
        for _ in 0..3 {
            let blocks: Vec<_> = (0..8).map(|_| large()).collect();
            assert!(blocks.iter().all(|block| block.as_ptr().addr() % 4096 == MAPPED_AT));
        }
    }
}
