//! Upstreams: from the written values to the model.

use std::path::Path;
use std::time::Duration;

use super::common::{Resolved, cores, resolve_address};
use crate::config::compound::WrittenBackend;
use crate::config::model::{self, Backend};
use crate::config::problem::Report;
use crate::config::schema::{Entry, Named};
use crate::config::value::Whole;
use crate::config::written;

/// php-fpm's default pool has `pm.max_children = 5`; one worker is left for other clients.
const DEFAULT_CONNECTIONS: usize = 4;
/// With fewer workers than this, one slow script delays everyone.
const LEAST_WORKERS: usize = 4;
/// After a request has timed out, its script gets this time to end by itself before its worker is killed.
const BEYOND_REQUEST: Duration = Duration::from_secs(5);

/// The upstreams in the order written; `None` for each that has errors in `report`.
pub(super) fn resolve_all(
    written: &Named<written::Upstream>,
    base: &Path,
    report: &mut Report<'_>,
) -> Resolved<model::Upstream> {
    written.0.iter().map(|(name, upstream)| (name.clone(), resolve(name, upstream, base, report))).collect()
}

fn resolve(name: &str, upstream: &written::Upstream, base: &Path, report: &mut Report<'_>) -> Option<model::Upstream> {
    let spawn = upstream.spawn.0.as_ref().map(|spawn| resolve_spawn(spawn, upstream.request_timeout.value.0, base));
    let backends = match (&upstream.backends, &spawn) {
        (Some(_), Some(_)) => {
            report.error(&upstream.place, "backends and spawn exclude each other");
            return None;
        }
        (None, None) => {
            let missing = upstream.place.missing("backends");
            if report.has_error_at(&missing.key) {
                return None;
            }
            let example = "for example backends = [\"unix:/run/php/php8.2-fpm.sock\"], or a spawn table";
            report.error(&missing, format!("missing, {example}"));
            return None;
        }
        (Some(entry), None) => resolve_backends(&entry.value.0, base, report),
        (None, Some(_)) => Some(Vec::new()),
    };
    let max_connections = resolve_connections(upstream, spawn.as_ref(), report);
    check_timeouts(upstream, report);
    Some(model::Upstream {
        name: name.to_owned(),
        backends: backends?,
        spawn,
        max_connections,
        ask_limits: upstream.ask_limits.value,
        linger: upstream.linger.value.0,
        connect_timeout: upstream.connect_timeout.value.0,
        response_timeout: upstream.response_timeout.value.0,
        request_timeout: upstream.request_timeout.value.0,
        queue_length: length(&upstream.queue_length),
        queue_timeout: upstream.queue_timeout.value.0,
        connect_queue_length: length(&upstream.connect_queue_length),
        connect_share_percent: upstream.connect_share_percent.value.0 as u8,
        slow_reader_hold: upstream.slow_reader_hold.value.0,
        abort_grace: upstream.abort_grace.value.0,
        eject_after: upstream.eject_after.value.0 as u32,
        eject_time: upstream.eject_time.value.0,
        probe_interval: upstream.probe_interval.value.0,
    })
}

fn length(entry: &Option<Entry<Whole<1, 10_000_000>>>) -> Option<usize> {
    entry.as_ref().map(|entry| entry.value.0 as usize)
}

fn resolve_spawn(spawn: &written::Spawn, request_timeout: Duration, base: &Path) -> model::Spawn {
    // A bare name is searched for in PATH; a name with a slash is a path.
    let binary = spawn.binary.as_ref().map(|entry| {
        let is_path = entry.value.contains('/');
        if is_path { base.join(&entry.value) } else { entry.value.clone().into() }
    });
    let workers = spawn.workers.as_ref().map_or((cores() * 2).max(LEAST_WORKERS), |entry| entry.value.0 as usize);
    let terminate = &spawn.request_terminate_timeout;
    model::Spawn {
        binary,
        workers,
        request_terminate_timeout: terminate.as_ref().map_or(request_timeout + BEYOND_REQUEST, |entry| entry.value.0),
        recheck_files: spawn.recheck_files.value,
        ini: spawn.ini.value.0.clone(),
    }
}

fn resolve_backends(written: &[WrittenBackend], base: &Path, report: &mut Report<'_>) -> Option<Vec<Backend>> {
    let mut backends: Vec<Backend> = Vec::new();
    let mut complete = true;
    for WrittenBackend { address, weight, place } in written {
        match resolve_address(address, Some(place), base, report) {
            Some(address) if backends.iter().any(|backend| backend.address == address) => {
                report.error(place, "is in the list twice, give it a weight instead");
            }
            Some(model::Bind::Tcp(address)) if address.port() == 0 => {
                report.error(place, "a backend cannot have port 0");
            }
            Some(address) => backends.push(Backend { address, weight: *weight }),
            None => complete = false,
        }
    }
    complete.then_some(backends)
}

fn resolve_connections(upstream: &written::Upstream, spawn: Option<&model::Spawn>, report: &mut Report<'_>) -> usize {
    let Some(entry) = &upstream.max_connections else {
        return spawn.map_or(DEFAULT_CONNECTIONS, |spawn| spawn.workers);
    };
    let connections = entry.value.0 as usize;
    if let (Some(place), Some(spawn)) = (&entry.place, spawn)
        && connections > spawn.workers
    {
        // Each kept connection holds a worker, so the request on one connection too many would wait without an error.
        report.error(place, format!("must be at most the {} workers of spawn", spawn.workers));
    }
    connections
}

fn check_timeouts(upstream: &written::Upstream, report: &mut Report<'_>) {
    let (response, request) = (&upstream.response_timeout, &upstream.request_timeout);
    if let Some(place) = response.place.as_ref().filter(|_| response.value.0 > request.value.0) {
        report.warn(place, "has no effect above request_timeout");
    }
}
