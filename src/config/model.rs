//! The configuration that a node runs with: checked, complete, every default filled in.
//!
//! Plain values without serde. `written` holds the operator's values, and `resolve` turns them into these.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Secret;
pub use super::network::Networks;
pub use super::origins::{OriginPattern, Origins};
pub use crate::certificates::{ClientCerts, ClientSettings as ClientTls, Settings as Tls};
pub use crate::metrics::limits::Limit;
pub use crate::proto::forwarded::Dialect;
use crate::proto::framing::Framing;
pub use crate::proto::framing::{
    DelimiterFraming, Endian, Escape, FlaggedFraming, LengthCounts, LengthFraming, PacketFraming,
};
pub use crate::proto::heartbeat::Heartbeat;

/// A whole node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This node's name and size.
    pub node: Node,
    /// Bounds of the whole node.
    pub limits: Limits,
    /// Logging.
    pub log: Log,
    /// The admin listener; `None` switches it off.
    pub admin: Option<Bind>,
    /// The file of the admin listener, if it is a Unix socket.
    pub admin_socket: SocketFile,
    /// The router and its port.
    pub router: Router,
    /// Commands over HTTP.
    pub api: Api,
    /// Other nodes.
    pub cluster: Cluster,
    /// Where clients connect, in the order written.
    pub listeners: Vec<Listener>,
    /// The named handlers.
    pub apps: Vec<Arc<App>>,
    /// The sets of FastCGI addresses.
    pub upstreams: Vec<Upstream>,
}

/// The process itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// `LONGWIRE_NODE`.
    pub name: String,
    /// Goes into every session id; below [`crate::proto::id::SessionId::NODES`].
    pub number: u16,
    /// Worker threads. If the operator wrote 0, half as many as there are cores, and at least one.
    pub threads: usize,
}

/// Bounds of the whole node.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Sessions at once, counted until their close event is delivered.
    pub max_sessions: usize,
    /// Sessions at once from one client address; 0 means no such bound.
    pub max_sessions_per_address: usize,
    /// Connections, all of them.
    pub accept_rate: Rate,
    /// Connections from one client address.
    pub accept_rate_per_address: Rate,
    /// HTTP connections that have not become a session yet.
    pub max_handshakes: usize,
    /// From accept to a whole handshake.
    pub handshake_timeout: Duration,
    /// Bytes of one HTTP request head.
    pub max_header_bytes: usize,
    /// From the first signal to the end.
    pub drain_timeout: Duration,
    /// Limits, also those of apps, that are counted but not enforced.
    pub dry_run: Vec<Limit>,
}

/// A rate in the long run, and how much may come at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Each second; 0 sets no bound.
    pub per_second: u64,
    /// How much may come at once after a time of silence.
    pub burst: u64,
}

impl Rate {
    /// Whether it sets a bound.
    pub fn is_bound(&self) -> bool {
        self.per_second > 0
    }
}

/// Logging.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The format of the lines.
    pub format: LogFormat,
    /// A `tracing` filter: `info`, or `info,longwire::upstream=debug`.
    pub level: String,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The router and its port.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    /// The port of commands; `None` switches it off.
    pub bind: Option<Bind>,
    /// The file of that port, if it is a Unix socket.
    pub socket: SocketFile,
    /// `LONGWIRE_ROUTER`, if it differs from `bind`.
    pub advertise: Option<String>,
    /// The secret that clients must prove to know.
    pub secret: Option<Secret>,
    /// Whether fooking's short protocol is accepted, which has no secret.
    pub short_protocol: bool,
    /// Largest message or value in a command.
    pub max_message_bytes: usize,
    /// Bytes of incomplete commands, over all connections and the API together.
    pub max_buffered_bytes: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Silence after which a connection is closed; zero for never.
    pub idle_timeout: Duration,
    /// The same for a connection that speaks the short protocol, or may still do so.
    pub short_idle_timeout: Duration,
    /// Channels with their own rule for slow readers. The first pattern that matches counts; other channels follow their members' rules.
    pub slow_readers: Vec<ChannelRule>,
    /// Bounds of the channels and attributes of one session.
    pub profile: ProfileLimits,
}

