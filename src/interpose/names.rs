//! Names of hosts: the system's resolver, asked by the threads that ask it for `net`, too.
//!
//! Floor 8. Uses: `next`, `elsewhere`. Used by: the names that `interpose!()` defines.
//!
//! glibc's resolver blocks in calls of its own that no hook can see. So a guest has it asked by
//! another OS thread, with copies of the arguments, and is parked meanwhile; the answer is copied
//! back, or, of getaddrinfo(3), handed over: it is the next definition's own memory, and
//! freeaddrinfo(3) frees it. Addresses that are written out are not looked up, and need no thread.
//!
//! The functions that answer in static memory answer in the guest's own: each virtual thread has
//! its answer, and keeps it until it asks again, or ends. The other thread's `_res` counts, not the
//! guest's.
//!
//! A kill, or a timeout around the call, is an error: `EAI_SYSTEM` with `ECANCELED` or `ETIMEDOUT`,
//! `NETDB_INTERNAL` with the same, or -1.
//!
//! # Invariants
//!
//! - `NAMES-1` An entry and its pointers lie in one buffer, as those of gethostbyname_r(3) do, or
//!   are null: moved together by the same distance, they are valid where they come to lie.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`), or are read as their manual page says they may
//! be, and copied (`ELSEWHERE-1`). Answers are copied within the sizes that the caller gave.

use std::{
    cell::RefCell,
    ffi::{CStr, CString},
    net::IpAddr,
    ptr::{null, null_mut},
};

use super::{
    __c::{addrinfo, c_char, c_int, c_uchar, c_void, hostent, size_t, sockaddr, socklen_t},
    early::{errno, set_errno},
    elsewhere::{By, Sent, by_another_thread, by_another_thread_to_its_end},
    next,
};
use crate::hub::guest::{Guest, guest};

/// getaddrinfo(3).
pub unsafe extern "C-unwind" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    answer: *mut *mut addrinfo,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::getaddrinfo(node, service, hints, answer) };
    };
    // SAFETY: a string or null, as the manual page says.
    let node_text = unsafe { text(node) };
    // SAFETY: as above.
    let service_text = unsafe { text(service) };
    // SAFETY: null, or the caller's hints.
    let wanted = unsafe { hints.as_ref() };
    let flags = wanted.map_or(0, |wanted| wanted.ai_flags);
    if flags & libc::AI_NUMERICHOST != 0 || node_text.as_deref().is_none_or(is_literal) {
        // SAFETY: HOOK-1.
        return unsafe { next::getaddrinfo(node, service, hints, answer) };
    }
    let wanted = wanted.map(|wanted| addrinfo {
        ai_addr: null_mut(),
        ai_canonname: null_mut(),
        ai_next: null_mut(),
        ..*wanted
    });
    // SAFETY: without its pointers, which must be null, it is numbers.
    let wanted = unsafe { Sent::new(wanted) };
    let told = by_another_thread(guest, By::Resolver, move || {
        let wanted = wanted.into_inner();
        let hints = wanted.as_ref().map_or(null(), |wanted| &raw const *wanted);
        let mut list = Addresses(null_mut());
        let [node, service] = [&node_text, &service_text].map(pointer);
        // SAFETY: HOOK-1, with copies.
        let code = unsafe { next::getaddrinfo(node, service, hints, &raw mut list.0) };
        (code, errno(), list)
    });
    match told {
        Ok((0, _, list)) => {
            // SAFETY: the caller's place for the answer.
            unsafe { answer.write(list.into_inner()) };
            0
        }
        Ok((code, errno, _)) => {
            set_errno(errno);
            code
        }
        Err(errno) => {
            set_errno(errno);
            libc::EAI_SYSTEM
        }
    }
}

