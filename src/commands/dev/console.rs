//! Prints each event and each command as a line on the terminal, together with PHP's standard error.
//!
//! The lines are made from the same log events that a production node writes; see `session::answer` and `session` for the fields.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::fields::Fields;
use super::problems::Problems;
use crate::logging::{Lines, lines_to};

/// How long a process that ends waits for its last lines to be written.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

/// Shows events and commands on standard output, and warnings about the node itself on standard error. `problems` gets all warnings and
/// errors.
pub(super) fn init(problems: Problems) -> Terminal {
    let (out, err) = (lines_to(libc::STDOUT_FILENO), lines_to(libc::STDERR_FILENO));
    let console = Console { since: Instant::now(), colours: std::io::stdout().is_terminal(), out: out.clone() };
    let shown = Targets::new()
        .with_target("longwire::event", tracing::Level::DEBUG)
        .with_target("longwire::command", tracing::Level::DEBUG)
        .with_target("longwire::php", tracing::Level::INFO)
        .with_target("longwire::session", tracing::Level::INFO);
    let rest = Targets::new()
        .with_default(tracing::Level::WARN)
        .with_target("longwire::event", tracing::level_filters::LevelFilter::OFF)
        .with_target("longwire::php", tracing::level_filters::LevelFilter::OFF)
        .with_target("longwire::session", tracing::level_filters::LevelFilter::OFF);
    let errors = err.clone();
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(move || errors.clone())
        .with_target(false)
        .log_internal_errors(false);
    let wrong = Targets::new().with_default(tracing::Level::WARN);
    // Only a second call in one process fails. Then the layers of the first call stay in use.
    let _already_set = tracing_subscriber::registry()
        .with(console.with_filter(shown))
        .with(logs.with_filter(rest))
        .with(problems.with_filter(wrong))
        .try_init();
    Terminal { out, err }
}

/// Standard output and standard error. Dropping it waits until their last lines are written, at most [`FLUSH_WITHIN`] for each.
pub(super) struct Terminal {
    out: Lines,
    err: Lines,
}

impl Terminal {
    /// Prints a text on standard output, after the lines that are queued already.
    pub(super) fn show(&self, text: &str) {
        self.out.put(text.as_bytes());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.out.flush(FLUSH_WITHIN);
        self.err.flush(FLUSH_WITHIN);
    }
}

struct Console {
    since: Instant,
    colours: bool,
    out: Lines,
}

impl<S: Subscriber> Layer<S> for Console {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = match event.metadata().target() {
            "longwire::php" => self.stderr(&fields),
            "longwire::event" => self.event(&fields),
            "longwire::command" => self.command(&fields),
            _ if fields.get("reason").is_some() => self.closed(&fields),
            _ => self.other(&fields),
        };
        self.out.put(line.as_bytes());
    }
}

impl Console {
    fn event(&self, fields: &Fields) -> String {
        let mut line = self.begin(fields);
        let _ = write!(
            line,
            "{:<8} #{:<4} {:>8} in {:>8} out",
            fields.text("event"),
            fields.text("seq"),
            fields.text("bytes_in"),
            fields.text("bytes_out"),
        );
        if let Some(micros) = fields.get("php_us").and_then(|micros| micros.parse::<f64>().ok()) {
            let _ = write!(line, "  {:>8.2} ms", micros / 1000.0);
        }
        let status = fields.text("status");
        if let Some(message) = fields.get("message") {
            let _ = write!(line, "  {}", self.paint(RED, &format!("{status} {message}")));
        } else {
            let colour = if status.starts_with('2') { GREEN } else { YELLOW };
            let _ = write!(line, "  {}", self.paint(colour, status));
            if fields.text("event") == "message" && fields.text("bytes_out") == "0" && status == "200" {
                line.push_str("  no reply: the script printed nothing");
            }
        }
        line + "\n"
    }

    fn stderr(&self, fields: &Fields) -> String {
        let mut lines = String::new();
        for text in fields.text("message").lines() {
            let _ = writeln!(lines, "{}{}", self.begin(fields), self.paint(YELLOW, &format!("php: {text}")));
        }
        lines
    }

    fn closed(&self, fields: &Fields) -> String {
        let mut line = self.begin(fields);
        let _ = write!(line, "closed   {} ({})", fields.text("reason"), fields.text("code"));
        if let Some(detail) = fields.get("detail") {
            let _ = write!(line, ": {detail}");
        }
        line + "\n"
    }

    /// A command to sessions, from PHP or from another program.
    fn command(&self, fields: &Fields) -> String {
        let mut line = self.begin(fields);
        let _ = write!(line, "{:<8} to {} by {}", fields.text("command"), fields.text("to"), fields.text("door"));
        if let Some(bytes) = fields.get("bytes") {
            let _ = write!(line, ", {bytes} bytes");
        }
        for fate in ["reached", "queued", "dropped", "refused", "gone"] {
            let count = fields.text(fate);
            if count != "0" || fate == "reached" {
                let is_good = fate == "reached" && count != "0" || fate == "queued";
                let _ =
                    write!(line, "  {}", self.paint(if is_good { GREEN } else { YELLOW }, &format!("{count} {fate}")));
            }
        }
        line + "\n"
    }

    fn other(&self, fields: &Fields) -> String {
        let text = format!("{}{}", fields.text("message"), fields.others());
        format!("{}{}\n", self.begin(fields), self.paint(YELLOW, &text))
    }

    fn begin(&self, fields: &Fields) -> String {
        let seconds = self.since.elapsed().as_secs_f64();
        let session = fields.get("session").unwrap_or("-");
        format!("{} {session:<16}  ", self.paint(DIM, &format!("{seconds:>9.3}")))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("{colour}{text}\x1b[0m") } else { text.to_owned() }
    }
}

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const DIM: &str = "\x1b[2m";
