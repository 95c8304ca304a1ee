//! Groups: greenlets of any kind that are waited for, or ended, together.
//!
//! Floor 4. Uses: `spawn`, `park`. Used by: users and `task::Pool`, by `task`.
//!
//! # Invariants
//!
//! - `GROUP-1` A member is in the group from before it can run until the last thing of it is
//!   dropped: a [`Member`] is that last thing, and its `Drop` takes it out, on every way out.
//! - `GROUP-2` A kill of the group reaches each member once: those that are in it, and those that
//!   come until it is empty again.
//!
//! # Source
//!
//! gevent `pool.py`, `Group`.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt, io,
    panic::Location,
    rc::Rc,
    time::Duration,
};

use super::{
    Hub, Killed,
    join::Greenlet,
    park::{Mode, Wait, WaitOn, Wake},
    spawn::{Builder, GreenletRef},
    unwind,
};
use crate::{Failure, time::Deadline};

/// Greenlets that are waited for, or ended, together, whatever they return.
///
/// Shape: a handle; clones are of the same group. A greenlet leaves the group when it has ended.
/// Dropping all handles changes nothing for the members: what ends its children on every way out is
/// a [`scope`](crate::scope). A group is for those that come and go for as long as a program runs.
///
/// # Examples
///
/// ```
/// use greenloop::{sleep, task::Group, testing};
/// use std::time::Duration;
/// testing::run(|| {
///     let sessions = Group::new();
///     for seconds in 1..=3 {
///         sessions.spawn(move || sleep(Duration::from_secs(seconds)));
///     }
///     assert!(!sessions.join_timeout(Duration::from_secs(2))); // one is left
///     sessions.kill();
///     sessions.join();
/// });
/// ```
///
/// # Source
///
/// gevent `pool.Group`.
#[derive(Clone, Default)]
pub struct Group {
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    /// In the order of their coming.
    members: RefCell<BTreeMap<u64, GreenletRef>>,
    next_key: Cell<u64>,
    /// How the members were killed, until the group is empty (`GROUP-2`).
    killed: RefCell<Option<Killed>>,
    /// Who waits for it to be empty.
    waiters: RefCell<Vec<Wake>>,
}

/// A place in a group; the greenlet that has it leaves when it is dropped (`GROUP-1`).
pub(crate) struct Member {
    state: Rc<State>,
    key: u64,
}

impl Member {
    pub(crate) fn key(&self) -> u64 {
        self.key
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = self.state.members.borrow_mut();
        if members.remove(&self.key).is_none() || !members.is_empty() {
            return;
        }
        drop(members);
        let waiters = self.state.waiters.take();
        if let Some(hub) = Hub::current() {
            waiters.into_iter().for_each(|wake| hub.wake(wake));
        }
        // A reason is the user's own, and so is its destructor.
        if let Some(killed) = self.state.killed.replace(None) {
            killed.discard();
        }
    }
}

impl Group {
    /// A group without members.
    pub fn new() -> Group {
        Group::default()
    }

