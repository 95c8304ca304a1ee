//! Control blocks: what the hub knows of each greenlet, two cache lines each.
//!
//! Floor 4. Uses: `coro`. Used by: `hub` alone.
//!
//! Blocks lie in chunks that never move and are never freed while the hub lives. A free block is
//! used again. The first line of a block is all that a switch touches, the second all that a wait
//! does; what is rarely needed is behind a pointer, or at the head of the greenlet's stack.
//!
//! # States
//!
//! ```text
//! Free ──occupy──▶ New ◀──timer, kill── Delayed ◀─ (spawn_later, from New)
//!   ▲               │     ┌──────resume──── Ready ◀────wake, timer, kill, timeout────┐
//!   │         begin ▼     ▼                                                          │
//!   └──reap──(ends)─ Running ──Hub::switch_out──▶ Parked (or Yielded: yield_now) ────┘
//! ```
//!
//! # Invariants
//!
//! - `CTL-1` A `Ctl` points to a block of a chunk, which lives as long as its hub; and nobody but
//!   that hub, its greenlets, and code that runs on its stack can hold one. So it may always be
//!   read. Whether the greenlet that was meant still lives is told by its number, or by a ticket.
//! - `CTL-2` The coroutine of a block is entered by `Hub::resume`, which holds the only reference
//!   to it meanwhile, and by `Hub::peek`, while it is parked, when nobody holds one; the greenlet
//!   itself never touches that field. While one is peeked at neither enters it: guests may run
//!   then, and wake it, but whoever runs them passes it over. The content is the body from `occupy`
//!   to `begin`, the coroutine from `begin` to `reap`, and nothing in a free block.
//! - `CTL-3` All of it belongs to one thread: `Ctl` is `!Send`.

#![expect(unsafe_code, reason = "blocks are pointed to, coroutines are entered")]
//! # Safety
//!
//! `Ctl` dereferences a raw pointer under `CTL-1`; the coroutine is reached under `CTL-2`.

use std::{
    any::Any,
    cell::{Cell, UnsafeCell},
    fmt,
    mem::ManuallyDrop,
    ops::Deref,
    panic::Location,
    ptr::NonNull,
    rc::Rc,
    sync::atomic::{Ordering, compiler_fence},
};

use super::{
    context::Context,
    guest::Standing,
    killed::Reason,
    locals::Local,
    park::WaitOn,
    unwind::{Frame, PanicNote},
};
use crate::{
    coro::{Coroutine, HEAD_BYTES, Label, Stack, Suspender, prefetch},
    time::{Deadline, Key},
};

/// Where a greenlet is in its life; the diagram above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The block is nobody's.
    Free,
    /// Spawned, to be started by a timer.
    Delayed,
    /// In a run queue for the first time: it has no stack yet.
    New,
    /// In a run queue, because it was woken.
    Ready,
    /// In a run queue, because it yielded.
    Yielded,
    /// The one that runs.
    Running,
    /// Waits to be woken.
    Parked,
    /// Never runs again. The block is nobody's, and is not used again.
    Frozen,
}

/// What has become of a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kill {
    /// Nobody asked.
    None,
    /// Asked, not yet raised.
    Pending,
    /// Raised at least once. If the greenlet swallows it, it is raised again at the next
    /// cancellation point.
    Raised,
}

/// Why a greenlet exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs the closure given to `run`.
    Main,
    /// Spawned by the user.
    User,
    /// Runs what the reactor calls.
    Callback,
    /// Runs code on thread-locals of its own.
    Guest,
}

/// Who a greenlet is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Birth<'a> {
    pub(super) id: u64,
    pub(super) role: Role,
    pub(super) place: &'static Location<'static>,
    pub(super) name: Option<&'a str>,
    /// Which of the hub's stack pools has a stack for it.
    pub(super) pool: u16,
}

/// What a greenlet is to run. It must not unwind.
pub(super) trait Body {
    /// Runs it, on the greenlet's own stack, once.
    fn run(self: Rc<Self>, ctl: Ctl);
    /// Says who it is.
    fn birth(&self) -> Birth<'_>;
    /// What a guest has besides. It stays in place until `run` forgets it.
    fn standing(&self) -> Option<&Standing> {
        None
    }
}

