//! Prints the description of every key: as commented TOML for `longwire defaults`, as tables for README.md.
//!
//! Both come from the declarations that read the file, so they always match the program.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::schema::{Default, Key, KeyKind, Table};
use super::written::Written;

/// Longest line of a comment.
const COLUMNS: usize = 100;

/// One named table of `longwire defaults`. Keys of listeners depend on protocol and framing, those of upstreams on where PHP runs,
/// so no single table could show all keys. Later examples show only keys that earlier ones have not shown.
struct Example {
    table: &'static str,
    name: &'static str,
    about: &'static str,
    /// Keys whose example differs from the declared one.
    set: &'static [(&'static str, &'static str)],
    /// Keys that another example shows.
    leave: &'static [&'static str],
}

const EXAMPLES: &[Example] = &[
    Example {
        table: "listeners",
        name: "stream",
        about: "Frames with a length prefix, over TCP.",
        set: &[],
        leave: &["socket"],
    },
    Example {
        table: "listeners",
        name: "lines",
        about: "Frames that end with a delimiter.",
        set: &[("bind", "\"unix:/run/longwire/lines.sock\""), ("type", "\"delimiter\"")],
        leave: &[],
    },
    Example {
        table: "listeners",
        name: "serial",
        about: "Frames that end with silence, as on a serial line.",
        set: &[("bind", "\"127.0.0.1:9008\""), ("type", "\"gap\"")],
        leave: &[],
    },
    Example {
        table: "listeners",
        name: "device",
        about: "Frames that your own script cuts.",
        set: &[("bind", "\"127.0.0.1:9007\""), ("type", "\"lua\"")],
        leave: &[],
    },
    Example {
        table: "listeners",
        name: "web",
        about: "WebSocket.",
        set: &[("bind", "\"127.0.0.1:8080\""), ("protocol", "\"http\"")],
        leave: &[],
    },
    Example { table: "apps", name: "chat", about: "", set: &[], leave: &[] },
    Example {
        table: "upstreams",
        name: "php",
        about: "A php-fpm that is already running.",
        set: &[],
        leave: &["spawn"],
    },
    Example {
        table: "upstreams",
        name: "own",
        about: "A php-fpm that longwire starts.",
        set: &[],
        leave: &["backends"],
    },
];

/// For tables whose name is fixed: by default they listen on TCP, so they have no socket file.
const ON_TCP: Example = Example { table: "", name: "", about: "", set: &[], leave: &["socket"] };

/// Every key with its default and its meaning, as a TOML file that is all comments. Prose begins with `# `,
/// lines that can be uncommented begin with `#` alone.
pub fn defaults() -> String {
    let mut page = Page { text: String::new(), shown: HashSet::new() };
    page.prose("Longwire's configuration: every key with its default and its meaning.");
    page.prose("Lines that begin with \"#\" and no space can be uncommented and changed. Tables under [listeners], [apps] and [upstreams] may be repeated, under names of your choice.");
    for key in Written::KEYS {
        page.text.push('\n');
        page.prose(&key.meaning());
        match (key.kind)() {
            KeyKind::Table(keys) => page.table(key.name, keys, Some(&ON_TCP)),
            KeyKind::Named(keys) => {
                for example in EXAMPLES.iter().filter(|example| example.table == key.name) {
                    page.text.push('\n');
                    page.prose(example.about);
                    page.table(&format!("{}.{}", key.name, example.name), keys, Some(example));
                }
            }
            KeyKind::Value(_) | KeyKind::OptionalTable(_) => unreachable!("the root has tables only"),
        }
    }
    page.text
}

struct Page {
    text: String,
    /// Keys that an example has shown, by the declaration of their table.
    shown: HashSet<(*const Key, &'static str)>,
}

impl Page {
    fn prose(&mut self, text: &str) {
        let mut line = String::from("#");
        for word in text.split_whitespace() {
            if line.len() + word.len() >= COLUMNS {
                self.text += &line;
                self.text.push('\n');
                line = String::from("#");
            }
            line.push(' ');
            line += word;
        }
        if line.len() > 1 {
            self.text += &line;
            self.text.push('\n');
        }
    }

