//! The server of a run: its address, its protocol, and everything that can be prepared once for all connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use http::header;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockAddr, Socket, Type};

use crate::commands::cli::BenchArgs;
use crate::commands::client::server_address::ServerAddress;
use crate::commands::client::{self, handshake, tls};
use crate::proto::framing::{Framing, LengthFraming};
use crate::sockets;

/// Number of source addresses that are used in turn on loopback, because one address has only about 28 000 ports for connections to one
/// server.
const LOOPBACK_SOURCES: usize = 64;

/// A server.
pub(super) struct Endpoint {
    address: Address,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub(super) speech: Speech,
    pub(super) max_frame_bytes: usize,
}

enum Address {
    Ip(SocketAddr),
    Unix(PathBuf),
}

/// The protocol.
pub(super) enum Speech {
    /// Frames from the first byte on.
    Stream(Framing),
    /// Frames after a handshake. The request is kept in two parts: before and after the value of its key.
    WebSocket { before_key: Vec<u8>, after_key: Vec<u8>, framing: Framing },
    /// A POST for each message. The request's head is kept up to the value of Content-Length.
    Http { before_length: Vec<u8> },
}

impl Endpoint {
    /// Reads a URL. `with_http` says whether `http://` is allowed.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the URL or the options.
    pub(super) fn new(url: &str, headers: &[String], args: &BenchArgs, with_http: bool) -> Result<Self, String> {
        // The WebSocket schemes are parsed already, and HTTP URLs have the same parts.
        let as_web = [("https://", "wss://"), ("http://", "ws://")]
            .iter()
            .find_map(|(scheme, alike)| url.strip_prefix(scheme).map(|rest| format!("{alike}{rest}")));
        let is_http = as_web.is_some();
        if is_http && !with_http {
            return Err(format!("{url:?} cannot receive frames: use tcp://, tls://, unix:, ws:// or wss://"));
        }
        let server = ServerAddress::parse(as_web.as_deref().unwrap_or(url))?;
        let (address, name, speech) = match server {
            ServerAddress::Tcp { address, tls } => (resolve(&address)?, tls, Speech::Stream(framing(args)?)),
            ServerAddress::Unix(path) => (Address::Unix(path), None, Speech::Stream(framing(args)?)),
            ServerAddress::WebSocket { address, host, path, tls } => {
                let speech = if is_http { post(&host, &path, headers)? } else { upgrade(&host, &path, headers)? };
                (resolve(&address)?, tls, speech)
            }
        };
        let protocol = match speech {
            Speech::Stream(_) => None,
            Speech::WebSocket { .. } | Speech::Http { .. } => Some(&b"http/1.1"[..]),
        };
        let tls = name.map(|name| Ok::<_, String>((Arc::new(tls::config(protocol, &args.tls)?), name))).transpose()?;
        Ok(Self { address, tls, speech, max_frame_bytes: args.max_frame_bytes })
    }

    /// The router port, which does not carry client frames.
    pub(super) fn router(address: &str, max_frame_bytes: usize) -> Result<Self, String> {
        let speech = Speech::Stream(Framing::Raw);
        Ok(Self { address: resolve(address)?, tls: None, speech, max_frame_bytes })
    }

    /// Starts to connect; the connection is established once the socket is writable. `turn` selects the source address.
    pub(super) fn begin(&self, turn: usize) -> io::Result<Socket> {
        let (socket, address) = match &self.address {
            Address::Ip(address) => {
                let socket = sockets::tcp(*address)?;
                socket.set_nonblocking(true)?;
                if let IpAddr::V4(ip) = address.ip()
                    && ip.is_loopback()
                {
                    bind_without_port(&socket, source(turn))?;
                }
                (socket, SockAddr::from(*address))
            }
            Address::Unix(path) => (sockets::unix(Type::STREAM.nonblocking())?, SockAddr::unix(path)?),
        };
        match socket.connect(&address) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
            Err(error) => Err(error),
            Ok(()) => Ok(socket),
        }
    }

    /// Whether this is a Unix socket. epoll reports those as writable at every read of the peer.
    pub(super) fn is_unix(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// The TLS state for a new connection; `None` without TLS.
    pub(super) fn tls(&self) -> Result<Option<Box<rustls::ClientConnection>>, rustls::Error> {
        let Some((config, name)) = &self.tls else { return Ok(None) };
        let mut connection = rustls::ClientConnection::new(config.clone(), name.clone())?;
        // No limit is needed: a run sends a bounded number of messages at once.
        connection.set_buffer_limit(None);
        Ok(Some(Box::new(connection)))
    }

    /// Whether the protocol sends nothing when it accepts a client: no handshake, no TLS.
    pub(super) fn is_silent(&self) -> bool {
        self.tls.is_none() && matches!(self.speech, Speech::Stream(_))
    }

    /// Whether frames have no boundaries on the wire.
    pub(super) fn is_raw(&self) -> bool {
        matches!(self.speech, Speech::Stream(Framing::Raw))
    }
}

fn framing(args: &BenchArgs) -> Result<Framing, String> {
    let framing = client::stream_framing(&args.framing)?;
    let keeps_header = match &framing {
        Framing::Length(LengthFraming { keep_header, .. }) => *keep_header,
        Framing::Packet(packet) => packet.length.keep_header,
        _ => false,
    };
    if keeps_header {
        return Err("--keep-header does not work with bench, which sends messages without a header of their own".into());
    }
    Ok(framing)
}

fn resolve(address: &str) -> Result<Address, String> {
    let mut found = address.to_socket_addrs().map_err(|error| format!("{address}: {error}"))?;
    found.next().map(Address::Ip).ok_or_else(|| format!("{address}: host not found"))
}

fn source(turn: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 1 + (turn % LOOPBACK_SOURCES) as u8)
}

/// Leaves the choice of the port to connect(2), when the kernel knows the server. So one port can be used for several servers.
fn bind_without_port(socket: &Socket, ip: Ipv4Addr) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for as long as `socket` is, and the kernel reads an int behind the pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&SockAddr::from(SocketAddrV4::new(ip, 0)))
}

fn upgrade(host: &str, path: &str, headers: &[String]) -> Result<Speech, String> {
    let mut head = head("GET", host, path, headers)?;
    head.extend_from_slice(
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
    );
    let framing = Framing::WebSocket { deflate: None };
    Ok(Speech::WebSocket { before_key: head, after_key: b"\r\n\r\n".to_vec(), framing })
}

fn post(host: &str, path: &str, headers: &[String]) -> Result<Speech, String> {
    let mut head = head("POST", host, path, headers)?;
    if !names(headers, &header::CONTENT_TYPE) {
        head.extend_from_slice(b"Content-Type: text/plain\r\n");
    }
    head.extend_from_slice(b"Content-Length: ");
    Ok(Speech::Http { before_length: head })
}

fn head(method: &str, host: &str, path: &str, headers: &[String]) -> Result<Vec<u8>, String> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    if !names(headers, &header::HOST) {
        head.extend_from_slice(format!("Host: {host}\r\n").as_bytes());
    }
    for line in headers {
        let (name, value) = handshake::parse_header(line)?;
        if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
            return Err(format!("--header cannot set {name}: it is the length of the message"));
        }
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    Ok(head)
}

fn names(headers: &[String], wanted: &header::HeaderName) -> bool {
    headers.iter().any(|line| handshake::parse_header(line).is_ok_and(|(name, _)| name == *wanted))
}
