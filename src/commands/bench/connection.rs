//! One connection of a run. `swarm` drives it, since it knows when the socket is ready.
//!
//! ```text
//!   Connecting ---> Upgrading ---> Open        (streams and HTTP skip Upgrading)
//! ```
//!
//! A read or a write is one system call, however many messages it carries. Nothing here blocks.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConnection;
use socket2::Socket;

use super::endpoint::{Endpoint, Speech};
use super::http;
use super::trouble::Trouble;
use crate::commands::client::handshake;
use crate::proto::framing::{Decoder, FrameKind, Framing, Item, client};

pub(super) struct BenchConnection {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    stage: ConnectionStage,
    /// `None` for HTTP, which carries no frames.
    decoder: Option<Decoder>,
    /// Bytes of an incomplete handshake or HTTP reply.
    pending: Vec<u8>,
    outgoing: Vec<u8>,
    written: usize,
    /// The last write was partial: the socket's send buffer is full.
    is_blocked: bool,
    closes: bool,
}

#[derive(PartialEq)]
enum ConnectionStage {
    Connecting,
    Upgrading { key: String },
    Open,
}

/// An event that a read has produced.
pub(super) enum ConnectionEvent {
    /// The connection is open: messages may be sent.
    Opened,
    /// A frame, or the body of a reply.
    Frame(Bytes),
    /// The server sent a ping, and the pong is queued.
    Ping,
    /// An HTTP reply with an error status.
    Failure(Trouble),
}

/// Buffers and random numbers that the connections of a run share; one connection is driven at a time.
pub(super) struct Scratch {
    raw: Box<[u8]>,
    plain: Box<[u8]>,
    random: u64,
}

const SCRATCH_BYTES: usize = 64 * 1024;

impl Scratch {
    pub(super) fn new() -> Self {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the operating system has random numbers");
        let buffer = || vec![0; SCRATCH_BYTES].into_boxed_slice();
        Self { raw: buffer(), plain: buffer(), random: u64::from_ne_bytes(seed) }
    }

    /// Splitmix64. It is predictable, but masks and nonces protect against third parties on the network, and a load test has none.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn mask(&mut self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.random().to_ne_bytes();
        [a, b, c, d]
    }
}

