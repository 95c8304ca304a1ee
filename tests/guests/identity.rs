//! Users and groups of the process, set from virtual threads.

use std::{io, thread as os};

use greenloop::{run, thread};

use crate::support::{assert_ends, in_a_process_of_its_own};

/// What goes wrong in a call, if anything.
macro_rules! error_of {
    ($call:expr) => {{
        // SAFETY: numbers that the process has already, or arrays that are as long as is said.
        let result = unsafe { $call };
        (result < 0).then(|| io::Error::last_os_error().raw_os_error())
    }};
}

/// libc has every thread that it knows make the call, and waits for all of them.
#[test]
fn a_virtual_thread_sets_users_and_groups() {
    in_a_process_of_its_own("identity::a_virtual_thread_sets_users_and_groups", || {
        // SAFETY: it tells a number.
        let user = unsafe { libc::getuid() };
        // SAFETY: as above.
        let group = unsafe { libc::getgid() };
        let on_a_thread = move || {
            let mut groups = [0; 64];
            // SAFETY: room for so many.
            let groups_count = unsafe { libc::getgroups(64, groups.as_mut_ptr()) };
            [
                error_of!(libc::setuid(user)),
                error_of!(libc::setgid(group)),
                error_of!(libc::seteuid(user)),
                error_of!(libc::setegid(group)),
                error_of!(libc::setreuid(user, user)),
                error_of!(libc::setregid(group, group)),
                error_of!(libc::setresuid(user, user, user)),
                error_of!(libc::setresgid(group, group, group)),
                error_of!(libc::setgroups(groups_count as usize, groups.as_ptr())),
                error_of!(libc::initgroups(c"root".as_ptr(), group)),
            ]
        };
        // Some of these are root's alone, and not even root's in some containers.
        let expected = os::spawn(on_a_thread).join().unwrap();
        assert_eq!(assert_ends(move || run(|| thread::run(on_a_thread))), expected);
    });
}
