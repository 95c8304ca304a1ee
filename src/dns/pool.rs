//! The threads that ask: at most a few, started when they are needed, gone when they are not.
//!
//! Floor 6. Uses: OS threads, one lock. Used by: `dns`.
//!
//! # States of a thread
//!
//! ```text
//! started (submit) ──▶ asking ◀──▶ idle ──IDLE_MAX without a question──▶ ended
//! ```
//!
//! # Invariants
//!
//! - `POOL-1` There are never more than `THREADS_MAX` threads, and while the queue is longer than
//!   the idle ones are many, either that limit is reached or no thread can be started.

use std::{
    collections::VecDeque,
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::Job;

/// Threads at most. Name servers answer in parallel; more than this many slow ones at once is an
/// outage, in which more threads help nobody.
pub(super) const THREADS_MAX: usize = 8;

/// How long a thread without questions is kept: long enough for the next of a burst.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// A queue of questions and its threads.
pub(super) struct Pool {
    /// Held for a few instructions, never while a question is asked.
    state: Mutex<State>,
    /// Told when a question has come for an idle thread.
    work: Condvar,
}

struct State {
    queue: VecDeque<Job>,
    /// Threads that exist.
    threads: usize,
    /// Those of them that wait for a question.
    idle: usize,
}

impl Pool {
    pub(super) const fn new() -> Pool {
        let state = State { queue: VecDeque::new(), threads: 0, idle: 0 };
        Pool { state: Mutex::new(state), work: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues `job`, and sees that a thread comes for it.
    ///
    /// # Errors
    ///
    /// Those of starting a thread, when there is none at all that could take the job.
    pub(super) fn submit(&'static self, job: Job) -> io::Result<()> {
        let mut state = self.lock();
        state.queue.push_back(job);
        if state.queue.len() <= state.idle {
            drop(state);
            self.work.notify_one();
            return Ok(());
        }
        if state.threads == THREADS_MAX {
            return Ok(());
        }
        let name = String::from("greenloop-dns");
        match thread::Builder::new().name(name).spawn(|| self.serve()) {
            Ok(_) => {
                state.threads += 1;
                Ok(())
            }
            // Those that are there will take it in their turn.
            Err(_) if state.threads > 0 => Ok(()),
            Err(error) => {
                let job = state.queue.pop_back();
                drop(state);
                drop(job);
                Err(error)
            }
        }
    }

    /// Takes a question back that nobody has begun to ask.
    pub(super) fn withdraw(&self, number: usize) {
        let mut state = self.lock();
        let found = state.queue.iter().position(|job| job.number == number);
        let job = found.and_then(|place| state.queue.remove(place));
        drop(state);
        drop(job);
    }

    /// What a thread does.
    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                job.run();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, IDLE_MAX);
            let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = again;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    /// How many threads exist and how many questions wait for one.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.threads, state.queue.len())
    }

    /// Whether every thread waits for a question.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.idle == state.threads
    }
}
