//! The processes that the runner starts. They end when they are dropped, and when the runner dies. Every wait has a limit.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::roles::BACKEND_CONNECTIONS;

/// Longest wait for something that takes milliseconds on a machine that is not overloaded.
const PATIENCE: Duration = Duration::from_secs(20);
/// The script name for the null responder, which ignores it.
pub(crate) const NULL_SCRIPT: &str = "/echo.php";
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A process of ours.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        // SAFETY: prctl is async-signal-safe, and nothing else happens between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let started = command.stdin(Stdio::null()).process_group(0).spawn();
        started.map(Self).map_err(|error| naming(command, &error))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Kill its children too: the workers of php-fpm and nginx.
        // SAFETY: the process group is the one made for this child, which has not been waited for.
        unsafe { libc::kill(-(self.0.id() as i32), libc::SIGKILL) };
        let _ = self.0.wait();
    }
}

fn naming(command: &Command, what: &impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {what}", command.get_program().display()))
}

/// Runs a command to its end and returns its output. It is an error if the command fails or exceeds the limit.
pub(crate) fn output_of(command: &mut Command, limit: Duration) -> io::Result<String> {
    let mut process = Process::start(command.stdout(Stdio::piped()))?;
    let mut pipe = process.0.stdout.take().expect("it is piped");
    // Read while the program writes; otherwise a full pipe would block it.
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text)
    });
    let mut status = None;
    let ended = until(limit, || {
        status = process.0.try_wait()?;
        Ok(status.is_some())
    });
    ended.map_err(|error| naming(command, &error))?;
    let text = reader.join().expect("it only reads")?;
    match status {
        Some(status) if status.success() => Ok(text),
        Some(status) => Err(naming(command, &format!("{status}"))),
        None => unreachable!("it has ended"),
    }
}

/// Polls a condition until it is true.
fn until(limit: Duration, mut is_true: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let begin = Instant::now();
    while !is_true()? {
        if begin.elapsed() > limit {
            return Err(io::Error::new(ErrorKind::TimedOut, format!("timed out after {} s", limit.as_secs())));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Waits until the server accepts connections.
pub(crate) fn accepts(what: &str, connect: impl Fn() -> bool) -> io::Result<()> {
    until(PATIENCE, || Ok(connect()))
        .map_err(|error| io::Error::other(format!("{what} accepts no connections: {error}")))
}

/// The lines of a pipe. A thread reads them all even if the receiver is gone, because a full pipe would block the program.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (lines_tx, lines_rx) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _nobody_listens = lines_tx.send(line);
        }
    });
    lines_rx
}

fn next_line(lines: &Receiver<String>, of: &str) -> io::Result<String> {
    lines.recv_timeout(PATIENCE).map_err(|error| match error {
        RecvTimeoutError::Timeout => io::Error::other(format!("{of} printed nothing in time")),
        RecvTimeoutError::Disconnected => io::Error::other(format!("{of} ended before it printed its address")),
    })
}

/// This binary, in a role.
pub(crate) fn role(name: &str, arguments: &[&Path]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("role").arg(name).args(arguments);
    Ok(command)
}

/// Starts the responder that only echoes, and lets sessions join channels.
pub(crate) fn null_responder(socket: &Path) -> io::Result<Process> {
    let process = Process::start(&mut role("null-responder", &[socket])?)?;
    accepts("the null responder", || UnixStream::connect(socket).is_ok())?;
    Ok(process)
}

/// A floor, and the addresses that it listens on, in the order in which it prints them.
pub(crate) struct Floor {
    process: Process,
    addresses: Vec<SocketAddr>,
}

impl Floor {
    /// The floor of an echo of messages of this size. It relays to the handler, always with the request that Longwire would send.
    pub(crate) fn relay(dir: &Path, handler: &Handler, bytes: usize) -> io::Result<Self> {
        let request = record_request(dir, &handler.script, bytes)?;
        let (bytes, connections) = (bytes.to_string(), handler.max_connections.to_string());
        Self::start("echo-floor", &[&handler.socket, &request, Path::new(&bytes), Path::new(&connections)])
    }

    pub(crate) fn start(name: &str, arguments: &[&Path]) -> io::Result<Self> {
        let mut process = Process::start(role(name, arguments)?.stdout(Stdio::piped()))?;
        let line = next_line(&lines(process.0.stdout.take().expect("it is piped")), name)?;
        let addresses: Result<_, _> = line.split_whitespace().map(str::parse).collect();
        let addresses =
            addresses.map_err(|_| io::Error::other(format!("{name} printed {line:?} instead of its addresses")))?;
        Ok(Self { process, addresses })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn url(&self, at: usize) -> String {
        format!("tcp://{}", self.addresses[at])
    }
}

/// A load in the background, which goes on until it is dropped.
pub(crate) struct Load(Process);

impl Load {
    /// Starts `longwire bench` with these arguments and waits until its load has begun.
    pub(crate) fn start(words: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
        command.arg("bench").args(words).args(["--json", "--quiet"]).stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let lines = lines(process.0.stdout.take().expect("it is piped"));
        while next_line(&lines, "longwire bench")? != r#"{"event":"begin"}"# {}
        Ok(Self(process))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }
}

/// A running node.
pub(crate) struct Node {
    process: Process,
    addresses: Vec<(String, SocketAddr)>,
}

/// The responder that answers a node's sessions.
pub(crate) struct Handler {
    pub(crate) socket: PathBuf,
    pub(crate) script: PathBuf,
    pub(crate) max_connections: usize,
}

impl Handler {
    /// The responder that only echoes.
    pub(crate) fn null(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), script: NULL_SCRIPT.into(), max_connections: BACKEND_CONNECTIONS }
    }
}

