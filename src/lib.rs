//! Longwire: long TCP and WebSocket connections for plain PHP.

pub mod config;
pub mod metrics;
pub mod proto;
pub mod upstream;
