//! Users and groups of the process, set from virtual threads.

use std::io;

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
            let free = [
                error_of!(libc::setuid(user)),
                error_of!(libc::setgid(group)),
                error_of!(libc::seteuid(user)),
                error_of!(libc::setegid(group)),
                error_of!(libc::setreuid(user, user)),
                error_of!(libc::setregid(group, group)),
                error_of!(libc::setresuid(user, user, user)),
                error_of!(libc::setresgid(group, group, group)),
            ];
            let mut groups = [0; 64];
            // SAFETY: room for so many.
            let count = unsafe { libc::getgroups(64, groups.as_mut_ptr()) };
            let for_root = [
                error_of!(libc::setgroups(usize::try_from(count).unwrap(), groups.as_ptr())),
                error_of!(libc::initgroups(c"root".as_ptr(), group)),
            ];
            (free, for_root)
        };
        let (free, for_root) = assert_ends(move || run(|| thread::run(on_a_thread)));
        assert_eq!(free, [None; 8]);
        assert_eq!(for_root, [if user == 0 { None } else { Some(Some(libc::EPERM)) }; 2]);
    });
}
