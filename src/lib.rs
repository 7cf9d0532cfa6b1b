//! Longwire: long TCP and WebSocket connections for plain PHP.

pub mod check;
pub mod cli;
pub mod config;
pub mod connect;
pub mod logging;
pub mod metrics;
pub mod proto;
