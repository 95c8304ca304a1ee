//! UDP.
//!
//! Floor 6. Uses: `socket`, `address`. Used by: users. What it shares with local datagrams is in
//! `datagram`.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rustix::net::{RecvFlags, SocketType, bind, connect, sendto, sockopt};

use super::{
    address::{ToSocketAddrs, each_address},
    datagram::receive_from,
    socket::Socket,
    stream::{RECEIVE, SEND},
};
use crate::hub::io::Moved;

/// A UDP socket: [`std::net::UdpSocket`] that parks the greenlet instead of the thread.
///
/// Several greenlets, also of several threads, may send and receive by one socket.
///
/// # Examples
///
/// ```
/// use greenloop::net::UdpSocket;
/// # fn main() -> std::io::Result<()> {
/// greenloop::run(|| {
///     let server = UdpSocket::bind("127.0.0.1:0")?;
///     let address = server.local_addr()?;
///     greenloop::spawn(move || {
///         let mut buf = [0; 1500];
///         let (n, from) = server.recv_from(&mut buf)?;
///         server.send_to(&buf[..n], from)
///     });
///     let client = UdpSocket::bind("127.0.0.1:0")?;
///     client.connect(address)?;
///     client.send(b"hello")?;
///     let mut echo = [0; 64];
///     let n = client.recv(&mut echo)?;
///     assert_eq!(&echo[..n], b"hello");
///     Ok(())
/// })
/// # }
/// ```
///
/// # Source
///
/// [`std::net::UdpSocket`]; udp(7).
pub struct UdpSocket {
    pub(super) socket: Socket,
}

impl UdpSocket {
    /// Binds to the first of the addresses that can be had.
    ///
    /// Shape: works outside [`run`](crate::run), unless a name must be looked up.
    ///
    /// # Errors
    ///
    /// The error of the last address that was tried; what the resolver says of a name;
    /// `InvalidInput` when there is no address.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: for names, always; otherwise never.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpSocket> {
        each_address(addr, |address| {
            let socket = Socket::for_address(&address, SocketType::DGRAM)?;
            bind(&socket.source, &address)?;
            Ok(UdpSocket::from_socket(socket))
        })
    }

    /// Sends to, and receives from, one address alone from now on: the first that can be had.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: for names, always; otherwise never.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        each_address(addr, |address| Ok(connect(&self.socket.source, &address)?))
    }

    /// Waits for a datagram, and who sent it.
    ///
    /// Shape: what does not fit into `buf` is cut off and lost.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel nothing was received.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive_from(buf, RECEIVE)
    }

    /// As [`recv_from`](Self::recv_from), but the datagram stays to be received.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always.
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive_from(buf, RECEIVE | RecvFlags::PEEK)
    }

    fn receive_from(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<(usize, SocketAddr)> {
        let (n, from) = receive_from(&self.socket, buf, flags)?;
        // Linux says who it was, unless the socket was shut down.
        let from = from.ok_or(io::ErrorKind::NotConnected)?;
        Ok((n, from.try_into()?))
    }

    /// Sends a datagram to the first of the addresses.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); `InvalidInput` when there is no address; what the resolver says of
    /// a name.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel nothing was sent.
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "no addresses to send data to");
        let address = addr.to_socket_addrs()?.next().ok_or_else(none)?;
        self.socket.send(|fd| Ok((sendto(fd, buf, SEND, &address)?, Moved::All)))
    }

    /// Joins a group of multicast, on the interface with the address `interface`, or on any.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn join_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        Ok(sockopt::set_ip_add_membership(&self.socket.source, multiaddr, interface)?)
    }

    /// Leaves a group of multicast.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn leave_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        Ok(sockopt::set_ip_drop_membership(&self.socket.source, multiaddr, interface)?)
    }

    /// Joins a group of multicast, on the interface with the number `interface`, or 0 for any.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn join_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        Ok(sockopt::set_ipv6_add_membership(&self.socket.source, multiaddr, interface)?)
    }

    /// Leaves a group of multicast.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn leave_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        Ok(sockopt::set_ipv6_drop_membership(&self.socket.source, multiaddr, interface)?)
    }
}

macro_rules! options {
    ($($what:literal, $of:literal:
        $get:ident by $ask:ident, $set:ident by $tell:ident: $t:ty;)+) => {
        impl UdpSocket {$(
            #[doc = concat!($what, " (`", $of, "`).")]
            ///
            /// # Errors
            ///
            /// Those of getsockopt(2).
            pub fn $get(&self) -> io::Result<$t> {
                Ok(sockopt::$ask(&self.socket.source)?)
            }

            #[doc = concat!("Sets the option `", $of, "`; see [`", stringify!($get), "`](Self::",
                stringify!($get), ").")]
            ///
            /// # Errors
            ///
            /// Those of setsockopt(2).
            pub fn $set(&self, value: $t) -> io::Result<()> {
                Ok(sockopt::$tell(&self.socket.source, value)?)
            }
        )+}
    };
}

options! {
    "Whether it may send to everybody on a network", "SO_BROADCAST":
        broadcast by socket_broadcast, set_broadcast by set_socket_broadcast: bool;
    "Whether multicast datagrams that it sends come back to this machine", "IP_MULTICAST_LOOP":
        multicast_loop_v4 by ip_multicast_loop,
        set_multicast_loop_v4 by set_ip_multicast_loop: bool;
    "How many hops multicast datagrams go", "IP_MULTICAST_TTL":
        multicast_ttl_v4 by ip_multicast_ttl, set_multicast_ttl_v4 by set_ip_multicast_ttl: u32;
    "Whether multicast datagrams that it sends come back to this machine", "IPV6_MULTICAST_LOOP":
        multicast_loop_v6 by ipv6_multicast_loop,
        set_multicast_loop_v6 by set_ipv6_multicast_loop: bool;
}
