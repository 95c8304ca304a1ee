//! Who the process runs as: calls that libc has every one of its threads make.
//!
//! Floor 8. Uses: `next`, `elsewhere`. Used by: the names that `interpose!()` defines.
//!
//! For the kernel, users and groups are a thread's; POSIX has them be the process's. So libc sends
//! a signal to each thread in its list but the caller, whom it knows by its control block, and
//! waits until each has answered. A guest's block is not in that list: it would send the signal to
//! its own OS thread, whose answer it never sees. So these are called on that thread's own base.
//!
//! What stays: another OS thread that calls one of them waits for as long as a guest here computes
//! before it waits for something.
//!
//! # Source
//!
//! nptl(7), setuid(2).

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{c_char, c_int, gid_t, size_t, uid_t},
    elsewhere::on_libcs_base,
    next,
};

macro_rules! on_libcs_base {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[doc = concat!(stringify!($name), "(2) or (3).")]
        pub unsafe extern "C-unwind" fn $name($($argument: $type),*) -> c_int {
            // SAFETY: HOOK-1.
            on_libcs_base(|| unsafe { next::$name($($argument),*) })
        }
    )*};
}

on_libcs_base! {
    setuid(user: uid_t);
    setgid(group: gid_t);
    seteuid(user: uid_t);
    setegid(group: gid_t);
    setreuid(real: uid_t, effective: uid_t);
    setregid(real: gid_t, effective: gid_t);
    setresuid(real: uid_t, effective: uid_t, saved: uid_t);
    setresgid(real: gid_t, effective: gid_t, saved: gid_t);
    setgroups(count: size_t, groups: *const gid_t);
    initgroups(name: *const c_char, group: gid_t);
}
