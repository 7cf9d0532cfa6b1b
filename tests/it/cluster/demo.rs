//! Runs `tests/cluster.sh` (`make cluster`) on other ports, as a user would in a terminal. The chat is used by browsers and by plain
//! clients.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::end_with_the_run;
use crate::support::longwire::http_get;
use crate::support::php_fpm::{eventually, kill, wait_until};

/// The number of ports that the script uses, from its first one.
const PORTS: u16 = 52;
/// Longest wait for a frame. Unless something is broken, it comes within milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
const DESK: (u32, u32) = (1000, 700);

struct Demo {
    script: Child,
    /// The balancer's port, which is the first one.
    port: u16,
    printed: Arc<Mutex<String>>,
    /// The folder for its temporary files, by which its processes are recognized.
    files: TempDir,
}

impl Demo {
    /// Starts it and waits until it has printed all addresses.
    fn start(engine: &str) -> Self {
        let demo = Self::spawn(engine, free_ports());
        wait_until("the cluster is there", || demo.printed().contains("Ctrl-C stops."));
        demo
    }

    fn spawn(engine: &str, port: u16) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster.sh"));
        command
            .arg(env!("CARGO_BIN_EXE_longwire"))
            .env("ENGINE", engine)
            .env("PORT", port.to_string())
            // More than a second, so that the test can see that the node is away. The default waits for a lease.
            .env("AGAIN_AFTER", "3")
            .env("TMPDIR", files.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A process group of its own, as in a shell: Ctrl-C goes to the group.
            .process_group(0);
        end_with_the_run(&mut command, libc::SIGTERM);
        // A shell starts background commands with SIGINT ignored, and a script cannot undo that for itself.
        // SAFETY: signal is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        let mut script = command.spawn().expect("it can be executed");
        let printed = Arc::<Mutex<String>>::default();
        let stdout = BufReader::new(script.stdout.take().expect("it is piped"));
        let stderr = BufReader::new(script.stderr.take().expect("it is piped"));
        // Read to the end, because a full pipe would block it.
        let keep = |line: String, all: &Mutex<String>| *all.lock().unwrap() += &(line + "\n");
        let (out, err) = (printed.clone(), printed.clone());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| keep(line, &out)));
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| keep(line, &err)));
        Self { script, port, printed, files }
    }

    fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// The address of a port, by its distance from the first one (see the script).
    fn address(&self, offset: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port + offset))
    }

    fn url(&self, offset: u16) -> String {
        format!("http://{}/", self.address(offset))
    }

    /// The pid of the last process of this kind that was started.
    fn pid_of(&self, part: &str) -> u32 {
        let printed = self.printed();
        let line = printed.lines().rev().find(|line| {
            let line = line.trim_start();
            line.starts_with(part) && line.contains("pid ") && !line.contains(" | ")
        });
        let pid =
            line.and_then(|line| line.split("pid ").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        pid.unwrap_or_else(|| panic!("it has printed no pid of {part}:\n{printed}"))
    }

    /// The status of a node's `/ready`; 0 if it does not answer.
    fn ready(&self, node: u16) -> u16 {
        match std::net::TcpStream::connect(self.address(40 + node)) {
            Ok(_) => http_get(self.address(40 + node), "/ready").0,
            Err(_) => 0,
        }
    }

    async fn all_are_ready(&self) {
        eventually("all nodes are ready", || (1..=3).all(|node| self.ready(node) == 200)).await;
    }

    fn ctrl_c(&mut self) -> ExitStatus {
        // SAFETY: the process group is the one made for the script.
        unsafe { libc::kill(-(self.script.id() as i32), libc::SIGINT) };
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        wait_until("the script ends", || self.script.try_wait().expect("it is our child").is_some());
        self.script.wait().expect("it is our child")
    }

    /// Checks that none of its processes, files and ports is left.
    #[track_caller]
    fn leaves_nothing(&self) {
        wait_until("all its processes are gone", || self.processes().is_empty());
        wait_until("its files are gone", || self.files().is_empty());
        // A child process that another test has just forked may hold such a port until its exec.
        for offset in 0..PORTS {
            let is_free = || std::net::TcpStream::connect(self.address(offset)).is_err();
            wait_until(&format!("port offset {offset} is free"), is_free);
        }
    }

    /// All processes with its folder for temporary files in their environment or command line. Both are needed, because php-fpm's workers
    /// and redis-server overwrite their command line with a title.
    fn processes(&self) -> Vec<String> {
        let marks = [
            self.files.path().display().to_string(),
            format!("pool chat-{}", self.port),
            format!("redis-server 127.0.0.1:{}", self.port + 51),
        ];
        let text = |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\0', " ");
        let processes = fs::read_dir("/proc").expect("Linux has it").flatten().map(|entry| entry.path());
        let said = processes.map(|process| text(process.join("cmdline")) + &text(process.join("environ")));
        said.filter(|said| marks.iter().any(|mark| said.contains(mark))).collect()
    }

    /// Makes all people in the chat's list look old. The chat never removes a person who has just come.
    fn age_everybody(&self) {
        let folder = self.files().into_iter().next().expect("it has a folder");
        let folders = fs::read_dir(self.files.path().join(folder).join("tmp")).expect("it has one").flatten();
        let mut of_the_chat = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("longwire-chat-"));
        let file = of_the_chat.next().expect("somebody is there").path().join("people.json");
        let mut people: Value =
            serde_json::from_slice(&fs::read(&file).expect("somebody is there")).expect("it is JSON");
        for person in people.as_object_mut().expect("by session").values_mut() {
            person["since"] = json!(person["since"].as_u64().expect("a time") - 60);
        }
        fs::write(file, people.to_string()).expect("it is ours");
    }

    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.files.path()).expect("it is ours").flatten();
        files.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let printed = self.printed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            eprintln!("tests/cluster.sh printed:\n{printed}");
        }
        kill(self.script.id(), libc::SIGTERM);
        let _ = self.script.wait();
    }
}

