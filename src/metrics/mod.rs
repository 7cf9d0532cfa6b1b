//! Counters and gauges of a node, as Prometheus text.
//!
//! Everything that is closed, refused or dropped is counted by its reason. Labels are names from the
//! configuration or words of a closed table, so the number of series is known when the node starts.

pub mod cluster;
pub mod limits;
pub mod router;
pub mod upstream;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::locks::lock;

/// The process has one log, so it has one counter for it.
static LOG_LINES_LOST: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Log lines that could not be written, or found no room in the queue.
pub fn log_lines_lost() -> &'static Counter {
    &LOG_LINES_LOST
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ListenerLabels {
    /// Its name.
    pub listener: String,
}

/// By listener and a row of the table of close reasons.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// Its name.
    pub listener: String,
    /// The row's label.
    pub reason: &'static str,
}

/// By app, kind of event and cause.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FailureLabels {
    /// Its name.
    pub app: String,
    /// `connect`, `message` or `close`.
    pub event: &'static str,
    /// A word of [`crate::upstream::Failure`] or of the answer's own causes.
    pub cause: &'static str,
}

/// By listener and outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabels {
    /// Its name.
    pub listener: String,
    /// `done` or `failed`.
    pub outcome: &'static str,
}

/// Counters and gauges of a node.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Sessions that were given an id.
    pub sessions_opened: Family<ListenerLabels, Counter>,
    /// Sessions that ended.
    pub sessions_closed: Family<ReasonLabels, Counter>,
    /// Connections that never became a session.
    pub connections_refused: Family<ReasonLabels, Counter>,
    pub sessions: Gauge,
    /// Connections now that have not become sessions: HTTP, and those that begin with a PROXY header.
    pub handshakes: Gauge,
    /// Requests whose forwarding header, from a trusted proxy, names no client.
    pub forwarded_without_client: Family<ListenerLabels, Counter>,
    /// Certificates that were loaded again because a file changed or the operator asked for it.
    pub certificate_reloads: Family<ReloadLabels, Counter>,
    /// Whole frames from clients.
    pub frames_in: Counter,
    /// Bytes of sessions read from clients.
    pub bytes_in: Counter,
    /// Whole frames and replies given to outboxes.
    pub frames_out: Counter,
    /// Bytes written to sessions that have ended.
    pub bytes_out: Counter,
    /// Events whose handler gave no usable answer.
    pub events_failed: Family<FailureLabels, Counter>,
    /// Frames that were received and will not be handled, by reason.
    pub frames_dropped: Family<ReasonLabels, Counter>,
    /// Calls of a framing's script that failed, by reason.
    pub script_failures: Family<ReasonLabels, Counter>,
    /// Bytes that were no part of a frame, on listeners that skip them.
    pub skipped_bytes: Family<ListenerLabels, Counter>,
    /// Probes of the heartbeat sent to silent clients.
    pub heartbeat_probes: Family<ListenerLabels, Counter>,
    /// Probes of ours that clients answered.
    pub heartbeat_answers: Family<ListenerLabels, Counter>,
    /// Probes of clients that we have answered.
    pub heartbeat_replies: Family<ListenerLabels, Counter>,
    /// How often limits were exceeded.
    pub limits: limits::LimitMetrics,
    /// Counters of the router.
    pub router: Arc<router::RouterMetrics>,
    /// Counters about other nodes.
    pub cluster: Arc<cluster::ClusterMetrics>,
    /// Counters of upstreams.
    pub upstream: upstream::UpstreamMetrics,
}

