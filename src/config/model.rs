//! What a node runs with: checked, complete, every default filled in.
//!
//! Plain values without serde; `written` holds what an operator may write and turns it into these.

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
    /// What bounds the whole node.
    pub limits: Limits,
    /// Logging.
    pub log: Log,
    /// The admin listener; `None` switches it off.
    pub admin: Option<Bind>,
    /// Its file, if that is a Unix socket.
    pub admin_socket: SocketFile,
    /// Who is where, and the port of commands.
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
    /// Worker threads; as many as cores when the operator wrote 0.
    pub threads: usize,
}

/// Bounds of the whole node.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Sessions at once, counted until their close event is delivered.
    pub max_sessions: usize,
    /// Sessions at once from one client address; 0 means no bound of its own.
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
    /// Limits, of apps too, that are counted and not acted upon.
    pub dry_run: Vec<Limit>,
}

/// How much of something there may be in the long run, and how much at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Each second; 0 sets no bound.
    pub per_second: u64,
    /// What may come at once after a time of silence.
    pub burst: u64,
}

impl Rate {
    /// Whether it bounds anything.
    pub fn is_bound(&self) -> bool {
        self.per_second > 0
    }
}

/// Logging.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// A `tracing` filter: `info`, or `info,longwire::upstream=debug`.
    pub level: String,
}

/// How log lines look.
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
    /// Its file, if that is a Unix socket.
    pub socket: SocketFile,
    /// `LONGWIRE_ROUTER`, where that is not simply `bind`.
    pub advertise: Option<String>,
    /// What clients must prove to know.
    pub secret: Option<Secret>,
    /// Whether the ancestor's commands are taken, which know no secret.
    pub short_protocol: bool,
    /// Largest message or value in a command.
    pub max_message_bytes: usize,
    /// Bytes of commands that are not whole yet, of all connections and of the API together.
    pub max_buffered_bytes: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Silence after which a connection is closed; zero never.
    pub idle_timeout: Duration,
    /// The same for one that speaks the short protocol, or may yet.
    pub short_idle_timeout: Duration,
    /// Channels whose rule for slow readers is not their members' own; the first pattern that matches counts.
    pub slow_readers: Vec<ChannelRule>,
    /// Bounds of what one session may be given.
    pub profile: ProfileLimits,
}

/// Other nodes, and what joins this one to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// What joins them.
    pub engine: ClusterEngine,
    /// TLS to it, where something is written about that.
    pub tls: Option<ClientTls>,
    /// What the names of subjects begin with.
    pub prefix: String,
    /// Silence after which a node is taken for unreachable.
    pub lease: Duration,
    /// How long a receipt waits for other nodes.
    pub receipt_timeout: Duration,
    /// How long a partition without members is listened to.
    pub linger: Duration,
    /// Bytes that may wait in each direction.
    pub queue_bytes: usize,
}

/// What joins nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterEngine {
    /// Nothing: this node is alone.
    Local,
    /// Redis or Valkey.
    Redis {
        /// Its servers.
        urls: Vec<Secret>,
        /// What stands behind them.
        kind: RedisKind,
    },
    /// NATS.
    Nats {
        /// Its servers.
        urls: Vec<Secret>,
    },
}

/// What stands behind the servers of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisKind {
    /// One server; of several the first that answers.
    Alone,
    /// Sentinels, which know where the master of this name is.
    Sentinel {
        /// As in `sentinel monitor NAME ...`.
        master: String,
    },
    /// Some of the servers of a cluster.
    Cluster,
}

/// What one session may be given by commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileLimits {
    /// Channels that it is in at once.
    pub max_channels: usize,
    /// Bytes of its attributes, keys and values.
    pub max_attribute_bytes: usize,
}

/// What happens when a frame is pushed to a client that reads too slowly: its outbox has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SlowReader {
    /// The session is closed.
    #[default]
    Close,
    /// Older pushes that may be dropped make room.
    Oldest,
    /// This push is dropped.
    Newest,
    /// A push that still waits is replaced by the next one with the same key, whether there is room or not.
    Latest,
}

/// The rule of some channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRule {
    /// A channel's name, or its beginning.
    pub pattern: Box<str>,
    /// `pattern` is a beginning.
    pub is_prefix: bool,
    /// What happens.
    pub rule: SlowReader,
}

impl ChannelRule {
    /// Whether the rule is for this channel.
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
    /// Where; `None` switches it off.
    pub bind: Option<Bind>,
    /// Its file, if that is a Unix socket.
    pub socket: SocketFile,
    /// The bearer token that requests must carry.
    pub token: Option<Secret>,
    /// Largest body of a request.
    pub max_body_bytes: usize,
}

/// Where to listen, or where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `host:port`; names are resolved when the config is checked.
    Tcp(SocketAddr),
    /// `unix:/path`.
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

/// Whose the file of a Unix socket is, and who may write to it: that is who may connect (unix(7)). `None` leaves it as the process
/// makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFile {
    /// Permissions, as chmod(2) takes them.
    pub mode: Option<u32>,
    /// A uid.
    pub owner: Option<u32>,
    /// A gid.
    pub group: Option<u32>,
}

