//! The places of a pool: so many, handed out first come, first served.
//!
//! Floor 7. Uses: `hub::park`. Used by: `pool`.
//!
//! Not a [`Semaphore`](crate::sync::Semaphore), which any thread may release: these belong to one
//! hub, so that a wait of main for a place that can never be free is found to be for ever.
//!
//! # Invariants
//!
//! - `PLACE-1` Places that are free and [`Taken`]s add up to the size of the pool. A place that is
//!   granted to a waiter which dies goes to the next one.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use crate::{
    hub::{
        Hub,
        park::{Mode, Wait, WaitOn, Wake},
    },
    time::Deadline,
};

/// The places.
pub(super) struct Slots {
    free: Cell<usize>,
    line: RefCell<VecDeque<Rc<Turn>>>,
}

/// One who waits for a place.
struct Turn {
    wake: Wake,
    is_granted: Cell<bool>,
}

/// A place that is taken, until it is dropped.
pub(super) struct Taken(Rc<Slots>);

impl Slots {
    pub(super) fn new(free: usize) -> Rc<Slots> {
        Rc::new(Slots { free: Cell::new(free), line: RefCell::default() })
    }

    pub(super) fn free(&self) -> usize {
        self.free.get()
    }

    /// Takes a place if one is free; then nobody waits. Never parks.
    pub(super) fn try_take(self: &Rc<Self>) -> Option<Taken> {
        self.free.set(self.free.get().checked_sub(1)?);
        Some(Taken(Rc::clone(self)))
    }

    /// Parks until a place is free, and takes it. `None`: `deadline` has passed.
    #[track_caller]
    pub(super) fn take(self: &Rc<Self>, deadline: Deadline) -> Option<Taken> {
        let hub = Hub::to_park();
        if let Ok(hub) = hub {
            hub.checkpoint(Mode::Infallible);
        }
        if let Some(taken) = self.try_take() {
            return Some(taken);
        }
        let hub = hub.unwrap_or_else(|why| panic!("task::Pool: {why}"));
        let wait = Wait::begin(hub, WaitOn::Place).expect("checked above");
        let turn = Rc::new(Turn { wake: wait.wake(), is_granted: Cell::new(false) });
        self.line.borrow_mut().push_back(Rc::clone(&turn));
        let mut waiting = Waiting { slots: self, turn: Some(turn) };
        let _ = wait.park(deadline, Mode::Infallible);
        // Whether it was woken, or its time is over: a place that was granted counts.
        waiting.leave()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let next = self.0.line.borrow_mut().pop_front();
        match (next, Hub::current()) {
            (Some(turn), Some(hub)) => {
                turn.is_granted.set(true);
                hub.wake(turn.wake);
            }
            _ => self.0.free.set(self.0.free.get() + 1),
        }
    }
}

/// A wait for a place. Left by an unwind, it leaves the line (`PLACE-1`).
struct Waiting<'a> {
    slots: &'a Rc<Slots>,
    turn: Option<Rc<Turn>>,
}

impl Waiting<'_> {
    fn leave(&mut self) -> Option<Taken> {
        let turn = self.turn.take()?;
        if turn.is_granted.get() {
            return Some(Taken(Rc::clone(self.slots)));
        }
        self.slots.line.borrow_mut().retain(|other| !Rc::ptr_eq(other, &turn));
        None
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}
