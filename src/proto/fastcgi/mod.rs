//! The FastCGI codec (FastCGI 1.0 specification, responder role), both sides of it.
//!
//! * [`params`]: name-value pairs, encoded once and shared by every request that needs them.
//! * [`request`]: a whole request as slices for one vectored write.
//! * [`response`]: the answer, taken apart as it arrives.
//! * [`values`]: what a responder says of itself when asked.
//! * [`responder`]: the other side, for null responders in tests and benchmarks.
//! * [`record`]: the eight bytes that all of them begin with.
//!
//! Three rules come from php-fpm rather than from the specification. It resets a connection on which a pair spans
//! two PARAMS records or on which content and padding exceed 65 535 bytes; padding costs its worker one more `read`,
//! so there is none; it echoes the request id, so each request has its own and an answer with another is refused.

pub mod params;
pub mod record;
pub mod request;
pub mod responder;
pub mod response;
pub mod values;