/// The engine between nodes, and the timing of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    pub engine: ClusterEngine,
    /// TLS to the engine, if the table is written.
    pub tls: Option<ClientTls>,
    /// Prefix of the names of subjects.
    pub prefix: String,
    /// Silence after which a node counts as unreachable.
    pub lease: Duration,
    /// How long a receipt waits for other nodes.
    pub receipt_timeout: Duration,
    /// How long a partition without members stays subscribed.
    pub linger: Duration,
    /// Bytes that may wait in each direction.
    pub queue_bytes: usize,
}

/// The engine that connects nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterEngine {
    /// Nothing: this node is alone.
    Local,
    /// Redis or Valkey.
    Redis {
        /// Its servers.
        urls: Vec<Secret>,
        /// The kind of servers.
        kind: RedisKind,
    },
    Nats {
        /// Its servers.
        urls: Vec<Secret>,
    },
}

/// The kind of Redis servers that the addresses belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisKind {
    /// One server. If several are given, the first that answers.
    Alone,
    /// Sentinels, which know where the master of this name is.
    Sentinel {
        /// As in `sentinel monitor NAME ...`.
        master: String,
    },
    /// Some of the servers of a cluster.
    Cluster,
}

/// Limits of the channels and attributes that commands may give one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileLimits {
    /// Channels that it is in at once.
    pub max_channels: usize,
    /// Bytes of its attributes, keys and values.
    pub max_attribute_bytes: usize,
}

/// The fate of a push when the client reads too slowly, so that its outbox has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SlowReader {
    /// The session is closed.
    #[default]
    Close,
    /// Older pushes that may be dropped make room.
    Oldest,
    /// This push is dropped.
    Newest,
    /// A waiting push is replaced by the next one with the same key, even if there is room.
    Latest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRule {
    /// A channel's name, or a prefix of it.
    pub pattern: Box<str>,
    /// `pattern` is a prefix.
    pub is_prefix: bool,
    pub rule: SlowReader,
}

impl ChannelRule {
    /// Whether the rule applies to this channel.
    pub fn matches(&self, channel: &[u8]) -> bool {
        match self.is_prefix {
            true => channel.starts_with(self.pattern.as_bytes()),
            false => channel == self.pattern.as_bytes(),
        }
    }
}

/// Commands over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// The address; `None` switches it off.
    pub bind: Option<Bind>,
    /// The file of that address, if it is a Unix socket.
    pub socket: SocketFile,
    /// The bearer token that requests must carry.
    pub token: Option<Secret>,
    /// Largest body of a request.
    pub max_body_bytes: usize,
}

/// A listening address, or the address of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `host:port`; names are resolved when the config is checked.
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Tcp(address) => address.fmt(f),
            Bind::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Owner and permissions of the file of a Unix socket. A client needs write permission to connect (unix(7)). `None` leaves a value as
/// the process creates it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFile {
    /// Permissions, as chmod(2) takes them.
    pub mode: Option<u32>,
    /// A uid.
    pub owner: Option<u32>,
    /// A gid.
    pub group: Option<u32>,
}

/// One listener for clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// `LONGWIRE_LISTENER`.
    pub name: String,
    /// Address.
    pub bind: Bind,
    /// The file of that address, if it is a Unix socket.
    pub socket: SocketFile,
    /// `listen(2)` backlog.
    pub backlog: u32,
    /// TCP keepalive and user timeout of its connections.
    pub tcp: TcpOptions,
    /// Peers that begin each connection with a PROXY header. Connections of other peers are not checked for one.
    pub proxy_protocol: Networks,
    /// TLS in front of the protocol.
    pub tls: Option<Tls>,
    /// The protocol of the clients.
    pub protocol: Protocol,
}

