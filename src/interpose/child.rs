//! Child processes.
//!
//! Floor 8. Uses: `next`. Used by: the names that `interpose!()` defines.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{FILE, c_char, c_int, id_t, idtype_t, pid_t, rusage, siginfo_t, termios, winsize},
    next,
};

/// waitpid(2).
pub unsafe extern "C-unwind" fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    // SAFETY: HOOK-1.
    unsafe { next::waitpid(pid, status, options) }
}

/// waitid(2).
pub unsafe extern "C-unwind" fn waitid(
    kind: idtype_t,
    id: id_t,
    info: *mut siginfo_t,
    options: c_int,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::waitid(kind, id, info, options) }
}

/// wait(2).
pub unsafe extern "C-unwind" fn wait(status: *mut c_int) -> pid_t {
    // SAFETY: HOOK-1.
    unsafe { next::wait(status) }
}

/// wait3(2).
pub unsafe extern "C-unwind" fn wait3(
    status: *mut c_int,
    options: c_int,
    usage: *mut rusage,
) -> pid_t {
    // SAFETY: HOOK-1.
    unsafe { next::wait3(status, options, usage) }
}

/// wait4(2).
pub unsafe extern "C-unwind" fn wait4(
    pid: pid_t,
    status: *mut c_int,
    options: c_int,
    usage: *mut rusage,
) -> pid_t {
    // SAFETY: HOOK-1.
    unsafe { next::wait4(pid, status, options, usage) }
}

/// fork(2).
pub unsafe extern "C-unwind" fn fork() -> pid_t {
    // SAFETY: HOOK-1.
    unsafe { next::fork() }
}

/// daemon(3).
pub unsafe extern "C-unwind" fn daemon(keep_folder: c_int, keep_streams: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::daemon(keep_folder, keep_streams) }
}

/// forkpty(3).
pub unsafe extern "C-unwind" fn forkpty(
    terminal: *mut c_int,
    name: *mut c_char,
    settings: *const termios,
    size: *const winsize,
) -> pid_t {
    // SAFETY: HOOK-1.
    unsafe { next::forkpty(terminal, name, settings, size) }
}

/// system(3).
pub unsafe extern "C-unwind" fn system(command: *const c_char) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::system(command) }
}

/// popen(3).
pub unsafe extern "C-unwind" fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: HOOK-1.
    unsafe { next::popen(command, mode) }
}

/// pclose(3).
pub unsafe extern "C-unwind" fn pclose(stream: *mut FILE) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pclose(stream) }
}
