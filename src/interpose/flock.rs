//! Locks on files: flock(2), lockf(3). Those of fcntl(2) are in `close`.
//!
//! Floor 8. Uses: `call`, `next`. Used by: the names that `interpose!()` defines; `close`.
//!
//! No event tells when somebody lets a lock go, so it is tried again and again. A deadlock between
//! processes is not found out, then: each waits until it is killed.

#![expect(unsafe_code, reason = "C's signatures, and system calls with pointers of the user's")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`): to the next definition, or to the system call
//! of the same name.

use std::{os::fd::RawFd, time::Duration};

use libc::{F_LOCK, F_SETLK, LOCK_NB, LOCK_UN};
use rustix::io::Errno;

use super::{
    __c::{c_int, off_t},
    call, descriptors,
    early::Word,
    kernel::{answer, on},
    next,
};
use crate::hub::guest::{Guest, guest};

/// The pauses between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// flock(2).
pub unsafe extern "C-unwind" fn flock(fd: c_int, operation: c_int) -> c_int {
    let Some(guest) = guest().filter(|_| operation & (LOCK_NB | LOCK_UN) == 0) else {
        // SAFETY: HOOK-1.
        return unsafe { next::flock(fd, operation) };
    };
    answer(again_and_again(guest, fd, || {
        // SAFETY: no memory is touched.
        unsafe { on(fd, libc::SYS_flock, [(operation | LOCK_NB).word(), 0, 0, 0, 0]) }
    })) as c_int
}

/// lockf(3).
pub unsafe extern "C-unwind" fn lockf(fd: c_int, command: c_int, length: off_t) -> c_int {
    let Some(guest) = guest().filter(|_| command == F_LOCK) else {
        // SAFETY: HOOK-1.
        return unsafe { next::lockf(fd, command, length) };
    };
    // From the file's position on, as lockf(3) has it.
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_CUR as i16,
        l_start: 0,
        l_len: length,
        l_pid: 0,
    };
    answer(again_and_again(guest, fd, || {
        // SAFETY: a live lock, which the kernel reads.
        unsafe { on(fd, libc::SYS_fcntl, [F_SETLK.word(), (&raw const lock).word(), 0, 0, 0]) }
    })) as c_int
}

/// Tries to get a lock on `fd` until it works, or fails for another reason than that somebody has
/// it. A number that is closed meanwhile is `EBADF`, whatever it names by then.
pub(super) fn again_and_again(
    guest: Guest,
    fd: RawFd,
    mut attempt: impl FnMut() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    call::may_go_on(guest)?;
    let age = descriptors::age_of(fd);
    let mut pause = PAUSE_MIN;
    loop {
        match attempt() {
            Err(Errno::AGAIN | Errno::ACCESS) => {
                // A close tells those ages apart that are asked for by who waits.
                descriptors::is_ours();
                call::sleep(guest, guest.now() + pause)?;
                descriptors::is_open(fd, age)?;
            }
            Err(Errno::INTR) => {}
            done => return done,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
