//! Integration tests: they run the real binary with the real php-fpm and real peers. There is one test binary, so that the crate is
//! linked once.
//!
//! The folders have the names of folders of `src/`, except `examples`, `house` and `support`.

// Tests may block, panic on a lock, print, make sockets, and tell one long story.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros, clippy::too_many_lines)]

mod cluster;
mod commands;
mod examples;
mod house;
mod http;
mod router;
mod session;
mod support;
mod upstream;