/// Room for the body before the greenlet first runs, for its coroutine from then on. Reached by
/// pointers to the one or the other, both of which lie at its beginning.
#[repr(C)]
union Content {
    nothing: (),
    _body: ManuallyDrop<Rc<dyn Body>>,
    _coroutine: ManuallyDrop<Coroutine>,
}

/// What lies at the head of its stack: the label is where the fault handler looks for it.
#[repr(C)]
struct Head {
    label: Label,
    role: Role,
    pool: u16,
    parent: u64,
    /// Of a guest that has not ended, else null.
    standing: *const Standing,
}

const _: () = assert!(size_of::<Head>() <= HEAD_BYTES, "the head outgrew its place");
const _: () = assert!(std::mem::offset_of!(Head, label) == 0);

/// What few greenlets ever need.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// The timeouts that it is inside of, outermost first.
    pub(super) frames: Vec<Frame>,
    /// The deadline of the scope that it is a child of.
    pub(super) inherited: Option<Deadline>,
    /// Timeouts below this index are outside the innermost shield, and held back.
    pub(super) shielded_frames: usize,
    /// Where and how it last panicked.
    pub(super) panic: Option<Box<PanicNote>>,
    /// Why it was killed.
    pub(super) reason: Option<Reason>,
    /// The timer that is to start it.
    pub(super) start: Option<Key>,
    /// The round in which it was counted as unwinding when it suspended; 0 when it was not.
    pub(super) counted: u64,
    /// What a higher floor keeps of it.
    pub(super) keepsake: Option<Rc<dyn Any>>,
    /// Its greenlet-locals, oldest first.
    pub(super) locals: Vec<Local>,
    /// What it hands down to those that it spawns.
    pub(super) context: Context,
    /// Its spans, while it is suspended.
    #[cfg(feature = "tracing")]
    pub(super) trail: Option<crate::trace::Trail>,
}

impl Rare {
    /// The earliest deadline among the timeouts that are not held back.
    pub(super) fn frames_deadline(&self) -> Deadline {
        let visible = self.frames.iter().skip(self.shielded_frames);
        visible.map(|frame| frame.deadline).min().unwrap_or(Deadline::NEVER)
    }
}

/// The block.
#[repr(C, align(64))]
pub(super) struct Control {
    /// The next one in the run queue.
    pub(super) next: Cell<Option<Ctl>>,
    pub(super) state: Cell<State>,
    pub(super) kill: Cell<Kill>,
    /// Whether it is known to be unwinding; see `Hub::is_unwinding`.
    pub(super) unwinding: Cell<bool>,
    /// `SHIELDED` and the other marks below.
    marks: Cell<u8>,
    /// Its place in the table.
    pub(super) slot: u32,
    /// A body while `head` is null, a coroutine afterwards; nothing in a free block.
    content: UnsafeCell<Content>,
    suspender: Cell<*const Suspender>,

    /// Where its stack pointer was when it last parked, roughly: to be prefetched.
    stack_pointer: Cell<*const u8>,
    /// The wait that is under way; 0 when there is none, or when it was woken.
    pub(super) ticket: Cell<u64>,
    /// The earliest deadline among the timeouts that are not held back.
    frames_deadline: Cell<Deadline>,
    /// What it waits for, when parked; what ended its wait, afterwards.
    pub(super) waits_on: Cell<WaitOn>,
    /// Since when it is parked; in a fresh one, the number of its spawner.
    pub(super) since: Cell<Deadline>,
    /// The head of its stack; null until it first runs.
    head: Cell<*const Head>,
    rare: Cell<Option<Box<Rare>>>,
}

/// A mark: it is inside of a `shield`.
const SHIELDED: u8 = 1;

/// A mark: `frames_deadline` is not `NEVER`. So the second line is not looked at for it.
const TIMED: u8 = 2;

/// A mark: a scope may yet end its body, so that `frames_deadline` may come to be in the past.
const ENDABLE: u8 = 4;
/// A mark: it is resumed for its backtrace only, see `Hub::peek`.
const PEEKED: u8 = 8;

/// A mark: it has greenlet-locals or a context, to be dropped on its own stack.
const LOCALS: u8 = 16;

/// A mark: it is a guest, see `guest`.
const GUEST: u8 = 32;

/// A mark: it is a guest, and borrows from others.
const BORROWS: u8 = 128;

/// A mark: it is a guest, and was unwinding when it entered the hub.
const GUEST_UNWINDING: u8 = 64;

