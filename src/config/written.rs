//! The configuration as operators write it: every table and key, its type, its default beside the reason for it, its meaning.
//!
//! `longwire defaults` and README.md print the doc comments here, so these are written for operators. Comments with two slashes are
//! for developers. The type of a value has the rules about that value, and `resolve` has the rules about several values.

use super::account::{Account, Mode};
use super::address::{Address, AddressOrOff};
use super::compound::{Backends, CertificatePairs, ChannelRules, Ini, Params, Routes, Subprotocols};
use super::config_table::config_table;
use super::framing_value::{
    Adjustment, CopiedBytes, Delimiter, Escapes, HeartbeatBytes, LengthWidth, Marker, Pattern, SequencePlace,
};
use super::model::{
    ClientCerts, Compat, Dialect, Endian, GroupBy, LengthCounts, Limit, LogFormat, Networks, OnError, Origins,
    RateRule, SlowReader,
};
use super::problem::{Place, Report};
use super::schema::{Entry, Field, IfWritten, Key, Named, OnlyWhen, Section, Table, absent, is, required, table};
use super::secret::SecretText;
use super::value::{Choice, SecretTexts, Set, Size, Time, TimeOrOff, Whole};

/// Upper limit of all sizes that become buffers. Nothing larger should reach PHP in one piece.
const LARGEST: u64 = 4 << 30;

config_table! {
    /// The whole file.
    Written {
        /// The process itself.
        node: Node = table();
        /// Limits of the whole node.
        limits: Limits = table();
        /// Logging, to standard error.
        log: Log = table();
        /// Metrics and health over HTTP: `/metrics`, `/live`, `/ready`.
        admin: Admin = table();
        /// The router: which session is in which channel, and the port on which programs send commands.
        router: Router = table();
        /// The router's commands over HTTP, in JSON.
        api: Api = table();
        /// Other nodes, and the engine that joins this node to them (docs/cluster.md).
        cluster: Cluster = table();
        /// Where clients connect, one table each.
        listeners: Named<Listener> = table();
        /// The PHP scripts that handle what clients send, one table each.
        apps: Named<App> = table();
        /// Where PHP runs, one table each.
        upstreams: Named<Upstream> = table();
    }
}

config_table! {
    /// The process itself.
    Node {
        /// Name of this node, in logs and in the param LONGWIRE_NODE.
        name: Option<Entry<String>> = absent("the host's name", "\"edge-1\"");
        /// Number of this node, which is part of every session id. Nodes that know each other need different numbers.
        number: Entry<Whole<0, 4095>> = is("0");
        /// Worker threads; 0 starts one for every two cores. PHP needs several times the CPU time of Longwire. Set it to the number of
        /// cores if php-fpm runs on another machine, or if messages go to many more clients than they come from.
        threads: Entry<Whole<0, 1024>> = is("0");
    }
}

config_table! {
    /// Limits of the whole node.
    Limits {
        /// Sessions at once. A smaller limit of open files lowers it.
        // About 5 KB each with the kernel's part, measured: half a gigabyte.
        max_sessions: Entry<Whole<1, 100_000_000>> = is("100_000");
        /// Sessions at once from one client address (for IPv6, from one /64); 0 means no limit.
        // Offices and mobile networks put thousands of people behind one address, and so does a proxy in front of Longwire.
        max_sessions_per_address: Entry<Whole<0, 100_000_000>> = is("0");
        /// New connections per second, on all listeners together; 0 means no limit.
        // After a restart all clients come back at once, as they should. connect_rate is the limit that protects PHP.
        accept_rate: Entry<PerSecond> = is("0");
        /// Connections that may arrive at once after a quiet period.
        accept_burst: Option<Entry<Burst>> = absent("accept_rate", "1000");
        /// New connections per second from one client address (for IPv6, from one /64); 0 means no limit.
        // See max_sessions_per_address.
        accept_rate_per_address: Entry<PerSecond> = is("0");
        /// Connections that may arrive at once from one client address after a quiet period.
        accept_burst_per_address: Option<Entry<Burst>> = absent("accept_rate_per_address", "50");
        /// Connections at once, on each listener, that are not sessions yet: HTTP, TLS, and connections that begin with a PROXY header.
        // hyper holds 18 KB for each, measured: 75 MB in a reconnect storm.
        max_handshakes: Entry<Whole<1, 1_000_000>> = is("4096");
        /// How long a client may take from connecting to the end of its handshake.
        handshake_timeout: Entry<Time> = is("\"10s\"");
        /// Largest head of an HTTP request, cookies included.
        // Web servers allow 8 to 32 KiB. The cookies of people with logins to several systems do reach 8 KiB.
        max_header_bytes: Entry<Size<1024, { 1 << 20 }>> = is("\"16 KiB\"");
        /// How long a stopping node may take to answer running requests and to deliver its close events.
        // Docker kills a process after 10 s, Kubernetes after 30 s, systemd after 90 s.
        drain_timeout: Entry<Time> = is("\"30s\"");
        /// Limits, here and in apps, that are counted and logged but not enforced. Use it to see which clients a limit would affect.
        dry_run: Entry<Set<Limit>> = is("[]");
    }
}

/// How many per second; 0 for no limit.
pub(super) type PerSecond = Whole<0, 10_000_000>;
/// How many at once.
pub(super) type Burst = Whole<1, 10_000_000>;

