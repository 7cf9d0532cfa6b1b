//! Programs that the runner starts beside Longwire, each a process of its own so that its CPU time can be told apart: this binary
//! again, with a role as its first argument.
//!
//! All are one thread around epoll. mio is edge-triggered, so a read that does not fill its buffer has taken all there is, and one
//! system call for each read and write is enough. They trust each other's sizes and end at the first surprise: the runner then says so.

mod accept;
mod echo;
mod fanout;
mod null;

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

/// Connections to the null responder, as to a pool of eight workers.
pub(crate) const BACKEND_CONNECTIONS: usize = 8;

/// Of a frame, in front of its body: the length framing that Longwire has by default.
const LENGTH: usize = 4;
const BACKLOG: i32 = 4096;
const INPUT_BYTES: usize = 64 * 1024;

/// Plays a role until the process is ended.
pub(crate) fn play(role: &str, arguments: &[String]) -> io::Result<()> {
    match (role, &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]) {
        ("null-responder", [socket]) => null::run(Path::new(socket)),
        ("echo-floor", [responder, request, bytes]) => {
            let bytes = bytes.parse().map_err(|_| surprise("the size of a message is a number"))?;
            echo::run(Path::new(responder), std::fs::read(request)?, bytes)
        }
        ("fanout-floor", [how]) => fanout::run(*how == "coalescing"),
        ("accept-floor", []) => accept::run(),
        _ => Err(surprise("no such role, or not its arguments")),
    }
}

fn watch(poll: &Poll, socket: &impl AsRawFd, token: Token) -> io::Result<()> {
    poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)
}

fn surprise(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A listener on a free port. Its backlog is Longwire's: with a shorter one connections are made by the kernel's second try, a
/// second later, whenever this process has to wait for a processor.
fn listen() -> io::Result<TcpListener> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

/// All that wait to be accepted.
fn accept_all(listener: &TcpListener) -> impl Iterator<Item = io::Result<TcpStream>> {
    std::iter::from_fn(|| match listener.accept() {
        Ok((stream, _)) => Some(stream.set_nonblocking(true).and(stream.set_nodelay(true)).map(|()| stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => Some(Err(error)),
    })
}

/// Reads all that is there; whether the other side is still there.
fn read_all(stream: &mut impl Read, input: &mut [u8], pending: &mut Vec<u8>) -> bool {
    loop {
        match stream.read(input) {
            Ok(0) => return false,
            Ok(read) => {
                pending.extend_from_slice(&input[..read]);
                if read < input.len() {
                    return true;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
}

/// Writes the whole at once. One that has left is noticed at its next read; one that reads too slowly for a floor is a surprise.
fn write_whole(stream: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    match stream.write(bytes) {
        Ok(written) if written == bytes.len() => Ok(()),
        Ok(_) => Err(surprise("a client reads too slowly for the floor: a write was cut short")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(surprise("a client does not read")),
        Err(_has_left) => Ok(()),
    }
}

/// The length of the first frame, its header included, if it is whole.
fn frame_len(pending: &[u8]) -> Option<usize> {
    let header = pending.first_chunk::<LENGTH>()?;
    let whole = LENGTH + u32::from_be_bytes(*header) as usize;
    (pending.len() >= whole).then_some(whole)
}
