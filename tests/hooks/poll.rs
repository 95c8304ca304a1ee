//! Waiting for several descriptors.

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    ptr,
    time::Duration,
};

use greenloop::thread;

use crate::{
    call::{connection, on_a_virtual_thread, result, virtual_time_of},
    support::in_a_process_of_its_own,
};

const SECOND: Duration = Duration::from_secs(1);

/// A number that no limit lets be open.
const NEVER_OPEN: RawFd = RawFd::MAX;

fn asked(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> Result<i64, i32> {
    // SAFETY: live entries, and how many.
    result(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) })
}

fn events(fds: &[libc::pollfd]) -> Vec<i16> {
    fds.iter().map(|fd| fd.revents).collect()
}

use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDHUP};

#[test]
fn a_poll_ends_at_the_event_or_at_its_time() {
    let time = virtual_time_of(|| {
        let (mut end, other) = UnixStream::pair().unwrap();
        let mut fds = [asked(other.as_raw_fd(), POLLIN)];
        assert_eq!(poll(&mut fds, 0), Ok(0));
        assert_eq!(poll(&mut fds, 1500), Ok(0));
        let writes = thread::spawn(move || {
            thread::sleep(SECOND);
            end.write_all(b"x").unwrap();
            end
        });
        assert_eq!(poll(&mut fds, -1), Ok(1));
        assert_eq!(events(&fds), [POLLIN]);
        drop(writes.join().unwrap());
        assert_eq!(poll(&mut fds, 60_000), Ok(1));
        assert_eq!(events(&fds), [POLLIN | POLLHUP]);
    });
    assert_eq!(time, Duration::from_millis(2500));
}

/// The kernel's own words for each; and sleeping by poll, as some do.
#[test]
fn duplicates_negative_numbers_closed_ones_and_files() {
    let time = virtual_time_of(|| {
        let (mut end, other) = UnixStream::pair().unwrap();
        let file = File::open("Cargo.toml").unwrap();
        let (fd, file) = (other.as_raw_fd(), file.as_raw_fd());
        let mut fds = [asked(-1, POLLIN), asked(fd, POLLIN), asked(NEVER_OPEN, POLLIN)];
        assert_eq!(poll(&mut fds, -1), Ok(1));
        assert_eq!(events(&fds), [0, 0, POLLNVAL]);
        let mut fds = [asked(file, POLLIN | POLLOUT), asked(fd, POLLIN)];
        assert_eq!(poll(&mut fds, -1), Ok(1));
        assert_eq!(events(&fds), [POLLIN | POLLOUT, 0]);
        let writes = thread::spawn(move || {
            thread::sleep(SECOND);
            end.write_all(b"x").unwrap();
            end
        });
        // A file of which nothing is asked can be waited with all the same.
        let mut fds = [
            asked(fd, POLLIN),
            asked(fd, POLLPRI),
            asked(-7, POLLIN),
            asked(fd, POLLIN),
            asked(file, 0),
        ];
        assert_eq!(poll(&mut fds, -1), Ok(2));
        assert_eq!(events(&fds), [POLLIN, 0, 0, POLLIN, 0]);
        drop(writes.join().unwrap());
        assert_eq!(poll(&mut [asked(-1, POLLIN)], 2000), Ok(0));
        assert_eq!(poll(&mut [], 3000), Ok(0));
    });
    assert_eq!(time, 6 * SECOND);
}

/// A wait for less than what is there already: the hub knows it as readable all along.
#[test]
fn a_poll_for_a_hangup_alone_does_not_end_before_it_nor_spin() {
    let time = virtual_time_of(|| {
        let (end, mut other) = UnixStream::pair().unwrap();
        (&end).write_all(b"unread").unwrap();
        let closes = thread::spawn(move || {
            thread::sleep(SECOND);
            end.shutdown(std::net::Shutdown::Write).unwrap();
            thread::sleep(SECOND);
            drop(end);
        });
        let mut fds = [asked(other.as_raw_fd(), POLLRDHUP)];
        assert_eq!(poll(&mut fds, -1), Ok(1));
        assert_eq!(events(&fds), [POLLRDHUP]);
        let mut fds = [asked(other.as_raw_fd(), 0)];
        assert_eq!(poll(&mut fds, -1), Ok(1));
        assert_eq!(events(&fds), [POLLHUP]);
        closes.join().unwrap();
        assert_eq!(other.read(&mut [0; 8]).unwrap(), 6);
    });
    assert_eq!(time, 2 * SECOND);
}