/// getnameinfo(3).
pub unsafe extern "C-unwind" fn getnameinfo(
    address: *const sockaddr,
    address_length: socklen_t,
    host: *mut c_char,
    host_length: socklen_t,
    service: *mut c_char,
    service_length: socklen_t,
    flags: c_int,
) -> c_int {
    let numbers = libc::NI_NUMERICHOST | libc::NI_NUMERICSERV;
    let guest = guest().filter(|_| flags & numbers != numbers);
    let Some(guest) = guest else {
        // SAFETY: HOOK-1.
        return unsafe {
            next::getnameinfo(
                address,
                address_length,
                host,
                host_length,
                service,
                service_length,
                flags,
            )
        };
    };
    // SAFETY: that many bytes are an address, says the caller.
    let address = unsafe { bytes(address.cast(), address_length) };
    let lengths = [(host, host_length), (service, service_length)];
    let lengths = lengths.map(|(place, length)| if place.is_null() { 0 } else { length });
    let told = by_another_thread(guest, By::Resolver, move || {
        // The address is read as what it is, so it must be aligned as that.
        let mut aligned = vec![0_u64; address.len().div_ceil(8)];
        // SAFETY: both have that many bytes.
        unsafe {
            aligned
                .as_mut_ptr()
                .cast::<u8>()
                .copy_from_nonoverlapping(address.as_ptr(), address.len())
        };
        let mut texts = lengths.map(|length| vec![0_u8; length as usize]);
        let [host, service] = texts.each_mut().map(|text| match text.len() {
            0 => null_mut(),
            _ => text.as_mut_ptr().cast(),
        });
        let address = aligned.as_ptr().cast();
        let [host_length, service_length] = lengths;
        // SAFETY: HOOK-1, with copies.
        let code = unsafe {
            next::getnameinfo(
                address,
                address_length,
                host,
                host_length,
                service,
                service_length,
                flags,
            )
        };
        (code, errno(), texts)
    });
    match told {
        Ok((0, _, texts)) => {
            for (place, text) in [host, service].into_iter().zip(texts) {
                // SAFETY: as many bytes as the caller has room for, none if there is no place.
                unsafe { copy_out(&text, place.cast()) };
            }
            0
        }
        Ok((code, errno, _)) => {
            set_errno(errno);
            code
        }
        Err(errno) => {
            set_errno(errno);
            libc::EAI_SYSTEM
        }
    }
}

/// gethostbyname(3).
pub unsafe extern "C-unwind" fn gethostbyname(name: *const c_char) -> *mut hostent {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::gethostbyname(name) };
    };
    // SAFETY: the caller's string.
    let name = unsafe { text(name) };
    own_entry(guest, move |entry, buffer, length, answer, h_errno| {
        // SAFETY: HOOK-1, with a copy, and with room of the lengths that are said.
        unsafe { next::gethostbyname_r(pointer(&name), entry, buffer, length, answer, h_errno) }
    })
}

/// gethostbyname2(3).
pub unsafe extern "C-unwind" fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::gethostbyname2(name, family) };
    };
    // SAFETY: the caller's string.
    let name = unsafe { text(name) };
    own_entry(guest, move |entry, buffer, length, answer, h_errno| {
        let name = pointer(&name);
        // SAFETY: HOOK-1, with a copy, and with room of the lengths that are said.
        unsafe { next::gethostbyname2_r(name, family, entry, buffer, length, answer, h_errno) }
    })
}

/// gethostbyaddr(3).
pub unsafe extern "C-unwind" fn gethostbyaddr(
    address: *const c_void,
    length: socklen_t,
    family: c_int,
) -> *mut hostent {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::gethostbyaddr(address, length, family) };
    };
    // SAFETY: that many bytes are an address, says the caller.
    let copy = unsafe { bytes(address.cast(), length) };
    own_entry(guest, move |entry, buffer, room, answer, h_errno| {
        let address = copy.as_ptr().cast();
        // SAFETY: HOOK-1, with a copy, and with room of the lengths that are said.
        unsafe {
            next::gethostbyaddr_r(address, length, family, entry, buffer, room, answer, h_errno)
        }
    })
}

/// gethostbyname_r(3).
pub unsafe extern "C-unwind" fn gethostbyname_r(
    name: *const c_char,
    entry: *mut hostent,
    buffer: *mut c_char,
    length: size_t,
    answer: *mut *mut hostent,
    h_errno: *mut c_int,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::gethostbyname_r(name, entry, buffer, length, answer, h_errno) };
    };
    // SAFETY: the caller's string.
    let name = unsafe { text(name) };
    let place = Place { entry, buffer, length, answer, h_errno };
    callers_entry(guest, place, move |entry, buffer, length, answer, h_errno| {
        // SAFETY: HOOK-1, with a copy, and with room of the lengths that are said.
        unsafe { next::gethostbyname_r(pointer(&name), entry, buffer, length, answer, h_errno) }
    })
}

