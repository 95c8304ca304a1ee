//! Names to addresses, off the loop: a few OS threads ask the system's resolver.
//!
//! Floor 6. Uses: `hub::park`, the inbox, `pool`. Used by: `net`, for names that are not literal
//! addresses; `interpose`, for calls of libc that block. Knows nothing of: sockets.
//!
//! # Contract
//!
//! `getaddrinfo` blocks for as long as a name server likes and cannot be interrupted. [`resolve`]
//! has a thread of the pool call it, and parks the calling greenlet until the answer has come.
//!
//! # Invariants
//!
//! - `DNS-1` A question is answered by exactly one wake, also when the thread that asks it panics:
//!   `Reply` sends it when it is dropped.
//! - `DNS-2` A greenlet that is killed or times out takes its question back. One that nobody has
//!   begun to ask is never asked; the answer of one that was begun is dropped by the thread, and
//!   its wake names a ticket that is over.
//!
//! # Threads
//!
//! The pool serves all hubs of the process. Its threads run none of this crate's greenlets, so
//! what they call may block. (A hub's thread takes the pool's lock for a few instructions.)
//!
//! # Source
//!
//! gevent `resolver/thread.py`; getaddrinfo(3).

mod pool;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use self::pool::Pool;
use crate::{
    hub::{
        Hub, Message, fork, guest,
        park::{Mode, Wait, WaitOn, Wake},
    },
    reactor::Inbox,
    time::Deadline,
};

/// What a question gives.
type Answer = io::Result<Vec<SocketAddr>>;

/// How many forks deep names are looked up by threads that exist.
const GENERATIONS: usize = 16;

/// The threads of the process, one set for each generation of forks: the child of a fork has none
/// of its parent's, and its parent's lock may be held by nobody.
static POOLS: [Pool; GENERATIONS] = [const { Pool::new() }; GENERATIONS];

/// Asks the system's resolver for the addresses of `host`, and parks until it answers.
///
/// # Errors
///
/// What the resolver says, as std words it. `OutOfMemory` or `WouldBlock` when no thread can be
/// started and none is there. [`Killed`](crate::Killed) where a kill cannot unwind. Outside `run`,
/// an error that says so.
///
/// # Cancellation
///
/// Cancellation point: always. On cancel the question is taken back (`DNS-2`).
///
/// # Source
///
/// getaddrinfo(3), through `std::net::ToSocketAddrs`.
pub(crate) fn resolve(host: &str, port: u16) -> Answer {
    let host = host.to_owned();
    ask(pool()?, move || Ok((host.as_str(), port).to_socket_addrs()?.collect()))
}

/// The threads of this process.
fn pool() -> io::Result<&'static Pool> {
    POOLS.get(fork::generation()).ok_or_else(|| {
        io::Error::other("too many forks deep for names to be looked up; pass addresses")
    })
}

/// Has `question` answered by a thread of `pool`, and parks until it is.
fn ask(pool: &'static Pool, question: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    if let Some(guest) = guest::guest().filter(|_| Hub::current().is_none()) {
        return guest.enter(|_| ask(pool, question));
    }
    let hub = Hub::to_park()?;
    hub.checkpoint(Mode::Fallible);
    let wait = Wait::begin(hub, WaitOn::Offload)?;
    let _owed = hub.reactor.owe();
    let asked = Asked::of(pool, hub, wait.wake(), question)?;
    wait.park(Deadline::NEVER, Mode::Fallible)?;
    asked.take().unwrap_or_else(|| Err(io::Error::other("the thread that resolves names panicked")))
}

/// Where an answer is left for whoever asked.
type Slot<T> = Mutex<Option<T>>;

/// The asking end of a question; taken back when dropped (`DNS-2`).
pub(crate) struct Asked<T> {
    /// None: it has a thread of its own, and cannot be taken back.
    pool: Option<&'static Pool>,
    answer: Arc<Slot<T>>,
}

impl<T: Send + 'static> Asked<T> {
    /// Asks a thread of `pool`; `wake` tells of the answer.
    fn of(
        pool: &'static Pool,
        hub: &Hub,
        wake: Wake,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Asked<T>> {
        let (job, answer) = Job::new(hub, wake, question);
        pool.submit(job)?;
        Ok(Asked { pool: Some(pool), answer })
    }

    /// Asks one of the threads that resolve names; `wake` tells `hub` of the answer.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    #[cfg_attr(not(target_env = "gnu"), expect(dead_code, reason = "for `interpose`"))]
    pub(crate) fn of_resolver(
        hub: &Hub,
        wake: Wake,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Asked<T>> {
        Asked::of(pool()?, hub, wake, question)
    }

    /// Asks a thread that is started for this: the answer may take as long as it likes.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    #[cfg_attr(not(target_env = "gnu"), expect(dead_code, reason = "for `interpose`"))]
    pub(crate) fn of_a_new_thread(
        hub: &Hub,
        wake: Wake,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Asked<T>> {
        let (job, answer) = Job::new(hub, wake, question);
        thread::Builder::new().name("greenloop-call".into()).spawn(|| job.run())?;
        Ok(Asked { pool: None, answer })
    }
}

impl<T> Asked<T> {
    /// The answer. None: there is none yet, or the question panicked.
    pub(crate) fn take(&self) -> Option<T> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T> Drop for Asked<T> {
    fn drop(&mut self) {
        // One holder: the job has left the queue and its thread is done with it.
        if Arc::strong_count(&self.answer) > 1
            && let Some(pool) = self.pool
        {
            pool.withdraw(Arc::as_ptr(&self.answer).addr());
        }
    }
}

/// One question, and how to answer it.
struct Job {
    /// Where its answer is to be left, which nobody else's is.
    number: usize,
    work: Box<dyn FnOnce() + Send>,
}

impl Job {
    fn new<T: Send + 'static>(
        hub: &Hub,
        wake: Wake,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> (Job, Arc<Slot<T>>) {
        let reply = Reply::new(hub, wake);
        let answer = Arc::clone(&reply.answer);
        let work = move || {
            // A panic of a question is told by the reply's silence (`DNS-1`).
            if let Ok(answer) = catch_unwind(AssertUnwindSafe(question)) {
                reply.send(answer);
            }
        };
        (Job { number: Arc::as_ptr(&answer).addr(), work: Box::new(work) }, answer)
    }

    fn run(self) {
        (self.work)();
    }
}

/// The pool's end of a question: wakes the asker when dropped (`DNS-1`).
struct Reply<T> {
    answer: Arc<Slot<T>>,
    inbox: Arc<Inbox<Message>>,
    wake: Wake,
}

impl<T> Reply<T> {
    fn new(hub: &Hub, wake: Wake) -> Reply<T> {
        let inbox = Arc::clone(hub.inbox());
        // A hub that sleeps must know that somebody outside will wake it.
        inbox.add_handle();
        Reply { answer: Arc::default(), inbox, wake }
    }

    fn send(self, answer: T) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        // A closed inbox: the run has ended, and with it whoever asked.
        let _ = self.inbox.push(Message::Wake(self.wake));
        self.inbox.drop_handle();
    }
}
