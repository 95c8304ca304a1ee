//! The next definitions: what a hooked name would mean without us.
//!
//! Floor 8. Uses: `table`, `early`, `elf`, dlsym(3). Used by: the hooks, to pass through.
//!
//! `next::recv(..)` calls the definition of `recv` that follows ours: libc's, or that of a library
//! which was preloaded. So a thread can still be cancelled in it, and a tracer that preloads its
//! own `recv` sees the call. It costs one load and one jump: the address stands in a static, from
//! the beginning to the end.
//!
//! # States of an address
//!
//! ```text
//! early ──resolve_all (before main), or the first call of one that is no system call──▶ next
//! ```
//!
//! Early is a bare system call, or a function that looks for the next definition and calls it.
//! Early calls come from constructors of libraries, which run before those of the program. A name
//! that no library has stays early.
//!
//! # Invariants
//!
//! - `NEXT-1` An address is that of a function with the signature in the list: of `early`, or the
//!   definition of that name in another object than ours, in its default version. (Versions matter:
//!   glibc has a `pthread_cond_wait` of another layout under the same name.)
//! - `NEXT-2` Looking for one neither allocates nor takes a lock of ours, so that an allocator
//!   which takes a pthread lock while it sets itself up finds that lock's definition. dlsym(3)
//!   would allocate: before glibc 2.34, in the first call of each thread.
//!
//! # Threads
//!
//! Any. Two that look at once find the same.

#![expect(unsafe_code, reason = "calls by address")]
//! # Safety
//!
//! An address becomes a function again with the type that the same entry of the list gave it.

use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use super::{
    __c::*,
    early::{self, *},
    elf,
};

/// A function of the list, and where its next definition stands.
struct Entry {
    name: &'static str,
    aliases: &'static [&'static str],
    next: &'static AtomicPtr<()>,
    /// What stands there at first.
    first: unsafe extern "C-unwind" fn(),
}

/// Looks for all next definitions.
pub(super) fn resolve_all() {
    for entry in ENTRIES {
        // One that was called early has been found.
        if entry.next.load(Relaxed) == entry.first as *mut () {
            resolve(entry.next, entry.name, entry.aliases);
        }
    }
}

/// Looks for the next definition of `name`. If there is one, it is called from now on.
fn resolve(next: &AtomicPtr<()>, name: &str, aliases: &[&str]) -> bool {
    let found = elf::next_definition(name)
        .or_else(|| aliases.iter().find_map(|alias| elf::next_definition(alias)));
    let Some(found) = found else { return false };
    // Nothing but the address is published, so nothing needs an order.
    next.store(found, Relaxed); // INVARIANT: NEXT-1
    true
}

/// The names and aliases in the list.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ENTRIES
        .iter()
        .flat_map(|entry| std::iter::once(entry.name).chain(entry.aliases.iter().copied()))
}

macro_rules! table {
    ($($file:ident {
        $($name:ident [$($alias:ident)*] $parameters:tt -> $result:ty = $how:ident $early:tt;)*
    })*) => {
        struct Next {
            $($($name: AtomicPtr<()>,)*)*
        }

        static NEXT: Next = Next {
            $($($name: AtomicPtr::new(first::$name as *const () as *mut ()),)*)*
        };

        /// All entries of the list.
        static ENTRIES: &[Entry] = &[
            $($(Entry {
                name: stringify!($name),
                aliases: &[$(stringify!($alias)),*],
                next: &NEXT.$name,
                // SAFETY: it is compared, never called by this type.
                first: unsafe {
                    std::mem::transmute::<*const (), unsafe extern "C-unwind" fn()>(
                        first::$name as *const (),
                    )
                },
            },)*)*
        ];

        $($(call! { $how $name [$($alias)*] $parameters -> $result })*)*

        /// What is called first.
        mod first {
            use super::*;
            $($(first! { $how $early $name [$($alias)*] $parameters -> $result })*)*
        }
    };
}

/// Calls the next definition.
macro_rules! call {
    // Whoever jumps needs the address.
    (jump $name:ident [$($alias:ident)*] $parameters:tt -> $result:ty) => {
        pub(super) fn $name() -> *mut () {
            let next = &NEXT.$name;
            if next.load(Relaxed) == first::$name as *const () as *mut () {
                resolve(next, stringify!($name), &[$(stringify!($alias)),*]);
            }
            next.load(Relaxed)
        }
    };
    ($how:ident $name:ident [$($alias:ident)*]
     ($($p:ident: $t:ty),* $(; $($v:ident: $u:ty),*)?) -> $result:ty) => {
        #[inline]
        #[allow(clippy::too_many_arguments, reason = "as many as C has")]
        pub(super) unsafe fn $name($($p: $t,)* $($($v: $u),*)?) -> $result {
            let next = NEXT.$name.load(Relaxed);
            // SAFETY: NEXT-1. A variadic function is called as one.
            let next = unsafe {
                std::mem::transmute::<*mut (), function!(($($t),*) $(, $($u)*)? => $result)>(next)
            };
            // SAFETY: the caller's arguments, unchanged (HOOK-1).
            unsafe { next($($p,)* $($($v),*)?) }
        }
    };
}

/// The type of a next definition.
macro_rules! function {
    (($($t:ty),*) => $result:ty) => {
        unsafe extern "C-unwind" fn($($t),*) -> $result
    };
    (($($t:ty),*), $($u:ty)* => $result:ty) => {
        unsafe extern "C-unwind" fn($($t),*, ...) -> $result
    };
}

/// What is called until the next definition is known.
macro_rules! first {
    (kernel ($number:ident $(, $argument:expr)*) $name:ident [$($alias:ident)*]
     ($($p:ident: $t:ty),* $(; $($v:ident: $u:ty),*)?) -> $result:ty) => {
        pub(super) unsafe extern "C-unwind" fn $name($($p: $t,)* $($($v: $u),*)?) -> $result {
            let arguments = [$(early::Word::word($argument)),*];
            // SAFETY: the caller's arguments, unchanged (HOOK-1).
            early::returned(unsafe { early::kernel(libc::$number, &arguments) })
        }
    };
    (value ($value:expr) $name:ident [$($alias:ident)*]
     ($($p:ident: $t:ty),* $(; $($v:ident: $u:ty),*)?) -> $result:ty) => {
        pub(super) unsafe extern "C-unwind" fn $name($($p: $t,)* $($($v: $u),*)?) -> $result {
            // SAFETY: the caller's arguments, unchanged (HOOK-1).
            unsafe { $value }
        }
    };
    (jump ($missing:expr) $name:ident [$($alias:ident)*]
     ($($p:ident: $t:ty),* $(; $($v:ident: $u:ty),*)?) -> $result:ty) => {
        pub(super) unsafe extern "C-unwind" fn $name($(_: $t),*) -> $result {
            $missing
        }
    };
    (libc ($missing:expr) $name:ident [$($alias:ident)*]
     ($($p:ident: $t:ty),* $(; $($v:ident: $u:ty),*)?) -> $result:ty) => {
        pub(super) unsafe extern "C-unwind" fn $name($($p: $t,)* $($($v: $u),*)?) -> $result {
            if resolve(&NEXT.$name, stringify!($name), &[$(stringify!($alias)),*]) {
                // SAFETY: the caller's arguments, unchanged (HOOK-1).
                unsafe { super::$name($($p,)* $($($v),*)?) }
            } else {
                $missing
            }
        }
    };
}

__hooked_functions! { table }