/// One place where clients connect.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// `LONGWIRE_LISTENER`.
    pub name: String,
    /// Address.
    pub bind: Bind,
    /// Its file, if that is a Unix socket.
    pub socket: SocketFile,
    /// `listen(2)` backlog.
    pub backlog: u32,
    /// Seconds of silence after which TCP itself probes the peer, and how long unacknowledged bytes may wait.
    pub tcp: TcpOptions,
    /// Who begins each connection with a PROXY header; nobody else's is looked for.
    pub proxy_protocol: Networks,
    /// TLS in front of what is spoken there.
    pub tls: Option<Tls>,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// How a vanished peer is noticed below the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// SO_KEEPALIVE: first probe after this much silence.
    pub keepalive: Duration,
    /// TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged.
    pub user_timeout: Duration,
}

/// What a listener speaks.
#[derive(Clone, Debug, PartialEq)]
pub enum Protocol {
    /// Frames straight on the stream, all for one app.
    Stream {
        /// How bytes become frames.
        framing: StreamFraming,
        /// What keeps the link alive without PHP.
        heartbeat: Option<Heartbeat>,
        /// Who handles them.
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
    /// Whatever arrives is a frame.
    Raw,
    /// A script decides.
    Lua(LuaFraming),
}

impl StreamFraming {
    /// What cuts the bytes; `None` where a script does.
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

    /// Length framing, plain where no option of device protocols is used.
    pub fn of_packets(packet: PacketFraming) -> Self {
        if packet == packet.length.into() { Self::Length(packet.length) } else { Self::Packet(packet) }
    }

    /// Delimiter framing, plain where no option of device protocols is used.
    pub fn of_flagged(flagged: FlaggedFraming) -> Self {
        let plain = FlaggedFraming { delimiter: flagged.delimiter.clone(), ..FlaggedFraming::default() };
        if flagged == plain { Self::Delimiter(flagged.delimiter) } else { Self::Flagged(flagged) }
    }

    /// Where a length field stands, if there is one.
    pub fn length(&self) -> Option<&LengthFraming> {
        match self {
            Self::Length(length) => Some(length),
            Self::Packet(packet) => Some(&packet.length),
            _ => None,
        }
    }
}

/// A framing in Lua, and what its script may use up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LuaFraming {
    /// The file, absolute.
    pub script: PathBuf,
    /// Instructions that one call may take.
    pub max_instructions: u64,
    /// Memory of each VM.
    pub max_memory_bytes: usize,
}

/// An HTTP listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Files of this folder are served where no route matches.
    pub static_dir: Option<PathBuf>,
    /// Exact paths (no trailing `*`) or prefixes (`/live/*`), longest match first.
    pub routes: Vec<Route>,
    /// WebSocket settings of this listener.
    pub websocket: WebSocket,
    /// Whose word counts on who the client is.
    pub forwarding: Forwarding,
    /// HTTP/2 is spoken too.
    pub http2: bool,
    /// For clients without WebSocket.
    pub sse: Sse,
}

/// What is believed of a request that a proxy passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// Proxies that are believed.
    pub trusted_proxies: Networks,
    /// The header that they write.
    pub dialect: Dialect,
}

/// A path and who handles it.
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
    /// Whose pages may connect.
    pub origins: Origins,
    /// Negotiate permessage-deflate (RFC 7692) without context takeover.
    pub deflate: bool,
    /// Frames (replies, pushes) below this many bytes are sent uncompressed.
    pub deflate_min_bytes: usize,
    /// Silence after which we ping; zero never pings.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub pong_timeout: Duration,
    /// How long the peer may take to answer our close frame.
    pub close_timeout: Duration,
}

/// Sessions of clients that speak in HTTP requests: event streams and polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sse {
    /// Whether there are any.
    pub enabled: bool,
    /// Silence after which a comment is sent on a stream; zero never sends one.
    pub heartbeat: Duration,
    /// How long a poll waits for a frame.
    pub poll_timeout: Duration,
    /// How long a client may take from one poll to the next.
    pub poll_gap: Duration,
}

/// A bound on the events of several sessions that run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcurrencyPer {
    /// Sessions in which this is the same share the bound; those without it have none.
    pub by: GroupBy,
    /// The most of their events that run at once. At least 1.
    pub limit: u32,
}

