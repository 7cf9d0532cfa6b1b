//! What the tests share.

pub mod browser;
pub mod calls;
pub mod client;
pub mod dev;
pub mod engine;
pub mod event_stream;
pub mod http;
pub mod longwire;
pub mod php_fpm;
pub mod proxy;
pub mod router;
pub mod tls;

use std::path::{Path, PathBuf};

/// Where cargo builds, and `venv.sh` installs.
pub fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo makes it in its target folder").to_owned()
}
