//! The standard error of an event. It shows whether the script died, and whether php-fpm did not run it.
//!
//! php-fpm reports both nowhere else: END_REQUEST has status 0 in any case, and a status line that has already left
//! cannot be changed. php-fpm puts `PHP message: ` before the first message of a script, and `; PHP message: ` before
//! each further one (before PHP 7.4: `PHP message: ` on a line of its own). Its own messages have no such prefix.
//! php-cgi writes lines as they are.
//!
//! A script that dies is logged under one of three names ([`DEATHS`]), which no warning has. A death is not seen if its
//! message does not come here: with `log_errors` off, an `error_log` file, `fastcgi.logging` off, an `error_reporting`
//! without errors, or `exit(255)`, which writes nothing.

use memchr::memmem;

/// The limit of logged bytes for one event. The log tells how many bytes are left out.
const MAX_BYTES: usize = 16 * 1024;
/// The prefix that php-fpm puts before each message of a script.
const MESSAGE: &[u8] = b"PHP message: ";
/// The names that php_error_cb (main/main.c) gives to errors that end a script.
const DEATHS: [&[u8]; 3] = [b"PHP Fatal error:  ", b"PHP Parse error:  ", b"PHP Recoverable fatal error:  "];
/// The length of the longest name with its longest prefix, less one byte. An earlier piece can end with so much of it.
const CARRIED: usize = b"; PHP message: PHP Recoverable fatal error:  ".len() - 1;

/// The standard error of one event.
#[derive(Debug, Default)]
pub(super) struct Stderr {
    text: Vec<u8>,
    beyond: usize,
    /// The last bytes that came so far.
    carried: Vec<u8>,
    has_died: bool,
}

impl Stderr {
    /// Takes the next bytes, cut anywhere. Returns true if these bytes report the death of the script.
    pub(super) fn take(&mut self, data: &[u8]) -> bool {
        let is_news = !self.has_died && self.says_death(data);
        self.has_died |= is_news;
        let taken = data.len().min(MAX_BYTES - self.text.len());
        self.text.extend_from_slice(&data[..taken]);
        self.beyond += data.len() - taken;
        is_news
    }

    /// The first 16 KiB.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// How many bytes came after the first 16 KiB.
    pub(super) fn beyond(&self) -> usize {
        self.beyond
    }

    /// The script ended in a fatal error.
    pub(super) fn has_died(&self) -> bool {
        self.has_died
    }

    /// Whether an answer with this status and this beginning of a body comes from php-fpm itself, which then has not
    /// run the script.
    pub(super) fn says_not_run(&self, status: u16, body: &[u8]) -> bool {
        let (text, is_said) = (&self.text[..], |what| memmem::find(&self.text, what).is_some());
        match status {
            // If the script itself answers 404 or 403, standard error has only the script's messages, which begin
            // differently.
            404 if text.starts_with(b"Primary script unknown") => true,
            403 if text.starts_with(b"Access to the script '") => true,
            // The message follows a warning that the startup of the request failed.
            403 | 404 if text.starts_with(b"PHP message: PHP Warning:  PHP Request Startup: ") => {
                is_said(b"Unable to open primary script: ")
            }
            403 | 404 if text.starts_with(b"Unable to open primary script: ") => true,
            // php-cgi says it only in the body.
            404 => body == b"No input file specified.\n",
            _ => false,
        }
    }

    fn says_death(&mut self, data: &[u8]) -> bool {
        let is_beginning = self.text.len() + self.beyond == self.carried.len();
        let is_of_fpm = self.text.starts_with(MESSAGE) || self.text.is_empty() && data.starts_with(MESSAGE);
        let mut window = std::mem::take(&mut self.carried);
        window.extend_from_slice(data);
        let begins_message = |before: &[u8]| {
            let (before, separators) = match before.strip_suffix(MESSAGE) {
                Some(before) => (before, &[&b"; "[..], b"\n"][..]),
                None if is_of_fpm => return false,
                None => (before, &[&b"\n"[..]][..]),
            };
            is_beginning && before.is_empty() || separators.iter().any(|separator| before.ends_with(separator))
        };
        let is_death = |name: &&[u8]| memmem::find_iter(&window, *name).any(|at| begins_message(&window[..at]));
        let says_death = DEATHS.iter().any(is_death);
        window.drain(..window.len().saturating_sub(CARRIED));
        self.carried = window;
        says_death
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the result is the same for pieces of any size, and after more text than is kept.
    fn says_death(text: &str) -> bool {
        let whole = Stderr::default().take(text.as_bytes());
        for size in [1, 2, 7, 30] {
            let mut stderr = Stderr::default();
            let news = text.as_bytes().chunks(size).filter(|piece| stderr.take(piece)).count();
            assert_eq!((news, stderr.has_died()), (usize::from(whole), whole), "{text:?} in pieces of {size}");
            assert_eq!(stderr.text(), text.as_bytes());
        }
        let mut late = Stderr::default();
        late.take(format!("PHP message: {}; ", "x".repeat(2 * MAX_BYTES)).as_bytes());
        assert_eq!(late.take(text.as_bytes()), whole && text.starts_with("PHP message: "), "{text:?}");
        whole
    }

    #[test]
    fn a_death_is_a_message_that_begins_with_its_name() {
        for text in [
            "PHP message: PHP Fatal error:  Uncaught Exception: a in /x.php:1",
            "PHP message: PHP Parse error:  syntax error in /x.php on line 1",
            "PHP message: PHP Recoverable fatal error:  a",
            "PHP message: said; PHP message: PHP Fatal error:  a; PHP message: behind",
            "PHP message: said\nPHP message: PHP Fatal error:  a\n",
            "PHP Fatal error:  of php-cgi\n",
            "said\nPHP Fatal error:  of php-cgi\n",
        ] {
            assert!(says_death(text), "{text}");
        }
        for text in [
            "",
            "PHP message: PHP Warning:  PHP Fatal error:  in a warning",
            "PHP message: PHP Fatal error: one space",
            "PHP message: said PHP Fatal error:  a",
            "PHP message: a trace\nPHP Fatal error:  as a line of it",
            "PHP message: PHP Fatal errors:  a",
            "a PHP Fatal error:  a",
            "Primary script unknown",
        ] {
            assert!(!says_death(text), "{text}");
        }
    }

    #[test]
    fn an_answer_of_php_fpm_itself_is_told_by_what_no_script_can_write_first() {
        let cases = [
            ("Primary script unknown", 404, "File not found.\n", true),
            ("Access to the script '/a.txt' has been denied (see security.limit_extensions)", 403, "", true),
            ("Unable to open primary script: /a (Permission denied)", 403, "", true),
            ("PHP message: PHP Warning:  PHP Request Startup: a; Unable to open primary script: /a", 404, "", true),
            ("", 404, "No input file specified.\n", true),
            ("", 404, "File not found.\n", false),
            ("", 403, "Access denied.\n", false),
            ("PHP message: Primary script unknown", 404, "File not found.\n", false),
            ("PHP message: a; Primary script unknown", 404, "File not found.\n", false),
            ("PHP message: Unable to open primary script: /a", 403, "", false),
            ("Primary script unknown", 200, "", false),
        ];
        for (text, status, body, expected) in cases {
            let mut stderr = Stderr::default();
            stderr.take(text.as_bytes());
            assert_eq!(stderr.says_not_run(status, body.as_bytes()), expected, "{text:?} {status} {body:?}");
        }
    }
}
