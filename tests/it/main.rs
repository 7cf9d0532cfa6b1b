//! Tests of the whole: the real binary, the real php-fpm, real peers.

mod check;
mod framing_interop;
