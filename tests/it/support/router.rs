//! A client of the router port, on the library's own codec in its client role.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use longwire::proto::command::{Action, Command, Dropped, Except, Message, Name, Query, Receipt, Target};
use longwire::proto::control::Frame;
use longwire::proto::control::long::{
    Answer, Challenge, Hello, Proofs, Request, VERSION, What, decode_welcome, encode_proof,
};
use longwire::proto::id::SessionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest answer that is taken.
const MAX_ANSWER: usize = 64 << 20;

pub struct Router {
    socket: TcpStream,
    input: BytesMut,
    next: u32,
}

impl Router {
    /// Connects and greets, with a secret where the port asks for one.
    pub async fn connect(address: SocketAddr, secret: &str) -> Self {
        let mut socket = TcpStream::connect(address).await.expect("it listens");
        socket.set_nodelay(true).expect("a TCP socket");
        let hello = Hello { versions: Bytes::from_static(&[VERSION]), nonce: [7; 32], peer: "a test".into() };
        let mut out = BytesMut::new();
        hello.encode(&mut out);
        socket.write_all(&out).await.expect("it reads");
        let mut router = Self { socket, input: BytesMut::new(), next: 0 };
        let challenge = Challenge::decode(&router.frame().await.expect("a challenge comes")).expect("it is one");
        if challenge.wants_proof {
            let secret = secret.as_bytes();
            let proofs = Proofs { secret, client_nonce: hello.nonce, server_nonce: challenge.nonce };
            let mut out = BytesMut::new();
            encode_proof(&proofs.of_client(), &mut out);
            router.bytes(&out).await;
            let proof = decode_welcome(&router.frame().await.expect("a welcome comes")).expect("it is one");
            assert_eq!(proof.as_deref(), Some(&proofs.of_server()[..]), "the server proves itself too");
        } else {
            decode_welcome(&router.frame().await.expect("a welcome comes")).expect("it is one");
        }
        router
    }

    /// Without a greeting.
    pub async fn bare(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("it listens");
        Self { socket, input: BytesMut::new(), next: 0 }
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("it reads");
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

    pub async fn answer(&mut self) -> Option<Answer> {
        let frame = self.frame().await?;
        Some(Answer::decode(&frame).expect("the port is right"))
    }

    /// Sends a request and does not wait; its number.
    pub async fn start(&mut self, what: What) -> u32 {
        let mut out = BytesMut::new();
        self.next += 1;
        Request { number: self.next, what }.encode(&mut out);
        self.bytes(&out).await;
        self.next
    }

    /// A command and its receipt.
    pub async fn run(&mut self, command: Command) -> Receipt {
        let number = self.start(What::Command(command)).await;
        self.receipt(number).await
    }

    pub async fn receipt(&mut self, number: u32) -> Receipt {
        match self.answer().await.expect("a receipt comes") {
            Answer::Receipt { request, counts } => {
                assert_eq!(request, number, "answers come in order");
                let [reached, queued, close, oldest, newest, latest, refused, gone] = counts[..] else {
                    panic!("a receipt has eight counts: {counts:?}")
                };
                Receipt { reached, queued, dropped: Dropped { close, oldest, newest, latest }, refused, gone }
            }
            other => panic!("no receipt: {other:?}"),
        }
    }

    /// The answer to a query.
    pub async fn ask(&mut self, query: Query) -> Answer {
        self.start(What::Query(query)).await;
        self.answer().await.expect("an answer comes")
    }

    pub async fn do_to(&mut self, to: Target, action: Action) -> Receipt {
        self.run(Command { to, except: Except::default(), action }).await
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
