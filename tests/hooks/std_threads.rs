//! What std promises of its threads and thread-locals, of virtual ones, and on them. Std's own
//! tests were the list of behaviours.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{Sender, channel},
    },
    thread as os,
    time::{Duration, Instant},
};

use greenloop::thread;

use crate::{
    call::on_a_virtual_thread,
    sides::{Others, fail, with_others},
};

const MOMENT: Duration = Duration::from_millis(10);

#[test]
fn a_thread_has_the_name_that_it_was_given() {
    on_a_virtual_thread(|| {
        let named = thread::Builder::new().name("reader".to_owned());
        let named = named.spawn(|| thread::current().name().map(str::to_owned)).unwrap();
        assert_eq!(named.thread().name(), Some("reader"));
        assert_eq!(named.join().unwrap().as_deref(), Some("reader"));
        assert!(thread::spawn(|| thread::current().name().is_none()).join().unwrap());
        // An OS thread that a virtual one starts has std's.
        let named = os::Builder::new().name("other".to_owned());
        let named = named.spawn(|| os::current().name().map(str::to_owned)).unwrap();
        assert_eq!(named.join().unwrap().as_deref(), Some("other"));
    });
}

#[test]
fn a_thread_has_a_stack_of_the_size_that_was_asked_for() {
    fn deep(levels: usize) -> usize {
        let here = std::hint::black_box([levels; 128]);
        if levels == 0 { 0 } else { deep(levels - 1) + here[levels % 128] / levels }
    }
    on_a_virtual_thread(|| {
        // Two megabytes and more, in frames of a kilobyte.
        let large = thread::Builder::new().stack_size(16 << 20);
        assert_eq!(large.spawn(|| deep(2000)).unwrap().join().unwrap(), 2000);
    });
}

#[test]
fn the_payload_of_a_panic_is_handed_to_who_joins() {
    with_others(|others| {
        let payload = |f: fn()| others.spawn(f).join().unwrap_err();
        let text = payload(|| std::panic::resume_unwind(Box::new("text")));
        assert_eq!(text.downcast_ref(), Some(&"text"));
        let owned = payload(|| std::panic::resume_unwind(Box::new(String::from("owned"))));
        assert_eq!(owned.downcast_ref::<String>().map(String::as_str), Some("owned"));
        let any = payload(|| std::panic::resume_unwind(Box::new([1u16, 2])));
        assert_eq!(any.downcast_ref(), Some(&[1u16, 2]));
        // A payload that is a box stays one.
        let boxed = payload(|| {
            let inner: Box<dyn std::any::Any + Send> = Box::new(413u16);
            std::panic::resume_unwind(Box::new(inner));
        });
        let boxed = boxed.downcast::<Box<dyn std::any::Any + Send>>().unwrap();
        assert_eq!(boxed.downcast_ref(), Some(&413u16));
    });
}

#[test]
fn a_panic_that_is_caught_leaves_nothing() {
    with_others(|others| {
        let goes_on = others.spawn(|| {
            for _ in 0..3 {
                assert!(catch_unwind(|| fail()).is_err());
                assert!(!os::panicking());
                os::yield_now();
            }
            5
        });
        assert_eq!(goes_on.value(), 5);
    });
}

#[test]
fn threads_spawn_threads_that_outlive_them() {
    fn descend(others: Others, depth: u32, told: Sender<u32>) {
        if depth == 0 {
            return told.send(0).unwrap();
        }
        drop(others.spawn(move || descend(others, depth - 1, told)));
    }
    with_others(|others| {
        let (tells, told) = channel();
        drop(others.spawn(move || descend(others, 15, tells)));
        assert_eq!(told.recv(), Ok(0));
        assert!(told.recv().is_err());
    });
}

