//! A private redis-server or nats-server with its own directory and address. Dropping it ends the server.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::end_with_the_run;
use super::php_fpm::{free_port, kill, wait_until};
use super::tls::{Authority, Signed};

/// The password of an engine with TLS. It has a space, which must be escaped in a URL.
pub const PASSWORD: &str = "a secret";

/// The kind of server.
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

/// TLS settings of an engine.
struct Tls {
    own: Signed,
    ca: PathBuf,
    clients: Clients,
}

/// Whether an engine that speaks TLS asks clients for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    Asked,
    NotAsked,
}

pub struct EngineServer {
    kind: Kind,
    dir: tempfile::TempDir,
    port: SocketAddr,
    /// Largest payload that nats-server takes.
    max_payload: usize,
    tls: Option<Tls>,
    child: Option<Child>,
}

impl EngineServer {
    /// Starts a server with default settings.
    pub fn start(kind: Kind) -> Self {
        Self::start_for(kind, 1 << 20)
    }

    /// The same for payloads of up to that many bytes; Redis accepts any size.
    pub fn start_for(kind: Kind, max_payload: usize) -> Self {
        Self::start_with(kind, max_payload, None)
    }

    /// Starts a server that accepts only TLS, with a certificate of this authority, and requires [`PASSWORD`].
    pub fn start_with_tls(kind: Kind, authority: &Authority, clients: Clients) -> Self {
        let own = authority.sign("engine", "engine", &["127.0.0.1"]);
        Self::start_with(kind, 1 << 20, Some(Tls { own, ca: authority.ca_file(), clients }))
    }

    fn start_with(kind: Kind, max_payload: usize, tls: Option<Tls>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self { kind, dir, port: free_port(), max_payload, tls, child: None };
        server.start_again();
        server
    }

    /// Starts it at the same address as before, and waits until it accepts connections.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = match self.kind {
            Kind::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--port", "0", "--save", ""]);
                match &self.tls {
                    None => command.arg("--unixsocket").arg(self.dir.path().join("redis.sock")),
                    Some(tls) => {
                        command.args(["--bind", "127.0.0.1", "--requirepass", PASSWORD]);
                        command.args(["--tls-port", &self.port.port().to_string()]).args(tls.args_of_redis())
                    }
                };
                command
            }
            Kind::Nats => {
                // Debian installs it in /usr/sbin, which is often not in PATH.
                let program = ["/usr/sbin/nats-server", "/usr/bin/nats-server"];
                let program = program.into_iter().find(|program| Path::new(program).exists());
                let mut command = Command::new(program.expect("nats-server is installed"));
                let config = self.dir.path().join("nats.conf");
                let tls = self.tls.as_ref().map_or_else(String::new, Tls::config_of_nats);
                let text = format!("max_payload: {}\n{tls}", self.max_payload);
                std::fs::write(&config, text).expect("the directory is ours");
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
            Kind::Redis if self.tls.is_none() => UnixStream::connect(self.dir.path().join("redis.sock")).is_ok(),
            Kind::Redis | Kind::Nats => std::net::TcpStream::connect(self.port).is_ok(),
        }
    }

    /// The lines of a node's `[cluster]` for this engine.
    pub fn config(&self) -> String {
        if self.tls.is_some() {
            let (scheme, user) = match self.kind {
                Kind::Redis => ("rediss", ""),
                Kind::Nats => ("tls", "ann"),
            };
            let (engine, password) = (self.kind.word(), PASSWORD.replace(' ', "%20"));
            return format!("engine = \"{engine}\"\nurls = [\"{scheme}://{user}:{password}@{}\"]\n", self.port);
        }
        match self.kind {
            Kind::Redis => {
                format!("engine = \"redis\"\nurls = [\"redis+unix://{}/redis.sock\"]\n", self.dir.path().display())
            }
            Kind::Nats => format!("engine = \"nats\"\nurls = [\"nats://{}\"]\n", self.port),
        }
    }

    /// A Redis client of it. Only for Redis without TLS.
    pub fn redis(&self) -> redis::Client {
        let socket = format!("redis+unix://{}/redis.sock", self.dir.path().display());
        redis::Client::open(socket).expect("an address")
    }

    /// Publishes a payload, as a program that is not a node.
    pub async fn publish(&self, subject: &str, payload: &str) {
        match self.kind {
            Kind::Redis => {
                let mut connection = self.redis().get_multiplexed_async_connection().await.expect("it accepts");
                let receivers: i64 = redis::cmd("PUBLISH")
                    .arg(subject)
                    .arg(payload)
                    .query_async(&mut connection)
                    .await
                    .expect("it publishes");
                assert!(receivers > 0, "nothing is subscribed to {subject}");
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

impl Tls {
    fn args_of_redis(&self) -> Vec<String> {
        // By default redis-server asks clients for certificates.
        let asks = if self.clients == Clients::NotAsked { &["--tls-auth-clients", "no"][..] } else { &[] };
        let files = args_of_redis(&self.own, &self.ca);
        files.into_iter().chain(asks.iter().map(|arg| (*arg).to_owned())).collect()
    }

    fn config_of_nats(&self) -> String {
        let verify = self.clients == Clients::Asked;
        format!(
            "authorization {{ user: ann, password: {PASSWORD:?} }}\n\
             tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: {verify} }}\n",
            self.own.cert, self.own.key, self.ca
        )
    }
}

/// The arguments of a redis-server for its own certificate and for the CA of its peers.
pub fn args_of_redis(own: &Signed, ca: &Path) -> Vec<String> {
    [("--tls-cert-file", own.cert.as_path()), ("--tls-key-file", &own.key), ("--tls-ca-cert-file", ca)]
        .into_iter()
        .flat_map(|(option, file)| [option.to_owned(), file.display().to_string()])
        .collect()
}

impl Drop for EngineServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
