//! `longwire check`: prints what a configuration would run, and tests whether it could start on this machine.
//!
//! Owns the readable summary and the tests that start nothing: it binds and releases addresses, looks for binaries
//! and connects to backends. Everything that the file alone decides is left to `config`.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use socket2::{SockAddr, Type};

use crate::config::model::{
    App, Backend, Bind, ClientCerts, ClientTls, ClusterEngine, ConcurrencyPer, Config, Dialect, Events, GroupBy,
    Heartbeat, Http, LengthCounts, Listener, LogFormat, OnError, OriginPattern, Origins, SocketFile,
};
use crate::config::model::{
    DelimiterFraming, Endian, LengthFraming, LuaFraming, Protocol, RedisKind, StreamFraming, Upstream,
};
use crate::config::value::{duration_text, size_text};
use crate::holders;
use crate::logging;
use crate::lua;
use crate::sockets;
use crate::transport::listening::{self, holders_of, why_not};
use crate::upstream::explain;
use crate::upstream::supervisor::{SpawnError, Supervisor};

/// Checks the file. Prints what would run to standard output and problems to standard error. The exit status is 0 if the
/// configuration would start, 1 if not.
pub fn run(file: &Path) -> ExitCode {
    let (config, warnings) = match Config::load(file) {
        Ok(loaded) => loaded,
        Err(errors) => {
            logging::tell(format_args!("{errors}\n"));
            return ExitCode::FAILURE;
        }
    };
    // `longwire check ... | head` closes the pipe early; the exit status still counts.
    let _closed_early = io::stdout().write_all(Summary(&config).to_string().as_bytes());
    for warning in warnings {
        logging::tell(format_args!("warning: {warning}\n"));
    }
    let mut would_start = true;
    for finding in try_out(&config, file) {
        let level = match finding.weight {
            Weight::Error => "",
            Weight::Warning => "warning: ",
            Weight::Note => "note: ",
        };
        logging::tell(format_args!("{level}{}: {}: {}\n", file.display(), finding.key, finding.text));
        would_start &= finding.weight != Weight::Error;
    }
    if would_start { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A problem on this machine that could keep the configuration from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The configuration key concerned, with its value.
    pub key: String,
    /// The problem.
    pub text: String,
    /// Whether the node can start all the same.
    pub weight: Weight,
}

/// Whether the node can start in spite of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The node would not start: another program holds the port, for example.
    Error,
    /// The node would start: a backend that does not answer may come up later, for example.
    Warning,
    /// Nothing is wrong: the port is held by the running node of this file and is free once that stops.
    Note,
}

/// Tests everything that can be tested without starting anything. `file` is where `config` was read from: a running node that
/// serves this file holds its ports.
pub fn try_out(config: &Config, file: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let binds = config
        .listeners
        .iter()
        .map(|listener| (format!("listeners.{}.bind", listener.name), &listener.bind, &listener.socket));
    let admin = config.admin.iter().map(|bind| ("admin.bind".to_owned(), bind, &config.admin_socket));
    let router = config.router.bind.iter().map(|bind| ("router.bind".to_owned(), bind, &config.router.socket));
    let api = config.api.bind.iter().map(|bind| ("api.bind".to_owned(), bind, &config.api.socket));
    for (key, bind, settings) in binds.chain(admin).chain(router).chain(api) {
        if let Err(error) = try_bind(bind, settings) {
            let (text, weight) = match error.kind() {
                io::ErrorKind::AddrInUse => held(bind, file),
                _ => (why_not(bind, &error), Weight::Error),
            };
            findings.push(Finding { key: format!("{key} = \"{bind}\""), text, weight });
        }
    }
    for listener in &config.listeners {
        if let Protocol::Stream { framing: StreamFraming::Lua(framing), .. } = &listener.protocol
            && let Err(error) = lua::try_out(framing)
        {
            let key = format!("listeners.{}.framing.script = \"{}\"", listener.name, framing.script.display());
            findings.push(Finding { key, text: error.to_string(), weight: Weight::Error });
        }
    }
    for app in &config.apps {
        let is_spawned =
            config.upstreams.iter().any(|upstream| upstream.name == app.upstream && upstream.spawn.is_some());
        // A spawned php-fpm runs as this user. An external one may have other permissions, so it is not tested.
        if is_spawned && let Err(error) = File::open(&app.script) {
            let key = format!("apps.{}.script = \"{}\"", app.name, app.script.display());
            findings.push(Finding { key, text: format!("cannot be read: {error}"), weight: Weight::Warning });
        }
    }
    for upstream in &config.upstreams {
        if let Some(spawn) = &upstream.spawn
            && let Err(error) = Supervisor::check(spawn)
        {
            let part = match error {
                SpawnError::NotFound(_) => ".binary",
                SpawnError::Ini(_) => ".ini",
                _ => "",
            };
            let key = format!("upstreams.{}.spawn{part}", upstream.name);
            findings.push(Finding { key, text: error.to_string(), weight: Weight::Error });
        }
        for Backend { address, .. } in &upstream.backends {
            if let Err(error) = try_connect(address, upstream.connect_timeout) {
                let key = format!("upstreams.{}.backends = \"{address}\"", upstream.name);
                findings.push(Finding {
                    key,
                    text: format!("does not answer: {}", explain(address, error)),
                    weight: Weight::Warning,
                });
            }
        }
    }
    findings
}

