//! Integration tests: they run the real binary with the real php-fpm and real peers. There is one test binary, so that the crate is
//! linked once.
//!
//! The folders have the names of folders of `src/`, except `examples`, `house` and `support`.

// A test binary has no users outside, so `pub` here means "for the other files of the tests".
#![allow(unreachable_pub)]
// Tests may block, panic on a lock, print and make sockets as they like.
// A test may tell one long story.
#![allow(clippy::too_many_lines)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]

mod cluster;
mod commands;
mod examples;
mod house;
mod http;
mod router;
mod session;
mod support;
mod upstream;
