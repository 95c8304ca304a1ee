//! A shared library that says what only a program should say.

use greenloop::interpose::{Inactive, is_active};

greenloop::interpose!();

/// 0: it knows that it is not heard. The names of libc mean libc's, or the program's.
#[expect(unsafe_code, reason = "it is called by its name")]
#[unsafe(no_mangle)]
pub extern "C" fn knows_that_it_is_hidden() -> i32 {
    match is_active() {
        Err(error @ Inactive::Hidden { name: "recv" }) => {
            println!("the library says: {error}");
            0
        }
        other => {
            eprintln!("the library says: {other:?}");
            1
        }
    }
}
