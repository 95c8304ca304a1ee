//! From one descriptor to another, within the kernel where it can be.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write, pipe},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    ptr,
    time::Duration,
};

use greenloop::thread;

use crate::{
    call::{Ticks, connection, on_a_virtual_thread, result, virtual_time_of},
    support::assert_ends,
};

const LENGTH: usize = 3 << 20;

fn pattern() -> Vec<u8> {
    (0..LENGTH).map(|n| (n / 7 + n / 4096) as u8).collect()
}

/// A file without a name, with the pattern in it.
fn file() -> File {
    let path = std::env::temp_dir().join(format!(
        "greenloop-file-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let options = File::options().read(true).write(true).create(true).truncate(true).to_owned();
    let mut file = options.open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(&pattern()).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

/// Copies by `std::io::copy`, which finds the kernel's calls, while others run.
#[track_caller]
#[expect(clippy::type_complexity, reason = "two ends, and what happens at their others")]
fn copies<R, W>(make: fn() -> (R, W, Box<dyn FnOnce() + Send>, Box<dyn FnOnce() -> Vec<u8> + Send>))
where
    R: Read + AsRawFd + Send + 'static,
    W: Write + AsRawFd + Send + 'static,
    R: 'static,
{
    assert_ends(move || {
        greenloop::run(move || {
            let ticks = Ticks::begin();
            let (mut from, mut to, feed, collect) = thread::spawn(make).join().unwrap();
            let feeds = thread::spawn(feed);
            let collects = thread::spawn(collect);
            let copied = thread::spawn(move || io::copy(&mut from, &mut to).unwrap());
            assert_eq!(copied.join().unwrap(), LENGTH as u64);
            feeds.join().unwrap();
            assert!(collects.join().unwrap() == pattern(), "other bytes");
            assert!(ticks.end() > 10);
        });
    });
}

fn feed_to(mut to: impl Write + Send + 'static) -> Box<dyn FnOnce() + Send> {
    Box::new(move || to.write_all(&pattern()).unwrap())
}

fn collect_from(mut from: impl Read + Send + 'static) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
    Box::new(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all
    })
}

#[test]
fn from_a_socket_to_a_socket() {
    copies(|| {
        let ((a, from), (to, b)) = (connection(), connection());
        (from, to, feed_to(a), collect_from(b))
    });
}

#[test]
fn from_a_file_to_a_socket() {
    copies(|| {
        // A local one: it holds little, so that the call has to wait.
        let (to, end) = UnixStream::pair().unwrap();
        (file(), to, Box::new(|| ()), collect_from(end))
    });
}

#[test]
fn from_a_socket_to_a_pipe() {
    copies(|| {
        let ((a, from), (reader, writer)) = (connection(), pipe().unwrap());
        (from, writer, feed_to(a), collect_from(reader))
    });
}

#[test]
fn from_a_pipe_to_a_socket() {
    copies(|| {
        let ((reader, writer), (to, end)) = (pipe().unwrap(), connection());
        (reader, to, feed_to(writer), collect_from(end))
    });
}

#[test]
fn from_a_pipe_to_a_pipe() {
    copies(|| {
        let ((from, a), (b, to)) = (pipe().unwrap(), pipe().unwrap());
        (from, to, feed_to(a), collect_from(b))
    });
}

#[test]
fn from_a_file_to_a_pipe() {
    copies(|| {
        let (reader, writer) = pipe().unwrap();
        (file(), writer, Box::new(|| ()), collect_from(reader))
    });
}

#[test]
fn from_a_socket_to_a_file() {
    on_a_virtual_thread(|| {
        let (a, mut from) = connection();
        let feeds = thread::spawn(feed_to(a));
        let mut to = file();
        to.set_len(0).unwrap();
        assert_eq!(io::copy(&mut from, &mut to).unwrap(), LENGTH as u64);
        feeds.join().unwrap();
        to.seek(SeekFrom::Start(0)).unwrap();
        assert!(collect_from(to)() == pattern());
    });
}

#[test]
fn from_a_file_to_a_file() {
    on_a_virtual_thread(|| {
        let (mut from, mut to) = (file(), file());
        to.set_len(0).unwrap();
        assert_eq!(io::copy(&mut from, &mut to).unwrap(), LENGTH as u64);
        to.seek(SeekFrom::Start(0)).unwrap();
        assert!(collect_from(to)() == pattern());
    });
}

/// The offset goes on by what was sent, and the file's own position does not; and the other way
/// round.
#[test]
fn sendfile_keeps_count_of_what_was_sent() {
    on_a_virtual_thread(|| {
        let (end, other) = UnixStream::pair().unwrap();
        end.set_nonblocking(true).unwrap();
        let mut file = file();
        let mut offset = 1000;
        let (to, from) = (end.as_raw_fd(), file.as_raw_fd());
        // SAFETY: a live offset.
        let sent = result(unsafe { libc::sendfile(to, from, &raw mut offset, LENGTH) }).unwrap();
        assert!(sent > 0 && sent < LENGTH as i64);
        assert_eq!((offset, file.stream_position().unwrap()), (1000 + sent, 0));
        let mut got = vec![0; sent as usize];
        (&other).read_exact(&mut got).unwrap();
        assert!(got == pattern()[1000..1000 + sent as usize]);
        // SAFETY: null: from the file's own position.
        let sent = result(unsafe { libc::sendfile(to, from, ptr::null_mut(), 500) });
        assert_eq!((sent, file.stream_position().unwrap()), (Ok(500), 500));
    });
}

#[test]
fn tee_and_vmsplice_wait_for_their_pipes() {
    on_a_virtual_thread(|| {
        let ((from, mut feed), (to, end)) = (pipe().unwrap(), pipe().unwrap());
        let tees = thread::spawn(move || {
            let (from, end) = (OwnedFd::from(from), OwnedFd::from(end));
            // SAFETY: no memory is touched.
            let copied = result(unsafe { libc::tee(from.as_raw_fd(), end.as_raw_fd(), 100, 0) });
            (copied, from, end)
        });
        thread::yield_now();
        feed.write_all(b"twice").unwrap();
        let (copied, from, end) = tees.join().unwrap();
        assert_eq!(copied, Ok(5));
        for fd in [from, to.into()] {
            let mut text = [0; 5];
            File::from(fd).read_exact(&mut text).unwrap();
            assert_eq!(&text, b"twice");
        }
        drop(end);
        let (reader, writer) = pipe().unwrap();
        let reads = thread::spawn(collect_from(reader));
        let all = pattern();
        let mut given = 0;
        while given < all.len() {
            let part = libc::iovec {
                iov_base: all[given..].as_ptr().cast_mut().cast(),
                iov_len: all.len() - given,
            };
            // SAFETY: a live part, which is not changed until it is read.
            let now = unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const part, 1, 0) };
            given += result(now).unwrap() as usize;
        }
        drop(writer);
        assert!(reads.join().unwrap() == all);
    });
}

