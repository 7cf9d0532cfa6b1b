//! TLS on a connection's socket, with rustls's unbuffered connections: all buffers are here, and at rest there are none.
//!
//! ```text
//!   recv --> scratch of the thread --decrypt--> the caller's buffer
//!              |  not a whole record: incoming     |  no room there: plain
//!
//!   send <-- scratch of the thread <--encrypt-- what the caller offers, at most MAX_PLAIN at once
//!              |  not taken by the socket: unsent
//! ```
//!
//! Encrypted bytes count as written: they can be neither taken back nor encrypted again. So `unsent` is like an extension of the
//! socket's own buffer. While something is unsent nothing more is encrypted, which bounds it. A caller that waits until it can
//! write must call [`Tls::flush`] before it waits.
//!
//! Lock order: first an outbox, then this. No call waits while the lock is held.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};

use crate::certificates;
use crate::locks::lock;

/// Most plaintext of one write: four records (RFC 8446 section 5.1), as much as a session's scratch buffer reads at once.
const MAX_PLAIN: usize = 64 * 1024;
/// Most bytes of one read. A record has at most 16 KB and 256 bytes (RFC 5246 section 6.2.3 allows 2 KB more), so a partial one
/// always leaves room.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Room for what encryption adds to [`MAX_PLAIN`], and for any handshake message sent along with it.
const OVERHEAD: usize = 4 * 1024;

thread_local! {
    static INCOMING: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
    static OUTGOING: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_PLAIN + OVERHEAD].into_boxed_slice());
}

pub(super) struct Tls {
    inner: Mutex<Inner>,
    /// Length of `Inner::unsent`, readable without the lock.
    unsent: AtomicUsize,
}

struct Inner {
    connection: UnbufferedServerConnection,
    /// Received bytes that are not a whole record yet.
    incoming: Vec<u8>,
    /// Decrypted bytes that the caller's buffer had no room for, starting at `plain_from`.
    plain: Vec<u8>,
    plain_from: usize,
    /// Encrypted bytes that the socket did not take.
    unsent: Vec<u8>,
    /// The peer has ended its side.
    is_ended: bool,
    /// How the peer broke the protocol. After that rustls is not called any more: the bytes in `incoming` that it remembers are
    /// gone.
    fault: Option<rustls::Error>,
    /// The server name that the client asked for, until it is taken.
    server_name: Option<Box<str>>,
}

/// The result of one read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Bytes for the caller.
    Plain(usize),
    /// Whole records without bytes for the caller.
    Nothing,
    /// The peer has ended its side.
    End,
}