impl Default for Metrics {
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn default() -> Self {
        let mut registry = Registry::with_prefix("longwire");
        let r = &mut registry;
        let metrics = Self {
            sessions_opened: register(r, "sessions_opened", "Sessions that were given an id", Family::default()),
            sessions_closed: register(r, "sessions_closed", "Sessions that ended, by reason", Family::default()),
            connections_refused: register(
                r,
                "connections_refused",
                "Connections that never became a session, by reason",
                Family::default(),
            ),
            sessions: register(r, "sessions", "Sessions now", Gauge::default()),
            handshakes: register(r, "handshakes", "Connections in their handshake now", Gauge::default()),
            forwarded_without_client: register(
                r,
                "forwarded_without_client",
                "Requests of trusted proxies whose forwarding header names no client",
                Family::default(),
            ),
            certificate_reloads: register(
                r,
                "certificate_reloads",
                "Times that a listener's certificates were loaded again, by outcome",
                Family::default(),
            ),
            frames_in: register(r, "frames_in", "Whole frames from clients", Counter::default()),
            bytes_in: register_bytes(r, "received", "Bytes read from sessions"),
            frames_out: register(r, "frames_out", "Replies given to sessions", Counter::default()),
            bytes_out: register_bytes(r, "sent", "Bytes written to sessions that have ended"),
            events_failed: register(
                r,
                "events_failed",
                "Events whose handler gave no usable answer, by cause",
                Family::default(),
            ),
            frames_dropped: register(
                r,
                "frames_dropped",
                "Frames received that no handler will see, by the close reason of their session",
                Family::default(),
            ),
            script_failures: register(
                r,
                "script_failures",
                "Calls of framings' scripts that failed, by reason",
                Family::default(),
            ),
            skipped_bytes: register(
                r,
                "skipped_bytes",
                "Bytes from clients that were no part of a frame, on listeners that skip them",
                Family::default(),
            ),
            heartbeat_probes: register(
                r,
                "heartbeat_probes",
                "Heartbeat probes sent to silent clients",
                Family::default(),
            ),
            heartbeat_answers: register(
                r,
                "heartbeat_answers",
                "Heartbeat probes that clients answered",
                Family::default(),
            ),
            heartbeat_replies: register(
                r,
                "heartbeat_replies",
                "Probes of clients that were answered",
                Family::default(),
            ),
            limits: limits::LimitMetrics::register(r),
            router: Arc::new(router::RouterMetrics::register(r)),
            cluster: Arc::new(cluster::ClusterMetrics::register(r)),
            upstream: upstream::UpstreamMetrics::register(r),
            registry: Mutex::default(),
        };
        register(r, "log_lines_lost", "Log lines that could not be written", log_lines_lost().clone());
        Self { registry: Mutex::new(registry), ..metrics }
    }
}

impl Metrics {
    /// Everything, in the OpenMetrics text format that Prometheus reads.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = lock(&self.registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes everything");
        text
    }
}

fn register<M>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M
where
    M: prometheus_client::registry::Metric + Clone,
{
    registry.register(name, help, metric.clone());
    metric
}

fn register_bytes(registry: &mut Registry, name: &str, help: &str) -> Counter<u64, AtomicU64> {
    let metric = Counter::default();
    registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every name that a scraper can ever see. A family without a row is not shown, so each gets one.
    fn names() -> BTreeSet<String> {
        let metrics = Metrics::default();
        // Every field by name, so that a new one needs a row here.
        let Metrics {
            registry: _,
            sessions_opened,
            sessions_closed,
            connections_refused,
            sessions: _,
            handshakes: _,
            forwarded_without_client,
            certificate_reloads,
            frames_in: _,
            bytes_in: _,
            frames_out: _,
            bytes_out: _,
            events_failed,
            frames_dropped,
            script_failures,
            skipped_bytes,
            heartbeat_probes,
            heartbeat_answers,
            heartbeat_replies,
            limits,
            router,
            cluster,
            upstream,
        } = &metrics;
        let listener = "web".to_owned();
        for family in [
            sessions_opened,
            skipped_bytes,
            heartbeat_probes,
            heartbeat_answers,
            heartbeat_replies,
            forwarded_without_client,
        ] {
            family.get_or_create(&ListenerLabels { listener: listener.clone() }).inc();
        }
        certificate_reloads.get_or_create(&ReloadLabels { listener: listener.clone(), outcome: "done" }).inc();
        for family in [sessions_closed, connections_refused, frames_dropped, script_failures] {
            family.get_or_create(&ReasonLabels { listener: listener.clone(), reason: "draining" }).inc();
        }
        let failure = FailureLabels { app: "chat".to_owned(), event: "message", cause: "status" };
        events_failed.get_or_create(&failure).inc();
        limits.count(limits::Limit::AcceptRate, true);
        router.count_lost(1);
        router.count_query(router::Door::Api);
        router.count_refused(router::Door::Long, "bad_proof");
        cluster.count_dropped("stale", 1);
        drop(upstream.of("php"));
        let text = metrics.encode();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        types.map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() }).collect()
    }

    #[test]
    fn readme_names_every_metric_and_no_other() {
        let readme = include_str!("../../README.md");
        let told: BTreeSet<String> =
            readme.split('`').skip(1).filter(|word| word.starts_with("longwire_")).map(str::to_owned).collect();
        assert_eq!(told, names());
    }
}