/// gethostbyname2_r(3).
pub unsafe extern "C-unwind" fn gethostbyname2_r(
    name: *const c_char,
    family: c_int,
    entry: *mut hostent,
    buffer: *mut c_char,
    length: size_t,
    answer: *mut *mut hostent,
    h_errno: *mut c_int,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe {
            next::gethostbyname2_r(name, family, entry, buffer, length, answer, h_errno)
        };
    };
    // SAFETY: the caller's string.
    let name = unsafe { text(name) };
    let place = Place { entry, buffer, length, answer, h_errno };
    callers_entry(guest, place, move |entry, buffer, length, answer, h_errno| {
        let name = pointer(&name);
        // SAFETY: HOOK-1, with a copy, and with room of the lengths that are said.
        unsafe { next::gethostbyname2_r(name, family, entry, buffer, length, answer, h_errno) }
    })
}

/// gethostbyaddr_r(3).
pub unsafe extern "C-unwind" fn gethostbyaddr_r(
    address: *const c_void,
    address_length: socklen_t,
    family: c_int,
    entry: *mut hostent,
    buffer: *mut c_char,
    length: size_t,
    answer: *mut *mut hostent,
    h_errno: *mut c_int,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe {
            next::gethostbyaddr_r(
                address,
                address_length,
                family,
                entry,
                buffer,
                length,
                answer,
                h_errno,
            )
        };
    };
    // SAFETY: that many bytes are an address, says the caller.
    let copy = unsafe { bytes(address.cast(), address_length) };
    let place = Place { entry, buffer, length, answer, h_errno };
    callers_entry(guest, place, move |entry, buffer, room, answer, h_errno| {
        let address = copy.as_ptr().cast();
        // SAFETY: HOOK-1, with a copy, and with room of the lengths that are said.
        unsafe {
            next::gethostbyaddr_r(
                address,
                address_length,
                family,
                entry,
                buffer,
                room,
                answer,
                h_errno,
            )
        }
    })
}

/// res_query(3).
pub unsafe extern "C-unwind" fn res_query(
    name: *const c_char,
    class: c_int,
    kind: c_int,
    answer: *mut c_uchar,
    length: c_int,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::res_query(name, class, kind, answer, length) };
    };
    // SAFETY: the caller's string.
    let name = unsafe { text(name) };
    let told = by_another_thread(guest, By::Resolver, move || {
        let mut room = vec![0_u8; length.max(0) as usize];
        // SAFETY: HOOK-1, with a copy, and with room of that length.
        let got =
            unsafe { next::res_query(pointer(&name), class, kind, room.as_mut_ptr(), length) };
        (got, errno(), h_errno(), room)
    });
    // SAFETY: the caller's room, of that length.
    unsafe { answer_of(told, answer) }
}

/// res_search(3).
pub unsafe extern "C-unwind" fn res_search(
    name: *const c_char,
    class: c_int,
    kind: c_int,
    answer: *mut c_uchar,
    length: c_int,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::res_search(name, class, kind, answer, length) };
    };
    // SAFETY: the caller's string.
    let name = unsafe { text(name) };
    let told = by_another_thread(guest, By::Resolver, move || {
        let mut room = vec![0_u8; length.max(0) as usize];
        // SAFETY: HOOK-1, with a copy, and with room of that length.
        let got =
            unsafe { next::res_search(pointer(&name), class, kind, room.as_mut_ptr(), length) };
        (got, errno(), h_errno(), room)
    });
    // SAFETY: the caller's room, of that length.
    unsafe { answer_of(told, answer) }
}

/// res_nquery(3).
pub unsafe extern "C-unwind" fn res_nquery(
    state: *mut c_void,
    name: *const c_char,
    class: c_int,
    kind: c_int,
    answer: *mut c_uchar,
    length: c_int,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::res_nquery(state, name, class, kind, answer, length) };
    };
    // SAFETY: the guest does not return before the other thread is done with them.
    let given = unsafe { Sent::new((state, name, answer)) };
    let told = by_another_thread_to_its_end(guest, By::Resolver, move || {
        let (state, name, answer) = given.into_inner();
        // SAFETY: HOOK-1.
        let got = unsafe { next::res_nquery(state, name, class, kind, answer, length) };
        (got, errno(), h_errno())
    });
    result_of(told)
}

/// res_nsearch(3).
pub unsafe extern "C-unwind" fn res_nsearch(
    state: *mut c_void,
    name: *const c_char,
    class: c_int,
    kind: c_int,
    answer: *mut c_uchar,
    length: c_int,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::res_nsearch(state, name, class, kind, answer, length) };
    };
    // SAFETY: the guest does not return before the other thread is done with them.
    let given = unsafe { Sent::new((state, name, answer)) };
    let told = by_another_thread_to_its_end(guest, By::Resolver, move || {
        let (state, name, answer) = given.into_inner();
        // SAFETY: HOOK-1.
        let got = unsafe { next::res_nsearch(state, name, class, kind, answer, length) };
        (got, errno(), h_errno())
    });
    result_of(told)
}

