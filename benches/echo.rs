//! What an echoed frame costs Longwire: CPU time and latency of the real binary, in front of a FastCGI responder that does
//! nothing, so that PHP is not in the figures.
//!
//! Clients and responder live in this process, whose CPU time is not counted. Every session sends its next frame when the
//! last was answered. Compare rows of one run only: another machine, or a busy one, gives other figures.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longwire::proto::fastcgi::responder::{RequestDecoder, push_end, push_stdout};
use longwire::proto::fastcgi::response::{End, ProtocolStatus};
use longwire::proto::framing::{Decoder, FrameKind, Framing, Item, LengthFraming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};

/// Enough for a tenth of a second of CPU time in the cheapest row, of which schedstat counts nanoseconds.
const FRAMES: usize = 60_000;
const WARM_UP: usize = 6_000;
/// Connections to the responder, as to a pool of eight workers.
const BACKEND_CONNECTIONS: usize = 8;

fn main() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("responder.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = UnixListener::bind(&socket).expect("a new path");
        tokio::spawn(respond(listener));
        let node = Node::start(dir.path(), &socket);
        println!(
            "{:<10} {:>9} {:>7} {:>10} {:>10} {:>9} {:>9}",
            "framing", "sessions", "bytes", "frames/s", "CPU µs", "p50 µs", "p99 µs"
        );
        let length = Framing::Length(LengthFraming::default());
        let mut rows = vec![("length", length.clone()), ("websocket", Framing::WebSocket { deflate: None })];
        if cfg!(feature = "lua") {
            // The same bytes, by a script.
            rows.push(("lua", length));
        }
        for (name, framing) in rows {
            for (sessions, bytes) in [(1, 64), (32, 64), (32, 4096), (512, 64)] {
                let row = measure(&node, name, &framing, sessions, bytes).await;
                println!("{name:<10} {sessions:>9} {bytes:>7} {row}");
            }
        }
    });
}

struct Row {
    frames_per_second: f64,
    cpu_per_frame: f64,
    median: Duration,
    p99: Duration,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
        let (rate, cpu) = (self.frames_per_second, self.cpu_per_frame);
        write!(f, "{rate:>10.0} {cpu:>10.2} {:>9.0} {:>9.0}", micros(self.median), micros(self.p99))
    }
}

async fn measure(node: &Node, listener: &str, framing: &Framing, sessions: usize, bytes: usize) -> Row {
    let mut clients = Vec::new();
    for _ in 0..sessions {
        clients.push(Client::connect(node.address(listener), framing.clone(), bytes).await);
    }
    let (clients, _) = talk(clients, WARM_UP / sessions).await;
    let (cpu, begin) = (node.cpu(), Instant::now());
    let (_, mut times) = talk(clients, FRAMES / sessions).await;
    let (cpu, wall) = (node.cpu() - cpu, begin.elapsed());
    times.sort_unstable();
    let frames = times.len() as f64;
    Row {
        frames_per_second: frames / wall.as_secs_f64(),
        cpu_per_frame: cpu.as_secs_f64() * 1e6 / frames,
        median: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
    }
}

/// Lets every client echo `frames` frames, all at the same time; how long each took.
async fn talk(clients: Vec<Client>, frames: usize) -> (Vec<Client>, Vec<Duration>) {
    let tasks: Vec<_> = clients.into_iter().map(|client| tokio::spawn(client.talk(frames))).collect();
    let (mut clients, mut times) = (Vec::new(), Vec::new());
    for task in tasks {
        let (client, its_times) = task.await.expect("no client fails");
        clients.push(client);
        times.extend(its_times);
    }
    (clients, times)
}

struct Client {
    stream: TcpStream,
    framing: Framing,
    decoder: Decoder,
    frame: Vec<u8>,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr, framing: Framing, bytes: usize) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("a TCP socket");
        if matches!(framing, Framing::WebSocket { .. }) {
            shake_hands(&mut stream, address).await;
        }
        let kind = FrameKind::Binary;
        let frame = framing.encode_client(kind, &vec![b'x'; bytes], [1, 2, 3, 4]).expect("a short frame").to_vec();
        Self { stream, decoder: Decoder::new_client(&framing), framing, frame, buffer: Vec::with_capacity(16 * 1024) }
    }

    async fn talk(mut self, frames: usize) -> (Self, Vec<Duration>) {
        let mut times = Vec::with_capacity(frames);
        for _ in 0..frames {
            let sent = Instant::now();
            self.stream.write_all(&self.frame).await.expect("it reads");
            self.reply().await;
            times.push(sent.elapsed());
        }
        (self, times)
    }

    async fn reply(&mut self) {
        loop {
            let mut from = 0;
            while from < self.buffer.len() {
                let input = &self.buffer[from..];
                let (used, item) = self.decoder.decode(&self.framing, 1 << 20, input).expect("the server is right");
                from += used;
                if matches!(item, Some(Item::Frame(_))) {
                    self.buffer.drain(..from);
                    return;
                }
            }
            self.buffer.clear();
            assert!(self.stream.read_buf(&mut self.buffer).await.expect("it answers") > 0, "the server has closed");
        }
    }
}

async fn shake_hands(stream: &mut TcpStream, address: SocketAddr) {
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("it answers"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
}

/// Echoes every request's body.
async fn respond(listener: UnixListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut decoder = RequestDecoder::new(1 << 20);
            let (mut buffer, mut answer) = (vec![0; 64 * 1024], Vec::new());
            loop {
                let length = match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => length,
                };
                let mut input = &buffer[..length];
                while let Some(request) = decoder.decode(&mut input).expect("longwire is right") {
                    let head = format!("Content-Length: {}\r\n\r\n", request.body.len());
                    answer.clear();
                    push_stdout(&mut answer, request.id, &[head.as_bytes(), &request.body].concat());
                    push_end(&mut answer, request.id, End { app_status: 0, status: ProtocolStatus::Complete });
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// The binary, serving.
struct Node {
    child: Child,
    addresses: Vec<(String, SocketAddr)>,
}

impl Node {
    fn start(dir: &Path, responder: &Path) -> Self {
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
            listeners.length = {{ bind = "127.0.0.1:0", app = "echo" }}
            listeners.websocket = {{ bind = "127.0.0.1:0", protocol = "http", routes = {{ "/ws" = "echo" }} }}
            {lua}
            apps.echo = {{ upstream = "null", script = "/echo.php", check_script = false }}
            upstreams.null = {{ backends = ["unix:{}"], max_connections = {BACKEND_CONNECTIONS} }}
            "#,
            responder.display(),
        );
        let file = dir.join("longwire.toml");
        fs::write(&file, config).expect("the folder is ours");
        let mut child = Command::new(env!("CARGO_BIN_EXE_longwire"))
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for this");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let mut addresses = Vec::new();
        while addresses.len() < if cfg!(feature = "lua") { 3 } else { 2 } {
            let line = lines.next().expect("it says where it listens");
            let line: serde_json::Value = serde_json::from_str(&line).expect("log lines are JSON");
            if line["message"] == "listening" {
                let text = |key: &str| line[key].as_str().expect("a text").to_owned();
                addresses.push((text("listener"), text("bind").parse().expect("an address")));
            }
        }
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, addresses }
    }

    fn address(&self, listener: &str) -> SocketAddr {
        self.addresses.iter().find(|(name, _)| name == listener).expect("it is configured").1
    }

    /// CPU time of all its threads so far (schedstat in proc(5): nanoseconds).
    fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let nanos = tasks.flatten().filter_map(|task| {
            let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            schedstat.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
