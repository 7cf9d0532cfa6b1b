//! Counts the cost of a Lua pattern before Lua itself runs it.
//!
//! Lua's matcher backtracks exponentially: `("a?"):rep(30) .. ("a"):rep(30)` takes a minute to match 30 bytes. That is one call into the
//! standard library, where no hook runs. So [`worst_case`] computes the most steps that a search can take, from the pattern and the length
//! of the subject. For nearly all calls they are too few to count, and Lua's own function runs. For the others [`Matcher`] does the same
//! match first, counts each step, and stops when the budget is used up. If it finishes, `find`, `match` and `gmatch` return its result.
//! Lua's own function then runs only for `gsub`, where it takes the same steps, and to report errors. The tests compare all results with
//! Lua's.
//!
//! The matcher is the one of `lstrlib.c` in Lua 5.4, written for slices: where C reads the zero after a string, `byte` returns a zero.

/// Why a match ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The allowed steps are used up.
    TooMany,
    /// The pattern is malformed. Lua reports the error when it comes to the same place.
    Malformed,
}

/// The recursion limit of Lua's own matcher (`MAXCCALLS`).
const MAX_DEPTH: u32 = 200;
/// `LUA_MAXCAPTURES`.
const MAX_CAPTURES: usize = 32;

/// Bytes that are compared or searched in the time of a step.
const BYTES_A_STEP: usize = 16;
/// The same for a class in brackets, and between the two delimiters of `%b`.
const SLOW_BYTES_A_STEP: usize = 4;

/// The most steps that a search in a subject of this many bytes can take. For a malformed pattern the result may be `u64::MAX`: the matcher
/// soon finds the error.
pub(super) fn worst_case(pattern: &[u8], subject: usize, knows_anchor: bool) -> u64 {
    let tries = subject as u64 + 1;
    let (mut at, mut anchored) = (0, false);
    if knows_anchor && pattern.first() == Some(&b'^') {
        (at, anchored) = (1, true);
    }
    let (mut steps, mut ways) = (1_u64, 1_u64);
    while at < pattern.len() {
        let (cost, fan, next) = match (pattern[at], byte(pattern, at + 1)) {
            (b'(' | b')', _) => (1, 1, at + 1),
            (b'%', b'b') => (1 + (subject / SLOW_BYTES_A_STEP) as u64, 1, at + 4),
            (b'%', b'0'..=b'9') => (1 + (subject / BYTES_A_STEP) as u64, 1, at + 2),
            (first, second) => {
                let item = if (first, second) == (b'%', b'f') { at + 2 } else { at };
                let Ok(end) = class_end(pattern, item) else { return u64::MAX };
                let cost = 2 + 2 * ((end - item) / SLOW_BYTES_A_STEP) as u64;
                match byte(pattern, end) {
                    _ if item != at => (cost, 1, end),
                    b'*' | b'+' | b'-' => (cost.saturating_mul(tries), tries, end + 1),
                    b'?' => (cost, 2, end + 1),
                    _ => (cost, 1, end),
                }
            }
        };
        steps = steps.saturating_add(ways.saturating_mul(cost));
        ways = ways.saturating_mul(fan);
        at = next;
    }
    // For each way to the end of the pattern, reaching the end is one more step.
    let once = steps.saturating_add(ways);
    if anchored { once } else { once.saturating_mul(tries) }
}

/// Whether a pattern has no special characters, so that Lua searches for its bytes.
pub(super) fn is_plain(pattern: &[u8]) -> bool {
    !pattern.iter().any(|byte| b"^$*+?.([%-".contains(byte))
}

/// Matches one pattern against one subject, with a limited number of steps.
pub(super) struct Matcher<'m> {
    subject: &'m [u8],
    /// The pattern without its anchor.
    pattern: &'m [u8],
    is_anchored: bool,
    depth: u32,
    level: usize,
    captures: [Capture; MAX_CAPTURES],
    /// Steps that are left.
    left: u64,
}

#[derive(Clone, Copy)]
struct Capture {
    begin: usize,
    len: Length,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Unfinished,
    Position,
    Bytes(usize),
}

