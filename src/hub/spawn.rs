//! Spawning: a closure, a stack, a name.
//!
//! Floor 4. Uses: `control`, `join`. Used by: users, `scope`, `calls`, `run`.

use std::{
    any::Any,
    cell::Cell,
    fmt, io,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    rc::Rc,
    time::Duration,
};

use super::{
    Hub, Killed, context,
    control::{Birth, Body, Ctl, Kill, Role, State},
    join::{Greenlet, Join, JoinError, Joinable},
    locals,
    park::{CannotPark, Wake},
    unwind,
};
use crate::{Failure, coro::StackPool};

/// Bytes of address space of the main greenlet's stack.
const MAIN_STACK_BYTES: usize = 8 << 20;

/// Spawns a greenlet: `f` runs on a stack of its own, on this thread, when the current greenlet
/// next lets go.
///
/// Shape: `f` needs no `Send` and may share `Rc` and `RefCell` with other greenlets of the thread.
/// Greenlets start in the order in which they were spawned. Dropping the handle detaches the
/// greenlet; when [`run`](crate::run) ends, it is killed.
///
/// # Panics
///
/// Outside [`run`](crate::run), and when there is no memory for a stack:
/// [`Builder::spawn`] returns an error instead.
///
/// # Cancellation
///
/// Cancellation point: never.
///
/// # Safety limits
///
/// Greenlets share their thread's thread-locals. A greenlet must not call a blocking function of
/// this crate from inside the initialiser of a `thread_local!`, or from inside a guard that sets a
/// thread-local and restores it later (`scoped-tls`, `better_scoped_tls`, `fluid-let`): such code
/// relies on calls of one thread being nested, and greenlets interleave. Every runtime with
/// stackful coroutines has this hole. A debug build warns of it when it sees it
/// (for which the first wait of a process takes about 0.1 s longer). For the same reason, end the
/// process by returning from `main`: [`std::process::exit`] on a greenlet drops the thread's
/// thread-locals while others may use them, if one of their destructors waits.
///
/// # Examples
///
/// ```
/// let sum = greenloop::run(|| {
///     let a = greenloop::spawn(|| 20);
///     let b = greenloop::spawn(|| 22);
///     a.join().unwrap() + b.join().unwrap()
/// });
/// assert_eq!(sum, 42);
/// ```
///
/// # Source
///
/// gevent `spawn`; `std::thread::spawn`.
#[track_caller]
pub fn spawn<F, T>(f: F) -> Greenlet<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    Builder::new().spawn(f).unwrap_or_else(|error| panic!("greenloop::spawn: {error}"))
}

/// As [`spawn`], on behalf of somebody who called at `place`.
pub(super) fn spawn_at<F, T>(place: &'static Location<'static>, f: F) -> Greenlet<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let spawned = Builder::new().spawn_at(place, f);
    spawned.unwrap_or_else(|error| panic!("greenloop::spawn: {error}"))
}

/// Spawns a greenlet that starts after `delay`. Killed before that, it never runs.
///
/// # Panics
///
/// As [`spawn`].
///
/// # Cancellation
///
/// Cancellation point: never.
///
/// # Source
///
/// gevent `spawn_later`.
#[track_caller]
pub fn spawn_later<F, T>(delay: Duration, f: F) -> Greenlet<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let spawned = Builder::new().spawn_later(delay, f);
    spawned.unwrap_or_else(|error| panic!("greenloop::spawn_later: {error}"))
}

/// Spawns greenlets with a name or another stack size.
///
/// # Examples
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// greenloop::run(|| {
///     let g = greenloop::Builder::new().name("parser").stack_size(1 << 20).spawn(|| 1)?;
///     assert_eq!(g.name(), Some("parser"));
///     Ok(())
/// })
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "must eventually spawn the greenlet"]
pub struct Builder {
    name: Option<Rc<str>>,
    stack_size: Option<usize>,
}

impl Builder {
    /// A greenlet without a name, on a stack of the default size.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names it: in reports, and when its stack overflows.
    pub fn name(mut self, name: impl Into<Rc<str>>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Sets the size of its stack.
    ///
    /// Units: bytes of address space, 64 KiB of guard included; rounded up to whole pages, and to
    /// at least 96 KiB. Default 256 KiB. Memory is taken page by page as it is touched.
    ///
    /// The least leaves 32 KiB to use, also for a signal handler that is not on the alternate
    /// stack: the kernel saves the vector registers in front of it, up to 3 KiB with AVX-512 and
    /// 12 KiB with AMX. A panic with its backtrace needs more: 64 KiB to use are safe.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// Spawns `f`, as [`spawn`].
    ///
    /// # Errors
    ///
    /// `OutOfMemory` when no stack can be mapped (the text names the limit), and an error that says
    /// so outside [`run`](crate::run).
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<Greenlet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.spawn_at(Location::caller(), f)
    }

