//! The control block: what the hub knows of one greenlet, at the top of that greenlet's own stack.
//!
//! Floor 4. Uses: `coro`. Used by: `hub` alone.
//!
//! # States
//!
//! ```text
//! Delayed ──timer, kill──▶ Ready ──Hub::resume──▶ Running ──end──▶ (reaped: no block any more)
//!                            ▲                      │  │
//!                            ├──Hub::yield_now──────┘  └──Hub::switch_out (park)──▶ Parked
//!                            └──────────wake, timer, kill, timeout─────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - `CTL-1` A block lives from `Ctl::create` to `Ctl::destroy`. In between, and only then, the
//!   hub's table has it; queues and `Hub::current` hold it only while it is in the table. So every
//!   `Ctl` that code of this module can get hold of points to a live block.
//! - `CTL-2` The coroutine in it is entered by `Hub::resume` alone, which holds the only reference
//!   to it meanwhile; the greenlet itself never touches that field.
//! - `CTL-3` All of it belongs to one thread: `Ctl` is `!Send`.

#![expect(unsafe_code, reason = "the block lives in raw stack memory")]
//! # Safety
//!
//! `Ctl` dereferences a raw pointer under `CTL-1`.

use std::{
    cell::{Cell, RefCell, UnsafeCell},
    fmt,
    mem::MaybeUninit,
    ops::Deref,
    panic::Location,
    ptr::NonNull,
};

use super::{
    park::WaitOn,
    unwind::{Frame, PanicNote},
};
use crate::{
    coro::{Coroutine, HEAD_BYTES, Label, Stack, Suspender},
    time::Deadline,
};

/// Where a greenlet is in its life; the diagram above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Spawned, to be started by a timer.
    Delayed,
    /// In a run queue.
    Ready,
    /// The one that runs.
    Running,
    /// Waits to be woken.
    Parked,
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
}

/// The block. `repr(C)`: the label comes first, where the fault handler looks for it.
#[repr(C, align(64))]
pub(super) struct Control {
    pub(super) label: Label,
    /// The next one in the run queue.
    pub(super) next: Cell<Option<Ctl>>,
    /// The wait that is under way; 0 when there is none, or when it was woken.
    pub(super) ticket: Cell<u64>,
    suspender: Cell<*const Suspender>,
    coroutine: UnsafeCell<MaybeUninit<Coroutine>>,
    /// Its place in the hub's table.
    pub(super) slot: u32,
    /// Which of the hub's stack pools its stack is from.
    pub(super) pool: u16,
    pub(super) role: Role,
    pub(super) state: Cell<State>,
    pub(super) kill: Cell<Kill>,
    /// Whether it is known to be unwinding; see `Hub::is_unwinding`.
    pub(super) unwinding: Cell<bool>,
    /// How many `shield`s it is inside of.
    pub(super) shields: Cell<u16>,
    /// Timeouts below this index are outside the innermost shield, and held back.
    pub(super) shielded_frames: Cell<u32>,
    /// The earliest deadline among the timeouts that are not held back.
    pub(super) frames_deadline: Cell<Deadline>,
    /// The timeouts that it is inside of, outermost first.
    pub(super) frames: RefCell<Vec<Frame>>,
    /// What it waits for, when parked.
    pub(super) waits_on: Cell<WaitOn>,
    /// Since when it is parked.
    pub(super) since: Cell<Deadline>,
    /// Where and how it last panicked.
    pub(super) panic: RefCell<Option<Box<PanicNote>>>,
}

const _: () = assert!(size_of::<Control>() <= HEAD_BYTES, "the control block outgrew its place");
const _: () = assert!(std::mem::offset_of!(Control, label) == 0);

/// A live control block (`CTL-1`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Ctl(NonNull<Control>);

