//! Thousands of sessions echo frames through the real php-fpm: each echo must be whole and in order, for each framing.

use std::sync::Arc;

use longwire::proto::framing::{DelimiterFraming, Framing, LengthFraming};
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::echo::{EACH_FRAMING, ECHO, all_ended, exchange};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool};

const SESSIONS: usize = 1000;

/// Starts [`SESSIONS`] sessions of a framing as tasks.
async fn run(node: &Longwire, listener: &str, framing: Option<Framing>, first: u64, tasks: &mut JoinSet<()>) {
    let address = node.address(listener);
    for session in first..first + SESSIONS as u64 {
        let client = match &framing {
            Some(framing) => Client::connect(address, framing.clone()).await,
            None => Client::upgrade(address, "/ws", "").await,
        };
        tasks.spawn(exchange(client, session, framing == Some(Framing::Raw)));
    }
}

fn echo_node(fpm: &PhpFpm) -> Longwire {
    let script = fpm.script("echo.php", ECHO);
    Longwire::with(fpm, &script, "", "queue_timeout = \"60s\"", EACH_FRAMING)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_length_and_a_thousand_websocket_sessions_get_every_echo_in_order() {
    let fpm = Pool::of(4).start();
    let node = echo_node(&fpm);
    let mut tasks = JoinSet::new();
    run(&node, "length", Some(Framing::Length(LengthFraming::default())), 0, &mut tasks).await;
    run(&node, "web", None, 100_000, &mut tasks).await;
    all_ended(tasks).await;
    assert_eq!(node.metric("longwire_events_failed_total", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_delimited_and_a_thousand_raw_sessions_get_every_echo_in_order() {
    let fpm = Pool::of(4).start();
    let node = echo_node(&fpm);
    let delimiter = DelimiterFraming { delimiter: b"<end of frame>".to_vec(), strip_cr: false };
    let mut tasks = JoinSet::new();
    run(&node, "delimiter", Some(Framing::Delimiter(Arc::new(delimiter))), 200_000, &mut tasks).await;
    run(&node, "raw", Some(Framing::Raw), 300_000, &mut tasks).await;
    all_ended(tasks).await;
    assert_eq!(node.metric("longwire_events_failed_total", ""), 0.0);
}
