//! Runs the real binary with a configuration, as an operator would.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::end_with_the_run;
use super::engine::{EngineServer, Kind};
use super::php_fpm::{PhpFpm, wait_until};
use super::two_nodes::{self, Configs};

/// Longest wait for anything. Unless something is broken, it comes within milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest wait for a mark in the log. A node that drops log lines, or that ends, may never write it.
const MARK_PATIENCE: Duration = Duration::from_secs(5);

/// Listeners for the app `app`: length framing on TCP, and WebSocket at `/ws`.
pub const LISTENERS: &str = r#"
[listeners.length]
bind = "127.0.0.1:0"
app = "app"
[listeners.web]
bind = "127.0.0.1:0"
protocol = "http"
routes = { "/ws" = "app" }
"#;

pub struct Longwire {
    child: Child,
    log: Arc<Log>,
    _dir: tempfile::TempDir,
    /// In a run with two nodes (see `two_nodes`), the node that takes the commands; `self` then has the sessions.
    other: Option<Box<Other>>,
}

/// The node that takes the commands in a run with two nodes.
struct Other {
    node: Longwire,
    /// The number of the node with the sessions.
    number: u16,
    _engine: EngineServer,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<Value>>,
    more: Condvar,
}

impl Longwire {
    /// Serves `config`. `[log]` is added, and `[admin]`, `[router]` and `[api]` too unless `config` has them.
    pub fn serve(config: &str) -> Self {
        match two_nodes::engine() {
            Some(kind) => Self::serve_two(config, kind),
            None => Self::serve_prepared(config, |_| {}),
        }
    }

    /// Starts one node; `prepare` may change the command before it runs.
    pub fn serve_prepared(config: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let node = Self::spawn(config, prepare);
        node.wait_until_started();
        node
    }

    /// Two nodes that know each other.
    fn serve_two(config: &str, kind: Kind) -> Self {
        // The largest message and some overhead.
        let engine = EngineServer::start_for(kind, 17 << 20);
        let Configs { commands, sessions, number } = Configs::new(config, &engine);
        let (mut sessions, commands) = (Self::spawn(&sessions, |_| {}), Self::spawn(&commands, |_| {}));
        for node in [&sessions, &commands] {
            node.wait_until_started();
        }
        wait_until("both nodes know each other", || {
            [&sessions, &commands].iter().all(|node| node.metric("longwire_cluster_nodes", "") == 1.0)
        });
        sessions.other = Some(Box::new(Other { node: commands, number, _engine: engine }));
        sessions
    }

    fn wait_until_started(&self) {
        self.wait_for_log("everything listens", |line| line["message"] == "started");
    }

    /// The number of the node with the sessions, if another node takes the commands.
    pub fn number_with_sessions(&self) -> Option<u16> {
        self.other.as_ref().map(|other| other.number)
    }

    /// All nodes: one, or two in a run with two.
    fn nodes(&self) -> impl Iterator<Item = &Longwire> {
        [self].into_iter().chain(self.other.as_ref().map(|other| &other.node))
    }

    /// The error lines of a node that must fail to start.
    pub fn refuses(config: &str) -> Vec<String> {
        let mut node = Self::spawn(config, |_| {});
        assert!(!node.wait().success(), "it started");
        wait_until("its last line is read", || Arc::strong_count(&node.log) == 1);
        node.log_lines(|_| true)
            .iter()
            .map(|line| line.as_str().map_or_else(|| line.to_string(), str::to_owned))
            .collect()
    }

    fn spawn(config: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("longwire.toml");
        let level = "info,longwire::event=debug,longwire::http=debug,longwire::listener=debug";
        let doors = ["admin", "router", "api"].map(|door| match config.contains(&format!("[{door}]")) {
            true => String::new(),
            false => format!("[{door}]\nbind = \"127.0.0.1:0\"\n"),
        });
        let doors = doors.concat();
        let text = format!("[log]\nformat = \"json\"\nlevel = \"{level}\"\n{doors}{config}");
        fs::write(&file, text).expect("the directory is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
        command.args(["serve", "--config"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        end_with_the_run(&mut command, libc::SIGKILL);
        prepare(&mut command);
        let mut child = command.spawn().expect("the binary was built for this test");
        let stderr = child.stderr.take().expect("it is piped");
        let log = Arc::new(Log::default());
        let reader = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                reader.lines.lock().unwrap().push(line);
                reader.more.notify_all();
            }
        });
        Self { child, log, _dir: dir, other: None }
    }

    /// The usual configuration: `script` behind `listeners`, in front of `fpm`.
    pub fn with(fpm: &PhpFpm, script: &Path, app: &str, upstream: &str, listeners: &str) -> Self {
        // With more connections than workers, a request would wait in php-fpm's backlog without an error.
        let max_connections = match upstream.contains("max_connections") {
            true => String::new(),
            false => format!("max_connections = {}\n", fpm.workers),
        };
        Self::serve(&format!(
            "[apps.app]\nupstream = \"php\"\nscript = {script:?}\n{app}\n[upstreams.php]\nbackends = [\"{backend}\"]\n\
             {max_connections}{upstream}\n{listeners}\n",
            backend = fpm.address(),
        ))
    }