impl Choice for Limit {
    const WORDS: &'static [(&'static str, Self)] = Limit::WORDS;
}

config_table! {
    /// Logging.
    Log {
        /// Format of the log lines.
        format: Entry<LogFormat> = is("\"text\"");
        /// The least severe level that is written: error, warn, info, debug or trace. It can be set for single modules, as in
        /// info,longwire::upstream=debug.
        level: Entry<String> = is("\"info\"");
    }
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] =
        &[("text", &["plain", "human", "logfmt", "pretty"])];
}

config_table! {
    /// Other nodes, and the engine that joins this node to them (docs/cluster.md).
    Cluster {
        /// "local" is for a single node; "redis" is also for Valkey. All nodes have the same engine, and each has a node.number of its own.
        engine: Entry<EngineWord> = is("\"local\"");
        /// One or more servers of the engine: ["redis://10.0.0.5:6379"], ["nats://10.0.0.5:4222"]. Add user and password if the engine
        /// requires them. "env:NAME" and "file:PATH" stand for a whole URL.
        urls: Entry<SecretTexts> = is("[]");
        /// For engine = "redis", how the servers are set up: a single server ("alone"), a master behind Sentinels ("sentinel"), or a Redis
        /// Cluster ("cluster", Redis 7: sharded pub/sub).
        redis: Entry<RedisWord> = is("\"alone\"");
        /// For redis = "sentinel": the name by which Sentinel knows the master.
        sentinel_master: Entry<String> = is("\"mymaster\"");
        /// Prefix of all subjects. Two clusters on one engine need different prefixes.
        prefix: Entry<String> = is("\"longwire\"");
        /// How long a node may be silent before the other nodes treat it as unreachable. Each node sends three heartbeats in that time.
        lease: Entry<Time> = is("\"6s\"");
        /// How long a receipt waits for the other nodes.
        receipt_timeout: Entry<Time> = is("\"1s\"");
        /// How long a node stays subscribed to a partition of channels and uids after the last of its sessions there has left.
        linger: Entry<Time> = is("\"10s\"");
        /// Bytes that may wait on their way to the engine, and as many on their way from it. When a queue is full, further messages are
        /// dropped and counted.
        queue_bytes: Entry<Size<{ 64 << 10 }, LARGEST>> = is("\"16 MiB\"");
        /// TLS to the engine. For Redis it applies to URLs that begin with rediss://, for NATS to each connection. Files are read again
        /// each time the node connects.
        tls: IfWritten<EngineTls> = table();
    }
}

config_table! {
    /// TLS to the engine.
    EngineTls {
        /// Authorities that may sign the engine's certificate, in a PEM file. They replace the authorities that the system trusts. A
        /// relative path begins at the folder of this file.
        ca: Option<Entry<String>> = absent("the system's authorities", "\"/srv/chat/engine-ca.pem\"");
        /// The certificate that this node presents if the engine asks for one, with its intermediate certificates, in a PEM file.
        cert: Option<Entry<String>> = absent("none is presented", "\"/srv/chat/node.pem\"");
        /// Its private key, in a PEM file.
        key: Option<Entry<String>> = absent("none is presented", "\"/srv/chat/node.key\"");
    }
}

/// The engine between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EngineWord {
    Local,
    Redis,
    Nats,
}

impl Choice for EngineWord {
    const WORDS: &'static [(&'static str, Self)] =
        &[("local", Self::Local), ("redis", Self::Redis), ("nats", Self::Nats)];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] =
        &[("local", &["none", "memory", "single", "standalone", "off"]), ("redis", &["valkey", "keydb"])];
}

/// How the servers of Redis are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RedisWord {
    Alone,
    Sentinel,
    Cluster,
}

impl Choice for RedisWord {
    const WORDS: &'static [(&'static str, Self)] =
        &[("alone", Self::Alone), ("sentinel", Self::Sentinel), ("cluster", Self::Cluster)];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] =
        &[("alone", &["standalone", "single", "server"])];
}

config_table! {
    /// The file of a Unix socket. A client needs write permission to connect.
    Socket {
        /// Its permissions, as for chmod.
        mode: Option<Entry<Mode>> = absent("0777 less the umask", "\"0660\"");
        /// Its owner, a name or a number. To give the file to another user, longwire has to start as root (CAP_CHOWN).
        owner: Option<Entry<Account>> = absent("the user of longwire", "\"www-data\"");
        /// Its group, a name or a number: a group of longwire's user, or any group for root.
        group: Option<Entry<Account>> = absent("the group of longwire", "\"www-data\"");
    }
}

config_table! {
    /// The admin listener.
    Admin {
        /// Where metrics and health are served; "off" switches them off.
        bind: Entry<AddressOrOff> = is("\"127.0.0.1:9011\"");
        /// The socket file, if bind is unix:/path.
        socket: Socket = table();
    }
}

