//! From the written values to the model: references, paths, addresses, secrets, and every rule that spans two keys.
//!
//! It reports problems and goes on, like the reader before it. Its result counts only if the report has no errors. Some rules
//! depend on the machine: names are resolved, scripts are checked, secrets are read. Nothing stays open and nothing is
//! started.

mod app;
mod cluster;
mod common;
mod heartbeat;
mod listener;
mod router;
mod socket;
mod tls;
mod upstream;

use std::collections::HashSet;
use std::path::Path;

use tracing_subscriber::filter::Targets;

use self::common::{cores, resolve_address, resolve_rate};
use super::model::{self, Config};
use super::problem::{Report, did_you_mean};
use super::schema::is_name;
use super::written::{self, Written};

/// The whole node. `None` only if `report` has errors.
pub(super) fn resolve(written: &Written, base: &Path, report: &mut Report<'_>) -> Option<Config> {
    let upstreams = upstream::resolve_all(&written.upstreams, base, report);
    let apps = app::resolve_all(&written.apps, &upstreams, base, report);
    let listeners = listener::resolve_all(written, &apps, base, report);
    let admin = resolve_admin(written, base, report);
    let admin_socket = socket::resolve(&written.admin.socket, written.admin.bind.value.0.as_ref(), report);
    let router = router::resolve_router(&written.router, &written.api, base, report);
    let api = router::resolve_api(&written.api, base, report);
    let cluster = cluster::resolve(&written.cluster, base, report);
    listener::check_addresses(written, base, report);
    warn_of_unused(written, report);
    Some(Config {
        node: resolve_node(&written.node, report),
        limits: resolve_limits(&written.limits, report),
        log: resolve_log(&written.log, report),
        admin: admin?,
        admin_socket,
        router: router?,
        api: api?,
        cluster: cluster?,
        listeners: listeners.into_iter().collect::<Option<_>>()?,
        apps: apps.into_iter().map(|(_, app)| app).collect::<Option<_>>()?,
        upstreams: upstreams.into_iter().map(|(_, upstream)| upstream).collect::<Option<_>>()?,
    })
}

/// The address of the admin listener, if it is on.
pub(super) fn resolve_admin(written: &Written, base: &Path, report: &mut Report<'_>) -> Option<Option<model::Bind>> {
    match &written.admin.bind.value.0 {
        Some(address) => resolve_address(address, written.admin.bind.place.as_ref(), base, report).map(Some),
        None => Some(None),
    }
}

fn resolve_node(node: &written::Node, report: &mut Report<'_>) -> model::Node {
    let name = match &node.name {
        Some(entry) => {
            if let Some(place) = entry.place.as_ref().filter(|_| !is_name(&entry.value)) {
                report.error(place, "a name is 1 to 64 characters of A-Z a-z 0-9 . _ -");
            }
            entry.value.clone()
        }
        None => host_name(),
    };
    let threads = match node.threads.value.0 as usize {
        // On two cores, shared with the answering backend, one thread used a fifth less CPU time for an echo than two threads, and
        // handled a fifth more of them: two threads sleep and wake each other all the time.
        0 => (cores() / 2).max(1),
        threads => threads,
    };
    model::Node { name, number: node.number.value.0 as u16, threads }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| is_name(name))
        .unwrap_or_else(|| "longwire".to_owned())
}

fn resolve_limits(limits: &written::Limits, report: &mut Report<'_>) -> model::Limits {
    model::Limits {
        max_sessions: limits.max_sessions.value.0 as usize,
        max_sessions_per_address: limits.max_sessions_per_address.value.0 as usize,
        max_handshakes: limits.max_handshakes.value.0 as usize,
        accept_rate: resolve_rate("accept_rate", &limits.accept_rate, &limits.accept_burst, report),
        accept_rate_per_address: resolve_rate(
            "accept_rate_per_address",
            &limits.accept_rate_per_address,
            &limits.accept_burst_per_address,
            report,
        ),
        handshake_timeout: limits.handshake_timeout.value.0,
        max_header_bytes: limits.max_header_bytes.value.0 as usize,
        drain_timeout: limits.drain_timeout.value.0,
        dry_run: limits.dry_run.value.0.clone(),
    }
}

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

fn resolve_log(log: &written::Log, report: &mut Report<'_>) -> model::Log {
    let level = log.level.value.clone();
    // The parser takes a word that is no level for a module, so that only that module would be logged.
    let is_level = |word: &&str| LEVELS.contains(&word.trim().to_ascii_lowercase().as_str());
    let mut words = level.split(',').filter(|part| !part.contains('='));
    let stranger = words.find(|word| !is_level(word));
    if (level.parse::<Targets>().is_err() || stranger.is_some())
        && let Some(place) = &log.level.place
    {
        let hint = stranger.map_or_else(String::new, |word| did_you_mean(word, LEVELS));
        report.error(
            place,
            format!("must be error, warn, info, debug or trace, also by module: info,longwire::upstream=debug{hint}"),
        );
    }
    model::Log { format: log.format.value, level }
}

/// Warns of apps and upstreams without a reference: either they are left over, or a reference has the wrong name.
fn warn_of_unused(written: &Written, report: &mut Report<'_>) {
    let used_apps: HashSet<&str> = written
        .listeners
        .0
        .iter()
        .flat_map(|(_, listener)| {
            let routes =
                listener.routes.iter().flat_map(|entry| entry.value.0.iter().map(|(_, app)| app.value.as_str()));
            listener.app.iter().map(|entry| entry.value.as_str()).chain(routes)
        })
        .collect();
    for (name, app) in written.apps.0.iter().filter(|(name, _)| !used_apps.contains(name.as_str())) {
        report.warn(&app.place, format!("no listener leads to {name:?}"));
    }
    let used_upstreams: HashSet<&str> =
        written.apps.0.iter().filter_map(|(_, app)| Some(app.upstream.as_ref()?.value.as_str())).collect();
    for (name, upstream) in written.upstreams.0.iter().filter(|(name, _)| !used_upstreams.contains(name.as_str())) {
        report.warn(&upstream.place, format!("no app uses {name:?}"));
    }
}