impl Node {
    /// Starts a node with the listeners `tcp` and `ws` (and `lua`: the framing of `tcp` by a script) and a router port, for one handler.
    /// Its queue has room for one message of each client, since messages come faster than any responder answers.
    pub(crate) fn start(dir: &Path, handler: &Handler) -> io::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lua/length.lua");
        let lua = format!(
            "listeners.lua = {{ bind = \"127.0.0.1:0\", app = \"echo\", framing = {{ type = \"lua\", script = {script:?} }} }}"
        );
        let lua = if cfg!(feature = "lua") { lua } else { String::new() };
        let config = format!(
            r#"
            log.format = "json"
            admin.bind = "off"
            router.bind = "127.0.0.1:0"
            api.bind = "off"
            listeners.tcp = {{ bind = "127.0.0.1:0", app = "echo" }}
            listeners.ws = {{ bind = "127.0.0.1:0", protocol = "http", routes = {{ "/ws" = "echo" }} }}
            {lua}
            apps.echo = {{ upstream = "one", script = {:?}, check_script = false }}
            upstreams.one = {{ backends = ["unix:{}"], max_connections = {}, queue_length = 20000 }}
            "#,
            handler.script,
            handler.socket.display(),
            handler.max_connections,
        );
        let file = dir.join("longwire.toml");
        fs::write(&file, config)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
        command.args(["serve", "--config"]).arg(&file).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let lines = lines(process.0.stderr.take().expect("it is piped"));
        let mut addresses = Vec::new();
        loop {
            let line = next_line(&lines, "longwire")?;
            let line: Value = serde_json::from_str(&line).map_err(|_| io::Error::other(format!("longwire: {line}")))?;
            match line["message"].as_str() {
                Some("started") => return Ok(Self { process, addresses }),
                Some("listening") => {
                    if let (Some(name), Some(Ok(address))) =
                        (line["listener"].as_str(), line["bind"].as_str().map(str::parse))
                    {
                        addresses.push((name.to_owned(), address));
                    }
                }
                _ => {}
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn url(&self, listener: &str) -> String {
        let (_, address) = self.addresses.iter().find(|(name, _)| name == listener).expect("it is configured");
        match listener {
            "ws" => format!("ws://{address}/ws"),
            "router" => format!("router://{address}"),
            _ => format!("tcp://{address}"),
        }
    }
}

/// Records one request that Longwire writes to this script for a message of this size, into a file in `dir`. Other clients repeat it.
pub(crate) fn record_request(dir: &Path, script: &Path, bytes: usize) -> io::Result<PathBuf> {
    let socket = dir.join(format!("recorder{bytes}.sock"));
    let listener = UnixListener::bind(&socket)?;
    listener.set_nonblocking(true)?;
    let node = Node::start(dir, &Handler { script: script.to_owned(), ..Handler::null(&socket) })?;
    let mut client = TcpStream::connect(node.url("tcp").trim_start_matches("tcp://"))?;
    let body = vec![b'x'; bytes];
    client.write_all(&[&(bytes as u32).to_be_bytes()[..], &body].concat())?;
    // The end of stdin is an empty record after the body.
    let is_whole = |request: &[u8]| request.len() > 8 && request[..request.len() - 8].ends_with(&body);
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    // Longwire probes the backend with a connection that sends nothing, so the first connection may have no request.
    while request.is_empty() {
        let mut accepted = None;
        until(PATIENCE, || match listener.accept() {
            Ok((stream, _)) => {
                accepted = Some(stream);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        })
        .map_err(|error| io::Error::other(format!("longwire sent no request: {error}")))?;
        let mut backend = accepted.expect("just accepted");
        backend.set_nonblocking(false)?;
        backend.set_read_timeout(Some(PATIENCE))?;
        while !is_whole(&request) {
            let read = backend.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            request.extend_from_slice(&buffer[..read]);
        }
    }
    // Remove the socket, so that the next request can be recorded in the same place.
    fs::remove_file(&socket)?;
    if !is_whole(&request) {
        return Err(io::Error::other("longwire closed before its request was complete"));
    }
    let (mut file, path) = tempfile::NamedTempFile::new_in(dir)?.keep()?;
    file.write_all(&request)?;
    Ok(path)
}
