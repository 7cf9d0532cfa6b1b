//! What the compiler does not see to.

mod circles;
mod dependencies;
mod locks;
mod map;
mod source;
mod tidy;