/// The finding for an address in use. The holder is either another program, or a running node that serves this same file, which is
/// normal in a check before a restart.
fn held(bind: &Bind, file: &Path) -> (String, Weight) {
    let holders = holders_of(bind);
    match holders.first() {
        Some(node) if holders.iter().all(|holder| holders::serves(holder, file)) => {
            (format!("held by process {}, which serves this file now; a restart frees it", node.pid), Weight::Note)
        }
        _ => (why_not(bind, &io::ErrorKind::AddrInUse.into()), Weight::Error),
    }
}

fn try_bind(bind: &Bind, file: &SocketFile) -> io::Result<()> {
    match bind {
        Bind::Tcp(address) => {
            let socket = sockets::listening_tcp(*address)?;
            socket.bind(&SockAddr::from(*address))?;
            // With SO_REUSEADDR two sockets may be bound to one address, but only one of them may listen.
            socket.listen(1)
        }
        Bind::Unix(path) => match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => match listening::knock(path) {
                // A stale socket file of a process that has ended; `serve` replaces it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                _ => Err(io::ErrorKind::AddrInUse.into()),
            },
            Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket")),
            Err(_) => {
                drop(UnixListener::bind(path)?);
                let handed_over = listening::hand_over(path, file);
                std::fs::remove_file(path)?;
                handed_over
            }
        },
    }
}

fn try_connect(address: &Bind, timeout: Duration) -> io::Result<()> {
    match address {
        Bind::Tcp(address) => {
            let socket = sockets::tcp(*address)?;
            socket.connect_timeout(&SockAddr::from(*address), timeout)
        }
        Bind::Unix(path) => {
            let socket = sockets::unix(Type::STREAM)?;
            // A blocking connect would wait without limit if the backlog is full. A full backlog means that a process listens.
            socket.set_nonblocking(true)?;
            match socket.connect(&SockAddr::unix(path)?) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                result => result,
            }
        }
    }
}

