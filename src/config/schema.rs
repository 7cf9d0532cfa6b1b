//! The one description of every key, and the reader that uses it.
//!
//! A table of the configuration is declared once, with `config_table!`: each key with its type, its default as TOML text
//! and, as its doc comment, its meaning. That declaration produces the struct for the written values, the
//! reader that fills it, the refusal of unknown keys, `longwire defaults` and the tables in README.md, so these
//! cannot contradict each other. A default is parsed by the same code as a written value.
//!
//! The rules of single values are in `value`. Rules that span two keys are in `resolve`, except
//! `only when`, which is part of a key's description.

use toml::de::{DeTable, DeValue};

use super::aliases;
use super::item::{Item, entries};
use super::problem::{Place, Report, join, nearest};
use super::value::Value;

/// One key of one table.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub name: &'static str,
    pub default: Default,
    /// The doc comment, from which `longwire defaults` and README.md are made.
    pub doc: &'static str,
    pub only_when: Option<OnlyWhen>,
    pub kind: fn() -> KeyKind,
    /// The value may be a secret: messages do not show it.
    pub is_secret: bool,
}

impl Key {
    /// One sentence for operators.
    pub(super) fn meaning(&self) -> String {
        self.doc.trim().replace("  ", " ")
    }
}

/// The key of a field's name: `type` is written `r#type` in Rust.
pub(super) const fn bare(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', rest @ ..] => match str::from_utf8(rest) {
            Ok(name) => name,
            Err(_) => field,
        },
        _ => field,
    }
}

/// The value of a key that the operator does not write.
#[derive(Clone, Copy)]
pub(super) enum Default {
    /// This TOML value.
    Is(&'static str),
    /// None: the key must be written. The text is an example.
    Required(&'static str),
    /// None: `then` says what happens without the key, and `example` shows what could be written.
    Absent { then: &'static str, example: &'static str },
    /// A table, whose keys have their own defaults.
    Table,
}

pub(super) const fn is(toml: &'static str) -> Default {
    Default::Is(toml)
}

pub(super) const fn required(example: &'static str) -> Default {
    Default::Required(example)
}

pub(super) const fn absent(then: &'static str, example: &'static str) -> Default {
    Default::Absent { then, example }
}

pub(super) const fn table() -> Default {
    Default::Table
}

/// A condition: a key makes sense only beside certain values of its neighbour.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct OnlyWhen {
    pub key: &'static str,
    pub is: &'static [&'static str],
}

impl OnlyWhen {
    /// The condition, as it is written in a file: `type = "length" or "delimiter"`.
    pub(super) fn text(&self) -> String {
        let values: Vec<_> = self.is.iter().map(|value| format!("{value:?}")).collect();
        format!("{} = {}", self.key, values.join(" or "))
    }
}

/// The kind of value that a key holds.
pub(super) enum KeyKind {
    /// A value; the text completes "must be".
    Value(String),
    /// A table with these keys; it may be left out.
    Table(&'static [Key]),
    /// A table whose mere presence has an effect.
    OptionalTable(&'static [Key]),
    /// Tables with these keys under names of the operator's choice.
    Named(&'static [Key]),
}

/// A value with its place; the place is `None` for a default.
#[derive(Clone, Debug)]
pub(super) struct Entry<T> {
    pub value: T,
    pub place: Option<Place>,
}

/// One table while its keys are read.
pub(super) struct Section<'a> {
    pub place: Place,
    /// The keys of the whole file, to say where a key belongs.
    root: &'static [Key],
    entries: Vec<(&'a str, Item<'a>)>,
}

impl<'a> Section<'a> {
    /// The whole file, which may have these keys.
    pub(super) fn root(tree: &'a DeTable<'a>, root: &'static [Key]) -> Self {
        let place = Place { line: 1, key: String::new(), value: String::new() };
        Self { place, root, entries: entries("", tree) }
    }

    /// The value of `key`, if it is written.
    pub(super) fn get(&self, key: &str) -> Option<&Item<'a>> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, item)| item)
    }

    /// The value of `key`, marked if it may be a secret.
    fn written(&self, key: &Key) -> Option<Item<'a>> {
        self.get(key.name).map(|item| Item { is_secret: key.is_secret, ..item.clone() })
    }

    fn absent(&self, key: &str) -> Self {
        Self { place: self.place.missing(key), root: self.root, entries: Vec::new() }
    }

    fn below(&self, item: &Item<'a>, report: &mut Report<'_>) -> Option<Self> {
        match item.entries() {
            Some(entries) => {
                let place = report.table_place(&item.key, item.span.clone());
                Some(Self { place, root: self.root, entries })
            }
            None => {
                report.wrong_type(item, "a table");
                None
            }
        }
    }