#[test]
fn a_value_goes_in_and_out() {
    with_others(|others| {
        let value = Box::new(31337);
        let place = (&raw const *value).addr();
        let back = others.spawn(move || {
            os::yield_now();
            value
        });
        let back = back.value();
        assert_eq!(((&raw const *back).addr(), *back), (place, 31337));
    });
}

#[test]
fn a_handle_tells_of_the_end_and_goes_to_others() {
    on_a_virtual_thread(|| {
        let (tells, told) = channel::<()>();
        let waits = thread::spawn(move || {
            let _ = told.recv();
            7
        });
        os::yield_now();
        assert!(!waits.is_finished());
        let joins = thread::spawn(move || waits.join().unwrap());
        let (again, over) = (thread::spawn(|| ()), Arc::new(AtomicBool::new(false)));
        let joined = Arc::clone(&over);
        let elsewhere = os::spawn(move || {
            again.join().unwrap();
            joined.store(true, Ordering::SeqCst);
        });
        drop(tells);
        assert_eq!(joins.join().unwrap(), 7);
        elsewhere.join().unwrap();
        assert!(over.load(Ordering::SeqCst));
    });
}

#[test]
fn ids_are_all_different_and_stay_the_same() {
    with_others(|others| {
        let own = os::current().id();
        let ids: Vec<_> = (0..20)
            .map(|_| {
                others.spawn(|| {
                    let id = os::current().id();
                    os::yield_now();
                    assert_eq!(os::current().id(), id);
                    id
                })
            })
            .collect();
        let mut ids: HashSet<_> = ids.into_iter().map(|thread| thread.value()).collect();
        ids.insert(own);
        assert_eq!(ids.len(), 21);
        assert_eq!(os::current().id(), own);
    });
}

#[test]
fn an_unpark_is_remembered_once() {
    with_others(|others| {
        os::current().unpark();
        os::current().unpark();
        os::park();
        let begun = Instant::now();
        // May end for no reason, but not for the second one.
        let mut left = MOMENT;
        while begun.elapsed() < MOMENT {
            os::park_timeout(left);
            left = MOMENT.saturating_sub(begun.elapsed());
        }
        os::current().unpark();
        os::park_timeout(Duration::from_secs(3600));
        let (here, is_time) = (os::current(), Arc::new(AtomicBool::new(false)));
        let tells = Arc::clone(&is_time);
        let unparks = others.spawn(move || {
            tells.store(true, Ordering::Release);
            here.unpark();
        });
        while !is_time.load(Ordering::Acquire) {
            os::park_timeout(Duration::from_secs(3600));
        }
        unparks.value();
    });
}

/// Turns that go to and fro, by nothing but `park` and `unpark`.
#[test]
fn two_unpark_one_another_many_times() {
    with_others(|others| {
        const TURNS: u32 = 300;
        let turn = Arc::new(AtomicU32::new(0));
        let (here, theirs, (tells, told)) = (os::current(), Arc::clone(&turn), channel());
        let plays = others.spawn(move || {
            tells.send(os::current()).unwrap();
            for n in (1..TURNS).step_by(2) {
                while theirs.load(Ordering::Acquire) != n {
                    os::park();
                }
                theirs.store(n + 1, Ordering::Release);
                here.unpark();
            }
        });
        let there = told.recv().unwrap();
        for n in (0..TURNS).step_by(2) {
            while turn.load(Ordering::Acquire) != n {
                os::park();
            }
            turn.store(n + 1, Ordering::Release);
            there.unpark();
        }
        plays.value();
        assert_eq!(turn.load(Ordering::Acquire), TURNS);
    });
}

#[test]
fn sleeps_are_as_long_as_asked() {
    with_others(|others| {
        let sleeps = others.spawn(|| {
            for asked in [Duration::ZERO, Duration::from_nanos(1), MOMENT] {
                let begun = Instant::now();
                os::sleep(asked);
                assert!(begun.elapsed() >= asked, "{asked:?}");
            }
        });
        sleeps.value();
        assert!(os::available_parallelism().unwrap().get() >= 1);
    });
}

