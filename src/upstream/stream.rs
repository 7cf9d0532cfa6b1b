//! A socket to a backend, Unix or TCP: the differences between the two, and the workarounds that php-fpm needs.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::model::Bind;
use crate::sockets;

/// Pauses between attempts while a Unix socket's backlog is full.
const FIRST_BACKLOG_PAUSE: Duration = Duration::from_millis(1);
const LAST_BACKLOG_PAUSE: Duration = Duration::from_millis(20);

/// Finds a backend whose machine lost its power: its connections end within 45 s.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(5)).with_retries(3);

/// Pause before each check whether a peer still reads, and how long it may take to read.
const HALF_CLOSED_PAUSE: Duration = Duration::from_millis(5);
const HALF_CLOSED_PATIENCE: Duration = Duration::from_millis(300);

/// A connected socket.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects, and retries while the backlog of a Unix socket is full: the kernel returns EAGAIN at once and does not tell
    /// when there is room. (For TCP the kernel retries by itself.) The error contains a hint for the operator.
    pub(super) async fn connect(address: &Bind, within: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + within;
        let mut pause = FIRST_BACKLOG_PAUSE;
        loop {
            match timeout_at(deadline, Self::connect_once(address)).await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() + pause < deadline => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LAST_BACKLOG_PAUSE);
                }
                Ok(result) => return result.map_err(|error| explain(address, error)),
                Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "not connected within connect_timeout")),
            }
        }
    }

    async fn connect_once(address: &Bind) -> io::Result<Self> {
        match address {
            Bind::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
            Bind::Tcp(address) => {
                let stream = sockets::dial_tcp(address).await?;
                SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }

    /// Reads the available bytes. A short read has emptied the socket, so its readiness is cleared without a further read that would only
    /// return `EAGAIN`: an edge-triggered epoll reports the next bytes by itself.
    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut short = None;
        // Within try_io, so that readiness that arrives after the read is not lost.
        let read = || match recv(self.raw_fd(), into)? {
            read if read > 0 && read < into.len() => {
                short = Some(read);
                Err(io::ErrorKind::WouldBlock.into())
            }
            read => Ok(read),
        };
        let result = match self {
            Stream::Unix(stream) => stream.try_io(Interest::READABLE, read),
            Stream::Tcp(stream) => stream.try_io(Interest::READABLE, read),
        };
        short.map_or(result, Ok)
    }

    /// A single slice, the usual case, takes the shorter path through the kernel.
    pub(super) fn try_write_vectored(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, from) {
            (Stream::Unix(stream), [one]) => stream.try_write(one),
            (Stream::Tcp(stream), [one]) => stream.try_write(one),
            (Stream::Unix(stream), many) => stream.try_write_vectored(many),
            (Stream::Tcp(stream), many) => stream.try_write_vectored(many),
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Unix(stream) => stream.poll_read_ready(cx),
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Unix(stream) => stream.poll_write_ready(cx),
            Stream::Tcp(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Acknowledge the next bytes at once.
    ///
    /// php-fpm never sets TCP_NODELAY on its side of a kept connection, so its second small segment waits for our
    /// acknowledgement, which the kernel delays by 40 ms unless told otherwise. The kernel forgets the option after each exchange, so
    /// it is set after each send, and after each read that did not end the answer.
    pub(super) fn acknowledge_at_once(&self) {
        if let Stream::Tcp(stream) = self {
            let on: libc::c_int = 1;
            // SAFETY: the fd is open for as long as `stream`, and the option value is a live c_int of the given size.
            // A failure costs 40 ms and nothing else, so the result is ignored.
            unsafe {
                libc::setsockopt(
                    stream.as_raw_fd(),
                    libc::IPPROTO_TCP,
                    libc::TCP_QUICKACK,
                    (&raw const on).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                );
            }
        }
    }

    /// After a read returned end-of-file: whether the peer only stopped sending, and still reads.
    ///
    /// A Unix socket knows at once when both directions are closed. TCP shows the same FIN for both, but only an open
    /// socket acknowledges further bytes; a closed one resets. So `harmless` is sent as a test, and once more after
    /// a pause. The second time is for a relay that turned a reset into an end-of-file: it accepts the first bytes, fails to
    /// pass them on, and closes before the second.
    pub(super) async fn is_half_closed(&self, harmless: &[u8]) -> bool {
        if self.poll_now() & (libc::POLLHUP | libc::POLLERR) != 0 {
            return false;
        }
        for _ in 0..2 {
            if self.try_write_vectored(&[IoSlice::new(harmless)]).ok() != Some(harmless.len()) {
                return false;
            }
            let deadline = Instant::now() + HALF_CLOSED_PATIENCE;
            loop {
                sleep(HALF_CLOSED_PAUSE).await;
                if self.poll_now() & (libc::POLLHUP | libc::POLLERR) != 0 {
                    return false;
                }
                if self.unread_by_peer() == 0 {
                    break;
                }
                if Instant::now() > deadline {
                    return false;
                }
            }
        }
        true
    }

    /// Whether the peer has stopped sending, and all that it sent was read. Asks the kernel.
    pub(super) fn has_ended(&self) -> bool {
        let now = self.poll_now();
        if now & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) == 0 {
            return false;
        }
        let mut byte = 0_u8;
        // SAFETY: one byte is writable at the given address. The byte is only peeked at.
        let read = unsafe { libc::recv(self.raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
        read <= 0
    }

    fn poll_now(&self) -> i16 {
        let mut poll = libc::pollfd { fd: self.raw_fd(), events: libc::POLLIN | libc::POLLRDHUP, revents: 0 };
        // SAFETY: one valid pollfd, and a timeout of zero.
        unsafe { libc::poll(&raw mut poll, 1, 0) };
        poll.revents
    }

    /// Makes the peer's writes fail while keeping the socket; `false` where that is impossible (TCP).
    pub(super) fn refuse_more(&self) -> bool {
        let Stream::Unix(stream) = self else { return false };
        // SAFETY: the fd is open for as long as `stream`.
        unsafe { libc::shutdown(stream.as_raw_fd(), libc::SHUT_RD) == 0 }
    }

    /// Ends both directions now rather than when the value is dropped.
    pub(super) fn close(&self) {
        // SAFETY: the fd is open for as long as `self`.
        unsafe { libc::shutdown(self.raw_fd(), libc::SHUT_RDWR) };
    }

    /// Unix sockets: ready when the peer has read everything that was sent, or is gone.
    ///
    /// When the peer takes the last byte of a write out of its queue, the kernel says that the socket can be written to
    /// (`sock_wfree`), whether or not it could be before.
    pub(super) fn poll_all_read(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Stream::Unix(stream) = self else { return Poll::Ready(()) };
        loop {
            // Within try_io, so that readiness that arrives after the look is not lost.
            let look = || if self.unread_by_peer() == 0 { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
            match stream.try_io(Interest::WRITABLE, look) {
                Ok(()) => return Poll::Ready(()),
                // try_io also fails if an earlier look has used up the readiness, so the count decides.
                Err(_) if self.unread_by_peer() == 0 => return Poll::Ready(()),
                Err(_) => {}
            }
            if stream.poll_write_ready(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Whether the kernel knows what the peer has read.
    pub(super) fn tells_what_is_read(&self) -> bool {
        matches!(self, Stream::Unix(_))
    }

    /// Bytes that were sent and that the peer has not read (Unix) or not acknowledged (TCP); 0 once the peer is gone.
    ///
    /// Linux reports a Unix socket as writable while one byte of the data that was read still counts (`sock_wfree` keeps it
    /// until the waiters are woken). It does not report that again, so that byte is subtracted: a woken task must see 0. Bytes that are
    /// really unread count with their buffer, hundreds of bytes for each write.
    pub(super) fn unread_by_peer(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: TIOCOUTQ (SIOCOUTQ) stores one c_int at the given address.
        let result = unsafe { libc::ioctl(self.raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        let bytes = if result == 0 { bytes as usize } else { 0 };
        match self {
            Stream::Unix(_) => bytes.saturating_sub(1),
            Stream::Tcp(_) => bytes,
        }
    }

    fn raw_fd(&self) -> RawFd {
        match self {
            Stream::Unix(stream) => stream.as_raw_fd(),
            Stream::Tcp(stream) => stream.as_raw_fd(),
        }
    }
}

/// The same error, with a hint for the operator.
pub(super) fn explain(address: &Bind, error: io::Error) -> io::Error {
    let hint = match (address, error.kind()) {
        (Bind::Unix(_), io::ErrorKind::NotFound) => "is php-fpm running, and is its listen set to this path?",
        (Bind::Unix(_), io::ErrorKind::PermissionDenied) => {
            "the pool's listen.owner, listen.group and listen.mode, and the folders above the socket, must let this user connect"
        }
        (_, io::ErrorKind::ConnectionRefused) => "nothing listens there: is php-fpm running?",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}: {hint}"))
}

/// recv(2) on a non-blocking socket.
fn recv(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable for all of its length, and an invalid descriptor only makes the call fail.
    let read = unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}
