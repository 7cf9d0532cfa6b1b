//! Errors and warnings of a configuration, with their places.
//!
//! Owns the collection of problems while a file is read ([`Report`]), and the format in which the operator sees them:
//! `file:line: key = value: rule`. A problem never ends the reading, so that all of them are reported at once.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Longest part of a value that a message shows, in characters.
const SHOWN_CHARS: usize = 60;

/// Everything that is wrong with a configuration, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Problem>);

impl Errors {
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    /// The error for a file that could not be read at all.
    pub(super) fn unreadable(file: &Path, error: &str) -> Self {
        Self(vec![Problem {
            file: file.display().to_string().into(),
            place: Place { line: 0, key: String::new(), value: String::new() },
            rule: format!("cannot be read: {error}"),
        }])
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// A setting that works, but probably not as the operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(Problem);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One broken rule: the place, the value, and the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    file: Arc<str>,
    place: Place,
    rule: String,
}

impl Problem {
    /// The line in the file, from 1; 0 when the file could not be read at all.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// The key with its tables: `apps.chat.script`. Empty for syntax errors.
    pub fn key(&self) -> &str {
        &self.place.key
    }

    /// The rule that was broken.
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.place.line > 0 {
            write!(f, ":{}", self.place.line)?;
        }
        f.write_str(": ")?;
        match (self.place.key.as_str(), self.place.value.as_str()) {
            ("", "") => {}
            (key, "") => write!(f, "{key}: ")?,
            ("", text) => write!(f, "{text}: ")?,
            (key, value) => write!(f, "{key} = {value}: ")?,
        }
        f.write_str(&self.rule)
    }
}

/// A place in the file, with everything that messages need once the parsed tree is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub line: usize,
    /// The key with its tables: `apps.chat.script`.
    pub key: String,
    /// The value as written, shortened; empty for a table or a missing key.
    pub value: String,
}

impl Place {
    /// The place of a missing key in the table that begins here.
    pub(super) fn missing(&self, key: &str) -> Place {
        Place { line: self.line, key: join(&self.key, key), value: String::new() }
    }
}

/// Collects problems and warnings while one file is read.
pub(super) struct Report<'a> {
    file: Arc<str>,
    text: &'a str,
    /// Where each line but the first begins.
    line_starts: Vec<usize>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &Path, text: &'a str) -> Self {
        let line_starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1).collect();
        let file = file.display().to_string().into();
        Self { file, text, line_starts, errors: Vec::new(), warnings: Vec::new() }
    }

    /// The place of a value.
    pub(super) fn place(&self, key: &str, span: Range<usize>) -> Place {
        Place { line: self.line(span.start), key: key.to_owned(), value: shown(self.text.get(span).unwrap_or("")) }
    }

    /// The place of a table, whose value is not shown.
    pub(super) fn table_place(&self, key: &str, span: Range<usize>) -> Place {
        Place { line: self.line(span.start), key: key.to_owned(), value: String::new() }
    }

    pub(super) fn error(&mut self, place: &Place, rule: impl Into<String>) {
        self.errors.push(Problem { file: self.file.clone(), place: place.clone(), rule: rule.into() });
    }

    pub(super) fn warn(&mut self, place: &Place, text: impl Into<String>) {
        self.warnings.push(Problem { file: self.file.clone(), place: place.clone(), rule: text.into() });
    }

    /// A syntax error. Of its line at most the key is shown, because the rest may be a secret. Only the first error of a line is
    /// reported: the others are consequences of it.
    pub(super) fn syntax(&mut self, error: &toml::de::Error) {
        let start = error.span().map_or(0, |span| span.start);
        let line = self.line(start);
        if self.errors.iter().any(|known| known.place.line == line) {
            return;
        }
        let text = self.text.lines().nth(line - 1).unwrap_or("").trim();
        let mut message = error.message().trim().replace('\n', ", ");
        if let Some(remedy) = remedy(text, &message) {
            message = format!("{message}: {remedy}");
        }
        self.error(&Place { line, key: String::new(), value: key_of(text).to_owned() }, message);
    }

    /// Whether `key`, or a key below it, has an error already. Then its absence is not reported as a second one.
    pub(super) fn has_error_at(&self, key: &str) -> bool {
        let within = |found: &str| found.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.errors.iter().any(|problem| within(&problem.place.key))
    }

    /// The result: every error, or every warning, in the order of lines.
    pub(super) fn finish(mut self) -> Result<Vec<Warning>, Errors> {
        if self.errors.is_empty() {
            self.warnings.sort_by_key(Problem::line);
            return Ok(self.warnings.into_iter().map(Warning).collect());
        }
        self.errors.sort_by_key(Problem::line);
        Err(Errors(self.errors))
    }

    fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset) + 1
    }
}

