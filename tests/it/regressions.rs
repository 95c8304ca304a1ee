//! One test for each defect that was found after its floor was thought finished.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use greenloop::{reactor, run, sleep, spawn, yield_now};

const LONG: Duration = Duration::from_secs(3600);

/// The kill at the end of a run unwound out of the destructor of a result, past everything that
/// could catch it, and the process was aborted.
#[test]
fn a_result_whose_destructor_blocks_is_killed_like_anything_else() {
    struct Blocks;
    impl Drop for Blocks {
        fn drop(&mut self) {
            sleep(LONG);
        }
    }
    let begun = Instant::now();
    run(|| {
        drop(spawn(|| Blocks));
        yield_now();
    });
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Removing a reader killed it in the midst of its call, if that had parked.
#[test]
fn a_reader_that_is_removed_while_it_blocks_ends_its_call() {
    run(|| {
        let (ended, begun) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (reader, mut writer) = std::io::pipe().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let (end, begin) = (Rc::clone(&ended), Rc::clone(&begun));
        let watched = reactor().add_reader(reader, move |_| {
            begin.set(true);
            sleep(Duration::from_millis(5));
            end.set(true);
        });
        watched.unwrap();
        std::io::Write::write_all(&mut writer, b"x").unwrap();
        while !begun.get() {
            yield_now();
        }
        assert!(reactor().remove_reader(&fd));
        sleep(Duration::from_millis(20));
        assert!(ended.get());
    });
}
