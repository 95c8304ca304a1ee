//! Child processes: waiting for them, and the calls that fork.
//!
//! Floor 8. Uses: `next`, `elsewhere`, pidfd_open(2). Used by: the names that `interpose!()`
//! defines.
//!
//! # Waiting
//!
//! A guest asks first, and does not block. If there is nothing to tell yet,
//!
//! - for the end of one child it waits for a pidfd(2) of it, which is readable then;
//! - for any of several, or for a stop, an OS thread waits in its place, and takes nothing
//!   (`WNOWAIT`): one for all guests that wait for the same. When that thread is told of something,
//!   they all ask again, and one of them gets it.
//!
//! Rejected: a handler of SIGCHLD, which belongs to the program; and pidfds of all children, which
//! nobody has a list of.
//!
//! # Forking
//!
//! glibc's fork walks its list of threads, in which a guest's control block is not, and ends the
//! child if it does not find the caller. So it is called on the base of the guest's OS thread. The
//! child goes on as the guest, on the guest's base; there is no hub there (`FORK-1`), and nobody is
//! a guest; if it forks in its turn, that is called on the same base. posix_spawn(3) needs none of
//! this: its child never comes here.
//!
//! # Invariants
//!
//! - `CHILD-1` A pidfd is of the child that was meant: it is opened first, and then the kernel says
//!   that the child is still there, unwaited for; so its number cannot have gone to another process
//!   before.
//! - `CHILD-2` No frame stands between the caller of vfork(2) and libc's: its child returns into
//!   the caller's frame before the parent does.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`). A waiting OS thread is given numbers only.

use std::{
    arch::naked_asm,
    ffi::CStr,
    mem::MaybeUninit,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    __c::{FILE, c_char, c_int, id_t, idtype_t, pid_t, rusage, siginfo_t, termios, winsize},
    early::{Word, errno, kernel, set_errno},
    elsewhere::{By, Sent, by_another_thread, check, on_libcs_base},
    next,
};
use crate::{
    hub::{
        Hub, Message, fork as forks,
        guest::{Ended, Guest, guest},
        io::Direction,
        park::{WaitOn, Wake},
    },
    reactor::Inbox,
    time::Deadline,
};

macro_rules! kernel {
    ($number:ident, $($argument:expr),*) => {
        kernel(libc::$number, &[$(Word::word($argument)),*])
    };
}

/// waitpid(2).
pub unsafe extern "C-unwind" fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::waitpid(pid, status, options) };
    };
    wait_for(guest, Whom::of_pid(pid), options, libc::WEXITED, |options| {
        // SAFETY: HOOK-1; the kernel's wait4 takes no statistics then.
        unsafe { kernel!(SYS_wait4, pid, status, options, 0) }
    })
}

/// waitid(2).
pub unsafe extern "C-unwind" fn waitid(
    kind: idtype_t,
    id: id_t,
    info: *mut siginfo_t,
    options: c_int,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::waitid(kind, id, info, options) };
    };
    // Whether there was something to tell stands in the answer alone.
    let mut told = MaybeUninit::<siginfo_t>::zeroed();
    let result = wait_for(guest, Whom { kind, id }, options, 0, |options| {
        // SAFETY: the answer is ours.
        let result = unsafe { kernel!(SYS_waitid, kind, id, told.as_mut_ptr(), options, 0) };
        // SAFETY: the kernel has written it, or it is zeroes, which are one.
        let told = unsafe { told.assume_init_ref() };
        // SAFETY: an answer to waitid has the number of the child, or 0.
        let is_told = unsafe { told.si_pid() } != 0;
        match result {
            0 => isize::from(is_told),
            error => error,
        }
    });
    if result < 0 {
        return -1;
    }
    if !info.is_null() {
        // SAFETY: the caller's place for the answer.
        unsafe { info.copy_from_nonoverlapping(told.as_ptr(), 1) };
    }
    0
}

/// wait(2).
pub unsafe extern "C-unwind" fn wait(status: *mut c_int) -> pid_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::wait(status) };
    };
    wait_for(guest, Whom::ANY, 0, libc::WEXITED, |options| {
        // SAFETY: HOOK-1.
        unsafe { kernel!(SYS_wait4, -1, status, options, 0) }
    })
}

/// wait3(2).
pub unsafe extern "C-unwind" fn wait3(
    status: *mut c_int,
    options: c_int,
    usage: *mut rusage,
) -> pid_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::wait3(status, options, usage) };
    };
    wait_for(guest, Whom::ANY, options, libc::WEXITED, |options| {
        // SAFETY: HOOK-1.
        unsafe { kernel!(SYS_wait4, -1, status, options, usage) }
    })
}

