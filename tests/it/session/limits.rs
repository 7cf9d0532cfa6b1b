//! Configured limits of time: rates of connections, connect events, frames and bytes, and timeouts of a frame. Each affects only the
//! client that exceeds it.
//!
//! A test belongs here if it sets a key of `[limits]` or an app's rate or timeout, and checks exactly when it acts and how it is counted.
//! Memory, session counts and fairness are in `session/bounds.rs`. Broken protocols and malicious clients are in `http/hostile.rs`.
//! Floods of connections, and their effect on the latency of others, are in `http/floods.rs`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use longwire::proto::framing::{FrameKind, Framing, Item, LengthFraming, client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::client::Client;
use crate::support::echo::ECHO;
use crate::support::event_stream::Http;
use crate::support::http::request_with;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

const LISTENERS: &str = "\n[listeners.tcp]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n[listeners.web]\nbind = \"127.0.0.1:0\"\n\
                         protocol = \"http\"\nroutes = { \"/ws\" = \"app\" }\nwebsocket = { ping_interval = 0 }\n";

fn stage(app: &str, limits: &str) -> (PhpFpm, Longwire) {
    let fpm = Pool::of(2).start();
    let code = format!(
        "$event = $_SERVER['LONGWIRE_EVENT'] ?? ''; file_put_contents(__DIR__ . '/events', \"$event\\n\", FILE_APPEND); \
         if ($event === 'connect') exit; \
         if (file_get_contents('php://input') === 'wait') {{ while (!file_exists(__DIR__ . '/go')) usleep(5000); }} {ECHO}"
    );
    let script = fpm.script("handler.php", &code);
    let node = Longwire::with(&fpm, &script, app, "", &format!("{LISTENERS}\n[limits]\n{limits}"));
    (fpm, node)
}

fn length() -> Framing {
    Framing::Length(LengthFraming::default())
}

fn exceeded(node: &Longwire, limit: &str, acted: bool) -> f64 {
    node.metric("longwire_limits_exceeded_total", &format!("limit={limit:?},acted=\"{acted}\""))
}

fn refused(node: &Longwire, listener: &str, reason: &str) -> f64 {
    node.metric("longwire_connections_refused_total", &format!("listener={listener:?},reason={reason:?}"))
}

async fn connect_from(host: u8, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0)).unwrap();
    socket.connect(to).await
}

