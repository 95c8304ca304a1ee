//! Greenlet-locals: values of which each greenlet has its own.
//!
//! Floor 4. Uses: `control`, which keeps them. Used by: users; `spawn`, `run`, at the end of each
//! greenlet and of each call of the reactor.
//!
//! # States
//!
//! Of one key in one greenlet:
//! ```text
//! none ──first use──▶ Making ──its initialiser returns──▶ Made ──the greenlet ends──▶ Gone
//!   ▲                    │ unwinds                                                     │
//!   └────────────────────┘◀──────────────all are gone: the next call begins ───────────┘
//! ```
//!
//! # Invariants
//!
//! - `LOCAL-1` A value is shared by reference count while somebody looks at it, so what `with`
//!   lends outlives the look, whatever the initialisers and destructors of others do.
//! - `LOCAL-2` Initialisers and destructors are code of others: nothing is borrowed meanwhile, and
//!   they run on the stack of the greenlet that has the value, so they may park.
//! - `LOCAL-3` When a greenlet has ended, or a call of the reactor was made, nothing is left. A
//!   greenlet without values pays for that with a look at a mark.
//!
//! # Source
//!
//! std `LocalKey`; gevent `local.py`; may `coroutine_local!`.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    error::Error,
    fmt, ptr,
    rc::Rc,
};

use super::{
    context,
    control::{Ctl, Kill},
    park::CannotPark,
    spawn,
    timeout::shield,
    unwind,
};

/// A value that each greenlet has of its own, as
/// [`greenlet_local!`](crate::greenlet_local) declares it.
///
/// Shape: made when a greenlet first uses it, and dropped on that greenlet's stack when it ends, so
/// both may block. The newest is dropped first. The main greenlet has its own too, and so has every
/// call that the reactor makes: nothing that one call leaves is seen by the next.
///
/// To hand a value down to the greenlets that are spawned meanwhile, see
/// [`ContextVar`](crate::ContextVar).
///
/// # Examples
///
/// ```
/// use greenloop::{greenlet_local, run, spawn};
/// use std::cell::Cell;
///
/// greenlet_local! {
///     static RETRIES: Cell<u32> = Cell::new(3);
/// }
///
/// run(|| {
///     RETRIES.set(0);
///     let other = spawn(|| RETRIES.get());
///     assert_eq!((RETRIES.get(), other.join().unwrap()), (0, 3));
/// });
/// ```
///
/// # Source
///
/// [`std::thread::LocalKey`], whose names it has; gevent `local`.
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
}

/// Declares values that each greenlet has of its own, as [`std::thread_local!`] does for threads.
///
/// Each is a [`LocalKey`]. The initialiser runs on the greenlet that first uses
/// the value, and may block. Unlike that of a `thread_local!` it may wait: no other greenlet can
/// come in between.
///
/// # Examples
///
/// ```
/// use std::cell::RefCell;
///
/// greenloop::greenlet_local! {
///     /// What this greenlet has to say at its end.
///     pub static NOTES: RefCell<Vec<String>> = RefCell::default();
///     static DEPTH: std::cell::Cell<u32> = std::cell::Cell::new(0);
/// }
///
/// greenloop::run(|| {
///     NOTES.with_borrow_mut(|notes| notes.push("begun".to_owned()));
///     assert_eq!((NOTES.take().len(), DEPTH.get()), (1, 0));
/// });
/// ```
#[macro_export]
macro_rules! greenlet_local {
    ($($(#[$attribute:meta])* $vis:vis static $name:ident: $type:ty = $init:expr);* $(;)?) => {
        $($(#[$attribute])* $vis static $name: $crate::LocalKey<$type> =
            $crate::LocalKey::__new(|| $init);)*
    };
}

/// Why a greenlet-local cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessError {
    /// No greenlet runs: outside [`run`](crate::run), or on the hub's own stack.
    NoGreenlet,
    /// The call is made by the initialiser of this very value.
    BeingMade,
    /// The greenlet has ended, and the value is being dropped, or was.
    Gone,
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AccessError::NoGreenlet => "no greenlet runs here that could have a value of its own",
            AccessError::BeingMade => "its initialiser asks for the value that it is to make",
            AccessError::Gone => "the greenlet has ended, and its value is gone",
        })
    }
}

impl Error for AccessError {}

/// How far the value of a key is, in one greenlet; the diagram above.
#[derive(Debug, Clone)]
enum Value {
    Making,
    Made(Rc<dyn Any>),
    Gone,
}

/// The value of one key, in one greenlet.
#[derive(Debug)]
pub(super) struct Local {
    /// The address of the key, which is a static.
    key: usize,
    value: Value,
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    pub const fn __new(init: fn() -> T) -> LocalKey<T> {
        LocalKey { init }
    }

