//! A program whose libc names are ours, however it is linked: `hooked active`, `hooked static`.

#![expect(unsafe_code, reason = "alarm(2) is C")]

use std::{env, sync::mpsc};

use greenloop::{
    interpose::{self, Inactive},
    thread,
};

greenloop::interpose!();

fn main() {
    let expected = env::args().nth(1).expect("what to expect");
    let found = interpose::is_active();
    println!("{}", interpose::status());
    if expected == "static" {
        assert_eq!(found, Err(Inactive::Static));
        return;
    }
    assert_eq!(found, Ok(()));
    assert_eq!(thread::support(), thread::Support::Virtual);
    // SAFETY: it ends a process that hangs, as this one does if std finds libc's pthread_join.
    unsafe { libc::alarm(20) };
    let (send, receive) = mpsc::channel();
    greenloop::run(|| {
        let joins = thread::spawn(|| std::thread::spawn(move || receive.recv()).join().unwrap());
        greenloop::yield_now();
        let sends = thread::spawn(move || send.send(7).unwrap());
        assert_eq!(joins.join().unwrap(), Ok(7));
        sends.join().unwrap();
    });
}
