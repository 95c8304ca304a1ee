//! r2d2, whose connections are fewer than those who want one.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::Duration,
};

use greenloop_unmodified::{overlap, threads};
use r2d2::{ManageConnection, Pool};

use crate::MANY;

const CONNECTIONS: usize = 20;

/// How long the other end takes for an answer. There are ten rounds of them.
const MOMENT: Duration = Duration::from_millis(60);

/// Connections to a server that answers with the next byte.
#[derive(Debug)]
struct Successor(SocketAddr);

impl ManageConnection for Successor {
    type Connection = TcpStream;
    type Error = io::Error;

    /// On a thread of r2d2's.
    fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.0)
    }

    /// On the thread that wants the connection, each time.
    fn is_valid(&self, connection: &mut TcpStream) -> io::Result<()> {
        ask(connection, 0).map(drop)
    }

    fn has_broken(&self, connection: &mut TcpStream) -> bool {
        !connection.take_error().is_ok_and(|error| error.is_none())
    }
}

fn ask(connection: &mut TcpStream, byte: u8) -> io::Result<u8> {
    let mut answer = [byte];
    connection.write_all(&answer)?;
    connection.read_exact(&mut answer)?;
    Ok(answer[0])
}

/// Answers one client until it goes: 0 at once, which is asked of each connection that is lent.
fn answer(mut stream: TcpStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        if byte[0] != 0 {
            thread::sleep(MOMENT);
        }
        stream.write_all(&[byte[0] + 1]).unwrap();
    }
}

pub(crate) fn few_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let manager = Successor(listener.local_addr().unwrap());
    let server = threads::spawn(move || {
        let serve = |stream| threads::spawn(move || answer(stream));
        let all = listener.incoming().take(CONNECTIONS).map(|stream| serve(stream.unwrap()));
        for one in all.collect::<Vec<_>>() {
            one.join().unwrap();
        }
    });
    // Has all its connections when it is made, and threads of its own, which are counted as such.
    let size = u32::try_from(CONNECTIONS).unwrap();
    let pool = Pool::builder().max_size(size).build(manager).unwrap();
    let (lent, lent_max) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let answers = overlap(MANY, MOMENT, move |index| {
        let mut connection = pool.get().unwrap();
        lent_max.fetch_max(lent.fetch_add(1, SeqCst) + 1, SeqCst);
        let answer = ask(&mut connection, u8::try_from(index).unwrap().max(1)).unwrap();
        lent.fetch_sub(1, SeqCst);
        drop(connection);
        (answer, lent_max.load(SeqCst))
    });
    for (index, (answer, lent_max)) in answers.into_iter().enumerate() {
        assert_eq!(usize::from(answer), index.max(1) + 1);
        assert!(lent_max <= CONNECTIONS, "{lent_max} connections were lent at once");
    }
    server.join().unwrap();
}
