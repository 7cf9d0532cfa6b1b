//! What an operator may write: every table and key, its type, its default beside the reason for it, its meaning.
//!
//! The doc comments here are what `longwire defaults` and README.md print, so they speak to operators. Comments with
//! two slashes are for us. Rules about one value are in its type, rules about several in `resolve`.

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

/// Sizes that become buffers: nothing that PHP should see in one piece is larger.
const LARGEST: u64 = 4 << 30;

config_table! {
    /// The whole file.
    Written {
        /// The process itself.
        node: Node = table();
        /// Bounds of the whole node.
        limits: Limits = table();
        /// Logging, to standard error.
        log: Log = table();
        /// Metrics and health over HTTP: `/metrics`, `/live`, `/ready`.
        admin: Admin = table();
        /// The router: who is in which channel, and the port where programs leave commands.
        router: Router = table();
        /// The router's commands over HTTP, in JSON.
        api: Api = table();
        /// Other nodes, and what joins this one to them (docs/cluster.md).
        cluster: Cluster = table();
        /// Where clients connect, one table each.
        listeners: Named<Listener> = table();
        /// Who handles what clients send, one table each.
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
        /// Number of this node; it is part of every session id, so no two nodes that know each other share one.
        number: Entry<Whole<0, 4095>> = is("0");
        /// Worker threads; 0 takes one for every two cores. PHP needs several times the CPU time of Longwire: where php-fpm runs on
        /// another machine, or messages go to many more than they come from, ask for as many as there are cores.
        threads: Entry<Whole<0, 1024>> = is("0");
    }
}

config_table! {
    /// Bounds of the whole node.
    Limits {
        /// Sessions at once. The limit of open files lowers it where that is smaller.
        // About 5 KB each with the kernel's part, measured: half a gigabyte.
        max_sessions: Entry<Whole<1, 100_000_000>> = is("100_000");
        /// Sessions at once from one client address (of IPv6, one /64); 0 sets no bound.
        // Offices and mobile networks put thousands of people behind one address, and so does a proxy in front of us.
        max_sessions_per_address: Entry<Whole<0, 100_000_000>> = is("0");
        /// Connections a second, on all listeners together; 0 sets no bound.
        // After a restart every client comes back at once, and should: what PHP can bear is connect_rate's to say.
        accept_rate: Entry<PerSecond> = is("0");
        /// Connections that may come at once after a time of silence.
        accept_burst: Option<Entry<Burst>> = absent("accept_rate", "1000");
        /// Connections a second from one client address (of IPv6, one /64); 0 sets no bound.
        // See max_sessions_per_address.
        accept_rate_per_address: Entry<PerSecond> = is("0");
        /// Connections that may come from it at once after a time of silence.
        accept_burst_per_address: Option<Entry<Burst>> = absent("accept_rate_per_address", "50");
        /// Connections at once that have not become a session yet, on each listener: HTTP, TLS, and those that begin with a PROXY header.
        // hyper holds 18 KB for each, measured: 75 MB in a reconnect storm.
        max_handshakes: Entry<Whole<1, 1_000_000>> = is("4096");
        /// How long a client may take from connecting to the end of its handshake.
        handshake_timeout: Entry<Time> = is("\"10s\"");
        /// Largest head of an HTTP request, cookies included.
        // Web servers allow 8 to 32 KiB; people who log in behind several systems do reach 8.
        max_header_bytes: Entry<Size<1024, { 1 << 20 }>> = is("\"16 KiB\"");
        /// How long a stopping node may take to answer what is in flight and deliver its close events.
        // docker gives 10 s before it kills, Kubernetes 30 s; systemd 90 s.
        drain_timeout: Entry<Time> = is("\"30s\"");
        /// Limits, here and in apps, that are only counted and logged, not acted upon: to see whom they would meet.
        dry_run: Entry<Set<Limit>> = is("[]");
    }
}

/// How many a second; 0 for no bound.
pub(super) type PerSecond = Whole<0, 10_000_000>;
/// How many at once.
pub(super) type Burst = Whole<1, 10_000_000>;

impl Choice for Limit {
    const WORDS: &'static [(&'static str, Self)] = Limit::WORDS;
}

