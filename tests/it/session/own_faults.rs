//! Panics inside Longwire: a panic ends only the session that it worked for, with a close event as usual. Other sessions are not affected.

use std::sync::Arc;

use longwire::config::model::Config;
use longwire::node::{Extras, Running};
use longwire::proto::framing::custom::{Codec, Custom, Decoded, Outgoing, SessionCodec};
use longwire::proto::framing::{Frame, FrameError, FrameKind, Framing};
use longwire::proto::id::SessionId;
use longwire::session::{Answer, ClientProtocol, Endpoint, spawn_stream};
use longwire::transport::{Arrival, Peer, Transport};
use longwire::upstream::Upstream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use crate::support::php_fpm::{Pool, eventually};

/// A codec that takes each read as a frame, and panics at two words.
#[derive(Debug)]
struct Faulty;

impl Codec for Faulty {
    fn of_session(&self, _: SessionId) -> Arc<dyn SessionCodec> {
        Arc::new(Faulty)
    }
}

impl SessionCodec for Faulty {
    fn open(&self) -> bool {
        true
    }

    fn decode(&self, _: usize, input: &[u8]) -> Result<Decoded, FrameError> {
        assert_ne!(input, b"read", "a fault of the session's own task");
        let frame = Frame { kind: FrameKind::Binary, body: input.to_vec().into() };
        Ok(Decoded { taken: input.len(), frame: Some(frame), buffered: 0 })
    }

    fn settle(&self, _: &mut dyn FnMut(Outgoing)) {}

    fn encode(&self, body: &[u8], deliver: &mut dyn FnMut(Outgoing)) -> Result<(), Box<str>> {
        assert_ne!(body, b"write", "a fault of the task that has the answer");
        deliver(Outgoing::Frame(body.to_vec().into()));
        Ok(())
    }

    fn close(&self) {}
}

const SCRIPT: &str = r#"
if ($_SERVER['LONGWIRE_EVENT'] === 'close') {
    file_put_contents(__DIR__ . '/closed', $_SERVER['LONGWIRE_CLOSE_REASON'] . "\n", FILE_APPEND | LOCK_EX);
    exit;
}
echo file_get_contents('php://input');
"#;

async fn ask(client: &mut TcpStream, text: &str) -> String {
    client.write_all(text.as_bytes()).await.expect("it reads");
    let mut answer = [0; 64];
    let read = client.read(&mut answer).await.unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_panics_ends_its_session_with_a_close_event_and_no_other() {
    let fpm = Pool::of(2).start();
    let script = fpm.script("handler.php", SCRIPT);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let door = |name: &str| format!("[{name}]\nbind = \"unix:{}/{name}\"\n", folder.path().display());
    let text = format!(
        "{}{}{}[apps.app]\nupstream = \"php\"\nscript = {script:?}\nevents = [\"close\"]\n[upstreams.php]\n\
         backends = [\"{}\"]\nmax_connections = 2\n[listeners.own]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n",
        door("admin"),
        door("router"),
        door("api"),
        fpm.address()
    );
    let file = folder.path().join("longwire.toml");
    std::fs::write(&file, text).expect("the directory is ours");
    let (config, _) = Config::load(&file).expect("it is right");
    let node = Running::start(&config, &Extras::default(), &Handle::current()).await.expect("it starts");
    let hub = node.hub().clone();
    let upstream: Arc<Upstream<Answer>> =
        Arc::new(Upstream::start(config.upstreams[0].clone(), hub.metrics.upstream.of("php")));
    let framing = Framing::Custom(Custom::Listener(Arc::new(Faulty)));
    let clients = ClientProtocol::Streams { heartbeat: None };
    let endpoint = Endpoint::new(hub.clone(), "own", config.apps[0].clone(), upstream, framing, clients);
    let endpoint = Arc::new(endpoint.expect("its params are short"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let address = listener.local_addr().expect("it is bound");
    let connect = async || {
        let client = TcpStream::connect(address).await.expect("it listens");
        let (accepted, peer) = listener.accept().await.expect("it has connected");
        let socket = accepted.into_std().expect("it is a socket").into();
        let peer = Peer::Ip(peer);
        let transport = Transport::new(socket).expect("there is a runtime");
        let permit = hub.admission.admit(peer).expect("there is room");
        spawn_stream(endpoint.clone(), Arrival::new(transport, peer), permit);
        client
    };
    let closed = || std::fs::read_to_string(fpm.dir().join("closed")).unwrap_or_default();
    let mut bystander = connect().await;
    assert_eq!(ask(&mut bystander, "hello").await, "hello");
    let mut expected = String::new();
    for fault in ["read", "write", "write", "read"] {
        let mut client = connect().await;
        assert_eq!(ask(&mut client, "hello").await, "hello");
        assert_eq!(ask(&mut client, fault).await, "", "{fault}: the connection ends");
        expected.push_str("node_failed\n");
        eventually("PHP is told of the end", || closed() == expected).await;
        assert_eq!(ask(&mut bystander, "still here").await, "still here", "{fault}");
    }
    drop(bystander);
    eventually("the last session ends", || closed().ends_with("client_closed\n")).await;
    assert_eq!(node.drain(std::future::pending()).await.given_up, 0);
}