/// Whether a connection is served: true if a frame comes back, false after a reset, which may even fail the connecting.
async fn is_served(stream: io::Result<TcpStream>) -> bool {
    let Ok(mut stream) = stream else { return false };
    let asked = stream.write_all(b"\0\0\0\x02hi").await.is_ok();
    let mut answer = [0; 6];
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_exact(&mut answer)).await;
    asked && read.expect("an answer or an end").is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_comes_too_often_is_turned_away_exactly_as_often_as_is_counted() {
    let (_fpm, node) = stage("", "accept_rate_per_address = 1\naccept_burst_per_address = 10\n");
    let start = Instant::now();
    let mut served = 0;
    for _ in 0..60 {
        served += u64::from(is_served(connect_from(2, node.address("tcp")).await).await);
    }
    // The rate lets in more connections while the loop runs.
    let most = 10 + start.elapsed().as_secs() + 1;
    assert!((10..=most).contains(&served), "{served} of at most {most}");
    assert!(is_served(connect_from(3, node.address("tcp")).await).await, "another address is not limited");
    eventually("each refusal is counted", || refused(&node, "tcp", "accept_rate") == (60 - served) as f64).await;
    assert_eq!(exceeded(&node, "accept_rate_per_address", true), (60 - served) as f64);
    let lines = node.log_lines(|line| line["message"] == "limit exceeded");
    assert!((1..=5).contains(&lines.len()), "a flood of connections must not flood the log: {lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_takes_no_more_connections_than_its_rate_and_a_dry_run_takes_all() {
    for (dry_run, is_dry) in [("", false), ("dry_run = [\"accept_rate\"]\n", true)] {
        let (_fpm, node) = stage("", &format!("accept_rate = 1\naccept_burst = 5\n{dry_run}"));
        let start = Instant::now();
        let mut served = 0;
        for host in 0..40 {
            served += u64::from(is_served(connect_from(10 + host, node.address("tcp")).await).await);
        }
        let most = if is_dry { 40 } else { 5 + start.elapsed().as_secs() + 1 };
        assert!((if is_dry { 40 } else { 5 }..=most).contains(&served), "{served} of at most {most}");
        eventually("the counters agree", || {
            let (acted, counted) = (exceeded(&node, "accept_rate", true), exceeded(&node, "accept_rate", false));
            match is_dry {
                true => acted == 0.0 && counted > 0.0 && refused(&node, "tcp", "accept_rate") == 0.0,
                false => acted == (40 - served) as f64 && counted == 0.0,
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn php_hears_of_no_more_clients_than_connect_rate_says() {
    let (fpm, node) = stage("events = [\"connect\"]\nconnect_rate = 2\nconnect_burst = 6\n", "");
    let start = Instant::now();
    let (mut served, mut unavailable) = (0, 0);
    for number in 0..60 {
        if number % 2 == 0 {
            served += u64::from(is_served(TcpStream::connect(node.address("tcp")).await).await);
            continue;
        }
        match Client::try_upgrade(node.address("web"), "/ws", "").await {
            Ok(_) => served += 1,
            Err(answer) => {
                assert!(
                    answer.starts_with("HTTP/1.1 503 ") && answer.to_lowercase().contains("retry-after: 1"),
                    "{answer}"
                );
                unavailable += 1;
            }
        }
    }
    let most = 6 + 2 * (start.elapsed().as_secs() + 1);
    assert!((6..=most).contains(&served), "{served} of at most {most}");
    eventually("the counters agree", || {
        let told = refused(&node, "tcp", "connect_rate") + refused(&node, "web", "connect_rate");
        told == (60 - served) as f64 && refused(&node, "web", "connect_rate") == f64::from(unavailable)
    })
    .await;
    let events = std::fs::read_to_string(fpm.dir().join("events")).unwrap();
    assert_eq!(events.lines().filter(|event| *event == "connect").count() as u64, served);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_sends_too_fast_waits_loses_nothing_and_others_do_not_wait() {
    let (_fpm, node) = stage("max_frames_per_second = 20\nburst_frames = 10\n", "");
    let mut fast = Client::connect(node.address("tcp"), length()).await;
    let start = Instant::now();
    for number in 0..50 {
        fast.text(&format!("frame {number}")).await;
    }
    let mut other = Client::connect(node.address("tcp"), length()).await;
    assert_eq!(other.ask("no frame of mine").await, "no frame of mine");
    for number in 0..50 {
        assert_eq!(fast.frame().await.body, format!("frame {number}"));
    }
    // 40 frames beyond the burst at 20 a second take 2 s. Earlier is an error; later may be a slow machine.
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
    assert!(exceeded(&node, "max_frames_per_second", true) > 0.0);

    let (_fpm, node) = stage("max_bytes_per_second = \"100 KiB\"\nburst_bytes = \"50 KiB\"\n", "");
    let mut fast = Client::upgrade(node.address("web"), "/ws", "").await;
    let start = Instant::now();
    let word = "x".repeat(10_000);
    for _ in 0..25 {
        fast.text(&word).await;
    }
    for _ in 0..25 {
        assert_eq!(fast.frame().await.body, word);
    }
    assert!(
        start.elapsed() >= Duration::from_millis(1500),
        "250 KB at 100 KiB a second came too early: {:?}",
        start.elapsed()
    );
    assert!(exceeded(&node, "max_bytes_per_second", true) > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_rule_is_close_a_session_that_sends_too_fast_ends_pings_included_and_a_dry_run_only_counts() {
    let rate = "max_frames_per_second = 5\nburst_frames = 10\nrate_rule = \"close\"\n";
    let (_fpm, node) = stage(rate, "");
    let mut client = Client::upgrade(node.address("web"), "/ws", "").await;
    for _ in 0..10 {
        assert_eq!(client.ask("slow enough").await, "slow enough");
    }
    client.bytes(&client::ping(b"?", [1; 4]).repeat(40)).await;
    assert_eq!(client.end().await, Some(1008));
    let closed = node.closed(1);
    assert_eq!((closed[0]["reason"].as_str(), closed[0]["code"].as_u64()), (Some("rate_limit"), Some(1008)));

    let (_fpm, node) = stage(rate, "dry_run = [\"max_frames_per_second\"]\n");
    let mut client = Client::connect(node.address("tcp"), length()).await;
    for _ in 0..60 {
        client.text("as fast as it likes").await;
    }
    for _ in 0..60 {
        assert_eq!(client.frame().await.body, "as fast as it likes");
    }
    assert!(exceeded(&node, "max_frames_per_second", false) >= 1.0);
    assert_eq!(exceeded(&node, "max_frames_per_second", true), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_have_the_rate_of_frames() {
    let (_fpm, node) = stage("max_frames_per_second = 20\nburst_frames = 5\n", "");
    let stream = Http::one(node.address("web")).await.stream("/ws", &[]).await;
    let start = Instant::now();
    for number in 0..25 {
        let body = number.to_string();
        let answer = request_with(node.address("web"), "POST", &stream.address, "", body.as_bytes()).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, body));
    }
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "20 posts beyond the burst were too fast: {:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_has_begun_must_go_on_and_end_and_silence_between_frames_is_no_fault() {
    let app = "frame_idle_timeout = \"1s\"\nframe_timeout = \"3s\"\nmax_queued_frames = 1\n";
    let (fpm, node) = stage(app, "");
    let mut silent = Client::connect(node.address("tcp"), length()).await;
    silent.bytes(b"\0\0\0\x05he").await;
    let mut fragment = Client::upgrade(node.address("web"), "/ws", "").await;
    fragment.bytes(&client::fragment(FrameKind::Text, true, false, b"half", [2; 4])).await;
    let mut quiet = Client::connect(node.address("tcp"), length()).await;
    assert_eq!(quiet.ask("whole").await, "whole");
    // A byte now and then satisfies frame_idle_timeout, but frame_timeout ends it.
    let mut dripping = Client::connect(node.address("tcp"), length()).await;
    dripping.bytes(b"\0\0\0\x64").await;
    let start = Instant::now();
    let drip = async {
        loop {
            if dripping.sender.try_send_bytes(b"x").await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
                item = dripping.receiver.next() => {
                    assert!(item.is_none());
                    return;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), drip).await.expect("it ends");
    assert!(start.elapsed() >= Duration::from_millis(2900), "{:?}", start.elapsed());
    assert!(silent.next().await.is_none());
    let mut ended = fragment.next().await;
    while let Some(Item::Ping(_)) = ended {
        ended = fragment.next().await;
    }
    assert!(matches!(ended, Some(Item::Close { code: Some(1008), .. })), "{ended:?}");
    let reasons: Vec<_> = node.closed(3).iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect();
    assert_eq!(reasons, ["frame_timeout"; 3]);
    assert_eq!((exceeded(&node, "frame_idle_timeout", true), exceeded(&node, "frame_timeout", true)), (2.0, 1.0));
    assert_eq!(quiet.ask("after a silence").await, "after a silence");

    // Half a frame after others that wait for PHP does not time out, because the node does not read meanwhile.
    let mut held = Client::connect(node.address("tcp"), length()).await;
    held.bytes(b"\0\0\0\x04wait\0\0\0\x01b\0\0\0\x01c\0\0\0\x02d").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    std::fs::write(fpm.dir().join("go"), "").unwrap();
    for body in ["wait", "b", "c"] {
        assert_eq!(held.frame().await.body, body);
    }
    held.bytes(b"d").await;
    assert_eq!(held.frame().await.body, "dd");
}