/// What libpq does: a socket in non-blocking mode, and every wait is a poll.
#[test]
fn a_socket_in_nonblocking_mode_is_waited_for_by_poll() {
    use std::os::fd::FromRawFd;
    on_a_virtual_thread(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serves = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 5];
            stream.read_exact(&mut question).unwrap();
            thread::yield_now();
            stream.write_all(&question).unwrap();
        });
        // SAFETY: no memory is touched.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        // SAFETY: just made.
        let stream = unsafe { std::net::TcpStream::from_raw_fd(fd) };
        // SAFETY: no memory is touched.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        // SAFETY: an all-zero address is one.
        let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        to.sin_family = libc::AF_INET as u16;
        to.sin_port = address.port().to_be();
        to.sin_addr.s_addr = u32::from(std::net::Ipv4Addr::LOCALHOST).to_be();
        let size = size_of::<libc::sockaddr_in>() as u32;
        // SAFETY: a live address of that size.
        let begun = result(unsafe { libc::connect(fd, (&raw const to).cast(), size) });
        assert_eq!(begun, Err(libc::EINPROGRESS));
        assert_eq!(poll(&mut [asked(fd, POLLOUT | POLLERR)], -1), Ok(1));
        assert!(stream.take_error().unwrap().is_none());
        assert_eq!((&stream).write(b"hello").unwrap(), 5);
        let mut answer = [0; 8];
        let mut receive = || {
            // SAFETY: a live buffer of that length.
            result(unsafe { libc::recv(fd, answer.as_mut_ptr().cast(), 8, 0) })
        };
        assert_eq!(receive(), Err(libc::EAGAIN));
        assert_eq!(poll(&mut [asked(fd, POLLIN)], -1), Ok(1));
        assert_eq!(receive(), Ok(5));
        serves.join().unwrap();
    });
}

/// True events, of a connection that is refused, too.
#[test]
fn a_refused_connection_shows_in_the_events() {
    on_a_virtual_thread(|| {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = std::net::TcpStream::connect_timeout(&closed, 60 * SECOND).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn poll_with_many_descriptors() {
    on_a_virtual_thread(|| {
        let pairs: Vec<_> = (0..200).map(|_| UnixStream::pair().unwrap()).collect();
        let mut fds: Vec<_> =
            pairs.iter().map(|(_, other)| asked(other.as_raw_fd(), POLLIN)).collect();
        let writes = thread::spawn(move || {
            for (n, (mut end, other)) in pairs.into_iter().enumerate() {
                if n == 150 {
                    end.write_all(b"x").unwrap();
                    return (end, other);
                }
            }
            unreachable!()
        });
        assert!(poll(&mut fds, -1).unwrap() > 0);
        drop(writes.join().unwrap());
    });
}

#[test]
fn ppoll_waits_nanoseconds_and_honours_a_mask() {
    let time = virtual_time_of(|| {
        let (_end, other) = UnixStream::pair().unwrap();
        let mut fds = [asked(other.as_raw_fd(), POLLIN)];
        let limit = libc::timespec { tv_sec: 1, tv_nsec: 5 };
        // SAFETY: an all-zero set is an empty one.
        let none: libc::sigset_t = unsafe { std::mem::zeroed() };
        for mask in [ptr::null(), &raw const none] {
            // SAFETY: a live entry, a live time, null or a live set.
            let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), 1, &raw const limit, mask) };
            assert_eq!(result(ready), Ok(0));
        }
        let wrong = libc::timespec { tv_sec: 1, tv_nsec: 1_000_000_000 };
        // SAFETY: as above.
        let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), 1, &raw const wrong, ptr::null()) };
        assert_eq!(result(ready), Err(libc::EINVAL));
    });
    assert_eq!(time, 2 * SECOND + Duration::from_nanos(10));
}

