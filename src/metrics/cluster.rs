//! Counters and gauges of a node about other nodes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::register;

/// Labels: why an envelope was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DropLabels {
    /// A word of a closed table.
    pub cause: &'static str,
}

#[derive(Debug)]
pub struct ClusterMetrics {
    /// 1 while the engine is connected.
    pub engine_up: Gauge,
    /// Times that the engine was lost, or could not be reached.
    pub engine_failures: Counter,
    /// Other nodes that are present.
    pub nodes: Gauge,
    /// Partitions that are subscribed to.
    pub partitions: Gauge,
    /// Envelopes published.
    pub published: Counter,
    /// Envelopes received from other nodes.
    pub received: Counter,
    /// Envelopes of other nodes that never arrived, known by the gaps in their numbers.
    pub missed: Counter,
    dropped: Family<DropLabels, Counter>,
    /// Requests that some node did not answer in time.
    pub unanswered: Counter,
    /// Joins and leaves that apps are still to be told of.
    pub untold: Gauge,
    /// Joins and leaves discarded because the backlog was full.
    pub notices_given_up: Counter,
    /// Partitions whose members on this node a keeper does not know yet, counted once for each keeper.
    pub unshared: Gauge,
}

impl ClusterMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        Self {
            engine_up: register(r, "engine_up", "1 while the engine that joins nodes is connected", Gauge::default()),
            engine_failures: register(
                r,
                "engine_failures",
                "Times that the engine was lost, or could not be reached",
                Counter::default(),
            ),
            nodes: register(r, "cluster_nodes", "Other nodes that are present", Gauge::default()),
            partitions: register(
                r,
                "cluster_partitions",
                "Partitions of channels and uids that are subscribed to",
                Gauge::default(),
            ),
            published: register(r, "envelopes_published", "Envelopes published for other nodes", Counter::default()),
            received: register(r, "envelopes_received", "Envelopes received from other nodes", Counter::default()),
            missed: register(
                r,
                "envelopes_missed",
                "Envelopes of other nodes that never came, by the gaps in their numbers",
                Counter::default(),
            ),
            dropped: register(r, "envelopes_dropped", "Envelopes that were not sent or not taken", Family::default()),
            unanswered: register(
                r,
                "requests_unanswered",
                "Commands and queries that some node did not answer in time",
                Counter::default(),
            ),
            untold: register(
                r,
                "presence_untold",
                "Joins and leaves of this node's sessions that apps are still to be told of",
                Gauge::default(),
            ),
            unshared: register(
                r,
                "presence_unshared",
                "Partitions that another node is still to be told of, once for each such node",
                Gauge::default(),
            ),
            notices_given_up: register(
                r,
                "presence_given_up",
                "Join and leave events discarded because the backlog was full",
                Counter::default(),
            ),
        }
    }

    /// Counts envelopes that were not sent or not taken.
    pub fn count_dropped(&self, cause: &'static str, count: u64) {
        if count > 0 {
            self.dropped.get_or_create(&DropLabels { cause }).inc_by(count);
        }
    }
}