// A coroutine is larger where a sanitizer wants to know the bounds of its stack.
#[cfg(not(asan))]
const _: () = assert!(size_of::<Control>() == 128, "a block is two cache lines");
#[cfg(not(asan))]
const _: () = assert!(std::mem::offset_of!(Control, stack_pointer) == 64, "one line for a switch");

/// A block of a living hub (`CTL-1`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Ctl(NonNull<Control>);

impl Control {
    fn free(slot: u32) -> Control {
        Control {
            next: Cell::new(None),
            state: Cell::new(State::Free),
            kill: Cell::new(Kill::None),
            unwinding: Cell::new(false),
            marks: Cell::new(0),
            slot,
            content: UnsafeCell::new(Content { nothing: () }),
            suspender: Cell::new(std::ptr::null()),
            stack_pointer: Cell::new(std::ptr::null()),
            ticket: Cell::new(0),
            frames_deadline: Cell::new(Deadline::NEVER),
            waits_on: Cell::new(WaitOn::Nothing),
            since: Cell::new(Deadline::ZERO),
            head: Cell::new(std::ptr::null()),
            rare: Cell::new(None),
        }
    }
}

impl Ctl {
    /// Makes this free block that of a greenlet which is to run `body`; it is then new. `parent` is
    /// the number of its spawner, or 0.
    #[inline]
    pub(super) fn occupy(self, body: Rc<dyn Body>, parent: u64) {
        assert_eq!(self.state.get(), State::Free, "a block is occupied once a life");
        self.state.set(State::New);
        self.since.set(Deadline::from_nanos(parent));
        // SAFETY: the block is free, so nobody refers to its content (CTL-2), which is nothing.
        unsafe { self.body().write(body) };
    }

    /// Whether it has not run yet.
    #[inline(always)]
    pub(super) fn is_fresh(&self) -> bool {
        self.head.get().is_null()
    }

    /// The earliest deadline among the timeouts that are not held back.
    #[inline(always)]
    pub(super) fn frames_deadline(&self) -> Deadline {
        if self.has(TIMED) { self.frames_deadline.get() } else { Deadline::NEVER }
    }

    /// Sets it, and returns what it was.
    pub(super) fn set_frames_deadline(&self, deadline: Deadline) -> Deadline {
        let before = self.frames_deadline();
        self.mark(TIMED, !deadline.is_never());
        self.frames_deadline.set(deadline);
        before
    }

    /// Whether a kill is there, or a timeout that may have elapsed.
    #[inline(always)]
    pub(super) fn has_notice(&self) -> bool {
        self.kill.get() != Kill::None || self.has(TIMED)
    }

    /// Whether it is inside of a `shield`.
    pub(super) fn is_shielded(&self) -> bool {
        self.has(SHIELDED)
    }

    /// Says whether it is inside of a `shield`, and returns whether it was.
    pub(super) fn set_shielded(&self, shielded: bool) -> bool {
        let before = self.has(SHIELDED);
        self.mark(SHIELDED, shielded);
        before
    }

    /// Says whether a scope may end its body, and returns whether one might.
    pub(super) fn set_endable(&self, endable: bool) -> bool {
        let before = self.has(ENDABLE);
        self.mark(ENDABLE, endable);
        before
    }

    /// Whether it is resumed for its backtrace only.
    #[inline(always)]
    pub(super) fn is_peeked(&self) -> bool {
        self.has(PEEKED)
    }

    /// Says so.
    pub(super) fn set_peeked(&self, peeked: bool) {
        self.mark(PEEKED, peeked);
    }

    /// Whether it may have greenlet-locals or a context.
    #[inline(always)]
    pub(super) fn has_locals(&self) -> bool {
        self.has(LOCALS)
    }

    /// Says whether it may have greenlet-locals or a context.
    pub(super) fn set_has_locals(&self, has: bool) {
        self.mark(LOCALS, has);
    }

    /// Whether it is a guest.
    #[inline(always)]
    pub(super) fn is_guest(&self) -> bool {
        self.has(GUEST)
    }

    /// Says so, until it is reaped; and whether it borrows.
    pub(super) fn set_guest(&self, borrows: bool) {
        self.mark(GUEST, true);
        self.mark(BORROWS, borrows);
    }

    /// Whether it is a guest that borrows from others.
    pub(super) fn borrows(&self) -> bool {
        self.has(BORROWS)
    }