    /// Reports keys that are not among `keys`, and keys that do not fit their neighbours.
    pub(super) fn check_keys(&self, keys: &'static [Key], report: &mut Report<'_>) {
        self.check_forgotten(keys, report);
        for (name, item) in &self.entries {
            match keys.iter().find(|key| key.name == *name) {
                None => {
                    let homes = homes_of(name, "", self.root);
                    let near = match self.meant(name, keys) {
                        Some(key) => format!(", did you mean \"{key}\"?"),
                        None => String::new(),
                    };
                    let hint = match homes.is_empty() || !near.is_empty() {
                        true => near,
                        false => format!(", it belongs in {}", homes.join(" or ")),
                    };
                    report.refuse_key(item, format!("unknown key{hint}"));
                }
                Some(key) if !self.applies(key, keys) && !self.is_undecided(key, keys) => {
                    let when = key.only_when.expect("a key without a condition always applies");
                    if self.waiting(keys).contains(&when) {
                        continue;
                    }
                    let item = Item { is_secret: key.is_secret, ..item.clone() };
                    report.refuse(&item, format!("only for {}", when.text()));
                }
                Some(_) => {}
            }
        }
    }

    /// Reports a missing key that other keys need: `routes` without `protocol = "http"`.
    fn check_forgotten(&self, keys: &'static [Key], report: &mut Report<'_>) {
        for when in self.waiting(keys) {
            let is_mistyped =
                keys.iter().find(|key| key.name == when.key).is_some_and(|key| self.is_mistyped(key, keys));
            if !is_mistyped {
                let names: Vec<&str> = self.conditional(keys, when).collect();
                let verb = if names.len() == 1 { "needs" } else { "need" };
                let rule = format!("missing: {} {verb} {}", names.join(", "), when.text());
                report.error(&self.place.missing(when.key), rule);
            }
        }
    }

    /// Conditions of written keys whose deciding key is not written. If written keys need different values of it, none is returned.
    fn waiting(&self, keys: &'static [Key]) -> Vec<OnlyWhen> {
        let mut conditions: Vec<OnlyWhen> = Vec::new();
        for when in keys.iter().filter_map(|key| key.only_when) {
            if !conditions.contains(&when)
                && self.get(when.key).is_none()
                && self.conditional(keys, when).next().is_some()
            {
                conditions.push(when);
            }
        }
        let contradicts = |when: &OnlyWhen, other: &OnlyWhen| {
            when.key == other.key && !when.is.iter().any(|value| other.is.contains(value))
        };
        let is_alone = |when: &OnlyWhen| !conditions.iter().any(|other| contradicts(when, other));
        let is_default =
            |when: &OnlyWhen| keys.iter().all(|key| key.only_when != Some(*when) || self.applies(key, keys));
        conditions.iter().copied().filter(|when| is_alone(when) && !is_default(when)).collect()
    }

