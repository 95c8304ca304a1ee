//! smoke
use greenloop::*;
use std::time::Duration;
fn main() {
    for i in 0..6 {
    let r = run(|| {
        reactor().set_shutdown_deadline(Duration::from_millis(300));
        match i {
        0 => { reactor().call_when_running(|| ()); sleep(Duration::from_millis(5)); }
        1 => { let _ = timeout(Duration::from_millis(5), || sleep(Duration::from_secs(100))); }
        2 => { let _ = spawn(|| panic!("x")).join().is_err(); }
        3 => { let d = spawn(|| 4); wait_for_future(async { d.await.unwrap() }); }
        4 => { scope(|s| { s.spawn(|| sleep(Duration::from_millis(1))); }); }
        _ => {}
        }
    });
    println!("{i} ok {r:?}");
    }
}
