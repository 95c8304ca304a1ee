//! [`Imap`]: the results of a pool's calls, one by one, as an iterator.
//!
//! Floor 7. Uses: `pool`, `hub`. Used by: users, by [`Pool::imap`].
//!
//! Whoever iterates begins the calls, between two results: no greenlet runs ahead of it, so what
//! holds back the consumer holds back the input.

use std::{collections::VecDeque, fmt, rc::Rc};

use super::pool::Pool;
use crate::{Greenlet, JoinError, hub::AsCompleted, hub::as_completed};

/// The iterator of [`Pool::imap`] and [`Pool::imap_unordered`].
///
/// Its `next` parks until a call has ended; a kill or timeout that unwinds out of it loses no
/// result of a call that was begun on another greenlet.
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Imap<I: Iterator, F, U> {
    pool: Pool,
    f: Rc<F>,
    /// None when there are no more.
    items: Option<I>,
    /// What `items` has panicked with, until it is its turn.
    panic: Option<JoinError>,
    begun: Begun<U>,
}

/// Calls whose results were not given yet.
enum Begun<U> {
    InOrder(VecDeque<Greenlet<U>>),
    AsTheyEnd(AsCompleted<U>),
}

impl<U> Begun<U> {
    fn len(&self) -> usize {
        match self {
            Begun::InOrder(calls) => calls.len(),
            Begun::AsTheyEnd(calls) => calls.len(),
        }
    }

    fn push(&mut self, call: Greenlet<U>) {
        match self {
            Begun::InOrder(calls) => calls.push_back(call),
            Begun::AsTheyEnd(calls) => calls.push(call),
        }
    }

    /// Parks until the next one has ended.
    #[track_caller]
    fn next(&mut self) -> Option<Greenlet<U>> {
        match self {
            Begun::InOrder(calls) => {
                calls.front()?.wait(); // In its place: a kill leaves it there.
                calls.pop_front()
            }
            Begun::AsTheyEnd(calls) => calls.next(),
        }
    }
}

impl<I: Iterator, F: Fn(I::Item) -> U, U> Imap<I, F, U> {
    pub(super) fn in_order(pool: &Pool, items: I, f: F) -> Imap<I, F, U> {
        Imap::new(pool, items, f, Begun::InOrder(VecDeque::new()))
    }

    pub(super) fn as_they_end(pool: &Pool, items: I, f: F) -> Imap<I, F, U> {
        Imap::new(pool, items, f, Begun::AsTheyEnd(as_completed([])))
    }

    fn new(pool: &Pool, items: I, f: F, begun: Begun<U>) -> Imap<I, F, U> {
        Imap { pool: pool.clone(), f: Rc::new(f), items: Some(items), panic: None, begun }
    }

    /// The next item; a panic is kept for later.
    fn next_item(&mut self) -> Option<I::Item> {
        let items = self.items.as_mut()?;
        let item = JoinError::catch(|| items.next()).unwrap_or_else(|panic| {
            self.panic = Some(panic);
            None
        });
        if item.is_none() {
            self.items = None;
        }
        item
    }
}

impl<I, F, U> Iterator for Imap<I, F, U>
where
    I: Iterator<Item: 'static>,
    F: Fn(I::Item) -> U + 'static,
    U: 'static,
{
    /// What a call returned, or how it ended without.
    type Item = Result<U, JoinError>;

    #[track_caller]
    fn next(&mut self) -> Option<Result<U, JoinError>> {
        while self.items.is_some() && self.begun.len() < self.pool.size().max(1) {
            // With calls of its own to wait for, it need not wait for others'.
            let taken = match self.pool.try_take() {
                None if self.begun.len() > 0 => break,
                None => self.pool.take_or_lend(),
                taken => taken,
            };
            let Some(item) = self.next_item() else { break };
            let f = Rc::clone(&self.f);
            match taken {
                Some(taken) => self.begun.push(self.pool.spawn_in(taken, move || f(item))),
                None => return Some(JoinError::catch(|| f(item))),
            }
        }
        match (self.begun.next(), self.panic.take()) {
            (Some(call), panic) => {
                self.panic = panic;
                Some(call.take_result())
            }
            (None, Some(panic)) => panic.resume(),
            (None, None) => None,
        }
    }
}

impl<I: Iterator, F, U> Drop for Imap<I, F, U> {
    fn drop(&mut self) {
        match &self.begun {
            Begun::InOrder(calls) => calls.iter().for_each(Greenlet::kill),
            Begun::AsTheyEnd(calls) => calls.kill(),
        }
    }
}

impl<I: Iterator, F, U> fmt::Debug for Imap<I, F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("pool", &self.pool)
            .field("begun", &self.begun.len())
            .field("has_items", &self.items.is_some())
            .finish()
    }
}
