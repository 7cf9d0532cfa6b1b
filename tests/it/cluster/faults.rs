//! A cluster whose links, engine or nodes fail: three nodes, each with its own cable to the engine. The time until each change is
//! noticed is printed (`cargo test --test it cluster::faults -- --nocapture`), and `docs/cluster.md` has these times.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longwire::proto::command::{Action, Page, Query, Receipt, Target};
use longwire::proto::control::long::Operation;
use longwire::proto::framing::{Framing, LengthFraming};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::time::sleep;

use crate::support::client::Client;
use crate::support::cluster::{HANDLER, LEASE, all_know, next, reached, send};
use crate::support::end_with_the_run;
use crate::support::engine::Kind;
use crate::support::longwire::Longwire;
use crate::support::network::Network;
use crate::support::php_fpm::{PhpFpm, Pool, kill};
use crate::support::router::{Router, name};

const NODES: usize = 3;
/// Within this time every node knows of a change.
const SOON: Duration = LEASE.saturating_add(Duration::from_secs(2));

/// Three nodes that reach an engine over their cables, with a client in the channel "news" and a router client on each.
struct Stage {
    kind: Kind,
    nodes: Vec<Longwire>,
    routers: Vec<Router>,
    clients: Vec<Client>,
    engine: Option<Child>,
    fpm: PhpFpm,
    network: Network,
    dir: TempDir,
}

/// A node's answer to the query for the channel's members.
#[derive(Debug, PartialEq)]
struct Seen {
    count: u64,
    unreachable: Vec<String>,
    engine_down: bool,
}

impl Seen {
    /// All nodes have answered.
    fn whole(count: u64) -> Self {
        Self { count, unreachable: Vec::new(), engine_down: false }
    }

    fn without(count: u64, node: &str) -> Self {
        Self { unreachable: vec![node.to_owned()], ..Self::whole(count) }
    }
}

impl Stage {
    /// Starts everything. `None` if this machine does not allow network namespaces, with a message.
    async fn new(kind: Kind) -> Option<Self> {
        let network = match Network::star(NODES) {
            Ok(network) => network,
            Err(why) if ["not permitted", "not supported", "Unknown device"].iter().any(|no| why.contains(no)) => {
                // Not by eprintln, because its output is hidden if a test passes.
                let _ = writeln!(std::io::stderr(), "\nSKIPPED, NOTHING WAS TESTED: cluster_faults {kind:?}: {why}\n");
                return None;
            }
            Err(why) => panic!("{why}"),
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fpm = Pool::of(2).start();
        fpm.script("handler.php", HANDLER);
        let (nodes, routers, clients) = (Vec::new(), Vec::new(), Vec::new());
        let mut stage = Self { kind, nodes, routers, clients, engine: None, fpm, network, dir };
        stage.start_engine();
        stage.nodes = (0..NODES).map(|node| stage.start_node(node)).collect();
        all_know(&stage.nodes, NODES - 1).await;
        for node in 0..NODES {
            let (router, client) = (stage.socket(node, "router"), stage.socket(node, "length"));
            stage.routers.push(greeted(router).await);
            stage.clients.push(connected(client).await);
        }
        let join = Action::Join(name("news"));
        assert_eq!(stage.routers[0].do_to(Target::All, join).await, reached(NODES as u32));
        let began = Instant::now();
        stage.until_each_sees(&[0, 1, 2], began, |seen| *seen == Seen::whole(3)).await;
        Some(stage)
    }

    fn start_engine(&mut self) {
        let mut command = match self.kind {
            Kind::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--bind", "0.0.0.0", "--protected-mode", "no", "--port", "6379", "--save", ""]);
                command
            }
            Kind::Nats => {
                let mut command = Command::new("/usr/sbin/nats-server");
                command.args(["--addr", "0.0.0.0", "--port", "4222"]);
                command
            }
        };
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.network.hub().has(&mut command);
        end_with_the_run(&mut command, libc::SIGKILL);
        self.engine = Some(command.spawn().expect("it is installed (tests/install-deps.sh test)"));
    }