    /// The written keys that have this condition.
    fn conditional(&self, keys: &'static [Key], when: OnlyWhen) -> impl Iterator<Item = &'static str> {
        let conditional = keys.iter().filter(move |key| key.only_when == Some(when));
        conditional.map(|key| key.name).filter(move |name| self.get(name).is_some())
    }

    /// Whether an unknown key was probably meant to be `key`: then one error is enough.
    fn is_mistyped(&self, key: &Key, keys: &'static [Key]) -> bool {
        let unknown = self.entries.iter().filter(|(name, _)| keys.iter().all(|key| key.name != *name));
        unknown.into_iter().any(|(name, _)| self.meant(name, keys) == Some(key.name))
    }

    /// The key that an unknown one was probably meant to be. It is found as a name from another system that none of our tables has, or
    /// by its spelling.
    fn meant(&self, name: &str, keys: &'static [Key]) -> Option<&'static str> {
        let known = keys.iter().map(|key| key.name);
        let alias = aliases::key(name, known.clone()).filter(|_| homes_of(name, "", self.root).is_empty());
        alias.or_else(|| nearest(name, known))
    }

    /// Whether the key that decides about this one has an invalid value. That is reported, and enough.
    fn is_undecided(&self, key: &Key, keys: &'static [Key]) -> bool {
        let Some(when) = key.only_when else { return false };
        let Some(DeValue::String(text)) = self.get(when.key).map(|item| item.value) else { return false };
        let deciding = keys.iter().find(|key| key.name == when.key).map(|key| (key.kind)());
        matches!(deciding, Some(KeyKind::Value(words)) if !words.contains(&format!("{text:?}")))
    }

    /// Whether `key` makes sense beside the other written keys.
    fn applies(&self, key: &Key, keys: &'static [Key]) -> bool {
        let Some(when) = key.only_when else { return true };
        match self.get(when.key).map(|item| item.value) {
            Some(DeValue::String(text)) => when.is.iter().any(|is| text == is),
            // Not a string: that is reported elsewhere.
            Some(_) => true,
            None => keys.iter().any(|other| {
                other.name == when.key
                    && matches!(other.default, Default::Is(text) if when.is.contains(&text.trim_matches('"')))
            }),
        }
    }
}

/// The tables that have this key.
fn homes_of(name: &str, path: &str, keys: &'static [Key]) -> Vec<String> {
    let is_here = keys.iter().any(|key| key.name == name) && !path.is_empty();
    let here = is_here.then(|| format!("[{path}]"));
    let below = keys.iter().flat_map(|key| match (key.kind)() {
        KeyKind::Value(_) => Vec::new(),
        KeyKind::Table(inner) | KeyKind::OptionalTable(inner) => homes_of(name, &join(path, key.name), inner),
        KeyKind::Named(inner) => homes_of(name, &format!("{}.NAME", join(path, key.name)), inner),
    });
    here.into_iter().chain(below).collect()
}

/// Implemented by `config_table!`.
pub(super) trait Table: Sized {
    const KEYS: &'static [Key];

    /// Reads the written values and fills in defaults. Problems go to `report`, and reading goes on.
    fn read(section: &Section<'_>, report: &mut Report<'_>) -> Self;
}

/// The kinds of fields: a value with a default, one without, a table, named tables.
pub(super) trait Field: Sized {
    const IS_SECRET: bool = false;

    fn kind() -> KeyKind;
    fn read(section: &Section<'_>, key: &Key, keys: &'static [Key], report: &mut Report<'_>) -> Self;
}

impl<T: Value> Field for Entry<T> {
    const IS_SECRET: bool = T::IS_SECRET;

    fn kind() -> KeyKind {
        KeyKind::Value(T::kind())
    }

    fn read(section: &Section<'_>, key: &Key, _: &'static [Key], report: &mut Report<'_>) -> Self {
        if let Some(item) = section.written(key)
            && let Some(value) = T::read(&item, report)
        {
            return Self { value, place: Some(report.place_of(&item)) };
        }
        let Default::Is(text) = key.default else { unreachable!("an entry without a default is an Option") };
        Self { value: default_value(key.name, text), place: None }
    }
}

impl<T: Value> Field for Option<Entry<T>> {
    const IS_SECRET: bool = T::IS_SECRET;

    fn kind() -> KeyKind {
        KeyKind::Value(T::kind())
    }

    fn read(section: &Section<'_>, key: &Key, keys: &'static [Key], report: &mut Report<'_>) -> Self {
        let Some(item) = section.written(key) else {
            if let Default::Required(example) = key.default
                && section.applies(key, keys)
                && !section.is_undecided(key, keys)
                && !section.is_mistyped(key, keys)
            {
                // If the deciding key is not written, it may be the missing one.
                let unwritten = key.only_when.filter(|when| section.get(when.key).is_none());
                let (deciding, hint) = match unwritten {
                    Some(OnlyWhen { key, is }) => (key, format!("; {key} is \"{}\" by default", is.join("\" or \""))),
                    None => ("", String::new()),
                };
                if !section.waiting(keys).iter().any(|when| when.key == deciding) {
                    let rule = format!("missing, for example {} = {example}{hint}", key.name);
                    report.error(&section.place.missing(key.name), rule);
                }
            }
            return None;
        };
        let place = Some(report.place_of(&item));
        T::read(&item, report).map(|value| Entry { value, place })
    }
}

impl<T: Table> Field for T {
    fn kind() -> KeyKind {
        KeyKind::Table(T::KEYS)
    }

    fn read(section: &Section<'_>, key: &Key, _: &'static [Key], report: &mut Report<'_>) -> Self {
        let written = section.get(key.name).and_then(|item| section.below(item, report));
        T::read(&written.unwrap_or_else(|| section.absent(key.name)), report)
    }
}

/// A table whose mere presence has an effect.
#[derive(Clone, Debug)]
pub(super) struct IfWritten<T>(pub Option<T>);

impl<T: Table> Field for IfWritten<T> {
    fn kind() -> KeyKind {
        KeyKind::OptionalTable(T::KEYS)
    }

    fn read(section: &Section<'_>, key: &Key, _: &'static [Key], report: &mut Report<'_>) -> Self {
        let written = section.get(key.name).and_then(|item| section.below(item, report));
        Self(written.map(|section| T::read(&section, report)))
    }
}

/// Tables under names of the operator's choice, in the order written.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(pub Vec<(String, T)>);

impl<T: Table> Field for Named<T> {
    fn kind() -> KeyKind {
        KeyKind::Named(T::KEYS)
    }

    fn read(section: &Section<'_>, key: &Key, _: &'static [Key], report: &mut Report<'_>) -> Self {
        let Some(item) = section.get(key.name) else { return Self(Vec::new()) };
        let Some(entries) = item.entries() else {
            report.wrong_type(item, &format!("a table of tables: [{}.NAME]", key.name));
            return Self(Vec::new());
        };
        let mut named = Vec::new();
        for (name, item) in entries {
            if !is_name(name) {
                report.error(
                    &report.table_place(&item.key, item.span.clone()),
                    "a name is 1 to 64 characters of A-Z a-z 0-9 . _ -",
                );
            }
            if let Some(section) = section.below(&item, report) {
                named.push((name.to_owned(), T::read(&section, report)));
            }
        }
        Self(named)
    }
}

/// Names go into params, log lines and metric labels.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
}

fn default_value<T: Value>(key: &str, text: &str) -> T {
    let parsed = DeValue::parse(text).unwrap_or_else(|error| panic!("default of {key} is not TOML: {error}"));
    let mut report = Report::new(std::path::Path::new("default"), text);
    T::read(&Item::new(key.to_owned(), &parsed), &mut report)
        .unwrap_or_else(|| panic!("default of {key} breaks its own rule"))
}
