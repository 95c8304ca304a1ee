//! SQLite, in C, which waits for a busy database by sleeping and asking again.

use std::{env, fs, path::PathBuf, process, sync::mpsc, thread, time::Duration};

use greenloop_unmodified::{overlap, threads};
use rusqlite::Connection;

use crate::MANY;

const MOMENT: Duration = Duration::from_millis(300);

/// A database in a file that goes when this does.
struct File(PathBuf);

impl File {
    fn open(path: &PathBuf) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        // It is for what happens in one process: no disk is waited for.
        connection.pragma_update(None, "synchronous", "off").unwrap();
        connection
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(self.0.with_extension("db-journal"));
    }
}

/// One holds the database for a moment, sleeping in the middle of a transaction; two hundred
/// others, each with a connection of its own, want to write meanwhile.
pub(crate) fn busy() {
    let file = File(env::temp_dir().join(format!("greenloop-{}.db", process::id())));
    let mut holder = File::open(&file.0);
    holder.execute("create table entries (number integer primary key, seen integer)", []).unwrap();
    let (holds, held) = mpsc::channel();
    let path = file.0.clone();
    let first = threads::spawn(move || {
        let transaction = holder.transaction().unwrap();
        transaction.execute("insert into entries values (-1, 0)", []).unwrap();
        holds.send(()).unwrap();
        thread::sleep(MOMENT + MOMENT / 10); // `held` is heard a little later.
        transaction.commit().unwrap();
    });
    held.recv().unwrap();
    overlap(MANY, MOMENT, move |index| {
        let mut connection = File::open(&path);
        let behavior = rusqlite::TransactionBehavior::Immediate;
        let transaction = connection.transaction_with_behavior(behavior).unwrap();
        let insert = "insert into entries values (?1, (select count(*) from entries))";
        let number = i64::try_from(index).unwrap();
        transaction.execute(insert, [number]).unwrap();
        transaction.commit().unwrap();
    });
    first.join().unwrap();

    let connection = File::open(&file.0);
    let count = |query| connection.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    let many = i64::try_from(MANY).unwrap();
    assert_eq!(count("select count(*) from entries"), many + 1);
    // Each has seen those before it, and nobody else did at the same moment.
    assert_eq!(count("select count(distinct seen) from entries"), many + 1);
    assert_eq!(count("select max(seen) from entries"), many);
}
