//! Private engines of several servers: a Redis Cluster, Redis with Sentinels, a cluster of NATS servers. Dropping one ends its servers.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use redis::{ClientTlsConfig, Connection, FromRedisValue, TlsCertificates};

use super::end_with_the_run;
use super::engine::args_of_redis;
use super::longwire::http_get;
use super::php_fpm::kill;
use super::tls::Authority;

/// The password of NATS, and of the servers with Sentinels. It has a space, which must be escaped in a URL.
const PASSWORD: &str = "a secret";
/// The name of the master in Sentinel.
const MASTER: &str = "main";
/// Longest wait for a cluster; elections of Redis take seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kind of cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Three masters without replicas. If a master is down, its slots are unavailable until it is back.
    RedisCluster,
    /// The same, and a replica of each master.
    RedisClusterWithReplicas,
    /// A master, its replica and three Sentinels.
    Sentinel,
    /// Three servers, each connected to the others.
    NatsCluster,
}

pub struct EngineCluster {
    kind: Kind,
    /// Masters of Redis, servers of NATS.
    pub servers: Vec<Server>,
    /// In the order of their masters.
    pub replicas: Vec<Server>,
    pub sentinels: Vec<Server>,
    tls: Option<Tls>,
    _dir: tempfile::TempDir,
}

/// TLS settings of Redis servers that accept only TLS, from clients with a certificate and from each other.
#[derive(Clone)]
struct Tls {
    args: Vec<String>,
    certificates: TlsCertificates,
}

/// A program with a port and a folder.
pub struct Server {
    program: PathBuf,
    args: Vec<String>,
    dir: PathBuf,
    pub port: u16,
    tls: Option<TlsCertificates>,
    child: Option<Child>,
}

impl EngineCluster {
    pub fn start(kind: Kind) -> Self {
        Self::start_with(kind, None)
    }

    /// The same for a kind of Redis, with TLS on all connections. All certificates are signed by this authority.
    pub fn start_with_tls(kind: Kind, authority: &Authority) -> Self {
        assert_ne!(kind, Kind::NatsCluster, "servers of NATS are queried without TLS here");
        let own = authority.sign("server", "server", &["127.0.0.1"]);
        let among = ["--tls-replication", "yes", "--tls-cluster", "yes"].map(str::to_owned);
        let args = args_of_redis(&own, &authority.ca_file()).into_iter().chain(among).collect();
        let read = |file: &Path| std::fs::read(file).expect("it was written");
        let client_tls = ClientTlsConfig { client_cert: read(&own.cert), client_key: read(&own.key) };
        let certificates =
            TlsCertificates { client_tls: Some(client_tls), root_cert: Some(read(&authority.ca_file())) };
        Self::start_with(kind, Some(Tls { args, certificates }))
    }

    fn start_with(kind: Kind, tls: Option<Tls>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (servers, replicas, sentinels) = (Vec::new(), Vec::new(), Vec::new());
        let mut cluster = Self { kind, servers, replicas, sentinels, tls, _dir: dir };
        match kind {
            Kind::RedisCluster => cluster.start_redis_cluster(0),
            Kind::RedisClusterWithReplicas => cluster.start_redis_cluster(3),
            Kind::Sentinel => cluster.start_sentinel(),
            Kind::NatsCluster => cluster.start_nats(),
        }
        cluster
    }

    fn server(&self, program: &str, port: u16, args: &[String]) -> Server {
        // Debian installs nats-server in /usr/sbin, which is often not in PATH.
        let places = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(|place| PathBuf::from(place).join(program));
        let program = places.into_iter().find(|place| place.exists()).expect("it is installed");
        let dir = self._dir.path().join(port.to_string());
        std::fs::create_dir(&dir).expect("no two have one port");
        let tls = self.tls.as_ref().map(|tls| tls.certificates.clone());
        let mut server = Server { program, args: args.to_vec(), dir, port, tls, child: None };
        server.start_again();
        server
    }

    fn redis(&self, args: &[&str]) -> Server {
        let port = free_port();
        let own = ["--save", "", "--repl-diskless-sync-delay", "0"];
        let args = own.iter().chain(args).map(|arg| (*arg).to_owned());
        let args: Vec<String> = self.listens_on(port).into_iter().chain(args).collect();
        self.server("redis-server", port, &args)
    }

