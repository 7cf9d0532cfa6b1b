//! Longwire with responders other than php-fpm: libfcgi (C, Perl), flup and uWSGI (Python), fcgiwrap (any CGI script),
//! node-fastcgi, Mojolicious, Go, php-cgi.
//!
//! docs/responders.md is written from what is asserted here, and its configurations are loaded here.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use longwire::config::model::{self, Bind, Config};
use longwire::proto::fastcgi::responder::{RequestDecoder, push_end, push_stdout};
use longwire::proto::fastcgi::response::{EndRequest, ProtocolStatus};
use longwire::proto::fastcgi::values::{self, Values};
use longwire::proto::framing::{FrameKind, Framing, LengthFraming};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::support::calls::{call, config, start};
use crate::support::client::{Client, noise};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{Pool, eventually, free_port, wait_until};
use crate::support::{end_with_the_run, target_dir};

const LISTENER: &str = "[listeners.tcp]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n";

/// One of the responders of `tests/responders`, with its processes. Dropping it ends them.
struct Responder {
    child: Child,
    dir: tempfile::TempDir,
    /// The script to run, for responders that need SCRIPT_FILENAME.
    script: PathBuf,
    /// How many requests run at once.
    width: usize,
    /// A path, or an IP address with its port.
    address: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/responders")
}

impl Responder {
    fn libfcgi(processes: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let binary = dir.path().join("echo");
        let compiled = Command::new("cc")
            .args(["-Wall", "-Werror", "-O1", "-o"])
            .arg(&binary)
            .arg(folder().join("echo.c"))
            .arg("-lfcgi")
            .status()
            .expect("a C compiler is installed (tests/install-deps.sh)");
        assert!(compiled.success(), "libfcgi-dev is installed (tests/install-deps.sh)");
        let mut command = Command::new(&binary);
        command.arg(dir.path().join("socket")).arg(processes.to_string());
        Self::start(command, dir, binary, processes)
    }

    fn flup(multiplexed: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let python = target_dir().join("responders-venv/bin/python");
        assert!(python.exists(), "flup is not installed: run tests/venv.sh responders (`make test` does)");
        let script = folder().join("echo.py");
        let mut command = Command::new(python);
        command.arg(&script).arg(dir.path().join("socket"));
        if multiplexed {
            command.arg("multiplexed");
        }
        // One thread per connection.
        Self::start(command, dir, script, 4)
    }

    fn fcgiwrap(processes: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("/usr/sbin/fcgiwrap");
        command.arg("-f").args(["-c", &processes.to_string(), "-s"]);
        command.arg(format!("unix:{}", dir.path().join("socket").display()));
        Self::start(command, dir, folder().join("echo.sh"), processes)
    }