#[test]
fn scopes_of_std_borrow_from_a_virtual_thread() {
    on_a_virtual_thread(|| {
        let (mut numbers, mut other) = (vec![1, 2, 3], 0);
        let first = os::scope(|scope| {
            let first = scope.spawn(|| numbers[0]);
            scope.spawn(|| other += numbers.iter().sum::<i32>());
            first.join().unwrap()
        });
        numbers.push(first);
        assert_eq!((numbers, other), (vec![1, 2, 3, 1], 6));
        // A panic of one that nobody joins is the scope's; of one that was joined, it is not.
        let escaped = catch_unwind(AssertUnwindSafe(|| {
            os::scope(|scope| {
                scope.spawn(|| fail());
            });
        }));
        assert!(escaped.is_err());
        assert!(os::scope(|scope| scope.spawn(|| fail()).join().is_err()));
        // One spawns another.
        let count = AtomicU32::new(0);
        os::scope(|scope| {
            scope.spawn(|| {
                count.fetch_add(1, Ordering::SeqCst);
                scope.spawn(|| count.fetch_add(1, Ordering::SeqCst));
            });
        });
        assert_eq!(count.into_inner(), 2);
    });
}

/// Says what it finds when it is dropped.
struct Says(Sender<&'static str>, &'static str);

impl Drop for Says {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

#[test]
fn locals_are_set_taken_and_replaced() {
    thread_local! {
        static CELL: Cell<u32> = const { Cell::new(1) };
        static TEXT: RefCell<String> = RefCell::new("old".to_owned());
        static UNTOUCHED: Cell<Vec<u32>> = panic!("it is set before anybody reads it");
    }
    with_others(|others| {
        let one = move || {
            assert_eq!((CELL.get(), CELL.replace(2), CELL.take(), CELL.get()), (1, 1, 2, 0));
            TEXT.with_borrow_mut(|text| text.push_str(" one"));
            os::yield_now();
            assert_eq!(TEXT.replace("new".to_owned()), "old one");
            TEXT.set("newer".to_owned());
            assert_eq!(TEXT.take(), "newer");
            TEXT.with_borrow(|text| assert!(text.is_empty()));
            UNTOUCHED.set(vec![1]);
            os::yield_now();
            assert_eq!(UNTOUCHED.take(), [1]);
        };
        let threads = [(); 3].map(|()| others.spawn(one));
        threads.into_iter().for_each(|thread| thread.value());
    });
}

#[test]
fn a_local_is_gone_in_its_own_destructor_and_there_before_it() {
    thread_local! {
        static ITSELF: RefCell<Option<Looks>> = const { RefCell::new(None) };
        static LATER: RefCell<Option<Says>> = const { RefCell::new(None) };
        static PLAIN: Cell<u32> = const { Cell::new(5) };
    }
    struct Looks(Sender<&'static str>);
    impl Drop for Looks {
        fn drop(&mut self) {
            assert!(ITSELF.try_with(|_| ()).is_err(), "it is being destroyed");
            os::yield_now();
            // What has no destructor stays to the end; others come to be even now.
            assert_eq!(PLAIN.try_with(Cell::get), Ok(9));
            let said = LATER.try_with(|later| {
                later.borrow_mut().get_or_insert_with(|| Says(self.0.clone(), "later"));
            });
            assert!(said.is_ok());
            self.0.send("itself").unwrap();
        }
    }
    with_others(|others| {
        let (tells, told) = channel();
        let leaves = others.spawn(move || {
            assert!(ITSELF.try_with(|_| ()).is_ok());
            ITSELF.set(Some(Looks(tells)));
            PLAIN.set(9);
        });
        leaves.value();
        assert_eq!(told.iter().collect::<Vec<_>>(), ["itself", "later"]);
    });
}

/// Each destructor uses the other's local, if it is still there.
#[test]
fn locals_that_need_one_another_end_all_the_same() {
    thread_local! {
        static ONE: RefCell<Option<First>> = const { RefCell::new(None) };
        static OTHER: RefCell<Option<Second>> = const { RefCell::new(None) };
    }
    struct First(Sender<bool>);
    struct Second(Sender<bool>);
    impl Drop for First {
        fn drop(&mut self) {
            let is_there = OTHER.try_with(|other| {
                let mut other = other.borrow_mut();
                let is_set = other.is_some();
                other.get_or_insert_with(|| Second(self.0.clone()));
                is_set
            });
            self.0.send(is_there.is_ok()).unwrap();
        }
    }
    impl Drop for Second {
        fn drop(&mut self) {
            let is_there = ONE.try_with(|one| drop(one.try_borrow())).is_ok();
            self.0.send(is_there).unwrap();
        }
    }
    let seen: Mutex<Vec<Vec<bool>>> = Mutex::default();
    // Whatever std finds on an OS thread is what it finds on a virtual one.
    let seen = Arc::new(seen);
    let sees = Arc::clone(&seen);
    on_a_virtual_thread(move || {
        for others in [Others::Os, Others::Virtual] {
            let (tells, told) = channel();
            let leaves = others.spawn(move || {
                ONE.set(Some(First(tells.clone())));
                OTHER.set(Some(Second(tells)));
            });
            leaves.value();
            sees.lock().unwrap().push(told.iter().collect());
        }
    });
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].len() >= 2, "{seen:?}");
}

