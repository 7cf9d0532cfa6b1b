//! What the compiler does not see to: who may name whom, what `proto` keeps out, how long a file grows, what `Cargo.lock` must not have.
//!
//! Each rule is a function from a file to its complaints, and each has a case that shows it complaining.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from left to right: one names modules of its own step and of those before it, never of those behind it.
const STEPS: &[&[&str]] = &[
    &["proto"],
    &["locks"],
    &["metrics"],
    &["descriptors", "memory", "holders", "sockets"],
    &["certificates"],
    &["config"],
    &["transport"],
    &["lua"],
    &["outbox"],
    &["engine", "upstream"],
    &["router"],
    &["cluster"],
    &["session"],
    &["router_port"],
    &["http"],
    &["api"],
    &["listener"],
    &["node"],
    &["serve"],
    &["logging"],
    &["commands"],
    &["main"],
];

/// Modules that name fewer others than their step allows.
const ONLY: &[(&str, &[&str])] = &[("logging", &["config", "locks", "metrics"])];

/// What `proto` is free of: no runtime, no sockets, no clock, no locks, no logging.
const NOT_IN_PROTO: &[&str] = &[
    "tokio",
    "std::net",
    "std::fs",
    "std::thread",
    "Instant",
    "SystemTime",
    "Mutex",
    "RwLock",
    "tracing",
    "println",
    "eprintln",
];

/// Lines of a file, tests excluded, above which it is cut in two or stands in [`LONG`] with a reason.
const MAX_LINES: usize = 500;
const LONG: &[(&str, &str)] = &[
    ("src/config/model.rs", "a table: every type that a configuration has in the end"),
    ("src/config/written.rs", "a table: every key with its default and its documentation"),
];

/// Files that are compiled for tests only, as a whole.
pub const TEST_ONLY: &[&str] = &[
    "src/cluster/simulation.rs",
    "src/outbox/faults.rs",
    "src/session/simulation/client.rs",
    "src/session/simulation/mod.rs",
    "src/session/simulation/php.rs",
];

/// Files that may name a home folder.
const MADE_UP_HOMES: &[(&str, &str)] = &[("tests/it/commands/check.rs", "sets one that must not be printed")];

/// Text files that people write.
const TEXT: &[&str] = &["rs", "toml", "md", "php", "html", "sh", "yaml", "yml", "py", "txt", "json", ""];

#[test]
fn modules_name_only_modules_to_their_left() {
    complain_about(&sources(), direction);
}

#[test]
fn proto_is_bytes_only() {
    complain_about(&sources(), purity);
}

#[test]
fn numbers_between_nodes_say_which_run_gave_them() {
    complain_about(&sources(), bare_numbers);
}

#[test]
fn files_stay_readable_and_finished() {
    complain_about(&sources(), length);
    complain_about(&sources(), unfinished);
}

#[test]
fn log_fields_are_for_people() {
    complain_about(&sources(), debug_fields);
}

#[test]
fn output_that_nobody_takes_is_no_panic() {
    complain_about(&sources(), prints);
}

#[test]
fn no_lock_hands_on_a_panic() {
    complain_about(&sources(), poisons);
}

#[test]
fn sockets_are_made_in_one_place() {
    complain_about(&sources(), sockets);
}

#[test]
fn rustls_has_one_provider() {
    let path = "Cargo.lock".to_owned();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).expect("it is in the repository");
    assert_eq!(providers(&File { path, text }), Vec::<String>::new());
}

#[test]
fn nothing_points_to_a_developers_machine() {
    complain_about(&everything(), foreign_paths);
}

/// A file: where it is below the crate's folder, with `/`, and what it says.
pub struct File {
    pub path: String,
    pub text: String,
}