    /// What it has as a guest, if it is one. The block must not be free.
    pub(super) fn standing(&self) -> Option<&Standing> {
        // SAFETY: as in `birth`.
        let Some(head) = (unsafe { self.head.get().as_ref() }) else {
            // SAFETY: as in `birth`.
            return unsafe { &*self.body() }.standing();
        };
        // SAFETY: null, or in the body, which the frames of `run` keep until they forget this.
        unsafe { head.standing.as_ref() }
    }

    /// Forgets what a guest has that is about to end.
    pub(super) fn forget_standing(self) {
        assert!(!self.is_fresh(), "only a running greenlet ends");
        // SAFETY: the head of its own stack (STACK-2), to which nobody keeps a reference.
        unsafe { (*self.head.get().cast_mut()).standing = std::ptr::null() };
    }

    /// Leaves the block, the coroutine in it and its stack as they are, for ever.
    ///
    /// # Safety
    ///
    /// The greenlet is suspended, in no queue, borrows nothing, and is never resumed again.
    pub(super) unsafe fn abandon(self) {
        self.ticket.set(0);
        self.state.set(State::Frozen);
        // The content is not dropped with the block: it is a union (CTL-2).
    }

    /// Whether it was unwinding when it entered the hub.
    #[inline(always)]
    pub(super) fn is_guest_unwinding(&self) -> bool {
        self.has(GUEST_UNWINDING)
    }

    /// Says whether it is.
    #[inline(always)]
    pub(super) fn set_guest_unwinding(&self, unwinding: bool) {
        self.mark(GUEST_UNWINDING, unwinding);
    }

    #[inline(always)]
    fn has(&self, mark: u8) -> bool {
        self.marks.get() & mark != 0
    }

    fn mark(&self, mark: u8, set: bool) {
        let others = self.marks.get() & !mark;
        self.marks.set(if set { others | mark } else { others });
    }

    /// Puts a fresh greenlet on a stack, which `take` takes from the pool that it names.
    #[inline]
    pub(super) fn begin(self, take: impl FnOnce(u16) -> Stack) {
        assert!(self.is_fresh(), "a greenlet begins once");
        // SAFETY: a fresh greenlet's content is its body (written in `occupy`). It moves out here,
        // and is overwritten below.
        let body = unsafe { self.body().read() };
        let Birth { id, role, place, name, pool } = body.birth();
        let stack = take(pool);
        let label = Label {
            id,
            birth: Some(place),
            name: name.map_or(std::ptr::null(), str::as_ptr),
            name_len: name.map_or(0, str::len),
        };
        let standing = body.standing().map_or(std::ptr::null(), std::ptr::from_ref);
        let head = stack.head().cast::<Head>();
        // SAFETY: the head of the stack has room for it (asserted above), is 64-byte aligned
        // (STACK-1), and nobody else's: we own the stack.
        unsafe {
            head.write(Head { label, role, pool, parent: self.since.get().as_nanos(), standing })
        };
        // A signal handler on this thread may look: not before all of it is there.
        compiler_fence(Ordering::SeqCst);
        self.head.set(head.as_ptr());
        // SAFETY: what the body borrows was vouched for when it was made `dyn Body` without a
        // lifetime, and it must not unwind. The closure stores the suspender, which lives as long
        // as the coroutine's frames; the name lives until the body's run forgets it.
        let coroutine = unsafe {
            Coroutine::new(stack, move |suspender: &Suspender| {
                self.suspender.set(suspender);
                body.run(self);
            })
        };
        // SAFETY: the body was moved out above, and nobody else refers to the content (CTL-2).
        unsafe { self.coroutine().write(coroutine) };
    }

    /// Runs the greenlet until it suspends (`false`) or ends (`true`).
    ///
    /// # Safety
    ///
    /// Called by the hub, on the hub's own stack, for a greenlet that has begun and is suspended.
    #[inline(always)]
    pub(super) unsafe fn resume(self) -> bool {
        // SAFETY: the greenlet has begun, so the content is its coroutine; CTL-2 makes this the
        // only reference to it.
        let coroutine = unsafe { &mut *self.coroutine() };
        coroutine.resume()
    }

    /// Notes where the stack pointer is now: for a greenlet that is about to park.
    #[inline(always)]
    pub(super) fn note_stack_pointer(self) {
        let here = std::mem::MaybeUninit::<u8>::uninit();
        self.stack_pointer.set(here.as_ptr());
    }