    pub(super) fn spawn_at<F, T>(
        self,
        place: &'static Location<'static>,
        f: F,
    ) -> io::Result<Greenlet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.spawn_holding(place, f, ())
    }

    /// As [`spawn`](Self::spawn). `last` is dropped when all else of the greenlet is gone; that
    /// must neither unwind nor park.
    pub(super) fn spawn_holding<F, T>(
        self,
        place: &'static Location<'static>,
        f: F,
        last: impl Sized + 'static,
    ) -> io::Result<Greenlet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let hub = Hub::current().ok_or_else(CannotPark::no_hub)?;
        let (greenlet, ctl) = hub.create(self, place, f, last)?;
        hub.ready.push(ctl);
        Ok(greenlet)
    }

    /// Spawns `f` to start after `delay`, as [`spawn_later`].
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_later<F, T>(self, delay: Duration, f: F) -> io::Result<Greenlet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let hub = Hub::current().ok_or_else(CannotPark::no_hub)?;
        let (greenlet, ctl) = hub.create(self, Location::caller(), f, ())?;
        ctl.state.set(State::Delayed);
        let deadline = hub.deadline_in(delay);
        if !deadline.is_never() {
            let start = Wake::Start { slot: ctl.slot, id: ctl.id() };
            let key = hub.reactor.add_timer(deadline, start);
            ctl.rare(|rare| rare.start = Some(key));
        }
        if ctl.kill.get() != Kill::None {
            hub.start_delayed(ctl); // The reactor is shutting down: it was born killed.
        }
        Ok(greenlet)
    }

    /// As [`spawn`](Self::spawn), for a closure that borrows. `last` is dropped when all else of
    /// the greenlet is gone.
    ///
    /// # Safety
    ///
    /// The greenlet must have ended before anything that `f` or `T` borrows does.
    #[expect(unsafe_code, reason = "scopes vouch for the lifetimes of their children")]
    pub(super) unsafe fn spawn_unchecked<F, T>(
        self,
        birth: &'static Location<'static>,
        f: F,
        last: impl Drop,
    ) -> io::Result<Greenlet<T>>
    where
        F: FnOnce() -> T,
    {
        let hub = Hub::current().ok_or_else(CannotPark::no_hub)?;
        // SAFETY: passed on.
        let spawned = unsafe { hub.create_unchecked(self, birth, f, last, |_| None) };
        let (greenlet, ctl) = spawned?;
        hub.ready.push(ctl);
        Ok(greenlet)
    }
}

