//! From commands to sessions. For now the registry: which sessions this node holds.

mod registry;

pub use registry::Registry;
