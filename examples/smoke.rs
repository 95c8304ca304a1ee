//! smoke
use greenloop::*;
use std::time::{Duration, Instant};
fn main() {
    let t = Instant::now();
    let v = run(|| {
        let a = spawn(|| {
            sleep(Duration::from_millis(50));
            1
        });
        let b = spawn(|| {
            yield_now();
            2
        });
        let (r, d) = Deferred::<i32>::new();
        reactor().call_later(Duration::from_millis(20), move || r.callback(3));
        let x = wait_for_deferred(d).unwrap();
        let f = wait_for_future(async { spawn(|| 4).await.unwrap() });
        let e = timeout(Duration::from_millis(5), || sleep(Duration::from_secs(100)));
        assert!(e.is_err());
        let k = spawn(|| sleep(Duration::from_secs(100)));
        yield_now();
        k.kill();
        assert!(k.join().unwrap_err().is_killed());
        let p = spawn(|| {
            panic!("boom");
        });
        println!("{}", p.join().unwrap_err());
        let mut arr = [0; 3];
        scope(|s| {
            for (i, x) in arr.iter_mut().enumerate() {
                s.spawn(move || {
                    sleep(Duration::from_millis(1));
                    *x = i + 1
                });
            }
        });
        println!("{arr:?}");
        drop(spawn(|| panic!("unjoined")));
        drop(spawn(|| -> Result<(), std::io::Error> { Err(std::io::Error::other("bad")) }));
        a.join().unwrap() + b.join().unwrap() + x + f
    });
    println!("{v} {:?}", t.elapsed());
    println!(
        "{:?}",
        try_run(|| {
            let (_r, d) = Deferred::<()>::new();
            wait_for_deferred(d).unwrap()
        })
        .map_err(|e| e.to_string())
    );
    // bench
    run(|| {
        for n in [2usize, 1000] {
            let iters = 10_000_000 / n;
            let t = Instant::now();
            let gs: Vec<_> = (0..n)
                .map(|_| {
                    spawn(move || {
                        for _ in 0..iters {
                            yield_now()
                        }
                    })
                })
                .collect();
            for g in gs {
                g.join().unwrap();
            }
            println!("yield {n}: {:?} ns", t.elapsed().as_nanos() as f64 / (n * iters) as f64);
        }
        let t = Instant::now();
        for _ in 0..1_000_000 {
            spawn(|| ()).join().unwrap();
        }
        println!("spawn+join: {:?} ns", t.elapsed().as_nanos() as f64 / 1e6);
    });
}
