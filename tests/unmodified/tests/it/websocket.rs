//! WebSockets, both ends of them.

use std::{net::TcpStream, thread, time::Duration};

use greenloop_unmodified::{listen, overlap, threads};
use tungstenite::Message;

use crate::MANY;

const MOMENT: Duration = Duration::from_millis(100);

/// The server has a virtual thread for each client, and takes a moment for each of three messages.
pub(crate) fn echo() {
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let server = threads::spawn(move || {
        let serve = |stream| threads::spawn(move || answer(stream));
        let all: Vec<_> =
            listener.incoming().take(MANY).map(|stream| serve(stream.unwrap())).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum::<usize>()
    });
    let answers = overlap(MANY, 3 * MOMENT, move |index| {
        let (mut socket, _) = tungstenite::connect(format!("ws://{address}/")).unwrap();
        let mut ask = |question: String| {
            socket.send(Message::text(question)).unwrap();
            socket.read().unwrap().into_text().unwrap().to_string()
        };
        let answers = [0, 1, 2].map(|round| ask(format!("{index}, {round}")));
        socket.close(None).unwrap();
        let end = socket.read();
        assert!(matches!(end, Ok(Message::Close(_))), "{end:?}");
        answers
    });
    for (index, answers) in answers.into_iter().enumerate() {
        assert_eq!(answers, [0, 1, 2].map(|round| format!("you said {index}, {round}")));
    }
    assert_eq!(server.join().unwrap(), 3 * MANY);
}

/// Answers one client until it closes, and says how often.
fn answer(stream: TcpStream) -> usize {
    let mut socket = tungstenite::accept(stream).unwrap();
    let mut count = 0;
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message {
            thread::sleep(MOMENT);
            socket.send(Message::text(format!("you said {text}"))).unwrap();
            count += 1;
        }
    }
    count
}
