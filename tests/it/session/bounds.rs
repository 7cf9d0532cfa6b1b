//! Resource bounds with well-behaved clients: memory per session, fairness between sessions, session counts, idle and ping timeouts.
//!
//! A test belongs here if the client follows the protocol and only asks for much: large frames, many frames, many sessions, no reading.
//! Configured rates and frame timeouts are in `session/limits.rs`. Broken protocols and malicious clients are in `http/hostile.rs`.
//! Floods of connections, and their effect on the latency of others, are in `http/floods.rs`.

use std::time::{Duration, Instant};

use longwire::proto::framing::{FrameKind, Framing, Item, LengthFraming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, noise};
use crate::support::echo::{EACH_FRAMING, ECHO};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{Pool, eventually};

const EIGHT_MB: usize = 8 * 1024 * 1024;

fn length() -> Framing {
    Framing::Length(LengthFraming::default())
}

#[tokio::test]
async fn a_frame_of_eight_megabytes_echoes_within_the_limits_and_leaves_no_memory_behind() {
    let fpm = Pool::of(2).line("php_admin_value[post_max_size] = 0").start();
    let script = fpm.script("echo.php", ECHO);
    let app = "max_frame_bytes = \"8 MiB\"\nmax_reply_bytes = \"8 MiB\"";
    let node = Longwire::with(&fpm, &script, app, "", EACH_FRAMING);
    let frame = noise(8, EIGHT_MB);
    let mut stream = Client::connect(node.address("length"), length()).await;
    let mut web = Client::upgrade(node.address("web"), "/ws", "").await;
    let mut resting = 0;
    for round in 0..8 {
        for client in [&mut stream, &mut web] {
            let Client { sender, receiver, .. } = client;
            let ((), echo) = tokio::join!(sender.send(FrameKind::Binary, &frame), receiver.frame());
            assert!(echo.body == frame, "round {round}: the echo differs");
        }
        if round == 3 {
            // Memory allocated once in the first rounds stays: thread caches and the read buffers of both workers.
            resting = node.settled_memory().await;
        }
    }
    let mut last = 0;
    eventually("memory is back at the resting level", || {
        last = node.memory();
        last <= resting + resting / 10
    })
    .await;
    println!("resting {resting} bytes, after four more rounds {last}");
}

#[tokio::test]
async fn a_frame_above_the_limit_closes_with_the_reason_and_leaves_no_memory_behind() {
    let fpm = Pool::of(2).start();
    let script = fpm.script("echo.php", ECHO);
    let node = Longwire::with(&fpm, &script, "max_frame_bytes = \"1 MiB\"", "", EACH_FRAMING);
    let mut small = Client::connect(node.address("length"), length()).await;
    assert_eq!(small.ask("small").await, "small");
    let frame = noise(9, EIGHT_MB);
    let mut resting = 0;
    for round in 0..6 {
        if round == 1 {
            resting = node.settled_memory().await;
        }
        let mut web = Client::upgrade(node.address("web"), "/ws", "").await;
        let mut sender = web.sender;
        // The node stops reading in the middle of the frame. Its close frame must still arrive.
        let sending = tokio::spawn(async move { sender.try_send(FrameKind::Binary, &frame_of(9)).await });
        let close = web.receiver.next().await;
        assert!(matches!(close, Some(Item::Close { code: Some(1009), .. })), "{close:?}");
        let _ = sending.await;

        let mut stream = Client::connect(node.address("length"), length()).await;
        let _ = stream.sender.try_send(FrameKind::Binary, &frame).await;
        assert_eq!(stream.end().await, None);
    }
    for line in node.closed(12) {
        assert_eq!(line["reason"], "frame_too_large");
    }
    assert_eq!(small.ask("still here").await, "still here");
    let mut last = 0;
    eventually("memory is back at the resting level", || {
        last = node.memory();
        last <= resting + resting / 10
    })
    .await;
    println!("resting {resting} bytes, after ten more refusals {last}");
}

fn frame_of(seed: u64) -> bytes::Bytes {
    noise(seed, EIGHT_MB)
}