config_table! {
    /// The router.
    Router {
        /// Address for commands (docs/router-protocol.md); "off" switches it off.
        bind: Entry<AddressOrOff> = is("\"127.0.0.1:9010\"");
        /// The socket file, if bind is unix:/path.
        socket: Socket = table();
        /// Address that scripts find in LONGWIRE_ROUTER, if php-fpm must connect to another address than bind.
        advertise: Option<Entry<String>> = absent("bind", "\"longwire:9010\"");
        /// Secret that clients must prove to know: "env:NAME", "file:PATH" or the text itself. Required unless bind is a loopback address
        /// or a Unix socket.
        secret: Option<Entry<SecretText>> = absent("no secret is required", "\"a long random text\"");
        /// Also accept fooking's commands (the short protocol), on loopback addresses and Unix sockets only. The short protocol has no
        /// secret: every program that can connect there may send commands, even if secret is set.
        short_protocol: Option<Entry<bool>> = absent("true, or false if secret is set", "true");
        /// Largest message or attribute value in a command.
        max_message_bytes: Entry<Size<1, LARGEST>> = is("\"16 MiB\"");
        /// Memory for messages above 16 KiB that are being received, of all connections and of the API together. When it is full, further
        /// large messages wait.
        max_buffered_bytes: Option<Entry<Size<1, LARGEST>>> = absent("64 MiB, or the largest message if that is more", "\"64 MiB\"");
        /// Connections at once; one more is closed immediately.
        // Enough for a large shop in which every php-fpm worker keeps a connection.
        max_connections: Entry<Whole<1, 1_000_000>> = is("4096");
        /// Silence after which a connection is closed; 0 means no timeout. If you set it, it also applies to the short protocol.
        // See `router`.
        idle_timeout: Option<Entry<TimeOrOff>> = absent("10m in the long protocol, no timeout in the short one", "\"10m\"");
        /// Rules for slow readers by channel: { "prices/*" = "latest" }. The first match counts. Other channels follow slow_reader of each
        /// member's app.
        slow_readers: Entry<ChannelRules> = is("{}");
        /// Channels that one session may be in at once.
        max_channels_per_session: Entry<Whole<1, 1_000_000>> = is("100");
        /// Bytes of the attributes of one session, names and values. They go to PHP with each event.
        max_attribute_bytes: Entry<Size<0, { 48 << 10 }>> = is("\"4 KiB\"");
    }
}

config_table! {
    /// The HTTP API.
    Api {
        /// Address of the API; "off" switches it off.
        bind: Entry<AddressOrOff> = is("\"127.0.0.1:9012\"");
        /// The socket file, if bind is unix:/path.
        socket: Socket = table();
        /// The bearer token that requests must carry: "env:NAME", "file:PATH" or the text itself. Required unless bind is a loopback
        /// address or a Unix socket.
        token: Option<Entry<SecretText>> = absent("no token is required", "\"a-long-random-text\"");
        /// Largest body of a request.
        max_body_bytes: Entry<Size<1024, LARGEST>> = is("\"16 MiB\"");
    }
}

impl Choice for SlowReader {
    const WORDS: &'static [(&'static str, Self)] =
        &[("close", Self::Close), ("oldest", Self::Oldest), ("newest", Self::Newest), ("latest", Self::Latest)];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] = &[
        ("close", &["disconnect", "kick", "drop_client"]),
        ("newest", &["drop", "drop_newest", "drop_new", "skip", "ignore"]),
        ("oldest", &["drop_oldest", "drop_old"]),
        ("latest", &["conflate", "replace", "last"]),
    ];
}

config_table! {
    /// One place where clients connect.
    Listener {
        /// Address to listen on. Port 0 takes a free one.
        bind: Option<Entry<Address>> = required("\"127.0.0.1:9005\"");
        /// The socket file, if bind is unix:/path.
        socket: Socket = table();
        /// "tcp" is for frames directly on the stream. "http" is for WebSocket, event streams, polls and plain requests.
        protocol: Entry<ProtocolWord> = is("\"tcp\"");
        /// The app that handles every session of this listener.
        app: Option<Entry<String>> = required("\"chat\""), only when protocol = "tcp";
        /// The app for each path; the longest match wins. "/live/*" matches /live and everything below it. A slash at the end does not
        /// matter.
        routes: Option<Entry<Routes>> = required("{ \"/ws\" = \"chat\" }"), only when protocol = "http";
        /// A folder whose files are served where no route matches, except PHP files, TOML files and dot files. A relative path begins at
        /// the folder of this file.
        r#static: Option<Entry<String>> = absent("none", "\"/srv/chat/public\""), only when protocol = "http";
        /// Proxies that begin each connection with a PROXY header (version 1 or 2), which gives the client's address. Connections from
        /// other addresses are not checked for one.
        proxy_protocol: Entry<Networks> = is("[]");
        /// Proxies whose forwarding header gives the client's address. In requests from other addresses that header is ignored.
        trusted_proxies: Entry<Networks> = is("[]"), only when protocol = "http";
        /// The header that these proxies write: X-Forwarded-For (with X-Forwarded-Proto), or Forwarded (RFC 7239). The other one is
        /// ignored.
        // A proxy writes one of them, and passes the other one on as the client sent it.
        forwarded: Entry<Dialect> = is("\"x-forwarded-for\""), only when protocol = "http";
        /// TLS for all connections of this listener.
        tls: IfWritten<Tls> = table();
        /// How bytes become frames.
        framing: Framing = table(), only when protocol = "tcp";
        /// Keeps a connection alive in both directions without running PHP.
        heartbeat: IfWritten<Heartbeat> = table(), only when protocol = "tcp";
        /// WebSocket.
        websocket: WebSocket = table(), only when protocol = "http";
        /// Accept HTTP/2 too, from clients that begin with it (prior knowledge). WebSocket handshakes are HTTP/1.1, so HAProxy needs proto
        /// h2 ws h1.
        http2: Entry<bool> = is("true"), only when protocol = "http";
        /// Sessions without WebSocket: event streams and polls.
        sse: Sse = table(), only when protocol = "http";
        /// Connections that may wait to be accepted. The kernel caps the number at net.core.somaxconn.
        // The default of net.core.somaxconn since Linux 5.4.
        backlog: Entry<Whole<1, 65_535>> = is("4096");
        /// Silence after which TCP probes whether the client is still there; 0 switches it off.
        // Below the 5 minutes after which NAT boxes commonly forget a connection.
        tcp_keepalive: Entry<TimeOrOff> = is("\"60s\"");
        /// How long sent bytes may stay unacknowledged before the client counts as gone; 0 leaves the timeout to the kernel.
        // A phone in a tunnel comes back within half a minute, or it reconnects anyway. The kernel would wait for 15 minutes.
        tcp_user_timeout: Entry<TimeOrOff> = is("\"30s\"");
    }
}

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProtocolWord {
    Tcp,
    Http,
}

