//! A connection's socket: TCP or Unix, non-blocking, written to from any thread.
//!
//! One type serves both families, with or without TLS, so that its callers never have to ask. Reads and writes carry `MSG_DONTWAIT`
//! and `MSG_NOSIGNAL` instead of switching the descriptor's flags, which saves two system calls for each accept. Readiness is
//! tokio's. After a short read it is cleared at once: an edge-triggered epoll reports the next bytes anyway, and this saves a read
//! that would only return `EAGAIN`.

pub mod listening;
mod tls;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use self::tls::{Read, Tls};
use crate::certificates::{self, TlsFacts};
use crate::proto::fastcgi::params::EncodedParams;

/// Slices in one vectored write; the kernel's own bound is 1024 (`IOV_MAX`).
pub const MAX_SLICES: usize = 64;

/// Up to this many bytes in several pieces are copied together and sent as one: send(2) has less to do than sendmsg(2), and the
/// copy costs less than the difference.
const COPY_BYTES: usize = 512;

/// The other end of a connection, as `REMOTE_ADDR` and `REMOTE_PORT` show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// An internet address. Port 0 if the port is not known.
    Ip(SocketAddr),
    /// A process on this machine, through a Unix socket.
    Unix,
}

impl Peer {
    /// Its IP address. `None` for Unix sockets.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Peer::Ip(address) => Some(address.ip().to_canonical()),
            Peer::Unix => None,
        }
    }

    /// The address by which connections and sessions are counted. For IPv6 it is the first 64 bits. One line is given that many
    /// (RFC 6177), so a client cannot escape a count by using more of its addresses.
    pub fn counted_address(&self) -> Option<IpAddr> {
        self.address().map(|address| match address {
            IpAddr::V6(address) => Ipv6Addr::from(address.to_bits() & !u128::from(u64::MAX)).into(),
            address => address,
        })
    }
}

/// A [`Peer`] in the form that a session keeps: 20 bytes instead of 32. The scope of an IPv6 address, which only matters on this
/// machine's own links, is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedPeer {
    /// An IPv4 address uses the first four bytes.
    ip: [u8; 16],
    port: u16,
    family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Family {
    Unix,
    V4,
    V6,
}

impl From<Peer> for PackedPeer {
    fn from(peer: Peer) -> Self {
        let mut ip = [0; 16];
        let (family, port) = match peer {
            Peer::Unix => (Family::Unix, 0),
            Peer::Ip(SocketAddr::V4(address)) => {
                ip[..4].copy_from_slice(&address.ip().octets());
                (Family::V4, address.port())
            }
            Peer::Ip(SocketAddr::V6(address)) => {
                ip = address.ip().octets();
                (Family::V6, address.port())
            }
        };
        Self { ip, port, family }
    }
}

impl From<PackedPeer> for Peer {
    fn from(packed: PackedPeer) -> Self {
        let [a, b, c, d, ..] = packed.ip;
        match packed.family {
            Family::Unix => Peer::Unix,
            Family::V4 => Peer::Ip((Ipv4Addr::new(a, b, c, d), packed.port).into()),
            Family::V6 => Peer::Ip((Ipv6Addr::from(packed.ip), packed.port).into()),
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // The port may be unknown for a client that a forwarding header names.
            Peer::Ip(address) if address.port() == 0 => write!(f, "{}", address.ip()),
            Peer::Ip(address) => write!(f, "{address}"),
            // nginx shows clients of a Unix listener in the same way.
            Peer::Unix => f.write_str("unix:"),
        }
    }
}

/// A new connection: the socket, and what is known before its first frame.
pub struct Arrival {
    /// The socket.
    pub transport: Transport,
    /// The other end, as shown to PHP.
    pub peer: Peer,
    /// This end, as shown to PHP.
    pub local: Peer,
    /// Params of the connection, the same for every event on it.
    pub params: EncodedParams,
    /// When it was accepted. All steps of its handshake share one deadline.
    pub accepted: Instant,
}

impl Arrival {
    /// A connection of which only the socket is known.
    pub fn new(transport: Transport, peer: Peer) -> Self {
        let local = transport.local();
        Self { transport, peer, local, params: EncodedParams::default(), accepted: Instant::now() }
    }
}

/// A connected socket, registered with the runtime that it was made in.
pub struct Transport {
    fd: AsyncFd<Socket>,
    tls: Option<Box<Tls>>,
}