config_table! {
    /// Logging.
    Log {
        /// How a line looks.
        format: Entry<LogFormat> = is("\"text\"");
        /// The least important level that is written: error, warn, info, debug, trace; also by module, as in info,longwire::upstream=debug.
        level: Entry<String> = is("\"info\"");
    }
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
    const ALIASES: &'static [(&'static str, &'static [&'static str])] =
        &[("text", &["plain", "human", "logfmt", "pretty"])];
}

config_table! {
    /// Other nodes, and what joins this one to them (docs/cluster.md).
    Cluster {
        /// "local" for a node alone; "redis" also for Valkey. Every node has the same, and a node.number of its own.
        engine: Entry<EngineWord> = is("\"local\"");
        /// Its servers, one or some of them: ["redis://10.0.0.5:6379"], ["nats://10.0.0.5:4222"]. With user and password where it asks for them; "env:NAME" and "file:PATH" stand for a whole URL.
        urls: Entry<SecretTexts> = is("[]");
        /// For engine = "redis": what stands behind the servers, one of them "alone", "sentinel", or a "cluster" (Redis 7: sharded pub/sub).
        redis: Entry<RedisWord> = is("\"alone\"");
        /// For redis = "sentinel": the name that Sentinel has for the master.
        sentinel_master: Entry<String> = is("\"mymaster\"");
        /// What the names of subjects begin with: two clusters on one engine have two.
        prefix: Entry<String> = is("\"longwire\"");
        /// How long a node may be silent before the others take it for unreachable. It speaks three times as often.
        lease: Entry<Time> = is("\"6s\"");
        /// How long a receipt waits for the other nodes.
        receipt_timeout: Entry<Time> = is("\"1s\"");
        /// How long a node goes on listening where its last member has left.
        linger: Entry<Time> = is("\"10s\"");
        /// What may wait on its way to the engine, and as much on its way from it; beyond, it is dropped and counted.
        queue_bytes: Entry<Size<{ 64 << 10 }, LARGEST>> = is("\"16 MiB\"");
        /// TLS to the engine: for Redis where a url is rediss://, for NATS on each connection. Files are read each time that the node connects.
        tls: IfWritten<EngineTls> = table();
    }
}

config_table! {
    /// TLS to the engine.
    EngineTls {
        /// Who may have signed its certificate, in a PEM file, instead of those that the system trusts. A relative path begins at the folder of this file.
        ca: Option<Entry<String>> = absent("whom the system trusts", "\"/srv/chat/engine-ca.pem\"");
        /// The certificate that this node shows where it is asked for one, and those that lead to a root, in a PEM file.
        cert: Option<Entry<String>> = absent("none is shown", "\"/srv/chat/node.pem\"");
        /// Its private key, in a PEM file.
        key: Option<Entry<String>> = absent("none is shown", "\"/srv/chat/node.key\"");
    }
}

/// What joins nodes.
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

/// What stands behind the servers of Redis.
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
    /// The file of a Unix socket. Writing to it is what connecting takes.
    Socket {
        /// Its permissions, as for chmod.
        mode: Option<Entry<Mode>> = absent("what the umask leaves of 0777", "\"0660\"");
        /// Its owner, a name or a number. To give it to another user longwire has to start as root (CAP_CHOWN).
        owner: Option<Entry<Account>> = absent("the user of longwire", "\"www-data\"");
        /// Its group, a name or a number: one that longwire's user is in, or any for root.
        group: Option<Entry<Account>> = absent("the group of longwire", "\"www-data\"");
    }
}

config_table! {
    /// The admin listener.
    Admin {
        /// Where metrics and health are served; "off" switches them off.
        bind: Entry<AddressOrOff> = is("\"127.0.0.1:9011\"");
        /// The file of the socket, where bind is unix:/path.
        socket: Socket = table();
    }
}

