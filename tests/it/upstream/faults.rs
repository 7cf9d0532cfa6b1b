//! An upstream with a php-fpm that fails, in every way in which php-fpm is known to fail.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longwire::config::model::Bind;
use longwire::metrics::upstream::RetryReason;
use longwire::upstream::{Class, Failure, Outcome};

use crate::support::calls::{call, config, start};
use crate::support::php_fpm::{PhpFpm, Pool, eventually, kill};
use crate::support::proxy::{Proxy, free_address};

/// A script that notes each run with its query in a file, then does `then`.
fn noting(fpm: &PhpFpm, then: &str) -> std::path::PathBuf {
    let runs = fpm.dir().join("runs");
    let note = format!(
        "file_put_contents('{}', $_SERVER['QUERY_STRING'] . \"\\n\", FILE_APPEND | LOCK_EX);\n{then}",
        runs.display()
    );
    fpm.script("noting.php", &note)
}

/// How often each query was run.
fn runs(dir: &Path) -> HashMap<String, u32> {
    let mut runs = HashMap::new();
    for query in fs::read_to_string(dir.join("runs")).unwrap_or_default().lines() {
        *runs.entry(query.to_owned()).or_default() += 1;
    }
    runs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_end_after_five_requests_lose_none_and_repeat_none() {
    for (pool, requests) in [(Pool::of(4), tries(3000)), (Pool::of(4).tcp(), tries(500))] {
        let fpm = pool.line("pm.max_requests = 5").start();
        let script = noting(&fpm, "echo $_SERVER['QUERY_STRING'];");
        let (upstream, metrics) = start(config(&[fpm.address()], 4));
        let calls: Vec<_> = (0..requests).map(|i| (i, call(&script).query(i.to_string()).submit(&upstream))).collect();
        let mut lost = Vec::new();
        for (i, pending) in calls {
            let answer = pending.answer().await;
            match answer.outcome {
                Outcome::Done(_) => assert_eq!(answer.text(), i.to_string()),
                Outcome::Failed(failure) => lost.push((i, failure)),
            }
        }
        let (not_taken, not_sent) = (metrics.retries(RetryReason::NotTaken), metrics.retries(RetryReason::NotSent));
        println!("{}: {} lost, {not_taken} not taken, {not_sent} not sent", fpm.address(), lost.len());
        assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
        let runs = runs(fpm.dir());
        assert_eq!(runs.len(), requests as usize);
        assert!(runs.values().all(|count| *count == 1), "a request ran twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_kills_a_worker_no_request_runs_twice() {
    let deaths = [
        ("killed", "exec('kill -KILL ' . getmypid());"),
        ("segmentation fault", "exec('kill -SEGV ' . getmypid());"),
        ("terminated", "exec('kill -TERM ' . getmypid());"),
        ("told to quit", "exec('kill -QUIT ' . getmypid()); echo 'done';"),
        ("killed once the input is read", "file_get_contents('php://input'); exec('kill -KILL ' . getmypid());"),
        ("killed after a flush", "echo 'x'; ob_flush(); flush(); exec('kill -KILL ' . getmypid());"),
        ("killed as the script ends", "register_shutdown_function(fn() => exec('kill -KILL ' . getmypid()));"),
        ("killed behind its answer", "fastcgi_finish_request(); exec('kill -KILL ' . getmypid());"),
        (
            "killed somewhere",
            "exec('(sleep 0.00' . random_int(0, 9) . '; kill -9 ' . getmypid() . ') >/dev/null 2>&1 &');",
        ),
    ];
    let both = deaths.iter().flat_map(|death| [(death, Pool::of(4)), (death, Pool::of(4).tcp())]);
    for ((name, death), pool) in both {
        let fpm = pool.line("pm.max_requests = 7").start();
        // A third of the requests kill the worker. So kept connections die too, at any point of their next request.
        let script = noting(&fpm, &format!("if ($_SERVER['QUERY_STRING'] % 3 == 0) {{ {death} }} echo 'x';"));
        let mut config = config(&[fpm.address()], 4);
        config.eject_after = 1000;
        let (upstream, metrics) = start(config);
        let calls: Vec<_> =
            (0..tries(150)).map(|i| call(&script).query(i.to_string()).body("some input").submit(&upstream)).collect();
        let mut failed = 0;
        for pending in calls {
            if let Outcome::Failed(failure) = pending.answer().await.outcome {
                assert!(matches!(failure, Failure::BackendClosed { .. }), "{name}: {failure}");
                failed += 1;
            }
        }
        println!("{name}, {}: {failed} failed, {} not taken", fpm.address(), metrics.retries(RetryReason::NotTaken));
        let twice: Vec<_> = runs(fpm.dir()).into_iter().filter(|(_, count)| *count > 1).collect();
        assert!(twice.is_empty(), "{name}: ran more than once: {twice:?}");
    }
}

/// The number of tries; `LONGWIRE_TEST_TRIES=20` multiplies it, to search longer for a race.
fn tries(few: u32) -> u32 {
    few * std::env::var("LONGWIRE_TEST_TRIES").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

#[tokio::test]
async fn a_worker_killed_in_mid_request_fails_that_request_only() {
    let fpm = Pool::of(2).start();
    let slow = fpm.script("slow.php", "touch(__DIR__ . '/runs-' . getmypid()); usleep(300000); echo getmypid();");
    let pid = fpm.script("pid.php", "echo getmypid();");
    let (upstream, _) = start(config(&[fpm.address()], 2));
    let victim: u32 = call(&pid).run(&upstream).await.text().parse().expect("a pid");
    let first = call(&slow).submit(&upstream);
    let second = call(&slow).submit(&upstream);
    eventually("both run", || upstream.snapshot().backends[0].busy == 2).await;
    eventually("the script runs", || fpm.dir().join(format!("runs-{victim}")).exists()).await;
    kill(victim, libc::SIGKILL);
    assert_eq!(first.answer().await.failure(), Failure::BackendClosed { answered: false });
    second.answer().await.body();
    call(&slow).run(&upstream).await.body();
}

#[tokio::test]
async fn messages_wait_for_a_php_fpm_that_comes_back_and_close_events_for_ever() {
    let mut fpm = Pool::of(2).start();
    let script = noting(&fpm, "echo 'here';");
    let mut config = config(&[fpm.address()], 2);
    config.queue_timeout = Duration::from_secs(3);
    let (upstream, metrics) = start(config.clone());
    call(&script).query("warm").run(&upstream).await.body();

    fpm.stop();
    eventually("the kept connection is noticed to be dead", || upstream.snapshot().backends[0].open == 0).await;
    let waits: Vec<_> = (0..20).map(|i| call(&script).query(i.to_string()).submit(&upstream)).collect();
    eventually("the backend is ejected", || metrics.ejections.get() == 1).await;
    fpm.start_again();
    let back = Instant::now();
    for pending in waits {
        assert_eq!(pending.answer().await.text(), "here");
    }
    assert!(back.elapsed() < Duration::from_secs(2), "recovery took {:?}", back.elapsed());

    fpm.stop();
    eventually("the kept connections are noticed to be dead", || upstream.snapshot().backends[0].open == 0).await;
    let close = call(&script).query("close").class(Class::Close).submit(&upstream);
    let message = call(&script).query("late").submit(&upstream);
    assert_eq!(message.answer().await.failure(), Failure::Unavailable);
    fpm.start_again();
    assert_eq!(close.answer().await.text(), "here");
    let runs = runs(fpm.dir());
    assert_eq!((runs.len(), runs.values().max()), (22, Some(&1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_under_load_repeats_nothing_and_soon_everything_is_answered() {
    let fpm = Pool::of(4).start();
    let script = noting(&fpm, "usleep(500); echo 'x';");
    let (upstream, _) = start(config(&[fpm.address()], 4));
    let calls: Vec<_> = (0..2000).map(|i| call(&script).query(i.to_string()).submit(&upstream)).collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        fpm.signal(libc::SIGUSR2);
    }
    let mut failed = 0;
    for pending in calls {
        if let Outcome::Failed(failure) = pending.answer().await.outcome {
            assert!(matches!(failure, Failure::BackendClosed { .. }), "{failure}");
            failed += 1;
        }
    }
    println!("{failed} of 2000 failed");
    // Requests that run during a reload are lost: four workers, three reloads, and as many that were just sent.
    assert!(failed <= 24, "{failed} failed in three reloads of four workers");
    assert!(runs(fpm.dir()).values().all(|count| *count == 1), "a request ran twice");
    call(&script).query("after").run(&upstream).await.body();
}

/// Reloads a pool with `process_control_timeout` nine times while twelve callers send requests without a pause. Returns the number of
/// failed requests, and how many of these had run.
async fn graceful_reloads(pool: Pool, code: &str) -> (usize, usize) {
    let fpm = pool.global("process_control_timeout = 5s").start();
    let script = noting(&fpm, code);
    let (upstream, metrics) = start(config(&[fpm.address()], 6));
    let upstream = Arc::new(upstream);
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..12)
        .map(|caller| {
            let (upstream, script, stop) = (upstream.clone(), script.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut asked, mut failed) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let query = format!("{caller}.{asked}");
                    asked += 1;
                    if let Outcome::Failed(failure) = call(&script).query(&query).run(&upstream).await.outcome {
                        assert_eq!(failure, Failure::BackendClosed { answered: false });
                        failed.push(query);
                    }
                }
                (asked, failed)
            })
        })
        .collect();
    let count = || fs::metadata(fpm.dir().join("runs")).map_or(0, |runs| runs.len());
    for _ in 0..9 {
        let before = count();
        eventually("it works", || count() > before + 20_000).await;
        let workers = workers_of(fpm.master());
        fpm.signal(libc::SIGUSR2);
        eventually("all workers have been replaced", || {
            let now = workers_of(fpm.master());
            now.len() == workers.len() && now.iter().all(|worker| !workers.contains(worker))
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut asked, mut failed) = (0, Vec::new());
    for caller in callers {
        let (its, lost) = caller.await.expect("no other failure");
        asked += its;
        failed.extend(lost);
    }
    let runs = runs(fpm.dir());
    assert!(runs.values().all(|count| *count == 1), "a request ran twice");
    let had_run = failed.iter().filter(|query| runs.contains_key(*query)).count();
    println!(
        "{}: {} of {asked} failed, {had_run} of them had run; {} not taken, {} not sent",
        fpm.address(),
        failed.len(),
        metrics.retries(RetryReason::NotTaken),
        metrics.retries(RetryReason::NotSent),
    );
    (failed.len(), had_run)
}

/// The processes whose parent is this one.
fn workers_of(master: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_reload_behind_a_unix_socket_loses_nothing() {
    for code in ["echo 'x';", "usleep(2000); echo 'x';"] {
        assert_eq!(graceful_reloads(Pool::of(6), code).await, (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_reload_over_tcp_loses_at_most_one_request_of_each_worker() {
    // Lost requests have not run, but that cannot be proved here. Workers with longer scripts are checked before their next request.
    for (code, most) in [("echo 'x';", 54), ("usleep(2000); echo 'x';", 18)] {
        let (failed, had_run) = graceful_reloads(Pool::of(6).tcp(), code).await;
        assert!(failed <= most && had_run == 0, "{failed} failed in nine reloads of six workers, {had_run} had run");
    }
}

#[tokio::test]
async fn scripts_that_misbehave_are_told_apart() {
    let fpm = Pool::of(2).start();
    let (upstream, metrics) = start(config(&[fpm.address()], 2));
    let run = async |code: &str| call(&fpm.script("bad.php", code)).run(&upstream).await;

    let fatal = run("undefined_function();").await;
    assert!(fatal.stdout.starts_with(b"Status: 500"), "{fatal:?}");
    assert!(fatal.stderr_text().contains("undefined_function"), "{}", fatal.stderr_text());

    assert_eq!(run("exit;").await.text(), "");
    assert_eq!(run("echo 'early'; flush(); header('X-Late: 1'); echo 'on';").await.text().replace("earlyon", ""), "");
    let missing = call(&fpm.dir().join("missing.php")).run(&upstream).await;
    assert!(missing.stdout.starts_with(b"Status: 404"));

    let loud = run("for ($i = 0; $i < 1000; $i++) error_log(str_repeat('e', 1000)); echo 'done';").await;
    assert_eq!(loud.text(), "done");
    assert!(loud.stderr.len() >= 1_000_000, "{} bytes of stderr", loud.stderr.len());
    assert!(metrics.stderr_bytes.get() >= 1_000_000);
    assert_eq!(metrics.connects.get(), 1, "the connection must be kept");
}

#[tokio::test]
async fn a_script_that_sleeps_past_its_timeout_fails_and_its_worker_is_not_counted_free() {
    for pool in [Pool::of(1), Pool::of(1).tcp()] {
        let fpm = pool.start();
        let mut config = config(&[fpm.address()], 1);
        config.response_timeout = Duration::from_millis(300);
        config.request_timeout = Duration::from_millis(1500);
        let (upstream, metrics) = start(config.clone());
        let sleeps = fpm.script("sleeps.php", "usleep(1000000);");
        let trickles = fpm
            .script("trickles.php", "for ($i = 0; $i < 30; $i++) { echo 'x'; ob_flush(); flush(); usleep(100000); }");
        let quick = fpm.script("quick.php", "usleep(100000); echo 'quick';");

        let silent = call(&sleeps).submit(&upstream);
        let next = call(&quick).submit(&upstream);
        assert_eq!(silent.answer().await.failure(), Failure::ResponseTimeout { answered: false });
        assert_eq!((metrics.abandoned.get(), upstream.snapshot().backends[0].open), (1, 1));
        // If it were sent too early, it would wait in php-fpm's backlog and fail with its response timeout.
        assert_eq!(next.answer().await.text(), "quick");

        let endless = call(&trickles).run(&upstream).await;
        assert_eq!(endless.failure(), Failure::RequestTimeout { answered: true });
        assert_eq!(call(&quick).run(&upstream).await.text(), "quick");
        assert_eq!(metrics.connects.get(), 3);
    }
}

#[tokio::test]
async fn requests_beyond_the_workers_wait_and_the_queue_has_its_bounds() {
    let fpm = Pool::of(1).start();
    let mut config = config(&[fpm.address()], 1);
    (config.queue_length, config.queue_timeout) = (Some(2), Duration::from_millis(200));
    let (upstream, _) = start(config);
    let slow = fpm.script("slow.php", "usleep(500000); echo 'slow';");
    let running = call(&slow).submit(&upstream);
    let waiting = [call(&slow).submit(&upstream), call(&slow).submit(&upstream)];
    let close = call(&slow).class(Class::Close).submit(&upstream);
    assert_eq!(call(&slow).run(&upstream).await.failure(), Failure::QueueFull);
    for pending in waiting {
        assert_eq!(pending.answer().await.failure(), Failure::QueueTimeout);
    }
    assert_eq!(running.answer().await.text(), "slow");
    assert_eq!(close.answer().await.text(), "slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_requests_never_leak_their_answer_to_another_caller() {
    let fpm = Pool::of(4).start();
    let script = fpm.script(
        "own.php",
        "echo $_SERVER['QUERY_STRING']; if (random_int(0, 1)) { ob_flush(); flush(); }
         usleep(random_int(0, 5000)); echo '.';",
    );
    let (upstream, metrics) = start(config(&[fpm.address()], 4));
    let calls: Vec<_> = (0..1000).map(|i| (i, call(&script).query(i.to_string()).submit(&upstream))).collect();
    let (cancelled, wanted): (Vec<_>, Vec<_>) = calls.into_iter().partition(|(i, _)| i % 3 == 0);
    let cancelling: Vec<_> = cancelled
        .into_iter()
        .map(|(i, pending)| {
            tokio::spawn(async move {
                // Cancel some while they wait, and some as soon as their answer has begun.
                let handle = pending.handle.clone();
                let begun = || handle.received() > 0 || handle.ended.load(Ordering::SeqCst);
                if i % 2 == 0 {
                    eventually("it answers", begun).await;
                }
                handle.cancel();
                let answer = String::from_utf8(pending.answer().await.stdout).expect("text");
                assert!(answer.is_empty() || answer.contains(&format!("\r\n{i}")), "{i} was given {answer}");
            })
        })
        .collect();
    for (i, pending) in wanted {
        assert_eq!(pending.answer().await.text(), format!("{i}."));
    }
    for cancelled in cancelling {
        cancelled.await.expect("no request may get the answer of another one");
    }
    assert!(metrics.aborts.get() > 0, "some requests must have been running when they were cancelled");
}

#[tokio::test]
async fn a_cancelled_script_stops_at_its_next_flush() {
    let fpm = Pool::of(1).start();
    let steps = fpm.dir().join("steps");
    let script = fpm.script(
        "steps.php",
        &format!(
            "for ($i = 0; $i < 100; $i++) {{
                file_put_contents('{}', 'x', FILE_APPEND); echo 'x'; ob_flush(); flush(); usleep(20000);
             }}",
            steps.display()
        ),
    );
    let quick = fpm.script("quick.php", "echo 'quick';");
    let (upstream, metrics) = start(config(&[fpm.address()], 1));
    let pending = call(&script).submit(&upstream);
    eventually("it runs", || pending.handle.received() > 0).await;
    pending.handle.cancel();
    assert_eq!(pending.answer().await.failure(), Failure::Cancelled { sent: true });
    assert_eq!(call(&quick).run(&upstream).await.text(), "quick");
    assert_eq!((metrics.aborts.get(), metrics.abandoned.get()), (1, 0));
    let ran = fs::read(&steps).expect("it ran").len();
    assert!(ran < 50, "the script went on for {ran} of 100 steps");
}

#[tokio::test]
async fn an_idempotent_request_is_sent_once_more_and_no_more() {
    let fpm = Pool::of(1).start();
    let script = noting(&fpm, "exec('kill -KILL ' . getmypid());");
    let (upstream, metrics) = start(config(&[fpm.address()], 1));
    let failure = call(&script).query("again").idempotent().run(&upstream).await.failure();
    assert_eq!(failure, Failure::BackendClosed { answered: false });
    assert_eq!((runs(fpm.dir())["again"], metrics.retries(RetryReason::Idempotent)), (2, 1));
}

#[tokio::test]
async fn a_request_that_was_sent_may_have_run_whatever_ends_its_second_attempt() {
    for ending in ["it waits in vain", "nobody wants it any more", "we are leaving"] {
        let mut fpm = Pool::of(1).start();
        let script = noting(&fpm, "sleep(30);");
        let mut config = config(&[fpm.address()], 1);
        config.queue_timeout = Duration::from_secs(if ending == "it waits in vain" { 1 } else { 60 });
        let (upstream, metrics) = start(config);
        let pending = call(&script).query("once").idempotent().submit(&upstream);
        eventually("it runs", || runs(fpm.dir()).contains_key("once")).await;
        fpm.stop();
        eventually("it is to be sent again", || metrics.retries(RetryReason::Idempotent) == 1).await;
        match ending {
            "nobody wants it any more" => {
                pending.handle.cancel();
                fpm.start_again();
            }
            "we are leaving" => upstream.shutdown().await,
            _ => {}
        }
        let failure = pending.answer().await.failure();
        assert!(failure.may_have_run(), "{ending}: {failure}");
        assert_eq!(runs(fpm.dir())["once"], 1, "{ending}");
    }
}

#[tokio::test]
async fn shutdown_lets_what_runs_end_and_refuses_what_waits() {
    let fpm = Pool::of(1).start();
    let slow = fpm.script("slow.php", "usleep(200000); echo 'slow';");
    let (upstream, _) = start(config(&[fpm.address()], 1));
    let running = call(&slow).submit(&upstream);
    eventually("it runs", || upstream.snapshot().backends[0].busy == 1).await;
    let waiting = call(&slow).submit(&upstream);
    tokio::join!(upstream.shutdown(), async {
        assert_eq!(waiting.answer().await.failure(), Failure::Stopping);
        assert_eq!(running.answer().await.text(), "slow");
    });
    assert_eq!(call(&slow).run(&upstream).await.failure(), Failure::Stopping);
    assert_eq!(upstream.snapshot().backends[0].open, 0);
}

#[tokio::test]
async fn a_backend_that_is_away_leaves_its_share_to_the_others_and_a_probe_finds_it() {
    let fpm = Pool::of(2).start();
    let script = fpm.script("x.php", "echo 'x';");
    let away = Bind::Unix(fpm.dir().join("nobody.sock"));
    let (upstream, metrics) = start(config(&[away.clone(), fpm.address()], 2));
    for _ in 0..50 {
        assert_eq!(call(&script).run(&upstream).await.text(), "x");
    }
    assert_eq!((metrics.ejections.get(), metrics.backends_up.get()), (1, 1));

    let (unasked, metrics) = start(config(&[away, fpm.address()], 2));
    unasked.keep_probing().await;
    let up: Vec<_> = unasked.snapshot().backends.iter().map(|backend| backend.up).collect();
    assert_eq!((up, metrics.ejections.get()), (vec![false, true], 1), "one failure is enough at the start");
}

/// php-fpm over TCP behind haproxy, which accepts at once and closes if it cannot connect to php-fpm.
fn relay(fpm: &PhpFpm) -> (Proxy, Bind) {
    let address = free_address();
    let config = format!(
        "defaults\n mode tcp\n retries 0\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         frontend f\n bind {address}\n default_backend b\nbackend b\n server php {}\n",
        fpm.address()
    );
    let proxy = Proxy::start(&config, "/usr/sbin/haproxy", &["-q", "-db", "-f"], &[address]);
    (proxy, Bind::Tcp(address))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_without_its_php_fpm_costs_no_close_event_and_few_messages() {
    let mut fpm = Pool::of(4).tcp().start();
    let script = noting(&fpm, "echo 'here';");
    let (_proxy, address) = relay(&fpm);
    let mut config = config(&[address], 4);
    config.probe_interval = Duration::from_millis(50);
    let (upstream, metrics) = start(config);
    let upstream = Arc::new(upstream);
    let probed = upstream.clone();
    let probing = tokio::spawn(async move { probed.keep_probing().await });
    call(&script).query("warm").run(&upstream).await.body();

    fpm.stop();
    eventually("the kept connection is noticed to be dead", || upstream.snapshot().backends[0].open == 0).await;
    let closes: Vec<_> = (0..200)
        .map(|i| call(&script).query(format!("close {i}")).class(Class::Close).idempotent().submit(&upstream))
        .collect();
    eventually("the backend is away", || metrics.backends_up.get() == 0).await;
    let messages: Vec<_> = (0..50).map(|i| call(&script).query(format!("message {i}")).submit(&upstream)).collect();
    // The relay accepts connections, but that must not make the backend healthy.
    let tries = metrics.connects.get() + metrics.connect_failures.get();
    eventually("it is tried again and again", || metrics.connects.get() + metrics.connect_failures.get() > tries + 5)
        .await;
    assert_eq!((metrics.backends_up.get(), upstream.snapshot().queued > 200), (0, true));
    fpm.start_again();
    let mut lost = (0, 0);
    for pending in closes {
        lost.0 += usize::from(matches!(pending.answer().await.outcome, Outcome::Failed(_)));
    }
    for pending in messages {
        lost.1 += usize::from(matches!(pending.answer().await.outcome, Outcome::Failed(_)));
    }
    assert_eq!(lost, (0, 0), "close events and messages lost");
    let runs = runs(fpm.dir());
    assert_eq!((runs.len(), runs.values().max()), (251, Some(&1)));
    probing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_event_that_kills_its_worker_is_given_up_and_nobody_else_waits_for_it() {
    for pool in [Pool::of(2), Pool::of(2).tcp()] {
        let fpm = pool.start();
        let script =
            noting(&fpm, "if ($_SERVER['QUERY_STRING'] == 'bad') exec('kill -KILL ' . getmypid()); echo 'fine';");
        let (upstream, _) = start(config(&[fpm.address()], 2));
        let bad = call(&script).query("bad").class(Class::Close).idempotent().submit(&upstream);
        assert_eq!(call(&script).query("good").class(Class::Close).run(&upstream).await.text(), "fine");
        assert_eq!(bad.answer().await.failure(), Failure::BackendClosed { answered: false });
        assert_eq!(runs(fpm.dir())["bad"], 2);
        assert_eq!(call(&script).query("after").run(&upstream).await.text(), "fine");
    }
}
