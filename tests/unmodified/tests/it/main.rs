//! Crates and C libraries that know nothing of greenloop, each on two hundred virtual threads of
//! one OS thread.
//!
//! `cargo test -p greenloop-unmodified` runs those that need no server, and says which do;
//! `tests/services.sh cargo test -p greenloop-unmodified` runs them all.

use std::process::ExitCode;

use greenloop_unmodified::Test;

mod channels;
mod databases;
mod example;
mod http;
#[cfg(has_libcurl)]
mod libcurl;
#[cfg(has_libpq)]
mod libpq;
mod locks;
mod net;
mod pool;
mod processes;
mod sqlite;
mod websocket;

greenloop::interpose!();

/// How many virtual threads a test has.
const MANY: usize = 200;

const POSTGRES: &str = "GREENLOOP_POSTGRES_URL";
const REDIS: &str = "GREENLOOP_REDIS_URL";
const MARIADB: &str = "GREENLOOP_MARIADB_URL";
const HTTP: &str = "GREENLOOP_HTTP_URL";

const TESTS: &[Test] = &[
    Test::at(POSTGRES, "postgres_waits_for_queries", databases::postgres),
    Test::at(MARIADB, "mysql_waits_for_queries", databases::mysql),
    Test::at(REDIS, "redis_waits_for_nothing", databases::redis_times_out),
    Test::at(REDIS, "redis_hands_on_from_client_to_client", databases::redis_relay),
    Test::slow("ureq_fetches", http::ureq),
    Test::slow("ureq_gives_up_in_time", http::ureq_timeout),
    Test::slow("reqwest_blocking_fetches", http::reqwest),
    Test::at(HTTP, "ureq_reads_a_slow_body", http::slow_body),
    Test::alone("tungstenite_serves_and_asks", websocket::echo),
    Test::alone("r2d2_lends_fewer_connections_than_there_are_threads", pool::few_connections),
    Test::alone("rusqlite_waits_for_a_busy_database", sqlite::busy),
    Test::alone("processes_give_their_output", processes::output),
    Test::alone("processes_take_input_and_fill_both_pipes", processes::both_pipes),
    Test::alone("processes_are_waited_for", processes::wait),
    Test::alone("tcp_streams_wait", net::tcp),
    Test::alone("tcp_streams_time_out", net::tcp_timeouts),
    Test::alone("tcp_streams_peek_and_shut_down", net::tcp_peek_and_shutdown),
    Test::alone("tcp_streams_that_do_not_block_are_left_alone", net::tcp_nonblocking),
    Test::alone("udp_sockets_wait_and_time_out", net::udp),
    Test::alone("unix_streams_wait", net::unix),
    Test::alone("unix_datagrams_wait_and_time_out", net::unix_datagram),
    Test::alone("names_are_looked_up", net::names),
    Test::alone("std_channels_wait", channels::std_relay),
    Test::alone("std_channels_with_bounds_and_timeouts_wait", channels::std_bounded),
    Test::alone("crossbeam_channels_wait_for_several", channels::crossbeam_select),
    Test::alone("crossbeam_channels_with_bounds_and_timeouts_wait", channels::crossbeam_bounded),
    Test::alone("std_locks_are_held_while_others_run", locks::std_locks),
    Test::alone("std_threads_park_and_meet", locks::std_park_and_barrier),
    Test::alone("parking_lot_locks_are_held_while_others_run", locks::parking_lot_locks),
    Test::alone("parking_lot_condvars_wait", locks::parking_lot_condvars),
    Test::alone("the_example_compares_threads", example::unmodified),
    Test::at(POSTGRES, "the_example_compares_queries", example::queries),
    #[cfg(has_libpq)]
    Test::at(POSTGRES, "libpq_waits_for_queries", libpq::queries),
    #[cfg(not(has_libpq))]
    Test::without("libpq", "libpq_waits_for_queries"),
    #[cfg(has_libcurl)]
    Test::slow("libcurl_fetches", libcurl::fetches),
    #[cfg(has_libcurl)]
    Test::slow("libcurl_gives_up_in_time", libcurl::timeouts),
    #[cfg(not(has_libcurl))]
    Test::without("libcurl", "libcurl_fetches, libcurl_gives_up_in_time"),
];

fn main() -> ExitCode {
    greenloop_unmodified::main(TESTS)
}