config_table! {
    /// The router.
    Router {
        /// Where commands are taken (docs/router-protocol.md); "off" switches it off.
        bind: Entry<AddressOrOff> = is("\"127.0.0.1:9010\"");
        /// The file of the socket, where bind is unix:/path.
        socket: Socket = table();
        /// What handlers find in LONGWIRE_ROUTER, if php-fpm must dial another address than bind.
        advertise: Option<Entry<String>> = absent("bind", "\"longwire:9010\"");
        /// What clients must prove to know: "env:NAME", "file:PATH" or the text itself. Needed where bind is neither loopback nor a Unix socket.
        secret: Option<Entry<SecretText>> = absent("none is asked for", "\"a long random text\"");
        /// Take the ancestor's commands too, which know no secret: on loopback and Unix sockets only. Beside a secret it lets everybody in who can connect there.
        short_protocol: Option<Entry<bool>> = absent("true, and false where there is a secret", "true");
        /// Largest message or attribute value in a command.
        max_message_bytes: Entry<Size<1, LARGEST>> = is("\"16 MiB\"");
        /// Memory for messages above 16 KiB that are on their way, of all connections and of the API together: whoever finds none waits.
        max_buffered_bytes: Option<Entry<Size<1, LARGEST>>> = absent("64 MiB, or the largest message where that is more", "\"64 MiB\"");
        /// Connections at once; one more is closed at once.
        // Every php-fpm worker of a large shop with a kept connection each.
        max_connections: Entry<Whole<1, 1_000_000>> = is("4096");
        /// Silence after which a connection is closed, one of the short protocol too if this is written; 0 never closes any.
        // See `router`.
        idle_timeout: Option<Entry<TimeOrOff>> = absent("10m in the long protocol, never in the short one", "\"10m\"");
        /// For channels whose rule for slow readers is not their members' own: { "prices/*" = "latest" }; the first that matches counts.
        slow_readers: Entry<ChannelRules> = is("{}");
        /// Channels that one session may be in at once.
        max_channels_per_session: Entry<Whole<1, 1_000_000>> = is("100");
        /// Bytes of the attributes of one session, names and values: they go to PHP with each event.
        max_attribute_bytes: Entry<Size<0, { 48 << 10 }>> = is("\"4 KiB\"");
    }
}

config_table! {
    /// The HTTP API.
    Api {
        /// Where it is served; "off" switches it off.
        bind: Entry<AddressOrOff> = is("\"127.0.0.1:9012\"");
        /// The file of the socket, where bind is unix:/path.
        socket: Socket = table();
        /// The bearer token that requests must carry: "env:NAME", "file:PATH" or the text itself. Needed where bind is neither loopback nor a Unix socket.
        token: Option<Entry<SecretText>> = absent("none is asked for", "\"a-long-random-text\"");
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
        /// The file of the socket, where bind is unix:/path.
        socket: Socket = table();
        /// Frames straight on the stream (tcp), or HTTP: WebSocket, event streams, polls, plain requests (http).
        protocol: Entry<ProtocolWord> = is("\"tcp\"");
        /// The app that handles every session of this listener.
        app: Option<Entry<String>> = required("\"chat\""), only when protocol = "tcp";
        /// The app for each path; "/live/*" takes /live and everything below it; the longest match wins. A slash at the end does not matter.
        routes: Option<Entry<Routes>> = required("{ \"/ws\" = \"chat\" }"), only when protocol = "http";
        /// A folder whose files are served where no route matches; never PHP files, TOML files or dot files. A relative path begins at the folder of this file.
        r#static: Option<Entry<String>> = absent("none", "\"/srv/chat/public\""), only when protocol = "http";
        /// Proxies that begin each connection with a PROXY header (version 1 or 2), which then says who the client is; from anybody else none is looked for.
        proxy_protocol: Entry<Networks> = is("[]");
        /// Proxies whose forwarding header says who the client is; from anybody else it changes nothing.
        trusted_proxies: Entry<Networks> = is("[]"), only when protocol = "http";
        /// Which header they write: X-Forwarded-For (with X-Forwarded-Proto), or Forwarded (RFC 7239). The other is never believed.
        // A proxy writes one and passes on what a client put into the other.
        forwarded: Entry<Dialect> = is("\"x-forwarded-for\""), only when protocol = "http";
        /// TLS in front of everything else.
        tls: IfWritten<Tls> = table();
        /// How bytes become frames.
        framing: Framing = table(), only when protocol = "tcp";
        /// Keeping a link alive in both directions without waking PHP.
        heartbeat: IfWritten<Heartbeat> = table(), only when protocol = "tcp";
        /// WebSocket.
        websocket: WebSocket = table(), only when protocol = "http";
        /// Speak HTTP/2 too, with clients that begin with it (prior knowledge). WebSocket handshakes are HTTP/1.1, so HAProxy's line is proto h2 ws h1.
        http2: Entry<bool> = is("true"), only when protocol = "http";
        /// Sessions without WebSocket: event streams and polls.
        sse: Sse = table(), only when protocol = "http";
        /// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
        // The kernel's own cap since 5.4.
        backlog: Entry<Whole<1, 65_535>> = is("4096");
        /// Silence after which TCP itself asks whether the client is still there; 0 switches it off.
        // Below the 5 minutes after which NAT boxes commonly forget a connection.
        tcp_keepalive: Entry<TimeOrOff> = is("\"60s\"");
        /// How long sent bytes may stay unacknowledged before the client counts as gone; 0 leaves it to the kernel.
        // A phone in a tunnel comes back within half a minute or reconnects anyway; the kernel would wait for 15 minutes.
        tcp_user_timeout: Entry<TimeOrOff> = is("\"30s\"");
    }
}

