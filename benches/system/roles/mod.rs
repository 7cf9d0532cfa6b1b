//! Programs that the runner starts besides Longwire: this binary again, with a role as its first argument. Each is a process of its own,
//! so that its CPU time can be measured.
//!
//! Each has one thread with epoll. mio is edge-triggered, so a short read has taken all available bytes, and one system call for each read
//! and write is enough. They rely on the sizes of messages, and end with an error at anything unexpected, which the runner reports.

mod accept;
mod batches;
mod echo;
mod fanout;
mod fastcgi;
mod null;
mod open_loop;

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

/// Number of connections to the null responder, as to a pool of eight workers.
pub(crate) const BACKEND_CONNECTIONS: usize = 8;

/// Length of a FastCGI record's header.
const HEADER: usize = 8;
/// The type of the last record of an answer.
const END_REQUEST: u8 = 3;

/// Used instead of a rate: as fast as answers come.
pub(crate) const FLAT_OUT: &str = "flat-out";

/// Length of a frame's header, in Longwire's default length framing.
const LENGTH: usize = 4;
const BACKLOG: i32 = 4096;
const INPUT_BYTES: usize = 64 * 1024;

/// Plays a role until the process is ended.
pub(crate) fn play(role: &str, arguments: &[String]) -> io::Result<()> {
    match (role, &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]) {
        ("null-responder", [socket]) => null::run(Path::new(socket)),
        ("echo-floor", [responder, request, bytes, connections]) => {
            echo::run(Path::new(responder), std::fs::read(request)?, number(bytes)?, number(connections)?)
        }
        ("fanout-floor", [how]) => fanout::run(*how == "coalescing"),
        ("accept-floor", []) => accept::run(),
        ("batches", [address, commands, bytes, server, millis]) => {
            let batch = batches::Batch { commands: number(commands)?, bytes: number(bytes)? };
            batches::run(number(address)?, &batch, number(server)?, time(millis)?)
        }
        ("batch-floor", []) => batches::floor(),
        ("fastcgi-client", [which, socket, request, responder, millis]) => {
            let which = match *which {
                "longwire" => fastcgi::Which::Longwire,
                "crate" => fastcgi::Which::Crate,
                "buffered" => fastcgi::Which::CrateBuffered,
                _ => return Err(surprise("no such client")),
            };
            fastcgi::run(which, Path::new(socket), Path::new(request), number(responder)?, time(millis)?)
        }
        ("open-loop", [socket, request, server, rate, connections, millis]) => {
            let (connections, measured) = (number(connections)?, time(millis)?);
            let rate = if *rate == FLAT_OUT { None } else { Some(number(rate)?) };
            let pace = open_loop::Pace { rate, connections, measured };
            open_loop::run(Path::new(socket), &std::fs::read(request)?, number(server)?, &pace)
        }
        _ => Err(surprise("no such role, or not its arguments")),
    }
}

fn number<N: FromStr>(text: &str) -> io::Result<N> {
    text.parse().map_err(|_| surprise("an argument is no number"))
}

fn time(millis: &str) -> io::Result<Duration> {
    number(millis).map(Duration::from_millis)
}

fn watch(poll: &Poll, socket: &impl AsRawFd, token: Token) -> io::Result<()> {
    poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)
}

fn surprise(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A listener on a free port, with Longwire's backlog. With a shorter one, whenever this process waits for the CPU, connections would be
/// made only at the kernel's second try, a second later.
fn listen() -> io::Result<TcpListener> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

/// Accepts all waiting connections.
fn accept_all(listener: &TcpListener) -> impl Iterator<Item = io::Result<TcpStream>> {
    std::iter::from_fn(|| match listener.accept() {
        Ok((stream, _)) => Some(stream.set_nonblocking(true).and(stream.set_nodelay(true)).map(|()| stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => Some(Err(error)),
    })
}

/// Reads all available bytes. Returns whether the connection is still open.
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

/// Writes all bytes at once. A closed connection is noticed at its next read. A client that reads too slowly is an error.
fn write_whole(stream: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    match stream.write(bytes) {
        Ok(written) if written == bytes.len() => Ok(()),
        Ok(_) => Err(surprise("a client reads too slowly for the floor: a write was cut short")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(surprise("a client does not read")),
        Err(_has_left) => Ok(()),
    }
}

/// The content of an answer's first record, if the whole answer is there (FastCGI 1.0, section 3.3).
fn whole_answer(pending: &[u8]) -> Option<&[u8]> {
    let (mut at, mut first) = (0, None);
    loop {
        let header = pending.get(at..at + HEADER)?;
        let content = at + HEADER..at + HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
        at = content.end + usize::from(header[6]);
        first.get_or_insert(content);
        if header[1] == END_REQUEST {
            return pending.get(..at).and(pending.get(first?));
        }
    }
}

/// The length of the first frame, its header included, if it is whole.
fn frame_len(pending: &[u8]) -> Option<usize> {
    let header = pending.first_chunk::<LENGTH>()?;
    let whole = LENGTH + u32::from_be_bytes(*header) as usize;
    (pending.len() >= whole).then_some(whole)
}
