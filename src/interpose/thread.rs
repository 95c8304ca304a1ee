//! OS threads, seen from a guest: starting and joining them, ending, and loading libraries.
//!
//! Floor 8. Uses: `next`, `elsewhere`, pidfd_open(2). Used by: the names that `interpose!()`
//! defines.
//!
//! # Joining
//!
//! A guest asks whether the thread has ended. If not, it waits for a pidfd(2) of the thread, which
//! Linux has since 6.9, and asks again; before, it asks every few milliseconds. Nothing is taken
//! meanwhile: a guest that is killed leaves the thread as joinable as it was. Rejected: to have
//! another OS thread join, which would have taken it by then.
//!
//! # Loading libraries
//!
//! The loader walks glibc's list of threads, locks by thread id, and keeps its error for the
//! thread. So it is called on the base of the guest's OS thread, and the error is fetched there,
//! for dlerror(3) to find. Constructors run there, too, and really block: the loader's lock is
//! held. Thread-locals that the library has brought are then written into the blocks of all virtual
//! threads, as the loader does for the threads that it knows.
//!
//! dlopen(3) looks into the folders that the library of its caller names, and knows it by the
//! return address. The hook leaves that address where it is: it is a jump. Of a call that must come
//! back, the hook looks into those folders itself: of a guest's, and of anybody's once there are
//! blocks.
//!
//! # Invariants
//!
//! - `LOAD-1` While there has never been a block, no frame stands between dlopen(3) and its caller,
//!   and all registers that may hold arguments are as they were. From then on, whoever calls is
//!   told of a library when its thread-locals are in all blocks (`BLOCK-4`); but a call that had
//!   begun before, on another thread, is not waited for.
//!
//! # Source
//!
//! glibc 2.36 `nptl/pthread_join_common.c`, `dlfcn/dlerror.c`, `elf/dl-load.c` (`_dl_map_object`).

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use std::{
    arch::naked_asm,
    cell::RefCell,
    ffi::{CStr, CString, OsStr},
    mem::transmute,
    os::{
        fd::AsRawFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    panic::resume_unwind,
    path::PathBuf,
    ptr::null_mut,
    time::Duration,
};

use rustix::{
    process::{Pid, PidfdFlags, pidfd_open},
    time::{ClockId, clock_gettime},
};

use super::{
    __c::{
        Start, StartOfC11, c_char, c_int, c_long, c_void, clockid_t, pthread_attr_t, pthread_t,
        timespec,
    },
    early::{THRD_ERROR, errno, set_errno},
    elf,
    elsewhere::{check, on_libcs_base},
    next,
};
use crate::{
    hub::{
        guest::{Ended, GUEST_TIDS, Guest, guest, is_at_home},
        io::Direction,
    },
    thread::{begin_load, blocks_are_there, end_load},
    time::Deadline,
};

/// Calls a function that says where to go on, and jumps there, with the caller's arguments and its
/// return address as they were, and that address as one argument more.
#[cfg(target_arch = "x86_64")]
macro_rules! jump_to {
    ($choose:ident, $x86_64:literal, $aarch64:literal) => {
        // Three words, and the stack is aligned for a call.
        naked_asm!(
            ".cfi_startproc",
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "push rsi",
            ".cfi_adjust_cfa_offset 8",
            "push rdx",
            ".cfi_adjust_cfa_offset 8",
            "call {choose}",
            "pop rdx",
            ".cfi_adjust_cfa_offset -8",
            "pop rsi",
            ".cfi_adjust_cfa_offset -8",
            "pop rdi",
            ".cfi_adjust_cfa_offset -8",
            concat!("mov ", $x86_64, ", [rsp]"),
            "jmp rax",
            ".cfi_endproc",
            choose = sym $choose,
        )
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! jump_to {
    ($choose:ident, $x86_64:literal, $aarch64:literal) => {
        naked_asm!(
            ".cfi_startproc",
            "stp x29, x30, [sp, #-48]!",
            ".cfi_adjust_cfa_offset 48",
            ".cfi_rel_offset x29, 0",
            ".cfi_rel_offset x30, 8",
            "stp x0, x1, [sp, #16]",
            "str x2, [sp, #32]",
            "bl {choose}",
            "mov x16, x0",
            "ldr x2, [sp, #32]",
            "ldp x0, x1, [sp, #16]",
            "ldp x29, x30, [sp], #48",
            ".cfi_adjust_cfa_offset -48",
            ".cfi_restore x29",
            ".cfi_restore x30",
            concat!("mov ", $aarch64, ", x30"),
            "br x16",
            ".cfi_endproc",
            choose = sym $choose,
        )
    };
}

/// pthread_create(3).
pub unsafe extern "C-unwind" fn pthread_create(
    thread: *mut pthread_t,
    attributes: *const pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: HOOK-1.
    on_libcs_base(|| unsafe { next::pthread_create(thread, attributes, start, argument) })
}

/// pthread_join(3).
pub unsafe extern "C-unwind" fn pthread_join(thread: pthread_t, value: *mut *mut c_void) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::pthread_join(thread, value) };
    };
    // SAFETY: HOOK-1.
    unsafe { join(guest, thread, value, Deadline::NEVER) }
}

