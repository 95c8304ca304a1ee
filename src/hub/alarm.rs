//! The two signals that this crate takes besides those of faults, and only when asked.
//!
//! Floor 4. Uses: sigaction(2), `coro::Snapshot`. Used by: `watchdog`, which asks a thread who
//! keeps it; `dump`, for SIGQUIT.
//!
//! SIGURG asks a thread that does not get on who runs on it, and where. Its handler is there only
//! while that is asked, and only if nobody else takes the signal, whose default is to do nothing.
//!
//! # States
//!
//! ```text
//! IDLE ──question──▶ ASKED ──the handler, on the right thread──▶ BUSY ──▶ DONE ──question──▶ IDLE
//!   ▲                  │
//!   └─no answer in time┘
//! ```
//!
//! # Invariants
//!
//! - `ALARM-1` What `question` and the handler share belongs to the handler from ASKED to DONE, and
//!   to `question`, of which there is one at a time, otherwise. The one that asks changes ASKED to
//!   IDLE or waits for DONE. A fork may leave any state behind, and the handler in its place; of
//!   those threads the child has none, so it begins anew.
//! - `ALARM-2` The handlers allocate nothing, lock nothing and call nothing that does.

#![expect(unsafe_code, reason = "signal handlers")]
//! # Safety
//!
//! Handlers keep `ALARM-2`; the shared cell is reached under `ALARM-1`.