impl Hub {
    #[expect(unsafe_code, reason = "'static closures borrow nothing")]
    fn create<F, T>(
        &self,
        builder: Builder,
        place: &'static Location<'static>,
        f: F,
        last: impl Sized + 'static,
    ) -> io::Result<(Greenlet<T>, Ctl)>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        // SAFETY: `F` and `T` are 'static, and so is `last`.
        unsafe { self.create_unchecked(builder, place, f, last, unjoined_error::<T>) }
    }

    /// Makes a greenlet that is in no queue yet.
    ///
    /// # Safety
    ///
    /// As [`Builder::spawn_unchecked`].
    #[expect(unsafe_code, reason = "the closure's lifetime ends here")]
    unsafe fn create_unchecked<F, T, L>(
        &self,
        builder: Builder,
        place: &'static Location<'static>,
        f: F,
        last: L,
        describe: fn(&T) -> Option<String>,
    ) -> io::Result<(Greenlet<T>, Ctl)>
    where
        F: FnOnce() -> T,
    {
        let (ctl, pool) = self.reserve(builder.stack_size)?;
        let join = Join::new(self.draw_id(), ctl.slot, place, builder.name, pool, describe);
        let packet = Rc::new(Packet { join, work: Cell::new(Some((f, last))) });
        let body: Rc<dyn Body + '_> = Rc::clone(&packet) as _;
        let parent = self.current.get().map_or(0, |current| current.id());
        // SAFETY: the caller vouches that all the body borrows outlives the greenlet.
        ctl.occupy(unsafe { forget_lifetime(body) }, parent);
        #[cfg(feature = "tracing")]
        begin_trail(ctl);
        context::hand_down(self.current.get(), ctl);
        if self.is_ending() {
            ctl.kill.set(Kill::Pending);
        }
        let packet: Rc<dyn Joinable<T> + '_> = packet;
        // SAFETY: a type's lifetime bound is all that changes; the caller keeps the handle within
        // what `F` borrows, and of `F` nothing is left in the packet once the greenlet has ended.
        let packet = unsafe {
            std::mem::transmute::<Rc<dyn Joinable<T> + '_>, Rc<dyn Joinable<T> + 'static>>(packet)
        };
        Ok((Greenlet { packet }, ctl))
    }

    /// Spawns the main greenlet or a callback greenlet: no handle, no result. Main's stack is as
    /// large as that of a process's main thread: code that was written for that runs on it.
    ///
    /// # Safety
    ///
    /// What `body` borrows must outlive the greenlet, and `body` must not unwind.
    #[expect(unsafe_code, reason = "main borrows from the caller of `run`")]
    pub(super) unsafe fn spawn_bare(
        &self,
        role: Role,
        name: &'static str,
        place: &'static Location<'static>,
        body: impl FnOnce(Ctl),
    ) -> io::Result<Ctl> {
        let stack_size = (role == Role::Main).then_some(MAIN_STACK_BYTES);
        let (ctl, pool) = self.reserve(stack_size)?;
        let birth = Birth { id: self.draw_id(), role, place, name: Some(name), pool };
        let body: Rc<dyn Body + '_> = Rc::new(Bare { birth, work: Cell::new(Some(body)) });
        // SAFETY: passed on.
        ctl.occupy(unsafe { forget_lifetime(body) }, 0);
        #[cfg(feature = "tracing")]
        if role == Role::Main {
            begin_trail(ctl);
        }
        if self.is_ending() {
            ctl.kill.set(Kill::Pending); // What it calls now must not hold up the end.
        }
        self.ready.push(ctl);
        Ok(ctl)
    }

    /// A free block, and the promise of a stack from a pool.
    #[inline]
    pub(super) fn reserve(&self, stack_size: Option<usize>) -> io::Result<(Ctl, u16)> {
        let mut pools = self.pools.borrow_mut();
        let pool = stack_size.map_or(Ok(0), |bytes| pool_of(&mut pools, bytes))?;
        pools[usize::from(pool)].promise()?;
        Ok((self.table.borrow_mut().reserve(), pool))
    }

    pub(super) fn draw_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    /// Puts a greenlet that was spawned for later into the run queue, once.
    pub(super) fn start_delayed(&self, ctl: Ctl) {
        if ctl.state.get() == State::Delayed {
            if let Some(key) = ctl.rare(|rare| rare.start.take()) {
                self.reactor.cancel_timer(key);
            }
            ctl.state.set(State::New);
            self.ready.push(ctl);
        }
    }

    /// Asks a greenlet to end; see [`Greenlet::kill`].
    pub(super) fn kill(&self, ctl: Ctl) {
        if ctl.kill.get() == Kill::None {
            ctl.kill.set(Kill::Pending);
            #[cfg(feature = "tracing")]
            {
                // Who kills relies on it that nobody runs meanwhile, and so does what follows.
                let _no_park = self.forbid_park();
                crate::trace::killed(ctl.id());
            }
        }
        match ctl.state.get() {
            State::Parked => self.make_ready(ctl),
            State::Delayed => self.start_delayed(ctl),
            State::New
            | State::Ready
            | State::Yielded
            | State::Running
            | State::Frozen
            | State::Free => {}
        }
    }
}

/// The pool for stacks of this size, made when it is first asked for.
fn pool_of(pools: &mut Vec<StackPool>, bytes: usize) -> io::Result<u16> {
    let wanted = StackPool::new(bytes);
    let known = pools.iter().position(|pool| pool.slot_bytes() == wanted.slot_bytes());
    if known.is_none() && pools.len() > usize::from(u16::MAX) {
        let text = "no stack for a greenlet: 65,536 different stack sizes are in use";
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
    }
    let place = known.unwrap_or_else(|| {
        pools.push(wanted);
        pools.len() - 1
    });
    Ok(place as u16)
}