    fn table(&mut self, path: &str, keys: &'static [Key], example: Option<&Example>) {
        let _infallible = writeln!(self.text, "#[{path}]");
        let (values, tables): (Vec<&Key>, Vec<&Key>) = keys
            .iter()
            .filter(|key| applies(key, keys, example))
            .partition(|key| matches!((key.kind)(), KeyKind::Value(_)));
        for key in values {
            let set = example.and_then(|example| set(example, key.name));
            let news = self.shown.insert((keys.as_ptr(), key.name));
            let (value, note) = match key.default {
                Default::Is(text) => (set.unwrap_or(text), String::new()),
                Default::Required(text) => (set.unwrap_or(text), " Required.".into()),
                Default::Absent { then, example } => (set.unwrap_or(example), format!(" Left out: {then}.")),
                Default::Table => unreachable!("a value is no table"),
            };
            if news {
                self.prose(&format!("{}{note}", key.meaning()));
            }
            if news || set.is_some() || matches!(key.default, Default::Required(_)) {
                let _infallible = writeln!(self.text, "#{} = {value}", key.name);
            }
        }
        for key in tables {
            let (KeyKind::Table(keys) | KeyKind::OptionalTable(keys)) = (key.kind)() else { continue };
            let left = keys
                .iter()
                .any(|inner| applies(inner, keys, example) && !self.shown.contains(&(keys.as_ptr(), inner.name)));
            if left {
                self.prose(&key.meaning());
                self.table(&format!("{path}.{}", key.name), keys, example);
            }
        }
    }
}

fn set(example: &Example, key: &str) -> Option<&'static str> {
    example.set.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
}

fn applies(key: &Key, keys: &'static [Key], example: Option<&Example>) -> bool {
    if example.is_some_and(|example| example.leave.contains(&key.name)) {
        return false;
    }
    let Some(when) = key.only_when else { return true };
    let chosen = example.and_then(|example| set(example, when.key)).or_else(|| {
        keys.iter().find(|other| other.name == when.key).and_then(|other| match other.default {
            Default::Is(text) => Some(text),
            _ => None,
        })
    });
    chosen.is_some_and(|text| when.is.contains(&text.trim_matches('"')))
}

