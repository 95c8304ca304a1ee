//! The pool with questions that block until they are told: what a slow name server does.

use std::{
    cell::Cell,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use super::{
    Answer, ask,
    pool::{Pool, THREADS_MAX},
};
use crate::{run, spawn, timeout, try_run, yield_now};

/// A pool of a test's own.
fn pool() -> &'static Pool {
    Box::leak(Box::new(Pool::new()))
}

fn answer(port: u16) -> Answer {
    Ok(vec![([127, 0, 0, 1], port).into()])
}

/// Several dozen slow lookups must not become several dozen threads, nor lose one of them.
#[test]
fn more_questions_than_threads_are_all_answered() {
    let pool = pool();
    let (ended, count) = (Arc::new(AtomicUsize::new(0)), 5 * THREADS_MAX);
    let (go, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    run(|| {
        let askers: Vec<_> = (0..count)
            .map(|port| {
                let (ended, wait) = (Arc::clone(&ended), Arc::clone(&wait));
                spawn(move || {
                    ask(pool, move || {
                        // Blocks until the sender is dropped.
                        let _ = wait.lock().unwrap().recv();
                        ended.fetch_add(1, Ordering::SeqCst);
                        answer(port as u16)
                    })
                })
            })
            .collect();
        yield_now();
        let (threads, queued) = pool.counts();
        assert_eq!(threads, THREADS_MAX);
        assert!(queued >= count - THREADS_MAX, "{queued} wait");
        drop(go);
        for (port, asker) in askers.into_iter().enumerate() {
            assert_eq!(asker.join().unwrap().unwrap()[0].port(), port as u16);
        }
    });
    assert_eq!(ended.load(Ordering::SeqCst), count);
}

/// A killed greenlet's question leaves the queue; one that is being asked answers nobody.
#[test]
fn a_killed_asker_takes_its_question_back() {
    let pool = pool();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let asked = Arc::new(AtomicUsize::new(0));
    run(|| {
        let (begun, begin) = mpsc::channel();
        let askers: Vec<_> = (0..THREADS_MAX + 3)
            .map(|_| {
                let (wait, asked, begun) = (Arc::clone(&wait), Arc::clone(&asked), begun.clone());
                spawn(move || {
                    ask(pool, move || {
                        asked.fetch_add(1, Ordering::SeqCst);
                        begun.send(()).unwrap();
                        let _ = wait.lock().unwrap().recv();
                        answer(1)
                    })
                })
            })
            .collect();
        yield_now();
        (0..THREADS_MAX).for_each(|_| begin.recv().unwrap());
        assert_eq!(pool.counts(), (THREADS_MAX, 3));
        for asker in askers {
            asker.kill();
            assert!(asker.join().unwrap_err().is_killed());
        }
        assert_eq!(pool.counts(), (THREADS_MAX, 0));
        let elapsed = timeout(Duration::from_millis(2), || ask(pool, || answer(2)));
        assert!(elapsed.is_err(), "all threads are busy");
        assert_eq!(pool.counts(), (THREADS_MAX, 0));
        // Their late answers wake nobody: this one's next wait is its own.
        drop(go);
        assert_eq!(ask(pool, || answer(3)).unwrap()[0].port(), 3);
        crate::sleep(Duration::from_millis(1));
    });
    assert_eq!(asked.load(Ordering::SeqCst), THREADS_MAX);
}

/// A thread that answers is no reason to report main as waiting for ever; and one that has died
/// without an answer is an error, not a hang.
#[test]
fn a_question_that_panics_is_an_error() {
    let pool = pool();
    let error = run(|| ask(pool, || std::panic::resume_unwind(Box::new("no hook")))).unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    while !pool.is_idle() {
        std::thread::yield_now(); // It answers before it is.
    }
    assert_eq!(run(|| ask(pool, || answer(4))).unwrap()[0].port(), 4);
    assert_eq!(pool.counts().0, 1, "the thread goes on");
}

/// While main waits for nothing but a name it can be woken; the answer is late, other greenlets
/// run.
#[test]
fn main_may_wait_for_a_name_alone() {
    let pool = pool();
    let ran = Rc::new(Cell::new(false));
    let flag = Rc::clone(&ran);
    let (go, wait) = mpsc::channel::<()>();
    let addresses = try_run(move || {
        spawn(move || {
            flag.set(true);
            drop(go);
        });
        ask(pool, move || {
            let _ = wait.recv();
            std::thread::sleep(Duration::from_millis(20));
            answer(5)
        })
    });
    assert_eq!(addresses.unwrap().unwrap()[0].port(), 5);
    assert!(ran.get());
}

/// Idle threads are used again before new ones are started.
#[test]
fn one_question_after_the_other_needs_one_thread() -> io::Result<()> {
    let pool = pool();
    run(|| {
        for port in 0..50 {
            ask(pool, move || answer(port))?;
            // The thread answers before it is idle again: give it the time to be.
            while pool.counts().0 == 1 && !pool.is_idle() {
                std::thread::yield_now();
            }
        }
        assert_eq!(pool.counts().0, 1);
        Ok(())
    })
}
