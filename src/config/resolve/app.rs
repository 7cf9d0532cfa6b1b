//! Apps: from the written values to the model.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::common::{Resolved, check_burst, refer, resolve_rate};
use crate::config::compound::is_param_name;
use crate::config::model::{self, Bind, Events, Rate};
use crate::config::problem::{Place, Report};
use crate::config::schema::{Entry, Named};
use crate::config::secret::Secret;
use crate::config::value::size_text;
use crate::config::written::{self, EventWord};
use crate::proto::fastcgi::params::Params;

/// Default of `max_queued_bytes`: one frame of the default size.
const DEFAULT_QUEUED_BYTES: usize = 1 << 20;

/// The default `frame_timeout` begins with this time, whatever the size of a frame.
const LEAST_FRAME_TIME: Duration = Duration::from_secs(120);
/// The default adds one second for each so many bytes of `max_frame_bytes`. The slowest lines in use are faster than that.
const SLOWEST_BYTES_PER_SECOND: usize = 4 << 10;

/// The apps in the order written; `None` for each that has errors in `report`.
pub(super) fn resolve_all(
    written: &Named<written::App>,
    upstreams: &Resolved<model::Upstream>,
    base: &Path,
    report: &mut Report<'_>,
) -> Resolved<Arc<model::App>> {
    written
        .0
        .iter()
        .map(|(name, app)| (name.clone(), resolve(name, app, upstreams, base, report).map(Arc::new)))
        .collect()
}

fn resolve(
    name: &str,
    app: &written::App,
    upstreams: &Resolved<model::Upstream>,
    base: &Path,
    report: &mut Report<'_>,
) -> Option<model::App> {
    let params = resolve_params(app, base, report);
    check_prefix(&app.param_prefix, report);
    let max_frame_bytes = app.max_frame_bytes.value.0 as usize;
    let max_queued_bytes = resolve_queued_bytes(app, max_frame_bytes, report);
    let connect_rate = resolve_rate("connect_rate", &app.connect_rate, &app.connect_burst, report);
    let frame_rate = resolve_rate("max_frames_per_second", &app.max_frames_per_second, &app.burst_frames, report);
    let byte_rate = resolve_byte_rate(app, max_frame_bytes, report);
    if let Some(place) = app.concurrency_per_limit.place.as_ref().filter(|_| app.concurrency_per.is_none()) {
        report.warn(place, "has no effect without concurrency_per");
    }
    let upstream = app.upstream.as_ref().and_then(|entry| refer(entry, upstreams, "upstreams", report));
    let paths = resolve_paths(app, base, report);
    if let (Some(paths), Some(upstream), Some(entry)) = (&paths, upstream, &app.script)
        && app.check_script.value
        && let Some(place) = &entry.place
    {
        check_script(&paths.script, upstream, place, report);
    }
    let (upstream, paths) = (upstream?, paths?);
    let has = |event| app.events.value.0.contains(&event);
    Some(model::App {
        name: name.to_owned(),
        upstream: upstream.name.clone(),
        script: paths.script,
        document_root: paths.document_root,
        uri: paths.uri,
        script_name: paths.script_name,
        events: Events {
            connect: has(EventWord::Connect),
            close: has(EventWord::Close),
            join: has(EventWord::Join),
            leave: has(EventWord::Leave),
            occupied: has(EventWord::Occupied),
            vacated: has(EventWord::Vacated),
        },
        concurrency: app.concurrency.value.0 as usize,
        concurrency_per: app.concurrency_per.as_ref().map(|entry| model::ConcurrencyPer {
            by: entry.value.clone(),
            limit: app.concurrency_per_limit.value.0 as u32,
        }),
        param_prefix: app.param_prefix.value.clone(),
        params,
        idempotent: app.idempotent.value,
        plain_requests: app.plain_requests.value,
        subprotocols: app.subprotocols.value.0.clone(),
        event_streams: app.event_streams.value,
        compat: app.compat.value,
        on_error: app.on_error.value.clone(),
        max_frame_bytes,
        max_reply_bytes: app.max_reply_bytes.value.0 as usize,
        max_queued_frames: app.max_queued_frames.value.0 as usize,
        max_queued_bytes,
        outbox_bytes: app.outbox_bytes.value.0 as usize,
        slow_reader: app.slow_reader.value,
        send_timeout: app.send_timeout.value.0,
        idle_timeout: app.idle_timeout.value.0,
        connect_rate,
        frame_rate,
        byte_rate,
        rate_rule: app.rate_rule.value,
        frame_idle_timeout: app.frame_idle_timeout.value.0,
        frame_timeout: frame_timeout(app, max_frame_bytes),
    })
}

struct Paths {
    script: PathBuf,
    document_root: PathBuf,
    script_name: String,
    uri: String,
}

