//! Checks that files do not import each other in a circle. A circle cannot be read from one end.
//!
//! A file may import from the folder that it is in (`super::Session`), because a folder consists of its files. This does not count as an
//! import here.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{File, code, paths, sources, without_tests};
use super::tidy::TEST_ONLY;

/// Allowed circles, each as the sorted list of its files.
const KNOWN: &[&[&str]] = &[
    // An endpoint submits events together with the receiver of their answers, and an answer's requests are carried out through the
    // endpoint. They are two halves of one conversation with PHP.
    &[
        "src/session/answer/framed_body.rs",
        "src/session/answer/greet.rs",
        "src/session/answer/mod.rs",
        "src/session/answer/reply.rs",
        "src/session/cgi.rs",
        "src/session/delivery.rs",
        "src/session/endpoint.rs",
        "src/session/posts.rs",
    ],
    // The scheduler starts connections, and a connection asks the scheduler, through its lease, for its next request.
    &["src/upstream/connection.rs", "src/upstream/lease.rs", "src/upstream/probe.rs", "src/upstream/scheduler.rs"],
];

/// The path of a module, from the crate's root.
type Module = Vec<String>;

#[test]
fn no_files_import_each_other_in_a_circle() {
    let files: Vec<File> = sources().into_iter().filter(|file| !TEST_ONLY.contains(&file.path.as_str())).collect();
    let found = circles(&files);
    let known: Vec<Vec<String>> =
        KNOWN.iter().map(|circle| circle.iter().map(|path| (*path).to_owned()).collect()).collect();
    assert_eq!(found, known);
}

/// All sets of files in which each file leads to every other one, sorted.
fn circles(files: &[File]) -> Vec<Vec<String>> {
    let modules: BTreeMap<Module, &File> =
        files.iter().filter_map(|file| Some((module_of(&file.path)?, file))).collect();
    let arrows: BTreeMap<&Module, BTreeSet<&Module>> =
        modules.iter().map(|(module, file)| (module, named_by(module, &file.text, &modules))).collect();
    let reached = |from: &Module| {
        let mut seen: BTreeSet<&Module> = BTreeSet::new();
        let mut next: Vec<&Module> = arrows[from].iter().copied().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module) {
                next.extend(arrows[module].iter().copied());
            }
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        modules.keys().map(|module| (module, reached(module))).collect();
    let mut circles = BTreeSet::new();
    for (module, others) in &reached {
        let mut circle: Vec<String> = others
            .iter()
            .filter(|other| reached[*other].contains(module))
            .map(|other| modules[*other].path.clone())
            .collect();
        circle.sort();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`. The roots of the library and the program give `None`.
fn module_of(path: &str) -> Option<Module> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    (!["lib", "main"].contains(&path)).then(|| path.split('/').map(str::to_owned).collect())
}

/// The modules that a file imports from, without those that contain it.
fn named_by<'m>(module: &Module, text: &str, modules: &'m BTreeMap<Module, &File>) -> BTreeSet<&'m Module> {
    let code = code(without_tests(text));
    let mut named = BTreeSet::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            for path in paths(&code[at..]) {
                let Some(path) = from_the_root(module, &path) else { continue };
                let longest = (1..=path.len()).rev().find_map(|length| modules.get_key_value(&path[..length].to_vec()));
                let Some((target, _)) = longest else { continue };
                if !module.starts_with(target) {
                    named.insert(target);
                }
            }
        }
    }
    named
}

/// A path used in this module, resolved from the crate's root.
fn from_the_root(module: &Module, path: &[String]) -> Option<Module> {
    let mut from = module.clone();
    let mut rest = path;
    while let [first, behind @ ..] = rest {
        match first.as_str() {
            "crate" => from.clear(),
            "self" => {}
            "super" => drop(from.pop()?),
            _ => break,
        }
        rest = behind;
    }
    from.extend(rest.iter().cloned());
    Some(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> Vec<File> {
        texts.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() }).collect()
    }

    #[test]
    fn circles_are_seen_however_long_and_however_they_are_written() {
        let two = files(&[("src/a/b.rs", "use super::c::C;"), ("src/a/c.rs", "fn f(b: crate::a::b::B) {}")]);
        assert_eq!(circles(&two), [["src/a/b.rs", "src/a/c.rs"]]);
        let three = files(&[
            ("src/a/mod.rs", "mod x;"),
            ("src/a/x.rs", "use crate::{\n    other, b::{self, Y}};"),
            ("src/b/mod.rs", "use self::c::Z;"),
            ("src/b/c.rs", "pub use super::super::a::x::{X as Q};"),
        ]);
        assert_eq!(circles(&three), [["src/a/x.rs", "src/b/c.rs", "src/b/mod.rs"]]);
    }

    #[test]
    fn folders_comments_and_tests_make_no_circle() {
        let none = files(&[
            ("src/a/mod.rs", "mod b;\nuse self::b::B;"),
            (
                "src/a/b.rs",
                "use super::A; // use super::c::C;\n\n#[cfg(test)]\nmod tests {\n    use crate::a::c::C;\n}",
            ),
            ("src/a/c.rs", "use super::b::B;"),
        ]);
        assert_eq!(circles(&none), Vec::<Vec<String>>::new());
    }
}
