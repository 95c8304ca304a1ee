//! Slabs of stacks: many stacks in one mapping, handed out last in, first out.
//!
//! Floor 0. Uses: `guard`, `stack`, `overflow` (which keeps the list of slabs that a fault handler
//! reads). Used by: `hub`.
//!
//! # Contract
//!
//! [`StackPool::promise`] sees to it that a stack is there, with its guard installed, and fails if
//! there is none; [`StackPool::take`] redeems a promise and cannot fail; [`StackPool::put`] takes
//! the stack back. So a greenlet is refused when it is spawned, but has a stack only once it runs:
//! those that come and go share the hottest one.
//! Slabs grow from 64 stacks to 16,384, so that a few greenlets reserve little address space and a
//! million need fewer than a hundred mappings. The last stack returned is the next one taken: its
//! pages and cache lines are warm. [`StackPool::trim`] gives the memory (not the address space) of
//! idle stacks beyond [`WARM_MAX`] back to the kernel; the floor above calls it when a burst is
//! over.
//!
//! # Invariants
//!
//! - `POOL-1` A slot is either out (one `Stack` exists) or in `free`; never both. `free` has at
//!   least as many slots as there are promises.
//! - `POOL-2` A slab is unmapped only in `Drop`, and only when no stack is out. Otherwise it stays
//!   mapped for ever: a frame might be alive on it.

#![expect(unsafe_code, reason = "mmap and munmap")]
//! # Safety
//!
//! Mappings are made at addresses of the kernel's choice and unmapped under `POOL-2`.

use std::{ffi::c_void, io, num::NonZeroUsize};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::{
    guard::{self, Way},
    overflow,
    stack::{GUARD_BYTES, Place, Stack, lowest_below},
};

/// Bytes of address space in the first slab, unless a single stack is larger: 64 default stacks.
const SLAB_BYTES_MIN: usize = 16 << 20;

/// Bytes of address space in the largest slab, likewise: 16,384 default stacks.
const SLAB_BYTES_MAX: usize = 4 << 30;

/// The largest stack: 1 TiB, a hundredth of the address space.
const SLOT_BYTES_MAX: usize = 1 << 40;

/// How many idle stacks keep their memory. 4,096 are at least 16 MiB, the price of one burst.
const WARM_MAX: usize = 4096;

/// How many stacks lose their memory in one `trim`: half a millisecond's work.
const TRIM_MAX: usize = 1024;

/// The smallest usable stack: a signal frame with AVX-512 and AMX state alone takes 12 KiB.
const USABLE_BYTES_MIN: usize = 32 * 1024;

const _: () = assert!(
    SLAB_BYTES_MAX / (GUARD_BYTES + USABLE_BYTES_MIN) <= 1 << 16,
    "the number of a slot in its slab has 16 bits"
);

#[derive(Debug)]
struct Slab {
    address: NonZeroUsize,
    len: usize,
    record: &'static overflow::SlabRecord,
}

/// A pool of stacks of one size, for one thread.
#[derive(Debug)]
pub(crate) struct StackPool {
    slot_bytes: usize,
    slabs: Vec<Slab>,
    /// Slots that were out before, guard installed: the last one returned at the end.
    free: Vec<Place>,
    /// How many of `free`, from the front, have no memory.
    cold: usize,
    /// How many slots of the last slab were never out.
    fresh: usize,
    /// Stacks that are out.
    out: usize,
    /// Stacks that are promised and not yet out.
    promised: usize,
}

impl StackPool {
    /// A pool whose stacks take `slot_bytes` of address space each, guard included.
    ///
    /// Shape: rounded up to whole pages, and to at least 96 KiB.
    pub(crate) fn new(slot_bytes: usize) -> StackPool {
        let page = rustix::param::page_size();
        let slot_bytes = slot_bytes.clamp(GUARD_BYTES + USABLE_BYTES_MIN, SLOT_BYTES_MAX + 1);
        let slot_bytes = slot_bytes.next_multiple_of(page);
        StackPool {
            slot_bytes,
            slabs: Vec::new(),
            free: Vec::new(),
            cold: 0,
            fresh: 0,
            out: 0,
            promised: 0,
        }
    }

    /// The size of each stack, guard included.
    pub(crate) fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// The lowest address that frames of a stack with this base may surely use.
    pub(crate) fn lowest_below(&self, base: usize) -> usize {
        lowest_below(base, self.slot_bytes)
    }

    /// Stacks that are out, and the most that ever were, promised ones included in both.
    pub(crate) fn in_use(&self) -> (usize, usize) {
        // A fresh one is taken only when none is free, so all that were ever out are out or free.
        let out = self.out + self.promised;
        (out, self.out + self.free.len())
    }

    /// Promises a stack: one `take` will not fail.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` when the address space, or the number of mappings, is used up; the text names
    /// the limit to raise.
    #[inline]
    pub(crate) fn promise(&mut self) -> io::Result<()> {
        if self.free.len() == self.promised {
            self.add_fresh()?;
        }
        self.promised += 1;
        Ok(())
    }

    /// A stack that was promised, with its guard installed.
    ///
    /// # Panics
    ///
    /// When none was.
    #[inline]
    pub(crate) fn take(&mut self) -> Stack {
        self.promised =
            self.promised.checked_sub(1).expect("a stack is promised before it is taken");
        let place = self.free.pop().expect("POOL-1: a promised stack is there");
        self.cold = self.cold.min(self.free.len());
        self.out += 1;
        self.stack(place)
    }

