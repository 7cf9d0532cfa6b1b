//! Passes the stderr of php-fpm and its workers to the log.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::ChildStderr;
use std::sync::Mutex;

use tracing::{info, warn};

use crate::locks::lock;

/// Longest line of php-fpm's stderr that is logged in one piece.
pub(super) const MAX_LINE: u64 = 8 * 1024;
/// Lines that explain a failed start: php-fpm names the cause a line or two before it says that it gives up.
const LAST_LINES: usize = 4;

/// Logs what php-fpm and its workers write to stderr, line by line.
pub(super) fn log_lines(stderr: ChildStderr, upstream: &str, last_lines: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    let mut copies = Copies::default();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let (is_complaint, text) = level_and_text(text.trim_end());
        if text.is_empty() || copies.is_copy(text) {
            continue;
        }
        if is_complaint {
            warn!(target: "longwire::php", upstream, "{text}");
        } else {
            info!(target: "longwire::php", upstream, "{text}");
        }
        let mut last_lines = lock(last_lines);
        // Until it has started, php-fpm writes each line to stderr and to its error_log, which is the same here.
        if last_lines.back().is_none_or(|last| last != text) {
            last_lines.push_back(text.to_owned());
        }
        if last_lines.len() > LAST_LINES {
            last_lines.pop_front();
        }
    }
}

/// `[23-Nov-2026 21:39:42] WARNING: text` is a warning of php-fpm. Every other line was written by a script.
fn level_and_text(line: &str) -> (bool, &str) {
    let said = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map(|(_, said)| said);
    match said.and_then(|said| said.split_once(": ")) {
        Some(("WARNING" | "ERROR" | "ALERT", text)) => (true, text),
        Some(("NOTICE" | "DEBUG", text)) => (false, text),
        _ => (false, line),
    }
}

/// Messages of a script come with its session, in the answer's own stderr, and a second time through the worker. Messages of PHP
/// outside of any script (at its start) come only here.
fn is_copy_of_stderr(text: &str) -> bool {
    text.starts_with("PHP message: ") && !text.contains("PHP Startup") && !text.ends_with("in Unknown on line 0")
}

/// Recognizes the copies line by line: the trace of an uncaught exception follows its first line. Workers write at the same time, so
/// several traces may be under way.
#[derive(Default)]
struct Copies {
    open_traces: u32,
}

impl Copies {
    fn is_copy(&mut self, text: &str) -> bool {
        if is_copy_of_stderr(text) {
            self.open_traces += u32::from(text.contains(" Uncaught "));
            return true;
        }
        let is_end = text.starts_with("  thrown in ");
        let is_frame = text.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let is_trace = is_end || is_frame || text == "Stack trace:" || text.starts_with("Next ");
        let is_copy = self.open_traces > 0 && is_trace;
        self.open_traces -= u32::from(is_copy && is_end);
        is_copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_of_an_uncaught_exception_is_a_copy_and_what_a_script_writes_itself_is_not() {
        let lines = [
            ("#0 written by a script", false),
            ("PHP message: PHP Fatal error:  Uncaught Error: Call to undefined function f() in a.php:3", true),
            ("PHP message: PHP Fatal error:  Uncaught Error: of another worker in b.php:3", true),
            ("written by a script", false),
            ("Stack trace:", true),
            ("#0 a.php(4): g()", true),
            ("#1 {main}", true),
            ("Next Error: second in a.php:5", true),
            ("Stack trace:", true),
            ("  thrown in a.php on line 3", true),
            ("Stack trace:", true),
            ("  thrown in b.php on line 3", true),
            ("Stack trace:", false),
            ("PHP message: line one", true),
            ("#1 of a list", false),
        ];
        let mut copies = Copies::default();
        for (line, expected) in lines {
            assert_eq!(copies.is_copy(line), expected, "{line}");
        }
    }

    #[test]
    fn lines_of_php_fpm_lose_their_date_and_lines_of_scripts_stay() {
        let cases = [
            ("[23-Nov-2026 21:39:42] WARNING: [pool x] full", (true, "[pool x] full")),
            ("[23-Nov-2026 21:39:42] NOTICE: ready", (false, "ready")),
            ("[23-Nov-2026 21:39:42] NOTICE: PHP message: x", (false, "PHP message: x")),
            ("[debug] my own: text", (false, "[debug] my own: text")),
            ("plain", (false, "plain")),
        ];
        for (line, expected) in cases {
            assert_eq!(level_and_text(line), expected);
        }
    }
}
