//! The text of a script, and its limits.

use std::path::PathBuf;

/// A script, as it was read when the node started.
pub(super) struct Source {
    /// The file, as messages name it.
    pub(super) name: String,
    /// The folder of the script, where it also finds files that it loads.
    pub(super) folder: PathBuf,
    pub(super) text: Vec<u8>,
    pub(super) max_instructions: u64,
    pub(super) max_memory_bytes: usize,
}
