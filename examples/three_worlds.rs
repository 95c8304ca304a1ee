//! Straight-line code, callbacks and async code that wait for one another: one loop, one thread,
//! real sockets.
//!
//! Run:    `cargo run --release --example three_worlds`    (it ends by itself)
//! Poke:   change `DELAY`; ask one more question: it takes no longer
//! Prints:
//!
//! ```text
//! A market on 127.0.0.1:40277 needs 300 ms for each answer. Three worlds, one thread:
//!
//!     0 ms  callback code asks, and waits for a greenlet and for a future
//!     0 ms  async code asks, and waits for a Deferred and for a greenlet
//!     0 ms  straight-line code asks, and waits for a Deferred and for a future
//!   301 ms  async code: kiwis and grapes cost 11
//!   301 ms  straight-line code: apples, pears and plums cost 16
//!   301 ms  callback code: figs, dates and limes cost 14
//!
//! 8 answers of 300 ms each came within 301 ms; one after another they take 2400 ms.
//!
//!   301 ms  straight-line code waits for a future that waits for a Deferred, at most 100 ms
//!   401 ms  callback code is told to withdraw the question about melons
//!   401 ms  straight-line code: the time limit has elapsed
//! ```

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use greenloop::{
    Deferred, Failure, Resolver,
    net::{TcpListener, TcpStream},
    spawn, spawn_later, timeout, wait_for_deferred, wait_for_future, wait_for_greenlet,
};

const DELAY: Duration = Duration::from_millis(300);

fn main() -> Result<(), Failure> {
    greenloop::run(|| tour(DELAY)).map(drop)
}

// World 1: straight-line code. A call returns when the answer is there; meanwhile the thread serves
// the others.

/// Asks for one price, over a connection of its own.
fn price(market: SocketAddr, fruit: &str) -> Result<u32, Failure> {
    let mut stream = TcpStream::connect(market)?;
    stream.write_all(format!("{fruit}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(parse(&answer)?.1)
}

fn straight_line(client: &Client) -> Result<(), Failure> {
    client.say("straight-line code asks, and waits for a Deferred and for a future");
    let apples = client.price("apples");
    let others = wait_for_future(two_prices(client, "pears", "plums"))?;
    let sum = wait_for_deferred(apples)? + others;
    client.say(&format!("straight-line code: apples, pears and plums cost {sum}"));
    Ok(())
}

// World 2: callbacks. A client in Twisted's manner: many questions on one connection, and a call
// returns at once, with a Deferred.

#[derive(Clone)]
struct Client {
    market: SocketAddr,
    stream: Rc<TcpStream>,
    asked: Rc<RefCell<HashMap<String, Resolver<u32>>>>,
    started: Instant,
}

impl Client {
    fn connect(market: SocketAddr) -> io::Result<Client> {
        let stream = Rc::new(TcpStream::connect(market)?);
        let client = Client { market, stream, asked: Rc::default(), started: Instant::now() };
        let receiver = client.clone();
        spawn(move || -> Result<(), Failure> {
            for line in BufReader::new(&*receiver.stream).lines() {
                let (fruit, price) = parse(&line?)?;
                let resolver = receiver.asked.borrow_mut().remove(&fruit);
                if let Some(resolver) = resolver {
                    resolver.callback(price); // runs the callbacks, in here
                }
            }
            drop(receiver.asked.take()); // No answer will come: whoever waits is told `Abandoned`.
            Ok(())
        });
        Ok(client)
    }

    /// Asks for one price.
    fn price(&self, fruit: &str) -> Deferred<u32> {
        let (client, name) = (self.clone(), fruit.to_owned());
        let (resolver, deferred) = Deferred::with_canceller(move |_| {
            client.say(&format!("callback code is told to withdraw the question about {name}"));
            let _withdrawn = client.asked.borrow_mut().remove(&name);
        });
        self.asked.borrow_mut().insert(fruit.to_owned(), resolver);
        match (&*self.stream).write_all(format!("{fruit}\n").as_bytes()) {
            Ok(()) => deferred,
            Err(error) => Deferred::fail(error),
        }
    }

    fn say(&self, what: &str) {
        println!("{:>5} ms  {what}", self.started.elapsed().as_millis());
    }
}

fn callbacks(client: &Client) -> Deferred<()> {
    client.say("callback code asks, and waits for a greenlet and for a future");
    let (market, client) = (client.market, client.clone());
    let figs = wait_for_greenlet(spawn(move || price(market, "figs")));
    let asker = client.clone();
    let others = Deferred::from_future(async move { two_prices(&asker, "dates", "limes").await });
    figs.and_then(|figs| others.add_callback(|others| Ok(figs? + others))).add_callback(
        move |sum| {
            client.say(&format!("callback code: figs, dates and limes cost {sum}"));
            Ok(())
        },
    )
}

// World 3: async code. It awaits what the other two return.

async fn two_prices(client: &Client, one: &str, other: &'static str) -> Result<u32, Failure> {
    let market = client.market;
    let deferred = client.price(one);
    let greenlet = spawn(move || price(market, other));
    Ok(deferred.await? + greenlet.await??)
}

async fn asynchronous(client: Client) -> Result<(), Failure> {
    client.say("async code asks, and waits for a Deferred and for a greenlet");
    let sum = two_prices(&client, "kiwis", "grapes").await?;
    client.say(&format!("async code: kiwis and grapes cost {sum}"));
    Ok(())
}

/// The three worlds at once, then a time limit across them. Returns how long the first part took.
pub(crate) fn tour(delay: Duration) -> Result<Duration, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let market = listener.local_addr()?;
    let ms = delay.as_millis();
    println!("A market on {market} needs {ms} ms for each answer. Three worlds, one thread:\n");
    spawn(move || serve(&listener, delay));

    let client = Client::connect(market)?;
    let own = client.clone();
    let straight_line = spawn(move || straight_line(&own));
    let callbacks = callbacks(&client);
    wait_for_future(asynchronous(client.clone()))?;
    wait_for_deferred(callbacks)?;
    straight_line.join()??;
    let took = client.started.elapsed();
    let (together, apart) = (took.as_millis(), 8 * ms);
    println!(
        "\n8 answers of {ms} ms each came within {together} ms; one after another they take \
         {apart} ms.\n"
    );

    let limit = delay / 3;
    let waits = "straight-line code waits for a future that waits for a Deferred, at most";
    client.say(&format!("{waits} {} ms", limit.as_millis()));
    let late = timeout(limit, || wait_for_future(async { client.price("melons").await }));
    match late {
        Err(elapsed) => client.say(&format!("straight-line code: {elapsed}")),
        Ok(price) => client.say(&format!("straight-line code: melons cost {} after all", price?)),
    }
    Ok(took)
}

/// The market: answers each question after `delay`, with a fruit and its price.
fn serve(listener: &TcpListener, delay: Duration) -> io::Result<()> {
    for stream in listener.incoming() {
        let stream = Rc::new(stream?);
        spawn(move || -> io::Result<()> {
            for line in BufReader::new(&*stream).lines() {
                let (fruit, stream) = (line?, Rc::clone(&stream));
                let answer = format!("{fruit} {}\n", fruit.len());
                spawn_later(delay, move || (&*stream).write_all(answer.as_bytes()));
            }
            Ok(())
        });
    }
    Ok(())
}

fn parse(answer: &str) -> Result<(String, u32), Failure> {
    let (fruit, price) = answer.trim().split_once(' ').ok_or_else(|| Failure::msg("no price"))?;
    Ok((fruit.to_owned(), price.parse()?))
}