/// Every key as markdown tables.
pub fn markdown() -> String {
    let mut text = String::new();
    for key in Written::KEYS {
        match (key.kind)() {
            KeyKind::Table(keys) => markdown_table(&mut text, key.name, key, keys),
            KeyKind::Named(keys) => markdown_table(&mut text, &format!("{}.NAME", key.name), key, keys),
            KeyKind::Value(_) | KeyKind::OptionalTable(_) => unreachable!("the root has tables only"),
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn markdown_table(text: &mut String, path: &str, about: &Key, keys: &'static [Key]) {
    let _infallible = write!(text, "#### `[{path}]`\n\n{}{}\n\n", about.meaning(), condition(about));
    text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let KeyKind::Value(kind) = (key.kind)() else { continue };
        let default = match key.default {
            Default::Is(text) => format!("`{text}`"),
            Default::Required(_) => "required".into(),
            Default::Absent { then, .. } => then.into(),
            Default::Table => unreachable!("a value is no table"),
        };
        let row = [format!("`{}`", key.name), kind, default, format!("{}{}", key.meaning(), condition(key))];
        let _infallible = writeln!(text, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    text.push('\n');
    for key in keys {
        if let KeyKind::Table(inner) | KeyKind::OptionalTable(inner) = (key.kind)() {
            markdown_table(text, &format!("{path}.{}", key.name), key, inner);
        }
    }
}

fn condition(key: &Key) -> String {
    key.only_when.map_or_else(String::new, |when| format!(" (Only for `{}`.)", when.text()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    #[cfg(feature = "lua")]
    use crate::config::model::Config;

    fn uncommented() -> String {
        let live = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        defaults().lines().filter(|line| live(line)).map(|line| format!("{}\n", &line[1..])).collect()
    }

    /// A folder with every file that the examples name.
    #[cfg(feature = "lua")]
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        for (name, text) in [
            ("handler.php", "<?php"),
            ("codec.lua", ""),
            ("fullchain.pem", &certificate),
            ("clients-ca.pem", &certificate),
            ("privkey.pem", &key),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        std::fs::create_dir(folder.path().join("public")).unwrap();
        folder
    }

    fn walk(keys: &'static [Key], visit: &mut impl FnMut(&'static Key)) {
        for key in keys {
            visit(key);
            match (key.kind)() {
                KeyKind::Table(keys) | KeyKind::OptionalTable(keys) | KeyKind::Named(keys) => walk(keys, visit),
                KeyKind::Value(_) => {}
            }
        }
    }

    // A build without Lua refuses the example of a Lua framing, which all builds print.
    #[cfg(feature = "lua")]
    #[test]
    fn the_defaults_are_valid_toml_and_uncommented_they_run() {
        let folder = folder();
        let script = folder.path().join("handler.php");
        let text = uncommented().replace("/srv/chat", &folder.path().display().to_string());
        let (config, _) =
            Config::parse(&text, Path::new("longwire.toml")).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        assert_eq!((config.listeners.len(), config.apps.len(), config.upstreams.len()), (5, 1, 2));
        assert_eq!(config.apps[0].script, script);
    }

    #[cfg(feature = "lua")]
    #[test]
    fn what_is_printed_as_default_is_the_default() {
        let folder = folder();
        let full = uncommented().replace("/srv/chat", &folder.path().display().to_string());
        // The same file without every line that repeats a default.
        let mut repeats = Vec::new();
        walk(Written::KEYS, &mut |key| {
            if let Default::Is(text) = key.default {
                repeats.push(format!("{} = {text}", key.name));
            }
        });
        let short: String =
            full.lines().filter(|line| !repeats.iter().any(|r| r == line)).map(|line| format!("{line}\n")).collect();
        assert!(short.lines().count() < full.lines().count() / 2);
        let parse = |text: &str| Config::parse(text, Path::new("longwire.toml")).unwrap().0;
        assert_eq!(parse(&full), parse(&short));
    }

    #[test]
    fn every_key_is_in_both_documents_with_its_meaning() {
        let (defaults, markdown) = (uncommented(), markdown());
        walk(Written::KEYS, &mut |key| {
            assert!(key.meaning().ends_with('.'), "{}: {}", key.name, key.meaning());
            if matches!((key.kind)(), KeyKind::Value(_)) {
                assert!(defaults.contains(&format!("{} = ", key.name)), "{}", key.name);
                assert!(markdown.contains(&format!("| `{}` |", key.name)), "{}", key.name);
                assert!(markdown.contains(&key.meaning().replace('|', "\\|")), "{}", key.name);
            }
        });
    }

    /// Set `LONGWIRE_BLESS=1` to write the tables again.
    #[test]
    fn readme_has_the_tables_of_this_version() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let readme = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = ("<!-- config:begin -->\n", "<!-- config:end -->");
        let from = readme.find(begin).expect("README.md has the first marker") + begin.len();
        let to = from + readme[from..].find(end).expect("README.md has the second marker");
        let wanted = format!("\n{}\n", markdown());
        if std::env::var_os("LONGWIRE_BLESS").is_some() {
            std::fs::write(&path, format!("{}{wanted}{}", &readme[..from], &readme[to..])).unwrap();
        } else {
            assert_eq!(&readme[from..to], wanted, "LONGWIRE_BLESS=1 cargo test --lib config writes the tables anew");
        }
    }
}