impl Ctl {
    /// Makes a block at the head of `stack` and puts `body` below it.
    ///
    /// # Safety
    ///
    /// `body` must not unwind, and what it borrows must outlive it (as [`Coroutine::new`] asks).
    pub(super) unsafe fn create<F: FnOnce(Ctl)>(
        stack: Stack,
        birth: &'static Location<'static>,
        name: Option<&str>,
        place: (u64, u32, u16, Role),
        body: F,
    ) -> Ctl {
        let (id, slot, pool, role) = place;
        let ctl = Ctl(stack.head().cast::<Control>());
        let block = Control {
            label: Label {
                id,
                birth: Some(birth),
                name: name.map_or(std::ptr::null(), str::as_ptr),
                name_len: name.map_or(0, str::len),
            },
            next: Cell::new(None),
            ticket: Cell::new(0),
            suspender: Cell::new(std::ptr::null()),
            coroutine: UnsafeCell::new(MaybeUninit::uninit()),
            slot,
            pool,
            role,
            state: Cell::new(State::Ready),
            kill: Cell::new(Kill::None),
            unwinding: Cell::new(false),
            shields: Cell::new(0),
            shielded_frames: Cell::new(0),
            frames_deadline: Cell::new(Deadline::NEVER),
            frames: RefCell::new(Vec::new()),
            waits_on: Cell::new(WaitOn::Nothing),
            since: Cell::new(Deadline::ZERO),
            panic: RefCell::new(None),
        };
        // SAFETY: the head is HEAD_BYTES large, which `Control` fits (asserted above), 64-byte
        // aligned (STACK-1), and nobody else's: we own the stack.
        unsafe { ctl.0.as_ptr().write(block) };
        // SAFETY: what is asked of `body` is asked of our caller. The closure stores the
        // suspender, which lives as long as the coroutine's frames.
        let coroutine = unsafe {
            Coroutine::new(stack, move |suspender: &Suspender| {
                ctl.suspender.set(suspender);
                body(ctl);
            })
        };
        // SAFETY: the coroutine does not run yet, so nobody else touches the field.
        unsafe { (*ctl.coroutine.get()).write(coroutine) };
        ctl
    }

    /// Runs the greenlet until it suspends (`false`) or ends (`true`).
    ///
    /// # Safety
    ///
    /// Called by the hub, on the hub's own stack, for a greenlet that is suspended or new.
    #[inline]
    pub(super) unsafe fn resume(self) -> bool {
        // SAFETY: written in `create`; CTL-2 makes this the only reference to it.
        let coroutine = unsafe { (*self.coroutine.get()).assume_init_mut() };
        coroutine.resume()
    }

    /// Leaves the greenlet; returns when it is resumed.
    ///
    /// # Safety
    ///
    /// Called by the greenlet itself, on its own stack.
    #[inline]
    pub(super) unsafe fn suspend(self) {
        // SAFETY: stored when the greenlet began to run, and valid while its root frame lives,
        // which it does since we are called from above it.
        unsafe { (*self.suspender.get()).suspend() };
    }

    /// Ends the block of a greenlet that has ended, and gives its stack back.
    ///
    /// # Safety
    ///
    /// No other `Ctl` for it may be used afterwards.
    pub(super) unsafe fn destroy(self) -> Stack {
        // SAFETY: written in `create` and moved out once, here.
        let coroutine = unsafe { (*self.coroutine.get()).assume_init_read() };
        // SAFETY: the block is live (CTL-1) and this is its end; `MaybeUninit` drops nothing twice.
        unsafe { self.0.as_ptr().drop_in_place() };
        coroutine.into_stack()
    }

    /// Its name, if it has one.
    pub(super) fn name(&self) -> Option<&str> {
        if self.label.name.is_null() {
            return None;
        }
        // SAFETY: pointer and length of a `str` that the greenlet's join state keeps alive until
        // after the block has ended.
        let bytes = unsafe { std::slice::from_raw_parts(self.label.name, self.label.name_len) };
        std::str::from_utf8(bytes).ok()
    }

    /// Where it was spawned.
    pub(super) fn birth(&self) -> &'static Location<'static> {
        self.label.birth.expect("a live block has a place of birth")
    }
}

impl Deref for Ctl {
    type Target = Control;

    #[inline]
    fn deref(&self) -> &Control {
        // SAFETY: CTL-1: whoever holds a `Ctl` holds one of a live block. All fields that are
        // written through it are cells.
        unsafe { self.0.as_ref() }
    }
}

impl fmt::Debug for Ctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "greenlet #{} ({:?})", self.label.id, self.state.get())
    }
}