/// Two virtual threads that want one lock, by each of the calls.
#[test]
fn locks_on_files_are_waited_for() {
    type Lock = fn(i32, bool) -> i32;
    let locks: [Lock; 2] = [
        // SAFETY: no memory is touched.
        |fd, on| unsafe { libc::flock(fd, if on { libc::LOCK_EX } else { libc::LOCK_UN }) },
        |fd, on| {
            // SAFETY: an all-zero lock is one: of the whole file.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            lock.l_type = if on { libc::F_WRLCK } else { libc::F_UNLCK } as i16;
            // SAFETY: a live lock.
            unsafe { libc::fcntl(fd, libc::F_OFD_SETLKW, &raw const lock) }
        },
    ];
    for lock in locks {
        let time = virtual_time_of(move || {
            let path = std::env::temp_dir().join(format!("greenloop-two-{}", std::process::id()));
            let options = File::options().read(true).write(true).create(true).to_owned();
            let (one, two) = (options.open(&path).unwrap(), options.open(&path).unwrap());
            std::fs::remove_file(&path).unwrap();
            assert_eq!(lock(one.as_raw_fd(), true), 0);
            let waits = thread::spawn(move || assert_eq!(lock(two.as_raw_fd(), true), 0));
            thread::sleep(Duration::from_secs(1));
            assert!(!waits.is_finished());
            assert_eq!(lock(one.as_raw_fd(), false), 0);
            waits.join().unwrap();
        });
        assert!(time >= Duration::from_secs(1) && time <= Duration::from_millis(1064), "{time:?}");
    }
    // lockf(3) has one owner, the process, which never waits for itself.
    on_a_virtual_thread(|| {
        let file = file();
        // SAFETY: no memory is touched.
        let locked = [libc::F_LOCK, libc::F_ULOCK]
            .map(|command| unsafe { libc::lockf(file.as_raw_fd(), command, 0) });
        assert_eq!(locked, [0, 0]);
    });
}

/// What a call has taken from one end, it has given to the other, whatever that has room for.
#[test]
fn splice_loses_nothing_where_it_does_not_wait() {
    const LENGTH: usize = 64 * 1024;
    /// Moves all that can be moved without a wait.
    fn moved(from: &impl AsRawFd, to: &impl AsRawFd, flags: u32) -> usize {
        let mut all = 0;
        loop {
            let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
            let none = ptr::null_mut;
            // SAFETY: no memory is touched.
            let now = unsafe { libc::splice(from, none(), to, none(), LENGTH, flags) };
            match result(now) {
                Ok(now) => all += now as usize,
                Err(error) => {
                    assert_eq!(error, libc::EAGAIN);
                    return all;
                }
            }
        }
    }
    fn left(from: &impl AsRawFd) -> usize {
        let mut left: i32 = 0;
        // SAFETY: a live int.
        assert_eq!(unsafe { libc::ioctl(from.as_raw_fd(), libc::FIONREAD, &raw mut left) }, 0);
        left as usize
    }
    let bytes = pattern();
    on_a_virtual_thread(move || {
        // To a socket that is full, by its own mode and by the call's flag.
        for flags in [0, libc::SPLICE_F_NONBLOCK] {
            let ((reader, mut writer), (mut socket, _other)) =
                (pipe().unwrap(), UnixStream::pair().unwrap());
            socket.set_nonblocking(true).unwrap();
            while socket.write(&bytes).is_ok() {}
            socket.set_nonblocking(flags == 0).unwrap();
            writer.write_all(&bytes[..LENGTH]).unwrap();
            assert_eq!(moved(&reader, &socket, flags), 0);
            assert_eq!(left(&reader), LENGTH);
        }
        // Into a pipe that is nearly full.
        let ((reader, mut writer), (mut end, other)) =
            (pipe().unwrap(), UnixStream::pair().unwrap());
        writer.write_all(&bytes[..LENGTH - 4096]).unwrap();
        end.write_all(&bytes[..LENGTH]).unwrap();
        let moved = moved(&other, &writer, libc::SPLICE_F_NONBLOCK);
        assert_eq!(moved + left(&other), LENGTH);
        assert_eq!(left(&reader), LENGTH - 4096 + moved);
    });
}