/// The four params that tell PHP where the script is.
fn resolve_paths(app: &written::App, base: &Path, report: &mut Report<'_>) -> Option<Paths> {
    let entry = app.script.as_ref()?;
    let place = entry.place.as_ref()?;
    let script = tidy(&base.join(&entry.value));
    let Some(folder) = script.parent().filter(|_| script.file_name().is_some() && !entry.value.ends_with('/')) else {
        report.error(place, "must be the path of a file");
        return None;
    };
    let document_root = match &app.document_root {
        Some(root) => tidy(&base.join(&root.value)),
        None => folder.to_owned(),
    };
    let Ok(below) = script.strip_prefix(&document_root) else {
        let root_place = app.document_root.as_ref().and_then(|root| root.place.as_ref()).unwrap_or(place);
        report.error(root_place, format!("the script {} is not below it", script.display()));
        return None;
    };
    let script_name = format!("/{}", below.display());
    let uri = match &app.uri {
        Some(uri) => {
            let well_formed = uri.value.starts_with('/') && uri.value.bytes().all(|c| c.is_ascii_graphic());
            if let Some(place) = uri.place.as_ref().filter(|_| !well_formed) {
                report.error(place, "must begin with \"/\" and have neither spaces nor characters beyond ASCII");
            }
            uri.value.clone()
        }
        None => percent_encoded(&script_name),
    };
    Some(Paths { script, document_root, script_name, uri })
}

/// The path without `.` and `..`, to compare script and document root. Symlinks stay, because deployments switch
/// them and opcache knows files by these names. (If a `..` follows a symlink, the path leads elsewhere; the check for the script
/// finds that.)
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                tidy.pop();
            }
            other => tidy.push(other),
        }
    }
    tidy
}

/// A path as it may stand in a REQUEST_URI (RFC 3986 section 3.3).
fn percent_encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ if b"/-._~!$&'()*+,;=:@".contains(&byte) => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// A missing script is an error if php-fpm certainly sees our files, and a warning if it probably does.
fn check_script(script: &Path, upstream: &model::Upstream, place: &Place, report: &mut Report<'_>) {
    let fact = match std::fs::metadata(script) {
        Ok(metadata) if metadata.is_file() => return,
        Ok(_) => "is not a file".to_owned(),
        Err(error) => format!("is not there: {error}"),
    };
    // A relative path is shown as the file that was searched for.
    let is_relative = !place.value.contains(&*script.to_string_lossy());
    let problem = if is_relative { format!("{} {fact}", script.display()) } else { fact };
    let is_unix = |backend: &model::Backend| matches!(backend.address, Bind::Unix(_));
    let is_loopback = |backend: &model::Backend| matches!(backend.address, Bind::Tcp(to) if to.ip().is_loopback());
    if upstream.spawn.is_some() || upstream.backends.iter().all(is_unix) {
        let advice = "set check_script = false if php-fpm sees other folders";
        report.error(place, format!("{problem} ({advice})"));
    } else if upstream.backends.iter().any(|backend| is_unix(backend) || is_loopback(backend)) {
        report.warn(place, problem);
    }
}

fn resolve_params(app: &written::App, base: &Path, report: &mut Report<'_>) -> Vec<(String, Secret)> {
    let mut params = Vec::new();
    for (name, written, place) in &app.params.value.0 {
        match Secret::read(written, base) {
            Ok((secret, warning)) => {
                if let Some(warning) = warning {
                    report.warn(place, warning);
                }
                // As for each event: the length of a FastCGI pair is limited.
                if let Err(error) = Params::new().push(name.as_bytes(), secret.reveal().as_bytes()) {
                    report.error(place, error.to_string());
                }
                params.push((name.clone(), secret));
            }
            Err(rule) => report.error(place, rule),
        }
    }
    params
}

fn check_prefix(prefix: &Entry<String>, report: &mut Report<'_>) {
    if let Some(place) = prefix.place.as_ref().filter(|_| !prefix.value.is_empty() && !is_param_name(&prefix.value)) {
        report.error(place, "is made of A-Z a-z 0-9 _ and does not begin with a digit");
    }
}

/// A queue that is too small for the largest frame would stop its session for good.
fn resolve_queued_bytes(app: &written::App, max_frame_bytes: usize, report: &mut Report<'_>) -> usize {
    let Some(entry) = &app.max_queued_bytes else { return DEFAULT_QUEUED_BYTES.max(max_frame_bytes) };
    let bytes = entry.value.0 as usize;
    if let Some(place) = entry.place.as_ref().filter(|_| bytes < max_frame_bytes) {
        report.error(place, format!("must be at least max_frame_bytes, {}", size_text(max_frame_bytes as u64)));
    }
    bytes
}

/// By default the largest frame may come at once, so that the rule `close` does not end a session for it.
fn resolve_byte_rate(app: &written::App, max_frame_bytes: usize, report: &mut Report<'_>) -> Rate {
    let per_second = app.max_bytes_per_second.value.0;
    check_burst("max_bytes_per_second", per_second, app.burst_bytes.as_ref().and_then(|b| b.place.as_ref()), report);
    let burst = app.burst_bytes.as_ref().map_or(per_second.max(max_frame_bytes as u64), |burst| burst.value.0);
    Rate { per_second, burst }
}

fn frame_timeout(app: &written::App, max_frame_bytes: usize) -> Duration {
    match &app.frame_timeout {
        Some(entry) => entry.value.0,
        None => LEAST_FRAME_TIME + Duration::from_secs((max_frame_bytes / SLOWEST_BYTES_PER_SECOND) as u64),
    }
}
