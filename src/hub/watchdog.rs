//! The watchdog: a thread that says which greenlet does not let go of its own.
//!
//! Floor 4. Uses: `pulse`, `alarm`. Used by: `run`, by `Reactor::set_watchdog`; `dump`, whose
//! requests by signal it serves.
//!
//! It looks at the pulse of each hub a few times within the limit. A hub that sleeps in its poller
//! says so in its inbox, as it does for whoever might have to wake it. One that has neither slept
//! nor resumed anybody for as long as the limit is stuck, if its thread has used the processor or
//! waits for something: one that only was not given the processor is not.
//!
//! Time in which the watchdog itself did not run, because the process was stopped or the machine
//! was asleep or overloaded, counts for nobody. There is one report for each stall.
//!
//! # Source
//!
//! gevent `_monitor.py`; Chromium's and Node's event-loop watchdogs.

use std::{
    fs, io,
    sync::{Arc, PoisonError, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Pid,
};

use super::{
    alarm::{self, Culprit},
    dump,
    pulse::{Entry, Pulse, Registry},
    report::frames_of,
};

/// The limit of a debug build. One of gevent's, 0.1 s, would hit code that is slow because it is
/// not optimised, and what std does once to read debug information.
const LIMIT_DEFAULT: Duration = Duration::from_secs(1);

/// How often the watchdog looks within the limit.
const LOOKS: u32 = 4;

/// The limit of a run that sets none.
pub(super) fn default_limit() -> Option<Duration> {
    cfg!(debug_assertions).then_some(LIMIT_DEFAULT)
}

/// Starts the watchdog's thread if this process has none, and has it look.
///
/// # Errors
///
/// No thread could be started.
pub(super) fn wake() -> io::Result<()> {
    let registry = Registry::get();
    let mut watched = registry.watched.lock().unwrap_or_else(PoisonError::into_inner);
    if !*watched {
        let thread = std::thread::Builder::new().name("greenloop watch".to_owned());
        thread.spawn(move || watch(registry))?;
        *watched = true;
    }
    registry.ring();
    Ok(())
}

/// A hub that has not got on since it was looked at first.
struct Suspect {
    pulse: Weak<Pulse>,
    resumes: u64,
    stuck: Duration,
    /// What its thread had used of the processor.
    cpu: Option<Duration>,
    told: bool,
}

fn watch(registry: &'static Registry) {
    let mut suspects: Vec<Suspect> = Vec::new();
    let mut answered = 0;
    loop {
        let limits = registry
            .with_pulses(|pulses| pulses.iter().filter_map(|entry| entry.pulse.limit()).min());
        let tick = limits.map(|limit| (limit / LOOKS).max(Duration::from_millis(1)));
        let begun = Instant::now();
        sleep(registry, tick);
        // What is more is time in which nobody may have run: the process was stopped, say.
        let passed = begun.elapsed().min(tick.unwrap_or_default());
        registry.with_pulses(|pulses| look(pulses, &mut suspects, passed));
        for suspect in &mut suspects {
            if let Some(pulse) = suspect.pulse.upgrade() {
                suspect.judge(&pulse, registry);
            }
        }
        let asked = registry.asked.load(Ordering::Relaxed);
        if asked != answered {
            answered = asked;
            dump::print_all(registry);
        }
    }
}

/// Sleeps for as long, or until the bell rings.
fn sleep(registry: &Registry, tick: Option<Duration>) {
    let timeout = tick.and_then(|tick| Timespec::try_from(tick).ok());
    let Some(bell) = registry.bell() else {
        return std::thread::sleep(tick.unwrap_or(LIMIT_DEFAULT));
    };
    let mut fds = [PollFd::new(bell, PollFlags::IN)];
    let _ = poll(&mut fds, timeout.as_ref());
    let _ = rustix::io::read(bell, &mut [0; 8]);
}

/// Takes down who has got on since the last look, and who has not.
fn look(pulses: &[Entry], suspects: &mut Vec<Suspect>, passed: Duration) {
    let mut before = std::mem::take(suspects);
    for entry in pulses {
        let (pulse, resumes) = (&entry.pulse, entry.resumes());
        if pulse.limit().is_none() || pulse.inbox.is_asleep() {
            continue;
        }
        let is_it = |suspect: &Suspect| suspect.pulse.as_ptr() == Arc::as_ptr(pulse);
        let known = before.iter().position(|s| is_it(s) && s.resumes == resumes);
        let mut suspect = match known {
            Some(place) => before.swap_remove(place),
            None => Suspect {
                pulse: Arc::downgrade(pulse),
                resumes,
                stuck: Duration::ZERO,
                cpu: cpu_of(pulse.tid),
                told: false,
            },
        };
        if known.is_some() {
            suspect.stuck += passed;
        }
        suspects.push(suspect);
    }
}

impl Suspect {
    /// Reports it, once, if it is stuck.
    fn judge(&mut self, pulse: &Pulse, registry: &Registry) {
        let Some(limit) = pulse.limit().filter(|limit| self.stuck >= *limit) else { return };
        if self.told || is_traced() {
            return;
        }
        let waits = is_waiting(pulse.tid);
        let used = match (self.cpu, cpu_of(pulse.tid)) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            // Nobody knows: it passes for used.
            _ => limit,
        };
        if waits != Some(true) && used < limit / 2 {
            return; // It was not given the processor.
        }
        self.told = true;
        let culprit = alarm::question(pulse.tid);
        let is_same = |entry: &Entry| {
            std::ptr::eq(Arc::as_ptr(&entry.pulse), pulse) && entry.resumes() == self.resumes
        };
        if registry.with_pulses(|pulses| pulses.iter().any(is_same)) {
            #[cfg(feature = "tracing")]
            {
                let greenlet = culprit.as_ref().and_then(|culprit| culprit.greenlet.as_ref());
                let id = greenlet.map(|(id, ..)| *id);
                crate::trace::stuck(id, &pulse.thread_name(), self.stuck);
            }
            crate::report::say(&accusation(pulse, self.stuck, waits, culprit));
        }
    }
}

