//! Scenes of calls that wait for several things, of closes by others, and of time that runs out.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    ptr,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicI32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use greenloop::testing::Random;

use crate::{
    stage::{Party, mortal_pause, own, party, pause},
    watch::step,
};

/// The error of the last call of libc's.
fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().expect("it is one of the system's")
}

/// One who waits for several pipes, by `poll`, `select` or `epoll_wait`, until all have ended.
pub(crate) fn polls(random: &Random, is_calm: bool) -> Vec<Party> {
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..1 + random.below(4) {
        let ((reader, mut writer), random) = (io::pipe().unwrap(), own(random));
        readers.push(reader);
        writers.push(party(move || {
            for _ in 0..10 {
                mortal_pause(&random);
                if let Err(error) = writer.write_all(&[7]) {
                    assert!(!is_calm, "{error}");
                    return;
                }
            }
        }));
    }
    let count = readers.len();
    let wait = [poll, select, epoll][random.below(3)];
    let random = own(random);
    writers.push(party(move || {
        let mut bytes = 0;
        while !readers.is_empty() {
            let timeout_ms = [-1, -1, 0, 1][random.below(4)];
            let Ok(ready) = wait(&readers, timeout_ms) else {
                assert!(!is_calm, "{}", io::Error::last_os_error());
                return;
            };
            step();
            // From the last to the first, so that those before stay in their places.
            for place in ready.into_iter().rev() {
                match readers[place].read(&mut [0; 3]) {
                    Ok(0) => drop(readers.swap_remove(place)),
                    Ok(read) => bytes += read,
                    Err(error) => return assert!(!is_calm, "{error}"),
                }
            }
            mortal_pause(&random);
        }
        assert!(!is_calm || bytes == 10 * count, "{bytes} bytes of {count} pipes");
    }));
    writers
}

/// How one waits for pipes: which of them are ready.
type Wait = fn(&[io::PipeReader], i32) -> Result<Vec<usize>, ()>;

const _: [Wait; 3] = [poll, select, epoll];

fn poll(readers: &[io::PipeReader], timeout_ms: i32) -> Result<Vec<usize>, ()> {
    let entry = |reader: &io::PipeReader| libc::pollfd {
        fd: reader.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut entries: Vec<_> = readers.iter().map(entry).collect();
    // SAFETY: so many live entries.
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as u64, timeout_ms) };
    let is_ready = |(place, entry): (usize, &libc::pollfd)| (entry.revents != 0).then_some(place);
    let found: Vec<_> = entries.iter().enumerate().filter_map(is_ready).collect();
    if ready < 0 { Err(()) } else { Ok(found) }
}

fn select(readers: &[io::PipeReader], timeout_ms: i32) -> Result<Vec<usize>, ()> {
    // SAFETY: an all-zero set is an empty one.
    let mut set: libc::fd_set = unsafe { std::mem::zeroed() };
    let mut last = 0;
    for reader in readers {
        last = last.max(reader.as_raw_fd());
        // SAFETY: the numbers of a round are small.
        unsafe { libc::FD_SET(reader.as_raw_fd(), &raw mut set) };
    }
    let mut limit = libc::timeval { tv_sec: 0, tv_usec: i64::from(timeout_ms.max(0)) * 1000 };
    let limit = if timeout_ms < 0 { ptr::null_mut() } else { &raw mut limit };
    let none = ptr::null_mut();
    // SAFETY: a live set, and a limit or none.
    if unsafe { libc::select(last + 1, &raw mut set, none, none, limit) } < 0 {
        return Err(());
    }
    let is_ready = |(place, reader): (usize, &io::PipeReader)| {
        // SAFETY: the number is small.
        unsafe { libc::FD_ISSET(reader.as_raw_fd(), &raw const set) }.then_some(place)
    };
    Ok(readers.iter().enumerate().filter_map(is_ready).collect())
}

fn epoll(readers: &[io::PipeReader], timeout_ms: i32) -> Result<Vec<usize>, ()> {
    // SAFETY: no memory is touched.
    let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    assert!(set >= 0);
    // SAFETY: it was just opened.
    let set = unsafe { OwnedFd::from_raw_fd(set) };
    for (place, reader) in readers.iter().enumerate() {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: place as u64 };
        let (set, fd) = (set.as_raw_fd(), reader.as_raw_fd());
        // SAFETY: a live event.
        let added = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        assert_eq!(added, 0);
    }
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
    // SAFETY: so many live events.
    let ready = unsafe { libc::epoll_wait(set.as_raw_fd(), events.as_mut_ptr(), 8, timeout_ms) };
    let ready = usize::try_from(ready).map_err(drop)?;
    let mut found: Vec<_> = events[..ready].iter().map(|event| event.u64 as usize).collect();
    found.sort_unstable();
    Ok(found)
}

