//! Counters and gauges of a node, as Prometheus text.

pub mod upstream;
