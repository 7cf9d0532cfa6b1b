//! Longwire: long TCP and WebSocket connections for plain PHP.

pub mod check;
pub mod cli;
pub mod config;
pub mod connect;
pub mod dev;
pub mod http;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod outbox;
pub mod proto;
pub mod router;
pub mod serve;
pub mod session;
pub mod transport;
pub mod upstream;