fn complain_about(files: &[File], rule: fn(&File) -> Vec<String>) {
    assert!(files.len() > 20, "only {} files were found", files.len());
    let complaints: Vec<_> =
        files.iter().flat_map(|file| rule(file).into_iter().map(|what| format!("{}: {what}", file.path))).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn direction(file: &File) -> Vec<String> {
    let Some(module) = file.module() else { return Vec::new() };
    let Some(step) = step_of(module) else { return vec![format!("module {module} has no place in the order")] };
    let only = ONLY.iter().find(|(name, _)| *name == module).map(|(_, only)| *only);
    let mut complaints = Vec::new();
    for (line, name) in crate_names(&code(&file.text), file.is_at_the_top()) {
        // What lies in the crate's root itself (a macro) is everybody's.
        let Some(named) = step_of(&name) else { continue };
        if named > step || only.is_some_and(|only| name != module && !only.contains(&name.as_str())) {
            complaints.push(format!("line {line}: {module} names {name}"));
        }
    }
    complaints
}

fn step_of(module: &str) -> Option<usize> {
    STEPS.iter().position(|step| step.contains(&module))
}

/// The modules of the crate's root that code names, with their lines.
fn crate_names(code: &str, at_the_top: bool) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for root in ["crate::", "super::super::", "\nuse super::"] {
        if root.starts_with('\n') && !at_the_top {
            continue;
        }
        for (at, _) in code.match_indices(root) {
            let boundary = code[..at].chars().next_back();
            if boundary.is_some_and(|c| c.is_alphanumeric() || c == '_' || (root != "crate::" && c == ':')) {
                continue;
            }
            let line = code[..at + root.len()].matches('\n').count() + 1;
            for name in first_segments(&code[at + root.len()..]) {
                names.push((line, name));
            }
        }
    }
    names.sort();
    names
}