impl Transport {
    /// Takes a connected socket into the current runtime.
    pub fn new(socket: Socket) -> io::Result<Self> {
        // SAFETY: the socket owns its descriptor, gives the same one at every call, and closes it only when it is
        // dropped, which AsyncFd does after it has deregistered it.
        let fd = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE | Interest::WRITABLE) }?;
        Ok(Self { fd, tls: None })
    }

    /// Reads and writes go through TLS from now on. Call [`Self::handshake`] first.
    ///
    /// # Errors
    ///
    /// rustls cannot use the configuration.
    pub fn with_tls(self, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self { tls: Some(Box::new(Tls::new(config)?)), ..self })
    }

    /// Does the TLS handshake. Safe to drop, but then the connection is useless.
    ///
    /// # Errors
    ///
    /// `InvalidData` if the peer breaks the protocol or has no version or cipher in common with us; it has been told so. Otherwise
    /// the error of the socket.
    pub async fn handshake(&self) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        loop {
            while !self.try_flush()? {
                poll_fn(|cx| self.poll_write_ready(cx)).await?;
            }
            if !tls.with(|connection| connection.is_handshaking()) {
                return Ok(());
            }
            // Bytes that come right after the handshake are kept for the first read.
            if poll_fn(|cx| self.poll_read_tls(tls, cx, &mut [])).await? == Read::End {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The params that tell PHP about a finished handshake. Empty without TLS. To be called once, because it takes the server name
    /// out.
    pub fn tls_params(&self) -> EncodedParams {
        let Some(tls) = &self.tls else { return EncodedParams::default() };
        let name = tls.take_server_name();
        tls.with(|connection| {
            certificates::params(&TlsFacts {
                version: connection.protocol_version(),
                cipher: connection.negotiated_cipher_suite(),
                sni: name.as_deref(),
                peer_certificates: connection.peer_certificates(),
            })
        })
    }

    /// True with TLS. Without TLS no protocol is negotiated, and the first bytes show which one is spoken.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// True if this protocol above TLS was negotiated (RFC 7301).
    pub fn has_negotiated(&self, protocol: &[u8]) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.with(|connection| connection.alpn_protocol() == Some(protocol)))
    }

    /// Bytes that count as written but that the socket has not taken: never more than one write.
    pub fn unsent(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.unsent())
    }

    /// Sends the [`unsent`](Self::unsent) bytes. False if the socket does not take all of them; then wait with
    /// [`Self::poll_write_ready`].
    pub fn try_flush(&self) -> io::Result<bool> {
        match &self.tls {
            None => Ok(true),
            Some(tls) => tls.flush(|bytes| self.send(&[IoSlice::new(bytes)])),
        }
    }

    /// Makes the kernel notice a peer that vanished without FIN. It probes after `keepalive` of silence, and stops waiting for
    /// acknowledgements after `user_timeout` (tcp(7)). Zero switches each off.
    pub fn watch_tcp_peer(&self, keepalive: Duration, user_timeout: Duration) -> io::Result<()> {
        let socket = self.fd.get_ref();
        if !keepalive.is_zero() {
            let probe_every = (keepalive / 6).max(Duration::from_secs(1));
            let probes = TcpKeepalive::new().with_time(keepalive).with_interval(probe_every).with_retries(3);
            socket.set_tcp_keepalive(&probes)?;
        }
        socket.set_tcp_user_timeout(Some(user_timeout))
    }

    /// Ready when a read may return something. The waker replaces the one of the last call.
    ///
    /// Reads until nothing is left or `buffer` is full. `Ok(0)` is the end of the stream.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(tls) = &self.tls {
            loop {
                match ready!(self.poll_read_tls(tls, cx, buffer))? {
                    Read::Plain(len) => return Poll::Ready(Ok(len)),
                    Read::End => return Poll::Ready(Ok(0)),
                    Read::Nothing => {}
                }
            }
        }
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match recv_now(guard.get_inner(), buffer, 0) {
                Ok(n) => {
                    if n > 0 && n < buffer.len() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_read_tls(&self, tls: &Tls, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Read>> {
        if !buffer.is_empty()
            && let Some(read) = tls.take_plain(buffer)?
        {
            return Poll::Ready(Ok(read));
        }
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            let recv = |scratch: &mut [u8]| recv_now(self.fd.get_ref(), scratch, 0);
            match tls.read(buffer, recv, |bytes| self.send(&[IoSlice::new(bytes)])) {
                Ok((read, was_full)) => {
                    if read != Read::End && !was_full {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(read));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Ready when more than `known` bytes wait to be read, or the peer has ended. The bytes are copied into `buffer` and stay
    /// unread. The waker replaces the one of the last call.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buffer: &mut [u8], known: usize) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match recv_now(guard.get_inner(), buffer, libc::MSG_PEEK) {
                Ok(n) if n > known || n == 0 => return Poll::Ready(Ok(n)),
                // An edge-triggered epoll reports further bytes even while there are unread ones.
                Ok(_) => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Bytes that have arrived and were not read. On streams of both families FIONREAD counts them (tcp(7), unix(7)).
    pub fn unread(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open for as long as `self` is, and the pointer is to an int that lives through the call.
        let result = unsafe { libc::ioctl(self.fd.get_ref().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
    }

    /// Ready when a write may take something. The waker replaces the one of the last call.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_write_ready(cx).map_ok(|_| ())
    }

    /// Writes as much as the socket takes now. `WouldBlock` if that is nothing; then wait with [`Self::poll_write_ready`].
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.send(slices),
            Some(tls) => tls.write(slices, |bytes| self.send(&[IoSlice::new(bytes)])),
        }
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let mut small;
        let one = match slices {
            [one] => Some(&**one),
            several => {
                small = [0; COPY_BYTES];
                gather(several, &mut small)
            }
        };
        // The system call is made inside try_io, because readiness that arrives between an EAGAIN and its clearing must not be
        // lost.
        self.fd.try_io(Interest::WRITABLE, |socket| {
            loop {
                let sent = match one {
                    Some(bytes) => socket.send_with_flags(bytes, flags),
                    None => socket.send_vectored_with_flags(slices, flags),
                };
                match sent {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            }
        })
    }

    /// Sends FIN, after a `close_notify` with TLS. The other direction stays open.
    pub fn shutdown_write(&self) {
        if let Some(tls) = &self.tls {
            tls.close(|bytes| self.send(&[IoSlice::new(bytes)]));
        }
        // The only possible error is that the peer closed first.
        let _ = self.fd.get_ref().shutdown(Shutdown::Write);
    }

    /// Makes the next close a reset, for peers that should leave no state in our kernel (tcp(7), SO_LINGER of zero).
    pub fn reset_on_close(&self) {
        let _ = SockRef::from(self.fd.get_ref()).set_linger(Some(Duration::ZERO));
    }

    /// The address at this end, for `SERVER_ADDR` and `SERVER_PORT`.
    pub fn local(&self) -> Peer {
        peer_of(self.fd.get_ref().local_addr())
    }
}

/// Makes a [`Peer`] of the result of `getpeername`, `getsockname` or `accept`.
pub fn peer_of(address: io::Result<socket2::SockAddr>) -> Peer {
    match address.ok().and_then(|address| address.as_socket()) {
        Some(ip) => Peer::Ip(ip),
        None => Peer::Unix,
    }
}

/// Copies the pieces together, if they fit.
fn gather<'a>(slices: &[IoSlice<'_>], into: &'a mut [u8; COPY_BYTES]) -> Option<&'a [u8]> {
    let mut len = 0;
    for slice in slices {
        into.get_mut(len..len + slice.len())?.copy_from_slice(slice);
        len += slice.len();
    }
    Some(&into[..len])
}

/// recv(2) that never waits.
fn recv_now(socket: &Socket, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: a `[u8]` may be seen as `[MaybeUninit<u8>]` as long as nothing uninitialised is stored in it, and recv stores
    // only bytes that it received.
    let uninit = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [std::mem::MaybeUninit<u8>]) };
    socket.recv_with_flags(uninit, libc::MSG_DONTWAIT | flags)
}

// hyper reads and writes the handshake through these; sessions use the calls above.

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_read(cx, buf)
    }
}

/// As for `&TcpStream` of the standard library: several tasks may share a socket.
impl AsyncRead for &Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let n = ready!(Transport::poll_read(&self, cx, buf.initialize_unfilled()))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_shutdown(cx)
    }
}

impl AsyncWrite for &Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(Transport::poll_write_ready(&self, cx))?;
            match self.try_write(&bufs[..bufs.len().min(MAX_SLICES)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.try_flush()? {
            ready!(Transport::poll_write_ready(&self, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
