//! Clients of PostgreSQL, MariaDB and Redis.

use std::{process, thread, time::Duration};

use greenloop_unmodified::overlap;
use mysql::prelude::Queryable;
use redis::Commands;

use crate::MANY;

const MOMENT: Duration = Duration::from_millis(300);

/// Each client has a tokio runtime of its own, on the thread that asks.
pub(crate) fn postgres(url: &str) {
    let url = url.to_owned();
    let answers = overlap(MANY, MOMENT, move |index| {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        let number = i64::try_from(index).unwrap();
        let row = client.query_one("select $1::int8 * 2 from pg_sleep(0.3)", &[&number]).unwrap();
        row.get::<_, i64>(0)
    });
    assert!(answers.into_iter().eq((0..).step_by(2).take(MANY)));
}

pub(crate) fn mysql(url: &str) {
    let url = url.to_owned();
    let answers = overlap(MANY, MOMENT, move |index| {
        let mut connection = mysql::Conn::new(&*url).unwrap();
        let row: Option<(usize, usize)> =
            connection.exec_first("select sleep(0.3), ? * 2", (index,)).unwrap();
        row.expect("a row")
    });
    assert!(answers.into_iter().eq((0..MANY).map(|index| (0, 2 * index))));
}

/// Each waits for a list of its own, into which nobody puts anything.
pub(crate) fn redis_times_out(url: &str) {
    let client = redis::Client::open(url).unwrap();
    let answers = overlap(MANY, MOMENT, move |index| {
        let mut connection = client.get_connection().unwrap();
        connection.blpop::<_, Option<[String; 2]>>(key("empty", index), 0.3).unwrap()
    });
    assert!(answers.iter().all(Option::is_none));
}

/// Each waits for its predecessor: all must be there at once. The first has nobody to wait for.
pub(crate) fn redis_relay(url: &str) {
    let client = redis::Client::open(url).unwrap();
    let answers = overlap(MANY, MOMENT, move |index| {
        let mut connection = client.get_connection().unwrap();
        let steps = if index == 0 {
            thread::sleep(MOMENT);
            0
        } else {
            let [from, steps]: [String; 2] = connection.blpop(key("relay", index), 0.0).unwrap();
            assert_eq!(from, key("relay", index));
            steps.parse::<usize>().unwrap()
        };
        let length: usize = connection.rpush(key("relay", index + 1), steps + 1).unwrap();
        if index + 1 == MANY {
            let _: usize = connection.del(key("relay", MANY)).unwrap();
        }
        (steps, length)
    });
    for (index, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, (index, 1));
    }
}

/// The server may be one that others use.
fn key(what: &str, index: usize) -> String {
    format!("greenloop-{}-{what}-{index}", process::id())
}
