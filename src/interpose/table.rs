//! The list of all functions of libc that are hooked: names, aliases, signatures.
//!
//! Floor 8. Uses: nothing. Used by: `interpose!()`, which defines them in the final binary; `next`,
//! which finds the next definitions; `status`, which tells who is bound to them.
//!
//! # Contract
//!
//! An entry is
//!
//! ```text
//! name [aliases] (parameters; variable ones) -> result = how(early);
//! ```
//!
//! within a block named after the file that has its hook, a function of that name and signature.
//! Types are those of glibc on 64-bit Linux, by their names in `__c`. Of a variadic
//! function, the parameters after the semicolon are those that it may be given: a definition in
//! Rust takes them all, for on x86_64 and aarch64 they are passed alike, and what the caller left
//! out is garbage that the kernel ignores, as it does when libc fetches one argument too many.
//!
//! `how(early)` is what the next definition is before it has been looked for (`next`):
//!
//! - `kernel(NUMBER, arguments)`: this system call, with errno and -1 on failure.
//! - `value(expression)`: a function of `early`, where libc does more than the system call.
//! - `libc(expression)`: it is no system call, so it is looked for when it is first called. The
//!   expression is what a call gives on a libc that lacks it.
//! - `jump(expression)`: the same, of a function that looks at who called it, or that returns
//!   twice. No frame may stand between it and its caller, so its hook is written in assembly, and
//!   jumps.
//!
//! `open`, `malloc` and files are never hooked.
//!
//! # Source
//!
//! The exported names of glibc 2.36; feature_test_macros(7) for `_FORTIFY_SOURCE`.