impl Tls {
    /// Makes a connection, before its handshake.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let inner = Inner {
            connection: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            plain: Vec::new(),
            plain_from: 0,
            unsent: Vec::new(),
            is_ended: false,
            fault: None,
            server_name: None,
        };
        Ok(Self { inner: Mutex::new(inner), unsent: AtomicUsize::new(0) })
    }

    /// Runs `look` on the connection, under the lock.
    pub(super) fn with<R>(&self, look: impl FnOnce(&UnbufferedServerConnection) -> R) -> R {
        look(&self.lock().connection)
    }

    /// Takes the name that the client has asked for.
    pub(super) fn take_server_name(&self) -> Option<Box<str>> {
        self.lock().server_name.take()
    }

    /// Encrypted bytes that the socket has not taken.
    pub(super) fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Acquire)
    }

    /// Takes bytes kept from earlier reads, and after them the way in which these reads ended.
    pub(super) fn take_plain(&self, buffer: &mut [u8]) -> io::Result<Option<Read>> {
        let mut inner = self.lock();
        let rest = &inner.plain[inner.plain_from..];
        if rest.is_empty() {
            return match &inner.fault {
                Some(fault) => Err(invalid(fault)),
                None => Ok(inner.is_ended.then_some(Read::End)),
            };
        }
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        inner.plain_from += len;
        if inner.plain_from == inner.plain.len() {
            (inner.plain, inner.plain_from) = (Vec::new(), 0);
        }
        Ok(Some(Read::Plain(len)))
    }

    /// Does one `recv` into the scratch buffer and decrypts the result. Also returns whether `recv` filled the buffer. Call when
    /// [`Self::take_plain`] has nothing.
    pub(super) fn read(
        &self,
        buffer: &mut [u8],
        recv: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        send: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<(Read, bool)> {
        let mut inner = self.lock();
        INCOMING.with_borrow_mut(|scratch| {
            let kept = inner.incoming.len();
            if kept == scratch.len() {
                // No room is left to receive into, and `recv` would look like the end of the stream.
                inner.break_off(rustls::Error::General("a handshake message is too long".to_owned()));
                return Err(invalid(inner.fault.as_ref().expect("just now")));
            }
            scratch[..kept].copy_from_slice(&inner.incoming);
            let received = recv(&mut scratch[kept..])?;
            let was_full = kept + received == scratch.len();
            if received == 0 {
                inner.is_ended = true;
                return Ok((Read::End, was_full));
            }
            let mut filled = 0;
            let mut out = Vec::new();
            let pumped = inner.pump(&mut scratch[..kept + received], buffer, &mut filled, &mut out);
            if !out.is_empty() {
                inner.unsent.extend_from_slice(&out);
                // A failure is reported to the next writer, or a reader sees the connection end.
                let _ = inner.flush(send);
                self.note(&inner);
            }
            if let Some(name) = certificates::asked_name() {
                inner.server_name = Some(name);
            }
            match pumped {
                Ok(used) => inner.incoming = scratch[used..kept + received].to_vec(),
                Err(fault) => inner.break_off(fault),
            }
            if let (0, Some(fault)) = (filled, &inner.fault) {
                return Err(invalid(fault));
            }
            let read = match (filled, inner.is_ended) {
                (0, true) => Read::End,
                (0, false) => Read::Nothing,
                (filled, _) => Read::Plain(filled),
            };
            Ok((read, was_full))
        })
    }

    /// Encrypts and sends up to [`MAX_PLAIN`] bytes of what is offered. Returns how many it took. `WouldBlock` while earlier bytes
    /// are unsent.
    pub(super) fn write(
        &self,
        slices: &[IoSlice<'_>],
        mut send: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut inner = self.lock();
        let flushed = inner.flush(&mut send);
        self.note(&inner);
        if !flushed? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let gathered;
        let plain = match slices.iter().find(|slice| !slice.is_empty()) {
            None => return Ok(0),
            Some(first)
                if first.len() >= MAX_PLAIN
                    || slices.iter().all(|other| other.is_empty() || std::ptr::eq(other, first)) =>
            {
                &first[..first.len().min(MAX_PLAIN)]
            }
            Some(_) => {
                gathered = gather(slices);
                &gathered[..]
            }
        };
        OUTGOING.with_borrow_mut(|scratch| {
            let len = inner.encrypt(Some(plain), scratch)?;
            inner.send_or_keep(&scratch[..len], &mut send)
        })?;
        self.note(&inner);
        Ok(plain.len())
    }

    /// Sends unsent bytes. False if the socket does not take all of them.
    pub(super) fn flush(&self, send: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        let mut inner = self.lock();
        let flushed = inner.flush(send);
        self.note(&inner);
        flushed
    }

    /// Sends `close_notify`: nothing will follow (RFC 8446 section 6.1).
    pub(super) fn close(&self, mut send: impl FnMut(&[u8]) -> io::Result<usize>) {
        let mut inner = self.lock();
        let _ = OUTGOING.with_borrow_mut(|scratch| {
            // Fails after a fault, where the alert has already told the peer.
            if let Ok(len) = inner.encrypt(None, scratch) {
                inner.unsent.extend_from_slice(&scratch[..len]);
            }
            inner.flush(&mut send)
        });
        self.note(&inner);
    }

    fn note(&self, inner: &Inner) {
        self.unsent.store(inner.unsent.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    /// Handles whole records from the front of `incoming`. Returns how many bytes they had. Plaintext goes to `buffer`, and what
    /// does not fit is kept. Bytes to be sent go to `out`. Both are filled even if it returns an error.
    fn pump(
        &mut self,
        incoming: &mut [u8],
        buffer: &mut [u8],
        filled: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, rustls::Error> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(&mut incoming[used..]);
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    self.last_messages(out);
                    return Err(error);
                }
            };
            match state {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        let taken = record.payload.len().min(buffer.len() - *filled);
                        buffer[*filled..*filled + taken].copy_from_slice(&record.payload[..taken]);
                        *filled += taken;
                        self.plain.extend_from_slice(&record.payload[taken..]);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(|space| data.encode(space), out)
                        .map_err(|error| rustls::Error::General(error.to_string()))?;
                }
                // It is sent in order with everything else.
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed => self.is_ended = true,
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed => {
                    return Ok(used + discard);
                }
                _ => return Err(rustls::Error::General("unexpected early data".to_owned())),
            }
            used += discard;
        }
    }

    /// Records the fault. Nothing else is done with the connection from now on.
    fn break_off(&mut self, fault: rustls::Error) {
        self.fault = Some(fault);
        self.incoming = Vec::new();
    }

    /// Writes the alert that tells the peer what it did wrong. rustls gives pending messages before it looks at input, so it gets
    /// no input here: the half handshake message that it remembers is not passed, and it would report the same record twice.
    fn last_messages(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) = self.connection.process_tls_records(&mut []).state
            else {
                return;
            };
            if encode(|space| data.encode(space), out).is_err() {
                return;
            }
        }
    }

    /// Encrypts `plain` into `space`, or `close_notify` for `None`. Returns how many bytes that took.
    fn encrypt(&mut self, plain: Option<&[u8]>, space: &mut [u8]) -> io::Result<usize> {
        if let Some(fault) = &self.fault {
            return Err(broken(fault.clone()));
        }
        let mut len = 0;
        loop {
            // A partial record stays where it is: rustls remembers how far it has looked at it.
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.incoming);
            match state.map_err(broken)? {
                ConnectionState::EncodeTlsData(mut data) => len += data.encode(&mut space[len..]).map_err(broken)?,
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed => self.is_ended = true,
                ConnectionState::WriteTraffic(mut traffic) => {
                    let taken = match plain {
                        Some(plain) => traffic.encrypt(plain, &mut space[len..]),
                        None => traffic.queue_close_notify(&mut space[len..]),
                    };
                    return Ok(len + taken.map_err(broken)?);
                }
                state => return Err(broken(format!("nothing can be written in {state:?}"))),
            }
            self.incoming.drain(..discard);
        }
    }

    fn send_or_keep(&mut self, bytes: &[u8], send: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        debug_assert!(self.unsent.is_empty(), "what is unsent comes first");
        let sent = send_all(bytes, send)?;
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    fn flush(&mut self, send: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        if self.unsent.is_empty() {
            return Ok(true);
        }
        let sent = send_all(&self.unsent, send)?;
        if sent < self.unsent.len() {
            self.unsent.drain(..sent);
            return Ok(false);
        }
        self.unsent = Vec::new();
        Ok(true)
    }
}