fn set_of(fds: &[RawFd]) -> libc::fd_set {
    // SAFETY: an all-zero set is an empty one.
    let mut set = unsafe { std::mem::zeroed() };
    for fd in fds {
        // SAFETY: a live set; numbers are small.
        unsafe { libc::FD_SET(*fd, &raw mut set) };
    }
    set
}

fn has(set: &libc::fd_set, fd: RawFd) -> bool {
    // SAFETY: a live set.
    unsafe { libc::FD_ISSET(fd, &raw const *set) }
}

#[test]
fn select_says_who_is_ready_and_how_much_time_is_left() {
    let time = virtual_time_of(|| {
        let (mut end, other) = UnixStream::pair().unwrap();
        let (fd, quiet) = (other.as_raw_fd(), end.as_raw_fd());
        let count = fd.max(quiet) + 1;
        let mut limit = libc::timeval { tv_sec: 1, tv_usec: 500_000 };
        let mut readable = set_of(&[fd, quiet]);
        let none = ptr::null_mut();
        let select = |readable: *mut _, writable: *mut _, limit: *mut _| {
            // SAFETY: null or live sets, and a live time.
            result(unsafe { libc::select(count, readable, writable, none, limit) })
        };
        assert_eq!(select(&raw mut readable, none, &raw mut limit), Ok(0));
        assert!(!has(&readable, fd) && !has(&readable, quiet));
        assert_eq!((limit.tv_sec, limit.tv_usec), (0, 0));
        let writes = thread::spawn(move || {
            thread::sleep(SECOND);
            end.write_all(b"x").unwrap();
            end
        });
        let mut readable = set_of(&[fd, quiet]);
        limit.tv_sec = 10;
        assert_eq!(select(&raw mut readable, none, &raw mut limit), Ok(1));
        assert!(has(&readable, fd) && !has(&readable, quiet));
        assert_eq!((limit.tv_sec, limit.tv_usec), (9, 0));
        let (mut readable, mut writable) = (set_of(&[fd]), set_of(&[fd, quiet]));
        assert_eq!(select(&raw mut readable, &raw mut writable, none.cast()), Ok(3));
        drop(writes.join().unwrap());
        let mut wrong = libc::timeval { tv_sec: -1, tv_usec: 0 };
        assert_eq!(select(none, none, &raw mut wrong), Err(libc::EINVAL));
        // As a sleep.
        let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
        // SAFETY: no sets, a live time.
        let slept = unsafe { libc::pselect(0, none, none, none, &raw const second, ptr::null()) };
        assert_eq!(result(slept), Ok(0));
    });
    assert_eq!(time, Duration::from_millis(3500));
}

/// In a process of its own, where nobody else opens the number; what it has inherited is closed.
/// A hangup, which epoll(7) always reports, is no exception to select(2).
#[test]
fn a_select_for_exceptions_alone_does_not_spin_on_a_hangup() {
    let time = virtual_time_of(|| {
        let (end, other) = UnixStream::pair().unwrap();
        drop(other);
        let mut set = set_of(&[end.as_raw_fd()]);
        let none: *mut libc::fd_set = ptr::null_mut();
        let mut limit = libc::timeval { tv_sec: 1, tv_usec: 0 };
        let count = end.as_raw_fd() + 1;
        // SAFETY: a live set, and a live time.
        let ready = unsafe { libc::select(count, none, none, &raw mut set, &raw mut limit) };
        assert_eq!(result(ready), Ok(0));
    });
    assert!(time >= Duration::from_secs(1) && time < Duration::from_secs(2), "{time:?}");
}

