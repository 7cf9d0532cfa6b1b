//! If the log cannot be written, or its pipe is not read, only log lines are lost. Everything else goes on.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use longwire::proto::command::{Action, Receipt, Target};
use longwire::proto::framing::{Framing, LengthFraming};

use crate::support::client::Client;
use crate::support::cluster::{next, reached, send};
use crate::support::end_with_the_run;
use crate::support::engine::{EngineServer, Kind};
use crate::support::longwire::{LISTENERS, Longwire, http_get_on, series};
use crate::support::php_fpm::{PhpFpm, Pool, eventually, kill};
use crate::support::router::{Router, name, session};

/// Notes connects and closes, and answers with the session's id. `complain` writes to PHP's error log, which becomes a warning.
const SCRIPT: &str = r#"
$event = $_SERVER['LONGWIRE_EVENT'];
if ($event !== 'message') {
    file_put_contents(__DIR__ . '/events', "$event\n", FILE_APPEND | LOCK_EX);
    exit;
}
$asked = file_get_contents('php://input');
if ($asked === 'fail') {
    http_response_code(500);
    exit;
}
if ($asked === 'complain') {
    error_log('this is not right');
}
echo $_SERVER['SESSIONID'];
"#;

/// The kind of broken standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// A full disk.
    Full,
    /// A pipe whose reader is gone.
    Dead,
    /// A full pipe that is not read.
    Unread,
}

/// A node that listens only on Unix sockets, so that the test need not read addresses from the log.
struct Node {
    child: Child,
    folder: tempfile::TempDir,
    /// The reading end of its log, for [`Trouble::Unread`].
    log: Option<PipeReader>,
}

