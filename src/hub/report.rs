//! Reports: which greenlets are parked, on what, since when, and where they came from.
//!
//! Floor 4. Uses: `control`. Used by: `run`, when main would wait for ever or a shutdown hangs.

use std::{fmt, panic::Location, time::Duration};

use super::{
    Hub,
    control::{Birth, Ctl, Kill, Role, State},
    park::WaitOn,
};

/// One greenlet that is alive.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Parked {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: Option<String>,
    /// What it waits for.
    pub waits_on: String,
    /// For how long it has been.
    pub since: Duration,
    /// Where it was spawned.
    pub birth: &'static Location<'static>,
    /// Whether it was asked to end.
    pub killed: bool,
}

/// The greenlets that were alive when the report was made. Its `Display` is one line each.
#[derive(Debug, Clone)]
pub struct Report {
    parked: Vec<Parked>,
}

impl Report {
    /// The greenlets, main first, then in the order in which they were spawned.
    pub fn parked(&self) -> &[Parked] {
        &self.parked
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, parked) in self.parked.iter().enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            write!(f, "  {parked}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "greenlet #{}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " '{name}'")?;
        }
        let killed = if self.killed { " (killed)" } else { "" };
        write!(
            f,
            "{killed} waits for {} since {:.3} s, spawned at {}",
            self.waits_on,
            self.since.as_secs_f64(),
            self.birth
        )
    }
}

impl Hub {
    fn say_waits_on(&self, ctl: Ctl) -> String {
        match ctl.waits_on.get() {
            WaitOn::Join(slot) => match self.at(slot) {
                Some(other) => format!("the end of greenlet #{}", other.id()),
                None => "the end of a greenlet".to_owned(),
            },
            other => other.to_string(),
        }
    }

    /// Every greenlet but the idle ones of our own.
    pub(super) fn report(&self) -> Report {
        let now = self.reactor.fresh_now();
        let mut all = self.all();
        all.retain(|ctl| ctl.waits_on.get() != WaitOn::Idle);
        all.sort_by_key(|ctl| (ctl.birth().role != Role::Main, ctl.id()));
        let parked = all.iter().map(|ctl| {
            let Birth { id, name, place, .. } = ctl.birth();
            let parked = ctl.state.get() == State::Parked;
            Parked {
                id,
                name: name.map(str::to_owned),
                waits_on: match ctl.state.get() {
                    State::Parked => self.say_waits_on(*ctl),
                    State::Delayed => "its delayed start".to_owned(),
                    _ => "nothing (ready to run)".to_owned(),
                },
                since: if parked { now.duration_since(ctl.since.get()) } else { Duration::ZERO },
                birth: place,
                killed: ctl.kill.get() != Kill::None,
            }
        });
        Report { parked: parked.collect() }
    }
}
