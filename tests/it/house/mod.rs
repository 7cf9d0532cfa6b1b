//! Rules for the source text that the compiler does not check.

mod circles;
mod dependencies;
mod locks;
mod map;
mod source;
mod tidy;
