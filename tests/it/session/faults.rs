//! Failures of php-fpm, seen from a session. The session stays, the log says what happened, no request is sent twice, and other
//! sessions are not affected.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longwire::proto::framing::{FrameKind, Framing, LengthFraming};
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually, kill};

/// Notes that it runs, then acts on the message.
const SCRIPT: &str = r#"
$what = file_get_contents('php://input');
$run = $_SERVER['SESSIONID'] . ' ' . $_SERVER['LONGWIRE_SEQ'] . ' ' . getmypid() . ' ' . $what . "\n";
file_put_contents(__DIR__ . '/runs', $run, FILE_APPEND | LOCK_EX);
switch (strtok($what, ' ')) {
    case 'sleep': usleep(1000 * (int) strtok(' ')); break;
    case 'fatal': no_such_function();
    case 'nothing': exit(7);
    case 'early': echo 'before '; header('X-Late: yes'); break;
    case 'stderr': for ($i = 0; $i < 1024; $i++) error_log(str_repeat('e', 1024)); break;
    case 'flushed': echo 'half'; ob_flush(); flush(); sleep(30); break;
    case 'short': header('Content-Length: 100'); break;
}
echo 'done ', $what;
"#;

const LISTENERS: &str = r#"
[listeners.tcp]
bind = "127.0.0.1:0"
app = "app"
"#;

struct Stage {
    fpm: PhpFpm,
    node: Longwire,
}

impl Stage {
    fn new(pool: Pool, upstream: &str) -> Self {
        let fpm = pool.start();
        let script = fpm.script("faults.php", SCRIPT);
        let node = Longwire::with(&fpm, &script, "", upstream, LISTENERS);
        Self { fpm, node }
    }

    async fn client(&self) -> Client {
        Client::connect(self.node.address("tcp"), Framing::Length(LengthFraming::default())).await
    }