impl Choice for ProtocolWord {
    const WORDS: &'static [(&'static str, Self)] = &[("tcp", Self::Tcp), ("http", Self::Http)];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] = &[
        ("tcp", &["stream", "raw", "text", "frame", "length", "telnet"]),
        ("http", &["ws", "wss", "websocket", "https", "http/1.1", "http2", "h2", "sse", "web"]),
    ];
}

impl Choice for Dialect {
    const WORDS: &'static [(&'static str, Self)] =
        &[("x-forwarded-for", Self::XForwardedFor), ("forwarded", Self::Forwarded)];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] =
        &[("x-forwarded-for", &["xff", "x-real-ip", "x-forwarded"]), ("forwarded", &["rfc7239"])];
}

config_table! {
    /// TLS 1.2 and 1.3. Renewed files are noticed within seconds, and at once after SIGHUP.
    Tls {
        /// The certificate with its intermediate certificates, in a PEM file. A relative path begins at the folder of this file.
        cert: Option<Entry<String>> = required("\"/srv/chat/fullchain.pem\"");
        /// Its private key, in a PEM file.
        key: Option<Entry<String>> = required("\"/srv/chat/privkey.pem\"");
        /// Further certificates for other host names. The one above is used for names that none of them covers.
        more: Entry<CertificatePairs> = is("[]");
        /// Whether clients are asked for a certificate: "off" does not ask, "optional" refuses clients with an invalid one, "required" also
        /// refuses clients without one.
        client_certs: Entry<ClientCerts> = is("\"off\"");
        /// Authorities that may sign the certificates of clients, in a PEM file.
        client_ca: Option<Entry<String>> = absent("none", "\"/srv/chat/clients-ca.pem\"");
    }
}

impl Choice for ClientCerts {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("optional", Self::Optional), ("required", Self::Required)];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] = &[
        ("off", &["none", "no", "false"]),
        ("optional", &["request", "want", "optional_no_ca"]),
        ("required", &["require", "on", "yes", "true", "verify", "need"]),
    ];
}

