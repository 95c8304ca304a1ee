//! Retries with back-off and a time limit, in virtual time: an hour passes in about a millisecond.
//!
//! Run:    `cargo run --example retry_with_timeout`    (it ends by itself)
//! Poke:   change `LIMIT`; with `greenloop::run` in place of `testing::run` it takes its hour
//! Prints:
//!
//! ```text
//!      5 s  attempt 1: the time limit has elapsed; again in 10 s
//!     20 s  attempt 2: the time limit has elapsed; again in 20 s
//! …
//!   2592 s  attempt 9: the answer is 42
//!   3600 s  an hour is over
//! ```

use std::time::Duration;

use greenloop::{Deadline, Elapsed, reactor, sleep, testing, timeout};

const LIMIT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);

fn main() -> Result<(), Elapsed> {
    testing::run(|| run(|line| println!("{line}")))
}

/// Asks a server that is slow at first, and gives up after an hour.
pub(crate) fn run(print: impl Fn(String)) -> Result<(), Elapsed> {
    let elapsed = || reactor().now().duration_since(Deadline::ZERO);
    let say = |what: &str| print(format!("{:>6} s  {what}", elapsed().as_secs()));
    let server = |attempt| ask(if attempt < 9 { 2 * LIMIT } else { LIMIT / 2 });
    let answer = timeout(HOUR, || retry(say, server))?;
    assert_eq!(answer, 42);
    sleep(HOUR - elapsed());
    say("an hour is over");
    Ok(())
}

/// Asks again and again: each time for at most `LIMIT`, each time after twice as long a pause.
fn retry(say: impl Fn(&str), ask: impl Fn(u32) -> u32) -> u32 {
    let (mut attempt, mut pause) = (1, Duration::from_secs(10));
    loop {
        match timeout(LIMIT, || ask(attempt)) {
            Ok(answer) => {
                say(&format!("attempt {attempt}: the answer is {answer}"));
                return answer;
            }
            Err(late) => say(&format!("attempt {attempt}: {late}; again in {} s", pause.as_secs())),
        }
        sleep(pause);
        (attempt, pause) = (attempt + 1, pause * 2);
    }
}

/// Stands for a request over the network.
fn ask(delay: Duration) -> u32 {
    sleep(delay);
    42
}
