//! hyper's own traits for our streams: the same reads and writes, polled.
//!
//! Floor 6. Uses: `stream`. Used by: hyper. Its timers and its tasks: `bridge`.

#![expect(unsafe_code, reason = "hyper lends memory that is not initialised yet")]
//! # Safety
//!
//! What recv(2) has written, and no more, is said to be initialised.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use rustix::net::recv;

use super::{socket::moved, stream::RECEIVE, tcp::TcpStream, unix::UnixStream};
use crate::hub::io::Moved;

/// A read of a local connection may have stopped at descriptors that came along, which recv(2) does
/// not tell: so it says nothing of what is behind (`NET-2`).
fn some(n: usize, _: usize) -> (usize, Moved) {
    (n, Moved::All)
}

macro_rules! polled {
    ($($ours:ident by $moved:ident),+) => {$(
        /// As its own `poll_read`.
        impl Read for $ours {
            #[inline]
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                mut buf: ReadBufCursor<'_>,
            ) -> Poll<io::Result<()>> {
                let $ours { socket, reading, .. } = self.get_mut();
                // SAFETY: `as_mut` asks that nothing be made uninitialised: recv writes bytes, or
                // nothing.
                let room = unsafe { buf.as_mut() };
                let n = ready!(socket.poll_receive(reading, cx, |fd| {
                    let ((received, _), _) = recv(fd, &mut *room, RECEIVE)?;
                    Ok($moved(received.len(), room.len()))
                }))?;
                // SAFETY: recv has initialised `n` bytes at the beginning of what is not filled
                // yet.
                unsafe { buf.advance(n) };
                Poll::Ready(Ok(()))
            }
        }

        /// As its own `poll_write`. Nothing is buffered here, so flushing is done at once.
        impl Write for $ours {
            #[inline]
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                $ours::poll_write(self.get_mut(), cx, buf)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self.shutdown(Shutdown::Write))
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                $ours::poll_write_vectored(self.get_mut(), cx, bufs)
            }
        }
    )+};
}

polled!(TcpStream by moved, UnixStream by some);
