//! Dumps: a report of a hub's greenlets with their backtraces, on request, also from outside.
//!
//! Floor 4. Uses: `report`, `calls`. Used by: users.
//!
//! A parked greenlet takes its backtrace itself, on its own stack: it is resumed for just that and
//! stays parked (`Hub::peek`). So nobody has to walk foreign stacks, and a greenlet pays for it
//! only when it is asked. Another thread asks through the hub's inbox: a hub that does not come
//! round to reading it cannot answer.
//!
//! # Source
//!
//! gevent `util.format_run_info`, `print_run_info`; Go's SIGQUIT, Java's `jstack`.

use std::{
    fmt::{self, Write},
    io,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use super::{
    Hub, Message, Parked, ReactorHandle, Report, Stopped, alarm, park::CannotPark, pulse::Registry,
    report::Backtraces, watchdog,
};
use crate::{reactor::Inbox, report::say};

/// Reports every greenlet of this thread, with the backtraces of those that are parked, and of the
/// caller.
///
/// Shape: nobody runs meanwhile, and nothing changes: what is parked stays parked. Each backtrace
/// costs a few microseconds, and a page or two of the greenlet's stack; names are resolved when the
/// report is shown.
///
/// # Panics
///
/// Outside [`run`](crate::run).
///
/// # Cancellation
///
/// Cancellation point: never.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// greenloop::run(|| {
///     let sleeper = greenloop::Builder::new().name("sleeper");
///     sleeper.spawn(|| greenloop::sleep(Duration::from_secs(3600))).unwrap();
///     greenloop::yield_now();
///     println!("{:#}", greenloop::dump());
/// });
/// ```
///
/// prints (`{}` in place of `{:#}` leaves the backtraces out):
///
/// ```text
///   greenlet #1 'main' runs, spawned at src/main.rs:3:5
///       server::main::{{closure}} at src/main.rs:7:24
///     greenlet #2 'sleeper' waits for a timer (sleep) since 0.000 s, spawned at src/main.rs:5:17
///         greenloop::hub::park::Wait::park at src/hub/park.rs:291:17
///         greenloop::hub::timeout::sleep at src/hub/timeout.rs:128:18
///         server::main::{{closure}}::{{closure}} at src/main.rs:5:26
/// ```
///
/// # Source
///
/// gevent `util.print_run_info`.
#[track_caller]
pub fn dump() -> Report {
    match Hub::current() {
        Some(hub) => hub.report(Backtraces::Taken),
        None => panic!("greenloop::dump: {}", CannotPark::no_hub()),
    }
}

impl ReactorHandle {
    /// Reports every greenlet of the reactor, as [`dump`], from any thread.
    ///
    /// Shape: blocks the calling *thread* until the reactor has answered. The reactor does so when
    /// its greenlets next let go; none of them is stopped for it. A greenlet of another reactor,
    /// whose thread must not block, has [`call_from_thread`](Self::call_from_thread) to send a
    /// [`dump`] to it.
    /// Units: `limit` is real time.
    ///
    /// # Errors
    ///
    /// `TimedOut` when the reactor has not answered within `limit`: a greenlet has not let go.
    /// `NotConnected` (and [`Stopped`] in it) when its run has ended.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    pub fn dump(&self, limit: Duration) -> io::Result<Report> {
        ask(&self.inbox, limit, |hub| hub.report(Backtraces::Taken))
    }
}

/// Has a hub answer a question.
pub(super) fn ask<T: Send + 'static>(
    inbox: &Arc<Inbox<Message>>,
    limit: Duration,
    question: fn(&Hub) -> T,
) -> io::Result<T> {
    if let Some(hub) = Hub::current().filter(|hub| Arc::ptr_eq(hub.inbox(), inbox)) {
        return Ok(question(hub));
    }
    let (answer, answered) = mpsc::channel();
    let ask = Message::Ask(Box::new(move |hub| {
        // Whoever has asked may have given up.
        let _ = answer.send(question(hub));
    }));
    let stopped = || io::Error::new(io::ErrorKind::NotConnected, Stopped(()));
    inbox.push(ask).map_err(|_| stopped())?;
    answered.recv_timeout(limit).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => io::Error::new(
            io::ErrorKind::TimedOut,
            "the reactor does not answer: one of its greenlets has not let go",
        ),
        mpsc::RecvTimeoutError::Disconnected => stopped(),
    })
}

