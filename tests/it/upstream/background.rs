//! An upstream with scripts that go on working after their answer, as scripts do that call `fastcgi_finish_request()`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use longwire::config::model::Bind;
use longwire::upstream::Upstream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::calls::{Collector, Pending, call, config, start};
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

/// `hi` is answered. `bg` is answered too, and goes on working until the file `go` exists.
const HANDLER: &str = "$body = file_get_contents('php://input');
    echo \"$body-ok\";
    if ($body === 'bg') { fastcgi_finish_request(); while (!file_exists(__DIR__ . '/go')) { usleep(2000); clearstatcache(); } }";

/// Two pools with this number of workers: one on a Unix socket, one on TCP.
fn pools(workers: usize) -> [PhpFpm; 2] {
    [Pool::of(workers).start(), Pool::of(workers).tcp().start()]
}

struct Shop {
    fpm: PhpFpm,
    script: std::path::PathBuf,
    upstream: Upstream<Collector>,
    metrics: longwire::metrics::upstream::UpstreamHandles,
}

impl Shop {
    fn new(fpm: PhpFpm, workers: usize, response_timeout: Duration) -> Self {
        let script = fpm.script("handler.php", HANDLER);
        let mut config = config(&[fpm.address()], workers);
        config.response_timeout = response_timeout;
        let (upstream, metrics) = start(config);
        Self { fpm, script, upstream, metrics }
    }

    fn say(&self, body: &'static str) -> Pending {
        call(&self.script).body(body).submit(&self.upstream)
    }

    fn go(&self) {
        fs::write(self.fpm.dir().join("go"), "").expect("the directory is ours");
    }
}

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_stranger_does_not_wait_for_work_behind_an_answer_while_a_worker_is_free() {
    for fpm in pools(2) {
        let shop = Shop::new(fpm, 2, LONG);
        // The first request is answered before the second is sent. Longwire knows nothing about this php-fpm before.
        for pause in [Duration::ZERO, Duration::from_millis(20)] {
            assert_eq!(shop.say("bg").answer().await.text(), "bg-ok");
            tokio::time::sleep(pause).await;
            for _ in 0..20 {
                // Behind the working script it would wait for ever, because `go` does not exist.
                assert_eq!(shop.say("hi").answer().await.text(), "hi-ok");
            }
            // Of two requests at once, one is sent to the connection of the working script, which counts as busy from then on.
            for pending in [shop.say("hi"), shop.say("hi")] {
                assert_eq!(pending.answer().await.text(), "hi-ok");
            }
            let snapshot = shop.upstream.snapshot();
            assert_eq!((snapshot.backends[0].open, snapshot.backends[0].busy), (2, 1), "{pause:?}");
            shop.go();
            eventually("its place is free again", || shop.upstream.snapshot().backends[0].busy == 0).await;
            fs::remove_file(shop.fpm.dir().join("go")).expect("it was written");
        }
        // A connection that is found busy without a new request counts as busy too, and keeps its place beyond `linger`.
        assert_eq!(shop.say("bg").answer().await.text(), "bg-ok");
        assert_eq!(shop.say("bg").answer().await.text(), "bg-ok");
        eventually("both are counted", || shop.upstream.snapshot().backends[0].busy == 2).await;
        assert_eq!(shop.metrics.background.get(), 2);
        shop.go();
        eventually("both come back", || shop.metrics.background.get() == 0).await;
    }
}

