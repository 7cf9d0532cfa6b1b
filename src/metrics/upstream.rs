//! Counters and gauges of upstreams.
//!
//! [`UpstreamMetrics`] are the families in the registry; [`UpstreamHandles`] are the counters of one upstream, looked
//! up once, so that counting is an atomic addition.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Seconds, from half a millisecond (a trivial script) to a minute (the usual limit), about three steps a decade.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

macro_rules! closed_labels {
    ($( $(#[$doc:meta])* $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $label:literal, )+ } )+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub enum $name { $( $(#[$variant_doc])* $variant, )+ }

            impl $name {
                /// Every value, in declaration order.
                pub const ALL: &'static [$name] = &[ $( $name::$variant, )+ ];

                pub const fn label(self) -> &'static str {
                    match self { $( $name::$variant => $label, )+ }
                }
            }

            impl EncodeLabelValue for $name {
                fn encode(
                    &self,
                    encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
                ) -> Result<(), std::fmt::Error> {
                    EncodeLabelValue::encode(&self.label(), encoder)
                }
            }
        )+
    };
}

closed_labels! {
    /// The kind of event that a request carried.
    RequestClass {
        /// A new session.
        Connect = "connect",
        /// A frame.
        Message = "message",
        /// A session that ended.
        Close = "close",
        /// A join, leave or other event of a channel.
        Presence = "presence",
    }
    /// How a request ended.
    RequestOutcome {
        /// With a complete answer.
        Done = "done",
        QueueFull = "queue_full",
        /// It waited in the queue for too long.
        QueueTimeout = "queue_timeout",
        /// It waited for too long while no backend could be connected to.
        Unavailable = "unavailable",
        /// The connection ended before END_REQUEST.
        BackendClosed = "backend_closed",
        /// The script was silent for too long.
        ResponseTimeout = "response_timeout",
        /// The script ran for too long.
        RequestTimeout = "request_timeout",
        /// The client did not read the answer, and other requests waited.
        SlowReader = "slow_reader",
        /// The backend broke the protocol.
        Protocol = "protocol",
        /// The backend refused it.
        Refused = "refused",
        /// The answer was no longer wanted.
        Cancelled = "cancelled",
        /// The upstream was shut down.
        Stopping = "stopping",
    }
    /// Why a request was sent again.
    RetryReason {
        /// No byte of it had been sent.
        NotSent = "not_sent",
        /// php-fpm closed the connection before it took the request (pm.max_requests), or said that it is overloaded.
        NotTaken = "not_taken",
        /// It may have run, and the app says that it may run twice.
        Idempotent = "idempotent",
        /// It is an event that PHP must get, and no backend was there to complete it.
        Owed = "owed",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfUpstream {
    upstream: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfClass {
    upstream: String,
    event: RequestClass,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    upstream: String,
    event: RequestClass,
    outcome: RequestOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRetry {
    upstream: String,
    reason: RetryReason,
}

/// The families, one row per upstream.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    requests: Family<OfOutcome, Counter>,
    retries: Family<OfRetry, Counter>,
    queued: Family<OfClass, Gauge>,
    held: Family<OfUpstream, Counter>,
    wait: Family<OfUpstream, Histogram>,
    response: Family<OfUpstream, Histogram>,
    connects: Family<OfUpstream, Counter>,
    connect_failures: Family<OfUpstream, Counter>,
    probes: Family<OfUpstream, Counter>,
    limit: Family<OfUpstream, Gauge>,
    open: Family<OfUpstream, Gauge>,
    busy: Family<OfUpstream, Gauge>,
    background: Family<OfUpstream, Gauge>,
    abandoned: Family<OfUpstream, Gauge>,
    up: Family<OfUpstream, Gauge>,
    ejections: Family<OfUpstream, Counter>,
    aborts: Family<OfUpstream, Counter>,
    stderr: Family<OfUpstream, Counter>,
}

/// The counters of one upstream.
#[derive(Clone, Debug)]
pub struct UpstreamHandles {
    requests: Vec<Counter>,
    retries: Vec<Counter>,
    queued: Vec<Gauge>,
    /// Requests held back because their group had all the connections that it is allowed.
    pub held: Counter,
    wait: Histogram,
    response: Histogram,
    /// Connections made.
    pub connects: Counter,
    /// Connections that could not be made.
    pub connect_failures: Counter,
    /// Connections made, or tried, only to check that a backend is there.
    pub probes: Counter,
    /// Connections that all backends together may have.
    pub limit: Gauge,
    open: Gauge,
    busy: Gauge,
    /// Connections whose worker continues after its answer.
    pub background: Gauge,
    /// Connections given up whose worker may still be busy.
    pub abandoned: Gauge,
    /// Backends that take requests.
    pub backends_up: Gauge,
    /// Backends taken out after failures in a row.
    pub ejections: Counter,
    /// Requests aborted because their session was gone.
    pub aborts: Counter,
    /// Bytes that scripts wrote to stderr.
    pub stderr_bytes: Counter,
}

impl UpstreamMetrics {
    /// Registers the families with `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let metrics = Self {
            requests: Family::default(),
            retries: Family::default(),
            queued: Family::default(),
            held: Family::default(),
            wait: Family::new_with_constructor(histogram),
            response: Family::new_with_constructor(histogram),
            connects: Family::default(),
            connect_failures: Family::default(),
            probes: Family::default(),
            limit: Family::default(),
            open: Family::default(),
            busy: Family::default(),
            background: Family::default(),
            abandoned: Family::default(),
            up: Family::default(),
            ejections: Family::default(),
            aborts: Family::default(),
            stderr: Family::default(),
        };
        let into = registry.sub_registry_with_prefix("upstream");
        into.register("requests", "Requests by event and outcome", metrics.requests.clone());
        into.register("retries", "Requests sent again, by reason", metrics.retries.clone());
        into.register("queued_requests", "Requests that wait for a connection", metrics.queued.clone());
        into.register("held_requests", "Requests held back by concurrency_per", metrics.held.clone());
        into.register_with_unit("queue_wait", "Time from arrival to a connection", Unit::Seconds, metrics.wait.clone());
        into.register_with_unit(
            "response_time",
            "Time from a connection to END_REQUEST",
            Unit::Seconds,
            metrics.response.clone(),
        );
        into.register("connects", "Connections made to backends", metrics.connects.clone());
        into.register(
            "connect_failures",
            "Connections to backends that could not be made",
            metrics.connect_failures.clone(),
        );
        into.register(
            "probes",
            "Connections made, or tried, only to see whether a backend is there",
            metrics.probes.clone(),
        );
        into.register("connection_limit", "Connections that all backends together may have", metrics.limit.clone());
        into.register("open_connections", "Connections that count against connection_limit", metrics.open.clone());
        into.register("busy_connections", "Connections whose worker is busy", metrics.busy.clone());
        into.register(
            "background_connections",
            "Connections whose worker works on after its answer",
            metrics.background.clone(),
        );
        into.register(
            "abandoned_connections",
            "Connections given up whose worker may still be busy",
            metrics.abandoned.clone(),
        );
        into.register("backends_up", "Backends that take requests", metrics.up.clone());
        into.register("ejections", "Backends taken out after failures in a row", metrics.ejections.clone());
        into.register("aborts", "Requests aborted because their session was gone", metrics.aborts.clone());
        into.register_with_unit("stderr", "Bytes that scripts wrote to stderr", Unit::Bytes, metrics.stderr.clone());
        metrics
    }

    /// The counters of one upstream. Every row exists from now on, so that a rate can be taken from the first event.
    pub fn of(&self, upstream: &str) -> UpstreamHandles {
        let upstream = upstream.to_owned();
        let of = OfUpstream { upstream: upstream.clone() };
        let rows =
            RequestClass::ALL.iter().flat_map(|event| RequestOutcome::ALL.iter().map(|outcome| (*event, *outcome)));
        UpstreamHandles {
            requests: rows
                .map(|(event, outcome)| {
                    self.requests.get_or_create_owned(&OfOutcome { upstream: upstream.clone(), event, outcome })
                })
                .collect(),
            retries: RetryReason::ALL
                .iter()
                .map(|reason| {
                    self.retries.get_or_create_owned(&OfRetry { upstream: upstream.clone(), reason: *reason })
                })
                .collect(),
            queued: RequestClass::ALL
                .iter()
                .map(|event| self.queued.get_or_create_owned(&OfClass { upstream: upstream.clone(), event: *event }))
                .collect(),
            held: self.held.get_or_create_owned(&of),
            wait: self.wait.get_or_create_owned(&of),
            response: self.response.get_or_create_owned(&of),
            connects: self.connects.get_or_create_owned(&of),
            connect_failures: self.connect_failures.get_or_create_owned(&of),
            probes: self.probes.get_or_create_owned(&of),
            limit: self.limit.get_or_create_owned(&of),
            open: self.open.get_or_create_owned(&of),
            busy: self.busy.get_or_create_owned(&of),
            background: self.background.get_or_create_owned(&of),
            abandoned: self.abandoned.get_or_create_owned(&of),
            backends_up: self.up.get_or_create_owned(&of),
            ejections: self.ejections.get_or_create_owned(&of),
            aborts: self.aborts.get_or_create_owned(&of),
            stderr_bytes: self.stderr.get_or_create_owned(&of),
        }
    }
}

impl UpstreamHandles {
    /// Counters that belong to no registry.
    pub fn unregistered() -> Self {
        UpstreamMetrics::register(&mut Registry::default()).of("")
    }

    pub fn ended(&self, event: RequestClass, outcome: RequestOutcome) {
        self.requests[event as usize * RequestOutcome::ALL.len() + outcome as usize].inc();
    }

    /// Requests that ended this way.
    pub fn requests(&self, event: RequestClass, outcome: RequestOutcome) -> u64 {
        self.requests[event as usize * RequestOutcome::ALL.len() + outcome as usize].get()
    }

    /// A request is sent again.
    pub fn retried(&self, reason: RetryReason) {
        self.retries[reason as usize].inc();
    }

    /// Requests sent again for this reason.
    pub fn retries(&self, reason: RetryReason) -> u64 {
        self.retries[reason as usize].get()
    }

    /// Sets how many requests of this kind wait now.
    pub fn set_queued(&self, event: RequestClass, requests: usize) {
        set(&self.queued[event as usize], requests);
    }

    /// Sets how many connections count against the limit, and how many run a request.
    pub fn set_connections(&self, open: usize, busy: usize) {
        set(&self.open, open);
        set(&self.busy, busy);
    }

    /// Records a completely answered request.
    pub fn answered(&self, queued: Duration, response: Duration) {
        self.wait.observe(queued.as_secs_f64());
        self.response.observe(response.as_secs_f64());
    }
}

/// Reading first is cheaper: a read can share the cache line, a write needs it alone. Most gauges do not change between two requests.
fn set(gauge: &Gauge, value: usize) {
    if gauge.get() != value as i64 {
        gauge.set(value as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_shown_and_what_was_counted_is_in_its_own() {
        let mut registry = Registry::default();
        let handles = UpstreamMetrics::register(&mut registry).of("php");
        handles.ended(RequestClass::Close, RequestOutcome::Stopping);
        handles.retried(RetryReason::NotTaken);
        handles.set_queued(RequestClass::Message, 3);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes everything");
        for line in [
            "upstream_requests_total{upstream=\"php\",event=\"close\",outcome=\"stopping\"} 1",
            "upstream_requests_total{upstream=\"php\",event=\"close\",outcome=\"cancelled\"} 0",
            "upstream_retries_total{upstream=\"php\",reason=\"not_taken\"} 1",
            "upstream_queued_requests{upstream=\"php\",event=\"message\"} 3",
            "upstream_stderr_bytes_total{upstream=\"php\"} 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
    }
}
