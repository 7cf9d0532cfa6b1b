//! Checks that nothing is logged while a lock is held, and that no lock is poisoned by a panic.
//!
//! Formatting a log line may take other locks, and all tasks that wait for the held lock would wait for that too. The rule reads the text
//! of each function: where a guard begins and ends, and which calls in between log, directly or through functions of the same module. It
//! knows names but no types, so it finds many mistakes but proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{File, code, sources, without_tests};

/// Exceptions: functions that have the same name as one that logs, or that may log under a lock, with the reason.
const INNOCENT: &[(&str, &str, &str)] = &[
    ("cluster", "send", "of a channel"),
    ("router_port", "take", "of an iterator"),
    (
        "lua",
        "read",
        "a session's codec is locked for as long as its script runs, and only its own session waits for it",
    ),
    ("lua", "write", "the same"),
    ("lua", "note", "the same"),
];

#[test]
fn nothing_is_logged_under_a_lock() {
    let complaints = logs_under_locks(&sources(), INNOCENT);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// A function and the position of its body in the code of its file.
struct Function<'f> {
    file: &'f str,
    module: &'f str,
    name: String,
    first_line: usize,
    signature: String,
    body: String,
}

const MACROS: [&str; 5] = ["trace!", "debug!", "info!", "warn!", "error!"];

fn logs_under_locks(files: &[File], innocent: &[(&str, &str, &str)]) -> Vec<String> {
    let functions: Vec<Function<'_>> = files.iter().flat_map(functions).collect();
    let mut by_module: BTreeMap<&str, Vec<&Function<'_>>> = BTreeMap::new();
    for function in &functions {
        by_module.entry(function.module).or_default().push(function);
    }
    let mut complaints = Vec::new();
    for (module, functions) in by_module {
        let guards: BTreeSet<&str> =
            functions.iter().filter(|f| f.signature.contains("Guard<")).map(|f| f.name.as_str()).collect();
        let is_innocent = |name: &str| innocent.iter().any(|(of, other, _)| *of == module && *other == name);
        let logging = logging(&functions, is_innocent);
        for function in functions {
            for (at, end) in held(&function.body, &guards) {
                let held = &function.body[at..end];
                let logs = |name: &str| MACROS.contains(&name) || logging.contains(name) && !guards.contains(name);
                let call = calls(held).find(|(_, name)| logs(name));
                if let Some((offset, name)) = call {
                    let line = |at: usize| function.first_line + function.body[..at].matches('\n').count();
                    complaints.push(format!(
                        "{}: line {}: {name} logs under the lock of line {}",
                        function.file,
                        line(at + offset),
                        line(at)
                    ));
                }
            }
        }
    }
    complaints.sort();
    complaints.dedup();
    complaints
}

/// The names of functions that log or call one that logs. If several functions share a name, it counts only if all of them log.
fn logging(functions: &[&Function<'_>], is_innocent: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let mut logging: BTreeSet<String> = BTreeSet::new();
    loop {
        let logs = |f: &Function<'_>| calls(&f.body).any(|(_, name)| MACROS.contains(&name) || logging.contains(name));
        let (mut some, mut none) = (BTreeSet::new(), BTreeSet::new());
        for function in functions {
            if logs(function) && !is_innocent(&function.name) {
                some.insert(function.name.clone())
            } else {
                none.insert(function.name.clone())
            };
        }
        let all: BTreeSet<String> = some.difference(&none).cloned().collect();
        if all == logging {
            return logging;
        }
        logging = all;
    }
}

/// The called functions and expanded macros with their positions: `name(`, `name!`.
fn calls(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.char_indices().filter_map(move |(at, c)| {
        let is_start = is_word(c) && !text[..at].chars().next_back().is_some_and(is_word);
        if !is_start {
            return None;
        }
        let end = text[at..].find(|c| !is_word(c)).map_or(text.len(), |end| at + end);
        match text[end..].chars().next() {
            Some('(') if !text[..at].ends_with("fn ") => Some((at, &text[at..end])),
            Some('!') if text[end + 1..].starts_with('(') => Some((at, &text[at..=end])),
            _ => None,
        }
    })
}

/// The ranges in which guards are held.
fn held(body: &str, guards: &BTreeSet<&str>) -> Vec<(usize, usize)> {
    let takes = calls(body).filter(|(_, name)| *name == "lock" || guards.contains(name));
    takes.map(|(at, name)| (at, end_of_guard(body, at, at + name.len()))).collect()
}

fn end_of_guard(body: &str, at: usize, open: usize) -> usize {
    // `x.lock().await` is a lock of tokio, which does not count here.
    let taken = close(body, open);
    if body[taken..].starts_with(".await") {
        return at;
    }
    let begin = body[..at].rfind([';', '{', '}']).map_or(0, |begin| begin + 1);
    let head = body[begin..at].trim_start();
    let is_let = head.starts_with("let ");
    if is_let && body[taken..].trim_start().starts_with(';') {
        let name = head["let ".len()..].trim_start_matches("mut ");
        let name = &name[..name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len())];
        let block = end_of_block(body, taken);
        let dropped = body[taken..block].find(&format!("drop({name})")).map(|dropped| taken + dropped);
        return dropped.unwrap_or(block);
    }
    // A temporary guard lasts to the end of its statement. In the head of `if`, `match` and the like it lasts through the block.
    let keywords = ["if ", "else if ", "while ", "match ", "for "];
    let is_head = keywords.iter().any(|keyword| head.starts_with(keyword));
    let borrows = head.contains("let ") || head.starts_with("match ") || head.starts_with("for ");
    let (mut depth, mut end) = (0_i32, taken);
    for (offset, c) in body[taken..].char_indices() {
        end = taken + offset;
        match c {
            ';' | ',' if depth == 0 => return end,
            '{' if depth == 0 && is_head && !borrows => return end,
            '{' if depth == 0 && is_let && body[..end].trim_end().ends_with("else") => return end,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth -= 1;
                if depth < 0 || depth == 0 && c == '}' && is_head {
                    return end;
                }
            }
            _ => {}
        }
    }
    end
}

