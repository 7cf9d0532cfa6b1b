//! What runs beside the runner. Everything that is started here ends when it is dropped, and when the runner dies.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::roles::{BACKEND_CONNECTIONS, BYTES};

const PATIENCE: Duration = Duration::from_secs(20);

/// A process of ours.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        // SAFETY: prctl is async-signal-safe, and nothing else happens between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        Ok(Self(command.stdin(Stdio::null()).spawn()?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This binary, in a role.
fn role(name: &str, arguments: &[&Path]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("role").arg(name).args(arguments);
    Ok(command)
}

/// Starts the responder that only echoes.
pub(crate) fn null_responder(socket: &Path) -> io::Result<Process> {
    let process = Process::start(&mut role("null-responder", &[socket])?)?;
    let begin = Instant::now();
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        if begin.elapsed() > PATIENCE {
            return Err(io::Error::other("the null responder does not listen"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(process)
}

/// Starts the floor of an echo in front of a responder.
pub(crate) fn echo_floor(responder: &Path, request: &Path) -> io::Result<(Process, SocketAddr)> {
    let mut process = Process::start(role("echo-floor", &[responder, request])?.stdout(Stdio::piped()))?;
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().expect("it is piped")).read_line(&mut line)?;
    let address = line.trim().parse().map_err(|_| io::Error::other("the echo floor does not listen"))?;
    Ok((process, address))
}

/// Longwire, serving.
pub(crate) struct Node {
    process: Process,
    addresses: Vec<(String, SocketAddr)>,
}

impl Node {
    /// Listeners `tcp` and `ws` (and `lua`: the framing of `tcp`, by a script) for a responder that echoes.
    pub(crate) fn start(dir: &Path, responder: &Path) -> io::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lua/length.lua");
        let lua = format!(
            "listeners.lua = {{ bind = \"127.0.0.1:0\", app = \"echo\", framing = {{ type = \"lua\", script = {script:?} }} }}"
        );
        let lua = if cfg!(feature = "lua") { lua } else { String::new() };
        let config = format!(
            r#"
            log.format = "json"
            admin.bind = "off"
            router.bind = "off"
            api.bind = "off"
            listeners.tcp = {{ bind = "127.0.0.1:0", app = "echo" }}
            listeners.ws = {{ bind = "127.0.0.1:0", protocol = "http", routes = {{ "/ws" = "echo" }} }}
            {lua}
            apps.echo = {{ upstream = "null", script = "/echo.php", check_script = false }}
            upstreams.null = {{ backends = ["unix:{}"], max_connections = {BACKEND_CONNECTIONS} }}
            "#,
            responder.display(),
        );
        let file = dir.join("longwire.toml");
        fs::write(&file, config)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
        command.args(["serve", "--config"]).arg(&file).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let mut lines = BufReader::new(process.0.stderr.take().expect("it is piped")).lines();
        let mut addresses = Vec::new();
        loop {
            let line = lines.next().ok_or_else(|| io::Error::other("longwire has ended before it listened"))??;
            let line: Value = serde_json::from_str(&line).map_err(|_| io::Error::other(format!("longwire: {line}")))?;
            match line["message"].as_str() {
                Some("started") => break,
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
        // A full pipe would stop it.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(Self { process, addresses })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn url(&self, listener: &str) -> String {
        let (_, address) = self.addresses.iter().find(|(name, _)| name == listener).expect("it is configured");
        if listener == "ws" { format!("ws://{address}/ws") } else { format!("tcp://{address}") }
    }
}

/// One request as Longwire writes it, for the floor to repeat.
pub(crate) fn record_request(dir: &Path) -> io::Result<Vec<u8>> {
    let socket = dir.join("recorder.sock");
    let listener = UnixListener::bind(&socket)?;
    let node = Node::start(dir, &socket)?;
    let mut client = TcpStream::connect(node.url("tcp").trim_start_matches("tcp://"))?;
    client.write_all(&[&(BYTES as u32).to_be_bytes()[..], &[b'x'; BYTES]].concat())?;
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    // Longwire looks whether the backend is there by a connection that says nothing, so the first need not be the one.
    while request.is_empty() {
        let (mut backend, _) = listener.accept()?;
        backend.set_read_timeout(Some(PATIENCE))?;
        // The end of stdin: an empty record behind the body.
        while !is_whole(&request) {
            let read = backend.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            request.extend_from_slice(&buffer[..read]);
        }
    }
    if !is_whole(&request) {
        return Err(io::Error::other("longwire closed before its request was whole"));
    }
    Ok(request)
}

fn is_whole(request: &[u8]) -> bool {
    request.len() > BYTES + 8 && request[request.len() - 8 - BYTES..request.len() - 8] == [b'x'; BYTES]
}