    /// The arguments of a Redis server for its port and for TLS.
    fn listens_on(&self, port: u16) -> Vec<String> {
        let port = port.to_string();
        match &self.tls {
            None => vec!["--port".to_owned(), port],
            Some(tls) => {
                let ports = ["--port", "0", "--tls-port", &port].map(str::to_owned);
                ports.into_iter().chain(tls.args.iter().cloned()).collect()
            }
        }
    }

    fn start_redis_cluster(&mut self, replicas: usize) {
        let start = || {
            let bus = free_port().to_string();
            let of_cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus];
            (self.redis(&of_cluster), bus)
        };
        let all: Vec<(Server, String)> = (0..3 + replicas).map(|_| start()).collect();
        let (first, bus) = &all[0];
        let (address, first_port) = ("127.0.0.1", first.port.to_string());
        for (at, (server, _)) in all.iter().enumerate() {
            server.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
            if at < 3 {
                let (from, to) = ((at * 16_384).div_ceil(3), ((at + 1) * 16_384).div_ceil(3) - 1);
                server.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]);
            }
            if at > 0 {
                server.ask::<()>(&["CLUSTER", "MEET", address, &first_port, bus]);
            }
        }
        let known = format!("cluster_known_nodes:{}", all.len());
        until("all servers know each other", || {
            all.iter().all(|(server, _)| server.ask::<String>(&["CLUSTER", "INFO"]).contains(&known))
        });
        let mut servers: Vec<Server> = all.into_iter().map(|(server, _)| server).collect();
        self.replicas = servers.split_off(3);
        self.servers = servers;
        for (replica, master) in self.replicas.iter().zip(&self.servers) {
            let id = master.ask::<String>(&["CLUSTER", "MYID"]);
            // It takes a moment until the replica knows this server as a master.
            until("it is a replica", || replica.try_ask::<()>(&["CLUSTER", "REPLICATE", &id]).is_ok());
        }
        until("the cluster is whole", || {
            let is_ok = |server: &Server| server.ask::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
            self.servers.iter().chain(&self.replicas).all(is_ok) && self.replicas.iter().all(Server::follows)
        });
    }

    fn start_sentinel(&mut self) {
        let secret = ["--requirepass", PASSWORD, "--masterauth", PASSWORD];
        let master = self.redis(&secret);
        let of = master.port.to_string();
        let replica = self.redis(&[&secret[..], &["--replicaof", "127.0.0.1", &of]].concat());
        until("the replica follows", || replica.follows());
        self.servers = vec![master];
        self.replicas = vec![replica];
        self.sentinels = (0..3).map(|_| self.sentinel(&of)).collect();
        until("the Sentinels know all", || self.sentinels.iter().all(Server::knows_all));
    }

    fn sentinel(&self, master_port: &str) -> Server {
        let port = free_port();
        let file = self._dir.path().join(format!("sentinel-{port}.conf"));
        let config = format!(
            "sentinel monitor {MASTER} 127.0.0.1 {master_port} 2\nsentinel auth-pass {MASTER} \"{PASSWORD}\"\n\
             sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n"
        );
        std::fs::write(&file, config).expect("the directory is ours");
        let begin = [file.display().to_string(), "--sentinel".to_owned()];
        let args: Vec<String> = begin.into_iter().chain(self.listens_on(port)).collect();
        self.server("redis-server", port, &args)
    }

    fn start_nats(&mut self) {
        let ports: Vec<[u16; 3]> = (0..3).map(|_| [free_port(), free_port(), free_port()]).collect();
        let routes: Vec<String> = ports.iter().map(|[_, routes, _]| format!("nats://127.0.0.1:{routes}")).collect();
        self.servers = ports
            .iter()
            .zip(&routes)
            .map(|([port, _, monitor], own)| {
                let (port_text, monitor, all) = (port.to_string(), monitor.to_string(), routes.join(","));
                let args = ["--addr", "127.0.0.1", "--port", &port_text, "--http_port", &monitor];
                let of_cluster = ["--cluster_name", "test", "--cluster", own, "--routes", &all];
                let user = ["--user", "ann", "--pass", PASSWORD];
                let args: Vec<String> =
                    args.iter().chain(&of_cluster).chain(&user).map(|arg| (*arg).to_owned()).collect();
                self.server("nats-server", *port, &args)
            })
            .collect();
        until("each server is connected to both others", || {
            ports.iter().all(|[_, _, monitor]| {
                let (_, body) = http_get(local(*monitor), "/routez");
                serde_json::from_str::<serde_json::Value>(&body).is_ok_and(|routes| routes["num_routes"] == 2)
            })
        });
    }

    /// The lines of a node's `[cluster]` for this engine; server number `first` is tried first.
    pub fn config(&self, first: usize) -> String {
        let redis = if self.tls.is_some() { "rediss" } else { "redis" };
        let (servers, scheme, user, rest) = match self.kind {
            Kind::RedisCluster | Kind::RedisClusterWithReplicas => (&self.servers, redis, "", "redis = \"cluster\"\n"),
            Kind::Sentinel => {
                (&self.sentinels, redis, ":a%20secret@", "redis = \"sentinel\"\nsentinel_master = \"main\"\n")
            }
            Kind::NatsCluster => (&self.servers, "nats", "ann:a%20secret@", ""),
        };
        let engine = if self.kind == Kind::NatsCluster { "nats" } else { "redis" };
        let turns = (0..servers.len()).map(|turn| &servers[(first + turn) % servers.len()]);
        let urls: Vec<String> = turns.map(|server| format!("{scheme}://{user}127.0.0.1:{}", server.port)).collect();
        format!("engine = \"{engine}\"\nurls = {urls:?}\n{rest}")
    }
}