/// Numbers that `open` never gives, so that one which was closed is nobody else's soon.
const FIRST_HIGH: i32 = 600;
const HIGH_COUNT: i32 = 300;

/// A descriptor with a high number.
fn raised(fd: &impl AsRawFd) -> RawFd {
    static NEXT: AtomicI32 = AtomicI32::new(0);
    let number = FIRST_HIGH + NEXT.fetch_add(1, Ordering::Relaxed).rem_euclid(HIGH_COUNT);
    // SAFETY: no memory is touched.
    let raised = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
    assert!(raised >= FIRST_HIGH);
    raised
}

/// Closes its number when it is dropped.
struct Closes(RawFd);

impl Drop for Closes {
    fn drop(&mut self) {
        // SAFETY: the number is this scene's.
        assert_eq!(unsafe { libc::close(self.0) }, 0);
    }
}

/// Some wait for a number that another thread closes.
pub(crate) fn closes(random: &Random, _: bool) -> Vec<Party> {
    let (end, other) = UnixStream::pair().unwrap();
    let (fd, other) = (raised(&end), Arc::new(other));
    drop(end);
    let mut parties: Vec<_> = (0..1 + random.below(3))
        .map(|_| {
            let (way, other) = (random.below(3), Arc::clone(&other));
            party(move || {
                let mut one = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
                let mut room = [0u8; 8];
                let ended = match way {
                    // SAFETY: so much live room.
                    0 => unsafe { libc::recv(fd, room.as_mut_ptr().cast(), 8, 0) },
                    // SAFETY: so much live room.
                    1 => unsafe { libc::read(fd, room.as_mut_ptr().cast(), 8) },
                    // SAFETY: one live entry.
                    _ => (unsafe { libc::poll(&raw mut one, 1, -1) }) as isize,
                };
                if ended == 1 {
                    assert_eq!(one.revents, libc::POLLNVAL);
                } else {
                    assert!([libc::EBADF, libc::ECANCELED].contains(&errno()), "{}", errno());
                    assert_eq!(ended, -1);
                }
                drop(other);
            })
            .on_a_hub()
        })
        .collect();
    let (closes, random) = (Closes(fd), own(random));
    parties.push(party(move || {
        mortal_pause(&random);
        drop((closes, other));
    }));
    parties
}

/// Time runs out for every kind of wait, and the thread is none the worse.
pub(crate) fn timeouts(random: &Random, is_calm: bool) -> Vec<Party> {
    let random = own(random);
    vec![
        party(move || {
            let (mut end, other) = UnixStream::pair().unwrap();
            let (_sender, receiver) = mpsc::channel::<()>();
            let (mutex, changed) = (Mutex::new(()), Condvar::new());
            for _ in 0..8 {
                let limit = Duration::from_micros(1 + random.below(500) as u64);
                let begun = Instant::now();
                let is_over = match random.below(5) {
                    0 => read_in_time(&end, limit).is_none_or(|killed| killed && !is_calm),
                    1 => {
                        end.set_read_timeout(Some(limit)).unwrap();
                        let error = end.read(&mut [0]).expect_err("nothing was sent");
                        end.set_read_timeout(None).unwrap();
                        let killed = error.raw_os_error() == Some(libc::ECANCELED);
                        error.kind() == io::ErrorKind::WouldBlock || killed && !is_calm
                    }
                    2 => receiver.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout),
                    3 => changed.wait_timeout(mutex.lock().unwrap(), limit).unwrap().1.timed_out(),
                    _ => {
                        while begun.elapsed() < limit {
                            thread::park_timeout(limit / 4);
                            greenloop::thread::sleep(limit / 4);
                        }
                        true
                    }
                };
                assert!(is_over);
                mortal_pause(&random);
                // What was cut short is whole afterwards.
                let whole = (&other).write_all(b"x").and_then(|()| end.read_exact(&mut [0]));
                if let Err(error) = whole {
                    return assert!(!is_calm, "{error}");
                }
                pause(&random);
            }
        })
        .on_a_hub(),
    ]
}

/// Reads what never comes, under a timeout of greenloop's. Whether it was killed; `None` when time
/// has run out, as it must.
fn read_in_time(mut end: &UnixStream, limit: Duration) -> Option<bool> {
    let read = greenloop::timeout(limit, || end.read(&mut [0]));
    // libc's call fails, and the closure returns what it says.
    let error = read.ok()?.expect_err("nothing was sent");
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT) => None,
        Some(libc::ECANCELED) => Some(true),
        _ => panic!("{error}"),
    }
}