/// pthread_timedjoin_np(3).
pub unsafe extern "C-unwind" fn pthread_timedjoin_np(
    thread: pthread_t,
    value: *mut *mut c_void,
    deadline: *const timespec,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::pthread_timedjoin_np(thread, value, deadline) };
    };
    // SAFETY: the caller's time.
    let until = unsafe { on_the_hubs_clock(guest, libc::CLOCK_REALTIME, deadline) };
    // SAFETY: HOOK-1.
    until.map_or_else(|errno| errno, |until| unsafe { join(guest, thread, value, until) })
}

/// pthread_clockjoin_np(3).
pub unsafe extern "C-unwind" fn pthread_clockjoin_np(
    thread: pthread_t,
    value: *mut *mut c_void,
    clock: clockid_t,
    deadline: *const timespec,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::pthread_clockjoin_np(thread, value, clock, deadline) };
    };
    // SAFETY: the caller's time.
    let until = unsafe { on_the_hubs_clock(guest, clock, deadline) };
    // SAFETY: HOOK-1.
    until.map_or_else(|errno| errno, |until| unsafe { join(guest, thread, value, until) })
}

/// thrd_create(3); as pthread_create(3).
pub unsafe extern "C-unwind" fn thrd_create(
    thread: *mut pthread_t,
    start: StartOfC11,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: HOOK-1.
    on_libcs_base(|| unsafe { next::thrd_create(thread, start, argument) })
}

/// thrd_exit(3).
pub unsafe extern "C-unwind" fn thrd_exit(value: c_int) -> ! {
    if guest().is_none() {
        // SAFETY: HOOK-1.
        unsafe { next::thrd_exit(value) }
    }
    // SAFETY: HOOK-1: a thread of C11 ends with a number in place of a pointer.
    unsafe { pthread_exit(std::ptr::without_provenance_mut(value as usize)) }
}

/// thrd_join(3).
pub unsafe extern "C-unwind" fn thrd_join(thread: pthread_t, value: *mut c_int) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::thrd_join(thread, value) };
    };
    let mut result = null_mut();
    // SAFETY: HOOK-1; it has the same handles as pthread_join.
    if unsafe { join(guest, thread, &raw mut result, Deadline::NEVER) } != 0 {
        return THRD_ERROR;
    }
    if !value.is_null() {
        // SAFETY: the caller's place. A thread of C11 ends with a number.
        unsafe { value.write(result.addr() as c_int) };
    }
    0
}

/// pthread_exit(3).
pub unsafe extern "C-unwind" fn pthread_exit(value: *mut c_void) -> ! {
    if guest().is_none() {
        // SAFETY: HOOK-1.
        unsafe { next::pthread_exit(value) }
    }
    if cfg!(panic = "abort") {
        let _ = rustix::io::write(
            rustix::stdio::stderr(),
            b"greenloop: pthread_exit on a virtual thread has to unwind, and panic = \"abort\" \
              forbids it; return from the thread's function instead; aborting\n",
        );
        std::process::abort();
    }
    // As a panic that nobody reports: what C has registered for its frames runs, as it would.
    resume_unwind(Box::new(PthreadExit(value.expose_provenance())))
}