/// `a::b` names `a`; `{a::b, c, d::{e, f}}` names `a`, `c` and `d`.
fn first_segments(path: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(word(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn purity(file: &File) -> Vec<String> {
    if file.module() != Some("proto") {
        return Vec::new();
    }
    // Its tests may: the interop peers of the codecs need a runtime.
    let code = code(without_tests(&file.text));
    NOT_IN_PROTO.iter().filter(|word| names_word(&code, word)).map(|word| format!("proto names {word}")).collect()
}

/// A run and a request are types, so that numbers of two runs cannot be taken for each other; only the wire has their bits.
fn bare_numbers(file: &File) -> Vec<String> {
    let is_wire = ["src/proto/envelope.rs", "src/proto/presence.rs"].contains(&file.path.as_str());
    let is_among_nodes = file.module() == Some("cluster");
    if !is_wire && !is_among_nodes {
        return Vec::new();
    }
    let code = code(without_tests(&file.text));
    let lines = code.lines().enumerate().filter_map(|(at, line)| {
        let is_bare = ["run", "request"]
            .iter()
            .any(|word| ["u64", "Option<u64>"].iter().any(|of| names_word(line, &format!("{word}: {of}"))));
        let unwraps = is_among_nodes && file.path != "src/cluster/simulation.rs" && line.contains(".bits()");
        (is_bare || unwraps).then(|| format!("line {}: a bare number where a Run or a RequestId belongs", at + 1))
    });
    lines.collect()
}

fn names_word(code: &str, word: &str) -> bool {
    let is_inside = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(is_inside)
            && !code[at + word.len()..].chars().next().is_some_and(is_inside)
    })
}

fn length(file: &File) -> Vec<String> {
    let lines = without_tests(&file.text).lines().count();
    let is_test = file.path.ends_with("/tests.rs") || TEST_ONLY.contains(&file.path.as_str());
    let allowed = LONG.iter().any(|(path, _)| *path == file.path) || is_test;
    if lines > MAX_LINES && !allowed { vec![format!("{lines} lines")] } else { Vec::new() }
}

fn unfinished(file: &File) -> Vec<String> {
    let code = code(&file.text);
    ["todo!", "unimplemented!"]
        .iter()
        .filter(|word| code.contains(**word))
        .map(|word| format!("has a {word}"))
        .collect()
}

/// Ways to a TCP socket that does not send at once, and where the right ones are.
const SOCKETS: &[(&str, &str)] = &[
    ("TcpStream::connect", "src/sockets.rs"),
    ("TcpListener::bind", "src/sockets.rs"),
    ("TcpSocket", "src/sockets.rs"),
    // redis-rs makes its own, and has to be told.
    ("into_connection_info", "src/config/engine_url.rs"),
];

/// A TCP socket that others than `src/sockets.rs` make. (A Unix socket has nothing to hold back.)
fn sockets(file: &File) -> Vec<String> {
    let text = code(without_tests(&file.text));
    let ways = SOCKETS.iter().filter(|(_, home)| file.path != *home);
    let mut complaints: Vec<_> =
        ways.filter(|(way, _)| names_word(&text, way)).map(|(way, home)| format!("names {way}: {home} does")).collect();
    let makes = |at: usize| !text[at..].starts_with("Socket::new(Domain::UNIX");
    if file.path != "src/sockets.rs" && text.match_indices("Socket::new(").any(|(at, _)| makes(at)) {
        complaints.push("makes a socket: src/sockets.rs does".to_owned());
    }
    complaints
}

/// A field that is recorded with `?`, or a text with `{:?}`, shows Rust's own syntax: `Some("x")`, the name of a variant, `1.5s`.
fn debug_fields(file: &File) -> Vec<String> {
    let text = without_tests(&file.text);
    let calls = ["trace!(", "debug!(", "info!(", "warn!(", "error!("].iter().flat_map(|call| text.match_indices(call));
    let shows_debug = |call: &str| {
        let fields = code(call);
        let marked = fields.match_indices('?').any(|(at, _)| fields[..at].trim_end().ends_with(['(', ',', '=']));
        marked || call.contains(":?}")
    };
    calls
        .filter(|(at, call)| shows_debug(in_brackets(&text[at + call.len() - 1..])))
        .map(|(at, _)| format!("line {}: a log field in Rust's debug syntax", text[..at].matches('\n').count() + 1))
        .collect()
}

/// std's macros panic where nobody takes what they print, and wait for whoever should.
fn prints(file: &File) -> Vec<String> {
    if TEST_ONLY.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let code = code(without_tests(&file.text));
    let names = ["println!", "print!", "eprintln!", "eprint!"].into_iter().filter(|name| {
        code.match_indices(name).any(|(at, _)| !code[..at].chars().next_back().is_some_and(char::is_alphanumeric))
    });
    names.map(|name| format!("has {name}, which panics on a closed pipe: tracing, or logging::tell")).collect()
}

/// See `src/locks.rs`.
fn poisons(file: &File) -> Vec<String> {
    if file.path == "src/locks.rs" || TEST_ONLY.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let code: String = code(without_tests(&file.text)).split_whitespace().collect();
    let ways = [".lock().expect(", ".lock().unwrap", ".lock().map_err("].into_iter().filter(|way| code.contains(way));
    ways.map(|way| format!("has {way}: take locks by locks::lock")).collect()
}

/// From an opening bracket to the one that closes it.
fn in_brackets(text: &str) -> &str {
    let (mut at, mut depth) = (0, 0);
    while let Some(next) = text[at..].chars().next() {
        match next {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        at += if next == '"' { string(&text[at..]) } else { next.len_utf8() };
        if depth == 0 {
            break;
        }
    }
    &text[..at]
}

/// async-nats takes rustls's provider of cryptography from the features that were compiled in, and that panics where there are two.
fn providers(file: &File) -> Vec<String> {
    let names = file.text.lines().filter_map(|line| line.strip_prefix("name = ")).map(|name| name.trim_matches('"'));
    names.filter(|name| *name == "aws-lc-rs").map(|name| format!("has {name} beside ring")).collect()
}

fn foreign_paths(file: &File) -> Vec<String> {
    if MADE_UP_HOMES.iter().any(|(path, _)| *path == file.path) {
        return Vec::new();
    }
    let here = env!("CARGO_MANIFEST_DIR");
    // Written in two parts, so that this file does not accuse itself.
    let mut homes = vec![concat!("/ho", "me/"), concat!("/Use", "rs/"), concat!("/ro", "ot/")];
    if Path::new(here).components().count() > 2 {
        homes.push(here);
    }
    homes.iter().filter(|home| file.text.contains(**home)).map(|home| format!("has the path {home}")).collect()
}

/// What stands before the module of unit tests, which ends a file.
pub fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// Code without comments, and without what stands in strings; lines stay where they are.
pub fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest).filter(|_| !code.ends_with(|c: char| c.is_alphanumeric())) {
            length
        } else if first == '"' {
            string(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") || rest.starts_with("'\\'") {
            rest[1..].find('\'').map_or(1, |end| end + 2)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        rest = &rest[skipped..];
    }
    code
}

/// Bytes of a string literal, its quotes included.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Bytes of a raw string literal, if one begins here.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?.chars().take_while(|c| *c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    body.find(&end).map(|at| 2 + hashes + at + end.len())
}

impl File {
    /// The top-level module that a source file belongs to; the crate's root belongs to none.
    pub fn module(&self) -> Option<&str> {
        let path = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let module = path.split('/').next()?;
        (module != "lib").then_some(module)
    }

    /// Whether `super` is the crate's root there.
    fn is_at_the_top(&self) -> bool {
        self.path.matches('/').count() == 1 || self.path.ends_with("/mod.rs") && self.path.matches('/').count() == 2
    }
}

pub fn sources() -> Vec<File> {
    let mut files = everything();
    files.retain(|file| file.path.starts_with("src/") && file.path.ends_with(".rs"));
    files
}