/// The first of [`PORTS`] free ports, below the kernel's range for ephemeral ports.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = (std::process::id() % 200) as u16 * PORTS;
    for _ in 0..200 {
        let first = 20_000 + (spread + NEXT.fetch_add(PORTS, Ordering::Relaxed)) % (200 * PORTS);
        if (first..first + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no {PORTS} free ports in a row");
}

/// A person in the chat, played by a plain client.
struct Person {
    client: Client,
    session: String,
    node: String,
    /// The people who were there when this person came.
    found: Vec<String>,
}

impl Person {
    async fn connect(address: SocketAddr) -> Self {
        let mut client = Client::upgrade(address, "/ws", "").await;
        let hello = heard(&mut client, "hello").await;
        let word = |key: &str| hello[key].as_str().expect("a word").to_owned();
        Self { session: word("session"), node: word("node"), found: names(&hello["people"]), client }
    }

    async fn asks(&mut self, frame: Value) {
        self.client.text(&frame.to_string()).await;
    }

    async fn enters(&mut self, name: &str) {
        self.asks(json!({ "do": "enter", "name": name })).await;
        while self.hears("moved").await["name"] != name {}
    }

    async fn says(&mut self, text: &str) {
        self.asks(json!({ "do": "say", "text": text })).await;
        self.reads(text).await;
    }

    /// Waits for a line of the chat.
    async fn reads(&mut self, text: &str) {
        while self.hears("said").await["text"] != text {}
    }

    async fn hears(&mut self, is: &str) -> Value {
        heard(&mut self.client, is).await
    }

    /// The people in the chat, as listed by the handler.
    async fn people(&mut self) -> Vec<String> {
        self.asks(json!({ "do": "look" })).await;
        names(&self.hears("room").await["people"])
    }
}

/// The names in a list of people, sorted.
fn names(people: &Value) -> Vec<String> {
    let people = people.as_array().expect("a list").iter();
    let mut names: Vec<_> = people.map(|person| person["name"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names
}

/// The next frame of this kind.
async fn heard(client: &mut Client, is: &str) -> Value {
    let coming = async {
        loop {
            let frame: Value = serde_json::from_slice(&client.frame().await.body).expect("the chat speaks JSON");
            if frame["is"] == is {
                return frame;
            }
        }
    };
    timeout(PATIENCE, coming).await.unwrap_or_else(|_| panic!("timed out waiting for {is:?}"))
}

#[tokio::test]
async fn three_nodes_are_one_chat_and_leave_nothing_behind() {
    for (engine, killed) in [("redis", false), ("nats", true)] {
        let mut demo = Demo::start(engine);
        let (mut ann, mut bob) = (Person::connect(demo.address(1)).await, Person::connect(demo.address(2)).await);
        assert_eq!((&*ann.node, &*bob.node), ("node-1", "node-2"));
        ann.enters("Ann").await;
        bob.enters("Bob").await;
        while ann.hears("moved").await["name"] != "Bob" {}
        ann.says("Hello over there").await;
        bob.reads("Hello over there").await;
        // Other people come through the balancer, which gives one to each node.
        let mut others = Vec::new();
        for name in ["Cleo", "Dora", "Emil"] {
            let mut other = Person::connect(demo.address(0)).await;
            other.enters(name).await;
            others.push(other);
        }
        let mut nodes: Vec<_> = others.iter().map(|other| &*other.node).collect();
        nodes.sort_unstable();
        assert_eq!(nodes, ["node-1", "node-2", "node-3"], "{engine}");
        assert_eq!(ann.people().await, ["Ann", "Bob", "Cleo", "Dora", "Emil"], "{engine}");
        bob.asks(json!({ "do": "tell", "to": "Emil", "text": "Only for you" })).await;
        assert_eq!(others[2].hears("told").await["text"], "Only for you", "{engine}");
        // Any node can list the members of a channel on all nodes.
        let (status, body) = http_get(demo.address(30 + 3), "/v1/channels/chat");
        let members: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}"));
        assert_eq!((status, &members["count"]), (200, &json!(5)), "{engine}: {members}");
        assert!(members["sessions"].as_array().is_some_and(|all| all.contains(&json!(ann.session))), "{members}");

        drop(others.pop());
        while bob.hears("moved").await != json!({ "is": "moved", "name": "Emil", "from": "lounge" }) {}
        assert!(demo.processes().len() > 15, "{:?}", demo.processes());
        if killed {
            demo.script.kill().expect("it is our child");
            demo.wait();
        } else {
            assert!(demo.ctrl_c().success());
        }
        demo.leaves_nothing();
    }
}

#[tokio::test]
async fn a_taken_port_is_named_and_nothing_is_started() {
    let port = free_ports();
    let taken = TcpListener::bind(("127.0.0.1", port + 22)).expect("it was free");
    let mut demo = Demo::spawn("redis", port);
    assert_eq!(demo.wait().code(), Some(1));
    let said = format!("127.0.0.1:{} is already in use, but the router of node 2 needs it", port + 22);
    wait_until("it names the port", || demo.printed().contains(&said));
    drop(taken);
    demo.leaves_nothing();
}

#[tokio::test]
async fn pages_of_a_killed_node_come_back_on_another_one_and_a_lost_engine_is_survived() {
    let mut demo = Demo::start("redis");
    let (ann, bob) = (Browser::start(DESK, false).await, Browser::start(DESK, false).await);
    // Ann is on the node that the balancer has chosen; Bob is on another one, which stays.
    ann.open(&demo.url(0)).await;
    enters(&ann, "Ann").await;
    let first = node_of(&ann).await;
    let stays = if first == "node-2" { 1 } else { 2 };
    bob.open(&demo.url(stays)).await;
    enters(&bob, "Bob").await;
    assert_ne!(node_of(&bob).await, first);
    say(&ann, "Here I am.").await;
    sees(&bob, "Here I am.").await;
    // Zoe is on Ann's node too, and will not come back.
    let mut zoe = Person::connect(demo.address(first.trim_start_matches("node-").parse().expect("a number"))).await;
    zoe.enters("Zoe").await;
    people_are(&bob, &["Ann", "Bob", "Zoe"]).await;

    kill(demo.pid_of(&first), libc::SIGKILL);
    // Ann's page reconnects by itself and keeps her name.
    ann.wait_for(&format!("room === 'lounge' && document.querySelector('#state').title !== 'Connected to {first}'"))
        .await;
    say(&ann, "Back on another one.").await;
    sees(&bob, "Back on another one.").await;
    say(&bob, "So I see.").await;
    sees(&ann, "So I see.").await;
    assert!(!bob.text("#lines").await.contains("Ann left"));
    // Only when the node is back is it certain that its old sessions are gone.
    demo.age_everybody();
    demo.all_are_ready().await;
    let deadline = Instant::now() + PATIENCE;
    while Person::connect(demo.address(stays)).await.found.contains(&"Zoe".to_owned()) {
        assert!(Instant::now() < deadline, "Zoe's session is gone and her name is not");
    }
    for page in [&ann, &bob] {
        people_are(page, &["Ann", "Bob"]).await;
    }

    // Without the engine each node serves its own people and still admits new ones.
    let ann_is_on: u16 = node_of(&ann).await.trim_start_matches("node-").parse().expect("a number");
    kill(demo.pid_of("redis"), libc::SIGKILL);
    eventually("the nodes notice", || (1..=3).all(|node| demo.ready(node) == 503)).await;
    demo.age_everybody();
    let mut cleo = Person::connect(demo.address(ann_is_on)).await;
    cleo.enters("Cleo").await;
    cleo.says("Anybody on this node?").await;
    sees(&ann, "Anybody on this node?").await;
    assert_eq!(cleo.people().await, ["Ann", "Bob", "Cleo"], "no person may be removed");
    demo.all_are_ready().await;
    say(&ann, "Together again.").await;
    sees(&bob, "Together again.").await;
    assert!(demo.ctrl_c().success());
    demo.leaves_nothing();
}

async fn enters(page: &Browser, name: &str) {
    page.type_text("#name", name).await;
    page.click("#enter button").await;
    page.wait_for("room === 'lounge'").await;
}

async fn say(page: &Browser, text: &str) {
    page.type_text("#text", &format!("{text}\u{E007}")).await;
    sees(page, text).await;
}

async fn sees(page: &Browser, text: &str) {
    page.wait_for(&format!("document.querySelector('#lines').textContent.includes({})", json!(text))).await;
}

async fn people_are(page: &Browser, names: &[&str]) {
    let shown = "[...document.querySelectorAll('#people .name')].map((name) => name.textContent).join()";
    page.wait_for(&format!("{shown} === {}", json!(names.join(",")))).await;
}

async fn node_of(page: &Browser) -> String {
    let title = page.run("return document.querySelector('#state').title").await;
    title.as_str().and_then(|title| title.strip_prefix("Connected to ")).expect("the page says it").to_owned()
}