    fn runs(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.fpm.dir().join("runs")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until a worker runs `what` and returns its pid.
    async fn worker_of(&self, what: &str) -> u32 {
        let mut pid = None;
        eventually("the script runs", || {
            pid =
                self.runs().iter().find(|run| run.ends_with(what)).and_then(|run| run.split(' ').nth(2)?.parse().ok());
            pid.is_some()
        })
        .await;
        pid.expect("just seen")
    }

    /// Waits for the log line of the failed event and checks session, script and cause in it.
    fn expect_failure(&self, cause: &str) {
        let line = self.node.wait_for_log(cause, |line| line["cause"] == cause && line["level"] == "WARN");
        let script = self.fpm.dir().join("faults.php");
        assert_eq!(line["script"].as_str().map(Path::new), Some(script.as_path()), "{line}");
        assert_eq!(line["session"].as_str().map(str::len), Some(16), "{line}");
        assert_eq!(self.node.metric("longwire_events_failed_total", &format!("cause=\"{cause}\"")), 1.0);
    }

    /// Checks that no event ran twice.
    fn expect_no_repeats(&self) {
        let mut seen = HashSet::new();
        for run in self.runs() {
            let key = run.split(' ').take(2).map(str::to_owned).collect::<Vec<_>>();
            assert!(seen.insert(key), "ran twice: {run}");
        }
    }

    fn expect_nobody_left(&self) {
        let is_left =
            |line: &serde_json::Value| line["message"] == "session closed" && line["reason"] != "client_closed";
        assert_eq!(self.node.log_lines(is_left), Vec::<serde_json::Value>::new());
    }
}

/// Lets one event fail. The next event of the same session must be answered, and those of other sessions meanwhile too.
async fn check(what: &str, upstream: &str, reply: Option<&str>, cause: Option<&str>) {
    let stage = Stage::new(Pool::of(3), upstream);
    let mut client = stage.client().await;
    let mut other = stage.client().await;
    assert_eq!(client.ask("first").await, "done first");
    client.text(what).await;
    for number in 0..20 {
        assert_eq!(other.ask(&format!("other {number}")).await, format!("done other {number}"));
    }
    if let Some(reply) = reply {
        assert_eq!(String::from_utf8_lossy(&client.frame().await.body), reply);
    }
    assert_eq!(client.ask("next").await, "done next");
    if let Some(cause) = cause {
        stage.expect_failure(cause);
    }
    stage.expect_no_repeats();
    stage.expect_nobody_left();
}

#[tokio::test]
async fn a_fatal_error_is_logged_and_not_sent() {
    check("fatal", "", None, Some("status")).await;
}

#[tokio::test]
async fn an_exit_without_output_is_no_reply() {
    check("nothing", "", None, None).await;
}

#[tokio::test]
async fn output_before_headers_is_sent_as_it_is() {
    check("early", "", Some("before done early"), None).await;
}

#[tokio::test]
async fn a_content_length_above_the_body_sends_nothing() {
    check("short", "", None, Some("reply_short")).await;
}

#[tokio::test]
async fn a_script_that_sleeps_past_the_timeout_is_given_up() {
    check("sleep 3000", "response_timeout = \"200ms\"", None, Some("response_timeout")).await;
}

#[tokio::test]
async fn a_megabyte_on_stderr_is_logged_up_to_its_bound() {
    let stage = Stage::new(Pool::of(2), "");
    let mut client = stage.client().await;
    assert_eq!(client.ask("stderr").await, "done stderr");
    let last = stage.node.wait_for_log("stderr is logged", |line| line["cut_bytes"].is_u64());
    assert_eq!(last["session"].as_str().map(str::len), Some(16));
    let cut = last["cut_bytes"].as_u64().expect("a number") as usize;
    let lines = stage.node.log_lines(|line| line["target"] == "longwire::php" && line["cut_bytes"].is_null());
    assert!(lines.iter().all(|line| line["session"] == last["session"]), "each line names the session");
    let logged: usize = lines.iter().map(|line| line["message"].as_str().expect("text").len()).sum();
    assert!(logged <= 16 * 1024, "{logged} bytes are logged");
    // php.ini's log_errors_max_len cuts each of the 1 024 lines a little.
    assert!(logged + cut >= 1_000_000, "{logged} logged and {cut} cut are not the megabyte that was written");
    assert_eq!(client.ask("next").await, "done next");
}

#[tokio::test]
async fn a_killed_worker_costs_one_event() {
    let stage = Stage::new(Pool::of(2), "");
    let mut client = stage.client().await;
    let mut other = stage.client().await;
    client.text("sleep 30000").await;
    kill(stage.worker_of("sleep 30000").await, libc::SIGKILL);
    assert_eq!(client.ask("next").await, "done next");
    assert_eq!(other.ask("other").await, "done other");
    stage.expect_failure("backend_closed");
    stage.expect_no_repeats();
    stage.expect_nobody_left();
}

#[tokio::test]
async fn a_reply_that_had_begun_and_cannot_be_finished_closes_its_session_only() {
    let stage = Stage::new(Pool::of(2), "");
    let delimiter = stage.node.address("tcp");
    let mut client = Client::connect(delimiter, Framing::Length(LengthFraming::default())).await;
    let mut other = stage.client().await;
    // Without Content-Length the length framing holds the reply back. So nothing was sent, and the session stays.
    client.text("flushed").await;
    kill(stage.worker_of("flushed").await, libc::SIGKILL);
    assert_eq!(client.ask("next").await, "done next");
    assert_eq!(other.ask("other").await, "done other");
    stage.expect_nobody_left();

    let raw = Longwire::with(
        &stage.fpm,
        &stage.fpm.dir().join("faults.php"),
        "",
        "",
        "[listeners.raw]\nbind = \"127.0.0.1:0\"\napp = \"app\"\nframing = { type = \"raw\" }",
    );
    let mut client = Client::connect(raw.address("raw"), Framing::Raw).await;
    std::fs::remove_file(stage.fpm.dir().join("runs")).unwrap();
    client.text("flushed").await;
    assert_eq!(&client.frame().await.body[..], b"half");
    kill(stage.worker_of("flushed").await, libc::SIGKILL);
    assert_eq!(client.end().await, None);
    assert_eq!(raw.closed(1)[0]["reason"], "reply_broken");
}

#[tokio::test]
async fn messages_wait_while_all_workers_are_busy() {
    let stage = Stage::new(Pool::of(2), "max_connections = 2");
    let mut busy = [stage.client().await, stage.client().await];
    for client in &mut busy {
        client.text("sleep 700").await;
    }
    eventually("both workers are busy", || stage.runs().len() == 2).await;
    let mut client = stage.client().await;
    assert_eq!(client.ask("patient").await, "done patient");
    for client in &mut busy {
        assert_eq!(&client.frame().await.body[..], b"done sleep 700");
    }
    stage.expect_no_repeats();
}

#[tokio::test]
async fn messages_wait_for_a_php_fpm_that_was_stopped_and_comes_back() {
    let mut stage = Stage::new(Pool::of(2), "queue_timeout = \"60s\"");
    let mut client = stage.client().await;
    assert_eq!(client.ask("before").await, "done before");
    // Wait until the connection is closed. A message sent in the moment when php-fpm dies might have run; the tests of upstreams
    // cover that.
    let open = || stage.node.metric("longwire_upstream_open_connections", "");
    eventually("the connection has lingered out", || open() == 0.0).await;
    stage.fpm.stop();
    client.text("meanwhile").await;
    eventually("the node sees that no backend answers", || stage.node.admin("/ready").0 == 503).await;
    stage.fpm.start_again();
    assert_eq!(&client.frame().await.body[..], b"done meanwhile");
    assert_eq!(client.ask("after").await, "done after");
    stage.expect_no_repeats();
    stage.expect_nobody_left();
    assert_eq!(stage.node.admin("/ready").0, 200);
}

/// Sessions that send a message and wait for the reply, again and again until `stop`. After a timeout they send the next one.
async fn load(stage: &Stage, sessions: usize, stop: &Arc<AtomicBool>) -> JoinSet<(usize, usize)> {
    let mut tasks = JoinSet::new();
    for session in 0..sessions {
        let client = stage.client().await;
        let stop = stop.clone();
        tasks.spawn(async move {
            let Client { mut sender, mut receiver, .. } = client;
            let (mut asked, mut answered) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                let question = format!("load {session} {asked}");
                asked += 1;
                sender.send(FrameKind::Binary, question.as_bytes()).await;
                // A failed event has no reply, so what comes may be the answer to a later question.
                if let Ok(frame) = tokio::time::timeout(Duration::from_secs(3), receiver.frame()).await {
                    assert_eq!(String::from_utf8_lossy(&frame.body), format!("done {question}"));
                    answered += 1;
                }
            }
            (asked, answered)
        });
    }
    tasks
}