/// A capture; positions count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Captured {
    /// `()`.
    Position(usize),
    /// The begin and the end of the captured bytes.
    Bytes(usize, usize),
}

type MatchEnd = Result<Option<usize>, Stop>;

impl<'m> Matcher<'m> {
    /// `knows_anchor` is false for `gmatch`, in which `^` is not an anchor.
    pub(super) fn new(subject: &'m [u8], pattern: &'m [u8], knows_anchor: bool, left: u64) -> Self {
        let (is_anchored, pattern) = match pattern.strip_prefix(b"^") {
            Some(rest) if knows_anchor => (true, rest),
            _ => (false, pattern),
        };
        let captures = [Capture { begin: 0, len: Length::Unfinished }; MAX_CAPTURES];
        Self { subject, pattern, is_anchored, depth: 0, level: 0, captures, left }
    }

    /// Steps that are left.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The subject that it searches.
    pub(super) fn subject(&self) -> &'m [u8] {
        self.subject
    }

    /// The number of captures of the last match.
    pub(super) fn captured(&self) -> usize {
        self.level
    }

    /// One capture of the last match. For an unfinished capture it is the position where it begins.
    pub(super) fn capture(&self, index: usize) -> Captured {
        let Capture { begin, len } = self.captures[index];
        match len {
            Length::Bytes(len) => Captured::Bytes(begin, begin + len),
            Length::Position | Length::Unfinished => Captured::Position(begin),
        }
    }

    /// Whether the pattern left a capture open. Lua returns an error for such a match.
    pub(super) fn has_unfinished(&self) -> bool {
        self.captures[..self.level].iter().any(|capture| capture.len == Length::Unfinished)
    }

    /// `string.find` and `string.match`: the begin and end of the first match at or after `from`.
    pub(super) fn first(&mut self, from: usize) -> Result<Option<(usize, usize)>, Stop> {
        for at in from..=self.subject.len() {
            if let Some(end) = self.match_at(at)? {
                return Ok(Some((at, end)));
            }
            if self.is_anchored {
                break;
            }
        }
        Ok(None)
    }

    /// `gmatch`: the first match at or after `from` that does not end where the last one did.
    pub(super) fn next(&mut self, from: usize, last: Option<usize>) -> Result<Option<(usize, usize)>, Stop> {
        for at in from..=self.subject.len() {
            if let Some(end) = self.match_at(at)?.filter(|end| Some(*end) != last) {
                return Ok(Some((at, end)));
            }
        }
        Ok(None)
    }

    /// `gsub`: goes through at most `max` matches and returns their number.
    pub(super) fn all(&mut self, max: i64) -> Result<i64, Stop> {
        let (mut at, mut count, mut last) = (0, 0, None);
        while count < max {
            match self.match_at(at)?.filter(|end| Some(*end) != last) {
                Some(end) => {
                    count += 1;
                    (at, last) = (end, Some(end));
                }
                None if at < self.subject.len() => at += 1,
                None => break,
            }
            if self.is_anchored {
                break;
            }
        }
        Ok(count)
    }

    fn match_at(&mut self, at: usize) -> MatchEnd {
        (self.level, self.depth) = (0, 0);
        self.run(at, 0)
    }

    fn charge(&mut self, steps: usize) -> Result<(), Stop> {
        self.left = self.left.checked_sub(steps as u64).ok_or(Stop::TooMany)?;
        Ok(())
    }

    /// `match` of `lstrlib.c`: matches from `s` in the subject and `p` in the pattern, and returns where the match ends.
    fn run(&mut self, mut s: usize, mut p: usize) -> MatchEnd {
        if self.depth == MAX_DEPTH {
            return Err(Stop::Malformed);
        }
        self.depth += 1;
        let end = loop {
            self.charge(1)?;
            if p >= self.pattern.len() {
                break Some(s);
            }
            match (self.pattern[p], byte(self.pattern, p + 1)) {
                (b'(', b')') => break self.start_capture(s, p + 2, Length::Position)?,
                (b'(', _) => break self.start_capture(s, p + 1, Length::Unfinished)?,
                (b')', _) => break self.end_capture(s, p + 1)?,
                (b'$', _) if p + 1 == self.pattern.len() => break (s == self.subject.len()).then_some(s),
                (b'%', b'b') => match self.balance(s, p + 2)? {
                    Some(end) => (s, p) = (end, p + 4),
                    None => break None,
                },
                (b'%', b'f') => {
                    let set = p + 2;
                    if byte(self.pattern, set) != b'[' {
                        return Err(Stop::Malformed);
                    }
                    let end = class_end(self.pattern, set)?;
                    self.charge(2 * (end - set) / SLOW_BYTES_A_STEP)?;
                    let previous = if s == 0 { 0 } else { self.subject[s - 1] };
                    let next = byte(self.subject, s);
                    if is_in_set(previous, self.pattern, set, end - 1) || !is_in_set(next, self.pattern, set, end - 1) {
                        break None;
                    }
                    p = end;
                }
                (b'%', digit @ b'0'..=b'9') => match self.back_reference(s, digit)? {
                    Some(end) => (s, p) = (end, p + 2),
                    None => break None,
                },
                _ => {
                    let end = class_end(self.pattern, p)?;
                    let suffix = byte(self.pattern, end);
                    if !self.single(s, p, end)? {
                        match suffix {
                            b'*' | b'?' | b'-' => p = end + 1,
                            _ => break None,
                        }
                    } else {
                        match suffix {
                            b'?' => match self.run(s + 1, end + 1)? {
                                Some(end) => break Some(end),
                                None => p = end + 1,
                            },
                            b'+' => break self.max_expand(s + 1, p, end)?,
                            b'*' => break self.max_expand(s, p, end)?,
                            b'-' => break self.min_expand(s, p, end)?,
                            _ => (s, p) = (s + 1, end),
                        }
                    }
                }
            }
        };
        self.depth -= 1;
        Ok(end)
    }

    fn single(&mut self, s: usize, p: usize, end: usize) -> Result<bool, Stop> {
        self.charge(1 + (end - p) / SLOW_BYTES_A_STEP)?;
        let Some(&c) = self.subject.get(s) else { return Ok(false) };
        Ok(match self.pattern[p] {
            b'.' => true,
            b'%' => is_of_class(c, byte(self.pattern, p + 1)),
            b'[' => is_in_set(c, self.pattern, p, end - 1),
            literal => literal == c,
        })
    }

    fn max_expand(&mut self, s: usize, p: usize, end: usize) -> MatchEnd {
        let mut count = 0;
        while self.single(s + count, p, end)? {
            count += 1;
        }
        loop {
            if let Some(end) = self.run(s + count, end + 1)? {
                return Ok(Some(end));
            }
            match count.checked_sub(1) {
                Some(fewer) => count = fewer,
                None => return Ok(None),
            }
        }
    }

    fn min_expand(&mut self, mut s: usize, p: usize, end: usize) -> MatchEnd {
        loop {
            if let Some(end) = self.run(s, end + 1)? {
                return Ok(Some(end));
            }
            if !self.single(s, p, end)? {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn balance(&mut self, s: usize, p: usize) -> MatchEnd {
        if p + 1 >= self.pattern.len() {
            return Err(Stop::Malformed);
        }
        let (open, close) = (self.pattern[p], self.pattern[p + 1]);
        if byte(self.subject, s) != open {
            return Ok(None);
        }
        let mut depth = 1;
        for at in s + 1..self.subject.len() {
            let c = self.subject[at];
            if c == close {
                depth -= 1;
                if depth == 0 {
                    self.charge((at - s) / SLOW_BYTES_A_STEP)?;
                    return Ok(Some(at + 1));
                }
            } else if c == open {
                depth += 1;
            }
        }
        self.charge((self.subject.len().saturating_sub(s)) / SLOW_BYTES_A_STEP)?;
        Ok(None)
    }

    fn start_capture(&mut self, s: usize, p: usize, len: Length) -> MatchEnd {
        if self.level == MAX_CAPTURES {
            return Err(Stop::Malformed);
        }
        self.captures[self.level] = Capture { begin: s, len };
        self.level += 1;
        let end = self.run(s, p)?;
        if end.is_none() {
            self.level -= 1;
        }
        Ok(end)
    }

    fn end_capture(&mut self, s: usize, p: usize) -> MatchEnd {
        let open = self.captures[..self.level].iter().rposition(|capture| capture.len == Length::Unfinished);
        let open = open.ok_or(Stop::Malformed)?;
        self.captures[open].len = Length::Bytes(s - self.captures[open].begin);
        let end = self.run(s, p)?;
        if end.is_none() {
            self.captures[open].len = Length::Unfinished;
        }
        Ok(end)
    }

    fn back_reference(&mut self, s: usize, digit: u8) -> MatchEnd {
        let capture = usize::from(digit).checked_sub(usize::from(b'1')).ok_or(Stop::Malformed)?;
        let Some(Capture { begin, len }) = self.captures[..self.level].get(capture).copied() else {
            return Err(Stop::Malformed);
        };
        let len = match len {
            Length::Unfinished => return Err(Stop::Malformed),
            // In C its length is -2, which as a size is larger than any subject.
            Length::Position => return Ok(None),
            Length::Bytes(len) => len,
        };
        self.charge(len / BYTES_A_STEP)?;
        let captured = &self.subject[begin..begin + len];
        Ok(self.subject[s..].starts_with(captured).then_some(s + len))
    }
}

/// The byte at `at`, or zero after the end.
fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

/// The position after the single character or class that begins at `at`.
fn class_end(pattern: &[u8], at: usize) -> Result<usize, Stop> {
    match byte(pattern, at) {
        b'%' if at + 1 >= pattern.len() => Err(Stop::Malformed),
        b'%' => Ok(at + 2),
        b'[' => {
            let mut end = at + 1;
            if byte(pattern, end) == b'^' {
                end += 1;
            }
            loop {
                if end >= pattern.len() {
                    return Err(Stop::Malformed);
                }
                let c = pattern[end];
                end += 1;
                if c == b'%' && end < pattern.len() {
                    end += 1;
                }
                if byte(pattern, end) == b']' {
                    return Ok(end + 1);
                }
            }
        }
        _ => Ok(at + 1),
    }
}

/// Like `isalpha` and the similar functions in the C locale.
fn is_of_class(c: u8, class: u8) -> bool {
    let is = match class.to_ascii_lowercase() {
        b'a' => c.is_ascii_alphabetic(),
        b'c' => c.is_ascii_control(),
        b'd' => c.is_ascii_digit(),
        b'g' => c.is_ascii_graphic(),
        b'l' => c.is_ascii_lowercase(),
        b'p' => c.is_ascii_punctuation(),
        b's' => matches!(c, b' ' | b'\t'..=b'\r'),
        b'u' => c.is_ascii_uppercase(),
        b'w' => c.is_ascii_alphanumeric(),
        b'x' => c.is_ascii_hexdigit(),
        b'z' => c == 0,
        _ => return class == c,
    };
    is == class.is_ascii_lowercase()
}

/// `matchbracketclass`: `last` is the position of the `]`.
fn is_in_set(c: u8, pattern: &[u8], first: usize, last: usize) -> bool {
    let mut at = first;
    let is_listed = byte(pattern, at + 1) != b'^';
    if !is_listed {
        at += 1;
    }
    loop {
        at += 1;
        if at >= last {
            return !is_listed;
        }
        if pattern[at] == b'%' {
            at += 1;
            if is_of_class(c, byte(pattern, at)) {
                return is_listed;
            }
        } else if byte(pattern, at + 1) == b'-' && at + 2 < last {
            at += 2;
            if (pattern[at - 2]..=pattern[at]).contains(&c) {
                return is_listed;
            }
        } else if pattern[at] == c {
            return is_listed;
        }
    }
}