/// A configuration as readable text.
pub struct Summary<'a>(pub &'a Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { node, limits, log, admin, admin_socket, router, api, cluster, listeners, apps, upstreams } =
            self.0;
        writeln!(f, "node {}", node.name)?;
        row(f, "number", node.number)?;
        row(f, "threads", node.threads)?;
        let per_address = match limits.max_sessions_per_address {
            0 => String::new(),
            bound => format!(", {bound} from one address"),
        };
        row(f, "sessions", format_args!("at most {}{per_address}", limits.max_sessions))?;
        row(f, "drain", format_args!("up to {}", duration_text(limits.drain_timeout)))?;
        let format = match log.format {
            LogFormat::Text => "text",
            LogFormat::Json => "JSON",
        };
        row(f, "log", format_args!("{format}, {}", log.level))?;
        match admin {
            Some(bind) => row(f, "admin", format_args!("http {bind}{}, {}", file_text(admin_socket), open_to(bind)))?,
            None => row(f, "admin", "off")?,
        }
        match &router.bind {
            Some(bind) => {
                let access = match (&router.secret, router.short_protocol) {
                    (None, _) => open_to(bind).to_owned(),
                    (Some(_), false) => "with a secret".to_owned(),
                    (Some(_), true) => format!("with a secret; short protocol {}", open_to(bind)),
                };
                row(f, "router", format_args!("{bind}{}, {access}", file_text(&router.socket)))?;
            }
            None => row(f, "router", "off")?,
        }
        match &api.bind {
            Some(bind) => {
                let access = if api.token.is_some() { "with a token" } else { open_to(bind) };
                row(f, "api", format_args!("http {bind}{}, {access}", file_text(&api.socket)))?;
            }
            None => row(f, "api", "off")?,
        }
        let engine = match &cluster.engine {
            ClusterEngine::Local => None,
            ClusterEngine::Redis { urls, kind } => Some((
                urls.len(),
                match kind {
                    RedisKind::Alone => "Redis".to_owned(),
                    RedisKind::Sentinel { master } => format!("Redis, master {master} of Sentinel"),
                    RedisKind::Cluster => "Redis Cluster".to_owned(),
                },
            )),
            ClusterEngine::Nats { urls } => Some((urls.len(), "NATS".to_owned())),
        };
        if let Some((servers, engine)) = engine {
            row(f, "cluster", format_args!("{engine}, {servers} addresses, as {}", cluster.prefix))?;
        }
        if let Some(ClientTls { ca, own }) = &cluster.tls {
            let ca = ca.as_ref().map_or_else(|| "the system's CAs".to_owned(), |ca| ca.display().to_string());
            let own = own.as_ref().map_or_else(|| "none".to_owned(), |own| own.cert.display().to_string());
            row(f, "engine TLS", format_args!("trusts {ca}, client certificate: {own}"))?;
        }
        listeners.iter().try_for_each(|listener| write_listener(f, listener))?;
        apps.iter().try_for_each(|app| write_app(f, app))?;
        upstreams.iter().try_for_each(|upstream| write_upstream(f, upstream))
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {name:<12} {value}")
}

/// Which clients have access to an address that asks for no secret or token.
fn open_to(bind: &Bind) -> &'static str {
    match bind {
        Bind::Unix(_) => "open to every user with access to its file",
        Bind::Tcp(address) if address.ip().to_canonical().is_loopback() => "open to every program on this machine",
        Bind::Tcp(_) => "open to every client that can connect",
    }
}

fn or_off(time: Duration) -> String {
    if time.is_zero() { "off".to_owned() } else { duration_text(time) }
}

/// Mode, owner and group of a Unix socket's file, to be printed after its address.
fn file_text(file: &SocketFile) -> String {
    let SocketFile { mode, owner, group } = file;
    let mode = mode.map(|mode| format!(", mode {mode:04o}"));
    let owner = owner.map(|owner| format!(", owner {owner}"));
    let group = group.map(|group| format!(", group {group}"));
    [mode, owner, group].into_iter().flatten().collect()
}

fn write_listener(f: &mut fmt::Formatter<'_>, listener: &Listener) -> fmt::Result {
    writeln!(f, "\nlistener {}", listener.name)?;
    row(f, "bind", format_args!("{}{}", listener.bind, file_text(&listener.socket)))?;
    if !listener.proxy_protocol.is_empty() {
        row(f, "PROXY header", format_args!("from {}", listener.proxy_protocol))?;
    }
    if let Some(tls) = &listener.tls {
        let certificates: Vec<_> = tls.pairs.iter().map(|pair| pair.cert.display().to_string()).collect();
        row(f, "TLS", certificates.join(", "))?;
        let clients = match tls.client_certs {
            ClientCerts::Off => None,
            ClientCerts::Optional => Some("optional"),
            ClientCerts::Required => Some("required"),
        };
        clients.map_or(Ok(()), |clients| row(f, "client certificates", clients))?;
    }
    match &listener.protocol {
        Protocol::Stream { framing, heartbeat, app } => {
            row(f, "framing", framing_text(framing))?;
            if let Some(heartbeat) = heartbeat {
                row(f, "heartbeat", heartbeat_text(heartbeat))?;
            }
            row(f, "app", &app.name)
        }
        Protocol::Http(Http { routes, websocket, static_dir, forwarding, http2, sse }) => {
            for route in routes {
                row(f, "route", format_args!("{} -> {}", route.path, route.app.name))?;
            }
            if let Some(folder) = static_dir {
                row(f, "static", folder.display())?;
            }
            if !forwarding.trusted_proxies.is_empty() {
                let header = match forwarding.dialect {
                    Dialect::XForwardedFor => "X-Forwarded-For",
                    Dialect::Forwarded => "Forwarded",
                };
                row(f, "client IP", format_args!("{header} from {}", forwarding.trusted_proxies))?;
            }
            let origins = match &websocket.origins {
                Origins::SameHost => "same host".to_owned(),
                Origins::List(list) => {
                    let list: Vec<_> = list.iter().map(OriginPattern::to_string).collect();
                    format!("same host, {}", list.join(", "))
                }
                Origins::Any => "any".to_owned(),
            };
            row(f, "origins", origins)?;
            row(f, "deflate", if websocket.deflate { "on" } else { "off" })?;
            row(f, "ping", or_off(websocket.ping_interval))?;
            row(f, "HTTP/2", if *http2 { "on" } else { "off" })?;
            let heartbeat = or_off(sse.heartbeat);
            let streams = if sse.enabled { format!("on, heartbeat {heartbeat}") } else { "off".to_owned() };
            row(f, "event streams and polls", streams)
        }
    }
}

