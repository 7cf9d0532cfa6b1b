//! Tests of the whole: the real binary, the real php-fpm, real peers. One test binary, so that the crate is linked once.
//!
//! The folders are those of `src/`, as far as it has them.

// A test binary has no outside: `pub` means "for the other files here".
#![allow(unreachable_pub)]
// Tests may block, panic on a lock, print and make sockets as they like.
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
