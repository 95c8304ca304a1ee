//! Reports: which greenlets are alive, what they do, since when, who spawned them, and where.
//!
//! Floor 4. Uses: `control`. Used by: `dump`, when somebody asks; `run`, when main would wait for
//! ever or a shutdown hangs.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    collections::{HashMap, HashSet},
    fmt,
    panic::Location,
    sync::Arc,
    time::Duration,
};

use super::{
    Hub,
    control::{Birth, Ctl, Kill, Role, State},
    park::WaitOn,
};

/// What a greenlet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GreenletState {
    /// It is to be started by a timer ([`spawn_later`](crate::spawn_later)).
    Delayed,
    /// It has not run yet.
    New,
    /// It will go on when its turn comes.
    Ready,
    /// It is the one that runs.
    Running,
    /// It waits.
    Parked,
}

/// One greenlet that is alive.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Parked {
    /// Its number.
    pub id: u64,
    /// Whether it is a [virtual thread](crate::thread).
    pub is_virtual_thread: bool,
    /// Its name.
    pub name: Option<String>,
    /// The number of the greenlet that spawned it, which may have ended. `None` for main, and for
    /// those that run what the reactor calls.
    pub parent: Option<u64>,
    /// What it does.
    pub state: GreenletState,
    /// What it waits for, if it is parked.
    pub waits_on: String,
    /// For how long it has been; zero if it is not parked.
    pub since: Duration,
    /// Where it was spawned.
    pub birth: &'static Location<'static>,
    /// Whether it was asked to end.
    pub killed: bool,
    /// Taken by itself, not resolved yet.
    backtrace: Option<Arc<Backtrace>>,
}

/// The greenlets that were alive when the report was made.
///
/// Its `Display` is a tree: one line each, below and to the right of its spawner's. With `{:#}`,
/// each line is followed by the greenlet's backtrace, if the report has one.
#[derive(Debug, Clone)]
pub struct Report {
    pub(super) thread: Option<String>,
    pub(super) parked: Vec<Parked>,
}

impl Report {
    /// The greenlets, main first, then in the order in which they were spawned.
    pub fn parked(&self) -> &[Parked] {
        &self.parked
    }

    /// The name of the thread on which they are.
    pub fn thread(&self) -> Option<&str> {
        self.thread.as_deref()
    }

    /// The greenlets as lines of the tree: each with its depth.
    fn tree(&self) -> Vec<(usize, &Parked)> {
        let ids: HashSet<u64> = self.parked.iter().map(|one| one.id).collect();
        let parent_of = |one: &Parked| one.parent.filter(|parent| ids.contains(parent));
        let mut below: HashMap<u64, Vec<&Parked>> = HashMap::new();
        for one in self.parked.iter().rev() {
            if let Some(parent) = parent_of(one) {
                below.entry(parent).or_default().push(one);
            }
        }
        // A stack of what is still to be listed: a chain of spawns may be long.
        let roots = self.parked.iter().rev().filter(|one| parent_of(one).is_none());
        let mut todo: Vec<_> = roots.map(|one| (0, one)).collect();
        let mut lines = Vec::with_capacity(self.parked.len());
        while let Some((depth, one)) = todo.pop() {
            lines.push((depth, one));
            let children = below.remove(&one.id).unwrap_or_default();
            todo.extend(children.into_iter().map(|child| (depth + 1, child)));
        }
        lines
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (depth, parked)) in self.tree().into_iter().enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            let indent = 2 + 2 * depth.min(DEPTH_SHOWN_MAX);
            write!(f, "{:indent$}{parked}", "")?;
            if f.alternate() {
                for frame in parked.backtrace() {
                    write!(f, "\n{:indent$}    {frame}", "")?;
                }
            }
        }
        Ok(())
    }
}

/// How far lines are indented at most, in levels: a chain of a thousand spawns stays readable.
const DEPTH_SHOWN_MAX: usize = 20;

impl fmt::Display for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_virtual_thread { "virtual thread" } else { "greenlet" };
        write!(f, "{kind} #{}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " '{name}'")?;
        }
        f.write_str(if self.killed { " (killed)" } else { "" })?;
        let since = self.since.as_secs_f64();
        match self.state {
            GreenletState::Running => f.write_str(" runs")?,
            GreenletState::Ready => f.write_str(" is ready to run")?,
            GreenletState::New => f.write_str(" is ready to run for the first time")?,
            GreenletState::Delayed => f.write_str(" waits for its delayed start")?,
            GreenletState::Parked => write!(f, " waits for {} since {since:.3} s", self.waits_on)?,
        }
        write!(f, ", spawned at {}", self.birth)
    }
}

impl Parked {
    /// Where it is parked: its frames, innermost first, each as `function at file:line:column`, as
    /// far as the binary's debug information says.
    ///
    /// Shape: empty when the report was made without backtraces, and for a greenlet that has not
    /// begun or is about to go on. Resolving names takes time, the first time up to a second.
    #[must_use]
    pub fn backtrace(&self) -> Vec<String> {
        self.backtrace.as_deref().map_or_else(Vec::new, frames_of)
    }
}

