//! What is remembered of a socket is forgotten when it is no longer so.
//!
//! A read that waits lets a bystander run; one that has its answer at once does not. So whether it
//! went by its memory shows without a clock.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use greenloop::thread;

use crate::{
    call::{connection, on_a_virtual_thread, result},
    support::assert_ends,
};

/// What a wait by memory takes at most; a read that is told otherwise takes less.
const LIMIT: Duration = Duration::from_millis(40);

/// Reads once with a wait, after which it is remembered how `reader` waits.
fn warm(reader: &TcpStream, writer: &TcpStream) {
    let theirs = writer.try_clone().unwrap();
    let writes = thread::spawn(move || (&theirs).write_all(b"x").unwrap());
    assert_eq!((&mut &*reader).read(&mut [0; 8]).unwrap(), 1);
    writes.join().unwrap();
}

/// Reads, and tells how much or why not; nobody else may have run meanwhile.
#[track_caller]
fn read_at_once(mut reader: &TcpStream) -> Result<usize, ErrorKind> {
    let has_run = Arc::new(AtomicBool::new(false));
    let runs = Arc::clone(&has_run);
    let bystander = thread::spawn(move || runs.store(true, Ordering::Relaxed));
    let read = reader.read(&mut [0; 8]);
    assert!(!has_run.load(Ordering::Relaxed), "it has waited");
    bystander.join().unwrap();
    read.map_err(|error| error.kind())
}

#[test]
fn a_mode_that_is_set_by_another_number_counts_at_once() {
    on_a_virtual_thread(|| {
        let (reader, writer) = connection();
        let twin = reader.try_clone().unwrap();
        warm(&reader, &writer);
        twin.set_nonblocking(true).unwrap();
        assert_eq!(read_at_once(&reader), Err(ErrorKind::WouldBlock));
        twin.set_nonblocking(false).unwrap();
        warm(&reader, &writer);
        let fd = twin.as_raw_fd();
        // SAFETY: no memory is touched.
        let set = unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_RDWR | libc::O_NONBLOCK) };
        assert_eq!(result(set), Ok(0));
        assert_eq!(read_at_once(&reader), Err(ErrorKind::WouldBlock));
    });
}

#[test]
fn a_timeout_that_is_set_later_counts_from_the_next_read_on() {
    on_a_virtual_thread(|| {
        let (reader, writer) = connection();
        // Each may be slow because the machine is; not one could be fast.
        let is_fast = |_| {
            reader.set_read_timeout(None).unwrap();
            warm(&reader, &writer);
            reader.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let begun = Instant::now();
            let error = (&reader).read(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            begun.elapsed() < LIMIT
        };
        assert!((0..100).any(is_fast));
    });
}

/// Makes `old` a name of what `new` names.
fn rename(new: &TcpStream, old: &TcpStream) {
    // SAFETY: both are open, and this test's own.
    let done = unsafe { libc::dup2(new.as_raw_fd(), old.as_raw_fd()) };
    assert_eq!(done, old.as_raw_fd());
}

#[test]
fn a_number_that_names_another_socket_is_asked_anew() {
    on_a_virtual_thread(|| {
        let (reader, writer) = connection();
        let (other, _peer) = connection();
        other.set_nonblocking(true).unwrap();
        warm(&reader, &writer);
        rename(&other, &reader);
        assert_eq!(read_at_once(&reader), Err(ErrorKind::WouldBlock));
    });
}

/// While there is no guest, closes are not counted.
#[test]
fn nothing_is_remembered_past_a_time_without_virtual_threads() {
    assert_ends(|| {
        greenloop::run(|| {
            let (reader, writer) = connection();
            let (other, _peer) = connection();
            other.set_nonblocking(true).unwrap();
            let waits = thread::spawn(move || {
                warm(&reader, &writer);
                (reader, writer)
            });
            let (reader, _writer) = waits.join().unwrap();
            rename(&other, &reader);
            let reads = thread::spawn(move || read_at_once(&reader));
            assert_eq!(reads.join().unwrap(), Err(ErrorKind::WouldBlock));
        });
    });
}

/// Here no hook sees what changes: rustix makes its system calls itself. Whoever goes by what is
/// remembered still finds out.
#[test]
fn a_memory_that_is_wrong_only_delays() {
    on_a_virtual_thread(|| {
        for is_nonblocking in [false, true] {
            let (reader, writer) = connection();
            let (other, peer) = connection();
            other.set_nonblocking(is_nonblocking).unwrap();
            warm(&reader, &writer);
            let mut slot = OwnedFd::from(reader);
            rustix::io::dup3(&other, &mut slot, rustix::io::DupFlags::CLOEXEC).unwrap();
            let mut reader = TcpStream::from(slot);
            if is_nonblocking {
                let error = reader.read(&mut [0; 8]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                continue;
            }
            for _ in 0..3 {
                let mut theirs = peer.try_clone().unwrap();
                let writes = thread::spawn(move || theirs.write_all(b"abc").unwrap());
                assert_eq!(reader.read(&mut [0; 8]).unwrap(), 3);
                writes.join().unwrap();
            }
        }
    });
}

/// After a short read, the next one waits without a try; but not for an end that is known.
#[test]
fn an_end_that_came_with_the_last_bytes_is_read_at_once() {
    on_a_virtual_thread(|| {
        let (reader, writer) = connection();
        warm(&reader, &writer);
        let ends = thread::spawn(move || {
            (&writer).write_all(b"ab").unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
            writer
        });
        assert_eq!((&reader).read(&mut [0; 8]).unwrap(), 2);
        assert_eq!(read_at_once(&reader), Ok(0));
        ends.join().unwrap();
    });
}

/// RECALL-2: what came in a turn after the short read is no news in a later one.
#[test]
fn what_came_in_another_turn_is_read_at_once() {
    on_a_virtual_thread(|| {
        let (reader, mut writer) = connection();
        warm(&reader, &writer);
        writer.write_all(b"ab").unwrap();
        assert_eq!((&reader).read(&mut [0; 8]).unwrap(), 2);
        writer.write_all(b"abc").unwrap();
        thread::sleep(Duration::from_millis(2));
        assert_eq!(read_at_once(&reader), Ok(3));
    });
}

/// A close, on whatever thread, ends a wait by memory like any other.
#[test]
fn a_close_ends_a_wait_by_memory() {
    on_a_virtual_thread(|| {
        // Each may be slow because the machine is; not one could be fast.
        let is_fast = |_| {
            let (reader, writer) = connection();
            warm(&reader, &writer);
            let (fd, begun) = (reader.as_raw_fd(), Instant::now());
            let waits = thread::spawn(move || {
                // SAFETY: a live buffer of that length.
                result(unsafe { libc::recv(fd, [0u8; 8].as_mut_ptr().cast(), 8, 0) })
            });
            thread::yield_now();
            std::thread::spawn(move || drop(reader)).join().unwrap();
            assert_eq!(waits.join().unwrap(), Err(libc::EBADF));
            begun.elapsed() < LIMIT
        };
        assert!((0..100).any(is_fast));
    });
}