/// pthread_getattr_np(3).
pub unsafe extern "C-unwind" fn pthread_getattr_np(
    thread: pthread_t,
    attributes: *mut pthread_attr_t,
) -> c_int {
    // SAFETY: it only tells who calls.
    if guest().is_none() || thread != unsafe { libc::pthread_self() } {
        // SAFETY: HOOK-1.
        return on_libcs_base(|| unsafe { next::pthread_getattr_np(thread, attributes) });
    }
    // The stack is where this frame is.
    let here = &raw const attributes;
    let Some(stack) = crate::coro::stack_around(here.addr()) else { return libc::ENOENT };
    // SAFETY: the caller's place for attributes.
    match unsafe { libc::pthread_attr_init(attributes) } {
        0 => {}
        error => return error,
    }
    let lowest = std::ptr::with_exposed_provenance_mut(stack.start);
    // SAFETY: attributes that have been initialised; the numbers are only kept.
    match unsafe { libc::pthread_attr_setstack(attributes, lowest, stack.end - stack.start) } {
        0 => {}
        error => return error,
    }
    // SAFETY: as above.
    unsafe { libc::pthread_attr_setguardsize(attributes, crate::coro::GUARD_BYTES) }
}

/// dlerror(3).
pub unsafe extern "C-unwind" fn dlerror() -> *mut c_char {
    if is_at_home() {
        // SAFETY: HOOK-1.
        return unsafe { next::dlerror() };
    }
    // Valid until the next call, as it is said to be.
    let told = LOAD_ERROR.try_with(|error| {
        let mut error = error.borrow_mut();
        error.told = error.next.take();
        error.told.as_ref().map(|text| text.as_ptr().cast_mut())
    });
    match told {
        Ok(Some(text)) => text,
        // SAFETY: HOOK-1. Other functions of the loader fail on the guest's own base.
        _ => unsafe { next::dlerror() },
    }
}

/// dlopen(3). It looks for a name in the folders that the library of its caller says, which it
/// tells by the return address.
#[unsafe(naked)]
pub unsafe extern "C-unwind" fn dlopen(_path: *const c_char, _mode: c_int) -> *mut c_void {
    jump_to!(choose_dlopen, "rdx", "x2")
}

/// dlmopen(3); as dlopen(3).
#[unsafe(naked)]
pub unsafe extern "C-unwind" fn dlmopen(
    _space: c_long,
    _path: *const c_char,
    _mode: c_int,
) -> *mut c_void {
    jump_to!(choose_dlmopen, "rcx", "x3")
}

extern "C" fn choose_dlopen() -> *mut () {
    if must_come_back() { dlopen_and_come_back as *const () as *mut () } else { next::dlopen() }
}

extern "C" fn choose_dlmopen() -> *mut () {
    if must_come_back() { dlmopen_and_come_back as *const () as *mut () } else { next::dlmopen() }
}

/// Whether there is something to do after a library was loaded (`LOAD-1`).
fn must_come_back() -> bool {
    guest().is_some() || blocks_are_there()
}

/// What pthread_exit(3) ends a virtual thread with. Whoever joins it gets this.
#[derive(Debug)]
#[expect(dead_code, reason = "shown by Debug")]
struct PthreadExit(usize);

/// How often a guest asks whether a thread has ended that cannot be waited for.
const ASK_AGAIN: Duration = Duration::from_millis(2);

