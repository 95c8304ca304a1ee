//! What streams of bytes share, be they TCP's or local: reads, writes, and polls for futures.
//!
//! Floor 6. Uses: `socket`. Used by: `tcp`, `unix`, and by the traits of other crates.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::fd::BorrowedFd,
    task::{Context, Poll},
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, recv, recvmsg,
        send, sendmsg,
    },
};

use super::{
    socket::{BUFFERS_MAX, moved},
    tcp::TcpStream,
    unix::UnixStream,
};
use crate::hub::io::Moved;

/// Never waits, also if somebody with a duplicate has put the open socket into blocking mode.
pub(super) const RECEIVE: RecvFlags = RecvFlags::DONTWAIT;

/// The same, and no signal when the peer is gone (`NET-3`).
pub(super) const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Receives into one buffer, of a TCP connection.
#[inline(always)]
fn receive_tcp(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<(usize, Moved), Errno> {
    let (n, _) = recv(fd, &mut *buf, RECEIVE)?;
    Ok(moved(n, buf.len()))
}

/// The same, of a local one: whether descriptors came along, only recvmsg(2) tells.
#[inline(always)]
fn receive_local(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<(usize, Moved), Errno> {
    receive_into(fd, &mut [IoSliceMut::new(buf)])
}

/// Receives into several buffers.
pub(super) fn receive_into(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
) -> Result<(usize, Moved), Errno> {
    let count = bufs.len().min(BUFFERS_MAX);
    let bufs = &mut bufs[..count];
    let asked = bufs.iter().map(|buf| buf.len()).sum();
    let received = recvmsg(fd, bufs, &mut RecvAncillaryBuffer::default(), RECEIVE)?;
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // Descriptors of a local peer came along, and were let go. That is where the kernel stops,
        // whatever is behind (NET-2).
        return Ok((received.bytes, Moved::All));
    }
    Ok(moved(received.bytes, asked))
}

/// Sends out of several buffers.
fn send_from(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> Result<(usize, Moved), Errno> {
    let bufs = &bufs[..bufs.len().min(BUFFERS_MAX)];
    let asked = bufs.iter().map(|buf| buf.len()).sum();
    let sent = sendmsg(fd, bufs, &mut SendAncillaryBuffer::default(), SEND)?;
    Ok(moved(sent, asked))
}

macro_rules! streams {
    ($($ours:ident by $receive:ident),+) => {$(
        impl $ours {
            /// Reads without taking out of the connection what it reads.
            ///
            /// # Errors
            ///
            /// As a read.
            ///
            /// # Cancellation
            ///
            /// Cancellation point: always. On cancel nothing has changed.
            pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
                // Not `moved`: what was peeked at is still there, so nothing says that a read would
                // block.
                self.socket.receive(|fd| {
                    let (n, _) = recv(fd, &mut *buf, RECEIVE | RecvFlags::PEEK)?;
                    Ok((n, Moved::All))
                })
            }

            /// Reads for a future: where [`read`](Read::read) would park, its waker is kept, and
            /// called when there is something to read.
            ///
            /// Shape: as a `poll` function of its own, it may be called by any future that is
            /// polled on a thread where [`run`](crate::run) runs, whoever polls it; the newest
            /// waker counts. The read timeout and [`set_nonblocking`](Self::set_nonblocking)
            /// concern calls that park, and do not count here. The stream may move to another
            /// thread between two calls. After 128 operations without waiting it lets the others
            /// run first: it wakes the future and is `Pending`, until the greenlet that polls has
            /// parked or yielded. (Another crate's `block_on` does neither.)
            ///
            /// # Errors
            ///
            /// As a read.
            ///
            /// # Cancellation
            ///
            /// Cancellation point: never. A future that is dropped while it waits has read nothing.
            ///
            /// # Source
            ///
            /// The `poll_read` of futures' `AsyncRead`, which needs the feature `futures-io`.
            #[inline]
            pub fn poll_read(
                &mut self,
                context: &mut Context<'_>,
                buf: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                self.socket.poll_receive(&mut self.reading, context, |fd| $receive(fd, buf))
            }

            /// Writes for a future; otherwise as [`poll_read`](Self::poll_read).
            ///
            /// # Errors
            ///
            /// As a write.
            ///
            /// # Cancellation
            ///
            /// Cancellation point: never. A future that is dropped while it waits has written
            /// nothing.
            #[inline]
            pub fn poll_write(
                &mut self,
                context: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.socket.poll_send(&mut self.writing, context, |fd| {
                    Ok(moved(send(fd, buf, SEND)?, buf.len()))
                })
            }

            /// Writes out of several buffers; otherwise as [`poll_write`](Self::poll_write).
            ///
            /// # Errors
            ///
            /// As a write.
            pub fn poll_write_vectored(
                &mut self,
                context: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.socket.poll_send(&mut self.writing, context, |fd| send_from(fd, bufs))
            }
        }

        impl Read for &$ours {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.socket.receive(|fd| $receive(fd, buf))
            }

            fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.socket.receive(|fd| receive_into(fd, bufs))
            }
        }

        impl Write for &$ours {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.socket.send(|fd| Ok(moved(send(fd, buf, SEND)?, buf.len())))
            }

            fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                self.socket.send(|fd| send_from(fd, bufs))
            }

            /// Does nothing: what was written is the kernel's.
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Read for $ours {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                (&*self).read(buf)
            }

            fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                (&*self).read_vectored(bufs)
            }
        }

        impl Write for $ours {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                (&*self).write(buf)
            }

            fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                (&*self).write_vectored(bufs)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
    )+};
}

streams!(TcpStream by receive_tcp, UnixStream by receive_local);
