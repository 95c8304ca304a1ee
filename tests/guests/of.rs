//! Values of libc's, as threads share them.

#![expect(unsafe_code, reason = "what C's functions are given")]

use std::{cell::UnsafeCell, mem::MaybeUninit};

/// Something of libc's that lives as long as the process.
pub(crate) struct Of<T: 'static>(&'static UnsafeCell<MaybeUninit<T>>);

impl<T> Clone for Of<T> {
    fn clone(&self) -> Of<T> {
        *self
    }
}

impl<T> Copy for Of<T> {}

// SAFETY: what is in it is shared by threads, as libc says.
unsafe impl<T> Send for Of<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Of<T> {}

impl<T> Of<T> {
    /// All zeroes, for what C begins so.
    pub(crate) fn zeroed() -> Of<T> {
        Of(Box::leak(Box::new(UnsafeCell::new(MaybeUninit::zeroed()))))
    }

    pub(crate) fn get(self) -> *mut T {
        self.0.get().cast()
    }
}