/// How long a hub may take to answer a signal's dump.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// From now on, SIGQUIT (Ctrl-\\ in a terminal) writes a [`dump`] of every reactor of the process
/// to standard error, instead of ending it. A handler that was there before is called, too.
///
/// Shape: a thread of its own asks the reactors; the signal's handler only wakes it. Of one that
/// does not answer, because a greenlet keeps its thread, it says who that is and where (as far as
/// [`set_watchdog`](crate::Reactor::set_watchdog) can). May be called more than once; there is no
/// way back.
///
/// # Errors
///
/// No thread could be started.
///
/// # Cancellation
///
/// Cancellation point: never.
///
/// # Examples
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// greenloop::dump_on_sigquit()?;
/// greenloop::run(|| { /* kill -QUIT shows what this does */ });
/// # Ok(())
/// # }
/// ```
///
/// # Source
///
/// Go and Java, which dump at SIGQUIT; signal-safety(7).
pub fn dump_on_sigquit() -> io::Result<()> {
    watchdog::wake()?;
    alarm::take_sigquit();
    Ok(())
}

/// Writes a dump of every hub of the process.
pub(super) fn print_all(registry: &Registry) {
    let pulses = registry.with_pulses(|pulses| {
        pulses.iter().map(|entry| Arc::clone(&entry.pulse)).collect::<Vec<_>>()
    });
    for pulse in &pulses {
        let thread = pulse.thread_name();
        let begun = Instant::now();
        match ask(&pulse.inbox, ANSWER_LIMIT, |hub| hub.report(Backtraces::Taken)) {
            Ok(report) => say(&format!("greenloop: the greenlets of {thread}:\n{report:#}")),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {} // It has just ended.
            Err(_) => {
                let culprit = alarm::question(pulse.tid);
                let waits = watchdog::is_waiting(pulse.tid);
                say(&watchdog::accusation(pulse, begun.elapsed(), waits, culprit));
            }
        }
    }
    if pulses.is_empty() {
        say("greenloop: no reactor runs in this process");
    }
}

impl Report {
    /// The report as one JSON object.
    ///
    /// Shape: `{"thread":…,"greenlets":[…]}`, the greenlets as in [`parked`](Self::parked), each
    /// with the keys `id`, `name`, `parent`, `state`, `waits_on`, `since_ns`, `birth`, `killed` and
    /// `backtrace`. What is not known is `null`; a backtrace is an array of strings, one a frame.
    ///
    /// # Examples
    ///
    /// ```
    /// let json = greenloop::run(|| greenloop::dump().to_json());
    /// assert!(json.contains(r#""id":1,"name":"main","parent":null,"state":"running""#), "{json}");
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        // Writing into a string does not fail.
        let _ = write_report(&mut json, self);
        json
    }
}

fn write_report(json: &mut String, report: &Report) -> fmt::Result {
    json.write_str("{\"thread\":")?;
    write_text(json, report.thread())?;
    json.write_str(",\"greenlets\":[")?;
    for (place, parked) in report.parked().iter().enumerate() {
        json.write_str(if place > 0 { "," } else { "" })?;
        write_parked(json, parked)?;
    }
    json.write_str("]}")
}

fn write_parked(json: &mut String, parked: &Parked) -> fmt::Result {
    write!(json, "{{\"id\":{},\"name\":", parked.id)?;
    write_text(json, parked.name.as_deref())?;
    match parked.parent {
        Some(parent) => write!(json, ",\"parent\":{parent}")?,
        None => json.write_str(",\"parent\":null")?,
    }
    let state = format!("{:?}", parked.state).to_lowercase();
    write!(json, ",\"state\":\"{state}\",\"waits_on\":")?;
    write_text(json, Some(&parked.waits_on))?;
    write!(json, ",\"since_ns\":{},\"birth\":", parked.since.as_nanos())?;
    write_text(json, Some(&parked.birth.to_string()))?;
    write!(json, ",\"killed\":{},\"backtrace\":[", parked.killed)?;
    for (place, frame) in parked.backtrace().iter().enumerate() {
        json.write_str(if place > 0 { "," } else { "" })?;
        write_text(json, Some(frame))?;
    }
    json.write_str("]}")
}

/// A string of JSON, or `null`.
fn write_text(json: &mut String, text: Option<&str>) -> fmt::Result {
    let Some(text) = text else { return json.write_str("null") };
    json.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(json, "\\{c}")?,
            c if c < ' ' => write!(json, "\\u{:04x}", u32::from(c))?,
            c => json.write_char(c)?,
        }
    }
    json.write_char('"')
}
