//! A program that does not say it, and loads a library that does: `host path/to/library.so`.

#![expect(unsafe_code, reason = "dlopen is C")]

use std::{env, ffi::CString};

use greenloop::interpose::{Inactive, is_active};

fn main() {
    assert_eq!(is_active(), Err(Inactive::Missing));
    let path = CString::new(env::args().nth(1).expect("a library")).expect("a path");
    // SAFETY: our own library, whose constructor looks for libc's functions.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null(), "{path:?} cannot be loaded");
    // SAFETY: a library that is loaded, and a string.
    let function = unsafe { libc::dlsym(library, c"knows_that_it_is_hidden".as_ptr()) };
    assert!(!function.is_null());
    // SAFETY: it has this type.
    let function =
        unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> i32>(function) };
    assert_eq!(function(), 0);
    assert_eq!(is_active(), Err(Inactive::Missing), "it is not this program's business");
}