#[test]
fn a_destructor_of_a_local_may_wait_spawn_and_ask_who_it_is() {
    thread_local!(static LAST: RefCell<Option<Waits>> = const { RefCell::new(None) });
    struct Waits(Others, Sender<bool>);
    impl Drop for Waits {
        fn drop(&mut self) {
            let id = os::current().id();
            os::sleep(Duration::from_micros(100));
            let (asks, answers) = channel();
            let other = self.0.spawn(move || asks.send(os::current().id()).unwrap());
            let theirs = answers.recv().unwrap();
            other.value();
            self.1.send(os::current().id() == id && theirs != id).unwrap();
        }
    }
    with_others(|others| {
        let (tells, told) = channel();
        let leaves = others.spawn(move || LAST.set(Some(Waits(others, tells))));
        leaves.value();
        assert_eq!(told.iter().collect::<Vec<_>>(), [true]);
    });
}

#[test]
fn a_panic_runs_the_destructors_of_locals() {
    thread_local!(static SAYS: RefCell<Option<Says>> = const { RefCell::new(None) });
    with_others(|others| {
        let (tells, told) = channel();
        let panics = others.spawn(move || {
            let _frame = Says(tells.clone(), "frame");
            SAYS.set(Some(Says(tells, "local")));
            os::yield_now();
            fail();
        });
        assert!(panics.join().is_err());
        assert_eq!(told.iter().collect::<Vec<_>>(), ["frame", "local"]);
    });
}

/// An initialiser that waits lets others run theirs: each thread has its own.
#[test]
fn an_initialiser_of_a_local_may_wait() {
    thread_local!(static SLOW: u32 = {
        os::yield_now();
        os::sleep(Duration::from_micros(50));
        COUNT.fetch_add(1, Ordering::SeqCst)
    });
    static COUNT: AtomicU32 = AtomicU32::new(0);
    on_a_virtual_thread(|| {
        let looks = || {
            let first = SLOW.with(|number| *number);
            os::yield_now();
            assert_eq!(SLOW.with(|number| *number), first);
            first
        };
        let all = [Others::Virtual, Others::Virtual, Others::Os, Others::Virtual];
        let threads = all.map(|others| others.spawn(looks));
        let seen: HashSet<_> = threads.map(|thread| thread.value()).into_iter().collect();
        assert_eq!(seen, HashSet::from([0, 1, 2, 3]));
    });
}
