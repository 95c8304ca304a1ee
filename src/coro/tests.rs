//! Coroutines and stacks from inside: what the floor above cannot see.

#![expect(unsafe_code, reason = "coroutines that borrow; probing guards by address")]
//! # Safety
//!
//! Closures given to coroutines are `'static` and do not unwind. Guards are touched by the kernel
//! alone, which answers `EFAULT` instead of faulting.

#[cfg(target_arch = "x86_64")]
mod notes;

use std::{cell::RefCell, collections::HashSet, rc::Rc};

use super::{
    Coroutine, HEAD_BYTES, STACK_BYTES_DEFAULT, Stack, StackPool, Suspender, guard,
    stack::GUARD_BYTES,
};

/// Whether the kernel can read one byte at `address`.
fn is_readable(address: usize) -> bool {
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
    // SAFETY: the kernel reads the byte, and fails with EFAULT where it cannot.
    let written = unsafe { libc::write(fd, std::ptr::with_exposed_provenance(address), 1) };
    match written {
        1 => true,
        _ => {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EFAULT));
            false
        }
    }
}

fn pool() -> StackPool {
    StackPool::new(STACK_BYTES_DEFAULT)
}

/// A stack of `pool`, promised and taken.
fn take(pool: &mut StackPool) -> Stack {
    pool.promise().unwrap();
    pool.take()
}

/// A coroutine on a stack of `pool`.
fn coroutine(pool: &mut StackPool, body: impl FnOnce(&Suspender) + 'static) -> Coroutine {
    let stack = take(pool);
    // SAFETY: (1) `body` is 'static. (2) No test's body unwinds.
    unsafe { Coroutine::new(stack, body) }
}

#[test]
fn resume_and_suspend_alternate_until_the_end() {
    let mut pool = pool();
    let trace = Rc::new(RefCell::new(Vec::new()));
    let inner = Rc::clone(&trace);
    let mut c = coroutine(&mut pool, move |suspender| {
        for i in 0..3 {
            inner.borrow_mut().push(format!("in {i}"));
            suspender.suspend();
        }
    });
    assert!(trace.borrow().is_empty(), "nothing runs before the first resume");
    let mut ended = false;
    for i in 0..4 {
        assert!(!ended);
        ended = c.resume();
        trace.borrow_mut().push(format!("out {i}"));
    }
    assert!(ended);
    let wanted = ["in 0", "out 0", "in 1", "out 1", "in 2", "out 2", "out 3"];
    assert_eq!(*trace.borrow(), wanted);
    assert_eq!(Rc::strong_count(&trace), 1, "the closure was dropped at its end");
    pool.put(c.into_stack());
}

#[test]
fn closures_larger_than_corosensei_allows_are_boxed_and_arrive_whole() {
    let mut pool = pool();
    let sum = Rc::new(RefCell::new(0usize));
    let out = Rc::clone(&sum);
    let capture = [1u8; 16 << 10];
    let mut c = coroutine(&mut pool, move |_| {
        *out.borrow_mut() = capture.iter().map(|byte| usize::from(*byte)).sum();
    });
    assert!(c.resume());
    assert_eq!(*sum.borrow(), 16 << 10);
    pool.put(c.into_stack());
}

#[test]
fn the_guard_faults_and_all_above_it_is_usable() {
    let mut pool = pool();
    let stacks: Vec<Stack> = (0..3).map(|_| take(&mut pool)).collect();
    for stack in &stacks {
        for offset in (0..GUARD_BYTES).step_by(4096) {
            assert!(!is_readable(stack.limit() + offset), "{:?}: offset {offset}", guard::way());
        }
        assert!(!is_readable(stack.limit() + GUARD_BYTES - 1));
        assert!(is_readable(stack.lowest()));
        assert!(is_readable(stack.head().addr().get()));
        assert!(is_readable(stack.limit() + pool.slot_bytes() - 1));
    }
    for stack in stacks {
        let limit = stack.limit();
        pool.put(stack);
        assert!(!is_readable(limit), "an idle stack keeps its guard");
    }
}

/// Idle stacks beyond `WARM_MAX` give their memory back: guards must survive that.
#[test]
fn stacks_that_were_trimmed_keep_their_guards_and_work() {
    let mut pool = StackPool::new(0);
    let stacks: Vec<Stack> = (0..5300).map(|_| take(&mut pool)).collect();
    for stack in &stacks {
        // SAFETY: the lowest word of a stack that we own and that nobody runs on.
        unsafe { std::ptr::with_exposed_provenance_mut::<u64>(stack.lowest()).write(0xdead) };
    }
    let places: Vec<(usize, usize)> = stacks.iter().map(|s| (s.limit(), s.lowest())).collect();
    stacks.into_iter().for_each(|stack| pool.put(stack));
    assert!(pool.is_fat());
    let mut rounds = 0;
    while pool.is_fat() {
        pool.trim();
        rounds += 1;
        assert!(rounds < 10);
    }
    assert_eq!(rounds, 2, "1,204 stacks too many, 1,024 a trim");
    let mut kept = 0;
    for (limit, lowest) in places {
        assert!(!is_readable(limit) && !is_readable(lowest - 1));
        // SAFETY: mapped, since the pool lives; nobody writes it.
        let word = unsafe { std::ptr::with_exposed_provenance::<u64>(lowest).read() };
        kept += usize::from(word == 0xdead);
    }
    assert_eq!(kept, 4096, "those that were idle for longest have lost their memory");
    // All of them serve again, also those without memory.
    let stacks: Vec<Stack> = (0..5300).map(|_| take(&mut pool)).collect();
    for stack in stacks {
        // SAFETY: the body is 'static and does not unwind.
        let mut c = unsafe { Coroutine::new(stack, |suspender: &Suspender| suspender.suspend()) };
        assert!(!c.resume());
        assert!(c.resume());
        pool.put(c.into_stack());
    }
}

