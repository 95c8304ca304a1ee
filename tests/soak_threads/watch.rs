//! Who looks that all get on: if nobody has made a step for long, somebody was not woken.

use std::{
    backtrace::Backtrace,
    panic, process,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crate::stage::SCENES;

/// How long nobody may make a step. No wait in a scene is longer than a part of a second.
const PATIENCE_SECONDS: u32 = 20;

/// The seed of the round.
pub(crate) static SEED: AtomicU64 = AtomicU64::new(0);

static STEPS: AtomicU64 = AtomicU64::new(0);

/// How many parties of each scene have not ended.
static PLAYING: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// A party gets on.
pub(crate) fn step() {
    STEPS.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn steps() -> u64 {
    STEPS.load(Ordering::Relaxed)
}

/// A party of this scene is there, until this is dropped.
pub(crate) struct Playing(usize);

impl Playing {
    pub(crate) fn new(scene: usize) -> Playing {
        PLAYING[scene].fetch_add(1, Ordering::Relaxed);
        Playing(scene)
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        step();
        PLAYING[self.0].fetch_sub(1, Ordering::Relaxed);
    }
}

/// From now on nobody stands still for long, and a panic anywhere ends the process: whoever waits
/// for the one who panicked would hide it.
pub(crate) fn begin() {
    panic::set_hook(Box::new(|info| {
        eprintln!("{info}\n{}", Backtrace::force_capture());
        fail("it has panicked");
    }));
    greenloop::dump_on_sigquit().expect("there is a thread for it");
    let watch = || {
        let (mut seen, mut seconds) = (steps(), 0);
        loop {
            thread::sleep(Duration::from_secs(1));
            let now = steps();
            seconds = if now == seen { seconds + 1 } else { 0 };
            seen = now;
            if seconds == PATIENCE_SECONDS {
                // SAFETY: its handler writes a dump.
                unsafe { libc::raise(libc::SIGQUIT) };
                thread::sleep(Duration::from_secs(5));
                fail("nobody gets on");
            }
        }
    };
    thread::Builder::new().name("watch".into()).spawn(watch).expect("there is a thread for it");
}

fn fail(how: &str) -> ! {
    for ((name, _), playing) in SCENES.iter().zip(&PLAYING) {
        let count = playing.load(Ordering::Relaxed);
        if count > 0 {
            eprintln!("still playing in `{name}`: {count}");
        }
    }
    let seed = SEED.load(Ordering::Relaxed);
    eprintln!("{how}; `tests/soak.sh 0 {seed}` repeats the round");
    process::abort();
}
