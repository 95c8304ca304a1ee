//! Many threads at once, on one OS thread, in the time of one.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::threads;

/// Runs `work(0)`, `work(1)`, … on a thread each, all at once, and returns what they return.
///
/// `each_takes` is how long each of them waits, at least. That all wait at the same time is seen
/// from the whole's time: no less than one's, and less than a sixth of the sum. That they do so on
/// one OS thread is seen from `/proc`, by each of them when it ends.
///
/// # Panics
/// If one of them does, and if they did not overlap.
pub fn overlap<T: Send + 'static>(
    count: usize,
    each_takes: Duration,
    work: impl Fn(usize) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let work = Arc::new(work);
    let (before, here) = (OsThreads::now(), os_thread());
    let begun = Instant::now();
    let start = |index| {
        let work = Arc::clone(&work);
        // On OS threads there is nothing to prove, and each would look at all others.
        let look = || threads::are_virtual().then(|| (OsThreads::now(), os_thread()));
        threads::spawn(move || (work(index), look()))
    };
    let all: Vec<_> = (0..count).map(start).collect();
    let ended: Vec<_> = all.into_iter().map(|thread| thread.join()).collect();
    let took = begun.elapsed();

    let mut answers = Vec::new();
    for (index, ended) in ended.into_iter().enumerate() {
        let Ok((answer, seen)) = ended else { panic!("number {index} panicked") };
        answers.push(answer);
        if let Some((during, there)) = seen {
            assert_eq!(there, here, "number {index} ran on another OS thread");
            let new = during.since(&before);
            assert!(new.is_empty(), "OS threads that number {index} has seen: {new}");
        }
    }
    let sum = each_takes * u32::try_from(count).unwrap();
    assert!(took >= each_takes, "{count} took {took:?}, less than the {each_takes:?} of each");
    assert!(took < sum / 6, "{count} of {each_takes:?} took {took:?}: they did not overlap");
    println!("    {count} times {each_takes:?} within {} ms", took.as_millis());
    answers
}

/// Where the kernel runs the caller: `<process>/task/<thread>`. glibc's idea of a thread's number
/// is not asked.
fn os_thread() -> PathBuf {
    fs::read_link("/proc/thread-self").unwrap()
}

/// The OS threads of this process, by number, with their names.
#[derive(Debug, PartialEq, Eq)]
pub struct OsThreads(BTreeMap<String, String>);

impl OsThreads {
    /// Those that there are now, but for greenloop's own in the background.
    pub fn now() -> Self {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir("/proc/self/task").unwrap() {
            let entry = entry.unwrap();
            // One that has just ended is none.
            let Ok(name) = fs::read_to_string(entry.path().join("comm")) else { continue };
            if !name.starts_with("greenloop") {
                found.insert(entry.file_name().into_string().unwrap(), name.trim_end().to_owned());
            }
        }
        OsThreads(found)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that were not there before. One of greenloop's own that was seen before it had taken
    /// its name has it by now; they stay for seconds.
    fn since(self, before: &OsThreads) -> Self {
        let is_ours = |id: &str| {
            let name = fs::read_to_string(format!("/proc/self/task/{id}/comm"));
            name.is_ok_and(|name| name.starts_with("greenloop"))
        };
        let new = |id: &str| !before.0.contains_key(id) && !is_ours(id);
        OsThreads(self.0.into_iter().filter(|(id, _)| new(id)).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for OsThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some: Vec<_> =
            self.0.iter().take(5).map(|(id, name)| format!("{name} ({id})")).collect();
        write!(f, "{}: {}", self.0.len(), some.join(", "))?;
        if self.0.len() > some.len() { write!(f, ", …") } else { Ok(()) }
    }
}
