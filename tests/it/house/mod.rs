//! What the compiler does not see to.

mod locks;
mod tidy;
