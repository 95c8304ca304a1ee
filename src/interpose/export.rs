//! The macros that define libc's names: in the final binary, and nowhere else.
//!
//! Floor 8. Uses: `table`. Used by: programs, which say `greenloop::interpose!();` once, beside
//! their `main`.
//!
//! # Why a macro
//!
//! A library that defines libc's names replaces them in every program that has it in its graph,
//! asked or not; two versions of it in one program clash; and inside a shared library the
//! definitions do nothing, and nobody is told. So the program itself says it.
//!
//! # Invariants
//!
//! - `EXPORT-1` What the constructor tells of is an array in a static, which is never changed.
//!
//! # Source
//!
//! ld(1) on the symbols that an executable exports: those that a library which it is linked with
//! defines or asks for. The constructor names all, so that none is thrown away as unused.

#![expect(unsafe_code, reason = "what the macros define is C")]
//! # Safety
//!
//! The definitions pass their arguments on (`HOOK-1`).

use std::{
    ffi::CStr,
    sync::atomic::{AtomicPtr, Ordering},
};

use super::{
    __c::{c_int, c_void},
    elf, next,
};

/// What a thread begins with.
pub type Start = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// What a thread of <threads.h> begins with.
pub type StartOfC11 = unsafe extern "C-unwind" fn(*mut c_void) -> c_int;

/// What is to be done once.
pub type Routine = unsafe extern "C-unwind" fn();

/// A name, and its definition in the final binary.
#[doc(hidden)]
#[derive(Debug)]
pub struct __Definition {
    pub(super) name: &'static CStr,
    pub(super) address: *const (),
}

// SAFETY: an address of code that is compared and never followed; any thread may read it.
unsafe impl Sync for __Definition {}

impl __Definition {
    /// For the macro.
    #[must_use]
    pub const fn new(name: &'static CStr, address: *const ()) -> __Definition {
        __Definition { name, address }
    }
}

/// The names that `interpose!()` has defined, or null.
static DEFINED: AtomicPtr<&'static [__Definition]> = AtomicPtr::new(std::ptr::null_mut());

/// For the macro: before `main`, looks for the next definitions.
#[doc(hidden)]
pub fn __begin(defined: &'static &'static [__Definition]) {
    DEFINED.store((&raw const *defined).cast_mut(), Ordering::Release);
    next::resolve_all();
}

/// The names that `interpose!()` has defined, if it has.
pub(super) fn defined() -> Option<&'static [__Definition]> {
    // SAFETY: null, or what `__begin` was given (EXPORT-1).
    unsafe { DEFINED.load(Ordering::Acquire).as_ref() }.copied()
}

/// Those of `defined` that the code beside them finds. In a shared library none is: a name means
/// the program's there, or libc's, as for anybody.
pub(super) fn found_beside(defined: &'static [__Definition]) -> Vec<&'static __Definition> {
    let found = elf::objects(|object| {
        let is_inside = |definition: &&__Definition| object.contains(definition.address.addr());
        object.contains(defined.as_ptr().addr()).then(|| defined.iter().filter(is_inside).collect())
    });
    found.unwrap_or_default()
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

/// Defines the functions of libc that block, in the program that says so.
///
/// Say it once, beside `main`, in the program itself:
///
/// ```
/// greenloop::interpose!();
///
/// fn main() {
///     assert_eq!(greenloop::interpose::is_active(), Ok(()));
/// }
/// ```
///
/// From then on `recv`, `poll`, `nanosleep`, the waits of std's and of C's locks and a hundred more
/// mean this crate's functions, for all code of the process: std, other crates, C libraries. Called
/// by a virtual thread, they suspend it, and the others run on. Called by anybody else, they call
/// what they would have been.
///
/// Once a virtual thread is killed, a call of its that waits fails with `ECANCELED`, and so does
/// every later one that could; at the end of a [`timeout`](crate::timeout) around it, with
/// `ETIMEDOUT`. Nothing unwinds out of a call of C's.
///
/// Not reached: code that makes system calls without libc (rustix, unless it is told to use libc;
/// io_uring), and what libc does within (`FILE` streams). There a wait stops the hub's whole
/// thread.
///
/// Where libc is not glibc, or is linked statically, it defines nothing, and
/// [`is_active`](crate::interpose::is_active) says so.
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
                $crate::__define_one! { $how $name $name $parameters -> $result }
                $($crate::__define_one! { $how $alias $name $parameters -> $result })*
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
    // No frame of ours stands between the hook and its caller.
    (jump $symbol:ident $name:ident
     ($($p:ident: $t:ty),* $(; $($v:ident: $u:ty),*)?) -> $result:ty) => {
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $symbol($(_: $t),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            ::core::arch::naked_asm!("jmp {}", sym $crate::interpose::__hooks::$name);
            #[cfg(target_arch = "aarch64")]
            ::core::arch::naked_asm!("b {}", sym $crate::interpose::__hooks::$name);
        }
    };
    ($how:ident $symbol:ident $name:ident
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