    fn signal_engine(&self, signal: i32) {
        kill(self.engine.as_ref().expect("it runs").id(), signal);
    }

    fn kill_engine(&mut self) {
        let mut engine = self.engine.take().expect("it runs");
        engine.kill().expect("it is our child");
        engine.wait().expect("it is our child");
    }

    /// Starts a node in its own namespace. The test talks to it over Unix sockets, which work without a cable.
    fn start_node(&self, node: usize) -> Longwire {
        let (hub, number) = (self.network.hub_address(node), node + 1);
        let (engine, url) = match self.kind {
            Kind::Redis => ("redis", format!("redis://{hub}:6379")),
            Kind::Nats => ("nats", format!("nats://{hub}:4222")),
        };
        let door = |what: &str| format!("unix:{}", self.socket(node, what).display());
        let config = format!(
            "[node]\nname = \"n{number}\"\nnumber = {number}\n\
             [cluster]\nlease = \"{}s\"\nlinger = \"1s\"\nengine = \"{engine}\"\nurls = [\"{url}\"]\n\
             [admin]\nbind = \"{}\"\n[router]\nbind = \"{}\"\n[api]\nbind = \"off\"\n\
             [listeners.length]\nbind = \"{}\"\napp = \"app\"\n\
             [apps.app]\nupstream = \"php\"\nscript = {:?}\n[upstreams.php]\nbackends = [\"{}\"]\n",
            LEASE.as_secs(),
            door("admin"),
            door("router"),
            door("length"),
            self.fpm.dir().join("handler.php"),
            self.fpm.address(),
        );
        Longwire::serve_prepared(&config, |command| self.network.spoke(node).has(command))
    }

    fn socket(&self, node: usize, what: &str) -> PathBuf {
        self.dir.path().join(format!("{what}-{node}.sock"))
    }

    /// Publishes from a node. Returns the receipt, the nodes that did not answer, and whether the engine was unavailable.
    async fn publish(&mut self, node: usize, text: &str) -> (Receipt, Vec<String>, bool) {
        let router = &mut self.routers[node];
        let number = router.start(Operation::Command(send(Target::Channel(name("news")), text))).await;
        router.outcome(number).await
    }

    /// Waits until the clients of these nodes have read this text.
    async fn read(&mut self, nodes: &[usize], text: &str) {
        for &node in nodes {
            while next(&mut self.clients[node]).await != text {}
        }
    }

