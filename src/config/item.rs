//! A value of the file as it was written, with its key, and the functions that report a wrong one.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Report, join};

/// A value to be read, and the dotted key that leads to it.
#[derive(Clone)]
pub(super) struct Item<'a> {
    pub key: String,
    pub value: &'a DeValue<'a>,
    pub span: Range<usize>,
    /// Messages do not show it.
    pub is_secret: bool,
}

impl<'a> Item<'a> {
    pub(super) fn new(key: String, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { key, span: value.span(), value: value.get_ref(), is_secret: false }
    }

    /// A part of this value.
    pub(super) fn within(&self, key: String, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { is_secret: self.is_secret, ..Self::new(key, value) }
    }

    /// The entries of a table in the order written; `None` if this is not a table.
    pub(super) fn entries(&self) -> Option<Vec<(&'a str, Item<'a>)>> {
        let entries = self.value.as_table().map(|table| entries(&self.key, table))?;
        Some(entries.into_iter().map(|(name, item)| (name, Item { is_secret: self.is_secret, ..item })).collect())
    }
}

pub(super) fn entries<'a>(path: &str, table: &'a DeTable<'a>) -> Vec<(&'a str, Item<'a>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
        .into_iter()
        .map(|(key, value)| {
            let name: &str = key.get_ref();
            let mut item = Item::new(join(path, name), value);
            if item.value.is_table() {
                // The span of a table is its header, or empty if the table comes only from dotted keys.
                item.span = key.span();
            }
            (name, item)
        })
        .collect()
}

impl Report<'_> {
    /// Reports a value that breaks `rule`.
    pub(super) fn refuse(&mut self, item: &Item<'_>, rule: impl Into<String>) {
        let place = self.place_of(item);
        self.error(&place, rule);
    }

    /// The place of a value. It includes the value itself, unless that is a table or may be a secret.
    pub(super) fn place_of(&self, item: &Item<'_>) -> Place {
        match item.value {
            DeValue::Table(_) => self.table_place(&item.key, item.span.clone()),
            _ if item.is_secret => self.table_place(&item.key, item.span.clone()),
            _ => self.place(&item.key, item.span.clone()),
        }
    }

    /// Reports a key that should not be there. Its value does not matter, and may be a secret.
    pub(super) fn refuse_key(&mut self, item: &Item<'_>, rule: impl Into<String>) {
        let place = self.table_place(&item.key, item.span.clone());
        self.error(&place, rule);
    }

    /// Reports a value that has another type than `wanted`.
    pub(super) fn wrong_type(&mut self, item: &Item<'_>, wanted: &str) {
        let came = match item.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.refuse(item, format!("must be {wanted}, this is {came}"));
    }
}
