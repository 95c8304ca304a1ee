//! A buffer in parts, of which the first bytes are done.
//!
//! Floor 8. Uses: nothing. Used by: `receive`, `send`.
//!
//! `readv`, `sendmsg` and their kind take an array of parts. When a call has moved some bytes and
//! goes on after a wait, it goes on in the midst of a part. The user's array is not changed; it is
//! copied only for that.

#![expect(unsafe_code, reason = "reads arrays of the user's")]
//! # Safety
//!
//! Arrays are read only after the kernel has read them in the same call, so they are live.

use libc::iovec;

/// The most that one call moves (`MAX_RW_COUNT`).
pub(super) const LENGTH_MAX: usize = 0x7fff_f000;

/// The most parts that one call takes (`UIO_MAXIOV`).
pub(super) const PARTS_MAX: usize = 1024;

/// What is left of a buffer in parts.
pub(super) struct Parts {
    all: Vec<iovec>,
    /// The first that is not done.
    at: usize,
}

/// How many bytes an array of the user's has room for.
///
/// # Safety
///
/// `parts` points to `count` parts; what they point to is not touched.
pub(super) unsafe fn bytes_of(parts: *const iovec, count: usize) -> usize {
    let count = if parts.is_null() { 0 } else { count.min(PARTS_MAX) };
    // SAFETY: the caller's promise; one by one, for C's array may lie unaligned.
    let length = |n| unsafe { parts.wrapping_add(n).read_unaligned() }.iov_len;
    (0..count).map(length).fold(0, usize::saturating_add)
}

impl Parts {
    /// A copy of the user's array, with `done` bytes done.
    ///
    /// # Safety
    ///
    /// `parts` points to `count` parts; what they point to is not touched.
    pub(super) unsafe fn after(parts: *const iovec, count: usize, done: usize) -> Parts {
        let count = if parts.is_null() { 0 } else { count.min(PARTS_MAX) };
        // SAFETY: the caller's promise; one by one, for C's array may lie unaligned.
        let read = |n| unsafe { parts.wrapping_add(n).read_unaligned() };
        let mut left = Parts { all: (0..count).map(read).collect(), at: 0 };
        left.advance(done);
        left
    }

    /// So many bytes more are done.
    pub(super) fn advance(&mut self, mut bytes: usize) {
        while let Some(part) = self.all.get_mut(self.at) {
            if bytes < part.iov_len {
                part.iov_base = part.iov_base.wrapping_byte_add(bytes);
                part.iov_len -= bytes;
                return;
            }
            bytes -= part.iov_len;
            self.at += 1;
        }
    }

    /// What is left, as the kernel takes it.
    pub(super) fn left(&mut self) -> (*mut iovec, usize) {
        let left = &mut self.all[self.at..];
        (left.as_mut_ptr(), left.len())
    }

    /// How many bytes are left.
    pub(super) fn bytes(&self) -> usize {
        self.all[self.at..].iter().fold(0, |sum, part| part.iov_len.saturating_add(sum))
    }
}