impl Server {
    /// Starts it at the same address as before, and waits until it accepts connections.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        end_with_the_run(&mut command, libc::SIGKILL);
        self.child = Some(command.spawn().expect("it is installed"));
        until("it accepts", || TcpStream::connect(local(self.port)).is_ok());
    }

    pub fn signal(&self, signal: i32) {
        kill(self.child.as_ref().expect("it runs").id(), signal);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// Sends a command to this Redis server and returns the answer.
    pub fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).expect("it does that")
    }

    fn try_ask<T: FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let has_password = self.args.iter().any(|arg| arg == "--requirepass");
        let user = if has_password { ":a%20secret@" } else { "" };
        let address = format!("{user}127.0.0.1:{}", self.port);
        let client = match &self.tls {
            None => redis::Client::open(format!("redis://{address}"))?,
            Some(certificates) => redis::Client::build_with_tls(format!("rediss://{address}"), certificates.clone())?,
        };
        let mut connection: Connection = client.get_connection_with_timeout(PATIENCE)?;
        let (name, args) = command.split_first().expect("a command has a name");
        redis::cmd(name).arg(args).query(&mut connection)
    }

    /// Whether this replica has caught up with its master.
    fn follows(&self) -> bool {
        self.ask::<String>(&["INFO", "replication"]).contains("master_link_status:up")
    }

    /// Whether this Sentinel knows both other Sentinels and the replica.
    fn knows_all(&self) -> bool {
        let about = self.ask::<std::collections::HashMap<String, String>>(&["SENTINEL", "MASTER", MASTER]);
        let is = |key: &str, value: &str| about.get(key).is_some_and(|known| known == value);
        is("num-other-sentinels", "2") && is("num-slaves", "1")
    }

    /// Whether this server of Redis is a master now.
    pub fn is_master(&self) -> bool {
        self.ask::<String>(&["INFO", "replication"]).contains("role:master")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The slot of a name, as computed by Redis.
pub fn slot_of(server: &Server, name: &str) -> u16 {
    server.ask(&["CLUSTER", "KEYSLOT", name])
}

#[track_caller]
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < deadline, "timed out waiting until: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A free port below the kernel's range for outgoing connections and below the ports of `cluster_demo`. So a server that was killed
/// finds its port free when it is started again.
fn free_port() -> u16 {
    const FROM: u16 = 10_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test runs at the same time begin with different ports.
    let begin = (std::process::id() % 100) as u16 * (COUNT / 100);
    loop {
        let port = FROM + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind(local(port)).is_ok() {
            return port;
        }
    }
}