impl Node {
    async fn start(fpm: &PhpFpm, trouble: Trouble, number: usize, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let script = fpm.script("events.php", SCRIPT);
        let door = |name: &str| format!("bind = \"unix:{}/{name}\"\n", folder.path().display());
        let config = format!(
            "[node]\nname = \"n{number}\"\nnumber = {number}\n[log]\nlevel = \"debug\"\n[admin]\n{}[router]\n{}[api]\n{}\
             [apps.app]\nupstream = \"php\"\nscript = {script:?}\nevents = [\"connect\", \"close\"]\n\
             [upstreams.php]\nbackends = [\"{}\"]\nmax_connections = {}\n[listeners.clients]\napp = \"app\"\n{}{more}",
            door("admin"),
            door("router"),
            door("api"),
            fpm.address(),
            fpm.workers,
            door("clients"),
        );
        let file = folder.path().join("longwire.toml");
        std::fs::write(&file, config).expect("the directory is ours");
        let (stderr, log) = stderr(trouble);
        let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
        command.args(["serve", "--config"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0);
        end_with_the_run(&mut command, libc::SIGKILL);
        let child = command.spawn().expect("the binary was built for this test");
        // Drop the command, because it holds a copy of the pipe's end.
        drop(command);
        let mut node = Self { child, folder, log };
        eventually("it serves", || {
            assert_eq!(node.child.try_wait().expect("it is our child"), None, "{trouble:?}: it ended");
            UnixStream::connect(node.door("admin")).is_ok() && node.admin("/ready").0 == 200
        })
        .await;
        node
    }

    fn door(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn admin(&self, path: &str) -> (u16, String) {
        let stream = UnixStream::connect(self.door("admin")).expect("it listens");
        http_get_on(stream, "localhost", path)
    }

    fn metric(&self, name: &str) -> f64 {
        series(&self.admin("/metrics").1, name, "")
    }

    async fn client(&self) -> Client {
        let socket = tokio::net::UnixStream::connect(self.door("clients")).await.expect("it listens");
        Client::on(socket, Framing::Length(LengthFraming::default()), Vec::new())
    }

    async fn router(&self) -> Router {
        let mut router = Router::unix(&self.door("router")).await;
        router.greet("").await.expect("no secret is asked for");
        router
    }

    /// Sends SIGTERM and returns the exit status.
    async fn stop(&mut self) -> Option<i32> {
        kill(self.child.id(), libc::SIGTERM);
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        })
        .await;
        status.and_then(|status| status.code())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stderr(trouble: Trouble) -> (Stdio, Option<PipeReader>) {
    if trouble == Trouble::Full {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        return (full.into(), None);
    }
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    if trouble == Trouble::Dead {
        return (writer.into(), None);
    }
    // SAFETY: it only reads a number from an open descriptor.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ) };
    writer.write_all(&vec![b'\n'; usize::try_from(size).expect("it is a pipe")]).expect("it takes so many");
    (writer.into(), Some(reader))
}

fn noted(folder: &Path, event: &str) -> usize {
    let text = std::fs::read_to_string(folder.join("events")).unwrap_or_default();
    text.lines().filter(|line| *line == event).count()
}

/// Checks that everything goes on: connects, answers, failures, closes, `/live`, and the drain.
async fn check(trouble: Trouble) {
    const SESSIONS: usize = 12;
    let fpm = Pool::of(4).start();
    let mut node = Node::start(&fpm, trouble, 1, "").await;
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        let mut client = node.client().await;
        // A failed event logs a warning, and the next message is answered.
        client.text("fail").await;
        assert_eq!(client.ask("complain").await.len(), 16, "{trouble:?}");
        clients.push(client);
    }
    // PHP gets the close events of sessions that end.
    clients.truncate(SESSIONS / 2);
    eventually("the close events of the ended sessions are noted", || noted(fpm.dir(), "close") == SESSIONS / 2).await;
    for client in &mut clients {
        assert_eq!(client.ask("again").await.len(), 16, "{trouble:?}");
    }
    assert_eq!((node.admin("/live").0, node.admin("/ready").0), (200, 200), "{trouble:?}");
    let mut sessions = SESSIONS;
    if trouble == Trouble::Unread {
        heard_again(&mut node).await;
        sessions += 1;
    } else {
        // At least one line is lost for each session.
        let lost = node.metric("longwire_log_lines_lost_total");
        assert!(lost >= SESSIONS as f64, "{trouble:?}: {lost} lines lost");
    }
    assert_eq!(node.stop().await, Some(0), "{trouble:?}: it drains, and ends well");
    assert_eq!((noted(fpm.dir(), "connect"), noted(fpm.dir(), "close")), (sessions, sessions), "{trouble:?}");
}

/// Reads the log at last. The lines that waited come first, then a line with the number of lost lines, which must match the counter.
async fn heard_again(node: &mut Node) {
    // Cause more lines than may wait.
    let mut client = node.client().await;
    let mut asked = 0;
    while node.metric("longwire_log_lines_lost_total") == 0.0 {
        assert!(asked < 100_000, "no line was lost, although the log is not read");
        for _ in 0..500 {
            client.text("complain").await;
        }
        for _ in 0..500 {
            next(&mut client).await;
        }
        asked += 500;
    }
    drop(client);
    let mut reader = node.log.take().expect("the test has not taken the reader yet");
    let (lines_tx, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut piece = [0; 65_536];
        while let Ok(read @ 1..) = reader.read(&mut piece) {
            text.extend_from_slice(&piece[..read]);
            let _ = lines_tx.send(String::from_utf8_lossy(&text).into_owned());
        }
    });
    let (mut text, mut lost) = (String::new(), 0.0);
    eventually("a line says how many lines were lost", || {
        text = lines.try_iter().last().unwrap_or(std::mem::take(&mut text));
        let told = text.lines().filter(|line| line.contains("log lines were lost"));
        let told = told.filter_map(|line| line.rsplit_once("lines=")?.1.trim().parse::<f64>().ok());
        lost = told.sum();
        lost > 0.0 && lost == node.metric("longwire_log_lines_lost_total")
    })
    .await;
    assert!(text.contains("session closed"), "what waited was written");
}

#[tokio::test]
async fn a_full_disk_costs_log_lines_and_nothing_else() {
    check(Trouble::Full).await;
}

