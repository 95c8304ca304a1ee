//! Conversions from and into std's types and raw descriptors.
//!
//! Floor 6. Uses: `socket`. Used by: users.
//!
//! What comes in is put into non-blocking mode, which belongs to the open file: duplicates that
//! others hold become non-blocking too. What goes out as a std type is put into blocking mode, as
//! its users expect, and takes its timeouts along; what goes out as a bare descriptor stays
//! non-blocking.

#![expect(unsafe_code, reason = "FromRawFd is an unsafe trait function")]
//! # Safety
//!
//! Passed on: whoever calls `from_raw_fd` vouches for the descriptor.

use std::{
    net,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
        unix,
    },
};

use super::{
    TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream, socket::Socket,
};

macro_rules! conversions {
    ($($ours:ident from $std:path;)+) => {$(
        impl AsFd for $ours {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.socket.source.as_fd()
            }
        }

        impl AsRawFd for $ours {
            fn as_raw_fd(&self) -> RawFd {
                self.as_fd().as_raw_fd()
            }
        }

        /// # Panics
        ///
        /// When the descriptor cannot be put into non-blocking mode: it is no socket (`O_PATH`),
        /// or a filter of system calls forbids it.
        impl From<OwnedFd> for $ours {
            fn from(fd: OwnedFd) -> $ours {
                $ours::from_socket(Socket::adopt(fd))
            }
        }

        /// # Panics
        ///
        /// As `From<OwnedFd>`.
        impl FromRawFd for $ours {
            unsafe fn from_raw_fd(fd: RawFd) -> $ours {
                // SAFETY: passed on: the caller owns the descriptor and hands it over.
                unsafe { OwnedFd::from_raw_fd(fd) }.into()
            }
        }

        /// The descriptor stays in non-blocking mode.
        impl From<$ours> for OwnedFd {
            fn from(socket: $ours) -> OwnedFd {
                socket.socket.into_fd()
            }
        }

        /// The descriptor stays in non-blocking mode.
        impl IntoRawFd for $ours {
            fn into_raw_fd(self) -> RawFd {
                OwnedFd::from(self).into_raw_fd()
            }
        }

        /// It may be in blocking mode; its clones become non-blocking with it. Its timeouts are
        /// kept.
        ///
        /// # Panics
        ///
        /// As `From<OwnedFd>`.
        impl From<$std> for $ours {
            fn from(socket: $std) -> $ours {
                OwnedFd::from(socket).into()
            }
        }

        /// The result is in blocking mode (unless `set_nonblocking(true)` was said) and has the
        /// timeouts of this one. Clones of this one block their thread from then on.
        impl From<$ours> for $std {
            fn from(socket: $ours) -> $std {
                socket.socket.into_std_fd().into()
            }
        }
    )+};
}

conversions! {
    TcpStream from net::TcpStream;
    TcpListener from net::TcpListener;
    UdpSocket from net::UdpSocket;
    UnixDatagram from unix::net::UnixDatagram;
    UnixListener from unix::net::UnixListener;
    UnixStream from unix::net::UnixStream;
}
