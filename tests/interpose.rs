//! A program that says `interpose!()`: what libc's names are in it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

greenloop::interpose!();

#[test]
fn the_names_of_libc_are_ours() {
    assert_eq!(greenloop::interpose::is_active(), Ok(()));
}

#[test]
fn std_works_as_before() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"ping")?;
    let mut answer = [0; 4];
    server.read_exact(&mut answer)?;
    assert_eq!(&answer, b"ping");
    Ok(())
}