    /// The address of a listener.
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.bound(listener).parse().expect("it listens on TCP")
    }

    fn bound(&self, listener: &str) -> String {
        if let Some(other) = self.other.as_ref().filter(|_| ["router", "api"].contains(&listener)) {
            return other.node.bound(listener);
        }
        let line = self.wait_for_log("the listener listens", |line| {
            line["message"] == "listening" && line["listener"] == listener
        });
        line["bind"].as_str().expect("an address is text").to_owned()
    }

    /// Waits for the first log line for which `is` is true.
    #[track_caller]
    pub fn wait_for_log(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| is(line)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "timed out waiting for a log line: {what}\n{}", tail(&lines));
            lines = self.log.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// All log lines so far for which `is` is true, including those of actions that the test has just observed.
    pub fn log_lines(&self, is: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.nodes().for_each(Self::catch_up);
        self.lines_that_came(is)
    }

    fn lines_that_came(&self, is: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.nodes()
            .flat_map(|node| {
                let lines = node.log.lines.lock().unwrap();
                lines.iter().filter(|line| is(line)).cloned().collect::<Vec<_>>()
            })
            .collect()
    }

    /// Waits until all lines that the node has logged so far have arrived. A thread of the node writes the log, a little later than a
    /// client sees the effect of the logged action. SIGUSR2, which has no other effect, writes a mark after these lines.
    fn catch_up(&self) {
        let is_read_to_its_end = || Arc::strong_count(&self.log) == 1;
        if is_read_to_its_end() || self.is_stopped() {
            return;
        }
        self.signal(libc::SIGUSR2);
        let deadline = Instant::now() + MARK_PATIENCE;
        let mut lines = self.log.lines.lock().unwrap();
        while Instant::now() < deadline && !is_read_to_its_end() {
            if let Some(mark) = lines.iter().rposition(|line| line["signal"] == "SIGUSR2") {
                lines.remove(mark);
                return;
            }
            lines = self.log.more.wait_timeout(lines, Duration::from_millis(5)).unwrap().0;
        }
    }

    /// Whether it is stopped by SIGSTOP. Then it handles no other signal until it continues.
    fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
    }

    /// Waits until `count` sessions have ended and returns their log lines.
    #[track_caller]
    pub fn closed(&self, count: usize) -> Vec<Value> {
        let is_closed = |line: &Value| line["message"] == "session closed";
        wait_until("sessions close", || self.lines_that_came(is_closed).len() >= count);
        self.lines_that_came(is_closed)
    }

    /// The text of `/metrics`, `/live` or `/ready` with its status.
    pub fn admin(&self, path: &str) -> (u16, String) {
        let bound = self.bound("admin");
        match bound.strip_prefix("unix:") {
            Some(socket) => http_get_on(UnixStream::connect(socket).expect("it listens"), "localhost", path),
            None => http_get(bound.parse().expect("an address"), path),
        }
    }

    /// The sum of all series of a metric whose labels contain `labels`, of all nodes.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        self.nodes().map(|node| node.own_metric(name, labels)).sum()
    }

    fn own_metric(&self, name: &str, labels: &str) -> f64 {
        series(&self.admin("/metrics").1, name, labels)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that takes the commands.
    pub fn router_pid(&self) -> u32 {
        self.other.as_ref().map_or(self.pid(), |other| other.node.pid())
    }

    /// Bytes of anonymous memory, which excludes code (RssAnon in proc_pid_status(5)), summed over all nodes.
    pub fn memory(&self) -> usize {
        self.nodes().map(Self::own_memory).sum()
    }

    fn own_memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux says so");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).expect("kilobytes") * 1024
    }

    /// The same, once it no longer changes. The allocator keeps free pages for up to a second (`dirty_decay_ms`) and gives them back a few
    /// at a time.
    pub async fn settled_memory(&self) -> usize {
        let (mut last, mut since) = (0, Instant::now());
        super::php_fpm::eventually("memory no longer changes", || {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.memory();
            if std::mem::replace(&mut last, now) != now {
                since = Instant::now();
            }
            since.elapsed() > Duration::from_millis(1200)
        })
        .await;
        last
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    pub fn signal(&self, signal: i32) {
        super::php_fpm::kill(self.pid(), signal);
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        wait_until("longwire ends", || self.child.try_wait().expect("it is our child").is_some());
        let status = self.child.wait().expect("it is our child");
        if status.success() {
            self.has_let_go();
        }
        status
    }

    /// Checks the last log line of a node that has stopped normally: it must report that nothing is held any more.
    #[track_caller]
    fn has_let_go(&self) {
        let line = self.wait_for_log("the node says how it stopped", |line| line["message"] == "stopped");
        for what in ["given_up", "sessions", "outboxes", "queued", "leases", "bytes", "tasks", "descriptors"] {
            assert_eq!(line[what], 0, "{what}: {line}");
        }
    }
}

impl Drop for Longwire {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.log.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let odd: Vec<_> = lines.iter().filter(|line| is_odd(line)).take(30).cloned().collect();
            eprintln!("first odd log lines:\n{}last log lines:\n{}", tail(&odd), tail(&lines));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a log line is worth printing when a test has failed.
fn is_odd(line: &Value) -> bool {
    let is_quiet = line["level"] == "DEBUG" || line["level"] == "INFO";
    !is_quiet || line["message"] == "session closed" && line["reason"] != "client_closed"
}

fn tail(lines: &[Value]) -> String {
    let from = lines.len().saturating_sub(30);
    lines[from..].iter().map(|line| format!("{line}\n")).collect()
}

/// A GET on a connection of its own: status and body.
pub fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    let stream = std::net::TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    http_get_on(stream, &address.to_string(), path)
}

/// The sum of all series of a metric whose labels contain `labels`, in the text of `/metrics`.
pub fn series(text: &str, name: &str, labels: &str) -> f64 {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| {
            let series_name = series.split('{').next().unwrap_or_default();
            series_name == name && series.contains(labels)
        })
        .map(|(_, value)| value.parse::<f64>().expect("a value is a number"))
        .sum()
}

pub fn http_get_on(mut stream: impl Read + Write, host: &str, path: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    let response = String::from_utf8_lossy(&response).into_owned();
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
