//! The traits of the futures crates for our streams: the same reads and writes, polled.
//!
//! Floor 6. Uses: `stream`. Used by: crates that know no runtime.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll},
};

use futures_io::{AsyncRead, AsyncWrite};

use super::{stream::receive_into, tcp::TcpStream, unix::UnixStream};

macro_rules! polled {
    ($($ours:ident),+) => {$(
        /// As its own `poll_read`.
        impl AsyncRead for $ours {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                $ours::poll_read(self.get_mut(), cx, buf)
            }

            fn poll_read_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                let $ours { socket, reading, .. } = self.get_mut();
                socket.poll_receive(reading, cx, |fd| receive_into(fd, bufs))
            }
        }

        /// As its own `poll_write`. Nothing is buffered here, so flushing is done at once; to close
        /// is to end the direction that writes, as `shutdown(Shutdown::Write)`.
        impl AsyncWrite for $ours {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                $ours::poll_write(self.get_mut(), cx, buf)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                $ours::poll_write_vectored(self.get_mut(), cx, bufs)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self.shutdown(Shutdown::Write))
            }
        }
    )+};
}

polled!(TcpStream, UnixStream);