/// How a dead peer is noticed below the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// SO_KEEPALIVE: first probe after this much silence.
    pub keepalive: Duration,
    /// TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged.
    pub user_timeout: Duration,
}

/// The protocol of a listener.
#[derive(Clone, Debug, PartialEq)]
pub enum Protocol {
    /// Frames straight on the stream, all for one app.
    Stream {
        /// How bytes become frames.
        framing: StreamFraming,
        /// Keeps the link alive without PHP.
        heartbeat: Option<Heartbeat>,
        /// The app that handles the frames.
        app: Arc<App>,
    },
    /// HTTP with WebSocket upgrades, event streams, polls and plain requests, routed by path.
    Http(Http),
}

/// How bytes become frames on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamFraming {
    /// A header says how long the frame is.
    Length(LengthFraming),
    /// A byte string ends the frame.
    Delimiter(DelimiterFraming),
    /// The same with the options of device protocols.
    Packet(PacketFraming),
    /// A delimiter with the options of device protocols.
    Flagged(FlaggedFraming),
    /// Silence of this length ends a frame.
    Gap(Duration),
    /// Each chunk of bytes, as it arrives, is a frame.
    Raw,
    /// A script cuts the frames.
    Lua(LuaFraming),
}

impl StreamFraming {
    /// The framing that cuts the bytes; `None` for a script.
    pub fn framing(&self) -> Option<Framing> {
        Some(match self {
            Self::Length(length) => Framing::Length(*length),
            Self::Delimiter(delimiter) => Framing::Delimiter(Arc::new(delimiter.clone())),
            Self::Packet(packet) => Framing::Packet(Arc::new(packet.clone())),
            Self::Flagged(flagged) => Framing::Flagged(Arc::new(flagged.clone())),
            Self::Gap(gap) => Framing::Gap(*gap),
            Self::Raw => Framing::Raw,
            Self::Lua(_) => return None,
        })
    }

    /// Length framing, which is plain if no option of device protocols is used.
    pub fn of_packets(packet: PacketFraming) -> Self {
        if packet == packet.length.into() { Self::Length(packet.length) } else { Self::Packet(packet) }
    }

    /// Delimiter framing, which is plain if no option of device protocols is used.
    pub fn of_flagged(flagged: FlaggedFraming) -> Self {
        let plain = FlaggedFraming { delimiter: flagged.delimiter.clone(), ..FlaggedFraming::default() };
        if flagged == plain { Self::Delimiter(flagged.delimiter) } else { Self::Flagged(flagged) }
    }

    /// The length field, if there is one.
    pub fn length(&self) -> Option<&LengthFraming> {
        match self {
            Self::Length(length) => Some(length),
            Self::Packet(packet) => Some(&packet.length),
            _ => None,
        }
    }
}

/// A framing in Lua, and the limits of its script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LuaFraming {
    /// The file, absolute.
    pub script: PathBuf,
    /// Instructions that one call may use.
    pub max_instructions: u64,
    /// Memory of each VM.
    pub max_memory_bytes: usize,
}

/// An HTTP listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Files of this folder are served if no route matches.
    pub static_dir: Option<PathBuf>,
    /// Exact paths (no trailing `*`) or prefixes (`/live/*`), longest match first.
    pub routes: Vec<Route>,
    /// WebSocket settings of this listener.
    pub websocket: WebSocket,
    /// Proxies that are trusted to name the client.
    pub forwarding: Forwarding,
    /// HTTP/2 is supported too.
    pub http2: bool,
    /// For clients without WebSocket.
    pub sse: Sse,
}

/// How forwarding headers of proxies are handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// Proxies whose header is trusted.
    pub trusted_proxies: Networks,
    /// The header that they write.
    pub dialect: Dialect,
}

/// A path and its app.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Begins with `/`; ends with `/*` for a prefix.
    pub path: String,
    /// The handler.
    pub app: Arc<App>,
}

