//! [`Several`]: the head of a chain whose source is other Deferreds, its *members*.
//!
//! A [`Rule`] says what the members' results come to. It is the only thing in which the
//! combinators differ; when a result is there, who is cancelled then and what becomes of results
//! that are too late are the same for all.
//!
//! # States
//! ```text
//!  Unfired ──receive, the rule decides or no member is left──► Fired ──receive: too late──► Fired
//!     └─cancel_source─► Cancelling ─(members are cancelled)─ Step::Reopen ─► Unfired
//! ```
//! Where the members that are left are cancelled, the result waits for that in `result`. All of it
//! is steps of the run that brought the result, so nothing here recurses.
//!
//! Unlike a canceller that returns, a cancellation of all members fires nothing by itself: a member
//! may take its time to end (an errback that cleans up), and what it comes to counts (D30).
//!
//! # Invariants
//! - SEVERAL-1: each member gives one result. The rule is in its cell unless it has decided.
//! - SEVERAL-2: members own what they continue, and are not owned by it (CHAIN-4).
//! - SEVERAL-3: a failure that no result carries goes to [`Late`]: it is never just lost.

use super::cancel::CancelHandle;
use super::chain::{Chain, Firing, Head, Outlet, Output, Run, Source, Step};
use super::debug;
use super::end::Deferred;
use super::failure::Failure;
use super::nested;
use super::unwinds::catch;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::panic::Location;
use std::rc::Rc;

/// Goes on, or has the result of the whole.
pub(super) type Verdict<R, O> = ControlFlow<Result<O, Failure>, R>;

/// What the results of the members come to.
pub(super) trait Rule<T>: Sized + 'static {
    /// What the whole comes to.
    type Output: 'static;

    /// Whether the members that are left are cancelled once the result is there.
    const CANCELS_REST: bool;

    /// Takes the result of one member; each has one.
    fn take(self, index: usize, result: Result<T, Failure>) -> Verdict<Self, Self::Output>;

    /// Gives the result of the whole when no member is left.
    fn end(self) -> Result<Self::Output, Failure>;
}

/// What becomes of failures that are in no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Late {
    /// They are reported.
    Report,
    /// They are dropped.
    Drop,
    /// They are dropped, for nobody wants to know how a cancelled member ends; but a panic is a
    /// fault of the program, and reported.
    ReportPanics,
}

impl Late {
    pub(super) fn take(self, failure: Failure) {
        if self == Late::Report || self == Late::ReportPanics && nested::holds_panic(&failure) {
            failure.report_unhandled("a Deferred whose result came too late for its list or race");
        }
    }
}

/// The head of a chain whose source is its members.
struct Several<R: Rule<T>, T: 'static> {
    /// The state of the chain.
    head: Head,
    /// Where the result of the whole goes.
    outlet: Outlet<R::Output>,
    /// What decides; none once it did.
    rule: Cell<Option<R>>,
    /// The result of the whole, while the members that are left are cancelled.
    result: Cell<Option<Result<R::Output, Failure>>>,
    /// What becomes of failures that come after that.
    late: Late,
    /// How many members have not given their result.
    left_count: Cell<usize>,
    /// The members, to be cancelled; empty once the result is there.
    members: Cell<Vec<CancelHandle>>,
}

/// Makes one Deferred of several, by a rule.
#[track_caller]
pub(super) fn several<R: Rule<T>, T: 'static>(
    deferreds: Vec<Deferred<T>>,
    late: Late,
    rule: R,
) -> Deferred<R::Output> {
    if deferreds.is_empty() {
        return Deferred::from_result(rule.end());
    }
    let several = Rc::new(Several {
        head: Head::new(Source::Unfired),
        outlet: Outlet::new(),
        rule: Cell::new(Some(rule)),
        result: Cell::new(None),
        late,
        left_count: Cell::new(deferreds.len()),
        members: Cell::new(deferreds.iter().map(Deferred::member).collect()),
    });
    if debug::is_on() {
        debug::note_made(&several.head, Location::caller());
    }
    for (index, deferred) in deferreds.into_iter().enumerate() {
        let whole = Rc::clone(&several);
        deferred.continue_in(several.clone(), move |result, firing| {
            whole.receive(index, result, firing)
        });
    }
    Deferred::linked(several.clone(), several)
}

impl<R: Rule<T>, T: 'static> Several<R, T> {
    /// Takes the result of a member; goes on with the chain if that decides.
    fn receive(
        self: Rc<Self>,
        index: usize,
        result: Result<T, Failure>,
        firing: &mut Firing,
    ) -> Option<Rc<dyn Run>> {
        self.left_count.update(|count| count - 1);
        let Some(rule) = self.rule.take() else {
            // Destructors are user code too.
            if let Err(caught) = catch(|| result.map_or_else(|f| self.late.take(f), drop)) {
                firing.failure_of(caught).report_unhandled("the destructor of a late result");
            }
            return None;
        };
        let verdict = catch(|| match rule.take(index, result) {
            ControlFlow::Continue(rule) if self.left_count.get() == 0 => {
                ControlFlow::Break(rule.end())
            }
            verdict => verdict,
        });
        let mut result = match verdict {
            Ok(ControlFlow::Continue(rule)) => {
                self.rule.set(Some(rule));
                return None;
            }
            Ok(ControlFlow::Break(result)) => result,
            Err(caught) => Err(firing.failure_of(caught)),
        };
        self.head.set_source(Source::Fired);
        let members = self.members.take();
        debug::mark(&mut result, &*self);
        if !R::CANCELS_REST {
            return self.outlet.deliver(result);
        }
        self.result.set(Some(result));
        firing.add_step(Step::Run(self));
        cancel_each(&members, None, firing);
        None
    }
}

/// Has the members cancelled in their order; the step that is added last is done first.
fn cancel_each(
    members: &[CancelHandle],
    unless_fired: Option<&Rc<dyn Chain>>,
    firing: &mut Firing,
) {
    let steps = members.iter().rev().filter_map(|member| member.step(unless_fired));
    steps.for_each(|step| firing.add_step(step));
}

impl<R: Rule<T>, T: 'static> Run for Several<R, T> {
    /// Goes on with the result, now that the other members have been cancelled.
    fn run(self: Rc<Self>, firing: &mut Firing) -> Option<Rc<dyn Run>> {
        firing.chain = self.clone();
        self.outlet.deliver(self.result.take()?)
    }
}

impl<R: Rule<T>, T: 'static> Chain for Several<R, T> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn cancel_source(self: Rc<Self>, firing: &mut Firing) -> Option<Rc<dyn Run>> {
        self.head.set_source(Source::Cancelling);
        let whole: Rc<dyn Chain> = self.clone();
        firing.add_step(Step::Reopen(Rc::clone(&whole)));
        // One that decides meanwhile has cancelled the others: not twice, for it may reach an
        // errback of theirs that cleans up.
        let unless_fired = R::CANCELS_REST.then_some(&whole);
        let members = self.members.take();
        cancel_each(&members, unless_fired, firing);
        self.members.set(members);
        None
    }
}

impl<R: Rule<T>, T: 'static> Output<R::Output> for Several<R, T> {
    fn outlet(&self) -> &Outlet<R::Output> {
        &self.outlet
    }
}