    /// Spawns a greenlet into the group, as [`spawn`](crate::spawn).
    ///
    /// # Panics
    ///
    /// As [`spawn`](crate::spawn).
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> Greenlet<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let spawned = self.spawn_with(Builder::new(), f);
        spawned.unwrap_or_else(|error| panic!("task::Group::spawn: {error}"))
    }

    /// As [`spawn`](Self::spawn), with a name or a stack size.
    ///
    /// # Errors
    ///
    /// As [`Builder::spawn`].
    #[track_caller]
    pub fn spawn_with<F, T>(&self, builder: Builder, f: F) -> io::Result<Greenlet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.spawn_holding(builder, Location::caller(), f, ())
    }

    /// Spawns a member that drops `held` when all else of it is gone. That must not park or panic.
    pub(crate) fn spawn_holding<F, T>(
        &self,
        builder: Builder,
        place: &'static Location<'static>,
        f: F,
        held: impl Sized + 'static,
    ) -> io::Result<Greenlet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let member = self.admit();
        let key = member.key;
        let greenlet = builder.spawn_holding(place, f, (held, member))?;
        self.enlist(key, greenlet.as_ref());
        Ok(greenlet)
    }

    /// Makes a greenlet that was spawned by other means a member.
    ///
    /// Shape: it leaves in a [link](Greenlet::link), hence soon after it has ended.
    pub fn add<T>(&self, greenlet: &Greenlet<T>) {
        if !greenlet.is_finished() {
            let member = self.admit();
            self.enlist(member.key, greenlet.as_ref());
            greenlet.link(move |_| drop(member));
        }
    }

    /// A place for a greenlet that is about to be spawned.
    pub(crate) fn admit(&self) -> Member {
        let key = self.state.next_key.get();
        self.state.next_key.set(key + 1);
        Member { state: Rc::clone(&self.state), key }
    }

    /// The greenlet that has the place with this key. It has not run yet.
    pub(crate) fn enlist(&self, key: u64, greenlet: GreenletRef) {
        if let Some(killed) = &*self.state.killed.borrow() {
            greenlet.kill_as(killed.clone());
        }
        self.state.members.borrow_mut().insert(key, greenlet);
    }

    /// Whether the caller is a member.
    pub(crate) fn has_current(&self) -> bool {
        let current = unwind::here().map(|ctl| ctl.id());
        let members = self.state.members.borrow();
        current.is_some_and(|id| members.values().any(|member| member.id() == id))
    }

    /// Parks until the group is empty; once is enough, also if others have come when this returns.
    ///
    /// # Panics
    ///
    /// When it is not empty and the caller cannot park: outside [`run`](crate::run), or on the
    /// hub's own stack.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel the members go on. Infallible: where a kill cannot
    /// unwind, the wait goes on. A member that waits for its own group waits for ever.
    #[track_caller]
    pub fn join(&self) {
        self.wait(Deadline::NEVER);
    }

    /// As [`join`](Self::join), but gives up after `limit`. Returns whether the group was empty.
    #[track_caller]
    pub fn join_timeout(&self, limit: Duration) -> bool {
        self.wait(Hub::current().map_or(Deadline::NEVER, |hub| hub.deadline_in(limit)))
    }

    #[track_caller]
    fn wait(&self, deadline: Deadline) -> bool {
        /// Runs on every way out, the unwind of a kill included.
        struct Unwatch<'a>(&'a RefCell<Vec<Wake>>, Wake);
        impl Drop for Unwatch<'_> {
            fn drop(&mut self) {
                self.0.borrow_mut().retain(|wake| *wake != self.1);
            }
        }
        let hub = Hub::to_park();
        if let Ok(hub) = hub {
            hub.checkpoint(Mode::Infallible);
        }
        if self.is_empty() {
            return true;
        }
        let hub = hub.unwrap_or_else(|why| panic!("task::Group::join: {why}"));
        let wait = Wait::begin(hub, WaitOn::Greenlets(self.len() as u32)).expect("checked above");
        self.state.waiters.borrow_mut().push(wait.wake());
        let _unwatch = Unwatch(&self.state.waiters, wait.wake());
        let _ = wait.park(deadline, Mode::Infallible);
        wait.is_woken()
    }

    /// Asks each member to end, as [`Greenlet::kill`], and each that comes until the group is
    /// empty: so a [`join`](Self::join) after it ends, whatever the members spawn. Then the group
    /// is as new.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    pub fn kill(&self) {
        self.kill_as(&Killed::plain());
    }

    /// As [`kill`](Self::kill), for a reason that all share: as [`Greenlet::kill_with`].
    pub fn kill_with(&self, reason: impl Into<Failure>) {
        self.kill_as(&Killed::because(reason));
    }

    fn kill_as(&self, killed: &Killed) {
        let members = self.state.members.borrow();
        if members.is_empty() || self.state.killed.borrow().is_some() {
            return;
        }
        self.state.killed.replace(Some(killed.clone()));
        members.values().for_each(|member| member.kill_as(killed.clone()));
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.state.members.borrow().len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.state.members.borrow().values()).finish()
    }
}