config_table! {
    /// How bytes become frames on a stream.
    Framing {
        /// How frames are recognised: a header holds the length (length), a byte string ends a frame (delimiter), a pause ends it (gap),
        /// the bytes of one read are a frame (raw), or your own Lua script decides (lua).
        r#type: Entry<FramingWord> = is("\"length\"");
        /// Width of the length field: 1, 2, 3, 4 or 8 bytes (Swoole: package_length_type C, n or v, N or V, J or P; Swoole has no 3).
        length_bytes: Entry<LengthWidth> = is("4"), only when r#type = "length";
        /// Where the length field begins in the header (Swoole: package_length_offset).
        length_offset: Entry<Whole<0, 247>> = is("0"), only when r#type = "length";
        /// Byte order of the length field: big is network order.
        length_endian: Entry<Endian> = is("\"big\""), only when r#type = "length";
        /// The bytes that the length counts: those after the header (body), or header and body together (frame).
        length_counts: Entry<LengthCounts> = is("\"body\""), only when r#type = "length";
        /// The bits of the length field that hold the length; 0 means all. They must be contiguous, and are read as a number of their own:
        /// 0xFFF0 is a length of 12 bits. The other bits are flags, and are zero in replies.
        length_mask: Entry<Whole<0, { i64::MAX as u64 }>> = is("0"), only when r#type = "length";
        /// Added to the length to get the number of bytes after the header: -2 if the length also counts two bytes of the header, 2 if it
        /// leaves out two bytes after the header.
        length_adjust: Entry<Adjustment> = is("0"), only when r#type = "length";
        /// Where the body begins (Swoole: package_body_offset).
        header_bytes: Option<Entry<Whole<1, 255>>> = absent("the end of the length field", "4"), only when r#type = "length";
        /// Give PHP the header too, with start and end. Replies must then contain their own.
        keep_header: Entry<bool> = is("false"), only when r#type = "length";
        /// Bytes after the body that the length does not count, such as a checksum. PHP sees them after the body, and its replies must
        /// contain their own.
        trailer_bytes: Entry<Whole<0, 64>> = is("0"), only when r#type = "length";
        /// Bytes that every frame begins with, up to 16: a string or a list of bytes. In length framing they are the first part of the
        /// header. PHP does not see them and Longwire puts them before replies, unless keep_header is set.
        start: Entry<Marker> = is("\"\""), only when r#type = "length" | "delimiter";
        /// Bytes that every frame ends with, after body and trailer; the length does not count them. PHP does not see them and Longwire
        /// puts them after replies, unless keep_header is set.
        end: Entry<Marker> = is("\"\""), only when r#type = "length";
        /// Skip bytes that cannot be a frame, up to the next start, and count them. With false such bytes end the session (bad_frame).
        resync: Entry<bool> = is("false"), only when r#type = "length" | "delimiter";
        /// Bytes that end a frame, in both directions (Swoole: package_eof): a string, or a list of bytes such as [0xFF, 0x00].
        delimiter: Entry<Delimiter> = is("\"\\n\""), only when r#type = "delimiter";
        /// Remove one carriage return from the end of a received frame.
        strip_cr: Entry<bool> = is("false"), only when r#type = "delimiter";
        /// Bytes that are escaped inside a frame, each with the two bytes that are sent instead: [{ byte = 0x7E, code = [0x7D, 2] }, { byte
        /// = 0x7D, code = [0x7D, 1] }]. PHP sees and prints the bytes unescaped.
        escape: Entry<Escapes> = is("[]"), only when r#type = "delimiter";
        /// Drop empty frames: PHP does not run for them. If start and delimiter are the same, empty frames are always dropped.
        skip_empty: Entry<bool> = is("false"), only when r#type = "delimiter";
        /// Pause that ends a frame, at most 10s. It delays each reply by at least that time.
        // Modbus RTU needs 3.5 characters, 4 ms at 9600 baud. Gateways and mobile networks add some milliseconds between two packets of one
        // frame.
        gap: Entry<Time> = is("\"20ms\""), only when r#type = "gap";
        /// The Lua file; a relative path begins at the folder of this file.
        script: Option<Entry<String>> = required("\"/srv/chat/codec.lua\""), only when r#type = "lua";
        /// Lua instructions that one call of the script may take. Its CPU time is limited too: 20 ns for each instruction allowed, library
        /// functions included.
        // Unmasking a WebSocket frame of 1 MiB byte by byte takes 16 million instructions. A call that never ends is stopped after less
        // than a tenth of a second. Both are measured.
        max_instructions: Entry<Whole<1_000, 1_000_000_000_000>> = is("30_000_000"), only when r#type = "lua";
        /// Memory of each Lua VM of the script. Each worker thread has one VM.
        // Unmasking a frame of 1 MiB byte by byte takes 20 MiB, measured, and as much again for garbage that is not collected yet.
        max_memory_bytes: Entry<Size<{ 1 << 20 }, LARGEST>> = is("\"64 MiB\""), only when r#type = "lua";
    }
}

/// The framings of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FramingWord {
    Length,
    Delimiter,
    Gap,
    Raw,
    Lua,
}

impl Choice for FramingWord {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("length", Self::Length),
        ("delimiter", Self::Delimiter),
        ("gap", Self::Gap),
        ("raw", Self::Raw),
        ("lua", Self::Lua),
    ];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] = &[
        ("length", &["length_prefix", "length_check", "frame", "header", "fixed_header", "package_length"]),
        ("delimiter", &["line", "lines", "text", "eof", "newline", "crlf", "split"]),
        ("gap", &["silence", "idle", "timeout", "rtu", "modbus"]),
        ("raw", &["none", "stream", "tcp", "binary"]),
        ("lua", &["script", "codec"]),
    ];
}

impl Choice for Endian {
    const WORDS: &'static [(&'static str, Self)] = &[("big", Self::Big), ("little", Self::Little)];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] =
        &[("big", &["network", "be", "n", "big_endian"]), ("little", &["le", "v", "little_endian", "intel"])];
}

impl Choice for LengthCounts {
    const WORDS: &'static [(&'static str, Self)] = &[("body", Self::Body), ("frame", Self::Frame)];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] = &[
        ("body", &["payload", "data", "content"]),
        ("frame", &["packet", "package", "total", "all", "whole", "message"]),
    ];
}

config_table! {
    /// Keeps a connection alive in both directions without running PHP.
    Heartbeat {
        /// Probe that is sent to a silent client: a whole frame as on the wire, a string or a list of bytes.
        send: Option<Entry<HeartbeatBytes>> = absent("no probe is sent", "[0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0]");
        /// Silence from the client after which the first probe is sent.
        // Like tcp_keepalive: below the 5 minutes after which NAT boxes commonly forget a connection.
        after: Entry<Time> = is("\"60s\"");
        /// How long to wait for the answer to a probe before the next probe, or the close.
        every: Entry<Time> = is("\"60s\"");
        /// Unanswered probes after which the client counts as gone.
        // One unanswered probe may be a pause of the client. Three in a row are not.
        max_unanswered: Entry<Whole<1, 255>> = is("3");
        /// Place of a number in the probe, big-endian. It starts with the number in send, and each further probe of a session has the next
        /// number.
        sequence: Option<Entry<SequencePlace>> = absent("all probes are the same", "{ offset = 8, width = 4 }");
        /// Frames that answer a probe, recognised by the bytes at one place of the frame as PHP would see it. They are not given to PHP.
        answer: Option<Entry<Pattern>> = absent("any received byte counts as an answer", "{ offset = 0, bytes = [0x80, 0, 0, 8] }");
        /// Frames that are probes of the client, recognised in the same way. Longwire answers them and does not give them to PHP.
        probe: Option<Entry<Pattern>> = absent("PHP answers them", "{ offset = 0, bytes = [0, 0, 0, 8] }");
        /// The answer to a probe of the client: a whole frame as on the wire.
        reply: Option<Entry<HeartbeatBytes>> = absent("none, see probe", "[0, 0, 0, 8, 0x80, 0, 0, 8, 0, 0, 0, 0]");
        /// Bytes that are copied from the client's probe into reply: from which place, to which place, and how many.
        copy: Option<Entry<CopiedBytes>> = absent("nothing", "{ from = 4, to = 8, bytes = 4 }");
    }
}