#[tokio::test]
async fn a_pipe_without_a_reader_costs_log_lines_and_nothing_else() {
    check(Trouble::Dead).await;
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_costs_log_lines_and_nothing_else() {
    check(Trouble::Unread).await;
}

#[tokio::test]
async fn nodes_without_a_log_find_each_other_and_go_on_when_one_dies() {
    for trouble in [Trouble::Full, Trouble::Dead, Trouble::Unread] {
        let (fpm, engine) = (Pool::of(4).start(), EngineServer::start(Kind::Redis));
        let cluster = format!("[cluster]\nlease = \"3s\"\nlinger = \"1s\"\n{}", engine.config());
        let mut first = Node::start(&fpm, trouble, 1, &cluster).await;
        let second = Node::start(&fpm, trouble, 2, &cluster).await;
        let nodes = |node: &Node| node.metric("longwire_cluster_nodes");
        eventually("they know each other", || nodes(&first) == 1.0 && nodes(&second) == 1.0).await;
        let mut client = second.client().await;
        let sid = session(&client.ask("who").await);
        let mut router = first.router().await;
        assert_eq!(router.run(send(Target::session(sid), "hello")).await, reached(1), "{trouble:?}");
        assert_eq!(next(&mut client).await, "hello");
        // The lease of the other node expires, which logs a warning.
        drop(second);
        eventually("the dead one is missed", || nodes(&first) == 0.0).await;
        assert_eq!(first.admin("/ready").0, 200, "{trouble:?}");
        let mut own = first.client().await;
        let sid = session(&own.ask("who").await);
        assert_eq!(router.do_to(Target::session(sid), Action::Join(name("news"))).await, reached(1), "{trouble:?}");
        assert_eq!(router.run(send(Target::Channel(name("news")), "still here")).await, reached(1), "{trouble:?}");
        assert_eq!(next(&mut own).await, "still here");
        assert_ne!(router.run(send(Target::All, "all")).await, Receipt::default(), "{trouble:?}");
        drop(own);
        assert_eq!(first.stop().await, Some(0), "{trouble:?}");
    }
}

/// With a file as log, nothing is lost, and all lines are in the file when the process has ended.
#[tokio::test]
async fn the_last_line_is_in_the_file_when_the_process_has_ended() {
    let fpm = Pool::of(1).start();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("log");
    let (script, sockets) = (fpm.script("events.php", SCRIPT), folder.path().display().to_string());
    let door = folder.path().join("admin");
    let config = format!(
        "[admin]\nbind = \"unix:{sockets}/admin\"\n[router]\nbind = \"unix:{sockets}/router\"\n[api]\n\
         bind = \"unix:{sockets}/api\"\n[apps.app]\nupstream = \"php\"\nscript = {script:?}\n[upstreams.php]\n\
         backends = [\"{}\"]\n[listeners.clients]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n",
        fpm.address()
    );
    let config_file = folder.path().join("longwire.toml");
    std::fs::write(&config_file, config).expect("the directory is ours");
    // SIGTERM comes at two moments: as soon as its socket exists, when it may still be starting, and once it is ready.
    for waits_until_ready in [false, true] {
        let _old = std::fs::remove_file(&door);
        let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
        command.args(["serve", "--config"]).arg(&config_file).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&file).expect("the directory is ours")).process_group(0);
        end_with_the_run(&mut command, libc::SIGKILL);
        let mut child = command.spawn().expect("the binary was built for this test");
        let mut stream = None;
        eventually("its door is there", || {
            stream = UnixStream::connect(&door).ok();
            stream.is_some()
        })
        .await;
        if waits_until_ready {
            assert_eq!(http_get_on(stream.expect("it is there"), "localhost", "/ready").0, 200);
        }
        kill(child.id(), libc::SIGTERM);
        let mut status = None;
        eventually("it ends", || {
            status = child.try_wait().expect("it is our child");
            status.is_some()
        })
        .await;
        let text = std::fs::read_to_string(&file).expect("it is there");
        let last = text.lines().last().unwrap_or_default();
        let has_started = text.contains("started node");
        assert!(
            last.contains(if has_started { " stopped given_up=0" } else { "stopped before the node had started" }),
            "{text}"
        );
        assert!(has_started || !waits_until_ready, "{text}");
        assert!(!text.contains("lost"), "{text}");
    }
}

/// An answer with thousands of faulty headers, or a script with thousands of warnings, logs only a few lines.
#[tokio::test]
async fn an_event_with_thousands_of_faults_is_a_few_lines() {
    const SCRIPT: &str = r#"
switch (file_get_contents('php://input')) {
    case 'join':
        header('Longwire-Join: ' . implode(', ', range(1, 10000)));
        break;
    case 'headers':
        for ($n = 0; $n < 2000; $n++) {
            header("Longwire-Joyn$n: x");
        }
        break;
    case 'stderr':
        error_log(str_repeat("no\n", 4000));
        break;
}
echo 'done';
"#;
    let fpm = Pool::of(1).start();
    let script = fpm.script("faults.php", SCRIPT);
    let node = Longwire::with(&fpm, &script, "", "", LISTENERS);
    let mut client = Client::connect(node.address("length"), Framing::Length(LengthFraming::default())).await;
    // Events are counted from 0, two in each round.
    let (mut told, mut seq) = (0, -1);
    for (fault, most) in [("join", 30), ("headers", 30), ("stderr", 210)] {
        let warnings = || node.log_lines(|line| line["level"] == "WARN").len();
        let before = warnings();
        assert_eq!(client.ask(fault).await, "done");
        let summed = |line: &serde_json::Value| line["unlogged"].as_u64().is_some_and(|unlogged| unlogged > 100);
        eventually("the lines beyond the bound are counted in one line", || node.log_lines(summed).len() == told + 1)
            .await;
        told += 1;
        // When the next event has run, all lines of this one have been logged.
        assert_eq!(client.ask("nothing").await, "done");
        seq += 2;
        node.wait_for_log("the next event ends", |line| line["event"] == "message" && line["seq"] == seq);
        let lines = warnings() - before;
        assert!((1..=most).contains(&lines), "{fault}: {lines} lines");
    }
}
