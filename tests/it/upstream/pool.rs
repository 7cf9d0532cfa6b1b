//! An upstream with a healthy php-fpm: answers, streaming, and the use of connections and workers.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use longwire::config::model::Config;
use longwire::upstream::Class;

use crate::support::calls::{call, config, start};
use crate::support::php_fpm::{Pool, eventually};

const ECHO: &str = "echo file_get_contents('php://input');";

#[tokio::test]
async fn bodies_of_every_size_come_back_unchanged() {
    for pool in [Pool::of(2), Pool::of(2).tcp()] {
        let fpm = pool.start();
        let script = fpm.script("echo.php", ECHO);
        let (upstream, _) = start(config(&[fpm.address()], 2));
        for size in [0, 1, 1000, 65_527, 65_528, 65_529, 131_057, 3_000_000, 16 << 20] {
            let body: Bytes = (0..size).map(|i: usize| (i * 7 + i / 251) as u8).collect::<Vec<u8>>().into();
            let answer = call(&script).body(body.clone()).run(&upstream).await;
            assert!(answer.body() == body, "a body of {size} bytes came back changed");
        }
        upstream.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_share_few_connections() {
    let fpm = Pool::of(4).start();
    let script = fpm.script("echo.php", ECHO);
    let (upstream, metrics) = start(config(&[fpm.address()], 4));
    let calls: Vec<_> = (0..4000).map(|i: u32| (i, call(&script).body(i.to_string()).submit(&upstream))).collect();
    for (i, pending) in calls {
        assert_eq!(pending.answer().await.text(), i.to_string());
    }
    assert!(metrics.connects.get() < 40, "{} connects for 4000 requests", metrics.connects.get());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_a_burst_of_all_sessions_loses_no_event() {
    let fpm = Pool::of(4).start();
    let script = fpm.script("echo.php", ECHO);
    let text = format!(
        "[listeners.tcp]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n[apps.app]\nupstream = \"php\"\nscript = {script:?}\n\
         [upstreams.php]\nbackends = [\"{}\"]\n",
        fpm.address(),
    );
    let (written, _) = Config::parse(&text, std::path::Path::new("longwire.toml")).expect("it is right");
    // Only the deadline differs, because a busy machine must not reach it.
    let bounds =
        longwire::config::model::Upstream { queue_timeout: Duration::from_secs(50), ..written.upstreams[0].clone() };
    let (upstream, _) = start(bounds);
    for class in [Class::Message, Class::Connect] {
        let calls: Vec<_> = (0..18_000).map(|_| call(&script).class(class).body("x").submit(&upstream)).collect();
        for pending in calls {
            assert_eq!(pending.answer().await.text(), "x");
        }
    }
}

#[tokio::test]
async fn one_request_after_another_stays_on_one_connection() {
    let fpm = Pool::of(4).start();
    let script = fpm.script("pid.php", "echo getmypid();");
    let (upstream, metrics) = start(config(&[fpm.address()], 4));
    let mut workers = HashSet::new();
    for _ in 0..200 {
        workers.insert(call(&script).run(&upstream).await.text().to_owned());
    }
    assert_eq!((workers.len(), metrics.connects.get()), (1, 1));
}

#[tokio::test]
async fn an_idle_upstream_pins_no_worker() {
    let fpm = Pool::of(2).start();
    let script = fpm.script("slow.php", "usleep(20000); echo getmypid();");
    let mut config = config(&[fpm.address()], 2);
    config.linger = Duration::from_millis(50);
    let (ours, _) = start(config.clone());
    let (first, second) = (call(&script).submit(&ours), call(&script).submit(&ours));
    assert_ne!(first.answer().await.text(), second.answer().await.text(), "both workers were in use");
    eventually("linger is over", || ours.snapshot().backends[0].open == 0).await;

    let (other, _) = start(config);
    let (first, second) = (call(&script).submit(&other), call(&script).submit(&other));
    assert_ne!(first.answer().await.text(), second.answer().await.text(), "another client gets both workers");
}

#[tokio::test]
async fn an_answer_streams_and_a_small_one_is_seen_whole() {
    let fpm = Pool::of(1).start();
    let stream = fpm.script(
        "stream.php",
        "for ($i = 0; $i < 3; $i++) { echo \"word $i \"; ob_flush(); flush(); usleep(30000); } echo 'end';",
    );
    let whole = fpm.script("whole.php", "echo 'whole';");
    let (upstream, _) = start(config(&[fpm.address()], 1));
    let answer = call(&stream).run(&upstream).await;
    assert_eq!(answer.text(), "word 0 word 1 word 2 end");
    assert!(answer.pauses.len() >= 3, "each flush leaves at once: {:?}", answer.pauses);
    assert_eq!(call(&whole).run(&upstream).await.pauses, [0; 0]);
}

#[tokio::test]
async fn a_script_that_answers_before_it_reads_does_not_deadlock() {
    let fpm = Pool::of(1).start();
    let script = fpm
        .script("early.php", "echo str_repeat('x', 6000000); flush(); echo strlen(file_get_contents('php://input'));");
    let (upstream, _) = start(config(&[fpm.address()], 1));
    let answer = call(&script).method("PUT").body(vec![b'y'; 6_000_000]).run(&upstream).await;
    assert!(answer.body().ends_with(b"x6000000"));
}

#[tokio::test]
async fn a_responder_without_room_stops_the_script_and_loses_nothing() {
    let fpm = Pool::of(1).start();
    let script = fpm.script("big.php", "for ($i = 0; $i < 300; $i++) echo str_repeat(chr(65 + $i % 26), 10000);");
    let mut config = config(&[fpm.address()], 1);
    config.response_timeout = Duration::from_millis(200);
    let (upstream, _) = start(config);
    let pending = call(&script).blocked().submit(&upstream);
    // Longer than response_timeout, which must not count the time in which the client does not read.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(pending.handle.received(), 0);
    pending.handle.set_blocked(false);
    assert_eq!(pending.answer().await.body().len(), 3_000_000);
}

#[tokio::test]
async fn messages_flow_while_connects_are_slow() {
    let fpm = Pool::of(4).start();
    let slow = fpm.script("slow.php", "sleep(1);");
    let echo = fpm.script("echo.php", ECHO);
    let mut config = config(&[fpm.address()], 4);
    config.connect_share_percent = 25;
    let (upstream, _) = start(config);
    // Submit the messages first, so that they wait already when connect events are chosen.
    let messages: Vec<_> = (0..400).map(|_| call(&echo).submit(&upstream)).collect();
    let connects: Vec<_> = (0..4).map(|_| call(&slow).class(Class::Connect).submit(&upstream)).collect();
    let started = Instant::now();
    for message in messages {
        message.answer().await.body();
    }
    let took = started.elapsed();
    for connect in connects {
        connect.answer().await.timing();
    }
    assert!(took < Duration::from_secs(1), "400 messages took {took:?} behind slow connects");
}

#[tokio::test]
async fn a_kept_tcp_connection_has_no_delayed_acknowledgements() {
    let cases = [
        ("8 KB", "echo str_repeat('x', 8142);"),
        ("20 KB", "echo str_repeat('x', 20000);"),
        ("5 flushes", "for ($i = 0; $i < 5; $i++) { echo 'x'; ob_flush(); flush(); }"),
    ];
    for (name, code) in cases {
        let mut medians = Vec::new();
        for pool in [Pool::of(1), Pool::of(1).tcp()] {
            let fpm = pool.start();
            let script = fpm.script("reply.php", code);
            let (upstream, metrics) = start(config(&[fpm.address()], 1));
            let mut times = Vec::new();
            for _ in 0..100 {
                times.push(call(&script).run(&upstream).await.timing().total);
            }
            assert_eq!(metrics.connects.get(), 1);
            times.sort_unstable();
            medians.push(times[50]);
        }
        println!("{name}: unix {:?}, tcp {:?}", medians[0], medians[1]);
        // The stall would be at least 40 ms. Even a busy machine stays below half of that.
        assert!(medians[1] < Duration::from_millis(20), "{name}: {medians:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_with_an_open_connection_is_not_probed_and_an_idle_one_is() {
    let fpm = Pool::of(1).start();
    let script = fpm.script("echo.php", ECHO);
    let mut config = config(&[fpm.address()], 1);
    config.linger = Duration::from_millis(300);
    config.probe_interval = Duration::from_millis(10);
    let (upstream, metrics) = start(config);
    let upstream = std::sync::Arc::new(upstream);
    let kept = upstream.clone();
    let probing = tokio::spawn(async move { kept.keep_probing().await });
    eventually("it is probed while there are no requests", || metrics.probes.get() > 3).await;
    assert_eq!(call(&script).body("with its only worker").run(&upstream).await.text(), "with its only worker");
    // One probe may have begun before the request took its connection.
    let most = metrics.probes.get() + 1;
    while upstream.snapshot().backends[0].open == 1 {
        assert!(metrics.probes.get() <= most, "no probe may run while a connection is open");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eventually("it is probed again", || metrics.probes.get() > most + 3).await;
    assert_eq!(metrics.connects.get(), 1, "probes must not count as connections of requests");
    probing.abort();
}