/// Frames that only say how a backtrace was taken: they, and those above them, are left out.
const TAKING: [&str; 5] = [
    "std::backtrace",
    "greenloop::hub::park::pose",
    "greenloop::hub::report::",
    "greenloop::hub::dump::",
    "greenloop::coro::snapshot::",
];

/// Frames at which the greenlet's own end: below is who called and who resumed it.
const ROOTS: [&str; 7] = [
    "greenloop::hub::guest::Host::host",
    "greenloop::hub::spawn::run_body",
    "greenloop::hub::spawn::run_call",
    "greenloop::hub::run::try_run_on",
    "greenloop::hub::control::Ctl::begin",
    "corosensei::",
    "stack_init_trampoline",
];

/// The frames of a greenlet in a backtrace that was taken on its stack.
pub(super) fn frames_of(backtrace: &Backtrace) -> Vec<String> {
    let mut frames: Vec<String> = Vec::new();
    for line in backtrace.to_string().lines() {
        let line = line.trim_start();
        if line.starts_with("at ") {
            // The second line of a frame.
            if let Some(frame) = frames.last_mut() {
                *frame = format!("{frame} {line}");
            }
        } else {
            // Inlined frames have no number.
            let name = line.split_once(": ").filter(|(n, _)| n.bytes().all(|b| b.is_ascii_digit()));
            frames.push(name.map_or(line, |(_, name)| name).to_owned());
        }
    }
    let has = |frame: &String, any: &[&str]| any.iter().any(|part| frame.contains(part));
    if let Some(root) = frames.iter().position(|frame| has(frame, &ROOTS)) {
        frames.truncate(root);
    }
    if let Some(last) = frames.iter().rposition(|frame| has(frame, &TAKING)) {
        frames.drain(..=last);
    }
    frames
}

/// Whether a report has the backtraces of the greenlets that are parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backtraces {
    /// As the environment asks for them, by std's variables: `RUST_BACKTRACE`.
    AsAsked,
    /// Yes.
    Taken,
}

impl Backtraces {
    fn are_wanted(self) -> bool {
        match self {
            Backtraces::Taken => true,
            Backtraces::AsAsked => Backtrace::capture().status() == BacktraceStatus::Captured,
        }
    }
}

impl Hub {
    pub(super) fn say_waits_on(&self, ctl: Ctl) -> String {
        match ctl.waits_on.get() {
            WaitOn::Join(slot) => match self.at(slot) {
                Some(other) => format!("the end of greenlet #{}", other.id()),
                None => "the end of a greenlet".to_owned(),
            },
            other => other.to_string(),
        }
    }

    /// Every greenlet but the idle ones of our own.
    pub(super) fn report(&self, backtraces: Backtraces) -> Report {
        let now = self.reactor.fresh_now();
        let wanted = backtraces.are_wanted();
        let mut all = self.all();
        all.retain(|ctl| ctl.waits_on.get() != WaitOn::Idle);
        all.sort_by_key(|ctl| (ctl.birth().role != Role::Main, ctl.id()));
        // While one takes its backtrace others may come to their end (`Hub::peek`).
        let alive = all.iter().filter(|ctl| self.at(ctl.slot) == Some(**ctl));
        let parked = alive.map(|ctl| {
            let Birth { id, name, place, .. } = ctl.birth();
            let (state, waits_on) = match ctl.state.get() {
                State::Parked => (GreenletState::Parked, self.say_waits_on(*ctl)),
                State::Delayed => (GreenletState::Delayed, "its delayed start".to_owned()),
                State::New => (GreenletState::New, "nothing (ready to run)".to_owned()),
                State::Running => (GreenletState::Running, "nothing (it runs)".to_owned()),
                _ => (GreenletState::Ready, "nothing (ready to run)".to_owned()),
            };
            let is_parked = state == GreenletState::Parked;
            Parked {
                id,
                is_virtual_thread: ctl.is_guest(),
                name: name.map(str::to_owned),
                parent: Some(ctl.parent()).filter(|parent| *parent != 0),
                state,
                waits_on,
                since: if is_parked { now.duration_since(ctl.since.get()) } else { Duration::ZERO },
                birth: place,
                killed: ctl.kill.get() != Kill::None,
                backtrace: if wanted { self.backtrace_of(*ctl).map(Arc::new) } else { None },
            }
        });
        let parked = parked.collect();
        Report { thread: std::thread::current().name().map(str::to_owned), parked }
    }

    fn backtrace_of(&self, ctl: Ctl) -> Option<Backtrace> {
        match self.current.get() {
            Some(current) if current == ctl => Some(Backtrace::force_capture()),
            _ => self.peek(ctl),
        }
    }
}
