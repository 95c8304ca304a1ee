//! What the names of libc do once a program has said `greenloop::interpose!()`.
//!
//! Floor 8. Uses: everything below; `thread`. Used by: the macro. Knows nothing of: who calls.
//!
//! # Map
//!
//! | file | what it is |
//! |---|---|
//! | `table` | the one list of hooked functions: names, aliases, signatures |
//! | `next` | the next definition of each, found when the program starts |
//! | `early` | what stands in for it until then |
//! | `elf` | the loaded objects and their symbols |
//! | `self_test` | whether the definitions are there, and win |
//! | `receive`, `send`, `accept`, `connect`, `poll`, `sleep` | calls that wait |
//! | `close`, `create` | calls that change what a descriptor's number means |
//! | `futex`, `locks` | waiting for one another |
//! | `names`, `child`, `thread` | resolver, child processes, OS threads |
//!
//! # How a call comes here
//!
//! ```text
//! std, libpq.so, …  ──"recv"──▶  recv in the final binary  ──▶  __hooks::recv (in `receive`)
//!                                                                 │ no guest: next::recv ──▶ libc
//!                                                                 └ a guest: try, park, try again
//! ```
//!
//! The linker takes the binary's own definition for what is linked into it (std), and the loader
//! takes it for shared libraries, because the executable comes first and exports what libc exports.
//!
//! # Invariants
//!
//! - `HOOK-1` A hook is called as libc's function of that name would be, so its arguments meet the
//!   contract of that function's manual page, and it hands them to the next definition of the same
//!   name unchanged.
//! - `HOOK-2` The frames of a hook on the way to the next definition are plain: they drop nothing
//!   and catch nothing. So a thread that is cancelled, or that exits, in the next definition may be
//!   unwound through them (`extern "C-unwind"`). No panic leaves a hook.
//!
//! # Source
//!
//! ld.so(8), dlsym(3).

#[macro_use]
mod table;

mod early;
mod elf;
mod next;
mod self_test;

mod accept;
mod child;
mod close;
mod connect;
mod create;
mod futex;
mod locks;
mod names;
mod poll;
mod receive;
mod send;
mod sleep;
mod thread;

/// The types in the list of hooked functions.
#[doc(hidden)]
pub mod __c {
    pub use libc::{
        FILE, addrinfo, c_char, c_int, c_long, c_uchar, c_uint, c_ulong, c_void, clockid_t,
        epoll_event, fd_set, hostent, id_t, idtype_t, iovec, loff_t, mmsghdr, msghdr, nfds_t,
        off_t, off64_t, pid_t, pollfd, pthread_attr_t, pthread_barrier_t, pthread_cond_t,
        pthread_mutex_t, pthread_rwlock_t, pthread_t, rusage, sem_t, siginfo_t, sigset_t, size_t,
        sockaddr, socklen_t, ssize_t, termios, timespec, timeval, useconds_t, winsize,
    };

    /// What a thread begins with.
    pub type Start = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;
    /// What is to be done once.
    pub type Routine = unsafe extern "C-unwind" fn();
}

macro_rules! hooks {
    ($($file:ident {
        $($name:ident [$($alias:ident)*] $parameters:tt -> $result:ty = $how:ident $early:tt;)*
    })*) => {
        /// What the names that `interpose!()` defines call.
        #[doc(hidden)]
        pub mod __hooks {
            $(pub use super::$file::{$($name),*};)*
        }

        // Each hook has the signature that the list says.
        $($(same_signature! { $file $name $parameters -> $result })*)*
    };
}

macro_rules! same_signature {
    ($file:ident $name:ident
     ($($p:ident: $t:ty),* $(; $($v:ident: $u:ty),*)?) -> $result:ty) => {
        const _: () = {
            #[allow(unused_imports, reason = "some have no parameters")]
            use __c::*;
            const _: unsafe extern "C-unwind" fn($($t,)* $($($u),*)?) -> $result = $file::$name;
        };
    };
}

__hooked_functions! { hooks }

/// Defines the functions of libc that block, in the binary that says so.
#[macro_export]
macro_rules! interpose {
    () => {
        $crate::__hooked_functions! { $crate::__define_hooked }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __define_hooked {
    ($($file:ident {
        $($name:ident [$($alias:ident)*] $parameters:tt -> $result:ty = $how:ident $early:tt;)*
    })*) => {
        #[cfg(all(target_os = "linux", target_env = "gnu", not(target_feature = "crt-static")))]
        const _: () = {
            use $crate::interpose::__c::*;
            $($(
                $crate::__define_one! { $name $name $parameters -> $result }
                $($crate::__define_one! { $alias $name $parameters -> $result })*
            )*)*

            /// All of them, which also has the linker keep those that nobody asks for but a
            /// library that is loaded later.
            static DEFINED: &[$crate::interpose::__Definition] = &[$($(
                $crate::__name_one! { $name },
                $($crate::__name_one! { $alias },)*
            )*)*];

            extern "C" fn begin() {
                $crate::interpose::__begin(&DEFINED);
            }

            #[used]
            #[unsafe(link_section = ".init_array")]
            static BEGIN: extern "C" fn() = begin;
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __define_one {
    ($symbol:ident $name:ident
     ($($p:ident: $t:ty),* $(; $($v:ident: $u:ty),*)?) -> $result:ty) => {
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $symbol($($p: $t,)* $($($v: $u),*)?) -> $result {
            // SAFETY: it is the hook of this name, and passes on what it was called with.
            unsafe { $crate::interpose::__hooks::$name($($p,)* $($($v),*)?) }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __name_one {
    ($symbol:ident) => {
        $crate::interpose::__Definition::new(
            match ::core::ffi::CStr::from_bytes_with_nul(
                ::core::concat!(::core::stringify!($symbol), "\0").as_bytes(),
            ) {
                ::core::result::Result::Ok(name) => name,
                ::core::result::Result::Err(_) => ::core::panic!(),
            },
            $symbol as *const (),
        )
    };
}

#[doc(hidden)]
pub use self_test::{__Definition, __begin};
pub use self_test::{Inactive, is_active};
