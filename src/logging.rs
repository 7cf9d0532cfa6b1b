//! Logging: one subscriber for the process, to standard error.
//!
//! Standard output stays free for the results that commands print. Other modules only use `tracing`'s macros, with
//! fields rather than prose. The caller of a log macro pays for formatting and one copy; a separate thread writes the line (`lines`).
//! So a standard error that is full, gone or not read loses lines, which are counted, and has no other effect.

mod lines;

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

pub(crate) use self::lines::Lines;
use self::lines::{CAPTURED, Descriptor};
use crate::config::model::{Log, LogFormat};
use crate::metrics::log_lines_lost;

/// How long a process that ends waits for its last lines to be written.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Starts logging as `log` says. Only the first call in a process has an effect, so that tests may share one subscriber.
///
/// From now on panics are logged as errors: the message that std prints itself would block on the reader of standard error.
pub fn init(log: &Log) -> LogEnd {
    let lines = lines_to(libc::STDERR_FILENO);
    let writer = lines.clone();
    let subscriber = subscriber(log, move || writer.clone(), io::stderr().is_terminal());
    let _already_set = tracing::subscriber::set_global_default(subscriber);
    log_panics();
    LogEnd(lines)
}

/// The end of the log: dropping it waits until the last lines are written, for a second at most.
#[must_use = "dropping it is what waits for the last lines"]
pub struct LogEnd(Lines);

impl LogEnd {
    /// Writes one line unformatted, after everything that was logged before.
    pub fn say(&self, line: impl Display) {
        self.0.put(format!("{line}\n").as_bytes());
    }
}

impl Drop for LogEnd {
    fn drop(&mut self) {
        self.0.flush(FLUSH_WITHIN);
    }
}

/// Writes a text for the operator to standard error, for commands that are not the server. A failed write is ignored.
pub fn tell(text: impl Display) {
    let _unheard = write!(io::stderr(), "{text}");
}

/// Lines to a descriptor of this process. Lost lines are followed by a warning that counts them.
pub(crate) fn lines_to(descriptor: std::os::fd::RawFd) -> Lines {
    Lines::start(Descriptor(descriptor), notice, |lines| {
        log_lines_lost().inc_by(lines);
    })
}

/// The line that reports lost lines, in the log's own format. It is made on the writing thread and bypasses the queue.
fn notice(lines: u64) -> Vec<u8> {
    CAPTURED.set(Some(Vec::new()));
    tracing::warn!(lines, "log lines were lost");
    CAPTURED.take().unwrap_or_default()
}

fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        let place = panic.location().map(tracing::field::display);
        let thread = std::thread::current();
        let thread = thread.name();
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = matches!(backtrace.status(), std::backtrace::BacktraceStatus::Captured).then_some(backtrace);
        let backtrace = backtrace.as_ref().map(tracing::field::display);
        tracing::error!(thread, place, backtrace, "panicked: {message}");
    }));
}

fn subscriber<W>(log: &Log, writer: W, colours: bool) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // The config has been checked; one built in code with a bad level is logged at info.
    let filter: Targets = log.level.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    // It would report its own errors to standard error, with a macro that panics.
    let lines =
        tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).log_internal_errors(false).with_writer(writer);
    match log.format {
        LogFormat::Text => Box::new(lines.with_ansi(colours).finish().with(filter)),
        // Flat, so that log processors find `reason` at the top level.
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
    struct LogBuffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for LogBuffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Output of a node with this configuration for one closed session (info) and one connected backend (debug).
    fn logged(format: LogFormat, level: &str) -> String {
        let lines = LogBuffer::default();
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