    /// Leaves the greenlet; returns when it is resumed.
    ///
    /// # Safety
    ///
    /// Called by the greenlet itself, on its own stack.
    #[inline(always)]
    pub(super) unsafe fn suspend(self) {
        // SAFETY: stored when the greenlet began to run, and valid while its root frame lives,
        // which it does since we are called from above it.
        unsafe { (*self.suspender.get()).suspend() };
    }

    /// Makes the block of a greenlet that has ended free, and gives its stack and the number of its
    /// pool back.
    ///
    /// # Safety
    ///
    /// The greenlet has ended, and was not reaped before.
    #[inline]
    pub(super) unsafe fn reap(self) -> (Stack, u16) {
        let head = self.head.replace(std::ptr::null()).cast_mut();
        // SAFETY: the head of a stack that is ours (STACK-2), written in `begin`.
        let pool = unsafe { (*head).pool };
        // SAFETY: as above. From here on a fault in the guard names nobody.
        unsafe { (*head).label.id = 0 };
        self.state.set(State::Free);
        self.kill.set(Kill::None);
        self.unwinding.set(false);
        self.ticket.set(0);
        self.marks.set(0);
        drop(self.rare.take());
        // SAFETY: the greenlet has begun, so the content is its coroutine, which moves out here,
        // once: the state says so.
        let coroutine = unsafe { self.coroutine().read() };
        (coroutine.into_stack(), pool)
    }

    /// Tells the processor that this greenlet will be resumed soon. With many greenlets, the lines
    /// of the next one are not in the first-level cache; waiting for them costs more than the
    /// switch.
    #[inline(always)]
    pub(super) fn prefetch_block(self) {
        let block: *const u8 = self.0.as_ptr().cast();
        prefetch(block);
    }

    /// The same for the page of its stack. Its block should be here by now.
    #[inline(always)]
    pub(super) fn prefetch_base(self) {
        prefetch(self.suspender.get().cast());
    }

    /// The same for all that a switch touches of its stack, and a wait of its block.
    #[inline(always)]
    pub(super) fn prefetch_stack(self) {
        self.prefetch_base();
        let stack_pointer = self.stack_pointer.get();
        prefetch(stack_pointer);
        prefetch(stack_pointer.wrapping_add(64));
    }

    /// Does something with what few greenlets need. `f` must not come back here.
    pub(super) fn rare<T>(self, f: impl FnOnce(&mut Rare) -> T) -> T {
        let mut rare = self.rare.take().unwrap_or_default();
        let result = f(&mut rare);
        self.rare.set(Some(rare));
        result
    }

    /// The same, if there is anything of it: allocates nothing.
    pub(super) fn rare_if_any<T>(self, f: impl FnOnce(&mut Rare) -> T) -> Option<T> {
        let mut rare = self.rare.take()?;
        let result = f(&mut rare);
        self.rare.set(Some(rare));
        Some(result)
    }

    /// Where the body is, if it is there.
    fn body(&self) -> *mut Rc<dyn Body> {
        self.content.get().cast()
    }

    /// Where the coroutine is, if it is there.
    #[inline(always)]
    fn coroutine(&self) -> *mut Coroutine {
        self.content.get().cast()
    }