impl BenchConnection {
    pub(super) fn begin(endpoint: &Endpoint, turn: usize) -> Result<Self, Trouble> {
        let socket = endpoint.begin(turn).map_err(Trouble::Connect)?;
        let tls = endpoint.tls().map_err(|error| Trouble::Tls(error.to_string()))?;
        let decoder = match &endpoint.speech {
            Speech::Stream(framing) | Speech::WebSocket { framing, .. } => Some(Decoder::new_client(framing)),
            Speech::Http { .. } => None,
        };
        Ok(Self {
            socket,
            tls,
            stage: ConnectionStage::Connecting,
            decoder,
            pending: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
            is_blocked: false,
            closes: false,
        })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// All handshakes are complete.
    pub(super) fn is_open(&self) -> bool {
        self.stage == ConnectionStage::Open && self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
    }

    /// Bytes wait because the socket's send buffer is full.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// The server has announced that it closes after its last reply.
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    /// Queues a message for [`BenchConnection::flush`].
    pub(super) fn say(&mut self, endpoint: &Endpoint, body: &[u8], scratch: &mut Scratch) -> Result<(), Trouble> {
        match &endpoint.speech {
            Speech::Stream(framing) | Speech::WebSocket { framing, .. } => {
                let kind = if str::from_utf8(body).is_ok() { FrameKind::Text } else { FrameKind::Binary };
                client::append(framing, kind, body, scratch.mask(), &mut self.outgoing)
                    .map_err(|error| Trouble::Broken(error.to_string()))
            }
            Speech::Http { before_length } => {
                self.outgoing.extend_from_slice(before_length);
                write!(self.outgoing, "{}\r\n\r\n", body.len()).expect("memory takes all");
                self.outgoing.extend_from_slice(body);
                Ok(())
            }
        }
    }

    /// Queues bytes that are not a client's message: the router port's.
    pub(super) fn say_raw(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// Writes queued bytes until the socket takes no more.
    pub(super) fn flush(&mut self) -> Result<(), Trouble> {
        if self.stage == ConnectionStage::Connecting {
            return Ok(());
        }
        if let Some(tls) = &mut self.tls {
            if self.written < self.outgoing.len() {
                tls.writer().write_all(&self.outgoing[self.written..]).map_err(Trouble::Lost)?;
                self.outgoing.clear();
                self.written = 0;
            }
            while tls.wants_write() {
                match tls.write_tls(&mut Writing(&self.socket)) {
                    Ok(_) => self.is_blocked = false,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.is_blocked = true;
                        return Ok(());
                    }
                    Err(error) => return Err(Trouble::Lost(error)),
                }
            }
            return Ok(());
        }
        while self.written < self.outgoing.len() {
            match (&self.socket).write(&self.outgoing[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Trouble::Lost(error)),
            }
        }
        self.is_blocked = false;
        self.outgoing.clear();
        self.written = 0;
        Ok(())
    }

    /// Call when the socket is writable. For a new connection this means that it is established, or has failed.
    pub(super) fn writable(
        &mut self,
        endpoint: &Endpoint,
        scratch: &mut Scratch,
        heard: &mut Vec<ConnectionEvent>,
    ) -> Result<(), Trouble> {
        if self.stage == ConnectionStage::Connecting {
            if let Some(error) = self.socket.take_error().map_err(Trouble::Connect)? {
                return Err(Trouble::Connect(error));
            }
            self.stage = match &endpoint.speech {
                Speech::WebSocket { before_key, after_key, .. } => {
                    let [nonce, more] = [scratch.random(), scratch.random()];
                    let key = handshake::key((u128::from(nonce) << 64 | u128::from(more)).to_ne_bytes());
                    self.outgoing.extend_from_slice(before_key);
                    self.outgoing.extend_from_slice(key.as_bytes());
                    self.outgoing.extend_from_slice(after_key);
                    ConnectionStage::Upgrading { key }
                }
                Speech::Stream(_) | Speech::Http { .. } => ConnectionStage::Open,
            };
            if self.tls.is_none() && self.is_open() {
                heard.push(ConnectionEvent::Opened);
            }
        }
        self.flush()
    }

    /// Reads all bytes that are there. `has_ended` says that the stream ends after them. If it returns an error, the replies that came
    /// before the error are in `heard` all the same.
    pub(super) fn readable(
        &mut self,
        endpoint: &Endpoint,
        scratch: &mut Scratch,
        heard: &mut Vec<ConnectionEvent>,
        has_ended: bool,
    ) -> Result<(), Trouble> {
        let mut raw = std::mem::take(&mut scratch.raw);
        let result = self.read_all(endpoint, &mut raw, scratch, heard, has_ended);
        scratch.raw = raw;
        result
    }

    fn read_all(
        &mut self,
        endpoint: &Endpoint,
        raw: &mut [u8],
        scratch: &mut Scratch,
        heard: &mut Vec<ConnectionEvent>,
        has_ended: bool,
    ) -> Result<(), Trouble> {
        loop {
            let n = match (&self.socket).read(raw) {
                Ok(0) => return Err(self.end(endpoint, heard)),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Trouble::Lost(error)),
            };
            if self.tls.is_some() {
                self.take_tls(endpoint, &raw[..n], scratch, heard)?;
            } else {
                self.take(endpoint, &raw[..n], scratch, heard)?;
            }
            // A short read means that the socket is empty, and epoll reports the next bytes (epoll(7)). An end that came with the last
            // bytes has been reported already, so read on in that case.
            if n < raw.len() && !has_ended {
                return Ok(());
            }
        }
    }

    fn take_tls(
        &mut self,
        endpoint: &Endpoint,
        mut raw: &[u8],
        scratch: &mut Scratch,
        heard: &mut Vec<ConnectionEvent>,
    ) -> Result<(), Trouble> {
        let mut plain = std::mem::take(&mut scratch.plain);
        let mut result = Ok(());
        while !raw.is_empty() && result.is_ok() {
            result = self.take_records(endpoint, &mut raw, &mut plain, scratch, heard);
        }
        scratch.plain = plain;
        result?;
        self.flush()
    }

