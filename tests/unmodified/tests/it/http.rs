//! Blocking HTTP clients.

use std::time::Duration;

use greenloop_unmodified::overlap;

use crate::MANY;

/// One agent, whose pool of connections all share.
pub(crate) fn ureq(url: &str, delay: Duration) {
    let (url, agent) = (url.to_owned(), ureq::Agent::new_with_defaults());
    let answers = overlap(MANY, delay, move |index| {
        let mut answer = agent.get(format!("{url}{index}")).call().unwrap();
        assert_eq!(answer.status(), 200);
        answer.body_mut().read_to_string().unwrap()
    });
    assert!(answers.into_iter().eq((0..MANY).map(hello)));
}

/// The server says nothing for ever.
pub(crate) fn ureq_timeout(url: &str, limit: Duration) {
    let url = format!("{url}silence");
    let config = ureq::Agent::config_builder().timeout_recv_response(Some(limit)).build();
    let agent = ureq::Agent::new_with_config(config);
    let errors = overlap(MANY, limit, move |_| agent.get(&url).call().expect_err("a timeout"));
    for error in errors {
        assert!(matches!(error, ureq::Error::Timeout(ureq::Timeout::RecvResponse)), "{error:?}");
    }
}

/// One client, which has an OS thread of its own; it is started before they are counted.
pub(crate) fn reqwest(url: &str, delay: Duration) {
    let (url, client) = (url.to_owned(), reqwest::blocking::Client::new());
    let answers = overlap(MANY, delay, move |index| {
        let answer = client.get(format!("{url}{index}")).send().unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().unwrap()
    });
    assert!(answers.into_iter().eq((0..MANY).map(hello)));
}

fn hello(index: usize) -> String {
    format!("Hello from /{index}")
}

/// nginx sends the greater part of it at once, and the rest a second later.
pub(crate) fn slow_body(url: &str) {
    let (url, agent) = (url.to_owned(), ureq::Agent::new_with_defaults());
    let fetch = move |name| {
        let mut answer = agent.get(format!("{url}{name}")).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    };
    let whole = fetch("lines");
    assert_eq!(whole.len(), 200 * 64);
    let answers = overlap(MANY, Duration::from_millis(900), move |_| fetch("slow"));
    assert!(answers.into_iter().all(|answer| answer == whole));
}