/// WebSocket settings.
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocket {
    /// Web pages that may connect.
    pub origins: Origins,
    /// Negotiate permessage-deflate (RFC 7692) without context takeover.
    pub deflate: bool,
    /// Frames (replies, pushes) below this many bytes are sent uncompressed.
    pub deflate_min_bytes: usize,
    /// Silence after which a ping is sent; zero for never.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub pong_timeout: Duration,
    /// How long the peer may take to answer our close frame.
    pub close_timeout: Duration,
}

/// Sessions of clients that use HTTP requests: event streams and polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sse {
    /// Whether there are any.
    pub enabled: bool,
    /// Silence on a stream after which a comment is sent; zero for never.
    pub heartbeat: Duration,
    /// How long a poll waits for a frame.
    pub poll_timeout: Duration,
    /// How long a client may take from one poll to the next.
    pub poll_gap: Duration,
}

/// A limit on how many events of several sessions run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcurrencyPer {
    /// Sessions with the same value share the limit. Sessions without a value have none.
    pub by: GroupBy,
    /// The most of their events that run at once. At least 1.
    pub limit: u32,
}

/// The value that groups sessions by user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// The uid that an answer or a command has bound to it.
    Uid,
    /// The value of the cookie of this name.
    Cookie(String),
}

/// A named handler.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    pub name: String,
    /// Name of the upstream.
    pub upstream: String,
    /// `SCRIPT_FILENAME`, absolute, as php-fpm sees the file.
    pub script: PathBuf,
    pub document_root: PathBuf,
    /// `SCRIPT_NAME`: the script below the document root.
    pub script_name: String,
    /// `REQUEST_URI` on stream listeners; HTTP listeners use the URI of the upgrade request.
    pub uri: String,
    /// Events beside `message` that PHP gets.
    pub events: Events,
    /// Events of one session that may run at once; above 1 order is given up.
    pub concurrency: usize,
    /// A limit on how many events of one user run at once, over all sessions of that user.
    pub concurrency_per: Option<ConcurrencyPer>,
    /// Put before `SESSIONID` and `EVENT` (`HTTP_`, which Go's net/http/fcgi needs).
    pub param_prefix: String,
    /// Further params, constant; the values may be secrets, so they are not shown.
    pub params: Vec<(String, Secret)>,
    /// The handler may safely see a message twice: an ambiguous failure is retried once.
    pub idempotent: bool,
    /// Requests that belong to neither a WebSocket nor a session go to the handler, as with any web server.
    pub plain_requests: bool,
    /// WebSocket sub-protocols, the preferred one first.
    pub subprotocols: Vec<String>,
    /// A GET that accepts `text/event-stream` opens a session.
    pub event_streams: bool,
    /// The compatibility mode of the handler.
    pub compat: Compat,
    /// The effect of a failed message.
    pub on_error: OnError,
    /// Largest frame from a client.
    pub max_frame_bytes: usize,
    /// Largest reply that must be held back whole (no `Content-Length`, negative `Content-Offset`, lines).
    pub max_reply_bytes: usize,
    /// Frames that wait in one session behind the running one. While the limit is reached, the socket is not read.
    pub max_queued_frames: usize,
    /// Bytes of waiting frames.
    pub max_queued_bytes: usize,
    /// Bytes that wait for one client to read.
    pub outbox_bytes: usize,
    /// The rule for a push that finds the outbox full.
    pub slow_reader: SlowReader,
    /// How long a client with a full outbox may read nothing of it.
    pub send_timeout: Duration,
    /// Silence of the client after which the session ends; zero for never.
    pub idle_timeout: Duration,
    /// Connect events, of all sessions together.
    pub connect_rate: Rate,
    /// Frames of one session.
    pub frame_rate: Rate,
    /// Bytes of one session, read from its socket.
    pub byte_rate: Rate,
    /// The rule for a session that exceeds `frame_rate` or `byte_rate`.
    pub rate_rule: RateRule,
    /// Silence within a frame after which the session ends; zero for never.
    pub frame_idle_timeout: Duration,
    /// From the first byte of a frame to its last; zero sets no bound.
    pub frame_timeout: Duration,
}

