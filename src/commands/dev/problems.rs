//! Warnings and errors for the page. A client gets nothing when its event fails, so without them its page would show nothing either.
//!
//! The page reads them as an event stream (`EventSource`). Each answer has the new lines and ends. The browser reconnects by itself
//! after [`RETRY_MS`], with the number of the last line that it has. So the server needs no long-lived connection for this.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tracing::field::Visit;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::fields::Fields;

use crate::locks::lock;

/// Milliseconds until the page asks again: short enough for a person who has just sent a frame.
const RETRY_MS: u32 = 300;
/// Lines that are kept for a page that has not asked for a while: as many as the page shows.
const KEPT: usize = 1000;

/// The lines, shared by the log and the page.
#[derive(Clone, Default)]
pub(super) struct Problems(Arc<Mutex<ProblemLines>>);

#[derive(Default)]
struct ProblemLines {
    /// The number of the first line in `kept`.
    first: u64,
    kept: VecDeque<String>,
}

impl Problems {
    fn add(&self, line: String) {
        let mut lines = self.lines();
        lines.kept.push_back(line);
        if lines.kept.len() > KEPT {
            lines.kept.pop_front();
            lines.first += 1;
        }
    }

    /// The event stream for a page whose last line was `last_seen`. A new page gets only lines from now on.
    pub(super) fn since(&self, last_seen: Option<&str>) -> Bytes {
        let lines = self.lines();
        let end = lines.first + lines.kept.len() as u64;
        // A number beyond the end is from an earlier run of `dev`.
        let from = last_seen.and_then(|seen| seen.parse().ok()).filter(|from| *from <= end).unwrap_or(end);
        let mut stream = format!("retry: {RETRY_MS}\nid: {end}\n");
        for line in lines.kept.iter().skip(from.saturating_sub(lines.first) as usize) {
            let _ = write!(stream, "data: {line}\n\n");
        }
        stream.push('\n');
        stream.into()
    }

    fn lines(&self) -> MutexGuard<'_, ProblemLines> {
        lock(&self.0)
    }
}

impl<S: Subscriber> Layer<S> for Problems {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields as &mut dyn Visit);
        let (before, behind) = match event.metadata().target() {
            "longwire::php" => ("php: ", String::new()),
            "longwire::event" => ("", format!(" ({} #{})", fields.text("event"), fields.text("seq"))),
            _ => ("", fields.others()),
        };
        for text in fields.text("message").lines() {
            // In an event stream a carriage return ends a line.
            self.add(format!("{before}{}{behind}", text.replace('\r', " ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gets_each_line_once_and_one_that_has_just_come_none_of_the_past() {
        let problems = Problems::default();
        problems.add("before".to_owned());
        assert_eq!(problems.since(None), "retry: 300\nid: 1\n\n");
        problems.add("one".to_owned());
        problems.add("two".to_owned());
        assert_eq!(problems.since(Some("1")), "retry: 300\nid: 3\ndata: one\n\ndata: two\n\n\n");
        assert_eq!(problems.since(Some("3")), "retry: 300\nid: 3\n\n");
        assert_eq!(problems.since(Some("99")), "retry: 300\nid: 3\n\n", "the number is from an earlier run");
        (0..KEPT).for_each(|number| problems.add(number.to_string()));
        let stream = String::from_utf8(problems.since(Some("1")).to_vec()).unwrap();
        assert_eq!(stream.matches("data: ").count(), KEPT);
        assert!(stream.starts_with("retry: 300\nid: 1003\ndata: 0\n"), "the oldest are dropped");
    }
}