    fn take_records(
        &mut self,
        endpoint: &Endpoint,
        raw: &mut &[u8],
        plain: &mut [u8],
        scratch: &mut Scratch,
        heard: &mut Vec<ConnectionEvent>,
    ) -> Result<(), Trouble> {
        let tls = self.tls.as_mut().expect("the caller has seen it");
        let was_handshaking = tls.is_handshaking();
        tls.read_tls(raw).map_err(Trouble::Lost)?;
        if let Err(error) = tls.process_new_packets() {
            // Send the TLS alert, which tells the server why. It may be gone.
            let _unheard = self.flush();
            return Err(Trouble::Tls(error.to_string()));
        }
        if was_handshaking && !tls.is_handshaking() && self.stage == ConnectionStage::Open {
            heard.push(ConnectionEvent::Opened);
        }
        loop {
            let tls = self.tls.as_mut().expect("the caller has seen it");
            match tls.reader().read(plain) {
                Ok(0) => return Err(self.end(endpoint, heard)),
                Ok(n) => self.take(endpoint, &plain[..n], scratch, heard)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Trouble::Lost(error)),
            }
        }
    }

    fn take(
        &mut self,
        endpoint: &Endpoint,
        bytes: &[u8],
        scratch: &mut Scratch,
        heard: &mut Vec<ConnectionEvent>,
    ) -> Result<(), Trouble> {
        match &endpoint.speech {
            Speech::Stream(framing) => self.take_frames(endpoint, framing, bytes, scratch, heard),
            Speech::WebSocket { framing, .. } => {
                let ConnectionStage::Upgrading { key } = &self.stage else {
                    return self.take_frames(endpoint, framing, bytes, scratch, heard);
                };
                self.pending.extend_from_slice(bytes);
                let Some(len) = http::upgraded(&self.pending, key)? else { return Ok(()) };
                self.stage = ConnectionStage::Open;
                heard.push(ConnectionEvent::Opened);
                let pending = std::mem::take(&mut self.pending);
                self.take_frames(endpoint, framing, &pending[len..], scratch, heard)
            }
            Speech::Http { .. } => {
                if self.pending.is_empty() {
                    let taken = self.take_replies(endpoint, bytes, false, heard)?;
                    self.pending.extend_from_slice(&bytes[taken..]);
                    return Ok(());
                }
                let mut pending = std::mem::take(&mut self.pending);
                pending.extend_from_slice(bytes);
                let taken = self.take_replies(endpoint, &pending, false, heard)?;
                pending.drain(..taken);
                self.pending = pending;
                Ok(())
            }
        }
    }

    fn take_replies(
        &mut self,
        endpoint: &Endpoint,
        bytes: &[u8],
        ended: bool,
        heard: &mut Vec<ConnectionEvent>,
    ) -> Result<usize, Trouble> {
        let mut taken = 0;
        while taken < bytes.len() {
            let Some((len, reply)) = http::reply(&bytes[taken..], endpoint.max_frame_bytes, ended)? else { break };
            taken += len;
            self.closes |= reply.closes;
            heard.push(if (200..300).contains(&reply.status) {
                ConnectionEvent::Frame(reply.body)
            } else {
                let body: String =
                    String::from_utf8_lossy(&reply.body).chars().filter(|c| !c.is_control()).take(200).collect();
                ConnectionEvent::Failure(Trouble::Status { status: reply.status, body })
            });
        }
        Ok(taken)
    }

    fn take_frames(
        &mut self,
        endpoint: &Endpoint,
        framing: &Framing,
        mut bytes: &[u8],
        scratch: &mut Scratch,
        heard: &mut Vec<ConnectionEvent>,
    ) -> Result<(), Trouble> {
        let decoder = self.decoder.as_mut().expect("a connection of frames has one");
        while !bytes.is_empty() || decoder.has_rest() {
            let found = decoder.decode(framing, endpoint.max_frame_bytes, bytes);
            let (taken, item) =
                found.map_err(|error| Trouble::Broken(format!("the server broke the framing: {error}")))?;
            bytes = &bytes[taken..];
            match item {
                None => break,
                Some(Item::Frame(frame)) => heard.push(ConnectionEvent::Frame(frame.body)),
                Some(Item::Ping(payload)) => {
                    self.outgoing.extend_from_slice(&client::pong(&payload, scratch.mask()));
                    heard.push(ConnectionEvent::Ping);
                }
                Some(Item::Pong(_)) => {}
                Some(Item::Close { code, reason }) => {
                    let reason = String::from_utf8_lossy(&reason).into_owned();
                    return Err(Trouble::Closed { code, reason });
                }
            }
        }
        Ok(())
    }

    /// The server has closed its direction.
    fn end(&mut self, endpoint: &Endpoint, heard: &mut Vec<ConnectionEvent>) -> Trouble {
        if let Speech::Http { .. } = endpoint.speech {
            // No further request is possible here, even if the last reply said keep-alive.
            self.closes = true;
            let pending = std::mem::take(&mut self.pending);
            if let Err(trouble) = self.take_replies(endpoint, &pending, true, heard) {
                return trouble;
            }
        }
        if self.decoder.as_ref().is_some_and(Decoder::is_mid_frame) {
            return Trouble::Broken("the server closed in the middle of a frame".into());
        }
        Trouble::Closed { code: None, reason: String::new() }
    }

    /// Closes our direction of a connection without TLS.
    pub(super) fn finish(&self) -> Result<(), Trouble> {
        self.socket.shutdown(Shutdown::Write).map_err(Trouble::Lost)
    }

    /// Closes the connection with a reset, so that no port stays in TIME_WAIT.
    pub(super) fn reset(self) {
        // This fails only if the connection is gone.
        let _gone = self.socket.set_linger(Some(Duration::ZERO));
    }
}

/// Writes TLS records to the socket.
struct Writing<'s>(&'s Socket);

impl io::Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_vectored(buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
