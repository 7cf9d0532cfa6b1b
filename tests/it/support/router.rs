//! A client of the router port, on the library's own codec in its client role.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use longwire::proto::command::{Action, Command, Except, Message, Name, Query, Receipt, Target};
use longwire::proto::control::Frame;
use longwire::proto::control::long::{
    Challenge, Hello, Operation, Proofs, RouterAnswer, RouterRequest, VERSION, decode_welcome, encode_proof,
};
use longwire::proto::id::SessionId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Largest answer that is accepted, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Longest wait until a query has the wanted answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The client's nonce. It is constant, because tests need no security.
const NONCE: [u8; 32] = [7; 32];

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub struct Router {
    socket: Box<dyn Stream>,
    input: BytesMut,
    next: u32,
}

impl Router {
    /// Connects and makes the handshake; the secret is used if the port asks for one.
    pub async fn connect(address: SocketAddr, secret: &str) -> Self {
        let mut router = Self::bare(address).await;
        router.greet(secret).await.expect("the secret is right");
        router
    }

    /// Connects without the handshake.
    pub async fn bare(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("it listens");
        socket.set_nodelay(true).expect("a TCP socket");
        Self { socket: Box::new(socket), input: BytesMut::new(), next: 0 }
    }

    /// The same, on a Unix socket.
    pub async fn unix(path: &Path) -> Self {
        let socket = UnixStream::connect(path).await.expect("it listens");
        Self { socket: Box::new(socket), input: BytesMut::new(), next: 0 }
    }

    /// Sends hello and returns the server's challenge.
    pub async fn hello(&mut self) -> Challenge {
        let mut out = BytesMut::new();
        Hello { versions: Bytes::from_static(&[VERSION]), nonce: NONCE, peer: "a test".into() }.encode(&mut out);
        self.bytes(&out).await;
        Challenge::decode(&self.frame().await.expect("a challenge comes")).expect("it is one")
    }

    /// Makes the whole handshake. With a wrong secret it returns the error that ends the connection.
    pub async fn greet(&mut self, secret: &str) -> Result<(), RouterAnswer> {
        let challenge = self.hello().await;
        let proofs = Proofs { secret: secret.as_bytes(), client_nonce: NONCE, server_nonce: challenge.nonce };
        if challenge.wants_proof {
            self.prove(&proofs.of_client()).await;
        }
        let frame = self.frame().await.expect("a welcome or an error comes");
        match decode_welcome(&frame) {
            Ok(proof) => {
                let expected = challenge.wants_proof.then(|| proofs.of_server());
                assert_eq!(
                    proof.as_deref(),
                    expected.as_ref().map(|proof| &proof[..]),
                    "the server must prove that it knows the secret"
                );
                Ok(())
            }
            Err(_) => Err(RouterAnswer::decode(&frame).expect("then it is an error")),
        }
    }

    pub async fn prove(&mut self, proof: &[u8]) {
        let mut out = BytesMut::new();
        encode_proof(proof, &mut out);
        self.bytes(&out).await;
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("it reads");
    }

    /// Sends a frame as it is.
    pub async fn say(&mut self, kind: u16, head: &[u8], body: &[u8]) {
        let mut out = BytesMut::new();
        Frame::encode(kind, head, body, &mut out);
        self.bytes(&out).await;
    }

    /// Sends FIN; the other direction stays open.
    pub async fn finish(&mut self) {
        self.socket.shutdown().await.expect("it is connected");
    }

    /// The next `count` raw bytes.
    pub async fn read(&mut self, count: usize) -> Bytes {
        while self.input.len() < count {
            assert!(self.socket.read_buf(&mut self.input).await.expect("it is connected") > 0, "it ended");
        }
        self.input.split_to(count).freeze()
    }

    /// Waits for an error; returns its word and the request that it belongs to.
    pub async fn error(&mut self) -> (String, Option<u32>) {
        match self.answer().await.expect("an error comes") {
            RouterAnswer::Error { request, word, .. } => (word, request),
            other => panic!("expected an error, got {other:?}"),
        }
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.input, MAX_ANSWER).expect("the port is right") {
                return Some(frame);
            }
            if self.socket.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub async fn answer(&mut self) -> Option<RouterAnswer> {
        let frame = self.frame().await?;
        Some(RouterAnswer::decode(&frame).expect("the port is right"))
    }

    /// Sends a request without waiting; returns its number.
    pub async fn start(&mut self, operation: Operation) -> u32 {
        let mut out = BytesMut::new();
        self.next += 1;
        RouterRequest { number: self.next, operation }.encode(&mut out);
        self.bytes(&out).await;
        self.next
    }

    /// Sends all commands in one write, without waiting; returns their numbers.
    pub async fn start_all(&mut self, commands: impl IntoIterator<Item = Command>) -> Vec<u32> {
        let mut out = BytesMut::new();
        let first = self.next + 1;
        for command in commands {
            self.next += 1;
            RouterRequest { number: self.next, operation: Operation::Command(command) }.encode(&mut out);
        }
        self.bytes(&out).await;
        (first..=self.next).collect()
    }

    /// Runs a command and returns its receipt.
    pub async fn run(&mut self, command: Command) -> Receipt {
        let number = self.start(Operation::Command(command)).await;
        self.receipt(number).await
    }

    /// The receipt of a request, the nodes that did not answer in time, and whether the engine was unavailable.
    pub async fn outcome(&mut self, number: u32) -> (Receipt, Vec<String>, bool) {
        match self.answer().await.expect("a receipt comes") {
            RouterAnswer::Receipt { request, counts, unreachable, engine_down } => {
                assert_eq!(request, number, "answers come in order");
                let receipt = Receipt::from_counts(counts.try_into().expect("a receipt has eight counts"));
                (receipt, unreachable, engine_down)
            }
            other => panic!("expected a receipt, got {other:?}"),
        }
    }

    pub async fn receipt(&mut self, number: u32) -> Receipt {
        match self.answer().await.expect("a receipt comes") {
            RouterAnswer::Receipt { request, counts, .. } => {
                assert_eq!(request, number, "answers come in order");
                Receipt::from_counts(counts.try_into().expect("a receipt has eight counts"))
            }
            other => panic!("expected a receipt, got {other:?}"),
        }
    }

    /// The answer to a query.
    pub async fn ask(&mut self, query: Query) -> RouterAnswer {
        self.start(Operation::Query(query)).await;
        self.answer().await.expect("an answer comes")
    }

    pub async fn do_to(&mut self, to: Target, action: Action) -> Receipt {
        self.run(Command { to, except: Except::default(), action }).await
    }

    /// The JSON result of a query; panics if the answer is not a result.
    pub async fn json(&mut self, query: Query) -> serde_json::Value {
        match self.ask(query).await {
            RouterAnswer::Result { body, .. } => serde_json::from_slice(&body).expect("it is JSON"),
            other => panic!("expected a result, got {other:?}"),
        }
    }

    /// Repeats the query until `is_so` is true for the answer. Other nodes learn of joins and bindings a moment later.
    pub async fn ask_until(&mut self, query: Query, is_so: impl Fn(&serde_json::Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.json(query.clone()).await;
            if is_so(&answer) {
                return;
            }
            assert!(Instant::now() < deadline, "timed out: the answer to {query:?} is still {answer}");
        }
    }

    pub async fn publish(&mut self, channel: &str, body: impl Into<Bytes>) -> Receipt {
        self.do_to(Target::Channel(name(channel)), Action::Send(Message::new(body))).await
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a name")
}

pub fn session(text: &str) -> SessionId {
    SessionId::from_bytes(text.as_bytes()).expect("an id")
}