config_table! {
    /// WebSocket settings of an HTTP listener.
    WebSocket {
        /// Pages that may connect: those of the same host, those of a list (and of the same host), or any. In a list
        /// "https://*.shop.example" matches every host below that domain, and "null" and "file://" match pages from files.
        // Browsers send cookies with the handshake from any page: without this check every page could use the visitor's login.
        origins: Entry<Origins> = is("\"same-host\"");
        /// Negotiate permessage-deflate (RFC 7692).
        // Compression makes small frames larger and costs CPU time. It pays off for large texts over slow lines.
        deflate: Entry<bool> = is("false");
        /// Frames below this size are sent uncompressed.
        // Without a shared window a small frame hardly shrinks, and a frame that fits into one packet saves nothing.
        deflate_min_bytes: Entry<Size<0, LARGEST>> = is("\"1 KiB\"");
        /// Silence after which a ping is sent; 0 never sends one.
        // Below the 30 s and 60 s after which load balancers commonly drop silent connections.
        ping_interval: Entry<TimeOrOff> = is("\"25s\"");
        /// How long a client may take to answer a ping.
        pong_timeout: Entry<Time> = is("\"20s\"");
        /// How long a client may take to answer a close frame.
        close_timeout: Entry<Time> = is("\"5s\"");
    }
}

config_table! {
    /// Sessions of HTTP clients without WebSocket: event streams (EventSource) and polls.
    Sse {
        /// Allow such sessions. An app can switch off event streams alone, on its own paths, with event_streams.
        enabled: Entry<bool> = is("true");
        /// Silence on a stream after which a comment is sent; 0 never sends one.
        // Below the 30 s and 60 s after which load balancers commonly drop silent connections.
        heartbeat: Entry<TimeOrOff> = is("\"15s\"");
        /// How long a poll waits for a frame before it is answered without one.
        // Below the same 30 s.
        poll_timeout: Entry<Time> = is("\"25s\"");
        /// How long a client may take from one poll to the next before its session ends.
        // A phone that changes networks comes back within that.
        poll_gap: Entry<Time> = is("\"30s\"");
    }
}

