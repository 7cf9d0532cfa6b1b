//! Protocols as bytes only: everything here is sans IO.
//!
//! No tokio, no sockets, no clock, no locks, no logging. Decoders take slices and their limits as arguments and
//! answer *here it is*, *not yet* or *broken*. Encoders return bytes. The state of a half-read frame is plain data
//! (`Clone`, `PartialEq`, serde), so it can be serialized and another process can continue with it.

pub mod arguments;
pub mod close;
pub mod command;
pub mod control;
pub mod cookie;
pub mod envelope;
pub mod fastcgi;
pub mod forwarded;
pub mod framing;
pub mod heartbeat;
pub mod id;
mod name;
pub mod partition;
pub mod path;
pub mod presence;
pub mod proxy;
mod reader;
pub mod run;
mod target;
pub mod verb;
