//! TCP sockets. Every TCP socket of this program is made here, or accepted from one made here, so that each has `TCP_NODELAY`.
//!
//! Without it the kernel holds a second small write back until the first one is acknowledged. The other side acknowledges 40 ms
//! late, because it hopes to send data along with the acknowledgement. Each write of this program is a whole message, or all that is
//! there of it. `clippy.toml` refuses other ways to make one.

#![expect(clippy::disallowed_methods, reason = "sockets are made here")]

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, ToSocketAddrs};

/// A blocking socket that is neither bound nor connected.
///
/// # Errors
///
/// The system's error.
pub fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// A socket with the options that must be set before it is bound. Accepted sockets inherit `TCP_NODELAY`, so no connection costs a
/// system call for it.
///
/// # Errors
///
/// The system's error.
pub fn listening_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(address)?;
    // A restarted node must not wait for its old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Like nginx: `[::]` beside `0.0.0.0` is two listeners, not a conflict.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// A Unix socket that is neither bound nor connected. It has no `TCP_NODELAY` to set.
///
/// # Errors
///
/// The system's error.
pub fn unix(kind: Type) -> io::Result<Socket> {
    Socket::new(Domain::UNIX, kind, None)
}

/// A connection to the first of these addresses that accepts it.
///
/// # Errors
///
/// The system's error for the last address.
pub async fn dial_tcp(addresses: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addresses).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_socket_sends_at_once_and_so_does_what_is_accepted() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let listening = listening_tcp(any).expect("a socket");
        listening.bind(&SocketAddr::into(any)).expect("a free port");
        listening.listen(1).expect("it listens");
        let address = listening.local_addr().expect("it is bound").as_socket().expect("of TCP");
        let dialed = dial_tcp(address).await.expect("it accepts");
        let (accepted, _) = listening.accept().expect("somebody came");
        assert!(accepted.tcp_nodelay().expect("it is open") && dialed.nodelay().expect("it is open"));
    }
}
