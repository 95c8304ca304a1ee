//! Whether the names of libc are ours: what `interpose!()` has defined, and who finds it.
//!
//! Floor 8. Uses: `next`, dlsym(3). Used by: the constructor that `interpose!()` defines; users.

#![expect(unsafe_code, reason = "dlsym is C")]
//! # Safety
//!
//! dlsym(3) is given strings that end with a zero; the addresses are compared, never called.

use std::{
    ffi::CStr,
    fmt,
    sync::atomic::{AtomicPtr, Ordering},
};

use super::next;

/// A name, and its definition in the final binary.
#[doc(hidden)]
#[derive(Debug)]
pub struct __Definition {
    /// With a zero at its end.
    name: &'static CStr,
    address: *const (),
}

// SAFETY: an address of code that is compared and never followed; any thread may read it.
unsafe impl Sync for __Definition {}

impl __Definition {
    /// For the macro.
    #[must_use]
    pub const fn new(name: &'static CStr, address: *const ()) -> __Definition {
        __Definition { name, address }
    }

    fn is_found_by_libraries(&self) -> bool {
        // SAFETY: a string that ends with a zero.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, self.name.as_ptr()) };
        found.cast_const().cast() == self.address
    }
}

/// The names that `interpose!()` has defined, or nothing.
static DEFINED: AtomicPtr<&'static [__Definition]> = AtomicPtr::new(std::ptr::null_mut());

/// For the macro: before `main`, looks for the next definitions.
#[doc(hidden)]
pub fn __begin(defined: &'static &'static [__Definition]) {
    DEFINED.store((&raw const *defined).cast_mut(), Ordering::Release);
    next::resolve_all();
}

/// The names that `interpose!()` has defined, if it has.
pub(super) fn defined() -> Option<&'static [__Definition]> {
    // SAFETY: null, or what `__begin` was given, which is never changed.
    unsafe { DEFINED.load(Ordering::Acquire).as_ref() }.copied()
}

/// Why libc's names are not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inactive {
    /// The program does not say `greenloop::interpose!();`.
    Missing,
    /// libc is linked statically, so nothing can come before it.
    Static,
    /// Something that the loader asks first defines the names: the macro stands in a library that
    /// is no program, or a library was preloaded.
    Hidden {
        /// The first such name.
        name: &'static str,
    },
}

impl fmt::Display for Inactive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inactive::Missing => {
                f.write_str("the program does not say `greenloop::interpose!();` beside its `main`")
            }
            Inactive::Static => f.write_str("libc is linked statically (crt-static)"),
            Inactive::Hidden { name } => write!(
                f,
                "`{name}` is found elsewhere: `greenloop::interpose!();` must stand in the program \
                 itself, not in a shared library"
            ),
        }
    }
}

impl std::error::Error for Inactive {}

/// Whether the blocking calls of this program, and of the libraries that it loads, come here.
///
/// # Errors
///
/// Why they do not.
pub fn is_active() -> Result<(), Inactive> {
    let Some(defined) = defined() else {
        let is_static = cfg!(target_feature = "crt-static");
        return Err(if is_static { Inactive::Static } else { Inactive::Missing });
    };
    // Of the names that begin with underlines, libc has some only for programs of long ago. The
    // linker exports ours to nobody then.
    let mut names = defined.iter().filter(|it| !it.name.to_bytes().starts_with(b"__"));
    match names.find(|definition| !definition.is_found_by_libraries()) {
        Some(hidden) => Err(Inactive::Hidden { name: hidden.name.to_str().unwrap_or("") }),
        None => Ok(()),
    }
}