/// The text of a report.
pub(super) fn accusation(
    pulse: &Pulse,
    stuck: Duration,
    waits: Option<bool>,
    culprit: Option<Culprit>,
) -> String {
    let is_guest = culprit.as_ref().is_some_and(|culprit| culprit.is_guest);
    let who = match &culprit {
        Some(Culprit { greenlet: Some((id, name, birth)), .. }) => {
            let name = if name.is_empty() { String::new() } else { format!(" '{name}'") };
            let birth = birth.map_or(String::new(), |birth| format!(" (spawned at {birth})"));
            let kind = if is_guest { "virtual thread" } else { "greenlet" };
            format!("{kind} #{id}{name}{birth}")
        }
        Some(_) => "the hub itself (a Waker that it calls, or a Drop that it runs)".to_owned(),
        None => "a greenlet".to_owned(),
    };
    let hint = match waits {
        Some(true) if is_guest => {
            "It blocks the thread, in a call that does not give way (the first of the frames below \
             that is not ours): greenloop::interpose!() in the program's main file makes calls of \
             the C library do so, interpose::status() says for which libraries, and what it cannot \
             reach belongs on an OS thread."
        }
        Some(true) => {
            "It blocks the thread: greenloop::net and greenloop::sync have what parks instead, \
             wait_readable waits for any descriptor, and what can only block belongs on a virtual \
             thread (greenloop::thread::run)."
        }
        _ => {
            "It computes: call yield_if_due in its loops, or do it on a thread of its own and send \
             the result by a channel of greenloop::sync."
        }
    };
    let mut text = format!(
        "greenloop: {who} has not let go of {} for {:.1} s, and nobody else runs there. {hint}",
        pulse.thread_name(),
        stuck.as_secs_f64()
    );
    let frames = culprit.and_then(|culprit| culprit.backtrace).map(|it| frames_of(&it));
    for frame in frames.into_iter().flatten() {
        text += "\n    ";
        text += &frame;
    }
    text
}

/// Whether a thread waits in the kernel; see proc_pid_stat(5).
pub(super) fn is_waiting(tid: Pid) -> Option<bool> {
    let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    Some(state != 'R')
}

/// What a thread has used of the processor; see the kernel's sched-stats.
fn cpu_of(tid: Pid) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// Whether somebody traces this process: a debugger stops threads one by one.
fn is_traced() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|pid| pid.trim() != "0")
}
