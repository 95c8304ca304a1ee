//! Stack overflow: a fault in a guard ends the process with the greenlet's name.
//!
//! Floor 0. Uses: sigaction(2), sigaltstack(2). Used by: `pool` (records its slabs), `hub`
//! (installs the handler when a reactor first runs).
//!
//! The handler looks the fault address up in the list of slabs. In a guard: it writes who
//! overflowed and where it was spawned, and aborts. Anywhere else: it hands over to the handler
//! that was there before, so that std's own report for OS threads keeps working. It never resumes
//! the greenlet: its frames have destructors that would not run.
//!
//! # Invariants
//!
//! - `FAULT-1` Slab records are leaked and reused, never freed: the handler may walk the list at
//!   any moment on any thread.
//! - `FAULT-2` The handler calls only what signal-safety(7) allows: no allocation, no lock.

#![expect(unsafe_code, reason = "signal handlers, raw memory of a faulted stack")]
//! # Safety
//!
//! The handler reads only records (`FAULT-1`) and the head of the slot that faulted, which is
//! mapped while its stack is in use (`STACK-2`).

use std::{
    ffi::c_int,
    io::{self, Write},
    mem::MaybeUninit,
    ops::Range,
    ptr,
    sync::{
        Once, OnceLock,
        atomic::{AtomicPtr, AtomicUsize, Ordering},
    },
};

use super::stack::{GUARD_BYTES, Label, head_of};

/// Where one slab lies; a node of the list that the handler walks.
#[derive(Debug)]
pub(super) struct SlabRecord {
    /// The first address, or 0 when the record is unused. Written last, read first.
    address: AtomicUsize,
    len: AtomicUsize,
    slot_bytes: AtomicUsize,
    next: AtomicPtr<SlabRecord>,
}

static SLABS: AtomicPtr<SlabRecord> = AtomicPtr::new(ptr::null_mut());

/// A record that is being filled in: taken, but not yet to be read.
const CLAIMED: usize = 1;

impl SlabRecord {
    /// Forgets the slab, before it is unmapped.
    pub(super) fn retire(&self) {
        self.address.store(0, Ordering::Release);
    }
}

/// All records, newest first.
fn records() -> impl Iterator<Item = &'static SlabRecord> {
    let mut next = SLABS.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: a non-null pointer in the list is a leaked record (FAULT-1).
        let record: &'static SlabRecord = unsafe { next.as_ref() }?;
        next = record.next.load(Ordering::Acquire);
        Some(record)
    })
}

/// Adds a slab to the list that the handler reads.
pub(super) fn record_slab(address: usize, len: usize, slot_bytes: usize) -> &'static SlabRecord {
    let reused = records().find(|record| {
        let claim =
            record.address.compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Relaxed);
        claim.is_ok()
    });
    let record = reused.unwrap_or_else(|| {
        let record = Box::leak(Box::new(SlabRecord {
            address: AtomicUsize::new(CLAIMED),
            len: AtomicUsize::new(0),
            slot_bytes: AtomicUsize::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        let mut head = SLABS.load(Ordering::Acquire);
        loop {
            record.next.store(head, Ordering::Release);
            match SLABS.compare_exchange_weak(head, record, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break record,
                Err(now) => head = now,
            }
        }
    });
    record.len.store(len, Ordering::Relaxed);
    record.slot_bytes.store(slot_bytes, Ordering::Relaxed);
    record.address.store(address, Ordering::Release);
    record
}

/// The label of the stack in whose guard `fault` lies.
fn overflowed(fault: usize) -> Option<(Label, usize)> {
    for record in records() {
        let address = record.address.load(Ordering::Acquire);
        let len = record.len.load(Ordering::Relaxed);
        let slot_bytes = record.slot_bytes.load(Ordering::Relaxed);
        if address <= CLAIMED || !(address..address + len).contains(&fault) {
            continue;
        }
        let index = (fault - address) / slot_bytes;
        let limit = address + index * slot_bytes;
        if fault >= limit + GUARD_BYTES {
            return None; // A fault on a live stack that is no overflow.
        }
        let label: *const Label = ptr::with_exposed_provenance(head_of(limit, slot_bytes, index));
        // SAFETY: the head of a slot is mapped and aligned (STACK-1, STACK-2); it is all zeroes or
        // what was last written there.
        let label = unsafe { label.read() };
        if label.id == 0 {
            return None; // Nobody is on this stack: a stray pointer.
        }
        return Some((label, slot_bytes - GUARD_BYTES));
    }
    None
}

/// The part that frames may use of the stack on which `address` lies; None: it is on none of ours.
pub(crate) fn stack_around(address: usize) -> Option<Range<usize>> {
    records().find_map(|record| {
        let start = record.address.load(Ordering::Acquire);
        let len = record.len.load(Ordering::Relaxed);
        let slot_bytes = record.slot_bytes.load(Ordering::Relaxed);
        if start <= CLAIMED || !(start..start + len).contains(&address) {
            return None;
        }
        let index = (address - start) / slot_bytes;
        let limit = start + index * slot_bytes;
        Some(limit + GUARD_BYTES..head_of(limit, slot_bytes, index))
    })
}

/// The action that was installed before ours.
static PREVIOUS: OnceLock<[libc::sigaction; 2]> = OnceLock::new();
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Installs the handler, once per process.
pub(crate) fn catch_overflows() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = SIGNALS.map(|signal| {
            let mut old = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: a null action asks only; `old` is large enough for the answer.
            unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) };
            // SAFETY: zeroed at first and perhaps filled in: both are valid for this C struct.
            unsafe { old.assume_init() }
        });
        if PREVIOUS.set(previous).is_err() {
            return;
        }
        for signal in SIGNALS {
            // SAFETY: all-zero is a valid `sigaction` of C.
            let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_fault;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // SAFETY: `on_fault` has the signature that SA_SIGINFO asks for and keeps FAULT-2.
            unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
        }
    });
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler.
    let info_ref = unsafe { &*info };
    // SAFETY: for SIGSEGV and SIGBUS the address field is the one that is set.
    let fault = unsafe { info_ref.si_addr() }.addr();
    if let Some((label, usable)) = overflowed(fault) {
        say_who(&label, usable);
        // SAFETY: abort may be called from a handler.
        unsafe { libc::abort() };
    }
    hand_over(signal, info, context);
}

