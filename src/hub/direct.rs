//! Directing: how a test decides who runs next, and cuts a greenlet short where it likes.
//!
//! Floor 4. Uses: `control`, `queue`, `timeout`. Used by: `run`, `testing`.
//!
//! A run that has a [`Director`] has a loop of its own: [`Hub::resume_directed`] stands where
//! `resume_batch` does, chosen once when the run begins. So a run that has none pays nothing.

use super::{BATCH, Hub, control::Ctl, control::State};

/// How many of those that are ready a director may choose among. Who is far behind in a long queue
/// comes near in time; finding it costs a walk.
const CHOICE_MAX: usize = 64;

/// What a test wants of the loop. Asked between two greenlets, on the hub's own stack: it must
/// neither park nor unwind.
pub(crate) trait Director {
    /// Which of the first `ready` greenlets of the run queue, at least one, is the next to run.
    fn choose(&self, ready: usize) -> usize;

    /// The greenlet with this number is about to be resumed, or to begin.
    fn resumes(&self, id: u64) -> Option<Cut>;

    /// It has suspended, and for what.
    fn suspended(&self, id: u64, waits_on: String) -> Option<Cut>;
}

/// How a greenlet is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is killed.
    Kill,
    /// The outermost `timeout` that it is inside of elapses.
    Elapse,
}

impl Hub {
    /// As `resume_batch`, for a test that directs the run.
    #[cold]
    pub(super) fn resume_directed(&self) {
        let Some(director) = &self.director else { return };
        for _ in 0..BATCH {
            let ready = self.ready.len_up_to(CHOICE_MAX);
            if ready == 0 {
                break;
            }
            let ctl = self.ready.take(director.choose(ready));
            let id = ctl.id();
            self.cut(ctl, director.resumes(id));
            self.beats.beat();
            self.resume(ctl);
            // A callback greenlet has another number with each call.
            if ctl.state.get() != State::Free && ctl.id() == id {
                self.cut(ctl, director.suspended(id, self.say_waits_on(ctl)));
            }
        }
    }

    fn cut(&self, ctl: Ctl, cut: Option<Cut>) {
        match cut {
            None => {}
            Some(Cut::Kill) => self.kill(ctl),
            Some(Cut::Elapse) => self.elapse(ctl),
        }
    }
}