/// Sends until the socket takes no more.
fn send_all(bytes: &[u8], mut send: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match send(&bytes[sent..]) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

fn encode(mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>, out: &mut Vec<u8>) -> io::Result<()> {
    let from = out.len();
    loop {
        match encode(&mut out[from..]) {
            Ok(len) => {
                out.truncate(from + len);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                out.resize(from + required_size, 0)
            }
            Err(error) => return Err(broken(error)),
        }
    }
}

fn gather(slices: &[IoSlice<'_>]) -> Vec<u8> {
    let all: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut gathered = Vec::with_capacity(all.min(MAX_PLAIN));
    for slice in slices {
        let room = MAX_PLAIN - gathered.len();
        gathered.extend_from_slice(&slice[..slice.len().min(room)]);
    }
    gathered
}

/// An error that the peer caused.
fn invalid(fault: &rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, fault.clone())
}

/// An error that the peer did not cause.
fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::NotConnected, error)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use std::sync::Arc;

    use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
    use rustls::{ConnectionTrafficSecrets, ContentType, ProtocolVersion};
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::transport::Transport;

    type Client = StreamOwned<ClientConnection, Socket>;

    fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    }

    fn sockets() -> (Transport, Socket) {
        let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        // Small, so that both ends often find them full.
        near.set_send_buffer_size(4096).unwrap();
        far.set_send_buffer_size(4096).unwrap();
        (Transport::new(near).unwrap(), far)
    }

    /// Both ends, after the handshake.
    async fn pair(version: &'static SupportedProtocolVersion) -> (Transport, Client) {
        let (server, client) = configs(version);
        shaken(server, client).await
    }

    async fn shaken(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> (Transport, Client) {
        let (near, far) = sockets();
        let near = near.with_tls(server).unwrap();
        let name = ServerName::try_from("shop.example").unwrap();
        let mut client = StreamOwned::new(ClientConnection::new(client, name).unwrap(), far);
        let shaken = tokio::task::spawn_blocking(move || {
            client.conn.complete_io(&mut client.sock).unwrap();
            client
        });
        near.handshake().await.unwrap();
        (near, shaken.await.unwrap())
    }

    fn noise(seed: u32, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    async fn write_all(transport: &Transport, mut bytes: &[u8], piece: usize) {
        while !bytes.is_empty() {
            let (one, two) = bytes[..piece.min(bytes.len())].split_at(piece.min(bytes.len()) / 3);
            match transport.try_write(&[IoSlice::new(one), IoSlice::new(&[]), IoSlice::new(two)]) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll_fn(|cx| transport.poll_write_ready(cx)).await.unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        while !transport.try_flush().unwrap() {
            poll_fn(|cx| transport.poll_write_ready(cx)).await.unwrap();
        }
    }

    async fn read_all(transport: &Transport, buffer_bytes: usize) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; buffer_bytes]);
        loop {
            match poll_fn(|cx| transport.poll_read(cx, &mut buffer)).await.unwrap() {
                0 => return all,
                n => all.extend_from_slice(&buffer[..n]),
            }
        }
    }

    fn holds_nothing(transport: &Transport) -> bool {
        let inner = transport.tls.as_ref().unwrap().lock();
        [&inner.incoming, &inner.plain, &inner.unsent].iter().all(|buffer| buffer.capacity() == 0)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn both_directions_at_once_arrive_whole_whatever_the_sizes_and_nothing_is_held_at_rest() {
        let cases = [
            (&rustls::version::TLS13, 1 << 20, 70_000, 64 * 1024),
            (&rustls::version::TLS13, 100_000, 1, 7),
            (&rustls::version::TLS12, 1 << 20, 200_000, 1000),
            (&rustls::version::TLS12, 1 << 20, 16_384, 100_000),
        ];
        for (version, total, piece, buffer_bytes) in cases {
            let (near, mut far) = pair(version).await;
            assert!(holds_nothing(&near), "after the handshake");
            let (down, up) = (noise(1, total), noise(2, total));
            let expected = (down.clone(), up.clone());
            let mut writer = StreamOwned::new(far.conn, far.sock.try_clone().unwrap());
            // One thread drives the rustls connection: it writes a piece and reads what has come, in turns, without waiting for
            // either, as a client with an event loop does.
            let peer = tokio::task::spawn_blocking(move || {
                writer.sock.set_nonblocking(true).unwrap();
                let (mut sent, mut got, mut buffer) = (0, Vec::new(), vec![0; 30_000]);
                while sent < up.len() || got.len() < down.len() {
                    if sent < up.len() {
                        sent += writer.conn.writer().write(&up[sent..(sent + 10_000).min(up.len())]).unwrap();
                    }
                    let _ = writer.conn.write_tls(&mut writer.sock);
                    match writer.conn.read_tls(&mut writer.sock) {
                        Ok(_) => drop(writer.conn.process_new_packets().unwrap()),
                        Err(_) => std::thread::yield_now(),
                    }
                    while let Ok(n @ 1..) = writer.conn.reader().read(&mut buffer) {
                        got.extend_from_slice(&buffer[..n]);
                    }
                }
                writer.sock.set_nonblocking(false).unwrap();
                writer.conn.send_close_notify();
                while writer.conn.wants_write() {
                    writer.conn.write_tls(&mut writer.sock).unwrap();
                }
                (got, writer)
            });
            let near = Arc::new(near);
            let writing = tokio::spawn({
                let (near, down) = (near.clone(), expected.0.clone());
                async move { write_all(&near, &down, piece).await }
            });
            let read = tokio::time::timeout(std::time::Duration::from_secs(60), read_all(&near, buffer_bytes)).await;
            assert!(read.expect("the end comes") == expected.1, "up, {piece} {buffer_bytes}");
            writing.await.unwrap();
            let (got, writer) = peer.await.unwrap();
            assert!(got == expected.0, "down, {piece} {buffer_bytes}");
            assert!(holds_nothing(&near));
            near.shutdown_write();
            far = StreamOwned::new(writer.conn, writer.sock.try_clone().unwrap());
            let mut rest = Vec::new();
            assert_eq!(far.read_to_end(&mut rest).unwrap(), 0, "close_notify came: its absence would be an error");
            drop(writer.sock);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn any_split_of_the_ciphertext_gives_the_same_bytes() {
        let (server, client) = configs(&rustls::version::TLS13);
        for step in [1, 2, 5, 100, 16_000] {
            let (near, mut far) = sockets();
            let near = near.with_tls(server.clone()).unwrap();
            let name = ServerName::try_from("shop.example").unwrap();
            let mut conn = ClientConnection::new(client.clone(), name).unwrap();
            let sent = noise(3, 40_000);
            let text = sent.clone();
            let peer = tokio::task::spawn_blocking(move || {
                let mut has_written = false;
                let mut is_closed = false;
                loop {
                    if !conn.is_handshaking() && !has_written {
                        conn.writer().write_all(&text).unwrap();
                        has_written = true;
                    }
                    if has_written && !conn.wants_write() && !is_closed {
                        conn.send_close_notify();
                        is_closed = true;
                    }
                    let mut ciphertext = Vec::new();
                    while conn.wants_write() {
                        conn.write_tls(&mut ciphertext).unwrap();
                    }
                    for piece in ciphertext.chunks(step) {
                        far.write_all(piece).unwrap();
                    }
                    if is_closed {
                        return far;
                    }
                    if conn.is_handshaking() {
                        conn.read_tls(&mut far).unwrap();
                        conn.process_new_packets().unwrap();
                    }
                }
            });
            near.handshake().await.unwrap();
            assert!(read_all(&near, 64 * 1024).await == sent, "in pieces of {step}");
            assert!(holds_nothing(&near));
            drop(peer.await.unwrap());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_does_not_speak_tls_is_told_so_and_who_goes_away_is_noticed() {
        let (server, _) = configs(&rustls::version::TLS13);
        let (near, mut far) = sockets();
        let near = near.with_tls(server.clone()).unwrap();
        far.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").unwrap();
        assert_eq!(near.handshake().await.unwrap_err().kind(), ErrorKind::InvalidData);
        let mut alert = [0; 7];
        far.read_exact(&mut alert).unwrap();
        assert_eq!(alert[0], 21, "an alert record (RFC 8446 section 5.1)");

        let (near, far) = sockets();
        let near = near.with_tls(server).unwrap();
        drop(far);
        assert_eq!(near.handshake().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_broken_record_behind_half_a_handshake_message_is_an_error() {
        let (server, _) = configs(&rustls::version::TLS13);
        let (near, mut far) = sockets();
        let near = near.with_tls(server).unwrap();
        // One byte of a ClientHello of 1000 bytes, then an alert.
        far.write_all(&[22, 3, 1, 0, 5, 1, 0, 3, 232, 3, 21, 3, 1, 0, 2, 1, 0]).unwrap();
        assert_eq!(near.handshake().await.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    /// A client that encrypts records of its own making, which no library would send.
    struct Forger {
        encrypter: Box<dyn MessageEncrypter>,
        sequence: u64,
        socket: Socket,
    }

    impl Forger {
        async fn pair() -> (Transport, Self) {
            let (server, client) = configs(&rustls::version::TLS13);
            let mut client = (*client).clone();
            client.enable_secret_extraction = true;
            let (near, client) = shaken(server, Arc::new(client)).await;
            let suite = client.conn.negotiated_cipher_suite().unwrap().tls13().unwrap();
            let (sequence, secrets) = client.conn.dangerous_extract_secrets().unwrap().tx;
            let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("another suite") };
            (near, Self { encrypter: suite.aead_alg.encrypter(key, iv), sequence, socket: client.sock })
        }

        fn send(&mut self, records: &[(ContentType, &[u8])]) {
            let mut bytes = Vec::new();
            for (typ, payload) in records {
                let payload = OutboundChunks::Single(payload);
                let message = OutboundPlainMessage { typ: *typ, version: ProtocolVersion::TLSv1_2, payload };
                bytes.extend(self.encrypter.encrypt(message, self.sequence).unwrap().encode());
                self.sequence += 1;
            }
            self.socket.write_all(&bytes).unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn forged_records_end_the_connection_and_what_came_before_them_is_read() {
        let (near, mut forger) = Forger::pair().await;
        let mut buffer = [0; 100];
        // Half a key update is kept, and writing goes on.
        forger.send(&[(ContentType::ApplicationData, b"first"), (ContentType::Handshake, &[24, 0, 0, 9, 1])]);
        assert_eq!(poll_fn(|cx| near.poll_read(cx, &mut buffer)).await.unwrap(), 5);
        near.try_write(&[IoSlice::new(b"hello")]).unwrap();
        forger.send(&[(ContentType::ApplicationData, b"not now")]);
        let error = poll_fn(|cx| near.poll_read(cx, &mut buffer)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(near.try_write(&[IoSlice::new(b"hello")]).is_err(), "nothing more can be said");
        near.shutdown_write();

        let (near, mut forger) = Forger::pair().await;
        let forged = (ContentType::Handshake, &[1, 0, 0, 0][..]);
        forger.send(&[(ContentType::ApplicationData, b"last"), forged]);
        assert_eq!(poll_fn(|cx| near.poll_read(cx, &mut buffer)).await.unwrap(), 4, "it came whole");
        let error = poll_fn(|cx| near.poll_read(cx, &mut buffer)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);

        // A handshake message longer than the buffer for it.
        let (near, mut forger) = Forger::pair().await;
        let beginning = [&[24, 0, 255, 255][..], &[0; 16_380]].concat();
        let shaken = Arc::new(near);
        let reading = tokio::spawn({
            let near = shaken.clone();
            async move { poll_fn(|cx| near.poll_read(cx, &mut [0; 100])).await }
        });
        let sending = tokio::task::spawn_blocking(move || {
            forger.send(&[(ContentType::Handshake, &beginning)]);
            for _ in 0..3 {
                forger.send(&[(ContentType::Handshake, &[0; 16_384])]);
            }
            forger
        });
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), ErrorKind::InvalidData);
        // Closing the socket stops the sender, wherever it is.
        drop(shaken);
        let _ = sending.await;
    }
}