/// Calls the handler that was there before ours, as the kernel would have.
fn hand_over(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let place = SIGNALS.iter().position(|s| *s == signal).unwrap_or(0);
    let Some(previous) = PREVIOUS.get().map(|p| p[place]) else { return };
    match previous.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // The default is to die of the signal: restore it and let the fault happen again.
            // SAFETY: all-zero is a valid `sigaction` of C, and means the default action.
            let default = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
            // SAFETY: restoring the default action is always allowed.
            unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
        }
        _ => call_replaced(&previous, signal, info, context),
    }
}

/// Calls the handler of an action that was replaced; the default, and to ignore, call nobody.
pub(crate) fn call_replaced(
    previous: &libc::sigaction,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    match previous.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {}
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: it was registered with SA_SIGINFO, hence has this type.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: it was registered without SA_SIGINFO, hence has this type.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// Writes the report. No allocation: a fixed buffer and one write (`FAULT-2`).
fn say_who(label: &Label, usable: usize) {
    let mut buffer = [0u8; 1024];
    let mut text = io::Cursor::new(&mut buffer[..]);
    let _ = write!(text, "\ngreenloop: greenlet #{}", label.id);
    if !label.name.is_null() {
        // SAFETY: a label's name stays alive while its greenlet does, which is running right now.
        let name = unsafe { std::slice::from_raw_parts(label.name, label.name_len.min(256)) };
        let _ = write!(text, " '");
        let _ = text.write_all(name);
        let _ = write!(text, "'");
    }
    if let Some(birth) = label.birth {
        let _ = write!(text, ", spawned at {}:{}:{},", birth.file(), birth.line(), birth.column());
    }
    let _ = writeln!(
        text,
        " has overflowed its stack of {} KiB; run what needs more in a greenlet that is spawned \
         with a larger Builder::stack_size",
        usable / 1024
    );
    let len = text.position() as usize;
    let _ = rustix::io::write(rustix::stdio::stderr(), &buffer[..len]);
}

/// An alternate signal stack for this thread, made when it has none.
///
/// std gives one to the main thread and to those that it starts; threads that C code starts have
/// none, and without it the handler could not run on an overflowed stack.
#[derive(Debug)]
pub(crate) struct AltStack {
    ours: Option<(*mut libc::c_void, usize)>,
}

impl AltStack {
    /// Makes sure that this thread has an alternate signal stack until the value is dropped.
    pub(crate) fn ensure() -> AltStack {
        let mut old = MaybeUninit::<libc::stack_t>::zeroed();
        // SAFETY: a null new stack asks only.
        unsafe { libc::sigaltstack(ptr::null(), old.as_mut_ptr()) };
        // SAFETY: zeroed at first and perhaps filled in: both are valid for this C struct.
        let old = unsafe { old.assume_init() };
        if old.ss_flags & libc::SS_DISABLE == 0 {
            return AltStack { ours: None };
        }
        // A signal frame with all vector state takes 12 KiB on the largest processors.
        let len = 64 * 1024;
        let prot = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        let flags = rustix::mm::MapFlags::PRIVATE;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let memory = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, prot, flags) };
        let Ok(memory) = memory else { return AltStack { ours: None } };
        let new = libc::stack_t { ss_sp: memory, ss_flags: 0, ss_size: len };
        // SAFETY: the memory is mapped and stays so until the stack is disabled in `drop`.
        unsafe { libc::sigaltstack(&raw const new, ptr::null_mut()) };
        AltStack { ours: Some((memory, len)) }
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let Some((memory, len)) = self.ours else { return };
        let off = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: disabling the alternate stack is allowed when no handler runs on it, and this
        // code does not run in one.
        unsafe { libc::sigaltstack(&raw const off, ptr::null_mut()) };
        // SAFETY: the mapping is ours and the kernel does not use it any more.
        let _ = unsafe { rustix::mm::munmap(memory, len) };
    }
}