/// Every text file of the repository.
fn everything() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    walk(root, &mut files);
    files
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            let below = path.strip_prefix(root).expect("walked from there").to_str()?.to_owned();
            Some(File { path: below, text })
        })
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("it can be read").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_ours = !name.to_string_lossy().starts_with('.') && name != "target" && name != "Cargo.lock";
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        if is_ours && path.is_dir() {
            walk(&path, files);
        } else if is_ours && TEXT.contains(&extension) {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: fn(&File) -> Vec<String>, path: &str, text: &str, complaints: &[&str]) {
        assert_eq!(rule(&File { path: path.to_owned(), text: text.to_owned() }), complaints, "{path}\n{text}");
    }

    #[test]
    fn direction_sees_every_way_to_name_a_module() {
        let names_node = |line| format!("line {line}: session names node");
        for (text, line) in [
            ("use crate::node::Running;", 1),
            ("\n\nfn f() { let x = crate::node::start(); }", 3),
            ("pub use crate::node;", 1),
            ("use crate::{proto::id, node::{a, b}};", 1),
            ("use crate::{\n    proto,\n    node,\n};", 1),
            ("/* crate::http */ use\n crate::node;", 2),
            ("const Q: char = '\"'; use crate::node; const R: &str = \"\";", 1),
        ] {
            check(direction, "src/session/mod.rs", text, &[&names_node(line)]);
        }
        check(direction, "src/session/mod.rs", "\nuse super::node;", &[&names_node(2)]);
        check(direction, "src/session/answer/head.rs", "use super::super::node;", &[&names_node(1)]);
        check(direction, "src/brandnew.rs", "", &["module brandnew has no place in the order"]);
        check(direction, "src/logging.rs", "use crate::node;", &["line 1: logging names node"]);
        check(direction, "src/logging.rs", "use crate::proto;", &["line 1: logging names proto"]);
    }

    #[test]
    fn sockets_of_tcp_are_seen_and_those_of_unix_are_left_alone() {
        let made = "makes a socket: src/sockets.rs does";
        for (path, text, complaints) in [
            (
                "src/commands/connect/dial.rs",
                "let a = TcpStream::connect(b).await;",
                &["names TcpStream::connect: src/sockets.rs does"][..],
            ),
            ("src/commands/check.rs", "Socket::new(Domain::for_address(a), Type::STREAM, None)", &[made]),
            (
                "src/engine/mod.rs",
                "url.into_connection_info()",
                &["names into_connection_info: src/config/engine_url.rs does"],
            ),
            ("src/sockets.rs", "TcpStream::connect(b); Socket::new(Domain::IPV4, Type::STREAM, None)", &[]),
            ("src/commands/check.rs", "Socket::new(Domain::UNIX, Type::STREAM, None); UnixStream::connect(path)", &[]),
            ("src/commands/check.rs", "\n#[cfg(test)]\nmod tests {\nTcpStream::connect(a)", &[]),
        ] {
            check(sockets, path, text, complaints);
        }
    }

    #[test]
    fn direction_leaves_alone_what_is_no_name_or_lies_to_the_left() {
        for text in [
            "use crate::{proto::id, config::{self, model}};",
            "// crate::node\n/// [`crate::node::Running`]",
            "const TEXT: &str = \"crate::node\"; const RAW: &str = r#\"\"crate::node\"#;",
            "\nuse super::node; // of this folder",
            "use mycrate::node;",
            "use crate::node_names::x;",
        ] {
            check(direction, "src/session/answer/head.rs", text, &[]);
        }
        check(direction, "src/lib.rs", "pub use crate::node;", &[]);
        check(direction, "src/http/admin.rs", "use crate::transport::listening::Listening;", &[]);
        check(direction, "src/listener.rs", "use crate::http;", &[]);
        check(direction, "src/logging.rs", "use crate::config;", &[]);
    }

    #[test]
    fn purity_sees_a_clock_in_proto_and_nowhere_else() {
        check(purity, "src/proto/id.rs", "use std::time::Instant;", &["proto names Instant"]);
        check(
            purity,
            "src/proto/id.rs",
            "use tokio::io;\nuse std::net::IpAddr;",
            &["proto names tokio", "proto names std::net"],
        );
        check(purity, "src/proto/id.rs", "tracing::debug!()", &["proto names tracing"]);
        check(purity, "src/proto/id.rs", "// no tokio\nstruct InstantReply;", &[]);
        check(purity, "src/proto/id.rs", "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use tokio::io;\n}", &[]);
        check(purity, "src/outbox.rs", "use tokio::io;", &[]);
    }

    #[test]
    fn bare_numbers_are_seen_between_nodes_and_nowhere_else() {
        let complaint = |line: usize| format!("line {line}: a bare number where a Run or a RequestId belongs");
        for (path, text, line) in [
            ("src/cluster/requests.rs", "fn f(request: u64) {}", 1),
            ("src/cluster/requests.rs", "\nstruct A {\n    request: Option<u64>,\n}", 3),
            ("src/proto/envelope.rs", "struct Sender { run: u64 }", 1),
            ("src/cluster/net.rs", "fn f(a: Run, b: Run) -> bool { a.bits() == b.bits() }", 1),
        ] {
            check(bare_numbers, path, text, &[&complaint(line)]);
        }
        for (path, text) in [
            ("src/proto/control/long/answer.rs", "struct A { request: u64 }"),
            ("src/proto/envelope.rs", "fn f(run: Run, out: &mut BytesMut) { out.put_u64(run.bits()) }"),
            ("src/cluster/net.rs", "fn f(run: Run, overrun: u64) {}"),
            ("src/cluster/net.rs", "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn f(run: u64) {}\n}"),
        ] {
            check(bare_numbers, path, text, &[]);
        }
    }

    #[test]
    fn length_counts_code_and_not_tests() {
        check(length, "src/a.rs", &"x\n".repeat(501), &["501 lines"]);
        check(length, "src/a.rs", &"x\n".repeat(500), &[]);
        let mostly_tests = format!("x\n\n#[cfg(test)]\nmod tests {{\n{}}}\n", "x\n".repeat(900));
        check(length, "src/a.rs", &mostly_tests, &[]);
    }

    #[test]
    fn unfinished_code_is_seen_and_talk_about_it_is_not() {
        check(unfinished, "src/a.rs", "fn f() { todo!() }", &["has a todo!"]);
        check(unfinished, "src/a.rs", "unimplemented!(\"later\")", &["has a unimplemented!"]);
        check(unfinished, "src/a.rs", "// todo!\nconst T: &str = \"todo!\";", &[]);
    }

    #[test]
    fn log_fields_in_debug_syntax_are_seen_and_the_question_mark_of_errors_is_not() {
        let seen = ["line 1: a log field in Rust's debug syntax"];
        for text in [
            "info!(origin = ?origin, \"refused\");",
            "debug!(?subject, \"text\")",
            "warn!(\n    %peer,\n    ?wait,\n);",
            "error!(\"took {took:?}\")",
        ] {
            check(debug_fields, "src/a.rs", text, &seen);
        }
        for text in ["info!(size = size()?, \"done, really? = ?yes\");", "let x = f(a)?; g(?x)", "format!(\"{x:?}\")"] {
            check(debug_fields, "src/a.rs", text, &[]);
        }
    }

    #[test]
    fn output_by_macros_that_panic_is_seen() {
        let text = "fn f() { eprintln!(\"x\") }";
        check(prints, "src/a.rs", text, &["has eprintln!, which panics on a closed pipe: tracing, or logging::tell"]);
        let text = "fn f() { print!(\"x\") }";
        check(prints, "src/a.rs", text, &["has print!, which panics on a closed pipe: tracing, or logging::tell"]);
        check(prints, "src/a.rs", "// println!\nfn f() { writeln!(out, \"println!\") }", &[]);
    }

    #[test]
    fn locks_that_hand_on_a_panic_are_seen() {
        let seen = ["has .lock().expect(: take locks by locks::lock"];
        check(poisons, "src/a.rs", "let x = self.x.lock().expect(\"nobody\");", &seen);
        check(poisons, "src/a.rs", "let x = self.x\n    .lock()\n    .expect(\"nobody\");", &seen);
        check(poisons, "src/a.rs", "let x = x.lock().unwrap();", &["has .lock().unwrap: take locks by locks::lock"]);
        check(poisons, "src/a.rs", "let x = lock(&self.x); let y = self.y.lock().await;", &[]);
    }

    #[test]
    fn a_second_provider_is_seen() {
        let package = |name| format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n");
        check(
            providers,
            "Cargo.lock",
            &[package("ring"), package("aws-lc-rs")].concat(),
            &["has aws-lc-rs beside ring"],
        );
        check(providers, "Cargo.lock", &package("ring"), &[]);
    }

    #[test]
    fn foreign_paths_are_seen_in_any_text() {
        let home = concat!("/ho", "me/");
        check(foreign_paths, "README.md", &format!("see {home}ada/notes"), &[&format!("has the path {home}")]);
        let here = env!("CARGO_MANIFEST_DIR");
        if Path::new(here).components().count() > 2 && !here.contains(home) {
            check(foreign_paths, "README.md", &format!("see {here}/src"), &[&format!("has the path {here}")]);
        }
        check(foreign_paths, "README.md", "see /var/www/shop and php-examples/echo", &[]);
    }
}