    /// Who it is. The block must not be free.
    pub(super) fn birth(&self) -> Birth<'_> {
        debug_assert_ne!(self.state.get(), State::Free);
        // SAFETY: null, or the head of the greenlet's own stack: written in `begin`, and mapped as
        // long as the stack is out (STACK-2).
        let Some(head) = (unsafe { self.head.get().as_ref() }) else {
            // SAFETY: the block is not free and the greenlet is fresh: the content is its body.
            return unsafe { &*self.body() }.birth();
        };
        let Label { id, birth, name, name_len } = head.label;
        let name = (!name.is_null()).then(|| {
            // SAFETY: pointer and length of a `str` that the body keeps until it forgets the name.
            let bytes = unsafe { std::slice::from_raw_parts(name, name_len) };
            std::str::from_utf8(bytes).unwrap_or("?")
        });
        let place = birth.expect("a greenlet has a place of birth");
        Birth { id, role: head.role, place, name, pool: head.pool }
    }

    /// Forgets the name of a greenlet that is about to end.
    pub(super) fn forget_name(self) {
        assert!(!self.is_fresh(), "only a running greenlet ends");
        // SAFETY: the head of its own stack (STACK-2), to which nobody keeps a reference.
        unsafe { (*self.head.get().cast_mut()).label.name = std::ptr::null() };
        // A signal handler on this thread may look: not after the name is gone.
        compiler_fence(Ordering::SeqCst);
    }

    /// Gives a greenlet that is running another number.
    pub(super) fn renumber(self, id: u64) {
        assert!(!self.is_fresh(), "only a running greenlet makes calls");
        // SAFETY: the head of its own stack (STACK-2), to which nobody keeps a reference.
        unsafe { (*self.head.get().cast_mut()).label.id = id };
    }

    /// Its number. The block must not be free.
    #[inline]
    pub(super) fn id(&self) -> u64 {
        // SAFETY: as in `birth`.
        match unsafe { self.head.get().as_ref() } {
            Some(head) => head.label.id,
            None => self.birth().id,
        }
    }

    /// Its label, which of the hub's stack pools its stack is from, and the stack's base, once it
    /// has begun: what a signal handler may ask for.
    pub(super) fn label(&self) -> Option<(Label, u16, usize)> {
        let head = self.head.get();
        // SAFETY: as in `birth`.
        let Head { label, pool, .. } = unsafe { head.as_ref() }?;
        Some((*label, *pool, head.addr()))
    }

    /// The number of the greenlet that spawned it; 0 when none did. The block must not be free.
    pub(super) fn parent(&self) -> u64 {
        // SAFETY: as in `birth`.
        match unsafe { self.head.get().as_ref() } {
            Some(head) => head.parent,
            None => self.since.get().as_nanos(),
        }
    }
}

impl Deref for Ctl {
    type Target = Control;

    #[inline(always)]
    fn deref(&self) -> &Control {
        // SAFETY: CTL-1. All fields that are written through it are cells.
        unsafe { self.0.as_ref() }
    }
}

impl fmt::Debug for Ctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "greenlet in slot {} ({:?})", self.slot, self.state.get())
    }
}

/// Blocks in a chunk: 8 KiB.
const CHUNK: usize = 64;

/// All blocks of a hub, by slot.
#[derive(Default)]
pub(super) struct Table {
    /// Chunks do not move: a vector of boxes, not of blocks.
    chunks: Vec<Box<[Control; CHUNK]>>,
    free: Vec<u32>,
    live: usize,
}

impl Table {
    /// A free block, counted as live from now on: to be started, or given back by `release`.
    #[inline]
    pub(super) fn reserve(&mut self) -> Ctl {
        if self.free.is_empty() {
            self.grow();
        }
        let slot = self.free.pop().expect("the table has just grown");
        self.live += 1;
        self.block(slot)
    }

    #[cold]
    fn grow(&mut self) {
        let first = u32::try_from(self.chunks.len() * CHUNK).expect("fewer than 2^32 greenlets");
        let chunk = std::array::from_fn(|place| Control::free(first + place as u32));
        self.chunks.push(Box::new(chunk));
        self.free.extend((first..first + CHUNK as u32).rev());
    }

    /// Gives a block back.
    #[inline]
    pub(super) fn release(&mut self, ctl: Ctl) {
        self.free.push(ctl.slot);
        self.live -= 1;
    }

    /// Counts a greenlet that is frozen as gone. Its block is not given out again.
    pub(super) fn forget(&mut self, ctl: Ctl) {
        debug_assert_eq!(ctl.state.get(), State::Frozen);
        self.live -= 1;
    }

    #[inline]
    fn block(&self, slot: u32) -> Ctl {
        let slot = slot as usize;
        Ctl(NonNull::from(&self.chunks[slot / CHUNK][slot % CHUNK]))
    }

    /// The block in this slot, if a greenlet has it.
    #[inline]
    pub(super) fn at(&self, slot: u32) -> Option<Ctl> {
        if slot as usize >= self.chunks.len() * CHUNK {
            return None;
        }
        Some(self.block(slot)).filter(|ctl| !matches!(ctl.state.get(), State::Free | State::Frozen))
    }

    /// How many greenlets are alive.
    #[inline]
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Ctl> {
        let slots = 0..(self.chunks.len() * CHUNK) as u32;
        slots.filter_map(|slot| self.at(slot)).collect()
    }
}
