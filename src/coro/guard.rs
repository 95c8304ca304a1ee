//! Guards: pages below a stack that fault when they are touched.
//!
//! Floor 0. Uses: madvise(2), mprotect(2). Used by: `pool`.
//!
//! Two ways, chosen once per process by a probe:
//!
//! - `MADV_GUARD_INSTALL` (Linux 6.13): marks pages in the page table and splits no mapping, so a
//!   million guarded stacks fit the default `vm.max_map_count`.
//! - `mprotect(PROT_NONE)` elsewhere: two mappings a stack, so about 32,000 stacks are the limit.
//!
//! Some emulators answer 0 to any advice and do nothing. So the probe also asks the kernel to read
//! the page in (`MADV_POPULATE_READ`), which a real guard refuses with `EFAULT`.

#![expect(unsafe_code, reason = "madvise and mprotect take addresses")]
//! # Safety
//!
//! Each call concerns a range that the caller owns and in which no frame is alive.

use std::{ffi::c_void, io, sync::OnceLock};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

/// Advice numbers from `linux/mman.h`; libc does not name the first yet.
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_POPULATE_READ: i32 = 22;

/// How guards are made in this process.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// By `MADV_GUARD_INSTALL`.
    Advice,
    /// By `mprotect`.
    Protection,
}

/// The way that the probe found, once per process.
pub(super) fn way() -> Way {
    static WAY: OnceLock<Way> = OnceLock::new();
    *WAY.get_or_init(|| if advice_works() { Way::Advice } else { Way::Protection })
}

/// Makes `[address, address + len)` fault when touched, until it is unmapped.
///
/// # Safety
///
/// The range must be whole pages of a private anonymous mapping of the caller, not in use.
pub(super) unsafe fn install(address: usize, len: usize) -> io::Result<()> {
    let pointer: *mut c_void = std::ptr::with_exposed_provenance_mut(address);
    match way() {
        // SAFETY: the caller owns the range and nothing in it is in use, so losing its contents
        // harms nobody.
        Way::Advice => match unsafe { libc::madvise(pointer, len, MADV_GUARD_INSTALL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        },
        Way::Protection => {
            // SAFETY: as above: nobody reads or writes the range.
            unsafe { rustix::mm::mprotect(pointer, len, MprotectFlags::empty()) }?;
            Ok(())
        }
    }
}

fn advice_works() -> bool {
    let len = rustix::param::page_size();
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
    let page =
        unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::PRIVATE) };
    let Ok(page) = page else { return false };
    // SAFETY: the page is ours, just mapped, and never touched.
    let installed = unsafe { libc::madvise(page, len, MADV_GUARD_INSTALL) } == 0;
    // SAFETY: populating our own page reads it in or fails; it changes nothing we rely on.
    let refused = unsafe { libc::madvise(page, len, MADV_POPULATE_READ) } == -1
        && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT);
    // SAFETY: the page is ours and nothing points into it.
    let _ = unsafe { rustix::mm::munmap(page, len) };
    installed && refused
}
