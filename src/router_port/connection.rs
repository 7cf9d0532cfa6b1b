//! One connection to the router port: its greeting, its commands, their answers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::end_reason::EndReason;
use super::memory::{Memory, SetAside};
use super::turns::Turn;
use crate::cluster::Outcome;
use crate::config::model;
use crate::metrics::router::{Door, RouterMetrics};
use crate::proto::command::{Action, Command, Query};
use crate::proto::control::long::{
    self, ErrorWord, Hello, NONCE_BYTES, Operation, Proofs, RouterAnswer, RouterError, RouterRequest,
};
use crate::proto::control::short::{self, Gateway, ShortRequest};
use crate::proto::control::{Frame, Protocol};
use crate::router::{NodeAnswer, QueryAnswer};
use crate::session::Hub;
use crate::transport::{Peer, Transport};

/// The time limit for a greeting, from accept to its last byte. A program needs two round trips for it.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers are collected up to this size before they are written.
const BATCH_BYTES: usize = 64 * 1024;
/// The most messages for the same sessions that are collected before they are sent: as many as fit into one write.
const TOGETHER: usize = crate::transport::MAX_SLICES;
/// The most bytes of these messages. For a session that takes none of them, they must be only a part of its bound.
const TOGETHER_BYTES: usize = 64 * 1024;
/// The room made for reading the rest of a frame.
const READ_BYTES: usize = 16 * 1024;
/// The size of a read when no frame has begun: a batch of as many bytes as are sent together.
const SCRATCH_BYTES: usize = TOGETHER_BYTES;
/// The longest frame of a client that has not yet proved that it knows the secret. A hello has about 110 bytes.
const LONGEST_GREETING: usize = 1024;

thread_local! {
    /// The read buffer of connections that hold no bytes. Many connections are idle for long, and none of them keeps a buffer of its own.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// The receipt of a command, for the wire.
fn receipt(request: u32, outcome: Outcome) -> RouterAnswer {
    RouterAnswer::receipt(request, &outcome.receipt, outcome.unreached.unreachable, outcome.unreached.engine_down)
}

/// The state shared by all connections.
pub(super) struct Port {
    pub(super) config: model::Router,
    pub(super) memory: Arc<Memory>,
    pub(super) hub: Arc<Hub>,
}

impl Port {
    pub(super) fn metrics(&self) -> &RouterMetrics {
        &self.hub.metrics.router
    }
}

/// A read that counts as this connection's turn, if there are turns. Later connections then wait for it.
async fn in_turn(turn: Option<&Turn>, read: impl Future<Output = io::Result<usize>>) -> io::Result<usize> {
    let Some(turn) = turn else { return read.await };
    let mut read = pin!(read);
    poll_fn(|cx| turn.poll_read(|| read.as_mut().poll(cx))).await
}

/// The stage of a connection.
enum PortStage {
    /// No complete frame has come.
    Fresh,
    /// It speaks the short protocol.
    Short,
    /// A proof is awaited.
    Greeting { client_nonce: [u8; NONCE_BYTES], server_nonce: [u8; NONCE_BYTES] },
    /// It speaks the long protocol.
    Long,
}

pub(super) struct RouterConnection<'p> {
    port: &'p Port,
    peer: Peer,
    accepted: Instant,
    transport: Arc<Transport>,
    /// Its place among the connections of its address, until it speaks the long protocol.
    turn: Option<Turn>,
    input: BytesMut,
    /// The memory for the frame that has begun in `input`, if that is a large one.
    set_aside: Option<SetAside>,
    output: BytesMut,
    sends: Sends,
    stage: PortStage,
}

/// Commands that send to the same sessions and have not run yet.
#[derive(Default)]
struct Sends {
    commands: Vec<Command>,
    /// Their numbers, in the long protocol.
    numbers: Vec<u32>,
    bytes: usize,
}

impl Sends {
    fn takes(&self, command: &Command) -> bool {
        self.commands.first().is_none_or(|first| first.may_share_a_write(command))
            && self.commands.len() < TOGETHER
            && self.bytes < TOGETHER_BYTES
    }
}

impl<'p> RouterConnection<'p> {
    pub(super) fn new(port: &'p Port, transport: Arc<Transport>, peer: Peer, turn: Option<Turn>) -> Self {
        Self {
            peer,
            accepted: Instant::now(),
            transport,
            turn,
            input: BytesMut::new(),
            set_aside: None,
            output: BytesMut::new(),
            sends: Sends::default(),
            stage: PortStage::Fresh,
            port,
        }
    }

