//! Names to addresses, off the loop: a few OS threads ask the system's resolver.
//!
//! Floor 6. Uses: `hub::park`, the inbox, `pool`. Used by: `net`, for names that are not literal
//! addresses. Knows nothing of: sockets.
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
    sync::{Arc, Mutex, PoisonError},
};

use self::pool::{Job, Pool};
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
    let pool = POOLS.get(fork::generation()).ok_or_else(|| {
        io::Error::other("too many forks deep for names to be looked up; pass addresses")
    })?;
    ask(pool, move || Ok((host.as_str(), port).to_socket_addrs()?.collect()))
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
    let reply = Reply::new(hub, wait.wake());
    let asked = Asked { pool, answer: Arc::clone(&reply.answer) };
    pool.submit(Job { question: Box::new(question), reply })?;
    wait.park(Deadline::NEVER, Mode::Fallible)?;
    asked.take().unwrap_or_else(|| Err(io::Error::other("the thread that resolves names panicked")))
}

/// Where an answer is left for the greenlet that asked.
type Slot = Mutex<Option<Answer>>;

/// The asking greenlet's end of a question; taken back when dropped (`DNS-2`).
struct Asked {
    pool: &'static Pool,
    answer: Arc<Slot>,
}

impl Asked {
    fn take(&self) -> Option<Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // One holder: the job has left the queue and its thread is done with it.
        if Arc::strong_count(&self.answer) > 1 {
            self.pool.withdraw(&self.answer);
        }
    }
}

/// The pool's end of a question: wakes the asker when dropped (`DNS-1`).
struct Reply {
    answer: Arc<Slot>,
    inbox: Arc<Inbox<Message>>,
    wake: Wake,
}

impl Reply {
    fn new(hub: &Hub, wake: Wake) -> Reply {
        let inbox = Arc::clone(hub.inbox());
        // A hub that sleeps must know that somebody outside will wake it.
        inbox.add_handle();
        Reply { answer: Arc::default(), inbox, wake }
    }

    fn send(self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // A closed inbox: the run has ended, and with it whoever asked.
        let _ = self.inbox.push(Message::Wake(self.wake));
        self.inbox.drop_handle();
    }
}
