//! What only instructions can do: a system call that rustix does not offer in the form needed
//! here, and what is good for the processor after any.
//!
//! Floor 2. Uses: the `syscall` instruction. Used by: `epoll`, `hub::io`.
//!
//! `epoll_pwait2` takes nanoseconds. rustix offers it only together with the promise that the
//! kernel has it, and libc's wrapper is a name that can be interposed.

#![expect(unsafe_code, reason = "inline assembly")]
//! # Safety
//!
//! The wrapper keeps the kernel's contract: live pointers, true lengths. What has no such contract
//! leaves memory and registers as they were.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::{event::epoll, io::Errno, time::Timespec};

#[cfg(target_arch = "x86_64")]
const EPOLL_PWAIT2: usize = 441;
#[cfg(target_arch = "aarch64")]
const EPOLL_PWAIT2: usize = 441;

/// Waits for events on `epoll` into the spare capacity of `events`, with a timeout in nanoseconds.
///
/// # Errors
///
/// `NOSYS` before Linux 5.11 and in some emulators; otherwise those of epoll_wait(2).
pub(super) fn epoll_pwait2(
    epoll: BorrowedFd<'_>,
    events: &mut Vec<epoll::Event>,
    timeout: &Timespec,
) -> Result<usize, Errno> {
    events.clear();
    let spare = events.spare_capacity_mut();
    let arguments = [
        epoll.as_raw_fd() as usize,
        spare.as_mut_ptr().expose_provenance(),
        spare.len(),
        std::ptr::from_ref(timeout).expose_provenance(),
        0,
        0,
    ];
    // SAFETY: the kernel writes at most `spare.len()` events to memory that is ours and writable,
    // and reads one timespec; it keeps neither pointer. A null mask changes no signal.
    let result = unsafe { syscall6(EPOLL_PWAIT2, arguments) };
    if result < 0 {
        return Err(Errno::from_raw_os_error(-result as i32));
    }
    // SAFETY: the kernel has initialised that many events at the front.
    unsafe { events.set_len(result as usize) };
    Ok(result as usize)
}

/// # Safety
///
/// Whatever the system call demands of its arguments.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn syscall6(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel's convention: number and result in rax, arguments in rdi, rsi, rdx, r10,
    // r8, r9; rcx and r11 are lost; the stack is untouched.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// # Safety
///
/// Whatever the system call demands of its arguments.
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn syscall6(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel's convention: number in x8, arguments in x0 to x5, result in x0; the stack
    // is untouched.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a[0] as isize => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack),
        );
    }
    result
}

/// Gives the processor's return predictor something to predict from, after a system call.
///
/// A processor predicts each `ret` from a stack of the `call`s that it has seen. The kernel's own
/// calls, deeper than that stack is, have overwritten those of the program. On an AMD Zen 4 whose
/// kernel returns by "Safe RET" (`spec_rstack_overflow`), the first `ret` of the program after a
/// system call then slows down everything that follows, most of all the next system call: an echo
/// server in one function, without a `ret`, took 4.3 us a request, and 5.2 with one. A coroutine
/// suspends by a `ret`. After eight calls that never return it takes 4.4. They cost 3 ns where
/// they gain nothing.
///
/// # Source
///
/// Found by measuring, as is the number: two gain half, thirty-two no more than eight. The kernel
/// fills the predictor in the same way, for safety ("RSB filling", `nospec-branch.h`).
#[inline(always)]
pub(crate) fn refill_return_predictor() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: each call pushes its return address below the stack pointer and goes on behind the
    // `int3`, which nothing executes; the last instruction takes them all off again. Without
    // `nostack` the compiler keeps nothing there. No register is changed but the flags.
    unsafe {
        std::arch::asm!(
            "call 22f",
            "int3",
            "22: call 23f",
            "int3",
            "23: call 24f",
            "int3",
            "24: call 25f",
            "int3",
            "25: call 26f",
            "int3",
            "26: call 27f",
            "int3",
            "27: call 28f",
            "int3",
            "28: call 29f",
            "int3",
            "29: add rsp, 64",
        );
    }
}