    /// Go: one process, which keeps connections open.
    fn go() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let binary = dir.path().join("echo");
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&binary)
            .arg(folder().join("echo.go"))
            .env("GOCACHE", target_dir().join("go-cache"))
            .env("GOPATH", dir.path())
            .env("GO111MODULE", "off")
            .status()
            .expect("go is installed (tests/install-deps.sh)");
        assert!(built.success());
        let mut command = Command::new(&binary);
        command.arg(dir.path().join("socket"));
        Self::start(command, dir, binary, 4)
    }

    /// Perl's FCGI, which is libfcgi.
    fn perl(processes: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let script = folder().join("echo.fcgi.pl");
        let mut command = Command::new("perl");
        command.arg(&script).arg(dir.path().join("socket")).arg(processes.to_string());
        Self::start(command, dir, script, processes)
    }

    /// php-cgi, whose processes end after this number of requests and are replaced.
    fn php_cgi(processes: usize, requests: u32, address: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("php-cgi");
        let address = if address.is_empty() { dir.path().join("socket").display().to_string() } else { address.into() };
        command.args(["-b", &address]);
        command.env("PHP_FCGI_CHILDREN", processes.to_string()).env("PHP_FCGI_MAX_REQUESTS", requests.to_string());
        Self::start_at(command, dir, folder().join("echo.php"), processes, address)
    }

    /// node-fastcgi, which closes each connection after its answer.
    fn node_fastcgi() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let modules = target_dir().join("responders-npm/node_modules");
        assert!(modules.exists(), "node-fastcgi is not installed: run tests/npm.sh responders (`make test` does)");
        let script = folder().join("echo.js");
        let mut command = Command::new("node");
        command.env("NODE_PATH", modules).arg(&script).arg(dir.path().join("socket"));
        Self::start(command, dir, script, 8)
    }

    /// Mojolicious, which also closes each connection after its answer, and serves one connection at a time in each process.
    fn mojo(processes: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).expect("a new path");
        let script = folder().join("mojo.pl");
        let mut command = Command::new("perl");
        command.arg(&script).arg(processes.to_string()).stdin(OwnedFd::from(listener));
        let socket = dir.path().join("socket").display().to_string();
        Self::run(command, dir, script, processes, socket)
    }

    /// uWSGI, which also closes each connection after its answer.
    fn uwsgi(processes: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let script = folder().join("wsgi.py");
        let mut command = Command::new("uwsgi_python3");
        command.arg("--fastcgi-socket").arg(dir.path().join("socket")).arg("--wsgi-file").arg(&script);
        command.args(["--master", "--die-on-term", "--disable-logging", "--processes", &processes.to_string()]);
        Self::start(command, dir, script, processes)
    }

    fn start(command: Command, dir: tempfile::TempDir, script: PathBuf, width: usize) -> Self {
        let socket = dir.path().join("socket").display().to_string();
        Self::start_at(command, dir, script, width, socket)
    }

    fn start_at(mut command: Command, dir: tempfile::TempDir, script: PathBuf, width: usize, address: String) -> Self {
        command.stdin(Stdio::null());
        Self::run(command, dir, script, width, address)
    }

    fn run(mut command: Command, dir: tempfile::TempDir, script: PathBuf, width: usize, address: String) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        end_with_the_run(&mut command, libc::SIGTERM);
        let child = command.spawn().expect("the responder is installed (tests/install-deps.sh)");
        let responder = Self { child, dir, script, width, address };
        wait_until("the responder accepts", || {
            if responder.address.starts_with('/') {
                UnixStream::connect(&responder.address).is_ok()
            } else {
                std::net::TcpStream::connect(&responder.address).is_ok()
            }
        });
        responder
    }

    fn notes(&self) -> PathBuf {
        self.dir.path().join("notes")
    }

    /// A node in front of it, with these further lines in the tables of app and upstream.
    fn node(&self, app: &str, upstream: &str) -> Longwire {
        self.node_with("[\"connect\", \"close\"]", app, upstream)
    }

    fn node_with(&self, events: &str, app: &str, upstream: &str) -> Longwire {
        let (script, notes, width) = (&self.script, self.notes(), self.width);
        let unix = if self.address.starts_with('/') { "unix:" } else { "" };
        let address = &self.address;
        Longwire::serve(&format!(
            "{LISTENER}[apps.app]\nupstream = \"responder\"\nscript = {script:?}\nevents = {events}\nparams = {{ NOTES = {notes:?} }}\n\
             {app}\n[upstreams.responder]\nbackends = [\"{unix}{address}\"]\nmax_connections = {width}\n\
             queue_timeout = \"60s\"\n{upstream}\n",
        ))
    }

    /// The events that it noted, by session, in the order in which they were handled.
    fn events(&self) -> BTreeMap<String, Vec<String>> {
        let mut sessions: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
        for line in fs::read_to_string(self.notes()).unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let mut word = || words.next().expect("three words a line").to_owned();
            let (event, session, seq) = (word(), word(), word().parse().expect("a number"));
            sessions.entry(session).or_default().push((seq, event));
        }
        let in_order = |events: Vec<(u64, String)>| {
            assert!(events.iter().map(|(seq, _)| *seq).eq(0..events.len() as u64), "out of order: {events:?}");
            events.into_iter().map(|(_, event)| event).collect()
        };
        sessions.into_iter().map(|(session, events)| (session, in_order(events))).collect()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // SAFETY: the process group is the one made for this child.
        unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

async fn client(node: &Longwire) -> Client {
    Client::connect(node.address("tcp"), Framing::Length(LengthFraming::default())).await
}