/// Tells `tracing` of a greenlet that was spawned.
#[cfg(feature = "tracing")]
fn begin_trail(ctl: Ctl) {
    let _no_park = Hub::current().map(Hub::forbid_park); // It is in no queue yet.
    let Birth { id, name, place, .. } = ctl.birth();
    if let Some(trail) = crate::trace::Trail::begin(id, name, place) {
        ctl.rare(|rare| rare.trail = Some(trail));
    }
}

/// What a greenlet runs, and what it shares with its handle, in one allocation.
struct Packet<F, T, L> {
    join: Join<T>,
    /// Taken when the greenlet first runs; the second part is dropped when all else is gone.
    work: Cell<Option<(F, L)>>,
}

impl<F: FnOnce() -> T, T, L> Body for Packet<F, T, L> {
    fn run(self: Rc<Self>, ctl: Ctl) {
        let abort = AbortOnUnwind;
        // The label points to it until the greenlet has been reaped.
        let name = self.join.name.clone();
        let (f, last) = self.work.take().expect("a body runs once");
        let result = run_body(ctl, f);
        locals::end(ctl);
        // Dropping our share may report, and so may what the result drops: still on the
        // greenlet's own stack, where both may block.
        let hub = Hub::current().expect("a greenlet runs on a hub");
        let ended = catch_unwind(AssertUnwindSafe(move || {
            self.join.finish(hub, result);
            drop(self);
        }));
        ctl.unwinding.set(false);
        if let Err(payload) = ended
            && !unwind::is_kill(&*payload)
        {
            report_panic("the destructor of a greenlet's result", ctl, payload);
        }
        let_go(ctl);
        drop(last);
        locals::end(ctl); // A group's reason may have gone with it, and have used one.
        ctl.forget_name();
        drop(name);
        std::mem::forget(abort);
    }

    fn birth(&self) -> Birth<'_> {
        let Join { id, birth, pool, .. } = self.join;
        Birth { id, role: Role::User, place: birth, name: self.join.name.as_deref(), pool }
    }
}

impl<F, T, L> Joinable<T> for Packet<F, T, L> {
    fn join(&self) -> &Join<T> {
        &self.join
    }
}

/// A body without a handle.
struct Bare<F> {
    birth: Birth<'static>,
    work: Cell<Option<F>>,
}

impl<F: FnOnce(Ctl)> Body for Bare<F> {
    fn run(self: Rc<Self>, ctl: Ctl) {
        let work = self.work.take().expect("a body runs once");
        work(ctl);
    }

    fn birth(&self) -> Birth<'_> {
        self.birth
    }
}

/// Lets a body be kept without the lifetime of what it borrows.
///
/// # Safety
///
/// Whatever it borrows must outlive the greenlet that runs it.
#[expect(unsafe_code, reason = "a lifetime is forgotten")]
pub(super) unsafe fn forget_lifetime<'a>(body: Rc<dyn Body + 'a>) -> Rc<dyn Body> {
    // SAFETY: only the lifetime bound of the type changes; the caller vouches for it.
    unsafe { std::mem::transmute::<Rc<dyn Body + 'a>, Rc<dyn Body + 'static>>(body) }
}

/// Runs the user's closure, unless it was killed before it started, and catches what it raises.
fn run_body<F: FnOnce() -> T, T>(ctl: Ctl, f: F) -> Result<T, JoinError> {
    let killed = ctl.kill.get() != Kill::None;
    let caught = catch_unwind(AssertUnwindSafe(move || {
        if killed {
            // By an unwind, so that what it captured is dropped as it would be later.
            let _captured = f;
            ctl.kill.set(Kill::Raised);
            unwind::raise(ctl, unwind::Payload::Kill);
        }
        f()
    }));
    ctl.unwinding.set(false);
    caught.map_err(|payload| JoinError::from_payload(payload, unwind::take_note(ctl)))
}

/// Ends the process if a greenlet's root unwinds: nothing below could catch it.
pub(super) struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        eprintln!(
            "greenloop: something unwound out of the root of a greenlet, where nothing can catch \
             it; aborting"
        );
        std::process::abort();
    }
}

