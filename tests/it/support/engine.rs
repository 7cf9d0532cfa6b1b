//! A private redis-server or nats-server: its own directory and address; gone when dropped.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::end_with_the_run;
use super::php_fpm::{free_port, kill, wait_until};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Nats,
}

impl Kind {
    /// Its word in `[cluster] engine`.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Redis => "redis",
            Kind::Nats => "nats",
        }
    }

    pub fn of(word: &str) -> Option<Self> {
        [Kind::Redis, Kind::Nats].into_iter().find(|kind| kind.word() == word)
    }
}

pub struct EngineServer {
    kind: Kind,
    dir: tempfile::TempDir,
    port: SocketAddr,
    /// Largest payload that nats-server takes.
    max_payload: usize,
    child: Option<Child>,
}

impl EngineServer {
    /// As it is when nobody tells it anything.
    pub fn start(kind: Kind) -> Self {
        Self::start_for(kind, 1 << 20)
    }

    /// The same for payloads of that many bytes; Redis takes any.
    pub fn start_for(kind: Kind, max_payload: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self { kind, dir, port: free_port(), max_payload, child: None };
        server.start_again();
        server
    }

    /// Starts it, where it was before, and waits until it accepts.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = match self.kind {
            Kind::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(self.dir.path().join("redis.sock"));
                command
            }
            Kind::Nats => {
                // In /usr/sbin, which is not on everybody's PATH.
                let program = ["/usr/sbin/nats-server", "/usr/bin/nats-server"];
                let program = program.into_iter().find(|program| std::path::Path::new(program).exists());
                let mut command = Command::new(program.expect("nats-server is installed"));
                let config = self.dir.path().join("nats.conf");
                std::fs::write(&config, format!("max_payload: {}\n", self.max_payload)).expect("the directory is ours");
                command.args(["--addr", "127.0.0.1", "--port", &self.port.port().to_string(), "--config"]).arg(config);
                command
            }
        };
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0);
        end_with_the_run(&mut command, libc::SIGKILL);
        self.child = Some(command.spawn().expect("it is installed"));
        wait_until("the engine accepts", || self.accepts());
    }

    fn accepts(&self) -> bool {
        match self.kind {
            Kind::Redis => UnixStream::connect(self.dir.path().join("redis.sock")).is_ok(),
            Kind::Nats => std::net::TcpStream::connect(self.port).is_ok(),
        }
    }

    /// Its part of a node's `[cluster]`.
    pub fn config(&self) -> String {
        match self.kind {
            Kind::Redis => {
                format!("engine = \"redis\"\nurls = [\"redis+unix://{}/redis.sock\"]\n", self.dir.path().display())
            }
            Kind::Nats => format!("engine = \"nats\"\nurls = [\"nats://{}\"]\n", self.port),
        }
    }

    /// Publishes something, as a program that is no node.
    pub async fn publish(&self, subject: &str, payload: &str) {
        match self.kind {
            Kind::Redis => {
                let socket = format!("redis+unix://{}/redis.sock", self.dir.path().display());
                let client = redis::Client::open(socket).expect("an address");
                let mut connection = client.get_multiplexed_async_connection().await.expect("it accepts");
                let receivers: i64 = redis::cmd("PUBLISH")
                    .arg(subject)
                    .arg(payload)
                    .query_async(&mut connection)
                    .await
                    .expect("it publishes");
                assert!(receivers > 0, "somebody listens to {subject}");
            }
            Kind::Nats => {
                let client = async_nats::connect(format!("nats://{}", self.port)).await.expect("it accepts");
                client.publish(subject.to_owned(), payload.to_owned().into()).await.expect("it publishes");
                client.flush().await.expect("it is out");
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn signal(&self, signal: i32) {
        kill(self.pid(), signal);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }
}

impl Drop for EngineServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