config_table! {
    /// A named handler.
    App {
        /// Name of the upstream that runs the script.
        upstream: Option<Entry<String>> = required("\"php\"");
        /// The PHP file; a relative path begins at the folder of this file.
        script: Option<Entry<String>> = required("\"/srv/chat/handler.php\"");
        /// Check at start that the script exists. Switch it off if php-fpm sees other folders than longwire.
        check_script: Entry<bool> = is("true");
        /// The param DOCUMENT_ROOT.
        document_root: Option<Entry<String>> = absent("the script's folder", "\"/srv/chat\"");
        /// The param REQUEST_URI for sessions that do not come over HTTP.
        uri: Option<Entry<String>> = absent("the script's path below document_root", "\"/handler.php\"");
        /// Events that PHP gets beside messages: "connect" and "close" of sessions; "join" and "leave" when a session of the app joins or
        /// leaves a channel, on any node; "occupied" and "vacated" when a channel gets its first such session or loses its last.
        events: Entry<Set<EventWord>> = is("[]");
        /// Events of one session that may run at once. Above 1 their order is not kept.
        concurrency: Entry<Whole<1, 1024>> = is("1");
        /// Limit how many events of several sessions run at once: sessions with the same uid ("uid"), or with the same cookie
        /// ("cookie:NAME"). For scripts that hold the lock of a PHP session.
        concurrency_per: Option<Entry<GroupBy>> = absent("no such limit", "\"cookie:PHPSESSID\"");
        /// How many of these events may run at once.
        // PHP's session lock lets one of them run at a time anyway.
        concurrency_per_limit: Entry<Whole<1, 1024>> = is("1");
        /// Prefix of the param names SESSIONID and EVENT ("HTTP_" for Go's net/http/fcgi).
        param_prefix: Entry<String> = is("\"\"");
        /// Further params. "env:NAME" and "file:PATH" read a secret. Put "plain:" before a text that begins like one of these.
        params: Entry<Params> = is("{}");
        /// The script may safely see a message twice, so a message that may or may not have run is retried.
        idempotent: Entry<bool> = is("false");
        /// Give the script requests to the app's HTTP paths that belong to neither a WebSocket nor a session, as a web server would. One
        /// port then serves both page and socket.
        plain_requests: Entry<bool> = is("false");
        /// WebSocket sub-protocols that the app speaks, in order of preference. Longwire takes the first one that the client offers, unless
        /// the answer to connect chooses.
        subprotocols: Entry<Subprotocols> = is("[]");
        /// A GET that accepts text/event-stream opens a session. With false it goes to the script as a plain request, so that the script
        /// can write its own event stream. Polls are not affected.
        event_streams: Entry<bool> = is("true");
        /// "fooking" is for scripts that were written for fooking (docs/fooking.md). Output without a Content-Length is then no reply, and
        /// empty frames are neither sent nor given to PHP. The answer to connect is not sent to the client, and can refuse it on `http`
        /// listeners only.
        // One word switches all of these rules on: a shop that comes from fooking needs every one, and other shops need none.
        compat: Entry<Compat> = is("\"none\"");
        /// Effect of a failed message on its session: nothing, a text sent to the client, or a close.
        on_error: Entry<OnError> = is("\"ignore\"");
        /// Largest frame from a client, counted after decompression.
        // Chat, games and forms stay far below; php-fpm's own post_max_size is 8 MB.
        max_frame_bytes: Entry<Size<1, LARGEST>> = is("\"1 MiB\"");
        /// Largest reply, or largest line of a reply sent by lines, that must be held back whole: without Content-Length on a length
        /// framing, or with a negative Content-Offset.
        max_reply_bytes: Entry<Size<1, LARGEST>> = is("\"16 MiB\"");
        /// Frames that may wait in one session. At this limit its socket is not read.
        max_queued_frames: Entry<Whole<1, 1_000_000>> = is("32");
        /// Bytes of the frames that wait in one session. At this limit its socket is not read.
        max_queued_bytes: Option<Entry<Size<1, LARGEST>>> = absent("1 MiB, or max_frame_bytes if that is more", "\"1 MiB\"");
        /// Bytes that may wait for one client to read them (its outbox).
        outbox_bytes: Entry<Size<1024, LARGEST>> = is("\"1 MiB\"");
        /// Rule for a push when the outbox is full: close ends the session, oldest drops the oldest pushes, newest drops this push, latest
        /// keeps only the latest push for each key.
        slow_reader: Entry<SlowReader> = is("\"close\"");
        /// How long a client may read nothing while bytes wait for it.
        send_timeout: Entry<Time> = is("\"30s\"");
        /// Silence from the client after which the session ends; 0 means no timeout.
        idle_timeout: Entry<TimeOrOff> = is("0");
        /// Connect events per second, of all sessions together. Further clients are refused before PHP is asked. 0 means no limit.
        // Only the author of the script knows what a pool can bear. queue_timeout fails the events that wait for too long.
        connect_rate: Entry<PerSecond> = is("0");
        /// Connect events that may come at once after a quiet period.
        connect_burst: Option<Entry<Burst>> = absent("connect_rate", "100");
        /// Frames per second from one session, pings included; 0 means no limit.
        max_frames_per_second: Entry<PerSecond> = is("0");
        /// Frames that may come at once after a quiet period.
        burst_frames: Option<Entry<Burst>> = absent("max_frames_per_second", "20");
        /// Bytes per second from one session; 0 means no limit.
        max_bytes_per_second: Entry<Size<0, LARGEST>> = is("0");
        /// Bytes that may come at once after a quiet period.
        burst_bytes: Option<Entry<Size<1, LARGEST>>> = absent("max_bytes_per_second, or max_frame_bytes if that is more", "\"1 MiB\"");
        /// Rule for a session that sends faster: wait stops reading it for a while, so that TCP slows the client down; close ends it.
        // Waiting loses nothing, and a program that sends in bursts is no attacker.
        rate_rule: Entry<RateRule> = is("\"wait\"");
        /// Silence in the middle of a frame after which the session ends; 0 means no timeout.
        // A phone that changes networks is silent for half a minute; people at a telnet client pause for longer.
        frame_idle_timeout: Entry<TimeOrOff> = is("\"60s\"");
        /// Longest time from the first byte of a frame to its last, even if bytes keep coming; 0 means no limit.
        frame_timeout: Option<Entry<TimeOrOff>> = absent("2m, plus 1s for every 4 KiB of max_frame_bytes", "\"10m\"");
    }
}

impl Choice for Compat {
    const WORDS: &'static [(&'static str, Self)] = &[("none", Self::None), ("fooking", Self::Fooking)];
}

impl Choice for RateRule {
    const WORDS: &'static [(&'static str, Self)] = &[("wait", Self::Wait), ("close", Self::Close)];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] = &[
        ("wait", &["throttle", "delay", "slow", "pause", "backpressure"]),
        ("close", &["disconnect", "kick", "drop", "reject"]),
    ];
}

/// Names of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventWord {
    Connect,
    Message,
    Close,
    Join,
    Leave,
    Occupied,
    Vacated,
}

impl Choice for EventWord {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("connect", Self::Connect),
        ("message", Self::Message),
        ("close", Self::Close),
        ("join", Self::Join),
        ("leave", Self::Leave),
        ("occupied", Self::Occupied),
        ("vacated", Self::Vacated),
    ];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] = &[
        ("connect", &["open", "opened", "on_open", "on_connect", "connected", "handshake", "start", "connection"]),
        ("message", &["receive", "on_receive", "on_message", "data", "on_data", "packet", "frame", "request"]),
        ("close", &["disconnect", "disconnected", "on_disconnect", "on_close", "closed", "end", "quit"]),
        ("join", &["subscribe", "enter", "on_subscribe", "member_added"]),
        ("leave", &["unsubscribe", "part", "exit", "on_unsubscribe", "member_removed"]),
        ("occupied", &["channel_occupied", "created", "first"]),
        ("vacated", &["channel_vacated", "destroyed", "empty", "last"]),
    ];
}