#[tokio::test]
async fn while_all_workers_work_on_a_request_waits_in_the_queue_and_no_timeout_runs() {
    for fpm in pools(2) {
        // A timeout shorter than the remaining work of the workers.
        let shop = Shop::new(fpm, 2, Duration::from_millis(500));
        for pending in [shop.say("bg"), shop.say("bg")] {
            assert_eq!(pending.answer().await.text(), "bg-ok");
        }
        let stranger = shop.say("hi");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(shop.upstream.snapshot().queued, 1);
        shop.go();
        let answer = stranger.answer().await;
        assert_eq!(answer.text(), "hi-ok");
        assert!(answer.timing().queued > Duration::from_secs(1), "{:?}", answer.timing());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_goes_past_a_worker_that_works_on() {
    // Over TCP php-fpm is asked a hundred times a second whether its workers are back.
    for (fpm, at) in pools(2).into_iter().zip([300, 30]) {
        let shop = Shop::new(fpm, 2, LONG);
        let mut calls: Vec<_> = (0..600).map(|n| shop.say(if n == at { "bg" } else { "hi" })).collect();
        let in_the_background = calls.remove(at);
        for pending in calls {
            // `go` does not exist, so a request that was sent behind the working script would never be answered.
            assert_eq!(pending.answer().await.text(), "hi-ok");
        }
        assert_eq!(in_the_background.answer().await.text(), "bg-ok");
        shop.go();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_after_an_answer_reaches_nobody_and_is_no_fault() {
    for fpm in pools(2) {
        let script = fpm.script(
            "late.php",
            "ini_set('display_errors', '1');
            ignore_user_abort(true);
            $body = file_get_contents('php://input');
            echo $body;
            fastcgi_finish_request();
            header('Longwire-Close: 1'); echo str_repeat('stray', 1 + ord($body) % 5 * 10000); flush();
            error_log('late log'); trigger_error('late warning', E_USER_WARNING);
            if ($body % 7 == 0) usleep(3000);
            echo 'later'; flush(); error_log('later log');
            file_put_contents(__DIR__ . '/done', \"$body\\n\", FILE_APPEND | LOCK_EX);",
        );
        let (upstream, metrics) = start(config(&[fpm.address()], 2));
        for round in 0..4 {
            let calls: Vec<_> =
                (0..50).map(|n: u32| (n, call(&script).body(n.to_string()).submit(&upstream))).collect();
            for (n, pending) in calls {
                let answer = pending.answer().await;
                assert_eq!((answer.text(), answer.stderr.len()), (n.to_string().as_str(), 0), "round {round}");
            }
        }
        let done = || fs::read_to_string(fpm.dir().join("done")).map_or(0, |done| done.lines().count());
        eventually("each script has come to its end", || done() == 200).await;
        // Normally two connections. More, if the machine keeps a worker off the CPU for longer than Longwire waits for it.
        assert!(metrics.connects.get() <= 20, "{} connections for 200 requests", metrics.connects.get());
        assert!(metrics.stderr_bytes.get() > 200 * 8);
    }
}

#[tokio::test]
async fn a_script_that_finishes_early_and_has_nothing_to_do_costs_no_connection() {
    for fpm in pools(4) {
        let script = fpm.script("early.php", "echo 'x'; fastcgi_finish_request(); $x = array_sum(range(1, 2000));");
        let (upstream, metrics) = start(config(&[fpm.address()], 4));
        let began = Instant::now();
        for _ in 0..300 {
            assert_eq!(call(&script).run(&upstream).await.text(), "x");
        }
        // Normally one connection. More, if the machine kept a worker off the CPU for longer than Longwire waits for it.
        let connects = metrics.connects.get();
        assert!(connects <= 3, "{connects} connections for 300 requests in {:?}", began.elapsed());
    }
}

/// A TCP relay in front of a backend. It can stop forwarding bytes from the client on its open connections.
struct Relay {
    address: std::net::SocketAddr,
    is_deaf: Arc<AtomicBool>,
    /// Number of bytes that were not forwarded.
    swallowed: Arc<AtomicUsize>,
}

impl Relay {
    async fn before(backend: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let (is_deaf, swallowed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let state = (is_deaf.clone(), swallowed.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(backend).await.expect("the backend listens");
                let ((mut said, mut heard), (mut answers, mut asked)) = (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut answers, &mut heard).await });
                let (is_deaf, swallowed) = state.clone();
                tokio::spawn(async move {
                    let (mut bytes, mut stays_deaf) = ([0; 4096], false);
                    while let Ok(len @ 1..) = said.read(&mut bytes).await {
                        stays_deaf |= is_deaf.load(Ordering::SeqCst);
                        if stays_deaf {
                            swallowed.fetch_add(len, Ordering::SeqCst);
                        } else if asked.write_all(&bytes[..len]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, is_deaf, swallowed }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_never_says_that_it_is_back_keeps_its_place_for_request_timeout() {
    let fpm = Pool::of(2).tcp().start();
    let code = "touch(__DIR__ . '/runs'); usleep(50000); echo 'slow';";
    let (slow, quick) = (fpm.script("slow.php", code), fpm.script("quick.php", "echo 'quick';"));
    let Bind::Tcp(backend) = fpm.address() else { panic!("the pool listens on TCP") };
    let relay = Relay::before(backend).await;
    let mut config = config(&[Bind::Tcp(relay.address)], 1);
    (config.request_timeout, config.response_timeout) = (Duration::from_secs(2), Duration::from_secs(2));
    let (upstream, metrics) = start(config);
    // After such a slow script, Longwire always asks whether the worker is ready.
    let pending = call(&slow).submit(&upstream);
    eventually("it runs", || fpm.dir().join("runs").exists()).await;
    relay.is_deaf.store(true, Ordering::SeqCst);
    assert_eq!(pending.answer().await.text(), "slow");
    let next = call(&quick).submit(&upstream);
    eventually("the question is lost", || relay.swallowed.load(Ordering::SeqCst) > 0).await;
    relay.is_deaf.store(false, Ordering::SeqCst);
    assert_eq!(next.answer().await.text(), "quick");
    assert_eq!((metrics.connects.get(), metrics.background.get()), (2, 0));
}
