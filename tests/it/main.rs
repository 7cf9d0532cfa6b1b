//! Integration tests: one binary, so that the crate is linked once.

// A test binary has no outside: `pub` means "for the other files here".
#![allow(unreachable_pub)]

mod dev_page;
mod examples;
mod support;
mod tidy;
mod upstream_faults;
mod upstream_pool;