async fn totals(mut tasks: JoinSet<(usize, usize)>) -> (usize, usize) {
    let mut totals = (0, 0);
    while let Some(result) = tasks.join_next().await {
        let (asked, answered) = result.unwrap();
        totals = (totals.0 + asked, totals.1 + answered);
    }
    totals
}

#[tokio::test]
async fn workers_that_end_after_five_requests_lose_nothing_under_load() {
    let stage = Stage::new(Pool::of(4).line("pm.max_requests = 5"), "");
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = load(&stage, 20, &stop).await;
    eventually("some thousand events", || stage.runs().len() > 3000).await;
    stop.store(true, Ordering::Relaxed);
    let (asked, answered) = totals(tasks).await;
    assert_eq!(asked, answered, "events that were not answered");
    assert_eq!(stage.runs().len(), asked);
    stage.expect_no_repeats();
    stage.expect_nobody_left();
}

#[tokio::test]
async fn a_reload_under_load_costs_at_most_what_runs() {
    let stage = Stage::new(Pool::of(4).global("process_control_timeout = 5s"), "");
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = load(&stage, 20, &stop).await;
    for round in 1..=3 {
        let before = stage.runs().len();
        stage.fpm.signal(libc::SIGUSR2);
        eventually("events go on", || stage.runs().len() > before + 500).await;
        assert!(round < 4);
    }
    stop.store(true, Ordering::Relaxed);
    let (asked, answered) = totals(tasks).await;
    let failed = stage.node.metric("longwire_events_failed_total", "");
    assert_eq!(asked as f64, answered as f64 + failed, "every event is answered or counted as failed");
    // With four workers and three reloads, only the events that ran at those moments fail.
    assert!(failed <= 12.0, "{failed} events failed");
    stage.expect_no_repeats();
    stage.expect_nobody_left();
    assert_eq!(stage.client().await.ask("after").await, "done after");
}

