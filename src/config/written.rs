//! What an operator may write: every table and key, its type, its default beside the reason for it, its meaning.
//!
//! The doc comments here are what `longwire defaults` and README.md print, so they speak to operators. Comments with
//! two slashes are for us. Rules about one value are in its type, rules about several in `resolve`.

use super::address::{Address, AddressOrOff};
use super::compound::{Backends, ChannelRules, Delimiter, Ini, Params, Routes, Width};
use super::model::{Endian, LengthCounts, LogFormat, OnError, Origins, SlowReader};
use super::problem::{Place, Report};
use super::schema::{
    Entry, Field, IfWritten, Key, Named, OnlyWhen, Section, Table, absent, config_table, is, required, table,
};
use super::value::{Choice, Set, Size, Time, TimeOrOff, Whole};

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
        /// Worker threads; 0 takes one for each core.
        threads: Entry<Whole<0, 1024>> = is("0");
    }
}

config_table! {
    /// Bounds of the whole node.
    Limits {
        /// Sessions at once. The limit of open files lowers it where that is smaller.
        // About 5 KB each with the kernel's part, measured: half a gigabyte.
        max_sessions: Entry<Whole<1, 100_000_000>> = is("100_000");
        /// Sessions at once from one client address; 0 sets no bound.
        // Offices and mobile networks put thousands of people behind one address, and so does a proxy in front of us.
        max_sessions_per_address: Entry<Whole<0, 100_000_000>> = is("0");
        /// HTTP connections at once that have not become a session yet.
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
    }
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
}

config_table! {
    /// The admin listener.
    Admin {
        /// Where metrics and health are served; "off" switches them off.
        bind: Entry<AddressOrOff> = is("\"127.0.0.1:9011\"");
    }
}

config_table! {
    /// The router.
    Router {
        /// Where commands are taken (docs/router-protocol.md); "off" switches it off.
        bind: Entry<AddressOrOff> = is("\"127.0.0.1:9010\"");
        /// What handlers find in LONGWIRE_ROUTER, if php-fpm must dial another address than bind.
        advertise: Option<Entry<String>> = absent("bind", "\"longwire:9010\"");
        /// What clients must prove to know: "env:NAME", "file:PATH" or the text itself. Needed where bind is neither loopback nor a Unix socket.
        secret: Option<Entry<String>> = absent("none is asked for", "\"a long random text\"");
        /// Take the ancestor's commands too, which know no secret: on loopback and Unix sockets only.
        short_protocol: Entry<bool> = is("true");
        /// Largest message or attribute value in a command.
        max_message_bytes: Entry<Size<1, LARGEST>> = is("\"16 MiB\"");
        /// Connections at once; one more is closed at once.
        // Every php-fpm worker of a large shop with a kept connection each.
        max_connections: Entry<Whole<1, 1_000_000>> = is("4096");
        /// Silence after which a connection is closed; 0 never closes it.
        // Old clients may never close what they opened.
        idle_timeout: Entry<TimeOrOff> = is("\"10m\"");
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
        /// The bearer token that requests must carry: "env:NAME", "file:PATH" or the text itself. Needed where bind is neither loopback nor a Unix socket.
        token: Option<Entry<String>> = absent("none is asked for", "\"a-long-random-text\"");
        /// Largest body of a request.
        max_body_bytes: Entry<Size<1024, LARGEST>> = is("\"16 MiB\"");
    }
}

impl Choice for SlowReader {
    const WORDS: &'static [(&'static str, Self)] =
        &[("close", Self::Close), ("oldest", Self::Oldest), ("newest", Self::Newest), ("latest", Self::Latest)];
}