/// The right way to write a line that is not TOML, if the parser's message does not help people who know other formats.
fn remedy(line: &str, message: &str) -> Option<&'static str> {
    if line.starts_with("//") || line.starts_with(';') {
        Some("a comment begins with #")
    } else if message.contains("leading zero") {
        Some("a mode must be in quotes, as in \"0660\", and a number has no leading zeros")
    } else if message.contains("invalid float") || message.contains("invalid integer") || message.contains("quoted") {
        Some("a text must be in quotes, as in bind = \"127.0.0.1:8080\"")
    } else {
        None
    }
}

/// `tables` and `key` as one dotted key. A key that needs quotes in TOML gets them.
pub(super) fn join(tables: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if tables.is_empty() { key } else { format!("{tables}.{key}") }
}

/// The name among `known` that the operator probably meant.
pub(super) fn nearest<'n>(written: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        // One edit in three characters: with more edits it is another word.
        .filter(|(edits, name)| *edits <= (name.len().max(written.len()) / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// The same as the end of a message; empty if no name is near.
pub(super) fn did_you_mean<'n>(written: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    nearest(written, known).map_or_else(String::new, |name| format!(", did you mean \"{name}\"?"))
}

/// The header of a table, or the key of a line, if the line looks like one.
fn key_of(line: &str) -> &str {
    let key = line.split_once('=').map_or(line, |(key, _)| key).trim_end();
    let is_header = line.starts_with('[') && !line.contains(['"', '\'', '=', ':', '@']);
    let is_key = line.contains('=')
        && key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.' | b' ' | b'\t'));
    match (is_header, is_key) {
        (true, _) => line,
        (_, true) => key,
        _ => "",
    }
}

/// A value as messages show it: its beginning, without the user and the password of a URL.
fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or("").trim_end();
    let first = &*without_userinfo(line);
    if first.chars().count() > SHOWN_CHARS {
        first.chars().take(SHOWN_CHARS).chain("...".chars()).collect()
    } else if line.len() < text.trim_end().len() {
        format!("{first}...")
    } else {
        first.to_owned()
    }
}

/// The same text without user and password, which stand before the `@` of a URL. A password may have any character but those that
/// end a value.
fn without_userinfo(text: &str) -> Cow<'_, str> {
    let Some((before, rest)) = text.split_once("://") else { return text.into() };
    let end = rest.find(['"', '\'', ' ', '\t']).unwrap_or(rest.len());
    let (url, behind) = rest.split_at(end);
    let host = url.rsplit_once('@').map_or(url, |(_, host)| host);
    let hidden = if host.len() < url.len() { "...@" } else { "" };
    format!("{before}://{hidden}{host}{}", without_userinfo(behind)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_distant_one_is_not() {
        let known = ["max_frame_bytes", "max_reply_bytes", "script"];
        for (written, expected) in [
            ("max_frame_byte", ", did you mean \"max_frame_bytes\"?"),
            ("scirpt", ", did you mean \"script\"?"),
            ("max_framebytes", ", did you mean \"max_frame_bytes\"?"),
            ("colour", ""),
            ("", ""),
        ] {
            assert_eq!(did_you_mean(written, known), expected, "{written}");
        }
    }

    #[test]
    fn long_and_many_lined_values_are_cut() {
        assert_eq!(shown("\"short\""), "\"short\"");
        assert_eq!(shown("[\n 1,\n]"), "[...");
        assert_eq!(shown(&"é".repeat(100)), format!("{}...", "é".repeat(60)));
    }

    #[test]
    fn the_user_and_the_password_of_a_url_are_not_shown() {
        for (text, expected) in [
            ("\"fcgi://user:pass@word@10.0.0.7:9000/x\"", "\"fcgi://...@10.0.0.7:9000/x\""),
            (
                "[\"tcp://t0ken@a:1\", 'tcp://u:p/w@b:2', \"tcp://c:3\"]",
                "[\"tcp://...@a:1\", 'tcp://...@b:2', \"tcp://c:3\"]",
            ),
            ("\"redis://user:unterminated", "\"redis://user:unterminated"),
            ("\"mail@shop.example\"", "\"mail@shop.example\""),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn of_a_line_that_is_no_toml_the_key_is_shown_at_most() {
        for (line, expected) in [
            ("bind = 127.0.0.1:80", "bind"),
            ("cluster.urls = [\"redis://user:pw@host\"", "cluster.urls"),
            ("[listeners.web", "[listeners.web"),
            ("[\"a b\"]", ""),
            ("hunter2 is the second line of a secret", ""),
            ("\"redis://user:pw@host\", x", ""),
            ("half of a secret\" = 1", ""),
        ] {
            assert_eq!(key_of(line), expected, "{line}");
        }
    }

    #[test]
    fn keys_that_need_quotes_get_them() {
        assert_eq!(join("listeners.web.routes", "/ws"), "listeners.web.routes.\"/ws\"");
        assert_eq!(join("", "apps"), "apps");
    }
}