/// Hands the list to a macro: `__hooked_functions!(callback)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __hooked_functions {
    ($($callback:tt)*) => {
        $($callback)*! {
            receive {
                recv [__recv] (fd: c_int, buffer: *mut c_void, length: size_t,
                    flags: c_int) -> ssize_t
                    = kernel(SYS_recvfrom, fd, buffer, length, flags, 0, 0);
                __recv_chk [] (fd: c_int, buffer: *mut c_void, length: size_t, room: size_t,
                    flags: c_int) -> ssize_t
                    = kernel(SYS_recvfrom, fd, buffer, checked(length, room), flags, 0, 0);
                recvfrom [] (fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int,
                    address: *mut sockaddr, address_length: *mut socklen_t) -> ssize_t
                    = kernel(SYS_recvfrom, fd, buffer, length, flags, address, address_length);
                __recvfrom_chk [] (fd: c_int, buffer: *mut c_void, length: size_t, room: size_t,
                    flags: c_int, address: *mut sockaddr, address_length: *mut socklen_t) -> ssize_t
                    = kernel(SYS_recvfrom, fd, buffer, checked(length, room), flags, address,
                        address_length);
                recvmsg [] (fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t
                    = kernel(SYS_recvmsg, fd, message, flags);
                recvmmsg [] (fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int,
                    timeout: *mut timespec) -> c_int
                    = kernel(SYS_recvmmsg, fd, messages, count, flags, timeout);
                read [__read] (fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t
                    = kernel(SYS_read, fd, buffer, length);
                __read_chk [] (fd: c_int, buffer: *mut c_void, length: size_t,
                    room: size_t) -> ssize_t
                    = kernel(SYS_read, fd, buffer, checked(length, room));
                readv [] (fd: c_int, parts: *const iovec, count: c_int) -> ssize_t
                    = kernel(SYS_readv, fd, parts, count);
            }
            send {
                send [__send] (fd: c_int, buffer: *const c_void, length: size_t,
                    flags: c_int) -> ssize_t
                    = kernel(SYS_sendto, fd, buffer, length, flags, 0, 0);
                sendto [] (fd: c_int, buffer: *const c_void, length: size_t, flags: c_int,
                    address: *const sockaddr, address_length: socklen_t) -> ssize_t
                    = kernel(SYS_sendto, fd, buffer, length, flags, address, address_length);
                sendmsg [] (fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t
                    = kernel(SYS_sendmsg, fd, message, flags);
                sendmmsg [__sendmmsg] (fd: c_int, messages: *mut mmsghdr, count: c_uint,
                    flags: c_int) -> c_int
                    = kernel(SYS_sendmmsg, fd, messages, count, flags);
                write [__write] (fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t
                    = kernel(SYS_write, fd, buffer, length);
                writev [] (fd: c_int, parts: *const iovec, count: c_int) -> ssize_t
                    = kernel(SYS_writev, fd, parts, count);
                sendfile [sendfile64] (output: c_int, input: c_int, offset: *mut off_t,
                    count: size_t) -> ssize_t
                    = kernel(SYS_sendfile, output, input, offset, count);
                splice [] (input: c_int, input_offset: *mut loff_t, output: c_int,
                    output_offset: *mut loff_t, length: size_t, flags: c_uint) -> ssize_t
                    = kernel(SYS_splice, input, input_offset, output, output_offset, length, flags);
                tee [] (input: c_int, output: c_int, length: size_t, flags: c_uint) -> ssize_t
                    = kernel(SYS_tee, input, output, length, flags);
                vmsplice [] (fd: c_int, parts: *const iovec, count: size_t,
                    flags: c_uint) -> ssize_t
                    = kernel(SYS_vmsplice, fd, parts, count, flags);
                copy_file_range [] (input: c_int, input_offset: *mut off64_t, output: c_int,
                    output_offset: *mut off64_t, length: size_t, flags: c_uint) -> ssize_t
                    = kernel(SYS_copy_file_range, input, input_offset, output, output_offset,
                        length, flags);
            }
            accept {
                accept [] (fd: c_int, address: *mut sockaddr,
                    address_length: *mut socklen_t) -> c_int
                    = kernel(SYS_accept4, fd, address, address_length, 0);
                accept4 [] (fd: c_int, address: *mut sockaddr, address_length: *mut socklen_t,
                    flags: c_int) -> c_int
                    = kernel(SYS_accept4, fd, address, address_length, flags);
            }
            connect {
                connect [__connect] (fd: c_int, address: *const sockaddr,
                    address_length: socklen_t) -> c_int
                    = kernel(SYS_connect, fd, address, address_length);
            }
            poll {
                poll [__poll] (fds: *mut pollfd, count: nfds_t, timeout_ms: c_int) -> c_int
                    = value(early_poll(fds, count, timeout_ms));
                __poll_chk [] (fds: *mut pollfd, count: nfds_t, timeout_ms: c_int,
                    room: size_t) -> c_int
                    = value(early_poll(fds, checked_fds(count, room), timeout_ms));
                ppoll [] (fds: *mut pollfd, count: nfds_t, timeout: *const timespec,
                    mask: *const sigset_t) -> c_int
                    = value(early_ppoll(fds, count, timeout, mask));
                __ppoll_chk [] (fds: *mut pollfd, count: nfds_t, timeout: *const timespec,
                    mask: *const sigset_t, room: size_t) -> c_int
                    = value(early_ppoll(fds, checked_fds(count, room), timeout, mask));
                select [__select] (count: c_int, readable: *mut fd_set, writable: *mut fd_set,
                    exceptional: *mut fd_set, timeout: *mut timeval) -> c_int
                    = value(early_select(count, readable, writable, exceptional, timeout));
                pselect [] (count: c_int, readable: *mut fd_set, writable: *mut fd_set,
                    exceptional: *mut fd_set, timeout: *const timespec,
                    mask: *const sigset_t) -> c_int
                    = value(early_pselect(count, readable, writable, exceptional, timeout, mask));
                epoll_wait [] (epoll: c_int, events: *mut epoll_event, count: c_int,
                    timeout_ms: c_int) -> c_int
                    = kernel(SYS_epoll_pwait, epoll, events, count, timeout_ms, 0, SIGSET_SIZE);
                epoll_pwait [] (epoll: c_int, events: *mut epoll_event, count: c_int,
                    timeout_ms: c_int, mask: *const sigset_t) -> c_int
                    = kernel(SYS_epoll_pwait, epoll, events, count, timeout_ms, mask, SIGSET_SIZE);
                epoll_pwait2 [] (epoll: c_int, events: *mut epoll_event, count: c_int,
                    timeout: *const timespec, mask: *const sigset_t) -> c_int
                    = kernel(SYS_epoll_pwait2, epoll, events, count, timeout, mask, SIGSET_SIZE);
            }
            sleep {
                clock_nanosleep [] (clock: clockid_t, flags: c_int, time: *const timespec,
                    rest: *mut timespec) -> c_int
                    = value(early_clock_nanosleep(clock, flags, time, rest));
                nanosleep [__nanosleep] (time: *const timespec, rest: *mut timespec) -> c_int
                    = kernel(SYS_nanosleep, time, rest);
                usleep [] (microseconds: useconds_t) -> c_int = value(early_usleep(microseconds));
                sleep [] (seconds: c_uint) -> c_uint = value(early_sleep(seconds));
                thrd_sleep [] (time: *const timespec, rest: *mut timespec) -> c_int
                    = value(early_thrd_sleep(time, rest));
                sched_yield [__sched_yield] () -> c_int = kernel(SYS_sched_yield);
                thrd_yield [] () -> () = value(early_thrd_yield());
            }
            close {
                close [__close] (fd: c_int) -> c_int = kernel(SYS_close, fd);
                close_range [] (first: c_uint, last: c_uint, flags: c_int) -> c_int
                    = kernel(SYS_close_range, first, last, flags);
                closefrom [] (first: c_int) -> () = value(early_closefrom(first));
                shutdown [] (fd: c_int, how: c_int) -> c_int = kernel(SYS_shutdown, fd, how);
                dup [] (fd: c_int) -> c_int = kernel(SYS_dup, fd);
                dup2 [__dup2] (old: c_int, new: c_int) -> c_int = value(early_dup2(old, new));
                dup3 [] (old: c_int, new: c_int, flags: c_int) -> c_int
                    = kernel(SYS_dup3, old, new, flags);
                fcntl [__fcntl fcntl64] (fd: c_int, command: c_int; argument: c_long) -> c_int
                    = kernel(SYS_fcntl, fd, command, argument);
                ioctl [] (fd: c_int, request: c_ulong; argument: *mut c_void) -> c_int
                    = kernel(SYS_ioctl, fd, request, argument);
                setsockopt [] (fd: c_int, level: c_int, name: c_int, option: *const c_void,
                    length: socklen_t) -> c_int
                    = kernel(SYS_setsockopt, fd, level, name, option, length);
                getsockopt [] (fd: c_int, level: c_int, name: c_int, option: *mut c_void,
                    length: *mut socklen_t) -> c_int
                    = kernel(SYS_getsockopt, fd, level, name, option, length);
            }
            flock {
                flock [] (fd: c_int, operation: c_int) -> c_int = kernel(SYS_flock, fd, operation);
                lockf [lockf64] (fd: c_int, command: c_int, length: off_t) -> c_int
                    = libc(missing());
            }
            create {
                socket [__socket] (domain: c_int, kind: c_int, protocol: c_int) -> c_int
                    = kernel(SYS_socket, domain, kind, protocol);
                socketpair [] (domain: c_int, kind: c_int, protocol: c_int,
                    pair: *mut c_int) -> c_int
                    = kernel(SYS_socketpair, domain, kind, protocol, pair);
                pipe [__pipe] (pair: *mut c_int) -> c_int = kernel(SYS_pipe2, pair, 0);
                pipe2 [] (pair: *mut c_int, flags: c_int) -> c_int = kernel(SYS_pipe2, pair, flags);
                eventfd [] (value: c_uint, flags: c_int) -> c_int
                    = kernel(SYS_eventfd2, value, flags);
                timerfd_create [] (clock: c_int, flags: c_int) -> c_int
                    = kernel(SYS_timerfd_create, clock, flags);
                signalfd [] (fd: c_int, mask: *const sigset_t, flags: c_int) -> c_int
                    = kernel(SYS_signalfd4, fd, mask, SIGSET_SIZE, flags);
                inotify_init [] () -> c_int = kernel(SYS_inotify_init1, 0);
                inotify_init1 [] (flags: c_int) -> c_int = kernel(SYS_inotify_init1, flags);
                epoll_create [] (size: c_int) -> c_int = value(early_epoll_create(size));
                epoll_create1 [] (flags: c_int) -> c_int = kernel(SYS_epoll_create1, flags);
                memfd_create [] (name: *const c_char, flags: c_uint) -> c_int
                    = kernel(SYS_memfd_create, name, flags);
            }
            futex {
                syscall [] (number: c_long; a: c_long, b: c_long, c: c_long, d: c_long, e: c_long,
                    f: c_long) -> c_long
                    = value(early_syscall(number, [a, b, c, d, e, f]));
            }
            locks {
                pthread_mutex_lock [__pthread_mutex_lock] (mutex: *mut pthread_mutex_t) -> c_int
                    = libc(ENOSYS);
                pthread_mutex_trylock [__pthread_mutex_trylock]
                    (mutex: *mut pthread_mutex_t) -> c_int
                    = libc(ENOSYS);
                pthread_mutex_timedlock [] (mutex: *mut pthread_mutex_t,
                    deadline: *const timespec) -> c_int
                    = libc(ENOSYS);
                pthread_mutex_clocklock [] (mutex: *mut pthread_mutex_t, clock: clockid_t,
                    deadline: *const timespec) -> c_int
                    = libc(ENOSYS);
                pthread_mutex_unlock [__pthread_mutex_unlock] (mutex: *mut pthread_mutex_t) -> c_int
                    = libc(ENOSYS);
                pthread_cond_wait [] (condition: *mut pthread_cond_t,
                    mutex: *mut pthread_mutex_t) -> c_int
                    = libc(ENOSYS);
                pthread_cond_timedwait [] (condition: *mut pthread_cond_t,
                    mutex: *mut pthread_mutex_t, deadline: *const timespec) -> c_int
                    = libc(ENOSYS);
                pthread_cond_clockwait [] (condition: *mut pthread_cond_t,
                    mutex: *mut pthread_mutex_t, clock: clockid_t,
                    deadline: *const timespec) -> c_int
                    = libc(ENOSYS);
                pthread_cond_signal [] (condition: *mut pthread_cond_t) -> c_int = libc(ENOSYS);
                pthread_cond_broadcast [] (condition: *mut pthread_cond_t) -> c_int = libc(ENOSYS);
                pthread_rwlock_rdlock [__pthread_rwlock_rdlock]
                    (lock: *mut pthread_rwlock_t) -> c_int
                    = libc(ENOSYS);
                pthread_rwlock_tryrdlock [__pthread_rwlock_tryrdlock]
                    (lock: *mut pthread_rwlock_t) -> c_int
                    = libc(ENOSYS);
                pthread_rwlock_timedrdlock [] (lock: *mut pthread_rwlock_t,
                    deadline: *const timespec) -> c_int
                    = libc(ENOSYS);
                pthread_rwlock_clockrdlock [] (lock: *mut pthread_rwlock_t, clock: clockid_t,
                    deadline: *const timespec) -> c_int
                    = libc(ENOSYS);
                pthread_rwlock_wrlock [__pthread_rwlock_wrlock]
                    (lock: *mut pthread_rwlock_t) -> c_int
                    = libc(ENOSYS);
                pthread_rwlock_trywrlock [__pthread_rwlock_trywrlock]
                    (lock: *mut pthread_rwlock_t) -> c_int
                    = libc(ENOSYS);
                pthread_rwlock_timedwrlock [] (lock: *mut pthread_rwlock_t,
                    deadline: *const timespec) -> c_int
                    = libc(ENOSYS);
                pthread_rwlock_clockwrlock [] (lock: *mut pthread_rwlock_t, clock: clockid_t,
                    deadline: *const timespec) -> c_int
                    = libc(ENOSYS);
                pthread_rwlock_unlock [__pthread_rwlock_unlock]
                    (lock: *mut pthread_rwlock_t) -> c_int
                    = libc(ENOSYS);
                sem_wait [] (semaphore: *mut sem_t) -> c_int = libc(missing());
                sem_trywait [] (semaphore: *mut sem_t) -> c_int = libc(missing());
                sem_timedwait [] (semaphore: *mut sem_t, deadline: *const timespec) -> c_int
                    = libc(missing());
                sem_clockwait [] (semaphore: *mut sem_t, clock: clockid_t,
                    deadline: *const timespec) -> c_int
                    = libc(missing());
                sem_post [] (semaphore: *mut sem_t) -> c_int = libc(missing());
                mtx_lock [] (mutex: *mut pthread_mutex_t) -> c_int = libc(THRD_ERROR);
                mtx_trylock [] (mutex: *mut pthread_mutex_t) -> c_int = libc(THRD_ERROR);
                mtx_timedlock [] (mutex: *mut pthread_mutex_t, deadline: *const timespec) -> c_int
                    = libc(THRD_ERROR);
                mtx_unlock [] (mutex: *mut pthread_mutex_t) -> c_int = libc(THRD_ERROR);
                cnd_wait [] (condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int
                    = libc(THRD_ERROR);
                cnd_timedwait [] (condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t,
                    deadline: *const timespec) -> c_int
                    = libc(THRD_ERROR);
                cnd_signal [] (condition: *mut pthread_cond_t) -> c_int = libc(THRD_ERROR);
                cnd_broadcast [] (condition: *mut pthread_cond_t) -> c_int = libc(THRD_ERROR);
                call_once [] (once: *mut c_int, routine: Routine) -> () = libc(());
                pthread_once [__pthread_once] (once: *mut c_int, routine: Routine) -> c_int
                    = libc(ENOSYS);
                pthread_barrier_wait [] (barrier: *mut pthread_barrier_t) -> c_int = libc(ENOSYS);
                pthread_barrier_destroy [] (barrier: *mut pthread_barrier_t) -> c_int
                    = libc(ENOSYS);
            }
            names {
                getaddrinfo [] (node: *const c_char, service: *const c_char, hints: *const addrinfo,
                    answer: *mut *mut addrinfo) -> c_int
                    = libc(no_resolver());
                getnameinfo [] (address: *const sockaddr, address_length: socklen_t,
                    host: *mut c_char, host_length: socklen_t, service: *mut c_char,
                    service_length: socklen_t, flags: c_int) -> c_int
                    = libc(no_resolver());
                gethostbyname [] (name: *const c_char) -> *mut hostent = libc(nowhere());
                gethostbyname2 [] (name: *const c_char, family: c_int) -> *mut hostent
                    = libc(nowhere());
                gethostbyaddr [] (address: *const c_void, length: socklen_t,
                    family: c_int) -> *mut hostent
                    = libc(nowhere());
                gethostbyname_r [] (name: *const c_char, entry: *mut hostent, buffer: *mut c_char,
                    length: size_t, answer: *mut *mut hostent, h_errno: *mut c_int) -> c_int
                    = libc(ENOSYS);
                gethostbyname2_r [] (name: *const c_char, family: c_int, entry: *mut hostent,
                    buffer: *mut c_char, length: size_t, answer: *mut *mut hostent,
                    h_errno: *mut c_int) -> c_int
                    = libc(ENOSYS);
                gethostbyaddr_r [] (address: *const c_void, address_length: socklen_t,
                    family: c_int, entry: *mut hostent, buffer: *mut c_char, length: size_t,
                    answer: *mut *mut hostent, h_errno: *mut c_int) -> c_int
                    = libc(ENOSYS);
                res_query [__res_query] (name: *const c_char, class: c_int, kind: c_int,
                    answer: *mut c_uchar, length: c_int) -> c_int
                    = libc(missing());
                res_search [__res_search] (name: *const c_char, class: c_int, kind: c_int,
                    answer: *mut c_uchar, length: c_int) -> c_int
                    = libc(missing());
                res_nquery [__res_nquery] (state: *mut c_void, name: *const c_char, class: c_int,
                    kind: c_int, answer: *mut c_uchar, length: c_int) -> c_int
                    = libc(missing());
                res_nsearch [__res_nsearch] (state: *mut c_void, name: *const c_char, class: c_int,
                    kind: c_int, answer: *mut c_uchar, length: c_int) -> c_int
                    = libc(missing());
            }
            child {
                waitpid [__waitpid] (pid: pid_t, status: *mut c_int, options: c_int) -> pid_t
                    = kernel(SYS_wait4, pid, status, options, 0);
                waitid [] (kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int
                    = kernel(SYS_waitid, kind, id, info, options, 0);
                wait [__wait] (status: *mut c_int) -> pid_t = kernel(SYS_wait4, -1, status, 0, 0);
                wait3 [] (status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t
                    = kernel(SYS_wait4, -1, status, options, usage);
                wait4 [] (pid: pid_t, status: *mut c_int, options: c_int,
                    usage: *mut rusage) -> pid_t
                    = kernel(SYS_wait4, pid, status, options, usage);
                fork [__fork] () -> pid_t = libc(missing());
                vfork [__vfork] () -> pid_t = jump(missing());
                daemon [] (keep_folder: c_int, keep_streams: c_int) -> c_int = libc(missing());
                forkpty [] (terminal: *mut c_int, name: *mut c_char, settings: *const termios,
                    size: *const winsize) -> pid_t
                    = libc(missing());
                system [] (command: *const c_char) -> c_int = libc(missing());
                popen [] (command: *const c_char, mode: *const c_char) -> *mut FILE
                    = libc(nowhere());
                pclose [] (stream: *mut FILE) -> c_int = libc(missing());
            }
            identity {
                setuid [] (user: uid_t) -> c_int = libc(missing());
                setgid [] (group: gid_t) -> c_int = libc(missing());
                seteuid [] (user: uid_t) -> c_int = libc(missing());
                setegid [] (group: gid_t) -> c_int = libc(missing());
                setreuid [] (real: uid_t, effective: uid_t) -> c_int = libc(missing());
                setregid [] (real: gid_t, effective: gid_t) -> c_int = libc(missing());
                setresuid [] (real: uid_t, effective: uid_t, saved: uid_t) -> c_int
                    = libc(missing());
                setresgid [] (real: gid_t, effective: gid_t, saved: gid_t) -> c_int
                    = libc(missing());
                setgroups [] (count: size_t, groups: *const gid_t) -> c_int = libc(missing());
                initgroups [] (name: *const c_char, group: gid_t) -> c_int = libc(missing());
            }
            thread {
                pthread_create [] (thread: *mut pthread_t, attributes: *const pthread_attr_t,
                    start: Start, argument: *mut c_void) -> c_int
                    = libc(ENOSYS);
                pthread_join [] (thread: pthread_t, value: *mut *mut c_void) -> c_int
                    = libc(ENOSYS);
                pthread_timedjoin_np [] (thread: pthread_t, value: *mut *mut c_void,
                    deadline: *const timespec) -> c_int
                    = libc(ENOSYS);
                pthread_clockjoin_np [] (thread: pthread_t, value: *mut *mut c_void,
                    clock: clockid_t, deadline: *const timespec) -> c_int
                    = libc(ENOSYS);
                thrd_create [] (thread: *mut pthread_t, start: StartOfC11,
                    argument: *mut c_void) -> c_int
                    = libc(THRD_ERROR);
                thrd_exit [] (value: c_int) -> ! = libc(no_way_out());
                thrd_join [] (thread: pthread_t, value: *mut c_int) -> c_int = libc(THRD_ERROR);
                pthread_exit [] (value: *mut c_void) -> ! = libc(no_way_out());
                pthread_getattr_np [] (thread: pthread_t, attributes: *mut pthread_attr_t) -> c_int
                    = libc(ENOSYS);
                dlopen [] (path: *const c_char, mode: c_int) -> *mut c_void = jump(nowhere());
                dlmopen [] (space: c_long, path: *const c_char, mode: c_int) -> *mut c_void
                    = jump(nowhere());
                dlclose [] (library: *mut c_void) -> c_int = libc(-1);
                dlerror [] () -> *mut c_char = libc(nowhere());
            }
        }
    };
}
