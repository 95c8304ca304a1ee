//! The context: values that a greenlet hands down to those that it spawns.
//!
//! Floor 4. Uses: `control`, which keeps it. Used by: users; `spawn`, which hands it down;
//! `locals`, which ends it.
//!
//! # Contract
//!
//! | whose context | it is that of |
//! |---|---|
//! | a greenlet's, at its beginning | whoever spawned it, in whatever way: [`spawn`](crate::spawn), a scope, [`Deferred::from_future`](crate::Deferred::from_future) |
//! | an `async` block's | the greenlet that polls it; so a block keeps its own across each await |
//! | main's, and that of a call of the reactor, at its beginning | nobody: empty |
//! | a callback's of a Deferred | whoever fires it, unless it was captured ([`Context::current`]) |
//!
//! A context never changes: a scope puts another one in its place, and puts the old one back. So
//! handing it down is a count, and what a child sees does not change under it.
//!
//! # Source
//!
//! Python `contextvars` (PEP 567), Twisted's use of it in `inlineCallbacks`; trio, where tasks
//! inherit it from their spawner; gevent `spawn_tree_locals`; tokio `task_local!`.

use std::{any::Any, fmt, marker::PhantomData, ptr, rc::Rc};

use super::{control::Ctl, park::CannotPark, unwind::here};

/// A value that is in force while a closure runs, for all that is spawned in it too: a request's
/// number, who is logged in, a span of a trace.
///
/// Declare it as a `static`: what tells one from another is its place in memory.
///
/// # Examples
///
/// ```
/// use greenloop::{ContextVar, run, spawn};
///
/// static USER: ContextVar<String> = ContextVar::new("user");
///
/// fn greet() -> String {
///     USER.get().map_or("hello?".to_owned(), |user| format!("hello, {user}"))
/// }
///
/// run(|| {
///     let child = USER.scope("ada".to_owned(), || spawn(greet));
///     assert_eq!(child.join().unwrap(), "hello, ada");
///     assert_eq!(greet(), "hello?");
/// });
/// ```
///
/// # Source
///
/// Python `ContextVar`; tokio `task_local!`, which a spawned task does not inherit.
pub struct ContextVar<T: 'static> {
    name: &'static str,
    value: PhantomData<fn() -> T>,
}

/// What the variables of a greenlet are at one moment, to be in force elsewhere: in a callback.
///
/// Shape: cheap to clone. It stays on its thread, as its values do.
///
/// # Examples
///
/// ```
/// use greenloop::{Context, ContextVar, Deferred, run};
///
/// static REQUEST: ContextVar<u32> = ContextVar::new("request");
///
/// run(|| {
///     let (resolver, deferred) = Deferred::new();
///     let answer = REQUEST.scope(7, || {
///         let context = Context::current();
///         deferred.add_callback(move |n: u32| Ok(context.run(|| *REQUEST.get().unwrap() * n)))
///     });
///     resolver.callback(6); // where no request is in force
///     assert_eq!(greenloop::wait_for_deferred(answer).ok(), Some(42));
/// });
/// ```
///
/// # Source
///
/// Python `contextvars.copy_context`.
#[derive(Clone, Default)]
pub struct Context {
    /// None: empty. A variable is in there once; few are, so they are looked for one by one.
    bindings: Option<Rc<Vec<Binding>>>,
}

/// A variable and its value.
#[derive(Clone)]
struct Binding {
    /// The address of the variable, which is a static.
    key: usize,
    name: &'static str,
    value: Rc<dyn Any>,
}

impl<T: 'static> ContextVar<T> {
    /// A variable that has no value where no [`scope`](Self::scope) gives it one. The name is for
    /// `Debug`.
    pub const fn new(name: &'static str) -> ContextVar<T> {
        ContextVar { name, value: PhantomData }
    }

    /// Its value here, if it has one.
    ///
    /// Shape: `None` outside of every [`scope`](Self::scope), and where no greenlet runs.
    pub fn get(&'static self) -> Option<Rc<T>> {
        let value = here()?.rare_if_any(|rare| rare.context.find(self.key()))??;
        Some(value.downcast().expect("a variable has one type"))
    }

    /// Runs `f` with `value` for this variable; also for what is spawned in `f`, for as long as
    /// that lives. When `f` is left, whatever way, the variable is again what it was.
    ///
    /// # Panics
    ///
    /// Where no greenlet runs. With whatever `f` panics with.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    #[track_caller]
    pub fn scope<R>(&'static self, value: T, f: impl FnOnce() -> R) -> R {
        let binding = Binding { key: self.key(), name: self.name, value: Rc::new(value) };
        Context::current().with(binding).run(f)
    }

    fn key(&'static self) -> usize {
        ptr::from_ref(self).addr()
    }
}

impl Context {
    /// That of the current greenlet; empty where none runs.
    pub fn current() -> Context {
        let current = here().and_then(|ctl| ctl.rare_if_any(|rare| rare.context.clone()));
        current.unwrap_or_default()
    }

    /// Runs `f` with the variables as they were when it was [captured](Self::current), and puts
    /// back those of the caller.
    ///
    /// # Panics
    ///
    /// Where no greenlet runs. With whatever `f` panics with.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    #[track_caller]
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        /// Puts the caller's context back.
        struct Restore(Ctl, Context);
        impl Drop for Restore {
            fn drop(&mut self) {
                let ours = exchange(self.0, std::mem::take(&mut self.1));
                drop(ours); // Code of others, perhaps.
            }
        }
        let Some(ctl) = here() else { panic!("greenloop::Context: {}", CannotPark::no_hub()) };
        let _restore = Restore(ctl, exchange(ctl, self.clone()));
        f()
    }

    fn find(&self, key: usize) -> Option<Rc<dyn Any>> {
        let found = self.bindings.as_ref()?.iter().find(|binding| binding.key == key);
        found.map(|binding| Rc::clone(&binding.value))
    }

    /// The same, but for one variable.
    fn with(self, binding: Binding) -> Context {
        let mut bindings = self.bindings.map_or_else(Vec::new, |all| (*all).clone());
        bindings.retain(|other| other.key != binding.key);
        bindings.push(binding);
        Context { bindings: Some(Rc::new(bindings)) }
    }
}

/// Puts a greenlet's context in place of another, which is handed back.
fn exchange(ctl: Ctl, context: Context) -> Context {
    ctl.set_has_locals(true);
    ctl.rare(|rare| std::mem::replace(&mut rare.context, context))
}

/// Hands the context of the current greenlet, if one runs and has any, down to one that it spawns.
#[inline(always)]
pub(super) fn hand_down(spawner: Option<Ctl>, child: Ctl) {
    #[cold]
    fn copy(child: Ctl) {
        let context = Context::current();
        if context.bindings.is_some() {
            exchange(child, context);
        }
    }
    if spawner.is_some_and(|spawner| spawner.has_locals()) {
        copy(child);
    }
}

/// Takes the context away from a greenlet that ends: to be dropped on its stack.
pub(super) fn take(ctl: Ctl) -> Option<Rc<dyn Any>> {
    let bindings = ctl.rare(|rare| rare.context.bindings.take())?;
    Some(bindings)
}

impl<T: 'static> fmt::Debug for ContextVar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextVar").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.bindings.iter().flat_map(|all| all.iter()).map(|binding| binding.name);
        f.debug_list().entries(names).finish()
    }
}
