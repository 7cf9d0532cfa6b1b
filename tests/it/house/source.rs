//! The text of the repository as the rules of this folder read it: files, code without comments and strings, paths in `use`.

use std::fs;
use std::path::{Path, PathBuf};

/// Extensions of text files that are written by hand.
const TEXT: &[&str] = &["rs", "toml", "md", "php", "html", "sh", "yaml", "yml", "py", "txt", "json", ""];

/// A file: its path below the crate's folder, with `/`, and its text.
pub struct File {
    pub path: String,
    pub text: String,
}

/// The text before the module of unit tests, which is at the end of a file.
pub fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// The code without comments and without the contents of strings. Lines keep their numbers.
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
pub fn string(text: &str) -> usize {
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
    pub fn is_at_the_top(&self) -> bool {
        self.path.matches('/').count() == 1 || self.path.ends_with("/mod.rs") && self.path.matches('/').count() == 2
    }
}

/// Every Rust file below `src/`.
pub fn sources() -> Vec<File> {
    let mut files = everything();
    files.retain(|file| file.path.starts_with("src/") && file.path.ends_with(".rs"));
    files
}

/// Every text file of the repository.
pub fn everything() -> Vec<File> {
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

/// The paths that begin here, from an import: `a::{b, c::{d, e}}` gives `a::b`, `a::c::d` and `a::c::e`.
pub fn paths(text: &str) -> Vec<Vec<String>> {
    let mut rest = text;
    tree(&mut rest)
}

fn tree(rest: &mut &str) -> Vec<Vec<String>> {
    let mut path = Vec::new();
    loop {
        *rest = rest.trim_start();
        if let Some(group) = rest.strip_prefix('{') {
            *rest = group;
            return branches(rest, &path);
        }
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if length == 0 {
            break;
        }
        path.push(rest[..length].to_owned());
        *rest = &rest[length..];
        let Some(behind) = rest.strip_prefix("::") else { break };
        *rest = behind;
    }
    vec![path]
}

/// The paths of a group in braces, each behind the path that the group belongs to.
fn branches(rest: &mut &str, before: &[String]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    while !rest.trim_start().starts_with('}') && !rest.is_empty() {
        for branch in tree(rest) {
            all.push(before.iter().cloned().chain(branch).collect());
        }
        // A rename or a comma.
        let end = rest.find([',', '}']).unwrap_or(rest.len());
        *rest = rest[end..].strip_prefix(',').unwrap_or(&rest[end..]);
    }
    *rest = rest.trim_start().strip_prefix('}').unwrap_or(rest);
    all
}
