//! What sockets for datagrams share, be they UDP's or local: `send`, `recv`, `peek`.
//!
//! Floor 6. Uses: `socket`. Used by: `udp`, `unix_datagram`.
//!
//! A datagram goes whole or not at all, so what one call moved says nothing about the next one:
//! always `Moved::All` (`NET-2`).

use std::io;

use rustix::net::{RecvFlags, SocketAddrAny, recv, recvfrom, send};

use super::{
    socket::Socket,
    stream::{RECEIVE, SEND},
    udp::UdpSocket,
    unix_datagram::UnixDatagram,
};
use crate::hub::io::Moved;

/// Waits for a datagram, and who sent it.
pub(super) fn receive_from(
    socket: &Socket,
    buf: &mut [u8],
    flags: RecvFlags,
) -> io::Result<(usize, Option<SocketAddrAny>)> {
    socket.receive(|fd| {
        let (n, _, from) = recvfrom(fd, &mut *buf, flags)?;
        Ok(((n, from), Moved::All))
    })
}

fn receive(socket: &Socket, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    socket.receive(|fd| Ok((recv(fd, &mut *buf, flags)?.0, Moved::All)))
}

macro_rules! datagrams {
    ($($ours:ident),+) => {$(
        impl $ours {
            /// Waits for a datagram from whom this socket is connected to, or from anybody.
            ///
            /// Shape: what does not fit into `buf` is cut off and lost.
            ///
            /// # Errors
            ///
            /// Those of recv(2), such as `ConnectionRefused` for what was sent before; `TimedOut`
            /// after the read timeout; `NotConnected` after [`close`](Self::close);
            /// [`Killed`](crate::Killed) inside an error of kind `Other` where a kill cannot
            /// unwind; outside [`run`](crate::run), an error that says so.
            ///
            /// # Cancellation
            ///
            /// Cancellation point: always. On cancel nothing was received.
            pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
                receive(&self.socket, buf, RECEIVE)
            }

            /// As [`recv`](Self::recv), but the datagram stays to be received.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            ///
            /// # Cancellation
            ///
            /// Cancellation point: always.
            pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
                receive(&self.socket, buf, RECEIVE | RecvFlags::PEEK)
            }

            /// Sends a datagram to whom this socket is connected to.
            ///
            /// # Errors
            ///
            /// Those of send(2), such as `NotConnected` when it is connected to nobody and
            /// `EMSGSIZE` when the datagram is too large; `TimedOut` after the write timeout; and
            /// otherwise as [`recv`](Self::recv).
            ///
            /// # Cancellation
            ///
            /// Cancellation point: always. On cancel nothing was sent.
            pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
                self.socket.send(|fd| Ok((send(fd, buf, SEND)?, Moved::All)))
            }
        }
    )+};
}

datagrams!(UdpSocket, UnixDatagram);
