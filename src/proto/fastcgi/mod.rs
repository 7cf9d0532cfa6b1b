//! The FastCGI codec (FastCGI 1.0 specification, responder role), for both sides.
//!
//! * [`params`]: name-value pairs, encoded once and shared by every request that needs them.
//! * [`request`]: a whole request as slices for one vectored write.
//! * [`response`]: the answer, decoded as it arrives.
//! * [`values`]: asks a responder for its limits.
//! * [`responder`]: the responder's side, for null responders in tests and benchmarks.
//! * [`record`]: the header of eight bytes at the beginning of every record.
//!
//! Three rules come from php-fpm and not from the specification:
//!
//! * php-fpm resets a connection if a pair spans two PARAMS records, or if content and padding exceed 65 535 bytes.
//! * Padding costs its worker one more `read`, so Longwire sends none.
//! * php-fpm echoes the request id. So each request has its own id, and an answer with another id is refused.

pub mod params;
pub mod record;
pub mod request;
pub mod responder;
pub mod response;
pub mod values;