/// What is spoken on a listener.
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
        /// The certificate and those that lead to a root, in a PEM file. A relative path begins at the folder of this file.
        cert: Option<Entry<String>> = required("\"/srv/chat/fullchain.pem\"");
        /// Its private key, in a PEM file.
        key: Option<Entry<String>> = required("\"/srv/chat/privkey.pem\"");
        /// Further certificates for other names; the one above is for names that none of them has.
        more: Entry<CertificatePairs> = is("[]");
        /// Whether clients are asked for a certificate of their own: not at all, one that is shown must be good, or nobody comes in without.
        client_certs: Entry<ClientCerts> = is("\"off\"");
        /// Who may have signed them, in a PEM file.
        client_ca: Option<Entry<String>> = absent("nobody", "\"/srv/chat/clients-ca.pem\"");
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
        /// A header says how long the frame is (length), a byte string ends it (delimiter), silence ends it (gap), whatever arrives is one (raw), or a script of yours knows (lua).
        r#type: Entry<FramingWord> = is("\"length\"");
        /// Width of the length field: 1, 2, 3, 4 or 8 bytes (Swoole: package_length_type C, n or v, N or V, J or P; it has none of 3).
        length_bytes: Entry<LengthWidth> = is("4"), only when r#type = "length";
        /// Where the length field begins in the header (Swoole: package_length_offset).
        length_offset: Entry<Whole<0, 247>> = is("0"), only when r#type = "length";
        /// Byte order of the length field: big is network order.
        length_endian: Entry<Endian> = is("\"big\""), only when r#type = "length";
        /// What the length says: the bytes after the header (body), or header and body together (frame).
        length_counts: Entry<LengthCounts> = is("\"body\""), only when r#type = "length";
        /// The bits of the length field that are the length, one run of them; 0 for all. They are read as a number of their own: 0xFFF0 is a length of 12 bits. The others are flags, and zero in replies.
        length_mask: Entry<Whole<0, { i64::MAX as u64 }>> = is("0"), only when r#type = "length";
        /// Added to the length to have the bytes after the header: -2 where it counts two bytes that stand before its end, 2 where it leaves out two.
        length_adjust: Entry<Adjustment> = is("0"), only when r#type = "length";
        /// Where the body begins (Swoole: package_body_offset).
        header_bytes: Option<Entry<Whole<1, 255>>> = absent("the length field ends the header", "4"), only when r#type = "length";
        /// PHP sees the header too, start and end as well, and its replies bring their own.
        keep_header: Entry<bool> = is("false"), only when r#type = "length";
        /// Bytes after the body that the length does not count, such as a checksum. PHP sees them behind the body, and its replies bring their own.
        trailer_bytes: Entry<Whole<0, 64>> = is("0"), only when r#type = "length";
        /// What every frame begins with, up to 16 bytes: a string or a list of bytes. In length framing it is the first part of the header; PHP does not see it unless keep_header says so, and it stands before replies.
        start: Entry<Marker> = is("\"\""), only when r#type = "length" | "delimiter";
        /// What every frame ends with, after body and trailer; the length does not count it. PHP does not see it unless keep_header says so, and it stands behind replies.
        end: Entry<Marker> = is("\"\""), only when r#type = "length";
        /// Skip bytes that cannot be a frame, up to the next start, and count them. With false they end the session (bad_frame).
        resync: Entry<bool> = is("false"), only when r#type = "length" | "delimiter";
        /// What ends a frame, in both directions (Swoole: package_eof); a string, or a list of bytes such as [0xFF, 0x00].
        delimiter: Entry<Delimiter> = is("\"\\n\""), only when r#type = "delimiter";
        /// Take one carriage return off the end of a received frame.
        strip_cr: Entry<bool> = is("false"), only when r#type = "delimiter";
        /// Bytes that are escaped inside a frame, and the two that are sent for each, as in [{ byte = 0x7E, code = [0x7D, 2] }, { byte = 0x7D, code = [0x7D, 1] }]. PHP sees and prints the bytes themselves.
        escape: Entry<Escapes> = is("[]"), only when r#type = "delimiter";
        /// Drop empty frames: PHP does not run for them. Always so where start and delimiter are the same.
        skip_empty: Entry<bool> = is("false"), only when r#type = "delimiter";
        /// Silence that ends a frame, at most 10s. A reply comes at least that much later.
        // Modbus RTU needs 3.5 characters, 4 ms at 9600 baud; gateways and mobile networks add up to some milliseconds between two packets of one frame.
        gap: Entry<Time> = is("\"20ms\""), only when r#type = "gap";
        /// The Lua file; a relative path begins at the folder of this file.
        script: Option<Entry<String>> = required("\"/srv/chat/codec.lua\""), only when r#type = "lua";
        /// Instructions of Lua that one call of the script may take; and 20 ns of processor time for each, library functions included.
        // To unmask a WebSocket frame of 1 MiB byte by byte takes 16 million, and a call that never ends is cut off after less than
        // a tenth of a second, measured.
        max_instructions: Entry<Whole<1_000, 1_000_000_000_000>> = is("30_000_000"), only when r#type = "lua";
        /// Memory of each VM of the script; there is one for each worker thread.
        // To unmask a frame of 1 MiB byte by byte takes 20 MiB, measured; as much again for what is not collected yet.
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
    /// Keeping a link alive in both directions without waking PHP.
    Heartbeat {
        /// The probe that is sent into silence: a whole frame as it stands on the wire, a string or a list of bytes.
        send: Option<Entry<HeartbeatBytes>> = absent("none is sent", "[0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0]");
        /// Silence from the client after which the first probe is sent.
        // As tcp_keepalive: below the 5 minutes after which NAT boxes commonly forget a connection.
        after: Entry<Time> = is("\"60s\"");
        /// How long a probe may go unanswered before the next, or the close.
        every: Entry<Time> = is("\"60s\"");
        /// Unanswered probes after which the client counts as gone.
        // One may come while the client pauses; three in a row are no pause.
        max_unanswered: Entry<Whole<1, 255>> = is("3");
        /// Where in the probe a number stands, big-endian: each probe of a session has the one after the last, from the number in send.
        sequence: Option<Entry<SequencePlace>> = absent("all probes are alike", "{ offset = 8, width = 4 }");
        /// Which frames answer a probe, by the bytes at a place of the frame as PHP would see it. They are not given to PHP.
        answer: Option<Entry<Pattern>> = absent("whatever is received answers", "{ offset = 0, bytes = [0x80, 0, 0, 8] }");
        /// Which frames are probes of the client, in the same way. They are answered here and not given to PHP.
        probe: Option<Entry<Pattern>> = absent("PHP answers them", "{ offset = 0, bytes = [0, 0, 0, 8] }");
        /// The answer to them: a whole frame as it stands on the wire.
        reply: Option<Entry<HeartbeatBytes>> = absent("none, see probe", "[0, 0, 0, 8, 0x80, 0, 0, 8, 0, 0, 0, 0]");
        /// What the answer takes over from the probe: so many bytes, from one place to another.
        copy: Option<Entry<CopiedBytes>> = absent("nothing", "{ from = 4, to = 8, bytes = 4 }");
    }
}

