//! Prints frames to standard output, and notes about the connection to standard error.
//!
//! A frame is shown as text if it is all printable, else as a hex dump: no control character from a server ever reaches
//! the terminal. A closed pipe (`longwire connect ... | head`) does not end the command.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use super::wire::Arrival;

/// Bytes in one line of a dump.
const DUMP_WIDTH: usize = 16;

/// Where and how to print.
pub(super) struct Show {
    /// Print only received frames, one per line.
    quiet: bool,
}

impl Show {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    pub(super) fn connected(&self, url: &str, took: Duration) {
        self.note(&format!("connected to {url} in {}", millis(took)));
    }

    pub(super) fn sent(&self, body: &[u8]) {
        if !self.quiet {
            print(frame_text('>', body, None).as_bytes());
        }
    }

    pub(super) fn received(&self, body: &[u8], took: Option<Duration>) {
        if self.quiet {
            print(body);
            print(b"\n");
        } else {
            print(frame_text('<', body, took).as_bytes());
        }
    }

    pub(super) fn closed(&self, how: &Arrival) {
        self.note(&how.to_string());
    }

    /// Prints a note about the connection.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            let _nobody_reads = writeln!(io::stderr(), "{text}");
        }
    }
}

fn print(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _nobody_reads = out.write_all(bytes).and_then(|()| out.flush());
}

/// A frame with its mark; text of several lines or a dump follows on lines of its own.
fn frame_text(mark: char, body: &[u8], took: Option<Duration>) -> String {
    let took = took.map_or_else(String::new, |took| format!("  ({})", millis(took)));
    match printable(body) {
        Some("") => format!("{mark} empty{took}\n"),
        Some(text) if !text.contains('\n') => format!("{mark} {text}{took}\n"),
        Some(text) => {
            let lines: String = text.lines().map(|line| format!("  {line}\n")).collect();
            format!("{mark} {} bytes of text{took}\n{lines}", body.len())
        }
        None => format!("{mark} {} bytes{took}\n{}", body.len(), dump(body)),
    }
}

/// The text, if a terminal can show all of it.
fn printable(body: &[u8]) -> Option<&str> {
    let text = str::from_utf8(body).ok()?;
    text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()).then_some(text)
}

fn dump(body: &[u8]) -> String {
    let mut text = String::new();
    for (row, bytes) in body.chunks(DUMP_WIDTH).enumerate() {
        let hex: String = bytes.iter().map(|byte| format!(" {byte:02x}")).collect();
        let ascii: String =
            bytes.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
        let _infallible = writeln!(text, "  {:06x} {hex:<width$}  {ascii}", row * DUMP_WIDTH, width = 3 * DUMP_WIDTH);
    }
    text
}

/// A body for an error message, shortened.
pub(super) fn quoted(body: &[u8]) -> String {
    const SHOWN: usize = 200;
    let tail = if body.len() > SHOWN { format!("... ({} bytes)", body.len()) } else { String::new() };
    format!("\"{}\"{tail}", body[..body.len().min(SHOWN)].escape_ascii())
}

fn millis(took: Duration) -> String {
    format!("{:.2} ms", took.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_text_and_all_else_as_hex() {
        let took = Some(Duration::from_micros(1250));
        for (body, expected) in [
            (&b"hello"[..], "< hello  (1.25 ms)\n"),
            (b"", "< empty  (1.25 ms)\n"),
            ("gr\u{fc}n".as_bytes(), "< gr\u{fc}n  (1.25 ms)\n"),
            (b"a\nb", "< 3 bytes of text  (1.25 ms)\n  a\n  b\n"),
            (b"\x00\xffhi", "< 4 bytes  (1.25 ms)\n  000000  00 ff 68 69                                      ..hi\n"),
            // An escape sequence, which must not reach the terminal.
            (b"\x1b[2J", "< 4 bytes  (1.25 ms)\n  000000  1b 5b 32 4a                                      .[2J\n"),
        ] {
            assert_eq!(frame_text('<', body, took), expected);
        }
        assert_eq!(dump(&[b'a'; 17]).lines().count(), 2);
    }
}
