//! Whether the names of libc are ours: what `interpose!()` has defined, and who finds it.
//!
//! Floor 8. Uses: `export`, dlsym(3). Used by: users; `thread`, which says what is missing.

#![expect(unsafe_code, reason = "dlsym is C")]
//! # Safety
//!
//! dlsym(3) is given strings that end with a zero; what it finds is compared, never called.

use std::fmt;

use super::export::{__Definition, defined, found_beside};

/// Whether whoever asks for this name finds what stands here.
fn is_found(definition: &__Definition) -> bool {
    // SAFETY: a string that ends with a zero.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, definition.name.as_ptr()) };
    found.cast_const().cast() == definition.address
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
            Inactive::Static => f.write_str(
                "libc is linked statically; build without `-C target-feature=+crt-static`",
            ),
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
    let ours = found_beside(defined);
    // Of the names that begin with underlines, libc has some only for programs of long ago. The
    // linker exports ours to nobody then.
    let mut names = defined.iter().filter(|it| !it.name.to_bytes().starts_with(b"__"));
    let is_ours = |it: &__Definition| ours.iter().any(|ours| std::ptr::eq(*ours, it));
    match names.find(|definition| !is_ours(definition) || !is_found(definition)) {
        Some(hidden) => Err(Inactive::Hidden { name: hidden.name.to_str().unwrap_or("") }),
        None => Ok(()),
    }
}
