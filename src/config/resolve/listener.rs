//! Listeners: from the written values to the model.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::common::{Resolved, refer, resolve_address};
use super::heartbeat;
use super::socket;
use super::tls;
use crate::config::model::{
    self, Bind, DelimiterFraming, FlaggedFraming, LengthFraming, LuaFraming, PacketFraming, StreamFraming,
};
use crate::config::problem::{Place, Report};
use crate::config::schema::Entry;
use crate::config::value::{duration_text, size_text};
use crate::config::written::{self, FramingWord, ProtocolWord, Written};
use crate::proto::framing::OptionFault;

/// TCP_KEEPIDLE takes whole seconds up to this.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(32_767);

type Apps = Resolved<Arc<model::App>>;

/// The listeners in the order written; `None` for each that has errors in `report`.
pub(super) fn resolve_all(
    written: &Written,
    apps: &Apps,
    base: &Path,
    report: &mut Report<'_>,
) -> Vec<Option<model::Listener>> {
    if written.listeners.0.is_empty() && !report.has_error_at("listeners") {
        let top = Place { line: 1, key: "listeners".into(), value: String::new() };
        report.error(&top, "at least one [listeners.NAME] is needed, otherwise no client could connect");
    }
    written.listeners.0.iter().map(|(name, listener)| resolve(name, listener, written, apps, base, report)).collect()
}

fn resolve(
    name: &str,
    listener: &written::Listener,
    written: &Written,
    apps: &Apps,
    base: &Path,
    report: &mut Report<'_>,
) -> Option<model::Listener> {
    let bind = listener.bind.as_ref();
    let bind = bind.and_then(|entry| resolve_address(&entry.value, entry.place.as_ref(), base, report));
    let protocol = match listener.protocol.value {
        ProtocolWord::Tcp => resolve_stream(name, listener, written, apps, base, report),
        ProtocolWord::Http => resolve_http(listener, apps, base, report),
    };
    // A browser that has the choice takes HTTP/2. For WebSockets it opens connections that offer only HTTP/1.1.
    let protocols: Vec<&'static [u8]> = match listener.protocol.value {
        ProtocolWord::Tcp => Vec::new(),
        ProtocolWord::Http if listener.http2.value => vec![b"h2", b"http/1.1"],
        ProtocolWord::Http => vec![b"http/1.1"],
    };
    let socket = socket::resolve(&listener.socket, listener.bind.as_ref().map(|entry| &entry.value), report);
    let tls = tls::resolve(&listener.tls, protocols, base, report);
    Some(model::Listener {
        name: name.to_owned(),
        backlog: listener.backlog.value.0 as u32,
        tcp: resolve_tcp(listener, report),
        proxy_protocol: resolve_networks(&listener.proxy_protocol, report),
        bind: bind?,
        socket,
        tls: tls?,
        protocol: protocol?,
    })
}

fn resolve_tcp(listener: &written::Listener, report: &mut Report<'_>) -> model::TcpOptions {
    let keepalive = listener.tcp_keepalive.value.0;
    let fits = keepalive.is_zero() || (Duration::from_secs(1)..=LONGEST_KEEPALIVE).contains(&keepalive);
    if let Some(place) = listener.tcp_keepalive.place.as_ref().filter(|_| !fits) {
        report.error(place, "must be 0 or from 1s to 9h");
    }
    model::TcpOptions { keepalive, user_timeout: listener.tcp_user_timeout.value.0 }
}

/// Warns of a listener that trusts every peer: there each client could choose its own address.
fn resolve_networks(entry: &Entry<model::Networks>, report: &mut Report<'_>) -> model::Networks {
    if let Some(place) = entry.place.as_ref().filter(|_| entry.value.has_everybody()) {
        report.warn(place, "trusts every peer, so each client can choose its own address");
    }
    entry.value.clone()
}

fn resolve_stream(
    name: &str,
    listener: &written::Listener,
    written: &Written,
    apps: &Apps,
    base: &Path,
    report: &mut Report<'_>,
) -> Option<model::Protocol> {
    let framing = resolve_framing(&listener.framing, base, report);
    let entry = listener.app.as_ref()?;
    let app = written.apps.0.iter().find(|(app, _)| *app == entry.value).map(|(_, app)| app);
    if let (Some(framing), Some(app)) = (&framing, app) {
        check_announceable(name, framing, app, report);
        check_gap(&listener.framing, framing, app, report);
    }
    let max_frame = app.map(|app| app.max_frame_bytes.value.0 as usize);
    let heartbeat = heartbeat::resolve(&listener.heartbeat, framing.as_ref(), max_frame, report);
    let app = refer(entry, apps, "apps", report)?.clone();
    Some(model::Protocol::Stream { framing: framing?, heartbeat: heartbeat?, app })
}