/// What tells whose session it is.
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
    /// Its name.
    pub name: String,
    /// Name of the upstream.
    pub upstream: String,
    /// `SCRIPT_FILENAME`, absolute, as php-fpm sees the file.
    pub script: PathBuf,
    /// `DOCUMENT_ROOT`.
    pub document_root: PathBuf,
    /// `SCRIPT_NAME`: the script below the document root.
    pub script_name: String,
    /// `REQUEST_URI` on stream listeners; HTTP listeners use the URI of the upgrade request.
    pub uri: String,
    /// Which events beside `message` PHP is told.
    pub events: Events,
    /// Events of one session that may run at once; above 1 order is given up.
    pub concurrency: usize,
    /// Whose events share a bound on how many of them run at once, over all their sessions.
    pub concurrency_per: Option<ConcurrencyPer>,
    /// Put before `SESSIONID` and `EVENT` (`HTTP_`, which Go's net/http/fcgi needs).
    pub param_prefix: String,
    /// Further params, constant; the values may be secrets, so they are not shown.
    pub params: Vec<(String, Secret)>,
    /// The handler may safely see a message twice: an ambiguous failure is retried once.
    pub idempotent: bool,
    /// A request that is neither a WebSocket nor a session's is given to the handler as any web server would.
    pub plain_requests: bool,
    /// WebSocket sub-protocols, the preferred one first.
    pub subprotocols: Vec<String>,
    /// A GET that accepts `text/event-stream` opens a session.
    pub event_streams: bool,
    /// Whose manner the handler keeps to.
    pub compat: Compat,
    /// What a failed message does.
    pub on_error: OnError,
    /// Largest frame from a client.
    pub max_frame_bytes: usize,
    /// Largest reply that must be held back whole (no `Content-Length`, negative `Content-Offset`, lines).
    pub max_reply_bytes: usize,
    /// Frames that wait in one session behind the one in flight; the socket is not read beyond.
    pub max_queued_frames: usize,
    /// Bytes of them.
    pub max_queued_bytes: usize,
    /// Bytes that wait for one client to read.
    pub outbox_bytes: usize,
    /// What happens when they are as many and one more is pushed.
    pub slow_reader: SlowReader,
    /// How long a client with a full outbox may take none of it.
    pub send_timeout: Duration,
    /// Silence from the client after which the session ends; zero never.
    pub idle_timeout: Duration,
    /// Connect events, of all sessions together.
    pub connect_rate: Rate,
    /// Frames of one session.
    pub frame_rate: Rate,
    /// Bytes of one session, read from its socket.
    pub byte_rate: Rate,
    /// What becomes of a session that is faster.
    pub rate_rule: RateRule,
    /// Silence within a frame; zero never ends a session.
    pub frame_idle_timeout: Duration,
    /// From the first byte of a frame to its last; zero sets no bound.
    pub frame_timeout: Duration,
}

/// Whose manner a handler keeps to, where Longwire's own is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// Longwire's: what is printed is the reply.
    #[default]
    None,
    /// fooking's (docs/fooking.md): only what is announced is a reply, nothing is sent or asked for an empty frame, and an answer to
    /// connect decides nothing.
    Fooking,
}

impl Compat {
    /// It is the ancestor's.
    pub fn is_fooking(self) -> bool {
        self == Compat::Fooking
    }
}

/// What becomes of a session that sends faster than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateRule {
    /// It is not read for a while, so TCP holds the client back.
    Wait,
    /// It is closed.
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
    /// `EVENT=4`: it has left it.
    pub leave: bool,
    /// `EVENT=5`: a channel has its first member.
    pub occupied: bool,
    /// `EVENT=6`: it has lost its last one.
    pub vacated: bool,
}

impl Events {
    /// Something of sessions in channels is to be told.
    pub fn of_channels(&self) -> bool {
        self.join || self.leave || self.occupied || self.vacated
    }
}

/// What a failed message (5xx, timeout, backend away) does to its session.
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
    /// Its name.
    pub name: String,
    /// Its addresses; empty when `spawn` makes them.
    pub backends: Vec<Backend>,
    /// An embedded php-fpm.
    pub spawn: Option<Spawn>,
    /// Connections to each backend at once: at or below its `pm.max_children`, less what others need.
    pub max_connections: usize,
    /// Backends are asked how many they take; fewer lower `max_connections` for the one that says so.
    pub ask_limits: bool,
    /// How long a connection is kept while no work waits.
    pub linger: Duration,
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// Silence from the script, before its first byte and between bytes.
    pub response_timeout: Duration,
    /// From the start of a request to its END_REQUEST.
    pub request_timeout: Duration,
    /// Messages that may wait for a connection. `None`: as many as sessions have under way.
    pub queue_length: Option<usize>,
    /// How long a message or connect event may wait.
    pub queue_timeout: Duration,
    /// Connect events that may wait. `None`: one for each session.
    pub connect_queue_length: Option<usize>,
    /// Connections out of a hundred that connect events may hold while messages wait; at least one.
    pub connect_share_percent: u8,
    /// In all, how long an answer may wait for its client while more than half of the connections do so and requests wait; zero sets no
    /// bound.
    pub slow_reader_hold: Duration,
    /// After an abort, how long the script may take to notice before its connection is closed.
    pub abort_grace: Duration,
    /// Failures in a row that eject a backend.
    pub eject_after: u32,
    /// How long an ejected backend is left alone before it is tried again.
    pub eject_time: Duration,
    /// Between two probes of a backend with no connection open; zero probes at the start only.
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
    /// The binary; `None` looks for `php-fpm8.x` and `php-fpm`.
    pub binary: Option<PathBuf>,
    /// `pm.max_children`.
    pub workers: usize,
    /// How long one request may take until php-fpm kills its worker; zero: for ever.
    pub request_terminate_timeout: Duration,
    /// Look for changed files at each request.
    pub recheck_files: bool,
    /// Further `php_admin_value` lines of the pool.
    pub ini: Vec<(String, String)>,
}