/// The caller's string, copied. None: it is null.
///
/// # Safety
///
/// Null, or a string that ends with a zero.
unsafe fn text(string: *const c_char) -> Option<CString> {
    // SAFETY: the caller's promise.
    (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) }.to_owned())
}

/// A string for C, or null.
fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(null(), |text| text.as_ptr())
}

/// The caller's bytes, copied.
///
/// # Safety
///
/// Null, or that many bytes.
unsafe fn bytes(start: *const u8, length: socklen_t) -> Vec<u8> {
    if start.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(start, length as usize) }.to_vec()
}

/// Copies `from` to `to`.
///
/// # Safety
///
/// `to` has room for it.
unsafe fn copy_out(from: &[u8], to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
}

/// Whether it is an address that is written out.
fn is_literal(node: &CStr) -> bool {
    node.to_str().is_ok_and(|node| node.parse::<IpAddr>().is_ok())
}

/// A list of getaddrinfo(3), freed if nobody takes it.
struct Addresses(*mut addrinfo);

// SAFETY: a list is memory that any thread may read and free.
unsafe impl Send for Addresses {}

impl Addresses {
    fn into_inner(self) -> *mut addrinfo {
        let list = self.0;
        std::mem::forget(self);
        list
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: getaddrinfo has given it, and nobody else has it.
            unsafe { libc::freeaddrinfo(self.0) };
        }
    }
}

unsafe extern "C" {
    fn __h_errno_location() -> *mut c_int;
}

/// `h_errno` of this thread.
fn h_errno() -> c_int {
    // SAFETY: it gives the address of the thread's own word.
    let place = unsafe { __h_errno_location() };
    // SAFETY: as above.
    unsafe { place.read() }
}

/// Sets `h_errno` of this thread.
fn set_h_errno(value: c_int) {
    // SAFETY: it gives the address of the thread's own word.
    let place = unsafe { __h_errno_location() };
    // SAFETY: as above.
    unsafe { place.write(value) };
}

/// `h_errno`: see errno.
const NETDB_INTERNAL: c_int = -1;

/// The result of a query that answers where the caller said, with its errno and `h_errno`.
fn result_of(told: Result<(c_int, c_int, c_int), c_int>) -> c_int {
    let (result, errno, h_errno) = told.unwrap_or_else(|errno| (-1, errno, NETDB_INTERNAL));
    if result < 0 {
        set_errno(errno);
        set_h_errno(h_errno);
    }
    result
}

/// As `result_of`, of a query with an answer of its own, which is copied to `place`.
///
/// # Safety
///
/// `place` has room for it.
unsafe fn answer_of(
    told: Result<(c_int, c_int, c_int, Vec<u8>), c_int>,
    place: *mut c_uchar,
) -> c_int {
    let told = told.map(|(result, errno, h_errno, answer)| {
        let length = (result.max(0) as usize).min(answer.len());
        // SAFETY: the caller's promise.
        unsafe { copy_out(&answer[..length], place) };
        (result, errno, h_errno)
    });
    result_of(told)
}

/// An entry of the table of hosts, with the buffer that it points into.
struct Entry {
    host: Box<hostent>,
    /// Aligned as pointers are, which libc makes use of.
    buffer: Vec<u64>,
    /// How far into the buffer the part begins that libc was given.
    skipped: usize,
}

// SAFETY: it points to nothing but what it owns (NAMES-1).
unsafe impl Send for Entry {}

/// What gethostbyname_r(3) has said.
struct Told {
    code: c_int,
    /// Whether there is an answer.
    is_found: bool,
    h_errno: c_int,
    errno: c_int,
    entry: Entry,
}

/// Asks libc for an entry, in a buffer of `length` bytes that begins at `skipped` modulo 8.
fn ask_entry(
    length: usize,
    skipped: usize,
    ask: &impl Fn(*mut hostent, *mut c_char, size_t, *mut *mut hostent, *mut c_int) -> c_int,
) -> Told {
    let mut buffer = vec![0_u64; (length + skipped).div_ceil(8)];
    let mut host = Box::new(hostent {
        h_name: null_mut(),
        h_aliases: null_mut(),
        h_addrtype: 0,
        h_length: 0,
        h_addr_list: null_mut(),
    });
    let (mut found, mut h_errno) = (null_mut(), 0);
    let start = buffer.as_mut_ptr().cast::<c_char>().wrapping_add(skipped);
    let code = ask(&raw mut *host, start, length, &raw mut found, &raw mut h_errno);
    let entry = Entry { host, buffer, skipped };
    Told { code, is_found: code == 0 && !found.is_null(), h_errno, errno: errno(), entry }
}