#[test]
fn select_refuses_numbers_that_are_not_open() {
    in_a_process_of_its_own("poll::select_refuses_numbers_that_are_not_open", || {
        on_a_virtual_thread(|| {
            // Not a larger one: the kernel looks at no more bits than it has room for descriptors.
            let number = 63;
            // SAFETY: nobody here knows of it.
            unsafe { libc::close(number) };
            let mut closed = set_of(&[number]);
            let (at, none) = (&raw mut closed, ptr::null_mut());
            // SAFETY: a live set.
            let ready = unsafe { libc::select(number + 1, at, none, none, ptr::null_mut()) };
            assert_eq!(result(ready), Err(libc::EBADF));
            // As many as the limit allows, of a set that is shorter, as the kernel takes it.
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let room = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
            assert!(room.trim().parse::<usize>().unwrap() <= libc::FD_SETSIZE, "{room}");
            let mut sets = [set_of(&[]), set_of(&[0, 1, 2])];
            let mut short = libc::timeval { tv_sec: 0, tv_usec: 1 };
            let (first, short) = (sets.as_mut_ptr(), &raw mut short);
            // SAFETY: a live set, as long as the kernel reads; a live time.
            let ready = unsafe { libc::select(20_000, first, none, none, short) };
            assert_eq!(result(ready), Ok(0));
            assert!(has(&sets[1], 2));
            // SAFETY: a live set.
            let ready = unsafe { libc::select(-1, at, none, none, ptr::null_mut()) };
            assert_eq!(result(ready), Err(libc::EINVAL));
        });
    });
}

#[test]
fn an_epoll_set_of_the_users_is_waited_for() {
    let time = virtual_time_of(|| {
        let (mut end, other) = UnixStream::pair().unwrap();
        // SAFETY: no memory is touched.
        let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 7 };
        let fd = other.as_raw_fd();
        // SAFETY: a live event.
        assert_eq!(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) }, 0);
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 4];
        let at = events.as_mut_ptr();
        // SAFETY: room for four events.
        assert_eq!(result(unsafe { libc::epoll_wait(set, at, 4, 1500) }), Ok(0));
        let writes = thread::spawn(move || {
            thread::sleep(SECOND);
            end.write_all(b"x").unwrap();
            end
        });
        // SAFETY: room for four events; no mask.
        assert_eq!(result(unsafe { libc::epoll_pwait(set, at, 4, -1, ptr::null()) }), Ok(1));
        assert_eq!({ events[0].u64 }, 7);
        drop(writes.join().unwrap());
        assert_eq!((&other).read(&mut [0; 4]).unwrap(), 1);
        // SAFETY: as above.
        assert_eq!(result(unsafe { libc::epoll_wait(NEVER_OPEN, at, 4, -1) }), Err(libc::EBADF));
        // SAFETY: as above.
        assert_eq!(result(unsafe { libc::epoll_wait(fd, at, 4, -1) }), Err(libc::EINVAL));
        // SAFETY: it is not used again.
        assert_eq!(unsafe { libc::close(set) }, 0);
    });
    assert_eq!(time, Duration::from_millis(2500));
}

/// TCP's own hangups and errors, by the kernel.
#[test]
fn a_poll_sees_a_reset() {
    on_a_virtual_thread(|| {
        let (client, server) = connection();
        let fd = client.as_raw_fd();
        let waits = thread::spawn(move || {
            let mut fds = [asked(fd, POLLIN)];
            assert_eq!(poll(&mut fds, -1), Ok(1));
            fds[0].revents
        });
        thread::yield_now();
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let (level, option, size) = (libc::SOL_SOCKET, libc::SO_LINGER, size_of::<libc::linger>());
        let at = (&raw const linger).cast();
        // SAFETY: a live option of that size.
        let set = unsafe { libc::setsockopt(server.as_raw_fd(), level, option, at, size as u32) };
        assert_eq!(set, 0);
        drop(server);
        assert_eq!(waits.join().unwrap() & (POLLERR | POLLHUP), POLLERR | POLLHUP);
    });
}