    pub(super) async fn serve(mut self) {
        let Err(end) = self.run().await else { return };
        self.turn = None;
        let (door, cause, text) = match end {
            EndReason::Wrong(wrong) => {
                RouterAnswer::error(&wrong).encode(&mut self.output);
                // A client that does not take the error is gone anyway.
                let _ = timeout(GREETING_TIMEOUT, self.flush()).await;
                self.transport.shutdown_write();
                self.discard().await;
                (Door::Long, wrong.word.label(), wrong.text)
            }
            EndReason::Refused(cause, text) => (Door::Short, cause, text),
            EndReason::Io(error) => return debug!(peer = %self.peer, %error, "router connection ended"),
            EndReason::Idle => return debug!(peer = %self.peer, "router connection closed by idle timeout"),
        };
        self.port.metrics().count_refused(door, cause);
        warn!(peer = %self.peer, protocol = door.label(), cause, "router connection refused: {text}");
    }

    /// Serves the client until it ends its side. An error ends the connection.
    async fn run(&mut self) -> Result<(), EndReason> {
        loop {
            let taken = self.take_all().await;
            // Commands that came before a wrong one are still run.
            self.send().await;
            taken?;
            if let Some(turn) = &self.turn {
                turn.rests(self.input.len());
            }
            self.flush().await?;
            if self.read().await? == 0 {
                return self.ended();
            }
        }
    }

    /// Handles every complete frame that has arrived.
    async fn take_all(&mut self) -> Result<(), EndReason> {
        while let Some(frame) = self.next_frame()? {
            self.take(frame).await?;
            self.set_aside = None;
            if self.output.len() >= BATCH_BYTES {
                self.turn.iter().for_each(Turn::pauses);
                self.flush().await?;
                self.turn.iter().for_each(Turn::goes_on);
            }
        }
        Ok(())
    }

    /// Runs a command now, or collects it to run together with those after it.
    async fn command(&mut self, number: Option<u32>, command: Command) {
        if !self.sends.takes(&command) {
            self.send().await;
        }
        if let Action::Send(message) = &command.action {
            self.sends.bytes += message.body.len();
            self.sends.commands.push(command);
            self.sends.numbers.extend(number);
            return;
        }
        self.send().await;
        // A command without a number gets no answer, but it is waited for all the same: the next command must find it
        // done, on other nodes too.
        let outcome = self.port.hub.cluster.run(self.door(), &command).await;
        if let Some(number) = number {
            receipt(number, outcome).encode(&mut self.output);
        }
    }

    /// Runs the collected commands.
    async fn send(&mut self) {
        if self.sends.commands.is_empty() {
            return;
        }
        let sends = std::mem::take(&mut self.sends);
        let outcomes = self.port.hub.cluster.run_together(self.door(), &sends.commands).await;
        for (number, outcome) in sends.numbers.into_iter().zip(outcomes) {
            receipt(number, outcome).encode(&mut self.output);
        }
    }

    fn door(&self) -> Door {
        match self.stage {
            PortStage::Short | PortStage::Fresh => Door::Short,
            PortStage::Greeting { .. } | PortStage::Long => Door::Long,
        }
    }

    /// The client has ended its side. If it ended in the middle of a command, that command is not run, so this is an error.
    fn ended(&self) -> Result<(), EndReason> {
        if self.input.is_empty() {
            return Ok(());
        }
        let text = format!("the client closed its side in the middle of a frame, after {} bytes", self.input.len());
        Err(match self.stage {
            PortStage::Fresh | PortStage::Short => EndReason::Refused("truncated", text),
            PortStage::Greeting { .. } | PortStage::Long => RouterError::new(ErrorWord::BadFrame, text).into(),
        })
    }