/// What to say of a value that nobody joined: its error, if it is an `Err`.
///
/// There is no way to ask a `T` whether it is a `Result`, so: its type's name says whether it is
/// one, its discriminant whether it is an `Err`; the common error types are shown, of others only
/// the type.
fn unjoined_error<T: 'static>(value: &T) -> Option<String> {
    use std::error::Error;
    let name = std::any::type_name::<T>();
    if !name.starts_with("core::result::Result<") {
        return None;
    }
    let any: &dyn Any = value;
    macro_rules! known {
        ($($error:ty),*) => {$(
            if let Some(result) = any.downcast_ref::<Result<(), $error>>() {
                return result.as_ref().err().map(|error| error.to_string());
            }
        )*};
    }
    known!(
        io::Error,
        Box<dyn Error>,
        Box<dyn Error + Send + Sync>,
        String,
        &'static str,
        fmt::Error
    );
    known!(crate::Failure, JoinError);
    let variant = format!("{:?}", std::mem::discriminant(value));
    variant.contains("(1)").then(|| format!("Err of a {name}"))
}

/// The current greenlet, to be named, compared, or killed later.
///
/// Unlike a [`Greenlet`] it gives no result, may be cloned, and does not keep anything alive.
#[derive(Clone, PartialEq, Eq)]
pub struct GreenletRef {
    id: u64,
    slot: u32,
    name: Option<Rc<str>>,
    birth: &'static Location<'static>,
}

/// The greenlet that calls this.
///
/// # Panics
///
/// Where no greenlet runs: outside [`run`](crate::run), or on the hub's own stack.
///
/// # Source
///
/// gevent `getcurrent`; `std::thread::current`.
#[track_caller]
pub fn current() -> GreenletRef {
    let ctl = match Hub::current().map(|hub| hub.current.get()) {
        Some(Some(ctl)) => ctl,
        Some(None) => panic!("greenloop::current: {}", CannotPark::HubStack),
        None => panic!("greenloop::current: {}", CannotPark::no_hub()),
    };
    let Birth { id, name, place, .. } = ctl.birth();
    GreenletRef { id, slot: ctl.slot, name: name.map(Rc::from), birth: place }
}

impl<T> Greenlet<T> {
    /// The greenlet without its result: a reference that may be cloned.
    pub fn as_ref(&self) -> GreenletRef {
        let Join { id, slot, birth, .. } = *self.packet.join();
        GreenletRef { id, slot, name: self.packet.join().name.clone(), birth }
    }
}

impl GreenletRef {
    /// Its number, as [`Greenlet::id`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where it was spawned.
    pub fn birth(&self) -> &'static Location<'static> {
        self.birth
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.find().is_none()
    }

    /// Asks it to end, as [`Greenlet::kill`].
    pub fn kill(&self) {
        self.kill_as(Killed::plain());
    }

    /// Asks it to end for a reason, as [`Greenlet::kill_with`].
    pub fn kill_with(&self, reason: impl Into<Failure>) {
        self.kill_as(Killed::because(reason));
    }

    pub(super) fn kill_as(&self, killed: Killed) {
        if let Some((hub, ctl)) = self.find() {
            hub.kill_as(ctl, killed);
        }
    }

    fn find(&self) -> Option<(&'static Hub, Ctl)> {
        let hub = Hub::current()?;
        Some((hub, hub.find(self.slot, self.id)?))
    }
}

impl fmt::Debug for GreenletRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GreenletRef")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("birth", &format_args!("{}", self.birth))
            .finish()
    }
}

/// Runs one call of the reactor's on a callback greenlet, and reports its panic.
pub(super) fn run_call(ctl: Ctl, call: Box<dyn FnOnce()>) {
    if let Err(payload) = unwind::catch(call)
        && !unwind::is_kill(&*payload)
    {
        report_panic("a function that the reactor called", ctl, payload);
    }
    let_go(ctl);
}

/// Drops what the current greenlet has of its own, and the reason for which it was killed: at its
/// end, or at that of a call.
///
/// In this order, for a kill may come while the destructor of a local waits. The first one counts,
/// so none that comes later leaves a reason; but the destructor of that one may have used a local.
#[inline]
pub(super) fn let_go(ctl: Ctl) {
    locals::end(ctl);
    Killed::forget(ctl);
    locals::end(ctl);
}

/// Reports a panic of the current greenlet that can reach nobody.
pub(super) fn report_panic(what: &str, ctl: Ctl, payload: Box<dyn Any + Send>) {
    let error = JoinError::from_payload(payload, unwind::take_note(ctl));
    crate::report::unhandled(what, &error, &());
    crate::report::discard(error);
}