    /// Tells the processor that the stack which comes after `skip` others will be taken soon.
    #[inline]
    pub(crate) fn prefetch(&self, skip: u32) {
        if let Some(place) = self.free.iter().rev().nth(skip as usize) {
            let head = self.stack(*place).head().as_ptr();
            (0..4).for_each(|line| super::prefetch(head.wrapping_sub(64 * line)));
        }
    }

    /// Takes a stack back. No frame is alive on it any more (`CORO-2`).
    #[inline]
    pub(crate) fn put(&mut self, stack: Stack) {
        self.out -= 1;
        self.free.push(stack.place());
    }

    /// How many stacks are out or promised.
    pub(crate) fn used(&self) -> usize {
        self.out + self.promised
    }

    /// Whether there are more idle stacks with memory than are worth keeping.
    pub(crate) fn is_fat(&self) -> bool {
        self.free.len() - self.cold > WARM_MAX
    }

    /// Gives the memory of some idle stacks back, those that were idle for longest. Bounded, so
    /// that it can be done between two turns: [`TRIM_MAX`] stacks a call.
    pub(crate) fn trim(&mut self) {
        let until = self.free.len().saturating_sub(WARM_MAX).min(self.cold + TRIM_MAX);
        for place in self.cold..until {
            discard(&self.stack(self.free[place]), self.slot_bytes);
        }
        self.cold = self.cold.max(until);
    }

    fn stack(&self, place: Place) -> Stack {
        let slab = &self.slabs[usize::from(place.slab)];
        let limit = slab.address.get() + usize::from(place.index) * self.slot_bytes;
        let limit = NonZeroUsize::new(limit).expect("a slot of a mapping is not at null");
        Stack::new(limit, self.slot_bytes, place)
    }

    #[cold]
    fn add_fresh(&mut self) -> io::Result<()> {
        if self.fresh == 0 {
            self.grow()?;
        }
        let slab = self.slabs.len() - 1;
        let index = self.slabs[slab].len / self.slot_bytes - self.fresh;
        // Both fit: see `grow`.
        let place = Place { slab: slab as u16, index: index as u16 };
        let stack = self.stack(place);
        // SAFETY: the range is the lowest part of a slot that was never out: ours, mapped, unused.
        unsafe { guard::install(stack.limit(), GUARD_BYTES) }.map_err(|e| self.explain(e))?;
        self.fresh -= 1;
        // In front, as one that has no memory: those that were used before are warmer.
        self.free.push(place);
        let last = self.free.len() - 1;
        self.free.swap(self.cold, last);
        self.cold += 1;
        Ok(())
    }

    fn grow(&mut self) -> io::Result<()> {
        if self.slabs.len() > usize::from(u16::MAX) {
            let text = "no stack for a greenlet: 65,536 mappings of stacks of this size are in use";
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
        }
        if self.slot_bytes > SLOT_BYTES_MAX {
            let text =
                format!("no stack for a greenlet: more than {SLOT_BYTES_MAX} bytes asked for");
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
        }
        let bytes = (SLAB_BYTES_MIN << self.slabs.len().min(16)).min(SLAB_BYTES_MAX);
        let slots = (bytes / self.slot_bytes).max(1);
        let len = slots * self.slot_bytes;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let address = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot, flags) };
        let address = address.map_err(|e| self.explain(e.into()))?;
        // A huge page would make 512 parked greenlets out of one. Refusal (no such kernel option)
        // is harmless.
        // SAFETY: the range is the mapping just made.
        let _ = unsafe { rustix::mm::madvise(address, len, Advice::LinuxNoHugepage) };
        let address = NonZeroUsize::new(address.expose_provenance())
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let record = overflow::record_slab(address.get(), len, self.slot_bytes);
        self.slabs.push(Slab { address, len, record });
        self.fresh = slots;
        Ok(())
    }

    /// Says which limit a failed mapping or guard met, and what to raise.
    fn explain(&self, error: io::Error) -> io::Error {
        let hint = match guard::way() {
            Way::Advice => {
                "the address space or the memory is used up; use fewer greenlets or a \
                            smaller stack_size"
            }
            Way::Protection => {
                "each guarded stack takes two mappings on this kernel (before Linux \
                                6.13): raise the sysctl vm.max_map_count, or use fewer greenlets"
            }
        };
        let used = self.used();
        let text = format!(
            "no stack for another greenlet ({used} of this size are in use): {error}; {hint}"
        );
        io::Error::new(io::ErrorKind::OutOfMemory, text)
    }
}

impl Drop for StackPool {
    fn drop(&mut self) {
        if self.out > 0 {
            return; // POOL-2: somebody may still be on one of them.
        }
        for slab in &self.slabs {
            slab.record.retire();
            let address: *mut c_void = std::ptr::with_exposed_provenance_mut(slab.address.get());
            // SAFETY: the mapping is ours and, by POOL-2, no stack of it is out.
            let _ = unsafe { rustix::mm::munmap(address, slab.len) };
        }
    }
}

/// Gives the memory of an idle stack back to the kernel; its guard stays.
fn discard(stack: &Stack, slot_bytes: usize) {
    let lowest = stack.lowest();
    let len = stack.limit() + slot_bytes - lowest;
    let address: *mut c_void = std::ptr::with_exposed_provenance_mut(lowest);
    // SAFETY: the range is the usable part of a slot that the caller owns and that has no frames:
    // reading zeroes from it later is all that changes.
    let _ = unsafe { rustix::mm::madvise(address, len, Advice::LinuxDontNeed) };
}