/// Runs many sessions at once. Each must get its own frames back in order. Each has exactly one connect event, which is its first, and one
/// close event, which is its last.
async fn echoes(responder: &Responder, frames: u64, max_body: u64) {
    let node = responder.node("", "");
    let events = echoes_through(responder, &node, 24, frames, max_body).await;
    assert_eq!(events.len(), 24);
    for (session, events) in events {
        assert_eq!(events.len() as u64, frames + 2, "{session}");
        assert_eq!((events[0].as_str(), events[events.len() - 1].as_str()), ("connect", "close"), "{session}");
    }
}

/// Sends ten thousand messages over eight sessions: each must be answered, and handled once. (There are no connect events: a
/// responder that answers them with an announced empty body would send that as a greeting.)
async fn ten_thousand(responder: &Responder, app: &str) {
    let node = responder.node_with("[\"close\"]", app, "");
    let events = echoes_through(responder, &node, 8, 1250, 300).await;
    assert_eq!(events.len(), 8);
    for (session, events) in events {
        let messages = events.iter().filter(|event| *event == "message").count();
        assert_eq!((events.len(), messages), (1251, 1250), "{session}");
    }
}

/// The events of each session, as the responder noted them.
async fn echoes_through(
    responder: &Responder,
    node: &Longwire,
    sessions: u64,
    frames: u64,
    max_body: u64,
) -> BTreeMap<String, Vec<String>> {
    let mut tasks = JoinSet::new();
    for session in 0..sessions {
        let mut client = client(node).await;
        tasks.spawn(async move {
            let body = |frame: u64| {
                let seed = session * 10_000 + frame + 1;
                // The first frame is empty and the second has the maximum length, so both extremes are always tested.
                let len = if frame < 2 { frame * max_body } else { noise(seed, 1)[0] as u64 * max_body / 255 };
                noise(seed, len as usize)
            };
            let sender = async {
                for frame in 0..frames {
                    client.sender.send(FrameKind::Binary, &body(frame)).await;
                }
                client.sender.finish().await;
            };
            let receiver = async {
                for frame in 0..frames {
                    let got = client.receiver.frame().await.body;
                    assert!(got == body(frame), "session {session} frame {frame}: {} bytes differ", got.len());
                }
                assert_eq!(client.receiver.next().await, None);
            };
            tokio::join!(sender, receiver);
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    node.closed(sessions as usize);
    let close = "event=\"close\",outcome=\"done\"";
    let done = || node.metric("longwire_upstream_requests_total", close) == sessions as f64;
    eventually("every close event is delivered", done).await;
    assert_eq!(node.metric("longwire_events_failed_total", ""), 0.0);
    responder.events()
}

/// The number of connections that twenty frames of one session need, sent one after the other.
async fn connections_of_twenty_frames(responder: &Responder) -> f64 {
    let node = responder.node("", "linger = \"60s\"");
    let mut client = client(&node).await;
    for n in 0..20 {
        assert_eq!(client.ask(&n.to_string()).await, n.to_string());
    }
    node.metric("longwire_upstream_connects_total", "")
}

/// Checks that a failed event is reported with its cause and affects neither its session nor another one. `death` is the cause that is
/// counted if the process dies while it handles a frame.
async fn failures(responder: &Responder, death: &str) {
    let node = responder.node("", "");
    let mut client = client(&node).await;
    let mut other = self::client(&node).await;
    assert_eq!(client.ask("before").await, "before");
    for (command, cause) in [("fail", "status"), ("die", death)] {
        client.text(command).await;
        assert_eq!(client.ask("after").await, "after", "{command}");
        assert_eq!(other.ask("and I").await, "and I", "{command}");
        let labels = format!("event=\"message\",cause=\"{cause}\"");
        let counted = || node.metric("longwire_events_failed_total", &labels) >= 1.0;
        eventually(&format!("{command} is counted as {cause}"), counted).await;
    }
    let stderr = |line: &Value| {
        line["target"] == "longwire::php" && line["message"].as_str().is_some_and(|text| text.contains("told to fail"))
    };
    node.wait_for_log("its stderr is logged", stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libfcgi_echoes_with_one_process_and_with_several() {
    for processes in [1, 3] {
        echoes(&Responder::libfcgi(processes), 20, 70_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libfcgi_keeps_connections_and_a_process_that_dies_costs_one_event() {
    let responder = Responder::libfcgi(1);
    assert_eq!(connections_of_twenty_frames(&responder).await, 1.0);
    failures(&responder, "backend_closed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_echoes() {
    echoes(&Responder::flup(false), 20, 70_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_that_could_multiplex_echoes_with_one_request_a_connection() {
    echoes(&Responder::flup(true), 20, 70_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_keeps_connections_and_an_exception_is_a_failed_event() {
    let responder = Responder::flup(false);
    assert_eq!(connections_of_twenty_frames(&responder).await, 1.0);
    failures(&responder, "status").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_script_behind_fcgiwrap_echoes() {
    // Fewer frames, because fcgiwrap starts a process for each event.
    echoes(&Responder::fcgiwrap(2), 5, 20_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fcgiwrap_keeps_connections_and_a_script_that_dies_is_a_failed_event() {
    let responder = Responder::fcgiwrap(2);
    assert_eq!(connections_of_twenty_frames(&responder).await, 1.0);
    failures(&responder, "status").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_fastcgi_which_closes_after_each_answer_loses_and_repeats_nothing() {
    ten_thousand(&Responder::node_fastcgi(), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mojolicious_which_closes_after_each_answer_loses_and_repeats_nothing() {
    ten_thousand(&Responder::mojo(4), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uwsgi_which_closes_after_each_answer_loses_and_repeats_nothing() {
    ten_thousand(&Responder::uwsgi(4), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn php_cgi_which_ends_after_fifty_requests_loses_and_repeats_nothing() {
    ten_thousand(&Responder::php_cgi(4, 50, ""), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_loses_and_repeats_nothing() {
    ten_thousand(&Responder::go(), "param_prefix = \"HTTP_\"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn perl_loses_and_repeats_nothing() {
    ten_thousand(&Responder::perl(4), "").await;
}

/// Over TCP Longwire cannot know that php-cgi is about to close, until it has done so once. From then on its processes are checked before
/// each request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp_one_early_end_of_php_cgi_teaches_what_to_do() {
    let responder = Responder::php_cgi(2, 50, &free_port().to_string());
    let node = responder.node_with("[\"close\"]", "", "");
    let mut client = client(&node).await;
    let ask_for_long_enough = async |client: &mut Client, times: u32| {
        let mut lost = 0;
        for n in 0..times {
            client.text(&n.to_string()).await;
            let answered = tokio::time::timeout(Duration::from_secs(2), client.receiver.frame()).await.is_ok();
            lost += u32::from(!answered);
        }
        lost
    };
    assert!(ask_for_long_enough(&mut client, 500).await <= 1);
    assert_eq!(ask_for_long_enough(&mut client, 3000).await, 0);
}

#[tokio::test]
async fn with_a_prefix_params_arrive_as_the_headers_that_go_wants() {
    let responder = Responder::flup(false);
    let node = responder.node("param_prefix = \"HTTP_\"", "");
    let mut client = client(&node).await;
    let greeting = String::from_utf8(client.frame().await.body.to_vec()).expect("text");
    let header = |text: &str, name: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
    };
    assert_eq!(header(&greeting, "Event").as_deref(), Some("1"));
    let session = header(&greeting, "Sessionid").expect("the session has an id");
    assert_eq!(session.len(), 16);
    let answer = client.ask("headers").await;
    assert_eq!(header(&answer, "Sessionid"), Some(session.clone()));
    assert_eq!(header(&answer, "Event"), None, "a message has no Event header");
    // net/http/cgi.RequestFromMap needs these params.
    for line in ["REQUEST_METHOD POST", "REQUEST_URI /echo.py", "SERVER_PROTOCOL HTTP/1.1", "CONTENT_LENGTH 7"] {
        assert!(answer.lines().any(|found| found == line), "no {line} in\n{answer}");
    }
    client.finish().await;
    assert_eq!(client.next().await, None);
    let complete = || responder.events().get(&session).is_some_and(|events| events.len() == 3);
    eventually("the close event has come", complete).await;
}

/// The log line with the limits that a backend has reported.
fn told(node: &Longwire) -> Value {
    node.wait_for_log("the backend was asked", |line| {
        line["message"] == "backend reports its limits" || line["message"] == "backend does not report its limits"
    })
}

#[tokio::test]
async fn php_fpm_tells_no_limit_and_keeps_the_configured_one() {
    for pool in [Pool::of(3), Pool::of(3).tcp()] {
        let fpm = pool.start();
        let script = fpm.script("echo.php", crate::support::echo::ECHO);
        let node = Longwire::with(&fpm, &script, "", "max_connections = 3\nask_limits = true", LISTENER);
        let line = told(&node);
        let told = [&line["max_connections"], &line["multiplexes"], &line["used"]];
        assert_eq!(told, [&Value::Null, &json!(false), &json!(3)], "{line}");
        assert_eq!(client(&node).await.ask("hello").await, "hello");
    }
}

#[tokio::test]
async fn libfcgi_and_fcgiwrap_tell_of_one_process_and_python_of_nothing() {
    for responder in [Responder::libfcgi(3), Responder::fcgiwrap(3)] {
        let node = responder.node("", "ask_limits = true");
        let line = told(&node);
        let told = [&line["max_connections"], &line["max_requests"], &line["multiplexes"], &line["used"]];
        assert_eq!(told, [&json!(1), &json!(1), &json!(false), &json!(1)], "{line}");
        assert_eq!(node.metric("longwire_upstream_connection_limit", ""), 1.0);
        assert_eq!(client(&node).await.ask("hello").await, "hello");
    }
    let responder = Responder::flup(true);
    let node = responder.node("", "ask_limits = true");
    let line = told(&node);
    let told = [&line["max_connections"], &line["multiplexes"], &line["used"]];
    assert_eq!(told, [&Value::Null, &Value::Null, &json!(4)], "{line}");
    assert_eq!(client(&node).await.ask("hello").await, "hello");
}

/// A responder inside the test that reports given limits.
#[derive(Clone)]
struct Peer {
    /// The limits to report; `None`: FCGI_GET_VALUES gets no answer.
    says: Option<Values>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    questions: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    /// This number of requests is refused at first.
    refuses: usize,
}

impl Peer {
    fn new(says: Option<Values>) -> Self {
        let (running, most, questions, requests) = Default::default();
        Self { says, running, most, questions, requests, refuses: 0 }
    }

    fn listen(&self, path: &Path) -> JoinSet<()> {
        let listener = UnixListener::bind(path).expect("a free path");
        let peer = self.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(peer.clone().serve(stream));
            }
        });
        tasks
    }

    async fn serve(self, mut stream: tokio::net::UnixStream) {
        let mut decoder = RequestDecoder::new(1 << 20);
        let mut buffer = vec![0; 65_536];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            if buffer[1] == GET_VALUES {
                assert_eq!(buffer[..read], values::question());
                self.questions.fetch_add(1, Ordering::SeqCst);
                match &self.says {
                    Some(says) => stream.write_all(&values::answer(says)).await.expect("we are asked"),
                    None => continue,
                }
            }
            let mut input = &buffer[..read];
            while let Some(request) = decoder.decode(&mut input).expect("we encode well") {
                let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(running, Ordering::SeqCst);
                // Leave time for other requests to come, as many as the limit allows.
                tokio::time::sleep(Duration::from_millis(5)).await;
                self.running.fetch_sub(1, Ordering::SeqCst);
                let mut bytes = Vec::new();
                push_stdout(&mut bytes, request.id, &[b"\r\n\r\n", &request.body[..]].concat());
                let is_refused = self.requests.fetch_add(1, Ordering::SeqCst) < self.refuses;
                if is_refused {
                    bytes.clear();
                }
                let status = if is_refused { ProtocolStatus::UnknownRole } else { ProtocolStatus::Complete };
                push_end(&mut bytes, request.id, EndRequest { app_status: 0, status });
                stream.write_all(&bytes).await.expect("we read");
            }
        }
    }
}

/// FCGI_GET_VALUES.
const GET_VALUES: u8 = 9;

fn limits(max_connections: u32) -> Option<Values> {
    Some(Values { max_connections: Some(max_connections), max_requests: Some(50), multiplexes: Some(true) })
}

/// An upstream with eight connections to this socket that asks the backend for its limits.
fn asking(path: &Path) -> model::Upstream {
    model::Upstream { ask_limits: true, ..config(&[Bind::Unix(path.to_owned())], 8) }
}

#[tokio::test]
async fn a_backend_that_takes_two_connections_and_multiplexes_gets_two_and_one_request_on_each() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("peer");
    let peer = Peer::new(limits(2));
    let _tasks = peer.listen(&path);
    let (upstream, _) = start(asking(&path));
    eventually("it has told", || upstream.snapshot().backends[0].max_connections == 2).await;
    let calls: Vec<_> = (0..40).map(|n| call(&path).body(n.to_string()).submit(&upstream)).collect();
    for (n, pending) in calls.into_iter().enumerate() {
        assert_eq!(pending.answer().await.text(), n.to_string());
    }
    assert_eq!(peer.most.load(Ordering::SeqCst), 2);
    assert_eq!(peer.questions.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_a_backend_says_never_raises_its_connections_and_silence_changes_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, says) in [("more", limits(500)), ("none", limits(0)), ("silent", None)] {
        let path = dir.path().join(name);
        let peer = Peer::new(says);
        let _tasks = peer.listen(&path);
        let (upstream, _) = start(asking(&path));
        eventually("it is asked", || peer.questions.load(Ordering::SeqCst) == 1).await;
        let calls: Vec<_> = (0..40).map(|n| call(&path).body(n.to_string()).submit(&upstream)).collect();
        for (n, pending) in calls.into_iter().enumerate() {
            assert_eq!(pending.answer().await.text(), n.to_string(), "{name}");
        }
        let snapshot = upstream.snapshot();
        assert_eq!(snapshot.backends[0].max_connections, if name == "none" { 1 } else { 8 }, "{name}");
    }
}

#[tokio::test]
async fn a_close_event_that_a_backend_refuses_is_told_until_it_is_run() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("peer");
    let peer = Peer { refuses: 2, ..Peer::new(limits(4)) };
    let _tasks = peer.listen(&path);
    let script = dir.path().join("x.php");
    fs::write(&script, "").expect("the directory is ours");
    let node = Longwire::serve(&format!(
        "[apps.app]\nupstream = \"php\"\nscript = {script:?}\nevents = [\"close\"]\n[upstreams.php]\nbackends = [\"unix:{}\"]\n\
         [listeners.tcp]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n",
        path.display()
    ));
    drop(client(&node).await);
    let done = || node.metric("longwire_upstream_requests_total", "event=\"close\",outcome=\"done\"");
    eventually("it is run", || done() == 1.0).await;
    assert_eq!(peer.requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_backend_that_comes_back_is_asked_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("peer");
    let first = Peer::new(limits(5));
    let mut tasks = first.listen(&path);
    let (upstream, metrics) = start(model::Upstream { linger: Duration::ZERO, ..asking(&path) });
    eventually("it has told", || upstream.snapshot().backends[0].max_connections == 5).await;
    assert_eq!(call(&path).body("one").run(&upstream).await.text(), "one");

    tasks.shutdown().await;
    fs::remove_file(&path).expect("it was bound");
    let waiting = call(&path).body("two").submit(&upstream);
    eventually("the backend is away", || metrics.ejections.get() == 1).await;
    let second = Peer::new(limits(3));
    let _tasks = second.listen(&path);
    assert_eq!(waiting.answer().await.text(), "two");
    eventually("it has told anew", || upstream.snapshot().backends[0].max_connections == 3).await;
}

#[test]
fn the_configurations_of_the_manual_are_accepted() {
    let manual = include_str!("../../../docs/responders.md");
    let blocks: Vec<&str> =
        manual.split("```toml\n").skip(1).map(|rest| rest.split("```").next().expect("one piece at least")).collect();
    assert_eq!(blocks.len(), 4, "libfcgi, Python, fcgiwrap, Go");
    for block in blocks {
        // The manual's scripts do not exist on this machine.
        let block =
            block.replace("check_script = false\n", "").replace("\nscript = ", "\ncheck_script = false\nscript = ");
        let text = format!("{LISTENER}{block}");
        let (_, warnings) = Config::parse(&text, Path::new("longwire.toml")).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert!(warnings.is_empty(), "{warnings:?}\n{text}");
    }
}