/// POOL-1.
#[test]
fn a_promise_is_kept_whatever_is_taken_and_returned_in_between() {
    let mut pool = pool();
    let first = take(&mut pool);
    for _ in 0..200 {
        pool.promise().unwrap();
    }
    let limit = first.limit();
    pool.put(first);
    let stacks: Vec<Stack> = (0..200).map(|_| pool.take()).collect();
    assert_eq!(stacks[0].limit(), limit, "the warm one comes first");
    assert_eq!(stacks.iter().map(Stack::limit).collect::<HashSet<_>>().len(), 200);
    stacks.into_iter().for_each(|stack| pool.put(stack));
}

#[test]
fn the_stack_returned_last_is_taken_first() {
    let mut pool = pool();
    let stacks: Vec<Stack> = (0..100).map(|_| take(&mut pool)).collect();
    let mut limits: Vec<usize> = stacks.iter().map(Stack::limit).collect();
    assert_eq!(limits.iter().collect::<HashSet<_>>().len(), 100, "all are different");
    for stack in stacks {
        pool.put(stack);
    }
    while let Some(limit) = limits.pop() {
        let stack = take(&mut pool);
        assert_eq!(stack.limit(), limit);
    }
    std::mem::forget(pool); // its stacks are out: they stay mapped
}

/// STACK-1, and that neighbours get different colours within one page.
#[test]
fn heads_are_aligned_coloured_and_inside_their_slot() {
    let mut pool = pool();
    let stacks: Vec<Stack> = (0..32).map(|_| take(&mut pool)).collect();
    let mut colours = HashSet::new();
    for stack in &stacks {
        let head = stack.head().addr().get();
        let end = stack.limit() + pool.slot_bytes();
        assert_eq!(head % 64, 0);
        assert!(head + HEAD_BYTES <= end && head > end - 4096);
        colours.insert(end - head);
    }
    assert_eq!(colours.len(), 16);
    stacks.into_iter().for_each(|stack| pool.put(stack));
}

#[test]
fn the_numbers_on_the_page_about_stacks_are_those_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/asm-notes/stacks.md");
    let page = std::fs::read_to_string(path).unwrap();
    let mut pool = pool();
    let stacks: Vec<Stack> = (0..32).map(|_| take(&mut pool)).collect();
    let colours = stacks.iter().map(|s| s.limit() + pool.slot_bytes() - s.head().addr().get());
    let (nearest, farthest) = (colours.clone().min().unwrap(), colours.max().unwrap());
    for (what, number) in [
        ("a default slot", pool.slot_bytes()),
        ("the guard", GUARD_BYTES),
        ("what frames may use, with head and colour", pool.slot_bytes() - GUARD_BYTES),
        ("the head", HEAD_BYTES),
        ("the largest colour", farthest - nearest),
        ("the smallest slot", StackPool::new(0).slot_bytes()),
    ] {
        let row = format!("| {what} | {number} |");
        assert!(page.contains(&row), "no {row:?}");
    }
    stacks.into_iter().for_each(|stack| pool.put(stack));
}

#[test]
fn sizes_are_rounded_up_to_pages_and_to_a_minimum() {
    for (asked, given) in
        [(0, 96 << 10), (1, 96 << 10), ((96 << 10) + 1, 100 << 10), (1 << 20, 1 << 20)]
    {
        assert_eq!(StackPool::new(asked).slot_bytes(), given, "{asked}");
    }
}

#[test]
fn a_pool_unmaps_its_slabs_when_no_stack_is_out_and_only_then() {
    let mut pool = StackPool::new(1 << 20);
    let stack = take(&mut pool);
    let (lowest, slab) = (stack.lowest(), stack.place().slab);
    assert_eq!(slab, 0);
    drop(pool);
    assert!(is_readable(lowest), "POOL-2: one is out");
    let _ = stack; // it has no Drop: its slab stays mapped, as documented
}

#[test]
fn a_pool_whose_stacks_are_all_back_unmaps_them() {
    // Two GiB that nothing else in this process would map again at once.
    let mut pool = StackPool::new(2 << 30);
    let stack = take(&mut pool);
    let (lowest, end) = (stack.lowest(), stack.limit() + (2 << 30));
    assert!(is_readable(lowest));
    pool.put(stack);
    drop(pool);
    let gone = (lowest..end).step_by(64 << 20).filter(|address| !is_readable(*address)).count();
    assert!(gone > 16, "{gone} of 32 probes fail");
}
