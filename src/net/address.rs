//! Addresses: what `bind` and `connect` accept, names looked up off the loop, local addresses.
//!
//! Floor 6. Uses: `dns`. Used by: every type of `net` that binds or connects.

use std::{
    ffi::OsStr,
    io, iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    option,
    os::{linux::net::SocketAddrExt, unix::ffi::OsStrExt, unix::net::SocketAddr as UnixSocketAddr},
    slice, vec,
};

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix};

use crate::dns;

mod sealed {
    /// Keeps [`super::ToSocketAddrs`] to the types below, so that it may grow.
    pub trait Sealed {}
}

/// What can be turned into socket addresses: std's trait of this name, for the same types.
///
/// Shape: a literal address never leaves the thread and works anywhere. A name is handed to a few
/// OS threads that ask the system's resolver, while the calling greenlet is parked. It is sealed:
/// with types of your own, pass the addresses (`&[SocketAddr]`).
///
/// # Examples
///
/// ```
/// use greenloop::net::ToSocketAddrs;
/// # fn main() -> std::io::Result<()> {
/// let literal = "127.0.0.1:80".to_socket_addrs()?.next();
/// assert_eq!(literal, Some(([127, 0, 0, 1], 80).into()));
/// greenloop::run(|| {
///     let mut addresses = ("localhost", 80).to_socket_addrs()?;
///     assert!(addresses.all(|address| address.ip().is_loopback()));
///     Ok(())
/// })
/// # }
/// ```
///
/// # Source
///
/// [`std::net::ToSocketAddrs`], whose resolver would stop the whole thread.
pub trait ToSocketAddrs: sealed::Sealed {
    /// The addresses, in the order in which they are to be tried.
    type Iter: Iterator<Item = SocketAddr>;

    /// Gives the addresses, asking the resolver for names.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a string without a port; what the resolver says of a name; outside
    /// [`run`](crate::run), for names, an error that says so.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: for names, always; otherwise never. On cancel the answer is dropped.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;
}

/// Tries `attempt` with each address in turn: the first success, or the last error.
pub(super) fn each_address<T>(
    addresses: impl ToSocketAddrs,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut failed = None;
    for address in addresses.to_socket_addrs()? {
        match attempt(address) {
            Ok(done) => return Ok(done),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any addresses")
    }))
}

/// An address of the internet as the kernel gives it, as std's type.
pub(super) fn internet_from(address: SocketAddrAny) -> io::Result<SocketAddr> {
    Ok(address.try_into()?)
}

/// How long a `sockaddr_un` is.
const UNIX_BYTES_MAX: u32 = 110;

/// A local address as the kernel gives it, as std's type.
///
/// A path that leaves no byte free for its end is told as no path: anybody may bind to one, but the
/// kernel tells it with one byte more than a `sockaddr_un` has, on which rustix panics, and std's
/// type cannot be made of it.
pub(super) fn unix_from(address: SocketAddrAny) -> io::Result<UnixSocketAddr> {
    if address.addr_len() > UNIX_BYTES_MAX && address.address_family() == AddressFamily::UNIX {
        return UnixSocketAddr::from_pathname("");
    }
    let address = SocketAddrUnix::try_from(address)?;
    match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => UnixSocketAddr::from_pathname(OsStr::from_bytes(path)),
        (_, Some(name @ [_, ..])) => UnixSocketAddr::from_abstract_name(name),
        // rustix tells an empty name as an abstract one. An empty path is no path: std has no other
        // way to say so.
        _ => UnixSocketAddr::from_pathname(""),
    }
}

/// A local address as the kernel takes it.
pub(super) fn unix_into(address: &UnixSocketAddr) -> io::Result<SocketAddrUnix> {
    match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => Ok(SocketAddrUnix::new(path)?),
        (_, Some(name)) => Ok(SocketAddrUnix::new_abstract_name(name)?),
        _ => Ok(SocketAddrUnix::new_unnamed()),
    }
}

/// Any address, as std shows it. `None`: of a family that this crate does not know.
pub(super) fn shown(address: SocketAddrAny) -> Option<String> {
    let internet = internet_from(address.clone()).map(|address| address.to_string());
    internet.ok().or_else(|| Some(format!("{:?}", unix_from(address).ok()?)))
}

macro_rules! literals {
    ($($address:ty),+) => {$(
        impl sealed::Sealed for $address {}

        impl ToSocketAddrs for $address {
            type Iter = option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                Ok(Some(SocketAddr::from(*self)).into_iter())
            }
        }
    )+};
}

literals!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl sealed::Sealed for (&str, u16) {}

impl ToSocketAddrs for (&str, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let (host, port) = *self;
        let addresses = match host.parse::<IpAddr>() {
            Ok(literal) => vec![SocketAddr::new(literal, port)],
            Err(_) => dns::resolve(host, port)?,
        };
        Ok(addresses.into_iter())
    }
}

impl sealed::Sealed for (String, u16) {}

impl ToSocketAddrs for (String, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (self.0.as_str(), self.1).to_socket_addrs()
    }
}

impl sealed::Sealed for str {}

impl ToSocketAddrs for str {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        if let Ok(literal) = self.parse::<SocketAddr>() {
            return Ok(vec![literal].into_iter());
        }
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
        let (host, port) =
            self.rsplit_once(':').ok_or_else(|| invalid("invalid socket address"))?;
        let port: u16 = port.parse().map_err(|_| invalid("invalid port value"))?;
        (host, port).to_socket_addrs()
    }
}

impl sealed::Sealed for String {}

impl ToSocketAddrs for String {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        self.as_str().to_socket_addrs()
    }
}

impl sealed::Sealed for &[SocketAddr] {}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = iter::Cloned<slice::Iter<'a, SocketAddr>>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.iter().cloned())
    }
}

impl<T: ToSocketAddrs + ?Sized> sealed::Sealed for &T {}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (**self).to_socket_addrs()
    }
}
