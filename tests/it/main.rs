//! Tests of the whole: the binary, real sockets, real peers. One binary, so that they link once.

mod check;
