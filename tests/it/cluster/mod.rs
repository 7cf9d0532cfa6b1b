//! Several nodes, joined by an engine.

mod demo;
mod engine_clusters;
mod engine_tls;
mod faults;
mod peers;
mod presence;
mod published;
mod several_nodes;
mod steady;
