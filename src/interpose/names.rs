//! Names of hosts.
//!
//! Floor 8. Uses: `next`. Used by: the names that `interpose!()` defines.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{addrinfo, c_char, c_int, c_uchar, c_void, hostent, size_t, sockaddr, socklen_t},
    next,
};

/// getaddrinfo(3).
pub unsafe extern "C-unwind" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    answer: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::getaddrinfo(node, service, hints, answer) }
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
    // SAFETY: HOOK-1.
    unsafe {
        next::getnameinfo(
            address,
            address_length,
            host,
            host_length,
            service,
            service_length,
            flags,
        )
    }
}

/// gethostbyname(3).
pub unsafe extern "C-unwind" fn gethostbyname(name: *const c_char) -> *mut hostent {
    // SAFETY: HOOK-1.
    unsafe { next::gethostbyname(name) }
}

/// gethostbyname2(3).
pub unsafe extern "C-unwind" fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    // SAFETY: HOOK-1.
    unsafe { next::gethostbyname2(name, family) }
}

/// gethostbyaddr(3).
pub unsafe extern "C-unwind" fn gethostbyaddr(
    address: *const c_void,
    length: socklen_t,
    family: c_int,
) -> *mut hostent {
    // SAFETY: HOOK-1.
    unsafe { next::gethostbyaddr(address, length, family) }
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
    // SAFETY: HOOK-1.
    unsafe { next::gethostbyname_r(name, entry, buffer, length, answer, h_errno) }
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
    // SAFETY: HOOK-1.
    unsafe { next::gethostbyname2_r(name, family, entry, buffer, length, answer, h_errno) }
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
    // SAFETY: HOOK-1.
    unsafe {
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
    }
}

/// res_query(3).
pub unsafe extern "C-unwind" fn res_query(
    name: *const c_char,
    class: c_int,
    kind: c_int,
    answer: *mut c_uchar,
    length: c_int,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::res_query(name, class, kind, answer, length) }
}

/// res_search(3).
pub unsafe extern "C-unwind" fn res_search(
    name: *const c_char,
    class: c_int,
    kind: c_int,
    answer: *mut c_uchar,
    length: c_int,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::res_search(name, class, kind, answer, length) }
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
    // SAFETY: HOOK-1.
    unsafe { next::res_nquery(state, name, class, kind, answer, length) }
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
    // SAFETY: HOOK-1.
    unsafe { next::res_nsearch(state, name, class, kind, answer, length) }
}