config_table! {
    /// A set of FastCGI addresses.
    Upstream {
        /// Addresses of php-fpm, each with a weight if they differ. Use either backends or spawn.
        backends: Option<Entry<Backends>> = absent("the php-fpm of spawn", "[\"unix:/run/php/php8.2-fpm.sock\"]");
        /// A php-fpm that longwire starts. Use either backends or spawn.
        spawn: IfWritten<Spawn> = table();
        /// Connections at once to each backend. Each one occupies a php-fpm worker, so stay at or below pm.max_children, less the workers
        /// that other clients need.
        // php-fpm's stock pool has 5 children; one connection too many gets no answer and no error.
        max_connections: Option<Entry<Whole<1, 10_000>>> = absent("4; with spawn, the number of workers", "4");
        /// Ask each backend how many connections it takes (FCGI_GET_VALUES), at start and when it comes back. A number below
        /// max_connections is the limit for that backend. max_connections stays for a backend that does not say, such as php-fpm, or does
        /// not answer within a second.
        // php-fpm never says, and libfcgi counts one process although many may listen: docs/responders.md.
        ask_limits: Entry<bool> = is("false");
        /// How long a connection is kept open while no request waits for it.
        // Long enough to bridge the gaps of a busy node, short enough that a silent one pins no worker for a noticeable time.
        linger: Entry<TimeOrOff> = is("\"200ms\"");
        /// How long connecting may take.
        // php-fpm is near. A full backlog over TCP shows only as a SYN that the kernel repeats after 1 s.
        connect_timeout: Entry<Time> = is("\"2s\"");
        /// How long a script may send nothing, before its first byte and between bytes.
        response_timeout: Entry<Time> = is("\"30s\"");
        /// How long a request may take as a whole.
        request_timeout: Entry<Time> = is("\"60s\"");
        /// Messages that may wait for a connection; one more fails at once. Without it only queue_timeout limits the queue.
        // A session has at most `concurrency` events under way, so the number of sessions limits this queue, and TCP holds back the rest.
        // A limit below max_sessions loses messages of a burst that a fast pool would have answered in time.
        queue_length: Option<Entry<Whole<1, 10_000_000>>> = absent("limited only by the number of sessions", "10_000");
        /// How long a message or connect event may wait for a connection.
        // After that time no client waits for the answer any more.
        queue_timeout: Entry<Time> = is("\"10s\"");
        /// Connect events that may wait for a connection; one more is refused at once. Without it only queue_timeout limits the queue.
        // As for queue_length: each event belongs to a client that max_sessions has let in. After a restart all of them come at once.
        connect_queue_length: Option<Entry<Whole<1, 10_000_000>>> = absent("limited only by the number of sessions", "1_000");
        /// Percentage of the connections that connect events may hold while messages wait; at least one connection.
        connect_share_percent: Entry<Whole<1, 100>> = is("50");
        /// How long in all an answer may hold a connection because its client does not read it. Then the answer is broken off and its
        /// session closed, but only while more than half of the connections are held like this and other requests wait. 0 means no limit.
        // send_timeout closes a client that reads nothing, but only after half a minute. It never closes a client that reads a little. Half
        // of the workers are left to other clients.
        slow_reader_hold: Entry<TimeOrOff> = is("\"1s\"");
        /// How long a script may take to notice that its session has ended. Then its connection is closed.
        abort_grace: Entry<TimeOrOff> = is("\"1s\"");
        /// Failures in a row after which a backend gets no more requests.
        eject_after: Entry<Whole<1, 1000>> = is("3");
        /// How long such a backend gets no requests.
        eject_time: Entry<Time> = is("\"2s\"");
        /// How often a backend without an open connection is probed to see whether it is there; 0 probes at start only. The probe is a
        /// FastCGI question (FCGI_GET_VALUES), or just a connection if the backend does not answer that.
        // As often as HAProxy asks /ready. A probe costs php-fpm an accept, a read and a write, tens of microseconds. With pm = ondemand
        // php-fpm forks a child for it.
        probe_interval: Entry<TimeOrOff> = is("\"2s\"");
    }
}

config_table! {
    /// A php-fpm that longwire starts.
    Spawn {
        /// The php-fpm binary.
        binary: Option<Entry<String>> = absent("the newest php-fpm in the first folder of PATH that has one", "\"/usr/sbin/php-fpm8.2\"");
        /// Number of PHP processes.
        // PHP code waits for databases half of its time.
        workers: Option<Entry<Whole<1, 10_000>>> = absent("twice the cores, at least 4", "8");
        /// How long a script may run until php-fpm kills its worker; 0 means no limit. It is rounded up to whole seconds.
        // At request_timeout the event has been answered, or it has failed. A worker that sleeps for longer serves no client, and if all
        // workers do so, PHP is down.
        request_terminate_timeout: Option<Entry<TimeOrOff>> = absent("request_timeout plus 5s", "\"65s\"");
        /// Check at each request whether files have changed.
        // A stat per file and request costs little, compared with old code that runs after a deployment.
        recheck_files: Entry<bool> = is("true");
        /// Further php.ini settings for this php-fpm.
        ini: Entry<Ini> = is("{}");
    }
}
