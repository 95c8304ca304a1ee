//! A copy of a stack that was interrupted, and the backtrace of it, taken elsewhere.
//!
//! Floor 0. Uses: the unwinding information of the binary, by way of std. Used by: `hub`.
//!
//! A signal handler may not unwind: unwinders allocate and lock, and what was interrupted may be in
//! the midst of just that. It may copy memory. So the handler copies the stack
//! ([`Snapshot::take`]), and another thread unwinds the copy in its own time: words that pointed
//! into the stack are moved to where the copy is, and the unwinder is called by a function whose
//! unwinding information says that its caller is the copy's innermost frame.
//!
//! ```text
//!            copy                                       call_from
//!   [n]      ┌──────────────────────────┐
//!            │ RBP, RIP, RBX: all zero  │◀─┐ the end      CFA = RBX + 24
//!            │ link ────────────────────┼──┘              RBX at CFA - 8
//!            │ frames, moved            │                 RIP at CFA - 16
//!   [3]      ├──────────────────────────┤◀─ as RSP was    RBP at CFA - 24
//!   [0]      │ RBP, RIP, RBX            │◀─ RBX
//!            └──────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - `SNAP-1` [`Snapshot::take`] reads the part of a mapped stack that is in use, and writes memory
//!   that was allocated before: it may be called by a signal handler.
//! - `SNAP-2` Of the copy, an unwinder reads what rules for the code on the stack name: places on
//!   the stack, hence in the copy. It ends at the link, where corosensei's root looks for the way
//!   to the resumer (`asm-notes/x86_64.md`), which the copy replaces by one to nowhere. A rule that
//!   is wrong may lead it elsewhere, here as in any backtrace.

#![expect(unsafe_code, reason = "stacks are copied word by word, and walked by an unwinder")]
//! # Safety
//!
//! `take` reads a stack under `SNAP-1`, `call_from` is entered with a copy made as `SNAP-2` says.

use std::{backtrace::Backtrace, ffi::c_void};

/// The words of a triple: RBP, RIP, RBX.
const TRIPLE: usize = 3;

/// How many words of a stack are copied at most: 1 MiB. Deeper ones have no backtrace.
const WORDS_MAX: usize = (1 << 20) / 8;

/// Where the link is: this many words below the base.
const LINK: usize = 2;

/// Where a thread was interrupted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Registers {
    pub(crate) rip: usize,
    pub(crate) rsp: usize,
    pub(crate) rbp: usize,
    pub(crate) rbx: usize,
}

/// Room for a copy of a stack.
#[derive(Debug)]
pub(crate) struct Snapshot {
    words: Box<[usize]>,
    /// How many are in use; 0 when there is no copy.
    len: usize,
    registers: Registers,
}

impl Snapshot {
    /// Room for a stack of any depth that is copied.
    pub(crate) fn new() -> Snapshot {
        // Zeroed pages: memory is taken as it is touched.
        let words = vec![0; TRIPLE + WORDS_MAX + TRIPLE].into();
        Snapshot { words, len: 0, registers: Registers::default() }
    }

    /// Copies a stack from its pointer to its base, unless the pointer is not in it. Allocates
    /// nothing.
    ///
    /// # Safety
    ///
    /// From `lowest` to `base` there is memory that may be read; and nobody writes to it meanwhile.
    pub(crate) unsafe fn take(&mut self, registers: Registers, lowest: usize, base: usize) {
        self.len = 0;
        let Registers { rsp, .. } = registers;
        let count = base.wrapping_sub(rsp) / size_of::<usize>();
        if rsp < lowest || rsp >= base || count > WORDS_MAX || count <= LINK {
            return;
        }
        let from: *const usize = std::ptr::with_exposed_provenance(rsp);
        let to = &mut self.words[TRIPLE..TRIPLE + count];
        // SAFETY: from `rsp` on there are `count` words up to `base`, and `rsp` is not below
        // `lowest`: the caller vouches for all of them. `to` is as long, and is no stack.
        unsafe { copy(from, to.as_mut_ptr(), count) };
        self.registers = registers;
        self.len = count;
    }

    /// The backtrace of what was copied; once a copy.
    pub(crate) fn backtrace(&mut self) -> Option<Backtrace> {
        if self.len == 0 {
            return None;
        }
        let len = std::mem::take(&mut self.len);
        let Registers { rip, rsp, rbp, rbx } = self.registers;
        let copy = self.words.as_ptr().wrapping_add(TRIPLE).expose_provenance();
        let old = rsp..rsp + len * size_of::<usize>();
        let moved = |word: usize| if old.contains(&word) { word - rsp + copy } else { word };
        for word in &mut self.words[TRIPLE..TRIPLE + len] {
            *word = moved(*word);
        }
        let end = TRIPLE + len;
        self.words[end..end + TRIPLE].fill(0);
        self.words[end - LINK] = copy + len * size_of::<usize>();
        // An unwinder takes it for a return address, and looks in front of it.
        self.words[..TRIPLE].copy_from_slice(&[moved(rbp), rip + 1, moved(rbx)]);
        let mut taken = None;
        // SAFETY: the triple and the copy above it are as SNAP-2 says; `take_it` gets the place
        // that it expects.
        unsafe { call_from(self.words.as_ptr(), take_it, (&raw mut taken).cast()) };
        taken
    }
}

/// Copies words by an instruction that AddressSanitizer does not see: between the locals of a stack
/// there are words that it lets nobody read.
///
/// # Safety
///
/// As [`std::ptr::copy_nonoverlapping`].
#[cfg(target_arch = "x86_64")]
unsafe fn copy(from: *const usize, to: *mut usize, count: usize) {
    // SAFETY: the caller's promise; strings are copied upwards.
    unsafe {
        std::arch::asm!(
            "rep movsq",
            inout("rcx") count => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
use std::ptr::copy_nonoverlapping as copy;

/// Takes a backtrace. An unwind out of it would find its way into the copy: it aborts instead.
extern "C" fn take_it(place: *mut c_void) {
    let place: *mut Option<Backtrace> = place.cast();
    let backtrace = Backtrace::force_capture();
    // SAFETY: the place that `Snapshot::backtrace` has lent.
    unsafe { *place = Some(backtrace) };
}

/// Calls `f` with `place`. To an unwinder, the caller of this is what `triple` says.
///
/// # Safety
///
/// `triple` points to RBP, RIP and RBX, and above them is the stack that belongs to them (SNAP-2).
/// `f` does not unwind.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn call_from(
    triple: *const usize,
    f: extern "C" fn(*mut c_void),
    place: *mut c_void,
) {
    std::arch::naked_asm!(
        ".cfi_startproc",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        "mov rbx, rdi",
        ".cfi_remember_state",
        ".cfi_def_cfa rbx, 24",
        ".cfi_offset rbx, -8",
        ".cfi_offset rip, -16",
        ".cfi_offset rbp, -24",
        "mov rdi, rdx",
        "call rsi",
        "nop",
        ".cfi_restore_state",
        "pop rbx",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
    )
}

/// Elsewhere nobody has written it yet: no backtrace.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn call_from(_: *const usize, _: extern "C" fn(*mut c_void), _: *mut c_void) {}
