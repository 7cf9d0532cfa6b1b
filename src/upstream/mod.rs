//! Requests in, answers out: [`Upstream`] hides choice, reuse, retry and health of php-fpm connections.

mod request;

pub use request::{Class, Failure, Outcome, Request, Responder, Timing};

/// Most bytes that one read of a connection gives to its responder.
pub const READ_BYTES: usize = 64 * 1024;
