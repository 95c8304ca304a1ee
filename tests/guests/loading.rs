//! Thread-locals of libraries that are loaded while there are virtual threads.

use std::{
    ffi::{CString, c_int},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread as os,
};

use greenloop::{run, sync::Event, thread};

use crate::{c::settle, support::assert_ends};

const SOURCE: &str = "static __thread int number = 42; static __thread int rest;
int get(void) { return number + rest; }
void set(int n) { number = n; }
";

/// A new library of this source, and where it is. Its thread-locals lie at a fixed place in each
/// thread.
fn library(name: &str, text: &str) -> PathBuf {
    let folder = std::env::temp_dir();
    let of = |ending| folder.join(format!("greenloop-{}-{name}.{ending}", std::process::id()));
    let (source, library) = (of("c"), of("so"));
    fs::write(&source, text).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-ftls-model=initial-exec", "-o"]).arg(&library);
    assert!(compiler.arg(&source).status().unwrap().success());
    fs::remove_file(source).unwrap();
    library
}

/// Loads it; gives what opened it.
fn load(library: &Path) -> usize {
    let path = CString::new(library.to_str().unwrap()).unwrap();
    // SAFETY: a library without constructors.
    let opened = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!opened.is_null());
    opened.expose_provenance()
}

/// Unloads it.
fn unload(opened: usize) {
    // SAFETY: what dlopen gave, and nobody uses any more.
    assert_eq!(unsafe { libc::dlclose(std::ptr::with_exposed_provenance_mut(opened)) }, 0);
}

fn get(opened: usize) -> c_int {
    // SAFETY: what dlopen gave.
    let get =
        unsafe { libc::dlsym(std::ptr::with_exposed_provenance_mut(opened), c"get".as_ptr()) };
    assert!(!get.is_null());
    // SAFETY: a function of this type, in a library that stays loaded.
    let get = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> c_int>(get) };
    get()
}

fn set(opened: usize, number: c_int) {
    // SAFETY: what dlopen gave.
    let set =
        unsafe { libc::dlsym(std::ptr::with_exposed_provenance_mut(opened), c"set".as_ptr()) };
    assert!(!set.is_null());
    // SAFETY: as above.
    let set = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn(c_int)>(set) };
    set(number);
}

/// Has `load` called while a virtual thread is there, which then finds the library's thread-locals
/// as they begin, and after another load as it has left them.
fn is_told_to_who_is_there(name: &str, load: impl Fn(&Path) -> usize + Send + 'static) {
    let library = library(name, SOURCE);
    assert_ends(move || {
        run(|| {
            let (opened, is_loaded) = (Arc::new(AtomicUsize::new(0)), Arc::new(Event::new()));
            let (at, loaded) = (Arc::clone(&opened), Arc::clone(&is_loaded));
            let was_there = thread::spawn(move || {
                loaded.wait();
                loaded.clear();
                let at = at.load(Ordering::Acquire);
                let first = get(at);
                set(at, 7);
                loaded.wait();
                (first, get(at))
            });
            settle();
            opened.store(load(&library), Ordering::Release);
            is_loaded.set();
            settle();
            assert_eq!(load(&library), opened.load(Ordering::Acquire));
            is_loaded.set();
            assert_eq!(was_there.join().unwrap(), (42, 7));
            let at = opened.load(Ordering::Acquire);
            assert_eq!(thread::run(move || get(at)), 42);
            fs::remove_file(&library).unwrap();
        });
    });
}

#[test]
fn a_library_that_a_virtual_thread_loads_is_told_to_those_that_are_there() {
    is_told_to_who_is_there("guest", |library| thread::run(|| load(library)));
}

#[test]
fn a_library_that_a_greenlet_loads_is_told_to_those_that_are_there() {
    is_told_to_who_is_there("greenlet", load);
}

#[test]
fn a_library_that_another_thread_loads_is_told_to_those_that_are_there() {
    is_told_to_who_is_there("thread", |library| {
        os::scope(|s| s.spawn(|| load(library)).join().unwrap())
    });
}

/// Whoever loads what was unloaded finds it as it begins, also while others are about to load.
#[test]
fn a_library_that_comes_back_begins_anew_while_others_load() {
    let library = library("again", SOURCE);
    assert_ends(move || {
        let is_over = Arc::new(AtomicBool::new(false));
        let others: Vec<_> = (0..4)
            .map(|_| {
                let is_over = Arc::clone(&is_over);
                os::spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        // SAFETY: there is no such library.
                        unsafe { libc::dlopen(c"/no/such/library".as_ptr(), libc::RTLD_NOW) };
                    }
                })
            })
            .collect();
        let wrong = run(|| {
            let (ask, asked) = std::sync::mpsc::channel::<usize>();
            let (tell, told) = std::sync::mpsc::channel();
            let was_there = thread::spawn(move || {
                for opened in asked {
                    let first = get(opened);
                    set(opened, 7);
                    tell.send(first).unwrap();
                }
            });
            let mut opened = load(&library);
            let wrong = (0..300)
                .filter(|_| {
                    ask.send(opened).unwrap();
                    settle();
                    let first = told.recv().unwrap();
                    unload(opened);
                    opened = load(&library);
                    first != 42
                })
                .count();
            drop(ask);
            was_there.join().unwrap();
            wrong
        });
        is_over.store(true, Ordering::Relaxed);
        others.into_iter().for_each(|other| other.join().unwrap());
        fs::remove_file(&library).unwrap();
        assert_eq!(wrong, 0, "of 300 that came back");
    });
}

/// It runs under the loader's lock.
#[test]
fn a_destructor_of_a_library_that_waits_keeps_nobody_from_the_loader() {
    let waits = library(
        "destructor",
        "#include <unistd.h>
__attribute__((destructor)) static void bye(void) { usleep(1000); }
",
    );
    let other = library("other", SOURCE);
    assert_ends(move || {
        run(|| {
            let opened = load(&waits);
            let closes = thread::spawn(move || unload(opened));
            let loads = {
                let other = other.clone();
                thread::spawn(move || unload(load(&other)))
            };
            closes.join().unwrap();
            loads.join().unwrap();
            fs::remove_file(&waits).unwrap();
            fs::remove_file(&other).unwrap();
        });
    });
}