    /// Calls `f` with the current greenlet's value, which is made first if need be.
    ///
    /// Shape: `f` may park; other greenlets have values of their own.
    ///
    /// # Panics
    ///
    /// Where there is no value ([`AccessError`]); [`try_with`](Self::try_with) says so instead.
    /// With whatever the initialiser panics with: then the next use calls it again.
    #[track_caller]
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.value_or(self.init).unwrap_or_else(|error| refuse(error)))
    }

    /// As [`with`](Self::with), but does not panic where there is no value.
    ///
    /// # Errors
    ///
    /// [`AccessError`], each variant with its cause; `f` was not called then.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        Ok(f(&*self.value_or(self.init)?))
    }

    fn key(&'static self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// The current greenlet's value, which `make` makes if there is none.
    fn value_or(&'static self, make: impl FnOnce() -> T) -> Result<Rc<T>, AccessError> {
        let ctl = unwind::here().ok_or(AccessError::NoGreenlet)?;
        let found = ctl.rare_if_any(|rare| {
            rare.locals.iter().find(|local| local.key == self.key()).map(|l| l.value.clone())
        });
        match found.flatten() {
            Some(Value::Made(value)) => Ok(value.downcast().expect("a key has one type")),
            Some(Value::Making) => Err(AccessError::BeingMade),
            Some(Value::Gone) => Err(AccessError::Gone),
            None => Ok(self.make(ctl, make)),
        }
    }

    #[cold]
    fn make(&'static self, ctl: Ctl, make: impl FnOnce() -> T) -> Rc<T> {
        /// Forgets the value if its initialiser unwinds.
        struct Unmade(Ctl, usize);
        impl Drop for Unmade {
            fn drop(&mut self) {
                self.0.rare(|rare| rare.locals.retain(|local| local.key != self.1));
            }
        }
        ctl.set_has_locals(true);
        ctl.rare(|rare| rare.locals.push(Local { key: self.key(), value: Value::Making }));
        let unmade = Unmade(ctl, self.key());
        let value = Rc::new(make());
        std::mem::forget(unmade);
        let made = Value::Made(Rc::clone(&value) as Rc<dyn Any>);
        ctl.rare(|rare| {
            let local = rare.locals.iter_mut().find(|local| local.key == self.key());
            local.expect("put there above").value = made;
        });
        value
    }

    /// Stores `value` by `store`, or makes it the first value, without the initialiser.
    #[track_caller]
    fn set_or(&'static self, make: impl FnOnce() -> T, store: impl FnOnce(&T)) {
        let mut is_first = false;
        let value = self.value_or(|| {
            is_first = true;
            make()
        });
        let value = value.unwrap_or_else(|error| refuse(error));
        if !is_first {
            store(&value);
        }
    }
}

#[cold]
#[track_caller]
fn refuse(error: AccessError) -> ! {
    match error {
        AccessError::NoGreenlet => panic!("greenloop::LocalKey: {}", CannotPark::no_hub()),
        error => panic!("greenloop::LocalKey: {error}"),
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the current greenlet's value. The initialiser is not called for it.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    #[track_caller]
    pub fn set(&'static self, value: T) {
        let value = Cell::new(Some(value));
        let take = || value.take().expect("used once");
        self.set_or(|| Cell::new(take()), |cell| cell.set(take()));
    }

    /// A copy of the current greenlet's value.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// Takes the current greenlet's value, and leaves the default.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Sets the current greenlet's value, and returns what it was.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Calls `f` with the current greenlet's value, borrowed.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when it is borrowed mutably.
    #[track_caller]
    pub fn with_borrow<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Calls `f` with the current greenlet's value, borrowed mutably.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when it is borrowed.
    #[track_caller]
    pub fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Sets the current greenlet's value. The initialiser is not called for it.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when it is borrowed.
    #[track_caller]
    pub fn set(&'static self, value: T) {
        let value = Cell::new(Some(value));
        let take = || value.take().expect("used once");
        self.set_or(|| RefCell::new(take()), |cell| drop(cell.replace(take())));
    }

    /// Takes the current greenlet's value, and leaves the default.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when it is borrowed.
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    /// Sets the current greenlet's value, and returns what it was.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when it is borrowed.
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// Drops what the current greenlet has of its own, its context included (`LOCAL-3`).
#[inline(always)]
pub(super) fn end(ctl: Ctl) {
    if ctl.has_locals() {
        drop_all(ctl);
    }
}

#[cold]
fn drop_all(ctl: Ctl) {
    // A destructor may make another value, of a key that was not used yet.
    while let Some(value) = take_newest(ctl).or_else(|| context::take(ctl)) {
        let end = || match ctl.kill.get() {
            Kill::None => drop(value),
            // As during the unwind: it may block all the same.
            Kill::Pending | Kill::Raised => shield(|| drop(value)),
        };
        if let Err(payload) = unwind::catch(end)
            && !unwind::is_kill(&*payload)
        {
            spawn::report_panic("the destructor of a greenlet-local", ctl, payload);
        }
    }
    ctl.rare(|rare| rare.locals.clear());
    ctl.set_has_locals(false);
}

fn take_newest(ctl: Ctl) -> Option<Rc<dyn Any>> {
    ctl.rare(|rare| {
        rare.locals.iter_mut().rev().find_map(|local| {
            match std::mem::replace(&mut local.value, Value::Gone) {
                Value::Made(value) => Some(value),
                Value::Making | Value::Gone => None,
            }
        })
    })
}