    async fn presence(&mut self, node: usize) -> Seen {
        let answer = self.routers[node].json(Query::Channel(name("news"), Page::default())).await;
        let names = answer["unreachable"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
        Seen {
            count: answer["count"].as_u64().expect("a count"),
            unreachable: names.map(|name| name.as_str().expect("a name").to_owned()).collect(),
            engine_down: answer["engine_down"] == true,
        }
    }

    /// The time from `since` until each of these nodes gave the wanted answer.
    async fn until_each_sees(
        &mut self,
        nodes: &[usize],
        since: Instant,
        is: impl Fn(&Seen) -> bool + Send,
    ) -> Duration {
        for &node in nodes {
            loop {
                let seen = self.presence(node).await;
                if is(&seen) {
                    break;
                }
                assert!(since.elapsed() < SOON * 3, "{:?}: node {} still sees {seen:?}", self.kind, node + 1);
                sleep(Duration::from_millis(10)).await;
            }
        }
        since.elapsed()
    }

    /// The time from `since` until each of these nodes had this value of a metric.
    async fn until_said<const N: usize>(&mut self, said: [(usize, &str, f64); N], since: Instant) -> [Duration; N] {
        let mut times = [None; N];
        while times.contains(&None) {
            for (time, (node, metric, value)) in times.iter_mut().zip(said) {
                if time.is_none() && self.nodes[node].metric(metric, "") == value {
                    *time = Some(since.elapsed());
                }
            }
            assert!(since.elapsed() < SOON * 3, "{:?}: {said:?} came true after {times:?}", self.kind);
            sleep(Duration::from_millis(5)).await;
        }
        times.map(|time| time.expect("the loop has waited for it"))
    }

    /// The time from `since` until each node knew that the engine is unavailable.
    async fn until_all_are_alone(&mut self, since: Instant) -> Duration {
        let times = self.until_said([0, 1, 2].map(|node| (node, "longwire_engine_up", 0.0)), since).await;
        times.into_iter().max().expect("three of them")
    }

    /// Checks that each node serves its own client and reports that it reaches no other node.
    async fn each_is_alone(&mut self) {
        for node in 0..NODES {
            let seen = self.presence(node).await;
            assert_eq!((seen.count, seen.engine_down), (1, true), "{:?}", self.kind);
            let outcome = self.publish(node, "alone").await;
            assert_eq!((outcome.0, outcome.2), (reached(1), true), "{:?}", self.kind);
            self.read(&[node], "alone").await;
        }
    }

    /// Checks that a message published on any node reaches every client once.
    async fn all_are_together(&mut self) {
        for node in 0..NODES {
            let text = format!("together, from {node}");
            assert_eq!(self.publish(node, &text).await, (reached(NODES as u32), Vec::new(), false), "{:?}", self.kind);
            self.read(&[0, 1, 2], &text).await;
        }
    }

    /// Prints a time, and fails if it is longer than promised.
    #[track_caller]
    fn soon(&self, what: &str, took: Duration) {
        eprintln!("{:?}: {what}: {:.2} s", self.kind, took.as_secs_f64());
        assert!(took < SOON, "{:?}: {what} took {took:?}", self.kind);
    }
}

async fn greeted(socket: PathBuf) -> Router {
    let mut router = Router::unix(&socket).await;
    router.greet("").await.expect("it asks for no secret");
    router
}

async fn connected(socket: PathBuf) -> Client {
    let socket = UnixStream::connect(socket).await.expect("it listens");
    let mut client = Client::on(socket, Framing::Length(LengthFraming::default()), Vec::new());
    client.ask("?").await;
    client
}

/// Runs a test with both engines in parallel, because each mostly waits for a lease to expire.
async fn with_each_engine<F: Future<Output = ()> + Send + 'static>(test: fn(Kind) -> F) {
    for run in [Kind::Redis, Kind::Nats].map(|kind| tokio::spawn(test(kind))) {
        run.await.expect("it succeeds");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            let _ = engine.kill();
            let _ = engine.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_a_cut_cable_is_missed_and_alone_until_it_is_healed() {
    with_each_engine(cut).await;
}

async fn cut(kind: Kind) {
    let Some(mut stage) = Stage::new(kind).await else { return };
    stage.network.cut(2);
    let since = Instant::now();
    // No node has noticed yet. The answer must still say that it is incomplete.
    assert_eq!(stage.presence(0).await, Seen::without(2, "n3"), "{kind:?}");
    stage.soon("cut: an answer has the remaining members and names the missing node", since.elapsed());
    assert_eq!(stage.publish(0, "first").await, (reached(2), vec!["n3".to_owned()], false), "{kind:?}");
    stage.read(&[0, 1], "first").await;
    let (receipt, unreachable, engine_down) = stage.publish(2, "here").await;
    assert!(receipt == reached(1) && (engine_down || unreachable == ["n1", "n2"]), "{kind:?}: {unreachable:?}");
    stage.read(&[2], "here").await;
    let others = [0, 1].map(|node| (node, "longwire_cluster_nodes", 1.0));
    let times = stage.until_said([(2, "longwire_engine_up", 0.0), others[0], others[1]], since).await;
    stage.soon("cut: the node knows that it is alone", times[0]);
    stage.soon("cut: the others wait for it no more", times[1].max(times[2]));
    for node in [0, 1] {
        assert_eq!(stage.presence(node).await, Seen::without(2, "n3"), "{kind:?}");
    }
    let seen = stage.presence(2).await;
    assert_eq!((seen.count, seen.engine_down), (1, true), "{kind:?}");
    assert_eq!(stage.publish(0, "later").await, (reached(2), vec!["n3".to_owned()], false), "{kind:?}");
    stage.read(&[0, 1], "later").await;
    let (receipt, _, engine_down) = stage.publish(2, "alone").await;
    assert_eq!((receipt, engine_down), (reached(1), true), "{kind:?}");
    stage.read(&[2], "alone").await;
    // Wait longer than the longest pause between two attempts.
    sleep((SOON * 2).saturating_sub(since.elapsed())).await;
    stage.network.heal(2);
    let since = Instant::now();
    let took = stage.until_each_sees(&[0, 1, 2], since, |seen| *seen == Seen::whole(3)).await;
    stage.soon("healed: everybody sees everybody", took);
    stage.all_are_together().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_paused_leaves_each_node_its_own_sessions() {
    with_each_engine(paused).await;
}

async fn paused(kind: Kind) {
    let Some(mut stage) = Stage::new(kind).await else { return };
    stage.signal_engine(libc::SIGSTOP);
    let since = Instant::now();
    let (receipt, unreachable, engine_down) = stage.publish(0, "first").await;
    let is_known = receipt == reached(1) && (engine_down || unreachable == ["n2", "n3"]);
    assert!(is_known, "{kind:?}: {receipt:?} {unreachable:?}");
    let took = stage.until_all_are_alone(since).await;
    stage.soon("engine paused: each node knows", took);
    stage.each_is_alone().await;
    sleep(Duration::from_secs(10).saturating_sub(since.elapsed())).await;
    stage.signal_engine(libc::SIGCONT);
    let since = Instant::now();
    let took = stage.until_each_sees(&[0, 1, 2], since, |seen| *seen == Seen::whole(3)).await;
    stage.soon("engine goes on: everybody sees everybody", took);
    stage.all_are_together().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_was_killed_is_found_again() {
    with_each_engine(engine_killed).await;
}

async fn engine_killed(kind: Kind) {
    let Some(mut stage) = Stage::new(kind).await else { return };
    stage.kill_engine();
    let since = Instant::now();
    let took = stage.until_all_are_alone(since).await;
    stage.soon("engine killed: each node knows", took);
    stage.each_is_alone().await;
    sleep(SOON.saturating_sub(since.elapsed())).await;
    stage.start_engine();
    let since = Instant::now();
    let took = stage.until_each_sees(&[0, 1, 2], since, |seen| *seen == Seen::whole(3)).await;
    stage.soon("engine started: everybody sees everybody", took);
    stage.all_are_together().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_killed_is_missed_and_comes_back() {
    with_each_engine(node_killed).await;
}

async fn node_killed(kind: Kind) {
    let Some(mut stage) = Stage::new(kind).await else { return };
    stage.nodes[2].signal(libc::SIGKILL);
    let since = Instant::now();
    stage.nodes[2].wait();
    assert_eq!(stage.presence(0).await, Seen::without(2, "n3"), "{kind:?}");
    stage.soon("node killed: an answer has the remaining members and names the missing node", since.elapsed());
    let times = stage.until_said([0, 1].map(|node| (node, "longwire_cluster_nodes", 1.0)), since).await;
    stage.soon("node killed: the others wait for it no more", times[0].max(times[1]));
    let since = Instant::now();
    stage.nodes[2] = stage.start_node(2);
    stage.routers[2] = greeted(stage.socket(2, "router")).await;
    let took = stage.until_each_sees(&[0, 1, 2], since, |seen| *seen == Seen::whole(2)).await;
    stage.soon("node started: its old sessions are gone for everybody", took);
    stage.clients[2] = connected(stage.socket(2, "length")).await;
    let join = Action::Join(name("news"));
    assert_eq!(stage.routers[0].do_to(Target::All, join).await, reached(NODES as u32), "{kind:?}");
    stage.all_are_together().await;
}