use std::{
    backtrace::Backtrace,
    cell::UnsafeCell,
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    panic::Location,
    ptr,
    sync::{
        Once, OnceLock, PoisonError,
        atomic::{AtomicI32, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::Pid;

use super::{Hub, pulse::Registry};
use crate::coro::{Registers, Snapshot, call_replaced};

/// The signal that asks. Nearly nobody uses it, and one that comes too late does nothing.
const QUESTION: c_int = libc::SIGURG;

/// How long an answer may take: a thread that waits in the kernel uninterruptibly gives none.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);

/// Bytes of a name that are kept.
const NAME_BYTES: usize = 64;

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const BUSY: u32 = 2;
const DONE: u32 = 3;

/// Whom a thread was found to run.
#[derive(Debug)]
pub(super) struct Culprit {
    /// The greenlet, unless it is the hub itself: number, name, place of birth.
    pub(super) greenlet: Option<(u64, String, Option<&'static Location<'static>>)>,
    /// Whether that is a guest.
    pub(super) is_guest: bool,
    pub(super) backtrace: Option<Backtrace>,
}

/// What the handler writes.
struct Answer {
    id: u64,
    is_guest: bool,
    birth: Option<&'static Location<'static>>,
    name: [u8; NAME_BYTES],
    name_len: usize,
    stack: Snapshot,
}

struct Desk {
    state: AtomicU32,
    /// Who is asked.
    tid: AtomicI32,
    answer: UnsafeCell<Option<Answer>>,
}

// SAFETY: ALARM-1: one thread at a time has the cell. Thread A stores its answer and then DONE, by
// release; thread B sees DONE, by acquire, and reads.
unsafe impl Sync for Desk {}

static DESK: Desk =
    Desk { state: AtomicU32::new(IDLE), tid: AtomicI32::new(0), answer: UnsafeCell::new(None) };

/// Asks a thread of this process who runs on it. `None`: it did not answer, or the signal is taken.
pub(super) fn question(tid: Pid) -> Option<Culprit> {
    // The process's own: the child of a fork may find that of its parent held for ever.
    let _alone = Registry::get().asking.lock().unwrap_or_else(PoisonError::into_inner);
    let ours = on_question as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
    if ![libc::SIG_DFL, ours].contains(&action_of(QUESTION)?.sa_sigaction) {
        return None;
    }
    DESK.state.store(IDLE, Ordering::Relaxed);
    {
        // SAFETY: the state is IDLE, and we are alone (ALARM-1).
        let answer = unsafe { &mut *DESK.answer.get() };
        answer.get_or_insert_with(|| Answer {
            id: 0,
            is_guest: false,
            birth: None,
            name: [0; NAME_BYTES],
            name_len: 0,
            stack: Snapshot::new(),
        });
    }
    DESK.tid.store(tid.as_raw_nonzero().get(), Ordering::Relaxed);
    DESK.state.store(ASKED, Ordering::Release);
    set_action(QUESTION, ours);
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: three numbers; the thread is one of ours, or gone.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid.as_raw_nonzero().get(), QUESTION) };
    let answered = is_answered();
    if action_of(QUESTION)?.sa_sigaction == ours {
        set_action(QUESTION, libc::SIG_DFL);
    }
    if !answered {
        return None;
    }
    DESK.state.store(IDLE, Ordering::Relaxed);
    // SAFETY: it was DONE, and we are alone (ALARM-1).
    let answer = unsafe { &mut *DESK.answer.get() }.as_mut()?;
    let name = String::from_utf8_lossy(&answer.name[..answer.name_len]).into_owned();
    Some(Culprit {
        greenlet: (answer.id != 0).then_some((answer.id, name, answer.birth)),
        is_guest: answer.is_guest,
        backtrace: answer.stack.backtrace(),
    })
}

/// Waits for DONE, or takes the question back.
fn is_answered() -> bool {
    let begun = Instant::now();
    loop {
        if DESK.state.load(Ordering::Acquire) == DONE {
            return true;
        }
        let taken_back = || {
            let back =
                DESK.state.compare_exchange(ASKED, IDLE, Ordering::AcqRel, Ordering::Acquire);
            back.is_ok()
        };
        if begun.elapsed() > ANSWER_LIMIT && taken_back() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

extern "C" fn on_question(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    let is_ours = DESK.tid.load(Ordering::Relaxed) == tid
        && DESK.state.compare_exchange(ASKED, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    if !is_ours {
        return;
    }
    // SAFETY: BUSY is set: the cell is ours (ALARM-1).
    if let Some(answer) = unsafe { &mut *DESK.answer.get() } {
        answer.id = 0;
        answer.name_len = 0;
        answer_for(answer, registers_of(context));
    }
    DESK.state.store(DONE, Ordering::Release);
}

/// Writes down who runs on this thread. What is in the midst of a change is left out.
fn answer_for(answer: &mut Answer, registers: Registers) -> Option<()> {
    let hub = Hub::of_caller()?;
    let current = hub.current.get()?;
    let (label, pool, base) = current.label()?;
    answer.id = label.id;
    answer.is_guest = current.is_guest();
    answer.birth = label.birth;
    if !label.name.is_null() {
        answer.name_len = label.name_len.min(NAME_BYTES);
        // SAFETY: a label's name is alive while its greenlet is, which is the current one; it has
        // as many bytes, and the answer has room for them.
        unsafe {
            ptr::copy_nonoverlapping(label.name, answer.name.as_mut_ptr(), answer.name_len);
        }
    }
    let lowest = hub.pools.try_borrow().ok()?.get(usize::from(pool))?.lowest_below(base);
    // SAFETY: from there to its base, the stack of the current greenlet may be read (STACK-2); it
    // is this thread's, which does nothing else meanwhile.
    unsafe { answer.stack.take(registers, lowest, base) };
    Some(())
}

#[cfg(target_arch = "x86_64")]
fn registers_of(context: *mut c_void) -> Registers {
    let context: *const libc::ucontext_t = context.cast();
    // SAFETY: the kernel passes a `ucontext_t` to a handler with SA_SIGINFO.
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    let at = |register: c_int| registers[register as usize] as usize;
    Registers {
        rip: at(libc::REG_RIP),
        rsp: at(libc::REG_RSP),
        rbp: at(libc::REG_RBP),
        rbx: at(libc::REG_RBX),
    }
}

/// Elsewhere no stack is found at zero: the answer has no backtrace.
#[cfg(not(target_arch = "x86_64"))]
fn registers_of(_: *mut c_void) -> Registers {
    Registers::default()
}

/// What SIGQUIT did before.
static BEFORE_SIGQUIT: OnceLock<libc::sigaction> = OnceLock::new();

/// Has SIGQUIT ask for a dump from now on, instead of ending the process.
///
/// Once: whoever takes the signal later calls us, and would be lost if we came again.
pub(super) fn take_sigquit() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        if let Some(before) = action_of(libc::SIGQUIT) {
            let _ = BEFORE_SIGQUIT.set(before); // Nobody else sets it.
        }
        set_action(
            libc::SIGQUIT,
            on_sigquit as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize,
        );
    });
}

/// Whether SIGQUIT asks for dumps.
pub(super) fn has_sigquit() -> bool {
    BEFORE_SIGQUIT.get().is_some()
}

extern "C" fn on_sigquit(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if let Some(registry) = Registry::existing() {
        registry.asked.fetch_add(1, Ordering::Relaxed);
        registry.ring(); // A write by a system call of our own: `errno` stays what it is.
    }
    if let Some(before) = BEFORE_SIGQUIT.get() {
        call_replaced(before, signal, info, context);
    }
}

fn action_of(signal: c_int) -> Option<libc::sigaction> {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null action asks only; `old` is large enough for the answer.
    let done = unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) };
    // SAFETY: zeroed at first and perhaps filled in: both are valid for this C struct.
    (done == 0).then(|| unsafe { old.assume_init() })
}

/// Sets a handler, or `SIG_DFL`. On the alternate stack where there is one: greenlets' are small.
fn set_action(signal: c_int, handler: usize) {
    // SAFETY: all-zero is a valid `sigaction` of C.
    let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handlers that are passed here have the type that SA_SIGINFO asks for, and keep
    // ALARM-2; the default is always allowed.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
}
