//! The commands of `longwire`, one module each, and what they share: [`cli`] says what may be written behind them, `client` is
//! the other end of a session, for those that connect to a node.
//!
//! The server itself is everything beside this folder; `longwire serve` is [`crate::serve`].

pub mod bench;
pub mod check;
pub mod cli;
mod client;
pub mod connect;
pub mod dev;