fn resolve_framing(framing: &written::Framing, base: &Path, report: &mut Report<'_>) -> Option<StreamFraming> {
    match framing.r#type.value {
        FramingWord::Raw => Some(StreamFraming::Raw),
        FramingWord::Gap => Some(StreamFraming::Gap(framing.gap.value.0)),
        FramingWord::Lua => resolve_lua(framing, base, report).map(StreamFraming::Lua),
        FramingWord::Delimiter => {
            let flagged = FlaggedFraming {
                delimiter: DelimiterFraming {
                    delimiter: framing.delimiter.value.0.clone(),
                    strip_cr: framing.strip_cr.value,
                },
                start: framing.start.value.0.clone(),
                escapes: framing.escape.value.0.clone(),
                skip_empty: framing.skip_empty.value,
                resync: framing.resync.value,
            };
            let fit = flagged.check().map_err(|fault| complain(framing, &fault, report));
            fit.ok().map(|()| StreamFraming::of_flagged(flagged))
        }
        FramingWord::Length => {
            let (width, offset) = (framing.length_bytes.value.0, framing.length_offset.value.0 as usize);
            let least = offset + usize::from(width);
            let header = framing.header_bytes.as_ref().map_or(least, |entry| entry.value.0 as usize);
            if let Some(place) = framing.header_bytes.as_ref().and_then(|entry| entry.place.as_ref())
                && header < least
            {
                report.error(place, format!("must be at least {least}, where the length field ends"));
                return None;
            }
            let packet = PacketFraming {
                length: LengthFraming {
                    width,
                    offset,
                    endian: framing.length_endian.value,
                    header,
                    counts: framing.length_counts.value,
                    keep_header: framing.keep_header.value,
                },
                mask: framing.length_mask.value.0,
                adjust: framing.length_adjust.value.0,
                trailer: framing.trailer_bytes.value.0 as usize,
                start: framing.start.value.0.clone(),
                end: framing.end.value.0.clone(),
                resync: framing.resync.value,
            };
            let fit = packet.check().map_err(|fault| complain(framing, &fault, report));
            fit.ok().map(|()| StreamFraming::of_packets(packet))
        }
    }
}

/// Reports an option that does not fit the others, at its own place or at that of the table.
fn complain(framing: &written::Framing, fault: &OptionFault, report: &mut Report<'_>) {
    let place = match fault.key {
        "start" => &framing.start.place,
        "escape" => &framing.escape.place,
        "strip_cr" => &framing.strip_cr.place,
        "resync" => &framing.resync.place,
        "length_mask" => &framing.length_mask.place,
        key => unreachable!("{key} has no rules beside its own"),
    };
    let place = place.clone().unwrap_or_else(|| framing.place.missing(fault.key));
    report.error(&place, fault.rule.clone());
}

/// A gap must be shorter than the app's `frame_idle_timeout`, which counts silence too and would end the session first. It is also
/// limited to 10 s, because it delays every frame by that time.
fn check_gap(written: &written::Framing, framing: &StreamFraming, app: &written::App, report: &mut Report<'_>) {
    const LONGEST: Duration = Duration::from_secs(10);
    let StreamFraming::Gap(gap) = framing else { return };
    let Some(place) = &written.gap.place else { return };
    let patience = app.frame_idle_timeout.value.0;
    if *gap > LONGEST {
        report.error(place, "must be at most 10s");
    } else if !patience.is_zero() && *gap >= patience {
        let patience = duration_text(patience);
        report.error(place, format!("must be below the app's frame_idle_timeout, which is {patience}"));
    }
}

/// Checks only that the script exists. The code that runs it reads its text.
fn resolve_lua(framing: &written::Framing, base: &Path, report: &mut Report<'_>) -> Option<LuaFraming> {
    if let Some(place) = framing.r#type.place.as_ref().filter(|_| !cfg!(feature = "lua")) {
        report.error(place, "this longwire was built without Lua (the cargo feature \"lua\")");
        return None;
    }
    let entry = framing.script.as_ref()?;
    let script = base.join(&entry.value);
    let fact = match std::fs::metadata(&script) {
        Ok(metadata) if metadata.is_file() => None,
        Ok(_) => Some("is not a file".to_owned()),
        Err(error) => Some(format!("is not there: {error}")),
    };
    if let Some(fact) = fact {
        report.error(entry.place.as_ref()?, fact);
        return None;
    }
    Some(LuaFraming {
        script: std::path::absolute(&script).unwrap_or(script),
        max_instructions: framing.max_instructions.value.0,
        max_memory_bytes: framing.max_memory_bytes.value.0 as usize,
    })
}

