//! One stack: a slot of a slab, with a guard below it and a label above it.
//!
//! Floor 0. Uses: nothing. Used by: `pool`, `overflow`, and `hub` for the head.
//!
//! ```text
//!   high ┌──────────────────────────────┐ slot end
//!        │ colour: 0..15 cache lines     │ so that the busy lines of different stacks fall into
//!        ├──────────────────────────────┤ different cache sets
//!        │ head: HEAD_BYTES, begins with │ who is on this stack
//!        │ a Label                       │
//!        ├──────────────────────────────┤ base (16-aligned): the first frame lies below
//!        │ frames, growing down          │
//!        │ ...                           │
//!        ├──────────────────────────────┤ limit + GUARD_BYTES
//!        │ guard: any touch faults       │
//!    low └──────────────────────────────┘ limit
//! ```
//!
//! # Invariants
//!
//! - `STACK-1` base and head are 64-byte aligned: slots are multiples of the page, colours and
//!   head of the line.
//! - `STACK-2` The memory of a slot is mapped, readable and writable above its guard for as long as
//!   a [`Stack`] for it exists: the pool unmaps a slab only when no stack of it is out.
//! - `STACK-3` colour + head + the frames of a typical park fit one page, so that a parked greenlet
//!   costs one resident page.

#![expect(unsafe_code, reason = "implements corosensei's Stack trait")]
//! # Safety
//!
//! The only unsafe item is the `Stack` implementation, argued where it stands.

use std::{num::NonZeroUsize, panic::Location, ptr::NonNull};

/// Bytes of address space that a default stack takes, guard included. Only touched pages cost
/// memory, and eight such slots share one page of page tables.
pub(crate) const STACK_BYTES_DEFAULT: usize = 256 * 1024;

/// Bytes of the guard. Rust code touches every page of a large frame; C code built without
/// `-fstack-clash-protection` does not, and 64 KiB is the jump that compilers for Linux assume to
/// be caught. It costs address space, not memory.
pub(crate) const GUARD_BYTES: usize = 64 * 1024;

/// Bytes between the colour and the base, for the floor above: a cache line.
pub(crate) const HEAD_BYTES: usize = LINE_BYTES;

/// A cache line: the unit of colouring.
const LINE_BYTES: usize = 64;

/// How many different offsets stack tops get. 16 lines span 960 bytes: enough to spread the busy
/// lines over the sets of a first-level cache, little enough for `STACK-3`.
const COLOURS: usize = 16;

/// What a fault handler needs to know of the greenlet on a stack, at a place it can compute.
///
/// It is the first thing in the head.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Label {
    /// The greenlet's number; 0 when the stack is not in use.
    pub(crate) id: u64,
    /// Where it was spawned.
    pub(crate) birth: Option<&'static Location<'static>>,
    /// Its name, or null. Kept alive by the greenlet.
    pub(crate) name: *const u8,
    /// The length of the name in bytes.
    pub(crate) name_len: usize,
}

/// The geometry of slot number `index` that begins at `limit`: where its head is.
#[inline]
pub(super) fn head_of(limit: usize, slot_bytes: usize, index: usize) -> usize {
    limit + slot_bytes - (index % COLOURS) * LINE_BYTES - HEAD_BYTES
}

/// The lowest address that frames below `base` may surely use, whatever the colour.
pub(super) fn lowest_below(base: usize, slot_bytes: usize) -> usize {
    base + HEAD_BYTES + (COLOURS - 1) * LINE_BYTES + GUARD_BYTES - slot_bytes
}

/// Exclusive ownership of one slot of a slab.
///
/// It has no `Drop`: the pool takes it back by [`StackPool::put`](super::StackPool::put); one that
/// is lost keeps its slab mapped.
#[derive(Debug)]
pub(crate) struct Stack {
    base: NonZeroUsize,
    /// The size of the slot in units of [`UNIT_BYTES`].
    slot_units: u32,
    place: Place,
}

/// Which slot of which slab. Two numbers of 16 bits, so that a `Stack` is two words: slabs are
/// 2 GiB at least, once they are grown up, and slots 96 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slab: u16,
    pub(super) index: u16,
}

/// The unit in which a stack keeps the size of its slot: the smallest page.
const UNIT_BYTES: usize = 4096;

const _: () = assert!(size_of::<Stack>() == 16, "it lies in the first line of a control block");

impl Stack {
    pub(super) fn new(limit: NonZeroUsize, slot_bytes: usize, place: Place) -> Stack {
        let base = head_of(limit.get(), slot_bytes, place.index.into());
        let base = NonZeroUsize::new(base).expect("a head above a mapped limit is not null");
        Stack { base, slot_units: (slot_bytes / UNIT_BYTES) as u32, place }
    }

    /// The head: `HEAD_BYTES` bytes, 64-byte aligned, in the same page as the first frames.
    pub(crate) fn head(&self) -> NonNull<u8> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(self.base.get()))
            .expect("the base of a stack is not null")
    }

    /// The lowest address that frames may use.
    pub(super) fn lowest(&self) -> usize {
        self.limit() + GUARD_BYTES
    }

    pub(super) fn limit(&self) -> usize {
        let slot_bytes = self.slot_units as usize * UNIT_BYTES;
        // The inverse of `head_of`.
        self.base.get() - head_of(0, slot_bytes, self.place.index.into())
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }
}

// SAFETY: corosensei asks for (1) a guard that catches overflow: the pool hands out a stack only
// after its guard is installed, at [limit, limit + GUARD_BYTES), which `limit` includes as asked;
// (2) at least MIN_STACK_SIZE usable bytes: the pool refuses smaller sizes; (3) 16-byte alignment
// of both ends: STACK-1, and the limit is a page boundary.
unsafe impl corosensei::stack::Stack for Stack {
    #[inline]
    fn base(&self) -> NonZeroUsize {
        self.base
    }

    #[inline]
    fn limit(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.limit()).expect("a slot of a mapping is not at null")
    }
}
