//! What the tests have in common.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs::File,
    io,
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use greenloop::{reactor, testing, thread};

use crate::support::assert_ends;

/// Runs `f` on a virtual thread of a hub of its own, in real time.
#[track_caller]
pub(crate) fn on_a_virtual_thread<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    assert_ends(|| greenloop::run(|| thread::spawn(f).join().unwrap()))
}

/// How much virtual time passes while `f` runs on a virtual thread.
#[track_caller]
pub(crate) fn virtual_time_of(f: impl FnOnce() + Send + 'static) -> Duration {
    assert_ends(|| {
        testing::run(|| {
            let begun = reactor().now();
            thread::spawn(f).join().unwrap();
            reactor().now().duration_since(begun)
        })
    })
}

/// A connection, both ends.
pub(crate) fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

thread_local! {
    /// How often this thread has allocated.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: it comes from `alloc` above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// How often the calling thread allocates in `f`.
pub(crate) fn allocations_of(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

/// What a call of libc's gave.
#[track_caller]
pub(crate) fn result(given: impl TryInto<i64>) -> Result<i64, i32> {
    match given.try_into().unwrap_or_else(|_| unreachable!("64 bits hold all")) {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap()),
        value => Ok(value),
    }
}

/// The status flags of an open file, from the kernel itself.
pub(crate) fn flags_of(fd: &impl AsRawFd) -> rustix::fs::OFlags {
    // SAFETY: it is open, and borrowed for this call.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    rustix::fs::fcntl_getfl(fd).unwrap()
}

/// A pipe with a name, which is gone already: one descriptor, for both ends.
pub(crate) fn named_pipe() -> OwnedFd {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("greenloop-{}-{number}", std::process::id()));
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a live string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    // SAFETY: as above.
    let fd = unsafe { libc::open(name.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    std::fs::remove_file(path).unwrap();
    assert!(fd >= 0);
    // SAFETY: just opened.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A virtual thread that runs beside others for as long as they take, and counts its turns.
pub(crate) struct Ticks {
    over: Arc<AtomicBool>,
    count: thread::JoinHandle<u32>,
}

impl Ticks {
    pub(crate) fn begin() -> Ticks {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let count = thread::spawn(move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                std::thread::yield_now();
            }
            count
        });
        Ticks { over, count }
    }

    pub(crate) fn end(self) -> u32 {
        self.over.store(true, Ordering::Relaxed);
        self.count.join().unwrap()
    }
}

/// A terminal: who plays the user, and the program's side.
pub(crate) fn terminal() -> (File, File) {
    // SAFETY: no memory is touched.
    let master = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY) };
    assert!(master >= 0);
    // SAFETY: just opened.
    let file = unsafe { File::from_raw_fd(master) };
    // SAFETY: it is open.
    assert_eq!(unsafe { libc::grantpt(master) }, 0);
    // SAFETY: it is open.
    assert_eq!(unsafe { libc::unlockpt(master) }, 0);
    let mut name = [0; 64];
    // SAFETY: so many live bytes.
    assert_eq!(unsafe { libc::ptsname_r(master, name.as_mut_ptr(), name.len()) }, 0);
    // SAFETY: the call above has written a string.
    let name = unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) };
    let options = File::options().read(true).write(true).to_owned();
    (file, options.open(name.to_str().unwrap()).unwrap())
}