    /// Whether the client still has to prove that it knows the secret. Until then it gets little time and no memory.
    fn is_stranger(&self) -> bool {
        match self.stage {
            PortStage::Fresh => self.port.config.secret.is_some() && !self.port.config.short_protocol,
            PortStage::Greeting { .. } => true,
            PortStage::Short | PortStage::Long => false,
        }
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, EndReason> {
        // No frame of a greeting has a body.
        let max_len = if self.is_stranger() { 0 } else { self.port.config.max_message_bytes };
        if self.is_stranger() && Frame::announced(&self.input).is_some_and(|bytes| bytes > LONGEST_GREETING) {
            return Err(RouterError::new(ErrorWord::BadFrame, "the greeting is too long").into());
        }
        Frame::decode(&mut self.input, max_len).map_err(|error| match (&self.stage, Protocol::of(error.kind)) {
            (PortStage::Short, _) | (PortStage::Fresh, Some(Protocol::Short)) => {
                EndReason::Refused("bad_frame", error.to_string())
            }
            _ => EndReason::Wrong(RouterError::new(ErrorWord::BadFrame, error.to_string())),
        })
    }

    async fn read(&mut self) -> Result<usize, EndReason> {
        if self.input.is_empty() {
            // Between commands a connection holds no memory, because many connections are kept open for long.
            self.input = BytesMut::new();
        }
        let idle = match self.stage {
            // A client that has sent nothing yet may speak the short protocol, which has no ping.
            PortStage::Short => self.port.config.short_idle_timeout,
            PortStage::Fresh if self.port.config.short_protocol => self.port.config.short_idle_timeout,
            PortStage::Fresh | PortStage::Greeting { .. } | PortStage::Long => self.port.config.idle_timeout,
        };
        let is_stranger = self.is_stranger();
        let deadline = match is_stranger {
            true => Some(self.accepted + GREETING_TIMEOUT),
            false if idle.is_zero() => None,
            false => Some(Instant::now() + idle),
        };
        let begun = Frame::announced(&self.input);
        if self.set_aside.is_none()
            && let Some(bytes) = begun
        {
            let room = self.port.memory.set_aside(bytes);
            self.set_aside = match deadline {
                None => room.await,
                Some(deadline) => timeout_at(deadline, room).await.map_err(|_| EndReason::Idle)?,
            };
            if self.set_aside.is_some() {
                // Reserve once, and no more than was set aside.
                self.input.reserve(bytes.saturating_sub(self.input.len()));
            }
        }
        let has_room = self.set_aside.is_some();
        let message_deadline = self.set_aside.as_ref().map(|set_aside| set_aside.deadline);
        let is_late = message_deadline.is_some_and(|late| deadline.is_none_or(|deadline| late < deadline));
        let deadline = if is_late { message_deadline } else { deadline };
        let Self { input, transport, turn, .. } = self;
        let mut transport = &**transport;
        let read = async {
            if input.is_empty() {
                let first = poll_fn(|cx| {
                    SCRATCH.with_borrow_mut(|scratch| {
                        let n = ready!(transport.poll_read(cx, scratch))?;
                        input.extend_from_slice(&scratch[..n]);
                        Poll::Ready(Ok(n))
                    })
                });
                return in_turn(turn.as_ref(), first).await;
            }
            if !has_room && input.capacity() - input.len() < READ_BYTES / 2 {
                input.reserve(READ_BYTES);
            }
            in_turn(turn.as_ref(), transport.read_buf(input)).await
        };
        let result = match deadline {
            None => read.await,
            Some(deadline) => match timeout_at(deadline, read).await {
                Ok(result) => result,
                Err(_) => {
                    return Err(match (is_stranger, is_late) {
                        (true, _) => {
                            RouterError::new(ErrorWord::Timeout, "the greeting was not finished in time").into()
                        }
                        (_, true) => self.late(),
                        _ => EndReason::Idle,
                    });
                }
            },
        };
        Ok(result?)
    }

    /// The error for a message that holds memory and does not arrive in time, while others wait for that memory.
    fn late(&self) -> EndReason {
        let text = format!("a message did not arrive completely in time: {} bytes of it came", self.input.len());
        match self.stage {
            PortStage::Fresh | PortStage::Short => EndReason::Refused("timeout", text),
            PortStage::Greeting { .. } | PortStage::Long => RouterError::new(ErrorWord::Timeout, text).into(),
        }
    }

    async fn flush(&mut self) -> Result<(), EndReason> {
        if !self.output.is_empty() {
            let mut transport = &*self.transport;
            let written = transport.write_all(&self.output);
            match self.port.config.idle_timeout {
                idle if idle.is_zero() => written.await?,
                idle => timeout(idle, written).await.map_err(|_| EndReason::Idle)??,
            }
            self.output.clear();
            if self.output.capacity() > BATCH_BYTES {
                self.output = BytesMut::new();
            }
        }
        Ok(())
    }

    /// Reads and discards the client's bytes. If a socket is closed with unread bytes, the kernel resets it, and the
    /// client could not read the error.
    async fn discard(&mut self) {
        let mut scratch = [0; 4096];
        let mut transport = &*self.transport;
        let until_end = async { while !matches!(transport.read(&mut scratch).await, Ok(0) | Err(_)) {} };
        let _ = timeout(Duration::from_secs(1), until_end).await;
    }

    async fn take(&mut self, frame: Frame) -> Result<(), EndReason> {
        match (&self.stage, Protocol::of(frame.kind)) {
            (PortStage::Fresh, Some(Protocol::Short)) => {
                if !self.port.config.short_protocol {
                    return Err(EndReason::Refused(
                        "short_protocol",
                        "[router] short_protocol is turned off".to_owned(),
                    ));
                }
                self.stage = PortStage::Short;
                if let Some(turn) = &mut self.turn {
                    turn.comes().await;
                }
                self.take_short_request(&frame).await
            }
            (PortStage::Short, _) => self.take_short_request(&frame).await,
            (PortStage::Fresh, Some(Protocol::Long)) => self.greet(&Hello::decode(&frame)?),
            (PortStage::Greeting { client_nonce, server_nonce }, Some(Protocol::Long)) => {
                self.take_proof(&frame, *client_nonce, *server_nonce)
            }
            (PortStage::Long, Some(Protocol::Long)) => self.take_request(&frame).await,
            _ => Err(RouterError::new(
                ErrorWord::BadFrame,
                format!("frame type 0x{:04X} does not belong to this protocol", frame.kind),
            )
            .into()),
        }
    }

    async fn take_short_request(&mut self, frame: &Frame) -> Result<(), EndReason> {
        match short::decode(frame) {
            Ok(ShortRequest::Command(command)) => self.command(None, command).await,
            Ok(ShortRequest::Info) => {
                self.send().await;
                self.port.metrics().count_query(Door::Short);
                let asked = self.port.hub.cluster.ask(&Query::Nodes).await;
                // The answer has no field for nodes that did not answer.
                let QueryAnswer::Nodes { nodes } = asked.answer else {
                    unreachable!("a question about nodes is answered with nodes")
                };
                let gateway =
                    |node: &NodeAnswer| Gateway { node: node.number, sessions: node.sessions, channels: node.channels };
                short::info(&nodes.iter().map(gateway).collect::<Vec<_>>(), &mut self.output);
            }
            Err(refused) => return Err(EndReason::Refused(refused.label(), refused.to_string())),
        }
        Ok(())
    }

    fn greet(&mut self, hello: &Hello) -> Result<(), EndReason> {
        let mut server_nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut server_nonce).map_err(|error| EndReason::Io(io::Error::other(error.to_string())))?;
        let wants_proof = self.port.config.secret.is_some();
        long::challenge(&server_nonce, wants_proof, &self.port.hub.node_name, &mut self.output);
        debug!(peer = %self.peer, client = hello.peer, "router client connected");
        self.turn = None;
        if wants_proof {
            self.stage = PortStage::Greeting { client_nonce: hello.nonce, server_nonce };
        } else {
            long::welcome(None, &mut self.output);
            self.stage = PortStage::Long;
        }
        Ok(())
    }