/// A node whose pool is probed so often that a test need not wait. It has no clients.
fn unasked(fpm: &PhpFpm) -> Longwire {
    let script = fpm.script("handler.php", "echo 'here';");
    Longwire::with(fpm, &script, "", "probe_interval = \"50ms\"", LISTENERS)
}

#[tokio::test]
async fn ready_follows_php_fpm_while_nobody_asks() {
    for pool in [Pool::of(1), Pool::of(1).tcp()] {
        let mut fpm = pool.start();
        let node = unasked(&fpm);
        eventually("it is probed", || node.metric("longwire_upstream_probes_total", "") > 0.0).await;
        assert_eq!(node.admin("/ready").0, 200);
        for _ in 0..2 {
            fpm.stop();
            eventually("the node sees that php-fpm is away", || node.admin("/ready").0 == 503).await;
            assert_eq!(node.admin("/ready").1, "upstream php: no backend answers\n");
            fpm.start_again();
            eventually("the node sees that it is back", || node.admin("/ready").0 == 200).await;
        }
        assert_eq!(node.metric("longwire_upstream_requests_total", ""), 0.0, "no client has sent anything");
        let mut client = Client::connect(node.address("tcp"), Framing::Length(LengthFraming::default())).await;
        assert_eq!(client.ask("now").await, "here");
    }
}

#[tokio::test]
async fn a_php_fpm_that_is_away_at_the_start_is_said_at_once_with_what_to_look_at() {
    let mut fpm = Pool::of(1).start();
    fpm.stop();
    let node = unasked(&fpm);
    let line = node.wait_for_log("it is away", |line| line["level"] == "WARN" && line["upstream"] == "php");
    let error = line["error"].as_str().expect("the line has an error");
    assert!(error.contains("No such file") && error.contains("is php-fpm running"), "{error}");
    assert_eq!(node.admin("/ready").0, 503);
    fpm.start_again();
    eventually("the node sees that it is there", || node.admin("/ready").0 == 200).await;
}

#[tokio::test]
async fn a_php_fpm_that_refuses_this_machine_is_not_ready_and_the_log_says_why() {
    let fpm = Pool::of(1).tcp().line("listen.allowed_clients = 127.0.0.9").start();
    let node = unasked(&fpm);
    // On a busy machine php-fpm's refusal may come after the first probe. Then this request fails and triggers another one.
    let mut client = Client::connect(node.address("tcp"), Framing::Length(LengthFraming::default())).await;
    client.text("let me in").await;
    let line = node.wait_for_log("the refusal is named", |line| {
        line["error"].as_str().is_some_and(|text| text.contains("listen.allowed_clients"))
    });
    assert_eq!((&line["level"], &line["upstream"]), (&"WARN".into(), &"php".into()));
    eventually("the node is not ready", || node.admin("/ready").0 == 503).await;
}