/// The position after the bracket that closes the one at `open`.
fn close(text: &str, open: usize) -> usize {
    let mut depth = 0;
    for (offset, c) in text[open..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    text.len()
}

/// The end of the block that contains `at`.
fn end_of_block(text: &str, at: usize) -> usize {
    let mut depth = 0;
    for (offset, c) in text[at..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return at + offset,
            '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

fn functions(file: &File) -> Vec<Function<'_>> {
    let Some(module) = file.module() else { return Vec::new() };
    let code = code(without_tests(&file.text));
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(|c| !c.is_whitespace()) {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(end) = code[at..].find(['{', ';']) else { continue };
        if name.is_empty() || code[at + end..].starts_with(';') {
            continue;
        }
        let (open, signature) = (at + end, code[at..at + end].to_owned());
        let first_line = code[..open].matches('\n').count() + 1;
        let body = code[open..close(&code, open)].to_owned();
        functions.push(Function { file: &file.path, module, name, first_line, signature, body });
    }
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, complaints: &[&str]) {
        let file = File { path: "src/a/mod.rs".to_owned(), text: text.to_owned() };
        let expected: Vec<_> = complaints.iter().map(|complaint| format!("src/a/mod.rs: {complaint}")).collect();
        assert_eq!(logs_under_locks(&[file], &[]), expected, "{text}");
    }

    #[test]
    fn a_line_under_a_guard_is_seen_however_the_guard_is_held() {
        let seen = ["line 1: warn! logs under the lock of line 1"];
        for body in [
            "let mut state = lock(&self.state); state.n += 1; warn!(n = 1, \"so many\");",
            "let state = self.state.lock().unwrap(); warn!(\"x\");",
            "if let Some(x) = lock(&self.state).get() { warn!(\"x\"); }",
            "match lock(&self.state).take() { Some(x) => warn!(\"x\"), None => {} }",
            "for x in lock(&self.state).iter() { warn!(\"x\"); }",
            "lock(&self.state).retain(|x| { warn!(\"x\"); true });",
        ] {
            // std's own `lock()` must be unwrapped, so such a guard ends with its statement.
            let expected = if body.contains("unwrap") { &[][..] } else { &seen };
            check(&format!("fn f(&self) {{ {body} }}"), expected);
        }
    }

    #[test]
    fn a_line_in_a_function_that_is_called_under_a_guard_is_seen() {
        let text = "fn state(&self) -> MutexGuard<'_, State> { lock(&self.0) }\n\
                    fn tell(&self) { info!(\"told\"); }\n\
                    fn pass_on(&self) { self.tell(); }\n\
                    fn f(&self) {\n    let state = self.state();\n    self.pass_on();\n}\n";
        check(text, &["line 6: pass_on logs under the lock of line 5"]);
    }

    #[test]
    fn a_line_behind_the_guard_is_left_alone() {
        for body in [
            "let state = lock(&self.state); drop(state); warn!(\"x\");",
            "{ let state = lock(&self.state); } warn!(\"x\");",
            "let first = lock(&self.state).pop(); warn!(\"x\");",
            "if lock(&self.state).is_empty() { warn!(\"x\"); }",
            "let Some(x) = lock(&self.state).pop() else { warn!(\"x\"); return };",
            "let turn = self.turn.lock().await; warn!(\"x\");",
            "let state = lock(&self.state); let text = \"warn!(x)\"; // warn!(\"x\")",
        ] {
            check(&format!("fn f(&self) {{ {body} }}"), &[]);
        }
    }
}
