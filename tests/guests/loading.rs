//! Thread-locals of libraries that are loaded while there are virtual threads.

use std::{
    ffi::{CString, c_int},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread as os,
};

use greenloop::{run, sync::Event, thread};

use crate::{c::settle, support::assert_ends};

const SOURCE: &str = "static __thread int number = 42; static __thread int rest;
int get(void) { return number + rest; }
void set(int n) { number = n; }
";

/// A new library whose thread-locals lie at a fixed place in each thread, and where it is.
fn library(name: &str) -> PathBuf {
    let folder = std::env::temp_dir();
    let of = |ending| folder.join(format!("greenloop-{}-{name}.{ending}", std::process::id()));
    let (source, library) = (of("c"), of("so"));
    fs::write(&source, SOURCE).unwrap();
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
    let library = library(name);
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
