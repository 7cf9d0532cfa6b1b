//! A session and its handler: frames, framings, answers, events, limits, and their failures.

#[cfg(feature = "lua")]
mod ancestor;
mod answers;
mod bounds;
mod bridge;
mod cmpp;
mod codings;
mod concurrency_per;
mod control_headers;
mod cookies;
mod devices;
mod failing_scripts;
mod faults;
mod framing_interop;
mod goodbyes;
mod guests;
mod heartbeat;
mod lifecycle;
mod limits;
mod log_trouble;
#[cfg(feature = "lua")]
mod lua;
mod odd_orders;
mod own_faults;
mod statuses;
