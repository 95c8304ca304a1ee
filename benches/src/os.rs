//! What the benches ask of the kernel: cores, processor time, limits, and the end of a server.
//!
//! # Safety
//! Two calls are not in rustix: the clock of another process, and a signal that answers a closed
//! pipe. Nothing unsafe leaves this file.
#![expect(unsafe_code, reason = "libc calls that rustix leaves out")]

use std::io;
use std::mem;
use std::process;
use std::ptr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Keeps the calling thread, and every thread it starts from now on, on `core`.
///
/// Call it first: threads that already run stay where they are.
///
/// # Errors
/// `EINVAL` when the machine has no such core, or the process may not use it.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Returns the processor time, user and system, of this process so far.
#[must_use]
pub fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Returns the processor time, user and system, of all threads of process `pid` so far.
///
/// Nanoseconds, and up to date even for a thread that is running: `/proc/PID/stat` has
/// hundredths of a second, and `/proc/PID/schedstat` knows one thread.
///
/// # Errors
/// When there is no such process.
/// # Source
/// clock_getcpuclockid(3)
pub fn process_cpu_of(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a live clock id that the call writes; it keeps no pointer.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec that the call writes; it keeps no pointer.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Raises the limit of open descriptors as far as this process may.
///
/// # Errors
/// When even that is refused.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Ends this process when its standard input, a pipe or a terminal, is closed or says anything.
///
/// It writes `cpu_ns N`, the processor time of the process, to standard output first. A signal
/// does it, because a server must not pay for being watched: no thread more (with two threads
/// the kernel takes a reference count for each descriptor it looks up), no descriptor more in
/// the poller, no system call more per request.
///
/// # Errors
/// When standard input cannot send signals, as a file or `/dev/null` cannot: the server then runs
/// until it is killed.
/// # Source
/// fcntl(2), `O_ASYNC`; signal-safety(7)
pub fn exit_when_stdin_speaks() -> io::Result<()> {
    // SAFETY: all zeroes is a valid sigaction: no flags, an empty mask, the default action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = report_and_exit as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // A green thread's stack may be too small for the vector registers that a signal saves.
    action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: `action` is a live sigaction whose function makes only calls that are safe in a
    // signal handler; the old action is not asked for.
    check(unsafe { libc::sigaction(libc::SIGIO, &raw const action, ptr::null_mut()) })?;
    // SAFETY: F_SETOWN takes a process id and keeps no pointer.
    check(unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_SETOWN, process::id()) })?;
    // SAFETY: F_GETFL takes no argument.
    let flags = check(unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes the flags as an int and keeps no pointer.
    check(unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_SETFL, flags | libc::O_ASYNC) })?;
    Ok(())
}

/// Writes the processor time of this process as a line and ends it. Runs as a signal handler:
/// no allocation, no locks, no formatting of the standard library.
extern "C" fn report_and_exit(_signal: libc::c_int) {
    let mut line = *b"cpu_ns 00000000000000000000\n";
    let mut rest = process_cpu().as_nanos();
    for digit in line[7..27].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    // SAFETY: `line` is live and as long as said; nothing can be done if it cannot be written.
    let _ = unsafe { libc::write(libc::STDOUT_FILENO, line.as_ptr().cast(), line.len()) };
    // SAFETY: ends the process at once, which is safe anywhere; nothing here needs a destructor.
    unsafe { libc::_exit(0) }
}

/// Turns libc's -1 into the error it left.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Describes where the figures were made: processor, kernel, compiler, day.
#[must_use]
pub fn machine() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let kernel = rustix::system::uname();
    format!(
        "{model}, {cores} core(s), Linux {}, {}, {}",
        kernel.release().to_string_lossy(),
        said_by("rustc", "--version"),
        said_by("date", "+%F"),
    )
}

/// Returns what `program` prints, or that it is unknown.
fn said_by(program: &str, argument: &str) -> String {
    process::Command::new(program)
        .arg(argument)
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| format!("{program} unknown"), |text| text.trim().to_owned())
}
