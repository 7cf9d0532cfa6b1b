//! The integration tests: one binary, one module a subject.

mod check;
mod connect;
mod framing_interop;