fn framing_text(framing: &StreamFraming) -> String {
    match framing {
        StreamFraming::Length(length) => length_text(length),
        StreamFraming::Packet(packet) => {
            let mut parts = vec![length_text(&packet.length)];
            let bytes = |what: &str, bytes: &[u8]| (!bytes.is_empty()).then(|| format!("{what} {}", hex(bytes)));
            parts.extend((packet.mask != 0).then(|| format!("length bits {:#x}", packet.mask)));
            parts.extend((packet.adjust != 0).then(|| format!("length {:+}", packet.adjust)));
            parts.extend((packet.trailer != 0).then(|| format!("trailer {}", packet.trailer)));
            parts.extend(bytes("start", &packet.start));
            parts.extend(bytes("end", &packet.end));
            parts.extend(packet.resync.then(|| "garbage skipped".to_owned()));
            parts.join(", ")
        }
        StreamFraming::Delimiter(delimiter) => delimiter_text(delimiter),
        StreamFraming::Flagged(flagged) => {
            let mut parts = vec![delimiter_text(&flagged.delimiter)];
            parts.extend((!flagged.start.is_empty()).then(|| format!("start {}", hex(&flagged.start))));
            let escapes = flagged.escapes.iter();
            parts.extend(escapes.map(|escape| format!("{:02x} sent as {}", escape.byte, hex(&escape.code))));
            let is_flag = flagged.start == flagged.delimiter.delimiter;
            parts.extend((flagged.skip_empty || is_flag).then(|| "empty frames skipped".to_owned()));
            parts.extend(flagged.resync.then(|| "garbage skipped".to_owned()));
            parts.join(", ")
        }
        StreamFraming::Gap(gap) => format!("silence of {}", duration_text(*gap)),
        StreamFraming::Raw => "raw".to_owned(),
        StreamFraming::Lua(LuaFraming { script, max_instructions, max_memory_bytes }) => {
            let memory = size_text(*max_memory_bytes as u64);
            format!("lua {}, up to {max_instructions} instructions a call, {memory} a VM", script.display())
        }
    }
}

fn length_text(length: &LengthFraming) -> String {
    let LengthFraming { width, offset, endian, header, counts, keep_header } = length;
    let endian = match endian {
        Endian::Big => "big-endian",
        Endian::Little => "little-endian",
    };
    let counts = match counts {
        LengthCounts::Body => "body",
        LengthCounts::Frame => "frame",
    };
    let mut text = format!("length of the {counts}: {width} bytes {endian} at {offset}, header {header}");
    if *keep_header {
        text += " kept";
    }
    text
}

fn delimiter_text(framing: &DelimiterFraming) -> String {
    let mut text = format!("delimiter \"{}\"", framing.delimiter.escape_ascii());
    if framing.strip_cr {
        text += ", CR stripped";
    }
    text
}

/// Bytes as two digits each.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn heartbeat_text(heartbeat: &Heartbeat) -> String {
    let ask = heartbeat.ask.as_ref().map(|ask| {
        let (after, every) = (duration_text(ask.after), duration_text(ask.every));
        format!("a probe after {after}, up to {} of them {every} apart", ask.max_unanswered)
    });
    let reply = heartbeat.reply.as_ref().map(|_| "the client's probes are answered".to_owned());
    ask.into_iter().chain(reply).collect::<Vec<_>>().join("; ")
}

