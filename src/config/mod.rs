//! Configuration: as the operator wrote it, then as the node uses it.
//!
//! ```text
//! file --toml--> tree --schema, value--> written --resolve--> model
//! ```
//!
//! - `schema` reads the tree by one description of every key. `written` is that description, in the form of `config_table`. `value`,
//!   `address`, `network`, `origins`, `account`, `framing_value` and `compound` are the types of single values. `aliases` has words
//!   that people know from other systems.
//! - `resolve` (a file for each table) turns it into [`model`]: references, paths, names,
//!   secrets, and the rules that span several keys.
//! - `problem` collects every error, with file, line, key, value and rule.
//! - [`php_fpm`] finds the binary for an embedded pool.
//! - [`document`] prints the description, for `longwire defaults` and README.md.
//!
//! The result is either a [`model::Config`] that is complete and consistent, or every error at once. Nothing stays open and nothing
//! is started. Whether ports are free and backends answer is left to `longwire check` and the node.

mod account;
mod address;
mod aliases;
mod compound;
mod config_table;
pub mod document;
pub mod engine_url;
pub mod find;
mod framing_value;
mod item;
pub mod model;
mod network;
mod origins;
pub mod php_fpm;
mod problem;
mod resolve;
mod schema;
mod secret;
pub(crate) mod value;
mod written;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use toml::de::DeTable;

use self::model::{Bind, Config};
use self::problem::Report;
pub use self::problem::{Errors, Problem, Warning};

use self::schema::{Section, Table};
pub use self::secret::Secret;
use self::written::Written;

/// Longest configuration that is read; a larger file is not one of ours.
const MAX_FILE_BYTES: u64 = 16 << 20;

impl Config {
    /// Reads a file. Relative paths in it start from its folder.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the file.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), Errors> {
        let text = read(path).map_err(|error| Errors::unreadable(path, &error))?;
        Self::parse(&text, path)
    }

    /// Reads a text as if it were the content of `path`, which need not exist.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the text.
    pub fn parse(text: &str, path: &Path) -> Result<(Self, Vec<Warning>), Errors> {
        resolved(text, path, resolve::resolve)
    }

    /// Reads a file, and returns only where its admin listener is, if it is on. No secret is read: a program that asks a running node
    /// has neither its environment nor its rights.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is not TOML, or has a key or a value that is wrong by itself.
    pub fn admin_of(path: &Path) -> Result<Option<Bind>, Errors> {
        let text = read(path).map_err(|error| Errors::unreadable(path, &error))?;
        resolved(&text, path, resolve::resolve_admin).map(|(admin, _warnings)| admin)
    }
}

/// What `resolve` makes of a text that was written at `path`.
fn resolved<T>(
    text: &str,
    path: &Path,
    resolve: impl FnOnce(&Written, &Path, &mut Report<'_>) -> Option<T>,
) -> Result<(T, Vec<Warning>), Errors> {
    let mut report = Report::new(path, text);
    let (tree, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        // Errors in the recovered rest would only be consequences of these.
        syntax_errors.iter().for_each(|error| report.syntax(error));
        return Err(report.finish().expect_err("syntax errors were reported"));
    }
    let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = file.parent().unwrap_or(&file);
    let written = Written::read(&Section::root(tree.get_ref(), Written::KEYS), &mut report);
    let result = resolve(&written, base, &mut report);
    let warnings = report.finish()?;
    Ok((result.expect("a part that is missing was reported"), warnings))
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(bytes) if bytes as u64 > MAX_FILE_BYTES => Err(format!("is larger than {MAX_FILE_BYTES} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
