//! Longwire: long TCP and WebSocket connections for plain PHP.

pub mod config;
pub mod logging;
pub mod metrics;
pub mod proto;
pub mod transport;