/// Joins `thread`, as pthread_join(3).
///
/// # Safety
///
/// That of pthread_join(3).
unsafe fn join(
    guest: Guest,
    thread: pthread_t,
    value: *mut *mut c_void,
    deadline: Deadline,
) -> c_int {
    // SAFETY: it only tells who calls.
    if thread == unsafe { libc::pthread_self() } {
        return libc::EDEADLK;
    }
    loop {
        // SAFETY: the caller's promise.
        match unsafe { libc::pthread_tryjoin_np(thread, value) } {
            libc::EBUSY => {}
            result => return result,
        }
        // SAFETY: it has not ended, or has not been joined: the handle is valid.
        let pidfd = match unsafe { thread_id(thread) } {
            Some(id) if GUEST_TIDS.contains(&id) => return libc::EINVAL,
            Some(id) => Pid::from_raw(id).and_then(|id| pidfd_open(id, PIDFD_THREAD).ok()),
            None => None,
        };
        let ended = match pidfd {
            Some(pidfd) => {
                // It had not ended when the pidfd was opened, or else it has now, and is joined: so
                // its number has not gone to another thread before.
                // SAFETY: the caller's promise.
                match unsafe { libc::pthread_tryjoin_np(thread, value) } {
                    libc::EBUSY => {}
                    result => return result,
                }
                guest.wait_fd(pidfd.as_raw_fd(), Direction::Read, deadline)
            }
            None => {
                let soon = guest.now() + ASK_AGAIN;
                match guest.sleep(soon.min(deadline)) {
                    Ended::TimedOut if soon < deadline => Ended::Woken,
                    ended => ended,
                }
            }
        };
        if let Err(errno) = check(ended) {
            return errno;
        }
    }
}

/// A pidfd of one thread, not of a process.
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL as u32);

/// The kernel's number of `thread`, by way of its clock, whose name is made of it. None: it has
/// ended.
///
/// # Safety
///
/// It has not been joined.
unsafe fn thread_id(thread: pthread_t) -> Option<i32> {
    let mut clock = 0;
    // SAFETY: the caller's promise.
    let error = unsafe { libc::pthread_getcpuclockid(thread, &raw mut clock) };
    (error == 0).then_some(!(clock >> 3))
}

/// A time of C's on the hub's clock.
///
/// # Safety
///
/// Null, or a time.
unsafe fn on_the_hubs_clock(
    guest: Guest,
    clock: clockid_t,
    time: *const timespec,
) -> Result<Deadline, c_int> {
    // SAFETY: the caller's promise.
    let Some(time) = (unsafe { time.as_ref() }) else { return Ok(Deadline::NEVER) };
    let clock = match clock {
        libc::CLOCK_REALTIME => ClockId::Realtime,
        libc::CLOCK_MONOTONIC => ClockId::Monotonic,
        _ => return Err(libc::EINVAL),
    };
    if !(0..1_000_000_000).contains(&time.tv_nsec) {
        return Err(libc::EINVAL);
    }
    let now = clock_gettime(clock);
    let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
    let left = ns(time.tv_sec, time.tv_nsec) - ns(now.tv_sec, now.tv_nsec);
    let left = u64::try_from(left.max(0)).unwrap_or(u64::MAX);
    Ok(guest.now() + Duration::from_nanos(left))
}

/// What the loader has said of a guest's call.
struct LoadError {
    /// For the next call of dlerror(3).
    next: Option<CString>,
    /// What the last call gave.
    told: Option<CString>,
}

thread_local! {
    static LOAD_ERROR: RefCell<LoadError> =
        const { RefCell::new(LoadError { next: None, told: None }) };
}

unsafe extern "C-unwind" fn dlopen_and_come_back(
    path: *const c_char,
    mode: c_int,
    caller: usize,
) -> *mut c_void {
    // SAFETY: NEXT-1.
    let next = unsafe {
        transmute::<*mut (), unsafe extern "C-unwind" fn(*const c_char, c_int) -> *mut c_void>(
            next::dlopen(),
        )
    };
    let mut room = [0; PATH_BYTES];
    // SAFETY: the caller's string, or null.
    let path = unsafe { found_by_caller(path, caller, &mut room) };
    // SAFETY: HOOK-1.
    load(|| unsafe { next(path, mode) })
}