fn write_app(f: &mut fmt::Formatter<'_>, app: &App) -> fmt::Result {
    writeln!(f, "\napp {}", app.name)?;
    row(f, "script", app.script.display())?;
    row(f, "root", format_args!("{} ({})", app.document_root.display(), app.script_name))?;
    row(f, "upstream", &app.upstream)?;
    let Events { connect, close, join, leave, occupied, vacated } = app.events;
    let events = [
        ("connect", connect),
        ("message", true),
        ("close", close),
        ("join", join),
        ("leave", leave),
        ("occupied", occupied),
        ("vacated", vacated),
    ];
    let events: Vec<_> = events.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect();
    row(f, "events", events.join(", "))?;
    if app.concurrency > 1 {
        row(f, "concurrency", format_args!("{} events of a session at once, in no fixed order", app.concurrency))?;
    }
    if let Some(ConcurrencyPer { by, limit }) = &app.concurrency_per {
        let whose = match by {
            GroupBy::Uid => "uid".to_owned(),
            GroupBy::Cookie(name) => format!("value of the cookie {name}"),
        };
        row(f, "concurrency", format_args!("{limit} events at once of all sessions with the same {whose}"))?;
    }
    if !app.params.is_empty() {
        // Names only: values may be secrets.
        let names: Vec<_> = app.params.iter().map(|(name, _)| name.as_str()).collect();
        row(f, "params", names.join(", "))?;
    }
    let on_error = match &app.on_error {
        OnError::Ignore => "nothing is sent".to_owned(),
        OnError::Send(text) => format!("{text:?} is sent"),
        OnError::Close => "the session ends".to_owned(),
    };
    row(f, "on error", on_error)?;
    let size = |bytes: usize| size_text(bytes as u64);
    row(
        f,
        "frames",
        format_args!("up to {}, replies held up to {}", size(app.max_frame_bytes), size(app.max_reply_bytes)),
    )?;
    row(f, "queue", format_args!("{} frames or {}", app.max_queued_frames, size(app.max_queued_bytes)))?;
    row(f, "outbox", format_args!("{}, send timeout {}", size(app.outbox_bytes), duration_text(app.send_timeout)))?;
    row(f, "idle", or_off(app.idle_timeout))
}

fn write_upstream(f: &mut fmt::Formatter<'_>, upstream: &Upstream) -> fmt::Result {
    writeln!(f, "\nupstream {}", upstream.name)?;
    for Backend { address, weight } in &upstream.backends {
        let mut text = address.to_string();
        if *weight != 1 {
            write!(text, ", weight {weight}")?;
        }
        row(f, "backend", text)?;
    }
    if let Some(spawn) = &upstream.spawn {
        let binary =
            spawn.binary.as_ref().map_or("the first php-fpm in PATH".to_owned(), |path| path.display().to_string());
        row(f, "spawn", format_args!("{binary}, {} workers", spawn.workers))?;
    }
    let kept = duration_text(upstream.linger);
    row(f, "connections", format_args!("{} to each backend, kept for {kept}", upstream.max_connections))?;
    if upstream.ask_limits {
        row(f, "limits", "read from each backend")?;
    }
    row(f, "request", format_args!("up to {}", duration_text(upstream.request_timeout)))?;
    let wait = duration_text(upstream.queue_timeout);
    let length = |bound: Option<usize>| bound.map_or("unlimited".to_owned(), |bound| bound.to_string());
    let (messages, connects) = (length(upstream.queue_length), length(upstream.connect_queue_length));
    row(f, "queue", format_args!("{messages} messages, {connects} connects, timeout {wait}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_with_a_full_backlog_is_there_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("php.sock");
        let address = SockAddr::unix(&path).unwrap();
        let listener = sockets::unix(Type::STREAM).unwrap();
        listener.bind(&address).unwrap();
        listener.listen(1).unwrap();
        // Nothing accepts, so connections pile up until the kernel takes no more.
        let mut waiting = Vec::new();
        loop {
            let socket = sockets::unix(Type::STREAM).unwrap();
            socket.set_nonblocking(true).unwrap();
            if let Err(error) = socket.connect(&address) {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                break;
            }
            waiting.push(socket);
            assert!(waiting.len() < 100, "a backlog of 1 must be full by now");
        }
        let backend = Bind::Unix(path);
        assert!(try_connect(&backend, Duration::from_secs(1)).is_ok());
        drop((listener, waiting));
        let gone = try_connect(&backend, Duration::from_secs(1)).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused);
    }
}