/// A written `max_frame_bytes` above what the length field can announce is a mistake in one of the two. The default is not.
fn check_announceable(name: &str, framing: &StreamFraming, app: &written::App, report: &mut Report<'_>) {
    let Some(place) = &app.max_frame_bytes.place else { return };
    let packet = match framing {
        StreamFraming::Length(length) => &PacketFraming::from(*length),
        StreamFraming::Packet(packet) => packet,
        _ => return,
    };
    let frame_max = packet.largest();
    if app.max_frame_bytes.value.0 > frame_max {
        let (width, most) = (packet.length.width, size_text(frame_max));
        let masked =
            if packet.mask == 0 { String::new() } else { format!(" ({} bits of them)", packet.mask.count_ones()) };
        let rule =
            format!("the length field of listener {name:?} has {width} bytes{masked} and can announce at most {most}");
        report.error(place, rule);
    }
}

fn resolve_http(
    listener: &written::Listener,
    apps: &Apps,
    base: &Path,
    report: &mut Report<'_>,
) -> Option<model::Protocol> {
    let static_dir = listener.r#static.as_ref().and_then(|entry| resolve_folder(entry, base, report));
    let mut routes = Vec::new();
    let mut complete = true;
    for (path, entry) in &listener.routes.as_ref()?.value.0 {
        match refer(entry, apps, "apps", report) {
            Some(app) => routes.push(model::Route { path: path.clone(), app: app.clone() }),
            None => complete = false,
        }
    }
    // Longest match first, and an exact path before the prefix of the same length, so that the first match is the right one.
    routes.sort_by_key(|route| {
        let stem = route.path.strip_suffix('*').unwrap_or(&route.path);
        (std::cmp::Reverse(stem.len()), route.path.ends_with('*'))
    });
    let written = &listener.websocket;
    let websocket = model::WebSocket {
        origins: written.origins.value.clone(),
        deflate: written.deflate.value,
        deflate_min_bytes: written.deflate_min_bytes.value.0 as usize,
        ping_interval: written.ping_interval.value.0,
        pong_timeout: written.pong_timeout.value.0,
        close_timeout: written.close_timeout.value.0,
    };
    let written = &listener.sse;
    let sse = model::Sse {
        enabled: written.enabled.value,
        heartbeat: written.heartbeat.value.0,
        poll_timeout: written.poll_timeout.value.0,
        poll_gap: written.poll_gap.value.0,
    };
    complete.then_some(model::Protocol::Http(model::Http {
        static_dir,
        routes,
        websocket,
        forwarding: resolve_forwarding(listener, report),
        http2: listener.http2.value,
        sse,
    }))
}

fn resolve_forwarding(listener: &written::Listener, report: &mut Report<'_>) -> model::Forwarding {
    let trusted_proxies = resolve_networks(&listener.trusted_proxies, report);
    if let Some(place) = listener.forwarded.place.as_ref().filter(|_| trusted_proxies.is_empty()) {
        report.warn(place, "has no effect without trusted_proxies: no header is trusted");
    }
    model::Forwarding { trusted_proxies, dialect: listener.forwarded.value }
}

/// The folder with all symlinks resolved: served files must be below it.
fn resolve_folder(entry: &Entry<String>, base: &Path, report: &mut Report<'_>) -> Option<PathBuf> {
    let folder = base.join(&entry.value);
    match folder.canonicalize() {
        Ok(folder) if folder.is_dir() => Some(folder),
        Ok(_) => {
            report.error(entry.place.as_ref()?, "is not a folder");
            None
        }
        Err(error) => {
            report.error(entry.place.as_ref()?, format!("is not there: {error}"));
            None
        }
    }
}

/// Reports two listeners on one address: the second would fail to start. Defaults of admin, router and api count too.
pub(super) fn check_addresses(written: &Written, base: &Path, report: &mut Report<'_>) {
    let own = [("admin", &written.admin.bind), ("router", &written.router.bind), ("api", &written.api.bind)];
    let own = own.into_iter().filter_map(|(name, entry)| Some((name, entry.value.0.as_ref()?, entry.place.as_ref())));
    let listeners = written.listeners.0.iter().filter_map(|(name, listener)| {
        let entry = listener.bind.as_ref()?;
        Some((name.as_str(), &entry.value, entry.place.as_ref()))
    });
    let mut taken: Vec<(&str, Bind)> = Vec::new();
    for (name, address, place) in own.chain(listeners) {
        // An address that cannot be resolved has its own error.
        let Ok(bind) = address.resolve(base) else { continue };
        if let (Some((other, _)), Some(place)) = (taken.iter().find(|(_, other)| collide(&bind, other)), place) {
            report.error(place, format!("{other} listens there too"));
        }
        taken.push((name, bind));
    }
}

fn collide(a: &Bind, b: &Bind) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    match (a, b) {
        (Bind::Unix(a), Bind::Unix(b)) => a == b,
        (Bind::Tcp(a), Bind::Tcp(b)) => {
            let same_family = a.is_ipv4() == b.is_ipv4();
            a.port() != 0 && a.port() == b.port() && same_family && (a.ip() == b.ip() || any(a.ip()) || any(b.ip()))
        }
        _ => false,
    }
}
