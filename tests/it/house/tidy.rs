//! Rules that neither compiler nor clippy checks: which modules may use which others, what `proto` must not use, the length of files.
//!
//! Each rule is a function from a file to its complaints, and each has a test in which it complains.

use std::path::Path;

use super::source::{File, code, everything, paths, sources, string, without_tests};

/// The modules in order. A module may use modules of its own step and of earlier steps, never of later ones.
const STEPS: &[&[&str]] = &[
    &["proto"],
    &["locks"],
    &["metrics"],
    &["descriptors", "memory", "holders", "sockets", "service_manager", "static_glibc"],
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

/// Modules that may use fewer others than their step allows.
const ONLY: &[(&str, &[&str])] = &[("logging", &["config", "locks", "metrics"])];

/// Names that `proto` must not use: no runtime, no sockets, no clock, no locks, no logging.
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

/// Maximum lines of a file without its tests. A longer file must be split, or be listed in [`LONG`] with a reason.
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
fn files_stay_readable() {
    complain_about(&sources(), length);
}

#[test]
fn log_fields_are_for_people() {
    complain_about(&sources(), debug_fields);
}

#[test]
fn nothing_points_to_a_developers_machine() {
    complain_about(&everything(), foreign_paths);
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
        // Items in the crate's root itself (macros) may be used by all.
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
            let firsts = paths(&code[at + root.len()..]).into_iter().filter_map(|path| path.into_iter().next());
            names.extend(firsts.map(|name| (line, name)));
        }
    }
    names.sort();
    names.dedup();
    names
}

fn purity(file: &File) -> Vec<String> {
    if file.module() != Some("proto") {
        return Vec::new();
    }
    // Tests of `proto` may use them, because the interop peers of the codecs need a runtime.
    let code = code(without_tests(&file.text));
    NOT_IN_PROTO.iter().filter(|word| names_word(&code, word)).map(|word| format!("proto names {word}")).collect()
}

/// Runs and requests have types of their own, so that their numbers cannot be mixed up. Only the code for the wire may use the bare
/// numbers.
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

/// Finds log fields recorded with `?`, and texts with `{:?}`. Both show Rust's own syntax: `Some("x")`, the name of a variant, `1.5s`.
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

fn foreign_paths(file: &File) -> Vec<String> {
    if MADE_UP_HOMES.iter().any(|(path, _)| *path == file.path) {
        return Vec::new();
    }
    let here = env!("CARGO_MANIFEST_DIR");
    // Written in two parts, so that this file does not complain about itself.
    let mut homes = vec![concat!("/ho", "me/"), concat!("/Use", "rs/"), concat!("/ro", "ot/")];
    if Path::new(here).components().count() > 2 {
        homes.push(here);
    }
    homes.iter().filter(|home| file.text.contains(**home)).map(|home| format!("has the path {home}")).collect()
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