config_table! {
    /// One place where clients connect.
    Listener {
        /// Address to listen on. Port 0 takes a free one.
        bind: Option<Entry<Address>> = required("\"127.0.0.1:9005\"");
        /// Frames straight on the stream (tcp), or HTTP/1.1 with WebSocket upgrades (http).
        protocol: Entry<ProtocolWord> = is("\"tcp\"");
        /// The app that handles every session of this listener.
        app: Option<Entry<String>> = required("\"chat\""), only when protocol = "tcp";
        /// The app for each path; "/live/*" takes everything below /live, the longest match wins.
        routes: Option<Entry<Routes>> = required("{ \"/ws\" = \"chat\" }"), only when protocol = "http";
        /// A folder whose files are served where no route matches; never PHP files or dot files. A relative path begins at the folder of this file.
        r#static: Option<Entry<String>> = absent("none", "\"/srv/chat/public\""), only when protocol = "http";
        /// How bytes become frames.
        framing: Framing = table(), only when protocol = "tcp";
        /// WebSocket.
        websocket: WebSocket = table(), only when protocol = "http";
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
}

config_table! {
    /// How bytes become frames on a stream.
    Framing {
        /// A header says how long the frame is (length), a byte string ends it (delimiter), whatever arrives is one (raw), or a script of yours knows (lua).
        r#type: Entry<FramingWord> = is("\"length\"");
        /// Width of the length field: 1, 2, 4 or 8 bytes (Swoole: package_length_type C, n or v, N or V, J or P).
        length_bytes: Entry<Width> = is("4"), only when r#type = "length";
        /// Where the length field begins in the header (Swoole: package_length_offset).
        length_offset: Entry<Whole<0, 247>> = is("0"), only when r#type = "length";
        /// Byte order of the length field: big is network order.
        length_endian: Entry<Endian> = is("\"big\""), only when r#type = "length";
        /// What the length says: the bytes after the header (body), or header and body together (frame).
        length_counts: Entry<LengthCounts> = is("\"body\""), only when r#type = "length";
        /// Where the body begins (Swoole: package_body_offset).
        header_bytes: Option<Entry<Whole<1, 255>>> = absent("the length field ends the header", "4"), only when r#type = "length";
        /// PHP sees the header too, and its replies bring their own.
        keep_header: Entry<bool> = is("false"), only when r#type = "length";
        /// What ends a frame, in both directions (Swoole: package_eof); a string, or a list of bytes such as [0xFF, 0x00].
        delimiter: Entry<Delimiter> = is("\"\\n\""), only when r#type = "delimiter";
        /// Take one carriage return off the end of a received frame.
        strip_cr: Entry<bool> = is("false"), only when r#type = "delimiter";
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
    Raw,
    Lua,
}

impl Choice for FramingWord {
    const WORDS: &'static [(&'static str, Self)] =
        &[("length", Self::Length), ("delimiter", Self::Delimiter), ("raw", Self::Raw), ("lua", Self::Lua)];
}

impl Choice for Endian {
    const WORDS: &'static [(&'static str, Self)] = &[("big", Self::Big), ("little", Self::Little)];
}

impl Choice for LengthCounts {
    const WORDS: &'static [(&'static str, Self)] = &[("body", Self::Body), ("frame", Self::Frame)];
}

config_table! {
    /// WebSocket settings of an HTTP listener.
    WebSocket {
        /// Whose pages may connect: those of the same host, a list (which the same host is part of), or anybody's.
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
        /// Which events beside messages PHP is told: "connect", "close".
        events: Entry<Set<EventWord>> = is("[]");
        /// Events of one session that may run at once; above 1 their order is given up.
        concurrency: Entry<Whole<1, 1024>> = is("1");
        /// Text put before the names SESSIONID and EVENT ("HTTP_" for Go's net/http/fcgi).
        param_prefix: Entry<String> = is("\"\"");
        /// Further params; "env:NAME" and "file:PATH" read a secret, "plain:" stands before a text that begins so.
        params: Entry<Params> = is("{}");
        /// The handler may see a message twice, so one that may or may not have run is tried again.
        idempotent: Entry<bool> = is("false");
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
    }
}

/// Names of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventWord {
    Connect,
    Message,
    Close,
}

impl Choice for EventWord {
    const WORDS: &'static [(&'static str, Self)] =
        &[("connect", Self::Connect), ("message", Self::Message), ("close", Self::Close)];
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
        /// Messages that may wait for a connection.
        // What a pool that answers 1 000 messages a second gets through within queue_timeout.
        queue_length: Entry<Whole<1, 10_000_000>> = is("10_000");
        /// How long a message or connect event may wait for a connection.
        // Later than that nobody waits for the answer any more.
        queue_timeout: Entry<Time> = is("\"10s\"");
        /// Connect events that may wait for a connection.
        // What a pool that welcomes 100 clients a second gets through within queue_timeout.
        connect_queue_length: Entry<Whole<1, 10_000_000>> = is("1_000");
        /// Connections out of a hundred that connect events may hold while messages wait; at least one.
        connect_share_percent: Entry<Whole<1, 100>> = is("50");
        /// How long a script may take to notice that its session has gone before its connection is closed.
        abort_grace: Entry<TimeOrOff> = is("\"1s\"");
        /// Failures in a row after which a backend gets no more requests.
        eject_after: Entry<Whole<1, 1000>> = is("3");
        /// How long it is then left alone.
        eject_time: Entry<Time> = is("\"2s\"");
    }
}

config_table! {
    /// A php-fpm of longwire's own.
    Spawn {
        /// The php-fpm binary.
        binary: Option<Entry<String>> = absent("php-fpm8.x or php-fpm, wherever it is found", "\"/usr/sbin/php-fpm8.2\"");
        /// How many PHP processes.
        // PHP code waits for databases half of its time.
        workers: Option<Entry<Whole<1, 10_000>>> = absent("twice the cores, at least 4", "8");
        /// Look at each request whether files have changed.
        // A stat per file and request is little beside old code running after a deployment.
        recheck_files: Entry<bool> = is("true");
        /// Further php.ini settings for it.
        ini: Entry<Ini> = is("{}");
    }
}