/// wait4(2).
pub unsafe extern "C-unwind" fn wait4(
    pid: pid_t,
    status: *mut c_int,
    options: c_int,
    usage: *mut rusage,
) -> pid_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::wait4(pid, status, options, usage) };
    };
    wait_for(guest, Whom::of_pid(pid), options, libc::WEXITED, |options| {
        // SAFETY: HOOK-1.
        unsafe { kernel!(SYS_wait4, pid, status, options, usage) }
    })
}

/// fork(2).
pub unsafe extern "C-unwind" fn fork() -> pid_t {
    // SAFETY: HOOK-1.
    on_libcs_base(|| unsafe { next::fork() })
}

/// daemon(3).
pub unsafe extern "C-unwind" fn daemon(keep_folder: c_int, keep_streams: c_int) -> c_int {
    // SAFETY: HOOK-1.
    on_libcs_base(|| unsafe { next::daemon(keep_folder, keep_streams) })
}

/// forkpty(3).
pub unsafe extern "C-unwind" fn forkpty(
    terminal: *mut c_int,
    name: *mut c_char,
    settings: *const termios,
    size: *const winsize,
) -> pid_t {
    // SAFETY: HOOK-1.
    on_libcs_base(|| unsafe { next::forkpty(terminal, name, settings, size) })
}

/// system(3).
pub unsafe extern "C-unwind" fn system(command: *const c_char) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::system(command) };
    };
    if command.is_null() {
        // SAFETY: HOOK-1. It asks whether there is a shell.
        return unsafe { next::system(command) };
    }
    // SAFETY: the caller's string, which ends with a zero. ELSEWHERE-1: it is copied.
    let command = unsafe { CStr::from_ptr(command) }.to_owned();
    let told = by_another_thread(guest, By::NewThread, move || {
        // SAFETY: HOOK-1, with a string of the same text.
        (unsafe { next::system(command.as_ptr()) }, errno())
    });
    result_of(told)
}

/// popen(3).
pub unsafe extern "C-unwind" fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE {
    // It forked, before glibc 2.29.
    // SAFETY: HOOK-1.
    on_libcs_base(|| unsafe { next::popen(command, mode) })
}

/// pclose(3).
pub unsafe extern "C-unwind" fn pclose(stream: *mut FILE) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::pclose(stream) };
    };
    // SAFETY: the caller closes the stream, hence does not use it any more.
    let stream = unsafe { Sent::new(stream) };
    let told = by_another_thread(guest, By::NewThread, move || {
        // SAFETY: HOOK-1.
        (unsafe { next::pclose(stream.into_inner()) }, errno())
    });
    result_of(told)
}

/// vfork(2).
#[unsafe(naked)]
pub unsafe extern "C-unwind" fn vfork() -> pid_t {
    // The stack is aligned for a call by what is put on it.
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        ".cfi_startproc",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call {choose}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "jmp rax",
        ".cfi_endproc",
        choose = sym choose_vfork,
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        ".cfi_startproc",
        "stp x29, x30, [sp, #-16]!",
        ".cfi_adjust_cfa_offset 16",
        ".cfi_rel_offset x29, 0",
        ".cfi_rel_offset x30, 8",
        "bl {choose}",
        "mov x16, x0",
        "ldp x29, x30, [sp], #16",
        ".cfi_adjust_cfa_offset -16",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "br x16",
        ".cfi_endproc",
        choose = sym choose_vfork,
    );
}

/// Whom a vfork(2) calls: of a guest's, fork(2). The child of a real one has the parent's memory
/// while the parent's thread stands still. There a guest's blocking call would resume other
/// guests, in the wrong process.
extern "C" fn choose_vfork() -> *mut () {
    if guest().is_some() { fork as *const () as *mut () } else { next::vfork() }
}

/// What a call of another thread has given, with its errno; -1 if there is nothing.
fn result_of(told: Result<(c_int, c_int), c_int>) -> c_int {
    let (result, errno) = told.unwrap_or_else(|errno| (-1, errno));
    if result == -1 {
        set_errno(errno);
    }
    result
}

/// The children that are waited for, as waitid(2) names them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Whom {
    kind: idtype_t,
    id: id_t,
}

impl Whom {
    const ANY: Whom = Whom { kind: libc::P_ALL, id: 0 };

    /// As waitpid(2) names them.
    fn of_pid(pid: pid_t) -> Whom {
        match pid {
            -1 => Whom::ANY,
            0 => Whom { kind: libc::P_PGID, id: rustix::process::getpgrp().as_raw_pid() as id_t },
            1.. => Whom { kind: libc::P_PID, id: pid as id_t },
            _ => Whom { kind: libc::P_PGID, id: pid.unsigned_abs() },
        }
    }
}

/// How often a guest asks that nobody can tell.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// What is no end of a child.
const STOPS: c_int = libc::WSTOPPED | libc::WCONTINUED;

