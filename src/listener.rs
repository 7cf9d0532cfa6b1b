//! Where connections come in: bind, accept, count, hand over.
//!
//! One task for each listener. It owns the listening socket until the node begins to stop, and a Unix socket's file until
//! it ends. What accept(2) brings is admitted against the bounds of the node, and served in a task of its own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol as SocketProtocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{debug, warn};

use crate::config::model::{Bind, TcpOptions};
use crate::http;
use crate::metrics::ReasonLabels;
use crate::proto::close::CloseReason;
use crate::session::{self, Endpoint, Hub};
use crate::transport::{Peer, Transport, peer_of};

/// After accept(2) failed for want of descriptors or memory: long enough for some to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket.
pub struct Listening {
    fd: AsyncFd<Socket>,
    local: Bind,
    /// The file of a Unix socket goes with it.
    _file: Option<SocketFile>,
}

/// Why a listener cannot be.
#[derive(Debug)]
pub struct BindError {
    bind: Bind,
    error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: ", self.bind)?;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => f.write_str("somebody else does"),
            io::ErrorKind::PermissionDenied => {
                f.write_str("not permitted (ports below 1024 want CAP_NET_BIND_SERVICE)")
            }
            io::ErrorKind::AddrNotAvailable => f.write_str("this machine has no such address"),
            _ => self.error.fmt(f),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Listening {
    /// Binds and listens. Must be called within a runtime.
    pub fn bind(bind: &Bind, backlog: u32) -> Result<Self, BindError> {
        Self::try_bind(bind, backlog).map_err(|error| BindError { bind: bind.clone(), error })
    }

    fn try_bind(bind: &Bind, backlog: u32) -> io::Result<Self> {
        let (socket, address) = match bind {
            Bind::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(SocketProtocol::TCP))?;
                // A restarted node must not wait for its old connections to leave TIME_WAIT.
                socket.set_reuse_address(true)?;
                if address.is_ipv6() {
                    // As nginx: `[::]` beside `0.0.0.0` is two listeners, not a conflict.
                    socket.set_only_v6(true)?;
                }
                (socket, SockAddr::from(*address))
            }
            Bind::Unix(path) => {
                remove_stale(path)?;
                (Socket::new(Domain::UNIX, Type::STREAM, None)?, SockAddr::unix(path)?)
            }
        };
        socket.bind(&address)?;
        // From here on the file is ours to remove.
        let file = match bind {
            Bind::Unix(path) => Some(SocketFile(path.clone())),
            Bind::Tcp(_) => None,
        };
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        socket.set_nonblocking(true)?;
        let local = match peer_of(socket.local_addr()) {
            Peer::Ip(address) => Bind::Tcp(address),
            Peer::Unix => bind.clone(),
        };
        // SAFETY: the socket owns its descriptor, gives the same one at every call, and closes it only when it is
        // dropped, which AsyncFd does after it has deregistered it.
        let fd = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { fd, local, _file: file })
    }

    /// Where it listens, with the port that the kernel chose for port 0.
    pub fn local(&self) -> &Bind {
        &self.local
    }

    /// The next connection.
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        let (socket, address) = self.fd.async_io(Interest::READABLE, Socket::accept).await?;
        Ok((socket, peer_of(Ok(address))))
    }

    /// The next connection, whatever happens to single ones.
    pub(crate) async fn next(&self) -> (Transport, Peer) {
        loop {
            let accepted = self.accept().await.and_then(|(socket, peer)| Ok((Transport::new(socket)?, peer)));
            match accepted {
                Ok(accepted) => return accepted,
                // The client was faster than we (accept(2)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(listener = %self.local, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A socket file that nobody listens on is left over from a process that was killed.
fn remove_stale(path: &Path) -> io::Result<()> {
    // connect(2) refuses a regular file with the same word, and that is somebody's.
    if !std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        return Ok(());
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        // Not there, or not ours to judge: bind will say.
        Err(_) => Ok(()),
    }
}

struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Who takes what a listener accepts.
pub enum Service {
    /// Frames on the stream.
    Stream(Arc<Endpoint>),
    /// HTTP.
    Http(Arc<http::Site>),
}

/// Accepts until the node begins to stop.
pub async fn accept_loop(hub: Arc<Hub>, name: String, listening: Listening, tcp: TcpOptions, service: Service) {
    loop {
        let (transport, peer) = tokio::select! {
            biased;
            () = hub.draining.cancelled() => return,
            accepted = listening.next() => accepted,
        };
        if let Peer::Ip(_) = peer
            && let Err(error) = transport.watch_tcp_peer(tcp.keepalive, tcp.user_timeout)
        {
            debug!(%peer, %error, "connection ended before it was served");
            continue;
        }
        match &service {
            Service::Stream(endpoint) => match hub.admission.admit(peer) {
                Ok(permit) => {
                    let session = session::serve_stream(endpoint.clone(), transport, peer, permit);
                    hub.tasks.spawn(session);
                }
                Err(reason) => {
                    refuse(&hub, &name, peer, reason);
                    transport.reset_on_close();
                }
            },
            Service::Http(site) => {
                // The kernel's backlog holds further clients meanwhile; `handshake_timeout` bounds the wait.
                let place = tokio::select! {
                    () = hub.draining.cancelled() => return,
                    place = site.place() => place,
                };
                hub.tasks.spawn(http::serve_connection(site.clone(), transport, peer, place));
            }
        }
    }
}

/// Counts a connection that never became a session.
pub(crate) fn refuse(hub: &Hub, listener: &str, peer: Peer, reason: CloseReason) {
    let labels = ReasonLabels { listener: listener.to_owned(), reason: reason.label() };
    hub.metrics.connections_refused.get_or_create(&labels).inc();
    debug!(%peer, listener, reason = reason.label(), "connection refused");
}

/// Where a socket address would be reached from this machine.
pub fn dial_address(local: SocketAddr) -> SocketAddr {
    let mut address = local;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_any_other_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("left.sock"), dir.path().join("precious.txt"));
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        std::fs::write(&file, "precious").unwrap();
        let listening = Listening::bind(&Bind::Unix(socket.clone()), 1).unwrap();
        assert!(Listening::bind(&Bind::Unix(socket), 1).is_err(), "somebody listens there");
        assert!(Listening::bind(&Bind::Unix(file.clone()), 1).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        drop(listening);
    }
}
