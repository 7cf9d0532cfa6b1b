//! What the compiler does not see to.

mod circles;
mod locks;
mod map;
mod tidy;