config_table! {
    /// WebSocket settings of an HTTP listener.
    WebSocket {
        /// Whose pages may connect: those of the same host, a list (which the same host is part of), or anybody's. In a list "https://*.shop.example" is every host below that domain, "null" and "file://" are pages from files.
        // Browsers send cookies with the handshake from any page: without this check every page could use the visitor's login.
        origins: Entry<Origins> = is("\"same-host\"");
        /// Negotiate permessage-deflate (RFC 7692).
        // Small frames grow and processor time is spent; whoever sends large texts over slow lines knows.
        deflate: Entry<bool> = is("false");
        /// Frames below this size are sent uncompressed.
        // Without a shared window a small frame hardly shrinks, and one below a packet saves nothing.
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
        /// Whether such sessions may be opened; an app's event_streams says it of event streams on its own paths.
        enabled: Entry<bool> = is("true");
        /// Silence after which a comment is sent on a stream; 0 never sends one.
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
        /// Name of the upstream that runs it.
        upstream: Option<Entry<String>> = required("\"php\"");
        /// The PHP file; a relative path begins at the folder of this file.
        script: Option<Entry<String>> = required("\"/srv/chat/handler.php\"");
        /// Look at start whether the script is there. Switch it off where php-fpm sees other folders than longwire.
        check_script: Entry<bool> = is("true");
        /// The param DOCUMENT_ROOT.
        document_root: Option<Entry<String>> = absent("the script's folder", "\"/srv/chat\"");
        /// The param REQUEST_URI for sessions that did not come over HTTP.
        uri: Option<Entry<String>> = absent("the script's path below document_root", "\"/handler.php\"");
        /// Which events beside messages PHP is told: "connect" and "close" of sessions; of its sessions in channels, over all nodes, "join" and "leave"; of these channels "occupied" and "vacated".
        events: Entry<Set<EventWord>> = is("[]");
        /// Events of one session that may run at once; above 1 their order is given up.
        concurrency: Entry<Whole<1, 1024>> = is("1");
        /// Sessions that share a bound on how many of their events run at once: those with the same "uid", or with the same cookie, "cookie:NAME". For handlers that hold the lock of a PHP session.
        concurrency_per: Option<Entry<GroupBy>> = absent("no such bound", "\"cookie:PHPSESSID\"");
        /// That bound.
        // PHP's session lock lets one of them run at a time anyway.
        concurrency_per_limit: Entry<Whole<1, 1024>> = is("1");
        /// Text put before the names SESSIONID and EVENT ("HTTP_" for Go's net/http/fcgi).
        param_prefix: Entry<String> = is("\"\"");
        /// Further params; "env:NAME" and "file:PATH" read a secret, "plain:" stands before a text that begins so.
        params: Entry<Params> = is("{}");
        /// The handler may see a message twice, so one that may or may not have run is tried again.
        idempotent: Entry<bool> = is("false");
        /// Give the handler requests to its HTTP paths that are neither WebSocket nor of a session, as a web server would: one port for page and socket.
        plain_requests: Entry<bool> = is("false");
        /// WebSocket sub-protocols that the app speaks: a client that offers some is answered with the first of these among them, unless the answer to connect chooses.
        subprotocols: Entry<Subprotocols> = is("[]");
        /// A GET that accepts text/event-stream opens a session. false gives it to the handler as a plain request, so that it can write an event stream of its own; polls stay.
        event_streams: Entry<bool> = is("true");
        /// "fooking" for a handler that was written for it (docs/fooking.md): what is printed without a Content-Length is no reply, no empty frame is sent or handed to PHP, and an answer to connect does not greet, and refuses on `http` listeners only.
        // One word for all of it: a shop that comes from fooking needs every rule, and other shops need none.
        compat: Entry<Compat> = is("\"none\"");
        /// What a failed message does to its session: nothing, a text sent to the client, or the end.
        on_error: Entry<OnError> = is("\"ignore\"");
        /// Largest frame from a client (once inflated, for compressed ones).
        // Chat, games and forms stay far below; php-fpm's own post_max_size is 8 MB.
        max_frame_bytes: Entry<Size<1, LARGEST>> = is("\"1 MiB\"");
        /// Largest reply, or line of a reply sent by lines, where it has to be held back whole: without Content-Length on a length framing, or with a negative Content-Offset.
        max_reply_bytes: Entry<Size<1, LARGEST>> = is("\"16 MiB\"");
        /// Frames that may wait in one session; then its socket is not read.
        max_queued_frames: Entry<Whole<1, 1_000_000>> = is("32");
        /// Bytes of them.
        max_queued_bytes: Option<Entry<Size<1, LARGEST>>> = absent("1 MiB, or max_frame_bytes if that is more", "\"1 MiB\"");
        /// Bytes that may wait for one client to read.
        outbox_bytes: Entry<Size<1024, LARGEST>> = is("\"1 MiB\"");
        /// What a push does that finds no room there: close ends the session, oldest and newest drop the oldest pushes or this one, latest keeps one push for each key.
        slow_reader: Entry<SlowReader> = is("\"close\"");
        /// How long a client may take nothing while bytes wait for it.
        send_timeout: Entry<Time> = is("\"30s\"");
        /// Silence from the client that ends the session; 0 never does.
        idle_timeout: Entry<TimeOrOff> = is("0");
        /// Connect events a second, of all sessions together; beyond, clients are turned away before PHP hears of them. 0 sets no bound.
        // What a pool bears is known only to who wrote the script; queue_timeout ends what waits for too long.
        connect_rate: Entry<PerSecond> = is("0");
        /// Connect events that may come at once after a time of silence.
        connect_burst: Option<Entry<Burst>> = absent("connect_rate", "100");
        /// Frames a second from one session, pings included; 0 sets no bound.
        max_frames_per_second: Entry<PerSecond> = is("0");
        /// Frames that may come at once after a time of silence.
        burst_frames: Option<Entry<Burst>> = absent("max_frames_per_second", "20");
        /// Bytes a second from one session; 0 sets no bound.
        max_bytes_per_second: Entry<Size<0, LARGEST>> = is("0");
        /// Bytes that may come at once after a time of silence.
        burst_bytes: Option<Entry<Size<1, LARGEST>>> = absent("max_bytes_per_second, or max_frame_bytes if that is more", "\"1 MiB\"");
        /// What becomes of a session that sends faster: wait does not read it for a while, so that TCP holds the client back; close ends it.
        // Nothing is lost by waiting, and a program that sends in bursts is no enemy.
        rate_rule: Entry<RateRule> = is("\"wait\"");
        /// Silence in the middle of a frame that ends the session; 0 never does.
        // A phone that changes networks is silent for half a minute; people who type into a telnet client think longer.
        frame_idle_timeout: Entry<TimeOrOff> = is("\"60s\"");
        /// How long a frame may take from its first byte to its last, however steadily it comes; 0 sets no bound.
        frame_timeout: Option<Entry<TimeOrOff>> = absent("2m, and 1s more for every 4 KiB of max_frame_bytes", "\"10m\"");
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
        /// Addresses of php-fpm, each with a weight if they differ; instead of spawn.
        backends: Option<Entry<Backends>> = absent("spawn makes one", "[\"unix:/run/php/php8.2-fpm.sock\"]");
        /// A php-fpm of longwire's own; instead of backends.
        spawn: IfWritten<Spawn> = table();
        /// Connections at once to each backend. Each pins a php-fpm worker: stay at or below pm.max_children, less what others need.
        // php-fpm's stock pool has 5 children; one connection too many gets no answer and no error.
        max_connections: Option<Entry<Whole<1, 10_000>>> = absent("4, or with spawn as many as workers", "4");
        /// Ask each backend how many connections it takes (FCGI_GET_VALUES), at start and when it comes back: fewer than max_connections lower that for it. One that does not say, such as php-fpm, or does not answer within a second, is left as it is.
        // php-fpm never tells, and libfcgi tells of one process where there may be many: docs/responders.md.
        ask_limits: Entry<bool> = is("false");
        /// How long a connection is kept when no work waits for it.
        // Long enough to bridge the gaps of a busy node, short enough that a silent one pins no worker for a noticeable time.
        linger: Entry<TimeOrOff> = is("\"200ms\"");
        /// How long connecting may take.
        // php-fpm is near; a full backlog over TCP shows only as a SYN that the kernel repeats after 1 s.
        connect_timeout: Entry<Time> = is("\"2s\"");
        /// How long a script may be silent, before its first byte and between bytes.
        response_timeout: Entry<Time> = is("\"30s\"");
        /// How long a request may take as a whole.
        request_timeout: Entry<Time> = is("\"60s\"");
        /// Messages that may wait for a connection; one more fails at once. Without it queue_timeout alone decides.
        // A session has at most concurrency events under way, so sessions bound this queue, and TCP holds back what they send. A bound below
        // max_sessions loses messages of a burst that a fast pool would have answered in time.
        queue_length: Option<Entry<Whole<1, 10_000_000>>> = absent("no bound but that of sessions", "10_000");
        /// How long a message or connect event may wait for a connection.
        // Later than that nobody waits for the answer any more.
        queue_timeout: Entry<Time> = is("\"10s\"");
        /// Connect events that may wait for a connection; one more is refused at once. Without it queue_timeout alone decides.
        // The same: each belongs to a client that max_sessions has let in, and after a restart all of them come at once.
        connect_queue_length: Option<Entry<Whole<1, 10_000_000>>> = absent("no bound but that of sessions", "1_000");
        /// Connections out of a hundred that connect events may hold while messages wait; at least one.
        connect_share_percent: Entry<Whole<1, 100>> = is("50");
        /// How long in all an answer may hold a connection because its client does not take it, where more than half of the connections are held so and requests wait. Then the answer is broken off and its session closed; 0 never does that.
        // A client that takes nothing is closed by send_timeout only after half a minute, and one that takes a little never. Half of the workers
        // are left to everybody else.
        slow_reader_hold: Entry<TimeOrOff> = is("\"1s\"");
        /// How long a script may take to notice that its session has gone before its connection is closed.
        abort_grace: Entry<TimeOrOff> = is("\"1s\"");
        /// Failures in a row after which a backend gets no more requests.
        eject_after: Entry<Whole<1, 1000>> = is("3");
        /// How long it is then left alone.
        eject_time: Entry<Time> = is("\"2s\"");
        /// How often a backend with no connection open is asked a question of FastCGI's (FCGI_GET_VALUES), or connected to where it does not answer that, to see whether it is there; 0 does so at the start only.
        // As often as HAProxy asks /ready. A probe costs php-fpm an accept, a read and a write, tens of microseconds; pm = ondemand forks a child for it.
        probe_interval: Entry<TimeOrOff> = is("\"2s\"");
    }
}

config_table! {
    /// A php-fpm of longwire's own.
    Spawn {
        /// The php-fpm binary.
        binary: Option<Entry<String>> = absent("the newest php-fpm of the first folder of PATH that has one", "\"/usr/sbin/php-fpm8.2\"");
        /// How many PHP processes.
        // PHP code waits for databases half of its time.
        workers: Option<Entry<Whole<1, 10_000>>> = absent("twice the cores, at least 4", "8");
        /// How long a script may run until php-fpm kills its worker; 0 lets it run for ever. Whole seconds count, rounded up.
        // A client has been answered or given up by request_timeout. A worker that sleeps beyond it serves nobody, and as many of them
        // as there are workers are an outage.
        request_terminate_timeout: Option<Entry<TimeOrOff>> = absent("request_timeout, and 5s more", "\"65s\"");
        /// Look at each request whether files have changed.
        // A stat per file and request is little beside old code running after a deployment.
        recheck_files: Entry<bool> = is("true");
        /// Further php.ini settings for it.
        ini: Entry<Ini> = is("{}");
    }
}