/// Has `ask` ask the kernel without blocking until there is something to tell, or an error.
/// `implied` is what waitid(2) would be asked for besides.
fn wait_for(
    guest: Guest,
    whom: Whom,
    options: c_int,
    implied: c_int,
    mut ask: impl FnMut(c_int) -> isize,
) -> c_int {
    let mut asked = || ask(options | libc::WNOHANG);
    loop {
        let told = asked();
        if told != 0 || options & libc::WNOHANG != 0 {
            return super::early::returned(told);
        }
        let ended = match whom.kind {
            libc::P_PIDFD if options & STOPS == 0 => {
                guest.wait_fd(whom.id as c_int, Direction::Read, Deadline::NEVER)
            }
            libc::P_PID if options & STOPS == 0 => {
                match Pid::from_raw(whom.id as pid_t)
                    .map(|pid| pidfd_open(pid, PidfdFlags::empty()))
                {
                    Some(Ok(pidfd)) => {
                        // INVARIANT: CHILD-1.
                        let told = asked();
                        if told != 0 {
                            return super::early::returned(told);
                        }
                        use std::os::fd::AsRawFd;
                        guest.wait_fd(pidfd.as_raw_fd(), Direction::Read, Deadline::NEVER)
                    }
                    // An old kernel; or a thread, which some wait for.
                    _ => watch(guest, whom, options | implied),
                }
            }
            _ => watch(guest, whom, options | implied),
        };
        let ended = match ended {
            // Stops are no reason for a pidfd to be readable; and not each is known to the poller.
            Ended::Refused(Errno::PERM) => watch(guest, whom, options | implied),
            ended => ended,
        };
        if let Err(errno) = check(ended) {
            set_errno(errno);
            return -1;
        }
    }
}

/// An OS thread that waits, and whom it is to wake.
struct Watch {
    whom: Whom,
    options: c_int,
    waiting: Arc<Mutex<Vec<Waiting>>>,
}

/// A guest that waits for news, to be woken when this is dropped.
struct Waiting {
    inbox: Arc<Inbox<Message>>,
    wake: Wake,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A closed inbox: the run has ended, and with it whoever waits.
        let _ = self.inbox.push(Message::Wake(self.wake));
        self.inbox.drop_handle();
    }
}

/// How many forks deep children are watched by threads.
const GENERATIONS: usize = 16;

/// The threads that wait, one list for each generation of forks: the child of a fork has none of
/// its parent's threads, and its parent's lock may be held by nobody. Held for a few instructions.
static WATCHES: [Mutex<Vec<Watch>>; GENERATIONS] = [const { Mutex::new(Vec::new()) }; GENERATIONS];

/// Parks until there may be something to tell of `whom`.
fn watch(guest: Guest, whom: Whom, options: c_int) -> Ended {
    // Only the parent's own thread can be told, which is this one.
    let cannot = options & libc::__WNOTHREAD != 0;
    let Some(watches) = WATCHES.get(forks::generation()).filter(|_| !cannot) else {
        return rest(guest);
    };
    // It takes nothing: guests do.
    let options = options | libc::WNOWAIT;
    let mut has_begun = true;
    let ended = guest.wait(WaitOn::Offload, Deadline::NEVER, |hub: &Hub, wake: Wake| {
        let inbox = Arc::clone(hub.inbox());
        // A hub that sleeps must know that somebody outside will wake it.
        inbox.add_handle();
        let waiting = Waiting { inbox, wake };
        let mut list = watches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) =
            list.iter().find(|watch| watch.whom == whom && watch.options == options)
        {
            watch.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
            return;
        }
        let all = Arc::new(Mutex::new(vec![waiting]));
        let kept = Arc::clone(&all);
        let name = String::from("greenloop-wait");
        let begun = thread::Builder::new().name(name).spawn(move || {
            // Taken apart here, so that it is dropped with the closure, should no thread start.
            let all = all;
            // SAFETY: it writes nothing, and takes nothing.
            let _ = unsafe { kernel!(SYS_waitid, whom.kind, whom.id, 0, options, 0) };
            let mut list = watches.lock().unwrap_or_else(PoisonError::into_inner);
            list.retain(|watch| !Arc::ptr_eq(&watch.waiting, &all));
            drop(list);
            // Nobody finds it in the list any more.
            let news = std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner));
            drop(news);
        });
        has_begun = begun.is_ok();
        if has_begun {
            list.push(Watch { whom, options, waiting: kept });
        }
    });
    if has_begun { ended } else { rest(guest) }
}

/// Parks for a while, where nobody can tell.
fn rest(guest: Guest) -> Ended {
    match guest.sleep(guest.now() + ASK_AGAIN) {
        Ended::TimedOut => Ended::Woken,
        ended => ended,
    }
}