#[tokio::test]
async fn a_client_that_sends_without_reading_is_held_by_tcp_within_bounded_memory() {
    let fpm = Pool::of(2).start();
    let script = fpm.script("echo.php", ECHO);
    let node = Longwire::with(&fpm, &script, "send_timeout = \"60s\"", "", EACH_FRAMING);
    let mut other = Client::connect(node.address("length"), length()).await;
    assert_eq!(other.ask("hello").await, "hello");
    let before = node.memory();
    let mut sockets = Vec::new();
    let mut sent = 0_usize;
    let frame = length().encode(FrameKind::Binary, &noise(1, 60_000)).unwrap();
    for _ in 0..10 {
        let mut socket = TcpStream::connect(node.address("length")).await.unwrap();
        // Write until TCP takes nothing for half a second.
        while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(500), socket.write(&frame)).await {
            if n < frame.len() {
                let rest = tokio::time::timeout(Duration::from_millis(500), socket.write_all(&frame[n..])).await;
                if rest.is_err() {
                    break;
                }
            }
            sent += frame.len();
            assert!(sent < 1 << 30, "nothing holds this client back");
        }
        sockets.push(socket);
    }
    let grown = node.memory().saturating_sub(before);
    // Each client costs its outbox (1 MiB), the current reply, the waiting frames (1 MiB) and one read buffer.
    println!("{sent} bytes taken from ten clients that read nothing, memory grew by {grown}");
    assert!(grown < 10 * 3 * 1024 * 1024, "memory grew by {grown}");
    assert_eq!(other.ask("still served").await, "still served");
    // When the client reads at last, all replies come in order.
    let mut socket = sockets.pop().unwrap();
    let mut echoed = vec![0; frame.len()];
    for _ in 0..5 {
        socket.read_exact(&mut echoed).await.unwrap();
        assert!(echoed == frame, "the echo differs");
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_for_too_long_is_closed_as_a_slow_reader() {
    let fpm = Pool::of(2).start();
    let script = fpm.script("big.php", "echo str_repeat('x', 20 << 20);");
    let app = "send_timeout = \"500ms\"\nmax_reply_bytes = \"32 MiB\"\nevents = [\"close\"]";
    let node = Longwire::with(&fpm, &script, app, "", EACH_FRAMING);
    let mut slow = Client::connect(node.address("raw"), Framing::Raw).await;
    slow.text("go").await;
    let line = node.closed(1).remove(0);
    assert_eq!((&line["reason"], &line["code"]), (&"slow_reader".into(), &1008.into()));
    eventually("its close event is delivered", || {
        node.metric("longwire_upstream_requests_total", "event=\"close\"") == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_session_that_sends_a_thousand_frames_at_once_delays_others_by_its_own_share_only() {
    let fpm = Pool::of(2).start();
    let script = fpm.script("slow.php", &format!("usleep(2000); {ECHO}"));
    let node = Longwire::with(&fpm, &script, "", "", EACH_FRAMING);
    let greedy = Client::connect(node.address("length"), length()).await;
    let mut modest = Client::connect(node.address("length"), length()).await;
    let Client { mut sender, mut receiver, .. } = greedy;
    let flood = tokio::spawn(async move {
        for number in 0..1000 {
            sender.send(FrameKind::Binary, format!("{number}").as_bytes()).await;
        }
        sender
    });
    let replies = tokio::spawn(async move {
        for number in 0..1000 {
            assert_eq!(receiver.frame().await.body, format!("{number}"), "replies come in order");
        }
    });
    // The greedy session occupies at most one of the two workers, so the other is always free for the modest one.
    let mut waits = Vec::new();
    for number in 0..100 {
        let asked = Instant::now();
        assert_eq!(modest.ask(&format!("{number}")).await, format!("{number}"));
        waits.push(asked.elapsed());
    }
    assert!(!replies.is_finished(), "the flood must last until the modest session is done");
    replies.await.unwrap();
    drop(flood.await.unwrap());
    waits.sort();
    println!("beside a flood of 1 000 frames of 2 ms: median {:?}, worst {:?}", waits[50], waits[99]);
}

#[tokio::test]
async fn sessions_beyond_the_bounds_are_refused_and_counted() {
    let fpm = Pool::of(1).start();
    let script = fpm.script("echo.php", ECHO);
    let limits = format!("{EACH_FRAMING}\n[limits]\nmax_sessions = 3\nmax_sessions_per_address = 2");
    let node = Longwire::with(&fpm, &script, "", "", &limits);
    let mut first = Client::connect(node.address("length"), length()).await;
    assert_eq!(first.ask("1").await, "1");
    let mut second = Client::upgrade(node.address("web"), "/ws", "").await;
    assert_eq!(second.ask("2").await, "2");
    let refused = Client::try_upgrade(node.address("web"), "/ws", "").await.err().expect("no third session");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    // The reset may arrive so early that connecting itself fails.
    if let Ok(third) = TcpStream::connect(node.address("length")).await {
        assert_eq!(Client::from_parts(third, length(), Vec::new()).next().await, None);
    }
    let refused = || node.metric("longwire_connections_refused_total", "reason=\"too_many_sessions\"");
    eventually("both refusals are counted", || refused() == 2.0).await;
    second.finish().await;
    second.end().await;
    eventually("there is room again", || node.metric("longwire_sessions", "") == 1.0).await;
    let mut again = Client::upgrade(node.address("web"), "/ws", "").await;
    assert_eq!(again.ask("3").await, "3");
}

#[tokio::test]
async fn an_idle_session_is_closed_and_one_that_answers_no_ping_too() {
    let fpm = Pool::of(1).start();
    let script = fpm.script("echo.php", ECHO);
    let listeners = r#"
        [listeners.web]
        bind = "127.0.0.1:0"
        protocol = "http"
        routes = { "/ws" = "app" }
        websocket = { ping_interval = "200ms", pong_timeout = "300ms" }
        [listeners.length]
        bind = "127.0.0.1:0"
        app = "idle"
        [apps.idle]
        upstream = "php"
        script = "SCRIPT"
        idle_timeout = "300ms"
        "#;
    let node = Longwire::with(&fpm, &script, "", "", &listeners.replace("SCRIPT", script.to_str().unwrap()));
    let mut idle = Client::connect(node.address("length"), length()).await;
    assert_eq!(idle.ask("1").await, "1");
    assert_eq!(idle.end().await, None);
    assert_eq!(node.closed(1)[0]["reason"], "idle_timeout");
    let mut deaf = Client::upgrade(node.address("web"), "/ws", "").await;
    assert!(matches!(deaf.next().await, Some(Item::Ping(_))));
    assert_eq!(deaf.end().await, None);
    assert_eq!(node.closed(2)[1]["reason"], "peer_timeout");
}
