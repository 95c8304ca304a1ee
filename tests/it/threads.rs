//! Which public types may go to other threads, and which may not: SOUND-1, SOUND-12.
//!
//! All of it is checked by the compiler; a wrong line does not build.

use greenloop::{
    Abandoned, AccessError, AsCompleted, CancelHandle, Cancelled, Context, ContextVar, Deadline,
    Deferred, DeferredFuture, DeferredList, DelayedCall, DelayedCallError, Elapsed, Ending,
    Failure, FailureGroup, FirstError, Greenlet, GreenletFuture, GreenletRef, GreenletState,
    JoinError, Killed, Link, ListResult, LocalKey, Metrics, Panic, Parked, PauseGuard, Reactor,
    ReactorHandle, Readiness, Report, Resolver, RunError, Scope, ScopedGreenlet, Sleeping, Stopped,
    TryScope,
    net::{TcpListener, TcpStream},
    sync::{
        Acquire, Barrier, Event, Lock, Mutex, MutexGuard, OnceCell, OwnedMutexGuard,
        OwnedRwLockReadGuard, OwnedRwLockWriteGuard, Permit, Reading, Receiver, Receiving, RwLock,
        RwLockReadGuard, RwLockWriteGuard, Semaphore, Sender, Sending, WaitBarrier, WaitEvent,
        WaitGroup, WaitWork, Work, Writing, broadcast, priority, watch,
    },
    task::{Group, Pool, PoolSlot},
};

fn send<T: Send>() {}
fn shared<T: Send + Sync>() {}

/// Two implementations fit a type that is `Send`, one a type that is not: then the call below is
/// ambiguous, and does not compile.
trait UnlessSend<Marker> {
    fn stays_on_its_thread() {}
}

struct IsSend;

impl<T: ?Sized> UnlessSend<()> for T {}
impl<T: ?Sized + Send> UnlessSend<IsSend> for T {}

macro_rules! stay {
    ($($type:ty),* $(,)?) => {$( <$type as UnlessSend<_>>::stays_on_its_thread(); )*};
}

#[test]
fn what_belongs_to_a_hub_stays_on_its_thread() {
    stay!(
        Greenlet<()>,
        GreenletFuture<()>,
        GreenletRef,
        AsCompleted<()>,
        Link,
        TryScope<'_, '_, ()>,
        (Group, Pool, PoolSlot),
        Scope<'_, '_>,
        ScopedGreenlet<'_, ()>,
        Deferred<()>,
        DeferredFuture<()>,
        DeferredList<()>,
        Resolver<()>,
        CancelHandle,
        PauseGuard,
        Reactor,
        DelayedCall,
        Context,
        // Whoever locks a mutex lets it go on the same thread.
        MutexGuard<'_, ()>,
        OwnedMutexGuard<()>,
        RwLockReadGuard<'_, ()>,
        RwLockWriteGuard<'_, ()>,
        OwnedRwLockReadGuard<()>,
        OwnedRwLockWriteGuard<()>,
        // What cannot be sent is not sent by a lock or a channel either.
        Mutex<std::rc::Rc<()>>,
        RwLock<std::rc::Rc<()>>,
        Sender<std::rc::Rc<()>>,
        Receiver<std::rc::Rc<()>>,
        priority::Sender<std::rc::Rc<()>>,
        broadcast::Receiver<std::cell::Cell<u8>>,
        watch::Receiver<std::cell::Cell<u8>>,
    );
}

/// With a value that may be sent, but not shared.
#[test]
fn what_is_waited_for_may_be_shared_by_all_threads() {
    use std::{cell::Cell, sync::Arc};
    shared::<(Semaphore, Permit<&Semaphore>, Permit<Arc<Semaphore>>, Acquire<'_>)>();
    shared::<(Mutex<Cell<u8>>, Lock<'_, Cell<u8>>)>();
    shared::<(RwLock<u8>, Reading<'_, u8>, Writing<'_, u8>)>();
    shared::<(Event, WaitEvent<'_>, OnceCell<u8>)>();
    shared::<(Barrier, WaitBarrier<'_>, WaitGroup, WaitWork<'_>, Work)>();
    shared::<(Sender<Cell<u8>>, Receiver<Cell<u8>>)>();
    shared::<(priority::Sender<Cell<u8>>, priority::Receiver<Cell<u8>>)>();
    shared::<(broadcast::Sender<u8>, broadcast::Receiver<u8>, broadcast::Receiving<'_, u8>)>();
    shared::<(watch::Sender<u8>, watch::Receiver<u8>, watch::Changing<'_, u8>)>();
    send::<(priority::Sending<'_, Cell<u8>>, priority::Receiving<'_, Cell<u8>>)>();
    send::<(Sending<'_, Cell<u8>>, Receiving<'_, Cell<u8>>)>();
}

#[test]
fn handles_sockets_and_errors_may_go_anywhere() {
    shared::<ReactorHandle>();
    shared::<TcpListener>();
    shared::<TcpStream>();
    shared::<Failure>();
    shared::<(FirstError, FailureGroup, ListResult<()>)>();
    shared::<RunError>();
    shared::<Report>();
    shared::<Parked>();
    shared::<(GreenletState, Metrics)>();
    shared::<Ending>();
    shared::<(Killed, Elapsed, Stopped, Cancelled, Abandoned, DelayedCallError)>();
    shared::<(Deadline, AccessError)>();
    // They are statics: what they name is each greenlet's own.
    shared::<(LocalKey<std::rc::Rc<()>>, ContextVar<std::rc::Rc<()>>)>();
    // Whoever polls them waits on a hub of its own.
    shared::<(Sleeping, Readiness<'_>)>();
    // Whatever the payload of a panic is: nobody reaches it through them.
    shared::<(JoinError, Panic)>();
}

/// It names no hub: it serves that of the thread that it is used on.
#[cfg(feature = "hyper")]
#[test]
fn hypers_runtime_and_its_sleeps_may_go_anywhere() {
    shared::<greenloop::HyperRuntime>();
    shared::<std::pin::Pin<Box<dyn hyper::rt::Sleep>>>();
}