thread_local! {
    /// The last answer of a function that answers in static memory.
    static LAST: RefCell<Option<Entry>> = const { RefCell::new(None) };
}

/// The largest answer: enough for any that a name server can give.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Asks for an entry, and keeps it where the guest's last one was.
fn own_entry(
    guest: Guest,
    ask: impl Fn(*mut hostent, *mut c_char, size_t, *mut *mut hostent, *mut c_int) -> c_int
    + Send
    + 'static,
) -> *mut hostent {
    let told = by_another_thread(guest, By::Resolver, move || {
        let mut length = 1024;
        loop {
            let told = ask_entry(length, 0, &ask);
            if told.code != libc::ERANGE || length >= ANSWER_BYTES_MAX {
                return told;
            }
            length *= 4;
        }
    });
    let told = match told {
        Ok(told) if told.is_found => told,
        Ok(told) => {
            set_errno(told.errno);
            set_h_errno(told.h_errno);
            return null_mut();
        }
        Err(errno) => {
            set_errno(errno);
            set_h_errno(NETDB_INTERNAL);
            return null_mut();
        }
    };
    let kept = LAST.try_with(|last| {
        let mut last = last.borrow_mut();
        &raw mut *last.insert(told.entry).host
    });
    // In a destructor of a thread-local, after that of the answers.
    kept.unwrap_or_else(|_| {
        set_h_errno(NETDB_INTERNAL);
        null_mut()
    })
}

/// Where the caller of gethostbyname_r(3) wants the answer.
struct Place {
    entry: *mut hostent,
    buffer: *mut c_char,
    length: size_t,
    answer: *mut *mut hostent,
    h_errno: *mut c_int,
}

/// Asks for an entry, and moves it to where the caller wants it.
fn callers_entry(
    guest: Guest,
    place: Place,
    ask: impl Fn(*mut hostent, *mut c_char, size_t, *mut *mut hostent, *mut c_int) -> c_int
    + Send
    + 'static,
) -> c_int {
    // As far from where pointers may lie as the caller's, so that they may lie in the same places.
    let skipped = place.buffer.addr() % 8;
    let length = place.length;
    let told = by_another_thread(guest, By::Resolver, move || ask_entry(length, skipped, &ask));
    let (code, h_errno, entry) = match &told {
        Ok(told) => (told.code, told.h_errno, told.is_found.then_some(&told.entry)),
        Err(errno) => (*errno, NETDB_INTERNAL, None),
    };
    let found = entry.map_or(null_mut(), |entry| {
        // SAFETY: the caller's buffer and place, which have room for what lay in such.
        unsafe { entry.move_to(&place) };
        place.entry
    });
    // SAFETY: the caller's place.
    unsafe { place.answer.write(found) };
    // SAFETY: the caller's place.
    unsafe { place.h_errno.write(h_errno) };
    code
}

impl Entry {
    /// Copies the entry and its buffer to `place`, with pointers that point there.
    ///
    /// # Safety
    ///
    /// The buffer there is as long as ours, and begins as far from a multiple of 8.
    unsafe fn move_to(&self, place: &Place) {
        let from = self.buffer.as_ptr().cast::<c_char>().wrapping_add(self.skipped);
        // SAFETY: the caller's promise.
        unsafe { place.buffer.copy_from_nonoverlapping(from, place.length) };
        // Into the copy, at the same distance (NAMES-1).
        let moved = |pointer: *mut c_char| match pointer.is_null() {
            true => pointer,
            false => place.buffer.wrapping_add(pointer.addr().wrapping_sub(from.addr())),
        };
        let list = |list: *mut *mut c_char| {
            let list = moved(list.cast()).cast::<*mut c_char>();
            let mut next = list;
            while !list.is_null() {
                // SAFETY: a list of pointers in the copy, up to a null (NAMES-1).
                let pointer = unsafe { next.read() };
                if pointer.is_null() {
                    break;
                }
                // SAFETY: as above.
                unsafe { next.write(moved(pointer)) };
                next = next.wrapping_add(1);
            }
            list
        };
        let entry = hostent {
            h_name: moved(self.host.h_name),
            h_aliases: list(self.host.h_aliases),
            h_addr_list: list(self.host.h_addr_list),
            ..*self.host
        };
        // SAFETY: the caller's place for an entry.
        unsafe { place.entry.write(entry) };
    }
}