/// The compatibility mode of a handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// Longwire's own: the script's output is the reply.
    #[default]
    None,
    /// fooking's (docs/fooking.md): only announced output is a reply, empty frames are neither sent nor passed to PHP, and the answer to
    /// connect decides nothing.
    Fooking,
}

impl Compat {
    /// It is fooking's.
    pub fn is_fooking(self) -> bool {
        self == Compat::Fooking
    }
}

/// The rule for a session that sends faster than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateRule {
    /// Its socket is not read for a while, so TCP holds the client back.
    Wait,
    Close,
}

/// Which events an app wants beside `message`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// `EVENT=1`
    pub connect: bool,
    /// `EVENT=2`
    pub close: bool,
    /// `EVENT=3`: a session has joined a channel.
    pub join: bool,
    /// `EVENT=4`: a session has left a channel.
    pub leave: bool,
    /// `EVENT=5`: a channel has its first member.
    pub occupied: bool,
    /// `EVENT=6`: a channel has lost its last member.
    pub vacated: bool,
}

impl Events {
    /// Whether any event of channels is wanted.
    pub fn of_channels(&self) -> bool {
        self.join || self.leave || self.occupied || self.vacated
    }
}

/// The effect of a failed message (5xx, timeout, no backend) on its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Nothing is sent, the session stays.
    Ignore,
    /// These bytes are sent as one frame.
    Send(String),
    /// The session is closed.
    Close,
}

/// A set of FastCGI addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    pub name: String,
    /// Its addresses; empty if `spawn` provides one.
    pub backends: Vec<Backend>,
    /// An embedded php-fpm.
    pub spawn: Option<Spawn>,
    /// Connections to each backend at once: at most its `pm.max_children`, less the workers that other clients need.
    pub max_connections: usize,
    /// Whether backends are asked how many connections they take. A lower number lowers `max_connections` for that backend.
    pub ask_limits: bool,
    /// How long a connection is kept while no request waits.
    pub linger: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Silence from the script, before its first byte and between bytes.
    pub response_timeout: Duration,
    /// From the start of a request to its END_REQUEST.
    pub request_timeout: Duration,
    /// Messages that may wait for a connection. `None`: no limit beyond what sessions may have under way.
    pub queue_length: Option<usize>,
    /// How long a message or connect event may wait.
    pub queue_timeout: Duration,
    /// Connect events that may wait. `None`: one for each session.
    pub connect_queue_length: Option<usize>,
    /// Percentage of the connections that connect events may hold while messages wait; at least one connection.
    pub connect_share_percent: u8,
    /// How long one answer may wait for its client in all, while more than half of the connections do so and requests wait. Zero sets no
    /// limit.
    pub slow_reader_hold: Duration,
    /// After an abort, how long the script may take to end before its connection is closed.
    pub abort_grace: Duration,
    /// Failures in a row that eject a backend.
    pub eject_after: u32,
    /// How long an ejected backend gets no requests before it is tried again.
    pub eject_time: Duration,
    /// Time between two probes of a backend without an open connection; zero probes at the start only.
    pub probe_interval: Duration,
}

/// One FastCGI address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it is.
    pub address: Bind,
    /// Its share among the backends.
    pub weight: u32,
}

/// An embedded php-fpm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawn {
    /// The binary; `None` searches for `php-fpm8.x` and `php-fpm`.
    pub binary: Option<PathBuf>,
    /// `pm.max_children`.
    pub workers: usize,
    /// How long one request may take until php-fpm kills its worker; zero for no limit.
    pub request_terminate_timeout: Duration,
    /// Check for changed files at each request.
    pub recheck_files: bool,
    /// Further `php_admin_value` lines of the pool.
    pub ini: Vec<(String, String)>,
}
