//! The commands of `longwire`, one module each, and their shared parts: [`cli`] defines the command line, and `client` is the
//! client's end of a session, for the commands that connect to a node.
//!
//! The server itself is everything outside this folder; `longwire serve` is [`crate::serve`].

pub mod bench;
pub mod check;
pub mod cli;
mod client;
pub mod connect;
pub mod dev;
pub mod health;
