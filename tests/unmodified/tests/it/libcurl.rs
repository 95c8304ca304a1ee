//! curl's library, which is C, and calls back.
//!
//! Declared here by hand, as far as it is used, from curl.h and easy.h of curl 7.88.
//!
//! # Safety
//! - `CURL-1`: a handle is what `curl_easy_init` returned, not null, and lives until `fetch` cleans
//!   it up; only `fetch` has it.
//! - `CURL-2`: `curl_easy_setopt` takes a pointer, a function or a `long`, as the option's number
//!   says: 10000 and up, 20000 and up, or less.
//! - `CURL-3`: during `curl_easy_perform`, libcurl has the only pointer to the `Vec` that is the
//!   option `WRITEDATA`, and gives it to `write`.
#![allow(unsafe_code)]

use std::{
    ffi::{CString, c_char, c_int, c_long, c_uint, c_void},
    ptr, slice,
    time::Duration,
};

use greenloop_unmodified::overlap;

use crate::MANY;

const CURLE_OK: c_int = 0;
const CURLE_OPERATION_TIMEDOUT: c_int = 28;
const CURL_GLOBAL_ALL: c_long = 3;
const CURLOPT_NOSIGNAL: c_uint = 99;
const CURLOPT_TIMEOUT_MS: c_uint = 155;
const CURLOPT_WRITEDATA: c_uint = 10001;
const CURLOPT_URL: c_uint = 10002;
const CURLOPT_WRITEFUNCTION: c_uint = 20011;

type Write = unsafe extern "C" fn(*const c_char, usize, usize, *mut c_void) -> usize;

// SAFETY: names and types are those of the headers; what is `safe` takes no pointers.
#[link(name = "curl")]
unsafe extern "C" {
    safe fn curl_global_init(flags: c_long) -> c_int;
    safe fn curl_easy_init() -> *mut c_void;
    fn curl_easy_setopt(handle: *mut c_void, option: c_uint, ...) -> c_int;
    fn curl_easy_perform(handle: *mut c_void) -> c_int;
    fn curl_easy_cleanup(handle: *mut c_void);
}

/// Called by libcurl with each piece of a body.
///
/// # Safety
/// `piece` has `count` pieces of `size` bytes, and `body` is a `Vec<u8>` that nobody else uses.
unsafe extern "C" fn write(
    piece: *const c_char,
    size: usize,
    count: usize,
    body: *mut c_void,
) -> usize {
    // SAFETY: so many bytes are there, by the contract.
    let piece = unsafe { slice::from_raw_parts(piece.cast::<u8>(), size * count) };
    // SAFETY: it is a `Vec<u8>`, and nobody else uses it: CURL-3.
    let body = unsafe { &mut *body.cast::<Vec<u8>>() };
    body.extend_from_slice(piece);
    piece.len()
}

/// Gets a page; the other end has so many milliseconds, or 0: for ever.
fn fetch(url: &str, limit_ms: c_long) -> Result<Vec<u8>, c_int> {
    let handle = curl_easy_init();
    assert!(!handle.is_null());
    let url = CString::new(url).unwrap();
    let mut body = Vec::new();
    // SAFETY: a `long`: CURL-2.
    unsafe { curl_easy_setopt(handle, CURLOPT_NOSIGNAL, c_long::from(true)) };
    // SAFETY: a `long`: CURL-2.
    unsafe { curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, limit_ms) };
    // SAFETY: a pointer, CURL-2, to a text that ends with a zero, and is copied.
    unsafe { curl_easy_setopt(handle, CURLOPT_URL, url.as_ptr()) };
    // SAFETY: a function, CURL-2, of the type that this option has.
    unsafe { curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, write as Write) };
    // SAFETY: a pointer, CURL-2; `body` outlives its use, which ends with the handle.
    unsafe { curl_easy_setopt(handle, CURLOPT_WRITEDATA, ptr::from_mut(&mut body)) };
    // SAFETY: the handle is live, CURL-1, and `body` is not touched meanwhile: CURL-3.
    let code = unsafe { curl_easy_perform(handle) };
    // SAFETY: the handle is live, and not used any more: CURL-1.
    unsafe { curl_easy_cleanup(handle) };
    if code == CURLE_OK { Ok(body) } else { Err(code) }
}

pub(crate) fn fetches(url: &str, delay: Duration) {
    assert_eq!(curl_global_init(CURL_GLOBAL_ALL), CURLE_OK);
    let url = url.to_owned();
    let answers = overlap(MANY, delay, move |index| fetch(&format!("{url}{index}"), 0));
    for (index, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, Ok(format!("Hello from /{index}").into_bytes()));
    }
}

/// The server says nothing for ever.
pub(crate) fn timeouts(url: &str, limit: Duration) {
    assert_eq!(curl_global_init(CURL_GLOBAL_ALL), CURLE_OK);
    let url = format!("{url}silence");
    let limit_ms = c_long::try_from(limit.as_millis()).unwrap();
    let answers = overlap(MANY, limit, move |_| fetch(&url, limit_ms));
    assert!(answers.into_iter().all(|answer| answer == Err(CURLE_OPERATION_TIMEDOUT)));
}