    fn take_proof(
        &mut self,
        frame: &Frame,
        client_nonce: [u8; NONCE_BYTES],
        server_nonce: [u8; NONCE_BYTES],
    ) -> Result<(), EndReason> {
        let proof = long::decode_proof(frame)?;
        let secret = self.port.config.secret.as_ref().expect("a proof is asked for because there is a secret");
        let proofs = Proofs { secret: secret.reveal().as_bytes(), client_nonce, server_nonce };
        if !proofs.is_client(&proof) {
            return Err(RouterError::new(
                ErrorWord::BadProof,
                "the proof is wrong: the secret differs, or the proof is another connection's",
            )
            .into());
        }
        long::welcome(Some(&proofs.of_server()), &mut self.output);
        self.stage = PortStage::Long;
        Ok(())
    }

    async fn take_request(&mut self, frame: &Frame) -> Result<(), EndReason> {
        let answer = match RouterRequest::decode(frame) {
            Ok(RouterRequest { number, operation: Operation::Command(command) }) => {
                self.command(Some(number), command).await;
                return Ok(());
            }
            Ok(RouterRequest { number, operation: Operation::Query(query) }) => {
                self.send().await;
                self.port.metrics().count_query(Door::Long);
                let asked = self.port.hub.cluster.ask(&query).await;
                match &asked.answer {
                    QueryAnswer::Absent if !asked.unreached.is_empty() => {
                        let wrong = RouterError::new(ErrorWord::Unreachable, asked.unreached.to_string());
                        RouterAnswer::error(&RouterError { request: Some(number), ..wrong })
                    }
                    QueryAnswer::Absent => RouterAnswer::Absent { request: number },
                    QueryAnswer::Value(value) => RouterAnswer::Result { request: number, body: value.clone() },
                    _ => RouterAnswer::Result { request: number, body: asked.json().into() },
                }
            }
            // The request number is unknown, so no answer can be sent to it.
            Err(wrong) if wrong.word == ErrorWord::BadFrame => return Err(wrong.into()),
            Err(wrong) => {
                self.send().await;
                self.port.metrics().count_refused(Door::Long, wrong.word.label());
                RouterAnswer::error(&wrong)
            }
        };
        answer.encode(&mut self.output);
        Ok(())
    }
}