unsafe extern "C-unwind" fn dlmopen_and_come_back(
    space: c_long,
    path: *const c_char,
    mode: c_int,
    caller: usize,
) -> *mut c_void {
    type Dlmopen = unsafe extern "C-unwind" fn(c_long, *const c_char, c_int) -> *mut c_void;
    // SAFETY: NEXT-1.
    let next = unsafe { transmute::<*mut (), Dlmopen>(next::dlmopen()) };
    let mut room = [0; PATH_BYTES];
    // SAFETY: the caller's string, or null.
    let path = unsafe { found_by_caller(path, caller, &mut room) };
    // SAFETY: HOOK-1.
    load(|| unsafe { next(space, path, mode) })
}

/// Has the loader called, and tells all blocks of what it has loaded (`LOAD-1`).
fn open_and_tell(open: impl FnOnce() -> *mut c_void) -> *mut c_void {
    begin_load();
    let library = open(); // A plain frame: HOOK-2.
    let errno = errno();
    end_load();
    set_errno(errno);
    library
}

/// Has the loader do something, which gives `failed` if it cannot. On a base that is not the OS
/// thread's own, what it says then is kept.
fn ask_loader<R: Copy + PartialEq>(failed: R, ask: impl FnOnce() -> R) -> R {
    if is_at_home() {
        return ask();
    }
    let (result, error) = on_libcs_base(|| {
        let result = ask();
        if result != failed {
            return (result, None);
        }
        // SAFETY: HOOK-1.
        let text = unsafe { next::dlerror() };
        // SAFETY: null, or a string of the loader's, valid until the next call.
        let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned());
        (result, text)
    });
    // In a destructor of a thread-local, after that of the errors, nobody asks.
    let _ = LOAD_ERROR.try_with(|kept| kept.borrow_mut().next = error);
    result
}

/// Has the loader load.
fn load(open: impl FnOnce() -> *mut c_void) -> *mut c_void {
    ask_loader(null_mut(), || open_and_tell(open))
}

/// dlclose(3). Destructors of what it unloads run under the loader's lock, so they wait with all of
/// the OS thread, as constructors do in dlopen(3).
pub unsafe extern "C-unwind" fn dlclose(library: *mut c_void) -> c_int {
    if is_at_home() {
        // SAFETY: HOOK-1.
        return unsafe { next::dlclose(library) };
    }
    // SAFETY: HOOK-1.
    let failed = ask_loader(true, || unsafe { next::dlclose(library) } != 0);
    if failed { -1 } else { 0 }
}

/// As many bytes as a path has (`PATH_MAX`).
const PATH_BYTES: usize = libc::PATH_MAX as usize;

/// Where a library lies that is asked for by `name`: in `room`, if it has no folder in its name,
/// and is in one of those that the library of its caller names. Else, that is for the loader to
/// say.
///
/// # Safety
///
/// Null, or a string that ends with a zero.
unsafe fn found_by_caller(
    name: *const c_char,
    caller: usize,
    room: &mut [u8; PATH_BYTES],
) -> *const c_char {
    if name.is_null() {
        return name;
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(name) };
    let found = in_folders_of(text, caller);
    let Some(found) = found.as_ref().map(|path| path.as_bytes_with_nul()) else { return name };
    let Some(place) = room.get_mut(..found.len()) else { return name };
    place.copy_from_slice(found);
    room.as_ptr().cast()
}

/// Where a library is, in the folders that the library of its caller names.
fn in_folders_of(name: &CStr, caller: usize) -> Option<CString> {
    if name.to_bytes().contains(&b'/') || name.is_empty() {
        return None;
    }
    let program = std::env::current_exe().ok();
    let (folders, origin) = elf::objects(|object| {
        if !object.contains(caller) {
            return None;
        }
        let path = match object.name().to_bytes() {
            b"" => program.clone()?,
            path => PathBuf::from(OsStr::from_bytes(path)),
        };
        Some((object.run_path()?, path.parent()?.to_owned()))
    })?;
    let folders = folders.split(|byte| *byte == b':').map(|folder| {
        let folder = String::from_utf8_lossy(folder).into_owned();
        let origin = origin.to_string_lossy();
        PathBuf::from(folder.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
    });
    let mut files = folders.map(|folder| folder.join(OsStr::from_bytes(name.to_bytes())));
    let file = files.find(|file| file.is_file())?;
    CString::new(file.into_os_string().into_vec()).ok()
}
