//! PostgreSQL's own client library, which is C.
//!
//! Declared here by hand, as far as it is used, from libpq-fe.h of PostgreSQL 15.
//!
//! # Safety
//! - `PQ-1`: a `Connection` holds what `PQconnectdb` returned, which was not null; it is given back
//!   to `PQfinish` once, when it is dropped. An `Answer` is the same with `PQexec` and `PQclear`.
//! - `PQ-2`: texts that libpq returns end with a zero, and live as long as what they were asked of.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr::NonNull,
    time::Duration,
};

use greenloop_unmodified::overlap;

use crate::MANY;

const CONNECTION_OK: c_int = 0;
const PGRES_TUPLES_OK: c_int = 2;

// SAFETY: names and types are those of the header; what is `safe` takes no pointers.
#[link(name = "pq")]
unsafe extern "C" {
    safe fn PQisthreadsafe() -> c_int;
    fn PQconnectdb(info: *const c_char) -> *mut c_void;
    fn PQstatus(connection: *const c_void) -> c_int;
    fn PQfinish(connection: *mut c_void);
    fn PQexec(connection: *mut c_void, query: *const c_char) -> *mut c_void;
    fn PQresultStatus(answer: *const c_void) -> c_int;
    fn PQgetvalue(answer: *const c_void, row: c_int, column: c_int) -> *mut c_char;
    fn PQclear(answer: *mut c_void);
}

struct Connection(NonNull<c_void>);

impl Connection {
    fn new(url: &CStr) -> Connection {
        // SAFETY: a text that ends with a zero, and is copied.
        let connection = unsafe { PQconnectdb(url.as_ptr()) };
        let connection = Connection(NonNull::new(connection).expect("memory"));
        // SAFETY: it is live: PQ-1.
        let status = unsafe { PQstatus(connection.0.as_ptr()) };
        assert_eq!(status, CONNECTION_OK);
        connection
    }

    fn ask(&mut self, query: &CStr) -> Answer {
        // SAFETY: it is live, PQ-1, and borrowed mutably: nobody else uses it. The text is copied.
        let answer = unsafe { PQexec(self.0.as_ptr(), query.as_ptr()) };
        let answer = Answer(NonNull::new(answer).expect("memory"));
        // SAFETY: it is live: PQ-1.
        let status = unsafe { PQresultStatus(answer.0.as_ptr()) };
        assert_eq!(status, PGRES_TUPLES_OK);
        answer
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: it is live, and this is the only time: PQ-1.
        unsafe { PQfinish(self.0.as_ptr()) }
    }
}

struct Answer(NonNull<c_void>);

impl Answer {
    fn first(&self) -> &str {
        // SAFETY: it is live: PQ-1. There is a first row and column, else libpq returns null.
        let text = unsafe { PQgetvalue(self.0.as_ptr(), 0, 0) };
        assert!(!text.is_null());
        // SAFETY: PQ-2, with the lifetime of `self`.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: it is live, and this is the only time: PQ-1.
        unsafe { PQclear(self.0.as_ptr()) }
    }
}

pub(crate) fn queries(url: &str) {
    assert_eq!(PQisthreadsafe(), 1);
    let url = CString::new(url).unwrap();
    let answers = overlap(MANY, Duration::from_millis(300), move |index| {
        let mut connection = Connection::new(&url);
        let query = format!("select 2 * {index} from pg_sleep(0.3)");
        let answer = connection.ask(&CString::new(query).unwrap());
        answer.first().parse::<usize>().unwrap()
    });
    assert!(answers.into_iter().eq((0..).step_by(2).take(MANY)));
}
