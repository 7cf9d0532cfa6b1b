//! Logging: one subscriber for the process, to standard error.
//!
//! Standard output stays free for what a command prints as its result. Other modules only use `tracing`'s macros, with
//! fields rather than prose.

use tracing_subscriber::EnvFilter;

use crate::config::model::{Log, LogFormat};

/// Starts logging as `log` says. Only the first call of a process has an effect, so that tests may share one.
pub fn init(log: &Log) {
    // The config has been checked; a hand-made one with a bad level is logged at info.
    let filter = EnvFilter::builder().parse(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    let _already_set = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
}