/// Waits for a future for at most 20 s.
async fn in_time<T>(coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), coming).await.expect("it comes within 20 s")
}

/// Twenty sessions request 16 MB each and read nothing. They may occupy half of the workers; other sessions are served by the rest.
#[tokio::test]
async fn clients_that_do_not_read_leave_half_of_the_workers_to_others() {
    let fpm = Pool::of(8).start();
    let code = "if (file_get_contents('php://input') != 'much') exit('little');
        touch(__DIR__ . '/much-' . $_SERVER['SESSIONID']);
        for ($i = 0; $i < 256; $i++) { echo str_repeat('x', 65536); ob_flush(); flush(); }";
    let script = fpm.script("much.php", code);
    let node = Longwire::with(
        &fpm,
        &script,
        "",
        "",
        "[listeners.raw]\nbind = \"127.0.0.1:0\"\napp = \"app\"\nframing = { type = \"raw\" }",
    );
    let raw = node.address("raw");
    let mut other = Client::connect(raw, Framing::Raw).await;
    let mut greedy = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(raw, Framing::Raw).await;
        client.text("much").await;
        greedy.push(client);
    }
    let begun = || {
        std::fs::read_dir(fpm.dir())
            .unwrap()
            .flatten()
            .filter(|file| file.file_name().to_string_lossy().starts_with("much-"))
            .count()
    };
    eventually("every worker has one of them", || begun() >= 8).await;
    let asked = Instant::now();
    assert_eq!(in_time(other.ask("a little")).await, "little");
    // Twelve of these requests wait before the small one, for four workers and one second each.
    let waited = asked.elapsed();
    println!("a stranger waited for {waited:?}");
    assert!(waited < Duration::from_secs(6), "a stranger waited for {waited:?}");
    let is_slow = |line: &serde_json::Value| line["message"] == "session closed" && line["reason"] == "slow_reader";
    eventually("no request waits any more", || node.metric("longwire_upstream_queued_requests", "") == 0.0).await;
    let closed = node.log_lines(is_slow).len();
    assert!((4..20).contains(&closed), "{closed} were closed");
    // Half of the workers are still occupied by them, because no request waits.
    assert_eq!(in_time(other.ask("a little")).await, "little");
    assert_eq!(node.metric("longwire_upstream_requests_total", "outcome=\"slow_reader\""), closed as f64);
    drop(greedy);
}

#[tokio::test]
async fn connections_to_other_doors_leave_descriptors_for_php_fpm() {
    let fpm = Pool::of(2).start();
    let script = fpm.script("handler.php", "echo 'here';");
    let config = format!(
        "[limits]\nmax_sessions = 50\n[apps.app]\nupstream = \"php\"\nscript = {script:?}\n[upstreams.php]\nlinger = 0\n\
         backends = [\"{}\"]\nmax_connections = 2\nqueue_timeout = \"2s\"\n{LISTENERS}",
        fpm.address()
    );
    let node = Longwire::serve_prepared(&config, |command| {
        // SAFETY: between fork and exec only setrlimit is called.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(command, || {
                let limit = libc::rlimit { rlim_cur: 400, rlim_max: 400 };
                if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
    });
    let mut client = Client::connect(node.address("tcp"), Framing::Length(LengthFraming::default())).await;
    assert_eq!(client.ask("before").await, "here");
    let mut idle = Vec::new();
    for door in ["router", "api", "admin"] {
        for _ in 0..400 {
            // A port closes the connections that it refuses; those that it does not accept wait in its backlog.
            let connecting = tokio::net::TcpStream::connect(node.address(door));
            if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(500), connecting).await {
                idle.push(stream);
            } else {
                break;
            }
        }
    }
    assert_eq!(in_time(client.ask("after")).await, "here");
    let mut another = Client::connect(node.address("tcp"), Framing::Length(LengthFraming::default())).await;
    assert_eq!(in_time(another.ask("after")).await, "here");
}
