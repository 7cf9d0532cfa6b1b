//! Logging: one subscriber for the process, to standard error.
//!
//! Standard output stays free for what a command prints as its result. Other modules only use `tracing`'s macros, with
//! fields rather than prose.

use std::io::{self, IsTerminal as _};

use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::model::{Log, LogFormat};

/// Starts logging as `log` says. Only the first call of a process has an effect, so that tests may share one.
pub fn init(log: &Log) {
    let subscriber = subscriber(log, io::stderr, io::stderr().is_terminal());
    let _already_set = tracing::subscriber::set_global_default(subscriber);
}

fn subscriber<W>(log: &Log, writer: W, colours: bool) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // The config has been checked; a hand-made one with a bad level is logged at info.
    let filter: Targets = log.level.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(writer);
    match log.format {
        LogFormat::Text => Box::new(lines.with_ansi(colours).finish().with(filter)),
        // Flat, so that `reason` is where a log processor looks for it.
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            Box::new(lines.finish().with(filter))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What a node with this configuration logs for a session that was closed, and for a detail of an upstream.
    fn logged(format: LogFormat, level: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log { format, level: level.to_owned() };
        tracing::subscriber::with_default(subscriber(&log, move || writer.clone(), false), || {
            tracing::info!(session = "abc", reason = "idle_timeout", "session closed");
            tracing::debug!(target: "longwire::upstream", backend = "b", "connected");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_lines_carry_fields_and_no_colours() {
        let text = logged(LogFormat::Text, "info");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("session closed session=\"abc\" reason=\"idle_timeout\""), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn json_lines_are_flat_objects() {
        let text = logged(LogFormat::Json, "info");
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((&line["reason"], &line["message"]), (&"idle_timeout".into(), &"session closed".into()));
    }

    #[test]
    fn the_level_can_differ_by_module() {
        assert_eq!(logged(LogFormat::Text, "info,longwire::upstream=debug").lines().count(), 2);
        assert_eq!(logged(LogFormat::Text, "error"), "");
    }
}
